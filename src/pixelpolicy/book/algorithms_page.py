"""The page that compares all methods, made from `benchmarks/algorithms.json` alone when the book is built."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from pixelpolicy import atlas, viz
from pixelpolicy.course.algorithms import BATCH, METHODS, Budget
from pixelpolicy.course.bench import NAME, RATES, TUNING_SEED, rates, read_trial
from pixelpolicy.course.results import read_benchmark

SEEDS = 3  # that a complete row has
COLUMNS = {
    "proxy": ("proxy", 3), "accuracy": ("accuracy", 3), "accuracy_held_out": ("held-out prompts", 3),
    "diversity": ("diversity", 3), "kl_nats": ("KL, nats", 1),
}  # fmt: skip
WITHOUT_PAPER = {
    "best-of-4": "four pictures are drawn, the one that the reward likes best is delivered.",
    "best-of-12": "the same with twelve.",
    "dpo-anchored": "the same with a penalty where a winner is matched worse than by the base.",
}
COLOURS = {"online": "#0072B2", "offline": "#D55E00", "search": "#009E73"}
DASHES = {"accuracy": (0, (5, 2)), "proxy": (0, (1, 2)), "diversity": (0, (5, 2))}
TEXT = """---
html_theme.sidebar_secondary.remove: true
---

# All methods on one task

```{{figure}} figures/algorithms.png
:alt: {alt}

After a run of each method: strict accuracy (full discs) and the proxy that was climbed (rings), diversity, and what it
cost. A disc is the median over seeds, its line goes from the lowest to the highest. Grey lines: the untouched base, its
proxy dotted.
```

Which method should you take? Papers do not answer that: each compares on a base, a reward and a budget of its own.
Here all have the *same* base (the shapes model), the same prompts, the same reward and the same number of pictures.
{complete}

````{{table}}
:class: atlas-table ordered

{table}````

**Proxy** is the reward that every method climbs: a small network fitted to the dense verifier. It has a gradient, so
that ReFL and DRaFT can take part, and errors, which a method may find. **Accuracy** is the share of pictures that the
strict verifier accepts, which no method is trained on, on the test set and on prompts that were held out; learning
rates were chosen by it on a validation set apart. **KL** is that of
the paths of one noisy sampler for all, in nats; a search leaves the network as it is and has none. (What best of N
delivers is at most $\\log N - (N - 1) / N$ nats from the base.) A cell is the
median over seeds with the lowest and the highest in brackets. CPU seconds are of one thread on a machine that did other
things besides. A heading orders the table.
{fallen}

## What each does

{lines}

## How it was made

- A run draws and judges {pictures:,} pictures, {batch} an iteration (ReFL and DRaFT: 48, so that they take four times
  as many smaller steps). What is measured is the last state of its averaged weights, by the plain ODE of ten steps.
- **Offline** methods draw all of their pictures from the base, once, in groups of four, and then learn from them for as
  many iterations as the others. **Search** trains nothing and pays for every picture it delivers: best of 12 costs
  twelve. SPO's pictures are candidates of a step; at each of five steps so many are judged by a guess of the picture.
- Each method is tuned by the same effort: {tries} learning rates, {rates} times the one it had in its lab, each for
  half of the pictures with seed {seed}, which is not reported; the most accurate on the validation set is taken. All
  other settings are those of the labs.
- `pixelpolicy bench` runs what is missing, a thread a run, over cores or, with `--backend dask`, over a cluster. A row
  without a run does not exist.

## What it does not say

One small world, one base, one budget and one reward. A method that needs many pictures to get going is cut off early;
one that overfits a proxy late does not show it. Tuning touched learning rates only. The ranking is that of this table
and no other; what carries over are the questions to put to a table like it.
"""


def table(records: list[dict[str, Any]], labs: dict[str, str]) -> str:
    """A row a method that has run, best accuracy first, in Markdown; ``labs`` are the names of labs by number."""
    heads = ["method", "lab", *(name for name, _ in COLUMNS.values()), "pictures", "CPU seconds", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    base = records[0]["metrics"]
    cells = [f"{base[key]['before'] if key in base else 0:.{digits}f}" for key, (_, digits) in COLUMNS.items()]
    lines.append(f"| *the base* | | {' | '.join(cells)} | 0 | 0 | |")
    for method, runs in _by_method(records):
        told = METHODS[method]
        cite = f" {{cite:p}}`{told.key}`" if told.key else ""
        cells = [_spread([run["metrics"][key]["after"] for run in runs if key in run["metrics"]], digits)
                 for key, (_, digits) in COLUMNS.items()]  # fmt: skip
        cpu = _spread([run["cpu_seconds"] for run in runs], 0)
        pictures = f"{told.draws} each" if told.kind == "search" else f"{runs[0]['samples']:,}"
        seconds = "" if told.kind == "search" else cpu
        count = f"{len(runs)}" if len(runs) >= SEEDS else f"{len(runs)} of {SEEDS}"
        kind = "" if told.kind == "online" else f" *({told.kind})*"
        row = [f"{told.label}{kind}{cite}", lab_link(told.lab, labs), *cells, pictures, seconds, count]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def lab_link(number: str, labs: dict[str, str]) -> str:
    """A lab's number, leading to its page where there is one."""
    return f"[{number}](labs/{labs[number]}.ipynb)" if number in labs else number


def lines(records: list[dict[str, Any]], labs: dict[str, str]) -> str:
    """What each method in the table does, in the order of the labs: a line of our own from the atlas."""
    entries, done = {entry.key: entry for entry in atlas.load()}, dict(_by_method(records))
    told = [(METHODS[method], WITHOUT_PAPER.get(method)) for method in METHODS if method in done]
    return "\n".join(
        f"- **{one.label}** (lab {lab_link(one.lab, labs)}): {line or entries[one.key].one_line}" for one, line in told
    )


def fallen(records: list[dict[str, Any]], root: Path) -> str:
    """Of methods that end below the base, what they had at half of the pictures, in the trial that chose their rate."""
    base, told = records[0]["metrics"]["accuracy"]["before"], []
    for method, runs in _by_method(records):
        if METHODS[method].make and median(run["metrics"]["accuracy"]["after"] for run in runs) < base:
            half = max(read_trial(root, method, rate)["accuracy"] for rate in rates(method))
            told.append(f"{METHODS[method].label} ({half:.3f} on the validation set at half of the pictures)")
    return told and (
        f"\nBelow the base at their end: {', '.join(told)}. Rates are chosen there. What is the best "
        "rate at half of the way may be too high for the rest of it.\n"
    ) or ""  # fmt: skip


def figure(records: list[dict[str, Any]]) -> viz.Picture:
    """A line a method, the most accurate on top: accuracy and proxy, diversity, CPU seconds; a disc a median."""
    runs_of = _by_method(records)
    drawn = Figure(figsize=(8.4, 1.3 + 0.27 * len(runs_of)), layout="constrained")
    panels = drawn.subplots(1, 3, sharey=True, gridspec_kw={"width_ratios": [2.2, 1, 1]})
    base, told = records[0]["metrics"], []
    for axis, keys in zip(panels, (("accuracy", "proxy"), ("diversity",), ("cpu_seconds",)), strict=True):
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.grid(alpha=0.25)
        for row, (method, runs) in enumerate(runs_of):
            one = METHODS[method]
            for key in keys:
                if key == "cpu_seconds" and one.kind == "search":
                    continue
                values = [run[key] if key in run else run["metrics"][key]["after"] for run in runs]
                face = "none" if key == "proxy" else COLOURS[one.kind]
                axis.plot([min(values), max(values)], [row, row], color=COLOURS[one.kind], linewidth=1.2)
                axis.plot(median(values), row, "o", color=COLOURS[one.kind], markerfacecolor=face, markersize=5)
                if key == "accuracy":
                    told.append(f"{one.label} {median(values):.2f}")
        for key in set(keys) & set(base):
            axis.axvline(base[key]["before"], color="#777777", linestyle=DASHES[key], linewidth=1.1)
    for kind in COLOURS:
        panels[0].plot([], [], "o", color=COLOURS[kind], label=kind)
    panels[0].plot([], [], "o", color="#777777", markerfacecolor="none", label="proxy")
    panels[0].set(xlabel="strict accuracy, and proxy, on the test set")
    panels[0].set_yticks(range(len(runs_of)), [METHODS[method].label for method, _ in runs_of], fontsize=8)
    panels[0].invert_yaxis()
    panels[1].set(xlabel="diversity", xlim=(0, None))
    panels[2].set(xlabel="CPU seconds", xlim=(0, None))
    drawn.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper right", ncols=4)
    return viz.picture(
        drawn,
        alt="Three panels, a line a method, the most accurate on top: accuracy and proxy, diversity, CPU seconds. "
        f"Accuracy of the base {base['accuracy']['before']:.2f}; {'; '.join(told)}.",
    )


def place_page(root: Path, folder: Path) -> None:
    """Write `algorithms.md` and its figure into the staged book; nothing where no method has been run."""
    path = root / "benchmarks" / f"{NAME}.json"
    if not path.exists():
        return
    records = [made for made in read_benchmark(path) if made.get("method") in METHODS]
    picture = figure(records)
    (folder / "figures").mkdir(exist_ok=True)
    picture.save(folder / "figures" / "algorithms.png")
    done = {method: len(runs) for method, runs in _by_method(records)}
    lacking = [METHODS[method].label for method in METHODS if done.get(method, 0) < SEEDS]
    complete = (
        f"**This table is partial**: fewer than {SEEDS} seeds have been run of {', '.join(lacking)}." if lacking else ""
    )
    labs = atlas.numbered(root / "solutions", "py")
    text = TEXT.format(
        alt=picture.alt, complete=complete, table=table(records, labs), lines=lines(records, labs),
        fallen=fallen(records, root), pictures=Budget().pictures, batch=BATCH, tries=len(RATES),
        rates=", ".join(f"{factor:g}" for factor in RATES), seed=TUNING_SEED,
    )  # fmt: skip
    (folder / f"{NAME}.md").write_text(text, encoding="utf-8")


def _by_method(records: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The records of each method that has some, the most accurate method first."""
    found = {method: [made for made in records if made["method"] == method] for method in METHODS}

    def accuracy(runs: list[dict[str, Any]]) -> float:
        return median(run["metrics"]["accuracy"]["after"] for run in runs)

    return sorted(((m, runs) for m, runs in found.items() if runs), key=lambda item: -accuracy(item[1]))


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
