"""What grading a class takes: thirty made-up students hand in one lab, and `pixelpolicy grade` is timed.

    python benchmarks/grading_time.py 12 --backend bubblewrap

Each exercise of each student is drawn, from a fixed seed: the solution (12 in 20), a mutant of it (5), a blank (2), an
endless loop (1). No two students hand in the same text, so that nothing is graded once for two. The class is graded
twice: the second time must find all verdicts there. One record a lab and backend in benchmarks/grading/.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import nbformat

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.grading import BACKENDS, grade
from pixelpolicy.course.mutation import mutations
from pixelpolicy.course.source import find_source, read_source

SEED = 0
KINDS = {"solution": 12, "mutant": 5, "blank": 2, "endless loop": 1}


def written(kind: str, solved: str, blank: str, name: str, student: int, draw: random.Random) -> str:
    """The text of one student's cell."""
    if kind == "blank":
        return blank
    if kind == "mutant":
        found = mutations(solved, name)
        return draw.choice(found).code if found else solved
    if kind == "endless loop":
        return f"def {name}(*args, **kwargs):\n    while True:\n        student = {student}\n"
    return f"{solved}\n\n{name}.student = {student}\n"


def hand_in(lab: int, students: int, folder: Path) -> Counter:
    """Write the class's notebooks; how many cells there are of each kind."""
    source = read_source(find_source(course_root(), lab))
    solved, blank = lab_notebook(source, answers=True), lab_notebook(source)
    blanks = {cell.id: cell.source for cell in blank.cells}
    draw, kinds = random.Random(SEED), Counter()
    for student in range(students):
        notebook = nbformat.from_dict(solved)
        for cell in notebook.cells:
            mark = cell.metadata.get("pixelpolicy", {})
            if mark.get("role") == "exercise":
                kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
                name = source.tasks[mark["id"]].name
                cell.source = written(kind, cell.source, blanks.get(cell.id, ""), name, student, draw)
                kinds[kind] += 1
        path = folder / f"student-{student:02d}" / f"{source.name}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    return kinds


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("lab", type=int)
    words.add_argument("--students", type=int, default=30)
    words.add_argument("--backend", choices=BACKENDS, default="bubblewrap")
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="pixelpolicy-class-") as folder:
        handed_in, out = Path(folder, "class"), Path(folder, "out")
        kinds = hand_in(asked.lab, asked.students, handed_in)
        settings = {"labs": [asked.lab], "secret": bytes(32), "jobs": asked.jobs, "backend": asked.backend}
        started = time.monotonic()
        grades = grade(handed_in, out, **settings)
        seconds = time.monotonic() - started
        again = grade(handed_in, out, show=False, **settings)
    states = Counter(verdict.state for paper in grades.papers for verdict in paper.verdicts.values())
    assert again.run == 0, f"{again.run} exercises were graded twice"
    assert [paper.verdicts for paper in again.papers] == [paper.verdicts for paper in grades.papers]
    made = {"lab": asked.lab, "students": asked.students, "handed_in": dict(kinds), "verdicts": dict(states)}
    made |= {"backend": asked.backend, "jobs": asked.jobs, "cores": os.cpu_count(), "seconds": round(seconds, 1)}
    write_json(course_root() / "benchmarks" / "grading" / f"{asked.lab:02d}-{asked.backend}.json", made)
    print(made)


if __name__ == "__main__":
    main()
