import json
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from anywidget import AnyWidget
from browser import chromium

from pixelpolicy.generators.image import build

HERE = Path(__file__).parent
PLACE = "http://widget.test"


@pytest.fixture(scope="session")
def generator():
    """A random twin of the shapes generator. Tests must not change it."""
    torch.manual_seed(0)
    return build(width=32, layers=1, channels=(8, 8, 8))


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def stand(browser):
    """``stand(widget, width=..., dark=...)``: the widget alone on a page, with nothing else to be had."""
    pages, wrong = [], []

    def open_page(widget: AnyWidget, *, width: int = 900, dark: bool = False):
        state = {key: value for key, value in widget.get_state().items() if widget.traits()[key].metadata["sync"]}
        state = {key: state[key] for key in state if not key.startswith("_") and key not in ("layout", "tooltip")}
        served = {
            "/": ("text/html", (HERE / "page.html").read_text(encoding="utf-8")),
            "/widget.js": ("text/javascript", str(widget._esm)),
            "/widget.css": ("text/css", str(widget._css)),
            "/state.json": ("application/json", json.dumps(state, allow_nan=False)),
        }

        def answer(route):
            address = urlparse(route.request.url)
            if f"{address.scheme}://{address.netloc}" == PLACE and address.path in served:
                kind, body = served[address.path]
                return route.fulfill(content_type=f"{kind}; charset=utf-8", body=body)
            if address.path != "/favicon.ico":
                wrong.append(f"asked for {route.request.url}")
            return route.abort()

        page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.route(lambda address: not address.startswith("data:"), answer)
        page.goto(PLACE)
        page.wait_for_function("() => Boolean(window.leave)")
        page.wait_for_function(DRAWN)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong, wrong


# The scrubber's canvas is transparent until its pictures are decoded; other widgets are drawn by then.
DRAWN = """() => {
  const canvas = document.querySelector(".pixelpolicy-scrubber-picture");
  return !canvas || canvas.getContext("2d").getImageData(0, 0, 1, 1).data[3] === 255;
}"""
