"""A new version of a lab brought into the student's copy, cell by cell, with nothing of the student's lost.

The copy as it was is kept in `work/old/`. What it came from says `metadata.pixelpolicy.version` of the copy, which
names a file in `work/.pristine/`; so a copy put back from `work/old/` is updated as rightly as the one in use.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from pixelpolicy.course.files import course_root
from pixelpolicy.course.matching import untouched
from pixelpolicy.course.merging import Changes, merge
from pixelpolicy.course.opening import copy_of, lab_named, labs_there, pristine, version_of
from pixelpolicy.errors import LabError
from pixelpolicy.files import write_whole


@dataclass(frozen=True)
class Update:
    """What became of one copy: `old` is where it is kept as it was; without one nothing was written."""

    lab: str
    changes: Changes | None = None
    old: Path | None = None

    def lines(self) -> list[str]:
        """What was done, in words; the first line is the lab's."""
        if self.changes is None or self.old is None:
            return [f"{self.lab}: your copy is of the newest version."]
        what = self.changes
        first = "brought up to date" if what.any else "of the newest version already; which one that is, is now kept"
        lists = [
            ("new in the lab", what.new),
            ("changed by the course", what.changed),
            ("removed by the course", what.removed),
            ("you had deleted these and the course has changed them: they are back", what.back),
            ("your answers, kept", what.answers),
            ("what you wrote into other cells, kept", what.kept),
            ("the exercise has changed under your answer; how it now begins stands below it", what.stubs),
            ("changed by you and by the course: both stand, yours below", what.both),
            ("changed by you and removed by the course: yours stays", what.gone),
        ]
        said = [f"{title} ({len(names)}): {', '.join(names)}" for title, names in lists if names]
        said += [f"cells you added, kept: {what.own}"] if what.own else []
        where = f"your copy as it was: {self.old.relative_to(self.old.parents[2]).as_posix()}"
        return [f"{self.lab}: {first}.", *(f"  {line}" for line in [*said, where])]


def update(number: int | str) -> Update:
    """Bring lab `number` of `labs/` into its copy in `work/`.

    Raises LabError where there is no such lab or no copy of it, where either cannot be read, where the copy was saved
    meanwhile, and where something cannot be written; the copy is then as it was.
    """
    lab = lab_named(number)
    copy = copy_of(lab)
    text, new = _lab(lab)
    if not copy.exists():
        raise LabError(
            f"you have no copy of lab {lab.stem} yet, so there is nothing to update: `pixelpolicy lab {number}`"
        )
    raw = _raw(copy)
    mine = _read(copy, raw)
    base = _base(copy, mine)
    version = version_of(text)
    if base is not None and version_of(base) == version:
        return Update(lab.stem)
    cells, changes = merge(mine.cells, new.cells, None if base is None else _read(copy, base).cells)
    merged = _notebook(mine, new, cells, version)
    try:
        nbformat.validate(merged)
    except nbformat.ValidationError as error:
        raise LabError(
            f"{copy} cannot be updated and is as it was: it would be no valid notebook ({str(error).splitlines()[0]}). "
            "Open it in JupyterLab, clear its outputs, save it, and do it again"
        ) from error
    write_whole(pristine(copy, version), text)
    old = _put_aside(copy, raw)
    if _raw(copy) != raw:
        raise LabError(f"{copy} was saved while it was updated, and is as it was saved: do it again")
    write_whole(copy, nbformat.writes(merged, version=nbformat.NO_CONVERT) + "\n")
    return Update(lab.stem, changes, old)


def labs_with_copies() -> list[str]:
    """The labs of the course that have a copy in `work/`, by name, in order."""
    return [lab.stem for lab in labs_there() if copy_of(lab).exists()]


def copies_without_labs() -> list[str]:
    """The copies in `work/` whose lab the course no longer has, by name."""
    there = {lab.name for lab in labs_there()}
    work = course_root() / "work"
    return [copy.stem for copy in sorted(work.glob("[0-9][0-9]-*.ipynb")) if copy.name not in there]


def behind() -> list[str]:
    """The labs of which there is a newer version than the copy in `work/`, by name. Reads, and never raises LabError
    over a copy or a lab that cannot be read: it counts as not behind."""
    found = []
    for lab in labs_there():
        copy = copy_of(lab)
        try:
            text, new = _lab(lab)
            if not copy.exists() or (raw := _raw(copy)) == text:
                continue
            mine = _read(copy, raw)
            base = _base(copy, mine)
            newer = version_of(base) != version_of(text) if base else merge(mine.cells, new.cells)[1].any
        except LabError:
            continue
        found += [lab.stem] if newer else []
    return found


def _base(copy: Path, mine: NotebookNode) -> str | None:
    """The text of the lab that a copy was made from, or None where it was not kept."""
    ours = mine.metadata.get("pixelpolicy")
    version = ours.get("version", "") if isinstance(ours, dict) else ""
    version = version if isinstance(version, str) and version.isalnum() else ""
    try:
        text = pristine(copy, version).read_text(encoding="utf-8")
        cells = _read(copy, text).cells
    except (OSError, ValueError, LabError):
        return None
    if version:
        return text if version_of(text) == version else None
    # A copy that says no version may come from elsewhere: a cell of the course that this one lacks gives it away.
    known = {cell.id for cell in cells}
    return text if all(cell.id in known for cell in mine.cells if untouched(cell)) else None


def _lab(lab: Path) -> tuple[str, NotebookNode]:
    try:
        text = lab.read_text(encoding="utf-8")
        return text, _read(lab, text)
    except (OSError, ValueError, LabError) as error:
        raise LabError(f"{lab} cannot be read: run `pixelpolicy build-labs` to make it again") from error


def _raw(copy: Path) -> str:
    """A copy's text, each sign of it: what is put aside must be the same bytes."""
    try:
        return copy.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise LabError(_unreadable(copy, str(error))) from error


def _read(path: Path, text: str) -> NotebookNode:
    try:
        data = json.loads(text.removeprefix("\ufeff"))
        if data["nbformat"] != 4:
            raise LabError(_unreadable(path, f"its format is {data['nbformat']}, and 4 is expected"))
        for cell in data["cells"]:
            cell["metadata"] = cell.get("metadata") or {}
            if not isinstance(cell.get("id", ""), str):
                del cell["id"]
            if cell["cell_type"] == "code":
                cell |= {"outputs": cell.get("outputs") or [], "execution_count": cell.get("execution_count")}
            else:  # left behind by some editors where a code cell became text, and no valid notebook
                cell.pop("outputs", None), cell.pop("execution_count", None)
        data["metadata"] = data.get("metadata") or {}
        notebook = nbformat.v4.to_notebook_json(data)
        if not all(isinstance(cell.source, str) and isinstance(cell.metadata, dict) for cell in notebook.cells):
            raise TypeError("a cell's text is no text")
        return notebook
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(_unreadable(path, str(error) or type(error).__name__)) from error


def _unreadable(path: Path, why: str) -> str:
    return (
        f"{path} is no notebook that can be read, and is left alone ({why}). Open it in JupyterLab to see; "
        "move it away and `pixelpolicy lab` makes a fresh copy; earlier copies may lie in work/old/"
    )


def _notebook(mine: NotebookNode, new: NotebookNode, cells: list[NotebookNode], version: str) -> NotebookNode:
    """The student's notebook with these cells; what its editor keeps about it stays."""
    metadata = {**new.metadata, **mine.metadata}
    metadata["pixelpolicy"] = {**new.metadata.get("pixelpolicy", {}), "version": version}
    minor = max(5, mine.get("nbformat_minor", 5), new.get("nbformat_minor", 5))
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor})


def _put_aside(copy: Path, raw: str) -> Path:
    """Keep a copy as it is in `work/old/`, under its name and the date, and never in the place of another."""
    stem, number = f"{copy.stem}-{datetime.now():%Y-%m-%d}", 1
    while True:
        old = copy.parent / "old" / (f"{stem}.ipynb" if number == 1 else f"{stem}-{number}.ipynb")
        if not old.exists():
            write_whole(old, raw)
            return old
        if old.read_bytes() == raw.encode("utf-8"):
            return old  # an update cut short has kept it already
        number += 1
