"""references.bib as pybtex, which makes the book's bibliography, reads it; and drift and unknown citations noticed."""

import dataclasses
import io
import os
import re
import shutil

import pytest

from pixelpolicy import atlas, cli, upkeep
from pixelpolicy.atlas import bibliography
from pixelpolicy.errors import AtlasError

PLAIN = atlas.Entry(
    key="black2023ddpo", name="DDPO", title="Training", authors="Black et al.", authors_checked=True, year=2023,
    arxiv="2305.13301", venue="ICLR 2024", venue_checked=True, domain="image", family="ppo", reward="", base_model="",
    code="", in_survey="unknown", one_line="", source="https://example.org/list (README.md)",
)  # fmt: skip


@pytest.fixture(scope="module")
def entries():
    return atlas.load()


@pytest.fixture(scope="module")
def parsed(root):
    return read((root / "book/references.bib").read_text(encoding="utf-8"))


@pytest.fixture
def course(root, tmp_path):
    """A course with the names of its labs, its references and no more."""
    for folder in ("chapters", "solutions", "book"):
        (tmp_path / folder).mkdir()
    for path in (root / "solutions").glob("*.py"):
        (tmp_path / "solutions" / path.name).touch()
    shutil.copy(root / "book/references.bib", tmp_path / "book/references.bib")
    shutil.copy(root / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def read(text: str):
    """The entries of BibTeX `text`; what pybtex would only warn of is an error."""
    import pybtex.errors
    from pybtex.database.input.bibtex import Parser

    before = pybtex.errors.strict
    pybtex.errors.set_strict_mode(True)
    try:
        return Parser().parse_stream(io.StringIO(text)).entries
    finally:
        pybtex.errors.set_strict_mode(before)


def shown(value: str) -> str:
    """What a reader sees of a field."""
    from pybtex.richtext import Text

    return str(Text.from_latex(value))


def made(**changes):
    """PLAIN with `changes`, through BibTeX and back."""
    entry = dataclasses.replace(PLAIN, **changes)
    return read(atlas.bibtex([entry]))[entry.key]


def test_the_course_has_the_references_its_atlas_gives(root, entries):
    assert (root / "book/references.bib").read_text(encoding="utf-8") == atlas.bibtex(entries)
    assert atlas.check(root) == [] and upkeep.references(root) == []


def test_every_entry_comes_back_whole(entries, parsed):
    assert list(parsed) == sorted(entry.key for entry in entries)
    for entry in entries:
        back = parsed[entry.key].fields
        assert shown(back["title"]) == entry.title
        assert back["year"] == str(entry.year)
        assert back.get("eprint", "") == entry.arxiv and ("archiveprefix" in back) == bool(entry.arxiv)


def test_a_style_keeps_the_capitals_and_formats_every_entry(entries, root):
    from pybtex.database import parse_file
    from pybtex.plugin import find_plugin

    style, text = find_plugin("pybtex.style.formatting", "unsrt")(), find_plugin("pybtex.backends", "text")()
    formatted = {
        entry.key: entry.text.render(text) for entry in style.format_bibliography(parse_file(root / bibliography.PLACE))
    }
    assert len(formatted) == len(entries)
    for entry in entries:
        assert entry.title in formatted[entry.key] and str(entry.year) in formatted[entry.key]
    assert "arXiv:2508.10316, doi:10.1007/s44336-025-00030-z" in formatted["liang2025survey"]
    assert "Vicinagearth 3(1), article 2." in formatted["liang2025survey"]


def test_what_was_not_checked_is_not_printed_as_if_it_were(entries, parsed):
    for entry in entries:
        note = parsed[entry.key].fields.get("note", "").lower()
        assert ("author list not checked" in note) == (bool(entry.authors) and not entry.authors_checked)
        venue = re.sub(r" \(doi .*\)", "", entry.venue).lower()
        assert not venue or (venue in note) == entry.venue_checked
        assert ("author" in parsed[entry.key].persons) == bool(entry.authors)


def test_order_does_not_depend_on_the_file(entries):
    assert atlas.bibtex(reversed(entries)) == atlas.bibtex(entries)


def test_an_entry_without_a_source_is_left_out():
    other = dataclasses.replace(PLAIN, key="other2023", arxiv="", source="")
    assert list(read(atlas.bibtex([other, PLAIN]))) == ["black2023ddpo"]
    assert not read(atlas.bibtex([other]))


@pytest.mark.parametrize(
    "title",
    [
        "Schrödinger, Müller & Søren: 100% of five for #1_a",
        "Ångström, Łukasz, Erdős, naïve façade, Ibáñez, Dvořák, straße, Ørsted, Æther",
        "Two -- or --- dashes, ''quotes'' and ?`a question",
        'A "quoted" word, π and 中文',
        "at @article ~ = (x), and % no comment",
    ],
)
def test_any_title_survives(title):
    assert shown(made(title=title).fields["title"]) == title


def test_letters_of_latin_are_written_in_ascii():
    text = bibliography.tex("Schrödinger & Łukasz, Erdős 100%")
    assert text == r"Schr{\"{o}}dinger \& {\L}ukasz, Erd{\H{o}}s 100\%" and text.isascii()


@pytest.mark.parametrize(
    ("authors", "last", "first"),
    [
        ("Black et al.", ["Black", "others"], ["", ""]),
        ("Watkins & Dayan", ["Watkins", "Dayan"], ["", ""]),
        ("Ho, Jain, Abbeel", ["Ho", "Jain", "Abbeel"], ["", "", ""]),
        ("Ronald J. Williams", ["Williams"], ["Ronald"]),
        ("Domingo-Enrich et al.", ["Domingo-Enrich", "others"], ["", ""]),
        ("van den Oord et al.", ["van den Oord", "others"], ["", ""]),
        ("Black Forest Labs", ["Black Forest Labs"], [""]),
        ("TeleAI (Liang et al.)", ["TeleAI", "Liang", "others"], ["", "", ""]),
        ("Müller & Søren", ["Müller", "Søren"], ["", ""]),
    ],
)
def test_authors_are_told_apart(authors, last, first):
    people = made(authors=authors).persons["author"]
    assert [shown(" ".join(person.last_names)) for person in people] == last
    assert [shown(" ".join(person.first_names)) for person in people] == first
    assert not any(person.prelast_names for person in people)


def test_every_group_is_known_as_one(entries):
    """A lone author of several words is a person or a group: which, no rule can tell."""
    lone = {entry.authors for entry in entries if re.fullmatch(r"[\w.-]+( [\w.-]+)+(?<!et al\.)", entry.authors)}
    persons = {"Richard Bellman", "Richard S. Sutton", "Ronald J. Williams", "Gerald Tesauro", "Nathan Lambert"}
    assert lone == persons | set(bibliography.GROUPS), "put the new one into GROUPS or into this list of persons"


def test_an_address_is_printed_where_there_is_no_arxiv_id():
    address = "https://example.org/a_paper%20b#c"
    assert "url" not in made(source=address).fields
    assert made(source=address, arxiv="").fields["url"] == address
    assert "url" not in made(source="https://example.org/list (README.md)", arxiv="").fields
    by_doi = made(source="https://doi.org/10.1007/BF00992698", doi="10.1007/BF00992698", arxiv="").fields
    assert by_doi["doi"] == "10.1007/BF00992698" and "url" not in by_doi
    of_venue = made(venue="TPAMI 2025", doi="10.1109/tpami.2025.3609680").fields
    assert of_venue["doi"] == "10.1109/tpami.2025.3609680" and of_venue["note"] == "TPAMI 2025"


def test_drift_is_noticed_and_mended(course):
    path = course / "book/references.bib"
    assert atlas.check(course) == []
    path.write_text(path.read_text(encoding="utf-8").replace("{2305.13301}", "{2305.13302}"), encoding="utf-8")
    assert atlas.check(course) == ["book/references.bib is not what the atlas gives; run: pixelpolicy references"]
    path.unlink()
    assert len(upkeep.references(course)) == 1
    assert atlas.write(course) == path and atlas.check(course) == []
    assert [file.name for file in path.parent.iterdir()] == ["references.bib"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AtlasError, match="cannot be read"):
        atlas.check(course)
    assert "cannot be read" in upkeep.references(course)[0]


def test_a_failed_writing_leaves_the_old_file(course, monkeypatch):
    path = course / "book/references.bib"
    path.write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AtlasError, match="could not write .*references.bib: No space left"):
        atlas.write(course)
    assert path.read_text(encoding="utf-8") == "old" and [f.name for f in path.parent.iterdir()] == ["references.bib"]


def test_citations_of_nothing_are_found_where_they_stand(course):
    (course / "chapters/12-grpo.md").write_text(
        "Text {cite:p}`black2023ddpo, nobody2030`.\n\n{cite:t}`nobody2031` and {cite}`liu2025flowgrpo`\n",
        encoding="utf-8",
    )
    (course / "solutions/12-grpo.py").write_text(
        "# %% [markdown]\n# As {cite:p}`black2023ddpo,\n# nobody2032` says.\n", encoding="utf-8"
    )
    (course / "book/intro.md").write_text("{cite:p}`nobody2033`, and `nobody2034` is only code.\n", encoding="utf-8")
    found = [re.match(r"(\S+):(\d+): cites '(\w+)'", line).groups() for line in atlas.missing_citations(course)]
    assert found == [
        ("book/intro.md", "1", "nobody2033"),
        ("chapters/12-grpo.md", "1", "nobody2030"),
        ("chapters/12-grpo.md", "3", "nobody2031"),
        ("solutions/12-grpo.py", "2", "nobody2032"),
    ]
    assert atlas.check(course) == atlas.missing_citations(course) == upkeep.references(course)


def test_labs_that_are_not_there_are_told(course, monkeypatch):
    one = dataclasses.replace(PLAIN, runs="lab 12, lab 77, finetune.grpo")
    monkeypatch.setattr(bibliography, "load", lambda: [one])
    assert atlas.check(course)[1:] == ["black2023ddpo: runs names 'lab 77', and there is no such lab in solutions/"]


def test_chapters_that_cite_are_found(course):
    (course / "chapters/12-grpo.md").write_text("{cite:p}`black2023ddpo, liu2025flowgrpo`", encoding="utf-8")
    (course / "chapters/09-ddpo.md").write_text("{cite:t}`black2023ddpo` {cite:t}`black2023ddpo`", encoding="utf-8")
    assert atlas.citing_chapters(course) == {"black2023ddpo": ["09-ddpo", "12-grpo"], "liu2025flowgrpo": ["12-grpo"]}


def test_enough_entries_lead_to_a_lab_or_chapter(root, entries):
    cited = atlas.citing_chapters(root)
    linked = sum(bool(entry.places or entry.key in cited) for entry in entries)
    print(f"linked to a lab, algorithm or chapter: {linked}; to what runs: {sum(bool(e.places) for e in entries)}")
    assert linked >= 112


def test_an_entry_without_a_source_cannot_be_cited(course, monkeypatch):
    bare = dataclasses.replace(PLAIN, arxiv="", source="")
    monkeypatch.setattr(bibliography, "load", lambda: [bare])
    (course / "chapters/01-planning.md").write_text("{cite:p}`black2023ddpo`", encoding="utf-8")
    assert atlas.missing_citations(course) == [
        "chapters/01-planning.md:1: cites 'black2023ddpo', whose entry has no source"
    ]


def test_the_command(course, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("PIXELPOLICY_ROOT", str(course))
    run = CliRunner().invoke
    assert run(cli.app, ["references", "--check"]).exit_code == 0
    (course / "book/references.bib").write_text("", encoding="utf-8")
    assert run(cli.app, ["references", "--check"]).exit_code == 1
    assert (course / "book/references.bib").read_text(encoding="utf-8") == ""
    done = run(cli.app, ["references"])
    assert done.exit_code == 0 and "written: book/references.bib" in done.output
    (course / "chapters/12-grpo.md").write_text("{cite:p}`nobody2030`", encoding="utf-8")
    assert run(cli.app, ["references"]).exit_code == 1 and atlas.check(course)
