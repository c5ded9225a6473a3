"""Links of a built book, and the site of many versions, on books of two pages."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from pixelpolicy.book import publish as publishing
from pixelpolicy.book.links import dead_links
from pixelpolicy.book.publish import publish, releases
from pixelpolicy.cli import app
from pixelpolicy.errors import BookError


def page(words: str) -> str:
    return f"<!doctype html><html lang='en'><head><title>x</title></head><body>{words}</body></html>"


@pytest.fixture
def book(tmp_path):
    """A book whose links all lead somewhere."""
    html = tmp_path / "html"
    (html / "labs").mkdir(parents=True)
    (html / "_static").mkdir()
    (html / "_static" / "book.css").touch()
    (html / "_static" / "part.html").write_text("<a href='nowhere.html'>of no page</a>")
    (html / ".buildinfo").touch()
    links = "labs/01.html labs/01.html#here #top # _static/book.css labs/ https://example.org labs/01.html#a=b&amp;c=d"
    words = "".join(f"<a href='{link}'>x</a>" for link in links.split())
    (html / "index.html").write_text(page(f"<link href='_static/book.css'><i id='top'></i>{words}"))
    (html / "labs" / "01.html").write_text(page("<b id='here'></b><a href='../index.html#top'>x</a>"))
    (html / "labs" / "index.html").write_text(page(""))
    return html


def test_links_that_lead_somewhere_are_let_be(book):
    assert dead_links(book) == []


@pytest.mark.parametrize(
    "link",
    ["labs/02.html", "labs/01.html#there", "#there", "../index.html", "_static/", "labs/01.html#Here", "/index.html"],
)
def test_a_link_that_leads_nowhere_is_named(book, link):
    (book / "index.html").write_text(page(f"<a href='{link}'>x</a>"))
    assert f"index.html: {link}" in dead_links(book)


@pytest.mark.parametrize("tag", ["<img src='a.png'>", "<script src='a.js'></script>", "<iframe src='a.html'></iframe>"])
def test_what_a_page_fetches_must_be_there(book, tag):
    (book / "index.html").write_text(page(f"<i id='top'></i>{tag}"))
    assert [text.partition(".")[0] for text in dead_links(book)] == ["index"]


def test_code_that_speaks_of_links_has_none(book):
    text = "<script>const a = \"<a href='nowhere.html'>\";</script><pre>&lt;a href='nowhere.html'&gt;</pre>"
    (book / "index.html").write_text(page(f"<i id='top'></i><!-- <a href='nowhere.html'> -->{text}"))
    assert dead_links(book) == []


def test_the_latest_is_replaced_and_releases_stay(book, tmp_path):
    site = tmp_path / "site"
    assert publish(book, site, "0.9.1") == [site / "latest", site / "0.9.1"]
    (book / "labs" / "new.html").write_text(page(""))
    publish(book, site, "0.10.0")
    (book / "labs" / "newer.html").write_text(page(""))
    (book / "labs" / "new.html").unlink()
    assert publish(book, site) == [site / "latest"]
    assert releases(site) == ["0.10.0", "0.9.1"]
    held = {name: {path.name for path in (site / name / "labs").iterdir()} for name in ("latest", "0.10.0", "0.9.1")}
    assert held["latest"] == {"01.html", "index.html", "newer.html"}
    assert held["0.10.0"] == {"01.html", "index.html", "new.html"} and held["0.9.1"] == {"01.html", "index.html"}
    door = (site / "index.html").read_text()
    assert 'content="0; url=latest/"' in door and door.index("0.10.0/") < door.index("0.9.1/")
    assert dead_links(site) == []
    assert (site / ".nojekyll").exists() and not (site / "latest" / ".buildinfo").exists()


def test_what_readers_cite_does_not_change(book, tmp_path):
    site = tmp_path / "site"
    publish(book, site, "1.0")
    before = (site / "1.0" / "index.html").read_bytes()
    (book / "index.html").write_text(page("<i id='top'></i>another"))
    with pytest.raises(BookError, match="published before.*raise the version"):
        publish(book, site, "1.0")
    assert (site / "1.0" / "index.html").read_bytes() == before == (site / "latest" / "index.html").read_bytes()


def test_what_cannot_be_published_is_refused_and_nothing_is_touched(book, tmp_path, monkeypatch):
    site = tmp_path / "site"
    with pytest.raises(BookError, match="make book"):
        publish(tmp_path / "nowhere", site)
    for name in ("v1.0", "latest", "../up", "1"):
        with pytest.raises(BookError, match="by its number"):
            publish(book, site, name)
    (book / "labs" / "01.html").unlink()
    with pytest.raises(BookError, match="index.html: labs/01.html"):
        publish(book, site)
    assert not site.exists()


def test_a_copy_that_fails_leaves_the_site_as_it_was(book, tmp_path, monkeypatch):
    site = tmp_path / "site"
    publish(book, site)
    before = (site / "latest" / "index.html").read_bytes()

    def full(source, target, **_):
        target.mkdir()
        raise OSError("no space left")

    monkeypatch.setattr(publishing.shutil, "copytree", full)
    with pytest.raises(OSError, match="no space"):
        publish(book, site)
    assert (site / "latest" / "index.html").read_bytes() == before
    assert not list(site.glob(".*.part"))


def test_the_command_publishes(book, tmp_path, monkeypatch):
    (tmp_path / "_build").mkdir()
    book.rename(tmp_path / "_build" / "html")
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(tmp_path))
    done = CliRunner().invoke(app, ["publish", str(tmp_path / "site"), "--release", "2.0"])
    assert done.exit_code == 0 and "2.0" in done.output
    assert releases(tmp_path / "site") == ["2.0"]


class TestTheScript:
    """`.ci/pages`, on a repository and a remote of the test's own."""

    @pytest.fixture
    def git(self, tmp_path, book, root, monkeypatch):
        """Says `git WORDS` in a clone that holds a built book; its remote is `remote.git`."""
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_NAME", "somebody")
            monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")
        monkeypatch.setenv("PYTHON", sys.executable)
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        clone = tmp_path / "clone"
        monkeypatch.setenv("PIXELPOLICY_ROOT", str(clone))

        def git(*words: str) -> str:
            return subprocess.run(["git", *words], cwd=clone, check=True, capture_output=True, text=True).stdout.strip()

        subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
        subprocess.run(["git", "clone", "--quiet", tmp_path / "remote.git", clone], check=True, capture_output=True)
        (clone / ".ci").mkdir()
        shutil.copy(root / ".ci" / "pages", clone / ".ci")
        (clone / ".gitignore").write_text("_build/\n*.glb\n")
        git("add", ".")
        git("commit", "--quiet", "-m", "A course")
        (clone / "_build").mkdir()
        book.rename(clone / "_build" / "html")
        return git

    def test_it_publishes_the_latest_and_each_release_once(self, git, tmp_path):
        clone = tmp_path / "clone"

        def run() -> set[str]:
            done = subprocess.run(["bash", ".ci/pages"], cwd=clone, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            git("fetch", "--quiet", "origin", "gh-pages")
            assert git("rev-list", "--count", "FETCH_HEAD") == "1"
            return set(git("ls-tree", "-r", "--name-only", "FETCH_HEAD").splitlines())

        html = clone / "_build" / "html"
        (html / "_static" / "shape.glb").write_text("what the course ignores is of the book all the same")
        first = run()
        assert {"index.html", ".nojekyll", "latest/labs/01.html", "latest/_static/shape.glb"} <= first
        assert not any(name.startswith((".ci", "1.0")) for name in first)
        git("tag", "v1.0")
        assert "1.0/labs/01.html" in run()
        (html / "labs" / "new.html").write_text(page(""))
        again = run()
        assert "latest/labs/new.html" in again and "1.0/labs/new.html" not in again
        assert git("status", "--porcelain") == "" and len(git("worktree", "list").splitlines()) == 1

    def test_a_remote_out_of_reach_is_no_empty_one(self, git, tmp_path):
        done = subprocess.run(["bash", ".ci/pages", str(tmp_path / "gone.git")], cwd=tmp_path / "clone",
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode != 0 and "published" not in done.stdout


def test_the_workflow_says_what_there_is(root):
    flow = yaml.safe_load((root / ".ci" / "pages.yml").read_text(encoding="utf-8"))
    said = [step["run"] for step in flow["jobs"]["publish"]["steps"] if "run" in step]
    targets = re.findall(r"(?m)^([\w-]+):", (root / "Makefile").read_text(encoding="utf-8"))
    for command in said:
        program, word = command.split()[:2]
        assert (program == "make" and word in targets) or (program == "bash" and (root / word).is_file()), command
    assert flow["permissions"] == {"contents": "write"}
