"""A site of many versions: `latest/`, a folder for each release, and a front door that leads to the latest."""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path

from pixelpolicy.book.links import dead_links
from pixelpolicy.errors import BookError
from pixelpolicy.files import write_whole

LATEST = "latest"
# Numbers with dots between; GitHub Pages serves nothing whose name begins with an underscore without .nojekyll.
RELEASE = r"\d+(\.\d+)+"
DOOR = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={latest}/">
<title>Pixel Policy</title>
</head>
<body>
<main>
<h1>Pixel Policy</h1>
<p><a href="{latest}/">The latest book</a></p>
{releases}</main>
</body>
</html>
"""


def publish(html: Path, site: Path, release: str | None = None) -> list[Path]:
    """Put the built book `html` into `site/latest`, and into `site/RELEASE` too where one is named; returns both.

    What `site` holds of other releases stays. Raises BookError where there is no book, a link of it leads nowhere,
    the release has no number, or was published before: what readers cite does not change under them.
    """
    if not (html / "index.html").is_file():
        raise BookError(f"there is no book in {html}; `make book` builds one")
    if dead := dead_links(html):
        shown = "\n".join(f"  {link}" for link in dead[:20])
        raise BookError(f"{len(dead)} links of the book lead nowhere, so it is not published:\n{shown}")
    if release is not None:
        if not re.fullmatch(RELEASE, release):
            raise BookError(f"a release is called by its number, as in 1.0.2, not {release!r}")
        if (site / release).exists():
            raise BookError(f"{site / release} was published before, and stays as it is: raise the version")
    site.mkdir(parents=True, exist_ok=True)
    placed = [_replace(html, site / name) for name in (LATEST, release) if name]
    (site / ".nojekyll").touch()
    write_whole(site / "index.html", DOOR.format(latest=LATEST, releases=_list(releases(site))), BookError)
    return placed


def releases(site: Path) -> list[str]:
    """The releases that a site holds, newest first."""
    found = [path.name for path in site.iterdir() if path.is_dir() and re.fullmatch(RELEASE, path.name)]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")], reverse=True)


def _replace(html: Path, place: Path) -> Path:
    """Copy `html` to `place`, which is replaced only by the whole copy."""
    fresh = place.with_name(f".{place.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(html, fresh, ignore=shutil.ignore_patterns(".*"))
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _list(names: list[str]) -> str:
    if not names:
        return ""
    entries = "".join(f'<li><a href="{escape(name)}/">{escape(name)}</a></li>\n' for name in names)
    return f"<h2>Releases</h2>\n<ul>\n{entries}</ul>\n"
