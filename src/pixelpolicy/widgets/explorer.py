"""What the explorers share in Python: an alternative text, and numbers within their sliders' bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from pixelpolicy.errors import FigureError

Limits = Mapping[str, tuple[float, float, float]]  # of each slider: least, most, step (of a logarithmic one, decades)


def numbers(name: str, values: Any, least: int = 1) -> list[float]:
    """``values`` as floats. Raises `FigureError` unless there are ``least`` or more, in one row, all of them finite."""
    values = values.tolist() if hasattr(values, "tolist") else values
    flat = isinstance(values, Sequence) and not isinstance(values, str)
    if not flat or not all(isinstance(value, int | float) for value in values):
        raise FigureError(f"{name} is {values!r}; give a sequence of numbers")
    if len(values) < least or not all(isfinite(value) for value in values):
        raise FigureError(f"{name} holds {list(values)}; give {least} numbers or more, all of them finite")
    return [float(value) for value in values]


def described(alt: str) -> str:
    """``alt``, unless it says nothing: then `FigureError`."""
    if not alt.strip():
        raise FigureError("the explorer has no alternative text: say in alt= what it shows")
    return alt


def within(limits: Limits, name: str, value: float) -> float:
    """``value``, unless the slider ``name`` does not reach it: then `FigureError`."""
    least, most, _ = limits[name]
    if not least <= value <= most:
        raise FigureError(f"{name} is {value}; its slider goes from {least} to {most}")
    return value
