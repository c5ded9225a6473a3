"""`pixelpolicy mutation`: every check is asked about the mutants of its solution, and about the mistakes by hand.

The mutants of an exercise run in a process of their own with limits on time and memory, and in a new one wherever one
dies, is late, or writes into what the check is made of. An exercise leaves `benchmarks/mutation/ID.json`, tied to the
texts that its verdicts follow from; what has not changed is not run again. A mutant is caught where the check refuses
it, where it raises an error of its own, and where it is late.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import random
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm.auto import tqdm

from pixelpolicy.course import comparing, lending
from pixelpolicy.course.checking import exercise_of
from pixelpolicy.course.comparing import seeded
from pixelpolicy.course.exercises import Exercise
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.mutation import Mutation, mutations
from pixelpolicy.course.parallel import in_parallel
from pixelpolicy.course.proof import apart, wrong_answers
from pixelpolicy.course.source import Source, Task, find_source, plain, read_source, sources
from pixelpolicy.errors import LabError

SLOWER, LEAST_SECONDS = 5, 0.5  # how often the CPU time of its solution a mutant may take, or at least so long
REPEATS = 10
TARGET = 0.98
REFUSED, RAISED, LATE, SURVIVED = "refused", "raised", "late", "survived"
_WHOLE = 3600.0  # wall seconds for all mutants of an exercise


@dataclass(frozen=True)
class Equivalent:
    """Mutants of an exercise that compute the same on everything a student's function may be given, and why."""

    exercise: str
    reason: str
    mutants: tuple[str, ...]


@dataclass
class Score:
    """What is recorded of an exercise. `outcomes` holds a verdict for each of its `mutants`, by id.

    `current` is False where the solution, its check or the mistakes were changed since.
    """

    id: str
    name: str
    lab: str
    mutants: list[Mutation]
    outcomes: dict[str, str]
    equivalent: dict[str, str] = field(default_factory=dict)
    mistakes: dict[str, str] = field(default_factory=dict)
    repeats: int = 0
    flaky: list[str] = field(default_factory=list)
    current: bool = True

    def count(self, *outcomes: str) -> int:
        """How many mutants that are not equivalent had one of these outcomes; all of them where none is given."""
        told = [self.outcomes[one.id] for one in self.mutants if one.id not in self.equivalent]
        return len(told) if not outcomes else sum(outcome in outcomes for outcome in told)

    @property
    def caught(self) -> int:
        return self.count(REFUSED, RAISED, LATE)

    @property
    def survivors(self) -> list[Mutation]:
        """The mutants that pass and are not listed as equivalent."""
        return [m for m in self.mutants if self.outcomes[m.id] == SURVIVED and m.id not in self.equivalent]

    @property
    def refuted(self) -> list[str]:
        """Mutants that are listed as equivalent, and that the check refuses all the same."""
        return [id for id in self.equivalent if self.outcomes.get(id, SURVIVED) != SURVIVED]

    @property
    def passing_mistakes(self) -> list[str]:
        return [name for name, outcome in self.mistakes.items() if outcome == SURVIVED]


# What there is to read ------------------------------------------------------------------------------------------------


def equivalents(root: Path) -> list[Equivalent]:
    """The list of equivalent mutants, `tests/mutants/equivalent.yaml`; LabError where an entry is not of its form."""
    path = root / "tests" / "mutants" / "equivalent.yaml"
    if not path.exists():
        return []
    found = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
        try:
            one = Equivalent(str(entry["exercise"]), entry["reason"].strip(), tuple(map(str, entry["mutants"])))
            assert one.reason and one.mutants
        except (AssertionError, AttributeError, KeyError, TypeError) as error:
            raise LabError(f"{path}: an entry has exercise, reason and mutants, each with something in it, not {entry}"
                           ) from error  # fmt: skip
        found.append(one)
    return found


def stale(root: Path) -> list[str]:
    """Entries of the list of equivalents that name no mutant any more, or one twice, each as "exercise: mutant"."""
    known = {id: {one.id for one in mutations(task.solution, id_name)} for _, id, task, id_name in _tasks(root, None)}
    seen: set[tuple[str, str]] = set()
    wrong = []
    for entry in equivalents(root):
        for mutant in entry.mutants:
            if mutant not in known.get(entry.exercise, ()) or (entry.exercise, mutant) in seen:
                wrong.append(f"{entry.exercise}: {mutant}")
            seen.add((entry.exercise, mutant))
    return wrong


def scores(root: Path, labs: Sequence[int] | None = None) -> list[Score]:
    """The recorded scores of all exercises that have one, in the order of the labs."""
    same: dict[str, dict[str, str]] = {}
    for entry in equivalents(root):
        same.setdefault(entry.exercise, {}).update(dict.fromkeys(entry.mutants, entry.reason))
    found = []
    for source, id, task, name in _tasks(root, labs):
        kept = _kept(root, id)
        if kept is None:
            continue
        verdicts = kept["verdicts"]
        made = [one for one in mutations(task.solution, name) if _digest(one.code) in verdicts]
        outcomes = {one.id: verdicts[_digest(one.code)] for one in made}
        found.append(
            Score(id, name, source.name, made, outcomes, same.get(id, {}), kept["mistakes"], kept["repeats"],
                  kept["flaky"], kept["key"] == _key(root, source, task))
        )  # fmt: skip
    return found


def _tasks(root: Path, labs: Sequence[int] | None) -> Iterator[tuple[Source, str, Task, str]]:
    for path in sources(root):
        if labs is None or int(path.name[:2]) in labs:
            source = read_source(path, checks=False)
            for id, task in source.tasks.items():
                yield source, id, task, task.name


def _file(root: Path, id: str) -> Path:
    lab, _, number = id.partition(".")
    return root / "benchmarks" / "mutation" / f"{int(lab):02d}.{number}.json"


def _kept(root: Path, id: str) -> dict[str, Any] | None:
    path = _file(root, id)
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise LabError(f"{path} cannot be read ({error}). Delete it, and `make mutation` makes it anew") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _key(root: Path, source: Source, task: Task) -> dict[str, str]:
    """What the verdicts of an exercise follow from."""
    text = _text(f"lab{source.number:02d}")
    others = re.findall(r"^from pixelpolicy\.course\.checks import (.+)$", text, flags=re.M)
    shared = [_text(name.strip()) for line in others for name in line.split(",")]
    shared += [Path(module.__file__).read_text(encoding="utf-8") for module in (comparing, lending)]
    by_hand = root / "tests" / "mutants" / f"lab{source.number:02d}.py"
    return {
        "solution": _digest(task.solution),
        "check": _digest("\0".join([text, *shared])),
        "mistakes": _digest(by_hand.read_text(encoding="utf-8") if by_hand.exists() else ""),
    }


def _text(lab: str) -> str:
    """The text of a lab's module of checks."""
    return Path(importlib.util.find_spec(f"pixelpolicy.course.checks.{lab}").origin).read_text(encoding="utf-8")


# Running --------------------------------------------------------------------------------------------------------------


def run(
    labs: Sequence[int] | None = None,
    *,
    root: Path | None = None,
    jobs: int = 1,
    repeats: int = REPEATS,
    show: bool = True,
) -> list[Score]:
    """Bring the records of these labs (of all) up to date, and give their scores.

    `repeats` is how often each check must say the same of its solution and of the mistakes by hand. Raises LabError
    where a solution does not pass its own check.
    """
    root = root or course_root()
    waiting = []
    for source, id, task, name in _tasks(root, labs):
        kept, key = _kept(root, id), _key(root, source, task)
        kept = kept if kept is not None and kept["key"] == key else None
        wanted = {_digest(one.code) for one in mutations(task.solution, name)}
        if kept is None or not wanted <= set(kept["verdicts"]) or kept["repeats"] < repeats:
            waiting.append((str(root), source.number, id, key, kept, repeats))
    done = in_parallel(_examine, waiting, workers=jobs)
    for id, made in tqdm(done, total=len(waiting), desc="mutation", unit="exercise", disable=not show):
        write_json(_file(root, id), made)
    return scores(root, labs)


def _examine(job: tuple) -> tuple[str, dict[str, Any]]:
    """All verdicts on one exercise. Nothing here computes: processes are forked from this one."""
    root, lab, id, key, kept, repeats = job
    started, cpu = time.perf_counter(), _cpu()
    source = _source(root, lab)
    task = source.tasks[id]
    solution = source.submission(id, task.solution)
    known = kept or {"verdicts": {}, "mistakes": {}, "repeats": 0, "flaky": []}
    by_hand = {m.name: m.function for m in _by_hand(root, lab).get(id, [])}
    made = {_digest(one.code): one.code for one in mutations(task.solution, task.name)}
    new = {digest: code for digest, code in made.items() if digest not in known["verdicts"]}
    mistakes = {} if known["mistakes"] else {name: (lambda f=f: f) for name, f in by_hand.items()}
    told = _outcomes(
        id, solution, mistakes | {digest: _maker(solution, code, task.name) for digest, code in new.items()}
    )
    flaky, times = known["flaky"], known["repeats"]
    if times < repeats:
        said, _ = apart(_all_said, id, {"the solution": solution, **by_hand}, repeats, seconds=_WHOLE)
        flaky = sorted({name for one in said for name in one if one[name] != said[0][name]})
        flaky, times = flaky if len(said) == repeats else ["the check itself"], repeats
    return id, {
        "exercise": id,
        "key": key,
        "verdicts": {digest: told.get(digest) or known["verdicts"][digest] for digest in made},
        "mistakes": known["mistakes"] or {name: told[name] for name in mistakes},
        "repeats": times,
        "flaky": flaky,
        "cpu_seconds": round(_cpu() - cpu, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


@functools.lru_cache(maxsize=1)
def _source(root: str, lab: int) -> Source:
    return read_source(find_source(Path(root), lab), checks=False)


@functools.lru_cache(maxsize=1)
def _by_hand(root: str, lab: int) -> dict[str, list]:
    return wrong_answers(Path(root) / "tests" / "mutants" / f"lab{lab:02d}.py")


def _cpu() -> float:
    """CPU seconds of this process and of its children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _maker(solution: Callable, code: str, name: str) -> Callable[[], Any]:
    """A function that makes the mutant, in a copy of what the cells above the exercise define."""

    def make() -> Any:
        space = dict(solution.__globals__)
        exec(compile(plain(code), f"<mutant of {name}>", "exec"), space)
        return space[name]

    return make


def _outcomes(id: str, solution: Callable, answers: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """What the check says of each answer. Raises LabError where it does not let the solution pass."""
    told: dict[str, str] = {}
    while left := {name: make for name, make in answers.items() if name not in told}:
        done, ending = apart(_tried, id, solution, left)
        if done[:1] != [SURVIVED]:
            raise LabError(f"the solution of {id} does not pass its check: it is {(done or ['killed'])[0]}")
        told |= dict(zip(left, done[1:], strict=False))
        if ending is not None:
            told[list(left)[len(done) - 1]] = LATE if ending in (0, -signal.SIGPROF) else RAISED
    return told


def _tried(id: str, solution: Callable, answers: dict[str, Callable[[], Any]]) -> Iterator[str]:
    """The outcomes of the solution and of answers, one after another, until one spoils what the check is made of.

    The process is killed where an answer takes too long: SIGPROF does that by itself.
    """
    most = Limits().memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    exercise, started = exercise_of(id), time.process_time()
    clean = _state(exercise)
    yield first_failing(exercise, solution)[1]
    seconds = max(LEAST_SECONDS, SLOWER * (time.process_time() - started))
    for make in answers.values():
        signal.setitimer(signal.ITIMER_PROF, seconds)
        _, outcome = first_failing(exercise, make())
        signal.setitimer(signal.ITIMER_PROF, 0)
        yield outcome
        if _state(exercise) != clean:
            return


def _state(exercise: Exercise) -> str:
    """What an exercise's module of checks holds: its numbers, and how often its tensors were written into."""
    module = vars(importlib.import_module(exercise.properties[0].function.__module__))
    return repr([_held(value) for name, value in module.items() if name.lstrip("_").isupper()])


def _held(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return id(value), value._version, value.requires_grad, value.grad is None
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: _held(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_held(part) for part in value]
    return value if isinstance(value, int | float | str) else id(value)


def first_failing(exercise: Exercise, function: Callable) -> tuple[str, str]:
    """The first property of an exercise that does not hold of a function, and whether it refused it or it raised."""
    for property in exercise.properties:
        try:
            with seeded():
                property.function(function)
        except AssertionError:
            return property.name, REFUSED
        except Exception:
            return property.name, RAISED
    return "", SURVIVED


def _all_said(id: str, answers: dict[str, Callable], repeats: int) -> Iterator[dict[str, tuple[str, str]]]:
    """What the check says of each answer, again and again, with other states of the global random sources each time."""
    exercise = exercise_of(id)
    for again in range(repeats):
        random.seed(again)
        np.random.seed(again)
        torch.manual_seed(again)
        yield {name: first_failing(exercise, function) for name, function in answers.items()}
