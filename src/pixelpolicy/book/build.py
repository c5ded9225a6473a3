"""Building the book: assets, staging, jupyter-book, and the old book replaced only by a whole new one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pixelpolicy.book.assets import fetch_assets
from pixelpolicy.book.executed import complaint
from pixelpolicy.book.icons import keep_used_icons
from pixelpolicy.book.staging import stage
from pixelpolicy.course.source import sources
from pixelpolicy.errors import BookError


@dataclass(frozen=True)
class Built:
    """A book: its folder, the seconds it took by the clock and of the processor, and what is amiss with its executed
    labs, each with the remedy."""

    html: Path
    seconds: float
    cpu_seconds: float
    notes: list[str]


def build(
    root: Path, output: Path | None = None, *, assets: Path | None = None, references: Path | None = None
) -> Built:
    """Build the book of the course at `root` into `output/html`, `_build/html` unless given.

    `assets` is the cache of scripts and fonts, `_build/assets` unless given. Warnings count as errors. Raises
    BookError where something is missing or jupyter-book complains; a book built before then stands as it was.
    """
    started, spent = time.monotonic(), sum(os.times()[:4])
    output = output or root / "_build"
    cache = fetch_assets(root, assets or root / "_build" / "assets")
    source = stage(root, cache, output / "src", references)
    fresh = output / "new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        jupyter_book(source, fresh)
        keep_used_icons(fresh / "_build" / "html")
        old = output / "html"
        shutil.rmtree(old, ignore_errors=True)
        (fresh / "_build" / "html").rename(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    notes = [text for path in sources(root) if (text := complaint(root, path))]
    return Built(output / "html", time.monotonic() - started, sum(os.times()[:4]) - spent, notes)


def jupyter_book(source: Path, output: Path, *more: str) -> None:
    """Run jupyter-book with warnings as errors and `more` options; BookError says what it complained of."""
    words = ["build", str(source), "--path-output", str(output), "--all", "--warningiserror", "--keep-going", "-q"]
    words += more
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *words]
    environment = os.environ | {"NO_COLOR": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
    said = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in (done.stdout + done.stderr).splitlines()]
    if "No module named 'jupyter_book'" in done.stderr:
        raise BookError('jupyter-book is not installed; `make environment`, or `pip install --editable ".[book]"`')
    complaints = [line for line in said if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    if done.returncode or complaints:
        shown = "\n".join(f"  {line.replace(str(source) + os.sep, '')}" for line in complaints or said[-20:])
        raise BookError(f"jupyter-book is not content, and warnings count as errors:\n{shown}")
