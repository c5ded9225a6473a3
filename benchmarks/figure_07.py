"""The figures of chapter 07: `python benchmarks/figure_07.py`. No model is trained for them."""

from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pixelpolicy import viz
from pixelpolicy.course.files import course_root
from pixelpolicy.generators import load
from pixelpolicy.policies import DenoisingPolicy, flow_sde, ode
from pixelpolicy.rl import gaussian_log_prob
from pixelpolicy.rl.oracles import chain_distribution, exact_policy_gradient

STEPS, NOISE, SPREAD = 8, 0.7, 0.15
PROMPT, EPISODE = "a red circle left of a blue square", 3


@torch.no_grad()
def branches(steps: tuple[int, ...] = (0, 2, 4, 6), count: int = 8) -> viz.Picture:
    """One stored episode, played on from several of its states with other noise."""
    base = load("shapes")
    policy = DenoisingPolicy(base, partial(flow_sde, noise=NOISE), steps=STEPS)
    states, sigmas = policy.rollout([PROMPT], seeds=torch.tensor([EPISODE])).states, base.sigmas(STEPS)
    conditioning, pictures = base.encode([PROMPT] * count), []
    for branch in steps:
        x, stream = states[:, branch].expand(count, *states.shape[2:]), torch.Generator().manual_seed(branch)
        for t in range(branch, STEPS):
            transition = partial(flow_sde, noise=NOISE) if t < STEPS - 1 else ode
            velocity = base.velocity(x, sigmas[t], *conditioning)
            mean, std = transition(x, velocity, sigmas[t], sigmas[t + 1])
            x = mean + std * torch.randn(x.shape, generator=stream)
        pictures.append(base.decode(x))
    titles = [f"new from step {branch + 1}" for branch in steps for _ in range(count)]
    return viz.sample_sheet(torch.cat(pictures), titles, columns=count, alt="Four rows of eight pictures.")


def velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact velocity of the world of one pixel, black or white."""
    greys = torch.tensor([-1.0, 1.0]).to(x)
    variance = ((1 - sigma) * SPREAD) ** 2 + sigma**2
    gap = x[..., None] - (1 - sigma) * greys
    picture = greys + (1 - sigma) * SPREAD**2 / variance * gap
    return ((-(gap**2) / (2 * variance)).softmax(-1) * (sigma / variance * gap - picture)).sum(-1)


def paths(steps: int = 40, count: int = 20_000) -> viz.Picture:
    """The same crowd by the ODE and by the SDE."""
    figure, sigmas = Figure(figsize=(8.5, 3.2)), torch.linspace(1, 0, steps + 1)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2, 2, 1))
    for number, (axis, name) in enumerate(((left, "ODE"), (middle, "SDE"))):
        stream = torch.Generator().manual_seed(0)
        path = [torch.randn(count, generator=stream)]
        for t in range(steps):
            transition = partial(flow_sde, noise=NOISE) if name == "SDE" and t < steps - 1 else ode
            mean, std = transition(path[-1], velocity(path[-1], sigmas[t]), sigmas[t], sigmas[t + 1])
            path.append(mean + std * torch.randn(count, generator=stream))
        for row in torch.stack(path, 1)[:40]:
            axis.plot(sigmas, row, color=viz.figures.OTHERS[number], linewidth=0.7, alpha=0.7)
        axis.set(title=name, xlabel="sigma", xlim=(1, 0), ylim=(-2.6, 2.6))
        style = {"orientation": "horizontal", "histtype": "step", "density": True}
        right.hist(path[-1], bins=80, color=viz.figures.OTHERS[number], **style)
    right.set(title="where they end", xlabel="density")
    left.set_ylabel("x, from noise to picture")
    return viz.picture(figure, alt="Forty smooth paths, forty jagged ones, two histograms on each other.")


@torch.no_grad()
def ratios(count: int = 16) -> viz.Picture:
    """What a replay of untouched weights shows, step by step, with each fault."""
    base, summed = load("shapes"), partial(gaussian_log_prob, reduce="sum")
    policy = DenoisingPolicy(base, partial(flow_sde, noise=NOISE), steps=STEPS, log_prob_of=summed)
    guided = DenoisingPolicy(base, partial(flow_sde, noise=NOISE), steps=STEPS, log_prob_of=summed, guidance_scale=3.0)
    prompts, seeds = [PROMPT] * count, torch.arange(count)
    rollout, by_guidance = policy.rollout(prompts, seeds=seeds), guided.rollout(prompts, seeds=seeds)
    noisy = policy.noisy_steps()

    def gaps(kept, states: Tensor) -> list[float]:
        kept = type(kept)(**(vars(kept) | {"states": states}))
        return [(policy.log_prob(kept, t) - kept.log_prob_at(t)).abs().max().item() for t in noisy]

    def alone() -> list[float]:
        parts = [rollout.select([i]) for i in range(count)]
        return [max((policy.log_prob(p, t) - p.log_prob_at(t)).abs().item() for p in parts) for t in noisy]

    lines = {
        "guidance in the rollout only": gaps(by_guidance, by_guidance.states),
        "stored in bfloat16 after judging": gaps(rollout, rollout.states.bfloat16()),
        "stored in float16 after judging": gaps(rollout, rollout.states.half()),
        "replayed one by one": alone(),
    }
    right = max(gaps(rollout, rollout.states))
    figure = Figure(figsize=(6.8, 3.6))
    axis = figure.subplots()
    for colour, marker, (name, values) in zip(viz.figures.OTHERS, "os^D", lines.items(), strict=False):
        axis.semilogy([t + 1 for t in noisy], values, marker=marker, color=colour, label=name)
    axis.axhline(1e-4 * rollout.states[0, 0].numel(), color="#777777", linestyle="--", linewidth=1)
    axis.text(7.1, 1e-4 * rollout.states[0, 0].numel(), "clip 1e-4", fontsize=7, va="bottom")
    axis.set(xlabel="step", ylabel="largest |log-ratio| (nats)", xlim=(0.8, 7.9), ylim=(1e-6, 1e3))
    axis.legend(frameon=False, fontsize=7, ncols=2, loc="upper left")
    print(f"round, store, judge: largest |log-ratio| {right}")
    return viz.picture(figure, alt="; ".join(f"{name} {max(values):.2g}" for name, values in lines.items()))


def estimators(counts: tuple[int, ...] = (8, 32, 128, 512, 2048), repeats: int = 100) -> viz.Picture:
    """Error of REINFORCE against the exact gradient, on marks of 5 or 6, with and without a baseline."""
    greys = torch.linspace(-1.6, 1.6, 9, dtype=torch.float64).roll(-4)
    sigmas = torch.tensor([1.0, 0.8, 0.6, 0.35, 0.1], dtype=torch.float64)
    moves = [
        flow_sde(greys, velocity(greys, s), s, n, noise=NOISE) for s, n in zip(sigmas[:-1], sigmas[1:], strict=True)
    ]
    logits = torch.stack([-((greys[None] - mean[:, None]) ** 2) / (2 * std**2) for mean, std in moves])
    episodes, chances = chain_distribution(logits)
    marks = 5 + (greys[episodes[:, -1]] > 0.7).double()
    truth = exact_policy_gradient(logits, lambda _: marks)
    present = torch.nn.functional.pad(episodes[:, :-1], (1, 0))
    scores = torch.zeros(len(episodes), *logits.shape, dtype=torch.float64)
    rows = torch.arange(len(episodes))
    for t in range(len(logits)):
        scores[rows, t, present[:, t]] -= logits.softmax(-1)[t, present[:, t]]
        scores[rows, t, present[:, t], episodes[:, t]] += 1
    scores, exact = scores.flatten(1), truth.flatten()
    stream = torch.Generator().manual_seed(0)
    figure = Figure(figsize=(6.4, 3.6))
    axis = figure.subplots()
    for colour, (name, baseline) in zip(
        viz.figures.OTHERS, (("plain", False), ("with a baseline", True)), strict=False
    ):
        errors = []
        for count in counts:
            drawn = torch.multinomial(chances, count * repeats, True, generator=stream).view(repeats, count)
            rewards = marks[drawn]
            others = (rewards.sum(1, keepdim=True) - rewards) / (count - 1)
            weights = (rewards - others if baseline else rewards) / count
            estimates = torch.stack([w @ scores[d] for w, d in zip(weights, drawn, strict=True)])
            errors.append(((estimates - exact).square().sum(1).mean().sqrt() / exact.norm()).item())
        axis.loglog(counts, errors, "o", color=colour, label=name)
        level = chances @ marks if baseline else 0.0
        one = (chances * (marks - level) ** 2) @ scores.square().sum(1) - exact @ exact
        axis.loglog(counts, [(one / n).sqrt() / exact.norm() for n in counts], "--", color=colour, linewidth=1)
        print(
            name,
            [round(error, 3) for error in errors],
            f"one sample, exactly: {(one.sqrt() / exact.norm()).item():.2f}",
        )
    axis.set(xlabel="samples", ylabel="error / length of the exact gradient")
    axis.legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="Two falling lines of slope one half; the one with a baseline lies far lower.")


def main() -> None:
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    for name, make in (("branches", branches), ("paths", paths), ("ratios", ratios), ("estimators", estimators)):
        picture = make()
        picture.save(folder / f"07-{name}.png")
        print(f"07-{name}.png: {picture.alt}")


if __name__ == "__main__":
    main()
