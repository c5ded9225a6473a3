"""What a reader takes along: the book as PDF and EPUB, its site in a zip, and their checksums."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

import yaml

from pixelpolicy import __version__
from pixelpolicy.book.build import jupyter_book
from pixelpolicy.book.epub import MATHJAX, WHEN, make_readable
from pixelpolicy.book.pdf import print_book
from pixelpolicy.errors import BookError
from pixelpolicy.files import write_whole

TITLE = "Pixel Policy"
ABOUT = "Reinforcement learning for visual generative models: a course in which a generator is a policy"
SUMS = "SHA256SUMS"
UNPACKED = """The book's site, to be read without a network.

Its pages open as they are. Search and widgets need a server on your own machine:

    python -m http.server --bind 127.0.0.1 --directory .

and then http://127.0.0.1:8000/ in a browser.
"""
EPUB = {
    "epub_basename": "book", "epub_title": TITLE, "epub_description": ABOUT, "epub_identifier": "pixelpolicy",
    "epub_uid": "pixelpolicy", "epub_scheme": "ID", "epub_show_urls": "no", "epub_tocdepth": 2, "epub_use_index": False,
    "html_domain_indices": False, "suppress_warnings": ["epub.unknown_project_files"],
    "html_css_files": ["epub.css"],
}  # fmt: skip
# Styles of the site's own figures and tables that an EPUB needs too, and the theme's colours in them by day.
EPUB_STYLES = ("front/map.css", "atlas/atlas.css")
DAY = {"background": "#ffffff", "border": "#d1d5da", "link": "#0a7d91", "surface": "#f3f4f5", "text-base": "#222832",
       "text-muted": "#48566b"}  # fmt: skip
EPUB_LOOK = """
img, svg { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.8em; }
table { border-collapse: collapse; } td, th { border: 1px solid #888; padding: 0.2em 0.4em; text-align: left; }
figcaption { font-size: 0.9em; } .eqno { float: right; } .sig-line { display: block; margin-left: 2em; }
summary { font-weight: bold; } div.admonition { border-left: 3px solid #888; padding-left: 0.8em; }
.admonition-title { font-weight: bold; } .cell_output { margin-left: 0.8em; }
.atlas-frame table, .atlas-frame tbody, .atlas-frame tr, .atlas-frame caption { display: block; border: 0; }
.atlas-frame .atlas-table tbody th[scope] { display: block; border: 0; padding: 0; width: auto; }
.atlas-frame thead { display: none; } .atlas-frame tr { margin-bottom: 0.8em; }
.atlas-frame tbody td { display: inline; border: 0; padding: 0; } .atlas-frame td + td::before { content: " · "; }
"""


def make_downloads(build: Path, folder: Path) -> list[Path]:
    """Make PDF, EPUB and zip of the book that was built in `build` (`_build`), and their SHA256SUMS, in `folder`.

    Raises BookError where there is no book, or Chromium, playwright or pypdf is missing; what `folder` held then
    stays.
    """
    html, source = build / "html", build / "src"
    if not (html / "index.html").is_file() or not (source / "_toc.yml").is_file():
        raise BookError(f"there is no book in {build}; `make book` builds one")
    stem = f"pixelpolicy-{__version__}"
    with tempfile.TemporaryDirectory(dir=build, prefix=".files-") as scratch:
        fresh = Path(scratch) / "files"
        made = [fresh / f"{stem}.pdf", fresh / f"{stem}.epub", fresh / f"{stem}-site.zip"]
        print_book(html, source / "_toc.yml", made[0], title=TITLE, about=f"{ABOUT}. Version {__version__}.")
        make_epub(source, Path(scratch), made[1])
        zip_site(html, made[2], stem)
        sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
        write_whole(fresh / SUMS, sums, BookError)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return [folder / path.name for path in (*made, fresh / SUMS)]


def make_epub(source: Path, scratch: Path, path: Path) -> int:
    """Make an EPUB of the staged book `source` in a copy below `scratch`, and write it to `path`; returns its formulas.

    Raises BookError where Sphinx complains, or a page cannot be shown without scripts.
    """
    copy = scratch / "epub"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("assets"))
    if (source / "assets" / "labs").is_dir():
        shutil.copytree(source / "assets" / "labs", copy / "assets" / "labs")
    for style in EPUB_STYLES:
        (copy / "assets" / style).parent.mkdir(parents=True, exist_ok=True)
        (copy / "assets" / style).write_text(_on_paper((source / "assets" / style).read_text("utf-8")), "utf-8")
    (copy / "_static" / "book.css").unlink(missing_ok=True)  # for the site's theme alone
    (copy / "assets" / "epub.css").write_text(EPUB_LOOK, encoding="utf-8")
    settings = yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))
    settings["sphinx"]["config"] |= EPUB | {"version": __version__, "release": __version__}
    (copy / "_config.yml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    jupyter_book(copy, scratch / "made", "--builder", "custom", "--custom-builder", "epub")
    return make_readable(scratch / "made" / "_build" / "epub" / "book.epub", path, source / "assets" / MATHJAX)


def _on_paper(style: str) -> str:
    """A style of the site by day, for pages that cannot scroll sideways."""
    style = re.sub(r"(?<=[\s{;])(min-width|overflow-x): [^;]+;", "", style)
    return re.sub(r"var\(--pst-color-([\w-]+)\)", lambda found: DAY[found[1]], style)


def zip_site(html: Path, path: Path, stem: str) -> None:
    """Zip the site below a folder `stem`, the same bytes for the same site."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{stem}/READ-ME.txt", WHEN), UNPACKED)
        for file in sorted(html.rglob("*")):
            name = file.relative_to(html).as_posix()
            if file.is_file() and not name.startswith("."):
                place = zipfile.ZipInfo(f"{stem}/{name}", WHEN)
                archive.writestr(place, file.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
