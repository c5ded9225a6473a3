"""Executed labs of the book: `book/executed/NN.ipynb`, kept from a run and tied to their source by its hash."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import nbformat

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.files import results_folder
from pixelpolicy.course.source import find_source, read_source, sources
from pixelpolicy.errors import BookError
from pixelpolicy.files import write_whole

FOLDER = "book/executed"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
# A progress bar says how far a run was, not what it found.
BARS = {"FloatProgressModel", "IntProgressModel"}
PROFILES = ("cpu", "gpu")
# The script and the style of a widget: those of the course's own are code, not what a run found, and are not kept.
CODE = ("_esm", "_css")


def keep_executed(root: Path, number: int | str, notebook: nbformat.NotebookNode, profile: str) -> Path:
    """Write what a run of lab `number` left to `book/executed/NN.ipynb`, without what differs from run to run.

    Raises BookError where the cells that ran are not those of the source as it stands now.
    """
    source = find_source(root, number)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    wanted = lab_notebook(read_source(source, checks=False), answers=True)
    if [_code(cell) for cell in wanted.cells] != [_code(cell) for cell in notebook.cells]:
        raise BookError(
            f"solutions/{source.name} was changed while lab {source.stem} ran, so what ran is not what stands there; "
            f"run it again: {command(source.stem)}"
        )
    kept = tidied(notebook)
    kept.metadata["pixelpolicy"] = kept.metadata.get("pixelpolicy", {}) | {"source_sha256": digest, "profile": profile}
    path = root / FOLDER / f"{source.stem[:2]}.ipynb"
    write_whole(path, nbformat.writes(kept, version=4) + "\n")
    return path


def keep_run(root: Path, number: int | str, profile: str) -> Path:
    """Keep what `run_lab` has just left in `results/`; raises what `keep_executed` raises."""
    stem = find_source(root, number).stem[:2]
    return keep_executed(root, number, _read(results_folder() / f"{stem}.ipynb"), profile)


def read_executed(root: Path, source: Path) -> nbformat.NotebookNode | None:
    """The executed copy of a solved lab, or None where there is none or it is of another state of the source.

    The course's widgets are given their script and style as these are now.
    """
    if complaint(root, source, ("smoke", *PROFILES)):
        return None
    notebook = _read(_path(root, source))
    for model in notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {}).values():
        if widget := _widget(model):
            model["state"].update({name: getattr(widget, name) for name in CODE})
    return notebook


def complaint(root: Path, source: Path, profiles: tuple[str, ...] = PROFILES) -> str:
    """What is wrong with the executed copy of a solved lab, and the command that mends it; empty where it is fresh."""
    path, remedy = _path(root, source), f"run {command(source.stem)}"
    name = f"{FOLDER}/{path.name}"
    if not path.exists():
        return f"{name} is missing: {remedy}"
    try:
        ours = _read(path).metadata.get("pixelpolicy", {})
    except (ValueError, OSError) as error:
        return f"{name} is no notebook ({error}): {remedy}"
    if ours.get("source_sha256") != hashlib.sha256(source.read_bytes()).hexdigest():
        return f"{name} is stale, solutions/{source.name} is not what ran: {remedy}"
    if ours.get("profile") not in profiles:
        return f"{name} was run in the profile {ours.get('profile')}, which measures nothing: {remedy}"
    return ""


def complaints(root: Path) -> list[str]:
    """Executed labs that are missing, stale, of the profile smoke, or without a source."""
    found = [complaint(root, source) for source in sources(root)]
    there = {_path(root, source).name for source in sources(root)}
    extra = [path.name for path in sorted((root / FOLDER).glob("*")) if path.name not in there]
    return [text for text in found if text] + [f"{FOLDER}/{name} belongs to no lab: delete it" for name in extra]


def command(stem: str) -> str:
    """The command that executes a lab for the book."""
    return f"`pixelpolicy run {stem[:2]} --profile cpu --book`"


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without counts, times, progress bars and the models that nothing shows; widgets numbered in order."""
    made = nbformat.from_dict(json.loads(json.dumps(notebook)))
    state = made.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    shown: list[str] = []
    for cell in made.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [output for output in cell.outputs if not _is_bar(output, state)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = None
            if model := output.get("data", {}).get(VIEW, {}).get("model_id"):
                shown.append(model)
    kept = _reachable(shown, state)
    for model in kept.values():
        if _widget(model):
            model["state"] = {name: value for name, value in model["state"].items() if name not in CODE}
    made.metadata.pop("widgets", None)
    if kept:
        made.metadata["widgets"] = {STATE: {"state": kept, "version_major": 2, "version_minor": 0}}
    text = json.dumps(made)
    for place, model in enumerate(kept):
        text = text.replace(model, f"{place:032x}")
    return nbformat.from_dict(json.loads(text))


def _is_bar(output: Any, state: dict[str, Any]) -> bool:
    model = output.get("data", {}).get(VIEW, {}).get("model_id")
    return bool(model) and any(state[part]["model_name"] in BARS for part in _reachable([model], state))


def _reachable(models: list[str], state: dict[str, Any]) -> dict[str, Any]:
    """The models that these need, themselves included, in the order in which they are met."""
    found: dict[str, Any] = {}
    todo = list(models)
    while todo:
        model = todo.pop(0)
        if model in state and model not in found:
            found[model] = state[model]
            todo += re.findall(r"IPY_MODEL_(\w+)", json.dumps(state[model]))
    return found


def _widget(model: dict[str, Any]) -> type | None:
    """The class of the course's widget of which this is the model, wherever its file is now; None for a stranger's."""
    from pixelpolicy import widgets  # torch comes with it

    module, _, name = model["state"].get("_anywidget_id", "").rpartition(".")
    return getattr(widgets, name, None) if module.startswith("pixelpolicy.widgets.") else None


def _code(cell: nbformat.NotebookNode) -> tuple[str, str]:
    return cell.cell_type, cell.source


def _path(root: Path, source: Path) -> Path:
    return root / FOLDER / f"{source.stem[:2]}.ipynb"


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)
