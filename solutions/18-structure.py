# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 18: a part of the generator learns by trying
#
# Until now reinforcement learning came *after* a generator was made, and changed its weights. In this lab it is a part
# of the generator. First there is no network of pixels at all: an agent with a brush paints handwritten digits, stroke
# by stroke, and PPO teaches it with the very functions that balance a pole. Then the generator of the earlier labs
# stays as it is, and REINFORCE learns *how to run it*: where its four steps go, and how much each is guided.
#
# You need PPO (lab 04), REINFORCE (lab 03), samplers and guidance (lab 06), and chapter 18. Six exercises, about 55
# minutes; the training takes a few minutes more. Leave whenever you like: your answers and points are kept.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> learns the schedule of a real model.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 3.5 medium, 512 x 512 pixels: `stabilityai/stable-diffusion-3.5-medium` |
# | licence | Stability AI Community License; gated: accept it on the model's page, then `hf auth login` |
# | disk | 16.3 GB |
# | VRAM, loading (estimate, unmeasured) | 16.4 GB |
# | VRAM, searching (estimate, unmeasured) | 5.3 GB of weights; nothing is kept for a gradient |
# | trained | 16 numbers, the schedule of 8 steps; the model is frozen, in bfloat16 |
# | a 24 GB card, which `gpu` is set for | 8 schedules an iteration on 32 pictures each, `micro_batch` 8 |
# | guidance at the start | 4.5 at every step (this course's choice) |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download stabilityai/stable-diffusion-3.5-medium --exclude "*fp16*" --exclude "sd3.5_medium*" \
#     --exclude "text_encoders/*" --exclude "vae copy/*" --exclude "*.png"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws and scores means nothing. The painter is small on
# every profile.
#
# </details>

# %%
from dataclasses import replace

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Float
from torch import Tensor

# %%
from pixelpolicy import control, viz
from pixelpolicy.control.ppo import CARTPOLE, PPO, PPOConfig
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.finetune import Loop, LoopConfig, ScheduleConfig, ScheduleSearch
from pixelpolicy.finetune.schedule import generate, uniform
from pixelpolicy.generators import best_of, load
from pixelpolicy.pipelines import sd3
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import shapes_dense, shapes_strict
from pixelpolicy.rl import clipped_surrogate, gae
from pixelpolicy.worlds import canvas, shapes

# %% [markdown]
# ## 1. A canvas and a brush
#
# The canvas has 24 x 24 pixels and starts black. A digit is to be painted on it with **six strokes** of white. A stroke
# is a straight line with round ends, told by five numbers: its middle, half its way along x and along y, its radius.
# Here are eight of the targets: real handwriting, enlarged.

# %%
lab_clock = start_timer()
wanted, labels = canvas.targets("held-out")
wanted, labels = wanted[:: choose(smoke=50, cpu=2, gpu=2)], labels[:: choose(smoke=50, cpu=2, gpu=2)]


def as_pictures(ink: np.ndarray) -> np.ndarray:
    """Ink from 0 to 1 as grey pictures in [-1, 1]."""
    return np.repeat(2 * ink[:, None] - 1, 3, axis=1)


chosen = np.linspace(0, len(wanted) - 1, 8).astype(int)
viz.sample_sheet(
    as_pictures(wanted[chosen]),
    [f"a {labels[i]}" for i in chosen],
    alt="Eight handwritten digits in white on black, with thick lines: " + ", ".join(str(labels[i]) for i in chosen),
)

# %% [markdown] goal="18.1"
# Write the **brush**. Pixel $(i, j)$, in row $i$ and column $j$, has its middle at $p = (j + 0.5,\ i + 0.5)$, x first.
# A stroke with middle $m$ and half way $h$ consists of the points $m + u\,h$ with $u$ from $-1$ to $1$. The nearest of
# them to $p$ is
#
# $$u^\star = \operatorname{clip}\!\left(\frac{(p - m)\cdot h}{h \cdot h + 10^{-6}},\ -1,\ 1\right), \qquad
# d = \lVert p - m - u^\star h\rVert .$$
#
# The share of the pixel that is covered falls around the radius $r$ from 1 to 0:
# $\operatorname{clip}(r + 0.5 - d,\ 0,\ 1)$. All strokes of a batch are painted at once, in NumPy.


# %% exercise={"id": "18.1", "name": "brush", "title": "A brush", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.worlds.canvas.line", "pixelpolicy.worlds.canvas.covers", "pixelpolicy.worlds.canvas.add", "pixelpolicy.worlds.canvas.errors", "pixelpolicy.worlds.canvas.improvement"]}
def brush(
    x: Float[np.ndarray, "batch"],
    y: Float[np.ndarray, "batch"],
    half_x: Float[np.ndarray, "batch"],
    half_y: Float[np.ndarray, "batch"],
    radius: Float[np.ndarray, "batch"],
) -> Float[np.ndarray, "batch 24 24"]:
    """The share of each pixel that a stroke covers, from 0 to 1."""
    ### BEGIN SOLUTION
    rows, columns = np.indices((24, 24), dtype=np.float32) + np.float32(0.5)
    x, y, half_x, half_y, radius = (number[:, None, None] for number in (x, y, half_x, half_y, radius))
    dx, dy = columns - x, rows - y
    along = (dx * half_x + dy * half_y) / (half_x**2 + half_y**2 + 1e-6)
    along = along.clip(-1, 1)
    distance = np.sqrt((dx - along * half_x) ** 2 + (dy - along * half_y) ** 2)
    return (radius + 0.5 - distance).clip(0, 1)
    ### END SOLUTION


# %% [markdown] hints="18.1"
# <details><summary>Hint 1: all pixels, all strokes</summary>
#
# Give the numbers of the strokes two more axes, `x[:, None, None]`, and they broadcast against grids of 24 x 24.
#
# </details>
# <details><summary>Hint 2: the grids</summary>
#
# `np.indices((24, 24))` gives the row and the column of every pixel. Add 0.5 for the middle. The row is y.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# With `dx = columns - x` and `dy = rows - y` the share along is `(dx * half_x + dy * half_y) / (...)`. Clip it before
# you measure the distance to `(along * half_x, along * half_y)`.
#
# </details>

# %% check="18.1"
check("18.1", brush)

# %%
lines = np.array([[12, 12, 7, 0, 2], [7, 12, 0, 6, 1], [12, 12, 5, -5, 3], [16, 8, 0, 0, 4]], dtype=np.float32)
viz.sample_sheet(
    as_pictures(brush(*lines.T)),
    ["long", "thin, upright", "thick, rising", "no length"],
    columns=4,
    alt="Four strokes of your brush: a long level one, a thin upright one, a thick rising one, and a round dot.",
)

# %% [markdown] goal="18.2"
# What is a stroke worth? Let $E(c) = \sum (c - w)^2$ be the squared error of a canvas $c$ against the target $w$, summed
# over its pixels, and $E_0$ that of the empty canvas, which is 0 everywhere. A stroke that turns $c$ into $c'$ earns
#
# $$r = \frac{E(c) - E(c')}{E_0}.$$
#
# Along an episode nearly all of it cancels, and what is left is the share of the error that was removed.


# %% exercise={"id": "18.2", "name": "improvement", "title": "What a stroke is worth", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.worlds.canvas.line", "pixelpolicy.worlds.canvas.covers", "pixelpolicy.worlds.canvas.add", "pixelpolicy.worlds.canvas.errors", "pixelpolicy.worlds.canvas.improvement"]}
def improvement(
    before: Float[np.ndarray, "batch 24 24"],
    after: Float[np.ndarray, "batch 24 24"],
    wanted: Float[np.ndarray, "batch 24 24"],
) -> Float[np.ndarray, "batch"]:
    """By how much each stroke lowered the error, as a share of the empty canvas's."""
    ### BEGIN SOLUTION
    gap = ((before - wanted) ** 2 - (after - wanted) ** 2).sum(axis=(1, 2))
    return gap / (wanted**2).sum(axis=(1, 2))
    ### END SOLUTION


# %% [markdown] hints="18.2"
# <details><summary>Hint 1: one number a picture</summary>
#
# `sum(axis=(1, 2))` sums over rows and columns and leaves the batch.
#
# </details>
# <details><summary>Hint 2: the empty canvas</summary>
#
# It is black, 0 everywhere, so that its error is the sum of the squares of the target alone.
#
# </details>
# <details><summary>Hint 3: strokes that harm</summary>
#
# White where black is wanted makes the error larger, and the reward negative. Leave it so.
#
# </details>

# %% check="18.2"
check("18.2", improvement)

# %% [markdown]
# ## 2. One loss, two worlds
#
# `canvas` is registered with Gymnasium like any other world, `gymnasium.make("PixelPolicy/Canvas-v0")`. The painter sees
# the target and what is missing of it, squinting (pixels averaged 2 x 2), and how many strokes it has made: 289 numbers.
# It answers with the five numbers of a stroke, drawn from a Gaussian. Here is the batched version, on *your* brush and
# *your* reward.

# %%
COPIES = choose(smoke=8, cpu=192, gpu=192)
painting = PPOConfig(
    copies=COPIES,
    steps=14,
    iterations=choose(smoke=2, cpu=300, gpu=300),
    epochs=4,
    learning_rate=2e-3,
    discount=0.5,
    lam=0.9,
    hidden=(128, 128),
)
easels = canvas.CanvasVectorEnv(COPIES, brush=brush, reward=improvement)

# %% [markdown]
# Now look closely at the next cell. The pole of lab 04 and the painter are trained by one class, one loss, one estimator
# of advantages. All that differs is the world, and settings: a stroke pays at once, so that a discount of 0.5 loses
# little foresight and much noise.

# %%
tools = {"loss": clipped_surrogate, "estimator": gae, "seed": seed()}
balancing = replace(CARTPOLE, iterations=choose(smoke=1, cpu=20, gpu=20))
pole = PPO(control.make("CartPole-v1", balancing.copies), balancing, **tools)
painter = PPO(easels, painting, **tools)

# %%
pole_log = [pole.iteration() for _ in range(balancing.iterations)]
print(f"the pole: return {pole_log[0]['return']:.0f} -> {pole_log[-1]['return']:.0f} (still rising)")

# %%
EVERY = choose(smoke=1, cpu=20, gpu=20)


def greedy(seen: np.ndarray) -> np.ndarray:
    """The painter's best stroke for what it sees."""
    return painter.policy.greedy(torch.as_tensor(seen)).numpy()


def removed() -> float:
    """The share of the error that the painter removes of targets it never trained on."""
    return 1 - canvas.errors(canvas.paint(greedy, wanted)[-1], wanted).mean()


# %%
untrained, painter_log = removed(), []
with timer() as painting_time:
    for number in range(painting.iterations):
        painter_log.append(painter.iteration())
        if (number + 1) % EVERY == 0:
            painter_log[-1]["removed"] = removed()
print(f"{painting_time.cpu_seconds:.0f} CPU s; of the error removed: {untrained:.2f} -> {removed():.2f}")

# %% [markdown]
# Be fair: there is a painter that needs no training. At each stroke it tries N random ones and keeps the best. It asks
# the reward N times a stroke, and it must know the target to do so; the trained painter asks once, and nobody.


# %%
def search(count: int, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Canvases of a painter that keeps the best of ``count`` random strokes, six times."""
    best = np.zeros_like(targets)
    for _ in range(canvas.STROKES):
        start, gained = best, np.full(len(targets), -np.inf)
        for _ in range(count):
            tried = canvas.add(start, rng.normal(size=(len(targets), 5)), brush)
            gain = improvement(start, tried, targets)
            best = np.where((gain > gained)[:, None, None], tried, best)
            gained = np.maximum(gain, gained)
    return best


# %%
few = wanted[:: choose(smoke=1, cpu=4, gpu=4)]
tries = (1, 4, 12, choose(smoke=12, cpu=100, gpu=100))
searched = {n: 1 - canvas.errors(search(n, few, np.random.default_rng(0)), few).mean() for n in tries}
for n, share in searched.items():
    print(f"best of {n:3d} random strokes, six times: {share:.2f} of the error removed")

# %%
seen = [row for row in painter_log if "removed" in row]
viz.curves(
    {
        "while exploring": ([row["iteration"] for row in painter_log], [row["return"] for row in painter_log]),
        "greedy, held-out digits": ([row["iteration"] for row in seen], [row["removed"] for row in seen]),
    },
    levels={f"best of {n} random strokes": searched[n] for n in (4, tries[-1])},
    xlabel="iteration",
    ylabel="share of the error removed",
    alt=f"The share of the error removed over {len(painter_log)} iterations: greedy from {untrained:.2f} to "
    f"{seen[-1]['removed']:.2f}; best of {tries[-1]} random strokes reaches {searched[tries[-1]]:.2f}.",
)

# %% [markdown]
# Watch it paint. Above the targets, below the canvases.

# %%
states = canvas.paint(greedy, wanted[chosen])
above = np.concatenate(list(wanted[chosen]), axis=1)
frames = [np.concatenate([above, np.full((2, above.shape[1]), 0.5), np.concatenate(list(s), 1)]) for s in states]
frames = np.stack(frames + frames[-1:] * 2).repeat(4, 1).repeat(4, 2)
viz.film(
    np.repeat((255 * frames).round().astype(np.uint8)[..., None], 3, axis=-1),
    fps=2,
    alt="Eight held-out digits above, and below eight black canvases on which six white strokes appear one by one: "
    f"at the end {1 - canvas.errors(states[-1], wanted[chosen]).mean():.2f} of the error is gone.",
)

# %% [markdown]
# Is it a seven, or only near a seven in squared error? A reader of digits, which no reward here paid for, is the
# independent check. On the targets themselves it is nearly always right.

# %%
painted = canvas.paint(greedy, wanted)[-1]
legible = {
    "targets": float((canvas.read(wanted) == labels).mean()),
    "best of 12 strokes": float((canvas.read(search(12, wanted, np.random.default_rng(1))) == labels).mean()),
    "painter": float((canvas.read(painted) == labels).mean()),
}
print({name: round(value, 2) for name, value in legible.items()})

# %% [markdown]
# The gap is a finding. Squared error pays for covering ink, not for the small loop that makes an 8 an 8. SPIRAL pays its
# painter with a *discriminator* instead, a network that learns to tell paintings from the real thing.

# %% [markdown]
# ## 3. How to run a generator
#
# Now the generator of the earlier labs, and nothing in it will be trained. Ten steps are a choice that somebody made.
# With four, pictures come in less than half of the time, and suffer. But must the four be equally long? And guidance
# (lab 06) takes a weight: must it be the same at the first step, where the layout is decided, and at the last?

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
if real_model():
    base = sd3.load_for_profile(template="a flat drawing of {prompt} on a black background", max_sequence_length=128)
    base.remember(shapes.prompts())
    base.forget_text_encoders()
else:
    base = load("shapes").to(device)
STEPS = choose(smoke=4, cpu=4, gpu=8)
PER_KIND = choose(smoke=2, cpu=256, gpu=64)
MICRO = choose(smoke=128, cpu=128, gpu=8)


# %%
def measured(schedule, split: str = "test", per_kind: int = PER_KIND) -> dict[str, float]:
    """Strict accuracy, dense score and diversity of pictures drawn along a schedule."""
    texts, seeds = shapes.evaluation_pairs(split, per_kind)
    pictures = generate(base, schedule, texts, torch.tensor(seeds), micro_batch=MICRO)
    return shapes.measure(pictures.numpy(), texts)


plain = measured(uniform(base, STEPS))
longer = measured(uniform(base, choose(smoke=4, cpu=10, gpu=20)))
print(f"{STEPS} equal steps: accuracy {plain['accuracy']:.3f}; more steps: {longer['accuracy']:.3f}")

# %% [markdown]
# Before anything is learnt, the honest rival: equal steps with one weight for all of them, tuned by hand on the
# *validation* pairs.

# %%
WEIGHTS = choose(smoke=(1.0, 2.0), cpu=(1.0, 1.5, 2.0, 2.5, 3.0), gpu=(1.0, 3.0, 4.5, 6.0))
tuned = {
    weight: measured(uniform(base, STEPS, weight), "validation", choose(smoke=1, cpu=64, gpu=16)) for weight in WEIGHTS
}
for weight, scores in tuned.items():
    print(f"weight {weight}: accuracy {scores['accuracy']:.3f}, diversity {scores['diversity']:.3f}")
best_weight = max(tuned, key=lambda weight: tuned[weight]["accuracy"])
constant = measured(uniform(base, STEPS, best_weight))

# %% [markdown]
# A weight alone brings a lot, and diversity pays for it. Can a schedule do better than the best constant?

# %% [markdown] goal="18.3"
# A policy needs actions that are always allowed. Noise levels must fall from the first to the last, and weights be
# positive. Eight free numbers become a schedule of four steps if they pass through functions that see to it. With the
# first half $a$ and the second half $b$ of `numbers`, and `span` $= (\sigma_{\text{first}}, \sigma_{\text{last}})$:
#
# $$\sigma_0 = \sigma_{\text{first}}, \qquad
# \sigma_k = \sigma_{\text{first}} + (\sigma_{\text{last}} - \sigma_{\text{first}}) \sum_{j \le k}
# \operatorname{softmax}(a)_j, \qquad w_j = e^{b_j}.$$
#
# Return the $T + 1$ levels and the $T$ weights.


# %% exercise={"id": "18.3", "name": "schedule_of", "title": "Numbers to a schedule", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.finetune"]}
def schedule_of(
    numbers: Float[Tensor, "2*steps"], span: tuple[float, float]
) -> tuple[Float[Tensor, "steps+1"], Float[Tensor, "steps"]]:
    """The noise levels, from ``span[0]`` down to ``span[1]``, and the guidance weights."""
    ### BEGIN SOLUTION
    increments, log_weights = numbers.chunk(2)
    walked = torch.cat([numbers.new_zeros(1), increments.softmax(dim=0).cumsum(dim=0)])
    sigmas = span[0] + (span[1] - span[0]) * walked
    return sigmas, log_weights.exp()
    ### END SOLUTION


# %% [markdown] hints="18.3"
# <details><summary>Hint 1: halves</summary>
#
# `Tensor.chunk(2)` cuts a tensor in two.
#
# </details>
# <details><summary>Hint 2: from increments to levels</summary>
#
# The softmax says which share of the way each step goes. `cumsum` says how far one has come.
#
# </details>
# <details><summary>Hint 3: one more level than steps</summary>
#
# Before the first step nothing has been walked: put a 0 in front with `torch.cat`.
#
# </details>

# %% check="18.3"
check("18.3", schedule_of)

# %% [markdown] goal="18.4"
# The policy is a Gaussian over these numbers: a mean, which is learnt, and a fixed deviation. In lab 03 you learnt that
# REINFORCE is noisy. Here is a cure that costs nothing: draw **antithetic pairs**. With every deviation $d$ try its
# mirror image too, $\mu + d$ and $\mu - d$. Whatever one of them meets by luck of direction, the other meets opposed.
#
# Draw `pairs` deviations $d = \text{std} \cdot \varepsilon$, one number of $\varepsilon \sim N(0, 1)$ for each number of
# the mean, from `stream` alone. Return $\mu + d$ for all pairs first, then $\mu - d$ in the same order.


# %% exercise={"id": "18.4", "name": "antithetic", "title": "Draws with mirror images", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.finetune"]}
def antithetic(
    mean: Float[Tensor, "numbers"], std: float, pairs: int, stream: torch.Generator
) -> Float[Tensor, "2*pairs numbers"]:
    """Draws around the mean; the second half are the first half's mirror images."""
    ### BEGIN SOLUTION
    deviations = std * torch.randn(pairs, len(mean), generator=stream)
    return torch.cat([mean + deviations, mean - deviations])
    ### END SOLUTION


# %% [markdown] hints="18.4"
# <details><summary>Hint 1: who draws</summary>
#
# `torch.randn(..., generator=stream)`. Nothing else may decide, or the run cannot be repeated.
#
# </details>
# <details><summary>Hint 2: how many numbers</summary>
#
# One for each pair and each number of the mean: shape `[pairs, len(mean)]`.
#
# </details>
# <details><summary>Hint 3: the mirror</summary>
#
# Keep the deviations in a variable and use them twice, added and subtracted. `torch.cat` puts the halves together.
#
# </details>

# %% check="18.4"
check("18.4", antithetic)

# %% [markdown] goal="18.5"
# Now the advantage. The best baseline for a schedule is at hand: its mirror image, judged on the *same* prompts and the
# *same* noise. Hold each score against the mean of its pair. With $s$ the scores in the order of 18.4,
#
# $$A_i = s_i - \tfrac12 (s_i + s_{i'}) = \tfrac12 (s_i - s_{i'}),$$
#
# where $i'$ is the other one of the pair.


# %% exercise={"id": "18.5", "name": "pair_advantages", "title": "Against the mirror image", "points": 2, "minutes": 6, "difficulty": 1, "forbidden": ["pixelpolicy.finetune"]}
def pair_advantages(scores: Float[Tensor, "2*pairs"]) -> Float[Tensor, "2*pairs"]:
    """Each score less the mean of its pair."""
    ### BEGIN SOLUTION
    first, second = scores.chunk(2)
    half = (first - second) / 2
    return torch.cat([half, -half])
    ### END SOLUTION


# %% [markdown] hints="18.5"
# <details><summary>Hint 1: where the other one is</summary>
#
# Half a batch away: cut the scores in two with `chunk(2)`.
#
# </details>
# <details><summary>Hint 2: one difference</summary>
#
# Both advantages of a pair are half the difference of its scores, with opposite signs.
#
# </details>
# <details><summary>Hint 3: the order</summary>
#
# First all of the first half, then all of the second, as they came.
#
# </details>

# %% check="18.5"
check("18.5", pair_advantages)

# %% [markdown]
# Does the shared noise matter? Take two schedules that differ a little and judge both on a small batch, again and
# again: first both on the same prompts and noise, then each on its own.

# %%
near, far = uniform(base, STEPS, 1.5), uniform(base, STEPS, 2.0)
rng, gaps = np.random.default_rng(seed()), {"the same noise": [], "noise of its own": []}


def judged(schedule, texts: list[str], first: int) -> float:
    pictures = generate(base, schedule, texts, torch.arange(first, first + len(texts)), micro_batch=MICRO)
    return shapes_dense()(pictures, texts).mean().item()


for number in range(choose(smoke=2, cpu=8, gpu=4)):
    one, other = (shapes.draw_prompts(choose(smoke=4, cpu=48, gpu=16), rng) for _ in range(2))
    score = judged(near, one, 1000 * number)
    gaps["the same noise"].append(judged(far, one, 1000 * number) - score)
    gaps["noise of its own"].append(judged(far, other, 1000 * number + 500) - score)
for name, found in gaps.items():
    print(f"{name}: the difference of two scores varies by {np.std(found):.3f}")

# %% [markdown] goal="18.6"
# What is success worth without variety? Strong guidance makes all pictures of a prompt alike. So the score has a second
# term: the diversity $D$ of the pictures as a share of the `usual` one, that of the plain schedule, and a `weight`:
#
# $$s = r + \text{weight} \cdot \min(D / \text{usual},\ 1).$$
#
# The share counts up to 1 and no further, or the search would buy diversity with disorder. Where no two pictures of a
# prompt were accepted, $D$ could not be measured and is NaN: count it as 0.


# %% exercise={"id": "18.6", "name": "score_of", "title": "A score with variety in it", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.finetune"]}
def score_of(
    rewards: Float[Tensor, "schedules"], diversities: Float[Tensor, "schedules"], usual: float, weight: float
) -> Float[Tensor, "schedules"]:
    """Mean reward of each schedule, and its diversity as a share of the usual."""
    ### BEGIN SOLUTION
    shares = (diversities / usual).nan_to_num(0.0).clamp(max=1.0)
    return rewards + weight * shares
    ### END SOLUTION


# %% [markdown] hints="18.6"
# <details><summary>Hint 1: a share, capped</summary>
#
# Divide first, then `clamp(max=1.0)`.
#
# </details>
# <details><summary>Hint 2: not a number</summary>
#
# NaN spreads through every sum. `Tensor.nan_to_num(0.0)` puts a 0 in its place.
#
# </details>
# <details><summary>Hint 3: all of it</summary>
#
# `rewards + weight * share`, where the share is the quotient, its NaN replaced, then capped.
#
# </details>

# %% check="18.6"
check("18.6", score_of)

# %% [markdown]
# ## 4. Learn the schedule
#
# The loop is the one of every lab since 09, and the loss is lab 03's: minus advantage times log-probability of the
# schedules that were drawn. All that is trained is the mean of eight numbers. The reward is half the strict verdict and
# half the dense one.


# %%
def variety(pictures: Tensor, texts: list[str]) -> float:
    """How differently the accepted pictures of one prompt place and size their objects."""
    return shapes.diversity(shapes.verify(pictures.numpy(), texts), texts)


usual = plain["diversity"] if plain["diversity"] > 0 else 1.0  # a rehearsal's pictures are never accepted
algorithm = ScheduleSearch(
    base,
    0.5 * shapes_strict() + 0.5 * shapes_dense(),
    shapes.draw_prompts,
    variety,
    usual,
    uniform(base, STEPS, choose(smoke=1.0, cpu=1.0, gpu=4.5)),
    ScheduleConfig(
        pairs=choose(smoke=1, cpu=4, gpu=4),
        prompts_per_iteration=choose(smoke=2, cpu=16, gpu=8),
        group_size=choose(smoke=2, cpu=4, gpu=4),
        micro_batch=MICRO,
        seed=seed(),
    ),
    schedule_of=schedule_of,
    draw=antithetic,
    advantages_of=pair_advantages,
    score_of=score_of,
)

# %%
ITERATIONS = choose(smoke=2, cpu=36, gpu=60)
loop = Loop(
    algorithm,
    LoopConfig(ITERATIONS, 0.1, cooldown_iterations=ITERATIONS // 2, ema_decay=0.8, name="schedule"),
)
with timer() as searching_time:
    history = loop.run()
with loop.averaged_weights():
    learnt = algorithm.schedule()
print(f"{searching_time.cpu_seconds:.0f} CPU s; noise levels {[round(s, 2) for s in learnt.sigmas.tolist()]}")
print(f"guidance weights {[round(w, 2) for w in learnt.guidance.tolist()]}")

# %%
viz.curves(
    {
        "guidance learnt": (learnt.sigmas[:-1].tolist(), learnt.guidance.tolist()),
        "plain": (uniform(base, STEPS).sigmas[:-1].tolist(), [1.0] * STEPS),
        "tuned constant": (uniform(base, STEPS).sigmas[:-1].tolist(), [best_weight] * STEPS),
    },
    xlabel="noise level at which the step begins (1: all is noise)",
    ylabel="guidance weight",
    alt="The guidance weight of each step against the noise level where it begins. Learnt: "
    + ", ".join(f"{w:.2f} at {s:.2f}" for s, w in zip(learnt.sigmas, learnt.guidance, strict=False))
    + f"; the plain schedule has weight 1 and equal steps, the tuned constant {best_weight}.",
)

# %% [markdown]
# Read it from right to left, as the sampler goes. Then the judgement, on the test pairs, which nothing was tuned on.

# %%
after = measured(learnt)
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=32, gpu=8), steps=STEPS)
rows = {
    f"{STEPS} equal steps": plain,
    f"{STEPS} equal steps, constant weight {best_weight}": constant,
    f"**{STEPS} learnt steps and weights**": after,
    "more equal steps, no guidance": longer,
}
lines = [
    f"| {name} | {scores['accuracy']:.3f} ± {scores['accuracy_se']:.3f} | {scores['dense']:.3f} | "
    f"{scores['diversity']:.3f} |"
    for name, scores in rows.items()
]
lines += [f"| *{STEPS} equal steps, best of {n}* | *{accuracy:.3f}* | | |" for n, accuracy in best.items()]
Markdown("\n".join(["| | accuracy (strict) | dense | diversity |", "|---|---|---|---|", *lines]))

# %% [markdown]
# Two things in that table belong together. Against the plain schedule the gain is large, but most of it is guidance,
# and one weight, tuned by hand on a few hundred pictures, brings most of that. What the search finds beyond a constant
# is smaller: where to guide and where not. A paper that shows the first comparison and not the second would not be
# lying, and would not be telling you much.
#
# And the price: with guidance a step runs the network twice. Best of N stands beside it, at N times the cost and with
# the verifier at hand.

# %%
texts, seeds = shapes.evaluation_pairs("test", per_kind=4)
for_sheet = torch.tensor(seeds)
both = [generate(base, schedule, texts, for_sheet, micro_batch=MICRO) for schedule in (uniform(base, STEPS), learnt)]
told = [[verdict.strict for verdict in shapes.verify(pictures.numpy(), texts)] for pictures in both]
viz.sample_sheet(
    torch.cat(both),
    texts * 2,
    accepted=told[0] + told[1],
    alt=f"The same 16 prompts and noise twice. Two rows with {STEPS} equal steps: {sum(told[0])} accepted, blurred "
    f"ones among them. Two rows with the learnt schedule: {sum(told[1])} accepted.",
)

# %% [markdown]
# ## 5. Clinic
#
# **"My painter dots the canvas and stops."** Strokes cost where they miss. With a large deviation nearly every brave
# stroke misses, so the mean learns to be timid first. Look at `painter.policy.log_std`: while it falls, the painter
# still learns to aim.
#
# **"My schedule puts all its steps at one end."** A softmax over increments can make a step as short as it likes. If
# the first step eats the whole way, look at the deviation of the policy: at 1, a draw may make one step seven times as
# long as another.
#
# **"A better score, and all pictures alike."** Then the weight of the diversity is too small, or you look at the wrong
# diversity. This lab counts that of *accepted* pictures.
#
# ## What to take away
#
# - A stroke, a push at a cart, a step of a sampler: to `gae` and `clipped_surrogate` they are one and the same.
# - What steers a generator can be learnt while the generator stays as it is: a few numbers, no gradient through
#   anything, any verdict for a reward.
# - Compare with the best simple thing, not with the plainest.
#
# The cell below writes down what happened here.

# %%
clean = {name: 0.0 if np.isnan(scores["diversity"]) else scores["diversity"] for name, scores in rows.items()}
kept = list(clean.values())
record = write_record(
    "18-structure",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "painter_removed": {"before": float(untrained), "after": float(removed())},
        "painter_read": {"target": legible["targets"], "after": legible["painter"]},
        "painter_cpu_seconds": painting_time.cpu_seconds,
        "random_strokes": {str(n): float(share) for n, share in searched.items()},
        "schedule_accuracy": {"before": plain["accuracy"], "after": after["accuracy"]},
        "schedule_diversity": {"before": kept[0], "after": kept[2]},
        "constant_guidance": {"weight": best_weight, "accuracy": constant["accuracy"], "diversity": kept[1]},
        "schedule": {f"sigma_{k}": sigma for k, sigma in enumerate(learnt.sigmas.tolist())}
        | {f"weight_{k}": weight for k, weight in enumerate(learnt.guidance.tolist())},
        "schedule_cpu_seconds": searching_time.cpu_seconds,
        "best_of_n": {str(count): accuracy for count, accuracy in best.items()},
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/18.json")
