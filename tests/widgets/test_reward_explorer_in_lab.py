"""The reward explorer in JupyterLab: Python draws, the notebook stays free, the kernel sees what was set."""

import nbformat
import pytest
from explorer_site import DONE, NEWS, TILES
from in_lab import opened

EXPLORER = """
import ipywidgets

from pixelpolicy.course.files import course_root
from pixelpolicy.widgets import RewardExplorer

explorer = RewardExplorer.from_states(course_root() / "benchmarks/explorer/states.json", alt="The explorer.")
kernel = ipywidgets.Label("the kernel has seen nothing")


def told(change):
    kernel.value = f"the kernel has seen {explorer.alpha, explorer.weights['redness'], explorer.chosen[0]}"


explorer.observe(told, ["alpha", "weights", "chosen"])
ipywidgets.VBox([kernel, explorer])
"""
# Run again while pictures are drawn: the widget must not keep the kernel from it.
AFTER = """
if kernel.value != "the kernel has seen nothing":
    explorer.files = {"GRPO": explorer.files["GRPO"].with_name("gone")}
    print("ran", 6 * 7)
"""


@pytest.mark.slow
def test_the_explorer_draws_in_jupyterlab(tmp_path, browser):
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in (EXPLORER, AFTER)]
    with opened(cells, tmp_path, browser, ".pixelpolicy-rewards") as page:
        root = page.locator(".pixelpolicy-rewards")
        page.locator(".pixelpolicy-explorer-lamp:not(.none)").wait_for()
        assert "(recorded)" not in root.inner_text(), "in the lab every reward is live"
        alpha = page.locator("label", has_text="how far").get_by_role("slider")
        alpha.focus()
        page.keyboard.press("ArrowLeft")
        redness = page.get_by_role("slider", name="redness")
        redness.focus()
        page.keyboard.press("ArrowRight")
        page.get_by_role("checkbox", name="1: a red circle", exact=True).uncheck()
        page.get_by_text("the kernel has seen (0.95, 0.1, 'a blue triangle')").wait_for()
        noise = page.locator("label", has_text="noise of").get_by_role("slider")
        noise.focus()
        page.keyboard.press("PageUp")
        page.get_by_role("button", name="Draw 16").click()
        page.wait_for_function(DONE)
        labels = page.locator(f"{TILES} canvas").evaluate_all("nodes => nodes.map((n) => n.getAttribute('aria-label'))")
        assert len(labels) == 16 and all(label.endswith(("accepted", "refused")) for label in labels)
        assert not [label for label in labels if label.startswith("a red circle,")]
        numbers = page.locator(".pixelpolicy-explorer-number").all_inner_texts()
        assert len(numbers) == 4 and all(text.endswith("live") for text in numbers), numbers
        assert "live" in page.locator("svg[aria-label^='compressibility']").first.get_attribute("aria-label")

        # another cell runs while it draws; the run's file is then gone, and the next drawing says so in words
        page.locator("label", has_text="steps").get_by_role("slider").focus()
        page.keyboard.press("End")
        page.get_by_role("button", name="Draw 16").click()
        page.get_by_text("Drawing").wait_for()
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
        page.keyboard.press("Control+Enter")
        page.get_by_text("ran 42").wait_for()
        news = page.locator(NEWS)
        assert "Drawing" in news.inner_text(), "the kernel was free while it drew"
        page.wait_for_function(DONE)
        page.get_by_role("button", name="Draw 16").click()
        page.get_by_role("alert").filter(has_text="gone").wait_for()
        assert "Restore it with" in page.get_by_role("alert").inner_text()
        root.screenshot(path=tmp_path / "in_lab.png")
