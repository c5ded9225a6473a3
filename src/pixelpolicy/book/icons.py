"""The theme's icons: of the two thousand that it brings to every page, the few that pages show."""

from __future__ import annotations

import re
from pathlib import Path

from pixelpolicy.errors import BookError

SCRIPT = "_static/scripts/fontawesome.js"
# `"name":[width, height, [other names], "code", "path"]`, as Font Awesome's script lists them.
ICON = re.compile(
    r'(?:"(?P<quoted>[\w-]+)"|(?P<plain>[A-Za-z_]\w*|\d+))'
    r':\[\d+,\d+,\[(?P<others>[^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?'
)
NAME = re.compile(r"\bfa-([a-z0-9-]+)")
LEAST = 1000  # icons that the script is known to bring


def keep_used_icons(html: Path) -> int:
    """Leave in the theme's script those icons alone that a page or another script names; returns how many.

    Raises BookError where the script no longer lists its icons as it did: pages would be half a megabyte heavier.
    """
    script = html / SCRIPT
    text = script.read_text(encoding="utf-8")
    places = [*html.rglob("*.html"), *(path for path in script.parent.glob("*.js") if path != script)]
    used = {name for path in places for name in NAME.findall(path.read_text(encoding="utf-8"))}
    found = list(ICON.finditer(text))
    if len(found) < LEAST:
        raise BookError(f"{SCRIPT} lists its icons in another way than book/icons.py knows; look at ICON there")

    def is_used(icon: re.Match) -> bool:
        return bool(used & {icon["quoted"] or icon["plain"], *re.findall(r'"([\w-]+)"', icon["others"])})

    kept = sum(map(is_used, found))
    script.write_text(ICON.sub(lambda icon: icon[0] if is_used(icon) else "", text), encoding="utf-8")
    return kept
