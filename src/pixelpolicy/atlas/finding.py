"""Finding entries of the atlas, and handing them on as CSV."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable
from dataclasses import fields

from pixelpolicy.atlas.data import DOMAINS, FAMILIES, Entry
from pixelpolicy.errors import AtlasError

# What a search looks into. Authors and venues only where they were checked: what is not printed is not found by.
SEARCHED = ("key", "name", "title", "arxiv", "doi", "domain", "family", "role", "reward", "base_model", "one_line")
DERIVED = ("role", "address")


def search(
    entries: Iterable[Entry], words: Iterable[str] = (), domain: str | None = None, family: str | None = None
) -> list[Entry]:
    """The entries in which each of ``words`` occurs, whatever its case and accents, of ``domain`` and ``family``.

    In the order given. Raises AtlasError for a domain or family that there is none of.
    """
    for name, given, known in (("domain", domain, DOMAINS), ("family", family, FAMILIES)):
        if given and given not in known:
            raise AtlasError(f"there is no {name} {given!r}; those there are: {', '.join(known)}")
    wanted = [plain(word) for word in words]
    return [
        entry
        for entry in entries
        if domain in (None, "", entry.domain)
        and family in (None, "", entry.family)
        and all(word in text for word in wanted for text in [plain(searched(entry))])
    ]


def searched(entry: Entry) -> str:
    """The text of an entry that a search looks into."""
    checked = [getattr(entry, field) for field in ("authors", "venue") if getattr(entry, f"{field}_checked")]
    return " ".join([*(getattr(entry, field) for field in SEARCHED), str(entry.year), *checked])


def plain(text: str) -> str:
    """``text`` in small letters, without accents."""
    signs = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in signs if not unicodedata.combining(sign))


def csv_text(entries: Iterable[Entry]) -> str:
    """CSV with a heading and one line an entry: every field, its role and its address.

    Authors and a venue that were not checked are left out; `authors_checked` and `venue_checked` say which.
    """
    names = [field.name for field in fields(Entry)]
    out = io.StringIO()
    table = csv.DictWriter(out, [*names, *DERIVED], lineterminator="\n")
    table.writeheader()
    for entry in entries:
        row = {name: getattr(entry, name) for name in (*names, *DERIVED)}
        for field in ("authors", "venue"):
            row[field] = row[field] if row[f"{field}_checked"] else ""
        table.writerow(row)
    return out.getvalue()
