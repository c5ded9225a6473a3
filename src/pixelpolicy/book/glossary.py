"""The glossary: one file of terms and symbols makes its page, and leads each chapter's first use of a term to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from pixelpolicy.errors import BookError

FILE, PAGE = "glossary.yaml", "glossary"
# What is no prose of a chapter, as Markdown has it: comments, code, figures and formulas, the lines of other
# directives and their options, headings, tables, links, roles, code and formulas in a line.
NO_PROSE = re.compile(
    r"<!--.*?-->|^```(?:[a-z]*|\{(?:figure|code|code-block|math|reward-explorer)\}[^\n]*)\n.*?^```$|^\$\$.*?\$\$"
    r"|^(?:`{3,}|:{3,})[^\n]*$|^:[\w-]+:[^\n]*$|^\#[^\n]*$|^\|[^\n]*$"
    r"|!?\[[^\]]*\](?:\([^)]*\))?|\{[\w:-]+\}`[^`]*`|`[^`]*`|\$[^$]+\$|<[^>\n]*>",
    re.M | re.S,
)


@dataclass(frozen=True)
class Term:
    """A term, what it means here, how it stands in a text, and the chapters where that means something else."""

    term: str
    says: str
    found: str = ""
    not_in: tuple[int, ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern:
        """A blank of `found` may be the end of a line in a text. Small letters; what is written large is so meant."""
        found = self.found or rf"\b{re.escape(self.term)}s?\b".replace(r"\ ", " ")
        return re.compile(found.replace(" ", r"\s+"), re.I)

    def first(self, prose: str, chapter: int) -> tuple[int, int] | None:
        """Where the first use lies in the prose of a chapter, from and to; None where there is none."""
        met = None if chapter in self.not_in else self.pattern.search(prose)
        if met is None:
            return None
        part = next((name for name, value in met.groupdict().items() if value is not None), 0)
        return met.span(part)


@dataclass(frozen=True)
class Symbol:
    """A symbol in TeX, how it stands in a chapter, and what it means."""

    symbol: str
    found: str
    says: str


def read_glossary(folder: Path) -> tuple[list[Term], list[Symbol]]:
    """The terms, by the alphabet, and the symbols of `folder/glossary.yaml`; none of either where it is not there.

    Raises BookError where a term is there twice, or an entry has an unknown field or lacks one.
    """
    if not (folder / FILE).exists():
        return [], []
    read = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
    try:
        terms = [Term(**entry | {"not_in": tuple(entry.get("not_in", ()))}) for entry in read["terms"]]
        symbols = [Symbol(**entry) for entry in read["symbols"]]
    except (TypeError, KeyError) as error:
        raise BookError(f"{folder / FILE} holds an entry that is none ({error}); its head says what one has") from error
    names = [entry.term.casefold() for entry in terms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BookError(f"{folder / FILE} has {', '.join(twice)} twice; one term has one meaning here")
    return sorted(terms, key=lambda entry: entry.term.casefold()), symbols


def prose_of(text: str) -> str:
    """A chapter with blanks in place of all that is no prose, so that places stay the same."""
    return NO_PROSE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def uses(text: str, chapter: int, terms: list[Term]) -> dict[str, tuple[int, int]]:
    """The first use of each term in a chapter's text, in order; where two overlap, the longer one counts."""
    free, found = prose_of(text), {}
    met = {entry: entry.first(free, chapter) for entry in terms}
    for entry in sorted((entry for entry in terms if met[entry]), key=lambda entry: met[entry][0] - met[entry][1]):
        if place := entry.first(free, chapter):
            start, end = found[entry.term] = place
            free = free[:start] + "\0" * (end - start) + free[end:]
    return dict(sorted(found.items(), key=lambda item: item[1]))


def linked(text: str, chapter: int, terms: list[Term]) -> str:
    """A chapter's text in which the first use of each term leads to the glossary."""
    for name, (start, end) in reversed(uses(text, chapter, terms).items()):
        text = f"{text[:start]}{{term}}`{text[start:end]} <{name}>`{text[end:]}"
    return text


def place_glossary(folder: Path) -> None:
    """Link the chapters of the staged book `folder`, and write its page of terms and symbols."""
    terms, symbols = read_glossary(folder)
    (folder / FILE).unlink(missing_ok=True)
    chapters = {path: path.read_text(encoding="utf-8") for path in sorted((folder / "chapters").glob("[0-9]*.md"))}
    used: dict[str, list[str]] = {}
    for path, text in chapters.items():
        for name in uses(text, int(path.name[:2]), terms):
            used.setdefault(name, []).append(path.stem)
        path.write_text(linked(text, int(path.name[:2]), terms), encoding="utf-8")
    met = {entry.symbol: [path.stem for path, text in chapters.items() if entry.found in text] for entry in symbols}
    (folder / f"{PAGE}.md").write_text(page(terms, symbols, used | met), encoding="utf-8")


def page(terms: list[Term], symbols: list[Symbol], used: dict[str, list[str]]) -> str:
    """The page in Markdown; `used` has for each term and symbol the chapters it stands in, in order."""

    def at(name: str) -> str:
        first = used.get(name, [])[:1]
        return "".join(f"{{doc}}`chapter {int(stem[:2])} <chapters/{stem}>`" for stem in first)

    listed = "\n".join(f"{entry.term}\n  {entry.says} {at(entry.term)}\n" for entry in terms)
    rows = "\n".join(f"| ${entry.symbol}$ | {entry.says} | {at(entry.symbol)} |" for entry in symbols)
    return (
        "# Terms and symbols\n\nOne meaning each, the same in all chapters, in the labs and in the library. The first "
        "use of a term in a chapter leads here; the link behind an entry leads to the first chapter that uses it.\n\n"
        f"## Terms\n\n```{{glossary}}\n{listed}```\n\n"
        f"## Symbols\n\n| symbol | stands for | first in |\n|---|---|---|\n{rows}\n"
    )
