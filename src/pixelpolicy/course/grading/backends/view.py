"""What an answer sees of the machine: Python, the libraries it stands on, its end of the channel, and nothing else."""

from __future__ import annotations

import functools
import importlib.util
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import IO

GRADER = Path(__file__).parents[1]
PYTHON = [sys.executable, "-s", "-B", "-X", "utf8"]
LIBRARY = "/library"  # where the course's library lies inside
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1",
}  # fmt: skip
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")


def seen(library: Path) -> dict[Path, str]:
    """What can be read, and where it lies inside."""
    places = {Path(place): place for place in _SYSTEM}
    for place in sorted({sys.prefix, sys.base_prefix, sys.exec_prefix}):
        if place != "/usr" and not place.startswith("/usr/"):
            places[Path(place)] = place
    places |= {GRADER / name: f"/grader/{name}" for name in ("child.py", "wire")}
    return {place: inside for place, inside in places.items() if place.exists()} | {library: LIBRARY}


def incomplete() -> str:
    """Why an answer would lack what its process stands on; empty where it has it."""
    for name in ("numpy", "torch"):
        place = Path(importlib.util.find_spec(name).origin)
        if not any(place.is_relative_to(folder) for folder in (sys.prefix, sys.base_prefix, "/usr")):
            return (
                f"{name} lies in {place.parent}, outside of this Python's own environment, {sys.prefix}, which is all "
                "that answers see; `make environment` makes one that is whole"
            )
    return ""


@functools.cache
def masked(blocked: tuple[str, ...]) -> list[Path]:
    """Files and folders of modules that are out of reach, and of this course where it is installed among others."""
    found = []
    for scheme in ("purelib", "platlib"):
        found.append(Path(sysconfig.get_path(scheme)) / "pixelpolicy")
    for name in blocked:
        if (first := name.partition(".")[0]) in ("torch", "numpy", "pixelpolicy") or first in sys.stdlib_module_names:
            continue  # what the grader itself needs is taken away after it has started
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        for place in (spec.submodule_search_locations or [spec.origin]) if spec else ():
            found.append(Path(place))
            if str(place).endswith(".py"):
                found.append(Path(importlib.util.cache_from_source(place)))
    return sorted({place for place in found if place.exists()})


def as_file(data: bytes) -> IO[bytes]:
    """An open file that has no name and holds `data`, to be handed to another program by its number."""
    file = tempfile.TemporaryFile()
    file.write(data)
    file.flush()
    file.seek(0)
    return file
