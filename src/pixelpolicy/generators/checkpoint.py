"""Checkpoints on disk: written whole or not at all, checked by SHA-256 before they are used.

A checkpoint is a folder in the plain layout of diffusers (``transformer``, ``vae``, ``scheduler``), with our
``prompt_encoder``, a model card, a ``manifest.json``, and ``generator.json`` where it is no image generator. Weights
are float16 on disk and float32 once loaded.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixelpolicy.errors import CheckpointError
from pixelpolicy.generators.flow import FlowGenerator, Parts
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.generators.picture_tokens import PictureTokenGenerator
from pixelpolicy.generators.tokens import TokenGenerator
from pixelpolicy.generators.video import VideoGenerator
from pixelpolicy.quiet import quiet
from pixelpolicy.verified import (
    CHECKPOINTS,
    MANIFEST,
    check_file,
    check_manifest,
    finish_replacing,
    remedy,
    sha256_of,
    write_manifest,
    write_text,
    written_whole,
)  # fmt: skip

KINDS: dict[str, type[Parts]] = {
    "image": ImageGenerator,
    "tokens": TokenGenerator,
    "video": VideoGenerator,
    "picture-tokens": PictureTokenGenerator,
}
KIND = "generator.json"
G = TypeVar("G", bound=Parts)


def save(generator: Parts, folder: Path, card: str) -> None:
    """Write a checkpoint folder with ``card`` as its README.md; a checkpoint already there is replaced at the end.

    Raises `CheckpointError`, with nothing changed on disk, where a weight is not finite in float16, where the folder
    holds something else than a checkpoint, and where writing fails, on a full disk for one.
    """
    folder = Path(folder).absolute()
    finish_replacing(folder)
    if folder.exists() and not (folder / MANIFEST).is_file():
        if not folder.is_dir() or {path.name for path in folder.iterdir()} - {*generator.parts(), "README.md"}:
            raise CheckpointError(
                f"{folder} holds something else than a checkpoint and was left alone. Save elsewhere."
            )
    modules = {name: copy.deepcopy(module).half() for name, module in generator.modules.items()}
    needed = sum(_check_finite(module.state_dict(), name) for name, module in modules.items())
    with written_whole(folder, needed=needed) as (part,):
        part.mkdir(parents=True)
        with quiet():
            for name in generator.parts():
                modules.get(name, getattr(generator, name)).save_pretrained(part / name)
        if (kind := _kind_of(generator)) != "image":
            write_text(part / KIND, json.dumps({"kind": kind}) + "\n")
        for path in part.glob("*/*config.json"):
            config = json.loads(path.read_text(encoding="utf-8"))
            config.pop("_name_or_path", None)  # diffusers adds where it was loaded from, on this machine
            write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
        write_text(part / "README.md", card)
        write_manifest(part)


def load(name_or_path: str | Path, *, verify: bool = True) -> FlowGenerator | PictureTokenGenerator:
    """Load a checkpoint in float32, in evaluation mode and without gradients.

    A plain word names a checkpoint of the package; a `Path`, or a text with a separator, is a folder. Raises
    `CheckpointError` where it is missing, incomplete, or (with ``verify``) not what its manifest says.
    """
    folder = _find(name_or_path)
    if verify:
        check(folder)
    try:
        with quiet():
            generator = _class_of(folder).from_pretrained(folder)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError, StopIteration) as error:
        raise CheckpointError(f"the checkpoint {folder} could not be loaded ({error}). {remedy(folder)}") from error
    for module in generator.modules.values():
        module.eval().requires_grad_(False)
    return generator


def check(folder: Path) -> None:
    """Hold every file of a checkpoint against its manifest. Raises `CheckpointError` at the first that differs."""
    files = check_manifest(folder)
    absent = [part for part in _class_of(folder).parts() if not any(name.startswith(f"{part}/") for name in files)]
    if absent:
        manifest = folder / MANIFEST
        raise CheckpointError(f"{manifest} lists no file of {', '.join(absent)}. {remedy(manifest)}")


def _kind_of(generator: Parts) -> str:
    return next(kind for kind, known in KINDS.items() if type(generator) is known)


def _class_of(folder: Path) -> type[Parts]:
    """What a checkpoint holds: an image generator where its folder does not say."""
    path = folder / KIND
    try:
        return KINDS[json.loads(path.read_text(encoding="utf-8"))["kind"]] if path.exists() else ImageGenerator
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} names no kind of generator that is known ({error}). {remedy(path)}") from error


# Differences to a base ----------------------------------------------------------------------------------------


def difference(tuned: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """``theta - theta_0`` of two states of one module, without the entries that did not change."""
    if tuned.keys() != base.keys():
        odd = sorted(tuned.keys() ^ base.keys())
        raise CheckpointError(f"two states of one module are needed, but only one has {', '.join(odd[:3])}")
    changed = {name: tuned[name].detach().float() - base[name].detach().float() for name in base}
    return {name: value for name, value in changed.items() if value.any()}


def save_weights(module_state: dict[str, Tensor], path: Path, *, base: Parts | None = None) -> None:
    """Write tensors, such as a `difference`, to one float16 safetensors file and its check sums to ``path``.json.

    With ``base`` the file remembers which generator it belongs to. Raises `CheckpointError` as `save` does.
    """
    path = Path(path).absolute()
    sidecar = _sidecar(path)
    finish_replacing(path, sidecar)
    halves = {name: value.detach().cpu().half().contiguous() for name, value in module_state.items()}
    needed = _check_finite(halves, path.name)
    with written_whole(path, sidecar, needed=needed) as (part, sidecar_part):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(halves, part)
        part.chmod(0o644)
        record = {"format": 1, "size": part.stat().st_size, "sha256": sha256_of(part)}
        if base is not None:
            record["base"] = fingerprint(base)
        write_text(sidecar_part, json.dumps(record, indent=2) + "\n")


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of `save_weights`, in float32. Raises `CheckpointError` where they are missing or altered."""
    return _read_weights(Path(path).absolute())[0]


def apply_difference(generator: G, path: Path, alpha: float = 1.0) -> G:
    """Add ``alpha`` times a stored difference to the transformer, in place.

    Raises `CheckpointError`, with nothing changed, where the file is unsound or belongs to another base.
    """
    path = Path(path).absolute()
    change, record = _read_weights(path)
    state = generator.transformer.state_dict()
    odd = [name for name in change if name not in state or state[name].shape != change[name].shape]
    other_base = "base" in record and record["base"] != fingerprint(generator)
    if odd or other_base:
        why = f"{odd[0]} has no counterpart of its shape" if odd else "the prompt encoder or the decoder differs"
        raise CheckpointError(
            f"{path} is the difference to another base than the generator given: {why}. "
            f"Load the base it was trained from, or train it again from this one."
        )
    for name, value in change.items():
        state[name] += alpha * value.to(state[name])
    return generator


def fingerprint(generator: Parts) -> str:
    """A check sum of the parts that fine-tuning leaves alone, the same before saving and after loading."""
    digest = hashlib.sha256()
    for part in sorted(generator.modules.keys() - {"transformer"}, reverse=True):
        for name, value in sorted(generator.modules[part].state_dict().items()):
            digest.update(f"{part}.{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict]:
    sidecar = _sidecar(path)
    finish_replacing(path, sidecar)
    for needed in (path, sidecar):
        if not needed.is_file():
            raise CheckpointError(f"the weights {path} cannot be read: {needed} is missing. {remedy(needed)}")
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        check_file(path, record["size"], record["sha256"])
        return {name: value.float() for name, value in load_file(path).items()}, record
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the weights {path} cannot be read ({error}). {remedy(sidecar)}") from error


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


# Files --------------------------------------------------------------------------------------------------------


def _find(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, Path) or Path(name_or_path).name != name_or_path:
        folder = Path(name_or_path).absolute()
        finish_replacing(folder)
        if not folder.is_dir():
            raise CheckpointError(
                f"there is no checkpoint folder {folder}. Save one there, or give the name of one of the package's."
            )
        return folder
    folder = CHECKPOINTS / name_or_path
    finish_replacing(folder)
    if not folder.is_dir():
        known = sorted(
            path.parent.name for path in CHECKPOINTS.glob(f"*/{MANIFEST}") if (path.parent / "transformer").is_dir()
        )
        raise CheckpointError(
            f"there is no checkpoint {name_or_path!r}; those that exist: {', '.join(known) or 'none'}. Make it with "
            f"`pixelpolicy pretrain {name_or_path}`, or give a folder of your own as a path, './{name_or_path}'."
        )
    return folder


def _check_finite(state: dict[str, Tensor], where: str) -> int:
    """The bytes of a float16 state. Raises `CheckpointError` where a weight is NaN or above 65,504."""
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"the weights {name} of {where} are not all finite in float16, so nothing was saved. "
                f"Training diverged: go back to an earlier state, with a lower learning rate."
            )
    return sum(value.numel() * value.element_size() for value in state.values())
