"""The verdict on one exercise of one submission: checks run here, the answer runs in the sandbox.

Each property is tried on the inputs that students know and on inputs that follow from the instructor's secret. It
holds if it holds on both. Three rules keep credit from being had for nothing:

- a property that an empty answer satisfies too (nothing, zeros, NaN, the argument itself) counts only beside one
  that none of these satisfies;
- where all that holds on the known inputs fails on the fresh ones, the exercise counts nothing;
- so it does where the answer's process dies, is late, or does not keep to the form of the channel.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pixelpolicy.course.comparing import Mismatch, seeded
from pixelpolicy.course.exercises import IN_PLACE, Property, mistake_in
from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.grading.prepare import STREAMS, Prepared, prepared
from pixelpolicy.course.grading.sandbox import STARTING, Answer, NotStarted, library_without
from pixelpolicy.course.grading.submissions import Piece, forbidden_in
from pixelpolicy.course.grading.varied import derived
from pixelpolicy.course.grading.visible import visible
from pixelpolicy.course.grading.wire import ChannelError, as_bytes, overwrite
from pixelpolicy.course.lending import copied

_GRACE = 10.0  # seconds that the checks themselves may take beyond the answer's


@dataclass
class Verdict:
    """What grading found of one exercise.

    `state` is one of passed, partial, failed, blank, missing, forbidden, memorised, stopped, ungraded; the last means
    that the grader itself failed, and that grading it again may help. `held` says of each property by name whether it
    holds; `explained` is for the student, in lines. `seconds` is what it all took, `own_seconds` what of it ran on the
    answer's time, from the first line of its code; None where none of it ran.
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
    own_seconds: float | None = None

    @property
    def points(self) -> float:
        return self.of * self.share

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine_piece(
    piece: Piece,
    lab: int,
    id: str,
    secret: bytes,
    cache: Path,
    *,
    limits: Limits | None = None,
    backend: str = "bubblewrap",
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
                 blocked=tuple(exercise.forbidden), limits=limits, backend=backend)  # fmt: skip
    try:
        with _alarm(box, STARTING + box.limits.seconds + _GRACE), box:
            if box.error is not None:
                verdict.explained = [f"your code raised {type(box.error).__name__}: {str(box.error)[:300]}"]
            else:
                _judge(box, ready, verdict, derived(secret, lab, id, "torch"))
            if box.peer.fault:
                raise ChannelError(box.peer.fault)
    except NotStarted as error:
        verdict.state, verdict.explained = "ungraded", [f"it could not be graded: {error}"]
    except ChannelError as error:
        verdict.state, verdict.share, verdict.hint = "stopped", 0.0, ""
        verdict.held = dict.fromkeys((p.name for p in exercise.properties), False)
        verdict.explained = [f"your function was stopped: {error}"]
    ended = time.monotonic()
    verdict.seconds = round(ended - started, 3)
    verdict.own_seconds = None if box.began is None else round(ended - box.began, 3)
    verdict.explained = [visible(line) for line in verdict.explained]  # they may quote the answer
    return verdict


def _judge(box: Answer, ready: Prepared, verdict: Verdict, seed: int) -> None:
    exercise = ready.exercise
    errors: list[Exception | None] = []
    for property in exercise.properties:  # before any fresh input is handed over, so that no error can tell of one
        errors.append(_tried(box, ready, property, 0))
        if isinstance(errors[-1], NotImplementedError):
            verdict.state, verdict.explained = "blank", ["this exercise is not written"]
            return
    fresh = []
    for property, other, error in zip(exercise.properties, ready.fresh, errors, strict=True):
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


def _tried(box: Answer, ready: Prepared, property: Property, seed: int) -> Exception | None:
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
                # what the check expected may have been worked out of the arguments that the answer has changed
                return Mismatch(f"{IN_PLACE}: work on a copy") if through else error
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
            wrote.append((old, copied(old)))
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
    if isinstance(old, STREAMS):
        overwrite(old, new)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        for a, b in zip(old, new, strict=False):
            _streams(a, b)


def _explained(error: Exception | None, again: Exception | None) -> list[str]:
    """What a student is told: of known inputs all, of fresh ones nothing but that they were fresh."""
    if error is None:
        return ["it holds on the inputs of the notebook, and not on others of the same kind"]
    if isinstance(error, Mismatch | AssertionError):
        return (str(error) or "it does not hold")[:1500].splitlines()[:12]
    return [f"{type(error).__name__}: {str(error)[:500]}"]


@contextmanager
def _alarm(box: Answer, seconds: float) -> Iterator[None]:
    """Raise ChannelError after so many seconds, where this is a process's main thread; a last resort."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        box.peer.fault = "its checks took too long with what it gave"  # a check may catch the error itself
        raise ChannelError(box.peer.fault)

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
