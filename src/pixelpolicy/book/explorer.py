"""The reward explorer on a page of the book: its files, and the directive that gives it a place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from pixelpolicy.errors import BookError, FigureError

STATES = "benchmarks/explorer/states.json"
FOLDER = "explorer"
SCRIPT = f"{FOLDER}/page.js"
PLACE = "data-reward-explorer"


def place_explorer(root: Path, assets: Path) -> Path:
    """Put what the explorer needs into the folder `explorer` of the staged `assets`; returns it.

    Raises BookError where its record, a checkpoint or a fine-tuned model is missing.
    """
    from pixelpolicy.widgets.reward_explorer_files import place_files

    try:
        return place_files(root / STATES, assets / FOLDER)
    except FigureError as error:
        raise BookError(f"the reward explorer cannot be put on its page: {error}") from error


class RewardExplorerHere(Directive):
    """`{reward-explorer}`: the explorer stands here, and works without a kernel."""

    def run(self) -> list[nodes.Node]:
        """A place for `reward_explorer_page.js`, with words for who has no scripts."""
        text = "The reward explorer draws pictures here; it needs JavaScript."
        return [nodes.raw("", f"<div {PLACE}><p>{text}</p></div>", format="html")]


def add_script(app: Any, body: str) -> None:
    """Let a page whose text has a place for the explorer load its script."""
    if PLACE in body:
        app.add_js_file(SCRIPT, type="module", priority=810)
