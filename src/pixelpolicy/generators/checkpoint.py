"""Checkpoints on disk: written whole or not at all, checked by SHA-256 before they are used.

A checkpoint is a folder in the plain layout of diffusers (``transformer``, ``vae``, ``scheduler``), with our
``prompt_encoder``, a model card and a ``manifest.json``. Weights are float16 on disk and float32 once loaded.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixelpolicy.errors import CheckpointError
from pixelpolicy.generators.image import ImageGenerator, PromptEncoder

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"  # those that come with the package
MANIFEST = "manifest.json"
PARTS = ("transformer", "vae", "scheduler", "prompt_encoder")
_MODULES = ("transformer", "vae", "prompt_encoder")


def save(generator: ImageGenerator, folder: Path, card: str) -> None:
    """Write a checkpoint folder with ``card`` as its README.md; a checkpoint already there is replaced at the end.

    Raises `CheckpointError`, with nothing changed on disk, where a weight is not finite in float16, where the folder
    holds something else than a checkpoint, and where writing fails, on a full disk for one.
    """
    folder = Path(folder).absolute()
    _finish_replacing(folder)
    if folder.exists() and not (folder / MANIFEST).is_file():
        if not folder.is_dir() or {path.name for path in folder.iterdir()} - {*PARTS, "README.md"}:
            raise CheckpointError(
                f"{folder} holds something else than a checkpoint and was left alone. Save elsewhere."
            )
    modules = {name: copy.deepcopy(getattr(generator, name)).half() for name in _MODULES}
    needed = sum(_check_finite(module.state_dict(), name) for name, module in modules.items())
    with _written_whole(folder, needed=needed) as (part,):
        part.mkdir(parents=True)
        for name in PARTS:
            modules.get(name, generator.scheduler).save_pretrained(part / name)
        for path in part.glob("*/*config.json"):
            config = json.loads(path.read_text(encoding="utf-8"))
            config.pop("_name_or_path", None)  # diffusers adds where it was loaded from, on this machine
            _write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
        _write_text(part / "README.md", card)
        files = sorted(path for path in part.rglob("*") if path.is_file())
        entries = {}
        for path in files:
            path.chmod(0o644)  # safetensors writes files that only their owner can read
            entries[path.relative_to(part).as_posix()] = {"size": path.stat().st_size, "sha256": _sha256(path)}
        _write_text(part / MANIFEST, json.dumps({"format": 1, "files": entries}, indent=2) + "\n")


def load(name_or_path: str | Path, *, verify: bool = True) -> ImageGenerator:
    """Load a checkpoint in float32, in evaluation mode and without gradients.

    A plain word names a checkpoint of the package; a `Path`, or a text with a separator, is a folder. Raises
    `CheckpointError` where it is missing, incomplete, or (with ``verify``) not what its manifest says.
    """
    folder = _find(name_or_path)
    if verify:
        check(folder)
    try:
        from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

        with _quiet():
            plain = {"local_files_only": True, "torch_dtype": torch.float32}
            transformer = SD3Transformer2DModel.from_pretrained(folder, subfolder="transformer", **plain)
            vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **plain)
            scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
            prompt_encoder = PromptEncoder.from_pretrained(folder / "prompt_encoder")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint {folder} could not be loaded ({error}). {_remedy(folder)}") from error
    generator = ImageGenerator(transformer, vae, scheduler, prompt_encoder)
    for name in _MODULES:
        getattr(generator, name).eval().requires_grad_(False)
    return generator


def check(folder: Path) -> None:
    """Hold every file of a checkpoint against its manifest. Raises `CheckpointError` at the first that differs."""
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            _check_file(folder / name, expected["size"], expected["sha256"])
    except FileNotFoundError as error:
        raise CheckpointError(f"the checkpoint {folder} has no {MANIFEST}. {_remedy(manifest)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{manifest} is no list of a checkpoint's files ({error}). {_remedy(manifest)}"
        ) from error
    absent = [part for part in PARTS if not any(name.startswith(f"{part}/") for name in files)]
    if absent:
        raise CheckpointError(f"{manifest} lists no file of {', '.join(absent)}. {_remedy(manifest)}")


# Differences to a base ----------------------------------------------------------------------------------------


def difference(tuned: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """``theta - theta_0`` of two states of one module, without the entries that did not change."""
    if tuned.keys() != base.keys():
        odd = sorted(tuned.keys() ^ base.keys())
        raise CheckpointError(f"two states of one module are needed, but only one has {', '.join(odd[:3])}")
    changed = {name: tuned[name].detach().float() - base[name].detach().float() for name in base}
    return {name: value for name, value in changed.items() if value.any()}


def save_weights(module_state: dict[str, Tensor], path: Path, *, base: ImageGenerator | None = None) -> None:
    """Write tensors, such as a `difference`, to one float16 safetensors file and its check sums to ``path``.json.

    With ``base`` the file remembers which generator it belongs to. Raises `CheckpointError` as `save` does.
    """
    path = Path(path).absolute()
    sidecar = _sidecar(path)
    _finish_replacing(path, sidecar)
    halves = {name: value.detach().cpu().half().contiguous() for name, value in module_state.items()}
    needed = _check_finite(halves, path.name)
    with _written_whole(path, sidecar, needed=needed) as (part, sidecar_part):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(halves, part)
        part.chmod(0o644)
        record = {"format": 1, "size": part.stat().st_size, "sha256": _sha256(part)}
        if base is not None:
            record["base"] = fingerprint(base)
        _write_text(sidecar_part, json.dumps(record, indent=2) + "\n")


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of `save_weights`, in float32. Raises `CheckpointError` where they are missing or altered."""
    return _read_weights(Path(path).absolute())[0]


def apply_difference(generator: ImageGenerator, path: Path, alpha: float = 1.0) -> ImageGenerator:
    """Add ``alpha`` times a stored difference to the transformer, in place.

    Raises `CheckpointError`, with nothing changed, where the file is unsound or belongs to another base.
    """
    path = Path(path).absolute()
    change, record = _read_weights(path)
    state = generator.transformer.state_dict()
    odd = [name for name in change if name not in state or state[name].shape != change[name].shape]
    other_base = "base" in record and record["base"] != fingerprint(generator)
    if odd or other_base:
        why = f"{odd[0]} has no counterpart of its shape" if odd else "the prompt encoder or the autoencoder differs"
        raise CheckpointError(
            f"{path} is the difference to another base than the generator given: {why}. "
            f"Load the base it was trained from, or train it again from this one."
        )
    for name, value in change.items():
        state[name] += alpha * value.to(state[name])
    return generator


def fingerprint(generator: ImageGenerator) -> str:
    """A check sum of the parts that fine-tuning leaves alone, the same before saving and after loading."""
    digest = hashlib.sha256()
    for part in ("vae", "prompt_encoder"):
        for name, value in sorted(getattr(generator, part).state_dict().items()):
            digest.update(f"{part}.{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict]:
    sidecar = _sidecar(path)
    _finish_replacing(path, sidecar)
    for needed in (path, sidecar):
        if not needed.is_file():
            raise CheckpointError(f"the weights {path} cannot be read: {needed} is missing. {_remedy(needed)}")
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        _check_file(path, record["size"], record["sha256"])
        return {name: value.float() for name, value in load_file(path).items()}, record
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the weights {path} cannot be read ({error}). {_remedy(sidecar)}") from error


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


# Files --------------------------------------------------------------------------------------------------------


def _find(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, Path) or Path(name_or_path).name != name_or_path:
        folder = Path(name_or_path).absolute()
        _finish_replacing(folder)
        if not folder.is_dir():
            raise CheckpointError(
                f"there is no checkpoint folder {folder}. Save one there, or give the name of one of the package's."
            )
        return folder
    folder = CHECKPOINTS / name_or_path
    _finish_replacing(folder)
    if not folder.is_dir():
        known = sorted(path.parent.name for path in CHECKPOINTS.glob(f"*/{MANIFEST}"))
        raise CheckpointError(
            f"there is no checkpoint {name_or_path!r}; those that exist: {', '.join(known) or 'none'}. Make it with "
            f"`pixelpolicy pretrain {name_or_path}`, or give a folder of your own as a path, './{name_or_path}'."
        )
    return folder


def _remedy(path: Path) -> str:
    """What to do about an unsound file."""
    if CHECKPOINTS in path.parents:
        name = path.relative_to(CHECKPOINTS).parts[0]
        return f"Restore it with `git checkout -- {path}`, or make it again with `pixelpolicy pretrain {name}`."
    return f"Restore it with `git checkout -- {path}` if it came with the course; else copy or save it again."


def _check_file(path: Path, size: int, sha256: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"the checkpoint file {path} is missing. {_remedy(path)}")
    found_size, found = path.stat().st_size, _sha256(path)
    if found_size != size or found != sha256:
        what = "altered" if found_size == size else "truncated" if found_size < size else "longer than it was"
        raise CheckpointError(
            f"the checkpoint file {path} is {what}: expected {size:,} bytes with SHA-256 {sha256[:12]}, found "
            f"{found_size:,} bytes with {found[:12]}. {_remedy(path)}"
        )


def _check_finite(state: dict[str, Tensor], where: str) -> int:
    """The bytes of a float16 state. Raises `CheckpointError` where a weight is NaN or above 65,504."""
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"the weights {name} of {where} are not all finite in float16, so nothing was saved. "
                f"Training diverged: go back to an earlier state, with a lower learning rate."
            )
    return sum(value.numel() * value.element_size() for value in state.values())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")  # the same bytes, and check sums, on every system


@contextlib.contextmanager
def _written_whole(*finals: Path, needed: int) -> Iterator[list[Path]]:
    """Temporary siblings of ``finals`` to write to; they take their places together, or leave no trace."""
    parts = [_part(final) for final in finals]
    try:
        for part in parts:
            _remove(part)  # of a run that was killed
        yield parts
        _replace(parts, finals)
    except (OSError, SafetensorError) as error:
        for part in parts:
            _remove(part)
        free = shutil.disk_usage(next(parent for parent in finals[0].parents if parent.exists())).free
        raise CheckpointError(
            f"{finals[0]} could not be saved ({error}). It needs about {(needed + 1e5) / 1e6:.1f} MB and "
            f"{free / 1e6:.1f} MB are free. Nothing was changed; make room, or save elsewhere, and save again."
        ) from error
    finally:
        for part in parts:
            _remove(part)


def _part(final: Path) -> Path:
    return final.with_name(f".{final.name}.part")


def _kept(final: Path) -> Path:
    return final.with_name(f".{final.name}.old.part")


def _replace(parts: list[Path], finals: tuple[Path, ...]) -> None:
    """Move each part to its place; where one fails, put everything back."""
    moved = []
    try:
        for part, final in zip(parts, finals, strict=True):
            if final.exists():
                os.rename(final, _kept(final))
            os.rename(part, final)
            moved.append(final)
    except BaseException:
        for final in moved:
            _remove(final)
        for final in finals:
            if _kept(final).exists():
                os.rename(_kept(final), final)
        raise
    for final in finals:
        _remove(_kept(final))


def _finish_replacing(*finals: Path) -> None:
    """Put right what a process killed inside `_replace` left behind."""
    kept = [final for final in finals if _kept(final).exists()]
    undo = _part(finals[-1]).exists() or not all(final.exists() for final in finals)
    for final in kept:
        if undo:
            _remove(final)
            os.rename(_kept(final), final)
        else:
            _remove(_kept(final))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers' advice to itself while a checkpoint loads."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
