"""Proving that a check tells right from wrong: answers tried in processes forked from a warm interpreter.

Wrong answers live in `tests/mutants/labNN.py`:

    from pixelpolicy.course.proof import Mutant

    MUTANTS = {
        "12.1": [Mutant("global mean", global_mean, hint="mean of the whole batch"), ...four or more...],
    }

where `hint` is a part of the message that this mutant alone must bring up.
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pixelpolicy.course.checking import examine, exercise_of
from pixelpolicy.errors import LabError

LIMIT = 60.0


@dataclass(frozen=True)
class Mutant:
    """A plausible wrong answer and a part of the hint that it must get."""

    name: str
    function: Callable
    hint: str


@dataclass(frozen=True)
class Trial:
    """What a check said of one answer, and the CPU seconds it took."""

    passed: bool
    blank: bool
    message: str
    seconds: float


def wrong_answers(path: Path) -> dict[str, list[Mutant]]:
    """The wrong answers that a file of `tests/mutants/` holds, by exercise. Raises LabError where there is no file."""
    if not path.exists():
        raise LabError(f"no wrong answers are written for this lab: write {path}")
    spec = importlib.util.spec_from_file_location(f"mutants_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTANTS


def apart(function: Callable[..., Iterator[Any]], *given: Any, seconds: float = LIMIT) -> tuple[list[Any], int | None]:
    """What a generator function yields in a process forked from this one, and how that process ended.

    The second is None where the function came to its end, 0 where something took more than `seconds` of wall time, and
    else the exit code: the negative number of a signal where one killed it.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(function, given, there))
    process.start()
    there.close()
    got: list[Any] = []
    try:
        while here.poll(seconds):
            kind, value = here.recv()
            if kind == "end":
                return got, None
            got.append(value)
        return got, 0
    except EOFError:
        process.join(1)
        return got, process.exitcode or 1
    finally:
        process.kill()
        process.join()


def _send(function: Callable[..., Iterator[Any]], given: tuple, pipe: Connection) -> None:
    torch.set_num_threads(1)  # the parent's pool of threads does not survive the fork
    gc.disable()  # a collection would touch, and so copy, all the memory that is shared with the parent
    for value in function(*given):
        pipe.send(("value", value))
    pipe.send(("end", None))


def trials(id: str, answers: dict[str, Callable[[], Any]]) -> dict[str, Trial]:
    """Check every answer to exercise `id` in one process of their own, forked from this one.

    `answers` maps a name to a function that makes the answer, called in that process. Raises LabError where the
    process dies or takes more than a minute.
    """
    done, _ = apart(_try_all, id, answers)
    if not done or not isinstance(done[0], dict):
        why = done[0] if done else f"their process died or took {LIMIT:.0f} s"
        raise LabError(f"the checks of {id} could not be run: {why}")
    return done[0]


def _try_all(id: str, answers: dict[str, Callable[[], Any]]) -> Iterator[dict[str, Trial] | str]:
    try:
        exercise = exercise_of(id)
        done = {}
        for name, make in answers.items():
            answer, started = make(), time.process_time()
            result = examine(exercise, answer)
            done[name] = Trial(result.passed, result.blank, result.message, time.process_time() - started)
        yield done
    except Exception as error:
        yield f"{type(error).__name__}: {error}"
