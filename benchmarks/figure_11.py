"""Chapter 11's figures and its table of results: `python benchmarks/figure_11.py`, after the runs were recorded.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the table alone, `--check` writes
nothing and fails where the table is not that of the records.
"""

import argparse
import json

import torch
from chapter import ROOT, Chapter, axes, spread
from torch.nn import functional as F

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import d3po_loss
from pixelpolicy.generators import load
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import shapes

COLOURS = {"DPO": viz.COLOURS["dpo"], "anchored DPO": OTHERS[0], "KTO": OTHERS[2], "online": OTHERS[3]}
SEEDS = ("-", "--", ":")
FALL, FALLS = "11-preferences-fall", {"dpo": "DPO", "dpo-anchored": "anchored DPO"}


def seeds_of(runs: list[dict]) -> str:
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"


def made(name: str) -> list[dict]:
    """The records of a benchmark; none where it has not been run yet."""
    path = ROOT / "benchmarks" / f"{name}.json"
    return read_benchmark(path) if path.exists() else []


# The opening: before and after -----------------------------------------------------------------------------------


def before_after() -> viz.Picture:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    prompts, seeds = prompts[::2], seeds[::2]  # two of each kind
    tuned = recorded.apply("11-preferences-long", 0, load("shapes"))
    pictures = [generator.generate(prompts, seeds) for generator in (load("shapes"), tuned)]
    accepted = [verdict.strict for part in pictures for verdict in shapes.verify(part.numpy(), prompts)]
    half = len(prompts)
    return viz.sample_sheet(
        torch.cat(pictures), prompts * 2, columns=half, accepted=accepted,
        alt=f"Two rows of pictures for the same {half} prompts and the same noise. Above, by the untouched base, "
        f"{sum(accepted[:half])} match their prompts and have a solid green frame; below, after training on labels, "
        f"{sum(accepted[half:])} match.",
    )  # fmt: skip


# What the losses ask for -----------------------------------------------------------------------------------------


def losses() -> viz.Picture:
    figure, (left, right) = axes(2)
    margin = torch.linspace(-8, 8, 161, requires_grad=True)
    for name, value, style in (
        ("DPO", -F.logsigmoid(margin), "-"),
        ("KTO, wanted", 1 - torch.sigmoid(margin), "--"),
    ):
        pull = -torch.autograd.grad(value.sum(), margin)[0]
        left.plot(margin.detach(), pull, style, color=COLOURS[name.split(",")[0]], label=name)
    left.set(xlabel="margin or gain, times beta", ylabel="pull")
    left.legend(frameon=False, fontsize=8)
    ratios, zero = torch.linspace(-0.3, 0.3, 121).double(), torch.zeros(1).double()
    for beta, style in ((0.1, "-"), (10.0, "--")):
        values = [d3po_loss(x[None], -x[None], zero, zero, beta=beta).item() for x in ratios]
        right.plot(2 * ratios, values, style, color=OTHERS[1], label=f"beta {beta:g}")
    right.set(xlabel="log-ratio of winner less that of loser", ylabel="loss of D3PO and SPO")
    right.legend(frameon=False, fontsize=8)
    ends = [d3po_loss(sign * torch.ones(1), -sign * torch.ones(1), torch.zeros(1), torch.zeros(1)) for sign in (1, -1)]
    return viz.picture(
        figure,
        alt="Two panels. Left, the pull of a loss against the margin: DPO's rises to 1 on the wrong side and stays "
        "there; KTO's is a bump that is flat on both sides, 0.25 at its top. Right, the loss over single steps against "
        f"the difference of log-ratios: with beta 0.1 a line between {ends[0]:.4f} and {ends[1]:.4f} that looks "
        "level, with beta 10 a slope that is cut off on both sides.",
    )


# Displacement and its cure ---------------------------------------------------------------------------------------


def displacement(runs: list[dict]) -> viz.Picture:
    keys = {"accuracy": "accuracy (validation)", "winners": "winners' error, change", "losers": "losers' error, change"}
    figure, panels = axes(3, width=9.6)
    for style, run in zip(SEEDS, runs, strict=False):
        for name in ("DPO", "anchored DPO"):
            rows = run["metrics"]["runs"][name]
            for axis, (key, title) in zip(panels, keys.items(), strict=True):
                label = name if style == "-" else None
                axis.plot(
                    [r["iteration"] for r in rows], [r[key] for r in rows], style, color=COLOURS[name], label=label
                )
                axis.set(xlabel="iteration", title=title)
                axis.title.set_fontsize(9)
    for axis in panels[1:]:
        axis.axhline(0, color="#777777", linewidth=0.8)
    panels[0].legend(frameon=False, fontsize=8)
    ends = {name: [run["metrics"]["runs"][name][-1] for run in runs] for name in ("DPO", "anchored DPO")}
    tops = {name: [max(r["accuracy"] for r in run["metrics"]["runs"][name]) for run in runs] for name in ends}
    said = "; ".join(
        f"{name}: best look {spread(tops[name])}, at the end {spread([r['accuracy'] for r in rows])}, winners' error "
        f"{spread([r['winners'] for r in rows])}"
        for name, rows in ends.items()
    )
    return viz.picture(
        figure,
        alt=f"Three panels over iterations of lab 11, {seeds_of(runs)}: accuracy, and the change "
        f"against the base of the winners' and of the losers' error. {said}.",
    )


# What comes after the best -----------------------------------------------------------------------------------------


def fall(runs: list[dict]) -> viz.Picture:
    """Looks at the validation set, and the best of each run; a line a seed."""
    figure, panels = axes(2)
    for method, name in FALLS.items():
        for style, run in zip(SEEDS, [run for run in runs if run["method"] == method], strict=False):
            log = json.loads((ROOT / "benchmarks" / FALL / method / f"seed-{run['seed']}.json").read_text())
            rows = [row for row in log if "accuracy" in row]
            top = max(rows, key=lambda row: row["accuracy"])
            for axis, key in zip(panels, ("accuracy", "diversity"), strict=True):
                label = name if style == "-" else None
                axis.plot([r["iteration"] for r in rows], [r[key] for r in rows], style, color=COLOURS[name],
                          label=label)  # fmt: skip
                axis.set(xlabel="iteration", title=f"{key} (validation)")
                axis.title.set_fontsize(9)
            panels[0].plot(top["iteration"], top["accuracy"], "o", color=COLOURS[name], markersize=6)
    panels[1].set_ylim(0, None)
    panels[0].legend(frameon=False, fontsize=8)
    return viz.picture(
        figure,
        alt=f"Two panels over 300 iterations, a line a seed. Left, accuracy, a disc at each best look; right, "
        f"diversity. On the test set: {fallen(runs)}.",
    )


def fallen(runs: list[dict]) -> str:
    """Accuracy on the test set, at the look that was chosen and at the end."""
    return "; ".join(
        f"{name} "
        + ", ".join(
            f"{spread([run['metrics'][f'accuracy_{when}']['after'] for run in runs if run['method'] == method])} {said}"
            for when, said in (("best", "at the best look"), ("end", "at the end"))
        )
        for method, name in FALLS.items()
    )


# The recorded long run -------------------------------------------------------------------------------------------


def long_run(runs: list[dict]) -> viz.Picture:
    figure, panels = axes(2)
    for style, run in zip(SEEDS, runs, strict=False):
        rows = [row for row in recorded.history("11-preferences-long", run["seed"]) if "accuracy" in row]
        for axis, key in zip(panels, ("accuracy", "diversity"), strict=True):
            axis.plot([r["iteration"] for r in rows], [r[key] for r in rows], style, color=COLOURS["KTO"],
                      label=f"seed {run['seed']}")  # fmt: skip
            axis.set(xlabel="iteration", title=f"{key} (validation)")
            axis.title.set_fontsize(9)
    panels[0].legend(frameon=False, fontsize=8)
    panels[1].set_ylim(0, None)
    said = ", ".join(
        f"{key} on the test pairs from {runs[0]['metrics'][key]['before']:.3f} to "
        f"{spread([run['metrics'][key]['after'] for run in runs])}"
        for key in ("accuracy", "diversity")
    )
    return viz.picture(
        figure,
        alt=f"Two panels over the iterations of the recorded long run, one line for each of "
        f"{seeds_of(runs)}: strict accuracy, and diversity of accepted pictures. Measured at the best look: "
        f"{said}.",
    )


# The table -------------------------------------------------------------------------------------------------------


def falls(metrics: list[dict], name: str) -> str:
    """The greatest fall of accuracy from a look to any later one, and how far the last look is below the best."""
    runs = [[row["accuracy"] for row in m["runs"][name]] for m in metrics]
    deepest = spread([max(max(rows[: i + 1]) - value for i, value in enumerate(rows)) for rows in runs])
    return f"{name} {deepest}, its last look {spread([max(rows) - rows[-1] for rows in runs])} below its best"


def table() -> str:
    """The lab's runs at their best look and at their end, and the test set: medians over seeds, lowest and highest."""
    runs, long = made("11-preferences"), made("11-preferences-long")
    if not runs:
        return "No run of lab 11 is recorded yet.\n"
    metrics = [run["metrics"] for run in runs]
    first, starts = metrics[0], [run["metrics"]["runs"]["DPO"][0]["accuracy"] for run in runs]
    lines = [
        "| | best look (validation) | at its end | test, at the best look | diversity (test) |",
        "|---|---|---|---|---|",
        f"| base | {spread(starts)} | | {first['accuracy']['before']:.3f} | {first['diversity']['before']:.3f} |",
    ]
    for count in first["best_of_n"]:
        lines.append(f"| base, best of {count} | | | {spread([m['best_of_n'][count] for m in metrics])} | |")
    for name in ("DPO", "anchored DPO", "online", "KTO", "D3PO", "SPO"):
        looks = [m["runs"][name][1:] for m in metrics]
        cells = [spread([max(row["accuracy"] for row in rows) for rows in looks])]
        cells.append(spread([rows[-1]["accuracy"] for rows in looks]))
        for key in ("test", "test_diversity"):
            cells.append(spread([m[key][name] for m in metrics]) if name in first[key] else "")
        lines.append(f"| {name}, {looks[0][-1]['iteration']:.0f} iterations | {' | '.join(cells)} |")
    falling = made(FALL)
    for method, name in FALLS.items():
        mine = [run["metrics"] for run in falling if run["method"] == method]
        for when, said in (("best", "at its best look"), ("end", "at its end")):
            cells = [spread([m[f"{key}_{when}"]["after"] for m in mine]) for key in ("accuracy", "diversity")]
            lines.append(f"| {name}, 300 iterations, {seeds_of(mine)}, {said} | | | {' | '.join(cells)} |")
    if long:
        scores = [[r["metrics"][key]["after"] for r in long] for key in ("accuracy", "diversity")]
        lines.append(f"| recorded long run (KTO), {seeds_of(long)} | | | {spread(scores[0])} | "
                     f"{spread(scores[1])} |")  # fmt: skip
    noise = {share: spread([m["label_noise"][share] for m in metrics]) for share in first["label_noise"]}
    spreads = [spread([m["noise_spread"][kind] for m in metrics]) for kind in ("shared", "own")]
    judged = first["pictures_judged"]
    return "\n".join(lines) + (
        f"\n\n{seeds_of(runs)}, {first['pairs']:,} pairs; offline {judged['offline']:,} pictures "
        f"were judged, online {judged['online']:,}. A look is at 192 pictures, a test at 1,024.\n\n"
        f"The greatest fall of accuracy from a look to a later one: {falls(metrics, 'DPO')}; "
        f"{falls(metrics, 'anchored DPO')}.\n\n"
        "Anchored DPO where a share of the choices is wrong, best look within 30 iterations: "
        + ", ".join(f"{share} {value}" for share, value in noise.items())
        + f".\n\nSpread of one pair's gap of errors over draws of noise: shared noise {spreads[0]}, noise of its own "
        f"for each {spreads[1]}.\n"
    )


CHAPTER = Chapter("11-preferences", table)


def main() -> None:
    asked = CHAPTER.write_results(argparse.ArgumentParser(description=__doc__))
    if asked is None:
        return
    CHAPTER.place(losses(), "11-losses")
    CHAPTER.place(displacement(made("11-preferences")), "11-displacement")
    CHAPTER.place(fall(made(FALL)), "11-fall")
    CHAPTER.place(long_run(made("11-preferences-long")), "11-long-run")
    CHAPTER.place(before_after(), "11-before-after")


if __name__ == "__main__":
    main()
