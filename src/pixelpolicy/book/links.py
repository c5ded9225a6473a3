"""Links within a built book: which of them lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote, urlsplit

# What a page fetches or leads to.
ADDRESSES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}
# A bare `#` is a button of the theme; these name the top of any page.
TOP = {"", "top"}


class _Page(HTMLParser):
    """Gathers the ids of a page and the addresses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.addresses: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.update(value for name in ("id", "name") if (value := found.get(name)))
        if address := found.get(ADDRESSES.get(tag, "")):
            self.addresses.add(address)


def dead_links(html: Path) -> list[str]:
    """What links of the pages below `html` name and nothing there is, as `page.html: address`, in order.

    A link may name a page, a file or a part of a page. What leads outside is not followed. An anchor that a script
    reads, such as `atlas.html#family=grpo`, is no part of a page: it holds an equals sign, which no id here does.
    """
    places = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html"))
    pages = {place: _Page((html / place).read_text(encoding="utf-8")) for place in places}
    return [
        f"{place}: {address}"
        for place, page in pages.items()
        if "_static" not in place.split("/")
        for address in sorted(page.addresses)
        if not _leads_somewhere(html, pages, place, address)
    ]


def _leads_somewhere(html: Path, pages: dict[str, _Page], place: str, address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return True
    target = normpath(PurePosixPath(place).parent / unquote(parts.path)) if parts.path else place
    if (html / target).is_dir():
        target = f"{target}/index.html"
    if target.startswith("..") or not (html / target).exists():
        return False
    anchor = unquote(parts.fragment)
    return anchor in TOP or "=" in anchor or target not in pages or anchor in pages[target].ids
