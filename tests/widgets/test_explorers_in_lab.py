"""The explorers in JupyterLab: keys move their sliders and not the notebook, and the kernel sees what was set."""

import nbformat
import pytest
from in_lab import opened

EXPLORERS = """
import sys

import ipywidgets

from pixelpolicy.widgets import ClipExplorer, TiltExplorer

assert not [name for name in sys.modules if name.split(".")[0] in ("diffusers", "transformers")]
clip = ClipExplorer(alt="PPO's objective under sliders.")
tilt = TiltExplorer(alt="A mixture and its tilted optimum.", beta=1.0)
kernel = ipywidgets.Label("the kernel has seen nothing")


def told(change):
    values = clip.clip_range, clip.normalise, clip.actions, round(tilt.beta, 4), tilt.proxy
    kernel.value = f"the kernel has seen {values}"


clip.observe(told, ["clip_range", "normalise", "actions"])
tilt.observe(told, ["beta", "proxy"])
ipywidgets.VBox([kernel, clip, tilt])
"""
ACTIVE = "node => [node.dataset.windowedListIndex, node.closest('.jp-Notebook').querySelectorAll('.jp-Cell').length]"


@pytest.mark.slow
def test_the_explorers_move_in_jupyterlab(tmp_path, browser):
    cells = [nbformat.v4.new_code_cell(EXPLORERS.strip()), nbformat.v4.new_markdown_cell("after it")]
    with opened(cells, tmp_path, browser, ".pixelpolicy-tilt") as page:
        clip, tilt = page.locator(".pixelpolicy-clip"), page.locator(".pixelpolicy-tilt")
        clip.locator(".pixelpolicy-explorer-title").first.click()  # a press makes its cell the active one
        active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
        before = active.evaluate(ACTIVE)
        slider = clip.get_by_role("slider", name="clip range")
        slider.focus()
        flat = clip.locator("svg .flat").first
        drawn = [flat.get_attribute("points")]
        for key, value in (("ArrowRight", "0.21"), ("ArrowUp", "0.22"), ("ArrowDown", "0.21"), ("PageUp", "0.30")):
            page.keyboard.press(key)
            assert slider.get_attribute("aria-valuetext") == value, key
            drawn.append(flat.get_attribute("points"))
        assert len(set(drawn)) == 4 and drawn[1] == drawn[3]
        page.get_by_text("the kernel has seen (0.3, True, 3, 1.0, False)").wait_for()
        clip.get_by_role("slider", name="actions").focus()
        page.keyboard.press("ArrowRight")
        clip.get_by_role("checkbox").focus()
        page.keyboard.press("Space")
        page.get_by_text("the kernel has seen (0.3, False, 4, 1.0, False)").wait_for()
        assert clip.get_by_role("img", name="raw, in use").count() == 1

        beta = tilt.get_by_role("slider")
        beta.focus()
        page.keyboard.press("ArrowLeft")
        page.get_by_text(f"the kernel has seen (0.3, False, 4, {10**-0.05:.4f}, False)").wait_for()
        tilt.get_by_role("checkbox").focus()
        page.keyboard.press("Space")
        page.get_by_text(f"the kernel has seen (0.3, False, 4, {10**-0.05:.4f}, True)").wait_for()
        assert "The reward is the proxy" in tilt.get_by_role("status").inner_text()
        frontier = tilt.locator(".pixelpolicy-explorer-draggable")
        frontier.scroll_into_view_if_needed()
        box = frontier.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 11, box["y"] + 100)
        page.get_by_text("4, 0.1, True").wait_for()
        page.keyboard.press("End")
        page.get_by_text("4, 10.0, True").wait_for()
        assert beta.evaluate("node => node === document.activeElement")
        assert active.evaluate(ACTIVE) == before, "the keys walked among the cells, or changed them"

        # the lab's own style of lists would put a name into a fifth of the row
        rows = [row.bounding_box() for row in page.locator(".pixelpolicy-explorer-row").all()]
        assert max(row["height"] for row in rows) < 30 and min(row["width"] for row in rows) > 150

        # both on one page, and each with its own marks
        dashes = "node => getComputedStyle(node).strokeDasharray"
        marks = [clip.locator("svg .first"), clip.locator("svg .second"), tilt.locator("svg .second")]
        assert [mark.first.evaluate(dashes) for mark in marks] == ["none", "7px, 4px", "none"]
        assert tilt.locator("svg .first").first.evaluate(dashes) == "2px, 4px"
        width = "node => getComputedStyle(node).strokeWidth"
        assert flat.evaluate(width) == "4px"
        page.screenshot(path=tmp_path / "in_lab.png")
