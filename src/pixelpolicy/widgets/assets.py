"""Where the scripts and styles of widgets are, and how those that several share are put together."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def joined(kind: str, *stems: str) -> str:
    """The files ``STEM.js`` or ``STEM.css`` one after the other: what a page gets of a widget is one module."""
    return "\n".join((HERE / f"{stem}.{kind}").read_text(encoding="utf-8") for stem in stems)
