"""Recorded long runs: what a lab replays because it would take hours to run.

`benchmarks/NAME.json` holds the records; beside it `benchmarks/NAME/` has for each seed its log, one row an iteration,
and its weights as the difference to the base.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.errors import LabError
from pixelpolicy.generators.checkpoint import G, apply_difference, difference, save_weights


def records(name: str) -> list[dict[str, Any]]:
    """The records of a long run, one a seed. Raises `LabError` where there are none or one is not valid."""
    return read_benchmark(course_root() / "benchmarks" / f"{name}.json")


def history(name: str, seed: int) -> list[dict[str, float]]:
    """The log of one seed: the metrics of each iteration. Raises `LabError` where it is missing or no log."""
    path = _path(name, seed, "json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"the log {path} cannot be read ({error}). Restore it with `git checkout -- {path}`") from error


def apply(name: str, seed: int, base: G, alpha: float = 1.0) -> G:
    """Move a fresh base, in place, to where the long run ended (``alpha = 1``), part of the way, or beyond."""
    return apply_difference(base, _path(name, seed, "safetensors"), alpha)


def keep(name: str, seed: int, log: list[dict[str, float]], tuned: dict[str, Tensor], base: G) -> None:
    """Write the log of a run and the difference of its transformer's state to the base's."""
    write_json(_path(name, seed, "json"), log)
    save_weights(difference(tuned, base.transformer.state_dict()), _path(name, seed, "safetensors"), base=base)


def _path(name: str, seed: int, ending: str) -> Path:
    return course_root() / "benchmarks" / name / f"seed-{seed}.{ending}"
