"""The verdict on one exercise of one submission: checks run here, the answer runs in the sandbox.

Each property is tried on the inputs that students know and on inputs that follow from the instructor's secret. It
holds if it holds on both. Three rules keep credit from being had for nothing:

- a property that an empty answer satisfies too (nothing, zeros, NaN, the argument itself) counts only beside one
  that none of these satisfies;
- where all that holds on the known inputs fails on the fresh ones, the exercise counts nothing;
- so it does where the answer's process dies, is late, or does not keep to the form of the channel.
"""

from __future__ import annotations

import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, seeded
from pixelpolicy.course.exercises import Exercise, Property, exercises_of, mistake_in
from pixelpolicy.course.grading.sandbox import STARTING, Answer, Limits, library_without
from pixelpolicy.course.grading.submissions import Piece, forbidden_in
from pixelpolicy.course.grading.varied import derived, varied_exercises
from pixelpolicy.course.grading.wire import ChannelError, as_bytes, overwrite

_STREAMS = torch.Generator | np.random.Generator
_GRACE = 10.0  # seconds that the checks themselves may take beyond the answer's


@dataclass
class Verdict:
    """What grading found of one exercise.

    `state` is one of passed, partial, failed, blank, missing, forbidden, memorised, stopped. `held` says of each
    property by name whether it holds; `explained` is for the student, in lines.
    """

    id: str
    name: str
    of: float
    share: float = 0.0
    state: str = "failed"
    held: dict[str, bool] = field(default_factory=dict)
    hint: str = ""
    mistake: str = ""
    explained: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def points(self) -> float:
        return self.of * self.share

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Prepared:
    """An exercise, the fresh version of each of its properties where there is one, and what is known of both."""

    exercise: Exercise
    fresh: tuple[Property | None, ...]
    substantive: tuple[bool, ...]
    changing: frozenset[int | str]  # which arguments the course's own answer changes


def examine_piece(
    piece: Piece, lab: int, id: str, secret: bytes, cache: Path, *, limits: Limits | None = None, unsafe: bool = False
) -> Verdict:
    """Grade one exercise: `piece` is the student's code for it. Whatever the code does, a verdict comes back."""
    ready = prepared(lab, id, secret)
    exercise = ready.exercise
    verdict = Verdict(id, exercise.name, exercise.points)
    started = time.monotonic()
    if piece.blank:
        verdict.state, verdict.explained = "blank", ["this exercise is not written"]
        return verdict
    if piece.fault:
        verdict.state, verdict.explained = "missing", [piece.fault]
        return verdict
    if how := forbidden_in(piece, tuple(exercise.forbidden)):
        verdict.state = "forbidden"
        verdict.explained = [f"this is not your own answer: {how}"]
        return verdict
    library = library_without(tuple(exercise.forbidden), cache)
    box = Answer(piece.name, list(piece.code), list(piece.imports), library,
                 blocked=tuple(exercise.forbidden), limits=limits, unsafe=unsafe)  # fmt: skip
    try:
        with _alarm(STARTING + box.limits.seconds + _GRACE), box:
            if box.error is not None:
                verdict.explained = [f"your code raised {type(box.error).__name__}: {str(box.error)[:300]}"]
            else:
                _judge(box, ready, verdict, derived(secret, lab, id, "torch"))
            if box.peer.fault:
                raise ChannelError(box.peer.fault)
    except ChannelError as error:
        verdict.state, verdict.share, verdict.hint = "stopped", 0.0, ""
        verdict.held = dict.fromkeys((p.name for p in exercise.properties), False)
        verdict.explained = [f"your function was stopped: {error}"]
    verdict.seconds = round(time.monotonic() - started, 3)
    return verdict


def _judge(box: Answer, ready: _Prepared, verdict: Verdict, seed: int) -> None:
    exercise = ready.exercise
    known, fresh = [], []
    for property, other in zip(exercise.properties, ready.fresh, strict=True):
        error = _tried(box, ready, property, 0)
        if isinstance(error, NotImplementedError):
            verdict.state, verdict.explained = "blank", ["this exercise is not written"]
            return
        known.append(error is None)
        again = None if other is None or error is not None else _tried(box, ready, other, seed)
        if other is not None and error is None:
            fresh.append(again is None)
        verdict.held[property.name] = error is None and again is None
        if not verdict.held[property.name] and not verdict.explained:
            verdict.hint = property.hint
            verdict.explained = _explained(error, again)
    held = list(verdict.held.values())
    verdict.share = sum(held) / len(held)
    verdict.state = "passed" if all(held) else "partial" if any(held) else "failed"
    if all(held):
        return
    if any(ready.substantive) and not any(h and s for h, s in zip(held, ready.substantive, strict=True)):
        verdict.share, verdict.state = 0.0, "failed"
    if fresh and not any(fresh):
        verdict.share, verdict.state = 0.0, "memorised"
        verdict.explained = ["what you give is right for the inputs of the notebook, and for no others"]
        verdict.hint = "Compute the answer from what your function is given."
        return
    box.begin()
    with _written(box, ready.changing):
        mistake = mistake_in(exercise, _caller(box))
    if mistake is not None:
        verdict.mistake, verdict.hint = mistake.name, mistake.hint


def _tried(box: Answer, ready: _Prepared, property: Property, seed: int) -> Exception | None:
    """What a property raised of the answer, None where it holds.

    What the answer writes into its arguments is first kept from the check, so that no expected value can be altered;
    where it wrote and the property held, the property must hold once more with the writing done.
    """
    for through in (False, True):
        box.begin()
        with _written(box, ready.changing, through=through) as wrote:
            try:
                with seeded(seed):
                    property.function(_caller(box))
            except ChannelError:
                raise
            except Exception as error:
                if box.peer.fault:
                    raise ChannelError(box.peer.fault) from error
                return error
        if box.peer.fault:
            raise ChannelError(box.peer.fault)
        if not wrote:
            break
    return None


def _caller(box: Answer) -> Callable:
    return lambda *args, **kwargs: box.function(*args, **kwargs)


@contextmanager
def _written(box: Answer, changing: frozenset[int | str], *, through: bool = False) -> Iterator[list]:
    """Say what becomes of arguments that the answer changes; yields the list of those, and undoes what was done."""
    wrote: list[tuple[Any, Any]] = []

    def heed(place: int | str, old: Any, new: Any) -> None:
        _streams(old, new)
        if place in changing:
            overwrite(old, new)
        elif as_bytes(old) != as_bytes(new):
            wrote.append((old, _copy(old)))
            if through:
                overwrite(old, new)

    box.peer.written = heed
    try:
        yield wrote
    finally:
        for old, was in reversed(wrote) if through else ():
            overwrite(old, was)


def _streams(old: Any, new: Any) -> None:
    """Bring random streams to where the answer left them: they are there to be drawn from."""
    if isinstance(old, _STREAMS):
        overwrite(old, new)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        for a, b in zip(old, new, strict=False):
            _streams(a, b)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return type(value)(_copy(x) for x in value) if type(value) in (list, tuple) else value


def _explained(error: Exception | None, again: Exception | None) -> list[str]:
    """What a student is told: of known inputs all, of fresh ones nothing but that they were fresh."""
    if error is None:
        return ["it holds on the inputs of the notebook, and not on others of the same kind"]
    if isinstance(error, Mismatch | AssertionError):
        return (str(error) or "it does not hold")[:1500].splitlines()[:12]
    return [f"{type(error).__name__}: {str(error)[:500]}"]


# What is known of an exercise before any answer is seen ----------------------------------------------------------


@functools.lru_cache(maxsize=512)
def prepared(lab: int, id: str, secret: bytes) -> _Prepared:
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
    return _Prepared(exercise, tuple(fresh), substantive, _changing(exercise))


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
                if as_bytes(value) != was and not isinstance(value, _STREAMS):
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


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise ChannelError after so many seconds, where this is a process's main thread; a last resort."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        raise ChannelError("its checks took too long with what it gave")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
