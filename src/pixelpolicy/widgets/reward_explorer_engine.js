// The reward explorer's generator in the reader's browser: a worker that draws and judges with onnxruntime-web.
// All its files lie beside it; it asks for nothing else. The functions are exported, so that tests hold them to Python.

const CHUNK = 4; // pictures between two words of progress
const { fround } = Math;

// torch's random numbers -----------------------------------------------------------------------------------------

// The Mersenne Twister (Matsumoto and Nishimura 1998) as torch seeds it, and normal numbers as torch makes them where
// 16 or more are asked for: Box and Muller's pairs, 8 apart in each 16.
function stream(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i += 1) {
    const last = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(1812433253, last) + i;
  }
  let at = 624;
  function whole() {
    if (at === 624) {
      for (let i = 0; i < 624; i += 1) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at];
    at += 1;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }
  // `count` is a multiple of 16
  return function normal(count) {
    const values = Float32Array.from({ length: count }, () => (whole() & 0xffffff) / 0x1000000);
    for (let start = 0; start < count; start += 16) {
      for (let j = start; j < start + 8; j += 1) {
        const radius = fround(Math.sqrt(fround(-2 * fround(Math.log(1 - values[j])))));
        const angle = fround(2 * Math.PI * values[j + 8]);
        [values[j], values[j + 8]] = [radius * Math.cos(angle), radius * Math.sin(angle)];
      }
    }
    return values;
  };
}

// Weights --------------------------------------------------------------------------------------------------------

let halves = null;
function fromHalves(bits) {
  if (!halves) {
    halves = Float32Array.from({ length: 65536 }, (_, x) => {
      const [sign, power, rest] = [x >> 15 ? -1 : 1, (x >> 10) & 31, x & 1023];
      if (power === 31) return rest ? NaN : sign * Infinity;
      return sign * (power ? (1 + rest / 1024) * 2 ** (power - 15) : rest * 2 ** -24);
    });
  }
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) values[i] = halves[bits[i]];
  return values;
}

// A file of safetensors as { name: { shape, values } }, in float32.
function safetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const found = {};
  delete header.__metadata__;
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    const bytes = buffer.slice(8 + length + from, 8 + length + to);
    if (dtype === "F16") found[name] = { shape, values: fromHalves(new Uint16Array(bytes)) };
    else if (dtype === "F32") found[name] = { shape, values: new Float32Array(bytes) };
    else throw new Error(`the weights ${name} are of type ${dtype}, which this page does not read`);
  }
  return found;
}

// theta_0 + alpha (theta - theta_0).
function moved(base, change, alpha) {
  const scale = fround(alpha);
  const made = {};
  for (const [name, { shape, values }] of Object.entries(base)) {
    const by = change[name]?.values;
    const sum = by && scale ? new Float32Array(values.length) : values;
    if (sum !== values) for (let i = 0; i < sum.length; i += 1) sum[i] = values[i] + fround(scale * by[i]);
    made[name] = { shape, values: sum };
  }
  return made;
}

// Prompts and rewards --------------------------------------------------------------------------------------------

// The words of a prompt that the encoder knows, as numbers, padded with 0.
function tokens(prompt, { vocabulary, length }) {
  const words = prompt.split(" ").filter((word) => word && word !== "a" && word !== "of");
  const found = words.map((word) => vocabulary.indexOf(vocabulary.includes(word) ? word : word.replace(/s$/, "")));
  return [...found, ...Array(length - found.length).fill(0)];
}

// The mean over pixels of R - (G + B) / 2, colours in [0, 1]; `picture` is [3, pixels] in [-1, 1].
function redness(picture) {
  const count = picture.length / 3;
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += picture[i] - (picture[count + i] + picture[2 * count + i]) / 2;
  return sum / 2 / count;
}

// The share of coloured pixels that have a colour of the prompt; `palette` is { name: [r, g, b] }, the ground first.
function promptColours(picture, prompt, palette) {
  const [count, names] = [picture.length / 3, Object.keys(palette)];
  const asked = names.map((name, k) => k > 0 && prompt.split(" ").includes(name));
  const colours = names.map((name) => palette[name].map(fround));
  let [coloured, hits] = [0, 0];
  for (let i = 0; i < count; i += 1) {
    let [best, nearest] = [Infinity, 0];
    colours.forEach((colour, k) => {
      const far = colour.reduce((sum, c, part) => sum + ((picture[part * count + i] + 1) / 2 - c) ** 2, 0);
      if (far < best) [best, nearest] = [far, k];
    });
    coloured += nearest > 0;
    hits += asked[nearest];
  }
  return hits / Math.max(1, coloured);
}

// A picture [3, pixels] in [-1, 1] as bytes, pixel by pixel.
function bytes(picture) {
  const count = picture.length / 3;
  const made = new Uint8Array(picture.length);
  for (let i = 0; i < picture.length; i += 1) {
    const level = Math.min(255, Math.max(0, Math.round((picture[i] + 1) * 127.5)));
    made[(i % count) * 3 + Math.floor(i / count)] = level;
  }
  return made;
}

// The network ----------------------------------------------------------------------------------------------------

// The parts of `folder` that every drawing needs; `tell(words)` says what is being loaded.
async function loaded(folder, tell = () => {}) {
  let [asked, done] = [0, 0];
  async function got(name, kind = "arrayBuffer") {
    asked += 1;
    const answer = await fetch(new URL(name, folder)).catch(() => null);
    if (!answer?.ok) throw new Error(`${name} could not be loaded${answer ? ` (${answer.status})` : ""}`);
    const body = await answer[kind]();
    done += 1;
    tell(`loading the model, ${done} of ${asked} files`);
    return body;
  }
  const weights = async (name) => safetensors(await got(name));
  tell("loading the engine");
  const [ort, about] = await Promise.all([import(new URL("ort.wasm.min.mjs", folder)), got("engine.json", "json")]);
  // one thread: more would need headers that a plain server does not send
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: folder });
  const parts = {};
  let turn = Promise.resolve(); // sessions are made one by one, while files still come
  await Promise.all(
    Object.entries(about.parts).map(async ([name, file]) => {
      const coming = weights(file);
      coming.catch(() => {}); // told below, also where the graph fails first
      const graph = new Uint8Array(await got(`graphs/${name}.onnx`));
      turn = turn.then(() => ort.InferenceSession.create(graph, { graphOptimizationLevel: "basic" }));
      const [session, base] = [await turn, await coming];
      // what is no weight is an input
      parts[name] = { session, base, weights: session.inputNames.filter((input) => input in base) };
    })
  );
  const changes = new Map();

  // Runs a part on `inputs` { name: [type, values, shape] } under `given` weights.
  async function run(name, inputs, given = parts[name].base) {
    const { session, weights: names } = parts[name];
    const feeds = {};
    for (const weight of names) feeds[weight] = new ort.Tensor("float32", given[weight].values, given[weight].shape);
    for (const [input, [type, values, shape]] of Object.entries(inputs)) feeds[input] = new ort.Tensor(type, values, shape);
    return session.run(feeds);
  }

  async function weightsOf(name, alpha) {
    if (!changes.has(name)) changes.set(name, await weights(about.runs[name]));
    return moved(parts.velocity.base, changes.get(name), alpha);
  }

  const words = (prompts) => {
    const rows = prompts.flatMap((prompt) => tokens(prompt, about));
    return ["int64", BigInt64Array.from(rows, BigInt), [prompts.length, about.length]];
  };

  // The end of the trajectories [samples, latent], as `policies.DenoisingPolicy` walks them.
  async function latents(prompts, seeds, { weights: given, guidance, steps, noise, stop = async () => false }) {
    const [count, size] = [prompts.length, about.latent.reduce((a, b) => a * b, 1)];
    const streams = seeds.map(stream);
    const draw = () => Float32Array.from(streams.flatMap((normal) => [...normal(size)]));
    const guided = guidance !== 1;
    const texts = guided ? [...prompts.map(() => ""), ...prompts] : prompts;
    const { embeds, pooled } = await run("encoder", { tokens: words(texts) });
    const conditioning = {
      embeds: ["float32", embeds.data, embeds.dims],
      pooled: ["float32", pooled.data, pooled.dims],
    };
    let state = draw();
    for (let step = 0; step < steps; step += 1) {
      const [sigma, next] = [fround(1 - step / steps), fround(1 - (step + 1) / steps)];
      const rows = guided ? Float32Array.from([...state, ...state]) : state;
      const time = new Float32Array(texts.length).fill(sigma * 1000);
      const { velocity } = await run(
        "velocity",
        {
          latents: ["float32", rows, [texts.length, ...about.latent]],
          timestep: ["float32", time, [texts.length]],
          ...conditioning,
        },
        given
      );
      const all = velocity.data;
      const v = guided ? state.map((_, i) => all[i] + guidance * (all[count * size + i] - all[i])) : all;
      if (noise > 0 && next > 0) {
        // coefficients-preserving sampling
        const [std, kept] = [next * Math.sin((noise * Math.PI) / 2), next * Math.abs(Math.cos((noise * Math.PI) / 2))];
        const fresh = draw();
        state = state.map((x, i) => (1 - next) * (x - sigma * v[i]) + kept * (x + (1 - sigma) * v[i]) + std * fresh[i]);
      } else {
        state = state.map((x, i) => x + (next - sigma) * v[i]);
      }
      if (await stop()) return null;
    }
    return state;
  }

  // Pictures of latents, one Float32Array [3, pixels] each.
  async function pictures(state) {
    const count = state.length / about.latent.reduce((a, b) => a * b, 1);
    const { pictures: all } = await run("decoder", { latents: ["float32", state, [count, ...about.latent]] });
    const each = all.data.length / count;
    return Array.from({ length: count }, (_, i) => all.data.slice(i * each, (i + 1) * each));
  }

  // What this browser can say of pictures: { reward: [one a picture] }.
  async function judged(made, prompts) {
    const side = Math.sqrt(made[0].length / 3);
    const all = Float32Array.from(made.flatMap((picture) => [...picture]));
    const given = { pictures: ["float32", all, [made.length, 3, side, side]], tokens: words(prompts) };
    return {
      proxy: [...(await run("proxy", given)).reward.data],
      redness: made.map(redness),
      colours: made.map((picture, i) => promptColours(picture, prompts[i], about.palette)),
    };
  }

  return { about, weightsOf, latents, pictures, judged };
}

// Draws what `wish` asks for, some pictures at a time, and tells of each part; `stop` says that another is wanted.
async function drawn(engine, { prompts, seeds, settings }, tell, stop = async () => false) {
  const { run, alpha, guidance, steps, noise } = settings;
  const weights = await engine.weightsOf(run, alpha);
  for (let first = 0; first < prompts.length; first += CHUNK) {
    const texts = prompts.slice(first, first + CHUNK);
    const how = { weights, guidance, steps, noise, stop };
    const state = await engine.latents(texts, seeds.slice(first, first + CHUNK), how);
    if (!state) return false;
    const made = await engine.pictures(state);
    const values = await engine.judged(made, texts);
    tell({ kind: "pictures", first, side: Math.sqrt(made[0].length / 3), pictures: made.map(bytes), values });
  }
  return true;
}

// As a worker ----------------------------------------------------------------------------------------------------

if (typeof DedicatedWorkerGlobalScope !== "undefined") {
  let [engine, latest, turn] = [null, null, Promise.resolve()];
  self.addEventListener("message", ({ data: wish }) => {
    latest = wish.number;
    if (wish.kind !== "draw") return;
    const { number } = wish;
    const tell = (message) => latest === number && self.postMessage({ ...message, number });
    turn = turn.then(async () => {
      if (latest !== number) return;
      const started = performance.now();
      try {
        engine ??= await loaded(new URL(".", import.meta.url).href, (words) => tell({ kind: "progress", words }));
        tell({ kind: "progress", words: "drawing" });
        const whole = await drawn(engine, wish, tell, async () => {
          await new Promise((go) => setTimeout(go)); // a message is heard only between two tasks
          return latest !== number;
        });
        if (whole) tell({ kind: "done", seconds: (performance.now() - started) / 1000 });
      } catch (error) {
        tell({ kind: "error", words: error.message });
      }
    });
  });
}

export { bytes, drawn, loaded, moved, promptColours, redness, safetensors, stream, tokens };
