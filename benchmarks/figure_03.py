"""The figures of chapter 03: `python benchmarks/figure_03.py` (some minutes: nine runs of CartPole)."""

import statistics
import sys

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import one_hot, pad

from pixelpolicy import control, viz
from pixelpolicy.control import reinforce
from pixelpolicy.course.files import course_root
from pixelpolicy.rl import discounted_returns
from pixelpolicy.rl.oracles import chain_distribution
from pixelpolicy.viz.figures import OTHERS

GOLD = torch.tensor([2.0, 3.0, 1.0, 9.0]).double()
HABITS = torch.tensor([[2.5, 0.5, -0.5, -1.0], [2.0, 1.0, 0.5, -0.5], [0.5, 0.5, 0.5, 1.5], [1.0, 0.5, 0.0, 0.5]])
SEEDS, START = (10, 11, 12), 4


def wanderer() -> tuple[Tensor, Tensor, Tensor]:
    """Chances, scores [64, 48] and returns of the lab's 64 walks."""
    table = HABITS.double().repeat(3, 1, 1)
    walks, chances = chain_distribution(table)
    before, scores = pad(walks[:, :-1], (1, 0)), torch.zeros(64, 3, 4, 4).double()
    for t in range(3):
        score = one_hot(walks[:, t], 4) - table[t].softmax(-1)[before[:, t]]
        scores[torch.arange(64), t, before[:, t]] = score
    return chances, scores.flatten(1), GOLD[walks].sum(1)


def cart() -> viz.Picture:
    """The same start played by a beginner and by the policy it became, frame by frame."""
    beginner = control.policy_for(control.make("CartPole-v1", 1), seed=SEEDS[0], hidden=(32, 32))
    trained = reinforce.train(seed=SEEDS[0]).policy
    figure = Figure(figsize=(8.5, 3.0))
    axes = figure.subplots(2, 7, gridspec_kw={"hspace": 0.25, "wspace": 0.06})
    players = {"beginner": lambda o: beginner.act(o)[0], "trained": trained.greedy}
    for row, (name, act) in zip(axes, players.items(), strict=True):
        frames = viz.episode_frames(act, "CartPole-v1", seed=START)
        steps = [round(i * (len(frames) - 1) / 6) for i in range(7)]
        for axis, step in zip(row, steps, strict=True):
            axis.imshow(frames[step][150:330, 210:390])
            axis.set_title(f"{step / 50:.2f} s", fontsize=8, pad=2)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
        print(f"{name}: {len(frames) - 1} steps")
    return viz.picture(figure, alt="Two rows of seven frames: above a pole that falls, below one that stands.")


def clouds(counts: tuple[int, ...] = (16, 256), repeats: int = 400) -> viz.Picture:
    """Estimates of the gradient in two of its directions."""
    chances, scores, returns = wanderer()
    truth = chances @ (returns[:, None] * scores)
    right, stream = truth / truth.norm(), torch.Generator().manual_seed(0)
    figure = Figure(figsize=(8.5, 3.4))
    axes, across = figure.subplots(1, 2, sharey=True, sharex=True), None
    for axis, (title, baseline) in zip(
        axes, {"returns as they are": 0.0, "less their mean": (chances @ returns).item()}.items(), strict=True
    ):
        for number, count in enumerate(counts):
            drawn = torch.multinomial(chances, count * repeats, True, generator=stream).view(repeats, count)
            found = ((returns[drawn] - baseline)[:, :, None] * scores[drawn]).mean(1)
            if across is None:
                rest = found - (found @ right)[:, None] * right
                across = torch.linalg.svd(rest, full_matrices=False)[2][0]
            points = torch.stack([found @ right, found @ across]) / truth.norm()
            axis.plot(*points, "o", markersize=3, alpha=0.4, color=OTHERS[number], label=f"{count} walks")
        axis.annotate("", (1, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 2})
        axis.set(title=title, xlabel="along the exact gradient")
    axes[0].set_ylabel("across")
    axes[0].legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="Two panels of two clouds each about the tip of an arrow; all are smaller right.")


def parabola() -> viz.Picture:
    """Variance against the baseline, exact and measured."""
    chances, scores, returns = wanderer()
    squares, truth = scores.square().sum(1), chances @ (returns[:, None] * scores)
    mean = (chances @ returns).item()
    best = ((chances * squares) @ returns / (chances @ squares)).item()

    def variance(b: float) -> float:
        return ((chances * (returns - b) ** 2) @ squares / truth.square().sum() - 1).item()

    figure, stream = Figure(figsize=(6.4, 3.2)), torch.Generator().manual_seed(0)
    axis, shifts = figure.subplots(), torch.linspace(0, 14, 57)
    axis.plot(shifts, [variance(b) for b in shifts.tolist()], color=OTHERS[0], label="exact")
    drawn = torch.multinomial(chances, 40_000, True, generator=stream)
    dots = {b: ((returns[drawn] - b)[:, None] * scores[drawn]).var(0).sum() for b in (0.0, 3.0, mean, best, 12.0)}
    axis.plot(list(dots), [dot / truth.square().sum() for dot in dots.values()], "o", color=OTHERS[2], label="measured")
    for b, name, side in ((mean, "mean return ", "right"), (best, " best", "left")):
        axis.axvline(b, color="#777777", linestyle="--", linewidth=1)
        axis.text(b, variance(0) * 0.8, name, ha=side, fontsize=8)
    axis.set(xlabel="baseline b", ylabel="variance / |exact gradient|²", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
    print({f"{b:.2f}": round(variance(b), 1) for b in (0.0, mean, best)})
    return viz.picture(figure, alt=f"A parabola, low at the mean return {mean:.1f}, lowest at {best:.1f}.")


def whole_return(rewards: Tensor, dones: Tensor, discount: float) -> Tensor:
    """The return of the whole episode for each of its steps."""
    return discounted_returns(rewards, dones, discount)[:1].expand_as(rewards)


def learning() -> viz.Picture:
    """CartPole with and without the pieces; lines: the middle of three seeds, bands: all three."""
    none = {"baseline": lambda returns, valid: torch.zeros_like(returns)}
    kinds = {
        "reward to go and baseline": {},
        "reward to go": none,
        "neither": none | {"returns": whole_return},
    }
    series, bands = {}, {}
    for name, pieces in kinds.items():
        config = reinforce.ReinforceConfig(validate_every=0)
        runs = [[r["return"] for r in reinforce.train(config=config, seed=s, **pieces).log] for s in SEEDS]
        rows = list(zip(*runs, strict=True))
        series[name] = (range(1, len(rows) + 1), [statistics.median(row) for row in rows])
        bands[name] = ([min(row) for row in rows], [max(row) for row in rows])
        print(name, [round(run[-1]) for run in runs])
    return viz.curves(
        series, bands=bands, levels={"the longest possible": 500}, xlabel="iteration (32 episodes each)",
        ylabel="mean return while training", alt="Three curves; the one with both pieces reaches 500 first.",
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    for make in (cart, clouds, parabola, learning):
        if len(sys.argv) == 1 or make.__name__ in sys.argv[1:]:
            picture = make()
            picture.save(folder / f"03-{make.__name__}.png")
            print(f"03-{make.__name__}.png: {picture.alt}")


if __name__ == "__main__":
    main()
