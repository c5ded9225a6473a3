"""What the author of a check writes: an exercise, its properties, and the mistakes that it knows by sight.

A property is a function of the student's function. It says nothing where the property holds and raises where it does
not: `same`, `same_gradient` and `raises` of `comparing` do so with what came out and what was expected. A known
mistake is a wrong answer, written down: where a property fails, the student's answers to the exercise's probes are
compared with those of each mistake, values and gradients, and the hint of the first that agrees is shown.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixelpolicy.course.comparing import alike, fingerprint, seeded
from pixelpolicy.errors import LabError

# What is said where a property holds only as long as what an answer writes into its inputs is kept from the check.
IN_PLACE = "what comes out is right by itself, but your function changes what it was given"


@dataclass(frozen=True)
class Property:
    """One thing that must hold, named in words ("the mean of each group is taken away").

    `function` takes the student's function. `hint` is shown where it fails and no known mistake fits.
    """

    name: str
    function: Callable[[Callable], None]
    hint: str = ""


@dataclass(frozen=True)
class Mistake:
    """A likely wrong answer: `wrong`, a function that makes it, or `when`, a test of the student's function."""

    name: str
    hint: str
    wrong: Callable | None = None
    when: Callable[[Callable], bool] | None = None


@dataclass(frozen=True)
class Exercise:
    """An exercise as its check knows it; `id`, `name`, `points`, `forbidden` agree with the cell in `solutions/`.

    `reference` is the course's own answer: `"pixelpolicy.rl:group_advantages"`, or a callable where the library's
    signature differs. `forbidden` names modules or objects by dotted path that a submission may not use. `probes`
    makes fresh arguments, a tuple for each call, on which known mistakes are told apart. `changes` are the places of
    arguments that the answer is to change; whatever it writes into others is kept from the check.
    """

    id: str
    name: str
    points: float
    properties: Sequence[Property]
    reference: str | Callable
    forbidden: Sequence[str] = ()
    mistakes: Sequence[Mistake] = ()
    probes: Callable[[], list[tuple]] = field(default=list)
    changes: Sequence[int] = ()

    def answer(self) -> Callable:
        """The course's own answer."""
        if callable(self.reference):
            return self.reference
        module, _, name = self.reference.partition(":")
        return getattr(importlib.import_module(module), name)


def exercises_of(lab: int) -> dict[str, Exercise]:
    """The exercises of a lab by their id; LabError where no module of checks is written for it."""
    name = f"pixelpolicy.course.checks.lab{lab:02d}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LabError(f"lab {lab:02d} has no checks: write course/checks/lab{lab:02d}.py") from error
    return {exercise.id: exercise for exercise in module.EXERCISES}


def exercise_of(id: str) -> Exercise:
    """The exercise called `id`, such as "12.1"; LabError with the ones there are."""
    lab = id.partition(".")[0] if isinstance(id, str) else ""
    if not lab.isdigit():
        raise LabError(f'{id!r} names no exercise: write the lab, a dot and a number, in quotes, as in "12.1"')
    found = exercises_of(int(lab))
    if id not in found:
        raise LabError(f"there is no exercise {id}: lab {lab} has {', '.join(found)}")
    return found[id]


def mistake_in(exercise: Exercise, function: Callable) -> Mistake | None:
    """The known mistake that `function` makes, if it is one of them."""
    found: list[Any] | None = None
    for mistake in exercise.mistakes:
        if mistake.when is not None:
            try:
                with seeded():
                    if mistake.when(function):
                        return mistake
            except Exception:  # a predicate that cannot be asked of this function does not fit it
                continue
        elif mistake.wrong is not None:
            found = fingerprint(function, exercise.probes) if found is None else found
            if alike(found, fingerprint(mistake.wrong, exercise.probes)):
                return mistake
    return None
