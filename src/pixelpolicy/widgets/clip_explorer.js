// The clip explorer: PPO's objective for one action, the advantages of a rollout, and a policy's entropy.

// One term of the clipped surrogate: its loss, and the loss's gradient in log p, as autograd has it.
function surrogate(ratio, advantage, clip) {
  const clipped = Math.min(Math.max(ratio, 1 - clip), 1 + clip);
  const [free, held] = [-advantage * ratio, -advantage * clipped];
  const inside = ratio >= 1 - clip && ratio <= 1 + clip;
  const alive = free > held || (inside && free === held);
  return { loss: Math.max(free, held), gradient: alive ? free : 0, alive, outside: !inside };
}

// The standard deviation has n - 1 below, as torch's.
function spread(values) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  return { mean, std: Math.sqrt(squares / (values.length - 1)) };
}

function normalised(values) {
  const { mean, std } = spread(values);
  return values.map((v) => (v - mean) / (std + 1e-8));
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const weights = logits.map((z) => Math.exp(z - highest));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return weights.map((w) => w / total);
}

function entropy(p) {
  return -p.reduce((sum, q) => sum + (q > 0 ? q * Math.log(q) : 0), 0);
}

// Everything the widget says, from its traits. Sample i of n took action floor(i * actions / n).
function figures(state, temperature = state.temperature) {
  const { ratio, advantage, clip_range: clip, advantages, logits, actions, normalise, entropy_weight: weight } = state;
  const used = normalise ? normalised(advantages) : advantages;
  const kept = logits.slice(0, actions);
  const [old, now] = [softmax(kept), softmax(kept.map((z) => z / temperature))];
  const taken = used.map((_, i) => Math.floor((i * actions) / used.length));
  const terms = used.map((a, i) => surrogate(now[taken[i]] / old[taken[i]], a, clip));
  const objective = -terms.reduce((sum, term) => sum + term.loss, 0) / used.length;
  const bonus = entropy(now);
  return {
    one: surrogate(ratio, advantage, clip),
    used, taken, old, now,
    raw: spread(advantages), scaled: spread(used),
    entropy: bonus, most: Math.log(actions),
    surrogate: objective, total: objective + weight * bonus,
    outside: terms.filter((term) => term.outside).length,
    still: terms.filter((term) => !term.alive).length,
  };
}

const LETTERS = "abcd";

function render({ model, el }) {
  const traits = ["clip_range", "ratio", "advantage", "normalise", "actions", "temperature", "entropy_weight"];
  const fixed = { advantages: model.get("advantages"), logits: model.get("logits") };
  const view = explorer({ model, el }, "pixelpolicy-clip");
  const state = () => ({ ...fixed, ...Object.fromEntries(traits.map((trait) => [trait, model.get(trait)])) });
  const [left, right] = [make("div", "column", view.body), make("div", "column", view.body)];
  let [now, shown] = [state(), figures(state())];

  const one = view.section(left, "One action: the clipped objective");
  view.slider(one, "clip_range", "clip range c", (v) => written(v));
  const ratio = view.slider(one, "ratio", "ratio \u03c1 = new p / old p", (v) => written(v));
  view.slider(one, "advantage", "advantage A, sign and size", (v) => written(v, 1));
  let place = null;
  const curve = view.chart(one, "objective (\u2212loss) against the ratio", 200, (svg, width, height) => {
    const { clip_range: c, advantage: a, ratio: rho } = now;
    const top = Math.max(0.5, 2 * Math.abs(a));
    place = frame(svg, width, height, { x: [0, 2], y: a < 0 ? [-top, 0.1 * top] : [-0.1 * top, top], xName: "ratio \u03c1" });
    const { X, Y } = place;
    const at = (r) => [X(r), Y(-surrogate(r, a, c).loss)];
    const edges = [X(Math.max(0, 1 - c)), X(Math.min(2, 1 + c))];
    const box = { x: edges[0], y: place.top, width: edges[1] - edges[0], height: place.bottom - place.top };
    draw("rect", "band", svg, box);
    draw("polyline", "faint", svg, { points: line([[X(0), Y(0)], [X(2), Y(2 * a)]]) });
    const bend = a < 0 ? 1 - c : 1 + c;
    const [flat, steep] = a < 0 ? [[0, bend], [bend, 2]] : [[bend, 2], [0, bend]];
    draw("polyline", "first", svg, { points: line(steep.map(at)) });
    draw("polyline", a === 0 ? "first" : "flat", svg, { points: line(flat.map(at)) });
    // the slope where you stand, as a short tangent
    const slope = shown.one.alive ? a : 0;
    const reach = 26 / Math.hypot(X(1) - X(0), (Y(1) - Y(0)) * slope);
    const [x, y] = at(rho);
    const [dx, dy] = [(X(1) - X(0)) * reach, (Y(1) - Y(0)) * slope * reach];
    draw("line", "tangent", svg, { x1: x - dx, x2: x + dx, y1: y - dy, y2: y + dy });
    draw("circle", "dot", svg, { cx: x, cy: y, r: 6 });
    const where = a === 0 ? "flat everywhere" : `flat ${a < 0 ? "below" : "above"} ${written(bend)}`;
    return `Advantage ${written(a, 1)}: ${where}. You are at ratio ${written(rho)}, objective ${written(-shown.one.loss)}, slope ${written(slope)}.`;
  });
  view.drag(curve, (clientX) => place.at(clientX), ratio);
  view.legend(one, [["first", "clipped objective"], ["flat", "its flat part"], ["faint", "without the clip"], ["band", "1 \u00b1 c"]]);
  view.readout(one, [
    ["objective, \u2212loss", () => 0 - shown.one.loss],
    ["slope in \u03c1", () => (shown.one.alive ? now.advantage : 0)],
    ["gradient in log p (slope \u00d7 \u03c1)", () => 0 - shown.one.gradient],
  ]);

  const batch = view.section(left, `One rollout: ${fixed.advantages.length} advantages`);
  view.checkbox(batch, "normalise", "normalise advantages");
  const pair = make("div", "pair", batch);
  for (const normal of [false, true]) {
    const values = normal ? normalised(fixed.advantages) : fixed.advantages;
    const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
    const title = () => `${normal ? "normalised" : "raw"}${now.normalise === normal ? ", in use" : ""}`;
    view.chart(make("div", "half", pair), title, 120, (svg, width, height) => {
      const [n, used] = [values.length, now.normalise === normal];
      const labels = values.map((_, i) => [i + 0.5, LETTERS[shown.taken[i]]]);
      const bounds = { x: [0, n], y: low === high ? [-1, 1] : [low, high], xTicks: labels };
      const { X, Y } = frame(svg, width, height, bounds);
      values.forEach((value, i) => {
        const box = { x: X(i + 0.15), width: X(i + 0.85) - X(i + 0.15), y: Y(Math.max(0, value)) };
        draw("rect", used ? "bar" : "bar idle", svg, { ...box, height: Math.max(1, Math.abs(Y(value) - Y(0))) });
      });
      return values.map((value, i) => `action ${LETTERS[shown.taken[i]]} ${written(value)}`).join(", ");
    });
  }
  view.readout(batch, [
    ["raw: mean, std", () => [shown.raw.mean, ", ", shown.raw.std], 2],
    ["in use: mean, std", () => [shown.scaled.mean, ", ", shown.scaled.std], 2],
  ]);

  const policy = view.section(right, "The policy: entropy, and the whole objective");
  view.slider(policy, "actions", "actions", (v) => String(v));
  const heat = view.slider(policy, "temperature", "temperature T of the logits", (v) => brief(v), DECADES);
  view.slider(policy, "entropy_weight", "entropy weight w", (v) => written(v));
  view.chart(policy, "probability of each action", 120, (svg, width, height) => {
    const n = now.actions;
    const labels = shown.now.map((p, i) => [i + 0.5, `${LETTERS[i]} ${written(p)}`]);
    const { X, Y } = frame(svg, width, height, { x: [0, n], y: [0, 1], xTicks: labels, yTicks: [[0, "0"], [0.5, "0.5"], [1, "1"]] });
    shown.now.forEach((p, i) => {
      const box = { x: X(i + 0.25), width: X(i + 0.75) - X(i + 0.25) };
      draw("rect", "bar", svg, { ...box, y: Y(p), height: Y(0) - Y(p) });
      const mark = { x1: X(i + 0.15), x2: X(i + 0.85), y1: Y(shown.old[i]), y2: Y(shown.old[i]) };
      draw("line", "old", svg, mark);
    });
    return shown.now.map((p, i) => `action ${LETTERS[i]} ${written(p)}, was ${written(shown.old[i])}`).join("; ");
  });
  view.legend(policy, [["bar", "now"], ["old", "when the rollout was made (T = 1)"]]);
  let bottom = null;
  const whole = view.chart(policy, "objective of the rollout against the temperature", 200, (svg, width, height) => {
    const steps = Array.from({ length: 81 }, (_, k) => k / 40 - 1);
    const points = steps.map((t) => [t, figures(now, 10 ** t)]);
    const values = points.flatMap(([, f]) => [f.surrogate, f.total]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.08 * (high - low) || 0.5;
    const xTicks = [0.1, 0.3, 1, 3, 10].map((t) => [Math.log10(t), String(t)]);
    bottom = frame(svg, width, height, { x: [-1, 1], y: [low - room, high + room], xTicks, xName: "temperature T" });
    const { X, Y } = bottom;
    for (const [kind, key] of [["second", "surrogate"], ["first", "total"]]) {
      draw("polyline", kind, svg, { points: line(points.map(([t, f]) => [X(t), Y(f[key])])) });
    }
    const t = Math.log10(now.temperature);
    draw("line", "here", svg, { x1: X(t), x2: X(t), y1: bottom.top, y2: bottom.bottom });
    draw("circle", "dot", svg, { cx: X(t), cy: Y(shown.total), r: 6 });
    const best = points.reduce((a, b) => (b[1].total > a[1].total ? b : a));
    return `The total is highest near temperature ${brief(10 ** best[0])}, at ${written(best[1].total)}; you are at ${brief(now.temperature)}, at ${written(shown.total)}.`;
  });
  view.drag(whole, (clientX) => bottom.at(clientX), heat);
  view.legend(policy, [["second", "clipped surrogate"], ["first", "total: surrogate + w \u00d7 entropy"]]);
  view.readout(policy, [
    ["entropy, at most", () => [shown.entropy, " of ", shown.most, " nats"]],
    ["clipped surrogate", () => shown.surrogate],
    ["total objective", () => shown.total],
    ["ratios outside 1 \u00b1 c", () => [shown.outside, ` of ${fixed.advantages.length}`], 0],
    ["of these without gradient", () => [shown.still, ""], 0],
  ]);

  return view.live(traits, () => {
    now = state();
    shown = figures(now);
    const { one: term, scaled } = shown;
    const flat = term.alive ? "" : ", flat: no gradient";
    return [
      `Ratio ${written(now.ratio)}, advantage ${written(now.advantage, 1)}, clip range ${written(now.clip_range)}: objective ${written(-term.loss, 3)}, gradient ${written(-term.gradient, 3)}${flat}.`,
      `Advantages ${now.normalise ? "normalised" : "raw"}: mean ${written(scaled.mean)}, standard deviation ${written(scaled.std)}.`,
      `Temperature ${brief(now.temperature)}, ${now.actions} actions: entropy ${written(shown.entropy, 3)} nats; surrogate ${written(shown.surrogate, 3)}, total ${written(shown.total, 3)}; ${shown.outside} of ${fixed.advantages.length} ratios outside the clip, ${shown.still} without gradient.`,
    ];
  });
}

export { entropy, figures, normalised, softmax, spread, surrogate };
export default { render };
