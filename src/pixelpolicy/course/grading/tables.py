"""Grades as tables: for a spreadsheet, for Canvas, for Moodle."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from pathlib import Path

from pixelpolicy.course.grading.grade import Grades, Paper
from pixelpolicy.course.grading.visible import visible
from pixelpolicy.errors import GradingError
from pixelpolicy.files import write_whole

ROSTER = ("student", "name", "id", "login", "email", "section", "canvas", "moodle")


def read_roster(path: Path | None) -> dict[str, dict[str, str]]:
    """The class's list, a CSV with `student` (as the folders are called) and any other of the columns of ROSTER.

    `id` is the number that the institution gives (in Canvas the SIS User ID), `canvas` the number of Canvas's own,
    `moodle` the number of the participant in the assignment, as Moodle's grading worksheet has it.
    """
    if path is None:
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error) as error:
        raise GradingError(f"the roster {path} cannot be read: {error}") from error
    if rows and "student" not in rows[0]:
        raise GradingError(f"the roster {path} has no column `student`; its columns may be {', '.join(ROSTER)}")
    return {row["student"]: {key: row.get(key) or "" for key in ROSTER} for row in rows}


def write_tables(grades: Grades, out: Path, roster: dict[str, dict[str, str]] | None = None) -> list[Path]:
    """`grades.csv`, `canvas.csv`, and `moodle-NN.csv` for each lab."""
    roster = roster or {}
    tables = {"grades.csv": _grades(grades), "canvas.csv": _canvas(grades, roster)}
    for lab in grades.sources:
        tables[f"moodle-{lab:02d}.csv"] = _moodle(grades, lab, roster)
    for name, rows in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[safe(str(cell)) for cell in row] for row in rows])
        write_whole(out / name, text.getvalue(), GradingError)
    return [out / name for name in tables]


def _grades(grades: Grades) -> list[list[object]]:
    ids = [(lab, id) for lab, source in grades.sources.items() for id in source.tasks]
    head = ["student", *(id for _, id in ids), *(f"lab {lab:02d}" for lab in grades.sources), "points", "of", "remarks"]
    rows: list[list[object]] = [head]
    for student in grades.students:
        papers = {lab: grades.paper(student, lab) for lab in grades.sources}
        each = [f"{p.verdicts[id].points:.4g}" if (p := papers[lab]) else "" for lab, id in ids]
        sums = [f"{p.points:.4g}" if p else "" for p in papers.values()]
        there = [p for p in papers.values() if p]
        of = sum(grades.of(lab) for lab in grades.sources)
        remarks = "; ".join(f"lab {p.lab:02d}: {p.fault}" for p in there if p.fault)
        rows.append([student, *each, *sums, f"{sum(p.points for p in there):.4g}", f"{of:g}", remarks])
    return rows


# The columns are those that Canvas exports and imports (canvas-lms, lib/gradebook_exporter.rb, gradebook_importer.rb):
# a student is found by ID, which must be Canvas's own number, else by SIS User ID, SIS Login ID, or name.
def _canvas(grades: Grades, roster: dict[str, dict[str, str]]) -> list[list[object]]:
    names = [f"Lab {source.name}" for source in grades.sources.values()]
    rows: list[list[object]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names]]
    rows.append(["    Points Possible", "", "", "", "", *(f"{grades.of(lab):g}" for lab in grades.sources)])
    for student in grades.students:
        who = roster.get(student, {})
        papers = [grades.paper(student, lab) for lab in grades.sources]
        points = [f"{paper.points:.2f}" if paper else "" for paper in papers]
        name = re.sub("points possible", "", who.get("name") or student, flags=re.I)  # would be taken for the row above
        rows.append([name, who.get("canvas", ""), who.get("id", ""), who.get("login") or student,
                     who.get("section", ""), *points])  # fmt: skip
    return rows


# The columns of Moodle's grading worksheet (moodle, mod/assign/gradingtable.php). Its import (feedback/offline/
# importgradeslib.php) finds a student by what follows the twelfth sign of Identifier, and nobody where that is empty;
# by Email address the import of the gradebook finds them.
def _moodle(grades: Grades, lab: int, roster: dict[str, dict[str, str]]) -> list[list[object]]:
    rows: list[list[object]] = [["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade",
                                 "Grade can be changed", "Last modified (submission)", "Last modified (grade)",
                                 "Feedback comments"]]  # fmt: skip
    for paper in (p for s in grades.students if (p := grades.paper(s, lab))):
        who = roster.get(paper.student, {})
        number = re.fullmatch(r"(?:Participant )?(\d+)", who.get("moodle", "").strip())
        rows.append([f"Participant {number[1]}" if number else "", who.get("name") or paper.student,
                     who.get("email", ""),
                     "Submitted for grading", f"{paper.points:.2f}", f"{grades.of(lab):.2f}", "Yes", "-", "-",
                     _comment(paper)])  # fmt: skip
    return rows


def _comment(paper: Paper) -> str:
    """A paper in one line of HTML, which is what Moodle takes comments for."""
    if paper.fault:
        return html.escape(paper.fault, quote=False)
    said = [f"{id}: {v.points:.3g} of {v.of:g}{' - ' + v.hint if v.hint else ''}" for id, v in paper.verdicts.items()]
    return html.escape("; ".join(said), quote=False)


def safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, without signs that cannot be seen."""
    text = visible(text, 32_000)
    number = re.fullmatch(r"-?\d+(\.\d+)?", text)
    formula = unicodedata.normalize("NFKC", text).lstrip()[:1] in ("=", "+", "-", "@")
    return "'" + text if formula and not number and text != "-" else text
