"""The literature as data: what is known of each paper, and how far it was checked."""

from pixelpolicy.atlas.bibliography import bibtex, check, citing_chapters, missing_citations, numbered, write
from pixelpolicy.atlas.data import DOMAINS, FAMILIES, REWARD_KINDS, ROLES, Entry, load
from pixelpolicy.atlas.finding import csv_text, search

__all__ = [
    "DOMAINS", "FAMILIES", "REWARD_KINDS", "ROLES", "Entry", "bibtex", "check", "citing_chapters", "csv_text", "load",
    "missing_citations", "numbered", "search", "write",
]  # fmt: skip
