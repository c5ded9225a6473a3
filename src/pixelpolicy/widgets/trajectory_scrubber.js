// The trajectory scrubber: one slider, the picture at each state, a bar for each step.

const NARROWEST = 22; // pixels of a thumbnail that can still be told and touched

function make(tag, name, parent, properties = {}) {
  const node = document.createElement(tag);
  node.className = `pixelpolicy-scrubber-${name}`;
  Object.assign(node, properties);
  parent.append(node);
  return node;
}

// Three significant digits of the largest bar, the same for all, so that numbers line up.
function formatter(largest) {
  const digits = Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(largest || 1))));
  return (x) => x.toFixed(digits).replace(/^-(?=.*[1-9])/, "\u2212").replace(/^-/, "");
}

function render({ model, el }) {
  const sprites = model.get("sprites");
  const values = model.get("values");
  const labels = model.get("labels");
  const [width, height, columns] = model.get("grid");
  const valueName = model.get("value_name");
  const alt = model.get("alt");
  const caption = model.get("caption");
  const last = labels.length - 1;
  const finite = values.flat().filter((v) => v !== null);
  const top = Math.max(0, ...finite);
  const bottom = Math.min(0, ...finite);
  const range = top - bottom || 1;
  const show = formatter(Math.max(top, -bottom));

  const root = make("figure", "root", el);
  root.classList.add("pixelpolicy-paper");
  root.setAttribute("aria-label", caption || "Trajectory of a sample");
  root.style.setProperty("--states", labels.length);
  const body = make("div", "body", root);
  const picture = make("canvas", "picture", body, { width, height });
  picture.setAttribute("role", "img");
  picture.style.width = `${Math.max(1, Math.floor(288 / width)) * width}px`;
  const panel = make("div", "panel", body);

  let chooser = null;
  if (sprites.length > 1) {
    chooser = make("select", "chooser", make("label", "choice", panel, { textContent: "Sample" }));
    model.get("names").forEach((name, i) => chooser.add(new Option(name, i)));
    chooser.addEventListener("change", () => go("sample", Number(chooser.value)));
  }
  const readout = make("p", "readout", panel);
  const place = make("strong", "place", readout);
  const spent = make("span", "spent", readout);

  const slider = make("input", "slider", make("div", "track", panel), { type: "range", min: 0, max: last, step: 1 });
  slider.setAttribute("aria-label", "State of the trajectory");
  slider.addEventListener("input", () => go("step", Number(slider.value)));

  // Thumbnails and bars are one surface to press and drag on; the slider is what keys and screen readers use.
  const strip = make("div", "strip", panel);
  const thumbs = make("div", "thumbs", strip);
  thumbs.setAttribute("aria-hidden", "true");
  const thumbnails = labels.map((label) => make("canvas", "thumb", thumbs, { width, height, title: label }));
  make("p", "axis", strip, { textContent: `${valueName}: one bar a step, under the state it led to` });
  const chart = make("div", "chart", strip);
  chart.setAttribute("role", "img");
  for (const [level, name] of [[top, "top"], [0, "zero"], [bottom, "bottom"]]) {
    const y = (top - level) / range;
    if (name === "zero" || Math.abs(level) > 0.15 * range) {
      make("span", "tick", chart, { textContent: show(level) }).style.top = `${100 * y}%`;
    }
    if (name === "zero") make("div", "zero", chart).style.top = `${100 * y}%`;
  }
  const bars = labels.slice(1).map((_, i) => {
    const column = make("div", "column", chart);
    column.style.gridColumn = i + 2;
    return { column, bar: make("div", "bar", column) };
  });
  if (finite.length < values.flat().length) {
    const legend = make("p", "legend", panel);
    make("span", "hatch", legend).setAttribute("aria-hidden", "true");
    legend.append("deterministic step: no density");
  }
  if (caption) make("figcaption", "caption", root, { textContent: caption });

  const sheets = sprites.map((source) => Object.assign(new Image(), { src: source }));
  const ready = (sheet) => sheet.complete && sheet.naturalWidth > 0;

  function paint(canvas, sheet, state) {
    const [x, y] = [(state % columns) * width, Math.floor(state / columns) * height];
    canvas.getContext("2d").drawImage(sheet, x, y, width, height, 0, 0, width, height);
  }

  function drawPicture() {
    const sheet = sheets[model.get("sample")];
    if (ready(sheet)) paint(picture, sheet, model.get("step"));
  }

  function drawStep() {
    const step = model.get("step");
    const row = values[model.get("sample")];
    drawPicture();
    const value = row[step - 1];
    const total = row.slice(0, step).reduce((sum, v) => sum + (v ?? 0), 0);
    const cost = step === 0 ? "no step yet" : `this step ${value === null ? "no density" : show(value)}`;
    place.textContent = `State ${step} of ${last}, ${labels[step]}`;
    spent.textContent = `${cost}; so far ${show(total)}`;
    slider.value = step;
    slider.setAttribute("aria-valuetext", `${step} of ${last}, ${labels[step]}; ${spent.textContent}`);
    picture.setAttribute("aria-label", `${alt} (state ${step} of ${last}, ${labels[step]})`);
    bars.forEach(({ column }, i) => {
      column.classList.toggle("now", i + 1 === step);
      column.classList.toggle("ahead", i + 1 > step);
    });
    markThumbnail();
  }

  function drawSample() {
    const sample = model.get("sample");
    const sheet = sheets[sample];
    if (chooser) chooser.value = sample;
    if (ready(sheet)) thumbnails.forEach((canvas, i) => paint(canvas, sheet, i));
    else sheet.addEventListener("load", drawSample, { once: true });
    bars.forEach(({ column, bar }, i) => {
      const value = values[sample][i];
      column.classList.toggle("none", value === null);
      column.title = `step ${i + 1}: ${value === null ? "no density" : show(value)}`;
      bar.style.top = `${(100 * (top - Math.max(0, value))) / range}%`;
      bar.style.height = `${(100 * Math.abs(value)) / range}%`;
    });
    const each = values[sample].map((v, i) => `step ${i + 1} ${v === null ? "no density" : show(v)}`);
    chart.setAttribute("aria-label", `${valueName}: ${each.join(", ")}`);
    drawStep();
  }

  // Where columns are too narrow, every few states share a thumbnail: that of the last among them.
  let shared = 1;
  function markThumbnail() {
    const step = model.get("step");
    const shown = last - Math.floor((last - step) / shared) * shared;
    thumbnails.forEach((canvas, i) => canvas.classList.toggle("now", i === shown));
  }
  function arrange() {
    shared = Math.max(1, Math.ceil((NARROWEST * labels.length) / (thumbs.clientWidth || Infinity)));
    thumbnails.forEach((canvas, i) => {
      canvas.hidden = (last - i) % shared !== 0;
      canvas.style.gridColumn = `${Math.max(1, i - shared + 2)} / ${i + 2}`;
    });
    markThumbnail();
  }
  const watch = new ResizeObserver(arrange);
  watch.observe(thumbs);

  function go(trait, value) {
    if (model.get(trait) === value) return;
    model.set(trait, value);
    model.save_changes();
  }

  function press(event) {
    if (event.type === "pointerdown") {
      if (event.button !== 0) return;
      strip.setPointerCapture(event.pointerId);
    } else if (!strip.hasPointerCapture(event.pointerId)) return;
    const box = thumbs.getBoundingClientRect();
    const state = Math.floor(((event.clientX - box.left) / box.width) * labels.length);
    go("step", Math.min(last, Math.max(0, state)));
  }
  strip.addEventListener("pointerdown", press);
  strip.addEventListener("pointermove", press);
  strip.addEventListener("mousedown", (event) => {
    event.preventDefault(); // else the press would take the focus away again
    slider.focus({ preventScroll: true });
  });

  // On the window, before JupyterLab's own listener: its notebook would take the arrows to walk among cells.
  function key(event) {
    if (event.composedPath()[0] !== slider || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const step = model.get("step");
    const to = { ArrowLeft: step - 1, ArrowDown: step - 1, ArrowRight: step + 1, ArrowUp: step + 1, Home: 0, End: last }[
      event.key
    ];
    if (to === undefined) return;
    event.preventDefault();
    go("step", Math.min(last, Math.max(0, to)));
  }
  window.addEventListener("keydown", key, true);

  model.on("change:step", drawStep);
  model.on("change:sample", drawSample);
  drawSample();
  return () => {
    window.removeEventListener("keydown", key, true);
    watch.disconnect();
    model.off("change:step", drawStep);
    model.off("change:sample", drawSample);
  };
}

export default { render };
