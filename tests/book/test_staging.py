"""Assets, staging, results and errors of the book, without building it."""

import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
from base64 import b64encode

import nbformat
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from pixelpolicy.book import build as building
from pixelpolicy.book.assets import fetch_assets
from pixelpolicy.book.library import PACKAGES
from pixelpolicy.book.pages import pictures_apart
from pixelpolicy.book.results import overview, results_page
from pixelpolicy.book.staging import OWN, stage, table_of_contents
from pixelpolicy.cli import app
from pixelpolicy.errors import BookError

RUN = {
    "name": "12-grpo", "profile": "cpu", "seed": 0, "seconds": 60.0, "cpu_seconds": 120.0, "peak_memory_mb": 500,
    "threads": 2, "source_sha256": "0" * 64, "commit": "unknown", "packages": {"torch": "2.13.0"}, "date": "2026-11-22",
}  # fmt: skip


def npm(folder, monkeypatch, body: str):
    """A program called npm, and nothing else of that name."""
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / "npm"
    path.write_text(f"#!{sys.executable}\nimport sys, shutil, pathlib\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))


@pytest.fixture
def shop(tmp_path):
    """A course whose lock names one package, and that package's archive."""
    archive = tmp_path / "shop" / "scope-thing-1.0.0.tgz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("package/dist/a.js", "package/dist/fonts/b.woff", "package/dist/unused.js"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    sum_ = "sha512-" + b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    files = {"dist/a.js": "thing/a.js", "dist/fonts/": "thing/fonts/"}
    (tmp_path / "book").mkdir()
    lock = {"@scope/thing@1.0.0": {"integrity": sum_, "files": files}}
    (tmp_path / "book" / "assets.json").write_text(json.dumps(lock))
    return tmp_path


COPY = "shutil.copy({!r}, sys.argv[sys.argv.index('--pack-destination') + 1])"


def test_assets_are_fetched_once(shop, monkeypatch):
    npm(shop, monkeypatch, COPY.format(str(shop / "shop" / "scope-thing-1.0.0.tgz")))
    cache = fetch_assets(shop, shop / "_build" / "assets")
    found = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    assert found == [".made-from.json", "thing/a.js", "thing/fonts/b.woff"]
    npm(shop, monkeypatch, "sys.exit('asked again')")
    fetch_assets(shop, cache)
    lock = shop / "book" / "assets.json"
    lock.write_text(lock.read_text() + "\n")
    with pytest.raises(BookError, match="asked again"):
        fetch_assets(shop, cache)
    assert (cache / "thing" / "a.js").exists(), "the old cache stays"


def test_an_altered_package_is_refused(shop, monkeypatch):
    archive = shop / "shop" / "scope-thing-1.0.0.tgz"
    archive.write_bytes(archive.read_bytes() + b"x")
    npm(shop, monkeypatch, COPY.format(str(archive)))
    with pytest.raises(BookError, match="not the file that book/assets.json names"):
        fetch_assets(shop, shop / "_build" / "assets")
    assert list((shop / "_build").iterdir()) == []


def test_a_machine_without_npm_or_network_is_told_what_to_do(shop, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BookError, match="apt install npm"):
        fetch_assets(shop, shop / "_build" / "assets")
    npm(shop, monkeypatch, "print('npm error code ENOTFOUND', file=sys.stderr); sys.exit(1)")
    with pytest.raises(BookError, match="ENOTFOUND.*needs a network"):
        fetch_assets(shop, shop / "_build" / "assets")


def test_the_lock_names_exact_versions(root):
    lock = json.loads((root / "book" / "assets.json").read_text())
    assert {"mathjax@3.2.2", "requirejs@2.3.8"} <= set(lock)
    for package, entry in lock.items():
        assert package.rpartition("@")[2].replace(".", "").isdigit() and entry["integrity"].startswith("sha512-")


@pytest.fixture
def fake_assets(tmp_path):
    (tmp_path / "assets" / "widgets").mkdir(parents=True)
    return tmp_path / "assets"


def test_a_new_chapter_and_lab_need_no_list(root, tmp_path, fake_assets):
    copy = tmp_path / "course"
    for name in ("book", "chapters", "solutions", "benchmarks"):
        shutil.copytree(root / name, copy / name)
    shutil.copy(root / "pyproject.toml", copy)
    (copy / "book" / "instructors.md").unlink()  # its plans are of labs that this course lacks
    for place in (copy / "solutions").glob("*.py"):
        if place.stem != "12-grpo":
            place.unlink()
    for place in (copy / "chapters").glob("*.md"):
        if place.stem != "12-grpo":
            place.unlink()
    (copy / "chapters" / "16-three-d.md").write_text("# 16. Three dimensions\n")
    (copy / "solutions" / "03-reinforce.py").write_text("# %% [markdown]\n# # Lab 3\n\n# %%\nprint(1)\n")
    staged = stage(copy, fake_assets, tmp_path / "src")
    contents = yaml.safe_load((staged / "_toc.yml").read_text())
    away = {"instructors"}
    if not (staged / "mutation.md").exists():  # it has a page once the check of lab 3 or 12 was examined
        away.add("mutation")
    own = [name for name in OWN if name not in away]
    assert [(part["caption"], part["chapters"]) for part in contents["parts"]] == [
        ("Foundations", [{"file": "labs/03-reinforce"}]),
        ("Images", [{"file": "chapters/12-grpo", "sections": [{"file": "labs/12-grpo"}]}]),
        ("Video and three dimensions", [{"file": "chapters/16-three-d"}]),
        ("Library", [{"file": f"library/{name}"} for name in (*PACKAGES, "ground")]),
        ("Reference", [{"file": name} for name in (*own, "results", "bibliography")]),
    ]
    record = json.loads((copy / "benchmarks" / "explorer" / "states.json").read_text())
    explorer, about = staged / "assets" / "explorer", "engine.json"
    needed = json.loads((explorer / about).read_text())
    assert set(needed["runs"]) == set(record["runs"])
    for name in ("engine.js", "page.js", "widget.js", *needed["runs"].values(), *needed["parts"].values()):
        assert (explorer / name).stat().st_size > 1000, name
    (copy / "benchmarks" / next(iter(record["runs"].values()))).unlink()
    with pytest.raises(BookError, match="reward explorer.*git checkout"):
        stage(copy, fake_assets, tmp_path / "src")
    shutil.copytree(root / "benchmarks", copy / "benchmarks", dirs_exist_ok=True)
    assert all((staged / "assets" / "widgets" / name).exists() for name in ("anywidget.js", "paths.js"))
    assert not (staged / "executed").exists() and (staged / "chapters/figures/12-before-after.png").exists()
    address = "https://example.org/course"
    project = (copy / "pyproject.toml").read_text()
    (copy / "pyproject.toml").write_text(project.replace('repository = ""', f'repository = "{address}"'))
    staged = stage(copy, fake_assets, tmp_path / "src")
    assert yaml.safe_load((staged / "_config.yml").read_text())["repository"]["url"] == address


def test_names_without_a_place_are_refused(tmp_path):
    for name in ("chapters", "labs"):
        (tmp_path / name).mkdir()
    (tmp_path / "chapters" / "12-grpo.md").touch()
    (tmp_path / "chapters" / "12-more.md").touch()
    with pytest.raises(BookError, match="same number"):
        table_of_contents(tmp_path, [])
    (tmp_path / "chapters" / "12-more.md").rename(tmp_path / "chapters" / "notes.md")
    with pytest.raises(BookError, match="NN-name"):
        table_of_contents(tmp_path, [])


def test_a_missing_bibliography_is_named(tmp_path, fake_assets):
    (tmp_path / "book").mkdir()
    for name in ("_config.yml", "index.md"):
        (tmp_path / "book" / name).touch()
    with pytest.raises(BookError, match="references.bib"):
        stage(tmp_path, fake_assets, tmp_path / "src")


def records(folder, name, runs):
    (folder / "benchmarks").mkdir(exist_ok=True)
    (folder / "benchmarks" / f"{name}.json").write_text(json.dumps(runs))


def test_results_are_medians_of_the_records(tmp_path):
    after, diversity = [0.7, 0.9, 0.8], {"before": 0.25, "after": 0.5}
    runs = [
        RUN | {"seed": seed, "metrics": {
            "accuracy": {"before": 0.5, "after": value}, "diversity": diversity, "training_seconds": 100.0 + seed,
            "spread": {"8": {"ODE": 0.5, "SDE": [seed, 2e-5]}}, "log": [{"accuracy": 0.5}], "curve": {"dense": [0.1]},
            "best_of_n": {"1": 0.5, "12": 0.75}, "accuracy_single": {"before": 0.1, "after": 0.2},
        }}
        for seed, value in enumerate(after)
    ]  # fmt: skip
    records(tmp_path, "12-grpo", runs)
    method = [
        RUN | {"method": name, "metrics": {"accuracy": {"before": 0.5, "after": 0.6}}} for name in ("ddpo", "dpo")
    ]
    records(tmp_path, "algorithms", method)
    rows = overview(tmp_path).splitlines()[2:]
    assert rows == [
        "| lab 12, as a student runs it | 3 | accuracy | 0.500 | 0.800 (0.700 to 0.900) | 0.250 → 0.500 | 2.0 |",
    ]
    page = results_page(tmp_path)
    assert "## Lab 12, as a student runs it" in page and "Seeds 0, 1, 2; profile `cpu`" in page
    assert "## Algorithms, ddpo" in page and "| accuracy | 0.500 | 0.600 |" in page
    assert "| accuracy, base, best of 12 | 0.750 |" in page
    assert "| training, seconds | 101 (100 to 102) |" in page
    assert "| spread: 8; ODE | 0.500 |" in page and "| spread: 8; SDE; 1 | 2.00e-05 |" in page
    assert "| accuracy, single prompts | 0.100 | 0.200 |" in page
    assert "| log" not in page and "| curve" not in page  # courses of a training stay in the records


def test_the_records_of_the_course_make_a_page(root):
    page = results_page(root)
    assert all(
        f"\n## Lab {number}," in page
        for number in {int(path.name[:2]) for path in (root / "benchmarks").glob("[0-9]*.json")}
    )


def test_a_failed_build_leaves_the_old_book(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "fetch_assets", lambda root, cache: cache)
    monkeypatch.setattr(building, "stage", lambda root, cache, folder, references: folder)
    old = tmp_path / "_build" / "html" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("the old book")
    fake = "import sys; print('src/a.md:1: WARNING: document isnt included', file=sys.stderr); sys.exit(0)"
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{fake}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(building.sys, "executable", str(program))
    with pytest.raises(BookError, match="warnings count as errors:\n.*a.md:1: WARNING"):
        building.build(tmp_path)
    assert old.read_text() == "the old book" and not (tmp_path / "_build" / "new").exists()


def test_the_command_builds_and_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(tmp_path))
    note = "book/executed/12.ipynb is stale: run `pixelpolicy run 12 --profile cpu --book`"
    monkeypatch.setattr(building, "build", lambda root: building.Built(root / "_build/html", 12.3, 9.8, [note]))
    done = CliRunner().invoke(app, ["book"])
    said = done.output.replace("\n", "")
    assert done.exit_code == 0 and note in said and "Built in 12 s" in said
    assert os.path.join("_build", "html", "index.html") in said


def test_pictures_of_labs_become_files(tmp_path):
    def coded(kind: str) -> str:
        data = io.BytesIO()
        Image.new("RGB", (7, 5)).save(data, kind)
        return f"data:image/{kind};base64,{b64encode(data.getvalue()).decode()}"

    still, film = coded("png"), coded("gif")
    text = f'<picture><source srcset="{still}"><img alt="A" src="{film}"></picture><img alt="B" src="{still}">'
    shown = nbformat.v4.new_output("display_data", {"text/html": text, "text/plain": "A"})
    other = nbformat.v4.new_output("stream", text="data:image/png;base64,AA")
    cells = [nbformat.v4.new_markdown_cell("x"), nbformat.v4.new_code_cell("y", outputs=[shown, other])]
    pictures_apart(nbformat.v4.new_notebook(cells=cells), tmp_path / "labs", "../_static/labs/")
    made = cells[1].outputs[0].data["text/html"]
    assert "base64" not in made and made.count('width="7" height="5" loading="lazy"') == 2
    named = re.findall(r'(src|srcset)="\.\./_static/labs/([^"]+)"', made)
    assert [kind for kind, _ in named] == ["srcset", "src", "src"] and named[0][1] == named[2][1]
    assert {path.name for path in (tmp_path / "labs").iterdir()} == {name for _, name in named}
    assert Image.open(tmp_path / "labs" / named[1][1]).format == "GIF"
