"""What tests that drive a browser share: Chromium, and what happens where a program is absent.

A test that looks before the page has drawn passes on an idle machine and fails on a busy one. To find it:
``PIXELPOLICY_LATE_FRAMES=300 pytest tests/widgets tests/book`` draws every frame 300 ms late (tests that time a page
fail then, and may).
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pixelpolicy.book.browser import PROGRAMS
from pixelpolicy.book.browser import chromium as started

# Two frames later what was asked for is drawn: the first may have begun before.
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
LATE_FRAMES = float(os.environ.get("PIXELPOLICY_LATE_FRAMES", "0"))  # milliseconds
LATE = """(() => {
  const [ask, leave, asked] = [window.requestAnimationFrame, window.cancelAnimationFrame, new Map()];
  let last = 0;
  window.requestAnimationFrame = (draw) => {
    const id = (last += 1);
    const later = () => asked.has(id) && asked.set(id, ask(() => asked.delete(id) && draw(performance.now())));
    asked.set(id, null);
    setTimeout(later, %s);
    return id;
  };
  window.cancelAnimationFrame = (id) => {
    if (asked.get(id) != null) leave(asked.get(id));
    asked.delete(id);
  };
})()"""


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
        if LATE_FRAMES:
            new_page = browser.new_page

            def late(**words):
                page = new_page(**words)
                page.add_init_script(LATE % LATE_FRAMES)
                return page

            browser.new_page = late
        yield browser


def answer_to(page, keys: Sequence[str]) -> float:
    """Median milliseconds from a key to the frame that shows it, which the page's own probe puts into ``times``.

    The best of three rounds of the keys counts, since a busy machine is slow and not wrong.
    """
    rounds = []
    for _ in range(3):
        page.evaluate("() => { window.times = []; }")
        for presses, key in enumerate(keys, start=1):
            page.keyboard.press(key)
            page.wait_for_function(f"times.length === {presses}")
        rounds.append(statistics.median(page.evaluate("times")))
    medians = ", ".join(f"{median:.1f}" for median in rounds)
    print(f"answer to {'/'.join(dict.fromkeys(keys))}: medians of three rounds {medians} ms")
    return min(rounds)
