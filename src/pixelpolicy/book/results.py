"""Tables of results from `benchmarks/*.json` alone: for the README and for the book's page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from pixelpolicy.course.results import read_benchmark

HEADLINES = {  # a metric in words, and the metric of diversity that belongs beside it
    "cartpole_greedy_return": ("greedy return on CartPole, of 500", ""),
    "pendulum_greedy_return": ("greedy return on Pendulum", ""),
    "accuracy": ("accuracy", "diversity"),
    "accuracy_held_out": ("accuracy, held-out prompts", ""),
    "painter_removed": ("share of the error that a painter removes", ""),
    "schedule_accuracy": ("accuracy in four steps", "schedule_diversity"),
}
LABELS = {key: words for key, (words, _) in HEADLINES.items()} | {
    "best_of_n": "accuracy, base, best of",
    "dense": "dense reward",
    "kl_nats": "KL to the base, nats",
    "training_seconds": "training, seconds",
}
INTRODUCTION = """# Results

Every number here is read from a record in `benchmarks/`; nothing is typed in. A cell gives the median over the seeds
and, in brackets, the lowest and the highest. **Greedy return** is the mean over 100 episodes in which the policy
takes its likeliest action, without exploring. **Accuracy** is the share of pictures for fixed prompts and seeds that
the strict verifier accepts. **Held-out** prompts were not trained on. **Diversity** is how differently accepted
pictures of one prompt place and size their objects. **Best of N** is the untouched base, drawing N pictures and
keeping the best: what the same picture costs without training. Courses of a training are drawn in the chapters; their
numbers stay in the records. No GPU has timed anything here.
"""
COURSES = ("log", "curve")  # metrics step by step: hundreds of rows that nobody reads


def overview(root: Path) -> str:
    """One row for each headline metric of each benchmark that compares no methods, as a Markdown table."""
    lines = ["| run | seeds | measured | before | after | diversity | CPU minutes |", "|---|---|---|---|---|---|---|"]
    for heading, runs in _groups(root):
        minutes = _spread([run["cpu_seconds"] / 60 for run in runs], "{:.1f}")
        for key, (label, diversity) in HEADLINES.items():
            before, after = _change(runs, key)
            if before and after and "method" not in runs[0]:
                kept = " → ".join(filter(None, _change(runs, diversity)))
                lines.append(f"| {heading} | {len(runs)} | {label} | {before} | {after} | {kept} | {minutes} |")
    return "\n".join(lines) + "\n"


KINDS = {  # what a record is of, by the last part of its name
    "long": "recorded long run",
    "brakeless": "long run without its brake",
    "comparison": "at equal samples",
    "race": "the race",
    "overoptimisation": "over-optimisation",
}


def results_page(root: Path) -> str:
    """The book's page of results, in MyST Markdown: the overview, then every metric of every benchmark."""
    parts = [INTRODUCTION, "## At a glance\n", overview(root)]
    for heading, runs in _groups(root):
        parts += [f"## {heading[0].upper()}{heading[1:]}\n", f"{_conditions(runs)}\n", _all_metrics(runs)]
    return "\n".join(parts)


def title(name: str) -> str:
    """`12-grpo` in words: "lab 12, as a student runs it"; a name without a lab's number keeps itself."""
    found = re.match(rf"(\d\d)-.*?(?:-({'|'.join(KINDS)}))?$", name)
    if not found:
        return name.replace("-", " ")
    return f"lab {int(found[1])}, {KINDS.get(found[2], 'as a student runs it')}"


def _groups(root: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The records that one row may sum up, under their title: those of one benchmark, method and profile."""
    for path in sorted((root / "benchmarks").glob("*.json"), key=lambda path: path.stem):
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for run in read_benchmark(path):
            found.setdefault((run.get("method", ""), run["profile"]), []).append(run)
        for (method, profile), runs in found.items():
            extra = [method] * bool(method) + [f"profile {profile}"] * (profile != "cpu")
            yield ", ".join([title(path.stem), *extra]), runs


def _conditions(runs: list[dict[str, Any]]) -> str:
    """Under what the records were made, in a sentence or two."""
    seeds = ", ".join(str(run["seed"]) for run in runs)
    wall = _spread([run["seconds"] / 60 for run in runs], "{:.1f}")
    cpu = _spread([run["cpu_seconds"] / 60 for run in runs], "{:.1f}")
    threads = " or ".join(str(count) for count in sorted({run["threads"] for run in runs}))
    versions = sorted({f"{package} {version}" for run in runs for package, version in run["packages"].items()})
    dates = " to ".join(sorted({min(run["date"] for run in runs), max(run["date"] for run in runs)}))
    return (
        f"Seeds {seeds}; profile `{runs[0]['profile']}`; {wall} minutes, {cpu} of CPU; threads: {threads}; "
        f"at most {max(run['peak_memory_mb'] for run in runs)} MB; {', '.join(versions)}; {dates}."
    )


def _all_metrics(runs: list[dict[str, Any]]) -> str:
    """Every metric: in one table what a run changed, in another what it measured once."""
    found = (name for run in runs for name in _leaves(run["metrics"]) if name[0] not in COURSES)
    names = list(dict.fromkeys(found))
    changed = list(dict.fromkeys(name[:-1] for name in names if name[-1] in ("before", "after")))
    once = [name for name in names if name[:-1] not in changed]
    lines = ["| measured | before | after |", "|---|---|---|"] if changed else []
    for name in changed:
        lines.append(f"| {_label(name)} | {' | '.join(_change(runs, *name))} |")
    lines += ["", "| measured | value |", "|---|---|"] if once else []
    lines += [f"| {_label(name)} | {_numbers(_values(runs, *name))} |" for name in once]
    return "\n".join(lines) + "\n"


def _leaves(value: Any, name: tuple[str, ...] = ()) -> dict[tuple[str, ...], float]:
    """The numbers of nested metrics, each under the names that lead to it."""
    if not isinstance(value, dict | list):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {path: number for key, part in parts for path, number in _leaves(part, (*name, str(key))).items()}


def _values(runs: list[dict[str, Any]], *name: str) -> list[float]:
    """A metric's numbers over the runs that have it."""
    return [leaves[name] for run in runs if name in (leaves := _leaves(run["metrics"]))]


def _change(runs: list[dict[str, Any]], *name: str) -> tuple[str, str]:
    """A metric before and after, in words."""
    return _numbers(_values(runs, *name, "before")), _numbers(_values(runs, *name, "after"))


def _label(name: tuple[str, ...]) -> str:
    """A metric in words: ("accuracy_two",) is "accuracy, two prompts", ("best_of_n", "4") ends in "best of 4"."""
    key, *rest = name
    kind = key.removeprefix("accuracy_")
    if key not in LABELS and kind != key:
        words = f"accuracy, {kind.replace('_', ' ')} prompts"
    else:
        words = LABELS.get(key, key.replace("_", " "))
    label = words + (" " if key == "best_of_n" else ": ") * bool(rest) + "; ".join(rest)
    return label.replace("|", r"\|")


def _numbers(values: list[float]) -> str:
    """Three decimals below 10, one below 100, none above, three digits below 0.01; empty where there are no values."""
    if not values:
        return ""
    size = max(abs(value) for value in values)
    small = "{:.2e}" if size < 1e-3 else "{:.5f}"
    return _spread(
        values, small if 0 < size < 0.01 else "{:.3f}" if size < 10 else "{:.1f}" if size < 100 else "{:.0f}"
    )


def _spread(values: list[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
