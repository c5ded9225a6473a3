"""A student's own copies of the labs, in `work/`, where JupyterLab opens.

What a copy was made from is kept whole beside it, in `work/.pristine/`: `updating` needs it to tell what the student
wrote from what the course did.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pixelpolicy.course.files import course_root
from pixelpolicy.errors import LabError
from pixelpolicy.files import write_whole

PRISTINE = ".pristine"


def labs_there() -> list[Path]:
    """The labs of the course, in order. Raises LabError where there are none."""
    root = course_root()
    labs = sorted((root / "labs").glob("[0-9][0-9]-*.ipynb"))
    if not labs:
        raise LabError(f"there are no labs in {root / 'labs'}: run `pixelpolicy build-labs`")
    return labs


def lab_named(number: int | str) -> Path:
    """Lab `number` (12, "12" or "12-grpo") in `labs/`; LabError lists the labs."""
    wanted, labs = str(number).zfill(2), labs_there()
    for lab in labs:
        if wanted in (lab.stem, lab.stem[:2]):
            return lab
    raise LabError(f"there is no lab {number}: the labs are {', '.join(lab.stem for lab in labs)}")


def copy_of(lab: Path) -> Path:
    """Where the student's copy of a lab lies, or would lie."""
    return course_root() / "work" / lab.name


def prepare_work() -> list[Path]:
    """Copy to `work/` every lab that is not there yet, and return the copies of all labs, in order.

    A copy that is there is never touched, whatever stands in it. Raises LabError where there are no labs.
    """
    return [_copied(lab, copy_of(lab)) for lab in labs_there()]


def open_copy(number: int | str) -> Path:
    """The student's copy of lab `number` (12, "12" or "12-grpo"), made if need be; LabError lists the labs."""
    prepare_work()
    return copy_of(lab_named(number))


def version_of(text: str) -> str:
    """What tells one version of a lab from another: the first 16 digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def pristine(copy: Path, version: str = "") -> Path:
    """Where the lab is kept that `copy` was made from: that `version`, or, without one, the one first copied."""
    return copy.parent / PRISTINE / (f"{copy.stem}-{version}.ipynb" if version else copy.name)


def _copied(lab: Path, copy: Path) -> Path:
    if not copy.exists():
        text = lab.read_text(encoding="utf-8")
        # First, so that no copy is ever there whose beginnings are not known.
        write_whole(pristine(copy), text)
        write_whole(copy, text)
    return copy
