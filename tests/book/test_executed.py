"""Executed labs: what is kept of a run, and when a copy is stale."""

import json
import shutil

import nbformat
import pytest
from typer.testing import CliRunner

from pixelpolicy import upkeep
from pixelpolicy.book import executed
from pixelpolicy.book.pages import lab_page
from pixelpolicy.cli import app
from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.source import read_source
from pixelpolicy.errors import BookError
from pixelpolicy.widgets import BoxViewer

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"


@pytest.fixture
def course(tmp_path, root):
    """A course of lab 12 alone, and the notebook that a run of it would leave."""
    for name in ("solutions", "labs"):
        (tmp_path / name).mkdir()
    shutil.copy(root / "solutions" / "12-grpo.py", tmp_path / "solutions")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.fixture
def ran(course):
    return run_of(course, "a1b2c3d4" * 4)


def run_of(course, model, minutes="3"):
    """What a kernel leaves: counts, times, a progress bar, and one widget that is shown."""
    notebook = lab_notebook(read_source(course / "solutions" / "12-grpo.py", checks=False), answers=True)
    bar, part, layout, unused = (f"{number}{model[1:]}" for number in "bcde")
    notebook.metadata["widgets"] = {
        STATE: {
            "state": {
                unused: {"model_name": "LayoutModel", "state": {}},
                bar: {"model_name": "HBoxModel", "state": {"children": [f"IPY_MODEL_{part}"]}},
                part: {"model_name": "FloatProgressModel", "state": {"value": 1.0}},
                model: {"model_name": "AnyModel", "state": {"step": 0, "layout": f"IPY_MODEL_{layout}"}},
                layout: {"model_name": "LayoutModel", "state": {}},
            }
        }
    }
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        cell.metadata["execution"] = {"iopub.execute_input": f"2026-11-22T20:0{minutes}:00Z"}
    shown = [{VIEW: {"model_id": name}, "text/plain": "x"} for name in (bar, model)]
    code[1].outputs = [nbformat.v4.new_output("display_data", data) for data in shown]
    code[1].outputs.append(nbformat.v4.new_output("execute_result", {"text/plain": "0.9"}, execution_count=2))
    return notebook


def test_what_differs_from_run_to_run_is_not_kept(course, ran):
    first = executed.keep_executed(course, 12, ran, "cpu").read_text()
    again = executed.keep_executed(course, 12, run_of(course, "f00dface" * 4, minutes="9"), "cpu").read_text()
    assert first == again
    notebook = nbformat.reads(first, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(outputs) == 2 and outputs[1]["data"]["text/plain"] == "0.9"
    state = notebook.metadata["widgets"][STATE]["state"]
    shown = outputs[0]["data"][VIEW]["model_id"]
    assert [model["model_name"] for model in state.values()] == ["AnyModel", "LayoutModel"]
    assert state[shown]["state"]["layout"].removeprefix("IPY_MODEL_") in state


def test_the_courses_widgets_have_the_code_of_today(course, ran):
    """A run keeps what a widget shows; its script and style are the library's, and a stranger's are its own."""
    state = ran.metadata["widgets"][STATE]["state"]
    model = state["a1b2c3d4" * 4]["state"]
    model |= {"_anywidget_id": "pixelpolicy.widgets.where_it_was.BoxViewer", "_esm": "of old", "_css": "of old"}
    state["0ddba11e" * 4] = {"model_name": "AnyModel", "state": {"_anywidget_id": "other.Widget", "_esm": "its own"}}
    model["children"] = ["IPY_MODEL_" + "0ddba11e" * 4]
    path = executed.keep_executed(course, 12, ran, "cpu")
    assert "of old" not in path.read_text() and "its own" in path.read_text()
    read = executed.read_executed(course, course / "solutions" / "12-grpo.py").metadata["widgets"][STATE]["state"]
    ours, other = (model["state"] for model in read.values() if model["model_name"] == "AnyModel")
    assert ours["_esm"] == BoxViewer._esm and ours["_css"] == BoxViewer._css and ours["step"] == 0
    assert other["_esm"] == "its own"


def test_a_kept_run_is_fresh_until_its_source_changes(course, ran):
    assert "book/executed/12.ipynb is missing" in upkeep.executed(course)[0]
    executed.keep_executed(course, 12, ran, "cpu")
    assert upkeep.executed(course) == []
    source = course / "solutions" / "12-grpo.py"
    source.write_text(source.read_text() + "\n# a word more\n")
    (complaint,) = upkeep.executed(course)
    assert "stale" in complaint and "pixelpolicy run 12 --profile cpu --book" in complaint
    assert executed.read_executed(course, source) is None


@pytest.mark.parametrize("number", range(1, 20))
def test_a_reader_is_shown_no_address_in_memory(root, number):
    """A cell whose last line gives an object that has no picture shows its type and where it lay."""
    notebook = nbformat.read(root / "book" / "executed" / f"{number:02d}.ipynb", as_version=4)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert [
        data["text/plain"] for data in shown if list(data) == ["text/plain"] and " at 0x" in data["text/plain"]
    ] == []


def test_smoke_and_strays_and_rubbish_are_seen(course, ran):
    path = executed.keep_executed(course, "12", ran, "smoke")
    assert "measures nothing" in upkeep.executed(course)[0]
    (path.parent / "13.ipynb").write_text("{}")
    assert any("13.ipynb belongs to no lab" in line for line in upkeep.executed(course))
    path.write_text("{")
    assert "no notebook" in upkeep.executed(course)[0]
    assert executed.read_executed(course, course / "solutions" / "12-grpo.py") is None


def test_what_did_not_run_as_the_source_stands_is_refused(course, ran):
    source = course / "solutions" / "12-grpo.py"
    source.write_text(source.read_text().replace("group = policy", "# so\ngroup = policy"))
    with pytest.raises(BookError, match="run it again"):
        executed.keep_executed(course, 12, ran, "cpu")
    assert not (course / "book").exists()


def test_the_profile_smoke_is_refused_before_it_runs(course, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(course))
    monkeypatch.setattr("pixelpolicy.course.run.run_lab", lambda *_: pytest.fail("it ran"))
    done = CliRunner().invoke(app, ["run", "12", "--profile", "smoke", "--book"])
    assert done.exit_code == 1 and not (course / "book").exists()
    assert "--profile cpu --book" in " ".join(done.output.split())


def test_the_command_keeps_what_ran(course, ran, monkeypatch, tmp_path):
    results = tmp_path / "left"
    results.mkdir()
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(course))
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(results))
    monkeypatch.setattr("pixelpolicy.course.run.run_lab", lambda *_: nbformat.write(ran, results / "12.ipynb"))
    done = CliRunner().invoke(app, ["run", "12", "--profile", "cpu", "--book"])
    assert done.exit_code == 0, done.output
    assert upkeep.executed(course) == []


def test_a_page_folds_answers_and_says_what_its_outputs_are(course, ran):
    source = course / "solutions" / "12-grpo.py"
    without = lab_page(course, source)
    assert "Not executed" in without.cells[0].source and "run 12 --profile cpu --book" in without.cells[0].source
    executed.keep_executed(course, 12, ran, "smoke")
    assert "A trial run" in lab_page(course, source).cells[0].source
    executed.keep_executed(course, 12, ran, "cpu")
    page = lab_page(course, source)
    nbformat.validate(page)
    assert "in the profile `cpu`" in page.cells[0].source and "Not executed" not in page.cells[0].source
    folded = [cell for cell in page.cells if "hide-input" in cell.metadata.get("tags", [])]
    answers = "\n".join(read_source(source, checks=False).answers())
    assert len(folded) == 5 and "mine.std(correction=0)" in answers
    seen = "\n".join(cell.source for cell in page.cells if cell not in folded)
    assert "mine.std(correction=0)" not in seen and 'raise NotImplementedError("Exercise 12.1' in seen
    assert "catch_up(" not in seen
    assert json.dumps(page).count('"0.9"') == 1
