"""Chapter 18's figures and its table of results: `python benchmarks/figure_18.py` (a minute of training in it).

Also writes the figures' alternative texts into the chapter. `--table` rewrites the table alone, `--check` writes
nothing and fails where the table is not that of the records, `--only NAME` draws one figure. Two figures show the
schedule of the first record of lab 18.
"""

import argparse

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread
from matplotlib.figure import Figure

from pixelpolicy import viz
from pixelpolicy.control import make
from pixelpolicy.control.ppo import PPO, PPOConfig
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune.schedule import Schedule, generate, uniform
from pixelpolicy.generators import load
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import canvas, shapes

PAINTING = PPOConfig(
    copies=192, steps=14, iterations=300, epochs=4, learning_rate=2e-3, discount=0.5, lam=0.9, hidden=(128, 128)
)


def records() -> list[dict]:
    path = ROOT / "benchmarks" / "18-structure.json"
    return read_benchmark(path) if path.exists() else []


def learnt() -> Schedule:
    numbers = records()[0]["metrics"]["schedule"]
    levels, weights = (
        torch.tensor([value for name, value in numbers.items() if name.startswith(kind)])
        for kind in ("sigma", "weight")
    )
    return Schedule(levels, weights)


# The opening: a painter at work ------------------------------------------------------------------------------------


def painter(columns: int = 9) -> viz.Picture:
    ppo = PPO(make(canvas.ID, PAINTING.copies), PAINTING, seed=0)
    for _ in range(PAINTING.iterations):
        ppo.iteration()
    wanted, labels = canvas.targets("held-out")
    states = canvas.paint(lambda seen: ppo.policy.greedy(torch.as_tensor(seen)).numpy(), wanted)
    gone = 1 - canvas.errors(states[-1], wanted)
    chosen = [int(np.flatnonzero(labels == digit)[3]) for digit in range(1, 1 + columns)]
    shown = {"target": wanted, "1 stroke": states[1], "2": states[2], "4": states[4], "6": states[6]}
    figure = Figure(figsize=(0.85 * columns, 0.9 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), columns)
    for row, (name, pictures) in zip(panels, shown.items(), strict=True):
        for axis, index in zip(row, chosen, strict=True):
            axis.imshow(pictures[index], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([]), axis.set_yticks([])
        row[0].set_ylabel(name, fontsize=8)
    return viz.picture(
        figure,
        alt=f"Five rows of {columns} pictures in white on black. On top handwritten digits from 1 to 9; below, what "
        "the painter has made of each after one, two, four and six strokes: first a rising bar, as most digits lean, "
        "then shorter ones for some of what is missing. The 1, the 7 and the 9 are well met; the 2, the 5 and the 6 "
        f"are blots. Over all held-out digits six strokes remove {gone.mean():.2f} of the error.",
    )


# Success against diversity -----------------------------------------------------------------------------------------


def judged(base, schedule: Schedule, per_kind: int = 128) -> tuple[float, float]:
    texts, seeds = shapes.evaluation_pairs("test", per_kind)
    scores = shapes.measure(generate(base, schedule, texts, torch.tensor(seeds)).numpy(), texts)
    return scores["diversity"], scores["accuracy"]


def trade() -> viz.Picture:
    base, weights = load("shapes"), (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
    constant = [judged(base, uniform(base, 4, weight)) for weight in weights]
    found = judged(base, learnt())
    figure, (axis,) = axes(1, width=5.2, height=3.6)
    axis.plot(*zip(*constant, strict=True), "--o", markersize=4, color=OTHERS[1], label="equal steps, one weight")
    for weight, (diversity, accuracy) in zip(weights, constant, strict=True):
        axis.annotate(f"{weight:g}", (diversity, accuracy), xytext=(5, -9), textcoords="offset points", fontsize=8)
    axis.plot(*found, "*", markersize=14, color=OTHERS[0], label="learnt steps and weights")
    axis.set(xlabel="diversity of accepted pictures", ylabel="strict accuracy")
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    told = ", ".join(f"{a:.2f} and {d:.3f} at weight {w:g}" for w, (d, a) in zip(weights, constant, strict=True))
    return viz.picture(
        figure,
        alt=f"Accuracy against diversity with four steps. Equal steps with one guidance weight: {told}. The learnt "
        f"schedule, a star: {found[1]:.2f} and {found[0]:.3f}.",
    )


# What was learnt ---------------------------------------------------------------------------------------------------


def schedule() -> viz.Picture:
    figure, (left, right) = axes(2, height=2.8)
    found, plain = learnt(), Schedule(torch.linspace(1, 0, 5), torch.ones(4))
    for which, style, colour, name in ((plain, "--", OTHERS[1], "plain"), (found, "-", OTHERS[0], "learnt")):
        left.plot(range(5), which.sigmas, style, marker="o", markersize=4, color=colour, label=name)
        right.plot(range(1, 5), which.guidance, style, marker="o", markersize=4, color=colour, label=name)
    left.set(xlabel="steps taken", ylabel="noise level", xticks=range(5))
    right.set(xlabel="step", ylabel="guidance weight", xticks=range(1, 5), ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    levels, weights = (", ".join(f"{v:.2f}" for v in part) for part in found)
    return viz.picture(
        figure,
        alt=f"Left, noise levels after each step, plain 1, 0.75, 0.5, 0.25, 0, learnt {levels}. Right, the guidance "
        f"weight of each step, plain 1 throughout, learnt {weights}.",
    )


# The table ---------------------------------------------------------------------------------------------------------


def table() -> str:
    """The records of lab 18: medians over seeds, in brackets the lowest and the highest."""
    runs = [run["metrics"] for run in records()]
    if not runs:
        return "*No run of the lab has been recorded in this copy.*\n"
    at = lambda *path: spread([_within(run, path) for run in runs])  # noqa: E731
    weights = sorted({run["constant_guidance"]["weight"] for run in runs})
    lines = [
        "| four steps | strict accuracy | diversity |",
        "|---|---|---|",
        f"| equal, no guidance | {at('schedule_accuracy', 'before')} | {at('schedule_diversity', 'before')} |",
        f"| equal, one tuned weight ({', '.join(f'{w:g}' for w in weights)}) | {at('constant_guidance', 'accuracy')} | "
        f"{at('constant_guidance', 'diversity')} |",
        f"| learnt steps and weights | {at('schedule_accuracy', 'after')} | {at('schedule_diversity', 'after')} |",
    ]
    lines += [f"| *equal, no guidance, best of {n}* | *{at('best_of_n', n)}* | |" for n in runs[0]["best_of_n"]]
    strokes = [
        "| six strokes | share of the error removed |",
        "|---|---|",
        f"| the painter, untrained | {at('painter_removed', 'before')} |",
        f"| the painter | {at('painter_removed', 'after')} |",
    ]
    strokes += [f"| *the best of {n} random strokes, six times* | *{at('random_strokes', n)}* |"
                for n in runs[0]["random_strokes"]]  # fmt: skip
    seconds = (
        spread([run["painter_cpu_seconds"] for run in runs], 0),
        spread([run["schedule_cpu_seconds"] for run in runs], 0),
    )
    count = f"{len(runs)} seeds" if len(runs) > 1 else "one seed"
    return (
        f"Lab 18 in the profile `cpu`, {count}. The painter took {seconds[0]} CPU seconds, the schedule "
        f"{seconds[1]}.\n\n"
        + "\n".join(strokes)
        + "\n\n"
        + "\n".join(lines)
        + f"\n\nThe reader of digits reads {at('painter_read', 'after')} of the paintings as the digit that was "
        f"meant, and {at('painter_read', 'target')} of the targets.\n"
    )


def _within(metrics: dict, path: tuple[str, ...]) -> float:
    for key in path:
        metrics = metrics[key]
    return metrics


CHAPTER = Chapter("18-structure", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one figure")
    asked = CHAPTER.write_results(parser)
    if asked is None:
        return
    for name, draw in {"18-painter": painter, "18-trade": trade, "18-schedule": schedule}.items():
        if asked.only in (None, name):
            CHAPTER.place(draw(), name)


if __name__ == "__main__":
    main()
