"""An assignment for a class: student notebooks, the data they need, what is checked, instructions, a manifest.

The folder that is made is a small course of its own: with the package installed, `pixelpolicy lab 04` in it opens the
student's copy. With `nbgrader` it is nbgrader's course directory instead, one assignment a lab.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from pixelpolicy import __version__
from pixelpolicy.course import instructions
from pixelpolicy.course.build import lab_text
from pixelpolicy.course.files import ASSIGNMENT, course_root, repository
from pixelpolicy.course.nbgrading import CONFIGURATION, instructors_notebook
from pixelpolicy.course.source import Source, find_source, plain, read_source, solved
from pixelpolicy.errors import ReleaseError

Files = dict[str, str | Path]  # by their path in the assignment: a text, or the file that is copied


@dataclass(frozen=True)
class Released:
    """What was made: its folder, the labs by name, and how many files and bytes."""

    folder: Path
    labs: tuple[str, ...]
    files: int
    bytes: int


def release(labs: list[int], out: Path, *, nbgrader: bool = False) -> Released:
    """Make an assignment of `labs` in the folder `out`, which is empty or not there yet.

    Raises LabError where a lab is unknown or not whole, ReleaseError where `out` is in use or cannot be written; `out`
    is then as it was.
    """
    root = course_root()
    sources = [read_source(find_source(root, lab)) for lab in dict.fromkeys(labs)]
    if not all(source.tasks for source in sources):
        raise ReleaseError(f"{next(s.name for s in sources if not s.tasks)} has no exercise: there is nothing to grade")
    _see_free(out)
    files = _course_directory(root, sources) if nbgrader else _assignment(root, sources)
    size = _write(out, files)
    return Released(out, tuple(source.name for source in sources), len(files), size)


def data_of(root: Path, source: Source) -> list[Path]:
    """The recorded runs that a lab replays: what its code names of `benchmarks/`, in order."""
    names: dict[str, None] = {}
    for cell in source.cells:
        if cell.kind == "code":
            for node in ast.walk(ast.parse(plain(solved(cell.text)))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    names[node.value] = None
    found = []
    for name in names:
        record = root / "benchmarks" / f"{name}.json"
        # a lab's own name is the record that it writes
        if name != source.name and re.fullmatch(r"\d\d-[a-z0-9-]+", name) and record.is_file():
            found += [record, *sorted(p for p in record.with_suffix("").rglob("*") if p.is_file())]
    return found


def _assignment(root: Path, sources: list[Source]) -> Files:
    """What students get."""
    files: Files = {f"labs/{source.name}.ipynb": lab_text(source) for source in sources}
    files |= _shared(root, sources)
    files["README.md"] = instructions.for_students(sources, repository(root))
    return files | {ASSIGNMENT: _manifest(sources, files)}


def _course_directory(root: Path, sources: list[Source]) -> Files:
    """nbgrader's course directory; what it hands out of `source/` is what students get, with the answers cut."""
    files: Files = {"nbgrader_config.py": CONFIGURATION, "README.md": instructions.for_nbgrader(sources)}
    for source in sources:
        lab_text(source)  # raises where an answer would leak
        own = _shared(root, [source])
        own["README.md"] = instructions.for_students([source], repository(root), nbgrader=True)
        own[ASSIGNMENT] = _manifest([source], own)
        text = nbformat.writes(instructors_notebook(source), version=4) + "\n"
        own[f"{source.name}.ipynb"] = text
        files |= {f"source/{source.name}/{name}": what for name, what in own.items()}
    return files


def _shared(root: Path, sources: list[Source]) -> Files:
    files: Files = {"CHECKS.md": instructions.checks(sources)}
    for source in sources:
        files |= {path.relative_to(root).as_posix(): path for path in data_of(root, source)}
    if (root / "constraints.txt").is_file():
        files["constraints.txt"] = root / "constraints.txt"
    return files


def _manifest(sources: list[Source], files: Files) -> str:
    """What the assignment is of, and the SHA-256 and size of every other file of it."""
    labs: list[dict[str, Any]] = []
    for source in sources:
        tasks = [
            {key: getattr(task, key) for key in ("id", "name", "title", "points", "minutes", "difficulty")}
            for task in source.tasks.values()
        ]
        labs.append({"name": source.name, "points": sum(t["points"] for t in tasks),
                     "minutes": sum(t["minutes"] for t in tasks), "exercises": tasks})  # fmt: skip
    sums = {}
    for name, what in sorted(files.items()):
        content = _bytes(what)
        sums[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    value = {"version": 1, "pixelpolicy": __version__, "labs": labs, "files": sums}
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _bytes(what: str | Path) -> bytes:
    try:
        return what.read_bytes() if isinstance(what, Path) else what.encode("utf-8")
    except OSError as error:
        raise ReleaseError(f"{what} cannot be read: {error.strerror or error}") from error


def _see_free(out: Path) -> None:
    """Raise where something stands in the way."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ReleaseError(f"{out} is no folder: name one that is empty or not there yet")
    if out.is_dir() and any(out.iterdir()):
        raise ReleaseError(f"{out} is not empty, and nothing in it is replaced: name another folder, or empty it first")


def _write(out: Path, files: Files) -> int:
    """Write all in a folder beside `out`, then move it into place; returns the bytes written."""
    made, size = None, 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
        for name, what in files.items():
            content = _bytes(what)
            size += len(content)
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        made.chmod(0o755)  # mkdtemp makes folders that their owner alone may enter
        if out.exists():
            out.rmdir()  # where something has come in meanwhile this fails
        made.rename(out)
    except OSError as error:
        raise ReleaseError(
            f"the assignment could not be written to {out}: {error.strerror or error}. Nothing was left there; free "
            "some space or name a folder that you may write to, and do it again"
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return size
