"""The gridworld editor in JupyterLab: keys edit the world and not the notebook, and the kernel sees what was drawn."""

import nbformat
import pytest
from in_lab import opened

EDITOR = """
import ipywidgets

from pixelpolicy.control import Gridworld
from pixelpolicy.control.planning import value_iteration
from pixelpolicy.widgets import GridworldEditor

world = Gridworld(walls=[(1, 1)], prizes={(0, 3): 1.0, (1, 3): -1.0}, slip=0.0, width=4, height=3)
editor = GridworldEditor(world, discount=0.5, alt="A grid of three rows and four columns.")
kernel = ipywidgets.Label("the kernel has seen nothing")


def told(change):
    plan = value_iteration(editor.grid.mdp(), editor.discount)
    kernel.value = f"walls {sorted(editor.grid.walls)}, corner {plan.values[8]:.4f}, sweep {editor.sweep}"


editor.observe(told, ["walls", "prizes", "slip", "discount", "sweep"])
ipywidgets.VBox([editor, kernel])
"""
ACTIVE = "node => [node.dataset.windowedListIndex, node.closest('.jp-Notebook').querySelectorAll('.jp-Cell').length]"


@pytest.mark.slow
def test_the_editor_edits_in_jupyterlab(tmp_path, browser):
    cells = [nbformat.v4.new_code_cell(EDITOR.strip()), nbformat.v4.new_markdown_cell("after it")]
    with opened(cells, tmp_path, browser, ".pixelpolicy-gridworld-root") as page:
        root = page.locator(".pixelpolicy-gridworld-root")
        root.scroll_into_view_if_needed()
        corner = root.get_by_role("row").nth(2).get_by_role("gridcell").first
        assert corner.inner_text() == "0.06"  # 0.5 ** 4, four steps before the last
        corner.evaluate("node => node.focus()")
        active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
        before = active.evaluate(ACTIVE)
        # a second way in, which the walls of the keys then close; each of these keys is a command of the notebook's too
        for key in ("ArrowUp", "ArrowRight", "e", "ArrowRight", "p", "Backspace", "w"):
            page.keyboard.press(key)
        assert root.evaluate("node => node.contains(document.activeElement)")
        page.get_by_text("walls [(1, 2)], corner 0.0625, sweep None").wait_for()
        assert corner.inner_text() == "0.06"
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")  # what a click does: a wall, and the prize is cut off
        page.get_by_text("walls [(0, 2), (1, 2)], corner").wait_for()
        page.keyboard.press("Space")
        page.get_by_text("walls [(1, 2)], corner 0.0625, sweep None").wait_for()

        discount = root.get_by_role("slider", name="Discount")
        discount.focus()
        page.keyboard.press("ArrowRight")
        page.get_by_text(f"corner {0.51**4:.4f}, sweep None").wait_for()
        root.get_by_role("slider", name="Sweep").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowUp")
        page.get_by_text("sweep 1", exact=False).wait_for()
        assert corner.inner_text() == "0.00"
        assert active.evaluate(ACTIVE) == before, "the keys walked among the cells, or changed them"

        root.get_by_role("row").nth(2).get_by_role("gridcell").nth(1).click()
        page.get_by_text("walls [(1, 2), (2, 1)]").wait_for()
        page.keyboard.press("ArrowLeft")
        assert corner.evaluate("node => node === document.activeElement")
