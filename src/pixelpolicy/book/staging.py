"""Staging: everything that the book is made of, laid out as jupyter-book wants it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import yaml

from pixelpolicy.book.algorithms_page import place_page
from pixelpolicy.book.explorer import place_explorer
from pixelpolicy.book.glossary import place_glossary
from pixelpolicy.book.instructors_page import place_guide
from pixelpolicy.book.library import place_library
from pixelpolicy.book.mutation_page import place_page as place_mutation_page
from pixelpolicy.book.pages import lab_page, pictures_apart
from pixelpolicy.book.results import results_page
from pixelpolicy.book.survey_page import survey_page
from pixelpolicy.course.files import repository
from pixelpolicy.course.source import sources
from pixelpolicy.errors import BookError

# The first chapter of each part.
PARTS = {
    1: "Foundations",
    6: "A generator is a policy",
    9: "Images",
    15: "Video and three dimensions",
    18: "Wider views",
}
LIBRARY_PART = "Library"
LAST_PART = "Reference"
# Pages of the book's own, where they are there.
OWN = ("algorithms", "reward-explorer", "atlas", "survey", "glossary", "instructors", "mutation")
REFERENCES = "references.bib"


def stage(root: Path, assets: Path, folder: Path, references: Path | None = None) -> Path:
    """Lay the book's sources out in `folder`, which is made anew; returns it.

    From `book/` come the configuration, the pages and the static files, from `chapters/` the text, from `solutions/`
    and `book/executed/` the labs, from `benchmarks/` the results and what the reward explorer shows, from `assets`
    scripts and fonts. Raises BookError
    where a file that the book cannot do without is missing, or a name has no number.
    """
    references = references or root / "book" / REFERENCES
    for needed in (root / "book" / "_config.yml", root / "book" / "index.md", references):
        if not needed.exists():
            raise BookError(f"the book needs {needed}, which is not there; `git checkout` brings it back")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book", folder, ignore=shutil.ignore_patterns("executed", "assets.json", "*.part"))
    shutil.copy(references, folder / REFERENCES)
    shutil.copytree(root / "chapters", folder / "chapters")
    shutil.copytree(assets, folder / "assets", ignore=shutil.ignore_patterns(".*"))
    for own in ("widgets", "atlas", "front"):
        shutil.copytree(folder / own, folder / "assets" / own, dirs_exist_ok=True)
    _anywidget(folder / "assets" / "widgets" / "anywidget.js")
    place_explorer(root, folder / "assets")
    place_page(root, folder)
    place_mutation_page(root, folder)
    (folder / "survey.md").write_text(survey_page(folder), encoding="utf-8")
    place_glossary(folder)
    place_guide(root, folder)
    (folder / "labs").mkdir()
    for path in sources(root):
        page = lab_page(root, path)
        pictures_apart(page, folder / "assets" / "labs", "../_static/labs/")
        nbformat.write(page, folder / "labs" / f"{path.stem}.ipynb")
    (folder / "results.md").write_text(results_page(root), encoding="utf-8")
    _write_yaml(folder / "_toc.yml", table_of_contents(folder, place_library(folder)))
    _name_repository(root, folder / "_config.yml")
    return folder


def table_of_contents(staged: Path, library: list[str]) -> dict[str, Any]:
    """The contents of a staged book: chapters by number in their parts, each chapter's lab below it; the library."""
    chapters, labs = _numbered(staged / "chapters", "md"), _numbered(staged / "labs", "ipynb")
    parts: dict[str, list[dict[str, Any]]] = {}
    for number in sorted(chapters | labs):
        pages = [
            f"{kind}/{names[number]}" for kind, names in (("chapters", chapters), ("labs", labs)) if number in names
        ]
        entry: dict[str, Any] = {"file": pages[0]}
        if len(pages) == 2:
            entry["sections"] = [{"file": pages[1]}]
        first = max((first for first in PARTS if first <= number), default=min(PARTS))
        parts.setdefault(PARTS[first], []).append(entry)
    parts[LIBRARY_PART] = [{"file": name} for name in library]
    own = [name for name in OWN if (staged / f"{name}.md").exists()]
    parts[LAST_PART] = [{"file": name} for name in (*own, "results", "bibliography")]
    listed = [{"caption": caption, "chapters": entries} for caption, entries in parts.items()]
    return {"format": "jb-book", "root": "index", "parts": listed}


def _numbered(folder: Path, kind: str) -> dict[int, str]:
    """Files `NN-name.kind` of a folder by their number, without the ending."""
    found: dict[int, str] = {}
    for path in sorted(folder.glob(f"*.{kind}")):
        if not re.match(r"\d\d-", path.name):
            raise BookError(f"{path.name} has no place in the book: a chapter or lab is called NN-name, as in 12-grpo")
        if (number := int(path.name[:2])) in found:
            raise BookError(f"{path.name} and {found[number]} have the same number: give one of them another")
        found[number] = path.stem
    return found


def _anywidget(target: Path) -> None:
    """anywidget's own script for pages, from the Python package whose version the widgets' states name."""
    import anywidget

    shutil.copy(Path(anywidget.__file__).parent / "nbextension" / "index.js", target)


def _name_repository(root: Path, config: Path) -> None:
    """Put the public address of `pyproject.toml` into the configuration, where there is one."""
    if address := repository(root):
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        settings["repository"] = {"url": address, "path_to_book": "book", "branch": "main"}
        settings["html"]["use_repository_button"] = True
        _write_yaml(config, settings)


def _write_yaml(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")
