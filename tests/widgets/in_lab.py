"""What tests of widgets in JupyterLab share: a lab of their own, a notebook in it run as a student would."""

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

from pixelpolicy.course.network import kernel_command

PATIENCE = 120  # seconds, for the server, the cells and the widget each
BUSY = """() => [...document.querySelectorAll(".jp-InputArea-prompt")].some((node) => node.textContent.includes("*"))"""


@contextmanager
def opened(cells: list, folder: Path, browser, root: str):
    """A page of JupyterLab in which ``cells`` have run, once ``root``, a widget's selector, is there.

    Fails where a cell raises, or where the page asked for anything from outside; leaves ``failed.png`` on an error.
    """
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "cut", "display_name": "cut", "language": "python"}
    nbformat.write(notebook, folder / "widget.ipynb")
    outside = []
    with jupyter_lab(folder) as (address, token):
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        page.on("request", lambda request: outside.append(request.url) if away(request.url) else None)
        try:
            page.goto(f"{address}/lab/tree/widget.ipynb?token={token}")
            wait_for_kernel(page, f"{address}/api/kernels?token={token}")
            run_all(page, root)
            yield page
        except Exception:
            page.screenshot(path=folder / "failed.png")
            raise
        finally:
            page.close()
    assert not outside


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


def away(address: str) -> bool:
    return not address.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def wait_for_kernel(page, kernels: str) -> None:
    """Until the notebook's kernel says that it is idle: the page's own indicator says so before there is one."""
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = page.request.get(kernels)  # while a kernel is being made or unmade it may be an error
        if answer.ok and [kernel["execution_state"] for kernel in answer.json()] == ["idle"]:
            break
        assert time.monotonic() < deadline, "the kernel did not start"
        page.wait_for_timeout(200)
    page.locator(".jp-NotebookPanel-toolbar [data-status=idle]").wait_for()


def run_all(page, root: str) -> None:
    """Run > Run All Cells, as a student would; fails where a cell raises."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    page.locator(root).or_(errors).first.wait_for()
    page.wait_for_function(f"() => !({BUSY})()")
    assert errors.count() == 0, errors.first.inner_text()
