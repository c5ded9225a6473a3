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
# # Lab 12: GRPO, and a generator that learns to do as it is told
#
# You are about to meet a text-to-image model that draws cleanly and listens badly: asked for *a red circle left of a
# blue square* it will often swap the two, recolour one, or add a third. You will write the five pieces of
# **Flow-GRPO**, and watch *your own functions* mend it within minutes, on this machine, without a GPU.
#
# The idea of the whole course is in one sentence: **a generator is a policy**. Its sampling steps are actions with a
# density, a verdict on the finished picture is the reward, and the loss that balances a pole does the rest.
#
# You need Python, gradients, and ten minutes with chapter 12. Five exercises, about 50 minutes; the training takes a
# few minutes more. Leave whenever you like: your answers and points are kept.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> lets the same functions of yours train a real
# model.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 3.5 medium, 512 x 512 pixels: `stabilityai/stable-diffusion-3.5-medium` |
# | licence | Stability AI Community License; gated: accept it on the model's page, then `hf auth login` |
# | disk | 16.3 GB |
# | VRAM, loading (estimate, unmeasured) | 16.4 GB |
# | VRAM, training (estimate, unmeasured) | 5.7 GB of weights and optimiser; activations come on top |
# | trained | a LoRA of rank 32, alpha 64, in float32; the rest is frozen, in bfloat16 |
# | a 24 GB card, which `gpu` is set for | 8 prompts x 24 attempts, no guidance, `micro_batch` 4 |
# | 80 GB cards: the batch that Flow-GRPO published | 48 prompts x 24 attempts |
# | on both | 10 steps, learning rate 3e-4, KL 0.04, clip 1e-4 |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download stabilityai/stable-diffusion-3.5-medium --exclude "*fp16*" --exclude "sd3.5_medium*" \
#     --exclude "text_encoders/*" --exclude "vae copy/*" --exclude "*.png"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws and scores means nothing.
#
# </details>

# %%
from collections.abc import Sequence
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
from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import sd3
from pixelpolicy.policies import DenoisingPolicy, cps, trajectory_kl
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import jpeg_compressibility, shapes_dense, shapes_strict
from pixelpolicy.worlds import shapes

# %% [markdown]
# ## 1. Meet the generator
#
# `load("shapes")` gives a small latent diffusion model in the very classes of Stable Diffusion 3.5: an autoencoder, a
# transformer, a flow-matching scheduler. It learnt from pictures whose captions were often wrong, as real models do.
# Each picture below stands under its prompt; a solid green frame means that the verifier accepts it.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
if real_model():
    base = sd3.load_for_profile(template="a flat drawing of {prompt} on a black background", max_sequence_length=128)
    base.remember(shapes.prompts())  # each prompt is encoded once; then
    base.forget_text_encoders()  # the encoders, most of the model's weights, can go
else:
    base = load("shapes").to(device)

# %%
sheet_prompts, sheet_seeds = shapes.evaluation_pairs("test", per_kind=8)
before = base.generate(sheet_prompts, sheet_seeds)
accepted = [verdict.strict for verdict in shapes.verify(before.cpu().numpy(), sheet_prompts)]
viz.sample_sheet(
    before,
    sheet_prompts,
    accepted=accepted,
    alt=f"The untouched base: 32 pictures of coloured shapes, crisp; {sum(accepted)} of 32 match their prompts.",
)

# %% [markdown]
# The pictures are clean. What is wrong is *what* they show. We measure that once and for all on fixed prompts and
# seeds, every kind of prompt alike. Beside it stands a baseline that needs no training at all: draw N pictures, keep
# one that the verifier likes.

# %%
PER_KIND = choose(smoke=2, cpu=256, gpu=256)
before_scores = {split: evaluate(base, split, per_kind=PER_KIND) for split in ("test", "held-out")}
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=32, gpu=16))
for count, accuracy in best.items():
    print(f"best of {count:2d} pictures: {accuracy:.2f}")
print(f"accuracy of the base, trained prompts: {before_scores['test']['accuracy']:.3f}")

# %% [markdown]
# ## 2. Sampling as a policy
#
# The model moves noise to a picture in a few steps. Taken by the ODE, a step is a fact, not a choice, and has no
# density to speak of. `cps` (coefficients-preserving sampling) redraws a part of the noise at each step, so that the
# next latent is Gaussian: *now* the step is an action, and it has a probability that training can raise or lower.
#
# Here is one group: one prompt, twelve attempts, each with its own noise.

# %%
policy = DenoisingPolicy(
    base,
    partial(cps, noise=choose(smoke=0.5, cpu=0.5, gpu=0.8)),
    steps=choose(smoke=6, cpu=6, gpu=10),
    micro_batch=choose(smoke=96, cpu=96, gpu=4),
)

# %%
prompt = "a red circle left of a blue square"
group = policy.rollout([prompt] * 12, seeds=torch.arange(12))
rewards = shapes_dense()(group.samples, group.prompts)
viz.sample_sheet(
    group.samples,
    [f"reward {value:.2f}" for value in rewards],
    columns=6,
    accepted=shapes_strict()(group.samples, group.prompts).bool().tolist(),
    alt=f"Twelve attempts at '{prompt}', with rewards from {rewards.min():.2f} to {rewards.max():.2f}.",
)

# %% [markdown]
# The reward comes from a verifier that looks for objects and compares them with the prompt: 1 where all is right, less
# for each fault. It has no gradient. That is why we need reinforcement learning.

# %% [markdown] goal="12.1"
# Is a reward of 0.7 good? It depends on the prompt: for *four yellow triangles* it is a feat, for *a red circle* a
# failure. PPO trains a second network to know what to expect. GRPO asks the other attempts at the same prompt:
#
# $$A_i = \frac{r_i - \operatorname{mean}(r_{\text{group}})}{\operatorname{std}(r_{\text{group}}) + 10^{-4}}$$
#
# with the population standard deviation (divide by $n$). `groups` tells which samples belong together.


# %% exercise={"id": "12.1", "name": "group_advantages", "title": "Group-relative advantages", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def group_advantages(rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """How much better each sample is than the other samples of its group, in standard deviations of the group."""
    ### BEGIN SOLUTION
    advantages = torch.zeros_like(rewards)
    for group in groups.unique():
        mine = rewards[groups == group]
        advantages[groups == group] = (mine - mine.mean()) / (mine.std(correction=0) + 1e-4)
    return advantages
    ### END SOLUTION


# %% [markdown] hints="12.1"
# <details><summary>Hint 1: what to compare with what</summary>
#
# Go through the different values in `groups`. A mask such as `groups == 7` picks the members of one group.
#
# </details>
# <details><summary>Hint 2: which deviation</summary>
#
# `Tensor.std` divides by n - 1 unless told otherwise; look for its `correction` argument.
#
# </details>
# <details><summary>Hint 3: putting it together</summary>
#
# Begin with a tensor of zeros like `rewards`, and fill it group after group: take away the mean of the group, divide by
# its deviation plus a small number. Do not write into `rewards` itself.
#
# </details>

# %% check="12.1"
check("12.1", group_advantages)

# %% [markdown]
# What it does to the group above: the advantages say which attempts to repeat and which to avoid.

# %%
advantages = group_advantages(rewards, torch.zeros(12, dtype=torch.long))
order = advantages.argsort(descending=True)
viz.sample_sheet(
    group.samples[order],
    [f"advantage {value:+.1f}" for value in advantages[order]],
    columns=6,
    alt="The same twelve attempts sorted from the highest advantage to the lowest.",
)

# %% [markdown] goal="12.2"
# A step draws the next latent from a Gaussian, $x' \sim \mathcal N(\mu, \sigma^2)$. Its log-density, averaged over the
# dimensions $d$ of the latent, is
#
# $$\log p = \frac1d \sum_j \Big[ -\frac{(x'_j - \mu_j)^2}{2\sigma^2} - \log \sigma - \tfrac12 \log 2\pi \Big].$$
#
# The public code of this field takes the mean, not the sum; what that does to the clip range is in chapter 12. `x` and
# `mean` are `[batch, ...]`, `std` is one number in a tensor. Return one value a sample.


# %% exercise={"id": "12.2", "name": "step_log_prob", "title": "The log-probability of a step", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def step_log_prob(
    x: Float[Tensor, "batch ..."], mean: Float[Tensor, "batch ..."], std: Float[Tensor, ""]
) -> Float[Tensor, "batch"]:
    """The Gaussian log-density of x, averaged over all dimensions but the first."""
    ### BEGIN SOLUTION
    terms = -((x - mean) ** 2) / (2 * std**2) - torch.log(std) - 0.5 * np.log(2 * np.pi)
    return terms.flatten(1).mean(dim=1)
    ### END SOLUTION


# %% [markdown] hints="12.2"
# <details><summary>Hint 1: three terms</summary>
#
# The squared gap, the logarithm of the deviation, and a constant. All three are there for every dimension.
#
# </details>
# <details><summary>Hint 2: which dimensions</summary>
#
# Dimension 0 counts the samples and stays. Everything behind it is averaged: `flatten(1)` lays it out in one row.
#
# </details>
# <details><summary>Hint 3: gradients</summary>
#
# `mean` carries the gradient of the network. Do not detach it, and do not turn anything into a Python number.
#
# </details>

# %% check="12.2"
check("12.2", step_log_prob)

# %% [markdown]
# Now the test that matters most in practice. Replay the group through the same weights, with *your* log-probability:
# before any update the ratio of new to old probability must be **exactly** 1. If it is only nearly 1, you would train
# on rounding errors.

# %%
yours = replace(policy, log_prob_of=step_log_prob, micro_batch=12)  # one batch, as in the replay below
replayed = yours.rollout([prompt] * 12, seeds=torch.arange(12))
with torch.no_grad():
    ratios = torch.stack([(yours.log_prob(replayed, t) - replayed.log_prob_at(t)).exp() for t in yours.noisy_steps()])
print("smallest and largest ratio:", ratios.min().item(), ratios.max().item())
assert (ratios == 1).all()

# %% [markdown] goal="12.3"
# The ratio $\rho = \exp(\log p_{\text{new}} - \log p_{\text{old}})$ says how much likelier the new policy makes a step.
# We want it up where the advantage $A$ is positive, down where it is negative, and never far in one go. PPO's answer:
#
# $$L = \operatorname{mean} \; \max\big(-A\rho,\; -A \operatorname{clip}(\rho, 1-c, 1+c)\big)$$
#
# The maximum of two *losses* is the pessimist's choice: moving further is never rewarded, moving back always is. It is
# the same function that balances the pole in lab 04.


# %% exercise={"id": "12.3", "name": "clipped_objective", "title": "The clipped objective", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def clipped_objective(
    log_probs: Float[Tensor, "batch"],
    old_log_probs: Float[Tensor, "batch"],
    advantages: Float[Tensor, "batch"],
    clip_range: float,
) -> Float[Tensor, ""]:
    """PPO's clipped objective as a loss: one number to descend."""
    ### BEGIN SOLUTION
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped).mean()
    ### END SOLUTION


# %% [markdown] hints="12.3"
# <details><summary>Hint 1: from logarithms to the ratio</summary>
#
# A difference of logarithms is the logarithm of a quotient. Undo the logarithm.
#
# </details>
# <details><summary>Hint 2: clipping</summary>
#
# `Tensor.clamp` takes a lower and an upper bound. Keep the free ratio too: you need both.
#
# </details>
# <details><summary>Hint 3: maximum or minimum</summary>
#
# The paper climbs an objective and takes the minimum. You descend a loss, the sign is turned, and so is the choice.
# Choose sample by sample, then average.
#
# </details>

# %% check="12.3"
check("12.3", clipped_objective)

# %% [markdown]
# Look at it: where the curve is flat, the gradient is gone. A good sample stops pushing once it is likely enough; a bad
# one stops once it is unlikely enough. On the other side the way back stays open.

# %%
log_ratio = torch.linspace(-0.5, 0.5, 101)


def loss_at(gain: float) -> list[float]:
    one = torch.tensor([gain])
    return [clipped_objective(x[None], torch.zeros(1), one, 0.2).item() for x in log_ratio]


viz.curves(
    {f"advantage {gain:+.0f}": (log_ratio.exp().tolist(), loss_at(gain)) for gain in (1.0, -1.0)},
    xlabel="ratio of new to old probability",
    ylabel="loss",
    alt="The clipped loss against the ratio. For a positive advantage it falls and is flat beyond 1.2; for a negative "
    "one it is flat below 0.8 and rises after.",
)

# %% [markdown] goal="12.4"
# A policy that only chases its reward forgets how to draw. A leash holds it near the base: at every step, the KL
# divergence between the step it takes and the step the base would take. Both are Gaussians with the *same* standard
# deviation, so the divergence is exact and short, again averaged over the dimensions:
#
# $$\mathrm{KL} = \frac1d \sum_j \frac{(\mu_j - \mu^{\text{ref}}_j)^2}{2\sigma^2}$$


# %% exercise={"id": "12.4", "name": "step_kl", "title": "The leash: KL to the base", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def step_kl(
    mean: Float[Tensor, "batch ..."], mean_ref: Float[Tensor, "batch ..."], std: Float[Tensor, ""]
) -> Float[Tensor, "batch"]:
    """KL between two Gaussian steps of equal spread, averaged over all dimensions but the first."""
    ### BEGIN SOLUTION
    gaps = (mean - mean_ref) ** 2 / (2 * std**2)
    return gaps.flatten(1).mean(dim=1)
    ### END SOLUTION


# %% [markdown] hints="12.4"
# <details><summary>Hint 1: where the formula comes from</summary>
#
# Write down the two log-densities of exercise 12.2, subtract, and take the expectation under the first Gaussian.
#
# </details>
# <details><summary>Hint 2: what stays</summary>
#
# With equal deviations the logarithms and constants cancel. Only the gap between the means is left.
#
# </details>
# <details><summary>Hint 3: units</summary>
#
# The gap is measured in units of the noise: square it, divide by twice the variance, average as in 12.2.
#
# </details>

# %% check="12.4"
check("12.4", step_kl)

# %% [markdown] goal="12.5"
# Every trained step costs a forward and a backward pass, and neighbouring steps teach much the same. So we draw a few
# of the steps of each trajectory. `available` lists the steps that have a density; `rng` is a NumPy generator, so that
# a run can be repeated. Return `count` different steps in the order of sampling, all of them if there are fewer.
#
# This one function is what sets a relative apart: MixGRPO draws noise in a window of neighbouring steps only, and
# trains those.


# %% exercise={"id": "12.5", "name": "choose_steps", "title": "Which steps to train", "points": 2, "minutes": 7, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def choose_steps(available: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` different steps of those available, each with the same chance, sorted."""
    ### BEGIN SOLUTION
    chosen = rng.choice(available, size=min(count, len(available)), replace=False)
    return sorted(int(step) for step in chosen)
    ### END SOLUTION


# %% [markdown] hints="12.5"
# <details><summary>Hint 1: who draws</summary>
#
# `rng.choice` draws from a list. Nothing else may decide, or the run cannot be repeated.
#
# </details>
# <details><summary>Hint 2: no step twice</summary>
#
# Look for the argument of `rng.choice` that keeps it from drawing the same element again.
#
# </details>
# <details><summary>Hint 3: the edges</summary>
#
# Asked for ten steps of six, give all six. Sort at the end, and return plain Python integers.
#
# </details>

# %% check="12.5"
check("12.5", choose_steps)

# %% [markdown]
# ## 3. Train it
#
# Everything is in place, and everything that is mathematics is yours: your advantages, your log-probability, your
# objective, your leash, your choice of steps. `Loop` brings the optimiser, the averaging of weights and the progress
# bar, and would do the same for CartPole. First the settings: so many prompts, so many attempts at each.

# %%
settings = GRPOConfig(
    prompts_per_iteration=choose(smoke=2, cpu=16, gpu=8),
    group_size=choose(smoke=4, cpu=12, gpu=24),
    trained_steps=4,
    minibatches=2,
    clip_range=choose(smoke=2e-3, cpu=2e-3, gpu=1e-4),
    kl_weight=choose(smoke=0.02, cpu=0.02, gpu=0.04),
    seed=seed(),
)
loop_settings = LoopConfig(
    iterations=choose(smoke=2, cpu=100, gpu=200),
    learning_rate=choose(smoke=5e-4, cpu=5e-4, gpu=3e-4),
    warmup_iterations=4,
    cooldown_iterations=choose(smoke=0, cpu=80, gpu=150),
    name="GRPO",
)

# %%
student = base.student()
student_policy = replace(policy, generator=student, log_prob_of=step_log_prob)
algorithm = GRPO(
    student_policy,
    shapes_dense(),
    shapes.draw_prompts,
    settings,
    advantages_of=group_advantages,
    objective=clipped_objective,
    kl_of=step_kl,
    choose_steps=choose_steps,
)
loop = Loop(algorithm, loop_settings)

# %%
EVERY = choose(smoke=1, cpu=10, gpu=10)


def watch(loop: Loop, metrics: dict[str, float]) -> None:
    """Now and then, look at the averaged weights with the strict verifier, on prompts kept for that."""
    if loop.iteration % EVERY == 0:
        with loop.averaged_weights():
            metrics |= evaluate(student, "validation", per_kind=choose(smoke=1, cpu=64, gpu=16))


with timer() as training:
    history = loop.run([watch])
print(f"{training.seconds:.0f} s, {training.cpu_seconds:.0f} CPU s for {len(history)} iterations")

# %% [markdown]
# ## 4. What has changed
#
# First the curves. The reward is what you trained on: the dense score of noisy samples. The accuracy is the strict
# verdict, all or nothing, on pictures that the plain ODE draws for other prompts and seeds.

# %%
seen = [row for row in history if "accuracy" in row]
viz.curves(
    {
        "reward (dense)": ([row["iteration"] for row in history], [row["reward"] for row in history]),
        "accuracy (strict)": ([row["iteration"] for row in seen], [row["accuracy"] for row in seen]),
    },
    levels={"base": before_scores["test"]["accuracy"], "base, best of 4": best[4]},
    xlabel="iteration",
    ylabel="share",
    alt=f"Reward from {history[0]['reward']:.2f} to {history[-1]['reward']:.2f} and strict accuracy to "
    f"{seen[-1]['accuracy']:.2f} over {len(history)} iterations, beside the base and its best of four.",
)

# %% [markdown]
# Then the pictures: the same prompts and the same noise as at the start. Only the weights differ.

# %%
with loop.averaged_weights():
    after = student.generate(sheet_prompts, sheet_seeds)
    after_scores = {split: evaluate(student, split, per_kind=PER_KIND) for split in ("test", "held-out")}
accepted = [verdict.strict for verdict in shapes.verify(after.cpu().numpy(), sheet_prompts)]
viz.sample_sheet(
    after,
    sheet_prompts,
    accepted=accepted,
    alt=f"After training, the same prompts and seeds: {sum(accepted)} of 32 pictures match their prompts.",
)

# %% [markdown]
# Then the numbers, kind by kind, with what could have gone wrong beside them. **Diversity** is how differently the
# accepted pictures of one prompt place and size their objects; a model that always draws the same picture has none.
# **KL** is the distance travelled from the base in nats, along whole trajectories. **Held-out** prompts were never
# trained on.

# %%
with loop.averaged_weights(), torch.no_grad():
    texts = list(shapes.trained_prompts("relation")[:24])
    kl = trajectory_kl(student_policy, policy, texts, torch.arange(len(texts))).mean().item()
rows = {f"{kind}": f"accuracy_{kind}" for kind in shapes.KINDS} | {"**all**": "accuracy", "diversity": "diversity"}
old, new = before_scores["test"], after_scores["test"]
lines = [f"| {label} | {old[key]:.3f} | {new[key]:.3f} |" for label, key in rows.items()]
held = (before_scores["held-out"]["accuracy"], after_scores["held-out"]["accuracy"])
lines += [f"| held-out prompts | {held[0]:.3f} | {held[1]:.3f} |", f"| KL to the base | 0 | {kl:.1f} nats |"]
lines += [f"| *base, best of {count}* | *{accuracy:.3f}* | |" for count, accuracy in best.items()]
Markdown("\n".join(["| | before | after |", "|---|---|---|", *lines]))

# %% [markdown]
# Be fair to the baseline. Drawing several pictures and keeping the best buys a lot, without training, but it asks for
# the verifier and pays the price at *every* picture. Training pays once.

# %% [markdown]
# ## 5. The long run
#
# A few minutes show the direction. The recorded long run shows where it leads: the same functions, more iterations.
# Its log and its weights (the difference to the base, in half precision) come with the course; they are of the small
# model under `gpu` too.

# %%
long = recorded.records("12-grpo-long")
runs = {f"seed {run['seed']}": recorded.history("12-grpo-long", run["seed"]) for run in long}
measured = {name: [row for row in log if "accuracy" in row] for name, log in runs.items()}
levels = {"base": old["accuracy"], "base, best of 12": best[12]}
if real_model():
    levels = {"small base": long[0]["metrics"]["accuracy"]["before"]}
viz.curves(
    {name: ([row["iteration"] for row in log], [row["accuracy"] for row in log]) for name, log in measured.items()},
    levels=levels,
    xlabel="iteration",
    ylabel="strict accuracy (validation)",
    alt="Strict accuracy of the recorded long runs over their iterations, one line a seed, all well above the base.",
)

# %%
for run in long:
    accuracy, spread = run["metrics"]["accuracy"], run["metrics"]["diversity"]
    print(
        f"seed {run['seed']}: {run['seconds'] / 60:.0f} minutes, accuracy {accuracy['before']:.3f} -> "
        f"{accuracy['after']:.3f}, diversity {spread['before']:.3f} -> {spread['after']:.3f}"
    )
tuned = recorded.apply("12-grpo-long", long[0]["seed"], load("shapes").to(device))
final = tuned.generate(sheet_prompts, sheet_seeds)
accepted = [verdict.strict for verdict in shapes.verify(final.cpu().numpy(), sheet_prompts)]
viz.sample_sheet(
    final,
    sheet_prompts,
    accepted=accepted,
    alt=f"The long run's pictures for the same prompts and seeds: {sum(accepted)} of 32 match.",
)

# %% [markdown]
# ## 6. Clinic
#
# **"My ratio is always 1. Is it learning?"** Yes. The first optimiser step after a rollout *is* on-policy: new and old
# policy are the same, every ratio is 1, and nothing is clipped. But the gradient of a ratio of 1 is not 0. It is
# $-A\,\nabla\!\log p$, plain REINFORCE with your advantages:

# %%
new_log_probs = replayed.log_prob_at(0).clone().requires_grad_()
loss = clipped_objective(new_log_probs, replayed.log_prob_at(0), advantages, 0.2)
(gradient,) = torch.autograd.grad(loss, new_log_probs)
print("loss:", round(loss.item(), 6), " largest gradient:", round(gradient.abs().max().item(), 4))
assert torch.allclose(gradient, -advantages / len(advantages), atol=1e-6)

# %% [markdown]
# The loss is about 0, because advantages add up to 0, and it will stay about 0. Do not look at the loss; look at the
# reward, and at the pictures.
#
# **"My reward rises and my pictures die."** Then your reward is not what you wanted. Here is the shortest way to ruin:
# ask for small JPEG files, take away the leash, and wait a minute.

# %%
victim = base.student()
greedy = replace(settings, kl_weight=0.0)
hack = GRPO(replace(policy, generator=victim), jpeg_compressibility(), shapes.draw_prompts, greedy)
hack_loop = Loop(hack, LoopConfig(iterations=choose(smoke=2, cpu=20, gpu=60), learning_rate=1e-3, name="small files"))
hacked = hack_loop.run()
with hack_loop.averaged_weights():
    ruined = victim.generate(sheet_prompts[:16], sheet_seeds[:16])
    ruin = evaluate(victim, "validation", per_kind=choose(smoke=1, cpu=32, gpu=64))["accuracy"]
print(f"JPEG size {-hacked[0]['reward']:.3f} -> {-hacked[-1]['reward']:.3f} kB, accuracy now {ruin:.2f}")

# %%
viz.sample_sheet(
    ruined,
    sheet_prompts[:16],
    alt="Sixteen pictures of the model trained for small files: objects are missing, faded or gone.",
)

# %% [markdown]
# The smallest file is an empty picture, and the optimiser found it. No metric that was *trained on* could have told
# you. That is why an independent check and diversity stand beside the reward in every table of this course.
#
# ## What to take away
#
# - Five short functions turn a sampler into a policy that learns from a verdict.
# - They do not know that they draw. In lab 04 the same objective balances a pole.
# - Ratio 1, loss 0: healthy. Rising reward: not yet. Look, and check with something that was not trained on.
#
# The cell below writes down what happened here.


# %%
def change(key: str, split: str = "test") -> dict[str, float]:
    """A score before and after; where no two accepted pictures share a prompt there is no diversity: 0."""
    scores = {"before": before_scores[split][key], "after": after_scores[split][key]}
    return {when: 0.0 if np.isnan(value) else value for when, value in scores.items()}


record = write_record(
    "12-grpo",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "accuracy": change("accuracy"),
        "accuracy_held_out": change("accuracy", "held-out"),
        **{f"accuracy_{kind}": change(f"accuracy_{kind}") for kind in shapes.KINDS},
        "diversity": change("diversity"),
        "kl_nats": {"before": 0.0, "after": kl},
        "best_of_n": {str(count): accuracy for count, accuracy in best.items()},
        "training_seconds": training.seconds,
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/12.json")
