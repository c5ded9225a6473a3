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
# # Lab 17: Bodies that move, and the moonwalk
#
# A body of six boxes walks, runs and hops over eight frames: three dimensions and time. The generator that moves it
# learnt from motions of which half were flawed, and it shows. You will write the pieces of a reward for gait, and they
# will mend it within minutes. Then you will write one more, for *smoothness*, a thing that everyone would wish for,
# and watch it teach the body to glide on frozen legs: the **moonwalk**.
#
# You need chapter 17, and lab 13 or chapter 13 for the method, DiffusionNFT. Six exercises, about 50 minutes; the
# trainings take a few minutes more. Leave whenever you like: your answers and points are kept.

# %% [markdown]
# <details><summary>You have a CUDA card? Under the profile <code>gpu</code> the last part trains a real video model
# with two of your functions.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Wan 2.1, 1.3B, clips of 33 frames of 240 x 416: `Wan-AI/Wan2.1-T2V-1.3B-Diffusers` |
# | licence | Apache-2.0; not gated |
# | disk | 28.9 GB |
# | VRAM, loading (estimate, unmeasured) | 14.7 GB |
# | VRAM, training (estimate, unmeasured) | 3.8 GB of weights and optimiser; activations come on top, 0.4 GB a sample |
# | trained | a LoRA of rank 32, alpha 64, in float32; the rest is frozen, in bfloat16 |
# | reward | your `smoothness` of four tracks in the frames, gated by how much moves, with your `gated` |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --exclude "assets/*" --exclude "examples/*"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws and scores means nothing. The walker of the other
# parts is small under every profile.
#
# </details>

# %%
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Float
from torch import Tensor

# %%
from pixelpolicy import viz
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.finetune import DiffusionNFT, ForwardProcessConfig, Loop, LoopConfig
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import wan
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import gait
from pixelpolicy.rl import Reward
from pixelpolicy.widgets import BoxViewer
from pixelpolicy.worlds import walker

# %% [markdown]
# ## 1. Meet the walker
#
# `load("walker")` gives a small flow model in the class of Stable Diffusion 3.5. Its tokens are no patches of a
# picture: a token is a *frame*, and holds seven numbers for each of six boxes. Prompts name a gait, a pace and a
# direction. Here are four of its motions. Turn them with the mouse or the arrow keys, and press *Play*.

# %%
lab_clock = start_timer()
base = load("walker")
texts = ["walk slowly to the right", "run quickly to the right", "hop quickly to the left", "walk quickly to the left"]
seeds = [3, 5, 7, 9]


def shown(samples: Tensor) -> list[viz.Boxes]:
    """Motions as what figures and the viewer take."""
    return [viz.Boxes(**walker.shown(sample)) for sample in samples.numpy()]


before = base.generate(texts, seeds)
BoxViewer(shown(before), names=texts, up="y", ground=0.0,
          alt="four bodies of six boxes, each a motion of the untouched base")  # fmt: skip

# %% [markdown]
# The same as a strip, frame after frame. The marks on the ground stand still, so that you can see what the feet do. A
# tick says that the verifier accepts a motion: the body is whole, stands on the ground, keeps its pace and direction,
# moves its legs as the gait wants, and its planted feet stay where they are.


# %%
def strip(samples: Tensor, prompts: list[str], what: str) -> viz.Picture:
    """A strip of motions, ticked where the verifier accepts."""
    told = [verdict.strict for verdict in walker.verify(samples.numpy(), prompts)]
    alt = f"{what}: {len(prompts)} rows of eight frames, {sum(told)} of them accepted ({'; '.join(prompts)})."
    return viz.strip(shown(samples), prompts, alt=alt, accepted=told)


strip(before, texts, "Motions of the untouched base")

# %% [markdown]
# Four motions are an anecdote. We measure on fixed prompts and seeds, beside what costs no training (draw N motions,
# keep one that the verifier likes) and beside *clean* motions, which the world draws without a flaw: nobody can expect
# more than those get.

# %%
PER_KIND = choose(smoke=4, cpu=256, gpu=256)
before_scores = evaluate(base, "test", per_kind=PER_KIND)
test_texts, _ = walker.evaluation_pairs("test", PER_KIND)
clean = torch.from_numpy(walker.draw(test_texts, np.random.default_rng(seed())))
clean_scores = walker.measure(clean.numpy(), test_texts)
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=2, cpu=64, gpu=64))
print(f"accuracy: base {before_scores['accuracy']:.3f}, clean {clean_scores['accuracy']:.3f}; best of N: "
      + ", ".join(f"{count}: {accuracy:.2f}" for count, accuracy in best.items()))  # fmt: skip

# %% [markdown]
# ## 2. A reward for gait
#
# What is a good walk? No single number says it. You will measure four things and let them gate one another.

# %% [markdown] goal="17.1"
# First: where are the feet? A part comes as seven numbers: whether it is there, its middle $x$, $y$, $z$, the sine and
# the cosine of its pitch, and *half* its length. Sine and cosine give the direction from the middle to the upper end:
# $(0, 1)$ for a part that stands upright. A foot is the lower end of a shin. `shins` is `[batch, frames, 2, 7]`, left
# and right; return $x$ and $y$ of the feet, `[batch, frames, 2, 2]`.


# %% exercise={"id": "17.1", "name": "foot_positions", "title": "Where the feet are", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rewards", "pixelpolicy.worlds"]}
def foot_positions(shins: Float[Tensor, "batch frames 2 7"]) -> Float[Tensor, "batch frames 2 2"]:
    """The lower ends of the shins, x and y."""
    ### BEGIN SOLUTION
    upwards = torch.stack([shins[..., 4], shins[..., 5]], -1)
    return shins[..., 1:3] - shins[..., 6, None] * upwards
    ### END SOLUTION


# %% [markdown] hints="17.1"
# <details><summary>Hint 1: from the middle to an end</summary>
#
# The direction has length 1. How far is it from the middle of a part to its end?
#
# </details>
# <details><summary>Hint 2: which end</summary>
#
# The direction points to the upper end. Go against it.
#
# </details>
# <details><summary>Hint 3: shapes</summary>
#
# `shins[..., 1:3]` are the middles, `shins[..., 6, None]` half the lengths with a dimension to multiply along.
#
# </details>

# %% check="17.1"
check("17.1", foot_positions)

# %% [markdown] goal="17.2"
# A foot on the ground stays where it is; the body passes over it. A generator knows nothing of that and lets feet
# slide. Animators call it **foot-skate**. Measure it: a foot is *planted* if it is at most `contact` high. Take all the
# pairs of neighbouring frames in which a foot is planted in **both**, and return how far it slides along $x$ from one to
# the next, on average over those pairs and both feet. Where there is no such pair return 0.


# %% exercise={"id": "17.2", "name": "foot_skate", "title": "Feet that slide", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rewards", "pixelpolicy.worlds"]}
def foot_skate(feet: Float[Tensor, "batch frames 2 2"], contact: float = 0.035) -> Float[Tensor, "batch"]:
    """Metres that a planted foot slides from a frame to the next, on average."""
    ### BEGIN SOLUTION
    down = feet[..., 1] <= contact
    both = (down[:, 1:] & down[:, :-1]).to(feet.dtype)
    slide = (feet[:, 1:, :, 0] - feet[:, :-1, :, 0]).abs() * both
    return slide.sum((1, 2)) / both.sum((1, 2)).clamp_min(1)
    ### END SOLUTION


# %% [markdown] hints="17.2"
# <details><summary>Hint 1: pairs of frames</summary>
#
# `feet[:, 1:]` and `feet[:, :-1]` stand beside each other, frame for frame, shifted by one.
#
# </details>
# <details><summary>Hint 2: counting some of them</summary>
#
# A mask of zeros and ones multiplies the slides; its sum is how many there are.
#
# </details>
# <details><summary>Hint 3: nothing to count</summary>
#
# Clamp the number of pairs to at least 1. The sum above it is 0 then.
#
# </details>

# %% check="17.2"
check("17.2", foot_skate)

# %% [markdown]
# The base slides; a clean motion does not. And see how much a threshold matters: one that is too tight would call clean
# motions flawed, and what clean data cannot reach, no training will.


# %%
def feet_of(samples: Tensor) -> Tensor:
    return foot_positions(gait.bodies(samples)[:, :, [3, 5]])


validation_texts, validation_seeds = walker.evaluation_pairs("validation", choose(smoke=2, cpu=64, gpu=64))
drawn = base.generate(validation_texts, validation_seeds)
slides = {"clean": foot_skate(feet_of(clean)), "base": foot_skate(feet_of(drawn))}
grid = torch.linspace(0, 0.2, 41)
passing = {name: [(values <= level).double().mean().item() for level in grid] for name, values in slides.items()}
viz.curves(
    {name: (grid.tolist(), shares) for name, shares in passing.items()},
    xlabel="largest slide allowed, metres a frame",
    ylabel="share of motions that pass",
    alt="The share of motions within a threshold of foot-skate, for the base and for clean motions: at 0.02 m "
    f"{passing['clean'][4]:.2f} of the clean and {passing['base'][4]:.2f} of the base's pass, at 0.06 m "
    f"{passing['clean'][12]:.2f} and {passing['base'][12]:.2f}.",
)

# %% [markdown] goal="17.3"
# Does it get anywhere? `torso` is where the body is along $x$ at each frame, `wanted` the speed that the prompt asks
# for, negative to the left, in metres a second; frames are `seconds` apart. The mean speed is the way from the first
# frame to the last, over the time between. Score it by a tent: 1 at the wanted speed, falling in a straight line to 0
# where it misses by half of the wanted speed, and 0 from there on.


# %% exercise={"id": "17.3", "name": "progress", "title": "Progress", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rewards", "pixelpolicy.worlds"]}
def progress(
    torso: Float[Tensor, "batch frames"], wanted: Float[Tensor, "batch"], seconds: float = 0.1
) -> Float[Tensor, "batch"]:
    """How near the mean speed comes to the wanted one, from 0 to 1."""
    ### BEGIN SOLUTION
    speed = (torso[:, -1] - torso[:, 0]) / (seconds * (torso.shape[1] - 1))
    return (1 - (speed - wanted).abs() / (0.5 * wanted.abs())).clamp(0, 1)
    ### END SOLUTION


# %% [markdown] hints="17.3"
# <details><summary>Hint 1: time</summary>
#
# Between eight frames lie seven steps.
#
# </details>
# <details><summary>Hint 2: the tent</summary>
#
# One minus the miss, in units of half the wanted speed. Speeds to the left are negative: which of the two absolute
# values do you need?
#
# </details>
# <details><summary>Hint 3: the floor</summary>
#
# `clamp(0, 1)` cuts off what would be negative.
#
# </details>

# %% check="17.3"
check("17.3", progress)

# %% [markdown] goal="17.4"
# What do the legs do? Take the *lead* of the left foot over the right along $x$, at each frame. One who walks lets it
# swing from far ahead to far behind; one who hops keeps it near 0; stiff legs keep it where it is. Return the largest
# lead less the smallest.


# %% exercise={"id": "17.4", "name": "alternation", "title": "Feet that pass each other", "points": 2, "minutes": 6, "difficulty": 1, "forbidden": ["pixelpolicy.rewards", "pixelpolicy.worlds"]}
def alternation(feet: Float[Tensor, "batch frames 2 2"]) -> Float[Tensor, "batch"]:
    """The largest lead of the left foot over the right, less the smallest, in metres."""
    ### BEGIN SOLUTION
    lead = feet[:, :, 0, 0] - feet[:, :, 1, 0]
    return lead.amax(1) - lead.amin(1)
    ### END SOLUTION


# %% [markdown] hints="17.4"
# <details><summary>Hint 1: the lead</summary>
#
# Left is number 0 of the third dimension, right is number 1; $x$ is number 0 of the last.
#
# </details>
# <details><summary>Hint 2: over the frames</summary>
#
# Dimension 1 counts the frames. One number is left for each motion.
#
# </details>
# <details><summary>Hint 3: a range</summary>
#
# `amax` and `amin` take a dimension.
#
# </details>

# %% check="17.4"
check("17.4", alternation)

# %% [markdown] goal="17.5"
# Now put them together. Each of the scores is a *gate*, from 0 (shut) to 1 (open). If you add them, a body that glides
# fast on stiff legs buys off its legs with its speed. If you multiply them, a motion that fails at one thing learns
# nothing about the others. So do both: half the mean of the gates, and half their product times a `bonus`, here
# what the world's own checks say of the body. `gates` is `[batch, gates]`.


# %% exercise={"id": "17.5", "name": "gated", "title": "Gates", "points": 2, "minutes": 6, "difficulty": 1, "forbidden": ["pixelpolicy.rewards", "pixelpolicy.worlds"]}
def gated(gates: Float[Tensor, "batch gates"], bonus: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """Half the mean of the gates, and half their product times the bonus."""
    ### BEGIN SOLUTION
    return 0.5 * gates.mean(1) + 0.5 * gates.prod(1) * bonus
    ### END SOLUTION


# %% [markdown] hints="17.5"
# <details><summary>Hint 1: over which dimension</summary>
#
# The gates of a motion lie along dimension 1.
#
# </details>
# <details><summary>Hint 2: a product</summary>
#
# `Tensor.prod` is to products what `sum` is to sums.
#
# </details>
# <details><summary>Hint 3: two halves</summary>
#
# With all gates open and a bonus of 1 the score is 1.
#
# </details>

# %% check="17.5"
check("17.5", gated)

# %% [markdown]
# `gait.gait` puts your functions in their places: the gates are your `progress`, your `foot_skate` (as
# $e^{-\text{slide}/5\,\text{cm}}$) and your `alternation` (near 0 for one who hops). A reward is verified before it
# is used. Clean motions must score high, and every kind of flaw must cost.

# %%
reward = gait.gait(
    foot_positions=foot_positions, foot_skate=foot_skate, progress=progress, alternation=alternation, gated=gated
)
rng, some = np.random.default_rng(0), walker.draw_prompts(choose(smoke=24, cpu=240, gpu=240), np.random.default_rng(0))
lines = [f"| clean | {reward(torch.from_numpy(walker.draw(some, rng)), some).mean():.2f} |"]
for flaw in walker.FLAWS:
    flawed = walker.samples_of(np.stack([walker.move(text, rng, flaw=flaw) for text in some]))
    lines.append(f"| {flaw} | {reward(torch.from_numpy(flawed), some).mean():.2f} |")
Markdown("\n".join(["| motions | your reward |", "|---|---|", *lines]))

# %% [markdown]
# ## 3. Train it
#
# The method is **DiffusionNFT** of chapter 13: draw a group of motions for each prompt by the plain ODE, compare them,
# noise them again, and pull the velocity towards the better and away from the worse. No step needs a density. A weight
# on the distance to the base keeps it from running away.
#
# Two of the settings matter more than they look. Each motion is noised twice and no more: new ones are cheap here, so
# there is no need to wring out the old. And the learning rate falls over three quarters of the run, for what is left to
# mend at the end are centimetres.

# %%
settings = ForwardProcessConfig(
    prompts_per_iteration=choose(smoke=2, cpu=16, gpu=16),
    group_size=choose(smoke=4, cpu=12, gpu=12),
    noise_draws=choose(smoke=1, cpu=2, gpu=2),
    kl_weight=0.02,
    seed=seed(),
)
loop_settings = LoopConfig(
    iterations=choose(smoke=2, cpu=160, gpu=160),
    learning_rate=1.5e-3,
    warmup_iterations=2,
    cooldown_iterations=choose(smoke=0, cpu=120, gpu=120),
    name="NFT",
)


# %%
def trained(reward: Reward, name: str, kl_weight: float, **changes) -> tuple[Loop, list[dict[str, float]]]:
    """A student of the base, trained on a reward and looked at now and then on prompts kept for that."""
    student = base.student()
    policy = DenoisingPolicy(student, ode, steps=6, micro_batch=192)
    algorithm = DiffusionNFT(policy, reward, walker.draw_prompts, replace(settings, kl_weight=kl_weight))
    loop = Loop(algorithm, replace(loop_settings, name=name, **changes))

    def watch(loop: Loop, metrics: dict[str, float]) -> None:
        if loop.iteration % choose(smoke=1, cpu=20, gpu=20) == 0:
            with loop.averaged_weights():
                scores = evaluate(student, "validation", per_kind=choose(smoke=2, cpu=64, gpu=64))
            metrics |= {key: scores[key] for key in ("accuracy", "skate", "swing", "diversity")}

    return loop, loop.run([watch])


# %%
with timer() as training:
    loop, history = trained(reward, "NFT", settings.kl_weight)
print(f"{training.seconds:.0f} s, {training.cpu_seconds:.0f} CPU s for {len(history)} iterations")

# %%
seen = [row for row in history if "accuracy" in row]
viz.curves(
    {
        "your reward": ([row["iteration"] for row in history], [row["reward"] for row in history]),
        "accuracy (strict)": ([row["iteration"] for row in seen], [row["accuracy"] for row in seen]),
    },
    levels={"base": before_scores["accuracy"], "clean": clean_scores["accuracy"]},
    xlabel="iteration",
    ylabel="share",
    alt=f"The reward goes from {history[0]['reward']:.2f} to {history[-1]['reward']:.2f} and the strict accuracy to "
    f"{seen[-1]['accuracy']:.2f} over {len(history)} iterations, between the levels of the base and of clean motions.",
)

# %% [markdown]
# ## 4. What has changed
#
# The same prompts, the same noise, other weights.

# %%
with loop.averaged_weights():
    generator = loop.algorithm.policy.generator
    after, after_scores = generator.generate(texts, seeds), evaluate(generator, "test", per_kind=PER_KIND)
strip(after, texts, "Motions after training, from the same noise")

# %%
BoxViewer([*shown(before[:2]), *shown(after[:2])], up="y", ground=0.0,
          names=[f"{when}: {text}" for when in ("before", "after") for text in texts[:2]],
          alt="two motions before training and the same two after it")  # fmt: skip

# %% [markdown]
# Then the numbers. *Gap closed* is how much of the way from the base to clean motions was gone. Beside it stand the
# checks of the verifier one by one, foot-skate in metres, *swing* (how far the feet of walkers and runners pass each
# other) and diversity of accepted motions.

# %%
gap = (after_scores["accuracy"] - before_scores["accuracy"]) / (clean_scores["accuracy"] - before_scores["accuracy"])
keys = [*(f"accuracy_{kind}" for kind in walker.KINDS), "accuracy", "whole", "grounded", "progress", "gait", "planted"]
keys += ["skate", "swing", "diversity"]
lines = [
    f"| {key.replace('accuracy_', '')} | {before_scores[key]:.3f} | {after_scores[key]:.3f} | {clean_scores[key]:.3f} |"
    for key in keys
]
lines += [f"| gap closed | | {gap:.0%} | |"]
lines += [f"| *base, best of {count}* | *{accuracy:.3f}* | | |" for count, accuracy in best.items()]
Markdown("\n".join(["| | before | after | clean |", "|---|---|---|---|", *lines]))

# %% [markdown]
# Best of N is a strong baseline here as everywhere, at N times the price of a motion, and it needs the verifier each
# time.
#
# A motion can leave the notebook. The file below opens in Blender and other programs; the boxes are animated in it.

# %%
path = viz.save_mesh(shown(after[:1])[0], Path(mkdtemp()) / "walk.glb", up="y", fps=1 / walker.SECONDS)
print(f"{path} holds {path.stat().st_size / 1e3:.1f} kB")

# %% [markdown]
# ## 5. The moonwalk

# %% [markdown] goal="17.6"
# Motions should be smooth: video models are rewarded for that, and rightly, for jitter is ugly. Write it down. `centres`
# holds the places of parts, `[batch, frames, parts, 2]`. Where something moves evenly, its second difference over the
# frames, $c_{t+1} - 2c_t + c_{t-1}$, is 0. Take the root of the mean square of the second differences (add $10^{-12}$
# under the root: at exactly 0 it has no slope), over frames, parts and both directions, and return
# $e^{-\text{rms}/0.03}$.


# %% exercise={"id": "17.6", "name": "smoothness", "title": "Smoothness", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rewards", "pixelpolicy.worlds"]}
def smoothness(centres: Float[Tensor, "batch frames parts 2"]) -> Float[Tensor, "batch"]:
    """How evenly parts move, from 0 to 1."""
    ### BEGIN SOLUTION
    second = centres[:, 2:] - 2 * centres[:, 1:-1] + centres[:, :-2]
    rms = (second.square().flatten(1).mean(1) + 1e-12).sqrt()
    return torch.exp(-rms / 0.03)
    ### END SOLUTION


# %% [markdown] hints="17.6"
# <details><summary>Hint 1: three neighbours</summary>
#
# Three slices of the frames: from the third on, without both ends, and up to the last but two.
#
# </details>
# <details><summary>Hint 2: one number a motion</summary>
#
# `flatten(1)` puts all but the batch in a row. Square, average, take the root.
#
# </details>
# <details><summary>Hint 3: a score</summary>
#
# The larger the second differences the lower the score: a minus in the exponent.
#
# </details>

# %% check="17.6"
check("17.6", smoothness)

# %% [markdown]
# Now the recipe that looks so reasonable: mostly smoothness, and progress, so that it gets somewhere. Nothing in it
# mentions feet.

# %%
tempting = 0.8 * gait.smooth(smoothness) + 0.2 * gait.advance(progress)
hack_loop, hacked = trained(tempting, "smooth", 0.0, iterations=choose(smoke=2, cpu=90, gpu=90), cooldown_iterations=0)
with hack_loop.averaged_weights():
    glider = hack_loop.algorithm.policy.generator
    glides, hack_scores = (
        glider.generate(texts, seeds),
        evaluate(glider, "validation", per_kind=choose(smoke=2, cpu=64, gpu=64)),
    )
strip(glides, texts, "Motions trained for smoothness")  # fmt: skip

# %%
watched = [row for row in hacked if "accuracy" in row]
viz.curves(
    {
        "its reward": ([row["iteration"] for row in hacked], [row["reward"] for row in hacked]),
        "accuracy (strict)": ([row["iteration"] for row in watched], [row["accuracy"] for row in watched]),
        "swing, metres": ([row["iteration"] for row in watched], [row["swing"] for row in watched]),
    },
    levels={"swing of the base": before_scores["swing"]},
    xlabel="iteration",
    ylabel="score",
    alt=f"The mix of smoothness and progress rises from {hacked[0]['reward']:.2f} to {hacked[-1]['reward']:.2f}, while "
    f"the swing of the legs ends at {hack_scores['swing']:.2f} m and strict accuracy at {hack_scores['accuracy']:.2f}.",
)

# %% [markdown]
# Look at the legs. Swinging a leg *is* acceleration; the smoothest way to travel is not to walk. Nothing went wrong in
# the optimisation: the body does what it was paid for. The remedy is not less smoothness but a gate: what must not be
# bought off has to multiply.
#
# ## 6. A video model
#
# What would you do with a real model, whose samples are frames and not boxes? The first idea is the same, tracks: here
# the centre of brightness in each quarter of the frame. Your `smoothness` takes them as they are. And since you know
# now what smoothness alone leads to (a picture that stands still), your `gated` gates it by how much moves at all.


# %%
def tracks(clips: Float[Tensor, "batch frames 3 height width"]) -> Float[Tensor, "batch frames 4 2"]:
    """Where brightness is centred in each quarter of each frame, as shares of the quarter's sides."""
    light = (clips.mean(2) + 1) / 2
    height, width = (side // 2 for side in light.shape[-2:])
    parts = light[..., : 2 * height, : 2 * width].unflatten(-1, (2, width)).unflatten(-3, (2, height))
    parts = parts.movedim(-2, -3).flatten(2, 3) + 1e-3  # [batch, frames, 4, height, width]
    x = (parts.sum(-2) * torch.linspace(0, 1, width)).sum(-1)
    y = (parts.sum(-1) * torch.linspace(0, 1, height)).sum(-1)
    return torch.stack([x, y], -1) / parts.sum((-2, -1))[..., None]


def lively(clips: Tensor, prompts: list[str]) -> Tensor:
    """Smooth tracks in frames that change."""
    change = (clips[:, 1:] - clips[:, :-1]).abs().mean((1, 2, 3, 4))
    gates = torch.stack([smoothness(tracks(clips)), (change / 0.1).clamp(0, 1)], 1)
    return gated(gates, torch.ones(len(clips)))


# %%
if real_model():
    video = wan.load_for_profile()
    scenes = ["a man walks along a beach", "a dog runs over a meadow", "a rabbit hops through snow"]
    video.remember(scenes)
    video.forget_text_encoders()
    runner = video.student()
    runner.checkpoint_gradients()
    few = ForwardProcessConfig(prompts_per_iteration=2, group_size=4, noise_draws=1, kl_weight=0.05, seed=seed())
    policy = DenoisingPolicy(runner, ode, steps=2 if rehearsing() else 20, micro_batch=1)
    method = DiffusionNFT(policy, Reward("lively", lively), lambda n, rng: [str(s) for s in rng.choice(scenes, n)], few)
    video_loop = Loop(method, LoopConfig(iterations=2 if rehearsing() else 100, learning_rate=3e-4, name="Wan"))
    print([round(row["reward"], 3) for row in video_loop.run()])

# %% [markdown]
# ## What to take away
#
# - Motion is judged by what must *not* change: a planted foot, the length of a bone.
# - Verify a reward on clean data and on each flaw before you train on it.
# - Gates that multiply keep one score from buying off another; a mean beside them keeps learning alive.
# - Smoothness, progress, prompt fit: each is right, and their sum has a cheap way out. Look at the motions.
#
# Lab 18 turns the question round: there reinforcement learning is not what mends a generator but a part of it.
#
# The cell below writes down what happened here.

# %%
change = {
    key: {"before": before_scores[key], "after": after_scores[key], "clean": clean_scores[key]}
    for key in ("accuracy", "grounded", "skate", "swing", "diversity")
}
record = write_record(
    "17-four-d",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {name: {key: float(np.nan_to_num(value)) for key, value in scores.items()} for name, scores in change.items()}
    | {"gap_closed": float(gap), "training_cpu_seconds": training.cpu_seconds}
    | {"moonwalk": {key: float(np.nan_to_num(hack_scores[key])) for key in ("accuracy", "grounded", "skate", "swing")}}
    | {"moonwalk_reward": {"before": hacked[0]["reward"], "after": hacked[-1]["reward"]}}
    | {"best_of_n": {str(count): accuracy for count, accuracy in best.items()}},
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/17.json")
