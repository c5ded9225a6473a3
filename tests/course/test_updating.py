"""A new version of a lab in a student's copy: nothing the student wrote is lost, and twice is as once."""

import copy as copying
import json
import os

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from typer.testing import CliRunner

from pixelpolicy import cli
from pixelpolicy.course import updating
from pixelpolicy.course.build import _cell_id, build_labs, lab_notebook
from pixelpolicy.course.matching import text_of, untouched
from pixelpolicy.course.merging import merge
from pixelpolicy.course.opening import open_copy, prepare_work, pristine
from pixelpolicy.course.source import read_source
from pixelpolicy.errors import LabError

ANSWER = "    count = int(groups.max()) + 1  # mine\n    return rewards"
ROLES = ("header", "exercise", "hints", "check", "catch-up")


@pytest.fixture
def opened(course):
    """The copy of the fixture lab, as it is when first opened."""
    build_labs()
    return open_copy(99)


def edit(path, change):
    """What a student does in an editor: `change` acts on the cells; ids, metadata and all else stay."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, path)


def cell(cells, role, id="99.1"):
    [found] = [c for c in cells if c.metadata.get("pixelpolicy", {}).get("role") == role
               and c.metadata.pixelpolicy.get("id") == id]  # fmt: skip
    return found


def answer(cells):
    target = cell(cells, "exercise")
    target.source = target.source.replace('    raise NotImplementedError("Exercise 99.1: write centred")', ANSWER)
    assert "# mine" in target.source


def upstream(course, *changes):
    """The lab as its source gives it once each (old, new) is replaced."""
    path = course / "solutions" / "99-means.py"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    build_labs()


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


def said(done):
    return "\n".join(done.lines())


STUB = ('"""Rewards `[batch]` less', '"""The rewards, `[batch]`, less')
INTRO = ("Two small exercises, on which", "Two exercises, both small, on which")


# One thing at a time


def test_nothing_new_writes_nothing(opened):
    before = opened.read_bytes()
    assert said(updating.update(99)) == "99-means: your copy is of the newest version."
    edit(opened, answer)
    assert updating.update("99-means").old is None and updating.behind() == []
    assert before != opened.read_bytes() and not (opened.parent / "old").exists()


def test_an_untouched_copy_becomes_the_lab(course, opened):
    upstream(course, INTRO, STUB, ("STEPS = choose(smoke=3", "STEPS = choose(smoke=4"))
    assert updating.behind() == ["99-means"]
    was = opened.read_bytes()
    done = updating.update(99)
    lab = nbformat.read(course / "labs" / "99-means.ipynb", as_version=4)
    assert read(opened) == lab.cells
    assert len(done.changes.changed) == 3 and "99.1 centred" in done.changes.changed
    assert not (done.changes.new or done.changes.removed or done.changes.answers)
    assert done.old.read_bytes() == was and done.old.parent == opened.parent / "old"
    assert updating.behind() == []


def test_an_answer_stays_where_the_text_about_it_changes(course, opened):
    edit(opened, answer)
    upstream(course, ("Take from every reward", "Subtract from every reward"))
    done = updating.update(99)
    assert "# mine" in cell(read(opened), "exercise").source
    assert cell(read(opened), "header").source.endswith("Subtract from every reward the mean of its own group.")
    assert done.changes.answers == ["99.1 centred"] and done.changes.changed == ["text of 99.1"]
    assert "your answers, kept (1): 99.1 centred" in said(done) and done.changes.stubs == []


def test_a_changed_stub_stands_below_the_answer(course, opened):
    edit(opened, answer)
    kept = cell(read(opened), "exercise").source
    upstream(course, STUB)
    done = updating.update(99)
    cells = read(opened)
    at = cells.index(cell(cells, "exercise"))
    assert cells[at].source == kept and done.changes.stubs == ["99.1 centred"]
    assert cells[at + 1].cell_type == "markdown" and '"""The rewards, `[batch]`, less' in cells[at + 1].source
    # It changes again: one note stands, of the newest.
    upstream(course, ("The rewards, `[batch]`, less", "All rewards, less"))
    updating.update(99)
    cells = read(opened)
    notes = [c.source for c in cells if c.metadata.get("pixelpolicy", {}).get("role") == "note"]
    assert len(notes) == 1 and "All rewards, less" in notes[0] and cells[at].source == kept


def test_both_versions_of_an_ordinary_cell_stand(course, opened):
    def write(cells):
        cells[0].source += "\n\nMy note: groups are prompts."
        cells[1].source += "\nSTEPS = 100"

    edit(opened, write)
    upstream(course, INTRO, ("STEPS = choose(smoke=3", "STEPS = choose(smoke=4"))
    done = updating.update(99)
    cells = read(opened)
    assert "both small" in cells[0].source and "yours stands below" in cells[1].source
    assert cells[2].source.endswith("My note: groups are prompts.")
    assert "smoke=4" in cells[3].source and cells[5].source.endswith("\nSTEPS = 100")
    assert len(done.changes.both) == 2 and cells[2].id.startswith("yours-")


def test_a_written_note_and_its_outputs_stay(course, opened):
    def write(cells):
        cell(cells, "hints").source += "\n\nThe second helped."
        cells[1].outputs, cells[1].execution_count = [new_output("stream", text="ran")], 7
        cells[1].metadata["collapsed"] = True
        cells[-1].outputs = [new_output("stream", text="old")]

    edit(opened, write)
    upstream(course, INTRO, (", seed=0, seconds=clock", ", seed=1, seconds=clock"))
    done = updating.update(99)
    cells = read(opened)
    assert cell(cells, "hints").source.endswith("The second helped.") and done.changes.kept == ["hints of 99.1"]
    assert (cells[1].outputs[0].text, cells[1].execution_count, cells[1].metadata.collapsed) == ("ran", 7, True)
    assert cells[-1].outputs == []  # other code, so they would be false


def test_added_cells_keep_their_neighbours(course, opened):
    def add(cells):
        cells.insert(4, new_code_cell("centred(one, two)"))
        cells.append(new_markdown_cell("What I learnt."))

    edit(opened, add)
    upstream(
        course,
        ('# %% [markdown] hints="99.1"', '# %% [markdown]\n# A word before the hints.\n\n# %% [markdown] hints="99.1"'),
        ('# %%\nwrite_record("99', '# %% [markdown]\n# Now it is kept.\n\n# %%\nwrite_record("99'),
    )
    done = updating.update(99)
    texts = [c.source.splitlines()[0] for c in read(opened)]
    assert texts[3].startswith("def centred") and texts[4:6] == ["centred(one, two)", "A word before the hints."]
    assert texts[-3] == "Now it is kept." and texts[-1] == "What I learnt."
    assert len(done.changes.new) == 2 and done.changes.own == 2


def test_a_cell_the_course_removes(course, opened):
    edit(opened, lambda cells: cells[-2].update(source=cells[-2].source + "\nprint('mine')"))
    text = (course / "solutions" / "99-means.py").read_text()
    upstream(course, (text[text.index("# %%\nweight") :], "# %% [markdown]\n# The end.\n"))
    done = updating.update(99)
    texts = [c.source for c in read(opened)]
    assert len(done.changes.gone) == 1 and len(done.changes.removed) == 1
    assert any(text.endswith("print('mine')") for text in texts) and not any("write_record(" in t for t in texts)


def test_a_deleted_cell_stays_deleted_until_it_changes(course, opened):
    edit(opened, lambda cells: [cells.remove(cell(cells, "hints", id)) for id in ("99.1", "99.2")])
    upstream(course, INTRO, ("A difference, a square, a mean.", "Difference, square, mean."))
    done = updating.update(99)
    cells = read(opened)
    assert done.changes.back == ["hints of 99.2"]
    assert cells.index(cell(cells, "hints", "99.2")) == cells.index(cell(cells, "exercise", "99.2")) + 1
    assert not [c for c in cells if c.metadata.get("pixelpolicy", {}) == {"role": "hints", "id": "99.1"}]


def renumbered(course):
    """A lab in which another exercise has come first, so that 99.1 is now 99.2."""
    notebook = lab_notebook(read_source(course / "solutions" / "99-means.py"))
    for c in notebook.cells:
        if ours := c.metadata.get("pixelpolicy"):
            old, new = ours["id"], {"99.1": "99.2", "99.2": "99.3"}[ours["id"]]
            ours["id"], c.source, c.id = new, c.source.replace(old, new), f"{ours['role']}-{new.replace('.', '-')}"
    first = [copying.deepcopy(c) for c in notebook.cells[2:7]]
    for c in first:
        ours = c.metadata.pixelpolicy
        c.source = c.source.replace("99.2", "99.1").replace("centred", "other").replace("mean", "median")
        ours["id"], c.id = "99.1", f"{ours['role']}-99-1"
        if "name" in ours:
            ours["name"] = "other"
    notebook.cells[2:2] = first
    (course / "labs" / "99-means.ipynb").write_text(nbformat.writes(notebook))


def test_a_renumbered_exercise_keeps_its_answer(course, opened):
    def change(cells):
        answer(cells)
        caught = cell(cells, "catch-up", "99.2")
        caught.source = caught.source.replace("# squared_error =", "squared_error =")

    edit(opened, change)
    renumbered(course)
    done = updating.update(99)
    cells = read(opened)
    assert "# mine" in cell(cells, "exercise", "99.2").source
    assert cell(cells, "exercise", "99.1").metadata.pixelpolicy.name == "other"
    assert cell(cells, "catch-up", "99.3").source.endswith('\nsquared_error = catch_up("99.3")')
    assert done.changes.answers == ["99.2 centred"] and done.changes.stubs == done.changes.both == []
    ids = [c.metadata.pixelpolicy.id for c in cells if "pixelpolicy" in c.metadata]
    assert ids == [f"99.{i}" for i in (1, 2, 3) for _ in range(5)]


def test_moved_upstream_moves_here_and_moved_here_stays(course, opened):
    def move(cells):
        cells.insert(2, cells.pop(-2))
        answer(cells)

    edit(opened, move)
    mine = [c.id for c in read(opened)]
    upstream(course, ("A difference, a square, a mean.", "Difference, square, mean."))
    updating.update(99)
    assert [c.id for c in read(opened)] == mine
    lab = course / "labs" / "99-means.ipynb"
    edit(lab, lambda cells: cells.insert(1, cells.pop(0)))
    updating.update(99)
    assert [c.id for c in read(opened)] == [c.id for c in read(lab)]
    assert "# mine" in cell(read(opened), "exercise").source


# Editors


def drop_ids(notebook):
    for c in notebook.cells:
        c.pop("id", None)
    notebook.nbformat_minor = 4


def new_ids(notebook):
    for number, c in enumerate(notebook.cells):
        c.id = f"vscode-{number}"


def drop_metadata(notebook):
    for c in notebook.cells:
        c.metadata = nbformat.from_dict({"trusted": True})


@pytest.mark.parametrize("spoil", [[drop_ids], [new_ids], [drop_metadata], [drop_ids, drop_metadata]])
@pytest.mark.parametrize("known", [True, False])
def test_editors_that_lose_things(course, opened, spoil, known):
    edit(opened, answer)
    notebook = nbformat.read(opened, as_version=4)
    for way in spoil:
        way(notebook)
    opened.write_text(nbformat.writes(notebook))
    if not known:
        pristine(opened).unlink()
    upstream(course, INTRO, STUB)
    updating.update(99)
    cells = read(opened)
    assert "# mine" in cell(cells, "exercise").source and "both small" in "".join(c.source for c in cells)
    assert sum("def centred" in c.source and c.cell_type == "code" for c in cells) == 1
    # Where neither ids nor the pristine text are there, nobody can tell who changed the introduction: both stand.
    doubt = not known and spoil[0] is not drop_metadata
    assert len(cells) == len(read(course / "labs" / "99-means.ipynb")) + 1 + 2 * doubt


def test_a_pasted_twin_and_a_split_exercise_stay(course, opened):
    def paste(cells):
        answer(cells)
        twin = copying.deepcopy(cell(cells, "exercise"))
        twin.id, twin.source = "0f3c-twin", twin.source.replace("mine", "second try")
        cells.insert(3, twin)

    edit(opened, paste)
    upstream(course, INTRO)
    updating.update(99)
    cells = read(opened)
    assert "second try" in cells[3].source and "# mine" in cells[4].source
    assert cells[4].id == "exercise-99-1"


# Copies whose beginnings were not kept


def test_a_copy_from_before_loses_nothing(course, opened):
    def change(cells):
        answer(cells)
        cells[1].source += "\nSTEPS = 100"
        cells.append(new_code_cell("mine = 1"))

    edit(opened, change)
    pristine(opened).unlink()
    upstream(course, INTRO, ("loss.item():.3f}", "loss.item():.4f}"), ("A difference, a square", "Difference, square"))
    assert updating.behind() == ["99-means"]
    done = updating.update(99)
    texts = [c.source for c in read(opened)]
    assert "both small" in texts[0] and "smoke=3" in texts[1] and texts[1].endswith("STEPS = 100")
    assert texts[-1] == "mine = 1" and "# mine" in texts[3]
    assert done.changes.answers == ["99.1 centred"] and done.changes.stubs == []
    assert len(done.changes.changed) == 2 and done.changes.both == ["hints of 99.2"]  # in doubt both stand
    again = opened.read_bytes()
    assert updating.update(99).old is None and opened.read_bytes() == again


def test_ids_tell_what_nobody_touched(course):
    notebook = lab_notebook(read_source(course / "solutions" / "99-means.py"))
    plain = [c for c in notebook.cells if "pixelpolicy" not in c.metadata]
    assert all(untouched(c) for c in plain) and len(plain) == 4
    assert _cell_id(plain[0], {_cell_id(plain[0], {}): 1}).endswith("-2")
    plain[0].source += "."
    assert not untouched(plain[0]) and not untouched(notebook.cells[2])


def test_a_pristine_text_of_another_version_is_not_believed(course, opened):
    old = opened.read_text()
    upstream(course, INTRO)
    opened.unlink()
    prepare_work()
    opened.write_text(old)  # the student's copy, from another machine
    done = updating.update(99)
    assert "both small" in read(opened)[0].source and done.changes.both == [] and len(done.changes.changed) == 1


def test_a_copy_put_back_is_updated_again(course, opened):
    edit(opened, answer)
    upstream(course, STUB)
    first = updating.update(99)
    upstream(course, INTRO)
    second = updating.update(99)
    wanted = [c.source for c in read(opened)]
    for old in (first.old, second.old):
        opened.write_bytes(old.read_bytes())
        updating.update(99)
        assert [c.source for c in read(opened)] == wanted


# What cannot be read or written


@pytest.mark.parametrize(
    "text",
    ["my answers", "", "[]", '{"cells": 3}', '{"nbformat": 3, "worksheets": []}', '{"nbformat": 4, "cells": [{"cell'
     '_type": "code", "metadata": {}, "source": 5}], "metadata": {}}', '{"nbformat": 4, "cells": [7]}', "\xff\xfe"],
)  # fmt: skip
def test_what_is_no_notebook_is_left_alone(course, opened, text):
    upstream(course, INTRO)
    raw = text.encode("latin-1")
    opened.write_bytes(raw)
    with pytest.raises(LabError, match="left alone"):
        updating.update(99)
    assert opened.read_bytes() == raw and updating.behind() == [] and prepare_work() == [opened]


def test_no_copy_no_lab_no_course(course, opened):
    opened.unlink()
    with pytest.raises(LabError, match="no copy of lab 99-means yet"):
        updating.update(99)
    with pytest.raises(LabError, match="there is no lab 12: the labs are 99-means"):
        updating.update(12)
    (course / "labs" / "99-means.ipynb").write_text("{")
    with pytest.raises(LabError, match="build-labs"):
        updating.update(99)


def test_a_lab_deleted_upstream_leaves_its_copy_alone(course, opened):
    other = opened.with_name("98-gone.ipynb")
    other.write_text("mine")
    assert updating.labs_with_copies() == ["99-means"] and updating.copies_without_labs() == ["98-gone"]
    assert updating.behind() == [] and other.read_text() == "mine"


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("dies", [False, True])
def test_cut_short_at_any_step_nothing_is_lost(course, opened, monkeypatch, step, dies):
    """Full disk, or no more life at all: the copy is whole, the next update goes through, and nothing is doubled."""
    edit(opened, answer)
    upstream(course, INTRO, STUB)
    was, count, real = opened.read_bytes(), iter(range(9)), os.replace

    def replace(source, target):
        if next(count) == step:
            raise KeyboardInterrupt if dies else OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt if dies else LabError):
        updating.update(99)
    assert opened.read_bytes() == was
    monkeypatch.setattr(os, "replace", real)
    updating.update(99)
    once = opened.read_bytes()
    assert "# mine" in cell(read(opened), "exercise").source
    assert [path.read_bytes() for path in (opened.parent / "old").iterdir()] == [was]
    assert updating.update(99).old is None and opened.read_bytes() == once
    assert not list(opened.parent.rglob("*.part"))


def test_a_save_in_between_is_not_overwritten(course, opened, monkeypatch):
    edit(opened, answer)
    upstream(course, INTRO)
    aside = updating._put_aside

    def saved_meanwhile(copy, raw):
        edit(copy, lambda cells: cells.append(new_code_cell("just written")))
        return aside(copy, raw)

    monkeypatch.setattr(updating, "_put_aside", saved_meanwhile)
    with pytest.raises(LabError, match="was saved while"):
        updating.update(99)
    assert read(opened)[-1].source == "just written"


def test_old_copies_are_never_overwritten(course, opened):
    kept = []
    for number in range(3):
        edit(opened, lambda cells, n=number: cells.append(new_code_cell(f"mine = {n}")))
        upstream(course, ("# 99 Means", "# 99 Means, again"))
        kept.append((opened.read_bytes(), updating.update(99).old))
    assert len({old for _, old in kept}) == 3 and all(old.read_bytes() == was for was, old in kept)


def test_the_command(course, opened):
    edit(opened, answer)
    upstream(course, STUB)
    opened.with_name("98-gone.ipynb").write_text("mine")
    done = CliRunner().invoke(cli.app, ["update"])
    assert done.exit_code == 0, done.output
    assert "99-means: brought up to date." in done.stdout and "your answers, kept (1): 99.1 centred" in done.stdout
    assert "98-gone: the course no longer has this lab" in done.stdout and "work/old/99-means-" in done.stdout
    opened.write_text("{")
    done = CliRunner().invoke(cli.app, ["update", "99"])
    assert done.exit_code == 1 and "left alone" in done.stderr


def test_the_command_where_nothing_was_opened(course):
    build_labs()
    done = CliRunner().invoke(cli.app, ["update"])
    assert done.exit_code == 0 and "You have opened no lab yet" in done.stdout


def test_opening_tells_of_a_newer_version(course, opened, monkeypatch):
    """JupyterLab itself does not start here: what is said comes before."""
    monkeypatch.setattr(cli, "_free_port", lambda first: (_ for _ in ()).throw(LabError("no port")))
    assert "newer version" not in CliRunner().invoke(cli.app, ["lab", "99"]).stdout
    upstream(course, INTRO)
    was = opened.read_bytes()
    assert "pixelpolicy update 99" in CliRunner().invoke(cli.app, ["lab", "99"]).stdout
    assert opened.read_bytes() == was


# Any student, any course

WORDS = st.text("abcxyz \n=#`", min_size=1, max_size=12)


def course_cells(texts, exercises):
    cells = [(new_code_cell if i % 2 else new_markdown_cell)(text) for i, text in enumerate(texts)]
    for number, name in exercises:
        stub = f'def {name}(x):\n    """{name}"""\n    raise NotImplementedError("Exercise 1.{number}: write {name}")'
        parts = [f"### Exercise 1.{number}", stub, f"hints of {name}", f'check("1.{number}", {name})',
                 f'# Stuck?\n# {name} = catch_up("1.{number}")']  # fmt: skip
        for role, text in zip(ROLES, parts, strict=True):
            new = new_markdown_cell if role in ("header", "hints") else new_code_cell
            ours = {"role": role, "id": f"1.{number}"} | ({"name": name} if role == "exercise" else {})
            cells.append(new(text, metadata={"pixelpolicy": ours}))
    return cells


def with_ids(cells):
    taken = {}
    for c in cells:
        c.id = _cell_id(c, taken)
    return cells


@st.composite
def courses(draw):
    """Two versions of a lab: cells changed, taken out, added, moved; exercises too, and renumbered."""
    texts = draw(st.lists(WORDS, min_size=1, max_size=5))
    names = draw(st.permutations(["f", "g", "h"]))[: draw(st.integers(1, 3))]
    base = course_cells(texts, list(enumerate(names, 1)))
    names = draw(st.permutations(["f", "g", "h"]))[: draw(st.integers(1, 3))]
    new = course_cells(texts, list(enumerate(names, 1)))
    for c in list(new):
        what = draw(st.sampled_from("____cdam"))
        if what == "c":
            c.source = draw(WORDS) + c.source
        elif what == "d" and "pixelpolicy" not in c.metadata:
            new.remove(c)
        elif what == "a":
            new.insert(draw(st.integers(0, len(new))), new_markdown_cell(draw(WORDS)))
        elif what == "m":
            new.insert(draw(st.integers(0, len(new) - 1)), new.pop(new.index(c)))
    return with_ids(base), with_ids(new)


@st.composite
def students(draw, base):
    """What a student and an editor make of a lab."""
    mine = copying.deepcopy(base)
    for c in list(mine):
        what = draw(st.sampled_from("___wwidamM"))
        if what == "w":
            c.source = draw(st.sampled_from([c.source + "\n", ""])) + draw(WORDS) + " mine"
        elif what == "i":
            c.id = f"other-{mine.index(c)}"
        elif what == "d":
            mine.remove(c)
        elif what == "a":
            twin = draw(st.sampled_from([new_code_cell(draw(WORDS)), copying.deepcopy(c)]))
            twin.id = f"added-{len(mine)}"
            mine.insert(draw(st.integers(0, len(mine))), twin)
        elif what == "m":
            mine.insert(draw(st.integers(0, len(mine) - 1)), mine.pop(mine.index(c)))
        elif what == "M":
            c.metadata = nbformat.from_dict({})
    return mine


def lines(cells):
    return {line.strip() for c in cells for line in c.source.splitlines() if line.strip()}


def valid(cells):
    nbformat.validate(nbformat.v4.new_notebook(cells=copying.deepcopy(cells)))
    assert len({c.id for c in cells}) == len(cells)
    return [(c.id, c.cell_type, c.source) for c in cells]


many = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@many
@given(st.data())
def test_no_line_of_a_student_is_lost(data):
    base, new = data.draw(courses())
    mine = data.draw(students(base))
    for known in (base, None):
        merged, _ = merge(mine, new, known)
        valid(merged)
        lost = lines(mine) - lines(base) - lines(merged)
        assert not lost
        written = {c.source for c in mine} - {c.source for c in base} - {c.source for c in new}
        if known:  # whole, too, not only line by line
            assert {text for text in written if "mine" in text} <= {c.source for c in merged}
        answers = [c.source for c in mine if "def " in c.source and "mine" in c.source]
        assert set(answers) <= {c.source for c in merged}


@many
@given(st.data())
def test_twice_is_as_once(data):
    base, new = data.draw(courses())
    mine = data.draw(students(base))
    for known in (base, None):
        once = merge(mine, new, known)[0]
        twice, changes = merge(once, new, new)
        assert valid(twice) == valid(once)
        assert not changes.any


@many
@given(st.data())
def test_who_did_nothing_gets_the_other_s(data):
    base, new = data.draw(courses())
    assert valid(merge(base, new, base)[0]) == valid(new)
    mine = data.draw(students(base))
    kept = merge(mine, base, base)[0]
    # Of two cells that differ by spaces at the ends of lines alone, either may stand for the other.
    assert [(c.cell_type, text_of(c)) for c in kept] == [(c.cell_type, text_of(c)) for c in mine]


@many
@given(st.data())
def test_all_that_is_new_comes(data):
    base, new = data.draw(courses())
    mine = data.draw(students(base))
    merged, _ = merge(mine, new, base)
    fresh = {text_of(c) for c in new} - {text_of(c) for c in base}
    exercises = {text_of(c) for c in new if c.metadata.get("pixelpolicy", {}).get("role") in ("exercise", "catch-up")}
    assert fresh - exercises <= {text_of(c) for c in merged}


def test_the_arguments_are_left_as_they_are():
    base = with_ids(course_cells(["a", "b"], [(1, "f")]))
    new = with_ids(course_cells(["a", "c"], [(1, "f")]))
    before = json.dumps([base, new])
    merge(base, new, base)
    merge(base, new)
    assert json.dumps([base, new]) == before
