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
# # Lab 07: who decided what is in this picture?
#
# A text-to-image model begins with noise and takes eight small steps. At the end there is a red circle, or there is
# not. *When was that decided, by whom, and how likely was it?* If you can answer, you can teach the model: make good
# decisions a little likelier, bad ones a little less so. That is reinforcement learning, and you need to know none of
# it yet.
#
# You will turn a sampler into a **policy** in six short functions: a step with chance in it, its density, a rollout, a
# replay, and the estimator that learns from verdicts. Each is put to work at once, on a real (small) text-to-image
# model or on a toy that is small enough to know *exactly*. Chapter 07 is the text beside it.
#
# Six exercises, about 80 minutes; the sixth is for the curious. No picture model is trained here: lab 09 begins with
# that.

# %% [markdown]
# With a CUDA card, the profile `gpu` puts the same functions of yours to work on a real model:
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 3.5 medium, 512 x 512 pixels: `stabilityai/stable-diffusion-3.5-medium` |
# | licence | Stability AI Community License; gated: accept it on the model's page, then `hf auth login` |
# | disk | 16.3 GB |
# | VRAM, loading (estimate, unmeasured) | 16.4 GB |
# | VRAM, sampling (estimate, unmeasured) | below 5.7 GB of weights; activations of 16 latents come on top |
# | trained | nothing; section 5 nudges a LoRA of rank 32 once |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download stabilityai/stable-diffusion-3.5-medium --exclude "*fp16*" --exclude "sd3.5_medium*" \
#     --exclude "text_encoders/*" --exclude "vae copy/*" --exclude "*.png"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws means nothing.

# %%
from collections.abc import Callable, Sequence
from functools import partial

import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

# %%
from pixelpolicy import viz
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.generators import load
from pixelpolicy.pipelines import sd3
from pixelpolicy.policies import DenoisingPolicy, flow_sde, ode
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rl.oracles import chain_distribution, exact_kl, exact_policy_gradient, tilted
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.widgets import TrajectoryScrubber

# %% [markdown]
# ## 1. An episode
#
# `load("shapes")` is a small latent diffusion model in the classes of Stable Diffusion 3.5. Below, one prompt and one
# seed: the state at each of the eight steps, decoded, and under it the picture that the network expects at the end.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 8
PROMPTS = ["a red circle left of a blue square", "three green triangles", "a yellow square", "two blue circles"]
PROMPTS = PROMPTS * choose(smoke=1, cpu=4, gpu=4)
SEEDS = torch.arange(len(PROMPTS)) + 100 * seed()
if real_model():
    base = sd3.load_for_profile(template="a flat drawing of {prompt} on a black background", max_sequence_length=128)
    base.remember(PROMPTS)  # each prompt is encoded once; then
    base.forget_text_encoders()  # the encoders, most of the model's weights, can go
else:
    base = load("shapes").to(device)
sigmas = base.sigmas(STEPS)


# %%
@torch.no_grad()
def frames(states: Tensor, prompts: list[str]) -> Tensor:
    """Every state of every trajectory as a picture, the network's guess of the end below it."""
    rows = []
    for x, sigma in zip(states.float().to(device).unbind(1), sigmas, strict=True):
        velocity = base.velocity(x, sigma, *base.encode(prompts))
        guess = x - sigma * velocity
        rows.append(torch.cat([base.decode(x), base.decode(guess)], dim=-2).float().cpu())
    return torch.stack(rows, 1)


# %%
by_ode = DenoisingPolicy(base, ode, steps=STEPS).rollout(PROMPTS, seeds=SEEDS)
ode_frames = frames(by_ode.states[:4], PROMPTS[:4])
viz.sample_sheet(
    ode_frames[0],
    [f"sigma {sigma:.2f}" for sigma in sigmas],
    columns=9,
    alt=f"Nine pairs of pictures for '{PROMPTS[0]}', from noise to a picture; below each the guess of the end, at "
    "first blurred, sharper with every step.",
)

# %% [markdown]
# Read it as an **episode** of a game, the way Black and colleagues did (DDPO, 2023):
#
# | | a pole on a cart (lab 04) | a picture |
# |---|---|---|
# | state | angle, position, speeds | the latent $x$, its noise level $\sigma$, the prompt |
# | action | push left or right | **the next latent** $x'$ |
# | policy | probabilities of left and right | the density of $x'$ given the state |
# | what the world does | physics | nothing: the action *is* the next state |
# | reward | 1 for each moment upright | 0 at every step, and a verdict at the end |
#
# A game of this kind is called a *Markov decision process*: what comes next depends on the present state alone. One
# row is in trouble. The sampler above is an ODE: from the same state it always takes the same step. It *decides*
# nothing, so there is nothing to make likelier. All its chance lies in the noise it began with. We need steps with
# chance in them, and they must still lead to the same pictures.

# %% [markdown]
# ## 2. Another path to the same pictures
#
# Take a world so small that we know everything: pictures of one pixel, black ($-1$) or white ($+1$), with a little
# spread. Between a picture $x_0$ and noise $x_1$ lies $x = (1-\sigma)x_0 + \sigma x_1$. The velocity that a perfect
# network would give is the expected $x_1 - x_0$, and here it has a formula.

# %%
GREYS, SPREAD = torch.tensor([-1.0, 1.0]), 0.15


def toy_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x1 - x0 | x] in the world of one pixel: what a perfect network would answer."""
    greys = GREYS.to(x)
    variance = ((1 - sigma) * SPREAD) ** 2 + sigma**2
    gap = x[..., None] - (1 - sigma) * greys
    chances = (-(gap**2) / (2 * variance)).softmax(-1)
    picture = greys + (1 - sigma) * SPREAD**2 / variance * gap
    return (chances * (sigma / variance * gap - picture)).sum(-1)


# %% [markdown] goal="7.1"
# The ODE moves $x$ along its velocity $v$ for a time $dt = \sigma' - \sigma$, which is negative. To put chance in, add
# fresh noise of size $g\sqrt{-dt}$. Alone, that would make the picture noisier at every step; so the drift must first
# take as much old noise away. Where the noise is, the **score** $s$ knows:
#
# $$s = -\frac{x + (1-\sigma)v}{\sigma}, \qquad
# \text{mean} = x + \Big(v - \frac{g^2}{2}s\Big)dt, \qquad \text{std} = g\sqrt{-dt}.$$
#
# ($x + (1-\sigma)v$ is the noise $x_1$ that the velocity points at.) All arguments are tensors; `sigma`, `sigma_next`
# and `g` have one number each. Return the mean and the standard deviation.


# %% exercise={"id": "7.1", "name": "sde_step", "title": "A step with chance in it", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def sde_step(
    x: Float[Tensor, "batch ..."],
    velocity: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    g: Float[Tensor, ""],
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
    """Mean and standard deviation of the next state, by one Euler-Maruyama step of the reverse SDE."""
    ### BEGIN SOLUTION
    dt = sigma_next - sigma
    score = -(x + (1 - sigma) * velocity) / sigma
    return x + (velocity - g**2 * score / 2) * dt, g * torch.sqrt(-dt)
    ### END SOLUTION


# %% [markdown] hints="7.1"
# <details><summary>Hint 1: which way time runs</summary>
#
# Sampling goes from sigma = 1 to sigma = 0, so the time step is below zero. A square root must not see it like that.
#
# </details>
# <details><summary>Hint 2: three lines</summary>
#
# First the time step, then the score, then the two numbers that you return. Keep tensors throughout.
#
# </details>
# <details><summary>Hint 3: what to test by eye</summary>
#
# With g = 0 your mean must be the ODE's, and the deviation 0. With g > 0 the correction shrinks the noise part: its
# sign comes out right by itself, if the score has its minus and dt is negative.
#
# </details>

# %% check="7.1"
check("7.1", sde_step)


# %% [markdown]
# Now let your step walk. `flow_noise` is how Flow-GRPO chooses $g$: much noise early, little late. All walkers start
# from the same noise; one crowd takes the ODE, the other your SDE. The last step is taken without noise, for it would
# stay in the picture.


# %%
def flow_noise(sigma: Tensor, sigma_next: Tensor, a: float = 0.7) -> Tensor:
    """Flow-GRPO's g; at sigma = 1 its denominator takes the next level, or it would be 0."""
    return a * torch.sqrt(sigma / (1 - (sigma_next if sigma == 1 else sigma)))


def walk(step: Callable, levels: Tensor, a: float, count: int = 20_000) -> Tensor:
    """Paths of the world of one pixel, [count, steps + 1]."""
    stream = torch.Generator().manual_seed(seed())
    path = [torch.randn(count, generator=stream)]
    for sigma, following in zip(levels[:-1], levels[1:], strict=True):
        g = flow_noise(sigma, following, a if following > 0 else 0.0)
        mean, std = step(path[-1], toy_velocity(path[-1], sigma), sigma, following, g)
        path.append(mean + std * torch.randn(count, generator=stream))
    return torch.stack(path, 1)


# %%
levels = torch.linspace(1, 0, 41)
paths = {"ODE": walk(sde_step, levels, 0.0), "SDE": walk(sde_step, levels, 0.7)}
figure = Figure(figsize=(8.5, 3.2))
left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2, 2, 1))
for axis, (name, path) in zip((left, middle), paths.items(), strict=True):
    for row in path[:40]:
        axis.plot(levels, row, color=OTHERS[name == "SDE"], linewidth=0.7, alpha=0.7)
    axis.set(title=name, xlabel="sigma", xlim=(1, 0), ylim=(-2.6, 2.6))
for number, path in enumerate(paths.values()):
    right.hist(path[:, -1], bins=80, orientation="horizontal", histtype="step", color=OTHERS[number], density=True)
right.set(title="where they end", xlabel="density")
left.set_ylabel("x")
viz.picture(figure, alt="Forty paths by the ODE, smooth, and forty by the SDE, jagged; both crowds end at -1 and +1 "
            "with the same histogram.")  # fmt: skip

# %% [markdown]
# Smooth paths and jagged ones, and the same crowd at the end: **the same marginals by another path**. In numbers, with
# what happens if one adds noise and forgets the correction (the true spread is 0.150):


# %%
def uncorrected(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Noise added, none taken away."""
    return x + velocity * (sigma_next - sigma), sde_step(x, velocity, sigma, sigma_next, g)[1]


# %%
spreads = {}
for steps in (8, 40, 200):
    levels = torch.linspace(1, 0, steps + 1)
    walks = {"ODE": (sde_step, 0.0), "SDE": (sde_step, 0.7), "uncorrected": (uncorrected, 0.7)}
    ends = {name: walk(*[step, levels, a])[:, -1] for name, (step, a) in walks.items()}
    spreads[steps] = {name: (x - x.sign()).square().mean().sqrt().item() for name, x in ends.items()}
    print(f"{steps:3d} steps:", ", ".join(f"{name} {value:.3f}" for name, value in spreads[steps].items()))

# %% [markdown]
# With many steps, ODE and SDE both come to 0.150; with few, each has its own error. Without the correction more steps
# do not help.
#
# ## 3. Which steps have a density
#
# Your step draws $x' \sim \mathcal N(\text{mean}, \text{std}^2)$. So the action has a density, and here is its
# logarithm, summed over all numbers of the latent:


# %%
def step_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Float[Tensor, "batch"]:
    """Log-density of a step, in nats."""
    return torch.distributions.Normal(mean, std.to(mean)).log_prob(x).flatten(1).sum(1)


one = torch.zeros(1, 1)
for std in (0.5, 0.05, 0.005, 0.0005):
    print(f"std {std:<6}: log-density at the mean {step_log_prob(one, one, torch.tensor(std)).item():+.2f}")
try:
    step_log_prob(one, one, torch.tensor(0.0))
except ValueError as error:
    print("std 0.0   :", " ".join(str(error).split())[-70:])

# %% [markdown]
# The narrower the step, the higher the density; at 0 it is a spike without end, and *there is no density at all*. A
# training run that asks for one gets infinities or NaN; one that puts a floor under the deviation gets something
# worse, as you will see in section 5.

# %% [markdown] goal="7.2"
# Given the noise levels `sigmas` (`[steps + 1]`, from high to low) and the standard deviation of each step, say which
# steps count as actions. Two conditions: the step draws noise, and it does not end at $\sigma = 0$, where a sampler
# takes the mean alone.


# %% exercise={"id": "7.2", "name": "has_density", "title": "Which steps have a density", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def has_density(sigmas: Float[Tensor, "steps+1"], stds: Float[Tensor, "steps"]) -> Bool[Tensor, "steps"]:
    """True for each step that draws noise and does not end at sigma 0."""
    ### BEGIN SOLUTION
    return (stds > 0) & (sigmas[1:] > 0)
    ### END SOLUTION


# %% [markdown] hints="7.2"
# <details><summary>Hint 1: lengths</summary>
#
# There is one more level than there are steps. Step t goes from level t to level t + 1.
#
# </details>
# <details><summary>Hint 2: a mask</summary>
#
# Comparing a tensor with a number gives a tensor of booleans. Two of them are joined by `&`; mind the brackets.
#
# </details>
# <details><summary>Hint 3: edges</summary>
#
# A sampler of which only a window of steps draws noise has many zeros among its deviations. One that stops before
# sigma 0 keeps its last step.
#
# </details>

# %% check="7.2"
check("7.2", has_density)


# %% [markdown]
# Your mask, for three ways to sample with this model: the ODE; the SDE; and MixGRPO's way, noise in a window of steps
# and the ODE elsewhere, which makes training cheaper.


# %%
def noise_levels(amount: Sequence[float]) -> tuple[Tensor, Tensor]:
    """g and std of each step, for an amount of noise a step."""
    pairs = list(zip(sigmas[:-1], sigmas[1:], amount, strict=True))
    g = torch.stack([flow_noise(sigma, following, a) for sigma, following, a in pairs])
    return g, g * torch.sqrt(sigmas[:-1] - sigmas[1:])


for name, amount in {"ODE": [0.0] * 8, "SDE": [0.7] * 8, "window": [0, 0.7, 0.7, 0.7, 0, 0, 0, 0]}.items():
    mask = has_density(sigmas, noise_levels(amount)[1])
    print(f"{name:7}", "".join("█" if noisy else "·" for noisy in mask), f"{mask.sum()} actions of {len(mask)} steps")
noisy = has_density(sigmas, noise_levels([0.7] * STEPS)[1])

# %% [markdown]
# ## 4. Roll out
#
# For the big model a policy is a function `step(x, t)` that gives the mean and deviation of the next state. Here it
# is, made of the network and of *your* step:


# %%
def denoiser(generator, prompts: list[str], guidance_scale: float = 1.0) -> Callable:
    """The sampler as a policy: (state, t) -> mean and standard deviation of the next state."""
    conditioning, empty = generator.encode(prompts), generator.encode([""] * len(prompts))

    @torch.no_grad()
    def step(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        x = x.to(generator.device)
        velocity = generator.velocity(x, sigmas[t], *conditioning)
        if guidance_scale != 1:
            without = generator.velocity(x, sigmas[t], *empty)
            velocity = without + guidance_scale * (velocity - without)
        g = flow_noise(*sigmas[t : t + 2]) if noisy[t] else torch.tensor(0.0)
        return sde_step(x, velocity, sigmas[t], sigmas[t + 1], g)

    return step


# %%
def draw(streams: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise like another tensor: sample i from stream i, whatever stands beside it."""
    return torch.stack([torch.randn(like.shape[1:], generator=stream) for stream in streams]).to(like.device)


# %% [markdown] goal="7.3"
# A **rollout** plays one episode a sample and keeps what a learner needs: every state and the log-probability of every
# action. The rules:
#
# 1. Storage has a dtype, often half precision. Round the new state to it, and *go on from what was stored*.
# 2. The log-probability is that of the **stored** state (as float32). Not of the unrounded one: nobody will ever see
#    that again.
# 3. Where `noisy[t]` is False, take the mean and draw nothing; the log-probability is `nan`.
#
# `step(x, t)` wants float32. `draw` and `step_log_prob` are above. Return states `[batch, steps + 1, ...]` and
# log-probabilities `[batch, steps]`.


# %% exercise={"id": "7.3", "name": "roll_out", "title": "Play an episode", "points": 3, "minutes": 20, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def roll_out(
    step: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    start: Float[Tensor, "batch ..."],
    noisy: Bool[Tensor, "steps"],
    streams: Sequence[torch.Generator],
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "batch steps+1 ..."], Float[Tensor, "batch steps"]]:
    """One trajectory a sample, as stored, and the log-probability of each stored state given the one before."""
    ### BEGIN SOLUTION
    states, log_probs = [start.to(dtype)], []
    for t, draws in enumerate(noisy.tolist()):
        mean, std = step(states[-1].float(), t)
        states.append((mean + std * draw(streams, mean) if draws else mean).to(dtype))
        missing = torch.full((len(mean),), float("nan"), device=mean.device)
        log_probs.append(step_log_prob(states[-1].float(), mean, std) if draws else missing)
    return torch.stack(states, 1), torch.stack(log_probs, 1)
    ### END SOLUTION


# %% [markdown] hints="7.3"
# <details><summary>Hint 1: the shape of the loop</summary>
#
# Keep two lists. The first begins with the start, rounded; in each turn ask `step` for the mean and deviation at the
# last stored state, and put one entry into each list.
#
# </details>
# <details><summary>Hint 2: the order of operations</summary>
#
# Draw, round, store, and only then judge what was stored. `.to(dtype)` rounds, `.float()` makes float32 of it again.
#
# </details>
# <details><summary>Hint 3: a step without noise</summary>
#
# Its next state is the mean, rounded. Do not even call `draw` there, for that would move the streams on. A row of nan
# for the whole batch comes from `torch.full`. At the end, `torch.stack` along dimension 1 makes tensors of the lists.
#
# </details>

# %% check="7.3"
check("7.3", roll_out)


# %% [markdown]
# Your rollout now drives the real sampler. Same prompts and same first noise as the ODE above.


# %%
def play(step: Callable, seeds: Tensor = SEEDS, dtype: torch.dtype = torch.float32, drawn: Tensor | None = None):
    """Begin each episode from the noise of its own seed, and roll out; `drawn` are the steps with noise."""
    streams = [torch.Generator().manual_seed(int(s)) for s in seeds]
    start = draw(streams, torch.empty(len(seeds), *base.latent_shape, device=device))
    return roll_out(step, start, noisy if drawn is None else drawn, streams, dtype)


# %%
states, log_probs = play(denoiser(base, PROMPTS))
pictures = base.decode(states[:, -1].float()).detach()
viz.sample_sheet(
    torch.cat([by_ode.samples[:8].cpu(), pictures[:8].cpu()]),
    [f"ODE: {p}" for p in PROMPTS[:8]] + [f"SDE: {p}" for p in PROMPTS[:8]],
    columns=len(PROMPTS[:8]),
    alt="Above, pictures by the ODE; below, pictures for the same prompts and noise by the SDE: as clean, but others.",
)

# %% [markdown]
# As clean, and not the same: the noise on the way has decided too. The library's own policy, which later labs train,
# does what you just wrote:

# %%
library = DenoisingPolicy(base, partial(flow_sde, noise=0.7), steps=STEPS).rollout(PROMPTS, seeds=SEEDS)
apart = (library.states - states.cpu()).abs().max().item()
print("largest difference between your states and the library's:", apart)
assert apart < choose(smoke=1e-2, cpu=1e-2, gpu=0.5)

# %% [markdown]
# Drag the slider (or use the arrow keys) through an episode: on the left the ODE, on the right your SDE, above the
# state and below the guess of the end. The bars are your log-probabilities. Where is the picture decided? Where are
# the bars high?

# %%
sde_frames = frames(states[:4], PROMPTS[:4])
gap = torch.ones_like(ode_frames[..., :1])
TrajectoryScrubber(
    torch.cat([ode_frames, gap, sde_frames], dim=-1),
    values=log_probs[:4].cpu(),
    labels=[f"sigma {sigma:.2f}" for sigma in sigmas],
    names=PROMPTS[:4],
    value_name="log-probability (nats)",
    alt="One episode step by step: left the ODE, right the SDE; above the noisy state, below the expected picture.",
    caption="ODE (left) and SDE (right) from the same noise. Bars: log-probability of the SDE's steps.",
)

# %% [markdown]
# The guess has its shapes early. To be sure, *branch*: take one stored episode, go back to one of its states, and play
# on from there with other noise. That is what makes an episode a chain of decisions: what is still open shows.


# %%
def branch(t: int, count: int = 8) -> Tensor:
    """One stored episode, played on from its state t, each time with other noise."""
    step = denoiser(base, PROMPTS[:1] * count)
    streams = [torch.Generator().manual_seed(1000 + i) for i in range(count)]
    start = states[:1, t].expand(count, *states.shape[2:])
    played = roll_out(lambda x, k: step(x, t + k), start, noisy[t:], streams, torch.float32)[0]
    return base.decode(played[:, -1]).detach().cpu()


starts = (0, 2, 4, 6)
branches = [branch(t) for t in starts]
viz.sample_sheet(
    torch.cat(branches),
    [f"from state {t}" for t in starts for _ in range(8)],
    alt="Four rows of eight pictures: branched at the start they differ in everything; branched late they are alike.",
)

# %%
still_open = {t: pictures.std(0).mean().item() for t, pictures in zip(starts, branches, strict=True)}
print({f"from state {t}": round(value, 3) for t, value in still_open.items()}, "spread of a pixel over branches")

# %% [markdown]
# What is in the picture is decided *early*. The log-probability is highest *late*. It only says how **narrow** a step
# is: a Gaussian in $d$ dimensions has $-d\,(\log \text{std} + \tfrac12\log 2\pi e)$ on average, whatever it draws.

# %%
dimensions = states[0, 0].numel()
stds = noise_levels([0.7] * STEPS)[1]
lines = [
    "| step | sigma | std | log-probability, mean | its formula | spread over samples |",
    "|---|---|---|---|---|---|",
]
for t in noisy.nonzero().flatten().tolist():
    expected = -dimensions * (stds[t].log() + 0.5 * (1 + torch.tensor(2 * torch.pi).log()))
    values = log_probs[:, t].cpu()
    lines.append(
        f"| {t} | {sigmas[t]:.2f} | {stds[t]:.3f} | {values.mean():+.1f} | {expected:+.1f} | {values.std():.1f} |"
    )
Markdown("\n".join(lines))

# %% [markdown]
# So never read a log-probability by its height. What carries meaning is a *difference*: how much likelier does another
# policy make the very same step?

# %% [markdown] goal="7.4"
# Replay stored episodes through a policy and return, for each sample, the logarithm of
#
# $$\frac{p_{\text{new}}(\text{episode})}{p_{\text{old}}(\text{episode})}
# = \prod_{t\,\text{noisy}} \frac{p_{\text{new}}(x_{t+1}\mid x_t)}{p_{\text{old}}(x_{t+1}\mid x_t)}.$$
#
# `step` is the new policy; `states` and `log_probs` come from a rollout of the old one. Every $x$ is the *stored* one.
# The gradient must reach the policy.


# %% exercise={"id": "7.4", "name": "log_ratio", "title": "Replay, and the ratio", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def log_ratio(
    step: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    states: Float[Tensor, "batch steps+1 ..."],
    noisy: Bool[Tensor, "steps"],
    log_probs: Float[Tensor, "batch steps"],
) -> Float[Tensor, "batch"]:
    """How much likelier the policy makes each stored episode than it was, in nats."""
    ### BEGIN SOLUTION
    terms = []
    for t in noisy.nonzero().flatten().tolist():
        mean, std = step(states[:, t].float(), t)
        terms.append(step_log_prob(states[:, t + 1].float(), mean, std) - log_probs[:, t])
    return torch.stack(terms).sum(0)
    ### END SOLUTION


# %% [markdown] hints="7.4"
# <details><summary>Hint 1: products and sums</summary>
#
# The logarithm of a product is a sum, and that of a quotient a difference.
#
# </details>
# <details><summary>Hint 2: nobody walks</summary>
#
# Nothing is drawn here. At each noisy step ask the policy for its mean and deviation at the state that was stored, and
# judge the state that was stored after it.
#
# </details>
# <details><summary>Hint 3: nan</summary>
#
# The stored log-probabilities hold nan at steps without a density. One nan in a sum makes nan of it all, so leave
# these steps out before adding up.
#
# </details>

# %% check="7.4"
check("7.4", log_ratio)

# %% [markdown]
# ## 5. The ratio must be exactly 1, and what breaks it
#
# Replay your episodes through *the same* policy. Nothing was trained, so each ratio must be 1: not nearly, but to the
# last bit. You see to that by the order of operations in `roll_out`, in every dtype.

# %%
faults = {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    step = denoiser(base, PROMPTS)
    stored, old = play(step, dtype=dtype)
    ratios = log_ratio(step, stored, noisy, old).exp()
    faults[f"right order, stored in {str(dtype)[6:]}"] = (ratios - 1).abs().max().item()
    print(f"{str(dtype)[6:]:9} smallest and largest ratio: {ratios.min():.9f}, {ratios.max():.9f}")
    assert (ratios == 1).all()


# %% [markdown]
# Then why does every forum of this field have the thread "my ratio is not 1"? Here are the four classic ways, each on
# your own episodes. We print the largest $|\log \text{ratio}|$ of an episode. For scale: DDPO clips the ratio at
# $10^{-4}$ a dimension, which for our 256 numbers is 0.026 nats a step. What is above that looks to the learner like
# something to learn.
#
# **Fault 1: rounding after judging.** Sample in float32, take the log-probabilities, *then* store in half precision.


# %%
def largest(name: str, log_ratios: Tensor) -> None:
    """Print and keep the largest |log-ratio|."""
    faults[name] = log_ratios.abs().max().item()
    print(f"{name}: {faults[name]:.3g} nats")


step = denoiser(base, PROMPTS)
for dtype in (torch.float16, torch.bfloat16):
    largest(f"log-probability before rounding to {str(dtype)[6:]}", log_ratio(step, states.to(dtype), noisy, log_probs))

# %% [markdown]
# **Fault 2: guidance on one side only.** Sampling with guidance pushes the prompt harder: it is *another policy*.
# Episodes played with it and replayed without it (or the reverse) are judged by someone who would never have drawn
# them.

# %%
guided = denoiser(base, PROMPTS, guidance_scale=3.0)
guided_states, guided_log_probs = play(guided)
largest("guidance 3 in both", log_ratio(guided, guided_states, noisy, guided_log_probs))
largest("guidance 3 in the rollout only", log_ratio(step, guided_states, noisy, guided_log_probs))

# %% [markdown]
# **Fault 3: another batch shape.** The very same numbers, replayed one episode at a time. Matrix products add up in
# another order, and the last bits differ. It is the mildest fault in float32, and a serious one where the
# network computes in bfloat16.

# %%
alone = [
    log_ratio(denoiser(base, [prompt]), states[i : i + 1], noisy, log_probs[i : i + 1])
    for i, prompt in enumerate(PROMPTS)
]
largest("one by one, float32", torch.cat(alone))

# %%
with torch.autocast(device, torch.bfloat16):
    quick = denoiser(base, PROMPTS)
    half_states, half_log_probs = play(quick)
    largest("network in bfloat16, same batch", log_ratio(quick, half_states, noisy, half_log_probs))
    alone = [
        log_ratio(denoiser(base, [prompt]), half_states[i : i + 1], noisy, half_log_probs[i : i + 1])
        for i, prompt in enumerate(PROMPTS)
    ]
largest("network in bfloat16, one by one", torch.cat(alone))

# %% [markdown]
# **Fault 4: the last step with a floor.** Its deviation is 0. Some code keeps a floor under it, $10^{-4}$ say, so that
# nothing divides by 0. The ratio is even 1 on replay! But give the weights one small nudge, the size of one optimiser
# step in lab 12, and look at the last step beside all the others together:


# %%
def floored(step: Callable) -> Callable:
    """A policy whose deviation never falls below 1e-4."""
    return lambda x, t: (step(x, t)[0], step(x, t)[1].clamp_min(1e-4))


every, last = torch.ones(STEPS, dtype=torch.bool), torch.arange(STEPS) == STEPS - 1
nudged, stream = base.student(), torch.Generator().manual_seed(seed())
with torch.no_grad():
    for weight in (p for p in nudged.transformer.parameters() if p.requires_grad):
        weight.add_(5e-4 * torch.randn(weight.shape, generator=stream).sign().to(weight))
floor_states, floor_log_probs = play(floored(denoiser(base, PROMPTS)), drawn=every)
changed = floored(denoiser(nudged, PROMPTS))
largest("small nudge, the seven noisy steps", log_ratio(changed, floor_states, noisy, floor_log_probs))
largest("small nudge, the last step with a floor", log_ratio(changed, floor_states, last, floor_log_probs))

# %% [markdown]
# One step drowns all the others: every gradient would go into a spike. Leave it out; that is what your `has_density`
# is for. The whole clinic in one table:

# %%
lines = ["| replay | largest deviation from ratio 1 (nats) |", "|---|---|"]
lines += [f"| {name} | {value:.3g} |" for name, value in faults.items()]
Markdown("\n".join(lines))

# %% [markdown]
# ## 6. Learning from verdicts, where we know the truth
#
# You have actions with densities. How does a verdict teach them? With the identity on which all of reinforcement
# learning for generators stands. For any reward $r$ of an episode $\tau$,
#
# $$\nabla_\theta\, \mathbb E[r(\tau)] = \mathbb E\big[r(\tau)\,\nabla_\theta \log p_\theta(\tau)\big].$$
#
# The left side asks for a gradient through the verdict. The right side does not: it needs only samples, their
# verdicts, and the gradient of their log-probability. It was called REINFORCE by Williams in 1992. Is it any good? Let
# us take the world of one pixel, round it to nine greys and four steps, and *enumerate*: 6,561 episodes, each with its
# exact probability. Your `sde_step` makes the table.

# %%
greys = torch.linspace(-1.6, 1.6, 9, dtype=torch.float64).roll(-4)  # the chain begins in state 0: mid grey
rungs = torch.tensor([1.0, 0.8, 0.6, 0.35, 0.1], dtype=torch.float64)
tables = []
for sigma, following in zip(rungs[:-1], rungs[1:], strict=True):
    mean, std = sde_step(greys, toy_velocity(greys, sigma), sigma, following, flow_noise(sigma, following))
    tables.append(-((greys[None] - mean[:, None]) ** 2) / (2 * std**2))
base_logits = torch.stack(tables)
episodes, probabilities = chain_distribution(base_logits)
print(f"{len(episodes)} episodes, their probabilities add up to {probabilities.sum():.12f}")

# %% [markdown]
# The verdict: a white pixel is accepted. There is no gradient in it. A mean examiner adds 5 marks to everybody, which
# changes nothing about who is better.


# %%
def accepted(episodes: Tensor) -> Tensor:
    """1 where the episode ends white, else 0."""
    return (greys[episodes[:, -1]] > 0.7).double()


def marks(episodes: Tensor) -> Tensor:
    """The examiner's marks: 6 for white, 5 for all else."""
    return 5 + accepted(episodes)


truth = exact_policy_gradient(base_logits, accepted)
same_truth = exact_policy_gradient(base_logits, marks)
print("accepted by the base:", round((probabilities * accepted(episodes)).sum().item(), 4))
print("exact gradients of the two verdicts differ by", (truth - same_truth).abs().max().item())


# %%
def sample_chain(logits: Tensor, count: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Episodes [count, steps] of a chain and their log-probabilities [count], with gradient."""
    state, chosen, log_probs = torch.zeros(count, dtype=torch.long), [], 0.0
    for table in logits.log_softmax(-1):
        state_log_probs = table[state]
        state = torch.multinomial(state_log_probs.detach().exp(), 1, generator=stream)[:, 0]
        log_probs = log_probs + state_log_probs.gather(1, state[:, None])[:, 0]
        chosen.append(state)
    return torch.stack(chosen, 1), log_probs


# %% [markdown] goal="7.5"
# Write the estimator as a **loss**: a number whose gradient, descended, climbs the expected reward. Marks of 5 and 6
# should not push *every* episode up; only the difference matters. So take a **baseline** away from each reward: the
# mean reward of the *other* samples. (With its own reward in the mean, a sample would cancel a part of itself.)
#
# $$L = -\frac1n \sum_i \Big(r_i - \frac{1}{n-1}\sum_{j \ne i} r_j\Big)\,\log p_\theta(\tau_i)$$
#
# No gradient may flow into the rewards: they are verdicts.


# %% exercise={"id": "7.5", "name": "score_function_loss", "title": "REINFORCE with a baseline", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def score_function_loss(log_probs: Float[Tensor, "samples"], rewards: Float[Tensor, "samples"]) -> Float[Tensor, ""]:
    """A loss whose gradient is minus an unbiased estimate of the gradient of the expected reward."""
    ### BEGIN SOLUTION
    baseline = (rewards.sum() - rewards) / (len(rewards) - 1)
    return -((rewards - baseline).detach() * log_probs).mean()
    ### END SOLUTION


# %% [markdown] hints="7.5"
# <details><summary>Hint 1: the mean of the others, at once</summary>
#
# The sum over the others is the sum over all, less one's own. No loop is needed.
#
# </details>
# <details><summary>Hint 2: what is weighed</summary>
#
# Each log-probability is multiplied by how much better its sample did than the others. Then average over the samples.
#
# </details>
# <details><summary>Hint 3: sign and gradient</summary>
#
# An optimiser descends and you want to climb: one minus. The weights are numbers, so `.detach()` them; the
# log-probabilities carry the gradient.
#
# </details>

# %% check="7.5"
check("7.5", score_function_loss)


# %% [markdown]
# Against the truth: estimate the gradient from $n$ samples, many times, and measure how far off it is, relative to the
# length of the exact gradient. Three estimators: the plain one on the verdict, the plain one on the examiner's marks,
# and yours on the marks.


# %%
def plain_loss(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """REINFORCE without a baseline."""
    return torch.mean(rewards * log_probs).neg()


def estimate(loss_of: Callable, verdict: Callable, count: int, stream: torch.Generator) -> Tensor:
    """One estimate of the gradient of the expected reward from so many samples."""
    logits = base_logits.clone().requires_grad_()
    drawn, log_probs = sample_chain(logits, count, stream)
    return -torch.autograd.grad(loss_of(log_probs, verdict(drawn)), logits)[0]


ESTIMATORS = {
    "plain, verdict 0 or 1": (plain_loss, accepted),
    "plain, marks 5 or 6": (plain_loss, marks),
    "yours, marks 5 or 6": (score_function_loss, marks),
}

# %%
COUNTS = choose(smoke=(8, 32), cpu=(8, 32, 128, 512, 2048), gpu=(8, 32, 128, 512, 2048))
REPEATS = choose(smoke=20, cpu=200, gpu=200)
stream = torch.Generator().manual_seed(seed())
errors, offsets = {}, {}
for name, (loss_of, verdict) in ESTIMATORS.items():
    errors[name] = []
    for count in COUNTS:
        estimates = torch.stack([estimate(loss_of, verdict, count, stream) for _ in range(REPEATS)])
        squares = (estimates - truth).square().sum((1, 2, 3))
        errors[name].append((squares.mean().sqrt() / truth.norm()).item())
    offsets[name] = ((estimates.mean(0) - truth).norm() / truth.norm()).item()
    print(f"{name:22} error {errors[name][0]:.2f} at n = {COUNTS[0]}, {errors[name][-1]:.3f} at n = {COUNTS[-1]}")


# %% [markdown]
# By enumeration the error can also be *known*: the variance of one sample, exactly, over $n$. Dots on dashes are
# experiment on theory.


# %%
def exact_error(verdict: Callable, baseline: float) -> float:
    """Relative error of the estimate from a single sample, by enumeration."""
    present = torch.nn.functional.pad(episodes[:, :-1], (1, 0))
    choices = base_logits.softmax(-1)[torch.arange(4), present]  # [episodes, steps, states]
    chosen = choices.gather(-1, episodes[..., None])[..., 0]
    lengths = (1 - 2 * chosen + choices.square().sum(-1)).sum(1)  # |score|^2: a one-hot less a softmax, step by step
    second = (probabilities * (verdict(episodes) - baseline) ** 2 * lengths).sum()
    return ((second - truth.square().sum()).sqrt() / truth.norm()).item()


# %%
average = (probabilities * marks(episodes)).sum().item()
known = [exact_error(accepted, 0.0), exact_error(marks, 0.0), exact_error(marks, average)]
figure = Figure(figsize=(6.4, 3.6))
axis = figure.subplots()
for colour, (name, measured), one in zip(OTHERS, errors.items(), known, strict=False):
    axis.loglog(COUNTS, measured, "o", color=colour, label=name)
    axis.loglog(COUNTS, [one / count**0.5 for count in COUNTS], "--", color=colour, linewidth=1)
axis.set(xlabel="samples n", ylabel="error / length of the exact gradient")
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Error of three estimators against the number of samples, on logarithmic axes: three parallel "
            "lines that fall as one over the root of n; the plain one on marks is highest, yours lowest.")  # fmt: skip

# %%
slopes = {}
for name, measured in errors.items():
    fit = torch.tensor([COUNTS, measured]).log()
    slopes[name] = ((fit - fit.mean(1, keepdim=True)).prod(0).sum() / (fit[0] - fit[0].mean()).square().sum()).item()
    floor = measured[-1] / REPEATS**0.5
    print(f"{name:22} slope {slopes[name]:+.2f}; mean of all estimates off by {offsets[name]:.4f}, chance: {floor:.4f}")
print(f"variance saved by the baseline on marks: {known[1] ** 2 / known[2] ** 2:.0f} times")

# %% [markdown]
# Three lessons. The error falls as $1/\sqrt n$ (a slope of $-\tfrac12$): four times the samples for half the error.
# Every one of the three is **unbiased**: the mean of all estimates is off by no more than chance. And a baseline costs
# nothing and saves most of the noise; without it the mean examiner's 5 marks bury the message.
#
# ### Train with it
#
# The same loss, a few hundred times, on the chain. A leash keeps the policy near the base: each episode pays
# $\beta(\log p_\theta - \log p_{\text{base}})$. What the best possible policy is, we know in closed form: the base,
# *tilted* by the reward, $p^* \propto p_{\text{base}}\, e^{r/\beta}$.

# %%
BETA = 0.3
optimum = tilted(probabilities, accepted(episodes), BETA)


def examine(logits: Tensor) -> tuple[float, float]:
    """Exact expected reward of a policy, and what it aims at: reward minus BETA times its KL to the base."""
    now = chain_distribution(logits.detach())[1]
    reward = (now * accepted(episodes)).sum().item()
    return reward, reward - BETA * exact_kl(now, probabilities).item()


best = (optimum * accepted(episodes)).sum().item()
best_aim = best - BETA * exact_kl(optimum, probabilities).item()
print(f"base: reward {examine(base_logits)[0]:.3f}; best with the leash: {best:.3f}, aim {best_aim:.3f}")


# %%
def train(loss_of: Callable, iterations: int, count: int = 64) -> tuple[Tensor, list[tuple[float, float]]]:
    """Climb by estimates from `count` samples each; returns the logits and the exact scores on the way."""
    stream = torch.Generator().manual_seed(seed())
    logits = base_logits.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.05)
    history = [examine(logits)]
    for _ in range(iterations):
        drawn, new = sample_chain(logits, count, stream)
        steps, before = torch.arange(4), torch.nn.functional.pad(drawn[:, :-1], (1, 0))
        old = base_logits.log_softmax(-1)[steps, before, drawn].sum(1)
        loss = loss_of(new, marks(drawn) - BETA * (new - old).detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(examine(logits))
    return logits.detach(), history


# %%
ITERATIONS = choose(smoke=20, cpu=600, gpu=600)
trained, history = train(score_function_loss, ITERATIONS)
_, without_baseline = train(plain_loss, ITERATIONS)
viz.curves(
    {
        "yours": (range(ITERATIONS + 1), [aim for _, aim in history]),
        "plain, without a baseline": (range(ITERATIONS + 1), [aim for _, aim in without_baseline]),
    },
    levels={"optimum, by enumeration": best_aim, "base": examine(base_logits)[1]},
    xlabel="iteration (64 episodes each)",
    ylabel="reward - 0.3 KL, exact",
    alt=f"The aim rises from {history[0][1]:.2f} to {history[-1][1]:.2f}, towards the optimum {best_aim:.2f}; without "
    f"a baseline it ends at {without_baseline[-1][1]:.2f}.",
)


# %%
def last_grey(weights: Tensor) -> Tensor:
    """Distribution of the last state, from dark to bright."""
    return torch.zeros(9).double().index_add(0, episodes[:, -1], weights)[greys.argsort()]


final = chain_distribution(trained)[1]
bars = {"base": probabilities, "trained by you": final, "optimum": optimum}
figure = Figure(figsize=(6.4, 2.8))
axis = figure.subplots()
for number, (name, weights) in enumerate(bars.items()):
    axis.bar(greys.sort().values + 0.1 * (number - 1), last_grey(weights), 0.1, label=name, color=OTHERS[number])
axis.set(xlabel="grey at the end", ylabel="probability")
axis.legend(frameon=False, fontsize=8)
print(f"reward {history[0][0]:.3f} -> {history[-1][0]:.3f} (optimum {best:.3f}); "
      f"KL of the trained policy from the optimum: {exact_kl(final, optimum).item():.4f} nats")  # fmt: skip
viz.picture(figure, alt="Probabilities of nine greys: the base peaks at black and at white; the trained policy and "
            "the optimum lie on each other, with nearly all at white.")  # fmt: skip

# %% [markdown]
# Not just *some* white pixels: the whole distribution that theory names. The loss knew nothing of pixels. From here to
# a text-to-image model only the policy changes; lab 09 puts your rollout and this loss on it, and lab 12 replaces the
# mean of the others by that of a group.

# %% [markdown] goal="7.6"
# *For the curious.* The first of these methods, DDPO, samples by **DDIM** with a noise $\eta$. Its formulas are
# written for another road from picture to noise, $y = \sqrt{\bar\alpha}\,x_0 + \sqrt{1-\bar\alpha}\,x_1$. Our model
# can walk it, because $y$ is just our $x$, rescaled: with $c(\sigma) = \sqrt{(1-\sigma)^2 + \sigma^2}$,
#
# $$y = \frac{x}{c(\sigma)}, \qquad \bar\alpha(\sigma) = \frac{(1-\sigma)^2}{c(\sigma)^2}.$$
#
# On that road DDIM's step from $\bar\alpha_t$ to $\bar\alpha_s$ (here $\sigma$ to $\sigma'$) has
#
# $$\text{var}_y = \eta^2\,\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\Big(1 - \frac{\bar\alpha_t}{\bar\alpha_s}\Big), \qquad
# \text{mean}_y = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s-\text{var}_y}\;\hat x_1 .$$
#
# Return mean and standard deviation *in our units*: carried back by $c(\sigma')$. The estimates are
# $\hat x_0 = x - \sigma v$ and $\hat x_1 = x + (1-\sigma)v$.


# %% exercise={"id": "7.6", "name": "ddim_step", "title": "DDIM on our road (for the curious)", "points": 3, "minutes": 15, "difficulty": 4, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def ddim_step(
    x: Float[Tensor, "batch ..."],
    velocity: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    eta: Float[Tensor, ""],
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
    """DDIM's step with noise eta, by a change of variables, in the flow's own units."""
    ### BEGIN SOLUTION
    before, after = [(1 - s) ** 2 / ((1 - s) ** 2 + s**2) for s in (sigma, sigma_next)]
    variance = eta**2 * (1 - after) / (1 - before) * (1 - before / after)
    kept = torch.sqrt((1 - after - variance).clamp_min(0))
    mean = after.sqrt() * (x - sigma * velocity) + kept * (x + (1 - sigma) * velocity)
    scale = torch.sqrt((1 - sigma_next) ** 2 + sigma_next**2)
    return scale * mean, scale * torch.sqrt(variance)
    ### END SOLUTION


# %% [markdown] hints="7.6"
# <details><summary>Hint 1: two numbers first</summary>
#
# Compute the share of the signal at both levels. All else follows from them.
#
# </details>
# <details><summary>Hint 2: there and back</summary>
#
# The estimates of picture and noise are the same on both roads, so only the result is carried back. Both the mean and
# the deviation scale.
#
# </details>
# <details><summary>Hint 3: pure noise</summary>
#
# At sigma = 1 and eta = 1 all of the noise is fresh and nothing of the old is kept. Rounding may leave a tiny negative
# number under the root.
#
# </details>

# %% check="7.6"
check("7.6", ddim_step)

# %% [markdown]
# Your second transition, on the same model: a library policy that steps by *your* function. At $\eta = 1$ the sampler
# forgets its first noise, as far as it can; at $\eta = 0$ it is the ODE again.

# %%
etas = (0.0, 0.5, 1.0)
rows = [
    DenoisingPolicy(base, partial(ddim_step, eta=torch.tensor(eta)), steps=STEPS).rollout(PROMPTS[:4], seeds=SEEDS[:4])
    for eta in etas
]
print("eta 0 against the ODE:", (rows[0].samples - by_ode.samples[:4]).abs().max().item())
viz.sample_sheet(
    torch.cat([row.samples for row in rows]).cpu(),
    [f"eta {eta}: {prompt}" for eta in etas for prompt in PROMPTS[:4]],
    columns=4,
    alt="Three rows of four pictures by DDIM with eta 0, 0.5 and 1; the lower the row, the further from the ODE's.",
)

# %% [markdown]
# ## What to take away
#
# - A sampler with noise is a policy: state, action, density. The verdict comes at the end.
# - Noise needs a correction of the drift; then the pictures' distribution stays and only the path changes.
# - No noise, no density. Ask which steps are actions before you ask how likely they were.
# - Round, store, judge, in this order. Then the replayed ratio is exactly 1, and every deviation from 1 means
# learning.
# - REINFORCE is exact on average, and noisy; a baseline is free.
#
# The cell below writes down what happened here.

# %%
record = write_record(
    "07-denoising-mdp",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "largest_ratio_error": {name: value for name, value in faults.items() if name.startswith("right")},
        "largest_log_ratio_nats": {name: value for name, value in faults.items() if not name.startswith("right")},
        "pixel_spread_of_branches": {str(t): value for t, value in still_open.items()},
        "spread_after_steps": {str(steps): row for steps, row in spreads.items()},
        "estimator_error": {name: dict(zip(map(str, COUNTS), row, strict=True)) for name, row in errors.items()},
        "estimator_error_exact_one_sample": dict(zip(errors, known, strict=True)),
        "estimator_slope": slopes,
        "reward": {"before": history[0][0], "after": history[-1][0], "optimum": best},
        "aim": {"before": history[0][1], "after": history[-1][1], "optimum": best_aim},
        "kl_to_optimum": exact_kl(final, optimum).item(),
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/07.json")
