"""The instructor's guide: its tables agree with the labs, its plans fit, its commands are there."""

import itertools
import json
import re
import shlex

import pytest
import typer

from pixelpolicy.book.instructors_page import NAME, attacks, class_timed, guide
from pixelpolicy.cli import app
from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.course.syllabi import COURSE, PLANS, SCHOOL, WORKSHOP, Session, labs_of, tasks_of
from pixelpolicy.errors import BookError, LabError


@pytest.fixture(scope="module")
def labs(root):
    return labs_of(root)


@pytest.fixture(scope="module")
def page(root):
    return guide(root, (root / "book" / NAME).read_text())


@pytest.fixture(scope="module")
def handed_out(root):
    """Minutes and points of every exercise by id, from the labs that students get."""
    found = {}
    for path in (root / "labs").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            ours = cell["metadata"].get("pixelpolicy", {})
            if ours.get("role") == "exercise":
                found[ours["id"]] = (ours["minutes"], ours["points"])
    return found


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]


def test_what_grading_took_is_that_of_the_records(page, root, tmp_path):
    records = [json.loads(path.read_text()) for path in (root / "benchmarks" / "grading").glob("*.json")]
    assert records
    for made in records:
        assert f"{made['seconds'] / 60:.1f} minutes for {made['students']} notebooks of lab {made['lab']:02d}" in page
        assert sum(made["verdicts"].values()) == sum(made["handed_in"].values())
        assert made["verdicts"]["passed"] >= made["handed_in"]["solution"]
        assert made["verdicts"]["stopped"] >= made["handed_in"]["endless loop"]
    with pytest.raises(BookError, match="run benchmarks/grading_time.py"):
        class_timed(tmp_path)


def test_the_table_of_labs_is_that_of_the_labs(page, handed_out, root):
    section = page.split("## Points and minutes")[1].split("```{dropdown}")[0]
    table = {row[0]: row[1:] for row in rows(section)[1:]}
    for lab, ids in itertools.groupby(sorted(handed_out, key=lambda id: float(id)), key=lambda id: int(float(id))):
        name = next((root / "labs").glob(f"{lab:02d}-*.ipynb")).stem
        told = table.pop(f"{{doc}}`{name} <labs/{name}>`")
        ids = list(ids)
        assert told[0] == str(len(ids))
        assert int(told[1]) == sum(handed_out[id][0] for id in ids), name
        assert float(told[2]) == sum(handed_out[id][1] for id in ids), name
        peaks = [run["peak_memory_mb"] for run in read_benchmark(root / "benchmarks" / f"{name}.json")]
        assert told[4] == f"{max(peaks):,}"
    assert table.keys() == {"*all*"}
    assert table["*all*"][1] == f"{sum(minutes for minutes, _ in handed_out.values()):,}"
    exercises = {row[0]: row for row in rows(page.split("```{dropdown}")[1].split("```")[0])[1:]}
    assert {id: (int(row[4]), float(row[5])) for id, row in exercises.items()} == handed_out


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_of_the_exercises_and_fits(name, page, labs, handed_out, root):
    heading = {"school": "A school of", "course": "A course of", "workshop": "A workshop of"}[name]
    table = rows(page.split(f"### {heading}")[1].split("\n###")[0].split("\n## ")[0])[1:]
    assert len(table) == len(PLANS[name]) + 1
    for session, row in zip(PLANS[name], table, strict=False):
        ids = [id for w in session.work for id in handed_out if id == w or ("." not in w and float(id) // 1 == int(w))]
        minutes = sum(handed_out[id][0] for id in ids)
        assert row[4:] == [str(session.minutes), str(minutes or ""), f"{sum(handed_out[id][1] for id in ids) or '':g}"
                           if ids else ""]  # fmt: skip
        numbers = {int(float(w)) for w in session.work}
        trainings = 0.0
        for number in (n for n in numbers if str(n).zfill(2) in session.work):
            runs = read_benchmark(root / "benchmarks" / f"{labs[number].name}.json")
            trainings += min(run["cpu_seconds"] for run in runs) / 60
        assert minutes + trainings <= session.minutes, f"{session.when}: {minutes} + {trainings:.0f} minutes"
        assert all(chapter in labs for chapter in session.chapters)


@pytest.mark.parametrize("name", ["school", "course"])
def test_a_plan_keeps_the_order_that_labs_ask_for(name, labs):
    done = []
    for number in (int(work) for session in PLANS[name] for work in session.work):
        opening = "\n".join(cell.text for cell in labs[number].cells[:2])
        sentence = re.search(r"You need.*?\.", opening, re.S)
        needed = set()
        for first, link, last in re.findall(r"labs?\s(\d\d)(?:\s(to|and)\s(\d\d))?", sentence[0] if sentence else ""):
            needed |= set(range(int(first), int(last) + 1)) if link == "to" else {int(first), int(last or first)}
        assert number != 15 or needed == {10, 11, 12, 13}, "the labs' own words are read"
        assert needed <= {*done}, f"lab {number} needs {sorted(needed)}"
        assert number not in done, "twice"
        done.append(number)
    if name == "course":
        assert done == sorted(labs), "every lab"


def test_plans_have_the_length_that_they_say():
    assert len(SCHOOL) == 5 and len(COURSE) == 10
    clock = 0
    for session in WORKSHOP:
        assert session.when == f"{clock // 60}:{clock % 60:02d}"
        clock += session.minutes
    assert clock == 180


def test_a_plan_of_what_is_not_there_is_told(labs):
    assert [task.id for task in tasks_of(["7.1", "12"], labs)][:2] == ["7.1", "12.1"]
    for name in ("7.99", "77"):
        with pytest.raises(LabError, match=f"names {name}"):
            tasks_of(Session("now", 5, "", work=(name,)).work, labs)


def test_every_place_is_filled(page, root, tmp_path):
    assert "<!--made" not in page
    assert f"{Limits().seconds:g} s of wall time, {Limits().cpu_seconds} s of CPU, {Limits().memory_mb} MB" in page
    assert len(attacks(root)) >= 25 and f"holds {len(attacks(root))} answers" in page and "fork bomb" in page
    with pytest.raises(BookError, match="'moon', which nothing makes"):
        guide(root, "<!--made:moon-->")
    with pytest.raises(BookError, match="cannot be read"):
        attacks(tmp_path)


def test_its_links_lead_to_pages(page, root):
    own = {"mutation", "index", "atlas", "results"}
    for target in re.findall(r"\{doc\}`[^`<]*<([^>]+)>`", page):
        folder, _, name = target.partition("/")
        place = root / {"labs": f"solutions/{name}.py", "chapters": f"chapters/{name}.md"}.get(folder, target)
        assert place.exists() or target in own, target


def test_its_commands_are_commands(page):
    known = typer.main.get_command(app).commands
    fences = re.findall(r"^```([^\n]*)\n(.*?)^```$", page, re.M | re.S)
    shell = [fence.replace("\\\n", "") for kind, fence in fences if kind == "bash"]
    lines = [line for fence in shell for line in fence.splitlines()]
    lines += [code for code in re.findall(r"`(pixelpolicy [^`]+)`", page)]
    told = [shlex.split(line)[1:] for line in lines if line.startswith("pixelpolicy ")]
    assert {words[0] for words in told} >= {"release", "grade", "lab"}
    for name, *words in told:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, (name, words)
    grade = {option for parameter in known["grade"].params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z]+)", page)) <= grade
