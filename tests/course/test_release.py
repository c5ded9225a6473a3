"""Assignments: whole or not at all, without answers, and of use by themselves; the same through nbgrader."""

import ast
import csv
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from typer.testing import CliRunner

from pixelpolicy.cli import app
from pixelpolicy.course import progress
from pixelpolicy.course import release as module
from pixelpolicy.course.build import lab_notebook, leaks
from pixelpolicy.course.checking import catch_up
from pixelpolicy.course.exercises import exercises_of
from pixelpolicy.course.files import course_root
from pixelpolicy.course.grading.submissions import find_submissions, piece_of, read_notebook
from pixelpolicy.course.nbgrading import earned, instructors_notebook
from pixelpolicy.course.opening import open_copy
from pixelpolicy.course.release import data_of, release
from pixelpolicy.course.results import source_of
from pixelpolicy.course.source import find_source, read_source, sources
from pixelpolicy.errors import LabError, ReleaseError

LAB = "99-means"


@pytest.fixture
def lab(course):
    return read_source(course / "solutions" / f"{LAB}.py")


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_assignment_is_whole_and_holds_no_answer(course, lab, tmp_path):
    made = release([99, 99], tmp_path / "made" / "out")
    files = files_of(made.folder)
    assert set(files) == {"README.md", "CHECKS.md", "assignment.json", f"labs/{LAB}.ipynb"}
    assert (made.labs, made.files, made.bytes) == ((LAB,), len(files), sum(map(len, files.values())))

    notebook = nbformat.reads(files[f"labs/{LAB}.ipynb"].decode(), as_version=4)
    assert leaks(lab, notebook) == []
    for answer in (line.strip() for line in lab.answers()):
        assert not any(answer.encode() in content for content in files.values()), answer

    told = json.loads(files["assignment.json"])
    assert set(told["files"]) == set(files) - {"assignment.json"}
    for name, sums in told["files"].items():
        assert sums == {"sha256": hashlib.sha256(files[name]).hexdigest(), "bytes": len(files[name])}
    assert [(x["name"], x["points"], x["minutes"]) for x in told["labs"]] == [(LAB, 3.5, 8)]

    readme, checks = files["README.md"].decode(), files["CHECKS.md"].decode()
    assert "| 99.1 | Centred rewards | `centred` | 2 of 4 | 5 | 2 |" in readme and "3.5 points" in readme
    for words in ("package `pixelpolicy`", f"work/{LAB}.ipynb", "What to hand in", "How it is graded", "lab 99"):
        assert words in readme
    assert all(f"- {p.name}" in checks for exercise in exercises_of(99).values() for p in exercise.properties)
    assert "`torch.nn.functional.mse_loss`" in checks

    again = release([99], tmp_path / "again")
    assert files_of(again.folder) == files, "the same bytes every time"


def test_an_assignment_is_a_course_of_its_own(course, tmp_path, monkeypatch):
    folder = release([99], tmp_path / "out").folder
    monkeypatch.delenv("PIXELPOLICY_ROOT")
    monkeypatch.delenv("PIXELPOLICY_PROGRESS")
    copy = folder / "work" / f"{LAB}.ipynb"
    monkeypatch.chdir(folder)
    assert open_copy(99) == copy and copy.is_file()
    monkeypatch.chdir(copy.parent)  # where its kernel runs
    assert course_root() == folder
    assert [row.id for row in progress.status()] == ["99.1", "99.2"]
    assert source_of(LAB) == folder / "labs" / f"{LAB}.ipynb", "the last cell of a lab keeps a record"


def test_data_is_what_labs_replay(root):
    needed = {}
    for path in sources(root):
        source = read_source(path, checks=False)
        needed[source.number] = {p.relative_to(root / "benchmarks").as_posix() for p in data_of(root, source)}
        for cell in source.cells:
            for node in ast.walk(ast.parse(cell.text)) if cell.kind == "code" and "recorded" in cell.text else ():
                # all that is asked of a record by a name written down
                if isinstance(node, ast.Call) and "recorded" in ast.unparse(node.func) and node.args:
                    name = getattr(node.args[0], "value", None)
                    if isinstance(name, str) and (root / "benchmarks" / f"{name}.json").exists():
                        assert f"{name}.json" in needed[source.number]
    assert needed[4] == set()
    assert needed[12] >= {"12-grpo-long.json", "12-grpo-long/seed-0.json", "12-grpo-long/seed-0.safetensors"}
    assert "12-grpo.json" not in needed[12] and "12-grpo-long.json" in needed[6]


def test_data_comes_along(course, tmp_path):
    text = (course / "solutions" / f"{LAB}.py").read_text()
    (course / "solutions" / f"{LAB}.py").write_text(text + '\n# %%\nLONG = "98-long"\n')
    (course / "benchmarks" / "98-long").mkdir(parents=True)
    (course / "benchmarks" / "98-long.json").write_text("[]")
    (course / "benchmarks" / "98-long" / "seed-0.safetensors").write_bytes(b"\0weights")
    (course / "benchmarks" / "97-other.json").write_text("[]")
    made = release([99], tmp_path / "out")
    assert (made.folder / "benchmarks/98-long/seed-0.safetensors").read_bytes() == b"\0weights"
    assert not (made.folder / "benchmarks/97-other.json").exists()


def test_what_stands_in_the_way_is_told_and_kept(course, tmp_path):
    with pytest.raises(LabError, match="no lab 44: the labs are 99-means"):
        release([99, 44], tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    with pytest.raises(ReleaseError, match="not empty, and nothing in it is replaced"):
        release([99], tmp_path / "used")
    with pytest.raises(ReleaseError, match="no folder"):
        release([99], tmp_path / "used" / "mine.txt")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ReleaseError, match="no folder"):
        release([99], tmp_path / "link")
    assert files_of(tmp_path / "used") == {"mine.txt": b"mine"} and not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert release([99], tmp_path / "empty").files == 4


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_nothing(course, tmp_path, monkeypatch, there):
    out = tmp_path / "place" / "out"
    if there:
        out.mkdir(parents=True)
    write, count = Path.write_bytes, iter(range(9))

    def full(path, content):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ReleaseError, match="No space left.*Nothing was left there"):
        release([99], out)
    assert list(out.parent.iterdir()) == ([out] if there else [])
    assert not there or not list(out.iterdir())


def test_an_answer_that_leaks_stops_it(course, tmp_path):
    path = course / "solutions" / f"{LAB}.py"
    path.write_text(path.read_text().replace("# A difference, a", "# `return (estimate - truth).square().mean()`: a"))
    for nbgrader in (False, True):
        with pytest.raises(LabError, match="give its answers away"):
            release([99], tmp_path / "out", nbgrader=nbgrader)
    assert not (tmp_path / "out").exists()


def test_the_command(course, tmp_path):
    done = CliRunner().invoke(app, ["release", "--labs", "99", "--out", str(tmp_path / "out")])
    said = done.output.replace("\n", "")
    assert done.exit_code == 0 and "99-means: 4 files" in said and "README.md" in said
    done = CliRunner().invoke(app, ["release", "--labs", "ninety", "--out", str(tmp_path / "other")])
    assert done.exit_code == 1 and "names no labs" in done.output


def test_the_address_of_the_course_is_told_where_it_has_one(course, tmp_path):
    (course / "pyproject.toml").write_text('[tool.pixelpolicy]\nrepository = "https://example.org/course"\n')
    readme = (release([99], tmp_path / "out").folder / "README.md").read_text()
    assert "pixelpolicy @ git+https://example.org/course" in readme and "WHERE" not in readme


DETACHED = """def centred(rewards, groups):
    means = torch.stack([rewards[groups == g].mean() for g in groups])
    return rewards - means.detach()
"""


def test_points_for_nbgrader(capsys):
    space = {"torch": torch, "sys": sys}
    exec(DETACHED.replace("    means =", "    print('a warning', file=sys.stderr)\n    means ="), space)
    assert earned("99.1", space["centred"]) == 1.3333, "two of three properties, of two points"
    held = capsys.readouterr()
    assert "2 of 3 properties hold" in held.out and "cut off from the gradient" in held.out and held.err == ""
    assert earned("99.1", exercises_of(99)["99.1"].answer()) == 0, "the course's own answer"
    assert earned("99.1", catch_up("99.1")) == 0
    assert earned("99.1", lambda *given: sys.exit(0)) == 0
    assert earned("99.1", None) == 0


def test_cells_are_as_nbgrader_wants_them(root):
    for number in (1, 12):
        source = read_source(find_source(root, number))
        cells = instructors_notebook(source).cells
        marked = {c.metadata.nbgrader.grade_id: c for c in cells if "nbgrader" in c.metadata}
        assert len(marked) == 3 * len(source.tasks)
        for id, task in source.tasks.items():
            number = id.replace(".", "-")
            answer, check, points = (marked[f"{kind}-{number}"] for kind in ("exercise", "check", "points"))
            kinds = [
                tuple(c.metadata.nbgrader[k] for k in ("solution", "locked", "grade")) for c in (answer, check, points)
            ]
            assert kinds == [(True, False, False), (False, True, False), (False, True, True)]
            assert points.metadata.nbgrader.points == task.points and "points" not in check.metadata.nbgrader
            assert all(c.metadata.nbgrader.schema_version == 3 for c in (answer, check, points))
            assert "### BEGIN SOLUTION" in answer.source and "### BEGIN HIDDEN TESTS" in points.source
        kept = [c.id for c in cells if not c.id.startswith("points-")]
        assert kept == [c.id for c in lab_notebook(source).cells]


def nbgrader(folder, *words):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic by name
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words], cwd=folder, capture_output=True, text=True, timeout=800,
        env=os.environ | {"HOME": str(folder.parent), "PATH": path, "PIXELPOLICY_ROOT": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason='nbgrader is not installed: pip install ".[nbgrader]"'
)
def test_nbgrader_hands_out_grades_and_tells(course, lab, tmp_path):
    folder = release([99], tmp_path / "class", nbgrader=True).folder
    nbgrader(folder, "generate_assignment", LAB)
    handed = folder / "release" / LAB
    released = nbformat.read(handed / f"{LAB}.ipynb", as_version=4)
    assert leaks(lab, released) == [] and "earned(" not in str(released.cells)
    assert {p.name for p in handed.iterdir()} == {f"{LAB}.ipynb", "README.md", "CHECKS.md", "assignment.json"}
    sums = json.loads((handed / "assignment.json").read_text())["files"]
    assert all(hashlib.sha256((handed / name).read_bytes()).hexdigest() == s["sha256"] for name, s in sums.items())

    given = {
        "solved": {id: task.solution for id, task in lab.tasks.items()}, "blank": {},
        "half": {"99.1": DETACHED, "99.2": "squared_error = catch_up('99.2')"},
    }  # fmt: skip
    for student, answers in given.items():
        notebook = nbformat.read(handed / f"{LAB}.ipynb", as_version=4)
        for cell in notebook.cells:
            ours = cell.metadata.get("pixelpolicy", {})
            if ours.get("role") == "exercise":
                cell.source = answers.get(ours["id"], cell.source)
        place = folder / "submitted" / student / LAB
        place.mkdir(parents=True)
        nbformat.write(notebook, place / f"{LAB}.ipynb")

    nbgrader(folder, "autograde", LAB)
    nbgrader(folder, "export", "--to", "grades.csv")
    rows = csv.DictReader((folder / "grades.csv").read_text().splitlines())
    scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in rows}
    assert scores == {"solved": (3.5, 3.5), "blank": (0, 3.5), "half": (1.3333, 3.5)}

    nbgrader(folder, "generate_feedback", LAB)
    page = (folder / "feedback" / "half" / LAB / f"{LAB}.html").read_text()
    assert "properties hold" in page
    assert module.ASSIGNMENT in {p.name for p in (folder / "autograded" / "half" / LAB).iterdir()}

    for place in (folder, folder / "autograded"):
        found, notes = find_submissions(place, [99])
        assert {(one.student, one.lab) for one in found} == {(student, 99) for student in given} and not notes
        for one in found:
            cells = read_notebook(one.path)
            pieces = {id: piece_of(cells, lab_notebook(lab).cells, lab, id) for id in lab.tasks}
            assert all(piece.code and not piece.fault for piece in pieces.values()) or one.student == "blank"
            assert all(not piece.fault for piece in pieces.values())
