"""Labs from solved labs: the same bytes every time, whole exercises only, and nothing of an answer left."""

import json
import re
import subprocess
import sys

import jupytext
import nbformat
import pytest

from pixelpolicy.course.build import build_labs, lab_notebook, lab_text, leaks
from pixelpolicy.course.checks import __path__ as CHECKS
from pixelpolicy.course.source import find_source, read_source, sources, stripped
from pixelpolicy.errors import LabError

MARK = '{"id": "99.1", "name": "centred", "title": "Centred rewards", "points": 2, "minutes": 5, "difficulty": 2, '


@pytest.fixture
def source(course):
    return read_source(course / "solutions" / "99-means.py")


def roles(notebook):
    return [cell.metadata.get("pixelpolicy", {}).get("role", cell.cell_type) for cell in notebook.cells]


def test_anatomy(source):
    notebook = lab_notebook(source)
    exercise = ["header", "exercise", "hints", "check", "catch-up"]
    assert roles(notebook) == ["markdown", "code", *exercise, *exercise, "code", "code"]
    assert "from pixelpolicy.course import catch_up, check\n" in notebook.cells[1].source
    header, code, hints, check, catch_up = notebook.cells[2:7]
    assert header.source.startswith("### Exercise 99.1: Centred rewards\n")
    assert "●●○○ (2 of 4) · about 5 minutes · 2 points" in header.source
    assert header.source.endswith("Take from every reward the mean of its own group.")
    assert code.source.endswith('from 0."""\n    raise NotImplementedError("Exercise 99.1: write centred")')
    assert hints.source.count("<details>") == 3
    assert check.source == 'check("99.1", centred)'
    assert catch_up.source.splitlines()[1] == '# centred = catch_up("99.1")'
    assert all(line.startswith("#") for line in catch_up.source.splitlines())


def test_nbgrader_metadata(source):
    _, code, _, check, _ = lab_notebook(source).cells[2:7]
    keys = {"schema_version", "grade", "solution", "locked", "task", "grade_id", "cell_type"}
    assert set(code.metadata.nbgrader) == keys and set(check.metadata.nbgrader) == keys | {"points"}
    assert (code.metadata.nbgrader.solution, code.metadata.nbgrader.grade, code.metadata.nbgrader.locked) == (1, 0, 0)
    assert (check.metadata.nbgrader.solution, check.metadata.nbgrader.grade, check.metadata.nbgrader.locked) == (
        0,
        1,
        1,
    )
    assert check.metadata.nbgrader.points == 2 and check.metadata.nbgrader.schema_version == 3
    ours = code.metadata.pixelpolicy
    assert (ours.id, ours.minutes, ours.difficulty, ours.forbidden) == ("99.1", 5, 2, [])


def test_same_bytes_in_another_process(source):
    code = f"""
from pathlib import Path
from pixelpolicy.course.build import lab_text
from pixelpolicy.course.source import read_source
import sys
sys.stdout.buffer.write(lab_text(read_source(Path({str(source.path)!r}))).encode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.stdout == lab_text(source).encode(), done.stderr


def test_is_a_valid_notebook_without_outputs_or_times(source):
    text = lab_text(source)
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_a_new_cell_leaves_the_ids_of_the_others_alone(source, course):
    before = [cell.id for cell in lab_notebook(source).cells]
    text = source.path.read_text().replace("# %%\nimport torch", "# %% [markdown]\n# More.\n\n# %%\nimport torch")
    source.path.write_text(text)
    after = [cell.id for cell in lab_notebook(read_source(source.path)).cells]
    assert [id for id in after if id in before] == before and len(after) == len(before) + 1


def test_marker_metadata_round_trips_through_jupytext(source):
    text = source.path.read_text()
    there = jupytext.writes(jupytext.reads(text, fmt="py:percent"), fmt="py:percent")
    marks = [line for line in text.splitlines() if line.startswith("# %% ")]
    assert [line for line in there.splitlines() if line.startswith("# %% ")] == marks


@pytest.mark.parametrize("indent", ["", "    ", "        "])
def test_stripped_keeps_the_indent(indent):
    text = f"a\n{indent}### BEGIN SOLUTION\n{indent}x = 1\n{indent}    y\n{indent}### END SOLUTION\nb"
    assert stripped(text, "1.1", "f") == f'a\n{indent}raise NotImplementedError("Exercise 1.1: write f")\nb'


def test_stripped_twice_in_a_cell():
    block = "### BEGIN SOLUTION\nx\n### END SOLUTION\n"
    assert stripped(block + block + "b", "1.1", "f").count("raise NotImplementedError") == 2


def test_leaks(source):
    assert leaks(source, lab_notebook(source)) == []
    found = leaks(source, lab_notebook(source, answers=True))
    assert len(found) == 5 and all(text.startswith("cell ") for text in found), found


@pytest.mark.parametrize("where", ["source", "outputs", "metadata"])
def test_leaks_wherever_they_stand(source, where):
    notebook = lab_notebook(source)
    line = "sizes=torch.bincount(groups,minlength = count)  # spaces do not hide it"
    if where == "source":
        notebook.cells[0].source += f"\n`{line}`"
    elif where == "outputs":
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text=line)]
    else:
        notebook.cells[1].metadata["note"] = line
    assert len(leaks(source, notebook)) == 1


def test_a_leak_stops_the_build(course):
    path = course / "solutions" / "99-means.py"
    path.write_text(path.read_text().replace("# The mean goes", "# `return (estimate - truth).square().mean()`\n# The"))
    with pytest.raises(LabError, match="would give its answers away.*square"):
        build_labs(root=course)
    assert not (course / "labs").exists()


def test_build_and_drift(course):
    lab = course / "labs" / "99-means.ipynb"
    with pytest.raises(LabError, match="99-means.ipynb is missing: run `pixelpolicy build-labs`"):
        build_labs(check=True)
    assert build_labs() == [lab]
    assert build_labs() == [] and build_labs(check=True) == []
    assert list(lab.parent.iterdir()) == [lab]

    lab.write_text(lab.read_text().replace("Two small", "Three small"))
    with pytest.raises(LabError, match="stale.*pixelpolicy build-labs"):
        build_labs(check=True)
    assert build_labs() == [lab] and build_labs(check=True) == []

    mine = lab.with_name("98-mine.ipynb")
    mine.write_text("{}")
    with pytest.raises(LabError, match="98-mine.ipynb has no source"):
        build_labs(check=True)
    build_labs()
    assert mine.exists(), "the build deletes nothing"


BROKEN = {
    "no id": ('"id": "99.1", ', "", "with the exercise's id"),
    "no points": ('"points": 2, ', "", "'points' is missing"),
    "no minutes": ('"minutes": 5, ', "", "'minutes' is missing"),
    "no forbidden": (', "forbidden": []', "", "'forbidden' is missing"),
    "difficulty": ('"difficulty": 2', '"difficulty": 5', "must be 1, 2, 3 or 4"),
    "points of nothing": ('"points": 2', '"points": 0', "above 0"),
    "minutes as text": ('"minutes": 5', '"minutes": "5"', "'minutes' is '5'"),
    "unknown key": ('"minutes": 5', '"minutes": 5, "hours": 1', "'hours' is no key"),
    "another lab's id": ("99.1", "98.1", "'98.1' is not 99. and a number"),
    "two of an id": ("99.2", "99.1", "is there twice"),
    "points disagree": ('"points": 2', '"points": 3', "points is 3 in 99-means.py and 2"),
    "forbidden disagrees": ('"forbidden": []', '"forbidden": ["torch"]', "forbidden is ['torch']"),
    "no begin": ("    ### BEGIN SOLUTION\n    count", "    count", "do not pair up"),
    "no end": ("[groups]\n    ### END SOLUTION", "[groups]", "pair up"),
    "no answer": ("### BEGIN SOLUTION\n    return", "return", "pair up"),
    "answer elsewhere": ("# %%\nweight", "# %%\n### BEGIN SOLUTION\n### END SOLUTION\nweight", "outside an exercise"),
    "two hints": ("# <details><summary>Hint 3: back to the batch</summary>", "# ", "exactly three hints"),
    "no check": ('# %% check="99.1"', "# %%", "no check cells"),
    "check of another": ('check("99.1", centred)', 'check("99.2", centred)', 'must say check("99.1", centred)'),
    "check of another name": ('check("99.1", centred)', 'check("99.1", timer)', 'must say check("99.1", centred)'),
    "no goal": ('# %% [markdown] goal="99.1"', "# %% [markdown]", "no goal cells"),
    "no name": ("def centred(", "def centered(", "must define 'centred'"),
    "no import": ("course import check", "course import catch_up", "the line `from pixelpolicy.course import check`"),
    "no Python": ("    sums = torch", "    sums = = torch", "is no Python"),
    "too long": ("    count = int", "    pass\n" * 30 + "    count = int", "30 at most"),
    "too wide": ('print(f"loss', f'print("{"x" * 120}")\nprint(f"loss', "wider than 120"),
    "goal as code": ('# %% [markdown] goal="99.1"\n# Take', '# %% goal="99.1"\n# Take', "goal is a markdown cell"),
    "heading in a goal": ('goal="99.1"\n# Take', 'goal="99.1"\n# ## A section\n#\n# Take', "give it a cell above"),
    "id without quotes": ('check="99.1"', "check=99", 'check="12.1"'),
    "stray hints": ('# %% [markdown]\n# # 99', '# %% [markdown] hints="99.7"\n# # 99', "no exercise 99.7"),
}  # fmt: skip


@pytest.mark.parametrize("old, new, message", BROKEN.values(), ids=BROKEN)
def test_broken_sources(course, old, new, message):
    path = course / "solutions" / "99-means.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(LabError, match="99") as error:
        build_labs(root=course)
    assert message in str(error.value)


def test_whole_answer_between_markers_is_refused(course):
    path = course / "solutions" / "99-means.py"
    text = path.read_text().replace("    ### BEGIN SOLUTION\n    return (", "    return (")
    path.write_text(text.replace("def squared_error", "### BEGIN SOLUTION\ndef squared_error").replace(
        "mean()\n    ### END", "mean()\n### END"))  # fmt: skip
    with pytest.raises(LabError, match="only its body between the solution markers"):
        read_source(path)


def test_order_of_an_exercise(course):
    path = course / "solutions" / "99-means.py"
    text = path.read_text()
    check = '# %% check="99.1"\ncheck("99.1", centred)\n\n'
    path.write_text(
        text.replace(check, "").replace('# %% [markdown] hints="99.1"', check + '# %% [markdown] hints="99.1"')
    )
    with pytest.raises(LabError, match="in the order goal, exercise, hints, check"):
        read_source(path)


def test_lab_without_checks(course):
    path = course / "solutions" / "97-new.py"
    path.write_text((course / "solutions" / "99-means.py").read_text().replace("99.", "97."))
    with pytest.raises(LabError, match="write course/checks/lab97.py"):
        read_source(path)


def test_check_without_exercise(course):
    path = course / "solutions" / "99-means.py"
    text = path.read_text()
    path.write_text(text[: text.index('# %% [markdown] goal="99.2"')])
    with pytest.raises(LabError, match="99.1 and .* has 99.1, 99.2"):
        read_source(path)


def test_find_source(course):
    path = course / "solutions" / "99-means.py"
    assert find_source(course, 99) == find_source(course, "99") == find_source(course, "99-means") == path
    with pytest.raises(LabError, match="there is no lab 3: the labs are 99-means"):
        find_source(course, 3)
    (course / "solutions" / "notes.py").touch()
    with pytest.raises(LabError, match="NN-name.py"):
        sources(course)


def test_submission_runs_only_what_an_exercise_may_use(course):
    path = course / "solutions" / "99-means.py"
    text = path.read_text().replace("STEPS = choose", "1 / 0\nlower = 1\nSTEPS = choose")
    path.write_text(text)
    source = read_source(path)
    centred = source.submission("99.1", source.tasks["99.1"].solution)
    assert centred.__globals__["STEPS"] == 3 and "lower" not in centred.__globals__
    assert "centred" in source.submission("99.2", source.tasks["99.2"].blank).__globals__


def test_fixture_checks_are_found():
    assert any("fixtures" in folder for folder in CHECKS)


def test_metadata_is_plain_json(source):
    assert json.loads(lab_text(source))["metadata"]["pixelpolicy"]["lab"] == "99-means"
