"""The box viewer: what Python packs and refuses; and alone on a page in headless Chromium, turned and played."""

import io
import json
import re
from base64 import b64decode

import numpy as np
import pytest
from browser import SETTLED, answer_to
from ipywidgets.widgets.widget import _remove_buffers
from PIL import Image

from pixelpolicy.errors import FigureError
from pixelpolicy.viz.boxes import Boxes, turn
from pixelpolicy.widgets import BoxViewer

CHAIR = Boxes(
    centres=[[0, 0, 0.45], [-0.2, 0, 0.75], [0.2, 0.2, 0.2], [0.2, -0.2, 0.2], [-0.2, 0.2, 0.2], [-0.2, -0.2, 0.2]],
    halves=[[0.25, 0.25, 0.03], [0.03, 0.25, 0.3]] + [[0.03, 0.03, 0.2]] * 4,
    colours=[[0.9, 0.3, 0.2]] * 2 + [[0.2, 0.4, 0.8]] * 4,
)
RED, BLUE = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
# a red box walks along x, a blue one turns on its place
WALK = Boxes(
    centres=[[[0.4 * frame, 0, 0.5], [0.6, 0.9, 0.5]] for frame in range(4)],
    halves=[[0.3, 0.1, 0.4], [0.1, 0.3, 0.2]],
    colours=[RED, BLUE],
    rotations=np.stack([np.broadcast_to(np.eye(3), (4, 3, 3)), turn(np.arange(4) * 0.4, 2)], 1),
)
STATE = "['azimuth', 'elevation', 'zoom', 'frame'].map((name) => model.get(name))"
PNG = "(index) => document.querySelectorAll('canvas')[index].toDataURL()"


def viewer(objects=WALK, **words) -> BoxViewer:
    return BoxViewer(objects, **{"alt": "boxes", "ground": 0.0} | words)


def pixels(page, index: int = 0) -> np.ndarray:
    """The picture of one object, ``[height, width, 4]``, once what was asked for is drawn."""
    page.evaluate(SETTLED)
    png = b64decode(page.evaluate(PNG, index).split(",")[1])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)


def where(picture: np.ndarray, channel: int) -> tuple[float, float, int]:
    """Mean column, mean row and number of the pixels of a pure colour."""
    others = picture[..., [c for c in range(3) if c != channel]].max(-1)
    rows, columns = np.nonzero((picture[..., channel] > 60) & (others < 20))
    return float(columns.mean()), float(rows.mean()), len(rows)


# Python -------------------------------------------------------------------------------------------------------


def test_all_that_a_page_needs_is_in_its_traits_and_light():
    widget = viewer([WALK, CHAIR], names=["a walk", "a chair"])
    state, paths, buffers = _remove_buffers(widget.get_state())
    assert not paths and not buffers
    text = json.dumps({key: value for key, value in state.items() if key not in ("layout", "_esm", "_css")})
    assert len(text) < 8_000
    assert widget.frames == 4 and [len(place) for place in widget.places] == [4, 1]
    centre, *axes = np.array(widget.places[0][2][1]).reshape(4, 3)
    np.testing.assert_allclose(centre, [0.6, 0.9, 0.5])
    np.testing.assert_allclose(axes[1], 0.3 * np.array([-np.sin(0.8), np.cos(0.8), 0]), atol=1e-4)
    assert len(str(widget._esm)) + len(str(widget._css)) < 30_000
    assert not re.search(r"\bimport\b|https?:|fetch\(|XMLHttpRequest", str(widget._esm))
    assert not re.search(r"@import|url\(", str(widget._css))


def test_y_up_stands_on_its_feet():
    tall = Boxes(centres=[[1, 2, 3]], halves=[[0.1, 0.9, 0.2]], colours=[RED])
    centre, *axes = np.array(viewer(tall, up="y").places[0][0][0]).reshape(4, 3)
    np.testing.assert_allclose(centre, [3, 1, 2])
    assert np.linalg.det(axes) == pytest.approx(0.1 * 0.9 * 0.2)
    np.testing.assert_allclose(axes[1], [0, 0, 0.9])


@pytest.mark.parametrize(
    ("objects", "words", "says"),
    [
        (WALK, {"alt": " "}, "alt="),
        ([], {}, "one at least"),
        ([WALK.centres], {}, "one at least"),
        ([WALK, Boxes(WALK.centres[:3], WALK.halves[:3], [RED, BLUE])], {}, "4, 3 frames"),
        (WALK, {"names": "ab"}, "one name an object"),
        (WALK, {"up": "x"}, "'y' or 'z'"),
        (WALK, {"fps": 0}, "above 0"),
        (Boxes(np.zeros((9, 300, 3)), np.ones(3), np.zeros(3)), {}, "2700 boxes"),
    ],
)
def test_what_it_refuses(objects, words, says):
    with pytest.raises(FigureError, match=says):
        viewer(objects, **words)


def test_a_frame_that_is_not_there():
    widget = viewer()
    widget.frame = 3
    with pytest.raises(FigureError, match="there is no frame 4"):
        widget.frame = 4
    assert widget.frame == 3


# Chromium -----------------------------------------------------------------------------------------------------


def test_the_nearer_box_hides_the_farther(stand):
    pair = Boxes(centres=[[0, -1, 0], [0, 1, 0]], halves=[[0.5, 0.1, 0.5], [0.3, 0.1, 0.3]], colours=[RED, BLUE])
    page = stand(viewer(pair, ground=None, azimuth=-90, elevation=0))
    front = pixels(page)
    assert where(front, 0)[2] > 20_000 and not ((front[..., 2] > 60) & (front[..., 0] < 20)).any()
    page.evaluate("model.set('azimuth', 90)")
    behind = pixels(page)
    column, row, count = where(behind, 2)
    height, width = behind.shape[:2]
    assert count > 5_000 and abs(column - width / 2) < 3 and abs(row - height / 2) < 3
    assert where(behind, 0)[2] > 2_000  # the larger red one stands out around it


def test_boxes_that_cross_are_cut_where_they_cross(stand):
    """A painter that sorts whole boxes would show one of them in front of the other."""
    cross = Boxes(
        centres=np.zeros((2, 3)),
        halves=[[0.8, 0.1, 0.3]] * 2,
        colours=[RED, BLUE],
        rotations=turn(np.radians([30, -30]), 2),
    )
    picture = pixels(stand(viewer(cross, ground=None, azimuth=-90, elevation=0)))
    half = picture.shape[1] // 2
    for side, nearer in ((picture[:, :half], 0), (picture[:, half:], 2)):
        assert where(side, nearer)[2] > 3 * (where(side, 2 - nearer)[2] if (side[..., 2 - nearer] > 60).any() else 0)


def test_the_mouse_turns_it(stand):
    page = stand(viewer())
    before, (azimuth, elevation, *_) = pixels(page), page.evaluate(STATE)
    box = page.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 50, y + 20, steps=4)
    page.mouse.up()
    after = pixels(page)
    assert (before != after).any(-1).mean() > 0.05
    assert page.evaluate(STATE)[:2] == pytest.approx([azimuth - 30, elevation + 12])
    assert page.evaluate("model.saved.azimuth") == pytest.approx(azimuth - 30)
    page.mouse.move(x - 50, y, steps=3)  # the button is up
    assert (pixels(page) == after).all()
    page.mouse.click(x, y)
    assert page.locator(".pixelpolicy-boxes-stage").evaluate("node => node === document.activeElement")


def test_keys_turn_it_and_the_focus_shows(stand):
    page = stand(viewer(azimuth=-90, elevation=10))
    page.keyboard.press("Tab")
    stage = page.get_by_role("application", name="boxes. Arrow keys turn it")
    assert stage.evaluate("node => node === document.activeElement")
    assert stage.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    first = pixels(page)
    for key, expected in [
        ("ArrowLeft", [-84, 10, 1]),
        ("ArrowRight", [-90, 10, 1]),
        ("ArrowDown", [-90, 16, 1]),
        ("ArrowUp", [-90, 10, 1]),
        ("+", [-90, 10, 1.15]),
        ("-", [-90, 10, 1]),
        ("-", [-90, 10, 1 / 1.15]),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(STATE)[:3] == pytest.approx(expected), key
    assert (pixels(page) != first).any()
    for _ in range(20):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
    assert page.evaluate(STATE)[:2] == pytest.approx([150, 90])  # round the back, and no further than from above
    assert "90 degrees above" in page.get_by_role("status").text_content()
    page.keyboard.press("Home")
    assert (pixels(page) == first).all()


def test_frames_by_slider_and_by_button(stand):
    page = stand(viewer(azimuth=-90, elevation=10, fps=20))
    slider = page.get_by_role("slider", name="Frame")
    slider.focus()
    seen = [where(pixels(page), 0)[0]]
    for frame in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        seen.append(where(pixels(page), 0)[0])
        assert slider.get_attribute("aria-valuetext") == f"{frame + 1} of 4"
    assert np.diff(seen).min() > 20  # from -90 degrees x runs to the right
    page.keyboard.press("ArrowRight")
    assert page.evaluate(STATE)[3] == 3
    page.keyboard.press("Home")
    assert page.evaluate("model.saved.frame") == 0
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("model.get('frame') === 3")
    page.wait_for_function("model.get('frame') === 1")  # it begins again
    page.get_by_role("button", name="Pause").click()
    stopped = page.evaluate(STATE)[3]
    page.wait_for_timeout(200)
    assert page.evaluate(STATE)[3] == stopped == page.evaluate("model.saved.frame")
    assert page.get_by_role("button", name="Play").is_visible()


def test_several_objects_turn_together_and_each_has_its_name(stand):
    page = stand(viewer([WALK, CHAIR, CHAIR], names=["a walk", "a chair", "another"]))
    images = page.get_by_role("img")
    assert [images.nth(i).get_attribute("aria-label") for i in range(3)] == [
        "a walk: boxes",
        "a chair: boxes",
        "another: boxes",
    ]
    assert (pixels(page, 1) == pixels(page, 2)).all() and (pixels(page, 0) != pixels(page, 1)).any()
    before = [pixels(page, i) for i in range(3)]
    page.locator(".pixelpolicy-boxes-stage").press("ArrowLeft")
    assert all((pixels(page, i) != before[i]).any() for i in range(3))
    assert stand(viewer(CHAIR)).get_by_role("button").count() == 0


def test_what_the_kernel_sets_is_shown_and_a_closed_view_is_deaf(stand):
    page = stand(viewer(azimuth=-90))
    page.evaluate("model.set('frame', 2)")
    first = pixels(page)
    page.get_by_role("button").click()
    page.evaluate("leave()")
    shown, frame = pixels(page), page.evaluate(STATE)[3]
    assert (first != shown).any() or frame == 2
    page.wait_for_timeout(300)
    assert page.evaluate(STATE)[3] == frame  # the film has stopped, too
    page.evaluate(f"model.set('frame', {(frame + 2) % 4})")
    assert (pixels(page) == shown).all()


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_dark_or_light_page(stand, dark):
    page = stand(viewer([WALK, CHAIR, CHAIR], names=["w" * 60, "b", "c"]), width=360, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    picture = pixels(page)
    floor = picture[(np.ptp(picture[..., :3], -1) < 12) & (picture[..., 3] == 255)][:, :3].mean()
    assert bool(floor < 80) is dark


def test_a_key_is_answered_within_fifty_milliseconds(stand):
    """Three objects of twelve boxes, as labs show them."""
    rng = np.random.default_rng(0)
    objects = [Boxes(rng.normal(size=(12, 3)), rng.uniform(0.1, 0.4, (12, 3)), rng.random((12, 3))) for _ in range(3)]
    page = stand(viewer(objects))
    page.locator(".pixelpolicy-boxes-stage").focus()
    page.evaluate(PROBE)
    assert answer_to(page, ["ArrowLeft"] * 12) <= 50


PROBE = """() => {
  const canvas = [...document.querySelectorAll("canvas")].at(-1);
  window.times = [];
  const context = canvas.getContext("2d");
  const put = context.putImageData.bind(context);
  let pressed = 0;
  context.putImageData = (...words) => { put(...words); times.push(performance.now() - pressed); };
  window.addEventListener("keydown", (event) => { pressed = event.timeStamp; }, { capture: true });
}"""
