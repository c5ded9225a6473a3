"""Chapter 13's figures and its results: `python benchmarks/figure_13.py`, after the runs were recorded.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the results alone, `--check` writes
nothing and fails where they are not those of the records.
"""

import argparse
from functools import partial
from statistics import mean

import torch
from chapter import ROOT, Chapter, axes, spread

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import steer
from pixelpolicy.finetune.search import amortised, worth_training
from pixelpolicy.generators import load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, cps
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

LAB, LONG, FREE, GRPO = "13-forward-process", "13-forward-process-long", "13-forward-process-brakeless", "12-grpo-long"
STEPS = 10
ASKED = {1_000: ":", 10_000: "-.", 100_000: "-"}


def records(name: str) -> list[dict]:
    path = ROOT / "benchmarks" / f"{name}.json"
    return [run for run in read_benchmark(path) if run["profile"] == "cpu"] if path.exists() else []


# The opening: base, steered, trained -------------------------------------------------------------------------------


def three_ways(base: ImageGenerator, columns: int = 8) -> viz.Picture:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    prompts, seeds = prompts[::2], seeds[::2]  # two of each kind
    noisy = DenoisingPolicy(base, partial(cps, noise=0.5), steps=STEPS)
    steered = steer(noisy, shapes_dense(), prompts, seeds=torch.tensor(seeds), particles=4, kind="max")
    tuned = recorded.apply(LONG, 0, load("shapes"))
    parts = [base.generate(prompts, seeds), steered.samples, tuned.generate(prompts, seeds)]
    accepted = [verdict.strict for part in parts for verdict in shapes.verify(part.numpy(), prompts)]
    counts = [sum(accepted[k * columns : (k + 1) * columns]) for k in range(3)]
    return viz.sample_sheet(
        torch.cat(parts),
        prompts * 3,
        columns=columns,
        accepted=accepted,
        alt=f"Three rows of pictures of coloured shapes for the same {columns} prompts. Matching their prompts, in "
        f"solid green frames: {counts[0]} of {columns} by the base, {counts[1]} steered, {counts[2]} after training.",
    )


# The mirror, in closed form ------------------------------------------------------------------------------------------


def mirror() -> viz.Picture:
    """One number a picture; good ones round +1, bad ones round -1, both with a spread of 0.3."""
    centre, width, sigma = 1.0, 0.3, 0.6
    x = torch.linspace(-2, 2, 201)
    variance = ((1 - sigma) * width) ** 2 + sigma**2

    def velocity(middle: float) -> torch.Tensor:
        """E[x1 - x0 | x] where x0 is normal round ``middle``."""
        gap = x - (1 - sigma) * middle
        return (sigma * gap - (1 - sigma) * width**2 * gap) / variance - middle

    good, bad = velocity(centre), velocity(-centre)
    share = torch.sigmoid(2 * (1 - sigma) * centre * x / variance)
    old = share * good + (1 - share) * bad
    figure, panels = axes(2)
    pictures = torch.linspace(-2, 2, 201)
    bumps = [torch.exp(-((pictures - middle) ** 2) / (2 * width**2)) / 2 for middle in (centre, -centre)]
    lines = (("good", bumps[0], "#009E73", "--"), ("bad", bumps[1], "#D55E00", ":"))
    panels[0].plot(pictures, bumps[0] + bumps[1], color="#777777", lw=2.5, alpha=0.6, label="old policy")
    for name, values, colour, style in lines:
        panels[0].plot(pictures, values, style, color=colour, label=name)
    panels[0].set(xlabel="picture", title="density", yticks=[])
    panels[1].plot(x, old, color="#777777", lw=2.5, alpha=0.6, label="old")
    panels[1].plot(x, good, "--", color="#009E73", label="good half")
    panels[1].plot(x, bad, ":", color="#D55E00", label="bad half")
    panels[1].set(xlabel=f"noisy picture at level {sigma}", title="velocity")
    for axis in panels:
        axis.legend(frameon=False, fontsize=8)
    between = bool(((old - good) * (old - bad) <= 1e-9).all())
    return viz.picture(
        figure,
        alt="Two panels. Left, a density with two equal bumps, one of good pictures and one of bad. Right, three "
        f"velocities against the noisy picture: the old one lies {'everywhere' if between else 'mostly'} between that "
        "of the good half, below, and that of the bad half, above, near the bad one at the left and the good one at "
        "the right.",
    )


# The brake -----------------------------------------------------------------------------------------------------------


def brake() -> viz.Picture:
    figure, panels = axes(2)
    ends = {}
    for name, style, colour, label in (
        (LONG, "-", viz.COLOURS["nft"], "with the brake"),
        (FREE, "--", "#882255", "without"),
    ):
        for number, run in enumerate(records(name)):
            rows = [row for row in recorded.history(name, run["seed"]) if "accuracy" in row]
            for axis, key in zip(panels, ("accuracy", "diversity"), strict=True):
                axis.plot([row["iteration"] for row in rows], [row[key] for row in rows], style, color=colour,
                          label=label if number == 0 else None)  # fmt: skip
            ends.setdefault(label, []).append((max(row["accuracy"] for row in rows), rows[-1]["accuracy"]))
    for axis, title in zip(panels, ("strict accuracy", "diversity of what is accepted"), strict=True):
        axis.set(xlabel="iteration", title=title, ylim=(0, None))
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    told = "; ".join(
        f"{label}, accuracy is at best {mean(best for best, _ in runs):.2f}, "
        f"{mean(end for _, end in runs):.2f} at the end"
        for label, runs in ends.items()
    )
    return viz.picture(
        figure, alt=f"Two panels over {rows[-1]['iteration']:.0f} iterations, strict accuracy and diversity: {told}."
    )


# At equal cost -------------------------------------------------------------------------------------------------------


def searched() -> dict[str, dict[int, float]]:
    """Accuracy by number of draws or particles: a mean over the lab's recorded seeds."""
    runs = [run["metrics"]["search"] for run in records(LAB)]
    return {kind: {int(n): mean(run[kind][n] for run in runs) for n in runs[0][kind]} for kind in runs[0]}


def equal_cost() -> viz.Picture:
    rows, price = searched(), mean(run["metrics"]["training_evaluations"] for run in records(LAB))
    figure, (axis,) = axes(1, width=7.2, height=3.6)
    for kind, label, style, colour in (
        ("best", "base, best of N", "o-", viz.COLOURS["best-of-n"]),
        ("steered", "base, steered with N particles", "s--", "#882255"),
    ):
        axis.plot([STEPS * n for n in rows[kind]], list(rows[kind].values()), style, color=colour, label=label)
    for asked, style in ASKED.items():
        costs = [amortised(price, STEPS * n, torch.tensor(float(asked))).item() for n in rows["trained"]]
        axis.plot(costs, list(rows["trained"].values()), style, marker="^", color=viz.COLOURS["nft"],
                  label=f"trained, best of N, {asked:,} pictures asked")  # fmt: skip
    axis.set(xscale="log", xlabel="network evaluations a picture, training's share included", ylabel="strict accuracy")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    told = [f"best of {n} {value:.2f}" for n, value in rows["best"].items()]
    steered = [f"{n} particles {value:.2f}" for n, value in rows["steered"].items()]
    trained = [f"best of {n} {value:.2f}" for n, value in rows["trained"].items()]
    return viz.picture(
        figure,
        alt=f"Strict accuracy against cost, {STEPS} evaluations a draw. The base: {', '.join(told)}; steered, "
        f"{', '.join(steered)}. The trained model: {', '.join(trained)}, at a cost that holds its share of "
        f"{price:,.0f} evaluations of training.",
    )


# The results ---------------------------------------------------------------------------------------------------------


def cheapest(wanted: float, rows: dict[int, float]) -> float:
    return min((STEPS * n for n, value in rows.items() if value >= wanted), default=float("inf"))


def results() -> str:
    runs = records(LAB)
    if not runs:
        return "\nThere is no record of this lab yet.\n"
    lines = ["", "| | accuracy | held-out prompts | diversity |", "|---|---|---|---|"]
    before = {key: runs[0]["metrics"][key]["before"] for key in ("accuracy", "accuracy_held_out", "diversity")}
    lines += [f"| base | {' | '.join(f'{value:.3f}' for value in before.values())} |"]
    lines += [f"| base, best of {n} | {value:.3f} | | |" for n, value in runs[0]["metrics"]["best_of_n"].items()]
    for label, name in (("lab 13, as you run it", LAB), ("recorded long run", LONG)):
        made = records(name)
        if made:
            cells = [spread([run["metrics"][key]["after"] for run in made]) for key in before]
            lines.append(f"| {label}, {seeds(made)} | {' | '.join(cells)} |")
    rows, price = searched(), mean(run["metrics"]["training_evaluations"] for run in runs)
    seconds = spread([run["metrics"]["training_cpu_seconds"] for run in runs], 0)
    lines += ["", f"The lab's training takes {seconds} CPU seconds and {price:,.0f} evaluations. " + races(), ""]
    lines += [
        "| accuracy wanted | best of N | steered | trained | worth training, against best of N | against steering |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for wanted in (0.7, 0.8, 0.9, 0.95):
        costs = [cheapest(wanted, rows[kind]) for kind in ("best", "steered", "trained")]
        ends = [worth_training(price, cost, costs[2]) for cost in costs[:2]]
        told = ["-" if costs[2] == float("inf") else "always" if end == 0 else
                "never" if end == float("inf") else f"from {end:,.0f} pictures" for end in ends]  # fmt: skip
        shown = ["-" if cost == float("inf") else f"{cost:.0f}" for cost in costs]
        lines.append(f"| {wanted} | {' | '.join(shown)} | {' | '.join(told)} |")
    kept = len(shapes.KINDS) * 16
    return "\n".join([*lines, "", f"(Evaluations a picture, on {kept} test pairs; a dash where the accuracy is not "
                      "reached with so few draws.)", ""])  # fmt: skip


def races() -> str:
    """Training seconds to a quarter more than the base on the validation pairs, of the long runs of labs 12 and 13."""
    told = []
    for label, name in (("GRPO's", GRPO), ("NFT's", LONG)):
        made, spent = recorded.records(name), []
        goal = made[0]["metrics"]["accuracy"]["before"] + 0.25
        for run in made:
            log = recorded.history(name, run["seed"])
            first = next(row["iteration"] for row in log if row.get("accuracy", 0) >= goal)
            spent.append(sum(row["cpu_seconds"] for row in log if row["iteration"] <= first))
        told.append(f"{label} long run {spread(spent, 0)} ({seeds(made)})")
    return f"CPU seconds of training until the validation accuracy is 0.25 above the base: {', '.join(told)}."


def seeds(made: list[dict]) -> str:
    return f"{len(made)} seeds" if len(made) > 1 else "1 seed"


CHAPTER = Chapter("13-forward-process", results)


def main() -> None:
    if CHAPTER.write_results(argparse.ArgumentParser(description=__doc__)) is None:
        return
    CHAPTER.place(mirror(), "13-mirror")
    CHAPTER.place(brake(), "13-brake")
    CHAPTER.place(equal_cost(), "13-equal-cost")
    CHAPTER.place(three_ways(load("shapes")), "13-three-ways")


if __name__ == "__main__":
    main()
