"""Labs for nbgrader: the instructor's version of a lab, and the points that a cell of it gives.

nbgrader runs a whole notebook with the rights of whoever grades, and shows in its feedback what it ran. So its points
follow from the checks that students have too; nothing here knows a secret.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr

import nbformat
from nbformat.v4 import new_code_cell

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.checking import examine as examined
from pixelpolicy.course.checking import exercise_of
from pixelpolicy.course.source import Source, Task

CONFIGURATION = '''"""nbgrader's settings for this course directory; README.md says how it is used."""

import os

# Autograding runs notebooks from end to end. Points come from checks alone, so trainings may be short.
os.environ["PIXELPOLICY_PROFILE"] = "smoke"

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "pixelpolicy"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("write this exercise")'}
c.Execute.timeout = 300  # seconds a cell may take
'''


def earned(id: str, function: Callable) -> float:
    """The points that `function` earns in exercise `id`: the share of the properties that hold. Prints what held.

    Nothing is kept. The course's own answer, taken by `catch_up` or otherwise, earns nothing. nbgrader gives no points
    to a cell with anything on stderr, so that warnings are held back.
    """
    exercise = exercise_of(id)
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            result = examined(exercise, function)
        except SystemExit:
            print(f"{id} {exercise.name} left Python instead of giving an answer.")
            return 0.0
    print(result.message)
    return float(min(exercise.points, round(result.share * exercise.points, 4)))


def instructors_notebook(source: Source) -> nbformat.NotebookNode:
    """A lab as nbgrader's `source/` wants it: answers between markers, points in a locked cell with a hidden test."""
    notebook = lab_notebook(source)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        ours = cell.metadata.get("pixelpolicy", {})
        if ours.get("role") == "exercise":
            cell.source = source.tasks[ours["id"]].cells["exercise"].text
        elif ours.get("role") == "check":
            points = cell.metadata.nbgrader.pop("points")
            cells.append(_points_cell(source.tasks[ours["id"]], {**cell.metadata.nbgrader, "points": points}))
            cell.metadata.nbgrader.grade = False
    notebook.cells = cells
    nbformat.validate(notebook)
    return notebook


def _points_cell(task: Task, metadata: dict) -> nbformat.NotebookNode:
    number = task.id.replace(".", "-")
    text = (
        f"# nbgrader gives the points of exercise {task.id} here.\n"
        "### BEGIN HIDDEN TESTS\n"
        "from pixelpolicy.course.nbgrading import earned\n\n"
        f'earned("{task.id}", {task.name})\n'
        "### END HIDDEN TESTS"
    )
    cell = new_code_cell(text, metadata={"nbgrader": metadata | {"grade_id": f"points-{number}"}})
    cell.id = f"points-{number}"
    return cell
