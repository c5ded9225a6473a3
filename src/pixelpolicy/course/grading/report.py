"""The class report: how hard each exercise was, what it told apart, what went wrong most, who is alike."""

from __future__ import annotations

import html
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pixelpolicy.course.grading.alike import resemblances
from pixelpolicy.course.grading.examine import Verdict
from pixelpolicy.course.grading.feedback import STATES, document
from pixelpolicy.course.grading.grade import Grades, Paper
from pixelpolicy.course.grading.visible import visible
from pixelpolicy.errors import GradingError
from pixelpolicy.files import write_whole

BLUE, ORANGE = "#0072b2", "#e69f00"  # told apart whatever the eye's colours


@dataclass(frozen=True)
class Item:
    """One exercise over a class: `difficulty` is the mean share of its points, `discrimination` how that goes with
    the points of the rest of the lab (a correlation; None where one of them does not vary)."""

    id: str
    name: str
    difficulty: float
    discrimination: float | None
    seconds: float
    states: Counter
    mistakes: Counter


def items_of(papers: list[Paper]) -> list[Item]:
    """The exercises of one lab, over its papers."""
    items = []
    for id in papers[0].verdicts if papers else ():
        verdicts: list[Verdict] = [paper.verdicts[id] for paper in papers]
        shares = [v.share for v in verdicts]
        rest = [paper.points - v.points for paper, v in zip(papers, verdicts, strict=True)]
        mistakes = Counter(v.mistake for v in verdicts if v.mistake)
        seconds = [v.seconds for v in verdicts if v.seconds]
        middle = statistics.median(seconds) if seconds else 0.0
        told, states = correlation(shares, rest), Counter(v.state for v in verdicts)
        items.append(Item(id, verdicts[0].name, statistics.fmean(shares), told, middle, states, mistakes))
    return items


def correlation(one: list[float], other: list[float]) -> float | None:
    """Pearson's, None where either does not vary."""
    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return statistics.correlation(one, other)


def write_report(grades: Grades, out: Path) -> Path:
    """`report/index.html` with its pictures; returns the page."""
    parts = ["<h1>Class report</h1>", f"<p>{len(grades.students)} students, {len(grades.papers)} notebooks.</p>"]
    if grades.notes:
        parts += ["<p>Left out, or not graded:</p>", _list(grades.notes)]
    for lab, source in grades.sources.items():
        papers = [paper for paper in grades.papers if paper.lab == lab]
        if not papers:
            continue
        items = items_of(papers)
        parts.append(f"<h2>Lab {source.name}</h2>")
        parts.append(_table(items, len(papers)))
        for name, draw in (("points", _points), ("items", _items), ("mistakes", _mistakes), ("time", _time)):
            alt = draw(out / "report" / f"{lab:02d}-{name}.png", papers, items, grades.of(lab))
            if alt:
                parts.append(f'<p><img src="{lab:02d}-{name}.png" alt="{html.escape(alt)}"></p>')
        pairs = resemblances(papers)
        parts.append("<h3>Submissions that resemble each other</h3>")
        told = [f"{one} and {other}: {likeness:.0%} of what is rare in the class" for likeness, one, other in pairs]
        parts.append(_list(told) if told else "<p>None beyond what the exercises explain.</p>")
        broken = [f"{paper.student}: {paper.fault}" for paper in papers if paper.fault]
        parts += ["<h3>Notebooks that could not be read</h3>", _list(broken)] if broken else []
    page = out / "report" / "index.html"
    write_whole(page, document("Class report", "\n".join(parts)), GradingError)
    return page


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(visible(line))}</li>" for line in lines) + "</ul>"


def _table(items: list[Item], count: int) -> str:
    head = ("exercise", "mean share", "discrimination", "seconds", "states", "commonest mistakes")
    rows = []
    for item in items:
        told = "–" if item.discrimination is None else f"{item.discrimination:.2f}"
        states = ", ".join(f"{STATES.get(state, state)} {n}" for state, n in item.states.most_common())
        wrong = ", ".join(f"{name} {n}" for name, n in item.mistakes.most_common(3)) or "–"
        cells = (f"{item.id} {item.name}", f"{item.difficulty:.0%}", told, f"{item.seconds:.1f}", states, wrong)
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return f"<table><caption>{count} notebooks</caption><tr>{titles}</tr>{''.join(rows)}</table>"


def _points(path: Path, papers: list[Paper], items: list[Item], of: float) -> str:
    points = [paper.points for paper in papers]
    figure, axes = _axes()
    axes.hist(points, bins=[of * i / 10 for i in range(11)], color=BLUE, edgecolor="white")
    axes.set(xlabel=f"points of {of:g}", ylabel="students", xlim=(0, of))
    _save(figure, path)
    middle, least, most = statistics.median(points), min(points), max(points)
    return f"Histogram of points: median {middle:.3g} of {of:g}, from {least:.3g} to {most:.3g}."


def _items(path: Path, papers: list[Paper], items: list[Item], of: float) -> str:
    known = [item for item in items if item.discrimination is not None]
    if not known:
        return ""
    figure, axes = _axes()
    axes.axhline(0.2, color="grey", linewidth=1, linestyle=":")
    axes.scatter([i.difficulty for i in known], [i.discrimination for i in known], color=BLUE)
    for item in known:
        axes.annotate(item.id, (item.difficulty, item.discrimination), textcoords="offset points", xytext=(5, 4))
    axes.set(xlabel="mean share of the points (left: hard)", ylabel="discrimination")
    axes.set(xlim=(-0.05, 1.08), ylim=(-1.05, 1.1))
    _save(figure, path)
    hardest = min(items, key=lambda item: item.difficulty)
    weak = [item.id for item in known if item.discrimination < 0.2]
    return (
        f"Difficulty against discrimination: hardest is {hardest.id} with {hardest.difficulty:.0%} of its points; "
        f"below a discrimination of 0.2 {'are ' + ', '.join(weak) if weak else 'is none'}."
    )


def _mistakes(path: Path, papers: list[Paper], items: list[Item], of: float) -> str:
    counted = Counter({f"{item.id} {name}": n for item in items for name, n in item.mistakes.items()}).most_common(10)
    if not counted:
        return ""
    figure, axes = _axes(0.6 + 0.32 * len(counted))
    axes.barh([name for name, _ in counted][::-1], [n for _, n in counted][::-1], color=ORANGE)
    axes.set(xlabel="students")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)
    return "The commonest mistakes: " + "; ".join(f"{name} ({n})" for name, n in counted) + "."


def _time(path: Path, papers: list[Paper], items: list[Item], of: float) -> str:
    figure, axes = _axes()
    seconds = [[paper.verdicts[item.id].seconds for paper in papers] for item in items]
    axes.boxplot(seconds, tick_labels=[item.id for item in items])
    axes.set(ylabel="seconds to grade", ylim=(0, None))
    _save(figure, path)
    slowest = max(items, key=lambda item: item.seconds)
    return (
        f"Seconds it took to grade each exercise: the slowest is {slowest.id}, {slowest.seconds:.1f} s in the median."
    )


def _axes(height: float = 3.4):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, max(height, 1.4)), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
