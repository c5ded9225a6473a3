"""Which cell of one notebook is which cell of another, whatever became of ids, places and texts in between."""

from __future__ import annotations

import hashlib
import re
from difflib import SequenceMatcher

from nbformat import NotebookNode

_LIKE = 0.6


def text_of(cell: NotebookNode) -> str:
    """What a cell says, without the spaces at the ends of lines that some editors take away."""
    return "\n".join(line.rstrip() for line in cell.source.splitlines()).strip("\n")


def same(one: NotebookNode, other: NotebookNode) -> bool:
    """Whether two cells are of one kind and say the same; a picture pasted into a text counts as said."""
    kinds, attached = (one.cell_type, other.cell_type), (one.get("attachments"), other.get("attachments"))
    return kinds[0] == kinds[1] and text_of(one) == text_of(other) and (attached[0] or {}) == (attached[1] or {})


def marks(cell: NotebookNode) -> dict[str, str]:
    """What the course says of a cell (`role`, `id`, `name`), where it does; strings only."""
    ours = cell.metadata.get("pixelpolicy")
    if not isinstance(ours, dict):
        return {}
    return {key: ours[key] for key in ("role", "id", "name") if isinstance(ours.get(key), str)}


def exercise_names(cells: list[NotebookNode]) -> dict[str, str]:
    """The function's name for each exercise's id: an exercise keeps its name where the course renumbers it."""
    said = [marks(cell) for cell in cells]
    return {mark["id"]: mark["name"] for mark in reversed(said) if {"id", "name"} <= mark.keys()}


def untouched(cell: NotebookNode) -> bool:
    """Whether an ordinary cell is as the course wrote it: the course makes such a cell's id from its content."""
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    return re.fullmatch(rf"cell-{digest}(-\d+)?", cell.get("id", "")) is not None


def matched(
    base: list[NotebookNode],
    other: list[NotebookNode],
    names: dict[str, str] | None = None,
    *,
    guess: bool = True,
) -> dict[int, int]:
    """For each cell of `base` the cell of `other` that it became, as indices, one to one; none where it is gone.

    A cell is known by its part in an exercise, then by its id, then by its text; with `guess`, then by the function
    it defines, and last by likeness. `names` are `exercise_names` of what `other` came from, else of `other` itself.
    """
    keys = _keys(base, exercise_names(base)), _keys(other, exercise_names(other) if names is None else names)
    pairs: dict[int, int] = {}
    taken: set[int] = set()

    def free() -> list[int]:
        return [j for j in range(len(other)) if j not in taken]

    ways = [
        lambda i, j: keys[0][i] is not None and keys[0][i] == keys[1][j],
        lambda i, j: base[i].get("id") == other[j].get("id") is not None and None in (keys[0][i], keys[1][j]),
        lambda i, j: same(base[i], other[j]) and None in (keys[0][i], keys[1][j]),
        lambda i, j: guess and keys[1][j] is None and _defines(other[j], marks(base[i]).get("name")),
    ]
    for way in ways:
        for i in range(len(base)):
            known = [] if i in pairs else [j for j in free() if way(i, j)]
            if known:  # of several alike the one with the same id: a pasted twin has another
                pairs[i] = next((j for j in known if other[j].get("id") == base[i].get("id")), known[0])
                taken.add(pairs[i])
    if guess:
        plain = [i for i in range(len(base)) if i not in pairs and keys[0][i] is None]
        scores = [(-_likeness(base[i], other[j]), i, j) for i in plain for j in free() if keys[1][j] is None]
        for score, i, j in sorted(scores):
            if -score >= _LIKE and i not in pairs and j not in taken:
                pairs[i] = j
                taken.add(j)
    return pairs


def _keys(cells: list[NotebookNode], names: dict[str, str]) -> list[tuple[str, str] | None]:
    found = []
    for mark in map(marks, cells):
        id = mark.get("id", "")
        found.append((mark["role"], mark.get("name") or names.get(id, id)) if "role" in mark else None)
    return found


def _defines(cell: NotebookNode, name: str | None) -> bool:
    return bool(name) and re.search(rf"^(def|class)\s+{re.escape(name)}\b", cell.source, flags=re.M) is not None


def _likeness(one: NotebookNode, other: NotebookNode) -> float:
    """From 0 to 1, by words: by letters it would take seconds a lab."""
    if one.cell_type != other.cell_type:
        return 0.0
    matcher = SequenceMatcher(None, *(re.findall(r"\w+|[^\w\s]", cell.source) for cell in (one, other)), autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= _LIKE else 0.0


def uncommented(cell: NotebookNode) -> str | None:
    """What a catch-up cell says once it is used; None for other cells."""
    if marks(cell).get("role") != "catch-up":
        return None
    return re.sub(r"^# (\w+ = catch_up\()", r"\1", text_of(cell), flags=re.M)


def without_blank(cell: NotebookNode) -> str:
    """What a cell says, less the lines that say an answer is missing."""
    return re.sub(r"^\s*raise NotImplementedError\([\"']Exercise .*$\n?", "", text_of(cell), flags=re.M)
