"""What is known of an exercise before any answer is seen: its fresh versions, and what credit may hang on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course.comparing import seeded
from pixelpolicy.course.exercises import Exercise, Property, exercises_of
from pixelpolicy.course.grading.varied import derived, varied_exercises
from pixelpolicy.course.grading.wire import as_bytes

STREAMS = torch.Generator | np.random.Generator


@dataclass(frozen=True)
class Prepared:
    """An exercise, the fresh version of each of its properties where there is one, and what is known of both."""

    exercise: Exercise
    fresh: tuple[Property | None, ...]
    substantive: tuple[bool, ...]
    changing: frozenset[int | str]  # which arguments the course's own answer changes


@functools.lru_cache(maxsize=512)
def prepared(lab: int, id: str, secret: bytes) -> Prepared:
    """An exercise made ready for grading: which fresh properties the course's own answer satisfies, and more."""
    exercise, varied = exercises_of(lab)[id], varied_exercises(lab, secret)[id]
    seed = derived(secret, lab, id, "torch")
    fresh = []
    for property, other in zip(exercise.properties, varied.properties, strict=True):
        usable = _holds(other, varied.answer(), seed)
        fresh.append(other if usable and _inputs(property, exercise, 0) != _inputs(other, varied, seed) else None)
    empty = [_empty(exercise.answer(), make) for make in (_nothing, _zero, _nan)]
    empty += [lambda *args, **kwargs: next(iter([*args, *kwargs.values()]), None), lambda *args, **kwargs: None]
    substantive = tuple(not any(_holds(p, function, 0) for function in empty) for p in exercise.properties)
    return Prepared(exercise, tuple(fresh), substantive, _changing(exercise))


def _holds(property: Property, function: Callable, seed: int) -> bool:
    try:
        with seeded(seed):
            property.function(function)
    except Exception:
        return False
    return True


def _inputs(property: Property, exercise: Exercise, seed: int) -> list[tuple[str, bytes]]:
    """What a property hands to the course's own answer."""
    answer, given = exercise.answer(), []

    def listening(*args: Any, **kwargs: Any) -> Any:
        given.append(as_bytes([x for x in (*args, *kwargs.values()) if not callable(x)]))
        return answer(*args, **kwargs)

    _holds(property, listening, seed)
    return given


def _changing(exercise: Exercise) -> frozenset[int | str]:
    """The arguments into which the course's own answer writes."""
    answer, found = exercise.answer(), set()

    def watching(*args: Any, **kwargs: Any) -> Any:
        places = [*enumerate(args), *kwargs.items()]
        before = [as_bytes(value) for _, value in places]
        try:
            return answer(*args, **kwargs)
        finally:
            for (place, value), was in zip(places, before, strict=True):
                if as_bytes(value) != was and not isinstance(value, STREAMS):
                    found.add(place)

    for property in exercise.properties:
        _holds(property, watching, 0)
    return frozenset(found)


def _empty(answer: Callable, make: Callable[[Any], Any]) -> Callable:
    """An answer of the right form that says nothing."""

    def function(*args: Any, **kwargs: Any) -> Any:
        return _mapped(answer(*args, **kwargs), make)

    return function


def _mapped(value: Any, make: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {k: _mapped(v, make) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(x, make) for x in value)
    return make(value)


def _zero(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    return np.zeros_like(value) if isinstance(value, np.ndarray) else 0.0 if isinstance(value, float) else False


def _nan(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.full_like(value, math.nan) if value.is_floating_point() else torch.ones_like(value)
    if isinstance(value, np.ndarray):
        return np.full_like(value, math.nan) if value.dtype.kind == "f" else np.ones_like(value)
    return math.nan if isinstance(value, float) else True


def _nothing(value: Any) -> Any:
    return torch.empty(0) if isinstance(value, Tensor) else None
