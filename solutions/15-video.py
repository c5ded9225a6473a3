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
# # Lab 15: video, and a law that nobody can bribe
#
# A clip has what a picture has not: time. A model of clips can draw every frame well and still be wrong, because the
# ball hangs in the air, jumps, or goes the other way. In this lab the reward looks at the *track* of the object, and
# you write the law that it must obey: Newton's.
#
# Then four ways to learn from it: **DanceGRPO**, **VADER**, **NFT**, and **DPO with a label for each segment**. And two
# ways to cheat a reward that knows no law.
#
# You need labs 10 to 13. Six exercises, about 60 minutes; the training takes a few minutes more.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> adds a section with a real model.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Wan 2.1, text to video, 1.3B: `Wan-AI/Wan2.1-T2V-1.3B-Diffusers`, 33 frames of 240 x 416 |
# | licence | Apache-2.0; not gated |
# | disk | 28.9 GB |
# | VRAM, loading (estimate, unmeasured) | 14.7 GB |
# | VRAM, training (estimate, unmeasured) | 3.8 GB of weights and optimiser; activations come on top, 0.4 GB a sample |
# | trained | a LoRA of rank 32, alpha 64, in float32; the rest is frozen, in bfloat16 |
#
# ```bash
# hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --exclude "assets/*" --exclude "examples/*"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal** with a tiny twin whose weights are random. All other
# sections train the small model of this course in every profile.
#
# </details>

# %%
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float
from torch import Tensor

# %%
from pixelpolicy import viz
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig, RewardGradient, RewardGradientConfig
from pixelpolicy.finetune.forward_process import DiffusionNFT, ForwardProcessConfig
from pixelpolicy.finetune.reward_gradient import last_steps
from pixelpolicy.finetune.segments import SegmentDPO, SegmentPairs, corrupted_copies
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import wan
from pixelpolicy.policies import DenoisingPolicy, cps
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import physics
from pixelpolicy.rl import Reward
from pixelpolicy.viz.film import film
from pixelpolicy.widgets.trajectory_scrubber import TrajectoryScrubber
from pixelpolicy.worlds import bounce

# %% [markdown]
# ## 1. Meet the generator
#
# `load("bounce")` makes clips of eight frames: something is thrown, falls, bounces. Its transformer is the class of Wan
# 2.1, `WanTransformer3DModel`, with one token a frame. Below, each clip is shown in three rows of frames; a solid green
# frame means that the verifier accepts it.

# %%
lab_clock = start_timer()
base = load("bounce")
sheet_prompts, sheet_seeds = bounce.evaluation_pairs("test", per_kind=2)


def show(clips: Tensor, texts: list[str], what: str):
    """Each clip as three rows of frames, with the verdict as its frame."""
    verdicts = [verdict.strict for verdict in bounce.verify(clips.numpy(), texts)]
    rows = [torch.cat(list(part.unbind(1)), dim=-1) for part in clips.split(3, dim=1)]
    rows[-1] = torch.nn.functional.pad(rows[-1], (0, bounce.SIZE), value=1.0)
    strips = torch.cat(rows, dim=-2)
    alt = f"{what}: {len(texts)} clips, eight frames of each in three rows; {sum(verdicts)} of them are accepted."
    return viz.sample_sheet(strips, texts, columns=4, accepted=verdicts, alt=alt)


before = base.generate(sheet_prompts, sheet_seeds)
show(before, sheet_prompts, "The untouched base")

# %% [markdown]
# Move the slider to go through time. The bars are the distance that the object went in each step.


# %%
def scrub(clips: Tensor, texts: list[str], what: str):
    """Clips frame by frame."""
    moved = [
        np.linalg.norm(np.diff(verdict.centres, axis=0), axis=1) for verdict in bounce.verify(clips.numpy(), texts)
    ]
    return TrajectoryScrubber(
        clips,
        values=np.stack(moved),
        labels=[f"frame {i}" for i in range(bounce.FRAMES)],
        names=texts,
        value_name="pixels moved",
        alt=f"{what}, frame by frame.",
    )


scrub(before, sheet_prompts, "Eight clips of the untouched base")


# %%
def play(clips: Tensor, what: str):
    """Clips side by side as a film, twice over."""
    frames = torch.cat(list(clips), dim=-1).permute(0, 2, 3, 1).repeat(2, 1, 1, 1)
    pixels = ((frames + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    return film(pixels.repeat(4, axis=1).repeat(4, axis=2), alt=what, fps=4)


play(before[:6], "Six clips of the untouched base, played twice.")

# %% [markdown]
# Numbers, on fixed prompts and seeds: the share that the strict verifier accepts, and of which checks clips fail. A
# baseline without training stands beside it: best of N.

# %%
PER_KIND = choose(smoke=4, cpu=128, gpu=128)
old = evaluate(base, "test", per_kind=PER_KIND)
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=32, gpu=32))
clean_texts, clean_clips = bounce.draw_clips(choose(smoke=16, cpu=400, gpu=400), np.random.default_rng(0))
clean = bounce.measure(clean_clips, clean_texts)
for name in ("accuracy", "passes_physics", "passes_direction", "passes_colour", "passes_shape", "mass", "displacement"):
    print(f"{name:17} base {old[name]:6.3f}   clean clips {clean[name]:6.3f}")
print({f"best of {count}": round(value, 3) for count, value in best.items()})

# %% [markdown]
# ## 2. Follow the object

# %% [markdown] goal="15.1"
# A law of motion needs a track. `weights` say how much each pixel differs from the empty stage. The centre of mass of a
# frame, with pixels at half-integers, is
#
# $$c = \frac{\sum_p w_p\, p + \epsilon\, m}{\sum_p w_p + \epsilon}, \qquad \epsilon = 10^{-3},$$
#
# with $m$ = (width/2, height/2), the middle, so that an empty frame has a centre too. Return (x, y) for each frame.


# %% exercise={"id": "15.1", "name": "centres", "title": "The centre of mass", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators"]}
def centres(weights: Float[Tensor, "batch frames h w"]) -> Float[Tensor, "batch frames 2"]:
    """The centre of mass (x, y) of each frame in pixels; the middle of an empty frame."""
    ### BEGIN SOLUTION
    height, width = weights.shape[-2:]
    x, y = torch.arange(width).to(weights) + 0.5, torch.arange(height).to(weights) + 0.5
    mass = weights.sum((-2, -1)) + 1e-3
    right = (weights.sum(-2) * x).sum(-1) + 1e-3 * width / 2
    down = (weights.sum(-1) * y).sum(-1) + 1e-3 * height / 2
    return torch.stack([right / mass, down / mass], dim=-1)
    ### END SOLUTION


# %% [markdown] hints="15.1"
# <details><summary>Hint 1: the places of pixels</summary>
#
# `torch.arange(width) + 0.5` are the x of the columns, the last axis. Rows, the axis before it, have the y.
#
# </details>
# <details><summary>Hint 2: one axis at a time</summary>
#
# Sum the weights over the rows: what is left is a weight for each column. Multiply by its x and sum again.
#
# </details>
# <details><summary>Hint 3: the small weight</summary>
#
# Add `1e-3` to the mass, and `1e-3` times the middle to each sum. Stack x and y along a new last axis.
#
# </details>

# %% check="15.1"
check("15.1", centres)

# %% [markdown] goal="15.2"
# Now the law. The acceleration is the second difference of the track, $a_t = c_{t+1} - 2 c_t + c_{t-1}$. In flight it is
# 0 sideways and $g$ downwards (y points down). A bounce is no breach: `free` says in which of the frames $1 \dots F-2$
# none is near. The residual is
#
# $$\frac{1}{F-2}\sum_t a_{t,x}^2 \;+\; \frac{\sum_t \mathrm{free}_t\,(a_{t,y} - g)^2}{\max(1, \sum_t \mathrm{free}_t)}.$$


# %% exercise={"id": "15.2", "name": "newton_residual", "title": "Newton's residual", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators"]}
def newton_residual(
    track: Float[Tensor, "batch frames 2"], free: Bool[Tensor, "batch frames-2"], gravity: float
) -> Float[Tensor, "batch"]:
    """How far the acceleration is from Newton's, in mean squares."""
    ### BEGIN SOLUTION
    acceleration = track[:, 2:] - 2 * track[:, 1:-1] + track[:, :-2]
    across = acceleration[..., 0].square().mean(1)
    down = (acceleration[..., 1] - gravity).square() * free
    return across + down.sum(1) / free.sum(1).clamp(min=1)
    ### END SOLUTION


# %% [markdown] hints="15.2"
# <details><summary>Hint 1: second differences</summary>
#
# `track[:, 2:]`, `track[:, 1:-1]` and `track[:, :-2]` are the frames after, at and before.
#
# </details>
# <details><summary>Hint 2: the mask</summary>
#
# Multiply the squares downwards by `free`, and divide by how many there are, at least 1.
#
# </details>
# <details><summary>Hint 3: both axes</summary>
#
# Sideways there is no mask: a bounce off the ground does not change the speed along it. Add the two parts.
#
# </details>

# %% check="15.2"
check("15.2", newton_residual)

# %% [markdown]
# Your two functions are the reward. `likeness` asks each frame for the right shape and colour, `heading` the track for
# the right direction. Look at what clean clips and flawed ones get.


# %%
def law(clips: Tensor, prompts: list[str]) -> Tensor:
    """1 / (1 + residual) of the track."""
    track = centres(physics.cover(clips))
    free = physics.in_flight(track.detach(), physics.lowest(prompts))
    return 1 / (1 + newton_residual(track, free, bounce.GRAVITY))


newton = Reward("newton", law, differentiable=True)
whole = physics.likeness() + physics.heading() + newton

# %%
rng = np.random.default_rng(1)
lines = ["| | likeness | heading | newton |", "|---|---|---|---|"]
for flaw in (None, *bounce.FLAWS):
    texts = bounce.draw_prompts(choose(smoke=8, cpu=100, gpu=100), rng)
    clips = torch.from_numpy(bounce.draw([bounce.scene(text, rng, flaw=flaw) for text in texts]))
    means = [f"{value.mean():.2f}" for value in whole.components(clips, texts).values()]
    lines.append(f"| {flaw or 'clean'} | " + " | ".join(means) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 3. Two ways to cheat
#
# First without your law. *Smoothness* asks for little change from frame to frame. It sounds like a virtue. We ascend
# it through the sampler (lab 10) for a few seconds.

# %%
policy = DenoisingPolicy(base, steps=8, micro_batch=96, stochastic_steps=[])


def climb(reward: Reward, iterations: int, name: str, **pieces):
    """Ascend a reward through the last two steps; the trained generator."""
    student = base.student()
    settings = RewardGradientConfig(prompts_per_iteration=choose(smoke=8, cpu=96, gpu=96), seed=seed())
    algorithm = RewardGradient(
        replace(policy, generator=student), reward, bounce.draw_prompts, settings, choose_window=last_steps(2), **pieces
    )
    loop = Loop(algorithm, LoopConfig(choose(smoke=2, cpu=iterations, gpu=iterations), learning_rate=5e-4, name=name))
    history = loop.run()
    loop.ema.copy_to(loop.parameters)
    return student, history


# %%
empty, _ = climb(physics.smoothness(), 15, "smooth")
hacked = empty.generate(sheet_prompts, sheet_seeds)
show(hacked, sheet_prompts, "Trained for smoothness alone")

# %% [markdown]
# The smoothest clip is the empty stage. So ask for an object too, the right one in every frame, and for the right
# direction.

# %%
cheat = 3 * physics.smoothness() + physics.likeness() + physics.heading()
hanging, _ = climb(cheat, 30, "smooth, right, heading")
hovers = hanging.generate(sheet_prompts, sheet_seeds)
show(hovers, sheet_prompts, "Trained for smoothness, likeness and heading")

# %%
scrub(hovers, sheet_prompts, "Clips of the model that was trained for smoothness, likeness and heading")

# %% [markdown]
# Every frame shows the right object, the direction is right, the clip is smooth, and nothing falls: it hangs in the air
# and slides. An even cheaper clip, which an optimiser does not always find, hangs still and is elsewhere in a single
# frame. We draw that one by hand. Look at what all of them get, and at the column of your law.

# %%
lines = ["| | smoothness | presence | heading | newton | strict |", "|---|---|---|---|---|---|"]
asked = [physics.smoothness(), physics.presence(), physics.heading(), newton, physics.bounce_strict()]
scene = bounce.scene("a red disc thrown left", np.random.default_rng(0))
jump = bounce.draw([dict(scene, track=np.array([[17.0, 9.0]] * 4 + [[7.0, 9.0]] * 4))])
shown = {"base": before, "smoothness": hacked, "with likeness, heading": hovers}
shown["drawn: frozen, then elsewhere"] = torch.from_numpy(jump)
for name, clips in shown.items():
    texts = sheet_prompts if len(clips) > 1 else ["a red disc thrown left"]
    lines.append(f"| {name} | " + " | ".join(f"{r(clips, texts).mean():.2f}" for r in asked) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 4. DanceGRPO

# %% [markdown] goal="15.3"
# The rewards of this lab have gradients, yet a verdict may have none. DanceGRPO takes GRPO to video with a stochastic
# step of *constant* noise $g$. With $dt = \sigma' - \sigma < 0$ and the score $s = -(x + (1-\sigma) v)/\sigma$,
#
# $$\text{mean} = x + \big(v - \tfrac12 g^2 s\big)\, dt, \qquad \text{std} = g \sqrt{-dt}.$$


# %% exercise={"id": "15.3", "name": "dance_step", "title": "DanceGRPO's step", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators"]}
def dance_step(
    x: Tensor, velocity: Tensor, sigma: Float[Tensor, ""], sigma_next: Float[Tensor, ""], noise: float
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the next state."""
    ### BEGIN SOLUTION
    dt = sigma_next - sigma
    score = -(x + (1 - sigma) * velocity) / sigma
    return x + (velocity - noise**2 / 2 * score) * dt, noise * torch.sqrt(-dt)
    ### END SOLUTION


# %% [markdown] hints="15.3"
# <details><summary>Hint 1: time runs backwards</summary>
#
# The next noise level is lower, so `dt` is negative, and under the root stands `-dt`.
#
# </details>
# <details><summary>Hint 2: the score</summary>
#
# `x + (1 - sigma) * velocity` is the noise that the network sees in x. The score points away from it.
#
# </details>
# <details><summary>Hint 3: what balances what</summary>
#
# The step adds noise of variance $g^2 |dt|$. The drift takes $\tfrac12 g^2 s$ with it, so that the marginal stays.
#
# </details>

# %% check="15.3"
check("15.3", dance_step)

# %% [markdown]
# Where should the noise be? A clip's motion is settled in the first steps, at high noise; the last ones draw the pixels.
# Noise there is grain that no later step takes away, and the reward would be about grain. So the first four of eight
# steps are random, and the others follow the ODE.

# %%
results, spent, GRPO_STEPS = {}, {}, choose(smoke=2, cpu=30, gpu=30)
student = base.student()
dance_policy = DenoisingPolicy(
    student, partial(dance_step, noise=1.0), steps=8, stochastic_steps=[0, 1, 2, 3], micro_batch=96
)
grpo = GRPO(
    dance_policy,
    whole,
    bounce.draw_prompts,
    GRPOConfig(
        prompts_per_iteration=choose(smoke=2, cpu=16, gpu=16),
        group_size=choose(smoke=4, cpu=12, gpu=12),
        trained_steps=4,
        kl_weight=0.02,
        seed=seed(),
    ),
)
grpo_loop = Loop(grpo, LoopConfig(GRPO_STEPS, learning_rate=5e-4, name="DanceGRPO"))

# %%
with timer() as clock:
    grpo_history = grpo_loop.run()
with grpo_loop.averaged_weights():
    results["DanceGRPO"] = evaluate(student, "test", per_kind=PER_KIND)
spent["DanceGRPO"] = clock.cpu_seconds
print(f"accuracy {old['accuracy']:.3f} -> {results['DanceGRPO']['accuracy']:.3f} in {clock.cpu_seconds:.0f} CPU s")

# %% [markdown]
# ## 5. VADER

# %% [markdown] goal="15.4"
# Where the reward has a gradient, ascend it. In a real video model decoding a clip *with gradient* does not fit into
# memory. VADER decodes one random frame of each clip. A reward of single frames, such as `likeness`, then has the right
# gradient on average. Return one frame of each clip's latents, its own, drawn by `rng`; keep the axis.


# %% exercise={"id": "15.4", "name": "one_frame", "title": "One random frame", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators"]}
def one_frame(
    latents: Float[Tensor, "batch code frames 1 1"], rng: np.random.Generator
) -> Float[Tensor, "batch code 1 1 1"]:
    """A random frame of each clip's latents."""
    ### BEGIN SOLUTION
    chosen = torch.from_numpy(rng.integers(latents.shape[2], size=len(latents)))
    return latents[torch.arange(len(latents)), :, chosen].unsqueeze(2)
    ### END SOLUTION


# %% [markdown] hints="15.4"
# <details><summary>Hint 1: draw</summary>
#
# `rng.integers(n, size=k)` draws k whole numbers from 0 to n - 1. You need one for each clip.
#
# </details>
# <details><summary>Hint 2: pick</summary>
#
# Index with two lists at once, the rows `torch.arange(batch)` and the frames: `latents[rows, :, frames]`.
#
# </details>
# <details><summary>Hint 3: the axis</summary>
#
# Indexing takes the frame axis away. `unsqueeze(2)` puts it back.
#
# </details>

# %% check="15.4"
check("15.4", one_frame)


# %%
def vader(reward: Reward, iterations: int, name: str, frames_of=None, kl_weight: float = 0.0, batch: int = 96):
    """Reward gradient through the last two steps; with ``frames_of`` only those frames are decoded."""
    student, rng = base.student(), np.random.default_rng(seed())
    decoded = replace(student)
    if frames_of is not None:
        decoded.decode = lambda latents: student.codec.decode(frames_of(latents, rng))
    size = choose(smoke=8, cpu=batch, gpu=batch)
    settings = RewardGradientConfig(prompts_per_iteration=size, kl_weight=kl_weight, seed=seed())
    noisy = {"transition": partial(cps, noise=0.4), "stochastic_steps": [6]} if kl_weight else {}
    sampler = replace(policy, generator=decoded, **noisy)
    algorithm = RewardGradient(sampler, reward, bounce.draw_prompts, settings, choose_window=last_steps(2))
    steps = choose(smoke=2, cpu=iterations, gpu=iterations)
    loop = Loop(algorithm, LoopConfig(steps, learning_rate=3e-4, cooldown_iterations=2 * steps // 3, name=name))
    with timer() as clock:
        history = loop.run()
    with loop.averaged_weights():
        results[name] = evaluate(student, "test", per_kind=PER_KIND)
        spent[name] = clock.cpu_seconds
        return student.generate(sheet_prompts, sheet_seeds), history, clock


# %% [markdown]
# One frame is enough for what a frame can show. It cannot show a throw: for the law the whole clip must be decoded,
# which our small codec can afford.

# %%
vader(physics.likeness(), 30, "VADER, one frame", one_frame)
vader(whole, 60, "VADER, whole clips")
for name in ("VADER, one frame", "VADER, whole clips"):
    shares = {
        key: round(results[name][key], 2) for key in ("passes_shape", "passes_colour", "passes_physics", "accuracy")
    }
    print(f"{name:19} {spent[name]:4.0f} CPU s {shares}")

# %% [markdown]
# ### A leash
#
# Nothing in this reward asks for *different* throws. A gradient finds one that is easy to draw and takes it for a
# prompt, whatever the noise was. Lab 10's remedy is the KL to the base. It needs a step with noise: the last but one
# draws a little (CPS, 0.4). The weight is 0.1. A leash slows the climb, so we give it twice the clips, and more time.

# %%
after, vader_history, training = vader(whole, 80, "VADER, with KL", kl_weight=0.1, batch=192)
show(after, sheet_prompts, "After VADER with a KL, the same prompts and seeds")

# %%
play(after[:6], "Six clips after VADER with a KL, played twice: the same prompts and seeds as those of the base above.")

# %%
for name, scores in {"base": old, **{n: results[n] for n in ("VADER, whole clips", "VADER, with KL")}}.items():
    print(f"{name:19} accuracy {scores['accuracy']:.3f}   diversity {scores['diversity']:.3f}")

# %% [markdown]
# ## 6. NFT
#
# Lab 13's method needs neither a density nor a gradient of the reward. It is used as it stands; the reward is yours.

# %%
student_nft = base.student()
nft = DiffusionNFT(
    DenoisingPolicy(student_nft, steps=8, micro_batch=96, stochastic_steps=[]),
    whole,
    bounce.draw_prompts,
    ForwardProcessConfig(
        prompts_per_iteration=choose(smoke=2, cpu=16, gpu=16),
        group_size=choose(smoke=4, cpu=12, gpu=12),
        noise_draws=choose(smoke=1, cpu=4, gpu=4),
        kl_weight=0.05,
        seed=seed(),
    ),
)
nft_loop = Loop(nft, LoopConfig(choose(smoke=2, cpu=45, gpu=45), learning_rate=5e-4, name="NFT"))

# %%
with timer() as clock:
    nft_history = nft_loop.run()
with nft_loop.averaged_weights():
    results["NFT"] = evaluate(student_nft, "test", per_kind=PER_KIND)
    by_nft = student_nft.generate(sheet_prompts, sheet_seeds)
spent["NFT"] = clock.cpu_seconds
show(by_nft, sheet_prompts, "After NFT, the same prompts and seeds")

# %% [markdown]
# ## 7. DPO with a label for each segment

# %% [markdown] goal="15.5"
# People compare clips more easily than they score them. But which of two clips is better, if one begins better and the
# other ends better? DenseDPO asks for each **segment**, and makes pairs that can be compared: two noisy copies of *one*
# real clip, made clean again, move alike. Given a score for each frame of both, label each segment: +1 where the first
# clip's mean is higher by more than `margin`, -1 where the second's is, else 0. Segments are equal runs of frames.


# %% exercise={"id": "15.5", "name": "segment_labels", "title": "Labels by segment", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators"]}
def segment_labels(
    scores_a: Float[Tensor, "pairs frames"], scores_b: Float[Tensor, "pairs frames"], segments: int, margin: float
) -> Float[Tensor, "pairs segments"]:
    """+1, -1 or 0 for each segment of each pair."""
    ### BEGIN SOLUTION
    gap = (scores_a - scores_b).unflatten(1, (segments, -1)).mean(2)
    return gap.sign() * (gap.abs() > margin)
    ### END SOLUTION


# %% [markdown] hints="15.5"
# <details><summary>Hint 1: cutting</summary>
#
# `unflatten(1, (segments, -1))` cuts the frames into runs of neighbours.
#
# </details>
# <details><summary>Hint 2: the mean</summary>
#
# Take the mean over the frames of a run; the margin is one of means.
#
# </details>
# <details><summary>Hint 3: the sign</summary>
#
# `sign()` gives +1, -1 or 0. Multiply by a mask for the gaps that are large enough.
#
# </details>

# %% check="15.5"
check("15.5", segment_labels)

# %% [markdown] goal="15.6"
# The loss. Errors come for each frame; $\Delta$ is the error's change against the base, averaged over a segment. For
# a segment with label $\ell$ it is DPO's, with the clips in their places:
#
# $$-\log \sigma\Big(-\ell\,\tfrac{\beta}{2}\,(\Delta_a - \Delta_b)\Big),$$
#
# averaged over the segments that have a label (0 if none has). No gradient goes to the base.


# %% exercise={"id": "15.6", "name": "segment_dpo_loss", "title": "The loss by segment", "points": 3, "minutes": 12, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators"]}
def segment_dpo_loss(
    errors_a: Float[Tensor, "pairs frames"],
    errors_b: Float[Tensor, "pairs frames"],
    base_a: Float[Tensor, "pairs frames"],
    base_b: Float[Tensor, "pairs frames"],
    labels: Float[Tensor, "pairs segments"],
    beta: float,
) -> Float[Tensor, ""]:
    """DPO's loss, a term for each labelled segment."""
    ### BEGIN SOLUTION
    change = (errors_a - base_a.detach()) - (errors_b - base_b.detach())
    gap = change.unflatten(1, (labels.shape[1], -1)).mean(2)
    terms = -torch.nn.functional.logsigmoid(-labels * beta / 2 * gap)
    labelled = labels != 0
    return (terms * labelled).sum() / labelled.sum().clamp(min=1)
    ### END SOLUTION


# %% [markdown] hints="15.6"
# <details><summary>Hint 1: the change</summary>
#
# Take the base's errors away, detached, first from each clip and then one clip from the other.
#
# </details>
# <details><summary>Hint 2: segments</summary>
#
# Cut and average as in 15.5. How many segments there are, `labels.shape[1]` says.
#
# </details>
# <details><summary>Hint 3: ties</summary>
#
# A label of 0 would count as log 2. Multiply by `labels != 0`, and divide by how many there are, at least 1.
#
# </details>

# %% check="15.6"
check("15.6", segment_dpo_loss)

# %% [markdown]
# The pairs: clean clips, noised half way, made clean again twice by the base. A frame's score is how much it looks like
# what was asked, less the distance from where the object should be.

# %%
COUNT = choose(smoke=16, cpu=384, gpu=384)
pair_texts, real = bounce.draw_clips(COUNT, np.random.default_rng([seed(), 9]))
real = torch.from_numpy(real)
first, second = corrupted_copies(policy, pair_texts, base.codec.encode(real), start=2, seed=seed())
true_track = physics.centres(physics.cover(real))


@torch.no_grad()
def frame_scores(latents: Tensor) -> Tensor:
    """A score for each frame ``[pairs, frames]``."""
    clips = base.decode(latents)
    looks = [physics.likeness()(clips[:, i : i + 1], pair_texts) for i in range(bounce.FRAMES)]
    away = (centres(physics.cover(clips)) - true_track).norm(dim=-1)
    return torch.stack(looks, 1) - 0.2 * away.clamp(max=3)


labels = segment_labels(frame_scores(first), frame_scores(second), 4, 0.05)
print(f"{(labels != 0).float().mean():.0%} of the segments have a label")
print(f"{((labels > 0).any(1) & (labels < 0).any(1)).float().mean():.0%} of the pairs have both kinds of label")

# %%
student_dpo = base.student()
pairs = SegmentPairs(pair_texts, first, second, labels)
dpo = SegmentDPO(
    replace(policy, generator=student_dpo), pairs, seed=seed(), loss_of=partial(segment_dpo_loss, beta=100.0)
)
dpo_loop = Loop(dpo, LoopConfig(choose(smoke=2, cpu=25, gpu=25), learning_rate=2e-4, name="DPO by segments"))
with timer() as clock:
    dpo_loop.run()
with dpo_loop.averaged_weights():
    results["DPO by segments"] = evaluate(student_dpo, "test", per_kind=PER_KIND)
spent["DPO by segments"] = clock.cpu_seconds

# %% [markdown]
# ## 8. What has changed
#
# Accuracy is the strict verdict on prompts and seeds that nobody trained on. Beside it stands what no reward asked for:
# how differently accepted clips of one prompt move, how large the object is, how far it goes. Best of N is the rival
# that needs no training, and pays N clips each time.

# %%
columns = ("accuracy", "diversity", "mass", "displacement")
lines = ["| | " + " | ".join(columns) + " | CPU s |", "|---|---|---|---|---|---|"]
for name, scores in {"clean clips": clean, "base": old, **results}.items():
    cells = " | ".join(f"{scores[key]:.3f}" for key in columns)
    lines.append(f"| {name} | {cells} | {spent.get(name, 0):.0f} |")
lines += [f"| *base, best of {count}* | *{value:.3f}* | | | | |" for count, value in best.items()]
Markdown("\n".join(lines))

# %% [markdown]
# Each shortcut shows in a column of its own. A reward of single frames leaves the throws as they were: accuracy stays
# low. Without a leash, the reward's gradient buys accuracy with diversity, and so do GRPO and NFT: throws of one prompt
# become alike. With the KL the law is learnt, most of the variety stays, and objects are as large and go as far as clean
# ones, within a few per cent. DPO by segments moves little: both clips of a pair make the *same* throw, so that it can
# teach looks and hardly motion.

# %%
viz.curves(
    {
        name: (list(range(len(log))), [row["reward"] for row in log])
        for name, log in {"DanceGRPO": grpo_history, "NFT": nft_history, "VADER, with KL": vader_history}.items()
    },
    xlabel="iteration",
    ylabel="reward (likeness + heading + newton, at most 3)",
    alt=f"Reward of DanceGRPO from {grpo_history[0]['reward']:.2f} to {grpo_history[-1]['reward']:.2f}, of NFT from "
    f"{nft_history[0]['reward']:.2f} to {nft_history[-1]['reward']:.2f}, of VADER with a KL from "
    f"{vader_history[0]['reward']:.2f} to {vader_history[-1]['reward']:.2f}.",
)

# %% [markdown]
# ## 9. A real model
#
# Under the profile `gpu` your step trains Wan 2.1 too, here for smoothness, which you now know better than to trust.

# %%
if real_model():
    giant = wan.load_for_profile()
    prompts = ["a red ball bounces on a wooden floor", "a paper boat drifts on a pond"]
    wan_policy = DenoisingPolicy(giant, partial(dance_step, noise=0.25), steps=4 if rehearsing() else 16, micro_batch=1)
    wan_grpo = GRPO(
        replace(wan_policy, generator=giant.student()),
        physics.smoothness(),
        lambda count, rng: [str(text) for text in rng.choice(prompts, count)],
        GRPOConfig(
            prompts_per_iteration=1, group_size=2, trained_steps=1, minibatches=1, clip_range=1e-4, kl_weight=0.0
        ),
    )
    print(Loop(wan_grpo, LoopConfig(2 if rehearsing() else 50, learning_rate=1e-5, name="Wan 2.1")).run()[-1])

# %% [markdown]
# ## What to take away
#
# - A reward of frames cannot see a throw, and a reward of smoothness loves an empty stage. A law of motion sees both.
# - The transition, the frame to decode, and the label of a segment are small functions. The rest of the course is as it
#   was for pictures.
# - The check that nobody trained on, a simulator that looks for the throw, stands beside every reward.
#
# The cell below writes down what happened here.


# %%
def change(key: str) -> dict[str, float]:
    """A score before and after VADER with a KL; 0 for a diversity where no two accepted clips share a prompt."""
    scores = {"before": old[key], "after": results["VADER, with KL"][key]}
    return {when: 0.0 if np.isnan(value) else value for when, value in scores.items()}


record = write_record(
    "15-video",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "accuracy": change("accuracy"),
        "diversity": change("diversity"),
        "mass": change("mass"),
        "displacement": change("displacement"),
        "clean_mass": clean["mass"],
        "clean_displacement": clean["displacement"],
        "best_of_n": {str(count): value for count, value in best.items()},
        "methods": {name: scores["accuracy"] for name, scores in results.items()},
        "diversities": {name: float(np.nan_to_num(scores["diversity"])) for name, scores in results.items()},
        "training_seconds": training.seconds,
        "training_cpu_seconds": training.cpu_seconds,
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/15.json")
