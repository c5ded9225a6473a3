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
# # Lab 13: the forward process, and search
#
# Lab 12 raised the probability of steps. For that it needed a sampler with noise, the density of every step, and the
# whole way from noise to picture in memory. This lab throws all three away, and trains several times as fast.
#
# Then it throws training away too. If you may spend more on each picture, you can **search**: draw several, steer them
# on the way, or climb from the noise. At the end you will know from how many pictures on training is the cheaper one.
#
# You need labs 06 and 12, and chapter 13. Eight exercises, about 75 minutes; the training takes two minutes of
# processor time. Leave whenever you like: your answers and points are kept.

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
# | as DiffusionNFT published for this model | 10 steps of the ODE, no guidance, KL 1e-4; learning rate 3e-4 |
# | reward of the noise's climb | the small proxy, on pictures averaged down to 32 x 32 |
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
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.finetune import (
    AWM,
    DiffusionNFT,
    ForwardProcessConfig,
    Loop,
    LoopConfig,
    draw_pool,
    optimise_noise,
    steer,
)
from pixelpolicy.finetune.noising import noised
from pixelpolicy.finetune.search import amortised, worth_training
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import sd3
from pixelpolicy.policies import DenoisingPolicy, cps, ode
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import learned_proxy, shapes_dense, shapes_strict
from pixelpolicy.rl import Reward, group_advantages
from pixelpolicy.worlds import shapes

# %% [markdown]
# ## 1. The base, and what it is measured by
#
# The same base as in lab 12, the same prompts, the same verifier: what you reach here can be compared.

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
sheet_prompts, sheet_seeds = shapes.evaluation_pairs("test", per_kind=6)


def sheet(pictures: Tensor, whose: str) -> viz.Picture:
    """Pictures of the sheet's prompts, framed by the strict verdict."""
    accepted = [verdict.strict for verdict in shapes.verify(pictures.cpu().numpy(), sheet_prompts)]
    alt = f"{whose}: {sum(accepted)} of {len(accepted)} pictures match their prompts and have a solid green frame."
    return viz.sample_sheet(pictures, sheet_prompts, accepted=accepted, alt=alt)


sheet(base.generate(sheet_prompts, sheet_seeds), "The untouched base")

# %%
PER_KIND = choose(smoke=2, cpu=256, gpu=256)
before_scores = {split: evaluate(base, split, per_kind=PER_KIND) for split in ("test", "held-out")}
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=32, gpu=16))
for count, accuracy in best.items():
    print(f"best of {count:2d} pictures: {accuracy:.2f}")
print(f"accuracy of the base, trained prompts: {before_scores['test']['accuracy']:.3f}")

# %% [markdown]
# ## 2. Learning without the way
#
# How did the base learn to draw? Nobody showed it a way from noise to picture. It was shown *finished* pictures. Each
# was mixed with noise, $x_\sigma = (1-\sigma)\,x_0 + \sigma\,x_1$, which takes one line and no network. That is the
# **forward process**. The network had to tell the velocity $x_1 - x_0$ from the mixture.
#
# Reinforcement learning can do the same with the model's *own* pictures: draw, judge, mix with fresh noise, and pull
# the velocity towards the good ones and away from the bad. What must be kept of a rollout is then its last state.

# %%
policy = DenoisingPolicy(base, ode, steps=choose(smoke=6, cpu=6, gpu=10), micro_batch=choose(smoke=96, cpu=96, gpu=4))
prompt = "a red circle left of a blue square"
group = policy.rollout([prompt] * 12, seeds=torch.arange(12))
rewards = shapes_dense()(group.samples, group.prompts)
advantages = group_advantages(rewards, torch.zeros(12, dtype=torch.long))
print(f"the way: {group.states[0].numel():,} numbers a picture; its end: {group.states[0, -1].numel():,}")
print("steps with a density:", int(group.stochastic.sum()), "of", policy.steps)

# %% [markdown]
# No step has a density: the sampler is the ODE. Lab 12's method has nothing to raise here.
#
# **DiffusionNFT** begins with a question: is this picture good? The answer is a degree $r$ between 0 and 1. It comes
# from the advantage $A$, which compares a picture with its siblings as in lab 12.

# %% [markdown] goal="13.1"
# Turn advantages into degrees of goodness:
#
# $$r = \tfrac12 + \tfrac12 \operatorname{clip}\!\big(A / c,\; -1,\; 1\big)$$
#
# An average picture gets one half. `advantages` is `[batch]`, `clip` is the number $c$.


# %% exercise={"id": "13.1", "name": "optimality", "title": "How good is good", "points": 1, "minutes": 4, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def optimality(advantages: Float[Tensor, "batch"], clip: float) -> Float[Tensor, "batch"]:
    """The degree, from 0 to 1, to which each sample is good."""
    ### BEGIN SOLUTION
    return (advantages / clip).clamp(-1, 1) / 2 + 0.5
    ### END SOLUTION


# %% [markdown] hints="13.1"
# <details><summary>Hint 1: the order</summary>
#
# First divide, then clip, then halve and shift.
#
# </details>
# <details><summary>Hint 2: clipping</summary>
#
# `Tensor.clamp(-1, 1)` returns a new tensor. `clamp_` with an underscore would write into the one you were given.
#
# </details>
# <details><summary>Hint 3: try it by hand</summary>
#
# With $c = 5$: an advantage of 0 gives 0.5, one of 5 gives 1, one of 30 gives 1 too, one of -5 gives 0.
#
# </details>

# %% check="13.1"
check("13.1", optimality)

# %%
order = advantages.argsort(descending=True)
viz.sample_sheet(
    group.samples[order],
    [f"good to {value:.2f}" for value in optimality(advantages, 5.0)[order]],
    columns=6,
    accepted=shapes_strict()(group.samples[order], group.prompts).bool().tolist(),
    alt="Twelve attempts at one prompt, from the best degree of goodness to the worst; all lie not far from one half.",
)

# %% [markdown] goal="13.2"
# Now imagine two models: one that draws only good pictures, one that draws only bad ones. Today's model, the **old**
# one, is a mixture of both. So whatever direction leads from the old velocity to the good one, the opposite direction
# leads to the bad one. NFT therefore trains *one* network $v$ and reads two velocities from it, mirrored at the old:
#
# $$v^+ = \beta v + (1-\beta)\,v^{\text{old}}, \qquad v^- = (1+\beta)\,v^{\text{old}} - \beta v$$
#
# Return both. The old velocity is a fact: no gradient may reach it.


# %% exercise={"id": "13.2", "name": "implicit_velocities", "title": "Two velocities from one", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def implicit_velocities(
    velocity: Float[Tensor, "batch ..."], old: Float[Tensor, "batch ..."], beta: float
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """The positive and the negative velocity, in this order."""
    ### BEGIN SOLUTION
    old = old.detach()
    return beta * velocity + (1 - beta) * old, (1 + beta) * old - beta * velocity
    ### END SOLUTION


# %% [markdown] hints="13.2"
# <details><summary>Hint 1: where they lie</summary>
#
# Both are $v^{\text{old}} \pm \beta\,(v - v^{\text{old}})$. Half way between them is the old one.
#
# </details>
# <details><summary>Hint 2: what moves</summary>
#
# `velocity` carries the gradient of the network. `old.detach()` has the same values and none.
#
# </details>
# <details><summary>Hint 3: a test</summary>
#
# In each of the two, the weights of `velocity` and `old` add up to 1.
#
# </details>

# %% check="13.2"
check("13.2", implicit_velocities)

# %%
where = {"old": torch.tensor([[1.0, 0.4]]), "trained": torch.tensor([[1.4, 1.0]])}
positive, negative = implicit_velocities(where["trained"], where["old"], 0.5)
figure = Figure(figsize=(4.6, 3.2), layout="constrained")
axis = figure.subplots()
for (name, arrow), colour in zip(
    (where | {"positive": positive, "negative": negative}).items(),
    ("#777777", "#0072B2", "#009E73", "#D55E00"),
    strict=True,
):
    axis.annotate("", arrow[0].tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
    axis.text(*(1.03 * arrow[0]).tolist(), name, color=colour)
axis.set(xlim=(0, 1.8), ylim=(-0.1, 1.2), xticks=[], yticks=[])
viz.picture(
    figure,
    alt="Four arrows from one point: the old velocity in the middle, the trained one above it, the positive half way "
    "between the two, and the negative mirrored below the old.",
)

# %% [markdown] goal="13.3"
# Each velocity points at a picture, $\hat x_0 = x_\sigma - \sigma v$. The positive one should find the picture if it
# is good, the negative one if it is bad. How far a guess misses is a squared error, divided by its own size so that no
# noise level shouts:
#
# $$e(v) = \frac{\operatorname{mean}_j (\hat x_0 - x_0)_j^2}{\max\big(\operatorname{mean}_j |\hat x_0 - x_0|_j,\;
# 10^{-5}\big)}, \qquad L = \frac1\beta \operatorname{mean}\big[\, r\,e(v^+) + (1-r)\,e(v^-) \big]$$
#
# The means over $j$ are those of one sample. The denominator is a plain number to the gradient. `state` is $x_\sigma$,
# `sigma` and `good` ($r$) are `[batch]`.


# %% exercise={"id": "13.3", "name": "nft_loss", "title": "NFT's loss", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def nft_loss(
    positive: Float[Tensor, "batch ..."],
    negative: Float[Tensor, "batch ..."],
    state: Float[Tensor, "batch ..."],
    x0: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, "batch"],
    good: Float[Tensor, "batch"],
    beta: float,
) -> Float[Tensor, ""]:
    """Both velocities must find the picture, each to its degree: one number to descend."""
    ### BEGIN SOLUTION
    level = sigma.reshape(-1, *[1] * (x0.ndim - 1))

    def error(velocity: Tensor) -> Tensor:
        miss = (state - level * velocity - x0).flatten(1)
        return miss.square().mean(1) / miss.detach().abs().mean(1).clamp_min(1e-5)

    return (good * error(positive) + (1 - good) * error(negative)).mean() / beta
    ### END SOLUTION


# %% [markdown] hints="13.3"
# <details><summary>Hint 1: one number a sample against many</summary>
#
# `sigma` is `[batch]`, the state `[batch, ...]`. Reshape it to `[batch, 1, 1, ...]`: as many ones as `x0` has further
# dimensions.
#
# </details>
# <details><summary>Hint 2: an inner function</summary>
#
# Both velocities need the same error. Write it once, for a velocity; `flatten(1)` lays out a sample's numbers in a row.
#
# </details>
# <details><summary>Hint 3: the size</summary>
#
# `miss.detach().abs().mean(1).clamp_min(1e-5)`. Without `detach` the values stay right and the gradients do not.
#
# </details>

# %% check="13.3"
check("13.3", nft_loss)

# %% [markdown]
# Put together, your three functions are the loss as the library knows it. It multiplies by 5, the clip, as the
# published code does, and so do we.

# %%
BETA, CLIP = 1.0, 5.0


def forward_loss(velocity, old, x0, x1, sigma, advantages):
    """DiffusionNFT, of your three pieces."""
    good = optimality(advantages, CLIP)
    positive, negative = implicit_velocities(velocity, old, BETA)
    return CLIP * nft_loss(positive, negative, noised(x0, x1, sigma), x0, sigma, good, BETA)


# %% [markdown]
# Where does the reward come in, if $v = v^{\text{old}}$ at first, and both guesses are the same? Look at the gradient.
# For one sample it is $r$ times a pull minus $(1-r)$ times the same pull. An average sample cancels out:

# %%
x0, x1 = group.states[:1, -1].float().expand(3, -1, -1, -1), torch.randn(3, *group.states.shape[2:])
now = torch.zeros_like(x1).requires_grad_()
loss = forward_loss(now, now.detach(), x0, x1, torch.full((3,), 0.5), torch.tensor([2.0, 0.0, -2.0]))
(gradient,) = torch.autograd.grad(loss, now)
along = (gradient * (x1 - x0)).flatten(1).sum(1)
print("step against the gradient, along the way to the picture:", [round(-value, 3) for value in along.tolist()])
assert along[0] < 0 < along[2] and along[1].abs() < 1e-4

# %% [markdown]
# ## 3. Train it
#
# Two more things belong to the method. The **old policy** draws the pictures, and follows the trained one slowly: after
# each iteration it moves `1 - old_decay` of the way. And there is a **brake**, `kl_weight` times the squared distance
# between the trained velocity and the base's. Section 5 shows what happens without it.

# %%
settings = ForwardProcessConfig(
    prompts_per_iteration=choose(smoke=2, cpu=16, gpu=8),
    group_size=choose(smoke=4, cpu=12, gpu=24),
    minibatches=2,
    noise_draws=2,
    old_decay=0.5,
    kl_weight=choose(smoke=0.1, cpu=0.1, gpu=1e-4),
    seed=seed(),
)
loop_settings = LoopConfig(
    iterations=choose(smoke=2, cpu=50, gpu=200),
    learning_rate=choose(smoke=1e-3, cpu=1e-3, gpu=3e-4),
    warmup_iterations=choose(smoke=0, cpu=4, gpu=4),
    cooldown_iterations=choose(smoke=0, cpu=40, gpu=100),
    name="NFT",
)

# %%
student = base.student()
student_policy = replace(policy, generator=student)
algorithm = DiffusionNFT(student_policy, shapes_dense(), shapes.draw_prompts, settings, loss_of=forward_loss)
loop = Loop(algorithm, loop_settings)
EVERY = choose(smoke=1, cpu=10, gpu=20)


def watch(loop: Loop, metrics: dict[str, float]) -> None:
    """Now and then, look at the averaged weights with the strict verifier, on prompts kept for that."""
    if loop.iteration % EVERY == 0:
        with loop.averaged_weights():
            metrics |= evaluate(loop.algorithm.policy.generator, "validation", per_kind=choose(smoke=1, cpu=64, gpu=16))


with timer() as training:
    history = loop.run([watch])

# %%
spent = sum(row["cpu_seconds"] for row in history)
print(f"{training.seconds:.0f} s; {spent:.0f} CPU s of training for {len(history)} iterations")
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

# %%
loop.ema.copy_to(loop.parameters)  # from here on the student has its averaged weights
after_scores = {split: evaluate(student, split, per_kind=PER_KIND) for split in ("test", "held-out")}
sheet(student.generate(sheet_prompts, sheet_seeds), "After training, the same prompts and noise")

# %%
old, new = before_scores["test"], after_scores["test"]
rows = {f"{kind}": f"accuracy_{kind}" for kind in shapes.KINDS} | {"**all**": "accuracy", "diversity": "diversity"}
lines = [f"| {label} | {old[key]:.3f} | {new[key]:.3f} |" for label, key in rows.items()]
held = (before_scores["held-out"]["accuracy"], after_scores["held-out"]["accuracy"])
lines += [f"| held-out prompts | {held[0]:.3f} | {held[1]:.3f} |"]
lines += [f"| *base, best of {count}* | *{accuracy:.3f}* | |" for count, accuracy in best.items()]
Markdown("\n".join(["| | before | after |", "|---|---|---|", *lines]))

# %% [markdown]
# ### Against GRPO
#
# The recorded long runs of lab 12 are on the same base, prompts and validation pairs. How much processor time does each
# need until the strict verifier accepts a quarter more than of the base?

# %%
goal = old["accuracy"] + 0.25


def time_to_goal(log: list[dict[str, float]]) -> str:
    """CPU seconds of training until a look at the validation set finds the goal reached."""
    reached = [row["iteration"] for row in log if row.get("accuracy", 0) >= goal]
    taken = sum(row["cpu_seconds"] for row in log if reached and row["iteration"] <= reached[0])
    return f"{taken:.0f} CPU s ({reached[0]} iterations)" if reached else "not reached"


for run in recorded.records("12-grpo-long"):
    print(f"GRPO, recorded, seed {run['seed']}: {time_to_goal(recorded.history('12-grpo-long', run['seed']))}")
print(f"NFT, here: {time_to_goal(history)}; accuracy {new['accuracy'] - old['accuracy']:+.3f} in {spent:.0f} CPU s")

# %% [markdown]
# ## 4. Any sampler may draw
#
# The loss sees finished pictures and fresh noise. It does not know who drew them. So the sampler is free: a stochastic
# one, one of three steps, tomorrow's. Each row below trains from the base for a few iterations with another sampler,
# and is measured by the same ten steps of the ODE.

# %%
SHORT = choose(smoke=1, cpu=8, gpu=20)
samplers = {"ODE, 6 steps": (ode, 6), "ODE, 3 steps": (ode, 3), "CPS, 6 steps": (partial(cps, noise=0.5), 6)}


def short_run(kind: type, sampler: tuple, loss, brake: float = 0.0) -> dict[str, float]:
    """Train a fresh student for a few iterations; what the validation set says."""
    pupil = replace(policy, generator=base.student(), transition=sampler[0], steps=sampler[1])
    config = replace(settings, kl_weight=brake or settings.kl_weight)
    learner = kind(pupil, shapes_dense(), shapes.draw_prompts, config, loss_of=loss)
    short = Loop(learner, LoopConfig(SHORT, loop_settings.learning_rate, progress=False))
    short.run()
    with short.averaged_weights():
        return evaluate(pupil.generator, "validation", per_kind=choose(smoke=1, cpu=64, gpu=16))


drawn_by = {name: short_run(DiffusionNFT, how, forward_loss) for name, how in samplers.items()}
for name, scores in drawn_by.items():
    print(f"{name}: accuracy {scores['accuracy']:.3f} after {SHORT} iterations")

# %% [markdown] goal="13.4"
# **AWM**, advantage-weighted matching, is simpler still. Take the loss of pretraining, the squared distance between the
# velocity and $x_1 - x_0$, and weigh each sample by its advantage:
#
# $$L = \operatorname{mean}_i \; A_i \operatorname{mean}_j \big(v - (x_1 - x_0)\big)_{ij}^2$$
#
# A good sample pulls, a bad one *pushes*: its error shall grow. `advantages` is `[batch]`, all else `[batch, ...]`.


# %% exercise={"id": "13.4", "name": "awm_loss", "title": "Advantage-weighted matching", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def awm_loss(
    velocity: Float[Tensor, "batch ..."],
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    advantages: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """The flow-matching error of own samples, each weighed by its advantage."""
    ### BEGIN SOLUTION
    errors = (velocity - (x1 - x0)).square().flatten(1).mean(1)
    return (advantages * errors).mean()
    ### END SOLUTION


# %% [markdown] hints="13.4"
# <details><summary>Hint 1: two means</summary>
#
# First one error a sample, over its own numbers; then the weighed mean over samples.
#
# </details>
# <details><summary>Hint 2: the target</summary>
#
# The velocity points from the picture to the noise.
#
# </details>
# <details><summary>Hint 3: bad samples</summary>
#
# Leave the advantage as it is. Its sign is what makes a bad sample push.
#
# </details>

# %% check="13.4"
check("13.4", awm_loss)

# %%
matched = short_run(
    AWM, samplers["ODE, 6 steps"], lambda v, old, x0, x1, sigma, a: awm_loss(v, x0, x1, a), 5 * settings.kl_weight
)
print(f"AWM: accuracy {matched['accuracy']:.3f} after {SHORT} iterations")

# %% [markdown]
# A loss that falls when bad errors grow has no bottom. What keeps AWM from falling for ever is the brake, here five
# times as strong as NFT's. The library also knows `clip_range`: the clipped surrogate of lab 12, with minus the error in
# place of the log-probability.

# %% [markdown]
# ## 5. The brake
#
# Two recorded runs, three times as long as yours, the same in everything but one number: `kl_weight` is 0.1 in one and
# 0 in the other.


# %%
def log_of(name: str) -> dict[int, list[dict[str, float]]]:
    """The logs of a recorded run, by seed."""
    return {run["seed"]: recorded.history(name, run["seed"]) for run in recorded.records(name)}


braked, free = log_of("13-forward-process-long"), log_of("13-forward-process-brakeless")
lines = {f"with the brake, seed {number}": log for number, log in braked.items()}
lines |= {f"without, seed {number}": log for number, log in free.items()}
looks = {name: [row for row in log if "accuracy" in row] for name, log in lines.items()}
viz.curves(
    {name: ([r["iteration"] for r in log], [r["accuracy"] for r in log]) for name, log in looks.items()},
    xlabel="iteration",
    ylabel="strict accuracy (validation)",
    colours={name: "#d55e00" if name.startswith("without") else "#332288" for name in looks},
    alt="Strict accuracy over iterations of the recorded runs. "
    + "; ".join(f"{name}: at best {max(r['accuracy'] for r in log):.2f}, at the end {log[-1]['accuracy']:.2f}"
                for name, log in looks.items()),
)  # fmt: skip

# %% [markdown]
# Why does it fall? The negative velocity pushes *away* from bad pictures, and away is a big place. As the policy gets
# better, its bad samples become rare and odd, and the push leads out of where the network knows anything. The brake is
# a spring to the base, and it grows as the square of the distance.

# %%
long = recorded.records("13-forward-process-long")
for run in long:
    accuracy, spread = run["metrics"]["accuracy"], run["metrics"]["diversity"]
    print(
        f"seed {run['seed']}: {run['cpu_seconds']:.0f} CPU s, accuracy {accuracy['before']:.3f} -> "
        f"{accuracy['after']:.3f}, diversity {spread['before']:.3f} -> {spread['after']:.3f}"
    )
tuned = recorded.apply("13-forward-process-long", long[0]["seed"], load("shapes").to(device))
sheet(tuned.generate(sheet_prompts, sheet_seeds), "The recorded long run, the same prompts and noise")

# %% [markdown]
# ## 6. Search without training
#
# Now leave the weights alone, and spend more on each picture. Draw a **pool**: several pictures of each prompt, with
# their rewards. Best-of-N keeps the best of the first $N$. It needs no theory, and it wants the reward at every use.

# %%
search_prompts, search_seeds = shapes.evaluation_pairs("test", per_kind=choose(smoke=1, cpu=16, gpu=4))
search_seeds = torch.tensor(search_seeds)
dense, strict = shapes_dense(), shapes_strict()
ten = replace(policy, steps=choose(smoke=4, cpu=10, gpu=10))
DRAWS = choose(smoke=2, cpu=12, gpu=4)
pool = draw_pool(ten, dense, search_prompts, seeds=search_seeds, draws=DRAWS)


def accuracy_of(found) -> float:
    return strict(found.samples, search_prompts).mean().item()


best_rows = {count: accuracy_of(pool.best(count)) for count in (1, 2, 4, 8, 12) if count <= DRAWS}
for count, accuracy in best_rows.items():
    print(f"best of {count:2d}: accuracy {accuracy:.3f} for {pool.best(count).evaluations} evaluations a picture")

# %% [markdown] goal="13.5"
# The best of many is one extreme; a draw of the base is the other. Between them lies the distribution that lab 05 met:
# $p(x) \propto p_{\text{base}}(x)\, e^{r(x)/\beta}$, the base tilted by its reward. Draws of the base stand for draws of
# the tilted one if each counts in proportion to $e^{r/\beta}$.
#
# Write the weights: `rewards` is `[prompts, draws]`; each row of weights adds up to 1. Rewards may be large.


# %% exercise={"id": "13.5", "name": "importance_weights", "title": "Importance weights", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def importance_weights(rewards: Float[Tensor, "prompts draws"], beta: float) -> Float[Tensor, "prompts draws"]:
    """How much each draw counts, in proportion to exp(reward / beta), a row adding up to 1."""
    ### BEGIN SOLUTION
    return torch.softmax(rewards / beta, dim=1)
    ### END SOLUTION


# %% [markdown] hints="13.5"
# <details><summary>Hint 1: which way to add</summary>
#
# A prompt is a row. Its draws lie along dimension 1.
#
# </details>
# <details><summary>Hint 2: large rewards</summary>
#
# $e^{900}$ is infinite in a computer. Take the row's largest reward away first; it cancels in the quotient.
#
# </details>
# <details><summary>Hint 3: a function that does both</summary>
#
# Exponential over sum of exponentials is called softmax, and torch has it.
#
# </details>

# %% check="13.5"
check("13.5", importance_weights)

# %%
for beta in (1.0, 0.1, 0.02):
    weights = importance_weights(pool.rewards, beta)
    worth = (1 / weights.square().sum(1)).mean()
    expected = (weights * strict(pool.samples.flatten(0, 1), [p for p in search_prompts for _ in range(DRAWS)])
                .view_as(weights)).sum(1).mean()  # fmt: skip
    print(f"beta {beta:4.2f}: accuracy {expected:.3f}, {DRAWS} draws are worth {worth:.1f}")

# %% [markdown]
# A small $\beta$ is choosy, and then few draws count. That is importance sampling's old trouble: the more you tilt, the
# more of what you paid for is thrown away. The cure is to throw away *early*.

# %% [markdown] goal="13.6"
# For that you need **resampling**: from weights to a list of survivors. Lay the draws end to end on a line from 0 to 1,
# each as long as its weight. Put a comb with `count` teeth on it, tooth $k$ at $(k + \text{offset}) / \text{count}$.
# Each tooth takes the draw it stands on; one that stands on a border takes the draw that begins there.
#
# Return the numbers of the draws, in order, as a tensor of whole numbers `[count]`. All chance is in `offset`, a number
# from 0 up to 1.


# %% exercise={"id": "13.6", "name": "systematic_resample", "title": "A comb over the draws", "points": 3, "minutes": 12, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def systematic_resample(weights: Float[Tensor, "draws"], offset: float, count: int) -> Int[Tensor, "count"]:
    """Which draws survive: each about count times its weight."""
    ### BEGIN SOLUTION
    teeth = (torch.arange(count, dtype=weights.dtype) + offset) / count
    chosen = torch.searchsorted(weights.cumsum(0), teeth, right=True)
    return chosen.clamp_max(len(weights) - 1)  # where rounding leaves the last border below 1
    ### END SOLUTION


# %% [markdown] hints="13.6"
# <details><summary>Hint 1: where the draws end</summary>
#
# `weights.cumsum(0)` says where each draw ends on the line.
#
# </details>
# <details><summary>Hint 2: on which draw a tooth stands</summary>
#
# `torch.searchsorted(ends, teeth, right=True)` counts the ends that are at most as large as the tooth.
#
# </details>
# <details><summary>Hint 3: the far end</summary>
#
# Rounding can leave the last end at 0.9999999. A tooth behind it belongs to the last draw: clamp.
#
# </details>

# %% check="13.6"
check("13.6", systematic_resample)

# %% [markdown]
# Why a comb and not a lottery? Equal weights keep *everyone* under the comb. A lottery of four would lose some of them
# nine times in ten, for nothing.

# %%
lottery = torch.Generator().manual_seed(0)
even = torch.full((4,), 0.25)
kept_all = np.mean([len(set(torch.multinomial(even, 4, True, generator=lottery).tolist())) == 4 for _ in range(1000)])
print("comb:", systematic_resample(even, 0.4, 4).tolist(), f"  a lottery keeps all four {kept_all:.0%} of the time")

# %% [markdown] goal="13.7"
# **Feynman-Kac steering** lets several *particles* of a prompt walk side by side. On the way it looks: the velocity
# points at a guess of the picture, and the guess has a reward. Promising particles are doubled, others given up, with
# weights called **potentials**. Three kinds, each times a `strength` $\lambda$, in logarithms:
#
# - `difference`: what was gained since the look before; at the first look, the reward itself.
# - `max`: the best reward over all looks so far. `sum`: the sum over all looks so far.
#
# Over a particle's whole life its potentials shall multiply to $e^{\lambda r}$ with the *last* reward $r$, so that all
# kinds aim at the same tilted distribution. `difference` does so by itself. For the others, at the `last` look, the
# logarithm is $\lambda r$ minus all logarithms of earlier looks. `history` is `[looks, particles]`, the latest look at
# the end; return `[particles]`.


# %% exercise={"id": "13.7", "name": "log_potential", "title": "Potentials", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def log_potential(
    history: Float[Tensor, "looks particles"], kind: str, strength: float, last: bool
) -> Float[Tensor, "particles"]:
    """The logarithm of each particle's potential at the latest look."""
    ### BEGIN SOLUTION
    if kind == "difference":
        return strength * (history[-1] - history[-2] if len(history) > 1 else history[-1])
    running = history.cummax(0).values if kind == "max" else history.cumsum(0)
    return strength * (history[-1] - running[:-1].sum(0) if last else running[-1])
    ### END SOLUTION


# %% [markdown] hints="13.7"
# <details><summary>Hint 1: all looks at once</summary>
#
# `history.cumsum(0)` and `history.cummax(0).values` give the statistic of *every* look, one row each.
#
# </details>
# <details><summary>Hint 2: the last look</summary>
#
# What earlier looks have counted is the sum over the rows before the last of those statistics.
#
# </details>
# <details><summary>Hint 3: one look alone</summary>
#
# With a single row there is nothing before it: all kinds give strength times the reward, `last` or not.
#
# </details>

# %% check="13.7"
check("13.7", log_potential)


# %% [markdown]
# The particles need noise on the way: two copies of one particle would stay copies under the ODE. Lab 12's CPS has
# some. A look costs no evaluation of the network, because the velocity it needs is the one that makes the step. It does
# cost a decoding and a verdict.


# %%
def comb(weights: Float[Tensor, "prompts draws"], offsets: Float[Tensor, "prompts"], count: int) -> Tensor:
    """Your resampling, prompt after prompt."""
    rows = zip(weights, offsets.tolist(), strict=True)
    return torch.stack([systematic_resample(row, offset, count) for row, offset in rows])


noisy = replace(ten, transition=partial(cps, noise=0.5))
PARTICLES = choose(smoke=(2,), cpu=(2, 4, 8), gpu=(4,))


def steered(count: int, kind: str = "max"):
    return steer(noisy, dense, search_prompts, seeds=search_seeds, particles=count, kind=kind, resample=comb,
                 potential=log_potential)  # fmt: skip


steered_rows = {count: accuracy_of(steered(count)) for count in PARTICLES}
noisy_pool = draw_pool(noisy, dense, search_prompts, seeds=search_seeds, draws=max(PARTICLES))
noisy_rows = {count: accuracy_of(noisy_pool.best(count)) for count in PARTICLES}
for count in PARTICLES:
    print(f"{count} particles: steered {steered_rows[count]:.3f}, best of {count} by the same sampler "
          f"{noisy_rows[count]:.3f}, for {noisy_pool.best(count).evaluations} evaluations each")  # fmt: skip

# %% [markdown]
# Steering spends on what is promising. Whether that beats as many independent draws is a question of the budget: with
# two particles there is hardly a choice, and where best-of-N finds a picture anyway nothing is left to steer. These
# counts are small, so take a few hundredths for chance. The kinds differ in when they choose:

# %%
kinds = {kind: accuracy_of(steered(min(4, max(PARTICLES)), kind)) for kind in ("difference", "max", "sum")}
print({kind: round(accuracy, 3) for kind, accuracy in kinds.items()})

# %% [markdown] goal="13.8"
# The last search goes the other way: the ODE is a function from noise to picture, so a differentiable reward has a
# gradient *in the noise*. Climb it. But the network knows only noise that looks like noise. A standard normal vector of
# $d$ numbers has a length near $\sqrt d$, and the density of its length $\lVert z\rVert$ is, up to a constant and per
# dimension,
#
# $$\frac1d\Big[(d-1)\log \lVert z\rVert - \tfrac12 \lVert z\rVert^2\Big].$$
#
# Write it: `noise` is `[batch, ...]`, the result `[batch]`, with gradient. ReNO adds it to the reward as a spring.


# %% exercise={"id": "13.8", "name": "noise_log_density", "title": "Noise that stays noise", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def noise_log_density(noise: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch"]:
    """The log-density of the noise's length, up to a constant, per dimension."""
    ### BEGIN SOLUTION
    rows = noise.flatten(1)
    size, length = rows.shape[1], rows.norm(dim=1)
    return ((size - 1) * length.log() - length**2 / 2) / size
    ### END SOLUTION


# %% [markdown] hints="13.8"
# <details><summary>Hint 1: one length a sample</summary>
#
# `noise.flatten(1).norm(dim=1)`; $d$ is the number of columns.
#
# </details>
# <details><summary>Hint 2: why not the density of the point</summary>
#
# A normal vector is likeliest *at* zero, yet hardly ever near it: there is so little room. The first term counts the
# room at each length.
#
# </details>
# <details><summary>Hint 3: per dimension</summary>
#
# Divide the whole bracket by $d$, not one of its terms.
#
# </details>

# %% check="13.8"
check("13.8", noise_log_density)

# %% [markdown]
# The verifier has no gradient, so we climb the learned **proxy** of lab 10, and let the verifier judge. The steps of the
# last two rows are far too large, to see what the spring is for. The *length* says whether noise is still noise: fresh
# noise has about 1.

# %%
FEWER = choose(smoke=2, cpu=2, gpu=4)
climb_prompts, climb_seeds = search_prompts[::FEWER], search_seeds[::FEWER]


def small(pictures: Tensor) -> Tensor:
    """Pictures of the proxy's 32 x 32 pixels: averaged down where they are larger, with gradient."""
    return F.avg_pool2d(pictures, pictures.shape[-1] // 32)


proxy = Reward("proxy", lambda pictures, prompts: learned_proxy()(small(pictures), prompts), differentiable=True)
fewer = replace(policy, steps=choose(smoke=2, cpu=5, gpu=5), micro_batch=choose(smoke=32, cpu=32, gpu=1))


def climb(weight: float, rate: float, iterations: int = choose(smoke=2, cpu=8, gpu=8)):
    return optimise_noise(fewer, proxy, climb_prompts, seeds=climb_seeds, iterations=iterations, learning_rate=rate,
                          gaussian_weight=weight, log_density=noise_log_density)  # fmt: skip


# %%
climbs = {"start": climb(0.0, 1.0, 0), "small steps, spring": climb(3.0, 40.0)}
climbs |= {"large steps, spring": climb(3.0, 100.0), "large steps, no spring": climb(0.0, 100.0)}
for name, found in climbs.items():
    length = found.noise.flatten(1).norm(dim=1).mean().item() / found.noise[0].numel() ** 0.5
    verdict = strict(found.samples, climb_prompts).mean().item()
    print(f"{name:22s} proxy {found.rewards.mean():.3f}, accuracy {verdict:.3f}, length {length:.2f}, "
          f"{found.evaluations} evaluations a picture")  # fmt: skip

# %% [markdown]
# In small steps the proxy rises further than the accuracy: the noise, too, finds what the proxy overlooks. In large
# ones it gets lost, and without the spring it is no longer noise of the right length. And each step is dear: a
# forward pass, taken again for its gradient, and a backward pass, all through the whole sampler. Climbing pays where
# the sampler has one step, as ReNO's models have, and where the reward's gradient can be trusted.

# %% [markdown]
# ## 7. When does training pay?
#
# Compare at equal cost, in evaluations of the network for each picture delivered. Search pays at every picture.
# Training pays once, and its price is shared by all pictures that anybody will ask for. First its price: pictures
# drawn, and for each noise draw the old velocity, the base's, and the trained one there and back.

# %%
per_iteration = settings.size * (policy.steps + settings.noise_draws * (1 + 1 + 3))
price = per_iteration * len(history)
after_pool = draw_pool(replace(ten, generator=student), dense, search_prompts, seeds=search_seeds, draws=min(4, DRAWS))
after_rows = {count: accuracy_of(after_pool.best(count)) for count in (1, 2, 4) if count <= DRAWS}
print(f"training: {price:,} evaluations; then {ten.steps} a picture")
for count, accuracy in after_rows.items():
    print(f"trained, best of {count}: accuracy {accuracy:.3f}")

# %%
figure = Figure(figsize=(7.2, 3.6), layout="constrained")
axis = figure.subplots()
found = {"base, best of N": ("o-", viz.COLOURS["best-of-n"], best_rows),
         "base, steered": ("s--", "#882255", steered_rows)}  # fmt: skip
for name, (style, colour, rows) in found.items():
    axis.plot([ten.steps * count for count in rows], list(rows.values()), style, color=colour, label=name)
for asked, style in ((1_000, ":"), (10_000, "-."), (100_000, "-")):
    costs = [amortised(price, ten.steps * count, torch.tensor(float(asked))).item() for count in after_rows]
    axis.plot(costs, list(after_rows.values()), style, marker="^", color=viz.COLOURS["nft"],
              label=f"trained, {asked:,} pictures asked")  # fmt: skip
axis.set(xscale="log", xlabel="network evaluations a picture, training's share included", ylabel="strict accuracy")
axis.legend(frameon=False, fontsize=8, loc="lower right")
axis.grid(alpha=0.25)
viz.picture(
    figure,
    alt="Strict accuracy against network evaluations a picture. Best of N and steering of the base rise with cost; the "
    f"trained model stands at {after_rows[1]:.2f} or more, far to the right where 1,000 pictures share its training "
    "and at the left where 100,000 do.",
)

# %% [markdown]
# Read it from the left. Up to which cost is the trained curve above the others? That depends on how many pictures are
# asked. Where both can reach the same accuracy, the break-even is simple: the price of training, over what it saves on
# each picture.


# %%
def cost_of(wanted: float, rows: dict[int, float]) -> float:
    """The cheapest cost a picture at which an accuracy is reached; infinite where it never is."""
    return min((ten.steps * count for count, accuracy in rows.items() if accuracy >= wanted), default=float("inf"))


wanted = [level for level in (0.6, 0.7, 0.8, 0.9, 0.95) if level <= max(after_rows.values())]
told = ["| accuracy wanted | best of N | steered | trained | worth training against best of N | against steering |"]
told += ["|---|---|---|---|---|---|"]
for level in wanted:
    costs = [cost_of(level, rows) for rows in (best_rows, steered_rows, after_rows)]
    ends = [worth_training(price, searched, costs[2]) for searched in costs[:2]]
    shown = [f"{end:,.0f} pictures" if 0 < end < float("inf") else "at once" if end == 0 else "never" for end in ends]
    told.append(f"| {level} | {' | '.join(f'{cost:.0f}' for cost in costs)} | {' | '.join(shown)} |")
Markdown("\n".join(told))

# %% [markdown]
# (*inf*: not reached with so many draws.) For a handful of pictures, search. For a product that draws all day, train.
# And where the judge is slow, is a person, or is not there when the picture is asked for, search is no choice at all:
# it needs the reward *every time*, training only while it trains.
#
# ## What to take away
#
# - Pictures, their rewards, and fresh noise are enough to train a flow. No path, no density, any sampler.
# - NFT learns from bad pictures too, by a mirror at the old policy. What pushes needs a brake.
# - Search is strong and honest: put it beside every trained model, and count what it costs.
#
# The cell below writes down what happened here.


# %%
def change(key: str, split: str = "test") -> dict[str, float]:
    """A score before and after; where no two accepted pictures share a prompt there is no diversity: 0."""
    scores = {"before": before_scores[split][key], "after": after_scores[split][key]}
    return {when: 0.0 if np.isnan(value) else value for when, value in scores.items()}


def named(rows: dict[int, float]) -> dict[str, float]:
    return {str(count): accuracy for count, accuracy in rows.items()}


# %%
record = write_record(
    "13-forward-process",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "accuracy": change("accuracy"),
        "accuracy_held_out": change("accuracy", "held-out"),
        **{f"accuracy_{kind}": change(f"accuracy_{kind}") for kind in shapes.KINDS},
        "diversity": change("diversity"),
        "best_of_n": named(best),
        "training_cpu_seconds": spent,
        "training_evaluations": price,
        "search": {"best": named(best_rows), "steered": named(steered_rows), "trained": named(after_rows)},
        "awm": matched["accuracy"],
        "samplers": {name: scores["accuracy"] for name, scores in drawn_by.items()},
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/13.json")
