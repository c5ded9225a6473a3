"""Three notebooks into one: what a copy was made from, what the student made of it, and the lab as it is now.

Nothing that the student wrote is altered or left out: where the student and the course changed the same cell, both
stand, the student's below, and a cell of text between them says so.
"""

from __future__ import annotations

import hashlib
import re
from copy import deepcopy
from dataclasses import dataclass, field

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from pixelpolicy.course.guessing import guessed
from pixelpolicy.course.matching import exercise_names, marks, matched, same, text_of, uncommented, without_blank

_COURSE = ("pixelpolicy", "nbgrader")
_NOTE = "**`pixelpolicy update` wrote this.** "
_BOTH = _NOTE + (
    "The course has changed the cell above. You had changed it too: yours stands below as you left it. "
    "Keep the one you want, and delete the other and this note."
)
_GONE = _NOTE + "The course no longer has the cell below. You had changed it, so it stays as you left it."


@dataclass
class Changes:
    """What a merge did, as the names of cells in words, and the number of the student's `own` cells that stay."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    stubs: list[str] = field(default_factory=list)
    both: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    own: int = 0

    @property
    def any(self) -> bool:
        """Whether the lab itself has anything that the copy had not."""
        return any((self.new, self.changed, self.removed, self.back, self.stubs, self.both, self.gone))


@dataclass(frozen=True)
class _Unit:
    """One cell in up to three versions: as it was copied, the student's, the lab's of now."""

    base: NotebookNode | None
    mine: NotebookNode | None
    new: NotebookNode | None


def merge(
    mine: list[NotebookNode], new: list[NotebookNode], base: list[NotebookNode] | None = None
) -> tuple[list[NotebookNode], Changes]:
    """The cells of the student's copy brought up to date, and what was done. The arguments are left as they are.

    Without `base` what the student changed is told from the ids of cells, and where that leaves doubt, both
    versions stand. The order is the student's, unless the course has moved cells.
    """
    if base is None:
        base, to_mine, to_new = guessed(mine, new)
    else:
        to_mine, to_new = matched(base, mine, exercise_names(base)), matched(base, new)
    triples = [(i, to_mine.get(i), to_new.get(i)) for i in range(len(base))]
    left = [[j for j in range(len(cells)) if j not in to.values()] for cells, to in ((mine, to_mine), (new, to_new))]
    # What both have and the base has not: brought over by hand, or by an update cut short.
    twins = matched([mine[j] for j in left[0]], [new[j] for j in left[1]], guess=False)
    triples += [(None, left[0][a], left[1][b]) for a, b in twins.items()]
    triples += [(None, j, None) for a, j in enumerate(left[0]) if a not in twins]
    triples += [(None, None, j) for b, j in enumerate(left[1]) if b not in twins.values()]

    places = [{triple[side]: u for u, triple in enumerate(triples) if triple[side] is not None} for side in (1, 2)]
    orders = [[place[j] for j in range(len(place))] for place in places]
    if [u for u in orders[1] if triples[u][0] is not None] != sorted(to_new):
        orders.reverse()
    own = {u for u, (b, _, n) in enumerate(triples) if b is None and n is None}
    changes, stale = Changes(), set()
    cells, course = [], {cell.id for cell in new}
    for u in _woven(*orders, own):
        sides = zip(triples[u], (base, mine, new), strict=True)
        cells += _resolved(_Unit(*(None if j is None else side[j] for j, side in sides)), changes, stale)
        if u in own and cells[-1].get("id") in course:
            cells[-1].id = ""
    cells = [cell for cell in cells if not (marks(cell).get("role") == "note" and cell.source in stale)]
    _name(cells)
    return cells, changes


def _woven(first: list[int], second: list[int], own: set[int]) -> list[int]:
    """`first`, with what only `second` has put behind its neighbour there, and behind what the student added to it."""
    order = list(first)
    for before, unit in zip([None, *second], second, strict=False):
        if unit not in order:
            at = 0 if before is None else order.index(before) + 1
            while at < len(order) and order[at] in own and unit not in own:
                at += 1
            order.insert(at, unit)
    return order


def _resolved(unit: _Unit, changes: Changes, stale: set[str]) -> list[NotebookNode]:
    """The cells that stand for one unit in the end. `stale` takes in the notes that no longer hold."""
    base, mine, new = unit.base, unit.mine, unit.new
    if mine is None:
        if base is not None and (new is None or same(base, new)):
            return []  # the student deleted it
        (changes.new if base is None else changes.back).append(_words(new))
        return [deepcopy(new)]
    if new is None:
        if base is None:
            changes.own += marks(mine).get("role") != "note"
            return [deepcopy(mine)]
        if same(base, mine) or uncommented(base) == text_of(mine):
            changes.removed.append(_words(base))
            return []
        changes.gone.append(_words(mine))
        return [_note(_GONE), _own(mine)]
    exercise = marks(new).get("role") == "exercise"
    if same(mine, new) or base is None and exercise or base is not None and same(base, new):
        if not same(base if base is not None else new, mine):
            (changes.answers if exercise else changes.kept).append(_words(new))
        return [_kept(base, mine, new)]
    if base is not None and same(base, mine):
        changes.changed.append(_words(new))
        return [_renewed(base, mine, new, new.source)]
    if exercise:
        changes.answers.append(_words(new))
        if base is not None and without_blank(base) == without_blank(new):
            return [_kept(base, mine, new)]
        changes.stubs.append(_words(new))
        stale.add(_beginning(base))
        return [_kept(base, mine, new), _note(_beginning(new))]
    if base is not None and uncommented(base) == text_of(mine):
        changes.changed.append(_words(new))
        return [_renewed(base, mine, new, uncommented(new))]
    changes.both.append(_words(new))
    return [_renewed(base, mine, new, new.source), _note(_BOTH), _own(mine)]


def _kept(base: NotebookNode | None, mine: NotebookNode, new: NotebookNode) -> NotebookNode:
    """The student's cell, outputs and all, under the lab's id and with what the lab now says of it."""
    cell = deepcopy(mine)
    was = {} if base is None else base.metadata
    for key in {*mine.metadata, *new.metadata, *was}:
        if key in _COURSE or mine.metadata.get(key) == was.get(key):
            if key in new.metadata:
                cell.metadata[key] = deepcopy(new.metadata[key])
            else:
                cell.metadata.pop(key, None)
    cell.id = new.id
    if same(mine, new):
        cell.source = new.source  # they may differ by spaces at the ends of lines
    return cell


def _renewed(base: NotebookNode | None, mine: NotebookNode, new: NotebookNode, source: str) -> NotebookNode:
    """The lab's cell, with what the student's editor keeps about it, such as whether it is folded."""
    cell = deepcopy(new)
    cell.metadata = _kept(base, mine, new).metadata
    cell.source = source
    return cell


def _own(mine: NotebookNode) -> NotebookNode:
    """The student's version of a cell as a cell of the student's own, which no lab will claim again."""
    cell = deepcopy(mine)
    for key in _COURSE:
        cell.metadata.pop(key, None)
    cell.id = ""
    return cell


def _note(text: str) -> NotebookNode:
    note = new_markdown_cell(text, metadata={"pixelpolicy": {"role": "note"}})
    note.id = ""
    return note


def _beginning(stub: NotebookNode) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", stub.source) or [""]))
    return (
        f"{_NOTE}Exercise {marks(stub).get('id', '')} has changed. Your answer above is as you left it; "
        f"the exercise now begins like this:\n\n{fence}python\n{stub.source}\n{fence}"
    )


def _name(cells: list[NotebookNode]) -> None:
    """Give every cell without a good id, or with another's, one of its own."""
    seen: set[str] = set()
    for cell in cells:
        id, number = cell.get("id"), 1
        if not isinstance(id, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,50}", id):
            id = "yours-" + hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        cell.id = id
        while cell.id in seen:
            number += 1
            cell.id = f"{id}-{number}"
        seen.add(cell.id)


def _words(cell: NotebookNode) -> str:
    """A cell as a student would point at it."""
    mark = marks(cell)
    if mark.get("role") == "exercise":
        return " ".join(filter(None, (mark.get("id"), mark.get("name"))))
    if "role" in mark:
        part = {"header": "text", "catch-up": "catch-up cell"}.get(mark["role"], mark["role"])
        return f"{part} of {mark.get('id', 'an exercise')}"
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "an empty cell")
    return f"“{first[:47].rstrip()} …”" if len(first) > 50 else f"“{first}”"
