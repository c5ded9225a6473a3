"""One book for all tests: the course's own, with one lab more whose page holds a widget."""

import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browser import chromium, need

from pixelpolicy import npm
from pixelpolicy.book.assets import fetch_assets
from pixelpolicy.book.browser import served
from pixelpolicy.book.build import build
from pixelpolicy.book.executed import STATE, VIEW, tidied
from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.source import read_source
from pixelpolicy.errors import BookError

AXE = {
    "axe-core@4.14.1": {
        "integrity": "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "files": {"axe.min.js": "axe.min.js"},
    }
}
# A word that stands nowhere else in the book, for the search.
RARE = "zymurgical"
SOLUTION = f"""# %% [markdown]
# # Lab 98: a {RARE} trajectory
#
# Move the handle.

# %%
print("a lab with a widget")
"""


@pytest.fixture(scope="session")
def rare() -> str:
    return RARE


@pytest.fixture(scope="session")
def assets(root) -> Path:
    """The cache of scripts and fonts; without npm or a network the test is skipped, and fails under CI=true."""
    try:
        return fetch_assets(root, root / "_build" / "assets")
    except BookError as error:
        need("npm")
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def axe(root) -> str:
    """The source of axe-core, from npm; kept in _build."""
    folder = root / "_build" / "axe"
    if not (folder / "axe.min.js").exists():
        need("npm")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            npm.unpack(AXE, folder, error=BookError, lock_name=__file__, user="the tests of the book", again="pytest")
        except BookError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))
    return (folder / "axe.min.js").read_text(encoding="utf-8")


def widget_notebook(path: Path, states: Path) -> nbformat.NotebookNode:
    """The lab of `path` as a kernel would have left it: under its code cell a trajectory scrubber and the reward
    explorer of the record `states`."""
    from ipywidgets.embed import embed_data

    from pixelpolicy.widgets import RewardExplorer, TrajectoryScrubber

    frames = np.linspace(0, 255, 9).astype(np.uint8)[None, :, None, None, None] * np.ones((1, 1, 3, 16, 16), np.uint8)
    scrubber = TrajectoryScrubber(
        frames,
        values=np.linspace(-1, 1, 8)[None],
        labels=[f"sigma {1 - place / 8:.2f}" for place in range(9)],
        alt="A grey square that grows lighter.",
    )
    explorer = RewardExplorer.from_states(states, alt="The reward explorer.")
    manager = embed_data(views=[scrubber, explorer], drop_defaults=False)["manager_state"]
    notebook = lab_notebook(read_source(path), answers=True)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for widget in (scrubber, explorer):
        view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
        shown = {VIEW: view, "text/plain": type(widget).__name__}
        cell.outputs.append(nbformat.v4.new_output("display_data", shown))
    notebook.metadata["widgets"] = {STATE: manager}
    return notebook


@pytest.fixture(scope="session")
def course_of_the_book(root, tmp_path_factory) -> Path:
    """A copy of what the book is made of, and lab 98."""
    copy = tmp_path_factory.mktemp("course")
    for name in ("book", "chapters", "solutions", "benchmarks", "tests/attacks"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(root / "pyproject.toml", copy)
    path = copy / "solutions" / "98-widget.py"
    path.write_text(SOLUTION, encoding="utf-8")
    executed = tidied(widget_notebook(path, copy / "benchmarks" / "explorer" / "states.json"))
    ours = {"source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "profile": "cpu"}
    executed.metadata["pixelpolicy"] = ours
    (copy / "book" / "executed").mkdir(exist_ok=True)
    nbformat.write(executed, copy / "book" / "executed" / "98.ipynb")
    return copy


@pytest.fixture(scope="session")
def built(course_of_the_book, assets, tmp_path_factory):
    """The book, built once, warnings as errors."""
    return build(course_of_the_book, tmp_path_factory.mktemp("built"), assets=assets)


@pytest.fixture(scope="session")
def address(built):
    """Where the book is served on loopback."""
    with served(built.html) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address):
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def opener(browser, address):
    """``with opener() as visit``: ``visit("results.html", dark=..., width=...)`` opens a page; ``.outside`` and
    ``.errors`` gather all faults, ``.fetched`` what was asked for, and in the end the pages are closed."""

    @contextmanager
    def visiting():
        pages = []

        def visit(place: str, *, dark: bool = False, width: int = 1280, until: str = "load"):
            scheme, size = "dark" if dark else "light", {"width": width, "height": 900}
            page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            pages.append(page)

            def guard(route):
                if route.request.url.startswith((address, "data:", "blob:")):
                    return route.continue_()
                visit.outside.append(f"{place}: {route.request.url}")
                return route.abort()

            def answered(got):
                visit.fetched.append(got.url)
                if got.status >= 400:
                    visit.errors.append(f"{place}: {got.status} {got.url}")

            page.set_default_timeout(120_000)
            page.route("**/*", guard)
            page.on("pageerror", lambda error: visit.errors.append(f"{place}: {error}"))
            page.on("console", lambda said: said.type == "error" and visit.errors.append(f"{place}: {said.text}"))
            page.on("response", answered)
            page.goto(address + place, wait_until=until)
            return page

        visit.outside, visit.errors, visit.fetched = [], [], []
        try:
            yield visit
        finally:
            for page in pages:
                page.close()

    return visiting


@pytest.fixture
def visit(opener):
    """Opens pages, see `opener`."""
    with opener() as visit:
        yield visit
