"""Every attack scores nothing, harms nothing, and ends in time."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from corpus import ATTACKS, PROBES, TRICKS

import pixelpolicy
from pixelpolicy.course.exercises import exercises_of
from pixelpolicy.course.grading import BACKENDS, Limits, sandbox
from pixelpolicy.course.grading.backends import docker, view
from pixelpolicy.course.grading.examine import examine_piece
from pixelpolicy.course.grading.submissions import Piece

sys.path.append(str(Path(__file__).parents[1] / "course"))
from forked import start_forked  # noqa: E402

LIMITS = Limits(seconds=5, cpu_seconds=1, memory_mb=1024)
PATIENT = Limits(memory_mb=1024)  # for an answer that is to pass on a busy machine, and the first to load torch
ENDING = 5.0  # seconds beyond its limit in which a process is ended and its checks are done with it, on a busy machine
CONTAINERS = f"pixelpolicy-attack-{os.getpid()}-"
SECRET, MARK = b"a secret of the tests", "not to be read"
RIGHT = """out = torch.zeros_like(rewards)
for g in groups.unique():
    mine = rewards[groups == g]
    out[groups == g] = (mine - mine.mean()) / (mine.std(correction=0) + 1e-4)
return out"""


@pytest.fixture(params=["bubblewrap", "docker"])
def backend(request):
    """What shuts an answer in, where this machine has it.

    Under CI=true bubblewrap must be installed; a machine whose kernel forbids what it does still cannot show anything.
    """
    name = request.param
    missing = name == "bubblewrap" and shutil.which("bwrap") is None and os.environ.get("CI") == "true"
    if not missing and (why := BACKENDS[name].unavailable()):
        pytest.skip(f"nothing can be shut in: {why}")
    return name


def graded(body, cache, limits=LIMITS, backend="bubblewrap"):
    places = {"FOLDER": cache, "SOURCES": Path(pixelpolicy.__file__).parent, "GRADER": os.getpid()}
    for name, place in places.items():
        body = body.replace(name, str(place))
    text = "def group_advantages(rewards, groups):\n" + "\n".join("    " + line for line in body.splitlines())
    piece = Piece("group_advantages", ("import torch", text), (True, False), text)
    return examine_piece(piece, 12, "12.1", SECRET, cache, limits=limits, backend=backend)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grading")
    (folder / "anna").mkdir()
    for name in ("secret.key", "grades.csv", "anna/12-grpo.ipynb"):
        (folder / name).write_text(MARK)
    return folder


@pytest.fixture
def not_shut_in(monkeypatch):
    """Answers run in processes forked from this one."""
    monkeypatch.setenv("PIXELPOLICY_MARK", MARK)
    monkeypatch.setattr(sandbox, "backend_of", lambda name: None)
    monkeypatch.setattr(sandbox.Answer, "_start", start_forked)


@pytest.fixture
def holds(cache, monkeypatch):
    """Grade an attack, and see that it earned nothing, reached nothing, changed nothing and left nothing behind."""
    monkeypatch.setenv("PIXELPOLICY_MARK", MARK)
    named = itertools.count()
    monkeypatch.setattr(docker, "_name", lambda: f"{CONTAINERS}{next(named)}")

    def holds(body, limits=LIMITS, backend="bubblewrap"):
        verdict = graded(body, cache, limits, backend)
        if verdict.state != "forbidden":  # which is seen before anything runs
            assert verdict.own_seconds is not None, f"it never ran, which shows nothing: {verdict.explained}"
            assert verdict.own_seconds < limits.seconds + ENDING
        assert verdict.share == 0, verdict
        said = " ".join(verdict.explained)
        assert said and "reached" not in said and MARK not in said
        said.encode("utf-8")
        for name in ("secret.key", "grades.csv", "anna/12-grpo.ipynb"):
            assert (cache / name).read_text() == MARK
        children = psutil.Process().children(recursive=True)
        assert not [p for p in children if "child.py" in " ".join(p.cmdline())]
        assert backend != "docker" or containers() == []
        return verdict

    return holds


def containers():
    """Those of this process: others may be at work beside it."""
    words = ["docker", "ps", "--all", "--quiet", "--filter", f"name={CONTAINERS}"]
    return subprocess.run(words, capture_output=True, check=True).stdout.split()


def test_an_honest_answer_passes(cache, backend):
    assert graded(RIGHT, cache, PATIENT, backend).state == "passed"


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_scores_nothing(name, holds, backend):
    holds(ATTACKS[name], backend=backend)


@pytest.mark.parametrize("name", TRICKS)
def test_trick_scores_nothing(name, holds, not_shut_in):
    holds(TRICKS[name])


def test_probes_reach_nothing(holds, backend):
    """All in one process: what the sandbox costs is its start."""
    lines = ["reached = []"]
    for number, (name, body) in enumerate(PROBES.items()):
        lines += [f"def probe_{number}():", *("    " + line for line in body.splitlines())]
        lines += [
            f"try: probe_{number}()",
            f"except BaseException as e: 'reached' in str(e) and reached.append({name!r})",
        ]
    verdict = holds(
        "\n".join([*lines, "if reached: raise ValueError(f'reached {reached}')", "return rewards"]), PATIENT, backend
    )
    assert verdict.state == "failed" and "came out" in " ".join(verdict.explained)


@pytest.mark.parametrize("name", PROBES)
def test_the_same_probe_reaches_where_nothing_is_shut_in(name, cache, not_shut_in):
    """Else it would prove nothing of the sandbox that it does not there."""
    try:
        verdict = graded(PROBES[name], cache, PATIENT)
    finally:
        (cache / "grades.csv").write_text(MARK)
    assert "reached" in " ".join(verdict.explained), verdict


def test_answers_learnt_by_heart_score_nothing(holds, not_shut_in):
    known = {}

    def listening(rewards, groups):
        known[tuple(rewards.tolist()), tuple(groups.tolist())] = exercise.answer()(rewards, groups).tolist()
        return exercise.answer()(rewards, groups)

    exercise = exercises_of(12)["12.1"]
    for property in exercise.properties:
        property.function(listening)
    table = f"known = {known!r}\n"
    body = table + "return torch.tensor(known[tuple(rewards.tolist()), tuple(groups.tolist())]).to(rewards)"
    verdict = holds(body, PATIENT)
    assert verdict.state == "memorised"


def test_a_sandbox_that_does_not_start_is_told_from_one_that_holds(cache, backend, monkeypatch):
    monkeypatch.setitem(view.ENVIRONMENT, "PYTHONHOME", "/nowhere")
    verdict = graded(RIGHT, cache, PATIENT, backend)
    assert verdict.state == "ungraded" and verdict.own_seconds is None and "did not come up" in verdict.explained[0]
