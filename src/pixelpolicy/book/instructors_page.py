"""The instructor's guide: `book/instructors.md`, its tables made from labs and records when the book is built.

The text holds places such as `<!--made:labs-->`; each is replaced by what the function of that name gives.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from statistics import median
from typing import Any

from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.instructions import table as exercises_table
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.course.source import Source
from pixelpolicy.course.syllabi import PLANS, Session, labs_of, tasks_of
from pixelpolicy.errors import BookError

NAME = "instructors.md"
PLACE = re.compile(r"<!--made:([a-z-]+)-->")
CORPUS = ("ATTACKS", "TRICKS", "PROBES")
BINDER_MB = 1000  # that Binder guarantees a session


def place_guide(root: Path, folder: Path) -> None:
    """Fill the places of the staged `instructors.md`; nothing where the book has no such page."""
    path = folder / NAME
    if path.exists():
        path.write_text(guide(root, path.read_text(encoding="utf-8")), encoding="utf-8")


def guide(root: Path, text: str) -> str:
    """The guide with its places filled; BookError where a place has a name that nothing is made for."""
    labs = labs_of(root)
    runs = {number: _runs(root, source) for number, source in labs.items()}
    makers = {
        "labs": lambda: labs_table(labs, runs),
        "exercises": lambda: exercises_table(list(labs.values())),
        "attacks": lambda: str(len(attacks(root))),
        "attack-names": lambda: ", ".join(sorted(attacks(root))),
        "seconds": lambda: f"{Limits().seconds:g}",
        "cpu-seconds": lambda: f"{Limits().cpu_seconds}",
        "memory": lambda: f"{Limits().memory_mb}",
        "files": lambda: f"{Limits().file_mb}",
        "class-timed": lambda: class_timed(root),
        "most-memory": lambda: _most(runs),
        "beyond-binder": lambda: _beyond(runs),
    }
    makers |= {name: lambda plan=plan: plan_table(plan, labs) for name, plan in PLANS.items()}

    def made(place: re.Match[str]) -> str:
        if place[1] not in makers:
            raise BookError(f"{NAME} has a place for {place[1]!r}, which nothing makes: one of {', '.join(makers)}")
        return makers[place[1]]()

    return PLACE.sub(made, text)


def labs_table(labs: dict[int, Source], runs: dict[int, list[dict[str, Any]]]) -> str:
    """Every lab with its exercises, minutes and points, and what a solved run of it took."""
    rows = ["| lab | exercises | minutes | points | CPU minutes of a run | memory, MB |", "|---|---|---|---|---|---|"]
    sums = [0, 0, 0.0]
    for number, lab in labs.items():
        tasks = lab.tasks.values()
        told = [len(tasks), sum(t.minutes for t in tasks), sum(t.points for t in tasks)]
        sums = [a + b for a, b in zip(sums, told, strict=True)]
        took = f"{median(r['cpu_seconds'] for r in runs[number]) / 60:.1f}" if runs[number] else ""
        peak = f"{max(r['peak_memory_mb'] for r in runs[number]):,}" if runs[number] else ""
        rows.append(f"| {_link(lab)} | {told[0]} | {told[1]} | {told[2]:g} | {took} | {peak} |")
    return "\n".join([*rows, f"| *all* | {sums[0]} | {sums[1]:,} | {sums[2]:g} | | |"])


def plan_table(plan: tuple[Session, ...], labs: dict[int, Source]) -> str:
    """A plan, its minutes of exercises and its points from the labs."""
    heads = ("when", "what", "chapters", "labs", "minutes", "exercises", "points")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    all_minutes, all_points = 0, 0.0
    for session in plan:
        tasks = tasks_of(session.work, labs)
        minutes, points = sum(t.minutes for t in tasks), sum(t.points for t in tasks)
        all_minutes, all_points = all_minutes + minutes, all_points + points
        chapters = ", ".join(f"{{doc}}`{n} <chapters/{labs[n].name}>`" for n in session.chapters)
        work = ", ".join(n if "." in n else f"{{doc}}`{n} <labs/{labs[int(n)].name}>`" for n in session.work)
        counted = (minutes, f"{points:g}") if tasks else ("", "")
        when = session.when.replace(" ", "\N{NO-BREAK SPACE}")
        rows.append(f"| {when} | {session.topic} | {chapters} | {work} | {session.minutes} | {counted[0]} | "
                    f"{counted[1]} |")  # fmt: skip
    whole = sum(session.minutes for session in plan)
    return "\n".join([*rows, f"| *all* | | | | {whole:,} | {all_minutes:,} | {all_points:g} |"])


def attacks(root: Path) -> list[str]:
    """The names of what `tests/attacks/` tries on the grader."""
    path = root / "tests" / "attacks" / "corpus.py"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise BookError(f"the instructor's guide counts attacks, and {path} cannot be read: {error}") from error
    named = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    if not all(isinstance(named.get(name), ast.Dict) for name in CORPUS):
        raise BookError(f"the instructor's guide counts attacks, and {path} lacks one of {', '.join(CORPUS)}")
    return [key.value for name in CORPUS for key in named[name].keys if isinstance(key, ast.Constant)]


def class_timed(root: Path) -> str:
    """What grading a made-up class took, by the records of `benchmarks/grading_time.py`."""
    told = []
    for path in sorted((root / "benchmarks" / "grading").glob("*.json")):
        made = json.loads(path.read_text(encoding="utf-8"))
        told.append(
            f"{made['seconds'] / 60:.1f} minutes for {made['students']} notebooks of lab {made['lab']:02d}, by "
            f"{made['backend']} on {made['cores']} cores"
        )
    if not told:
        raise BookError("the instructor's guide says what grading takes: run benchmarks/grading_time.py 12 first")
    return "; ".join(told)


def _link(lab: Source) -> str:
    return f"{{doc}}`{lab.name} <labs/{lab.name}>`"


def _runs(root: Path, lab: Source) -> list[dict[str, Any]]:
    path = root / "benchmarks" / f"{lab.name}.json"
    return read_benchmark(path) if path.exists() else []


def _peaks(runs: dict[int, list[dict[str, Any]]]) -> dict[int, int]:
    return {number: max(run["peak_memory_mb"] for run in made) for number, made in runs.items() if made}


def _most(runs: dict[int, list[dict[str, Any]]]) -> str:
    peaks = _peaks(runs)
    number = max(peaks, key=lambda n: peaks[n])
    return f"{peaks[number]:,} MB (lab {number:02d})"


def _beyond(runs: dict[int, list[dict[str, Any]]]) -> str:
    return ", ".join(f"{number:02d}" for number, peak in sorted(_peaks(runs).items()) if peak > BINDER_MB)
