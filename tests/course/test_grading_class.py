"""A class graded: every notebook gets its paper, whatever breaks; killed and run again, nothing is done twice."""

import csv
import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess

import nbformat
import pytest
from forked import start_forked
from typer.testing import CliRunner

from pixelpolicy.cli import app
from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.grading import BACKENDS, Limits, read_secret, sandbox, varied
from pixelpolicy.course.source import find_source, read_source
from pixelpolicy.errors import GradingError

grading = importlib.import_module("pixelpolicy.course.grading.grade")  # the package has a function of that name
SECRET = b"a secret of the tests"
LIMITS = Limits(seconds=180, cpu_seconds=2)  # CPU time is what ends a loop: wall time is the machine's
CENTRED = "def centred(rewards, groups):\n    "
BY_HAND = "torch.stack([r - rewards[groups == g].mean() for r, g in zip(rewards, groups)])"
MISSING = shutil.which("bwrap") is None and os.environ.get("CI") == "true"
WHY = BACKENDS["bubblewrap"].unavailable()
shut_in = pytest.mark.skipif(bool(WHY) and not MISSING, reason=f"nothing can be shut in: {WHY}")


@pytest.fixture
def folder(course, tmp_path):
    """Where notebooks are handed in: `hand_in("anna", "99.1"=text)`, a solved one with these cells in their place."""
    source = read_source(find_source(course, 99))

    def hand_in(student, cells=None, *, answers=True):
        notebook = lab_notebook(source, answers=answers)
        for cell in notebook.cells:
            mark = cell.metadata.get("pixelpolicy", {})
            if mark.get("role") == "exercise":
                cell.source = (cells or {}).get(mark["id"], cell.source)
        path = tmp_path / "class" / student / "99-means.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(nbformat.writes(notebook), encoding="utf-8")
        return path

    return hand_in


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Grade the class in this process, each answer in a forked one; `run.made` holds the keys of the verdicts made."""
    monkeypatch.setattr(sandbox.Answer, "_start", start_forked)
    for module in (sandbox, grading):
        monkeypatch.setattr(module, "backend_of", lambda name: None)

    def serial(items, work, jobs, dask):
        for item in items:
            run.made.append(item[0])
            yield work(item)

    monkeypatch.setattr(grading, "_parallel", serial)

    def run(out="out", **more):
        settings = {"labs": [99], "secret": SECRET, "limits": LIMITS, "show": False, **more}
        return grading.grade(tmp_path / "class", tmp_path / out, **settings)

    run.made = []
    return run


def told(grades):
    return {p.student: {id: (v.state, round(v.share, 3)) for id, v in p.verdicts.items()} for p in grades.papers}


def test_whatever_breaks_every_notebook_gets_its_paper(folder, run, tmp_path):
    folder("solved")
    folder("blank", answers=False)
    folder("sign", {"99.1": CENTRED + f"return -{BY_HAND}"})
    folder("detached", {"99.1": CENTRED + f"return rewards - (rewards - {BY_HAND}).detach()"})
    folder("no python", {"99.1": "def centred(:"})
    folder("no such name", {"99.1": CENTRED + "return nothing"})
    folder("raises", {"99.1": CENTRED + "raise ValueError('\\ud800\\u202e <b>')"})
    folder("runs on", {"99.1": CENTRED + "while True: pass"})
    folder("leaves", {"99.1": CENTRED + "import os; os._exit(0)"})
    folder("forbidden", {"99.2": "from torch.nn.functional import mse_loss\nsquared_error = mse_loss"})
    folder("not json").write_text("{")
    folder("not text").write_bytes(b"\xff\xfe")
    os.makedirs(tmp_path / "class/folder/99-means.ipynb")
    (tmp_path / "class/link").symlink_to(tmp_path / "class/solved")
    grades = run()
    states = told(grades)
    assert set(states) == {p.name for p in (tmp_path / "class").iterdir()} - {"link"}
    passed, lost = ("passed", 1.0), ("missing", 0.0)
    assert states.pop("solved") == {"99.1": passed, "99.2": passed}
    assert states.pop("blank") == {"99.1": ("blank", 0.0), "99.2": ("blank", 0.0)}
    assert states.pop("forbidden") == {"99.1": passed, "99.2": ("forbidden", 0.0)}
    for name in ("not json", "not text", "folder"):
        assert states.pop(name) == {"99.1": lost, "99.2": lost} and grades.paper(name, 99).fault
    assert {state["99.2"] for state in states.values()} == {passed}
    assert {name: state["99.1"][0] for name, state in states.items()} == {
        "sign": "failed", "detached": "partial", "no python": "missing", "no such name": "failed",
        "raises": "failed", "runs on": "stopped", "leaves": "stopped",
    }  # fmt: skip
    part = grades.paper("detached", 99).verdicts["99.1"]
    assert list(part.held.values()) == [True, True, False] and part.share == pytest.approx(2 / 3)
    assert part.mistake == "detached" and "cut off from the gradient" in part.hint
    assert grades.paper("sign", 99).verdicts["99.1"].mistake == "sign"
    assert "NameError" in grades.paper("no such name", 99).verdicts["99.1"].explained[0]
    assert grades.paper("raises", 99).verdicts["99.1"].explained == ["ValueError:    <b>"]
    assert grades.paper("runs on", 99).verdicts["99.1"].own_seconds < LIMITS.seconds + 5


def test_answers_learnt_by_heart_are_known_for_it(folder, run):
    known = "{(1., 2., 6., 10., 20.): {(0, 0, 0, 1, 1): [-2., -1., 3., -5., 5.], (1, 0, 1, 0, 0): "
    known += "[-2.5, -26 / 3, 2.5, -2 / 3, 28 / 3]}}"
    folder("anna", {"99.1": CENTRED + f"return torch.tensor({known}[tuple(rewards.tolist())][tuple(groups.tolist())])"})
    verdict = run().paper("anna", 99).verdicts["99.1"]
    assert (verdict.state, verdict.share) == ("memorised", 0) and "no others" in verdict.explained[0]


def test_no_answer_can_carry_hidden_inputs_out(folder, run):
    """What it is told it may repeat in the text of an error, in a shape, in the kind of a message, and never to us."""
    module = varied._varied_module(99, SECRET)
    hidden = {f"{x:.4f}" for x in module.REWARDS.tolist()} - {"1.0000"}
    keep = "seen = []\ndef centred(rewards, groups):\n    seen.append(' '.join(f'{x:.4f}' for x in rewards.tolist()))\n"
    for number, leak in enumerate((
        "raise AssertionError(seen)", f"return {BY_HAND} if len(seen) < 9 else seen",
        f"if len(seen) > 4: raise ValueError(seen)\n    return {BY_HAND}",
        f"if len(seen) > 4: raise type(str(seen), (Exception,), {{}})\n    return {BY_HAND}",
        f"if len(seen) > 1: raise ValueError(seen)\n    return -{BY_HAND}",
    )):  # fmt: skip
        folder(f"student {number}", {"99.1": keep + "    " + leak})
    seen = json.dumps([verdict.as_json() for paper in run().papers for verdict in paper.verdicts.values()])
    assert "20.0000" in seen  # what is known may be told
    assert not [number for number in hidden if number in seen]


def test_a_name_from_another_cell_is_taken_along_and_a_side_effect_is_not(folder, run, tmp_path):
    mark = tmp_path / "side effect"
    folder("anna", {"99.1": f"open({str(mark)!r}, 'w').close()\nHALF = 0.5\n{CENTRED}return {BY_HAND} * 2 * HALF"})
    assert told(run())["anna"]["99.1"] == ("passed", 1.0) and not mark.exists()


def test_killed_in_the_middle_and_run_again(folder, run, tmp_path):
    for number in range(4):
        folder(f"student {number}", {"99.1": CENTRED + f"return {BY_HAND} * {number}"})
    whole = run("whole")
    made, run.made = run.made, []
    assert len(made) == len(set(made)) == 5  # 99.2 is the same of all, and graded once
    process = os.fork()
    if process == 0:  # dies at its fourth verdict, in the middle of it
        write, done = grading.write_json, []
        try:
            grading.write_json = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if len(done) == 3 else (
                done.append(1), write(*a))  # fmt: skip
            run()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    there = {path.stem for path in (tmp_path / "out/verdicts").glob("*.json")}
    assert len(there) == 3
    again = run()
    assert sorted(run.made) == sorted(set(made) - there)
    assert told(again) == told(whole)
    run.made = []
    assert told(run()) == told(whole) and not run.made


def test_only_what_changed_is_graded_anew(folder, run, tmp_path):
    folder("anna")
    run()
    first, run.made = set(run.made), []
    folder("anna", {"99.1": CENTRED + f"return {BY_HAND}"})
    run()
    assert len(run.made) == 1
    for more in ({"secret": b"another secret of the tests"}, {"limits": dataclasses.replace(LIMITS, seconds=9)},
                 {"backend": "unsafe"}):  # fmt: skip
        run.made = []
        run(**more)
        assert len(run.made) == 2 and not first & set(run.made), more
    run.made = []
    for number, path in enumerate((tmp_path / "out/verdicts").glob("*.json")):
        path.write_text(["", "{", "[]", '{"a": 1}'][number % 4])
    assert told(run())["anna"]["99.1"] == ("passed", 1.0) and len(run.made) == 2


def test_what_the_grader_fails_at_is_told_and_tried_again(folder, run, monkeypatch):
    folder("anna")

    def fails(self, there):
        there.close()
        raise OSError("no memory is left")

    with monkeypatch.context() as patched:
        patched.setattr(sandbox.Answer, "_start", fails)
        grades = run()
    assert told(grades)["anna"] == {"99.1": ("ungraded", 0.0), "99.2": ("ungraded", 0.0)}
    assert len(grades.notes) == 2 and "no memory is left" in grades.notes[0] and "anna" in grades.notes[0]
    verdict = grades.paper("anna", 99).verdicts["99.1"]
    assert verdict.own_seconds is None
    assert told(run())["anna"]["99.1"] == ("passed", 1.0)


def test_a_worker_that_dies_costs_its_own_exercise_alone(folder, run, monkeypatch):
    for number in (1, 2):
        folder(f"student {number}", {"99.1": CENTRED + f"return {BY_HAND} * {number}"})
    serial = grading._parallel

    def dies(items, work, jobs, dask):
        for item in items:
            if "* 2" in item[1].own:
                raise RuntimeError("a worker was killed")
            yield from serial([item], work, jobs, dask)

    monkeypatch.setattr(grading, "_parallel", dies)
    states = told(run())
    assert states["student 1"] == {"99.1": ("passed", 1.0), "99.2": ("passed", 1.0)}
    assert states["student 2"] == {"99.1": ("ungraded", 0.0), "99.2": ("passed", 1.0)}


# What cannot be shut in is not run ---------------------------------------------------------------------------------


@pytest.fixture
def with_nothing(monkeypatch):
    """Neither bubblewrap nor Docker is there."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name in ("bubblewrap", "docker"):
        BACKENDS[name].unavailable.cache_clear()
    yield
    for name in ("bubblewrap", "docker"):
        BACKENDS[name].unavailable.cache_clear()


@pytest.mark.parametrize("backend, package", [("bubblewrap", "bubblewrap"), ("docker", "docker.io")])
def test_where_nothing_shuts_it_in_nothing_is_run(folder, tmp_path, with_nothing, monkeypatch, backend, package):
    folder("anna")
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("something was run"))
    with pytest.raises(GradingError, match=f"apt install {package}.*--unsafe"):
        grading.grade(tmp_path / "class", tmp_path / "out", labs=[99], secret=SECRET, show=False, backend=backend)
    with pytest.raises(GradingError, match="--unsafe"):
        sandbox.Answer("f", [], [], tmp_path, backend=backend)
    done = CliRunner().invoke(app, ["grade", str(tmp_path / "class"), "--out", str(tmp_path / "out"), "--labs", "99",
                                    "--backend", backend])  # fmt: skip
    assert done.exit_code != 0 and not (tmp_path / "out/grades.csv").exists()


def test_a_backend_that_there_is_not(folder, tmp_path):
    folder("anna")
    with pytest.raises(GradingError, match="no backend 'podman': bubblewrap, docker"):
        grading.grade(tmp_path / "class", tmp_path / "out", labs=[99], secret=SECRET, show=False, backend="podman")


def test_with_unsafe_it_is_run_all_the_same(folder, tmp_path, with_nothing, monkeypatch):
    folder("anna")
    monkeypatch.setattr(sandbox.Answer, "_start", start_forked)
    monkeypatch.setattr(grading, "_parallel", lambda items, work, jobs, dask: map(work, items))
    arguments = ["grade", str(tmp_path / "class"), "--out", str(tmp_path / "out"), "--labs", "99", "--unsafe"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "with your own rights" in done.output and "2 exercises graded" in done.output


def test_there_must_be_something_to_grade(run, tmp_path):
    with pytest.raises(GradingError, match="no folder"):
        run()
    (tmp_path / "class").mkdir()
    with pytest.raises(GradingError, match="no notebook of lab 99"):
        run()


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "deep/secret.key"
    secret = read_secret(path)
    assert len(secret) >= 32 and read_secret(path) == secret and path.stat().st_mode & 0o077 == 0
    path.write_text("short\n")
    with pytest.raises(GradingError, match="5 bytes"):
        read_secret(path)
    with pytest.raises(GradingError, match="cannot be used"):
        read_secret(tmp_path)


def test_the_library_that_answers_get_lacks_the_course_and_what_is_forbidden(tmp_path):
    place = sandbox.library_without(("pixelpolicy.rl.ppo_loss", "torch.nn"), tmp_path)
    there = {path.relative_to(place).as_posix() for path in place.rglob("*.py")}
    assert "pixelpolicy/errors.py" in there and "pixelpolicy/worlds/__init__.py" in there
    assert not [name for name in there if name.startswith(("pixelpolicy/course", "pixelpolicy/book"))]
    assert sandbox.library_without(("torch.nn", "pixelpolicy.rl.ppo_loss"), tmp_path) == place
    assert sandbox.library_without((), tmp_path) != place
    without = sandbox.library_without(("pixelpolicy.rl",), tmp_path)
    assert not (without / "pixelpolicy/rl").exists() and not (without / "pixelpolicy/rl.py").exists()


# With everything that there is -------------------------------------------------------------------------------------


def graded_by_command(folder, tmp_path, out, *more):
    folder("anna", {"99.2": CENTRED})
    folder("ben", {"99.1": CENTRED + f"return -{BY_HAND}", "99.2": CENTRED})
    arguments = ["grade", str(tmp_path / "class"), "--out", str(tmp_path / out), "--labs", "99", "--jobs", "2", *more]
    (tmp_path / "secret").write_bytes(SECRET)
    done = CliRunner().invoke(app, [*arguments, "--secret", str(tmp_path / "secret")])
    assert done.exit_code == 0, done.output
    with (tmp_path / out / "grades.csv").open(encoding="utf-8", newline="") as file:
        return done.output, list(csv.reader(file))


GRADES = [["anna", "2", "0", "2", "2", "3.5", ""], ["ben", "0", "0", "0", "0", "3.5", ""]]


@shut_in
def test_the_command_grades_shut_in_and_writes_it_all(folder, tmp_path):
    said, rows = graded_by_command(folder, tmp_path, "out")
    assert rows[1:] == GRADES and "2 students, 2 notebooks: 4 exercises graded" in said
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert {"grades.csv", "canvas.csv", "moodle-99.csv", "report/index.html", "feedback/ben/99-means.md",
            "feedback/ben/99-means.html"} <= there  # fmt: skip
    assert "The sign is turned" in (tmp_path / "out/feedback/ben/99-means.md").read_text()
    kept = [json.loads(path.read_text()) for path in (tmp_path / "out/verdicts").glob("*.json")]
    assert {verdict["state"] for verdict in kept} == {"passed", "failed", "missing"}


@shut_in
@pytest.mark.slow
def test_a_cluster_gives_the_grades_that_processes_give(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        _, rows = graded_by_command(folder, tmp_path, "out", "--dask", cluster.scheduler_address)
    assert rows[1:] == GRADES
