"""Widgets in JupyterLab: a real lab in a real browser is run, the scrubber moves, the picture changes."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from in_lab import opened

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.source import read_source, sources

SCRUBBER = """
import ipywidgets
import torch

from pixelpolicy.generators import load
from pixelpolicy.policies import DenoisingPolicy
from pixelpolicy.widgets import TrajectoryScrubber

policy = DenoisingPolicy(load("shapes"), steps=6)
rollout = policy.rollout(["a red circle", "a blue square"], seeds=torch.tensor([1, 2]))
scrubber = TrajectoryScrubber.from_rollout(policy, rollout, alt="A picture forms out of noise.")
kernel = ipywidgets.Label("the kernel has seen nothing")
scrubber.observe(lambda change: setattr(kernel, "value", f"the kernel has seen step {change.new}"), "step")
ipywidgets.VBox([scrubber, kernel])
"""
PIXELS = """node => node.getContext("2d").getImageData(0, 0, node.width, node.height).data.join()"""
DRAWN = """node => node.getContext("2d").getImageData(0, 0, 1, 1).data[3] === 255"""


def upto_first_scrubber(path: Path) -> list:
    """The cells of a solved lab as far as the first one that makes a scrubber."""
    cells = lab_notebook(read_source(path), answers=True).cells
    for index, cell in enumerate(cells):
        if cell.cell_type == "code" and any(call in cell.source for call in ("Scrubber(", "Scrubber.from_rollout(")):
            return cells[: index + 1]
    pytest.fail(f"{path.name} makes no TrajectoryScrubber; the issue asks for one")


def lab_07() -> list[Path]:
    return [path for path in sources(Path(__file__).parents[2]) if path.name.startswith("07")]


@pytest.mark.slow
@pytest.mark.parametrize("lab", [None, *lab_07()], ids=["small", *("07" for _ in lab_07())])
def test_the_scrubber_moves_in_jupyterlab(lab, tmp_path, browser):
    cells = [nbformat.v4.new_code_cell(SCRUBBER.strip())] if lab is None else upto_first_scrubber(lab)
    with opened(cells, tmp_path, browser, ".pixelpolicy-scrubber-root") as page:
        drive(page, kernel_is_told=lab is None)


def drive(page, *, kernel_is_told: bool) -> None:
    """Move by key, by thumbnail and by the handle; each time the picture is another, and keys stay in the widget."""
    root = page.locator(".pixelpolicy-scrubber-root").first
    picture, slider = root.locator(".pixelpolicy-scrubber-picture"), root.get_by_role("slider")
    root.scroll_into_view_if_needed()
    page.wait_for_function(f"node => ({DRAWN})(node)", arg=picture.element_handle())
    last, seen = int(slider.get_attribute("max")), [picture.evaluate(PIXELS)]
    slider.focus()
    active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active").evaluate("node => node.dataset.windowedListIndex")
    keys = [("ArrowRight", 1), ("ArrowUp", 2), ("ArrowDown", 1), ("ArrowLeft", 0), ("End", last), ("Home", 0)]
    for key, state in keys:
        page.keyboard.press(key)
        assert slider.input_value() == str(state), f"{key} gave state {slider.input_value()}, not {state}"
        seen.append(picture.evaluate(PIXELS))
        assert seen[-1] != seen[-2], f"the picture stayed as it was after {key}"
    assert seen[1] == seen[3] and seen[0] == seen[4] == seen[6]
    assert slider.evaluate("node => node === document.activeElement")
    now = page.locator(".jp-Notebook .jp-Cell.jp-mod-active").evaluate("node => node.dataset.windowedListIndex")
    assert now == active, "the arrows walked among the cells"

    root.locator(".pixelpolicy-scrubber-thumb").nth(last).click()
    assert slider.input_value() == str(last) and picture.evaluate(PIXELS) == seen[5]
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 9, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 9, y, steps=5)
    page.mouse.up()
    assert slider.input_value() == "0" and picture.evaluate(PIXELS) == seen[0]
    page.keyboard.press("ArrowRight")
    assert picture.evaluate(PIXELS) == seen[1]
    if kernel_is_told:
        page.get_by_text("the kernel has seen step 1").wait_for()
