// The tilt explorer: a mixture on the line, the optimum p e^(r / beta) / Z, and what it costs in nats.

// The points of the grid and, at each, log p, the gold reward and the proxy's. Masses on the grid sum to 1.
function landscape({ window: [low, high, count], weights, means, stds, slope, bump: [height, centre, width] }) {
  const x = Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
  const logs = x.map((at) => {
    const terms = weights.map((w, k) => Math.log(w / stds[k]) - 0.5 * ((at - means[k]) / stds[k]) ** 2);
    return logSum(terms);
  });
  const total = logSum(logs);
  const gold = x.map((at) => slope * at);
  const proxy = x.map((at, i) => gold[i] + height * Math.exp(-0.5 * ((at - centre) / width) ** 2));
  return { x, logP: logs.map((l) => l - total), gold, proxy, cell: (high - low) / (count - 1) };
}

function logSum(terms) {
  const most = Math.max(...terms);
  return most + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - most), 0));
}

function expected(q, values) {
  return q.reduce((sum, mass, i) => sum + mass * values[i], 0);
}

// The masses of p e^(r / beta) / Z, and KL(tilted || p) in nats.
function tilt(logP, rewards, beta) {
  const logs = logP.map((l, i) => l + rewards[i] / beta);
  const logZ = logSum(logs);
  const q = logs.map((l) => Math.exp(l - logZ));
  return { q, kl: expected(q, rewards) / beta - logZ, logZ };
}

// Everything the widget says, from its traits.
function figures(state, land = landscape(state), beta = state.beta) {
  const rewards = state.proxy ? land.proxy : land.gold;
  const { q, kl, logZ } = tilt(land.logP, rewards, beta);
  const [reward, gold, mean] = [rewards, land.gold, land.x].map((values) => expected(q, values));
  return { q, kl, reward, gold, mean, objective: beta * logZ };
}

function render({ model, el }) {
  const traits = ["beta", "proxy"];
  const fixed = Object.fromEntries(
    ["window", "weights", "means", "stds", "slope", "bump"].map((trait) => [trait, model.get(trait)]),
  );
  const view = explorer({ model, el }, "pixelpolicy-tilt");
  const state = () => ({ ...fixed, beta: model.get("beta"), proxy: model.get("proxy") });
  const land = landscape(fixed);
  const p = land.logP.map(Math.exp);
  const base = { mean: expected(p, land.x), gold: expected(p, land.gold), proxy: expected(p, land.proxy) };
  const span = [fixed.window[0], fixed.window[1]];
  const [least, most] = model.get("limits").beta.map(Math.log10);
  const decades = Array.from({ length: 121 }, (_, k) => most + ((least - most) * k) / 120);
  const roads = new Map(); // from the largest beta to the smallest, for gold and for the proxy
  function road(proxy) {
    if (!roads.has(proxy)) roads.set(proxy, decades.map((d) => figures({ ...fixed, proxy }, land, 10 ** d)));
    return roads.get(proxy);
  }
  let [now, shown] = [state(), null];
  const [left, right] = [make("div", "column", view.body), make("div", "column", view.body)];

  const pull = view.section(left, "The tilted optimum");
  const beta = view.slider(pull, "beta", "\u03b2, the price of a nat", (v) => brief(v), DECADES);
  view.checkbox(pull, "proxy", "optimise a proxy: gold and a bump");
  view.chart(pull, "density", 190, (svg, width, height) => {
    const peak = Math.max(...p) / land.cell;
    const highest = Math.max(...shown.q) / land.cell;
    const top = 1.15 * peak * 2 ** Math.max(0, Math.ceil(Math.log2(highest / (1.1 * peak))));
    const { X, Y } = frame(svg, width, height, { x: span, y: [0, top], xName: "x" });
    const path = (masses) => land.x.map((x, i) => [X(x), Y(masses[i] / land.cell)]);
    draw("polygon", "hill", svg, { points: line([[X(span[0]), Y(0)], ...path(p), [X(span[1]), Y(0)]]) });
    draw("polyline", "base", svg, { points: line(path(p)) });
    draw("polyline", "second", svg, { points: line(path(shown.q)) });
    return `The base has mean ${written(base.mean)}; the tilted optimum has mean ${written(shown.mean)} and is densest near ${written(land.x[shown.q.indexOf(Math.max(...shown.q))])}.`;
  });
  view.legend(pull, [["base", "base p"], ["second", "tilted optimum, p e^(r/\u03b2) / Z"]]);
  view.chart(pull, "reward", 130, (svg, width, height) => {
    const values = [...land.gold, ...(now.proxy ? land.proxy : [])];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.08 * (high - low) || 1;
    const { X, Y } = frame(svg, width, height, { x: span, y: [low - room, high + room], xName: "x" });
    const path = (rewards) => line(land.x.map((x, i) => [X(x), Y(rewards[i])]));
    if (now.proxy) draw("polyline", "first", svg, { points: path(land.proxy) });
    draw("polyline", "third", svg, { points: path(land.gold) });
    const [height_, centre] = fixed.bump;
    const more = now.proxy ? ` The proxy adds a bump of ${written(height_)} at ${written(centre)}.` : "";
    return `Gold is a line of slope ${written(fixed.slope)}.${more}`;
  });
  view.legend(pull, () => [["third", "gold"], ...(now.proxy ? [["first", "proxy"]] : [])]);

  const cost = view.section(right, "What the reward costs");
  let back = null;
  const frontier = view.chart(cost, "expected reward against KL, as \u03b2 falls", 240, (svg, width, height) => {
    const points = road(now.proxy);
    const values = points.flatMap((f) => [f.gold, f.reward]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.1 * (high - low) || 1;
    const far = points[points.length - 1].kl || 1;
    const place = frame(svg, width, height, { x: [0, far], y: [low - room, high + room], xName: "KL(tilted || p), nats" });
    const { X, Y } = place;
    for (const [kind, key] of now.proxy ? [["first", "reward"], ["third", "gold"]] : [["third", "gold"]]) {
      draw("polyline", kind, svg, { points: line(points.map((f) => [X(f.kl), Y(f[key])])) });
    }
    draw("line", "here", svg, { x1: X(shown.kl), x2: X(shown.kl), y1: place.top, y2: place.bottom });
    if (now.proxy) draw("circle", "ring", svg, { cx: X(shown.kl), cy: Y(shown.reward), r: 5 });
    draw("circle", "dot", svg, { cx: X(shown.kl), cy: Y(shown.gold), r: 6 });
    const side = shown.kl < far / 2 ? 1 : -1;
    // on the side of the dot that the curve leaves free
    const next = points.find((f) => f.kl > shown.kl) ?? points[points.length - 1];
    const below = next.gold >= shown.gold === side > 0;
    const anchor = side > 0 ? "start" : "end";
    const label = { x: X(shown.kl) + 10 * side, y: Y(shown.gold) + (below ? 20 : -10), "text-anchor": anchor };
    draw("text", "you", svg, label, "you are here");
    back = (clientX) => {
      const wanted = place.at(clientX);
      const gaps = points.map((f) => Math.abs(f.kl - wanted));
      return decades[gaps.indexOf(Math.min(...gaps))];
    };
    return `${summit()} You are at KL ${written(shown.kl)}, gold ${written(shown.gold)}${now.proxy ? `, proxy ${written(shown.reward)}` : ""}.`;
  });
  view.drag(frontier, (clientX) => back(clientX), beta);
  view.legend(cost, () => [["third", "gold"], ...(now.proxy ? [["first", "proxy, which is what is optimised"]] : [])]);
  view.readout(cost, [
    ["E[r], what is optimised", () => shown.reward],
    ["E[r] of the base", () => (now.proxy ? base.proxy : base.gold)],
    ["KL(tilted || p), nats", () => shown.kl],
    ["E[r] \u2212 \u03b2 KL = \u03b2 log Z", () => shown.objective],
    ["E[gold]", () => shown.gold],
    ["E[gold] of the base", () => base.gold],
  ]);

  // What becomes of gold on the way, in words.
  function summit() {
    const points = road(now.proxy);
    const golds = points.map((f) => f.gold);
    if (Math.max(...golds) - Math.min(...golds) < 1e-9) return "Gold stays as it is.";
    const fall = golds.findIndex((gold, i) => i + 1 < golds.length && golds[i + 1] < gold);
    if (fall < 0) return "Gold rises all the way.";
    const again = golds[golds.length - 1] > Math.min(...golds.slice(fall)) + 1e-3 ? " before it rises again" : "";
    if (fall === 0) return `Gold falls from the start${again}.`;
    const { gold, kl } = points[fall];
    return `Gold comes to ${written(gold)} near beta ${brief(10 ** decades[fall])}, KL ${written(kl)}; beyond it gold falls${again}.`;
  }

  return view.live(traits, () => {
    now = state();
    shown = figures(now, land);
    return [
      `Beta ${brief(now.beta)}: expected reward ${written(shown.reward, 3)}, KL ${written(shown.kl, 3)} nats, gold reward ${written(shown.gold, 3)}.`,
      `The reward is ${now.proxy ? "the proxy" : "gold"}. ${summit()}`,
    ];
  });
}

export { figures, landscape, tilt };
export default { render };
