"""What comes of verdicts: tables for gradebooks, feedback for students, the report for the instructor."""

import csv
import html.parser
import os

import pytest
from markdown_it import MarkdownIt

from pixelpolicy.course.grading import feedback, report, tables
from pixelpolicy.course.grading.alike import resemblances
from pixelpolicy.course.grading.examine import Verdict
from pixelpolicy.course.grading.grade import Grades, Paper
from pixelpolicy.course.source import find_source, read_source
from pixelpolicy.errors import GradingError

HOSTILE = (
    "</pre><script>alert(1)</script> ![x](http://evil.example/x.png) `` ``` <img src=x onerror=alert(1)> \u202e\ud800"
)


def verdict(id="99.1", share=1.0, **more):
    name, of = {"99.1": ("centred", 2), "99.2": ("squared_error", 1.5)}[id]
    state = "passed" if share == 1 else "partial" if share else "failed"
    return Verdict(id, name, of, share, **{"state": state, **more})


def paper(student, one, two, **more):
    verdicts = {"99.1": one if isinstance(one, Verdict) else verdict("99.1", one), "99.2": verdict("99.2", two)}
    return Paper(student, 99, verdicts, **more)


@pytest.fixture
def graded(course):
    """The grades of a class of one lab, of these papers."""
    source = read_source(find_source(course, 99))
    return lambda *papers, notes=(): Grades(list(papers), {99: source}, list(notes))


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# Tables -----------------------------------------------------------------------------------------------------------


def test_grades_have_every_exercise_every_lab_and_what_went_wrong(graded, tmp_path):
    broken = Paper("ben", 99, {id: verdict(id, 0.0, state="missing") for id in ("99.1", "99.2")}, fault="no notebook")
    tables.write_tables(graded(paper("Anna", 1.0, 1 / 3), broken), tmp_path)
    assert rows(tmp_path / "grades.csv") == [
        ["student", "99.1", "99.2", "lab 99", "points", "of", "remarks"],
        ["Anna", "2", "0.5", "2.5", "2.5", "3.5", ""],
        ["ben", "0", "0", "0", "0", "3.5", "lab 99: no notebook"],
    ]


def test_canvas_gets_the_columns_that_it_exports_and_only_its_own_numbers_as_id(graded, tmp_path):
    """canvas-lms, lib/gradebook_importer.rb: the first column holds Student, the second ID, the last before the
    assignments Section; a row whose first cell holds "Points Possible" is no student's."""
    (tmp_path / "roster.csv").write_text(
        'student,name,id,login,section,canvas\nanna,"Miller, Anna",s20261234,am12,A1,7001\n'
        "ben,Points Possible Ben,s2,,,\n"
    )
    known = tables.read_roster(tmp_path / "roster.csv")
    tables.write_tables(graded(paper("anna", 1.0, 1.0), paper("ben", 0.5, 0.0), paper("cleo", 0, 0)), tmp_path, known)
    head, possible, *students = rows(tmp_path / "canvas.csv")
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Lab 99-means"]
    assert possible == ["    Points Possible", "", "", "", "", "3.5"]
    assert students[0] == ["Miller, Anna", "7001", "s20261234", "am12", "A1", "3.50"]
    assert students[1] == [" Ben", "", "s2", "ben", "", "1.00"]
    assert students[2] == ["cleo", "", "", "cleo", "", "0.00"]


def test_moodle_gets_the_columns_of_its_worksheet_and_only_its_own_numbers(graded, tmp_path):
    """moodle, mod/assign/feedback/offline/importgradeslib.php: the number stands behind "Participant ", of which it
    takes twelve signs away whatever they are; comments are HTML (feedback/comments/locallib.php)."""
    text = "student,name,id,email,moodle\nanna,Anna Miller,s20261234,a@example.org,4711\n,,,,\ncleo,,,,Participant 12\n"
    (tmp_path / "roster.csv").write_text(text)
    known = tables.read_roster(tmp_path / "roster.csv")
    wrong = verdict("99.1", 0.5, hint="Is a < b & c?")
    tables.write_tables(graded(*(paper(s, wrong, 1.0) for s in ("anna", "ben-0000-0012", "cleo"))), tmp_path, known)
    head, *students = rows(tmp_path / "moodle-99.csv")
    assert head == ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade",
                    "Grade can be changed", "Last modified (submission)", "Last modified (grade)",
                    "Feedback comments"]  # fmt: skip
    assert [row[0] for row in students] == ["Participant 4711", "", "Participant 12"]
    assert students[0][1:6] == ["Anna Miller", "a@example.org", "Submitted for grading", "2.50", "3.50"]
    assert students[0][9] == "99.1: 1 of 2 - Is a &lt; b &amp; c?; 99.2: 1.5 of 1.5"


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-x", "@SUM(A1)", "\t=1", " =1", "\uff1d1+1", "\u202e=1", "\r=1", "\n=1"]
)
def test_no_name_is_a_formula(graded, tmp_path, name):
    written = tables.write_tables(graded(paper(name, 1.0, 1.0)), tmp_path)
    for path in written:
        for row in rows(path):
            assert not any(cell.strip()[:1] in ("=", "+", "@", "\uff1d") for cell in row), row
            assert "\n" not in "".join(row)
    assert tables.safe("-1.5") == "-1.5" and tables.safe("-x") == "'-x" and tables.safe("a\ud800b") == "a b"


def test_a_roster_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name\nAnna\n")
    (tmp_path / "b.csv").write_bytes(b"student\n\xff\n")
    for name, said in {"a.csv": "no column `student`", "b.csv": "cannot be read", "c.csv": "cannot be read"}.items():
        with pytest.raises(GradingError, match=said):
            tables.read_roster(tmp_path / name)
    assert tables.read_roster(None) == {}


# Feedback ---------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_a_student_reads_what_failed_why_and_what_was_earned(graded, tmp_path):
    held = {"each group's mean is taken away": True, "the gradient flows through the mean": False}
    part = verdict("99.1", 0.5, held=held, hint="The mean is cut off.", explained=["came out  1", "expected  2"])
    grades = graded(paper("Anna", part, 1.0))
    written = feedback.write_feedback(grades, tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in written] == [
        "feedback/Anna/99-means.md", "feedback/Anna/99-means.html",
    ]  # fmt: skip
    text, page = (path.read_text(encoding="utf-8") for path in written)
    for said in ("99.1 Centred rewards: partly right, 1 of 2 points", "2.5 of 3.5 points", "came out  1",
                 "✓ each group", "✗ the gradient flows", "The mean is cut off."):  # fmt: skip
        assert said in text and said in "".join(Page(page).words).replace("&#x27;", "'"), said


def test_nothing_that_a_student_wrote_is_markup(graded, tmp_path):
    part = verdict("99.1", 0.0, held={"one": False}, explained=[HOSTILE, "    " + HOSTILE, "```"])
    grades = graded(paper(HOSTILE, part, 0.0, fault=""))
    text, page = (path.read_text(encoding="utf-8") for path in feedback.write_feedback(grades, tmp_path))
    assert not {"script", "img"} & set(Page(page).tags) and page.count("<pre>") == 1
    assert "default-src 'none'" in page
    rendered = MarkdownIt("commonmark").render(text)
    assert not {"script", "img", "a"} & set(Page(rendered).tags) and rendered.count("<pre>") == 1
    assert "<script>" in "".join(Page(rendered).words)  # it is shown, as text
    assert "\u202e" not in text + page


@pytest.mark.parametrize(
    "student", ["../../etc", "/etc", "..", ".", "", "a/b", "a\0b", "x" * 300, "\U00010400" * 90, "\udcff", "nul:", "é"]
)
def test_a_students_folder_stays_inside(student):
    name = feedback.folder_of(student)
    assert name not in ("", ".", "..") and not set(name) & set("/\\:\0") and len(os.fsencode(name)) <= 255


def test_two_students_never_share_a_folder():
    names = ["a/b", "a_b", "a\\b", "a:b", "\udcff", "\udcfe", "\u0441", "c", "a_b ", ".a_b", "x" * 200, "x" * 201]
    assert len({feedback.folder_of(name) for name in names}) == len(names)


def test_a_fault_of_the_notebook_is_said_once(graded):
    source = graded().sources[99]
    broken = paper("ben", 0.0, 0.0, fault="it is no file")
    assert feedback.markdown(broken, source).count("could not be graded: it is no file") == 1
    assert feedback.page(broken, source).count("could not be graded: it is no file") == 1


# Report -----------------------------------------------------------------------------------------------------------


def test_difficulty_and_discrimination_are_what_they_are_called():
    papers = [paper(name, one, two) for name, one, two in (("a", 1, 1), ("b", 1, 1), ("c", 0, 0.5), ("d", 0, 0))]
    first, second = report.items_of(papers)
    assert first.difficulty == 0.5 and second.difficulty == 0.625
    # Pearson's correlation of 1, 1, 0, 0 with 1.5, 1.5, 0.75, 0: 0.28125 / (0.5 * sqrt(0.38671875))
    assert first.discrimination == pytest.approx(0.28125 / (0.5 * 0.38671875**0.5))
    assert report.correlation([1, 1, 1], [0, 1, 2]) is None and report.correlation([0, 1], [0, 1]) is None
    assert report.items_of([]) == []


def test_the_report_tells_of_mistakes_likeness_and_notebooks_that_were_not_read(graded, tmp_path):
    long = "\n".join(f"    step_{n} = rewards * {n} - groups" for n in range(12))
    codes = {"anna": long, "ben": long, "cleo": "    return rewards - 1", "dan": "    return groups + rewards"}
    papers = []
    for number, (student, code) in enumerate(codes.items()):
        wrong = verdict("99.1", 0.5 * (number % 2), mistake="" if number == 3 else "sign", seconds=1.0 + number)
        text = f"def centred(rewards, groups):\n{code}"
        papers.append(paper(student, wrong, 1.0 - number / 4, code={"99.1": text}))
    papers.append(paper("<b>eve\ud800", 0.0, 0.0, fault="it is no file"))
    page = report.write_report(graded(*papers, notes=["<i>x\ud800: a link"]), tmp_path).read_text(encoding="utf-8")
    words = "".join(Page(page).words)
    assert "anna and ben: 100%" in words and "cleo and" not in words and "sign 3" in words
    assert "<b>eve : it is no file" in words and "<i>x : a link" in words and not {"b", "i"} & set(Page(page).tags)
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert pictures == {f"99-{name}.png" for name in ("points", "items", "mistakes", "time")}
    assert page.count("<img") == page.count('alt="') == 4


def test_likeness_is_of_what_is_rare_whatever_the_layout():
    body = "\n".join(f"    value_{n} = first({n}) * second" for n in range(10))
    other = body.replace("\n", "  # said otherwise\n\n").replace("    ", "        ")
    texts = {"anna": body, "ben": other, "cleo": "    return 1", "dan": "    return 2", "eve": "    return 3"}
    papers = [Paper(name, 99, {}, {"99.1": f"def f(x):\n{text}\n"}) for name, text in texts.items()]
    (likeness, one, two), *rest = resemblances(papers)
    assert (one, two) == ("anna", "ben") and likeness > 0.95 and not rest
    everybody = [Paper(str(n), 99, {}, {"99.1": f"def f(x):\n{body}\n"}) for n in range(6)]
    assert not resemblances(everybody)  # what all have written tells nothing
    assert not resemblances([Paper("a", 99, {}, {"99.1": "'''"}), Paper("b", 99, {}, {"99.1": "'''"})])
