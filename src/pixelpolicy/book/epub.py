"""The book as an EPUB: Sphinx makes it; here its pages become XHTML that a reader without scripts can show.

Formulas are set as MathML, which EPUB 3 asks of every reader, by the same MathJax that sets them on the site.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
import zipfile
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from bs4 import BeautifulSoup

from pixelpolicy.book.browser import chromium
from pixelpolicy.errors import BookError

MATHJAX = "mathjax/tex-mml-chtml.js"
FORMULA = re.compile(
    r'<(?P<tag>span|div) (?P<attributes>[^>]*\bclass="[^"]*\bmath notranslate nohighlight\b[^"]*"[^>]*)>'
    r"(?P<number>\s*<span class=\"eqno\">.*?</span>)?\s*(?P<tex>(?:(?!</(?P=tag)>|<span).)*?)</(?P=tag)>",
    re.S,
)
# Alphabets that old MathML names by an attribute and new engines know as letters of their own.
ALPHABETS = {"script": "SCRIPT", "double-struck": "DOUBLE-STRUCK", "fraktur": "FRAKTUR", "bold": "BOLD"}
ALPHABETS |= {"bold-italic": "BOLD ITALIC", "sans-serif": "SANS-SERIF", "monospace": "MONOSPACE"}
SVG = "http://www.w3.org/2000/svg"
# What a parser of HTML writes in small letters and SVG does not.
SVG_NAMES = ("viewBox", "preserveAspectRatio", "textLength", "lengthAdjust", "markerWidth", "markerHeight", "clipPath",
             "linearGradient", "radialGradient", "gradientUnits", "gradientTransform", "refX", "refY")  # fmt: skip
SVG_NAME = {name.lower(): name for name in SVG_NAMES}
WIDGET = '<p class="widget-elsewhere"><em>Here the book’s site has a widget, which needs scripts.</em></p>'
WHEN = (2026, 1, 1, 0, 0, 0)


def make_readable(made: Path, path: Path, mathjax: Path) -> int:
    """Write the EPUB `made` by Sphinx to `path` with scripts gone and formulas set; returns how many formulas.

    `mathjax` is the script that sets them. Raises BookError where a formula cannot be set or a page is no XML.
    """
    with zipfile.ZipFile(made) as book:
        files = {name: book.read(name) for name in book.namelist()}
    pages = {name: plain(data.decode()) for name, data in files.items() if name.endswith(".xhtml")}
    wanted = sorted({formula for text in pages.values() for formula in formulas(text)})
    known = dict(zip(wanted, mathml(wanted, mathjax), strict=True))
    trees = {name: sound(FORMULA.sub(lambda found: _set(found, known), text)) for name, text in pages.items()}
    places = {name: {tag["id"] for tag in tree.find_all(id=True)} for name, tree in trees.items()}
    for name, tree in trees.items():
        only_what_is_there(tree, name, files, places)
        pages[name] = well_formed(name, tree)
        files[name] = pages[name].encode()
    if "content.opf" in files:
        files["content.opf"] = declared(files["content.opf"].decode(), pages).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as book:
        # the first file of an EPUB says what it is, and is not compressed
        for name in sorted(files, key=lambda name: (name != "mimetype", name)):
            kind = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            book.writestr(zipfile.ZipInfo(name, WHEN), files[name], compress_type=kind)
    return len(wanted)


def plain(text: str) -> str:
    """A page without scripts and what only they use; a widget becomes a line that says where it lives."""
    text = re.sub(r"<script[^>]*widget-view\+json[^>]*>.*?</script>", WIDGET, text, flags=re.S)
    text = re.sub(r"<script\b[^>]*/>|<script\b.*?</script>", "", text, flags=re.S)
    text = re.sub(r"<(button|form)\b.*?</\1>", "", text, flags=re.S)
    text = re.sub(r'<a class="headerlink".*?</a>', "", text, flags=re.S)
    # what the book's own generators write is for the site
    return re.sub(r'(<a\b[^>]*\bhref="(?![a-z]+:)[^"#]*)\.html(?=[#"])', r"\1.xhtml", text)


def formulas(text: str) -> list[tuple[bool, str]]:
    """The formulas of a page: whether each stands on a line of its own, and its TeX."""
    return [_formula(found) for found in FORMULA.finditer(text)]


def _formula(found: re.Match) -> tuple[bool, str]:
    tex = unescape(found["tex"]).strip()
    for first, last in ((r"\(", r"\)"), (r"\[", r"\]")):
        if tex.startswith(first) and tex.endswith(last):
            tex = tex[2:-2]
    return found["tag"] == "div", tex.strip()


def mathml(wanted: list[tuple[bool, str]], mathjax: Path) -> list[str]:
    """MathML of formulas, each `(on its own line, TeX)`, as MathJax sets them. BookError names one that it cannot."""
    if not wanted:
        return []
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content="window.MathJax = { startup: { typeset: false } };")
        page.add_script_tag(path=mathjax)
        page.wait_for_function("!!window.MathJax.tex2mml")
        set_ = "(all) => all.map(([display, tex]) => MathJax.tex2mml(tex, { display }))"
        made = page.evaluate(set_, [list(formula) for formula in wanted])
    for (_, tex), text in zip(wanted, made, strict=True):
        if "<merror" in text:
            said = " ".join(re.sub("<[^>]+>", " ", text).split())
            raise BookError(f"MathJax cannot set {tex!r}: {said}")
    return [_modern(text, tex) for (_, tex), text in zip(wanted, made, strict=True)]


def _modern(text: str, tex: str) -> str:
    """MathJax's MathML in one line, with letters for alphabets and the TeX for those who hear it."""
    root = ElementTree.fromstring(text)
    for node in root.iter():
        for name in [name for name in node.attrib if name.startswith("data-")]:
            del node.attrib[name]
        if (kind := node.attrib.get("mathvariant")) in ALPHABETS:
            node.text = "".join(_letter(ALPHABETS[kind], letter) for letter in node.text or "")
            del node.attrib["mathvariant"]
        node.text, node.tail = (node.text or "").strip() or None, None
    root.set("alttext", " ".join(tex.split()))
    ElementTree.register_namespace("", "http://www.w3.org/1998/Math/MathML")
    return ElementTree.tostring(root, encoding="unicode")


def _letter(alphabet: str, letter: str) -> str:
    name = unicodedata.name(letter, "")
    name = name.replace("LATIN ", "").replace("GREEK ", "").replace("LETTER ", "")
    for whole in (f"MATHEMATICAL {alphabet} {name}", f"{alphabet} {name}"):
        try:
            return unicodedata.lookup(whole)
        except KeyError:
            continue
    return letter


def _set(found: re.Match, known: dict[tuple[bool, str], str]) -> str:
    return f"<{found['tag']} {found['attributes']}>{found['number'] or ''}{known[_formula(found)]}</{found['tag']}>"


def sound(text: str) -> BeautifulSoup:
    """A page as a tree of what EPUB allows: the title of a fold is one line, and SVG is what it says it is."""
    tree = BeautifulSoup(text, "html.parser")
    for title in tree.select("summary > p.expanded"):
        title.decompose()  # an open fold's title; a style hid one of the two
    for title in tree.select("summary > p"):
        title.name = "span"
    for figure in tree.find_all("svg"):
        figure["xmlns"] = SVG
        if figure.get("role") == "group":
            figure["role"] = "document"  # EPUB's schema of SVG knows no groups
        for tag in (figure, *figure.find_all(True)):
            tag.name = SVG_NAME.get(tag.name, tag.name)
            tag.attrs = {SVG_NAME.get(name, name): value for name, value in tag.attrs.items()}
        for link in figure.find_all("a"):
            title = tree.new_tag("title")
            title.string = link.get("aria-label") or link.get_text(" ", strip=True)
            link.insert(0, title)
    return tree


def only_what_is_there(tree: BeautifulSoup, name: str, files: dict[str, bytes], places: dict[str, set[str]]) -> None:
    """Take from the page `name` the styles that `files` has not, and the links to places that no page has, their words
    kept: scripts of the site answer some, as `#family=grpo` in the atlas. `places` are the ids of each page."""
    for style in tree.select('link[rel="stylesheet"]'):
        if _target(name, style["href"])[0] not in files:
            style.decompose()
    for link in tree.select("a[href]"):
        if not urlsplit(link["href"]).scheme and not _is_there(*_target(name, link["href"]), files, places):
            link.unwrap()


def _target(page: str, address: str) -> tuple[str, str]:
    """The file that a relative address on a page leads to, and the place in it."""
    found = urlsplit(address)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(found.path))) if found.path else page
    return path, unquote(found.fragment)


def _is_there(file: str, place: str, files: dict[str, bytes], places: dict[str, set[str]]) -> bool:
    return file in files and (not place or file not in places or place in places[file])


def well_formed(name: str, tree: BeautifulSoup) -> str:
    """A page as XML. Raises BookError where it is none."""
    text = tree.decode(formatter="minimal")
    try:
        ElementTree.fromstring(text)
    except ElementTree.ParseError as fault:
        raise BookError(f"{name} of the EPUB is no XML: {fault}") from fault
    return text


def declared(manifest: str, pages: dict[str, str]) -> str:
    """The manifest, saying of each page whether it holds MathML or SVG, as EPUB asks."""

    def properties(found: re.Match) -> str:
        text = pages.get(found[1], "")
        kinds = " ".join(kind for kind, tag in (("mathml", "<math"), ("svg", "<svg")) if tag in text)
        if not kinds or "properties=" in found[0]:
            return found[0]
        return f'{found[0].removesuffix("/>").rstrip()} properties="{kinds}" />'

    return re.sub(r'<item [^>]*?\bhref="([^"]*)"[^>]*/>', properties, manifest)
