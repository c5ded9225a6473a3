"""Grading a class: every exercise of every notebook by itself, in parallel, kept as it is done, and then summed up."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.exercises import exercises_of
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.grading.backends import backend_of
from pixelpolicy.course.grading.examine import Verdict, examine_piece
from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.grading.sandbox import version
from pixelpolicy.course.grading.submissions import Piece, Submission, find_submissions, piece_of, read_notebook
from pixelpolicy.course.grading.visible import visible
from pixelpolicy.course.parallel import in_parallel
from pixelpolicy.course.source import Source, find_source, read_source
from pixelpolicy.errors import GradingError, PixelPolicyError

SHORTEST_SECRET = 16  # bytes


@dataclass
class Paper:
    """One student's notebook, graded: `code` is the student's own text of each exercise, by its id."""

    student: str
    lab: int
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def points(self) -> float:
        return sum(verdict.points for verdict in self.verdicts.values())


@dataclass
class Grades:
    """A class's grades: its papers, the labs' sources by number, and how much of it was there before."""

    papers: list[Paper]
    sources: dict[int, Source]
    notes: list[str]
    run: int = 0
    kept: int = 0

    def of(self, lab: int) -> float:
        """The points that a lab is worth."""
        return sum(task.points for task in self.sources[lab].tasks.values())

    def paper(self, student: str, lab: int) -> Paper | None:
        return next((p for p in self.papers if (p.student, p.lab) == (student, lab)), None)

    @property
    def students(self) -> list[str]:
        return sorted({paper.student for paper in self.papers}, key=str.casefold)


def read_secret(path: Path) -> bytes:
    """The instructor's secret from a file, which is made, readable by its owner alone, where there is none."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32) + "\n")
        secret = path.read_bytes().strip()
    except OSError as error:
        raise GradingError(f"the secret in {path} cannot be used: {error.strerror or error}") from error
    if len(secret) < SHORTEST_SECRET:
        raise GradingError(f"the secret in {path} has {len(secret)} bytes: write {SHORTEST_SECRET} or more, at random")
    return secret


def grade(
    submissions: Path,
    out: Path,
    *,
    labs: list[int],
    secret: bytes,
    jobs: int = 2,
    limits: Limits | None = None,
    backend: str = "bubblewrap",
    dask: str | None = None,
    show: bool = True,
) -> Grades:
    """Grade every notebook in a folder; what was graded before with the same code, checks and secret is taken over.

    Each verdict is written to `out/verdicts/` as soon as it is there, but for those that the grader itself failed to
    make: a note tells of them, and the next run tries again. `dask` is the address of a cluster's scheduler;
    without it, `jobs` processes of this machine do the work. `backend` is what shuts answers in. Raises GradingError
    where there is nothing to grade or submissions cannot be shut in; a notebook that cannot be graded gets a paper that
    says why.
    """
    if dask is None:  # else it is the cluster's machines that must have it
        backend_of(backend)
    limits = limits or Limits()
    found, notes = find_submissions(submissions, labs)
    root = course_root()
    sources = {lab: read_source(find_source(root, lab)) for lab in sorted(set(labs))}
    released = {lab: lab_notebook(source) for lab, source in sources.items()}
    grades = Grades([], sources, notes)
    waiting: dict[str, tuple[Piece, int, str]] = {}
    wanted: dict[str, list[tuple[Paper, str]]] = {}
    for submission in tqdm(found, desc="reading", unit="notebook", disable=not show):
        paper = _read(submission, sources[submission.lab], released[submission.lab], grades)
        for id, piece in paper[1].items():
            key = _key(piece, submission.lab, id, secret, limits, backend)
            kept = _stored(out, key)
            if kept is not None:
                paper[0].verdicts[id] = kept
                grades.kept += 1
            elif key in wanted:
                wanted[key].append((paper[0], id))
            else:
                waiting[key], wanted[key] = (piece, submission.lab, id), [(paper[0], id)]
    work = functools.partial(_work, secret=secret, cache=out.resolve() / "cache", limits=limits, backend=backend)
    with tqdm(total=len(waiting), desc="grading", unit="exercise", disable=not show) as bar:
        for key, said in _all(waiting, work, jobs, dask):
            if said["state"] == "ungraded":  # not kept: the next run tries again
                names = ", ".join(f"{visible(paper.student)}, exercise {id}" for paper, id in wanted[key])
                grades.notes.append(f"{names}: not graded, run it again; {'; '.join(said['explained'])}")
            else:
                write_json(out / "verdicts" / f"{key}.json", said)
            for paper, id in wanted[key]:
                paper.verdicts[id] = Verdict(**said)
                grades.run += 1
            bar.update()
    for paper in grades.papers:  # in the order of the lab, whatever was done first
        paper.verdicts = {id: paper.verdicts[id] for id in sources[paper.lab].tasks}
    return grades


def _read(submission: Submission, source: Source, released: Any, grades: Grades) -> tuple[Paper, dict[str, Piece]]:
    paper = Paper(submission.student, submission.lab)
    grades.papers.append(paper)
    try:
        notebook = read_notebook(submission.path)
    except GradingError as error:
        paper.fault = str(error)
        for id, task in source.tasks.items():
            paper.verdicts[id] = Verdict(id, task.name, task.points, state="missing", explained=[paper.fault])
        return paper, {}
    pieces = {id: piece_of(notebook, released.cells, source, id) for id in source.tasks}
    paper.code = {id: piece.own for id, piece in pieces.items()}
    return paper, pieces


def _work(item: tuple[str, Piece, int, str], **settings: Any) -> tuple[str, dict[str, Any]]:
    """Grade one exercise in a worker; whatever goes wrong is a verdict."""
    import torch

    torch.set_num_threads(1)
    key, piece, lab, id = item
    try:
        return key, examine_piece(piece, lab, id, **settings).as_json()
    except GradingError:
        raise
    except Exception as error:
        return key, _ungraded(lab, id, f"the grader met {type(error).__name__}: {visible(str(error), 200)}")


def _ungraded(lab: int, id: str, why: str) -> dict[str, Any]:
    exercise = exercises_of(lab)[id]
    return Verdict(id, exercise.name, exercise.points, state="ungraded", explained=[why]).as_json()


def _all(
    waiting: dict[str, tuple[Piece, int, str]], work: Callable, jobs: int, dask: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The verdict on all that waits, each as soon as it is there; a worker that dies costs one exercise at most."""
    left = dict(waiting)
    try:
        for key, said in _parallel([(key, *item) for key, item in left.items()], work, jobs, dask):
            del left[key]
            yield key, said
    except PixelPolicyError:
        raise
    except Exception:  # a worker was killed: joblib gives up on all that it had in hand
        for key, item in list(left.items()):
            try:
                yield from _parallel([(key, *item)], work, 2, dask)
            except PixelPolicyError:
                raise
            except Exception as error:
                yield key, _ungraded(item[1], item[2], f"the process that graded it died ({type(error).__name__})")


def _parallel(items: list, work: Callable, jobs: int, dask: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    return in_parallel(work, items, workers=jobs, backend="dask" if dask else "loky", scheduler=dask)


def _stored(out: Path, key: str) -> Verdict | None:
    try:
        return Verdict(**json.loads((out / "verdicts" / f"{key}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _key(piece: Piece, lab: int, id: str, secret: bytes, limits: Limits, backend: str) -> str:
    """What a verdict follows from: code, exercise, course, limits, secret, and how the code was shut in."""
    parts = [
        piece.digest,
        piece.fault,
        piece.blank,
        lab,
        id,
        version(),
        json.dumps(dataclasses.asdict(limits)),
        backend,
    ]
    return hmac.new(secret, "\0".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()[:40]
