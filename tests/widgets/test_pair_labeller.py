"""The pair labeller: what Python keeps, and the page under the hand, with a kernel and without."""

import io
import json
from base64 import b64decode

import nbformat
import numpy as np
import pytest
from in_lab import opened
from PIL import Image

from pixelpolicy.errors import FigureError
from pixelpolicy.widgets import PairLabeller

RNG = np.random.default_rng(0)
LEFT, RIGHT = RNG.integers(0, 256, (2, 3, 3, 8, 8), dtype=np.uint8)
PROMPTS = ["a red circle", "a blue square", "two green triangles"]
VIEW = """side => {
  const canvas = document.querySelectorAll(".pixelpolicy-explorer-view")[side];
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
KERNEL = "() => model.set('heard', model.get('asked'))"


def labeller(file=None, left=LEFT, **words) -> PairLabeller:
    words = {"alt": "coloured shapes"} | words
    return PairLabeller(left, RIGHT, words.pop("prompts", PROMPTS), file=file, **words)


def shows(page, pair: int) -> bool:
    seen = [np.array(page.evaluate(VIEW, side), np.uint8).reshape(8, 8, 4)[..., :3] for side in (0, 1)]
    return all((a.transpose(2, 0, 1) == b[pair]).all() for a, b in zip(seen, (LEFT, RIGHT), strict=True))


def answers(page) -> list[str]:
    assert page.evaluate("() => model.saved.answers.join() === model.get('answers').join()")
    return page.evaluate("() => model.get('answers')")


def test_the_sheet_holds_left_and_right_of_each_pair_in_turn():
    widget = labeller()
    width, height, columns = widget.grid
    sheet = Image.open(io.BytesIO(b64decode(widget.sheet.split(",")[1])))
    for place in range(6):
        x, y = place % columns * width, place // columns * height
        cut = np.asarray(sheet.crop((x, y, x + width, y + height))).transpose(2, 0, 1)
        assert (cut == (LEFT, RIGHT)[place % 2][place // 2]).all()


def test_answers_are_kept_after_each_one_and_taken_up_again(tmp_path):
    file = tmp_path / "work" / "pairs.json"
    widget = labeller(file)
    assert not file.exists()  # nothing was said yet
    widget.answers = ["left", "", ""]
    widget.answers = ["left", "unsure", ""]
    assert json.loads(file.read_text())["answers"] == ["left", "unsure", ""]
    assert labeller(file).answers == ["left", "unsure", ""]
    widget.answers = ["left", "unsure", "right"]
    assert widget.judged == [0, 2] and [path.name for path in file.parent.iterdir()] == ["pairs.json"]


@pytest.mark.parametrize("other", ["not JSON", '{"answers": 3}', None])
def test_answers_to_other_pairs_are_put_aside(tmp_path, other):
    file = tmp_path / "pairs.json"
    labeller(file, left=LEFT[::-1]).answers = ["right", "right", ""]
    text = file.read_text() if other is None else other
    file.write_text(text)
    assert labeller(file).answers == ["", "", ""]
    assert (tmp_path / "pairs-1.json").read_text() == text and not file.exists()


def test_a_folder_that_takes_no_file_is_told_and_the_answer_stays(tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    widget = labeller(tmp_path / "blocked" / "pairs.json")
    widget.answers = ["left", "", ""]
    assert "could not write" in widget.trouble and widget.answers[0] == "left"


@pytest.mark.parametrize(
    ("words", "said"),
    [({"alt": " "}, "alt="), ({"prompts": PROMPTS[:2]}, "2 prompts came with 3 pairs"), ({"left": LEFT[:2]}, "shapes")],
)
def test_parts_that_do_not_fit_are_refused(words, said):
    with pytest.raises(FigureError, match=said):
        labeller(**words)


@pytest.mark.parametrize("given", [["left", "left"], ["left", "up", ""]])
def test_an_answer_that_is_none_is_refused(given):
    widget = labeller()
    with pytest.raises(FigureError, match="give one a pair"):
        widget.answers = given
    assert widget.answers == ["", "", ""]


def test_keys_and_buttons_label_and_undo(stand):
    page = stand(labeller())
    page.evaluate(KERNEL)
    assert shows(page, 0)
    page.locator(".pixelpolicy-labeller").focus()
    page.keyboard.press("ArrowRight")
    assert answers(page) == ["right", "", ""] and shows(page, 1)
    page.keyboard.press("ArrowDown")
    assert answers(page) == ["right", "unsure", ""] and shows(page, 2)
    page.keyboard.press("Backspace")
    assert answers(page) == ["right", "", ""] and shows(page, 1)
    page.get_by_role("button", name="Left is better").click()
    page.get_by_role("button", name="Cannot say").click()
    assert answers(page) == ["right", "left", "unsure"]
    assert page.get_by_text("All pairs are judged").is_visible() and page.get_by_text("3 of 3 judged").is_visible()
    page.get_by_role("button", name="Undo").click()
    assert answers(page) == ["right", "left", ""] and shows(page, 2)
    page.keyboard.press("Enter")  # on the focused Undo: the page's own keys stay its own
    assert answers(page) == ["right", "", ""] and shows(page, 1)


def test_a_session_that_was_broken_off_goes_on_at_the_first_open_pair(stand):
    widget = labeller()
    widget.answers = ["left", "", ""]
    page = stand(widget)
    page.evaluate(KERNEL)
    assert shows(page, 1) and page.get_by_text("1 of 3 judged").is_visible()
    page.evaluate("() => model.set('trouble', 'the disk is full')")
    assert page.get_by_text("Your last answer is not on disk: the disk is full").is_visible()


def test_without_a_kernel_it_shows_the_pairs_and_says_where_to_label(stand):
    page = stand(labeller())
    page.get_by_text("labelling needs JupyterLab").wait_for()
    assert page.get_by_role("button", name="Left is better").is_disabled()
    page.get_by_role("button", name="Next pair").click()
    assert shows(page, 1)
    page.keyboard.press("ArrowRight")
    assert shows(page, 2) and page.evaluate("() => model.get('answers').join('')") == ""
    page.keyboard.press("ArrowLeft")
    assert shows(page, 1)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_telephone_and_every_control_has_a_name(stand, dark):
    page = stand(labeller(), width=360, dark=dark)
    page.evaluate(KERNEL)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in tree if node.get("role", {}).get("value") in {"button", "image", "img", "progressbar"}]
    shown = [node for node in found if not node["ignored"]]
    assert len(shown) >= 7
    assert all(node.get("name", {}).get("value", "").strip() for node in shown)


@pytest.mark.slow
def test_in_jupyterlab_a_click_reaches_python_and_the_disk(tmp_path, browser):
    code = f"""
import numpy as np
from pixelpolicy.widgets import PairLabeller
left, right = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 8, 8), dtype=np.uint8)
PairLabeller(left, right, {PROMPTS}, alt="noise", file="pairs.json")
"""
    with opened([nbformat.v4.new_code_cell(code.strip())], tmp_path, browser, ".pixelpolicy-labeller") as page:
        page.get_by_role("button", name="Left is better").click()
        page.locator(".pixelpolicy-labeller").focus()
        page.keyboard.press("ArrowRight")
        page.get_by_text("2 of 3 judged").wait_for()
        file = tmp_path / "pairs.json"
        for _ in range(100):
            if file.exists() and json.loads(file.read_text())["answers"] == ["left", "right", ""]:
                return
            page.wait_for_timeout(100)
        pytest.fail("the answers did not reach the disk")
