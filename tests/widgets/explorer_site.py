"""What tests of the reward explorer on a static page share: a page that has it, served on loopback."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = """<!doctype html>
<html lang="en" data-content_root="./">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>The explorer alone</title>
<link rel="icon" href="data:,"></head>
<body><div data-reward-explorer>It needs JavaScript.</div>
<script type="module" src="_static/explorer/page.js"></script></body>
</html>
"""


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_):
        pass


@contextmanager
def served(folder: Path):
    """The address of a server of ``folder``, as plain as they come: no header for threads in the browser."""
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


TILES = ".pixelpolicy-explorer-tile:not(.empty)"
NEWS = ".pixelpolicy-explorer-news"
DONE = f"() => /pictures in/.test(document.querySelector('{NEWS}').textContent)"
