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
# # Lab 06: how does noise become a picture?
#
# Shake a box of sand, and out comes a drawing. That is what the generators of today do: they begin with noise and end
# with a picture, and nobody has told them how to draw. *What do they learn, and is it what we want?*
#
# You will build such a generator from nothing: the road from picture to noise, the loss, the sampler. First for points
# of the plane, where you can see everything and know the right answer, then for handwritten digits, where you cannot.
# At the end you meet the text-to-image model of the coming labs, and its weakness. Chapter 06 is the text beside it.
#
# Seven exercises, about 85 minutes. The lab has no real model: the profile `gpu` does the same with larger counts, on
# the CUDA device where there is one, and goes through it with the small counts of `smoke` where there is none.

# %%
from collections.abc import Callable

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.generators import evaluate, load
from pixelpolicy.generators.prediction import flow_to_vp, vp_to_flow
from pixelpolicy.generators.small import NO_LABEL, DigitNet, PointNet, WaistNet, fit
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import digits, shapes

# %% [markdown]
# ## 1. A road from pictures to noise
#
# Our first "pictures" have two numbers each: they are points, and the pictures that exist lie on a spiral. It is made
# of 48 soft dots, so that everything about it has a formula.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
TURN = torch.linspace(0.2, 1, 48)
CENTRES = 1.5 * TURN[:, None] * torch.stack([torch.cos(10 * TURN), torch.sin(10 * TURN)], 1)
SPREAD = 0.06
stream = torch.Generator().manual_seed(seed())


def draw_points(count: int) -> Float[Tensor, "count 2"]:
    """Points of the spiral."""
    dots = CENTRES[torch.randint(len(CENTRES), (count,), generator=stream)]
    return dots + SPREAD * torch.randn(count, 2, generator=stream)


# %% [markdown] goal="6.1"
# Take a picture $x_0$ and noise $x_1$ of the same shape, and draw a straight road between them. At the *noise level*
# $\sigma$ you have gone that share of the way:
#
# $$x = (1-\sigma)\,x_0 + \sigma\,x_1 .$$
#
# At $\sigma = 0$ you are at the picture, at $\sigma = 1$ in the noise. How fast does $x$ move when $\sigma$ grows? That
# **velocity** $v = dx/d\sigma$ is the same all along the road. Return the state and the velocity. Each sample has a
# level of its own; the samples may have any shape.


# %% exercise={"id": "6.1", "name": "mix", "title": "The road and its velocity", "points": 1, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def mix(
    x0: Float[Tensor, "batch ..."], x1: Float[Tensor, "batch ..."], sigma: Float[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """The state at level sigma between picture x0 and noise x1, and the velocity there."""
    ### BEGIN SOLUTION
    sigma = sigma.reshape(-1, *[1] * (x0.dim() - 1))
    return (1 - sigma) * x0 + sigma * x1, x1 - x0
    ### END SOLUTION


# %% [markdown] hints="6.1"
# <details><summary>Hint 1: the velocity</summary>
#
# Differentiate the formula with respect to sigma, with both ends fixed. No sigma is left.
#
# </details>
# <details><summary>Hint 2: one level a sample</summary>
#
# `sigma` has the shape [batch], `x0` may have [batch, 1, 16, 16]. Torch lines shapes up from the right, so sigma needs
# ones at its end.
#
# </details>
# <details><summary>Hint 3: ones at the end</summary>
#
# `sigma.reshape(-1, 1, 1, 1)` does it for pictures. For any shape, build the ones from `x0.dim()`.
#
# </details>

# %% check="6.1"
check("6.1", mix)

# %%
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
figure = Figure(figsize=(9, 2.1))
x0, x1 = draw_points(3000), torch.randn(3000, 2, generator=stream)
for axis, level in zip(figure.subplots(1, 5), LEVELS, strict=True):
    axis.scatter(*mix(x0, x1, torch.full((3000,), level))[0].T, s=2, linewidths=0, color=OTHERS[0])
    axis.set(title=f"sigma {level}", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), xticks=[], yticks=[], aspect="equal")
viz.picture(figure, alt="Five clouds of points: a spiral at sigma 0, blurred at 0.25, hardly to be seen at 0.5, and a "
            "round cloud of noise at sigma 1.")  # fmt: skip

# %% [markdown]
# Going to the right is easy: you just did it. A generator must go to the **left**, from noise to the spiral, and there
# it does not know $x_0$.
#
# ## 2. What there is to learn
#
# Many roads run through the same $x$, each to another picture. Knowing only $x$ and $\sigma$, the best guess is their
# *average* velocity, $v(x, \sigma) = \mathbb E[x_1 - x_0 \mid x]$. And an average is what you get by least squares: let
# a network guess the velocity of random roads, and punish the squared error. That is all of **flow matching** (Lipman
# and colleagues, 2022).

# %% [markdown] goal="6.2"
# Write the loss: the mean squared error, over all numbers, of `velocity(x, sigma)` against the true velocity of the
# road. Your `mix` gives both.


# %% exercise={"id": "6.2", "name": "flow_matching_loss", "title": "The loss of flow matching", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def flow_matching_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """Mean squared error of a velocity on the roads from x0 to x1, at one level each."""
    ### BEGIN SOLUTION
    x, target = mix(x0, x1, sigma)
    return (velocity(x, sigma) - target).square().mean()
    ### END SOLUTION


# %% [markdown] hints="6.2"
# <details><summary>Hint 1: what the network sees</summary>
#
# The state on the road and its level. Neither end alone: it would be told the answer.
#
# </details>
# <details><summary>Hint 2: what it should say</summary>
#
# The second thing that `mix` returns.
#
# </details>
# <details><summary>Hint 3: two lines</summary>
#
# First `x, target = mix(...)`. Then the difference, squared, averaged over everything.
#
# </details>

# %% check="6.2"
check("6.2", flow_matching_loss)


# %% [markdown]
# Much is decided in the middle of the road, so we draw most levels there, from a *logistic normal* as Stable Diffusion
# 3 does: a bell curve squeezed into (0, 1). `fit` descends *your* loss, with the usual aids: a warm-up, a falling rate,
# and weights averaged over time.


# %%
def draw_levels(count: int) -> Float[Tensor, "count"]:
    """Noise levels to train at, most of them in the middle."""
    return torch.randn(count, generator=stream).sigmoid()


def point_loss(velocity: Callable, count: int = 512) -> Float[Tensor, ""]:
    """Your loss on fresh points, noise and levels."""
    return flow_matching_loss(velocity, draw_points(count), torch.randn(count, 2, generator=stream), draw_levels(count))


# %%
torch.manual_seed(seed())
flow = PointNet()
POINT_STEPS = choose(smoke=60, cpu=2500, gpu=4000)
with timer() as point_clock:
    history = fit(flow, lambda: point_loss(flow), POINT_STEPS, rate=5e-3, decay=0.995)
print(f"loss {history[0]:.3f} -> {np.mean(history[-50:]):.3f} in {point_clock.cpu_seconds:.0f} CPU seconds")

# %% [markdown]
# The loss stays far above 0. Is the network bad? Ask what a *perfect* one would get. For dots everything is Gaussian,
# so the averages have formulas; they hold for any weights $(a, b)$ of picture and noise:


# %%
def exact_ends(z: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """E[x0 | z] and E[x1 | z] for the spiral, where z = a x0 + b x1."""
    a, b = a[..., None], b[..., None]
    variance = (a * SPREAD) ** 2 + b**2
    gap = z[:, None] - a * CENTRES
    chances = (-gap.square().sum(-1, keepdim=True) / (2 * variance)).softmax(1)
    picture = CENTRES + a * SPREAD**2 / variance * gap
    return (chances * picture).sum(1), (chances * b / variance * gap).sum(1)


def exact_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect network would answer."""
    sigma = torch.as_tensor(sigma).expand(len(x))[:, None]
    x0, x1 = exact_ends(x, 1 - sigma, sigma)
    return x1 - x0


# %%
with torch.no_grad():
    learnt_loss, least_loss = (point_loss(v, 50_000).item() for v in (flow, exact_velocity))
print(f"your network {learnt_loss:.3f}; no network can come below {least_loss:.3f}")

# %% [markdown]
# So most of the loss is not the network's fault: it is the spread of the roads through one point. *You cannot see from
# this loss how good the pictures are.* Keep that in mind; it comes back at the end.

# %%
figure = Figure(figsize=(9, 3))
grid = torch.cartesian_prod(torch.linspace(-2.2, 2.2, 17), torch.linspace(-2.2, 2.2, 17))
for axis, level in zip(figure.subplots(1, 3), (0.9, 0.5, 0.1), strict=True):
    with torch.no_grad():
        arrows = -flow(grid, torch.full((len(grid),), level))
    axis.scatter(*mix(x0, x1, torch.full((3000,), level))[0].T, s=1.5, linewidths=0, color=OTHERS[4])
    axis.quiver(*grid.T, *arrows.T, color=OTHERS[0], scale=40, width=0.004)
    axis.set(title=f"sigma {level}", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), xticks=[], yticks=[], aspect="equal")
viz.picture(figure, alt="The learnt velocity, turned towards the picture, as arrows at three levels: at 0.9 all arrows "
            "point to the middle, at 0.1 each points to the nearest arm of the spiral.")  # fmt: skip

# %% [markdown]
# ## 3. Ride along

# %% [markdown] goal="6.3"
# Now the way back. Start in the noise at $\sigma = 1$ and follow the velocity *downwards*, in small straight steps
# (Euler's method for an ordinary differential equation, an ODE):
#
# $$x' = x + (\sigma' - \sigma)\,v(x, \sigma), \qquad \sigma' < \sigma .$$
#
# `sigmas` holds all levels, from high to low. Return all states, the start too: `[steps + 1, batch, ...]`.


# %% exercise={"id": "6.3", "name": "follow", "title": "Follow the flow", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def follow(
    velocity: Callable[[Tensor, Tensor], Tensor], start: Float[Tensor, "batch ..."], sigmas: Float[Tensor, "steps+1"]
) -> Float[Tensor, "steps+1 batch ..."]:
    """The states of Euler's method along a velocity, one at each level."""
    ### BEGIN SOLUTION
    states = [start]
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        states.append(states[-1] + (following - sigma) * velocity(states[-1], sigma))
    return torch.stack(states)
    ### END SOLUTION


# %% [markdown] hints="6.3"
# <details><summary>Hint 1: pairs of levels</summary>
#
# `zip(sigmas[:-1], sigmas[1:])` gives each level with the one after it.
#
# </details>
# <details><summary>Hint 2: where to ask</summary>
#
# Ask for the velocity at the state and level where you *are*, then step. The step is negative by itself.
#
# </details>
# <details><summary>Hint 3: keep what you pass</summary>
#
# A list that begins with the start. Each turn adds the last entry plus the step; `torch.stack` makes one tensor of it.
#
# </details>

# %% check="6.3"
check("6.3", follow)


# %%
def at(network: Callable) -> Callable:
    """A network for one level that all samples share, without gradient."""

    @torch.no_grad()
    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        return network(x, torch.as_tensor(sigma).expand(len(x)))

    return velocity


def frame(points: Tensor) -> np.ndarray:
    """A cloud of points as a picture."""
    counts = np.histogram2d(*points.numpy().T[::-1], bins=150, range=[[-2.5, 2.5]] * 2)[0]
    shown = colormaps["magma"](1 - np.exp(-counts[::-1] / 2))[..., :3]
    return (255 * shown).astype(np.uint8).repeat(2, 0).repeat(2, 1)


# %%
CLOUD = choose(smoke=500, cpu=8000, gpu=20_000)
noise = torch.randn(CLOUD, 2, generator=stream)
states = follow(at(flow), noise, torch.linspace(1, 0, 61))
viz.film([frame(cloud) for cloud in states], fps=20, alt="A round cloud of bright points contracts, tears open and "
         "winds itself into a spiral.")  # fmt: skip

# %% [markdown]
# Noise has become the spiral, and no point was told where to go. How many steps does it take? To measure it, compare
# the clouds' shadows on 32 lines: sort the shadows of both, and average how far apart they are.


# %%
def distance(one: Float[Tensor, "count 2"], other: Float[Tensor, "count 2"]) -> float:
    """How far apart two clouds of equal size are, over 32 lines (a sliced Wasserstein distance)."""
    angles = torch.arange(32) * torch.pi / 32
    lines = torch.stack([angles.cos(), angles.sin()])
    return ((one @ lines).sort(0).values - (other @ lines).sort(0).values).abs().mean().item()


real = draw_points(CLOUD)
by_chance = distance(draw_points(CLOUD), real)
STEP_COUNTS = (1, 2, 4, 8, 16, 64)
step_distances = {
    name: [distance(follow(v, noise, torch.linspace(1, 0, n + 1))[-1], real) for n in STEP_COUNTS]
    for name, v in {"your network": at(flow), "exact velocity": exact_velocity}.items()
}

# %%
viz.curves(
    {name: (np.log2(STEP_COUNTS), row) for name, row in step_distances.items()},
    levels={"two draws of the real spiral": by_chance},
    xlabel="steps, as a power of 2",
    ylabel="distance from the spiral",
    alt=f"Distance against steps: with one step {step_distances['your network'][0]:.2f}, with 64 steps "
    f"{step_distances['your network'][-1]:.3f} for the network and {step_distances['exact velocity'][-1]:.3f} for the "
    "exact velocity; two real draws are about as far apart.",
)

# %% [markdown]
# One step leads to the average of everything. The roads were straight, but the *average* velocity bends as the cloud
# sorts itself, and a long step cuts the bends. More steps mend that; what then remains is the network's own error.
#
# ## 4. Three things to predict, two roads
#
# Before flow matching there was **diffusion** (Sohl-Dickstein 2015; DDPM, 2020). It is the same idea with other habits.
# Its road from picture to noise is not straight, it is an arc:
#
# $$y = \sqrt{\bar\alpha}\;x_0 + \sqrt{1-\bar\alpha}\;x_1 .$$
#
# The squares of the two weights add up to 1, so that the variance stays put (hence *VP*, variance preserving).
# Here are the weights $(a, b)$ of picture and noise on both roads:

# %%
figure = Figure(figsize=(4.2, 3.4))
axis = figure.subplots()
quarter = torch.linspace(0, torch.pi / 2, 60)
axis.plot([1, 0], [0, 1], color=OTHERS[0], label="flow: a + b = 1")
axis.plot(quarter.cos(), quarter.sin(), color=OTHERS[2], label="diffusion (VP): a² + b² = 1")
for angle in quarter[5:-1:9]:
    a, b = angle.cos(), angle.sin()
    axis.plot([a / (a + b), a], [b / (a + b), b], color="#999999", linewidth=0.8, marker="o", markersize=3)
axis.set(xlabel="a, the weight of the picture", ylabel="b, the weight of the noise", aspect="equal")
axis.legend(frameon=False, fontsize=8, loc="lower left")
viz.picture(figure, alt="A straight line and a quarter of a circle from (1, 0), all picture, to (0, 1), all noise. "
            "Grey spokes from the origin join points with the same mixture on both.")  # fmt: skip

# %% [markdown] goal="6.4"
# The spokes join states with the *same mixture*: they differ by a factor only. A network that knows one road therefore
# knows the other.
#
# The second habit: what the network says. DDPM's predicts the **noise** (epsilon-prediction), others the **picture**
# (x-prediction), ours the **velocity** $v = x_1 - x_0$. With $z = a\,x_0 + b\,x_1$ known, each of them fixes both ends.
# Return $\hat x_0$ and $\hat x_1$ for any of the three, on any road. Where you must divide by $a$ or by $b$ alone,
# divide by at least 0.05, for at the ends of the road a weight is 0. (`kind` is "picture", "noise" or "velocity".)


# %% exercise={"id": "6.4", "name": "endpoints", "title": "Picture, noise, velocity", "points": 3, "minutes": 20, "difficulty": 3, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def endpoints(
    prediction: Float[Tensor, "batch ..."],
    kind: str,
    z: Float[Tensor, "batch ..."],
    a: Float[Tensor, "..."],
    b: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """The picture and the noise that a prediction stands for, where z = a x0 + b x1."""
    ### BEGIN SOLUTION
    if kind == "picture":
        return prediction, (z - a * prediction) / b.clamp_min(0.05)
    if kind == "noise":
        return (z - b * prediction) / a.clamp_min(0.05), prediction
    return (z - b * prediction) / (a + b), (z + a * prediction) / (a + b)
    ### END SOLUTION


# %% [markdown] hints="6.4"
# <details><summary>Hint 1: two of the three are one line</summary>
#
# If the picture is predicted, only the noise is missing: solve z = a x0 + b x1 for x1. The same with the ends
# exchanged.
#
# </details>
# <details><summary>Hint 2: the velocity</summary>
#
# Put x1 = x0 + v into z = a x0 + b x1 and solve for x0. Then do the same for x1.
#
# </details>
# <details><summary>Hint 3: divisors</summary>
#
# `b.clamp_min(0.05)` is b, but never less than 0.05. For the velocity you divide by a + b, which is 1 on the straight
# road and more on the arc: never near 0, so it needs no floor.
#
# </details>

# %% check="6.4"
check("6.4", endpoints)


# %% [markdown]
# Put it to the test. Train a **true diffusion model**: on the arc, predicting noise, by DDPM's loss, with levels spread
# evenly over the quarter circle. Then ask it for a *velocity on the straight road*, by a change of variables and your
# `endpoints`, and let your own `follow` use it.


# %%
def draw_arc(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """States on the arc, their alpha_bar and the noise in them."""
    angle = torch.rand(count, 1, generator=stream) * torch.pi / 2
    x0, x1 = draw_points(count), torch.randn(count, 2, generator=stream)
    return angle.cos() * x0 + angle.sin() * x1, angle.cos().square()[:, 0], x1


def noise_loss(network: Callable, count: int = 512) -> Float[Tensor, ""]:
    """DDPM's simple loss (Ho and colleagues, 2020, equation 14)."""
    y, alpha_bar, x1 = draw_arc(count)
    return (network(y, alpha_bar) - x1).square().mean()


diffusion = PointNet()
arc_history = fit(diffusion, lambda: noise_loss(diffusion), POINT_STEPS, rate=5e-3, decay=0.995)


# %%
@torch.no_grad()
def borrowed_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """The flow's velocity, out of the diffusion model."""
    y, alpha_bar = flow_to_vp(x, torch.as_tensor(sigma))
    said = diffusion(y, alpha_bar.expand(len(y)))
    x0, x1 = endpoints(said, "noise", y, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
    return x1 - x0


borrowed = follow(borrowed_velocity, noise, torch.linspace(1, 0, 61))[-1]
print(f"distance from the spiral: flow model {distance(states[-1], real):.3f}, "
      f"diffusion model on the straight road {distance(borrowed, real):.3f}, by chance {by_chance:.3f}")  # fmt: skip

# %% [markdown]
# It works: diffusion and flow matching differ in their road and their habit of speech, not in what they know. What
# differs in practice is how *easy* each is to learn; section 8 measures that on digits.

# %% [markdown]
# ## 5. More than one way down

# %% [markdown] goal="6.5"
# The third habit: how to go back. DDPM's way has chance in it. **DDIM** has a dial for it, $\eta$: at 0 there is no
# chance, at 1 it is DDPM. From the level $\bar\alpha_t$ to the cleaner level $\bar\alpha_s$:
#
# $$\hat x_0 = \frac{y - \sqrt{1-\bar\alpha_t}\;\hat x_1}{\sqrt{\bar\alpha_t}}, \qquad
# \text{var} = \eta^2\,\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\Big(1-\frac{\bar\alpha_t}{\bar\alpha_s}\Big),$$
#
# $$\text{mean} = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s-\text{var}}\;\hat x_1 .$$
#
# Read it as a recipe: guess the picture, mix it anew at the next level, and of the noise that belongs there keep a part
# and draw the rest fresh. Return mean and **standard deviation**.


# %% exercise={"id": "6.5", "name": "ddim_step", "title": "A step of DDIM and DDPM", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def ddim_step(
    y: Float[Tensor, "batch ..."],
    noise: Float[Tensor, "batch ..."],
    alpha_bar: Float[Tensor, ""],
    alpha_bar_next: Float[Tensor, ""],
    eta: float,
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
    """Mean and standard deviation of the next state, given the predicted noise."""
    ### BEGIN SOLUTION
    picture = (y - torch.sqrt(1 - alpha_bar) * noise) / torch.sqrt(alpha_bar)
    variance = eta**2 * (1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_next)
    kept = torch.sqrt((1 - alpha_bar_next - variance).clamp_min(0))
    return torch.sqrt(alpha_bar_next) * picture + kept * noise, torch.sqrt(variance)
    ### END SOLUTION


# %% [markdown] hints="6.5"
# <details><summary>Hint 1: three lines</summary>
#
# The guess of the picture, the variance, then mean and deviation: the formulas in their order.
#
# </details>
# <details><summary>Hint 2: which level</summary>
#
# The guess belongs to the level where you are, the new mixture to the level where you go.
#
# </details>
# <details><summary>Hint 3: rounding</summary>
#
# On the last step, to alpha_bar_next = 1, no noise is kept: rounding may make the number under the root a hair
# negative, so `.clamp_min(0)` before the root. Return the root of the variance.
#
# </details>

# %% check="6.5"
check("6.5", ddim_step)

# %% [markdown] goal="6.6"
# There is a fourth way, by another thought (Song and colleagues, 2020). Adding noise in tiny portions is a *stochastic
# differential equation*, an SDE. Run it backwards, and it needs to know where the data are dense: the **score**, the
# slope of the log-density, which the predicted noise gives away: $s = -\hat x_1/\sqrt{1-\bar\alpha_t}$.
# With $\beta = \log(\bar\alpha_s/\bar\alpha_t)$, the amount of noise that this stretch of the road adds, one step back
# is
#
# $$\text{mean} = y + \beta\,\Big(\frac y2 + s\Big), \qquad \text{std} = \sqrt\beta .$$
#
# The half undoes the shrinking of the picture, the score takes noise away, and the deviation brings fresh noise.


# %% exercise={"id": "6.6", "name": "reverse_sde_step", "title": "A step of the reverse SDE", "points": 2, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def reverse_sde_step(
    y: Float[Tensor, "batch ..."],
    noise: Float[Tensor, "batch ..."],
    alpha_bar: Float[Tensor, ""],
    alpha_bar_next: Float[Tensor, ""],
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
    """Mean and standard deviation of one Euler-Maruyama step back along the VP road."""
    ### BEGIN SOLUTION
    score = -noise / torch.sqrt(1 - alpha_bar)
    beta = torch.log(alpha_bar_next / alpha_bar)
    return y + beta * (y / 2 + score), torch.sqrt(beta)
    ### END SOLUTION


# %% [markdown] hints="6.6"
# <details><summary>Hint 1: signs</summary>
#
# alpha_bar grows on the way to the picture, so beta is positive. The score is the noise with a minus: it points away
# from it.
#
# </details>
# <details><summary>Hint 2: the score's size</summary>
#
# The less noise there is, the steeper the density. That is what the division does.
#
# </details>
# <details><summary>Hint 3: a test in the head</summary>
#
# If the data are themselves standard normal, then the score is -y: the mean is y (1 - beta/2), the fresh variance is
# beta, and together they keep the variance 1, to first order.
#
# </details>

# %% check="6.6"
check("6.6", reverse_sde_step)


# %% [markdown]
# Four samplers, one model. To see the samplers' doing alone, they get the *exact* noise first. `walk` takes a step of
# your choice; the last one is without noise, for it would stay in the picture.


# %%
def walk(step: Callable, noise_at: Callable, y: Tensor, alpha_bars: Tensor) -> Tensor:
    """States [steps + 1, batch, ...] of a sampler on the arc, from noise to picture."""
    path = [y]
    for alpha_bar, following in zip(alpha_bars[:-1], alpha_bars[1:], strict=True):
        mean, std = step(path[-1], noise_at(path[-1], alpha_bar), alpha_bar, following)
        fresh = torch.randn(y.shape, generator=stream).to(y.device)
        path.append(mean + std * fresh if following < 1 else mean)
    return torch.stack(path)


def arc_levels(steps: int) -> Float[Tensor, "steps+1"]:
    """alpha_bar along the arc, from nearly pure noise to the picture."""
    return (torch.linspace(0.97, 0, steps + 1) * torch.pi / 2).cos().square()


SAMPLERS = {
    "DDIM (eta 0)": lambda *given: ddim_step(*given, 0.0),
    "DDPM (eta 1)": lambda *given: ddim_step(*given, 1.0),
    "reverse SDE": reverse_sde_step,
}


# %%
def exact_noise(y: Tensor, alpha_bar: Tensor) -> Tensor:
    """E[x1 | y] on the arc."""
    return exact_ends(y, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())[1]


@torch.no_grad()
def learnt_noise(y: Tensor, alpha_bar: Tensor) -> Tensor:
    """What your diffusion model says."""
    return diffusion(y, alpha_bar.expand(len(y)))


def sample(name: str, steps: int, noise_at: Callable = exact_noise) -> Tensor:
    """States by the name of a sampler; the ODE goes along the straight road and is carried over to the arc."""
    if name in SAMPLERS:
        return walk(SAMPLERS[name], noise_at, noise, arc_levels(steps))
    levels = arc_levels(steps)
    sigmas = (1 - levels).sqrt() / (levels.sqrt() + (1 - levels).sqrt())
    velocity = exact_velocity if noise_at is exact_noise else borrowed_velocity
    states = follow(velocity, vp_to_flow(noise, levels[0])[0], sigmas)
    return torch.stack([flow_to_vp(x, sigma)[0] for x, sigma in zip(states, sigmas, strict=True)])


# %%
NAMES, SHOWN = ("ODE (flow)", *SAMPLERS), (0, 100, 150, 180, 200)
paths = {name: sample(name, 200) for name in NAMES}
figure = Figure(figsize=(8.5, 6.6))
for row, (name, path) in zip(figure.subplots(4, 5), paths.items(), strict=True):
    for axis, step in zip(row, SHOWN, strict=True):
        axis.scatter(*path[step][:2500].T, s=2, linewidths=0, color=OTHERS[NAMES.index(name)])
        axis.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), xticks=[], yticks=[], aspect="equal")
        axis.set_title(f"step {step}" if name == NAMES[0] else "", fontsize=8)
    row[0].set_ylabel(name, fontsize=8)
viz.picture(figure, alt="Four rows of five clouds, one row a sampler, from noise to the spiral. Within each column the "
            "four clouds look alike.")  # fmt: skip

# %% [markdown]
# Read the columns: at every level the four crowds are the same cloud. The paths of single points have nothing in
# common, the **marginals** are shared. In numbers, against the true cloud at that level, and at the end for fewer
# steps:

# %%
lines = ["| | " + " | ".join(f"step {s} of 200" for s in SHOWN[1:]) + " |", "|---|" + "---|" * 4]
for name, path in paths.items():
    cells = []
    for step in SHOWN[1:]:
        a = arc_levels(200)[step].sqrt()
        truth = a * real + (1 - a**2).clamp_min(0).sqrt() * torch.randn(real.shape, generator=stream)
        cells.append(f"{distance(path[step], truth):.3f}")
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
Markdown("\n".join([*lines, "", f"Two draws of the spiral are {by_chance:.3f} apart."]))

# %%
FEW = (5, 10, 25, 50, 200)
ends = {name: [distance(sample(name, n)[-1], real) for n in FEW] for name in NAMES}
learnt_ends = {name: distance(sample(name, 50, learnt_noise)[-1], real) for name in NAMES}
lines = ["| | " + " | ".join(f"{n} steps" for n in FEW) + " | your network, 50 steps |", "|---|" + "---|" * 6]
for name, row in ends.items():
    lines.append(f"| {name} | " + " | ".join(f"{d:.3f}" for d in row) + f" | {learnt_ends[name]:.3f} |")
Markdown("\n".join(lines))

# %% [markdown]
# The first two rows are equal: DDIM without chance *is* the ODE, in other coordinates. With many steps all four agree;
# with few, each errs in its own way. Why would anyone want chance on the way, then? Because a step with chance in it
# has a *density*: it can be made more or less likely. From lab 07 on, everything rests on that.
#
# ## 6. Digits
#
# The same functions of yours, now on real pictures: 5,000 handwritten digits, 16x16 pixels. A fifth is held out. To
# judge what you draw, there is a reader: a small network fitted to the other four fifths.

# %%
pictures, labels = (torch.from_numpy(part).to(device) for part in digits.load("train"))
reader_scores = digits.measure(*digits.load("held-out"))
print(f"{len(pictures)} digits to train on; the reader reads {reader_scores['accuracy']:.1%} of 1,000 it never saw")


def sheet(pictures: Tensor, titles: list[str], alt: str, columns: int = 10) -> viz.Picture:
    """Digits in a grid."""
    shown = pictures.float().cpu().expand(-1, 3, -1, -1)
    return viz.sample_sheet(shown, titles, columns=columns, titles=any(titles), alt=alt, size=0.8)


first = torch.cat([pictures[labels == digit][:2] for digit in range(10)]).view(10, 2, 1, 16, 16).transpose(0, 1)
sheet(first.flatten(0, 1), [""] * 20, "Two rows of handwritten digits, 0 to 9, white on black.")

# %% [markdown]
# The network is told *which* digit to draw. In one of ten cases it is told nothing (`NO_LABEL`): this **prompt
# dropout** teaches it digits in general as well, and section 7 needs both.
#
# And it predicts the *picture*, which your `endpoints` turns into a velocity for your loss.


# %%
def velocity_of(network: DigitNet, kind: str) -> Callable:
    """(x, sigma, labels) -> velocity, whatever the network predicts; sigma is a number or has one entry a sample."""

    def velocity(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        level = torch.as_tensor(sigma, device=x.device).expand(len(x))
        b = level[:, None, None, None]
        x0, x1 = endpoints(network(x, level, labels), kind, x, 1 - b, b)
        return x1 - x0

    return velocity


def digit_loss(velocity: Callable, count: int = 64) -> Float[Tensor, ""]:
    """Your loss on random digits, with prompt dropout."""
    rows = torch.randint(len(pictures), (count,), generator=stream)
    x1 = torch.randn(count, *pictures.shape[1:], generator=stream).to(device)
    dropped = (torch.rand(count, generator=stream) < 0.1).to(device)
    told = labels[rows].masked_fill(dropped, NO_LABEL)
    return flow_matching_loss(lambda x, s: velocity(x, s, told), pictures[rows], x1, draw_levels(count).to(device))


# %%
torch.manual_seed(seed())
painter = DigitNet().to(device)
draw_digit = velocity_of(painter, "picture")
DIGIT_STEPS = choose(smoke=8, cpu=2000, gpu=8000)
with timer() as digit_clock:
    digit_history = fit(painter, lambda: digit_loss(draw_digit), DIGIT_STEPS, rate=3e-3)
print(f"{sum(p.numel() for p in painter.parameters()) / 1e6:.2f}M parameters, {DIGIT_STEPS} steps, loss "
      f"{np.mean(digit_history[:5]):.2f} -> {np.mean(digit_history[-100:]):.3f}, "
      f"{digit_clock.cpu_seconds:.0f} CPU seconds, {digit_clock.seconds:.0f} s")  # fmt: skip

# %%
EACH = choose(smoke=2, cpu=50, gpu=100)
wanted = torch.arange(10, device=device).repeat(EACH)
start = torch.randn(len(wanted), 1, 16, 16, generator=stream).to(device)
TWENTY = torch.linspace(1, 0, 21)


@torch.no_grad()
def paint(velocity: Callable, sigmas: Tensor = TWENTY) -> Tensor:
    """All states of your sampler, for the digits wanted."""
    return follow(lambda x, sigma: velocity(x, sigma, wanted), start, sigmas.to(device))


drawn = paint(draw_digit)
plain = digits.measure(drawn[-1], wanted.cpu())
print(f"recognised: {plain['accuracy']:.1%} of {len(wanted)} (standard error {plain['accuracy_se']:.1%})")

# %%
tiles = drawn[:, :20].clamp(-1, 1).cpu().view(21, 2, 10, 16, 16).transpose(2, 3).reshape(21, 32, 160)
frames = (127.5 * (tiles.numpy() + 1)).astype(np.uint8).repeat(4, 1).repeat(4, 2)[..., None].repeat(3, 3)
viz.film(frames, fps=8, alt="Two rows of ten squares of noise turn, step by step, into the digits 0 to 9.")

# %% [markdown]
# No database is searched: these digits were never written. Or were they? For each drawn digit, look for the nearest
# picture of the training set, and compare with how near *real* unseen digits come.


# %%
def nearest(some: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (per pixel) and number of the nearest picture trained on."""
    gaps = torch.cdist(some.flatten(1), pictures.flatten(1)) / 16
    return gaps.min(1)


held_out = torch.from_numpy(digits.load("held-out")[0]).to(device)
own_gap, own_nearest = nearest(drawn[-1].clamp(-1, 1))
real_gap = nearest(held_out)[0]
print(
    f"nearest training picture: {own_gap.median():.3f} for drawn digits, {real_gap.median():.3f} for unseen real ones"
)
pairs = torch.cat([drawn[-1][:10].clamp(-1, 1), pictures[own_nearest[:10]]])
sheet(
    pairs, [""] * 20, "Above, ten drawn digits; below each, the nearest picture of the training set: alike, not equal."
)


# %% [markdown]
# Your samplers with chance in them draw digits too: the noise that they need is $\hat x_1 = x + (1-\sigma)v$.


# %%
@torch.no_grad()
def digit_noise(y: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise in a state on the arc, by the flow model."""
    x, sigma = vp_to_flow(y, alpha_bar)
    return x + (1 - sigma) * draw_digit(x, sigma, wanted)


by_sampler = {"ODE": drawn[-1]}
for name, step in SAMPLERS.items():
    by_sampler[name] = walk(step, digit_noise, start, arc_levels(choose(smoke=4, cpu=40, gpu=100)).to(device))[-1]
sampler_scores = {name: digits.measure(some, wanted.cpu()) for name, some in by_sampler.items()}
for name, scores in sampler_scores.items():
    print(f"{name:13} recognised {scores['accuracy']:.1%}, diversity {scores['diversity']:.2f}")
print(f"{'real, unseen':13} recognised {reader_scores['accuracy']:.1%}, diversity {reader_scores['diversity']:.2f}")

# %%
sheet(torch.cat([some[:10] for some in by_sampler.values()]).clamp(-1, 1), [""] * 40,
      "Four rows of digits 0 to 9, by the ODE, DDIM, DDPM and the reverse SDE, from the same first noise: the first "
      "two rows nearly equal, the others different hands.")  # fmt: skip

# %% [markdown]
# ## 7. Listen more closely

# %% [markdown] goal="6.7"
# Some digits cannot be read. Your model knows two velocities: with the label, and without. Their difference is what
# *the label* asks for. **Classifier-free guidance** (Ho and Salimans, 2022) goes further in that direction than the
# model itself would:
#
# $$v = v_\text{without} + w\,(v_\text{with} - v_\text{without}).$$
#
# $w = 1$ is the plain model. `velocity(x, sigma, labels)` is the model; the label `NO_LABEL` (10) stands for none.


# %% exercise={"id": "6.7", "name": "guided", "title": "Guidance", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.policies", "pixelpolicy.generators.prediction"]}
def guided(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, ""],
    labels: Int[Tensor, "batch"],
    scale: float,
) -> Float[Tensor, "batch ..."]:
    """The velocity, pushed towards what the labels ask for."""
    ### BEGIN SOLUTION
    without = velocity(x, sigma, torch.full_like(labels, NO_LABEL))
    return without + scale * (velocity(x, sigma, labels) - without)
    ### END SOLUTION


# %% [markdown] hints="6.7"
# <details><summary>Hint 1: ask twice</summary>
#
# The same x and sigma, once with the labels, once with a tensor of the same shape that holds only `NO_LABEL`.
#
# </details>
# <details><summary>Hint 2: where to start from</summary>
#
# From the velocity *without*. At scale 0 nothing of the label is left, at scale 1 it is the plain model.
#
# </details>
# <details><summary>Hint 3: leave the labels alone</summary>
#
# `torch.full_like(labels, 10)` makes a new tensor. Writing into `labels` would change them for the caller too.
#
# </details>

# %% check="6.7"
check("6.7", guided)

# %%
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
by_scale = {w: paint(lambda x, s, told, w=w: guided(draw_digit, x, s, told, w))[-1].clamp(-1, 1) for w in SCALES}
scale_scores = {w: digits.measure(some, wanted.cpu()) for w, some in by_scale.items()}
for w, scores in scale_scores.items():
    print(f"guidance {w}: recognised {scores['accuracy']:.1%}, diversity {scores['diversity']:.2f}")
sheet(torch.cat([by_scale[w][:10] for w in (0.0, 1.0, 2.0, 5.0)]), [""] * 40,
      "Four rows of digits at guidance 0, 1, 2 and 5: the first row shows random digits, the second the right ones, "
      "the last two clearer and bolder ones.")  # fmt: skip

# %%
figure = Figure(figsize=(6.4, 3.2))
left = figure.subplots()
right = left.twinx()
left.plot(SCALES, [s["accuracy"] for s in scale_scores.values()], "o-", color=OTHERS[0])
right.plot(SCALES, [s["diversity"] for s in scale_scores.values()], "s--", color=OTHERS[2])
right.axhline(reader_scores["diversity"], color="#777777", linestyle=":", linewidth=1)
left.set_xlabel("guidance scale w")
left.set_ylabel("recognised (circles)", color=OTHERS[0])
right.set_ylabel("diversity (squares); dotted: real", color=OTHERS[2])
one, three = scale_scores[1.0], scale_scores[3.0]
viz.picture(
    figure,
    alt=f"The share recognised goes from {one['accuracy']:.2f} at guidance 1 to {three['accuracy']:.2f} at 3, while "
    f"diversity goes from {one['diversity']:.2f} to {three['diversity']:.2f}.",
)

# %% [markdown]
# Nearly every digit is now read, and the price is **diversity**: how differently digits of one kind are written (their
# ink, width, height and slant). Every method of this course trades on this curve. Guidance costs no training, but two
# evaluations a step, for ever; Part II buys accuracy by training, and you will ask each time what diversity it cost.
#
# ## 8. Which prediction is easiest?
#
# In theory picture, noise and velocity say the same. Train networks from the same first weights for a short while, each
# with another way to speak, all by your loss. Two builds: the convolutional network of above, and one of dense layers
# in which everything must squeeze through a *waist* of 32 numbers.

# %%
SHORT = choose(smoke=3, cpu=300, gpu=1000)
BUILDS = {"convolutional": (DigitNet, SHORT), "narrow waist": (WaistNet, 3 * SHORT)}
kind_scores, kind_samples = {}, {}
for build, (make, steps) in BUILDS.items():
    for kind in ("picture", "noise", "velocity"):
        torch.manual_seed(seed())
        novice = make().to(device)
        spoken = velocity_of(novice, kind)
        losses = fit(novice, lambda spoken=spoken: digit_loss(spoken), steps, rate=3e-3, decay=0.98)
        name = f"{build}, {kind}"
        kind_samples[name] = paint(spoken)[-1].clamp(-1, 1)
        kind_scores[name] = digits.measure(kind_samples[name], wanted.cpu()) | {"loss": float(np.mean(losses[-50:]))}
        print(f"{name:23} loss {kind_scores[name]['loss']:.2f}, recognised {kind_scores[name]['accuracy']:.1%}")

# %%
sheet(torch.cat([some[:10] for some in kind_samples.values()]), [""] * 60,
      "Six rows of digits after a short training: three of the convolutional network, rough but like digits; then "
      "three of the narrow one, of which only the first, which predicts the picture, looks like digits.")  # fmt: skip

# %% [markdown]
# The same knowledge is not equally easy to *say*, and it depends on who says it. A digit is simple: black nearly
# everywhere, and a few strokes. It fits through a waist. Noise does not: each of its 256 numbers is news. A network
# that must predict noise, or the velocity, in which the noise is, has to carry all of it to the exit. The convolutional
# one has a shortcut past its middle, and can. In a latent space, where every number counts, and with wide networks,
# the velocity does well: Stable Diffusion 3 predicts it.
#
# ## 9. A smaller room
#
# Real models do not work on pixels. An **autoencoder** first squeezes a picture into a small *latent*, the generator
# works there, and a decoder brings the result back (*latent diffusion*, Rombach and colleagues, 2021). Here is that of
# `shapes`, the small text-to-image model of all labs to come.

# %%
base = load("shapes").to(device)
SCENES = choose(smoke=4, cpu=96, gpu=512)
rng = np.random.default_rng(seed())
captions = shapes.draw_prompts(SCENES, rng)
scenes = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in captions])).to(device)


@torch.no_grad()
def encode(pictures: Tensor) -> Tensor:
    """Latents with mean 0 and variance 1, as the generator knows them."""
    mean, config = base.vae.encode(pictures).latent_dist.mean, base.vae.config
    return (mean - config.shift_factor) * config.scaling_factor


latents = encode(scenes)
rebuilt = base.decode(latents).detach()
rebuilt_scores = shapes.measure(rebuilt.cpu().numpy(), captions)
print(f"{scenes[0].numel()} numbers -> {latents[0].numel()}; the strict verifier accepts "
      f"{shapes.measure(scenes.cpu().numpy(), captions)['accuracy']:.1%} of the pictures, "
      f"{rebuilt_scores['accuracy']:.1%} of those rebuilt")  # fmt: skip

# %%
codes = torch.nn.functional.interpolate((latents[:4, :3] / 2).clamp(-1, 1), scale_factor=4)
viz.sample_sheet(
    torch.cat([scenes[:4], codes, rebuilt[:4]]).cpu(),
    [*captions[:4], *["latent, 3 of 4 channels"] * 4, *["rebuilt"] * 4],
    columns=4,
    alt="Four pictures of coloured shapes, below each its latent as a mosaic of 8x8 coloured tiles, and below that the "
    "picture rebuilt from it, which looks the same.",
)

# %% [markdown]
# What does it buy? The transformer cuts its input into *tokens*, patches of 2x2, and its cost grows with their number.
# The same network on latents and on pixels, weights random, for the time alone:

# %%
from diffusers import SD3Transformer2DModel  # noqa: E402

config = {key: value for key, value in base.transformer.config.items() if not key.startswith("_")}
config |= {"sample_size": 32, "in_channels": 3, "out_channels": 3, "pos_embed_max_size": 16}
on_pixels = SD3Transformer2DModel(**config).to(device)
embeds, pooled = base.encode(captions[:4])
costs = {}
for name, network, given in (("latents", base.transformer, latents[:4]), ("pixels", on_pixels, scenes[:4])):
    call = {"encoder_hidden_states": embeds, "pooled_projections": pooled, "timestep": torch.full((4,), 500.0)}
    with torch.no_grad(), timer() as clock:
        for _ in range(choose(smoke=1, cpu=8, gpu=8)):
            network(hidden_states=given, **{key: value.to(device) for key, value in call.items()})
    costs[name] = clock.cpu_seconds
    print(f"{name}: {given[0, 0].numel() // 4} tokens, {clock.cpu_seconds:.2f} CPU seconds")
print(f"on pixels {costs['pixels'] / costs['latents']:.1f} times the cost")

# %% [markdown]
# In a latent the decoder draws the edges, and the generator decides what is where. Other models make *discrete* tokens
# of the latent and predict one after another, as a language model does words; lab 14 trains one.
#
# ## 10. Is it what we wanted?
#
# You can now build a generator of this kind. How good is one? Ask the base for pictures, and the strict verifier for
# its verdict: every object that the prompt names, and no other. A solid green frame means that it accepts the picture,
# a dashed red one that it does not.

# %%
texts, seeds = shapes.evaluation_pairs("test", choose(smoke=1, cpu=4, gpu=4))
sixteen = base.generate(texts, seeds).detach().cpu()
verdicts = [verdict.strict for verdict in shapes.verify(sixteen.numpy(), texts)]
viz.sample_sheet(sixteen, texts, columns=4 if len(texts) < 8 else 8, accepted=verdicts,
                 alt=f"Clean pictures of coloured shapes, {sum(verdicts)} of {len(texts)} in a solid green frame, the "
                 "others, with a wrong colour, number or place, in a dashed red one.")  # fmt: skip

# %% [markdown]
# The pictures are *clean*: sharp edges, flat colours, nothing smeared. And many of them are *wrong*. Yet the model was
# trained well, by the loss you wrote. What does that loss say? Take true pictures, and give the model the right
# caption, then one that is wrong in a single word, then none; always the same pictures, noise and levels.


# %%
def one_word_wrong(text: str) -> str:
    """Another prompt of the same kind that differs in a single word."""
    words = text.split()
    others = [p for p in shapes.prompts(shapes.parse(text).kind) if len(p.split()) == len(words)]
    near = [p for p in others if sum(a != b for a, b in zip(p.split(), words, strict=True)) == 1]
    return str(rng.choice(near))


@torch.no_grad()
def loss_of(generator, texts: list[str], scale: float = 1.0) -> float:
    """Your loss on the true pictures, with guidance, over several draws of levels and noise."""
    told, nothing = generator.encode(texts), generator.encode([""] * len(texts))

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        without = generator.velocity(x, sigma, *nothing)
        return without + scale * (generator.velocity(x, sigma, *told) - without)

    draws, values = torch.Generator().manual_seed(seed()), []
    for _ in range(choose(smoke=1, cpu=12, gpu=24)):
        sigma = torch.randn(len(texts), generator=draws).sigmoid().to(device)
        drawn_noise = torch.randn(latents.shape, generator=draws).to(device)
        values.append(flow_matching_loss(velocity, latents, drawn_noise, sigma).item())
    return float(np.mean(values))


# %%
wrong_captions = [one_word_wrong(text) for text in captions]
told = {"the right caption": captions, "one word wrong": wrong_captions, "no caption": [""] * SCENES}
base_losses = {name: loss_of(base, texts) for name, texts in told.items()}
print(f"for example '{captions[0]}' and '{wrong_captions[0]}'")
for name, value in base_losses.items():
    print(f"{name:17} loss {value:.4f} ({value / base_losses['the right caption'] - 1:+.1%})")

# %% [markdown]
# The loss does notice a wrong word. So is it a good judge? Let it choose between three painters, all told the right
# captions. The first is the base. The second is the base with guidance. The third is where the base stands after
# lab 12: trained further by reinforcement, on a verdict alone (its weights come with the course). The verifier judges
# what each of them *draws*, your loss how well each restores true pictures.

# %%
tuned = recorded.apply("12-grpo-long", recorded.records("12-grpo-long")[0]["seed"], load("shapes").to(device))
painters = {"the base": (base, 1.0), "with guidance 3": (base, 3.0), "after lab 12": (tuned, 1.0)}
PER_KIND = choose(smoke=1, cpu=64, gpu=256)
judged = {
    name: {
        "loss": loss_of(generator, captions, scale),
        "accuracy": evaluate(generator, per_kind=PER_KIND, guidance_scale=scale)["accuracy"],
    }
    for name, (generator, scale) in painters.items()
}
lines = ["| | loss on true pictures (low is good) | own pictures accepted |", "|---|---|---|"]
lines += [f"| {name} | {row['loss']:.4f} | {row['accuracy']:.3f} |" for name, row in judged.items()]
Markdown("\n".join(lines))

# %%
figure = Figure(figsize=(5, 3.2))
axis = figure.subplots()
for number, (name, row) in enumerate(judged.items()):
    axis.plot(row["loss"], row["accuracy"], "o", color=OTHERS[number], markersize=8)
    axis.annotate(
        name, (row["loss"], row["accuracy"]), xytext=(0, -15), textcoords="offset points", fontsize=8, ha="center"
    )
axis.set(xlabel="loss on true pictures", ylabel="own pictures accepted", ylim=(0, 1))
axis.margins(x=0.3)
viz.picture(
    figure,
    alt="Accuracy against loss for three painters: "
    + "; ".join(f"{name}, loss {row['loss']:.2f}, accuracy {row['accuracy']:.2f}" for name, row in judged.items()),
)

# %% [markdown]
# By the loss, the base is the best of the three; by what they draw, it is the worst. The loss would have you throw the
# other two away.
#
# The same with your own digits:

# %%
CHECKED = choose(smoke=20, cpu=1000, gpu=1000)
unseen, truth = (torch.from_numpy(part).to(device)[:: 1000 // CHECKED] for part in digits.load("held-out"))
unseen_noise, level = torch.randn(unseen.shape, generator=stream).to(device), draw_levels(len(unseen)).to(device)
digit_losses = {}
with torch.no_grad():
    for name, told, w in (("right", truth, 1.0), ("wrong", (truth + 1) % 10, 1.0), ("right, guidance 2", truth, 2.0)):
        digit_losses[name] = flow_matching_loss(
            lambda x, s, told=told, w=w: guided(draw_digit, x, s, told, w), unseen, unseen_noise, level
        ).item()
        print(f"label {name}: loss {digit_losses[name]:.4f} ({digit_losses[name] / digit_losses['right'] - 1:+.1%})")

# %% [markdown]
# Nothing here is a mistake of the loss. It stands for the *likelihood* of the data (chapter 06 says how closely), and
# it asks for imitation: the base was trained on pictures of which some had wrong captions, as the web has, and the best
# imitator keeps those mistakes, and spreads itself over all that might be meant. And it looks at *true* pictures under
# noise. It never sees where the model's own steps lead. You have a wish, and can tell a picture that fulfils it from
# one that does not; nothing in this loss knows of it.
#
# **How do you train a generator on a verdict?** The verdict has no gradient. It comes at the end, once. That is the
# question of Part II, and lab 07 begins the answer: it looks at the steps of your sampler as decisions.
#
# ## What to take away
#
# - A generator of this kind learns one thing, an average: of velocity, noise or picture. They can be converted.
# - Diffusion and flow are two roads with the same spokes; samplers with and without chance share their marginals.
# - Guidance buys accuracy with diversity. Latents buy time.
# - A low loss means good imitation, not pictures that are right.
#
# The cell below writes down what happened here.

# %%
points = {
    "loss_of_points": {"network": learnt_loss, "least": least_loss},
    "distance_at_steps": {name: dict(zip(map(str, FEW), row, strict=True)) for name, row in ends.items()},
    "distance_at_50_steps_of_the_network": learnt_ends,
    "distance_by_chance": by_chance,
}
guidance = {f"guidance {w:g}": scores for w, scores in scale_scores.items()}
drawing = {
    "reader_held_out": reader_scores["accuracy"],
    "recognised": {"plain": plain["accuracy"]} | {name: scores["accuracy"] for name, scores in guidance.items()},
    "diversity": {"real": reader_scores["diversity"]}
    | {name: scores["diversity"] for name, scores in guidance.items() if np.isfinite(scores["diversity"])},
    "recognised_by_sampler": {name: scores["accuracy"] for name, scores in sampler_scores.items()},
    "recognised_by_prediction": {name: scores["accuracy"] for name, scores in kind_scores.items()},
    "training_seconds": {"wall": digit_clock.seconds, "cpu": digit_clock.cpu_seconds},
    "nearest_training_picture": {"drawn": own_gap.median().item(), "unseen": real_gap.median().item()},
    "digit_loss": digit_losses,
}

# %%
of_the_base = {
    "autoencoder": {"accepted": rebuilt_scores["accuracy"], "pixels_over_latents": costs["pixels"] / costs["latents"]},
    "base_loss": base_losses,
    "loss_on_true_pictures": {name: row["loss"] for name, row in judged.items()},
    "accuracy": {name: row["accuracy"] for name, row in judged.items()},
}
record = write_record(
    "06-generators",
    ({"rehearsal": int(rehearsing())} if real_model() else {}) | points | drawing | of_the_base,
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/06.json")
