"""The entries of methods.yaml: what one is, and what makes one unfit to print."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pixelpolicy.errors import AtlasError

FILE = "methods.yaml"
DOMAINS = ("foundation", "image", "video", "3d", "4d", "cross")
FAMILIES = (
    "value", "policy-gradient", "actor-critic", "ppo", "dpo", "grpo", "reward-weighted", "reward-gradient",
    "forward-process", "search", "distillation", "structural", "generator", "reward-model", "benchmark", "survey",
)  # fmt: skip
# Families that others stand on: they neither tune a generator nor are a part of one.
GROUNDWORK = ("generator", "reward-model", "benchmark", "survey")
NEVER_EMPTY = ("key", "name", "title", "in_survey")
# Printed fields are plain text: these signs are marks of TeX, and BibTeX's readers disagree on how to escape them.
PRINTED, TEX_ONLY = ("title", "authors", "venue"), r"[\\{}$^]"

KEY = r"[a-z][a-z0-9_]*"
URL = r"https?://[\w-]+(\.[\w-]+)+(/[^\s{}]*)?"
MONTH = r"\d\d(0[1-9]|1[0-2])"
NEW_ARXIV = MONTH + r"\.\d{4,5}"
OLD_ARXIV = r"[a-z-]+(\.[A-Z]{2})?/" + MONTH + r"\d{3}"


@dataclass(frozen=True)
class Entry:
    """One paper. The header of methods.yaml says how far each field can be trusted."""

    key: str
    name: str
    title: str
    authors: str
    authors_checked: bool
    year: int
    arxiv: str
    venue: str
    venue_checked: bool
    domain: str
    family: str
    reward: str
    base_model: str
    code: str
    in_survey: str
    one_line: str
    source: str

    @property
    def role(self) -> str:
        """`structural`: learning by reward is a part of the generator; `groundwork`: what others stand on (the domain
        `foundation`; generators, reward models, benchmarks, surveys); else `fine-tuning`, search at inference included.
        """
        if self.family == "structural":
            return "structural"
        return "groundwork" if self.domain == "foundation" or self.family in GROUNDWORK else "fine-tuning"


TYPES = {field: kind for field, kind in get_type_hints(Entry).items() if field in {f.name for f in fields(Entry)}}


def load(path: Path | None = None) -> list[Entry]:
    """The entries of `path` (default: the course's own) in the order of the file. Raises AtlasError, see `parse`."""
    file = path or resources.files(__package__) / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AtlasError(f"{file} cannot be read: {error}. Give the path of a file like atlas/{FILE}") from error
    return parse(text, getattr(file, "name", FILE))


def parse(text: str, file: str = FILE) -> list[Entry]:
    """The entries of `text`, which is YAML: a list of mappings, each with exactly the fields of `Entry`.

    Raises AtlasError that names every fault of every entry: a field unknown, missing, given twice or of another type;
    a key or an arXiv id given twice; a malformed key, arXiv id, year or address; an unknown domain or family; an arXiv
    id or code without a source; a year before its arXiv id; marks of TeX; something checked that is empty.
    """
    try:
        records = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise AtlasError(f"{file} is not the YAML it should be: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise AtlasError(f"{file} holds no list of entries; each begins with '- key: ' and has the fields {[*TYPES]}")
    complaints = []
    for number, record in enumerate(records, 1):
        name = record.get("key") or f"entry {number} (no key)"
        complaints += [f"{name}: {fault}" for fault in faults(record)]
    for field in ("key", "arxiv"):
        times = Counter(value for record in records if isinstance(value := record.get(field), str) and value)
        for value in (value for value, count in times.items() if count > 1):
            keys = ", ".join(str(record.get("key")) for record in records if record.get(field) == value)
            complaints.append(f"{keys}: {field} {value!r} is given {times[value]} times; one paper has one entry")
    if complaints:
        raise AtlasError(f"{file} has {len(complaints)} faults; correct them there:\n  " + "\n  ".join(complaints))
    return [Entry(**record) for record in records]


def faults(record: dict[str, Any]) -> list[str]:
    """What is wrong with one entry by itself: what was given, and what was expected."""
    found = [f"field {field!r} is unknown; the fields are {', '.join(TYPES)}" for field in record if field not in TYPES]
    for field, kind in TYPES.items():
        if field not in record:
            found.append(f"field {field!r} is missing; write it empty where it is not known")
        elif type(record[field]) is not kind:
            hint = "; put it in quotes" if kind is str else ""
            found.append(f"{field} is {record[field]!r}; expected {kind.__name__}{hint}")
        elif field in NEVER_EMPTY and not record[field].strip():
            found.append(f"{field} is empty; every entry has one")
    if found:
        return found  # what follows needs every field, each of its type
    entry = Entry(**record)
    if not re.fullmatch(KEY, entry.key):
        found.append("the key must be small letters, digits and _, such as black2023ddpo")
    if not 1900 <= entry.year <= 2099:
        found.append(f"year is {entry.year}; expected four digits, such as 2025")
    if entry.arxiv and not valid_arxiv(entry.arxiv):
        found.append(f"arxiv is {entry.arxiv!r}; expected such as '2305.13301' or 'cs/0312004', with no version")
    elif entry.arxiv and entry.year < (posted := arxiv_year(entry.arxiv)):
        found.append(f"year is {entry.year}, but arXiv {entry.arxiv} is of {posted}; see which is wrong")
    if entry.domain not in DOMAINS:
        found.append(f"domain is {entry.domain!r}; expected one of {', '.join(DOMAINS)}")
    if entry.family not in FAMILIES:
        found.append(f"family is {entry.family!r}; expected one of {', '.join(FAMILIES)}")
    if entry.code and not re.fullmatch(URL, entry.code):
        found.append(f"code is {entry.code!r}; expected a whole address, such as https://github.com/owner/name")
    for field in PRINTED:
        if signs := re.findall(TEX_ONLY, getattr(entry, field)):
            found.append(f"{field} holds {' '.join(signs)}; write it as a reader sees it: é, not \\'{{e}}")
    for field in ("arxiv", "code"):
        if getattr(entry, field) and not entry.source.strip():
            found.append(f"{field} is given and source is empty; say where it stands beside the title, or leave it out")
    for field in ("authors", "venue"):
        if getattr(entry, f"{field}_checked") and not getattr(entry, field):
            found.append(f"{field}_checked is true and {field} is empty; nothing was checked")
    return found


def valid_arxiv(text: str) -> bool:
    """Whether `text` is an arXiv id without version, of the old form (to March 2007) or of the new one."""
    if re.fullmatch(OLD_ARXIV, text):
        year, month = arxiv_year(text), text.split("/")[1][2:4]
        return (1991, "08") <= (year, month) <= (2007, "03")
    if not re.fullmatch(NEW_ARXIV, text):
        return False
    # Numbers had four digits from April 2007, and have had five since January 2015.
    return len(text) == (10 if text >= "1501" else 9) and text >= "0704"


def arxiv_year(text: str) -> int:
    """The year in a valid arXiv id: 2023 of 2305.13301, 1999 of hep-th/9901001."""
    year = int(text.split("/")[-1][:2])
    return year + (1900 if "/" in text and year > 90 else 2000)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML's own loader takes the last of two fields of one name; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        times = Counter(str(key.value) for key, _ in node.value)
        if twice := [key for key, count in times.items() if count > 1]:
            key = next((value.value for name, value in node.value if name.value == "key"), "an entry")
            raise yaml.constructor.ConstructorError(
                None, None, f"{key}: field {', '.join(twice)} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)
