"""Where the course lies on disk, and writing whole files or none."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pixelpolicy.errors import LabError


def course_root() -> Path:
    """The folder that holds `solutions/`, `labs/`, `work/` and `results/`.

    PIXELPOLICY_ROOT, else the nearest folder at or above the current one that holds `solutions/` or `labs/` beside
    a `pyproject.toml`, else the checkout this package was installed from. Raises LabError where there is none.
    """
    if given := os.environ.get("PIXELPOLICY_ROOT"):
        return Path(given).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[3]):
        if (folder / "pyproject.toml").exists() and any((folder / part).is_dir() for part in ("solutions", "labs")):
            return folder
    raise LabError(
        f"no course was found from {here}: change to the folder that holds `labs/`, or set PIXELPOLICY_ROOT to it"
    )


def results_folder() -> Path:
    """Where a run leaves its records: PIXELPOLICY_RESULTS, else `results/` of the course."""
    given = os.environ.get("PIXELPOLICY_RESULTS")
    return Path(given) if given else course_root() / "results"


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` in one move: a reader sees the old file or the new one, never a part.

    Raises LabError (a full disk, a folder that may not be written); the old file then stands as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that their owner alone may read
        os.replace(temporary, path)
    except OSError as error:
        raise LabError(
            f"could not write {path}: {error.strerror or error}; the file is as it was. "
            "Free some space or choose a folder you may write to, and do it again"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, whole or not at all; LabError where it holds NaN or infinity."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise LabError(f"{path.name} was not written: JSON has no NaN and no infinity ({error})") from error
    write_whole(path, text + "\n")
