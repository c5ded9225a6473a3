"""What tests that drive a browser share: Chromium, and what happens where a program is absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pixelpolicy.book.browser import PROGRAMS
from pixelpolicy.book.browser import chromium as started


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
    """The book's own `chromium`, where there is one; else the test is skipped, and fails under CI=true."""
    need(*PROGRAMS)
    with started() as browser:
        yield browser
