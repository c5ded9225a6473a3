"""Notebooks that anybody may have written: what is read of them, what is refused, and that none stops the rest."""

import ast
import json
import os
import pickle
from pathlib import Path

import nbformat
import pytest

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.grading import submissions
from pixelpolicy.course.grading.submissions import find_submissions, forbidden_in, piece_of, read_notebook
from pixelpolicy.course.source import find_source, read_source
from pixelpolicy.errors import GradingError


@pytest.fixture
def lab(course):
    source = read_source(find_source(course, 99))
    return source, lab_notebook(source)


@pytest.fixture
def piece(lab):
    """The code of an exercise whose cell holds this text, cells of these texts above it."""
    source, released = lab

    def cut(text, *above, id="99.1"):
        notebook = nbformat.from_dict(json.loads(json.dumps(released)))
        place = next(i for i, cell in enumerate(notebook.cells) if cell.metadata.get("pixelpolicy", {}).get("id") == id
                     and cell.metadata["pixelpolicy"]["role"] == "exercise")  # fmt: skip
        notebook.cells[place].source = text
        notebook.cells[place:place] = [nbformat.v4.new_code_cell(extra) for extra in above]
        return piece_of(notebook, released.cells, source, id)

    return cut


def written(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return path


def notebook(*cells, **more):
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, **cell} for cell in cells]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells, **more})


# Files ------------------------------------------------------------------------------------------------------------


def test_students_and_labs_are_read_from_names(tmp_path):
    for name in ("anna/99-means.ipynb", "ben_99-means.ipynb", "cleo/deep/er/99-means (1).ipynb", "dan/12-grpo.ipynb",
                 ".hidden/99-means.ipynb", "eve/mine.ipynb"):  # fmt: skip
        written(tmp_path, name, notebook())
    found, notes = find_submissions(tmp_path, [99, 12])
    assert {(s.student, s.lab) for s in found} == {("anna", 99), ("ben", 99), ("cleo", 99), ("dan", 12)}
    assert len(notes) == 1 and "eve/mine.ipynb" in notes[0]
    found, notes = find_submissions(tmp_path, [99])
    assert {s.student for s in found} == {"anna", "ben", "cleo", "eve"}, "of one lab alone, any name will do"
    assert notes == ["left out, of labs that are not graded now: dan/12-grpo.ipynb"]


def test_many_names_are_told_in_one_note(tmp_path):
    for number in range(30):
        written(tmp_path, f"s{number}/12-grpo.ipynb", notebook())
    written(tmp_path, "anna/99-means.ipynb", notebook())
    [note] = find_submissions(tmp_path, [99])[1]
    assert "and 20 more" in note and len(note) < 500


@pytest.mark.parametrize("given", ["", "submitted", "autograded"])
def test_what_nbgrader_collected_is_taken_as_it_is(tmp_path, given):
    written(tmp_path, "nbgrader_config.py", "")
    written(tmp_path, "gradebook.db", "")
    for place in ("source", "release"):
        for lab in ("99-means", "12-grpo"):
            written(tmp_path, f"{place}/{lab}/{lab}.ipynb", notebook())
    for place in ("submitted", "autograded"):
        for student, lab in (("anna", "99-means"), ("anna", "12-grpo"), ("ben", "99-means")):
            own = f"{place}/{student}/{lab}"
            written(tmp_path, f"{own}/{lab}.ipynb", notebook())
            written(tmp_path, f"{own}/timestamp.txt", "2026-11-28 10:00:00 UTC")
            for name in ("README.md", "assignment.json", f"feedback/{lab}.html", f".ipynb_checkpoints/{lab}.ipynb"):
                written(tmp_path, f"{own}/{name}", "")
        written(tmp_path, f"{place}/ben/99-means/scratch.ipynb", notebook())
        written(tmp_path, f"{place}/anna/12-grpo/99-means.ipynb", notebook())
        os.utime(tmp_path / f"{place}/anna/99-means/99-means.ipynb", (1, 1))
    place = tmp_path / (given or "submitted")
    both = {("anna", 99, "99-means"), ("anna", 12, "12-grpo"), ("ben", 99, "99-means")}
    for labs in ([99, 12], [99], [12]):
        found, notes = find_submissions(tmp_path / given, labs)
        assert {(s.student, s.lab, s.path) for s in found if s.student != "ben" or s.lab != 12} == {
            (student, lab, place / student / name / f"{name}.ipynb") for student, lab, name in both if lab in labs
        }
        assert not any("timestamp" in note or "source" in note or "feedback" in note for note in notes)
        if 99 in labs:
            assert "anna/12-grpo/99-means.ipynb (anna/99-means/99-means.ipynb counts)" in notes[-1]


def test_a_course_directory_without_submissions_is_said_to_be_one(tmp_path):
    written(tmp_path, "nbgrader_config.py", "")
    written(tmp_path, "source/99-means/99-means.ipynb", notebook())
    with pytest.raises(GradingError, match="submitted, in which nbgrader keeps"):
        find_submissions(tmp_path, [99])
    (tmp_path / "elsewhere/anna").mkdir(parents=True)
    written(tmp_path, "elsewhere/anna/99-means.ipynb", notebook())
    (tmp_path / "submitted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GradingError, match="submitted, in which nbgrader keeps"):
        find_submissions(tmp_path, [99])


def test_of_two_notebooks_of_a_student_the_newest_counts(tmp_path):
    old, new = (written(tmp_path, f"anna/{name}/99-means.ipynb", notebook()) for name in "ba")
    os.utime(old, (1, 1))
    found, notes = find_submissions(tmp_path, [99])
    assert [s.path for s in found] == [new]
    assert notes[0].endswith("same student and lab: anna/b/99-means.ipynb (anna/a/99-means.ipynb counts)")


def test_links_are_not_followed_wherever_they_stand(tmp_path):
    solved = written(tmp_path, "instructor/99-means.ipynb", notebook({"source": "solved"}))
    folder = tmp_path / "class"
    written(folder, "anna/99-means.ipynb", notebook())
    (folder / "ben").mkdir()
    (folder / "ben/99-means.ipynb").symlink_to(solved)
    (folder / "cleo").symlink_to(solved.parent)
    (folder / "dan").mkdir()
    (folder / "dan/99-means.ipynb").symlink_to("/nowhere")
    found, notes = find_submissions(folder, [99])
    assert [s.student for s in found] == ["anna"] and notes[0].count(".ipynb") >= 2 and "links" in notes[0]
    with pytest.raises(GradingError):
        read_notebook(folder / "ben/99-means.ipynb")


def test_a_hard_link_to_another_file_is_refused(tmp_path):
    solved = written(tmp_path, "instructor/99-means.ipynb", notebook({"source": "solved"}))
    (tmp_path / "class/anna").mkdir(parents=True)
    os.link(solved, tmp_path / "class/anna/99-means.ipynb")
    with pytest.raises(GradingError, match="hard link"):
        read_notebook(tmp_path / "class/anna/99-means.ipynb")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    (tmp_path / "a.ipynb").mkdir()
    os.mkfifo(tmp_path / "b.ipynb")
    for name in ("a.ipynb", "b.ipynb", "c.ipynb"):
        with pytest.raises(GradingError):
            read_notebook(tmp_path / name)


BROKEN = {
    "empty": "",
    "no JSON": "{",
    "no UTF-8": b"\xff\xfe{",
    "a list": "[]",
    "a number": "3",
    "nested without end": "[" * 200_000,
    "no cells": "{}",
    "cells that are no list": notebook(cells={"a": 1}),
    "cells that are no cells": json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1, None]}),
    "a source that is a number": notebook({"source": 3}),
    "a source that is a table": notebook({"source": {"a": 1}}),
    "a kind that is a list": notebook({"source": "", "cell_type": []}),
    "a format of tomorrow": notebook(nbformat=99),
    "a format that is text": notebook(nbformat="x"),
    "a pickle": pickle.dumps({"cells": []}),
    "NUL alone": "\0" * 100,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_notebook_is_refused_in_words(tmp_path, name):
    with pytest.raises(GradingError) as caught:
        read_notebook(written(tmp_path, "99-means.ipynb", BROKEN[name]))
    assert len(str(caught.value)) < 200


def test_huge_notebooks_are_refused_before_they_are_taken_apart(tmp_path, monkeypatch):
    path = written(tmp_path, "size.ipynb", notebook())
    os.truncate(path, submissions.LARGEST + 1)  # a hole: it takes no room
    with pytest.raises(GradingError, match="MB"):
        read_notebook(path)
    path = written(tmp_path, "code.ipynb", notebook(*[{"source": "x = 1\n" * 30_000}] * 6))
    with pytest.raises(GradingError, match="signs"):
        read_notebook(path)
    path = written(tmp_path, "cells.ipynb", notebook(*[{"source": ""}] * (submissions.MOST_CELLS + 1)))
    monkeypatch.setattr(nbformat, "reads", lambda *args, **kwargs: pytest.fail("it was taken apart"))
    with pytest.raises(GradingError, match="cells"):
        read_notebook(path)


def test_outputs_are_dropped_unseen(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "gone off",))

    bomb = pickle.dumps(Bomb()).hex()
    output = {"output_type": "execute_result", "data": {"application/python-pickle": bomb, "text/html": "<script>"},
              "metadata": {"__reduce__": bomb}, "execution_count": 1}  # fmt: skip
    read = read_notebook(written(tmp_path, "99-means.ipynb", notebook({"source": "x = 1", "outputs": [output]})))
    assert read.cells[0].outputs == [] and bomb not in json.dumps(read)
    assert not (tmp_path / "gone off").exists()


def test_a_source_in_lines_is_taken(tmp_path):
    read = read_notebook(written(tmp_path, "a.ipynb", notebook({"source": ["x = 1\n", "y = 2"]})))
    assert read.cells[0].source == "x = 1\ny = 2"


# Code -------------------------------------------------------------------------------------------------------------

RIGHT = "def centred(rewards, groups):\n    return rewards"


def test_only_what_the_function_needs_is_taken(piece):
    text = f"import os\nLIMIT = helper(2)\nopen('/tmp/x', 'w')\n{RIGHT} * LIMIT"
    helper, side, magic = "def helper(x):\n    return x", "import json\nprint('seen')", "%matplotlib inline\n!rm -rf /"
    cut = piece(text, helper, side, magic)
    assert cut.code == (helper, "LIMIT = helper(2)", f"{RIGHT} * LIMIT")
    assert not any(cut.imports) and not cut.fault


def test_what_changes_a_value_comes_with_it_and_in_its_place(piece):
    """A table filled line by line, a counter on a function: neither is the thing itself."""
    above = ["table = {}\ntable['a'] = 1", "seen = 0\nseen += 1\nother = []\nother[0] = 2"]
    text = RIGHT.replace("return", "seen, table\n    return", 1) + "\ncentred.calls = 0"
    assert piece(text, *above).code == (
        "table = {}", "table['a'] = 1", "seen = 0", "seen += 1", *ast.unparse(ast.parse(text)).rsplit("\n", 1)
    )  # fmt: skip
    again = piece(RIGHT.replace("return", "table\n    return", 1), *above, "table = {'b': 1}")
    assert again.code[0] == "table = {'b': 1}" and len(again.code) == 2


def test_an_earlier_exercise_is_the_courses_own(piece):
    text = "def squared_error(estimate, truth):\n    return centred(estimate, truth)"
    cut = piece(text, "def centred(rewards, groups):\n    return 'my own mistake'", id="99.2")
    assert "index_add" in "".join(cut.code) and "mistake" not in "".join(cut.code)


def test_the_released_cell_is_blank_and_a_comment_changes_nothing(piece, lab):
    blank = lab[0].tasks["99.1"].blank
    assert piece(blank).blank and piece(blank + "\n# I tried").blank and not piece(RIGHT).blank


TRAPS = {
    "a Cyrillic letter in the name": RIGHT.replace("centred", "\u0441entred"),
    "a name that is deleted": RIGHT + "\ndel centred",
    "a name inside a class": "class A:\n    def centred(rewards, groups):\n        return rewards",
    "a name inside a text": '"""\ndef centred(rewards, groups):\n    return rewards\n"""',
    "NUL in the code": RIGHT + "\0",
    "half a sign in the code": RIGHT + " + '\ud800'",
    "no Python": "def centred(:",
    "turned round by a sign that is not seen": "def centred\u202e(rewards, groups): return rewards",
    "a cell without end": "x = 1\n" * 100_000,
    "a sum without end": RIGHT + " + " + "+".join(["1"] * 50_000),
    "names in names without end": RIGHT + ".a" * 50_000,
    "calls of calls without end": RIGHT + "()" * 50_000,
    "no to no without end": RIGHT + " * (" + "not " * 20_000 + "1)",
    "minus of minus without end": RIGHT + " * " + "-" * 90_000 + "1",
    "else if without end": "def centred(a, b):\n    if a: pass\n" + "    elif b: pass\n" * 5000,
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_in_the_code_is_a_fault_of_its_exercise(piece, name):
    cut = piece(TRAPS[name])
    if name == "a name that is deleted":  # statements that bring no name in are not taken
        assert "del" not in "".join(cut.code)
        return
    assert cut.fault and not cut.code
    cut.fault.encode("utf-8")


def test_the_same_traps_above_an_exercise_do_not_touch_it(piece):
    cut = piece(RIGHT, *TRAPS.values())
    assert cut.code == (RIGHT,)


def test_a_name_in_wide_letters_is_the_name(piece):
    """Python itself takes them for the same; so does what is forbidden."""
    assert piece(RIGHT.replace("centred", "\uff43entred")).code == (RIGHT,)
    cut = piece("from \uff50ixelpolicy.rl import ppo_loss as own\n" + RIGHT + " * own")
    assert "pixelpolicy.rl" in forbidden_in(cut, ("pixelpolicy.rl",))


def test_what_is_forbidden_is_found_in_imports_attributes_and_texts(piece):
    for text in ("import torch.nn.functional as F\n" + RIGHT + " * F.mse_loss(1, 2)",
                 "from torch.nn.functional import mse_loss\n" + RIGHT + " * mse_loss",
                 RIGHT + " * torch.nn.functional.mse_loss",
                 RIGHT + " * load('torch.nn.functional.mse_loss')"):  # fmt: skip
        cut = piece(text, "import torch")
        said = forbidden_in(cut, ("torch.nn.functional.mse_loss",))
        assert bool(said) == ("as F" not in text), text  # what an alias hides is taken away in the sandbox
