"""Pages of labs: a solved lab with what it put out, its answers folded."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image

from pixelpolicy.book.executed import STATE, command, read_executed
from pixelpolicy.book.opening import effort, ways_to_open
from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.source import Source, read_source

EMBEDDED = re.compile(r'\b(?P<attribute>src|srcset)="data:image/(?P<kind>png|gif|jpeg);base64,(?P<data>[^"]+)"')


def lab_page(root: Path, path: Path) -> nbformat.NotebookNode:
    """The page of the solved lab at `path`, with outputs where `book/executed/` has them for the source as it is.

    An exercise shows what a student is given, and the answer in a fold; catch-up cells are left out. Where there are
    no outputs, the page says so under its title.
    """
    source, executed = read_source(path, checks=False), read_executed(root, path)
    notebook = executed or lab_notebook(source, answers=True)
    cells: list[nbformat.NotebookNode] = []
    for cell in notebook.cells:
        ours = cell.metadata.get("pixelpolicy", {})
        if ours.get("role") == "catch-up":
            continue
        if ours.get("role") == "exercise":
            cells.append(new_markdown_cell(f"```python\n{source.tasks[ours['id']].blank.strip()}\n```"))
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.metadata["mystnb"] = {
                "code_prompt_show": f"Show an answer to exercise {ours['id']}",
                "code_prompt_hide": f"Hide the answer to exercise {ours['id']}",
            }
        cells.append(cell)
    title = next((place for place, cell in enumerate(cells) if cell.source.startswith("# ")), None)
    if title is not None:
        heading, _, rest = cells[title].source.partition("\n")
        profile = executed.metadata["pixelpolicy"]["profile"] if executed else None
        takes = f"{effort(root, source)}\n\n{ways_to_open(root, source)}"
        cells[title].source = f"{heading}\n\n{_note(source, profile)}\n{takes}\n{rest}"
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    if executed and "widgets" in executed.metadata:
        metadata["widgets"] = {STATE: executed.metadata["widgets"][STATE]}
    return new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def pictures_apart(notebook: nbformat.NotebookNode, folder: Path, address: str) -> None:
    """Put the pictures that cells show as HTML into files in `folder`, which its pages know at `address`.

    A page is then read before its pictures have come, and those far down come when they are scrolled to.
    """

    def to_file(found: re.Match) -> str:
        data = b64decode(found["data"])
        path = folder / f"{hashlib.sha256(data).hexdigest()[:20]}.{found['kind']}"
        path.write_bytes(data)
        if found["attribute"] != "src":
            return f'{found["attribute"]}="{address}{path.name}"'
        width, height = Image.open(BytesIO(data)).size
        return f'src="{address}{path.name}" width="{width}" height="{height}" loading="lazy"'

    folder.mkdir(parents=True, exist_ok=True)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if text := output.get("data", {}).get("text/html"):
                output.data["text/html"] = EMBEDDED.sub(to_file, text)


def _note(source: Source, profile: str | None) -> str:
    """Where the reader is, and what the outputs are worth."""
    here = "This is the solved lab; write the answers yourself first."
    if profile is None:
        return (
            "```{admonition} Not executed\n:class: warning\n"
            f"{here} Its cells have no outputs here: there is no run of this version of it. "
            f"{command(source.name)} makes one.\n```\n"
        )
    if profile == "smoke":
        return (
            "```{admonition} A trial run\n:class: warning\n"
            f"{here} The outputs are of the profile `smoke`, which measures nothing. "
            f"{command(source.name)} makes real ones.\n```\n"
        )
    return f"```{{note}}\n{here} Its outputs are of a run in the profile `{profile}`; answers are folded.\n```\n"
