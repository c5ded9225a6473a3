"""What tests that drive a browser share: Chromium, and what happens where a program is absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def need(*programs: str) -> str:
    """The path of the first of ``programs`` that is installed; skips the test where none is, fails it under CI=true."""
    for program in programs:
        if path := shutil.which(program):
            return path
    reason = f"{' or '.join(programs)} is not installed (on Debian: apt install {programs[0]})"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}, and CI must run this test")
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator:
    """A headless Chromium as playwright's synchronous ``Browser``; ended with the block."""
    path = need("chromium", "chromium-browser", "google-chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # a container's root may not make the sandbox
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
