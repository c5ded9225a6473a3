"""The front page's moving picture: the files that turn its still into a player."""

from __future__ import annotations

from typing import Any

FOLDER = "front"
STYLE, SCRIPTS = f"{FOLDER}/front.css", (f"{FOLDER}/data.js", f"{FOLDER}/front.js")
PLACE = "front-picture"


def add_files(app: Any, body: str) -> None:
    """Let a page whose text has the picture load its player."""
    if f' {PLACE}"' in body or f'"{PLACE}' in body:
        app.add_css_file(STYLE, priority=811)
        for place, script in enumerate(SCRIPTS):
            app.add_js_file(script, priority=812 + place, defer="defer")
