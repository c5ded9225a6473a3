"""What each page of the book weighs when it opens, served with gzip, and when it can be read.

    python benchmarks/page_weights.py

Of _build/html, which `make book` builds. Nothing is touched: no key, no scrolling. Readable is the first paint of text
in headless Chromium. Prints a table, and keeps it in benchmarks/book/page-weights.json.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pixelpolicy.book.browser import PAINTED, chromium, served, weigh
from pixelpolicy.course.files import course_root, write_json


def opened(browser: Any, address: str) -> tuple[set[str], float]:
    """What a page asks for when it opens, and after how many milliseconds it is readable."""
    page, fetched = browser.new_page(viewport={"width": 1280, "height": 900}), set()
    page.on("response", lambda answer: fetched.add(answer.url))
    page.goto(address, wait_until="load")
    page.wait_for_load_state("networkidle")
    readable = page.evaluate(PAINTED)
    page.close()
    return fetched, readable


def places(html: Path) -> list[str]:
    """Every page of the book, those that Sphinx writes for itself too."""
    found = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html"))
    return [place for place in found if not place.startswith("_static/")]


def main() -> None:
    """Print the table, and write the record."""
    root = course_root()
    html, found = root / "_build" / "html", {}
    print("| page | kB | readable, ms |\n|---|---|---|")
    with served(html) as address, chromium() as browser:
        for place in places(html):
            fetched, readable = opened(browser, address + place)
            found[place] = {"kB": round(weigh(html, fetched) / 1e3), "readable_ms": round(readable)}
            print(f"| {place} | {found[place]['kB']} | {found[place]['readable_ms']} |", flush=True)
    made = {"date": datetime.now(UTC).date().isoformat(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    write_json(root / "benchmarks" / "book" / "page-weights.json", made | {"pages": found})


if __name__ == "__main__":
    main()
