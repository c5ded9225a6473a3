"""The box viewer in JupyterLab: keys and the mouse turn objects, frames play, and the kernel sees what was set."""

import nbformat
import pytest
from in_lab import opened

VIEWER = """
import ipywidgets

from pixelpolicy.viz.boxes import Boxes
from pixelpolicy.widgets import BoxViewer

walk = Boxes(centres=[[[0.4 * frame, 0, 0.5]] for frame in range(4)], halves=[[0.3, 0.1, 0.4]], colours=[[1, 0, 0]])
viewer = BoxViewer(walk, alt="a box that walks", ground=0.0)
kernel = ipywidgets.Label("the kernel has seen nothing")


def told(change):
    kernel.value = f"the kernel has seen {change.name} {round(change.new, 3)}"


viewer.observe(told, ["azimuth", "frame", "zoom"])
ipywidgets.VBox([kernel, viewer])
"""
ACTIVE = "node => [node.dataset.windowedListIndex, node.closest('.jp-Notebook').querySelectorAll('.jp-Cell').length]"
PNG = "node => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(node.toDataURL()))))"


@pytest.mark.slow
def test_boxes_turn_and_play_in_jupyterlab(tmp_path, browser):
    cells = [nbformat.v4.new_code_cell(VIEWER.strip()), nbformat.v4.new_markdown_cell("after it")]
    with opened(cells, tmp_path, browser, ".pixelpolicy-boxes-root") as page:
        boxes = page.locator(".pixelpolicy-boxes-root")
        canvas, slider = boxes.locator("canvas"), boxes.get_by_role("slider", name="Frame")
        boxes.locator(".pixelpolicy-boxes-hint").click()  # a press makes its cell the active one
        active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
        before, drawn = active.evaluate(ACTIVE), [canvas.evaluate(PNG)]
        boxes.locator(".pixelpolicy-boxes-stage").focus()
        page.keyboard.press("ArrowLeft")
        page.get_by_text("the kernel has seen azimuth").wait_for()
        drawn.append(canvas.evaluate(PNG))
        page.keyboard.press("+")
        page.get_by_text("the kernel has seen zoom").wait_for()
        drawn.append(canvas.evaluate(PNG))
        slider.focus()
        page.keyboard.press("ArrowRight")
        page.get_by_text("the kernel has seen frame 1").wait_for()
        drawn.append(canvas.evaluate(PNG))
        assert slider.get_attribute("aria-valuetext") == "2 of 4"
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 40, steps=4)
        page.mouse.up()
        page.get_by_text("the kernel has seen azimuth").wait_for()
        drawn.append(canvas.evaluate(PNG))
        assert len(set(drawn)) == len(drawn), "something that was asked for was not drawn"
        assert active.evaluate(ACTIVE) == before, "the keys walked among the cells, or changed them"
        boxes.get_by_role("button", name="Play").click()
        boxes.get_by_text("4 of 4").wait_for()
        boxes.get_by_role("button", name="Pause").click()
        page.get_by_text("the kernel has seen frame").wait_for()
        assert int(slider.input_value()) in range(4)
        page.screenshot(path=tmp_path / "in_lab.png")
