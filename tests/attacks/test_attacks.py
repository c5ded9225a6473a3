"""Every attack scores nothing, harms nothing, and ends in time."""

import os
import shutil
import time

import psutil
import pytest
from corpus import ATTACKS

from pixelpolicy.course.grading import Limits, unavailable
from pixelpolicy.course.grading.examine import examine_piece
from pixelpolicy.course.grading.sandbox import STARTING
from pixelpolicy.course.grading.submissions import Piece

# Under CI=true bubblewrap must be there; a machine whose kernel forbids what it does still cannot show anything.
MISSING = shutil.which("bwrap") is None and os.environ.get("CI") == "true"
pytestmark = pytest.mark.skipif(bool(unavailable()) and not MISSING, reason=f"nothing can be shut in: {unavailable()}")
LIMITS = Limits(seconds=5, cpu_seconds=1, memory_mb=1024)
PATIENT = Limits(memory_mb=1024)  # for an answer that is to pass on a busy machine, and the first to load torch
RIGHT = """out = torch.zeros_like(rewards)
for g in groups.unique():
    mine = rewards[groups == g]
    out[groups == g] = (mine - mine.mean()) / (mine.std(correction=0) + 1e-4)
return out"""


def graded(body, cache, limits=LIMITS):
    text = "def group_advantages(rewards, groups):\n" + "\n".join("    " + line for line in body.splitlines())
    piece = Piece("group_advantages", ("import torch", text), (True, False), text)
    return examine_piece(piece, 12, "12.1", b"a secret of the tests", cache, limits=limits)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grading")
    (folder / "secret.key").write_text("not to be read")
    return folder


def test_an_honest_answer_passes(cache):
    assert graded(RIGHT, cache, PATIENT).state == "passed"


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_scores_nothing(name, cache):
    started = time.monotonic()
    verdict = graded(ATTACKS[name], cache)
    assert verdict.share == 0, verdict
    assert verdict.explained
    assert time.monotonic() - started < LIMITS.seconds + STARTING, "it cost more than its limit and a process's start"
    assert (cache / "secret.key").read_text() == "not to be read"
    left = [p for p in psutil.Process().children(recursive=True) if "child.py" in " ".join(p.cmdline())]
    assert not left
