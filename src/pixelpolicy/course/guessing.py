"""What a copy was made from, where that was not kept: told from the ids and the texts of its cells."""

from __future__ import annotations

import re
from copy import deepcopy

from nbformat import NotebookNode

from pixelpolicy.course.matching import marks, matched, text_of, uncommented, untouched, without_blank


def guessed(
    mine: list[NotebookNode], new: list[NotebookNode]
) -> tuple[list[NotebookNode], dict[int, int], dict[int, int]]:
    """A base where none was kept, with what became of its cells in `mine` and in `new`.

    An ordinary cell proves by its id that nobody touched it. Where all the lines of one version stand in the other,
    that other one is taken to have added some. Else the base is of no kind, so that both count as changed.
    """
    partners = {j: i for i, j in matched(new, mine).items()}
    claimed = [part for j in partners if (part := _part(mine[j])) is not None]
    base, to_mine, to_new = [], {}, {}
    for j, cell in enumerate(mine):
        there = new[partners[j]] if j in partners else None
        if there is None and (_part(cell) in [*claimed, ("note", None)] or not _made_by_the_course(cell)):
            continue  # the student's own, pasted twins of the course's cells among them
        if untouched(cell) or there is not None and _within(cell, there):
            guess = deepcopy(cell)
        elif there is not None and (there.get("id") == cell.get("id") and untouched(there) or _within(there, cell)):
            guess = deepcopy(there)
        else:
            guess = deepcopy(cell)
            guess.cell_type, guess.source = "unknown", ""
        to_mine[len(base)] = j
        if there is not None:
            to_new[len(base)] = partners[j]
        base.append(guess)
    return base, to_mine, to_new


def _part(cell: NotebookNode) -> tuple[str, str | None] | None:
    mark = marks(cell)
    return (mark["role"], mark.get("id")) if "role" in mark else None


def _made_by_the_course(cell: NotebookNode) -> bool:
    return "role" in marks(cell) or re.match(r"cell-[0-9a-f]{12}(-\d+)?$", cell.get("id", "")) is not None


def _within(less: NotebookNode, more: NotebookNode) -> bool:
    """Whether every line of one cell stands in the other; the line that says an answer is missing does not count."""
    lines = [{line.strip() for line in without_blank(cell).splitlines()} for cell in (less, more)]
    return less.cell_type == more.cell_type and (lines[0] <= lines[1] or uncommented(less) == text_of(more))
