"""The front page, the map, the survey's page and the heads of labs, without building the book."""

import json
import re
import shutil
from contextlib import contextmanager
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import chromium
from PIL import Image

from pixelpolicy.book import chapter_map, survey_page
from pixelpolicy.book.chapter_map import BUILDS_ON, IDEAS, PLACES, SIGNS
from pixelpolicy.book.opening import effort, minutes_to_read, ways_to_open
from pixelpolicy.course.source import read_source, sources
from pixelpolicy.errors import BookError
from pixelpolicy.worlds import shapes

NUMBERS = r"((?:\d+(?:, | and | to )?)+)"


@pytest.fixture(scope="module")
def front(root):
    folder = root / "book" / "front"
    text = (folder / "data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("frontPicture = ").rstrip(";\n")), folder


def named(text: str) -> set[int]:
    """The chapters and labs that a text names, ranges written out."""
    found: set[int] = set()
    for listed in re.findall(rf"\b(?:chapters?|labs?)\s+{NUMBERS}", re.sub(r"\s+", " ", text), re.I):
        for low, high in re.findall(r"(\d+)(?: to (\d+))?", listed):
            found |= set(range(int(low), int(high or low) + 1))
    return found


def below(number: int) -> set[int]:
    """All chapters that one builds on, at first hand or further."""
    return set(BUILDS_ON[number]).union(*(below(low) for low in BUILDS_ON[number]))


# The moving picture ----------------------------------------------------------------------------------------------


def test_the_picture_is_of_the_recorded_run(root, front):
    """Samples drawn and accuracy are those of the log, as long as rounding leaves the two together."""
    data, folder = front
    log = json.loads((root / "benchmarks" / "12-grpo-long" / "seed-0.json").read_text())
    looks = data["looks"]
    size = looks[-1]["pictures"] // len(log)
    measured = {row["iteration"] * size: row["accuracy"] for row in log if "accuracy" in row}
    both = [look for look in looks[:-1] if look["pictures"] in measured]
    assert len(both) >= 2
    assert both[0]["accuracy"] == pytest.approx(measured[both[0]["pictures"]], abs=0.02)
    assert looks[-1]["accuracy"] == pytest.approx(max(measured.values()), abs=0.02)
    assert [look["pictures"] for look in looks] == sorted({look["pictures"] for look in looks})


def test_its_frames_are_what_the_verifier_says(front):
    data, folder = front
    sheet = np.asarray(Image.open(folder / "pictures.png").convert("RGB"))
    count, size = len(data["prompts"]), shapes.SIZE
    assert sheet.shape == (len(data["looks"]) * size, count * size, 3)
    for row, look in enumerate(data["looks"]):
        pictures = sheet[row * size : (row + 1) * size].reshape(size, count, size, 3).transpose(1, 3, 0, 2)
        verdicts = shapes.verify(pictures.astype(np.float32) / 127.5 - 1, data["prompts"])
        assert [bool(verdict.strict) for verdict in verdicts] == look["accepted"]


def test_its_carts_fall_when_they_are_said_to(front):
    data, _ = front
    for look in data["looks"]:
        for states, stood in zip(look["carts"], look["stood"], strict=True):
            (x, angle), frames = states[-1], len(states)
            assert frames == len(data["moments"])
            fell = abs(angle) > 0.2094 or abs(x) > 2.4
            assert fell == (stood < data["moments"][-1]), (stood, x, angle)


def test_it_is_small_and_told_in_words(root, front):
    data, folder = front
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 400_000
    page = (root / "book" / "index.md").read_text(encoding="utf-8")
    alt = re.search(r"front/still\.png\n(?::[^\n]*\n)*?:alt: ([^\n]*)", page)[1]
    first, last = data["looks"][0], data["looks"][-1]
    for look in (first, last):
        assert f"{sum(stood == 500 for stood in look['stood'])} of 8" in alt
        assert f"{sum(look['accepted'])} of 8" in alt


def test_its_player_stops_for_who_wants_less_motion_and_has_a_button(front):
    script = (front[1] / "front.js").read_text(encoding="utf-8")
    assert "prefers-reduced-motion" in script and 'make("button"' in script and "aria-valuetext" in script
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script)


# The map ---------------------------------------------------------------------------------------------------------


def test_every_chapter_is_on_the_map_and_builds_on_earlier_ones(root):
    chapters = {int(path.name[:2]) for path in (root / "chapters").glob("[0-9]*.md")}
    assert chapters == set(BUILDS_ON) == set(SIGNS) == set(PLACES)
    assert all(low < high for high, lows in BUILDS_ON.items() for low in lows)
    assert {idea for lows in BUILDS_ON.values() for idea in lows.values()} == set(IDEAS)


def test_what_a_lab_says_one_needs_is_on_the_map(root):
    told = 0
    for path in sources(root):
        number = int(path.name[:2])
        opening = re.search(r"^# # Lab.*?(?=^# %%)", path.read_text(encoding="utf-8"), re.M | re.S)[0]
        flat = re.sub(r"[\s#]+", " ", opening)
        for sentence in re.findall(r"You need (?!Python)[^.]*", flat):
            needed = {other for other in named(sentence) if other < number}
            assert needed <= below(number), (path.stem, sentence)
            told += bool(needed)
    assert told >= 8


def test_every_arrow_is_in_the_text(root):
    """The later chapter or lab names the earlier one, or the earlier chapter says where it leads."""
    texts: dict[int, str] = {}
    for path in (*(root / "chapters").glob("[0-9]*.md"), *sources(root)):
        number = int(path.name[:2])
        texts[number] = texts.get(number, "") + path.read_text(encoding="utf-8").replace("# ", " ")
    bare = [
        (low, high)
        for high, lows in BUILDS_ON.items()
        for low in lows
        if low not in named(texts[high]) and high not in named(texts[low])
    ]
    assert bare == []


def test_the_map_is_drawn_with_links_and_words():
    addresses = {number: f"chapters/{number}.html" for number in BUILDS_ON}
    drawn = ElementTree.fromstring(chapter_map.drawing(addresses))
    assert [link.get("href") for link in drawn.iter("a")] == list(addresses.values())
    assert "12, GRPO, on 7 and 9" in drawn.get("aria-label")
    corners = sorted(PLACES.values(), key=lambda place: place[::-1])
    assert all(b[0] - a[0] >= 0.9 for a, b in zip(corners, corners[1:], strict=False) if a[1] == b[1])
    few = chapter_map.drawing({4: "4.html", 9: "9.html"})
    assert few.count("<a ") == 2 and few.count("<polygon") == 1
    with pytest.raises(BookError, match="no chapter 20"):
        chapter_map.drawing({20: "20.html"})


# The survey ------------------------------------------------------------------------------------------------------


def test_every_chapter_has_its_place_on_the_survey_page(root):
    page = survey_page.survey_page(root)
    for path in (root / "chapters").glob("[0-9]*.md"):
        assert f"<chapters/{path.stem}>`" in page, path.stem
    keys = {key for listed in re.findall(r"\{cite:p\}`([^`]*)`", page) for key in listed.split(",")}
    known = set(re.findall(r"^@\w+\{([^,\s]+),", (root / "book" / "references.bib").read_text(), re.M))
    assert survey_page.KEY in keys and keys <= known
    assert len(keys) >= 6 and "was **not** compared" in page


# The heads of labs -----------------------------------------------------------------------------------------------


def test_a_lab_says_what_it_takes(root):
    for path in sources(root)[::6]:
        source = read_source(path, checks=False)
        said = effort(root, source)
        work = sum(task.minutes for task in source.tasks.values())
        assert f"{work} for its {len(source.tasks)} exercises" in said
        assert f"</chapters/{source.name}>" in said and "a solved run:" in said
    assert minutes_to_read("word " * 401) == 3 and minutes_to_read("`code` $x$") == 1


def test_places_to_open_a_lab_follow_from_one_setting(root, tmp_path, monkeypatch):
    monkeypatch.delenv("PIXELPOLICY_REPOSITORY", raising=False)
    source = read_source(root / "solutions" / "12-grpo.py", checks=False)
    shutil.copy(root / "pyproject.toml", tmp_path)
    project = tmp_path / "pyproject.toml"
    plain = re.sub(r'^repository = ".*"', 'repository = ""', project.read_text(), flags=re.M)
    project.write_text(plain)
    assert ways_to_open(tmp_path, source) == "Open it in JupyterLab on your machine: `make lab LAB=12`."
    project.write_text(plain.replace('repository = ""', 'repository = "https://github.com/someone/course"'))
    said = ways_to_open(tmp_path, source)
    assert "https://colab.research.google.com/github/someone/course/blob/main/labs/12-grpo.ipynb" in said
    assert "src=https://github.com/someone/course/blob/main/labs/12-grpo.ipynb" in said
    assert "https://mybinder.org/v2/gh/someone/course/main?labpath=labs/12-grpo.ipynb" in said
    monkeypatch.setenv("PIXELPOLICY_REPOSITORY", "https://github.com/another/fork/")  # as .ci/pages.yml sets it
    assert "https://colab.research.google.com/github/another/fork/blob/main/labs" in ways_to_open(tmp_path, source)


@pytest.fixture(scope="module")
def stage(root, tmp_path_factory):
    """A page with nothing but the picture, opened from the disk: ``with stage("reduce") as page``."""
    folder = tmp_path_factory.mktemp("front")
    shutil.copytree(root / "book" / "front", folder / "front")
    scripts = "".join(f'<script defer src="front/{name}.js"></script>' for name in ("data", "front"))
    style = '<link rel="stylesheet" href="front/front.css">'
    figure = '<figure class="align-default front-picture"><img src="front/still.png" alt="Two policies."></figure>'
    (folder / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{style}{scripts}{figure}")
    with chromium() as browser:

        @contextmanager
        def opened(motion: str):
            page = browser.new_page(reduced_motion=motion)
            page.goto((folder / "index.html").as_uri())
            page.wait_for_selector(".front-player")
            yield page
            page.close()

        yield opened


@pytest.mark.slow
def test_the_player_waits_for_who_wants_less_motion_and_obeys_keys(stage, front):
    data, _ = front
    last = str(len(data["looks"]) - 1)
    with stage("reduce") as page:
        button, slider = page.locator(".front-tools button"), page.locator(".front-tools input")
        assert (button.inner_text(), slider.input_value()) == ("Play", last)
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert (button.inner_text(), slider.input_value()) == ("Pause", "0")
        page.keyboard.press("Space")
        assert button.inner_text() == "Play"
        page.keyboard.press("Tab")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        look = data["looks"][-2]
        assert f"{look['pictures']:,} pictures" in slider.get_attribute("aria-valuetext")
        assert page.locator(".front-panel").last.locator(".front-good").count() == sum(look["accepted"])


@pytest.mark.slow
def test_the_player_starts_by_itself_where_motion_is_welcome(stage):
    with stage("no-preference") as page:
        slider = page.locator(".front-tools input")
        assert page.locator(".front-tools button").inner_text() == "Pause"
        page.wait_for_function("document.querySelector('.front-tools input').value > 0")
        slider.focus()
        page.keyboard.press("Home")
        assert (page.locator(".front-tools button").inner_text(), slider.input_value()) == ("Play", "0")
