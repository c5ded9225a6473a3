"""A student's progress: one JSON file on the student's own machine, read by `pixelpolicy status`.

The file is `work/progress.json` of the course, or the one that PIXELPOLICY_PROGRESS names.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.errors import LabError


@dataclass(frozen=True)
class Entry:
    """What is kept of one exercise. `points` is the best earned so far of `of`; times are ISO 8601 with the zone."""

    passed: bool = False
    points: float = 0.0
    of: float = 0.0
    attempts: int = 0
    first: str = ""
    last: str = ""
    caught_up: bool = False


@dataclass(frozen=True)
class Row:
    """One exercise in the student's overview; `state` is "new", "begun", "passed" or "caught up"."""

    lab: str
    id: str
    name: str
    points: float
    of: float
    attempts: int
    state: str
    last: str


def progress_file() -> Path:
    """Where progress is kept."""
    given = os.environ.get("PIXELPOLICY_PROGRESS")
    return Path(given) if given else course_root() / "work" / "progress.json"


def load() -> dict[str, Entry]:
    """Every exercise tried so far, by id. A file that cannot be read is put aside as `.corrupt`, with a warning."""
    path = progress_file()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {str(id): _entry(value) for id, value in kept["exercises"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LabError(f"could not read {path}: {error.strerror or error}; see that you may read it") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = _free_name(path.with_name(path.name + ".corrupt"))
        os.replace(path, aside)
        warnings.warn(f"{path} was damaged: it is kept as {aside.name}, and progress starts anew", stacklevel=2)
        return {}


def tried(id: str, *, share: float, of: float) -> Entry:
    """Keep one attempt of which `share` (0 to 1) of the properties held; returns the entry as it stands now.

    Passing with one's own function wipes out an earlier `caught_up`. Points are the best so far.
    """
    old = load().get(id, Entry())
    passed = share == 1.0
    return _keep(
        id,
        old,
        passed=old.passed or passed,
        points=max(old.points, round(share * of, 2)),
        of=of,
        attempts=old.attempts + 1,
        caught_up=old.caught_up and not passed,
    )


def caught_up(id: str, *, of: float) -> Entry:
    """Keep that the course's own answer was taken: an exercise not passed before then counts no points."""
    old = load().get(id, Entry())
    return old if old.passed else _keep(id, old, of=of, caught_up=True)


def status() -> list[Row]:
    """A row for every exercise of the labs that are there, tried or not, in the order of the labs."""
    entries = load()
    rows = []
    for lab, id, name, of in _exercises():
        entry = entries.get(id, Entry())
        state = "passed" if entry.passed else "caught up" if entry.caught_up else "begun" if entry.attempts else "new"
        points = 0.0 if entry.caught_up else entry.points
        rows.append(Row(lab, id, name, points, of, entry.attempts, state, entry.last))
    return rows


def _exercises() -> list[tuple[str, str, str, float]]:
    """Lab, id, name and points of every exercise in `labs/`, read from the metadata of the cells."""
    found = []
    for path in sorted((course_root() / "labs").glob("[0-9][0-9]-*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            marked = [cell["metadata"].get("pixelpolicy", {}) for cell in cells]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} cannot be read: run `pixelpolicy build-labs` to make it again") from error
        found += [(path.stem, m["id"], m["name"], m["points"]) for m in marked if m.get("role") == "exercise"]
    return found


def _entry(value: dict[str, Any]) -> Entry:
    entry = Entry(**value)
    kinds = {"passed": bool, "points": (int, float), "of": (int, float), "attempts": int, "first": str, "last": str}
    if not all(isinstance(getattr(entry, key), kind) for key, kind in kinds.items()):
        raise TypeError("a value of the wrong kind")
    return entry


def _keep(id: str, old: Entry, **changes: Any) -> Entry:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    entry = Entry(**{**asdict(old), **changes, "first": old.first or now, "last": now})
    entries = {**load(), id: entry}
    write_json(progress_file(), {"version": 1, "exercises": {key: asdict(entries[key]) for key in sorted(entries)}})
    return entry


def _free_name(path: Path) -> Path:
    """`path`, or with a number after it where something of that name is kept already."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}.{number}")
    return free
