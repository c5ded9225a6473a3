"""The entries of methods.yaml: what one is, and what makes one unfit to print."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import MISSING, dataclass, fields
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
ROLES = ("fine-tuning", "structural", "groundwork")
# Kinds of reward, and the words of an entry's `reward` that tell them. One reward may be of several kinds.
REWARD_KINDS = {
    "a training loss": r"mse|elbo|photometric|likelihood|flow matching|score (matching|distillation)|consistency loss"
    r"|^reconstruction|distribution matching|pixel loss|teacher",
    "return of a task": r"task return|game score|win/loss|advantage|\breturn\b|return-|logged",
    "a rule or verifier": r"geneval|ocr|compress|verif|rule|detector|iou|chamfer|format|executab|dino|metrics|counts"
    r"|rendered|segmentation",
    "people's preferences": r"(?<!multi-)human|people|user|preference|expert comparisons|hps|pick|imagereward|reward3d"
    r"|unifiedreward|pair|desirable|rating|videoalign|videoscore|rewardcs|binary feedback|per-image binary|omniscore",
    "a model that judges": r"vlm|mllm|lmm|vqa|llm|gpt|judge|critique|critic|caption|questions|reward model"
    r"|ai preference|learned|generative|cot|reasoned|vision experts",
    "image and text agree": r"clip|image-text|alignment|prompt",
    "looks": r"aesthetic|quality|realism|motion",
    "physics or geometry": r"physic|geometr|\bpose|epipolar|acceleration|stability|collision|4d|3d|topology|camera"
    r"|consistency(?! loss)|mesh|falling",
    "diversity": r"diversity|novelty|dpp",
    "a discriminator": r"discriminator|adversarial|\bgan\b|ipm",
    "any or several": r"\bany\b|several|pluggable|multi-reward|ensemble|mixed|black-box|non-differentiable|others|etc",
}
NOT_STATED = "not stated"
NEVER_EMPTY = ("key", "name", "title", "in_survey")
# What we say of a paper without having checked it against the paper.
EDITORIAL, QUANTITY = ("one_line", "reward"), r"~?\d[\d.,]*(%|[kKMB]\b|x\b|\+)|\b\d+ times\b|^First\b"
# Printed fields are plain text: these signs are marks of TeX, and BibTeX's readers disagree on how to escape them.
PRINTED, TEX_ONLY = ("title", "authors", "venue"), r"[\\{}$^]"

KEY = r"[a-z][a-z0-9_]*"
DOI = r"10\.\d{4,9}/[^\s{}\\]+"
PLACE = r"lab \d\d|[a-z]\w*(\.[a-z]\w*)+"
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
    doi: str = ""
    authors_source: str = ""
    runs: str = ""

    @property
    def role(self) -> str:
        """`structural`: learning by reward is a part of the generator; `groundwork`: what others stand on (the domain
        `foundation`; generators, reward models, benchmarks, surveys); else `fine-tuning`, search at inference included.
        """
        if self.family == "structural":
            return "structural"
        return "groundwork" if self.domain == "foundation" or self.family in GROUNDWORK else "fine-tuning"

    @property
    def reward_kinds(self) -> tuple[str, ...]:
        """The kinds of its reward, told by the words of `reward`; `not stated` where these tell nothing."""
        words = self.reward.casefold()
        return tuple(kind for kind, signs in REWARD_KINDS.items() if re.search(signs, words)) or (NOT_STATED,)

    @property
    def places(self) -> tuple[str, ...]:
        """Where its idea can be run: `lab 12`, or a module such as `finetune.grpo`."""
        return tuple(place.strip() for place in self.runs.split(",") if place.strip())

    @property
    def address(self) -> str:
        """Where to read it: at arXiv, by its DOI, or where its title was seen; empty where none of these is known."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        seen = self.source if re.fullmatch(URL, self.source) else ""
        return f"https://doi.org/{self.doi}" if self.doi else seen


OPTIONAL = {field.name for field in fields(Entry) if field.default is not MISSING}
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
    """The entries of `text`, which is YAML: a list of mappings, each with the fields of `Entry`.

    Fields that have a default may be left out.

    Raises AtlasError that names every fault of every entry: a field unknown, missing, given twice or of another type;
    a key, an arXiv id, a DOI or a title given twice; a malformed key, arXiv id, DOI, year or address; an unknown
    domain, family or module; an entry without a source; a year before its arXiv id; marks of TeX; something checked
    that is empty; a quantity or a first place in what is editorial.
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
    for field in ("key", "arxiv", "doi", "title"):
        alike = [_alike(record.get(field)) for record in records]
        times = Counter(filter(None, alike))
        for value in (value for value, count in times.items() if count > 1):
            keys = ", ".join(str(record.get("key")) for record, its in zip(records, alike, strict=True) if its == value)
            complaints.append(f"{keys}: {field} {value!r} is given {times[value]} times; one paper has one entry")
    if complaints:
        raise AtlasError(f"{file} has {len(complaints)} faults; correct them there:\n  " + "\n  ".join(complaints))
    return [Entry(**record) for record in records]


def _alike(value: Any) -> str:
    """What two entries of one paper have in common of a field, however it is written; empty for no text."""
    return " ".join(value.casefold().split()) if isinstance(value, str) else ""


def faults(record: dict[str, Any]) -> list[str]:
    """What is wrong with one entry by itself: what was given, and what was expected."""
    found = [f"field {field!r} is unknown; the fields are {', '.join(TYPES)}" for field in record if field not in TYPES]
    for field, kind in TYPES.items():
        if field not in record:
            if field in OPTIONAL:
                continue
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
    if entry.doi and not re.fullmatch(DOI, entry.doi):
        found.append(f"doi is {entry.doi!r}; expected such as '10.1007/BF00992698', with no address before it")
    if entry.domain not in DOMAINS:
        found.append(f"domain is {entry.domain!r}; expected one of {', '.join(DOMAINS)}")
    if entry.family not in FAMILIES:
        found.append(f"family is {entry.family!r}; expected one of {', '.join(FAMILIES)}")
    if entry.code and not re.fullmatch(URL, entry.code):
        found.append(f"code is {entry.code!r}; expected a whole address, such as https://github.com/owner/name")
    for field in PRINTED:
        if signs := re.findall(TEX_ONLY, getattr(entry, field)):
            found.append(f"{field} holds {' '.join(signs)}; write it as a reader sees it: é, not \\'{{e}}")
    for field in EDITORIAL:
        if claim := re.search(QUANTITY, getattr(entry, field)):
            found.append(f"{field} says {claim[0]!r}; a quantity or a first place needs the paper: leave it out")
    for place in entry.places:
        if not re.fullmatch(PLACE, place) or not (place.startswith("lab ") or _is_module(place)):
            found.append(f"runs names {place!r}; expected such as 'lab 12', or a module of ours like 'finetune.grpo'")
    if not entry.source.strip():
        found.append("source is empty; say where its title stands, beside its arXiv id or DOI if it has one")
    if entry.authors_source and not entry.authors_checked:
        found.append("authors_source is given and authors_checked is false; which is wrong?")
    for field in ("authors", "venue"):
        if getattr(entry, f"{field}_checked") and not getattr(entry, field):
            found.append(f"{field}_checked is true and {field} is empty; nothing was checked")
    return found


def _is_module(place: str) -> bool:
    """Whether `finetune.grpo` is a file of this package; nothing is imported."""
    path = resources.files("pixelpolicy").joinpath(*place.split("."))
    return path.is_dir() or (path.parent / f"{path.name}.py").is_file()


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
