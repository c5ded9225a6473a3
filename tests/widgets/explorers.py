"""What tests of the explorers share: their numbers, their controls, their colours, and how fast they answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from browser import answer_to
from ipywidgets.widgets.widget import _remove_buffers

import pixelpolicy

CONTROLS = {"slider", "checkbox", "button", "image", "img", "figure", "combobox", "textbox", "link"}
# What must stand out from the paper, by which property, and how much.
MARKS = [
    ("title", "color", 4.5),
    ("axis", "color", 4.5),
    ("what", "color", 4.5),
    ("value", "color", 4.5),
    ("number", "color", 4.5),
    ("caption", "color", 4.5),
    ("chart .tick", "fill", 4.5),
    ("chart .name", "fill", 4.5),
    ("chart .zero", "stroke", 3),
    ("chart .first", "stroke", 3),
    ("chart .second", "stroke", 3),
    ("chart .dot", "fill", 3),
]


def in_page(page, call: str, argument):
    """What a function that the widget's module exports gives for ``argument``, a list of arguments."""
    return page.evaluate(f"async (given) => (await import('/widget.js')).{call}(...given)", argument)


def shown(page, name: str) -> list[float]:
    """The whole numbers that stand behind a row of a readout."""
    row = page.locator(".pixelpolicy-explorer-row", has_text=name).first
    return row.evaluate("node => [...node.nextElementSibling.querySelectorAll('data')].map((data) => +data.value)")


def status(page) -> str:
    return page.get_by_role("status").inner_text()


def charts(page) -> list[str]:
    return [chart.get_attribute("aria-label") for chart in page.locator("svg[role=img]").all()]


def check_names(page) -> None:
    """Every control and picture has a name, and the live region is polite."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in tree if node.get("role", {}).get("value") in CONTROLS and not node["ignored"]]
    unnamed = [node["role"]["value"] for node in found if not node.get("name", {}).get("value", "").strip()]
    assert found and not unnamed
    said = next(node for node in tree if node.get("role", {}).get("value") == "status")
    assert {entry["name"]: entry["value"].get("value") for entry in said["properties"]}["live"] == "polite"


def check_keys(page, name: str, trait: str, presses: list[tuple[str, float]]) -> None:
    """Each key takes the slider to the value beside it, in the model, on the handle, in words and to the kernel."""
    slider = page.get_by_role("slider", name=name)
    slider.focus()
    assert slider.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    for key, value in presses:
        before = page.evaluate(f"model.get('{trait}')")
        page.keyboard.press(key)
        assert abs(page.evaluate(f"model.get('{trait}')") - value) < 1e-9, (key, value)
        assert page.evaluate(f"model.saved.{trait}") == page.evaluate(f"model.get('{trait}')") or before == value
        text = slider.get_attribute("aria-valuetext").replace("\N{MINUS SIGN}", "-")
        assert abs(float(text) - value) <= 0.005 * max(1, abs(value)), (key, text)
        beside = page.locator("label", has_text=name).locator(".pixelpolicy-explorer-value")
        assert beside.inner_text() == slider.get_attribute("aria-valuetext")


def check_theme(page, dark: bool, marks=()) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: text 4.5 to 1, what must be seen to understand 3 to 1."""

    def luminance(selector: str, attribute: str) -> float:
        node = page.locator(f".pixelpolicy-explorer-{selector}").first
        colour = node.evaluate(f"node => getComputedStyle(node).{attribute}")
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    paper = luminance("root", "backgroundColor")
    assert (paper < 0.2) is dark
    for selector, attribute, least in [*MARKS, *marks]:
        ink = luminance(selector, attribute)
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= least, (selector, contrast)


def check_answer(page, name: str) -> None:
    """From the key to the frame that shows another chart: 50 ms."""
    page.get_by_role("slider", name=name).focus()
    page.evaluate(PROBE)
    assert answer_to(page, ["ArrowRight"] * 6 + ["ArrowLeft"] * 6) <= 50


PROBE = """() => {
  const shown = () => document.querySelector(".pixelpolicy-explorer-body").innerHTML;
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

THEMES = [
    ("", False, False),
    ("", True, True),
    ("document.documentElement.dataset.theme = 'dark'", False, True),
    ("document.documentElement.dataset.theme = 'light'", True, False),
    ("document.body.dataset.jpThemeLight = 'false'", False, True),
    ("document.body.dataset.jpThemeLight = 'true'", True, False),
]


def check_still(page) -> None:
    """Nothing of the widget moves by itself, for any reader."""
    moving = """() => [...document.querySelectorAll(".pixelpolicy-explorer-root, .pixelpolicy-explorer-root *")].filter(
      (node) => getComputedStyle(node).animationName !== "none" || getComputedStyle(node).transitionDuration !== "0s"
    ).length"""
    assert page.evaluate(moving) == 0


def check_json(widget) -> None:
    """All that a page needs is JSON, without buffers."""
    state, paths, buffers = _remove_buffers(widget.get_state())
    assert not paths and not buffers
    json.dumps({key: value for key, value in state.items() if key != "layout"}, allow_nan=False)


def check_alone(widget) -> None:
    """The module and its style fetch nothing."""
    code, style = str(widget._esm), str(widget._css)
    assert code.count("export default") == 1
    assert not any(word in code for word in ("import ", "fetch(", "XMLHttpRequest", "https:"))
    assert "@import" not in style and "url(" not in style
    assert (Path(pixelpolicy.__file__).parent / "widgets" / "explorer.js").read_text(encoding="utf-8") in code
