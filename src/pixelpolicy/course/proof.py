"""Proving that a check tells right from wrong: answers tried in processes forked from a warm interpreter.

Wrong answers live in `tests/mutants/labNN.py`:

    from pixelpolicy.course.proof import Mutant

    MUTANTS = {
        "12.1": [Mutant("global mean", global_mean, hint="mean of the whole batch"), ...four or more...],
    }

where `hint` is a part of the message that this mutant alone must bring up.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
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


def trials(id: str, answers: dict[str, Callable[[], Any]]) -> dict[str, Trial]:
    """Check every answer to exercise `id` in one process of their own, forked from this one.

    `answers` maps a name to a function that makes the answer, called in that process. Raises LabError where the
    process dies or takes more than a minute.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_try_all, args=(id, answers, there), daemon=True)
    process.start()
    there.close()
    try:
        done = here.recv() if here.poll(LIMIT) else None
    except EOFError:
        done = None
    finally:
        process.kill()
        process.join()
    if not isinstance(done, dict):
        raise LabError(f"the checks of {id} could not be run: {done or f'their process died or took {LIMIT:.0f} s'}")
    return done


def _try_all(id: str, answers: dict[str, Callable[[], Any]], pipe: Connection) -> None:
    torch.set_num_threads(1)  # the parent's pool of threads does not survive the fork
    try:
        exercise = exercise_of(id)
        done = {}
        for name, make in answers.items():
            answer, started = make(), time.process_time()
            result = examine(exercise, answer)
            done[name] = Trial(result.passed, result.blank, result.message, time.process_time() - started)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
    else:
        pipe.send(done)
