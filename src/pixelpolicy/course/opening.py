"""A student's own copies of the labs, in `work/`, where JupyterLab opens."""

from __future__ import annotations

from pathlib import Path

from pixelpolicy.course.files import course_root, write_whole
from pixelpolicy.errors import LabError


def prepare_work() -> list[Path]:
    """Copy to `work/` every lab that is not there yet, and return the copies of all labs, in order.

    A copy that is there is never touched, whatever stands in it. Raises LabError where there are no labs.
    """
    root = course_root()
    labs = sorted((root / "labs").glob("[0-9][0-9]-*.ipynb"))
    if not labs:
        raise LabError(f"there are no labs in {root / 'labs'}: run `pixelpolicy build-labs`")
    return [_copied(lab, root / "work" / lab.name) for lab in labs]


def open_copy(number: int | str) -> Path:
    """The student's copy of lab `number` (12, "12" or "12-grpo"), made if need be; LabError lists the labs."""
    wanted = str(number).zfill(2)
    copies = prepare_work()
    for path in copies:
        if wanted in (path.stem, path.stem[:2]):
            return path
    raise LabError(f"there is no lab {number}: the labs are {', '.join(path.stem for path in copies)}")


def _copied(lab: Path, copy: Path) -> Path:
    if not copy.exists():
        write_whole(copy, lab.read_text(encoding="utf-8"))
    return copy
