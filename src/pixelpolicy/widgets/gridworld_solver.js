// Value iteration in a gridworld, as `control.Gridworld` and `control.planning` have it; a test holds it to them.

// As `control.Gridworld` orders them; the two neighbours of a move in this ring are the sides it may slip to.
const MOVES = [
  ["left", 0, -1],
  ["down", 1, 0],
  ["right", 0, 1],
  ["up", -1, 0],
];
const TOLERANCE = 1e-10;
const TIE = 1e-9;
const KEPT = 32; // every so many sweeps are kept; those between are computed again when they are looked at
const MOST = 2e6; // states visited before giving up on a world that does not settle, as with discount 1

// The world as `control.Gridworld.mdp` reads it, in tables: where each move leads, and what entering a cell earns.
export function tables({ width, height, walls, prizes }) {
  const cells = width * height;
  const wall = new Uint8Array(cells);
  const prize = new Float64Array(cells);
  const terminal = new Uint8Array(cells);
  for (const [row, column] of walls) wall[row * width + column] = terminal[row * width + column] = 1;
  for (const [row, column, earned] of prizes) {
    terminal[row * width + column] = 1;
    prize[row * width + column] = earned;
  }
  const next = new Int32Array(4 * cells);
  for (let cell = 0; cell < cells; cell++) {
    MOVES.forEach(([, down, right], move) => {
      const [row, column] = [Math.floor(cell / width) + down, (cell % width) + right];
      const free = row >= 0 && row < height && column >= 0 && column < width && !wall[row * width + column];
      next[4 * cell + move] = free ? row * width + column : cell;
    });
  }
  return { cells, wall, prize, terminal, next };
}

// What the four moves from a cell are worth where the cells are worth `values`; written into `found`.
export function actionValues({ next, prize }, slip, discount, values, cell, found) {
  const led = (move) => prize[next[4 * cell + move]] + discount * values[next[4 * cell + move]];
  const [left, down, right, up] = [led(0), led(1), led(2), led(3)];
  const [level, upright] = [(slip / 2) * (left + right), (slip / 2) * (down + up)];
  found[0] = (1 - slip) * left + upright;
  found[1] = (1 - slip) * down + level;
  found[2] = (1 - slip) * right + upright;
  found[3] = (1 - slip) * up + level;
  return found;
}

// All moves within TIE of the best one, as `control.planning.greedy_actions` has them.
export function bestMoves(found) {
  const best = Math.max(...found);
  return Array.from(found, (value) => value >= best - TIE);
}

// One sweep of Bellman's optimality equation: from `values` into `after`; the largest change and the largest value.
function sweep(world, slip, discount, values, after) {
  const found = new Float64Array(4);
  let [change, largest] = [0, 0];
  for (let cell = 0; cell < world.cells; cell++) {
    if (world.terminal[cell]) continue;
    actionValues(world, slip, discount, values, cell, found);
    const value = Math.max(found[0], found[1], found[2], found[3]);
    change = Math.max(change, Math.abs(value - values[cell]));
    largest = Math.max(largest, Math.abs(value));
    after[cell] = value;
  }
  return [change, largest];
}

// Value iteration from 0 with the rule of `control.planning.value_iteration` for when to stop.
export function plan(world, slip, discount) {
  const enough = discount > 0 && discount < 1 ? (TOLERANCE * (1 - discount)) / discount : TOLERANCE;
  const most = Math.max(1, Math.floor(MOST / world.cells));
  let [values, after] = [new Float64Array(world.cells), new Float64Array(world.cells)];
  const kept = [values.slice()];
  let [sweeps, settled] = [0, false];
  while (!settled && sweeps < most) {
    const [change, largest] = sweep(world, slip, discount, values, after);
    [values, after] = [after, values];
    sweeps += 1;
    settled = change <= Math.max(enough, 4 * Number.EPSILON * largest);
    if (sweeps % KEPT === 0) kept.push(values.slice());
  }
  // The values after so many sweeps, and the largest change that the last of them made.
  function at(count) {
    const start = Math.floor(Math.max(0, count - 1) / KEPT);
    let [now, then, change] = [kept[start].slice(), new Float64Array(world.cells), 0];
    for (let done = start * KEPT; done < count; done++) {
      [change] = sweep(world, slip, discount, now, then);
      [now, then] = [then, now];
    }
    return { values: now, change };
  }
  return { values, sweeps, settled, at };
}
