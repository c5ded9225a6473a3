"""Writing whole files or none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pixelpolicy.errors import LabError, PixelPolicyError


def write_whole(path: Path, text: str, error: type[PixelPolicyError] = LabError) -> None:
    """Write `text` to `path` in one move: a reader sees the old file or the new one, never a part.

    Raises `error` (a full disk, a folder that may not be written); the old file then stands as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that their owner alone may read
        os.replace(temporary, path)
    except OSError as fault:
        raise error(
            f"could not write {path}: {fault.strerror or fault}; the file is as it was. "
            "Free some space or choose a folder you may write to, and do it again"
        ) from fault
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
