"""The capstone: improve a generator for a gold reward that you may not call, only ask, a limited number of times.

A query tells the gold score of weights on some prompts; a submission tells it on others, and enters the leaderboard.
Both stand in one ledger, a JSON file that is written whole or not at all, and an answer is told only once it is written
down. All of it runs on the student's own machine, so nothing is secret: who reads this file knows the gold reward, and
who deletes the ledger has a new budget. The budget is a rule, not a lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.errors import CheckpointError, LabError
from pixelpolicy.generators.checkpoint import apply_difference, fingerprint, load
from pixelpolicy.generators.flow import FlowGenerator

BUDGET = 20
BASE = "shapes"
PER_KIND = {"query": 64, "submission": 256}
SPLIT = {"query": "validation", "submission": "test"}


@dataclass(frozen=True)
class Scores:
    """What gold says of a generator: the dense verifier's mean and its standard error; the strict accuracy and the
    diversity stand beside it and decide nothing."""

    gold: float
    gold_se: float
    accuracy: float
    diversity: float


@dataclass(frozen=True)
class Entry:
    """A query or a submission in the ledger. `weights` is the check sum of what was scored; `asked` how many answers
    had been paid for by then."""

    kind: str
    name: str
    weights: str
    scores: Scores
    asked: int
    when: str


@dataclass
class Ledger:
    """What was asked and told so far. `score` says what gold thinks of a generator on a split with so many pairs."""

    path: Path
    budget: int = BUDGET
    per_kind: dict[str, int] = field(default_factory=lambda: dict(PER_KIND))
    base: Callable[[], FlowGenerator] = lambda: load(BASE)
    entries: list[Entry] = field(default_factory=list)

    @property
    def spent(self) -> int:
        """Queries, and submissions after the first: each of these told a gold score."""
        queries = sum(entry.kind == "query" for entry in self.entries)
        return queries + max(sum(entry.kind == "submission" for entry in self.entries) - 1, 0)

    @property
    def left(self) -> int:
        return max(self.budget - self.spent, 0)

    def query(self, weights: Path | FlowGenerator, name: str = "") -> Entry:
        """What gold says of weights, for one of the budget; of weights that were asked about before, for nothing.

        Raises `LabError` where the budget is spent, `CheckpointError` for weights that are missing, altered or of
        another base. Nothing is charged then.
        """
        return self._ask("query", weights, name)

    def submit(self, weights: Path | FlowGenerator, name: str) -> Entry:
        """Enter weights into the leaderboard. The first submission is free; later ones cost a query each."""
        if not name.strip():
            raise LabError("a submission has no name; give one, such as --name braked-draft")
        return self._ask("submission", weights, name)

    def leaderboard(self) -> list[Entry]:
        """The submissions, best gold first."""
        return sorted((e for e in self.entries if e.kind == "submission"), key=lambda e: -e.scores.gold)

    def _ask(self, kind: str, weights: Path | FlowGenerator, name: str) -> Entry:
        generator = self._generator(weights)
        digest = check_sum(generator)
        for entry in self.entries:
            if (entry.kind, entry.weights) == (kind, digest):
                return entry
        costs = kind == "query" or any(entry.kind == kind for entry in self.entries)
        if costs and not self.left:
            hint = "" if self.leaderboard() else "; your first submission is still free"
            raise LabError(f"all {self.budget} gold queries of {self.path} are spent: nothing was scored{hint}")
        scores = score(generator, SPLIT[kind], self.per_kind[kind])
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        entry = Entry(kind, name, digest, scores, self.spent + costs, now)
        self._write([*self.entries, entry])  # a full disk raises here, and then nothing is told
        self.entries.append(entry)
        return entry

    def _generator(self, weights: Path | FlowGenerator) -> FlowGenerator:
        base = self.base()
        if isinstance(weights, FlowGenerator):
            generator, where = weights, "the generator given"
        else:
            path = where = Path(weights).absolute()
            if not path.exists():
                raise CheckpointError(
                    f"there are no weights {path}. Write them with "
                    f"save_weights(difference(student.transformer.state_dict(), base.transformer.state_dict()), path, "
                    f"base=base), or a whole generator with checkpoint.save"
                )
            generator = load(path) if path.is_dir() else apply_difference(base, path)
        if fingerprint(generator) != fingerprint(base) or _shapes(generator) != _shapes(base):
            raise CheckpointError(
                f"{where} does not come of the base '{BASE}': only its transformer may be trained, in its own shape. "
                f"Begin from load('{BASE}')"
            )
        if not all(value.isfinite().all() for value in generator.transformer.state_dict().values()):
            raise CheckpointError(
                f"the weights of {where} are not all finite: the training diverged. Take earlier ones"
            )
        return generator

    def _write(self, entries: list[Entry]) -> None:
        write_json(self.path, {"format": 1, "budget": self.budget, "entries": [asdict(entry) for entry in entries]})


def open_ledger(path: Path | None = None, **settings: Any) -> Ledger:
    """The ledger of a file, `work/capstone.json` of the course unless given; a fresh one where there is none.

    Raises `LabError` where the file is no ledger; it is left as it is.
    """
    path = path or course_root() / "work" / "capstone.json"
    ledger = Ledger(path, **settings)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        entries = [Entry(**{**one, "scores": Scores(**one["scores"])}) for one in held["entries"]]
        if held["format"] != 1 or any(entry.kind not in PER_KIND for entry in entries):
            raise ValueError("it is of another format")
        ledger.budget, ledger.entries = int(held["budget"]), entries
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"the ledger {path} cannot be read ({error}). Restore it from a copy; to begin the capstone anew, with all "
            f"that was asked forgotten, move it away"
        ) from error
    return ledger


def score(generator: FlowGenerator, split: str, per_kind: int) -> Scores:
    """Gold, the dense verifier, on the fixed pairs of a split, with pictures of the plain ODE."""
    texts, seeds = generator.world.evaluation_pairs(split, per_kind)
    pictures: Tensor = generator.generate(texts, seeds)
    pictures = pictures.cpu().numpy()
    verdicts = generator.world.verify(pictures, texts)
    gold = np.array([verdict.dense for verdict in verdicts])
    spread = generator.world.diversity(verdicts, texts)
    return Scores(
        gold=float(gold.mean()),
        gold_se=float(gold.std() / np.sqrt(len(gold))),
        accuracy=float(np.mean([verdict.strict for verdict in verdicts])),
        diversity=float(np.nan_to_num(spread)),
    )


def check_sum(generator: FlowGenerator) -> str:
    """SHA-256 of a transformer's weights in float16, the same before saving and after loading."""
    digest = hashlib.sha256()
    for name, value in sorted(generator.transformer.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _shapes(generator: FlowGenerator) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in generator.transformer.state_dict().items()}
