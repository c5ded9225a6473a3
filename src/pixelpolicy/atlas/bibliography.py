"""book/references.bib, made from the atlas: what may be printed of a paper, in BibTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from pixelpolicy.atlas.data import Entry, load
from pixelpolicy.errors import AtlasError
from pixelpolicy.files import write_whole

PLACE = Path("book", "references.bib")
# Not to be taken for a given name and a surname.
GROUPS = ("Black Forest Labs", "Meituan LongCat Team", "Tencent Hunyuan", "Wan Team")
HEAD = "% Made by `pixelpolicy references` from src/pixelpolicy/atlas/methods.yaml. Change that file, not this one.\n"

SPECIAL = {
    "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}",
    "ß": r"{\ss}", "ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}", "æ": r"{\ae}", "Æ": r"{\AE}",
    "œ": r"{\oe}", "Œ": r"{\OE}", "ı": r"{\i}",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0328": "k",
}  # fmt: skip
# Pairs that TeX would set as one sign, such as a dash or a quotation mark.
LIGATURES = r"(?<=-)(?=-)|(?<=')(?=')|(?<=`)(?=`)|(?<=[?!])(?=`)"
CITATION = r"\{cite(?::[a-z]+)?\}`([^`]+)`"


def bibtex(entries: Iterable[Entry]) -> str:
    """BibTeX of `entries`, sorted by key. An entry without a source is left out: nothing of it has been verified.

    Authors are printed where they are known, because styles make labels of them; a list that was not checked says so
    in `note`. A venue is printed, in `note` and with its own year, only where it was checked. `year` is the data's:
    that of the first posting. A title is braced whole: its capitals stay as the data has them. The arXiv id stands in
    `eprint`; where there is none, `url` or `doi` is the address at which the title was seen, if that is all the
    source says.
    """
    return HEAD + "".join(_record(entry) for entry in sorted(entries, key=lambda e: e.key) if entry.source.strip())


def _record(entry: Entry) -> str:
    remarks = [tex(entry.venue)] if entry.venue_checked else []
    if entry.authors and not entry.authors_checked:
        remarks.append("author list not checked")
    note = "; ".join(remarks)
    lines = {
        "author": " and ".join(map(_name, authors(entry))),
        "title": "{" + tex(entry.title) + "}",
        "year": str(entry.year),
        "note": note[:1].upper() + note[1:],
        "eprint": entry.arxiv,
        "archiveprefix": "arXiv" if entry.arxiv else "",
        "doi": entry.doi,
        "url": "" if entry.arxiv or entry.doi else entry.address,
    }
    body = "".join(f"  {field} = {{{value}}},\n" for field, value in lines.items() if value)
    return f"\n@misc{{{entry.key},\n{body}}}\n"


def authors(entry: Entry) -> list[str]:
    """The names in `entry.authors`, in order; the last is `others` where the data says et al."""
    names = re.split(r"\s*[,&()]\s*|\s+(?=et al\.)", entry.authors)
    return ["others" if name == "et al." else name for name in names if name]


def _name(name: str) -> str:
    """A name for BibTeX's `author`. Where it is a group, or a surname with a particle, it must not be taken apart."""
    whole = name in GROUPS or re.match(r"[a-z]", name) and " " in name
    return "{" + tex(name) + "}" if whole else tex(name)


def tex(text: str) -> str:
    """`text` so that LaTeX sets just these signs. Letters with an accent become commands; other letters stay.

    `text` holds none of data.TEX_ONLY.
    """
    signs: list[str] = []
    for sign in unicodedata.normalize("NFC", re.sub(LIGATURES, "\0", " ".join(text.split()))):
        base, *accent = unicodedata.normalize("NFD", sign)
        if len(accent) == 1 and accent[0] in ACCENTS and base.isascii():
            signs.append(f"{{\\{ACCENTS[accent[0]]}{{{base}}}}}")
        else:
            signs.append("{}" if sign == "\0" else SPECIAL.get(sign, sign))
    return "".join(signs)


def write(root: Path) -> Path:
    """Write book/references.bib under `root`, whole or not at all, and return its path. Raises AtlasError."""
    path = root / PLACE
    write_whole(path, bibtex(load()), AtlasError)
    return path


def check(root: Path) -> list[str]:
    """Complaints: references.bib is not what the atlas gives, citations that are not in it, entries that are said to
    run in a lab which is not there. Raises AtlasError."""
    path, wanted = root / PLACE, bibtex(load())
    try:
        found = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        found = None
    except (OSError, UnicodeDecodeError) as error:
        raise AtlasError(f"{path} cannot be read: {error}. Make it anew: pixelpolicy references") from error
    stale = [] if found == wanted else [f"{PLACE.as_posix()} is not what the atlas gives; run: pixelpolicy references"]
    return stale + missing_citations(root) + missing_labs(root)


def missing_citations(root: Path) -> list[str]:
    """Citations in chapters, solutions and the book's own pages under `root` whose key no printable entry has.

    Each as `file:line: cites 'key' ...`. Raises AtlasError where the atlas itself is at fault.
    """
    known = {entry.key: bool(entry.source.strip()) for entry in load()}
    complaints = []
    for path in sorted([*root.glob("chapters/*.md"), *root.glob("solutions/*.py"), *root.glob("book/*.md")]):
        for key, line in _citations(path):
            if not known.get(key):
                why = "whose entry has no source" if key in known else "which methods.yaml does not have"
                complaints.append(f"{path.relative_to(root).as_posix()}:{line}: cites {key!r}, {why}")
    return complaints


def missing_labs(root: Path) -> list[str]:
    """Entries that `runs` sends to a lab which `root` does not have."""
    there = numbered(root / "solutions", "py")
    return [
        f"{entry.key}: runs names {place!r}, and there is no such lab in solutions/"
        for entry in load()
        for place in entry.places
        if place.startswith("lab ") and there and place[4:] not in there
    ]


def citing_chapters(root: Path) -> dict[str, list[str]]:
    """The chapters under `root` that cite each key: `12-grpo`, in the order of their numbers."""
    found: dict[str, list[str]] = {}
    for chapter in numbered(root / "chapters", "md").values():
        for key in dict.fromkeys(key for key, _ in _citations(root / "chapters" / f"{chapter}.md")):
            found.setdefault(key, []).append(chapter)
    return found


def numbered(folder: Path, kind: str) -> dict[str, str]:
    """Files `NN-name.kind` of a folder by their two digits, without the ending."""
    return {path.name[:2]: path.stem for path in sorted(folder.glob(f"[0-9][0-9]-*.{kind}"))}


def _citations(path: Path) -> Iterator[tuple[str, int]]:
    """Each key that a file cites, and the line on which its citation begins."""
    text = path.read_text(encoding="utf-8")
    for citation in re.finditer(CITATION, text):
        line = text.count("\n", 0, citation.start()) + 1
        yield from ((key.strip(" \n#"), line) for key in citation[1].split(","))
