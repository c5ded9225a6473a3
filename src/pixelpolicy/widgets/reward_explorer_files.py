"""The files that the reward explorer needs where there is no kernel: the folder `explorer` of a static page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pixelpolicy.errors import FigureError
from pixelpolicy.generators.checkpoint import CHECKPOINTS
from pixelpolicy.widgets.assets import HERE
from pixelpolicy.widgets.onnx_export import GRAPHS
from pixelpolicy.widgets.reward_explorer import RewardExplorer
from pixelpolicy.worlds import shapes

# The parts of the generator that run in the browser, and their weights among the checkpoints.
PARTS = {
    "encoder": "shapes/prompt_encoder/model.safetensors",
    "velocity": "shapes/transformer/diffusion_pytorch_model.safetensors",
    "decoder": "shapes/vae/diffusion_pytorch_model.safetensors",
    "proxy": "proxy/proxy.safetensors",
}
ALT = (
    "The reward explorer: pictures of a generator sorted by reward, histograms of each reward, and reward, accuracy "
    "and diversity against the KL to the base, under sliders"
)
CAPTION = (
    "Your browser draws the pictures and computes the rewards that are called live; the others, the diversity and the "
    "KL were recorded by Python."
)


def place_files(states: Path, folder: Path) -> Path:
    """Write into ``folder`` all that the explorer of the record ``states`` needs, besides onnxruntime-web's own files.

    Raises `FigureError` where the record, a checkpoint or a run that it names is missing.
    """
    widget = RewardExplorer.from_states(states, alt=ALT, caption=CAPTION)
    for name in ("graphs", "weights", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for part, file in PARTS.items():
        _copy(GRAPHS / f"{part}.onnx", folder / "graphs")
        _copy(CHECKPOINTS / file, folder / "weights" / f"{part}.safetensors")
    runs = {}
    for number, (name, path) in enumerate(widget.files.items()):
        _copy(path, folder / "runs" / f"{number}.safetensors")
        runs[name] = f"runs/{number}.safetensors"
    texts = json.loads((CHECKPOINTS / "shapes/prompt_encoder/config.json").read_text(encoding="utf-8"))
    latents = json.loads((CHECKPOINTS / "shapes/transformer/config.json").read_text(encoding="utf-8"))
    about = {
        "parts": {part: f"weights/{part}.safetensors" for part in PARTS},
        "runs": runs,
        "vocabulary": texts["vocabulary"],
        "length": texts["length"],
        "latent": [latents["in_channels"], latents["sample_size"], latents["sample_size"]],
        "palette": {"ground": shapes.BACKGROUND.tolist(), **{name: c.tolist() for name, c in shapes.COLOURS.items()}},
    }
    _copy(states, folder / "states.json")
    for name in ("engine", "page"):
        _copy(HERE / f"reward_explorer_{name}.js", folder / f"{name}.js")
    for kind, text in (("js", widget._esm), ("css", widget._css)):
        (folder / f"widget.{kind}").write_text(text, encoding="utf-8")
    for name, value in (("engine", about), ("widget", page_state(widget))):
        (folder / f"{name}.json").write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
    return folder


def page_state(widget: RewardExplorer) -> dict[str, Any]:
    """The traits of a widget that its page shares."""
    names = [name for name, trait in widget.traits(sync=True).items() if not name.startswith("_")]
    return {name: value for name, value in widget.get_state(names).items() if name not in ("layout", "tooltip")}


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise FigureError(f"the reward explorer needs {source}, which is not there; `git checkout` brings it back")
    shutil.copy(source, target)
