"""Text that anybody may have written, made fit to be shown."""

from __future__ import annotations

import unicodedata


def visible(text: str, most: int = 1000) -> str:
    """A line without signs that hide, turn, break or end it, and without halves of signs, which no file can hold."""
    kept = (c if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029" else " " for c in text[:most])
    return "".join(kept)
