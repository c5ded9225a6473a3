// What the explorers share: sliders that keep their keys, charts drawn anew at each change, words for who listens.

function make(tag, name, parent, properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  node.className = `pixelpolicy-explorer-${name}`;
  parent.append(node);
  return node;
}

function draw(tag, kind, parent, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (kind) node.setAttribute("class", kind);
  node.textContent = text;
  parent.append(node);
  return node;
}

// A number to read: no minus before zero, and a real minus elsewhere.
function written(x, digits = 2) {
  return x.toFixed(digits).replace(/^-(?=.*[1-9])/, "\u2212").replace(/^-/, "");
}

// Three significant digits, for what runs over decades.
function brief(x) {
  return written(x, Math.max(0, 2 - Math.floor(Math.log10(Math.max(Math.abs(x), 1e-3)))));
}

function ticks(low, high, most = 5) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) {
    found.push([k * step, written(k * step, digits)]);
  }
  return found;
}

// The lines of a chart's frame; gives what turns a number into a place.
function frame(svg, width, height, { x, y, xTicks, yTicks, xName = "" }) {
  const [left, right, top, bottom] = [44, width - 10, 8, height - (xName ? 36 : 22)];
  const X = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left);
  const Y = (value) => bottom - ((value - y[0]) / (y[1] - y[0])) * (bottom - top);
  for (const [value, label] of yTicks ?? ticks(...y, 6)) {
    draw("line", value === 0 ? "zero" : "grid", svg, { x1: left, x2: right, y1: Y(value), y2: Y(value) });
    draw("text", "tick", svg, { x: left - 6, y: Y(value) + 4, "text-anchor": "end" }, label);
  }
  for (const [value, label] of xTicks ?? ticks(...x)) {
    draw("line", "zero", svg, { x1: X(value), x2: X(value), y1: bottom, y2: bottom + 4 });
    draw("text", "tick", svg, { x: X(value), y: bottom + 16, "text-anchor": "middle" }, label);
  }
  draw("line", "zero", svg, { x1: left, x2: right, y1: bottom, y2: bottom });
  if (xName) draw("text", "name", svg, { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, xName);
  const at = (clientX) => x[0] + ((clientX - svg.getBoundingClientRect().left - left) / (right - left)) * (x[1] - x[0]);
  return { X, Y, left, right, top, bottom, at };
}

function line(points) {
  return points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ");
}

// How a trait's value stands on the way of its handle, and back.
const LINEAR = { to: (value) => value, from: (place) => Number(place.toFixed(9)) };
const DECADES = { to: Math.log10, from: (place) => 10 ** place };

// `kind` is a class of the root, for the marks that one widget alone has: several may stand on a page.
function explorer({ model, el }, kind) {
  const limits = model.get("limits");
  const root = make("figure", "root", el);
  root.classList.add("pixelpolicy-paper", kind);
  root.setAttribute("aria-label", model.get("alt"));
  const body = make("div", "body", root);
  const said = make("p", "said", root);
  said.setAttribute("role", "status");
  if (model.get("caption")) make("figcaption", "caption", root, { textContent: model.get("caption") });
  const [sliders, parts, charts] = [new Map(), [], []];

  function set(trait, value) {
    if (model.get(trait) === value) return;
    model.set(trait, value);
    model.save_changes();
  }

  function section(parent, title) {
    const node = make("section", "section", parent);
    make("p", "title", node, { textContent: title });
    return node;
  }

  function slider(parent, trait, name, says, scale = LINEAR) {
    const [least, most, step] = limits[trait];
    const [low, high] = [scale.to(least), scale.to(most)];
    const label = make("label", "control", parent);
    make("span", "what", label, { textContent: name });
    const value = make("span", "value", label);
    value.setAttribute("aria-hidden", "true"); // the slider says it
    const input = make("input", "slider", label, { type: "range" });
    Object.assign(input, { min: low, max: high, step: scale === LINEAR ? step : "any" });
    const go = (place) => {
      const wanted = scale.from(Math.min(high, Math.max(low, place)));
      set(trait, Math.min(most, Math.max(least, wanted)));
    };
    input.addEventListener("input", () => go(Number(input.value)));
    sliders.set(input, (key) => {
      const place = scale.to(model.get(trait)) / step;
      const jump = Math.max(1, Math.round((high - low) / step / 10));
      // the next place of the grid, also from between two
      const [up, down] = [Math.floor(place + 1 + 1e-6), Math.ceil(place - 1 - 1e-6)];
      const to = {
        ArrowRight: up, ArrowUp: up, ArrowLeft: down, ArrowDown: down, PageUp: up - 1 + jump, PageDown: down + 1 - jump,
        Home: low / step, End: high / step,
      }[key];
      if (to !== undefined) go(to * step);
      return to !== undefined;
    });
    parts.push(() => {
      const text = says(model.get(trait));
      value.textContent = text;
      input.value = scale.to(model.get(trait));
      input.setAttribute("aria-valuetext", text);
    });
    return { input, go };
  }

  function checkbox(parent, trait, name) {
    const label = make("label", "check", parent);
    const input = make("input", "box", label, { type: "checkbox" });
    label.append(name);
    input.addEventListener("change", () => set(trait, input.checked));
    parts.push(() => (input.checked = model.get(trait)));
  }

  // `paint(svg, width, height)` draws, and returns what the chart shows, in words. Names may change with the state.
  function chart(parent, title, height, paint) {
    const name = make("p", "axis", parent);
    const svg = draw("svg", "pixelpolicy-explorer-chart", parent, { role: "img", height });
    charts.push(() => {
      const width = Math.max(160, svg.clientWidth || 320);
      name.textContent = typeof title === "function" ? title() : title;
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("aria-label", `${name.textContent}. ${paint(svg, width, height)}`);
    });
    return svg;
  }

  // What the marks of a chart are: pairs of a mark's kind and its name, or a function that gives them.
  function legend(parent, entries) {
    const list = make("ul", "legend", parent);
    parts.push(() => {
      list.replaceChildren();
      for (const [kind, name] of typeof entries === "function" ? entries() : entries) {
        const item = make("li", "entry", list);
        const mark = draw("svg", "pixelpolicy-explorer-mark", item, { width: 26, height: 12, "aria-hidden": "true" });
        if (kind.startsWith("bar")) draw("rect", kind, mark, { x: 6, y: 1, width: 14, height: 10 });
        else if (kind.startsWith("dot")) draw("circle", kind, mark, { cx: 13, cy: 6, r: 5 });
        else if (kind === "band") draw("rect", kind, mark, { x: 1, y: 1, width: 24, height: 10 });
        else draw("polyline", kind, mark, { points: "1,6 25,6" });
        item.append(name);
      }
    });
  }

  // Names and numbers in two columns; `<data>` keeps the whole number beside the short one.
  function readout(parent, rows) {
    const list = make("dl", "readout", parent);
    const values = rows.map(([name]) => {
      make("dt", "row", list, { textContent: name });
      return make("dd", "number", list);
    });
    parts.push(() => {
      rows.forEach(([, value, digits], i) => {
        const shown = value();
        const words = Array.isArray(shown) ? shown : [shown];
        values[i].replaceChildren();
        for (const word of words) {
          if (typeof word === "string") values[i].append(word);
          else make("data", "datum", values[i], { value: String(word), textContent: written(word, digits ?? 3) });
        }
      });
    });
  }

  // Pressing on a chart, or dragging along it, moves a slider; the slider has the focus then, for the keys.
  function drag(svg, at, control) {
    const press = (event) => {
      if (event.type === "pointerdown") {
        if (event.button !== 0) return;
        svg.setPointerCapture(event.pointerId);
      } else if (!svg.hasPointerCapture(event.pointerId)) return;
      control.input.value = at(event.clientX); // held to the slider's own steps
      control.go(Number(control.input.value));
    };
    svg.classList.add("pixelpolicy-explorer-draggable");
    svg.addEventListener("pointerdown", press);
    svg.addEventListener("pointermove", press);
    svg.addEventListener("mousedown", (event) => {
      event.preventDefault(); // else the press would take the focus away again
      control.input.focus({ preventScroll: true });
    });
  }

  // Only what has changed is said again.
  let before = [];
  function tell(sentences) {
    const changed = sentences.filter((sentence, i) => sentence !== before[i]);
    if (changed.length) said.textContent = changed.join(" ");
    before = sentences;
  }

  // On the window, before JupyterLab's own listener: its notebook would take the arrows to walk among cells.
  function key(event) {
    const move = sliders.get(event.composedPath()[0]);
    if (!move || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (move(event.key)) event.preventDefault();
  }

  // Calls `update` (which gives the sentences to say) and draws, now and whenever a trait changes, or `again` is called.
  let again = () => {};
  function live(traits, update) {
    const redraw = () => [...parts, ...charts].forEach((part) => part());
    const change = () => {
      const sentences = update();
      redraw();
      tell(sentences);
    };
    again = change;
    let width = 0;
    const watch = new ResizeObserver(() => {
      if (root.clientWidth === width) return;
      width = root.clientWidth;
      redraw();
    });
    change();
    watch.observe(root);
    traits.forEach((trait) => model.on(`change:${trait}`, change));
    window.addEventListener("keydown", key, true);
    return () => {
      window.removeEventListener("keydown", key, true);
      watch.disconnect();
      traits.forEach((trait) => model.off(`change:${trait}`, change));
    };
  }

  return { root, body, section, slider, checkbox, chart, legend, readout, drag, live, again: () => again() };
}
