// The gridworld editor: cells to edit by key or mouse, and the values and best moves that value iteration finds.

function make(tag, name, parent, properties = {}) {
  const node = document.createElement(tag);
  node.className = `pixelpolicy-gridworld-${name}`;
  Object.assign(node, properties);
  parent.append(node);
  return node;
}

// A number with a true minus sign, and without one where it rounds to nothing.
function written(number, digits) {
  return number.toFixed(digits).replace(/^-(?=.*[1-9])/, "\u2212").replace(/^-/, "");
}

const signed = (prize) => (prize > 0 ? "+" : "") + written(prize, 3).replace(/\.?0+$/, "");
const listed = (words) => (words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);
const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

function render({ model, el }) {
  const [width, height] = [model.get("width"), model.get("height")];
  const begun = Object.fromEntries(["walls", "prizes", "slip", "discount"].map((name) => [name, model.get(name)]));
  // The prize slider reaches as far as the largest prize there is, in steps of a tenth of its power of ten.
  const largest = Math.max(...begun.prizes.map(([, , prize]) => Math.abs(prize)), 0) || 1;
  const unit = 10 ** (Math.floor(Math.log10(largest)) - 1);
  const reach = Number((Math.ceil(largest / unit - 1e-9) * unit).toFixed(9));
  const digits = clamp(2 - Math.floor(Math.log10(largest)), 0, 3);
  let [tool, prizeToPlace, current] = ["wall", reach, 0];
  let world, planned, shown;

  const root = make("figure", "root", el);
  root.classList.add("pixelpolicy-paper", "pixelpolicy-explorer-root"); // whose colours this wears
  root.setAttribute("aria-label", model.get("caption") || "Gridworld editor");
  const body = make("div", "body", root);
  const board = make("div", "board", body);
  const grid = make("div", "grid", board);
  grid.setAttribute("role", "grid");
  grid.setAttribute("aria-label", model.get("alt"));
  root.style.setProperty("--columns", width);
  const cells = [];
  for (let row = 0; row < height; row++) {
    const line = make("div", "row", grid);
    line.setAttribute("role", "row");
    for (let column = 0; column < width; column++) {
      const node = make("div", "cell", line, { tabIndex: -1 });
      node.setAttribute("role", "gridcell");
      const arrows = MOVES.map(([name]) => make("span", `arrow ${name}`, node));
      cells.push({ node, arrows, number: make("span", "number", node) });
    }
  }
  const place = (cell) => `row ${Math.floor(cell / width) + 1}, column ${(cell % width) + 1}`;
  const told = make("p", "told", board);
  const toldPlace = make("strong", "place", told);
  const toldMoves = make("span", "moves", told);

  const panel = make("div", "panel", body);
  const readout = make("p", "readout", panel);
  const status = make("strong", "status", readout);
  const changed = make("span", "changed", readout);

  // Every slider: a native range with its name and number above it. Keys move it by `step`, pages by ten.
  const sliders = new Map();
  function slider(name, { min, max, step, show, read, write }) {
    const label = make("label", "field", panel);
    const words = make("span", "words", label);
    make("span", "name", words, { textContent: name });
    const number = make("span", "amount", words);
    const input = make("input", "slider", label, { type: "range", min, max, step: "any" });
    input.className = "pixelpolicy-explorer-slider";
    input.setAttribute("aria-label", name);
    const move = (value) => {
      const rounded = Number((Math.round(value / step) * step).toFixed(9));
      write(clamp(rounded, Number(input.min), Number(input.max)));
    };
    input.addEventListener("input", () => move(Number(input.value)));
    const draw = () => {
      input.value = read();
      number.textContent = show(read());
      input.setAttribute("aria-valuetext", show(read()));
    };
    sliders.set(input, { move, step, draw });
    return { input, draw };
  }
  const last = () => planned.sweeps;
  const sweepNow = () => Math.min(model.get("sweep") ?? last(), last());
  const sweepSlider = slider("Sweep", {
    min: 0,
    max: 1,
    step: 1,
    show: (value) => `${value} of ${last()}`,
    read: sweepNow,
    write: (value) => save({ sweep: value === last() ? null : value }),
  });
  for (const [name, trait] of [["Slip", "slip"], ["Discount", "discount"]]) {
    slider(name, {
      min: 0,
      max: 1,
      step: trait === "slip" ? 0.05 : 0.01,
      show: (value) => value.toFixed(2),
      read: () => model.get(trait),
      write: (value) => {
        save({ [trait]: value });
        say(`${name} ${value.toFixed(2)}`);
      },
    });
  }

  const tools = make("div", "tools", panel);
  tools.setAttribute("role", "group");
  tools.setAttribute("aria-label", "A click makes a cell");
  make("span", "name", tools, { textContent: "A click makes:" });
  const buttons = ["wall", "prize", "empty"].map((name) => {
    const button = make("button", "button", tools, { type: "button", textContent: name });
    button.addEventListener("click", () => {
      tool = name;
      drawTools();
    });
    return button;
  });
  const prizeSlider = slider("Prize to place", {
    min: -reach,
    max: reach,
    step: unit,
    show: signed,
    read: () => prizeToPlace,
    write: (value) => {
      prizeToPlace = value;
      prizeSlider.draw();
    },
  });
  const again = make("button", "button", make("p", "again", panel), { type: "button", textContent: "Begin again" });
  again.addEventListener("click", () => {
    save({ ...begun, sweep: null });
    say("As at the beginning");
  });
  const help = make("p", "help", root);
  help.textContent = [
    "Triangles point along the best moves; several where they tie.",
    "A cell with a double frame is a prize: it ends the episode.",
    "Keys in the grid: arrows move, W wall, P prize, E empty, + and \u2212 change a prize, Space clicks.",
  ].join(" ");
  help.id = `pixelpolicy-gridworld-${Math.random().toString(36).slice(2)}`;
  grid.setAttribute("aria-describedby", help.id);
  const live = make("p", "live", root);
  live.className = "pixelpolicy-explorer-said"; // heard, not seen
  live.setAttribute("role", "status");
  live.setAttribute("aria-live", "polite");
  if (model.get("caption")) {
    const caption = make("figcaption", "caption", root, { textContent: model.get("caption") });
    caption.className = "pixelpolicy-explorer-caption";
  }

  let saving = false;
  function save(changes) {
    saving = true;
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    saving = false;
    model.save_changes();
    if (Object.keys(changes).join() === "sweep") draw();
    else redraw();
  }

  function outcome() {
    const after = `settled after ${last()} sweeps`;
    return planned.settled ? after : `not ${after}: take a lower discount`;
  }
  function say(words) {
    live.textContent = `${words}; ${outcome()}.`;
  }

  function redraw() {
    world = tables({ width, height, walls: model.get("walls"), prizes: model.get("prizes") });
    planned = plan(world, model.get("slip"), model.get("discount"));
    draw();
  }

  function draw() {
    const count = sweepNow();
    const { values, change } = planned.at(count);
    shown = values;
    const most = Math.max(...planned.values.map(Math.abs), ...world.prize.map(Math.abs)) || 1;
    const found = new Float64Array(4);
    cells.forEach((drawn, cell) => {
      const { node, arrows, number } = drawn;
      const [isWall, isPrize] = [world.wall[cell] === 1, world.terminal[cell] === 1 && world.wall[cell] === 0];
      const worth = isPrize ? world.prize[cell] : values[cell];
      const best = world.terminal[cell]
        ? [false, false, false, false]
        : bestMoves(actionValues(world, model.get("slip"), model.get("discount"), values, cell, found));
      const names = MOVES.filter((_, move) => best[move]).map(([name]) => name);
      const moves = names.length === 4 ? "all moves tie" : `best ${listed(names)}`;
      const what = isWall ? "wall" : isPrize ? `prize ${signed(worth)}` : `${written(worth, digits)}, ${moves}`;
      const strength = isWall ? 0 : clamp(Math.abs(worth) / most, 0, 1).toFixed(3);
      const looks = `${what} ${worth < 0} ${strength}`;
      if (drawn.looks === looks) return; // most cells stay as they are from one sweep to the next
      drawn.looks = looks;
      node.classList.toggle("wall", isWall);
      node.classList.toggle("prize", isPrize);
      node.classList.toggle("bad", worth < 0);
      node.classList.toggle("alike", names.length === 4);
      node.style.setProperty("--strength", strength);
      node.setAttribute("aria-label", `${place(cell)}: ${what}`);
      number.textContent = isWall ? "" : isPrize ? signed(worth) : written(worth, digits);
      arrows.forEach((arrow, move) => (arrow.hidden = !best[move]));
    });
    status.textContent = outcome().replace(/^./, (letter) => letter.toUpperCase());
    const effect = change === 0 ? "changed nothing" : `changed a value by ${small(change)} at most`;
    changed.textContent = count === 0 ? "Sweep 0: every value is 0" : `Sweep ${count} ${effect}`;
    sweepSlider.input.max = last();
    sliders.forEach((each) => each.draw());
    tell(current);
  }

  function small(change) {
    return change >= 0.001 ? written(change, 4) : change.toExponential(0).replace("-", "\u2212");
  }

  // Under the grid: a cell's value and those of its four moves, to be checked by hand.
  function tell(cell) {
    const head = place(cell).replace("row", "Row");
    const moves = actionValues(world, model.get("slip"), model.get("discount"), shown, cell, new Float64Array(4));
    const each = MOVES.map(([name], move) => `${name} ${written(moves[move], 4)}`);
    const what = content(cell);
    const [value, why] =
      what === "wall"
        ? ["wall", "nobody can enter"]
        : what === "empty"
          ? [`value ${written(shown[cell], 4)}`, `moves: ${each.join(", ")}`]
          : [`prize ${signed(what)}`, "earned on entering; the episode ends"];
    toldPlace.textContent = `${head}: ${value}`;
    toldMoves.textContent = why;
  }

  function drawTools() {
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.textContent === tool));
  }

  // What a cell is: "wall", "empty", or the number of its prize.
  function content(cell) {
    return world.wall[cell] ? "wall" : world.terminal[cell] ? world.prize[cell] : "empty";
  }

  function put(cell, what) {
    if (content(cell) === what) return;
    const [row, column] = [Math.floor(cell / width), cell % width];
    const others = ([r, c]) => r !== row || c !== column;
    const walls = model.get("walls").filter(others);
    const prizes = model.get("prizes").filter(others);
    if (what === "wall") {
      if (walls.length === width * height - 1) {
        live.textContent = "One cell must stay free.";
        return;
      }
      walls.push([row, column]);
    } else if (what !== "empty") prizes.push([row, column, what]);
    save({ walls, prizes });
    say(`${place(cell)}: ${typeof what === "number" ? `prize ${signed(what)}` : what}`);
  }

  // What a click makes of a cell: the chosen thing, or empty where it is that already.
  function clicked(cell) {
    const what = tool === "prize" ? prizeToPlace : tool;
    return content(cell) === what ? "empty" : what;
  }

  function stand(cell, focus = true) {
    cells[current].node.tabIndex = -1;
    current = cell;
    cells[current].node.tabIndex = 0;
    if (focus) cells[current].node.focus();
    tell(current);
  }

  const cellAt = (event) => cells.findIndex(({ node }) => node.contains(event.target));
  let painted = null; // what a drag of the mouse makes of the cells it goes over
  grid.addEventListener("mousedown", (event) => {
    const cell = cellAt(event);
    if (cell < 0 || event.button !== 0) return;
    event.preventDefault(); // else JupyterLab's notebook would take the focus
    stand(cell);
    painted = clicked(cell);
    put(cell, painted);
  });
  grid.addEventListener("mouseover", (event) => {
    const cell = cellAt(event);
    if (cell < 0) return;
    if (painted !== null && event.buttons % 2 === 1) put(cell, painted);
    else painted = null;
    tell(cell);
  });
  grid.addEventListener("mouseleave", () => tell(current));
  grid.addEventListener("focusin", (event) => {
    const cell = cellAt(event);
    if (cell >= 0 && cell !== current) stand(cell, false);
  });
  const release = () => (painted = null);
  window.addEventListener("mouseup", release);

  function gridKey(event) {
    const [row, column] = [Math.floor(current / width), current % width];
    const to = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      Home: [event.ctrlKey ? 0 : row, 0],
      End: [event.ctrlKey ? height - 1 : row, width - 1],
    }[event.key];
    if (to) return () => stand(clamp(to[0], 0, height - 1) * width + clamp(to[1], 0, width - 1));
    if (event.ctrlKey) return undefined;
    const now = typeof content(current) === "number" ? content(current) : 0;
    const bound = Math.max(reach, Math.abs(now));
    const prize = (by) => () => put(current, Number(clamp(now + by, -bound, bound).toFixed(9)));
    return {
      w: () => put(current, "wall"),
      p: () => put(current, prizeToPlace),
      e: () => put(current, "empty"),
      delete: () => put(current, "empty"),
      backspace: () => put(current, "empty"),
      "+": prize(unit),
      "=": prize(unit),
      "-": prize(-unit),
      "\u2212": prize(-unit),
      " ": () => put(current, clicked(current)),
      enter: () => put(current, clicked(current)),
    }[event.key.toLowerCase()];
  }

  function sliderKey(input, event) {
    const { move, step } = sliders.get(input);
    const value = Number(input.value);
    const to = {
      ArrowLeft: value - step,
      ArrowDown: value - step,
      ArrowRight: value + step,
      ArrowUp: value + step,
      PageDown: value - 10 * step,
      PageUp: value + 10 * step,
      Home: Number(input.min),
      End: Number(input.max),
    }[event.key];
    return to === undefined || event.ctrlKey ? undefined : () => move(to);
  }

  // On the window, before JupyterLab's own listener: its notebook would take these keys for commands.
  function key(event) {
    if (event.altKey || event.metaKey || (event.shiftKey && event.key !== "+")) return;
    const target = event.composedPath()[0];
    let act;
    if (target === cells[current].node) act = gridKey(event);
    else if (sliders.has(target)) act = sliderKey(target, event);
    else if (target === again || buttons.includes(target)) {
      if (event.key === "Enter" || event.key === " ") act = () => event.repeat || target.click();
    }
    if (!act) return;
    event.preventDefault();
    act();
  }
  window.addEventListener("keydown", key, true);

  const watched = ["walls", "prizes", "slip", "discount", "sweep"];
  // One redraw for several changes of the kernel's, or of another view's, after the last of them.
  let waiting = false;
  const changedElsewhere = () => {
    if (waiting || saving) return;
    waiting = true;
    queueMicrotask(() => {
      waiting = false;
      redraw();
    });
  };
  watched.forEach((name) => model.on(`change:${name}`, changedElsewhere));
  drawTools();
  cells[current].node.tabIndex = 0;
  redraw();
  return () => {
    window.removeEventListener("keydown", key, true);
    window.removeEventListener("mouseup", release);
    watched.forEach((name) => model.off(`change:${name}`, changedElsewhere));
  };
}

export default { render };
