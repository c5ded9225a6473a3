"""Records of runs: what a solved lab leaves in `results/` and what a benchmark collects in `benchmarks/`."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from pixelpolicy.course.files import course_root, results_folder, write_json
from pixelpolicy.errors import LabError
from pixelpolicy.profiles import PROFILES, profile

PACKAGES = ("torch", "diffusers", "numpy")
REQUIRED = {
    "name": str, "profile": str, "seed": int, "seconds": (int, float), "cpu_seconds": (int, float),
    "peak_memory_mb": int, "threads": int, "metrics": dict, "source_sha256": str, "commit": str, "packages": dict,
    "date": str,
}  # fmt: skip
OPTIONAL = {"method": str, "samples": int, "machine": str}


@dataclass
class Timer:
    """Wall and CPU seconds since the clock was started; both stand still once its block ends."""

    _started: tuple[float, float]
    _ended: tuple[float, float] | None = None

    @property
    def seconds(self) -> float:
        return (self._ended or _clocks())[0] - self._started[0]

    @property
    def cpu_seconds(self) -> float:
        """Of this process, all its threads together."""
        return (self._ended or _clocks())[1] - self._started[1]


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def start_timer() -> Timer:
    """A clock that runs on: for what spans many cells."""
    return Timer(_clocks())


@contextmanager
def timer() -> Iterator[Timer]:
    """`with timer() as clock: ...`, then `clock.seconds` and `clock.cpu_seconds`; readable inside the block too."""
    clock = start_timer()
    try:
        yield clock
    finally:
        clock._ended = _clocks()


def peak_memory_mb() -> int:
    """The most memory this process has held at once, in MiB."""
    if sys.platform == "win32":
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def commit(folder: Path) -> str:
    """The commit checked out in `folder`, or "unknown" where git cannot tell."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def source_of(name: str) -> Path:
    """The solved lab that a record's name speaks of: `12-grpo` and `12-grpo-long` are both of solutions/12-grpo.py.

    In an assignment, which has no solutions, it is the lab as it was handed out.
    """
    root = course_root()
    folder = root / "solutions"
    for stem in (name, name.removesuffix("-long")):
        for path in (folder / f"{stem}.py", root / "labs" / f"{stem}.ipynb", root / f"{stem}.ipynb"):
            if path.exists():
                return path
    raise LabError(f"record {name!r}: there is no {folder / name}.py; name the record after its lab, or give source=")


def record(
    name: str,
    metrics: dict[str, Any],
    *,
    seed: int,
    seconds: float,
    cpu_seconds: float,
    method: str | None = None,
    samples: int | None = None,
    machine: str | None = None,
    source: Path | str | None = None,
) -> dict[str, Any]:
    """A record as design.md has it: what was measured, and all that is needed to measure it again.

    `seconds` is wall time, `cpu_seconds` that of the process. `source` is the file that made the numbers; the
    solved lab called `name` unless given. Raises LabError where a value is missing, of the wrong kind or not finite.
    """
    import torch

    source = Path(source) if source else source_of(name)
    made = {
        "name": name,
        "profile": profile(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
        "threads": torch.get_num_threads(),
        "metrics": metrics,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "commit": commit(source.resolve().parent),
        "packages": _versions(),
        "date": date.today().isoformat(),
    }
    made |= {k: v for k, v in (("method", method), ("samples", samples), ("machine", machine)) if v is not None}
    return validate_record(made)


def write_record(name: str, metrics: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Make a `record` and leave it in `results/`: `12-grpo` in 12.json, `12-grpo-long` in 12-long.json.

    A name without a lab's number keeps its own name. Takes what `record` takes; returns the record.
    """
    made = record(name, metrics, **values)
    numbered = re.match(r"(\d\d)-.*?(-long)?$", name)
    stem = numbered[1] + (numbered[2] or "") if numbered else name
    write_json(results_folder() / f"{stem}.json", made)
    return made


def append_benchmark(path: Path | str, made: dict[str, Any]) -> None:
    """Add a record to the list in `benchmarks/NAME.json`, which is made where it is not there yet."""
    path = Path(path)
    records = read_benchmark(path) if path.exists() else []
    write_json(path, [*records, validate_record(made)])


def read_benchmark(path: Path | str) -> list[dict[str, Any]]:
    """The records of a benchmark, each one valid; LabError says which file and what is wrong."""
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{path} is no benchmark: {error}") from error
    if not isinstance(records, list):
        raise LabError(f"{path} is no benchmark: it must hold a list of records, not a {type(records).__name__}")
    for number, entry in enumerate(records):
        try:
            validate_record(entry)
        except LabError as error:
            raise LabError(f"{path}, record {number}: {error}") from error
    return records


def validate_record(made: dict[str, Any]) -> dict[str, Any]:
    """The record itself where it has every key of design.md, of the right kind and finite; else LabError says all."""
    if not isinstance(made, dict):
        raise LabError(f"a record is a JSON object, not a {type(made).__name__}")
    wrong = [f"{key!r} is missing" for key in REQUIRED if key not in made]
    wrong += [f"{key!r} is not a key of a record" for key in made if key not in REQUIRED | OPTIONAL]
    for key, kind in (REQUIRED | OPTIONAL).items():
        value = made.get(key)
        if key in made and (not isinstance(value, kind) or isinstance(value, bool)):
            wrong.append(f"{key!r} is {value!r}")
    if not wrong:
        wrong = _wrong_values(made)
    if wrong:
        raise LabError(f"the record {made.get('name', '')!r} is not valid: {'; '.join(wrong)}")
    return made


def _wrong_values(made: dict[str, Any]) -> list[str]:
    """What is wrong with values that are of the right kind."""
    wrong = []
    if not re.fullmatch(r"[\w][\w.+-]*", made["name"]):
        wrong.append(f"the name {made['name']!r} is no file's name")
    if made["profile"] not in PROFILES:
        wrong.append(f"the profile {made['profile']!r} is none of {', '.join(PROFILES)}")
    for key in ("seconds", "cpu_seconds"):
        if not (math.isfinite(made[key]) and made[key] >= 0):
            wrong.append(f"{key!r} is {made[key]}")
    for key in ("peak_memory_mb", "threads", "samples"):
        if made.get(key, 1) < 1:
            wrong.append(f"{key!r} is {made[key]}")
    if not re.fullmatch(r"[0-9a-f]{64}", made["source_sha256"]):
        wrong.append("'source_sha256' is no SHA-256")
    if not re.fullmatch(r"unknown|[0-9a-f]{40}", made["commit"]):
        wrong.append(f"the commit {made['commit']!r} is neither 40 hexadecimal digits nor 'unknown'")
    if not made["packages"] or not all(isinstance(version, str) for version in made["packages"].values()):
        wrong.append("'packages' must map names to versions")
    try:
        date.fromisoformat(made["date"])
    except ValueError:
        wrong.append(f"the date {made['date']!r} is not of the form 2026-11-30")
    if not made["metrics"]:
        wrong.append("'metrics' is empty")
    return wrong + [f"the metric {name} is {value!r}" for name, value in _not_numbers(made["metrics"])]


def _not_numbers(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested metrics that are no finite numbers, with their dotted names."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_numbers(part, f"{name}.{key}".lstrip("."))
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        yield name, value


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
