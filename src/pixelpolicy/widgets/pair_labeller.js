// The pair labeller: two pictures, three answers by button or key, and what has been said so far.

const WORDS = { left: "left is better", right: "right is better", unsure: "cannot say" };
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "unsure" };
const PATIENCE = 2500; // milliseconds within which a kernel that is idle has answered

function render({ model, el }) {
  const prompts = model.get("prompts");
  const [width, height, columns] = model.get("grid");
  const root = make("figure", "root", el, { tabIndex: 0 });
  root.classList.add("pixelpolicy-paper", "pixelpolicy-labeller");
  root.setAttribute("aria-label", `Pairs to compare: ${model.get("alt")}`);
  const prompt = make("p", "title", root);
  const pair = make("div", "pair", root);
  const sides = ["left", "right"].map((side) => {
    const button = make("button", "side", pair, { type: "button" });
    const canvas = make("canvas", "view", button, { width, height });
    canvas.setAttribute("role", "img");
    button.append(side === "left" ? "\u2190 Left is better" : "Right is better \u2192");
    button.addEventListener("click", () => say(side));
    return { side, button, canvas };
  });
  const row = make("div", "row", root);
  const step = (text, act) => {
    const button = make("button", "step", row, { type: "button", textContent: text });
    button.addEventListener("click", act);
    return button;
  };
  const unsure = step("\u2193 Cannot say", () => say("unsure"));
  const undo = step("\u232b Undo", () => back());
  const previous = step("Previous pair", () => look(-1));
  const next = step("Next pair", () => look(1));
  const progress = make("progress", "progress", row, { max: prompts.length });
  progress.setAttribute("aria-label", "Pairs judged");
  const count = make("span", "count", row);
  const note = make("p", "note", root);
  note.setAttribute("role", "status");
  const said = make("p", "said", root);
  said.setAttribute("role", "status");
  if (model.get("caption")) make("figcaption", "caption", root, { textContent: model.get("caption") });

  const first = () => model.get("answers").indexOf("");
  let shown = Math.max(0, first());
  let [live, waited] = [false, false];
  const done = () => first() < 0;

  const sheet = new Image();
  function paint() {
    if (!sheet.complete || !sheet.naturalWidth) return;
    sides.forEach(({ canvas }, i) => {
      const place = 2 * shown + i;
      const [x, y] = [(place % columns) * width, Math.floor(place / columns) * height];
      canvas.getContext("2d").drawImage(sheet, x, y, width, height, 0, 0, width, height);
    });
  }

  function draw() {
    const answers = model.get("answers");
    const judged = answers.filter(Boolean).length;
    prompt.textContent = `Which picture shows \u201c${prompts[shown]}\u201d better?`;
    sides.forEach(({ side, button, canvas }) => {
      canvas.setAttribute("aria-label", `${side} picture of pair ${shown + 1}, prompt ${prompts[shown]}`);
      button.disabled = !live;
      button.setAttribute("aria-pressed", answers[shown] === side);
    });
    unsure.disabled = !live;
    unsure.setAttribute("aria-pressed", answers[shown] === "unsure");
    undo.disabled = !live || judged === 0;
    [unsure.hidden, undo.hidden, previous.hidden, next.hidden] = [waited, waited, !waited, !waited];
    previous.disabled = shown === 0;
    next.disabled = shown === prompts.length - 1;
    progress.value = judged;
    count.textContent = waited ? `pair ${shown + 1} of ${prompts.length}` : `${judged} of ${prompts.length} judged`;
    note.textContent = model.get("trouble")
      ? `Your last answer is not on disk: ${model.get("trouble")}`
      : waited
        ? "No kernel answers here, so you can look and not label: labelling needs JupyterLab, with this cell run."
        : done()
          ? "All pairs are judged. Undo takes the last answer back."
          : "";
    const focused = root.querySelector(":focus");
    if (focused && (focused.disabled || focused.hidden)) root.focus({ preventScroll: true }); // else keys are lost
    paint();
  }

  function save(answers) {
    model.set("answers", answers);
    model.save_changes();
  }

  function say(answer) {
    if (!live) return;
    const answers = [...model.get("answers")];
    if (done() && answers[shown] === answer) return;
    const judged = shown;
    answers[shown] = answer;
    save(answers);
    if (!done()) shown = first();
    said.textContent = `Pair ${judged + 1}: ${WORDS[answer]}. ${
      done() ? "That was the last one." : `Pair ${shown + 1}: ${prompts[shown]}.`
    }`;
    draw();
  }

  function back() {
    const answers = [...model.get("answers")];
    const last = answers.findLastIndex(Boolean);
    if (!live || last < 0) return;
    answers[last] = "";
    shown = last;
    save(answers);
    said.textContent = `Taken back. Pair ${shown + 1}: ${prompts[shown]}.`;
    draw();
  }

  function look(by) {
    shown = Math.min(prompts.length - 1, Math.max(0, shown + by));
    draw();
  }

  // On the window, before JupyterLab's own listener: its notebook would take the arrows to walk among cells.
  function key(event) {
    if (!event.composedPath().includes(root)) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (waited && ["ArrowLeft", "ArrowRight"].includes(event.key)) look(event.key === "ArrowLeft" ? -1 : 1);
    else if (KEYS[event.key] && live) event.repeat || say(KEYS[event.key]);
    else if (["Backspace", "u"].includes(event.key) && live) back();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function heard() {
    if (model.get("heard") !== model.get("asked")) return;
    [live, waited] = [true, false];
    draw();
  }
  const changed = () => {
    if (!waited && !model.get("answers")[shown]) shown = Math.max(0, first());
    draw();
  };
  const wait = setTimeout(() => {
    waited = !live;
    draw();
  }, PATIENCE);
  sheet.addEventListener("load", paint);
  sheet.src = model.get("sheet");
  window.addEventListener("keydown", key, true);
  model.on("change:heard", heard);
  model.on("change:answers", changed);
  model.on("change:trouble", draw);
  draw();
  model.set("asked", 1 + Math.random());
  model.save_changes();
  return () => {
    clearTimeout(wait);
    window.removeEventListener("keydown", key, true);
    model.off("change:heard", heard);
    model.off("change:answers", changed);
    model.off("change:trouble", draw);
  };
}

export default { render };
