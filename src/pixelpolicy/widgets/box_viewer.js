// The box viewer: a small painter of convex boxes with a depth buffer, turned by hand and by keys, played over frames.

const FACES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]];
const EYE = 4.5; // distance of the eye, in radii of the scene
const LIGHT = [0.35, 0.5, 0.79]; // from the viewer: right, up, towards the eye
const TURN = 6; // degrees a key turns
const VIEW = ["azimuth", "elevation", "zoom"];
const TILES = { light: [[238, 239, 241], [220, 222, 226]], dark: [[44, 48, 53], [60, 65, 71]] }; // of the floor

function make(tag, name, parent, properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  node.className = `pixelpolicy-boxes-${name}`;
  parent.append(node);
  return node;
}

function corners(box) {
  const found = [];
  for (const x of [-1, 1]) for (const y of [-1, 1]) for (const z of [-1, 1]) {
    found.push([0, 1, 2].map((k) => box[k] + x * box[3 + k] + y * box[6 + k] + z * box[9 + k]));
  }
  return found;
}

// The ball that holds every object at every frame, so that nothing jumps while it plays.
function bounds(objects) {
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  for (const frames of objects) for (const boxes of frames) for (const box of boxes) for (const p of corners(box)) {
    for (let k = 0; k < 3; k += 1) [low[k], high[k]] = [Math.min(low[k], p[k]), Math.max(high[k], p[k])];
  }
  const centre = low.map((v, k) => (v + high[k]) / 2);
  return { low, high, centre, radius: Math.hypot(...low.map((v, k) => high[k] - v)) / 2 || 1 };
}

// Dark and light tiles of a floor below the objects.
function floor({ low, high, radius }, height) {
  const side = 10 ** Math.floor(Math.log10(radius)) * (radius / 10 ** Math.floor(Math.log10(radius)) > 4 ? 1 : 0.5);
  const [a, b] = [0, 1].map((k) => [Math.floor(low[k] / side - 0.5), Math.ceil(high[k] / side + 0.5)]);
  const tiles = [];
  for (let i = a[0]; i < a[1]; i += 1) for (let j = b[0]; j < b[1]; j += 1) {
    const [x, y] = [i * side, j * side];
    const points = [[x, y, height], [x + side, y, height], [x + side, y + side, height], [x, y + side, height]];
    tiles.push({ points, dark: (i + j) % 2 !== 0 });
  }
  return tiles;
}

function camera({ azimuth, elevation, zoom }, { centre, radius }, width, height) {
  const [a, e] = [azimuth, elevation].map((degrees) => (degrees * Math.PI) / 180);
  const right = [-Math.sin(a), Math.cos(a), 0];
  const up = [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)];
  const near = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
  const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
  const scale = (zoom * 0.5 * Math.min(width, 1.05 * height) * EYE * 0.98) / 1.02;
  return {
    seen: (p) => {
      const q = p.map((v, k) => (v - centre[k]) / radius);
      const depth = EYE - dot(q, near);
      return { x: width / 2 + (scale * dot(q, right)) / depth, y: height / 2 - (scale * dot(q, up)) / depth, w: 1 / depth };
    },
    shade: (n) => 0.62 + 0.38 * Math.max(0, dot([dot(n, right), dot(n, up), dot(n, near)], LIGHT)),
  };
}

// Where a row crosses a convex face, drawn in by `rim`: the columns whose middles lie inside all its edges.
function span(edges, y, rim, low, high) {
  for (const [a, b, c] of edges) {
    const rest = b * (y + 0.5) + c - rim;
    if (Math.abs(a) < 1e-9) {
      if (rest < 0) return [0, -1];
    } else if (a > 0) low = Math.max(low, Math.ceil(-rest / a - 0.5));
    else high = Math.min(high, Math.floor(-rest / a - 0.5));
  }
  return [low, high];
}

// One convex face: its pixels that are nearer than what is there. 1 / depth is linear on the screen.
function fill({ width, height, pixels, depths }, points, colour, rim) {
  const ends = points.map((p, i) => [p, points[(i + 1) % points.length]]);
  if (ends.reduce((sum, [p, q]) => sum + p.x * q.y - q.x * p.y, 0) > -1e-6) return; // from behind, or edge on: y points down
  const edges = ends.map(([p, q]) => {
    const length = Math.hypot(q.x - p.x, q.y - p.y) || 1;
    const [a, b] = [(q.y - p.y) / length, (p.x - q.x) / length];
    return [a, b, -a * p.x - b * p.y];
  });
  const [o, p, q] = points;
  const det = (p.x - o.x) * (q.y - o.y) - (q.x - o.x) * (p.y - o.y);
  const wx = ((p.w - o.w) * (q.y - o.y) - (q.w - o.w) * (p.y - o.y)) / det;
  const wy = ((q.w - o.w) * (p.x - o.x) - (p.w - o.w) * (q.x - o.x)) / det;
  const ys = points.map((v) => v.y);
  const [top, bottom] = [Math.max(0, Math.floor(Math.min(...ys))), Math.min(height - 1, Math.ceil(Math.max(...ys)))];
  const [plain, dim] = [1, 0.6].map((factor) => colour.map((c) => Math.round(c * factor)));
  for (let y = top; y <= bottom; y += 1) {
    const [left, right] = span(edges, y, 0, 0, width - 1);
    const [from, to] = rim ? span(edges, y, rim, left, right) : [left, right];
    let w = o.w + wx * (left + 0.5 - o.x) + wy * (y + 0.5 - o.y);
    for (let x = left, at = y * width + left; x <= right; x += 1, at += 1, w += wx) {
      if (w <= depths[at]) continue;
      depths[at] = w;
      const [red, green, blue] = x >= from && x <= to ? plain : dim;
      pixels[4 * at] = red;
      pixels[4 * at + 1] = green;
      pixels[4 * at + 2] = blue;
      pixels[4 * at + 3] = 255;
    }
  }
}

function unit(a, b, c) {
  const [u, v] = [a.map((x, k) => b[k] - x), a.map((x, k) => c[k] - x)];
  const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const length = Math.hypot(...n) || 1;
  return n.map((x) => x / length);
}

function paint(canvas, boxes, colours, tiles, greys, view, scene) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const target = { width, height, pixels: image.data, depths: new Float32Array(width * height) };
  const { seen, shade } = camera(view, scene, width, height);
  for (const { points, dark } of tiles) fill(target, points.map(seen), greys[dark ? 1 : 0], 0);
  boxes.forEach((box, i) => {
    if (box.slice(3).every((v) => v === 0)) return;
    const points = corners(box);
    const flat = points.map(seen);
    for (const face of FACES) {
      const bright = 255 * shade(unit(points[face[0]], points[face[1]], points[face[2]]));
      fill(target, face.map((k) => flat[k]), colours[i].map((c) => c * bright), width / 320);
    }
  });
  context.putImageData(image, 0, 0);
}

function render({ model, el }) {
  const [places, colours, names] = [model.get("places"), model.get("colours"), model.get("names")];
  const [frames, alt, ground] = [model.get("frames"), model.get("alt"), model.get("ground")];
  const first = Object.fromEntries(VIEW.map((trait) => [trait, model.get(trait)]));
  const scene = bounds(places);
  const tiles = ground === null ? [] : floor(scene, ground);

  const root = make("figure", "root", el);
  root.classList.add("pixelpolicy-paper");
  root.setAttribute("aria-label", model.get("caption") || "Objects that turn");
  const stage = make("div", "stage", root, { tabIndex: 0 });
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", `${alt}. Arrow keys turn it, plus and minus come nearer and go back, Home begins again.`);
  const wide = [0, 420, 300][places.length] ?? 215;
  const canvases = places.map((_, i) => {
    const one = make("div", "object", stage);
    one.style.width = `${wide}px`;
    const size = { width: 2 * wide, height: Math.round(1.6 * wide) };
    const canvas = make("canvas", "picture", one, size);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", names[i] ? `${names[i]}: ${alt}` : alt);
    if (names[i]) make("p", "name", one, { textContent: names[i] });
    return canvas;
  });
  make("p", "hint", root, { textContent: "Drag to turn, or use the arrow keys; + and \u2212 for the distance; Home begins again." });
  const said = make("p", "said", root);
  said.setAttribute("role", "status");

  let [play, slider, count] = [null, null, null];
  if (frames > 1) {
    const bar = make("div", "bar", root);
    play = make("button", "play", bar, { type: "button", textContent: "Play" });
    slider = make("input", "slider", bar, { type: "range", min: 0, max: frames - 1, step: 1 });
    slider.setAttribute("aria-label", "Frame");
    count = make("span", "count", bar);
  }
  if (model.get("caption")) make("figcaption", "caption", root, { textContent: model.get("caption") });

  function draw() {
    const view = Object.fromEntries(VIEW.map((trait) => [trait, model.get(trait)]));
    const dark = getComputedStyle(root).backgroundColor.match(/\d+/g)?.[0] < 128;
    const greys = TILES[dark ? "dark" : "light"];
    const frame = model.get("frame");
    canvases.forEach((canvas, i) => {
      const boxes = places[i][Math.min(frame, places[i].length - 1)];
      paint(canvas, boxes, colours[i], tiles, greys, view, scene);
    });
    if (!slider) return;
    slider.value = frame;
    slider.setAttribute("aria-valuetext", `${frame + 1} of ${frames}`);
    count.textContent = `${frame + 1} of ${frames}`;
  }

  // Many moves within one picture of the screen are drawn once.
  let waiting = 0;
  const redraw = () => (waiting ||= requestAnimationFrame(() => [(waiting = 0), draw()]));

  function set(changes, save = true) {
    Object.entries(changes).forEach(([trait, value]) => model.set(trait, value));
    if (save) model.save_changes();
  }
  const held = (value, low, high) => Math.min(high, Math.max(low, value));
  function turn(sideways, upwards, save) {
    const azimuth = ((((model.get("azimuth") - sideways + 180) % 360) + 360) % 360) - 180;
    set({ azimuth, elevation: held(model.get("elevation") + upwards, -90, 90) }, save);
  }
  function tell() {
    const [a, e] = ["azimuth", "elevation"].map((trait) => Math.round(model.get(trait)));
    said.textContent = `Seen from ${a} degrees around, ${Math.abs(e)} degrees ${e < 0 ? "below" : "above"}, ${model.get("zoom").toFixed(1)} times as near.`;
  }

  let grip = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    grip = [event.clientX, event.clientY];
  });
  stage.addEventListener("pointermove", (event) => {
    if (!grip) return;
    turn(0.6 * (event.clientX - grip[0]), 0.6 * (event.clientY - grip[1]), false);
    grip = [event.clientX, event.clientY];
  });
  const drop = () => {
    if (!grip) return;
    grip = null;
    model.save_changes();
    tell();
  };
  stage.addEventListener("pointerup", drop);
  stage.addEventListener("pointercancel", drop);

  let timer = 0;
  function pause() {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    model.save_changes();
  }
  play?.addEventListener("click", () => {
    if (timer) return pause();
    play.textContent = "Pause";
    timer = setInterval(() => set({ frame: (model.get("frame") + 1) % frames }, false), 1000 / model.get("fps"));
  });
  slider?.addEventListener("input", () => {
    pause();
    set({ frame: Number(slider.value) });
  });

  // On the window, before JupyterLab's own listener: its notebook would take the arrows to walk among cells.
  function key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const [at, frame] = [event.composedPath()[0], model.get("frame")];
    if (at === slider && !event.shiftKey) {
      const to = {
        ArrowLeft: frame - 1, ArrowDown: frame - 1, ArrowRight: frame + 1, ArrowUp: frame + 1, Home: 0, End: frames - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      pause();
      return set({ frame: held(to, 0, frames - 1) });
    }
    if (at !== stage) return;
    const moves = {
      ArrowLeft: () => turn(-TURN, 0), ArrowRight: () => turn(TURN, 0),
      ArrowUp: () => turn(0, -TURN), ArrowDown: () => turn(0, TURN),
      "+": () => set({ zoom: held(model.get("zoom") * 1.15, 0.5, 3) }),
      "=": () => set({ zoom: held(model.get("zoom") * 1.15, 0.5, 3) }),
      "-": () => set({ zoom: held(model.get("zoom") / 1.15, 0.5, 3) }),
      Home: () => set(first),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
    tell();
  }
  window.addEventListener("keydown", key, true);

  const traits = [...VIEW, "frame"];
  traits.forEach((trait) => model.on(`change:${trait}`, redraw));
  // a theme chosen later has another floor
  const themes = new MutationObserver(redraw);
  themes.observe(document.documentElement, { attributes: true });
  themes.observe(document.body, { attributes: true });
  // who has no place on a page yet has no colours either: the first picture is drawn with the place
  const placed = new ResizeObserver(draw);
  placed.observe(root);
  return () => {
    clearInterval(timer);
    cancelAnimationFrame(waiting);
    themes.disconnect();
    placed.disconnect();
    window.removeEventListener("keydown", key, true);
    traits.forEach((trait) => model.off(`change:${trait}`, redraw));
  };
}

export { bounds, camera, corners };
export default { render };
