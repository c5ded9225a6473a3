"""The book as one PDF: Chromium prints its pages, pypdf joins them, and links from page to page lead within it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from pixelpolicy.book.browser import chromium, served
from pixelpolicy.errors import BookError

PAPER = {
    "format": "A4",
    "print_background": True,
    "margin": {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"},
}
# As wide as the paper between its margins, in CSS pixels: what is too wide on the screen is too wide in print.
SCREEN = {"width": 658, "height": 980}
# Every fold is open, every picture and widget there before a page is printed; a table wider than the paper is made
# smaller.
READY = """async () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  document.querySelectorAll("img").forEach((picture) => { picture.loading = "eager"; });
  await window.MathJax?.startup?.promise;
  await Promise.all([...document.images].map((picture) => picture.decode().catch(() => {})));
  window.dispatchEvent(new Event("beforeprint"));
  const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length;
  const drawn = () => document.querySelectorAll(".widget-subarea > *").length;
  for (let tries = 0; drawn() < views && tries < 200; tries++) await new Promise((go) => setTimeout(go, 50));
  await new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go))); // drawn in their place
  await document.fonts.ready;
  document.querySelectorAll("table").forEach((table) => {
    const room = table.parentElement.clientWidth;
    if (room && table.scrollWidth > room) table.style.zoom = room / table.scrollWidth;
  });
  return document.querySelector("article h1, h1")?.firstChild.textContent.trim() || document.title;
}"""
LOOK = """
  @page { size: A4; }
  .bd-article { font-size: 0.85rem; }
  pre, .cell_output pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, img, svg, mjx-container[display], .cell_input, pre { break-inside: avoid; }
  img { max-height: 230mm; object-fit: contain; }
  table { break-inside: auto; } tr { break-inside: avoid; }
  h1, h2, h3, h4, summary { break-after: avoid; }
  #jb-print-toc, .headerlink, .copybtn, .toggle-details, .prev-next-footer, .bd-footer { display: none !important; }
"""
CONTENTS = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Contents</title><style>
  body {{ font: 11pt/1.5 "DejaVu Sans", sans-serif; }} h1 {{ font-size: 26pt; margin: 0 0 2mm; }}
  h2 {{ font-size: 12pt; margin: 6mm 0 1mm; break-after: avoid; }}
  p {{ margin: 0; }} .entry {{ display: flex; break-inside: avoid; }} .entry.below {{ padding-left: 6mm; }}
  .entry i {{ flex: 1; border-bottom: 1px dotted #777; margin: 0 2mm 1.5mm; }} a {{ color: inherit; }}
  a {{ text-decoration: none; }}
</style></head><body><h1>{title}</h1><p>{about}</p>{entries}</body></html>"""
NUMBERS = """<!doctype html><html lang="en"><head><meta charset="utf-8"><style>
  @page {{ size: A4; margin: 0; }} body {{ margin: 0; font: 9pt "DejaVu Sans", sans-serif; color: #444; }}
  p {{ height: 296.9mm; margin: 0; position: relative; break-after: page; overflow: hidden; }}
  p:last-child {{ break-after: auto; }} span {{ position: absolute; bottom: 9mm; right: 18mm; }}
</style></head><body>{pages}</body></html>"""


@dataclass
class Chapter:
    """A page of the book: its place below the site, the part that it opens or stands in, how deep it stands."""

    place: str
    part: str
    depth: int
    title: str = ""
    pdf: bytes = field(default=b"", repr=False)


def chapters(contents: dict[str, Any]) -> list[Chapter]:
    """The pages of a table of contents (`_toc.yml`), in the order in which they are read."""
    found = [Chapter(f"{contents['root']}.html", "", 0)]
    for part in contents["parts"]:
        for entry in part["chapters"]:
            found.append(Chapter(f"{entry['file']}.html", part["caption"], 0))
            found += [Chapter(f"{below['file']}.html", part["caption"], 1) for below in entry.get("sections", [])]
    return found


def print_book(html: Path, contents: Path, path: Path, *, title: str, about: str) -> int:
    """Print the pages of the built book `html` that `contents` lists, and join them to `path`; returns its pages.

    A list of contents with page numbers stands first. Links from page to page and within one lead to places in the
    file. Raises BookError where Chromium, playwright or pypdf is missing, or a page could not be had.
    """
    try:
        from pypdf import PdfWriter
    except ImportError as fault:
        raise BookError('pypdf is not installed; `make environment`, or `pip install --editable ".[book]"`') from fault
    pages = chapters(yaml.safe_load(contents.read_text(encoding="utf-8")))
    with served(html) as address, chromium() as browser:
        tab = browser.new_page(reduced_motion="reduce", viewport=SCREEN)
        tab.emulate_media(media="print", color_scheme="light")
        tab.route("**/atlas.js*", lambda route: route.abort())  # without it the whole table stands there
        for page in pages:
            _print(tab, address, page)
        front = _front(tab, address, pages, title, about)
        book = _Joined(PdfWriter(), address)
        book.add(Chapter("", "", 0, "Contents", front))
        for page in pages:
            book.add(page)
        book.finish(_set(tab, NUMBERS.format(pages=_numbered(len(book.writer.pages)))))
    book.writer.add_metadata({"/Title": title, "/Subject": about})
    book.writer.root_object.update(_language())
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        book.writer.write(file)
    return len(book.writer.pages)


def _print(tab: Any, address: str, page: Chapter) -> None:
    answer = tab.goto(address + page.place, wait_until="load")
    if not answer or not answer.ok:
        raise BookError(f"{page.place} is in the contents and not in the book; `make book` builds it again")
    tab.add_style_tag(content=LOOK)
    page.title = tab.evaluate(READY)
    tab.wait_for_load_state("networkidle")
    page.pdf = _paper(tab, page.title)


def _paper(tab: Any, footer: str = "") -> bytes:
    words = f'<div style="font-size:10px;color:#444;width:100%;padding:0 18mm">{escape(footer)}</div>'
    return tab.pdf(**PAPER, display_header_footer=bool(footer), header_template="<i></i>", footer_template=words)


def _set(tab: Any, text: str) -> bytes:
    tab.set_content(text)
    return tab.pdf(prefer_css_page_size=True, print_background=True)


def _front(tab: Any, address: str, pages: list[Chapter], title: str, about: str) -> bytes:
    """The list of contents; it is set twice, since its own length moves the numbers in it."""
    from pypdf import PdfReader

    lengths, own, front = [len(PdfReader(io.BytesIO(page.pdf)).pages) for page in pages], 0, b""
    for _ in range(2):
        entries, first, part = [], own + 1, ""
        for page, length in zip(pages, lengths, strict=True):
            if page.part != part:
                part = page.part
                entries.append(f"<h2>{escape(part)}</h2>")
            kind = "entry below" if page.depth else "entry"
            link = f'<a href="{address}{page.place}">{escape(page.title)}</a>'
            entries.append(f'<p class="{kind}">{link}<i></i>{first}</p>')
            first += length
        text = CONTENTS.format(title=escape(title), about=escape(about), entries="".join(entries))
        tab.set_content(text)
        front = _paper(tab)
        own = len(PdfReader(io.BytesIO(front)).pages)
    return front


def _numbered(count: int) -> str:
    return "".join(f"<p><span>{number}</span></p>" for number in range(1, count + 1))


def _language() -> dict[Any, Any]:
    from pypdf.generic import NameObject, TextStringObject

    return {NameObject("/Lang"): TextStringObject("en-GB")}


class _Joined:
    """A file that grows page by page; its links are set in the end, when every target has its place."""

    def __init__(self, writer: Any, address: str) -> None:
        self.writer, self.address = writer, address
        self.places: dict[str, int] = {}
        self.links: list[tuple[int, Any, str | Any]] = []
        self.parts: dict[str, Any] = {}

    def add(self, page: Chapter) -> None:
        """Append a printed page, its links kept aside, and its entry in the outline."""
        from pypdf import PdfReader

        reader, first = PdfReader(io.BytesIO(page.pdf)), len(self.writer.pages)
        self.places[page.place] = first
        anchors = reader.named_destinations
        for number, sheet in enumerate(reader.pages):
            for reference in sheet.pop("/Annots", []):
                link = reference.get_object()
                target = link.get("/A", {}).get("/URI")
                if target is None and (anchor := anchors.get(str(link.get("/Dest")))):
                    target = (first + reader.get_destination_page_number(anchor), anchor.get("/Top"))
                if target is not None:
                    self.links.append((first + number, link["/Rect"], target))
            self.writer.add_page(sheet)
        above = None
        if page.part:
            if page.part not in self.parts:
                self.parts[page.part] = self.writer.add_outline_item(title=page.part, page_number=first)
            above = self.parts[page.part]
        self.writer.add_outline_item(title=page.title, page_number=first, parent=above)

    def finish(self, numbers: bytes) -> None:
        """Set the links, and print on each page its number."""
        from pypdf import PdfReader
        from pypdf.annotations import Link

        stamps = PdfReader(io.BytesIO(numbers)).pages
        for sheet, stamp in zip(self.writer.pages, stamps, strict=True):
            sheet.merge_page(stamp)
            sheet.compress_content_streams()  # merging leaves them as plain text
        for number, box, target in self.links:
            if isinstance(target, str) and not target.startswith(self.address):
                self.writer.add_annotation(number, Link(rect=list(box), url=target, border=[0, 0, 0]))
                continue
            if isinstance(target, str):
                place = unquote(target.removeprefix(self.address).partition("#")[0])
                if place not in self.places:
                    continue  # a file of the site that is no page of the book
                target = (self.places[place], None)
            self.writer.add_annotation(number, self._inner(box, *target))
        self.writer.compress_identical_objects(remove_unreferenced=True)

    def _inner(self, box: Any, page: int, top: Any) -> Any:
        from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NullObject, NumberObject

        height = FloatObject(self.writer.pages[page].mediabox.top if top is None else top)
        where = [self.writer.pages[page].indirect_reference, NameObject("/XYZ"), NullObject(), height, NullObject()]
        return DictionaryObject({
            NameObject("/Type"): NameObject("/Annot"),
            NameObject("/Subtype"): NameObject("/Link"),
            NameObject("/Rect"): ArrayObject(FloatObject(side) for side in box),
            NameObject("/Border"): ArrayObject([NumberObject(0)] * 3),
            NameObject("/Dest"): ArrayObject(where),
        })  # fmt: skip
