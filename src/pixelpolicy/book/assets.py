"""Scripts and fonts that the pages need, from npm: exact versions, their checksums in `book/assets.json`."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from pixelpolicy import npm
from pixelpolicy.errors import BookError

LOCK = "book/assets.json"
STAMP = ".made-from.json"


def fetch_assets(root: Path, cache: Path) -> Path:
    """Fill `cache` with the files that `book/assets.json` names, unless it holds them already; returns `cache`.

    The lock is that of `npm.unpack`. Raises BookError where npm is missing, cannot fetch, or what it fetched is not
    what the lock says; the cache is then as it was.
    """
    text = (root / LOCK).read_text(encoding="utf-8")
    stamp = cache / STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".assets-") as scratch:
        made = Path(scratch) / "assets"
        npm.unpack(
            json.loads(text), made, error=BookError, lock_name=LOCK, user="the first build of the book",
            again="`make book` again; later builds take the files from _build/assets",
        )  # fmt: skip
        (made / STAMP).write_text(text, encoding="utf-8")
        shutil.rmtree(cache, ignore_errors=True)
        made.rename(cache)
    return cache
