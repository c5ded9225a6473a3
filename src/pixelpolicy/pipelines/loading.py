"""Pipelines from folders and from what was fetched before: nothing here reaches for the network."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from pixelpolicy.errors import CheckpointError
from pixelpolicy.profiles import rehearsing
from pixelpolicy.quiet import quiet

Generator = TypeVar("Generator")


@dataclass(frozen=True)
class Source:
    """Where a kind of pipeline comes from: diffusers' class, its ``name`` in words, and the published repository.

    ``unneeded`` are patterns of the files that are left out of the download, ``terms`` is what must be done before it.
    ``decoder`` is the part that makes samples of latents, which keeps a dtype of its own.
    """

    pipeline: str
    name: str
    repository: str
    unneeded: tuple[str, ...]
    terms: str = ""
    decoder: str = "vae"

    def fetch(self, repository: str | None = None) -> str:
        """The command that fetches the weights of a repository: of the published one, or of another like it."""
        return " ".join(
            ["hf download", repository or self.repository, *(f'--exclude "{pattern}"' for pattern in self.unneeded)]
        )


def open_pipeline(
    source: Source,
    folder_or_id: str | Path | None,
    *,
    dtype: torch.dtype | None,
    vae_dtype: torch.dtype,
    device: str | torch.device | None,
    **parts: Any,
) -> Any:
    """A pipeline with its networks frozen and on their device; ``parts`` stand in for those of the folder.

    On CUDA by default, in bfloat16; on the CPU in float32. Raises `CheckpointError` where the weights are not there:
    not fetched yet, or not whole.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    folder = _find(source, source.repository if folder_or_id is None else folder_or_id)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # some networks draw weights before they read theirs
            import diffusers

            kinds = {source.decoder: vae_dtype, "default": dtype}
            kind = getattr(diffusers, source.pipeline)
            pipeline = kind.from_pretrained(folder, dtype=kinds, local_files_only=True, **parts)
    except Exception as error:  # whatever the many loaders of a pipeline raise
        raise CheckpointError(
            f"{folder} is no whole {source.name} pipeline ({type(error).__name__}: {error}). Fetch it again with "
            f"`{source.fetch()}`, or give a folder that `{source.pipeline}.save_pretrained` wrote."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.to(device).eval().requires_grad_(False)
    return pipeline


def open_for_profile(
    load: Callable[..., Generator], twin: Callable[[str], Path], *, height: int, width: int, **settings: Any
) -> Generator:
    """What the profile gpu trains: the published model, or in a rehearsal its tiny random twin, which draws 64 x 64."""
    if not rehearsing():
        return load(height=height, width=width, **settings)
    with tempfile.TemporaryDirectory(prefix="pixelpolicy-twin-") as folder:
        return load(twin(folder), height=64, width=64, **settings)


def _find(source: Source, folder_or_id: str | Path) -> Path:
    """The folder of the weights; `CheckpointError` says how to fetch them where there is none."""
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    if isinstance(folder_or_id, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", folder_or_id):
        raise CheckpointError(
            f"there is no folder {folder}. Give one that `{source.pipeline}.save_pretrained` wrote, or the id "
            f"of a repository, such as {source.repository!r}."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(folder_or_id, local_files_only=True, ignore_patterns=list(source.unneeded)))
    except (OSError, ValueError) as error:
        terms = f" {source.terms}" if source.terms and folder_or_id == source.repository else ""
        raise CheckpointError(
            f"the weights of {folder_or_id} are not on this machine, or not all of them.{terms} Fetch them with "
            f"`{source.fetch(folder_or_id)}`."
        ) from error
