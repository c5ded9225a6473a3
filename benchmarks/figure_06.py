"""The figures of chapter 06: `python benchmarks/figure_06.py [NAME ...]`. Two need a model of digits, trained here."""

import sys
from functools import cache, partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.files import course_root
from pixelpolicy.generators import evaluate, load
from pixelpolicy.generators.prediction import endpoints
from pixelpolicy.generators.small import NO_LABEL, DigitNet, fit
from pixelpolicy.policies.transitions import ddim_eta, flow_sde, ode
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import digits, shapes

TURN = torch.linspace(0.2, 1, 48)
CENTRES, SPREAD = 1.5 * TURN[:, None] * torch.stack([(10 * TURN).cos(), (10 * TURN).sin()], 1), 0.06
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


@cache
def painter(steps: int = 1500) -> DigitNet:
    """A class-conditional flow on digits, which predicts the picture."""
    torch.manual_seed(0)
    network, random = DigitNet(), torch.Generator().manual_seed(0)
    pictures, labels = (torch.from_numpy(part) for part in digits.load("train"))

    def loss() -> Tensor:
        rows = torch.randint(len(labels), (64,), generator=random)
        told = labels[rows].masked_fill(torch.rand(64, generator=random) < 0.1, NO_LABEL)
        x0, x1 = pictures[rows], torch.randn(64, 1, 16, 16, generator=random)
        sigma = torch.randn(64, generator=random).sigmoid()
        b = sigma[:, None, None, None]
        ends = endpoints(network((1 - b) * x0 + b * x1, sigma, told), "picture", (1 - b) * x0 + b * x1, 1 - b, b)
        return (ends[1] - ends[0] - x1 + x0).square().mean()

    with torch.enable_grad():
        fit(network, loss, steps, rate=3e-3)
    return network


@torch.no_grad()
def paint(labels: Tensor, scale: float = 1.0, steps: int = 20, seed: int = 1) -> tuple[Tensor, Tensor]:
    """States and guesses of the end at every step, by the ODE with guidance: each [steps, batch, 1, 16, 16]."""
    sigmas, random = torch.linspace(1, 0, steps + 1), torch.Generator().manual_seed(seed)
    x, states, guesses = torch.randn(len(labels), 1, 16, 16, generator=random), [], []
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        told, level = torch.cat([torch.full_like(labels, NO_LABEL), labels]), sigma.expand(2 * len(labels))
        guess = painter()(torch.cat([x, x]), level, told)
        x0, x1 = endpoints(guess, "picture", torch.cat([x, x]), 1 - sigma, sigma)
        without, with_label = (x1 - x0).chunk(2)
        velocity = without + scale * (with_label - without)
        states.append(x), guesses.append(x - sigma * velocity)
        x = ode(x, velocity, sigma, following)[0]
    return torch.stack([*states, x]), torch.stack([*guesses, x])


def emerging() -> viz.Picture:
    """Ten digits on their way from noise, and what the network expects at the end."""
    states, guesses = paint(torch.arange(10), scale=1.5)
    shown = (0, 4, 8, 12, 16, 20)
    rows = [part[step] for step in shown for part in (states, guesses)]
    figure = Figure(figsize=(8.4, 3.2))
    axes = figure.subplots(6, 2, gridspec_kw={"hspace": 0.1, "wspace": 0.05}).flat
    for index, (axis, row) in enumerate(zip(axes, rows, strict=True)):
        axis.imshow(row.clamp(-1, 1)[:, 0].permute(1, 0, 2).reshape(16, 160), cmap="gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
        if index < 2:
            axis.set_title(("the state", "the picture it points at")[index], fontsize=9)
        if index % 2 == 0:
            axis.set_ylabel(f"{1 - shown[index // 2] / 20:.1f}", rotation=0, labelpad=14, va="center")
    return viz.picture(figure, alt="Two columns of six rows of ten digits.")


def exact_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """The velocity of the spiral of dots: the answer that a perfect network would give."""
    variance = ((1 - sigma) * SPREAD) ** 2 + sigma**2
    gap = x[:, None] - (1 - sigma) * CENTRES
    chances = (-gap.square().sum(-1, keepdim=True) / (2 * variance)).softmax(1)
    picture = CENTRES + (1 - sigma) * SPREAD**2 / variance * gap
    return (chances * (sigma / variance * gap - picture)).sum(1)


def spiral(count: int, random: torch.Generator) -> Tensor:
    dots = CENTRES[torch.randint(len(CENTRES), (count,), generator=random)]
    return dots + SPREAD * torch.randn(count, 2, generator=random)


def field() -> viz.Picture:
    """Roads that cross, and the average velocity that is learnt from them."""
    random = torch.Generator().manual_seed(0)
    x0, x1 = spiral(3000, random), torch.randn(3000, 2, generator=random)
    figure = Figure(figsize=(9, 3.1))
    left, *others = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1))
    for picture, noise in zip(x0[:60], x1[:60], strict=True):
        left.plot(*torch.stack([picture, noise]).T, color=OTHERS[2], linewidth=0.5, alpha=0.7)
    left.scatter(*x0.T, s=1.5, linewidths=0, color=OTHERS[4])
    left.set_title("roads", fontsize=9)
    grid = torch.cartesian_prod(torch.linspace(-2.2, 2.2, 15), torch.linspace(-2.2, 2.2, 15))
    for axis, level in zip(others, (0.9, 0.5, 0.1), strict=True):
        sigma = torch.tensor(level)
        axis.scatter(*((1 - sigma) * x0 + sigma * x1).T, s=1.5, linewidths=0, color=OTHERS[4])
        axis.quiver(*grid.T, *-exact_velocity(grid, sigma).T, color=OTHERS[0], scale=40, width=0.005)
        axis.set_title(f"their average at {level}", fontsize=9)
    for axis in (left, *others):
        axis.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), xticks=[], yticks=[], aspect="equal")
    return viz.picture(figure, alt="Straight roads from a spiral, and three fields of arrows.")


def roads() -> viz.Picture:
    """The weights of picture and noise, on the line and on the arc."""
    figure = Figure(figsize=(4.6, 3.6))
    axis, quarter = figure.subplots(), torch.linspace(0, torch.pi / 2, 60)
    axis.plot([1, 0], [0, 1], color=OTHERS[0], label="flow: a + b = 1")
    axis.plot(quarter.cos(), quarter.sin(), color=OTHERS[2], label="diffusion: a² + b² = 1")
    for angle in quarter[5:-1:9]:
        a, b = angle.cos(), angle.sin()
        axis.plot([a / (a + b), a], [b / (a + b), b], color="#999999", linewidth=0.8, marker="o", markersize=3)
    axis.set(xlabel="a, weight of the picture", ylabel="b, weight of the noise", aspect="equal")
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    return viz.picture(figure, alt="A line and a quarter of a circle, joined by spokes.")


def marginals(steps: int = 200, count: int = 2500) -> viz.Picture:
    """The same crowd by four samplers, at five levels."""
    samplers = {
        "ODE, DDIM with eta 0": ode,
        "DDIM with eta 0.5": partial(ddim_eta, noise=0.5),
        "DDPM": partial(ddim_eta, noise=1.0),
        "reverse SDE": partial(flow_sde, noise=0.7),
    }
    figure, shown = Figure(figsize=(8.5, 6.8)), (0, 100, 150, 180, 200)
    for row, colour, (name, transition) in zip(figure.subplots(4, 5), OTHERS, samplers.items(), strict=False):
        random, sigmas = torch.Generator().manual_seed(0), torch.linspace(1, 0, steps + 1)
        x = torch.randn(count, 2, generator=random)
        crowd, followed = {0: x}, [x[:1]]
        for t in range(steps):
            chosen = transition if t < steps - 1 else ode
            mean, std = chosen(x, exact_velocity(x, sigmas[t]), sigmas[t], sigmas[t + 1])
            x = mean + std * torch.randn(x.shape, generator=random)
            crowd[t + 1] = x
            followed.append(x[:1])
        for axis, step in zip(row, shown, strict=True):
            axis.scatter(*crowd[step].T, s=2, linewidths=0, color=colour)
            for path in torch.stack(followed[: step + 1], 1):
                axis.plot(*path.T, color="black", linewidth=0.7)
            axis.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), xticks=[], yticks=[], aspect="equal")
            if transition is ode:
                axis.set_title(f"noise level {1 - step / steps:g}", fontsize=8)
        row[0].set_ylabel(name, fontsize=8)
    return viz.picture(figure, alt="Four rows of five clouds; within each column they look alike.")


def guidance(each: int = 60) -> viz.Picture:
    """What guidance buys and costs, and how it looks."""
    labels = torch.arange(10).repeat(each)
    drawn = {w: paint(labels, w)[0][-1].clamp(-1, 1) for w in SCALES}
    scores = {w: digits.measure(some, labels) for w, some in drawn.items()}
    real = digits.measure(*digits.load("held-out"))
    figure = Figure(figsize=(8.6, 3.4))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.plot(SCALES, [s["accuracy"] for s in scores.values()], "o-", color=OTHERS[0], label="recognised")
    relative = [s["diversity"] / real["diversity"] for s in scores.values()]
    left.plot(SCALES, relative, "s--", color=OTHERS[2], label="diversity, real digits = 1")
    left.set(xlabel="guidance scale", ylim=(0, 1.08))
    left.legend(frameon=False, fontsize=8, loc="lower right")
    rows = [drawn[w][:10, 0].permute(1, 0, 2).reshape(16, 160) for w in (0.0, 1.0, 2.0, 5.0)]
    right.imshow(torch.cat(rows), cmap="gray", vmin=-1, vmax=1)
    right.set(title="at scale", xticks=[], yticks=[8, 24, 40, 56], yticklabels=["0", "1", "2", "5"])
    print({w: (round(s["accuracy"], 3), round(d, 3)) for (w, s), d in zip(scores.items(), relative, strict=True)})
    return viz.picture(figure, alt="Accuracy rises and diversity falls; four rows of digits.")


@torch.no_grad()
def likelihood(pictures: int = 128, draws: int = 16) -> viz.Picture:
    """The base's loss with right, wrong and no captions; and three painters by their loss and by what they draw."""
    base, rng = load("shapes"), np.random.default_rng(0)
    tuned = recorded.apply("12-grpo-long", recorded.records("12-grpo-long")[0]["seed"], load("shapes"))
    texts, config = shapes.draw_prompts(pictures, rng), base.vae.config
    scenes = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in texts]))
    latents = (base.vae.encode(scenes).latent_dist.mean - config.shift_factor) * config.scaling_factor

    def one_word_wrong(text: str) -> str:
        words = text.split()
        others = [p.split() for p in shapes.prompts(shapes.parse(text).kind)]
        near = [o for o in others if len(o) == len(words) and sum(a != b for a, b in zip(o, words, strict=True)) == 1]
        return " ".join(near[rng.integers(len(near))])

    def loss(generator, told: list[str], scale: float = 1.0) -> float:
        random, total = torch.Generator().manual_seed(0), 0.0
        for _ in range(draws):
            sigma = torch.randn(pictures, generator=random).sigmoid()
            b, x1 = sigma[:, None, None, None], torch.randn(latents.shape, generator=random)
            x = (1 - b) * latents + b * x1
            velocity = generator.velocity(x, sigma, *generator.encode(told))
            if scale != 1:
                without = generator.velocity(x, sigma, *generator.encode([""] * pictures))
                velocity = without + scale * (velocity - without)
            total += (velocity - x1 + latents).square().mean().item() / draws
        return total

    bars = {
        "right caption": loss(base, texts),
        "one word wrong": loss(base, [one_word_wrong(text) for text in texts]),
        "no caption": loss(base, [""] * pictures),
    }
    painters = {"base": (base, 1.0), "base, guidance 3": (base, 3.0), "after lab 12": (tuned, 1.0)}
    judged = {
        name: (loss(generator, texts, scale), evaluate(generator, per_kind=64, guidance_scale=scale)["accuracy"])
        for name, (generator, scale) in painters.items()
    }
    print({name: f"{value:.3f} ({value / bars['right caption'] - 1:+.0%})" for name, value in bars.items()}, judged)
    figure = Figure(figsize=(8.6, 3.2))
    left, right = figure.subplots(1, 2)
    left.bar(list(bars), list(bars.values()), color=[OTHERS[0], OTHERS[2], "#999999"], width=0.6)
    left.set(ylabel="loss of the base on true pictures")
    left.tick_params(axis="x", labelsize=8)
    for colour, (name, (x, y)) in zip(OTHERS, judged.items(), strict=False):
        right.plot(x, y, "o", color=colour, markersize=8)
        right.annotate(name, (x, y), xytext=(0, -15), textcoords="offset points", fontsize=8, ha="center")
    right.set(xlabel="loss on true pictures", ylabel="own pictures accepted", ylim=(0, 1))
    right.margins(x=0.25)
    return viz.picture(figure, alt="Three bars of loss; three points, accuracy against loss.")


def main() -> None:
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    figures = {
        "field": field, "roads": roads, "marginals": marginals, "likelihood": likelihood, "emerging": emerging,
        "guidance": guidance,
    }  # fmt: skip
    for name in sys.argv[1:] or figures:
        picture = figures[name]()
        picture.save(folder / f"06-{name}.png")
        print(f"06-{name}.png: {picture.alt}", flush=True)


if __name__ == "__main__":
    main()
