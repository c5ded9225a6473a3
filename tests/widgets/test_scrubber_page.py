"""The scrubber alone on a page in headless Chromium: keys, mouse, names, themes, and how fast it answers."""

import numpy as np
import pytest
from browser import answer_to

from pixelpolicy.widgets import TrajectoryScrubber

STEPS = 6
RNG = np.random.default_rng(1)
FRAMES = RNG.integers(0, 256, (2, STEPS + 1, 3, 32, 32), dtype=np.uint8)
VALUES = np.array([[-1.5, -1.0, -0.5, 0.25, 0.5, np.nan], [-1.0, np.nan, -0.25, 0.5, 1.0, np.nan]])
MINUS = "\N{MINUS SIGN}"
PICTURE = """() => {
  const canvas = document.querySelector(".pixelpolicy-scrubber-picture");
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
CONTROLS = {"slider", "combobox", "button", "image", "img", "figure", "listbox", "textbox", "link", "checkbox"}


def scrubber(frames=FRAMES, values=VALUES) -> TrajectoryScrubber:
    labels = [f"sigma {sigma:.2f}" for sigma in np.linspace(1, 0, frames.shape[1])]
    return TrajectoryScrubber(
        frames, values=values, labels=labels, alt="noise", value_name="log-probability (nats per dimension)",
        caption="Two trajectories.",
    )  # fmt: skip


def shows(page, state: int, sample: int = 0) -> bool:
    """Whether the large picture is, pixel for pixel, this state."""
    rgba = np.array(page.evaluate(PICTURE), np.uint8).reshape(32, 32, 4)
    return (rgba[..., :3].transpose(2, 0, 1) == FRAMES[sample, state]).all()


def test_keys_move_through_the_states(stand):
    page = stand(scrubber())
    slider = page.get_by_role("slider")
    page.keyboard.press("Tab")  # the chooser comes first
    page.keyboard.press("Tab")
    assert slider.evaluate("node => node === document.activeElement")
    assert slider.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    presses = [
        ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowUp", 2), ("ArrowDown", 1), ("ArrowLeft", 0), ("End", STEPS),
        ("ArrowRight", STEPS), ("ArrowLeft", STEPS - 1), ("Home", 0),
    ]  # fmt: skip
    assert shows(page, 0)
    for key, state in presses:
        page.keyboard.press(key)
        assert shows(page, state), (key, state)
        assert slider.get_attribute("aria-valuetext").startswith(f"{state} of {STEPS}, sigma")
        assert page.evaluate("model.get('step')") == state
        assert page.evaluate("model.saved.step ?? 0") == state


def test_the_slider_is_named_and_says_its_value(stand):
    page = stand(scrubber())
    slider = page.get_by_role("slider", name="State of the trajectory")
    for _ in range(4):
        slider.press("ArrowRight")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in tree if node.get("role", {}).get("value") in CONTROLS and not node["ignored"]]
    unnamed = [node["role"]["value"] for node in found if not node.get("name", {}).get("value", "").strip()]
    assert not unnamed
    node = next(node for node in found if node["role"]["value"] == "slider")
    properties = {entry["name"]: entry["value"].get("value") for entry in node["properties"]}
    assert (properties["valuemin"], properties["valuemax"], node["value"]["value"]) == (0, STEPS, 4)
    told = f"4 of {STEPS}, sigma 0.33; this step 0.25; so far {MINUS}2.75"
    assert slider.get_attribute("aria-valuetext") == told  # the tree that Chromium shows to tools leaves it out
    assert page.get_by_text(f"this step 0.25; so far {MINUS}2.75").is_visible()
    pictures = [node["name"]["value"] for node in found if node["role"]["value"] in ("image", "img")]
    assert any("noise (state 4" in name for name in pictures)
    bars = next(name for name in pictures if name.startswith("log-probability (nats per dimension)"))
    assert f"step 1 {MINUS}1.50" in bars and "step 6 no density" in bars


def test_mouse_drags_the_handle_and_presses_thumbnails(stand):
    page = stand(scrubber())
    box = page.get_by_role("slider").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 9, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, y, steps=4)
    assert shows(page, STEPS // 2)
    page.mouse.move(box["x"] + box["width"], y, steps=4)
    page.mouse.up()
    assert shows(page, STEPS)
    thumbs = page.locator(".pixelpolicy-scrubber-thumb")
    assert thumbs.count() == STEPS + 1
    thumbs.nth(2).click()
    assert shows(page, 2)
    page.keyboard.press("ArrowRight")  # the press has given the slider the focus
    assert shows(page, 3)
    bars = page.locator(".pixelpolicy-scrubber-column").nth(4).bounding_box()
    page.mouse.move(bars["x"] + bars["width"] / 2, bars["y"] + 20)
    page.mouse.down()
    assert shows(page, 5)
    page.mouse.move(bars["x"] - 1.5 * bars["width"], bars["y"] + 20, steps=3)
    assert shows(page, 3)
    page.mouse.up()
    page.mouse.move(bars["x"], bars["y"], steps=3)
    assert shows(page, 3)


def test_bars_stand_for_their_values_and_the_present_one_is_marked(stand):
    page = stand(scrubber())
    columns = page.locator(".pixelpolicy-scrubber-column")
    heights = [columns.nth(i).locator("div").bounding_box() for i in range(5)]
    zero = page.locator(".pixelpolicy-scrubber-zero").bounding_box()["y"]
    unit = heights[0]["height"] / 1.5
    for box, value in zip(heights, VALUES[0], strict=False):
        assert abs(box["height"] - unit * abs(value)) < 1.5
        assert abs((box["y"] if value < 0 else box["y"] + box["height"]) - zero) < 1.5
    # the last step is deterministic: no bar, but hatching that has an entry in the legend
    assert not columns.nth(5).locator("div").is_visible()
    hatched = "node => getComputedStyle(node, '::before').backgroundImage.includes('repeating-linear-gradient')"
    assert [columns.nth(i).evaluate(hatched) for i in range(6)] == [False] * 5 + [True]
    assert page.get_by_text("deterministic step: no density").is_visible()
    slider = page.get_by_role("slider")
    colour = "node => getComputedStyle(node).backgroundColor"
    for state in range(1, 6):
        slider.press("ArrowRight")
        colours = [columns.nth(i).locator("div").evaluate(colour) for i in range(5)]
        assert colours.count(colours[state - 1]) == 1
        thumb = page.locator(".pixelpolicy-scrubber-thumb").nth(state).bounding_box()
        column = columns.nth(state - 1).bounding_box()
        assert abs(thumb["x"] + thumb["width"] / 2 - column["x"] - column["width"] / 2) < 1


def test_a_chooser_where_there_are_several_samples(stand):
    page = stand(scrubber())
    chooser = page.get_by_role("combobox", name="Sample")
    page.get_by_role("slider").press("End")
    chooser.select_option(index=1)  # its name is "2"
    page.wait_for_function("model.saved.sample === 1")
    assert shows(page, STEPS, sample=1)
    assert page.get_by_text("this step no density; so far 0.25").is_visible()
    assert stand(scrubber(FRAMES[:1], VALUES[:1])).get_by_role("combobox").count() == 0


def test_what_the_kernel_sets_is_shown_and_a_closed_view_is_deaf(stand):
    page = stand(scrubber())
    page.evaluate("() => { model.set('step', 3); model.set('sample', 1); }")
    assert shows(page, 3, sample=1)
    assert page.get_by_role("slider").input_value() == "3"
    page.evaluate("() => { leave(); model.set('step', 5); model.set('sample', 0); }")
    assert shows(page, 3, sample=1)


@pytest.mark.parametrize("steps", [1, 8, 50])
@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_needs_no_sideways_scrolling(stand, steps, dark):
    frames = RNG.integers(0, 256, (1, steps + 1, 3, 8, 8), dtype=np.uint8)
    page = stand(scrubber(frames, RNG.normal(size=(1, steps)) * 1000), width=360, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    thumbs = page.locator(".pixelpolicy-scrubber-thumb:visible")
    widths = [box["width"] for box in (thumbs.nth(i).bounding_box() for i in range(thumbs.count()))]
    assert min(widths[1:] or widths) >= 15
    assert thumbs.last.get_attribute("title") == "sigma 0.00"
    handle = page.get_by_role("slider")
    for state in range(1, steps + 1):
        handle.press("ArrowRight")
        assert page.locator(".pixelpolicy-scrubber-thumb.now:visible").count() == 1, state


THEMES = [
    ("", False, False),
    ("", True, True),
    ("document.documentElement.dataset.theme = 'dark'", False, True),
    ("document.documentElement.dataset.theme = 'light'", True, False),
    ("document.body.dataset.jpThemeLight = 'false'", False, True),
    ("document.body.dataset.jpThemeLight = 'true'", True, False),
]


@pytest.mark.parametrize(("host", "wish", "dark"), THEMES)
def test_light_and_dark_follow_the_host_first_and_are_legible(stand, host, wish, dark):
    page = stand(scrubber(), dark=wish)
    page.evaluate(f"() => {{ {host} }}")
    page.get_by_role("slider").press("ArrowRight")

    def luminance(selector: str, attribute: str) -> float:
        colour = page.locator(selector).first.evaluate(f"node => getComputedStyle(node).{attribute}")
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    # WCAG 2.2, 1.4.3 and 1.4.11: text 4.5 to 1, what must be seen to understand 3 to 1
    paper = luminance(".pixelpolicy-scrubber-root", "backgroundColor")
    assert (paper < 0.2) is dark
    for selector, attribute, least in [
        ("place", "color", 4.5),
        ("spent", "color", 4.5),
        ("axis", "color", 4.5),
        ("tick", "color", 4.5),
        ("legend", "color", 4.5),
        ("caption", "color", 4.5),
        ("chooser", "color", 4.5),
        ("zero", "borderTopColor", 3),
        ("column.now .pixelpolicy-scrubber-bar", "backgroundColor", 3),
        ("column.ahead .pixelpolicy-scrubber-bar", "borderTopColor", 3),
    ]:
        ink = luminance(f".pixelpolicy-scrubber-{selector}", attribute)
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= least, (selector, contrast)


def test_a_key_is_answered_within_fifty_milliseconds(stand):
    """From the key to the frame that shows another picture; the state of a real run: 50 steps of 256 x 256."""
    frames = np.broadcast_to(np.arange(0, 255, 5, dtype=np.uint8)[None, :, None, None, None], (1, 51, 3, 256, 256))
    page = stand(scrubber(frames, RNG.normal(size=(1, 50))))
    page.get_by_role("slider").focus()
    page.evaluate(PROBE)
    assert answer_to(page, ["ArrowRight"] * 6 + ["ArrowLeft"] * 6) <= 50


PROBE = """() => {
  const canvas = document.querySelector("canvas");
  const shown = () => canvas.getContext("2d").getImageData(99, 99, 1, 1).data[0];
  let before = shown();
  window.times = [];
  window.addEventListener("keydown", (event) => {
    const look = () => {
      if (shown() === before) return requestAnimationFrame(look);
      times.push(performance.now() - event.timeStamp);
      before = shown();
    };
    requestAnimationFrame(look);
  }, { capture: true });
}"""
