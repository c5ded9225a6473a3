"""PDF, EPUB and zip, on books of a few pages."""

import hashlib
import posixpath
import shutil
import subprocess
import sys
import zipfile
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import pytest
import yaml
from browser import need

from pixelpolicy.book import downloads, epub, pdf
from pixelpolicy.book.browser import chromium, served
from pixelpolicy.errors import BookError

HTML, OPF = "{http://www.w3.org/1999/xhtml}", "{http://www.idpf.org/2007/opf}"
ACTIVE = ("script", "form", "button", "input", "select")
MATH = '<span class="math notranslate nohighlight">\\({}\\)</span>'


def page(words: str, title: str = "A page") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml" lang="en">'
        f"<head><title>{title}</title></head><body>{words}</body></html>"
    )


def test_formulas_are_found_as_the_site_has_them():
    text = (
        MATH.format("a &lt; b")
        + '<div class="math notranslate nohighlight" id="equation-x">\n<span class="eqno">(1)<a href="#x">#</a></span>'
        + "\\[c = d\\]</div>"
        + '<div class="amsmath math notranslate nohighlight">\\begin{align}e\\end{align}</div>'
        + '<span class="pre">math</span>'
    )
    assert epub.formulas(text) == [(False, "a < b"), (True, "c = d"), (True, "\\begin{align}e\\end{align}")]


def test_a_page_without_scripts_keeps_its_words():
    text = (
        '<p>one<a class="headerlink" href="#x">#</a></p><script src="a.js"></script><script src="b.js"/>'
        '<script type="application/vnd.jupyter.widget-view+json">{"model_id": "0"}</script><button>Copy</button>two'
        '<a class="x" href="labs/01.html#y">z</a><a href="https://example.org/a.html">w</a>'
    )
    links = '<a class="x" href="labs/01.xhtml#y">z</a><a href="https://example.org/a.html">w</a>'
    assert epub.plain(text) == f"<p>one</p>{epub.WIDGET}two{links}"


def test_what_is_no_xml_becomes_it():
    loose = page('<p>one<br>two&nbsp;&amp; <img src="a.png" alt="x" hidden><svg viewBox="0 0 1 1"><clipPath/></svg>')
    mended = epub.well_formed("a", epub.sound(loose))
    assert ElementTree.fromstring(mended) is not None
    assert "two\xa0&amp;" in mended and 'viewBox="0 0 1 1"' in mended and "<clipPath>" in mended
    with pytest.raises(BookError, match="a.xhtml of the EPUB is no XML"):
        epub.well_formed("a.xhtml", epub.sound(page('<svg xlink:href="#a"></svg>')))


def test_figures_and_folds_are_what_epub_allows():
    fold = '<details><summary><p class="collapsed">Show</p><p class="expanded">Hide</p></summary>x</details>'
    drawn = '<svg role="group"><a href="b.xhtml" aria-label="To b"><text>2</text></a><a href="#x">x <b>y</b></a></svg>'
    text = epub.well_formed("a", epub.sound(page(f"<p id='x'>x</p>{fold}{drawn}")))
    assert '<summary><span class="collapsed">Show</span></summary>' in text
    assert '<svg role="document" xmlns="http://www.w3.org/2000/svg"><a ' in text
    assert "<title>To b</title>" in text and "<title>x y</title>" in text


def test_links_and_styles_that_lead_nowhere_go_and_words_stay():
    tree = epub.sound(
        '<link rel="stylesheet" href="../a.css"/><link rel="stylesheet" href="gone.css"/>'
        '<a href="#here">1</a><a href="#gone">2</a><a href="b%20c.xhtml#there">3</a><a href="b%20c.xhtml#gone">4</a>'
        '<a href="gone.xhtml">5</a><a href="https://example.org/#z">6</a><a href="../a.css">7</a>'
    )
    files = {"a.css": b"", "one/a.xhtml": b"", "one/b c.xhtml": b""}
    epub.only_what_is_there(tree, "one/a.xhtml", files, {"one/a.xhtml": {"here"}, "one/b c.xhtml": {"there"}})
    assert [style["href"] for style in tree.find_all("link")] == ["../a.css"]
    assert [link.text for link in tree.find_all("a")] == ["1", "3", "6", "7"]
    assert tree.text == "1234567"


def test_styles_of_the_site_are_made_for_paper():
    style = "svg { min-width: 640px; max-width: 100%; } p { overflow-x: auto; color: var(--pst-color-link); }"
    made = downloads._on_paper(style)
    assert "min-width" not in made and "overflow" not in made and "max-width: 100%;" in made
    assert f"color: {downloads.DAY['link']};" in made


def test_letters_of_old_alphabets():
    assert [epub._letter("SCRIPT", letter) for letter in "NL1"] == ["\N{MATHEMATICAL SCRIPT CAPITAL N}", "ℒ", "1"]
    assert [epub._letter("DOUBLE-STRUCK", letter) for letter in "ER"] == ["𝔼", "ℝ"]
    assert [epub._letter("BOLD", letter) for letter in "xθ3"] == ["𝐱", "𝛉", "𝟑"]


def test_the_manifest_says_which_pages_have_formulas():
    manifest = '<item id="x" href="a.xhtml" media-type="t" />\n<item href="nav.xhtml" id="n" properties="nav" />'
    made = epub.declared(manifest, {"a.xhtml": "<math/><svg/>", "nav.xhtml": "<math/>"})
    assert made.splitlines()[0] == '<item id="x" href="a.xhtml" media-type="t" properties="mathml svg" />'
    assert made.splitlines()[1] == manifest.splitlines()[1]


def test_pages_are_read_in_the_order_of_the_contents():
    parts = [{"caption": "One", "chapters": [{"file": "a", "sections": [{"file": "b"}]}, {"file": "c"}]}]
    found = [(page.place, page.part, page.depth) for page in pdf.chapters({"root": "index", "parts": parts})]
    assert found == [("index.html", "", 0), ("a.html", "One", 0), ("b.html", "One", 1), ("c.html", "One", 0)]


def test_a_zip_is_the_same_for_the_same_site(tmp_path):
    for name in ("b.html", "_static/a.css", ".buildinfo"):
        (tmp_path / "html" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "html" / name).write_text(name)
    for name in ("one.zip", "two.zip"):
        downloads.zip_site(tmp_path / "html", tmp_path / name, "book")
        (tmp_path / "html" / "b.html").touch()
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "one.zip").namelist() == ["book/READ-ME.txt", "book/_static/a.css", "book/b.html"]


def test_without_a_book_nothing_is_made_and_the_old_files_stay(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "old.pdf").touch()
    with pytest.raises(BookError, match="make book"):
        downloads.make_downloads(tmp_path, tmp_path / "files")
    assert (tmp_path / "files" / "old.pdf").exists()


def faults(path) -> list[str]:
    """What EPUB forbids, looked for without its checker: XML, figures, folds, styles, addresses, the manifest."""
    found = []
    with zipfile.ZipFile(path) as book:
        files = {name: book.read(name) for name in book.namelist()}
    pages = {name: ElementTree.fromstring(data) for name, data in files.items() if name.endswith(".xhtml")}
    places = {name: {node.get("id") for node in tree.iter()} for name, tree in pages.items()}
    for name, tree in pages.items():
        tags = [node.tag for node in tree.iter()]
        found += [f"{name}: svg or math of no namespace"] * (f"{HTML}svg" in tags or f"{HTML}math" in tags)
        found += [f"{name}: a script, form or button"] * bool({f"{HTML}{tag}" for tag in ACTIVE} & set(tags))
        found += [f"{name}: a paragraph in a summary"] * (tree.find(f".//{HTML}summary//{HTML}p") is not None)
        found += [f"{name}: an id twice"] * (
            len(ids := [n.get("id") for n in tree.iter() if n.get("id")]) > len({*ids})
        )
        for node in tree.iter():
            for address in filter(None, (node.get("href"), node.get("src"))):
                there = urlsplit(address)
                file = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(there.path)))
                file = file if there.path else name
                if there.scheme in ("http", "https", "mailto", "data"):
                    continue
                if file not in files or (there.fragment and there.fragment not in places.get(file, ())):
                    found.append(f"{name}: nothing at {address}")
    package = ElementTree.fromstring(files["content.opf"])
    items = {unquote(item.get("href")): item.get("properties") or "" for item in package.iter(f"{OPF}item")}
    for name, tree in pages.items():
        for kind, space in (("svg", epub.SVG), ("mathml", "http://www.w3.org/1998/Math/MathML")):
            there = any(node.tag.startswith(f"{{{space}}}") for node in tree.iter())
            found += [f"{name}: the manifest is wrong on {kind}"] * (there != (kind in items.get(name, "").split()))
    kept = {name for name in files if not name.startswith("META-INF/")} - {"mimetype", "content.opf"}
    return found + [f"{name} in the manifest or the book alone" for name in sorted(kept ^ set(items))]


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTheWholeBook:
    @pytest.fixture(scope="class")
    def book(self, built, tmp_path_factory):
        need("chromium", "chromium-browser", "google-chrome")
        path = tmp_path_factory.mktemp("epub") / "book.epub"
        downloads.make_epub(built.html.parent / "src", path.parent, path)
        return path

    def test_the_epub_has_none_of_the_faults_that_were_mended(self, book):
        assert faults(book) == []

    def test_epubcheck_is_content(self, book):
        if not (program := shutil.which("epubcheck")):
            pytest.skip("epubcheck is not installed")
        command = ["java", "-jar", program] if zipfile.is_zipfile(program) else [program]
        done = subprocess.run([*command, book], capture_output=True, text=True)
        said = [
            line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("ERROR", "FATAL", "WARN"))
        ]
        assert said == [] and done.returncode == 0


@pytest.mark.slow
class TestInChromium:
    @pytest.fixture(autouse=True)
    def there(self):
        need("chromium", "chromium-browser", "google-chrome")

    @pytest.fixture
    def small(self, tmp_path):
        """`_build` with a book of three pages that lead to each other."""
        html, source = tmp_path / "html", tmp_path / "src"
        (html / "labs").mkdir(parents=True)
        source.mkdir()
        far = "<p style='height:1500px'></p><h2 id='far'>Far</h2>"
        fold = "<details><summary>Fold</summary>an answer</details>"
        (html / "index.html").write_text(
            page(f"<h1>Front</h1><a href='labs/a.html'>a</a> <a href='#far'>far</a>{fold}{far}")
        )
        (html / "labs" / "a.html").write_text(page("<h1>Lab A</h1><a href='../index.html'>up</a>"
                                                   "<a href='https://example.org/'>out</a>"))  # fmt: skip
        parts = [{"caption": "Labs", "chapters": [{"file": "labs/a"}]}]
        (source / "_toc.yml").write_text(yaml.safe_dump({"root": "index", "parts": parts}))
        return tmp_path

    def test_pages_become_one_pdf_whose_links_lead_within_it(self, small):
        from pypdf import PdfReader

        path = small / "files" / "book.pdf"
        count = pdf.print_book(small / "html", small / "src" / "_toc.yml", path, title="A book", about="of three pages")
        book = PdfReader(path)
        texts = [sheet.extract_text() for sheet in book.pages]
        assert count == len(texts) == 4
        assert all("/Filter" in sheet["/Contents"].get_object() for sheet in book.pages)  # not as plain text
        assert all(text.split()[-1] == str(number) or str(number) in text.split() for number, text in
                   enumerate(texts, 1))  # fmt: skip
        assert "Front" in texts[0] and "Lab A" in texts[0] and "an answer" in texts[1] and "Far" in texts[2]
        targets = {}
        for number, sheet in enumerate(book.pages):
            for link in sheet.get("/Annots", []):
                link = link.get_object()
                target = link["/Dest"][0].get_object() if "/Dest" in link else link["/A"]["/URI"]
                found = next((place for place, other in enumerate(book.pages) if other == target), target)
                targets.setdefault(number, []).append(found)
        assert targets == {0: [1, 3], 1: [3, 2], 3: [1, "https://example.org/"]}
        front, part = book.outline[1], book.outline[2]
        assert (front.title, part.title, book.outline[3][0].title) == ("Front", "Labs", "Lab A")
        assert book.metadata.title == "A book" and book.root_object["/Lang"] == "en-GB"
        (small / "html" / "labs" / "a.html").unlink()
        with pytest.raises(BookError, match="labs/a.html is in the contents"):
            pdf.print_book(small / "html", small / "src" / "_toc.yml", path, title="A book", about="")
        assert PdfReader(path).metadata.title == "A book"

    def test_what_is_too_large_for_the_paper_is_made_smaller(self):
        drawn = '<svg xmlns="http://www.w3.org/2000/svg" width="500" height="2000"/>'
        with chromium() as browser:
            tab = browser.new_page(viewport=pdf.SCREEN)
            tab.emulate_media(media="print")
            wide = "".join(f"<td style='min-width:200px'>{word}</td>" for word in "abcdef")
            tab.set_content(f"<h1>A</h1><div style='overflow:auto'><table><tr>{wide}</tr></table></div>"
                            f"<table id='fits'><tr><td>x</td></tr></table>"
                            f"<img alt='x' src='data:image/svg+xml,{quote(drawn)}'>")  # fmt: skip
            tab.add_style_tag(content=pdf.LOOK)
            assert tab.evaluate(pdf.READY) == "A"
            assert tab.evaluate(
                "document.querySelector('div').scrollWidth <= document.querySelector('div').clientWidth"
            )
            assert tab.evaluate("document.getElementById('fits').style.zoom") == ""
            assert tab.evaluate("document.querySelector('img').clientHeight") < pdf.SCREEN["height"]

    def test_formulas_become_mathml(self, tmp_path, assets):
        made = tmp_path / "made.epub"
        with zipfile.ZipFile(made, "w") as book:
            book.writestr("a.xhtml", page(f"<p>{MATH.format('x_t &lt; 1')}</p><script>x</script>"))
            book.writestr("b.xhtml", page(MATH.format(r"\mathcal N")))
            book.writestr("mimetype", "application/epub+zip")
        assert epub.make_readable(made, tmp_path / "out.epub", assets / epub.MATHJAX) == 2
        with zipfile.ZipFile(tmp_path / "out.epub") as book:
            assert book.infolist()[0].filename == "mimetype"
            assert book.infolist()[0].compress_type == zipfile.ZIP_STORED
            a, b = (book.read(name).decode() for name in ("a.xhtml", "b.xhtml"))
        assert 'alttext="x_t &lt; 1"' in a and "<msub><mi>x</mi><mi>t</mi></msub>" in a and "script" not in a
        assert "𝒩" in b
        with zipfile.ZipFile(made, "w") as book:
            book.writestr("a.xhtml", page(MATH.format(r"\frac{")))
        with pytest.raises(BookError, match=r"MathJax cannot set '.*frac.*brace"):
            epub.make_readable(made, tmp_path / "out.epub", assets / epub.MATHJAX)
        assert zipfile.ZipFile(tmp_path / "out.epub").namelist()[0] == "mimetype"

    def test_sums_are_those_of_the_files(self, small, monkeypatch):
        monkeypatch.setattr(downloads, "make_epub", lambda source, scratch, path: path.write_text("an EPUB"))
        made = downloads.make_downloads(small, small / "files")
        assert [path.suffix for path in made] == [".pdf", ".epub", ".zip", ""]
        for line in made[-1].read_text().splitlines():
            digest, name = line.split()
            assert hashlib.sha256((small / "files" / name).read_bytes()).hexdigest() == digest


def test_chromium_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BookError, match="apt install chromium"), chromium():
        pass


def test_a_folder_is_served_on_loopback_alone(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    with served(tmp_path) as address:
        assert address.startswith("http://127.0.0.1:")
        fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
        done = subprocess.run([sys.executable, "-c", fetch, address + "a.txt"], capture_output=True, text=True)
    assert done.stdout.strip() == "words"
