// The reward explorer: prompts, weights of rewards, and how far to go from the base to a fine-tuned model.

const BROWSER = ["proxy", "redness", "colours"]; // the rewards that `reward_explorer_engine.js` computes
const SETTINGS = ["alpha", "guidance", "steps", "noise", "seed_set", "run", "chosen"];
const PAUSE = 350; // milliseconds without a change before the pictures are drawn anew
const PATIENCE = 15000; // milliseconds after which a silent kernel is mentioned
const BINS = 12;

function mean(values) {
  return values.reduce((sum, v) => sum + v, 0) / values.length;
}

// The mean of `a - b`, pair by pair, and its standard error.
function paired(a, b) {
  const gaps = a.map((v, i) => v - b[i]);
  const middle = mean(gaps);
  const squares = gaps.reduce((sum, v) => sum + (v - middle) ** 2, 0);
  return { mean: middle, error: Math.sqrt(squares / Math.max(1, gaps.length - 1) / gaps.length) };
}

// The shares of `values` in `BINS` equal parts of [low, high]; what lies outside counts at the ends.
function histogram(values, [low, high]) {
  const counts = Array(BINS).fill(0);
  for (const value of values) {
    const place = Math.floor(((value - low) / (high - low)) * BINS);
    counts[Math.min(BINS - 1, Math.max(0, place))] += 1 / values.length;
  }
  return counts;
}

// The prompt and the seed of each picture: prompts in turn, each with seeds of its own row. As `pairs` in Python.
function pairs(chosen, seedSet, samples) {
  return Array.from({ length: samples }, (_, i) => ({
    prompt: chosen[i % chosen.length],
    seed: samples * (seedSet - 1) + Math.floor(i / chosen.length),
  }));
}

// Places by total, the greatest first; equals stay in their order.
function order(totals) {
  return totals.map((_, i) => i).sort((a, b) => totals[b] - totals[a] || a - b);
}

// The record ------------------------------------------------------------------------------------------------------

function unpacked(text) {
  const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Array.from({ length: raw.length / 2 }, (_, i) => (raw[2 * i] + 256 * raw[2 * i + 1]) / 65535);
}

function nearest(value, offered) {
  return offered.reduce((best, one) => (Math.abs(one - value) < Math.abs(best - value) ? one : best));
}

// What benchmarks/explorer_states.py wrote, made ready to be asked.
function recordOf(states) {
  const { prompts, seeds, rewards, scales, alphas, grid, points } = states;
  const known = new Map();

  // The recorded setting next to `setting`.
  function near({ guidance, steps, noise }) {
    return {
      guidance: nearest(guidance, grid.guidance),
      steps: nearest(steps, grid.steps),
      noise: nearest(noise, grid.noise),
    };
  }

  function point(run, at) {
    const same = (one) => one.guidance === at.guidance && one.steps === at.steps && one.noise === at.noise;
    return points[run]?.find(same);
  }

  // Values [prompts x seeds] of a reward at one alpha.
  function values(run, at, place, reward) {
    const name = [run, at.guidance, at.steps, at.noise, place].join();
    if (!known.has(name)) known.set(name, unpacked(point(run, at).values[place]));
    const [each, r] = [prompts.length * seeds, rewards.indexOf(reward)];
    const [low, high] = scales[reward];
    return known.get(name).slice(r * each, (r + 1) * each).map((share) => low + share * (high - low));
  }

  // The path over alpha at the recorded setting next to `setting`, for its prompts and under `weights`.
  function path({ run, chosen, ...setting }, weights) {
    const at = near(setting);
    const mine = chosen.map((prompt) => prompts.indexOf(prompt));
    const found = point(run, at);
    if (!found || mine.includes(-1)) return null;
    const noisy = point(run, { ...at, noise: Math.max(...grid.noise) });
    const of = (all) => mine.flatMap((p) => all.slice(p * seeds, (p + 1) * seeds));
    const steps = alphas.map((alpha, place) => {
      const each = Object.fromEntries(rewards.map((reward) => [reward, of(values(run, at, place, reward))]));
      const used = Object.keys(weights).filter((name) => weights[name] !== 0 && name in each);
      const totals = each.strict.map((_, i) => used.reduce((sum, name) => sum + weights[name] * each[name][i], 0));
      const spread = mine.map((p) => found.diversity[place][p]).filter((v) => v !== null);
      return {
        alpha, totals, each, strict: each.strict,
        diversity: spread.length ? mean(spread) : null,
        kl: mean(mine.map((p) => noisy.kl[place][p])),
      };
    });
    return { at, steps, count: mine.length * seeds, noisy: Math.max(...grid.noise) };
  }

  // The recorded values of one picture { reward: value }, where exactly these settings were recorded.
  function picture({ run, alpha, ...setting }, { prompt, seed }) {
    const [at, place, p] = [near(setting), alphas.indexOf(alpha), prompts.indexOf(prompt)];
    const there = ["guidance", "steps", "noise"].every((name) => at[name] === setting[name]);
    if (!there || place < 0 || p < 0 || seed >= seeds || !point(run, at)) return {};
    return Object.fromEntries(rewards.map((name) => [name, values(run, at, place, name)[p * seeds + seed]]));
  }

  return { near, path, picture, scales, alphas, rewards, runs: Object.keys(states.runs) };
}

// Where `alpha` lies on a path: numbers between those of the two recorded neighbours.
function between(path, alpha) {
  const { steps } = path;
  const after = Math.max(1, steps.findIndex((step) => step.alpha >= alpha - 1e-9));
  const [a, b] = [steps[after - 1], steps[after]];
  const share = (alpha - a.alpha) / (b.alpha - a.alpha);
  const mix = (x, y) => (x === null || y === null ? (share < 0.5 ? x : y) : x + share * (y - x));
  return {
    alpha,
    totals: a.totals.map((v, i) => mix(v, b.totals[i])),
    strict: a.strict.map((v, i) => mix(v, b.strict[i])),
    diversity: mix(a.diversity, b.diversity),
    kl: mix(a.kl, b.kl),
  };
}

// The alpha at which a path reaches a KL.
function alphaAt({ steps }, kl) {
  const after = steps.findIndex((step) => step.kl >= kl);
  if (after < 0) return steps.at(-1).alpha;
  if (after === 0) return steps[0].alpha;
  const [a, b] = [steps[after - 1], steps[after]];
  return a.alpha + ((kl - a.kl) / (b.kl - a.kl)) * (b.alpha - a.alpha);
}

// The warning light: the earlier place on the path from where the reward has risen and the check has fallen, both by
// more than two standard errors of their paired differences; of several, that with the greatest fall.
function warning(path, alpha) {
  const here = between(path, alpha);
  let worst = null;
  for (const step of path.steps.filter((one) => one.alpha < alpha - 1e-9)) {
    const [rise, change] = [paired(here.totals, step.totals), paired(here.strict, step.strict)];
    const clear = rise.mean > 2 * rise.error && -change.mean > 2 * change.error;
    if (clear && rise.mean > 1e-9 && (!worst || -change.mean > worst.fall)) {
      worst = { since: step.alpha, rise: rise.mean, fall: -change.mean };
    }
  }
  return worst;
}

// Who draws -------------------------------------------------------------------------------------------------------

// On a page of the book, where the engine lies; elsewhere null: there is a kernel.
function engineFolder() {
  const root = document.documentElement.dataset.content_root;
  return root === undefined ? null : new URL(`${root}_static/explorer/`, document.baseURI).href;
}

// The reader's browser. `heard` takes what is told.
function inBrowser(folder, heard) {
  let worker = null;
  function start() {
    worker = new Worker(new URL("engine.js", folder), { type: "module" });
    worker.addEventListener("message", ({ data }) => heard(data));
    worker.addEventListener("error", () => {
      const file = location.protocol === "file:" ? " This page was opened as a file; serve its folder over http." : "";
      heard({ kind: "error", words: `the engine did not start.${file}` });
      worker = null;
    });
  }
  fetch(new URL("states.json", folder))
    .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status)))))
    .then((states) => heard({ kind: "here", states }))
    .catch((error) => heard({ kind: "error", words: `the recorded states could not be loaded (${error.message})` }));
  return {
    draw: (wish) => {
      if (!worker) start();
      worker.postMessage(wish);
    },
    stop: (number) => worker?.postMessage({ kind: "stop", number }),
    leave: () => worker?.terminate(),
  };
}

// Python, in the notebook's kernel.
function inKernel(model, heard) {
  const listen = (message) => heard(message);
  model.on("msg:custom", listen);
  model.send({ kind: "hello" });
  return {
    draw: (wish) => model.send(wish),
    stop: (number) => model.send({ kind: "stop", number }),
    leave: () => model.off("msg:custom", listen),
  };
}

// The widget ------------------------------------------------------------------------------------------------------

// The model with one name for each weight, as sliders need it, and with what is the page's alone.
function named(model) {
  const own = { auto: true };
  const weights = () => model.get("weights");
  const trait = (name) => (name.startsWith("weight.") ? "weights" : name);
  const limits = { ...model.get("limits") };
  for (const reward of model.get("rewards")) limits[`weight.${reward}`] = limits.weight;
  return {
    get: (name) => {
      if (name === "limits") return limits;
      if (name in own) return own[name];
      return name.startsWith("weight.") ? weights()[name.slice(7)] ?? 0 : model.get(name);
    },
    set: (name, value) => {
      if (name in own) own[name] = value;
      else if (name.startsWith("weight.")) model.set("weights", { ...weights(), [name.slice(7)]: value });
      else model.set(name, value);
    },
    save_changes: () => model.save_changes(),
    on: (event, call) => model.on(event, call),
    off: (event, call) => model.off(event, call),
  };
}

// A picture of RGB bytes, or of their base64, as a canvas takes it.
function image(picture, side) {
  const raw = typeof picture === "string" ? Uint8Array.from(atob(picture), (c) => c.charCodeAt(0)) : picture;
  const made = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    made.data.set([raw[3 * i], raw[3 * i + 1], raw[3 * i + 2], 255], 4 * i);
  }
  return made;
}

function button(parent, words, press) {
  const node = make("button", "button", parent, { type: "button", textContent: words });
  node.addEventListener("click", press);
  return node;
}

function render({ model, el }) {
  const local = named(model);
  const view = explorer({ model: local, el }, "pixelpolicy-rewards");
  const [rewards, samples] = [model.get("rewards"), model.get("samples")];
  const folder = engineFolder();
  // two views of one model must not take each other's pictures: they count from places of their own
  let [record, drawn, number, busy, timer, patience] = [null, null, Math.floor(1e9 * Math.random()), "", 0, 0];
  let now = {};
  let shown = {};

  // Pictures
  const left = make("div", "column", view.body);
  const gallery = view.section(left, "Pictures, the highest reward first");
  const bar = make("div", "bar-of-buttons", gallery);
  button(bar, `Draw ${samples} pictures`, () => begin());
  const stopper = button(bar, "Stop", () => stop());
  view.checkbox(bar, "auto", "draw anew when a setting changes");
  const news = make("p", "news", gallery);
  const trouble = make("p", "trouble", gallery);
  trouble.setAttribute("role", "alert");
  const meaning = "Under each: the number of its prompt, its total reward, and the strict check (\u2713 accepted, \u2717 refused).";
  make("p", "axis", gallery, { textContent: meaning });
  const list = make("ol", "pictures", gallery);
  const tiles = Array.from({ length: samples }, () => {
    const tile = make("li", "tile", list);
    const canvas = make("canvas", "picture", tile, { width: 32, height: 32 });
    canvas.setAttribute("role", "img");
    return { tile, canvas, under: make("span", "under", tile) };
  });
  const lamp = make("p", "lamp", left);
  const sign = make("span", "sign", lamp);
  sign.setAttribute("aria-hidden", "true");
  const warned = make("span", "warned", lamp);
  view.readout(left, [
    ["total reward", () => shown.total.words],
    ["strict check accepts", () => shown.strict.words],
    ["diversity of accepted", () => shown.diversity.words],
    ["KL to the base, nats", () => shown.kl.words, 1],
  ]);

  // Controls
  const controls = make("div", "column", view.body);
  const words = make("section", "section", controls);
  make("p", "title", words, { textContent: "Prompts" });
  const group = make("div", "prompts", words);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Prompts");
  const boxes = model.get("prompts").map((prompt, i) => {
    const label = make("label", "check", group);
    const box = make("input", "box", label, { type: "checkbox" });
    label.append(`${i + 1}: ${prompt}`);
    box.addEventListener("change", () => {
      const chosen = model.get("prompts").filter((_, k) => boxes[k].checked);
      if (!chosen.length) box.checked = true; // one prompt stays
      else if (String(chosen) !== String(model.get("chosen"))) change("chosen", chosen);
    });
    return box;
  });
  const weighing = view.section(controls, "Weights of the rewards");
  for (const reward of rewards) {
    view.slider(weighing, `weight.${reward}`, `${reward} (${place(reward)})`, (v) => written(v, 1));
  }
  const going = view.section(controls, "From the base to the fine-tuned model");
  const choice = make("label", "choice", going);
  make("span", "what", choice, { textContent: "fine-tuned by" });
  const chooser = make("select", "chooser", choice);
  for (const run of model.get("runs")) chooser.add(new Option(run, run));
  chooser.addEventListener("change", () => change("run", chooser.value));
  const far = view.slider(going, "alpha", "how far, \u03b1 (0 base, 1 fine-tuned)", (v) => written(v));
  view.slider(going, "guidance", "guidance (1 none)", (v) => written(v, 1));
  view.slider(going, "steps", "steps", (v) => String(v));
  view.slider(going, "noise", "noise of a step (0 none)", (v) => written(v, 1));
  view.slider(going, "seed_set", "set of seeds (1 is recorded)", (v) => String(v));
  const snap = button(going, "Go to the nearest recorded setting", () => {
    if (!record) return;
    const wanted = { ...record.near(now), alpha: nearest(now.alpha, record.alphas), seed_set: 1 };
    for (const [name, value] of Object.entries(wanted)) model.set(name, value);
    model.save_changes();
  });

  // Charts
  const wide = make("div", "wide", view.root);
  view.root.insertBefore(wide, view.body.nextSibling);
  const front = view.section(wide, "The frontier: what the reward costs");
  const pair = make("div", "frontiers", front);
  // The frontiers of the other models, where they lie within the one chosen.
  const others = () => (record?.runs ?? []).filter((run) => run !== now.run).map((run) => record.path({ ...now, run }, model.get("weights"))).filter(Boolean);
  const frontier = (title, lines, dots) => {
    let inverse = () => model.get("alpha");
    const half = make("div", "half", pair);
    const svg = view.chart(half, title, 190, (node, width, height) => {
      const { path } = shown;
      if (!path) return "There is no record of these prompts and this model.";
      const end = Math.max(1e-6, ...path.steps.map((step) => step.kl));
      const beside = others().flatMap((one) => one.steps.filter((step) => step.kl <= 1.05 * end)).map(lines[0][1]);
      const ys = lines.flatMap(([, of]) => path.steps.map(of)).concat(beside, dots().map(([, y]) => y));
      const seen = ys.filter((y) => y !== null && y !== undefined);
      const [low, high] = [Math.min(...seen), Math.max(...seen)];
      const room = 0.08 * (high - low) || 0.1;
      const bounds = { x: [0, 1.05 * end], y: [low - room, high + room], xName: "KL to the base, nats" };
      const { X, Y, at, top, bottom } = frame(node, width, height, bounds);
      for (const one of others()) {
        const inside = one.steps.filter((step) => step.kl <= bounds.x[1]);
        draw("polyline", "faint", node, { points: line(inside.map((step) => [X(step.kl), Y(lines[0][1](step))])) });
      }
      for (const [kind, of] of lines) {
        const there = path.steps.filter((step) => of(step) !== null);
        draw("polyline", kind, node, { points: line(there.map((step) => [X(step.kl), Y(of(step))])) });
        for (const step of there) draw("circle", `knot ${kind}`, node, { cx: X(step.kl), cy: Y(of(step)), r: 3 });
      }
      draw("line", "here", node, { x1: X(shown.here.kl), x2: X(shown.here.kl), y1: top, y2: bottom });
      for (const [kind, y, x] of dots()) draw("circle", kind, node, { cx: X(x), cy: Y(y), r: 6 });
      inverse = (clientX) => alphaAt(path, at(clientX));
      const told = (value) => (value === null ? "unknown" : brief(value));
      const said = path.steps.map((step) => lines.map(([, of]) => told(of(step))).join(" and "));
      return path.steps.map((step, i) => `\u03b1 ${written(step.alpha)}: KL ${brief(step.kl)}, ${said[i]}`).join("; ");
    });
    view.drag(svg, (clientX) => inverse(clientX), far);
    return half;
  };
  const first = frontier(
    () => `total reward against KL${shown.path ? `, recorded at ${setting(shown.path.at)}` : ""}`,
    [["first", (step) => mean(step.totals)]],
    () => [["dot", mean(shown.here.totals), shown.here.kl], ...mine(shown.total.live)]
  );
  view.legend(first, () => [
    ["first", "recorded, \u03b1 from 0 to 1.5"],
    ["dot", "you"],
    ["dot ring", "the pictures drawn"],
    ...(others().length ? [["faint", "other models"]] : []),
  ]);
  const second = frontier(
    () => `strict check and diversity against KL${shown.path ? `, ${shown.path.count} pictures at each \u03b1` : ""}`,
    [["third", (step) => mean(step.strict)], ["second", (step) => step.diversity]],
    () => [["dot", mean(shown.here.strict), shown.here.kl], ...mine(shown.strict.live), ...mine(shown.diversity.live)]
  );
  view.legend(second, [["third", "share accepted"], ["second", "diversity"]]);
  function mine(live) {
    return live === undefined || live === null ? [] : [["dot ring", live, shown.kl.live ?? shown.here.kl]];
  }

  const spread = view.section(wide, "Each reward's histogram");
  const histograms = make("div", "histograms", spread);
  for (const reward of ["total", ...rewards, "strict"]) {
    view.chart(make("div", "half", histograms), () => shown.parts[reward].title, 96, (svg, width, height) => {
      const { values, base, range, idle } = shown.parts[reward];
      if (!values.length) return "nothing to show";
      const [bars, before] = [histogram(values, range), base.length ? histogram(base, range) : []];
      const top = Math.max(...bars, ...before);
      const bounds = { x: range, y: [0, top], yTicks: [[0, "0"], [top, `${Math.round(100 * top)}%`]], xTicks: ticks(...range, 3) };
      const { X, Y } = frame(svg, width, height, bounds);
      const wideness = (range[1] - range[0]) / BINS;
      bars.forEach((share, i) => {
        const [x1, x2] = [X(range[0] + i * wideness) + 1, X(range[0] + (i + 1) * wideness) - 1];
        if (share) draw("rect", idle ? "bar idle" : "bar", svg, { x: x1, width: x2 - x1, y: Y(share), height: Y(0) - Y(share) });
      });
      const corners = before.flatMap((share, i) => [[X(range[0] + i * wideness), Y(share)], [X(range[0] + (i + 1) * wideness), Y(share)]]);
      if (corners.length) draw("polyline", "old", svg, { points: line(corners) });
      return `mean ${brief(mean(values))}${base.length ? `, of the base ${brief(mean(base))}` : ""}`;
    });
  }
  view.legend(spread, [["bar", "the pictures drawn"], ["bar idle", "recorded ones"], ["old", "recorded ones of the base"]]);

  // What it does
  function change(trait, value) {
    model.set(trait, value);
    model.save_changes();
  }

  function settings() {
    return Object.fromEntries(SETTINGS.map((name) => [name, model.get(name)]));
  }

  function begin() {
    clearTimeout(timer);
    number += 1;
    const wanted = settings();
    const items = pairs(wanted.chosen, wanted.seed_set, samples);
    drawn = { number, settings: wanted, items: items.map((item) => ({ ...item, values: {} })), whole: false };
    trouble.textContent = "";
    say("asking");
    source.draw({ kind: "draw", number, settings: wanted, prompts: items.map((i) => i.prompt), seeds: items.map((i) => i.seed) });
    clearTimeout(patience);
    if (!folder) patience = setTimeout(() => say("the kernel has not answered yet: it may be busy with another cell, or stopped"), PATIENCE);
  }

  function stop() {
    clearTimeout(timer);
    clearTimeout(patience);
    number += 1;
    source.stop(number);
    busy = "";
    view.again();
  }

  function say(text) {
    busy = text;
    news.textContent = text ? `${text[0].toUpperCase()}${text.slice(1)} \u2026` : news.textContent;
    stopper.disabled = !busy;
  }

  function heard(message) {
    if (message.kind === "here") {
      record = message.states ? recordOf(message.states) : null;
      return view.again();
    }
    if (message.number !== undefined && message.number !== number) return;
    clearTimeout(patience);
    if (message.kind === "progress") return say(message.words);
    if (message.kind === "error") {
      trouble.textContent = `That did not work: ${message.words}`;
      busy = "";
      news.textContent = "";
    } else if (message.kind === "pictures") {
      const { first, side, pictures, values } = message;
      pictures.forEach((picture, i) => {
        const item = drawn.items[first + i];
        item.picture = image(picture, side);
        for (const [name, each] of Object.entries(values)) item.values[name] = each[i];
      });
      drawn.arrived = first + pictures.length;
      say(`drawing: ${drawn.arrived} of ${samples}`);
    } else if (message.kind === "done") {
      Object.assign(drawn, { whole: true, seconds: message.seconds, kl: message.kl, diversity: message.diversity });
      busy = "";
    }
    view.again();
  }

  const source = folder ? inBrowser(folder, heard) : inKernel(model, heard);

  // Where the numbers of a reward come from.
  function place(reward) {
    return folder && !BROWSER.includes(reward) ? "recorded" : "live";
  }

  function setting({ guidance, steps, noise }) {
    return `guidance ${written(guidance, 0)}, ${steps} steps, noise ${written(noise, 1)}`;
  }

  // All that is shown, from the settings, the record and what has been drawn.
  function figures() {
    const weights = model.get("weights");
    const used = rewards.filter((name) => weights[name]);
    const path = record?.path(now, weights) ?? null;
    const here = path && between(path, now.alpha);
    const items = (drawn?.items ?? []).filter((item) => item.picture);
    // a picture's rewards: computed here, or recorded of this very picture
    const each = items.map((item) => ({ ...(record?.picture(drawn.settings, item) ?? {}), ...item.values }));
    const known = (name) => each.length > 0 && each.every((values) => name in values);
    const counted = used.filter(known);
    const totals = each.map((values) => counted.reduce((sum, name) => sum + weights[name] * values[name], 0));
    const missing = items.length ? used.filter((name) => !known(name)) : [];
    const stale = drawn && SETTINGS.some((name) => String(drawn.settings[name]) !== String(now[name]));
    const at = path && nearest(now.alpha, record.alphas);
    const near = path?.steps.find((step) => step.alpha === at);
    const where = path && `recorded at \u03b1 ${written(at)}, ${setting(path.at)}`;
    const parts = {};
    for (const name of ["total", ...rewards, "strict"]) {
      const own = name === "total" ? (missing.length || !used.length ? [] : totals) : known(name) ? each.map((values) => values[name]) : [];
      const [old, base] = [near, path?.steps[0]].map((step) => (step ? (name === "total" ? step.totals : step.each[name]) ?? [] : []));
      const values = own.length ? own : old;
      const all = [...values, ...base];
      const [low, high] = name !== "total" && record?.scales[name] ? record.scales[name] : [Math.min(...all), Math.max(...all)];
      const live = own.length && (name === "total" ? used.every((one) => one in (items[0]?.values ?? {})) : name in items[0].values);
      const from = own.length ? (live ? "live" : "recorded of these pictures") : where ?? "not recorded";
      const title = `${name}: ${values.length ? `mean ${brief(mean(values))}, ` : ""}${from}`;
      parts[name] = { title, values, base, idle: !own.length, range: high > low ? [low, high] : [low - 0.5, low + 0.5], from, live };
    }
    const strict = parts.strict.idle ? null : mean(parts.strict.values);
    const row = (live, recorded, from) => {
      if (live !== null && live !== undefined) return { live, words: [live, ` ${from}`] };
      if (recorded !== null && recorded !== undefined) return { words: [recorded, ` recorded, ${path.count} pictures`] };
      return { words: ["unknown"] };
    };
    const total = parts.total.idle ? null : mean(parts.total.values);
    return {
      path, here, items, each, totals, order: order(totals), missing, stale, parts, where,
      warning: path && warning(path, now.alpha),
      total: row(total, here && mean(here.totals), parts.total.live ? "live" : "recorded, these"),
      strict: row(strict, here && mean(here.strict), parts.strict.live ? "live" : "recorded, these"),
      diversity: row(drawn?.whole ? drawn.diversity : null, here?.diversity, "live"),
      kl: row(drawn?.whole ? drawn.kl : null, here?.kl, "live"),
    };
  }

  function lay() {
    boxes.forEach((box, i) => (box.checked = now.chosen.includes(model.get("prompts")[i])));
    chooser.value = now.run;
    stopper.disabled = !busy;
    snap.disabled = !record;
    tiles.forEach(({ tile, canvas, under }, rank) => {
      const i = shown.order[rank];
      tile.classList.toggle("empty", i === undefined);
      const context = canvas.getContext("2d");
      if (i === undefined) {
        context.clearRect(0, 0, canvas.width, canvas.height);
        canvas.setAttribute("aria-label", "no picture yet");
        under.textContent = "";
        return;
      }
      const [item, values] = [shown.items[i], shown.each[i]];
      const verdict = "strict" in values ? (values.strict > 0.5 ? "accepted" : "refused") : "not checked";
      if (canvas.width !== item.picture.width) canvas.width = canvas.height = item.picture.width;
      context.putImageData(item.picture, 0, 0);
      const sum = written(shown.totals[i]);
      const told = rewards.filter((name) => name in values).map((name) => `${name} ${brief(values[name])}`);
      canvas.setAttribute("aria-label", `${item.prompt}, seed ${item.seed}: total ${sum}, ${verdict}`);
      tile.title = `${item.prompt}, seed ${item.seed}\n${told.join("\n")}\n${verdict}`;
      const mark = { accepted: "\u2713", refused: "\u2717", "not checked": "" }[verdict];
      under.textContent = `${1 + model.get("prompts").indexOf(item.prompt)}: ${sum} ${mark}`;
    });
    if (!busy) news.textContent = idleNews();
    const alarm = shown.warning;
    lamp.className = `pixelpolicy-explorer-lamp ${shown.path ? (alarm ? "on" : "off") : "none"}`;
    sign.textContent = alarm ? "\u26a0" : shown.path ? "\u25cb" : "\u2013";
    warned.textContent = lampWords();
  }

  function lampWords() {
    const alarm = shown.warning;
    if (!shown.path) return "The light needs a record, and there is none of these prompts and this model.";
    if (!alarm) return "No warning: on the recorded way here, nowhere did the strict check fall while the reward rose.";
    const [rise, fall] = [brief(alarm.rise), written(alarm.fall)];
    return `Warning: since \u03b1 ${written(alarm.since)} the reward has risen by ${rise} while the strict check has fallen by ${fall}. The reward is being fooled.`;
  }

  function idleNews() {
    if (!drawn?.arrived) {
      return folder
        ? "Nothing is drawn yet. The first press loads the engine and the model into this page, some 20 MB."
        : "Nothing is drawn yet.";
    }
    const notes = [];
    if (drawn.whole) notes.push(`${samples} pictures in ${written(drawn.seconds, 1)} s.`);
    if (shown.stale) notes.push("The settings have changed since.");
    if (shown.missing.length) notes.push(`The order leaves out ${shown.missing.join(" and ")}: not recorded at this setting.`);
    return notes.join(" ");
  }

  let seen = null;
  const leave = view.live([...SETTINGS, "weights"], () => {
    now = settings();
    const changed = seen !== null && seen !== JSON.stringify(now);
    seen = JSON.stringify(now);
    shown = figures();
    lay();
    if (changed && drawn && local.get("auto")) {
      clearTimeout(timer);
      timer = setTimeout(begin, PAUSE);
    }
    return sentences();
  });
  function sentences() {
    const { path, total, strict } = shown;
    const told = ([value, from]) => (typeof value === "number" ? `${brief(value)}${from}` : "unknown");
    return [
      lampWords(),
      path ? `At \u03b1 ${written(now.alpha)} of ${now.run}: total reward ${told(total.words)}, accepted ${told(strict.words)}.` : "",
      drawn?.whole && !busy ? idleNews() : "",
    ].filter(Boolean);
  }

  return () => {
    clearTimeout(timer);
    clearTimeout(patience);
    source.leave();
    leave();
  };
}

export { alphaAt, between, histogram, order, paired, pairs, recordOf, unpacked, warning };
export default { render };
