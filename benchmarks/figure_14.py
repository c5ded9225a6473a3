"""Chapter 14's figures and its results: `python benchmarks/figure_14.py`, after the runs were recorded.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the results alone, `--check` writes
nothing and fails where they are not those of the records.
"""

import argparse
from statistics import median

import torch
from chapter import ROOT, Chapter, axes, spread
from matplotlib.figure import Figure

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.generators import load
from pixelpolicy.generators.picture_tokens import SIDE, PictureTokenGenerator
from pixelpolicy.policies import TokenPolicy
from pixelpolicy.viz.figures import picture
from pixelpolicy.worlds import layouts, shapes

LAB, LONG = "14-autoregressive", "14-autoregressive-long"


def records(name: str) -> list[dict]:
    path = ROOT / "benchmarks" / f"{name}.json"
    return read_benchmark(path) if path.exists() else []


# The opening: a picture that is being written --------------------------------------------------------------------


def unfinished(tokens: torch.Tensor, ground: int, codes: int) -> torch.Tensor:
    """The sequence as it is after so many codes, the rest still ground."""
    kept = tokens.clone()
    kept[layouts.LENGTH + codes :] = ground
    return kept


def writing(base: PictureTokenGenerator) -> viz.Picture:
    prompts = ["a red circle left of a blue square", "three green triangles", "a yellow square and a blue circle"]
    tuned = recorded.apply(LONG, 0, load("shapes-tokens"))
    rollout = TokenPolicy(tuned).rollout(prompts, seeds=torch.tensor([5, 7, 11]))
    stages, figure = (0, 16, 32, 48, 64), Figure(figsize=(8.4, 5.2), layout="constrained")
    grid = figure.subplots(len(prompts), len(stages) + 1)
    empty = base.picture_tokens(torch.from_numpy(shapes.draw([()])))[0, 0].item()
    for row, drawing, axis in zip(rollout.states[:, 1:], rollout.samples, grid, strict=True):
        plan, *boards = axis
        plan.set(xlim=(0, SIDE), ylim=(SIDE, 0), aspect="equal")
        plan.set_xticks([i + 0.5 for i in range(SIDE)], layouts.COLUMNS, fontsize=6)
        plan.set_yticks([i + 0.5 for i in range(SIDE)], layouts.ROWS, fontsize=6)
        plan.set_facecolor(tuple(shapes.BACKGROUND))
        for planned in drawing.layout:
            mark = {"circle": "o", "square": "s", "triangle": "^"}[planned.shape]
            colour = tuple(shapes.COLOURS[planned.colour])
            plan.scatter(planned.column + 0.5, planned.row + 0.5, s=90, marker=mark, facecolor="none", edgecolor=colour)
        for board, codes in zip(boards, stages, strict=True):
            shown = tuned.decode(unfinished(row, empty, codes)[None])[0]
            board.imshow((shown.permute(1, 2, 0).numpy() + 1) / 2, interpolation="nearest")
            board.set(xticks=[], yticks=[])
            board.set_title(f"{codes} codes", fontsize=8)
        plan.set_title("the layout", fontsize=8)
    said = "; ".join(
        f"'{text}' becomes '{', '.join(map(str, d.layout))}'" for text, d in zip(prompts, rollout.samples, strict=True)
    )
    alt = (
        "Three prompts, a row each. First a board of eight by eight cells with the outlines of the planned objects, "
        f"then the picture after 0, 16, 32, 48 and 64 codes, filling up from the top. {said}."
    )
    return picture(figure, alt=alt)


# Before and after ------------------------------------------------------------------------------------------------


def before_after(base: PictureTokenGenerator, columns: int = 8) -> viz.Picture:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    seeds = torch.tensor(seeds)
    tuned = recorded.apply(LONG, 0, load("shapes-tokens"))
    drawings = [d for g in (base, tuned) for d in TokenPolicy(g).rollout(prompts, seeds=seeds).samples]
    pictures = torch.stack([drawing.picture for drawing in drawings])
    accepted = [verdict.strict for verdict in shapes.verify(pictures.numpy(), prompts * 2)]
    captions = [f"{p}: {', '.join(map(str, d.layout))}" for p, d in zip(prompts * 2, drawings, strict=True)]
    return viz.sample_sheet(
        pictures,
        captions,
        columns=columns,
        accepted=accepted,
        alt="Four rows of pictures for the same sixteen prompts and random numbers, each under its prompt and its "
        f"layout. In the upper two, by the base, {sum(accepted[: len(prompts)])} of {len(prompts)} match; "
        f"in the lower two, after the recorded long run, {sum(accepted[len(prompts) :])} of {len(prompts)}.",
    )


# The long run ----------------------------------------------------------------------------------------------------


def training() -> viz.Picture:
    runs = records(LONG)
    logs = [recorded.history(LONG, run["seed"]) for run in runs]
    figure, (left, right) = axes(2)
    for key, label, style in (("reward/layout", "layout", "-"), ("reward/dense", "picture", "--")):
        for number, log in enumerate(logs):
            x = [row["iteration"] for row in log]
            left.plot(x, [row[key] for row in log], style, color=f"C{number}", label=f"{label}, seed {number}")
    for number, log in enumerate(logs):
        seen = [row for row in log if "accuracy" in row]
        right.plot([r["iteration"] for r in seen], [r["accuracy"] for r in seen], color=f"C{number}", marker="o")
    before, after = (median(run["metrics"]["accuracy"][when] for run in runs) for when in ("before", "after"))
    right.axhline(before, color="#777777", linestyle=":")
    left.set(xlabel="iteration", ylabel="reward")
    right.set(xlabel="iteration", ylabel="strict accuracy (validation)", ylim=(0, 1))
    left.legend(frameon=False, fontsize=8)
    alt = (
        f"Left: the rewards of layout and picture rise over {len(logs[0])} iterations. Right: strict accuracy on "
        f"validation prompts rises too; on the test prompts it goes from {before:.2f} to {after:.2f}, the dotted line "
        "being the base."
    )
    return picture(figure, alt=alt)


# Results ---------------------------------------------------------------------------------------------------------


def results() -> str:
    lab, long = records(LAB), records(LONG)
    if not long:
        return "No runs are recorded yet."
    rows = {
        "accuracy": "accuracy",
        **{kind: f"accuracy_{kind}" for kind in shapes.KINDS},
        "held-out prompts": "accuracy_held_out",
        "diversity": "diversity",
        "layout says what was asked": "layout_right",
        "picture follows the layout": "layout_followed",
        "KL to the base, nats": "kl_nats",
    }
    lines = ["| | base | lab 14 | long run |", "|---|---|---|---|"]
    for label, key in rows.items():
        values = [_cell(runs, key, when) for runs, when in ((lab or long, "before"), (lab, "after"), (long, "after"))]
        if any(values):
            lines.append(f"| {label} | {' | '.join(values)} |")
    lines += [
        f"| *base, best of {count}* | {spread([r['metrics']['best_of_n'][count] for r in lab], 2)} | | |"
        for count in (lab[0]["metrics"]["best_of_n"] if lab else ())
    ]
    for key, title in (("ablation", "reward, trained as briefly"), ("temperature", "temperature of the base")):
        if lab:
            lines += ["", f"| {title} | accuracy |", "|---|---|"]
            lines += [
                f"| {name} | {spread([run['metrics'][key][name] for run in lab])} |" for name in lab[0]["metrics"][key]
            ]
    counted = {0: "No seed", 1: "One seed", 2: "Two seeds", 3: "Three seeds"}
    lines += ["", f"{counted[len(lab)]} of the lab, {counted[len(long)].lower()} of the long run: {_iterations(long)}"]
    return "\n".join(lines)


def _cell(runs: list[dict], key: str, when: str) -> str:
    return spread([run["metrics"][key][when] for run in runs]) if runs and key in runs[0]["metrics"] else ""


def _iterations(long: list[dict]) -> str:
    steps = len(recorded.history(LONG, long[0]["seed"]))
    return f"{steps} iterations, {spread([run['cpu_seconds'] for run in long], 0)} CPU seconds of training."


CHAPTER = Chapter(LAB, results)

if __name__ == "__main__":
    if CHAPTER.write_results(argparse.ArgumentParser(description=__doc__.splitlines()[0])):
        torch.set_num_threads(1)
        generator = load("shapes-tokens")
        CHAPTER.place(writing(generator), "14-writing")
        CHAPTER.place(before_after(generator), "14-before-after")
        CHAPTER.place(training(), "14-training")
