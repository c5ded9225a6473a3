"""`check` and `catch_up`, the two functions a lab calls, and the form of a lab's module of checks.

A module `course/checks/labNN.py` holds one list:

    from pixelpolicy.course.checking import Exercise, Mistake, Property, same, same_gradient

    def centred(f):
        same(f(REWARDS, GROUPS), [...the closed form...], atol=1e-6)

    EXERCISES = [
        Exercise(
            "12.1", "group_advantages", points=2,
            reference="pixelpolicy.rl:group_advantages",
            forbidden=("pixelpolicy.rl.advantages",),
            properties=[Property("each group's mean is taken away", centred, hint="shown where no mistake fits"), ...],
            mistakes=[Mistake("global mean", "You subtract the mean of the whole batch ...", wrong=global_mean), ...],
            probes=lambda: [(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 0])), ...],
        ),
    ]

Properties see the student's function and raise where they do not hold; the share that holds is the share of the
points. A check is deterministic (torch is seeded before each property), takes 2 s at most, and imports no diffusers.
"""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pixelpolicy.course import progress
from pixelpolicy.course.comparing import Mismatch, raises, same, same_gradient, seeded, show
from pixelpolicy.course.exercises import (
    IN_PLACE,
    Exercise,
    Mistake,
    Property,
    exercise_of,
    exercises_of,
    mistake_in,
)
from pixelpolicy.course.forbidden import handed_out, offence, watched
from pixelpolicy.course.lending import Lender
from pixelpolicy.errors import LabError, PixelPolicyError

__all__ = [
    "CheckFailed", "Exercise", "Mismatch", "Mistake", "Property", "Result", "catch_up", "check", "examine",
    "exercise_of", "exercises_of", "raises", "same", "same_gradient", "seeded",
]  # fmt: skip

_COPY = "Write into a new tensor, or into a copy: whoever calls your function goes on with what it handed over."


class CheckFailed(PixelPolicyError, AssertionError):
    """An answer is not right yet; the message is all that a notebook shows."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this in place of its own traceback
        return str(self).splitlines()


@dataclass(frozen=True)
class Result:
    """What a check found: the `share` of properties that hold, and the `message` for the student."""

    exercise: Exercise
    share: float
    message: str
    blank: bool = False

    @property
    def passed(self) -> bool:
        return self.share == 1.0


def check(id: str, function: Callable) -> None:
    """Check a student's `function` for exercise `id` ("12.1"), say what holds and what does not, and keep the score.

    Raises CheckFailed where it is not right, unless the exercise was caught up; LabError where there is no such
    exercise.
    """
    exercise = exercise_of(id)
    if handed_out.get(_identity(function)) == id:
        print(
            f"{id} {exercise.name} is the course's own answer: there is nothing to check. Write yours to earn points."
        )
        return
    result = examine(exercise, function)
    entry = _kept(progress.tried, id, share=result.share, of=exercise.points)
    if result.passed:
        print(result.message)
    elif entry is not None and entry.caught_up:
        print(f"{result.message}\nYou caught up on {id}: go on with the course's own answer.")
    else:
        raise CheckFailed(result.message)


def catch_up(id: str) -> Any:
    """The course's own answer to exercise `id`, so that the lab can go on. The exercise then counts no points."""
    exercise = exercise_of(id)
    answer = exercise.answer()
    handed_out[_identity(answer)] = id
    entry = _kept(progress.caught_up, id, of=exercise.points)
    points = "You passed it already: your points stay." if entry and entry.passed else "It counts no points."
    print(f"{id} {exercise.name} is now the course's own answer. {points}")
    return answer


def examine(exercise: Exercise, function: Callable) -> Result:
    """Try every property of an exercise on `function`; nothing is printed and nothing kept."""
    title = f"{exercise.id} {exercise.name}"
    if not callable(function):
        given = f"a {type(function).__name__}: {show(function, 80)}"
        return Result(exercise, 0.0, f"{title}: hand over the function itself, without calling it. Given: {given}")
    answer = exercise.answer()
    how = offence(function, exercise.forbidden, exercise=exercise.id, answer=answer)
    if how is not None:
        return Result(
            exercise,
            0.0,
            f"{title}: this is not your own answer: {how}.\nWrite it without the library's. If it will not yield, "
            "the catch-up cell below takes the course's answer.",
        )
    lines, held, hint, in_place = [], 0, "", False
    for property in exercise.properties:
        log: dict[str, Any] = {}
        error, lender = _tried(property, exercise, function, log)
        if error is None:
            held += 1
            lines.append(f"✓ {property.name}")
            continue
        if isinstance(error, NotImplementedError):
            return Result(exercise, 0.0, f"{title} is not written yet: fill in the cell above and run it.", blank=True)
        first = held == len(lines)  # one failure in full says enough: the others often follow from it
        lines.append(f"✗ {property.name}")
        hint, in_place = hint or property.hint, in_place or lender.through
        if first:
            lines += ["    " + line for line in _explained(error, function, log, lender)]
    count = len(exercise.properties)
    if held == count:
        points = f"{exercise.points:g} of {exercise.points:g} points"
        return Result(exercise, 1.0, "\n".join([*lines, f"{title}: all {count} properties hold, {points}."]))
    mistake = mistake_in(exercise, watched(function, (), {}, Lender(exercise.changes)))
    hint = mistake.hint if mistake else hint or (_COPY if in_place else "")
    ending = [f"Hint: {hint}"] if hint else []
    return Result(exercise, held / count, "\n".join([f"{title}: {held} of {count} properties hold.", *lines, *ending]))


def _tried(
    property: Property, exercise: Exercise, function: Callable, log: dict[str, Any]
) -> tuple[Exception | None, Lender]:
    """What a property raised, None where it holds.

    What the answer writes into its inputs is first kept from the check, so that nothing expected can be altered; where
    it wrote and the property held, the property must hold once more with the writing seen. The grader does the same.
    """
    for through in (False, True):
        lender = Lender(exercise.changes, through=through)
        try:
            with seeded():
                property.function(watched(function, exercise.forbidden, log, lender))
        except Exception as error:
            return error, lender
        finally:
            lender.put_back()
        if not lender.wrote:
            break
    return None, lender


def _explained(error: Exception, function: Callable, log: dict[str, Any], lender: Lender) -> list[str]:
    """What was given, what came out and what was expected, line by line."""
    lines = _given(function, log)
    wrote = _wrote(function, log, lender)
    if lender.through:  # what is expected may have been worked out of inputs that the answer has changed
        return [*lines, f"{IN_PLACE}, {wrote}: work on a copy"]
    also = [f"it also changed what it was given: {wrote}"] if wrote else []
    if isinstance(error, Mismatch | AssertionError) and error is not log.get("error"):
        return [*lines, *(str(error) or "it does not hold").splitlines(), *also]
    if error is not log.get("error"):
        return [*lines, f"what your function returned could not be used: {type(error).__name__}: {error}", *also]
    where = ""
    code = getattr(inspect.unwrap(function), "__code__", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if code is not None and frame.filename == code.co_filename:
            where = f" (line {frame.lineno} of its cell: {frame.line})" if frame.line else f" (line {frame.lineno})"
    message = str(error)
    if isinstance(error, ImportError) and "None in sys.modules" in message:
        message = "this module holds the library's own answer and may not be imported here"
    return [*lines, f"your function raised {type(error).__name__}: {message}{where}", *also]


def _wrote(function: Callable, log: dict[str, Any], lender: Lender) -> str:
    """The names of the arguments that an answer has changed."""
    names = list(_named(function, log))
    found = [names[place] if isinstance(place, int) and place < len(names) else str(place) for place in lender.wrote]
    return ", ".join(dict.fromkeys(found))


def _given(function: Callable, log: dict[str, Any]) -> list[str]:
    """The arguments of the last call, by name."""
    return [f"given     {name} = {show(value)}" for name, value in _named(function, log).items()]


def _named(function: Callable, log: dict[str, Any]) -> dict[str, Any]:
    if "args" not in log:
        return {}
    try:
        return dict(inspect.signature(function).bind(*log["args"], **log["kwargs"]).arguments)
    except (TypeError, ValueError):
        return {f"argument {i}": value for i, value in enumerate(log["args"])} | log["kwargs"]


def _identity(function: Any) -> int:
    return id(getattr(function, "__func__", function))


def _kept(keep: Callable[..., progress.Entry], *args: Any, **kwargs: Any) -> progress.Entry | None:
    """Keep progress; where it cannot be kept, say so and let the student go on."""
    try:
        return keep(*args, **kwargs)
    except LabError as error:
        warnings.warn(f"your progress was not kept: {error}", stacklevel=3)
        return None
