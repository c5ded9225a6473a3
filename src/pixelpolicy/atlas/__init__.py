"""The literature as data: what is known of each paper, and how far it was checked."""

from pixelpolicy.atlas.bibliography import bibtex, check, missing_citations, write
from pixelpolicy.atlas.data import DOMAINS, FAMILIES, Entry, load

__all__ = ["DOMAINS", "FAMILIES", "Entry", "bibtex", "check", "load", "missing_citations", "write"]
