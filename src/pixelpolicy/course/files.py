"""Where the course lies on disk, and its JSON."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pixelpolicy.errors import LabError
from pixelpolicy.files import write_whole

# What `pixelpolicy release` leaves in an assignment; the folder that holds it is a course of its own.
ASSIGNMENT = "assignment.json"


def course_root() -> Path:
    """The folder that holds `solutions/`, `labs/`, `work/` and `results/`.

    PIXELPOLICY_ROOT, else the nearest folder at or above the current one that is an assignment or holds `solutions/`
    or `labs/` beside a `pyproject.toml`, else the checkout this package was installed from. Raises LabError where
    there is none.
    """
    if given := os.environ.get("PIXELPOLICY_ROOT"):
        return Path(given).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[3]):
        if (folder / ASSIGNMENT).is_file():
            return folder
        if (folder / "pyproject.toml").exists() and any((folder / part).is_dir() for part in ("solutions", "labs")):
            return folder
    raise LabError(
        f"no course was found from {here}: change to the folder that holds `labs/`, or set PIXELPOLICY_ROOT to it"
    )


def repository(root: Path) -> str:
    """The course's public address: PIXELPOLICY_REPOSITORY, else that of `pyproject.toml`; empty where there is none."""
    if given := os.environ.get("PIXELPOLICY_REPOSITORY"):
        return given.rstrip("/")
    tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
    return tool.get("pixelpolicy", {}).get("repository", "").rstrip("/")


def results_folder() -> Path:
    """Where a run leaves its records: PIXELPOLICY_RESULTS, else `results/` of the course."""
    given = os.environ.get("PIXELPOLICY_RESULTS")
    return Path(given) if given else course_root() / "results"


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, whole or not at all; LabError where it holds NaN or infinity."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise LabError(f"{path.name} was not written: JSON has no NaN and no infinity ({error})") from error
    write_whole(path, text + "\n")
