"""Files that are written whole or not at all, and checked by SHA-256 before they are used.

A verified folder holds a ``manifest.json`` of the size and the SHA-256 of its every file. Checkpoints are such folders.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from pixelpolicy.errors import CheckpointError

CHECKPOINTS = Path(__file__).parent / "checkpoints"  # those that come with the package
MANIFEST = "manifest.json"


def check_manifest(folder: Path) -> dict[str, dict]:
    """Hold every file of a folder against its manifest; returns ``{name: {"size", "sha256"}}``.

    Raises `CheckpointError` at the first file that differs, and where there is no sound manifest.
    """
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            check_file(folder / name, expected["size"], expected["sha256"])
    except FileNotFoundError as error:
        raise CheckpointError(f"the checkpoint {folder} has no {MANIFEST}. {remedy(manifest)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{manifest} is no list of a checkpoint's files ({error}). {remedy(manifest)}") from error
    return files


def write_manifest(folder: Path) -> None:
    """List every file of a folder in its manifest, and let all read them."""
    entries = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
        entries[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    write_text(folder / MANIFEST, json.dumps({"format": 1, "files": entries}, indent=2) + "\n")


def remedy(path: Path) -> str:
    """What to do about an unsound file."""
    if CHECKPOINTS in path.parents:
        name = path.relative_to(CHECKPOINTS).parts[0]
        return f"Restore it with `git checkout -- {path}`, or make it again with `pixelpolicy pretrain {name}`."
    return f"Restore it with `git checkout -- {path}` if it came with the course; else copy or save it again."


def check_file(path: Path, size: int, sha256: str) -> None:
    """Raises `CheckpointError` where a file is missing or is not of this size in bytes and this check sum."""
    if not path.is_file():
        raise CheckpointError(f"the checkpoint file {path} is missing. {remedy(path)}")
    found_size, found = path.stat().st_size, sha256_of(path)
    if found_size != size or found != sha256:
        what = "altered" if found_size == size else "truncated" if found_size < size else "longer than it was"
        raise CheckpointError(
            f"the checkpoint file {path} is {what}: expected {size:,} bytes with SHA-256 {sha256[:12]}, found "
            f"{found_size:,} bytes with {found[:12]}. {remedy(path)}"
        )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text in the same bytes, hence with the same check sum, on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def written_whole(*finals: Path, needed: int) -> Iterator[list[Path]]:
    """Temporary siblings of ``finals`` to write to; they take their places together, or leave no trace."""
    parts = [part_of(final) for final in finals]
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


def part_of(final: Path) -> Path:
    """Where `written_whole` writes what will take the place of ``final``."""
    return final.with_name(f".{final.name}.part")


def kept_of(final: Path) -> Path:
    """Where the old file lies while a new one takes its place."""
    return final.with_name(f".{final.name}.old.part")


def _replace(parts: list[Path], finals: tuple[Path, ...]) -> None:
    """Move each part to its place; where one fails, put everything back."""
    moved = []
    try:
        for part, final in zip(parts, finals, strict=True):
            if final.exists():
                os.rename(final, kept_of(final))
            os.rename(part, final)
            moved.append(final)
    except BaseException:
        for final in moved:
            _remove(final)
        for final in finals:
            if kept_of(final).exists():
                os.rename(kept_of(final), final)
        raise
    for final in finals:
        _remove(kept_of(final))


def finish_replacing(*finals: Path) -> None:
    """Put right what a process killed while `written_whole` moved files left behind."""
    kept = [final for final in finals if kept_of(final).exists()]
    undo = part_of(finals[-1]).exists() or not all(final.exists() for final in finals)
    for final in kept:
        if undo:
            _remove(final)
            os.rename(kept_of(final), final)
        else:
            _remove(kept_of(final))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
