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
# # Lab 09: DDPO, or how a verdict trains a generator
#
# So far you have judged pictures (lab 08) and written down how likely each step of a sampler was (lab 07). In this lab
# the two meet, and a text-to-image model *changes*. You will train it to make small files, then large ones, then
# pictures that show what was asked. Nothing in between has a gradient: not the JPEG encoder, not the verifier.
#
# Two roads lead there. The first needs no probability at all: imitate your own best samples. The second is PPO, from
# lab 04, on the steps of a sampler. You will write the mathematics of both, and *your own functions* will train the
# model.
#
# Seven exercises, about 80 minutes; the seventh is for the curious. The trainings take some minutes more. Chapter 09 is
# the text beside it.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> lets the same functions of yours train Stable
# Diffusion 1.5, of the family that DDPO was first tried on.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 1.5, 512 x 512 pixels: `stable-diffusion-v1-5/stable-diffusion-v1-5` |
# | licence | CreativeML Open RAIL-M; not gated |
# | disk | 4.3 GB |
# | VRAM, loading (estimate, unmeasured) | 2.3 GB |
# | VRAM, training (estimate, unmeasured) | 2.1 GB of weights and optimiser; activations come on top, 2.2 GB a sample |
# | trained | a LoRA of rank 4, alpha 4, in float32; the rest is frozen, in bfloat16 |
# | a 24 GB card, which `gpu` is set for | 64 pictures an iteration, `micro_batch` 8: 19.5 GB by the same estimate |
# | as DDPO published for SD 1.4 | 50 steps, eta 1, guidance 5 in training too, clip 1e-4, learning rate 3e-4 |
# | DDPO's batch, on 8 A100 | 256 images an epoch, about 4 h for 100 epochs |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --exclude "*.bin" --exclude "*.ckpt" --exclude "*fp16*" \
#     --exclude "*non_ema*" --exclude "v1-5-pruned*" --exclude "safety_checker/*"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws and scores means nothing.
#
# </details>

# %%
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Float, Int
from torch import Tensor

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.errors import LabError
from pixelpolicy.finetune import DDPO, DPOK, GRPOConfig, Loop, LoopConfig, RewardWeighted, RewardWeightedConfig
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import sd15
from pixelpolicy.policies import DenoisingPolicy, ddim_eta, ode, trajectory_kl
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import jpeg_compressibility, jpeg_incompressibility, shapes_dense
from pixelpolicy.rewards.compressibility import header_kilobytes
from pixelpolicy.worlds import shapes

# %% [markdown]
# ## 1. The base, and three wishes
#
# The same small model as in lab 07. It draws cleanly and listens badly, because the captions it learnt from were often
# wrong. Each picture stands under its prompt; a solid green frame means that the strict verifier of lab 08 accepts it.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
GUIDANCE = choose(smoke=1.0, cpu=1.0, gpu=5.0)
if real_model():
    base = sd15.load_for_profile(template="a flat drawing of {prompt} on a black background")
    base.remember(shapes.prompts())  # each prompt is encoded once; then
    base.forget_text_encoders()  # the encoder can go
else:
    base = load("shapes").to(device)
sheet_prompts, sheet_seeds = shapes.evaluation_pairs("test", per_kind=6)


# %%
def draw(generator) -> Tensor:
    """The same 24 prompts and the same noise, by the plain ODE."""
    return generator.generate(sheet_prompts, sheet_seeds, guidance_scale=GUIDANCE).cpu()


def framed(pictures: Tensor, words: str) -> viz.Picture:
    """The pictures under their prompts, framed by the strict verdict; ``words`` say in alt text what they are."""
    accepted = [verdict.strict for verdict in shapes.verify(pictures.numpy(), sheet_prompts)]
    alt = f"{words}: {sum(accepted)} of {len(accepted)} pictures match their prompts."
    return viz.sample_sheet(pictures, sheet_prompts, accepted=accepted, alt=alt)


before = draw(base)
framed(before, "The untouched base")

# %% [markdown]
# We measure it once and for all, on fixed prompts and seeds. Beside it stands the baseline that costs no training: draw
# N pictures and keep one that the verifier likes. The **validation** pairs serve to look in during training, the
# **test** pairs to report.

# %%
PER_KIND = choose(smoke=2, cpu=256, gpu=64)
LOOK = choose(smoke=1, cpu=48, gpu=16)  # a kind, for a look during training


def score(generator, split: str, per_kind: int) -> dict[str, float]:
    return evaluate(generator, split, per_kind=per_kind, guidance_scale=GUIDANCE)


base_scores = {split: score(base, split, PER_KIND) for split in ("test", "held-out")}
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=32, gpu=16))
print(f"accuracy of the base: {base_scores['test']['accuracy']:.3f}")
print("best of", ", ".join(f"{count}: {accuracy:.3f}" for count, accuracy in best.items()))

# %% [markdown]
# A reward says what we want. Three of them:
#
# - **compressibility**: minus the size of the picture as a JPEG file. It does not look at the prompt.
# - **incompressibility**: the size itself.
# - **dense**: how near the picture comes to its prompt, from 0 to 1.
#
# A JPEG of this size is mostly tables, the same bytes in every file. What the picture itself costs is the rest, the
# **entropy-coded** bytes; we report these. Below, the base's six smallest and six largest files.


# %%
def coded_bytes(pictures: Tensor) -> Tensor:
    """Entropy-coded bytes of each picture: its JPEG at quality 95 without the tables that all files share."""
    return 1000 * (jpeg_incompressibility()(pictures, [""] * len(pictures)) - header_kilobytes())


sizes, dense = coded_bytes(before), shapes_dense()(before, sheet_prompts)
order = sizes.argsort()[[*range(6), *range(-6, 0)]]
print(f"tables: {1000 * header_kilobytes():.0f} bytes; coded: {sizes.mean():.0f} bytes in the mean")
viz.sample_sheet(
    before[order],
    [f"{sizes[i]:.0f} bytes coded, dense {dense[i]:.2f}" for i in order],
    columns=6,
    alt="Twelve pictures of the base. Above, the six smallest files, with few small objects; below, the six largest, "
    "with many objects.",
)

# %% [markdown]
# Guess before you go on: what will a model draw that is paid for small files?

# %% [markdown]
# ## 2. Imitate your own best
#
# The simplest way to learn from a verdict: draw several pictures of each prompt, look which came out well, and train on
# those as if they were data. No density, no policy. It only needs a **weight** for each sample.

# %% [markdown] goal="9.1"
# *Reward-weighted regression* gives a sample the weight
#
# $$w_i = \frac{e^{\,r_i/\beta}}{\text{mean over its group of } e^{\,r_j/\beta}},$$
#
# where the group is all samples of one prompt. The temperature $\beta$ decides between the best alone (small) and all
# alike (large). It is the tilt of lab 05, on samples. Rewards may be large: subtract each group's largest before
# the exponential, which changes no weight. `groups` tells which samples belong together.


# %% exercise={"id": "9.1", "name": "reward_weights", "title": "Weights from rewards", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def reward_weights(
    rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"], beta: float
) -> Float[Tensor, "batch"]:
    """exp(reward / beta), scaled so that the weights of each group have mean 1."""
    ### BEGIN SOLUTION
    weights = torch.zeros_like(rewards)
    for group in groups.unique():
        mine = rewards[groups == group]
        powers = torch.exp((mine - mine.max()) / beta)
        weights[groups == group] = powers / powers.mean()
    return weights
    ### END SOLUTION


# %% [markdown] hints="9.1"
# <details><summary>Hint 1: group by group</summary>
#
# Go through the different values in `groups`. A mask such as `groups == 7` picks the members of one group.
#
# </details>
# <details><summary>Hint 2: why nothing overflows</summary>
#
# If the largest reward of a group becomes 0, every exponent is 0 or below, and every power lies between 0 and 1. Taking
# the same number from all of them multiplies all powers by the same factor, and the mean divides it out again.
#
# </details>
# <details><summary>Hint 3: mean, not sum</summary>
#
# `softmax` makes weights that add up to 1. Yours should have mean 1, whatever the size of the group. Fill a new tensor;
# do not write into `rewards`.
#
# </details>

# %% check="9.1"
check("9.1", reward_weights)

# %% [markdown] goal="9.2"
# *RAFT* (reward-ranked fine-tuning) is blunter: the `keep` best of each group count alike, the others not at all.
# Again the mean weight of a group is 1, so each of those kept has weight (size of the group) / (number kept). A
# group smaller than `keep` is kept whole. And where all rewards of a group are equal there is no best: all its weights
# are 0.


# %% exercise={"id": "9.2", "name": "best_of_group", "title": "Only the best", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def best_of_group(rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"], keep: int) -> Float[Tensor, "batch"]:
    """Equal weights for the ``keep`` best of each group, 0 for the others; of mean 1 in each group that has a best."""
    ### BEGIN SOLUTION
    weights = torch.zeros_like(rewards)
    for group in groups.unique():
        rows = torch.nonzero(groups == group).flatten()
        mine = rewards[rows]
        if mine.max() > mine.min():
            chosen = rows[mine.argsort(descending=True)[:keep]]
            weights[chosen] = len(rows) / len(chosen)
    return weights
    ### END SOLUTION


# %% [markdown] hints="9.2"
# <details><summary>Hint 1: positions</summary>
#
# You need to know *where* the best stand in the whole batch. `torch.nonzero` turns a mask into positions, and
# `argsort` gives an order within the group: the one indexes the other.
#
# </details>
# <details><summary>Hint 2: how many were kept</summary>
#
# A slice beyond the end of a list is no error; it is shorter. Ask the slice for its length instead of trusting `keep`.
#
# </details>
# <details><summary>Hint 3: flat groups</summary>
#
# Compare the largest with the smallest reward of the group. If they are equal, leave the zeros.
#
# </details>

# %% check="9.2"
check("9.2", best_of_group)

# %% [markdown]
# Both on one group: twelve attempts at one prompt, sorted by reward, with the weights of RWR and of RAFT.

# %%
TEN = choose(smoke=6, cpu=10, gpu=20)  # the plain ODE, as pictures are drawn later
attempts = DenoisingPolicy(base, ode, steps=TEN, guidance_scale=GUIDANCE, micro_batch=choose(smoke=12, cpu=12, gpu=8))
group = attempts.rollout(["a red circle left of a blue square"] * 12, seeds=torch.arange(12))
rewards, one = shapes_dense()(group.samples, group.prompts), torch.zeros(12, dtype=torch.long)
soft, hard = reward_weights(rewards, one, 0.1), best_of_group(rewards, one, 3)
order = rewards.argsort(descending=True)
viz.sample_sheet(
    group.samples[order],
    [f"reward {rewards[i]:.2f}; weights {soft[i]:.2f} and {hard[i]:.0f}" for i in order],
    columns=6,
    alt=f"Twelve attempts at one prompt, sorted by reward from {rewards.max():.2f} to {rewards.min():.2f}; the weights "
    "fall with the reward, RWR's smoothly, RAFT's from 4 to 0 after the third.",
)

# %% [markdown] goal="9.3"
# Now train on them. The loss is the one that made the base: draw noise $x_1$ and a level $\sigma$, mix
# $x = (1-\sigma)x_0 + \sigma x_1$, and ask the network for the velocity $v$. Its target is $x_1 - x_0$. Only that each
# sample now counts by its weight:
#
# $$L = \frac1n\sum_i w_i\,\frac1d \sum_j \big(v_{ij} - (x_1 - x_0)_{ij}\big)^2.$$
#
# `velocity`, `x0` and `x1` are `[batch, ...]`, with $d$ numbers a sample.


# %% exercise={"id": "9.3", "name": "weighted_matching", "title": "Weighted flow matching", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def weighted_matching(
    velocity: Float[Tensor, "batch ..."],
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    weights: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """The mean over samples of weight times mean squared error of the velocity."""
    ### BEGIN SOLUTION
    errors = ((velocity - (x1 - x0)) ** 2).flatten(1).mean(dim=1)
    return (weights * errors).mean()
    ### END SOLUTION


# %% [markdown] hints="9.3"
# <details><summary>Hint 1: one number a sample first</summary>
#
# Square the error, lay each sample out in a row with `flatten(1)`, and average along the row.
#
# </details>
# <details><summary>Hint 2: where the weight goes</summary>
#
# Outside the square. Inside, it would be squared too.
#
# </details>
# <details><summary>Hint 3: the last mean</summary>
#
# Divide by the number of samples, not by the sum of the weights, so that a group of weight 0 stays without effect.
#
# </details>

# %% check="9.3"
check("9.3", weighted_matching)

# %% [markdown]
# Train three times from the same base, on the same number of pictures: with RWR's weights, with RAFT's, and, as a
# control, with **all weights 1**. The control knows no reward. It imitates everything the model draws, so one might
# expect nothing to happen.


# %%
def look_in(generator, every: int) -> Callable:
    """A callback: now and then, what the averaged weights draw by the ODE, on the validation pairs."""

    def watch(loop: Loop, metrics: dict[str, float]) -> None:
        if loop.iteration % every == 0 or loop.iteration == loop.config.iterations:
            with loop.averaged_weights():
                metrics |= score(generator, "validation", LOOK)

    return watch


def curve(history: list[dict], key: str) -> tuple[list[float], list[float]]:
    """Iterations and values of a metric, where it was measured."""
    rows = [row for row in history if key in row]
    return [row["iteration"] for row in rows], [row[key] for row in rows]


# %%
of_groups = RewardWeightedConfig(
    prompts_per_iteration=choose(smoke=2, cpu=16, gpu=8),
    group_size=choose(smoke=4, cpu=12, gpu=8),
    noise_draws=4,
    seed=seed(),
)
weightings = {
    "all alike": lambda rewards, groups: torch.ones_like(rewards),
    "RWR": partial(reward_weights, beta=0.1),
    "RAFT": partial(best_of_group, keep=3),
}
start = score(base, "validation", LOOK)


# %%
def imitate(name: str) -> tuple[list[dict], Tensor]:
    """The log of a training with one of the weightings, and the sheet drawn afterwards."""
    sampler = replace(attempts, generator=base.student(), micro_batch=choose(smoke=96, cpu=96, gpu=8))
    algorithm = RewardWeighted(
        sampler, shapes_dense(), shapes.draw_prompts, of_groups, weightings[name], weighted_matching
    )
    settings = LoopConfig(choose(smoke=1, cpu=8, gpu=60), learning_rate=choose(smoke=2e-4, cpu=2e-4, gpu=1e-4))
    loop = Loop(algorithm, replace(settings, warmup_iterations=2, name=name))
    log = loop.run([look_in(sampler.generator, choose(smoke=1, cpu=2, gpu=10))])
    with loop.averaged_weights():
        return log, draw(sampler.generator)


# %%
with timer() as imitation:
    imitated = {name: imitate(name) for name in weightings}
lines = {name: curve([{"iteration": 0, **start}, *log], "accuracy") for name, (log, _) in imitated.items()}
ends = {name: y[-1] for name, (_, y) in lines.items()}
print(f"{imitation.seconds:.0f} s, {imitation.cpu_seconds:.0f} CPU s; at the end",
      ", ".join(f"{name} {value:.3f}" for name, value in ends.items()))  # fmt: skip
viz.curves(
    lines,
    levels={"base": start["accuracy"]},
    xlabel="iteration",
    ylabel="strict accuracy (validation)",
    alt=f"Strict accuracy over the iterations, from {start['accuracy']:.2f}, for three weightings; at the end "
    + ", ".join(f"{name} {value:.2f}" for name, value in ends.items()),
)

# %% [markdown]
# And this is what the control draws in the end:

# %%
framed(imitated["all alike"][1], "After imitating all of its own samples alike, the same prompts and noise")

# %% [markdown]
# Nobody asked for that. A sampler of few steps errs a little, and always the same way: an object a shade too dark, a
# colour not quite its own. Training on such samples takes the error into the weights; the next samples are drawn from
# there, err again, and are imitated again. Errors that do not average out add up. **Self-imitation fades**, and only
# *selection* holds against it, by throwing out the samples where it shows. How hard you select decides which of the two
# wins: RWR at this temperature keeps whatever is nearly as good as the best, RAFT keeps three of twelve. A leash to the
# base or real data mixed in slows the fading; section 7 shows where the two come to in more iterations.
#
# And imitation wastes what it is told. A bad sample is thrown away. Nothing pushes the model *away* from it.

# %% [markdown]
# ## 3. Denoising as decisions, again
#
# Lab 07 in three sentences. A noisy latent is a state, the next latent is an action, and a step with noise in it has a
# density, $x' \sim \mathcal N(\mu_\theta, s^2)$. The verdict comes at the end and belongs to all steps of its picture.
# So a picture is an episode, and whatever trains a cart and pole can train a sampler.
#
# DDPO takes **DDIM** with $\eta = 1$ (exercise 7.6): every step but the last draws noise, and the sampler forgets where
# it began. The log-probability of a step is the mean over its dimensions, as in all published code of this field.

# %%
STEPS = choose(smoke=6, cpu=6, gpu=50)
policy = DenoisingPolicy(
    base,
    partial(ddim_eta, noise=1.0),
    steps=STEPS,
    guidance_scale=GUIDANCE,
    micro_batch=choose(smoke=96, cpu=96, gpu=8),
)
noisy = policy.noisy_steps()
print(f"{STEPS} steps; those with a density: {noisy}")

# %% [markdown] goal="9.4"
# Which pictures were good? Is 0.7 much? For *a red circle* it is a failure, for *four yellow triangles* a feat. DDPO
# **remembers**: for each prompt the latest `keep` rewards, those of this batch included. With $m$ and $s$ the mean and
# population standard deviation of what is remembered,
#
# $$A_i = \frac{r_i - m}{s + 10^{-6}}.$$
#
# A prompt with fewer than `least` rewards in memory takes mean and deviation of the present batch. `memory` maps a
# prompt to its list of rewards (plain numbers, the oldest first); it is yours to change, and comes back at the next
# call. First remember the whole batch, then compare.


# %% exercise={"id": "9.4", "name": "compare_with_past", "title": "What is good for this prompt?", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def compare_with_past(
    rewards: Float[Tensor, "batch"],
    prompts: list[str],
    memory: dict[str, list[float]],
    keep: int = 32,
    least: int = 8,
) -> Float[Tensor, "batch"]:
    """How much better each reward is than the latest ones of its prompt, in their standard deviations."""
    ### BEGIN SOLUTION
    for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
        memory[prompt] = (memory.get(prompt, []) + [reward])[-keep:]
    advantages = torch.zeros_like(rewards)
    for i, prompt in enumerate(prompts):
        known = torch.tensor(memory[prompt]) if len(memory[prompt]) >= least else rewards
        advantages[i] = (rewards[i] - known.mean()) / (known.std(correction=0) + 1e-6)
    return advantages
    ### END SOLUTION


# %% [markdown] hints="9.4"
# <details><summary>Hint 1: two passes</summary>
#
# One loop to remember, one to compare. In a single loop the first sample of a batch would not know of its mates.
#
# </details>
# <details><summary>Hint 2: forgetting</summary>
#
# A slice with a negative start takes the end of a list. `dict.get` has a second argument for prompts never seen.
#
# </details>
# <details><summary>Hint 3: which numbers</summary>
#
# For each sample decide first *which* rewards it is compared with, the prompt's or the batch's, and then do the same
# with either. `Tensor.std` divides by n - 1 unless told otherwise.
#
# </details>

# %% check="9.4"
check("9.4", compare_with_past)

# %% [markdown] goal="9.5"
# The objective is the one that balances the pole: raise what is better than expected, lower what is worse, and stop
# where one update has gone far enough. Here an episode has several steps and one advantage. With the ratio
# $\rho_{it} = \exp(\log p_{\text{new}} - \log p_{\text{old}})$ of picture $i$ at step $t$,
#
# $$L = \operatorname*{mean}_{i,t}\ \max\big(-A_i\,\rho_{it},\; -A_i \operatorname{clip}(\rho_{it}, 1-c, 1+c)\big).$$
#
# `log_probs` and `old_log_probs` are `[batch, steps]`, `advantages` is `[batch]`. Every step is clipped by itself.


# %% exercise={"id": "9.5", "name": "episode_objective", "title": "The objective of an episode", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def episode_objective(
    log_probs: Float[Tensor, "batch steps"],
    old_log_probs: Float[Tensor, "batch steps"],
    advantages: Float[Tensor, "batch"],
    clip_range: float,
) -> Float[Tensor, ""]:
    """PPO's clipped loss over all steps of all pictures: one number to descend."""
    ### BEGIN SOLUTION
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    gain = advantages[:, None]
    return torch.maximum(-gain * ratio, -gain * clipped).mean()
    ### END SOLUTION


# %% [markdown] hints="9.5"
# <details><summary>Hint 1: shapes</summary>
#
# A picture's advantage goes along its row. Without a second axis, PyTorch lines it up with the columns, and says
# nothing if there happen to be as many steps as pictures.
#
# </details>
# <details><summary>Hint 2: maximum or minimum</summary>
#
# PPO's paper climbs and takes the minimum. You descend: the sign is turned, and so is the choice, entry by entry.
#
# </details>
# <details><summary>Hint 3: mean</summary>
#
# Over everything: a sampler with twice the steps should not take twice the stride.
#
# </details>

# %% check="9.5"
check("9.5", episode_objective)


# %% [markdown]
# A memory needs company. If every iteration drew 192 different ones of the 594 prompts, most would be strangers for
# long, with fewer than `least` rewards. So we draw 16 prompts, 12 pictures of each: every reward then has siblings.
#
# A step of a large model hardly fits into memory, a trajectory does not. So the trainer hands you the steps one at a
# time, as columns, and adds up the gradients:


# %%
def column(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Your objective on one step of each picture."""
    return episode_objective(log_probs[:, None], old_log_probs[:, None], advantages, clip_range)


# %%
def ddpo(reward, **pieces) -> tuple[DDPO, dict]:
    """DDPO from the untouched base with your functions, and the memory that your statistics write into."""
    memory: dict[str, list[float]] = {}
    settings = GRPOConfig(
        prompts_per_iteration=choose(smoke=4, cpu=16, gpu=8),
        group_size=choose(smoke=2, cpu=12, gpu=8),
        trained_steps=STEPS,
        minibatches=2,
        clip_range=choose(smoke=2e-3, cpu=2e-3, gpu=1e-4),
        kl_weight=0.0,
        seed=seed(),
    )
    compare = partial(compare_with_past, memory=memory)
    pieces = {"statistics": compare, "objective": column} | pieces
    own = replace(policy, generator=base.student())
    return DDPO(own, reward, shapes.draw_prompts, settings, **pieces), memory


# %% [markdown]
# ## 4. Small files, large files
#
# First wish: small files. The settings are those of the prompt reward to come, but for a larger learning rate. There is
# no leash.


# %%
def wish(reward, iterations: int, name: str) -> tuple[Loop, Tensor]:
    """Train for a reward on the bytes, and draw the sheet again."""
    algorithm, _ = ddpo(reward)
    rate = choose(smoke=1e-3, cpu=1e-3, gpu=3e-4)
    loop = Loop(algorithm, LoopConfig(iterations, learning_rate=rate, warmup_iterations=2, name=name))
    loop.run([look_in(algorithm.policy.generator, choose(smoke=1, cpu=4, gpu=10))])
    with loop.averaged_weights():
        return loop, draw(algorithm.policy.generator)


with timer() as small_clock:
    small_loop, small = wish(jpeg_compressibility(), choose(smoke=1, cpu=14, gpu=60), "small files")
small_bytes, base_bytes = coded_bytes(small).mean().item(), sizes.mean().item()
print(f"coded bytes {base_bytes:.0f} -> {small_bytes:.0f} ({small_bytes / base_bytes - 1:+.0%})")
print(f"whole file  {base_bytes + 1000 * header_kilobytes():.0f} -> {small_bytes + 1000 * header_kilobytes():.0f}")
print(f"strict accuracy {start['accuracy']:.3f} -> {small_loop.history[-1]['accuracy']:.3f}")
print(f"{small_clock.seconds:.0f} s, {small_clock.cpu_seconds:.0f} CPU s")

# %%
framed(small, "After training for small files, the same prompts and noise")

# %% [markdown]
# The encoder has no gradient, and your functions moved the model anyway. They moved it to the answer that the wish
# allows: leave things out. Had you guessed it? The strict verdict, which nobody trained on, tells. With the bytes alone
# you would have called this a success.

# %%
viz.curves(
    {
        "coded bytes, over the base's": (
            [0] + [row["iteration"] for row in small_loop.history],
            [1.0] + [(-1000 * row["reward"] - 1000 * header_kilobytes()) / base_bytes for row in small_loop.history],
        ),
        "strict accuracy": curve([{"iteration": 0, **start}, *small_loop.history], "accuracy"),
    },
    xlabel="iteration",
    ylabel="share",
    alt=f"Over {len(small_loop.history)} iterations the coded bytes fall; strict accuracy goes from "
    f"{start['accuracy']:.2f} to {small_loop.history[-1]['accuracy']:.2f}.",
)

# %% [markdown]
# (The bytes are those of the noisy samples that were trained on, so that the first point after the start already
# differs.) Now the opposite wish, for a short while.

# %%
large_loop, large = wish(jpeg_incompressibility(), choose(smoke=1, cpu=8, gpu=60), "large files")
large_bytes = coded_bytes(large).mean().item()
print(f"coded bytes {base_bytes:.0f} -> {large_bytes:.0f} ({large_bytes / base_bytes - 1:+.0%})")
print(f"strict accuracy {start['accuracy']:.3f} -> {large_loop.history[-1]['accuracy']:.3f}")
framed(large, "After training for large files, the same prompts and noise")

# %% [markdown]
# ## 5. What was asked for
#
# Third wish, and the one that matters: the dense verdict. Your memory compares, your objective trains all noisy steps.
# The learning rate warms up, and cools down over the last part.

# %%
ITERATIONS = choose(smoke=2, cpu=72, gpu=100)
algorithm, memory = ddpo(shapes_dense())
student = algorithm.policy.generator
settings = LoopConfig(
    ITERATIONS,
    learning_rate=choose(smoke=5e-4, cpu=5e-4, gpu=3e-4),
    warmup_iterations=4,
    cooldown_iterations=choose(smoke=0, cpu=58, gpu=0),
    name="DDPO",
)
loop = Loop(algorithm, settings)
with timer() as training:
    history = loop.run([look_in(student, choose(smoke=1, cpu=5, gpu=10))])
print(f"{training.seconds:.0f} s, {training.cpu_seconds:.0f} CPU s for {len(history)} iterations")

# %%
watched = [{"iteration": 0, **start}, *history]
viz.curves(
    {
        "reward (dense, noisy samples)": curve(history, "reward"),
        "accuracy (strict, ODE)": curve(watched, "accuracy"),
        "diversity": curve(watched, "diversity"),
    },
    levels={"base": start["accuracy"], "base, best of 4": best[4]},
    xlabel="iteration",
    ylabel="share",
    alt=f"Reward from {history[0]['reward']:.2f} to {history[-1]['reward']:.2f}, strict accuracy from "
    f"{start['accuracy']:.2f} to {history[-1]['accuracy']:.2f} over {len(history)} iterations, and diversity.",
)

# %%
with loop.averaged_weights():
    after = draw(student)
    after_scores = {split: score(student, split, PER_KIND) for split in ("test", "held-out")}
    with torch.no_grad():
        texts = list(shapes.trained_prompts("relation")[:24])
        now = replace(policy, generator=student)
        kl = trajectory_kl(now, policy, texts, torch.arange(len(texts))).mean().item()
framed(after, "After DDPO for the prompt, the same prompts and noise")

# %% [markdown]
# The numbers, kind by kind. **Diversity** is how differently the accepted pictures of one prompt place and size their
# objects. **Held-out** prompts were never trained on. **KL** is the distance travelled, in nats along whole
# trajectories. Best of N stands beside: the untouched base with N tries and a judge at every picture.

# %%
rows = {kind: f"accuracy_{kind}" for kind in shapes.KINDS} | {"**all**": "accuracy", "diversity": "diversity"}
old, new = base_scores["test"], after_scores["test"]
table = [f"| {label} | {old[key]:.3f} | {new[key]:.3f} |" for label, key in rows.items()]
held = [scores["held-out"]["accuracy"] for scores in (base_scores, after_scores)]
table += [f"| held-out prompts | {held[0]:.3f} | {held[1]:.3f} |", f"| KL to the base | 0 | {kl:.1f} nats |"]
table += [f"| *base, best of {count}* | *{accuracy:.3f}* | |" for count, accuracy in best.items()]
Markdown("\n".join(["| | before | after |", "|---|---|---|", *table]))

# %% [markdown]
# ## 6. Know what to expect: DPOK
#
# A memory knows a prompt, and a prompt that is seldom drawn it knows badly. The actor-critic of lab 04 has another
# answer, and DPOK takes it to diffusion: a second network $V(x_t, t, \text{prompt})$, the **critic**, says what reward
# to expect from here. The advantage of a step is then the surprise, $A_t = (r - V(x_t))/s$, with $s$ the deviation of
# the batch's rewards. It may differ from step to step: a picture whose first steps already went wrong surprises nobody
# at the end. DPOK also pays for the distance to the base: the loss carries a KL between the step it takes and the step
# the base would take.

# %% [markdown] goal="9.6"
# How does a critic learn? No reward comes before the end, and nothing is discounted. So the target at *every* step is
# the same: the reward that the picture got. Fit by least squares, the critic comes to the mean of what happens from
# there. `expected` is `[batch, steps]`, `rewards` is `[batch]`. Take the mean over both.


# %% exercise={"id": "9.6", "name": "critic_loss", "title": "The critic's lesson", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def critic_loss(expected: Float[Tensor, "batch steps"], rewards: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Mean squared error of what was expected at each step to the reward that came."""
    ### BEGIN SOLUTION
    return ((expected - rewards[:, None]) ** 2).mean()
    ### END SOLUTION


# %% [markdown] hints="9.6"
# <details><summary>Hint 1: one target a picture</summary>
#
# All entries of a row have the same target. Which axis does `rewards` lack?
#
# </details>
# <details><summary>Hint 2: order</summary>
#
# Difference, square, mean. Averaging any earlier lets errors cancel.
#
# </details>
# <details><summary>Hint 3: gradient</summary>
#
# It must reach `expected`: no detaching, no plain numbers.
#
# </details>

# %% check="9.6"
check("9.6", critic_loss)

# %%
pioneer, _ = ddpo(shapes_dense())
dpok = DPOK(
    pioneer.policy,
    shapes_dense(),
    shapes.draw_prompts,
    replace(pioneer.config, kl_weight=0.02),
    objective=column,
    critic_loss_of=critic_loss,
)
dpok_loop = Loop(
    dpok, replace(settings, iterations=choose(smoke=2, cpu=20, gpu=60), cooldown_iterations=0, name="DPOK")
)
with timer() as dpok_clock:
    dpok_history = dpok_loop.run([look_in(dpok.policy.generator, choose(smoke=1, cpu=5, gpu=10))])
print(f"{dpok_clock.seconds:.0f} s, {dpok_clock.cpu_seconds:.0f} CPU s for {len(dpok_history)} iterations")
for name, log in {"DDPO": history, "DPOK": dpok_history}.items():
    same = [row for row in log if row["iteration"] <= len(dpok_history) and "accuracy" in row]
    print(f"{name} after {same[-1]['iteration']} iterations: strict accuracy {same[-1]['accuracy']:.3f} (validation)")

# %% [markdown]
# What has the critic learnt? Ask it about fresh episodes, at every step: how much of the variance of the final reward
# did it foresee? Beside it, the best that could be foreseen from the kind of prompt alone.

# %%
(fresh, surprises, _), _ = dpok.collect(10_000)
verdicts = shapes_dense()(fresh.samples, fresh.prompts)
spread_of = verdicts.std(correction=0) + 1e-6
foreseen = 1 - surprises.square().mean(0) * spread_of**2 / (verdicts.var(correction=0) + 1e-12)
kinds = np.array([shapes.parse(prompt).kind for prompt in fresh.prompts])
means = {kind: verdicts[torch.from_numpy(kinds == kind)].mean() for kind in set(kinds)}
by_kind = (torch.stack([means[kind] for kind in kinds]).var(correction=0) / spread_of**2).item()
viz.curves(
    {"foreseen by the critic": (range(STEPS), foreseen.tolist())},
    levels={"by the kind of prompt": by_kind, "nothing": 0.0},
    xlabel="step",
    ylabel="share of the reward's variance",
    alt=f"Share of the final reward's variance that the critic foresees, from {foreseen[0]:.2f} at the first step to "
    f"{foreseen[-1]:.2f} at the last; the kind of prompt alone explains {by_kind:.2f}.",
)

# %% [markdown]
# At the first step it sees noise and a prompt; what it foresees there, the prompt told it. At later steps the latent
# shows more and more of the picture, and a critic that could read it would foresee nearly all. This one is a small
# network, fitted to a few thousand pictures whose painter changes under its eyes: compare its line with the dashed one.
# That is the trouble with critics of pictures, and why most of the field goes without. A memory, or a group of
# siblings, is a baseline that needs no training. Lab 12 takes the group.

# %% [markdown]
# ## 7. Four methods, the same number of pictures
#
# One run is an anecdote. The comparison below was recorded: four methods, the same base, prompts, reward and number of
# pictures, several seeds each (`benchmarks/ddpo_comparison.py`). Each line of the table gives the mean over seeds and,
# in brackets, the lowest and the highest.


# %%
def recorded_runs(name: str) -> list[dict]:
    """The records of a benchmark, or none where it has not been run yet."""
    try:
        return recorded.records(name)
    except LabError:
        print(f"{name} is not recorded in this copy of the course yet.")
        return []


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


# %%
compared = recorded_runs("09-ddpo-comparison")
lines = ["| | seeds | pictures | strict accuracy | held-out | diversity | CPU s |", "|---|---|---|---|---|---|---|"]
for method in dict.fromkeys(run["method"] for run in compared):
    runs = [run for run in compared if run["method"] == method]
    keys = ("accuracy", "accuracy_held_out", "diversity")
    cells = [spread([run["metrics"][key]["after"] for run in runs]) for key in keys]
    seconds = f"{np.mean([run['cpu_seconds'] for run in runs]):.0f}"
    cells = [method.upper(), str(len(runs)), str(runs[0]["samples"]), *cells, seconds]
    lines.append("| " + " | ".join(cells) + " |")
Markdown("\n".join(lines) if compared else "The table will stand here.")

# %% [markdown]
# ## 8. The long run
#
# A few minutes show the direction; the recorded long run shows where it leads. It is DPOK's, with its leash: over
# hundreds of iterations a policy without one drifts away. Its log and weights come with the course; they are of the
# small model under `gpu` too.

# %%
long = recorded_runs("09-ddpo-long")
logs = {f"seed {run['seed']}": recorded.history("09-ddpo-long", run["seed"]) for run in long}
for run in long:
    accuracy, diverse = run["metrics"]["accuracy"], run["metrics"]["diversity"]
    print(
        f"seed {run['seed']}: {run['seconds'] / 60:.0f} minutes, accuracy {accuracy['before']:.3f} -> "
        f"{accuracy['after']:.3f}, diversity {diverse['before']:.3f} -> {diverse['after']:.3f}"
    )
small_base = {"base": long[0]["metrics"]["accuracy"]["before"]} if long else {}
viz.curves(
    {name: curve(log, "accuracy") for name, log in logs.items()},
    levels=small_base,
    xlabel="iteration",
    ylabel="strict accuracy (validation)",
    alt="Strict accuracy of the recorded long runs over their iterations, one line a seed, with the base as a level.",
) if long else Markdown("The curves will stand here.")

# %%
if long:
    tuned = recorded.apply("09-ddpo-long", long[0]["seed"], load("shapes").to(device))
    final = tuned.generate(sheet_prompts, sheet_seeds).cpu()
framed(final, "The long run, the same prompts and noise") if long else Markdown("The pictures will stand here.")

# %% [markdown]
# ## 9. Clinic
#
# **"My ratio is always 1. Is it learning?"** At the first optimiser step after a rollout, yes, always: old and new
# policy are the same. If it is only *nearly* 1, you train on rounding errors. And the gradient of a ratio of 1 is not
# 0; it is $-A\,\nabla\!\log p$:

# %%
played = replace(policy, micro_batch=12).rollout(["a red circle"] * 12, seeds=torch.arange(12))
with torch.no_grad():
    again = torch.stack([replace(policy, micro_batch=12).log_prob(played, t) for t in noisy], 1)
then = torch.stack([played.log_prob_at(t) for t in noisy], 1)
print("smallest and largest ratio:", (again - then).exp().min().item(), (again - then).exp().max().item())
leaf, gains = then.clone().requires_grad_(), torch.linspace(-1, 1, 12)
value = episode_objective(leaf, then, gains, 0.2)
(gradient,) = torch.autograd.grad(value, leaf)
print("loss:", round(abs(value.item()), 6), " largest gradient:", round(gradient.abs().max().item(), 4))
assert torch.equal(again, then) and gradient.abs().max() > 0

# %% [markdown]
# **"Which clip range?"** It depends on the size of the latent. The log-probability here is a mean over dimensions, so
# that a clip of $c$ lets the log-probability of the whole step move by about $c$ times their number:

# %%
for name, clip, size in (("this model", 2e-3, 4 * 8 * 8), ("Stable Diffusion, DDPO's clip", 1e-4, 4 * 64 * 64)):
    print(f"{name}: {clip:g} x {size} = {clip * size:.2f} nats a step")

# %% [markdown]
# **"Do I need a mean for each prompt?"** Here is what the batch's mean alone would have told the model: the average
# advantage of a picture, kind by kind. Below 0, a picture of that kind counts as bad before anyone has looked at it. And
# prompts differ more than kinds do: beside it stand the lowest and the highest mean of one prompt, from the memory that
# your statistics kept in section 5.

# %%
final_batch = replace(policy, generator=base).rollout(
    shapes.draw_prompts(choose(smoke=8, cpu=192, gpu=64), np.random.default_rng(1)),
    seeds=torch.arange(choose(smoke=8, cpu=192, gpu=64)),
)
values = shapes_dense()(final_batch.samples, final_batch.prompts)
standardised = (values - values.mean()) / (values.std(correction=0) + 1e-6)
kinds = np.array([shapes.parse(prompt).kind for prompt in final_batch.prompts])
for kind in shapes.KINDS:
    known = [np.mean(past) for prompt, past in memory.items() if shapes.parse(prompt).kind == kind and len(past) > 1]
    mine = standardised[torch.from_numpy(kinds == kind)]
    if len(mine) and known:
        print(f"{kind:9}: batch's advantage {mine.mean():+.2f}; means remembered {min(known):.2f} to {max(known):.2f}")

# %% [markdown] goal="9.7"
# *For the curious.* **"How many samples still teach?"** The usual clip fraction counts ratios outside the range. Not
# all of those are silent: one that moved the *wrong* way still has its gradient. Return, for each step, the share of
# pictures whose gradient is gone: good ones ($A > 0$) above $1 + c$, bad ones ($A < 0$) below $1 - c$. Shapes as in
# exercise 9.5; the result is `[steps]`.


# %% exercise={"id": "9.7", "name": "silent_share", "title": "Who has stopped teaching (for the curious)", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def silent_share(
    log_probs: Float[Tensor, "batch steps"],
    old_log_probs: Float[Tensor, "batch steps"],
    advantages: Float[Tensor, "batch"],
    clip_range: float,
) -> Float[Tensor, "steps"]:
    """Share of pictures, step by step, that the clip has left without a gradient."""
    ### BEGIN SOLUTION
    ratio, gain = torch.exp(log_probs - old_log_probs), advantages[:, None]
    done = ((gain > 0) & (ratio > 1 + clip_range)) | ((gain < 0) & (ratio < 1 - clip_range))
    return done.float().mean(dim=0)
    ### END SOLUTION


# %% [markdown] hints="9.7"
# <details><summary>Hint 1: two cases</summary>
#
# Each is a mask made of two comparisons joined by `&`; the two masks are joined by `|`. Mind the brackets.
#
# </details>
# <details><summary>Hint 2: shapes</summary>
#
# The advantages need their second axis, as in 9.5.
#
# </details>
# <details><summary>Hint 3: a share</summary>
#
# Booleans have no mean; floats do. Average over the pictures.
#
# </details>

# %% check="9.7"
check("9.7", silent_share)

# %% [markdown]
# Take one batch of the base's episodes, train on it *again and again* without drawing anew, and look at every step: how
# the clip silences it. This is why PPO is called proximal: a batch is good for a few updates, then it has said what it
# had to say.

# %%
stale, _ = ddpo(shapes_dense())
experience, _ = stale.collect(0)
episodes, gains, _ = experience
written = torch.stack([episodes.log_prob_at(t) for t in noisy], 1)
optimiser = torch.optim.Adam([p for p in stale.model.parameters() if p.requires_grad], 3e-4)
silent = []
for _ in range(choose(smoke=2, cpu=7, gpu=7)):
    with torch.no_grad():
        parts = episodes.select(slice(0, policy.micro_batch))
        now = torch.stack([stale.policy.log_prob(parts, t).cpu() for t in noisy], 1)
    silent.append(silent_share(now, written[: len(now)], gains[: len(now)], stale.config.clip_range))
    for losses in stale.minibatches(experience, 0):
        optimiser.zero_grad()
        for loss in losses:
            (loss()[0] / len(losses)).backward()
        optimiser.step()

# %%
shares = torch.stack(silent)
viz.curves(
    {f"step {t}": (range(len(shares)), shares[:, i].tolist()) for i, t in enumerate(noisy[:6])},
    xlabel="passes over the same batch",
    ylabel="share of pictures silenced",
    alt="Share of pictures without a gradient over passes over one batch, a line for each step: 0 at the start, at the "
    f"end from {shares[-1].min():.2f} to {shares[-1].max():.2f}.",
)

# %% [markdown]
# Not all steps fall silent together: those with the least noise do so first. Where a step hardly draws, a small move of
# its mean is a large move of its density.
#
# ## What to take away
#
# - A verdict is enough. Imitation needs samples and weights; policy gradients also need a density, and in return learn
#   from what went wrong.
# - The same objective balances a pole. What is new is what a reward is compared with: a memory, a critic, or, in lab
#   12, a group.
# - A wish is taken literally. Always look at the pictures, and at a score that nobody trained on.
#
# The cell below writes down what happened here.


# %%
def change(key: str, split: str = "test") -> dict[str, float]:
    """A score before and after; where no two accepted pictures share a prompt there is no diversity: 0."""
    pair = {"before": base_scores[split][key], "after": after_scores[split][key]}
    return {when: float(np.nan_to_num(value)) for when, value in pair.items()}


wishes = {"small": (small_bytes, small_loop), "large": (large_bytes, large_loop)}
record = write_record(
    "09-ddpo",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "accuracy": change("accuracy"),
        "accuracy_held_out": change("accuracy", "held-out"),
        **{f"accuracy_{kind}": change(f"accuracy_{kind}") for kind in shapes.KINDS},
        "diversity": change("diversity"),
        "kl_nats": {"before": 0.0, "after": kl},
        "best_of_n": {str(count): accuracy for count, accuracy in best.items()},
        "imitation": {name: {"before": start["accuracy"], "after": value} for name, value in ends.items()},
        "coded_bytes": {"before": base_bytes} | {name: size for name, (size, _) in wishes.items()},
        "accuracy_of_wishes": {name: log.history[-1]["accuracy"] for name, (_, log) in wishes.items()},
        "dpok_accuracy": {"before": start["accuracy"], "after": dpok_history[-1]["accuracy"]},
        "foreseen": foreseen.tolist(),
        "training_seconds": training.seconds,
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/09.json")
