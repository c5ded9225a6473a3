"""Chromium without a window, and the book served to it on this machine alone."""

from __future__ import annotations

import functools
import gzip
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pixelpolicy.errors import BookError

SERVED_GZIPPED = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".txt"}
# Milliseconds from the request of a page until its first text or picture is seen.
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium as playwright's synchronous ``Browser``, ended with the block.

    Raises BookError where there is none, or playwright is missing.
    """
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not path:
        raise BookError(f"none of {', '.join(PROGRAMS)} is installed (on Debian and Ubuntu: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as fault:
        raise BookError('playwright is not installed; `make environment`, or `pip install --editable ".[book]"`') from (
            fault
        )
    with sync_playwright() as playwright:
        # a container's root may not make the sandbox
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word; a reader that goes away while it is served is no fault."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):  # a page that is closed leaves its scripts half read
            super().copyfile(source, outputfile)


@contextmanager
def served(html: Path) -> Iterator[str]:
    """The address, with its last stroke, at which a folder is served on loopback while the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def weigh(html: Path, addresses: set[str]) -> int:
    """Bytes that a server with gzip sends for these addresses of a book that `served` serves from `html`."""
    return sum(_sent(html / unquote(urlsplit(url).path.lstrip("/"))) for url in addresses if url.startswith("http"))


@functools.cache
def _sent(path: Path) -> int:
    data = path.read_bytes()
    return len(gzip.compress(data, 6)) if path.suffix in SERVED_GZIPPED else len(data)
