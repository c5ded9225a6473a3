"""Widgets in JupyterLab: a real lab in a real browser is run, the scrubber moves, the picture changes."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.network import kernel_command
from pixelpolicy.course.source import read_source, sources

PATIENCE = 120  # seconds, for the server, the cells and the picture each
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
BUSY = """() => [...document.querySelectorAll(".jp-InputArea-prompt")].some((node) => node.textContent.includes("*"))"""


@contextmanager
def jupyter_lab(folder: Path):
    """JupyterLab on ``folder``, as ``pixelpolicy lab`` starts it; kernels are cut off from the network.

    Yields its address and its token; the server and its kernels are ended with the block.
    """
    kernel = folder / "jupyter" / "kernels" / "cut"
    kernel.mkdir(parents=True)
    spec = {"argv": kernel_command(network=False), "display_name": "cut", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    overrides = folder / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    no_news = {"fetchNews": "false", "checkForUpdates": False}
    overrides.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": no_news}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_urlsafe(24)
    environment = os.environ | {
        "JUPYTER_TOKEN": token,
        "JUPYTER_PATH": str(folder / "jupyter"),
        "PIXELPOLICY_ROOT": str(Path(__file__).parents[2]),
        # the user's own settings, open tabs and running servers are none of this test's business
        **{f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--allow-root", "--log-level=ERROR"]
    log = folder / "server.log"
    with open(log, "w") as file:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not answer:\n{log.read_text()[-3000:]}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", token
    finally:
        server.terminate()  # it ends its kernels before itself
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


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
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "cut", "display_name": "cut", "language": "python"}
    nbformat.write(notebook, tmp_path / "scrubber.ipynb")
    outside = []
    with jupyter_lab(tmp_path) as (address, token):
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        page.on("request", lambda request: outside.append(request.url) if away(request.url) else None)
        try:
            page.goto(f"{address}/lab/tree/scrubber.ipynb?token={token}")
            wait_for_kernel(page, f"{address}/api/kernels?token={token}")
            run_all(page)
            drive(page, kernel_is_told=lab is None)
        except Exception:
            page.screenshot(path=tmp_path / "failed.png")
            raise
        finally:
            page.close()
    assert not outside


def away(address: str) -> bool:
    return not address.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def wait_for_kernel(page, kernels: str) -> None:
    """Until the notebook's kernel says that it is idle: the page's own indicator says so before there is one."""
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    deadline = time.monotonic() + PATIENCE
    while [kernel["execution_state"] for kernel in page.request.get(kernels).json()] != ["idle"]:
        assert time.monotonic() < deadline, "the kernel did not start"
        page.wait_for_timeout(200)
    page.locator(".jp-NotebookPanel-toolbar [data-status=idle]").wait_for()


def run_all(page) -> None:
    """Run > Run All Cells, as a student would; fails where a cell raises."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    page.locator(".pixelpolicy-scrubber-root").or_(errors).first.wait_for()
    page.wait_for_function(f"() => !({BUSY})()")
    assert errors.count() == 0, errors.first.inner_text()


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
