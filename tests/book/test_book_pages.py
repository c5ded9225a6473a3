"""The built book in headless Chromium: what it asks for, what it says, and that it answers a key without a kernel."""

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import yaml
from browser import SETTLED, answer_to

from pixelpolicy.book.browser import PAINTED, weigh
from pixelpolicy.book.links import dead_links

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRUBBER = ".pixelpolicy-scrubber-root"
# Milliseconds from a key to the frame in which the picture of the scrubber is another one.
PROBE = """() => {
  const canvas = document.querySelector(".pixelpolicy-scrubber-root canvas");
  const shown = () => canvas.toDataURL();
  let before = shown();
  window.times = [];
  window.addEventListener("keydown", (event) => {
    const look = () => {
      if (shown() === before) return requestAnimationFrame(look);
      times.push(performance.now() - event.timeStamp);
      before = shown();
    };
    requestAnimationFrame(look);
  }, { capture: true });
}"""
# The least contrast, by WCAG's formula, of the text that is seen, with the text that has it.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const c = parse(getComputedStyle(node).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  for (const node of document.querySelectorAll("article p, article figcaption, article li, article td, article th, article h1, article h2, article pre span, article a, footer p, nav a, summary")) {
    const box = node.getBoundingClientRect();
    const seen = node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!seen || !node.textContent.trim() || !box.width || node.closest("canvas")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, `${node.tagName}.${node.className}: ${node.textContent.trim().slice(0, 40)}`];
  }
  return least;
}"""  # noqa: E501

# What axe-core objects to: all that WCAG 2.1 asks for at levels A and AA, or some rules alone.
AXE = """async (only) => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const found = await axe.run(document, { runOnly: only, resultTypes: ["violations"] });
  return found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.length} times: `
    + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 120)).join(" | "));
}"""
VIEWS = 'script[type="application/vnd.jupyter.widget-view+json"]'
WIDGETS_DRAWN = f"""() => document.querySelectorAll(".widget-subarea > *").length
  >= document.querySelectorAll(`{VIEWS}`).length"""
# Pictures whose sides, without the paper that the dark theme puts around them, are not as their attributes say.
BENT = """() => [...document.querySelectorAll("article img[width][height]")].filter((picture) => {
  const look = getComputedStyle(picture);
  const padding = (first, last) => parseFloat(look[first]) + parseFloat(look[last]);
  const wide = picture.clientWidth - padding("paddingLeft", "paddingRight");
  const high = picture.clientHeight - padding("paddingTop", "paddingBottom");
  return wide > 0 && Math.abs(wide / high * picture.getAttribute("height") / picture.getAttribute("width") - 1) > 0.03;
}).map((picture) => `${picture.clientWidth} x ${picture.clientHeight}: ${picture.outerHTML.slice(0, 99)}`)"""
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
OF_COLOUR = ["color-contrast", "link-in-text-block"]
MOST_BYTES = 1_200_000
WIDGET_BYTES = 1_000_000
MOST_MS = 1500


@pytest.fixture(scope="module")
def pages(built) -> list[str]:
    """Every page of the book; those that Sphinx writes for itself too."""
    found = (path.relative_to(built.html).as_posix() for path in built.html.rglob("*.html"))
    return sorted(place for place in found if not place.startswith("_static/"))


@dataclass
class Seen:
    """What was found on one page, opened once: by day, by night, and as narrow as a telephone."""

    outside: list[str]
    errors: list[str]
    contrasts: dict[str, tuple[float, str]]
    silent: list[str]
    footers: list[str]
    narrow: int
    bent: list[str]
    axe: dict[str, list[str]]
    fetched: set[str]
    readable: float


@pytest.fixture(scope="module")
def seen(opener, pages, axe) -> dict[str, Seen]:
    """Every page, opened once; each is fetched while the one before it is looked at."""
    found, ahead = {}, begin(opener, pages[0])
    for place, after in zip(pages, [*pages[1:], None], strict=True):
        now, ahead = ahead, begin(opener, after) if after else None
        found[place] = look_at(*now, axe)
    return found


def begin(opener, place: str) -> tuple:
    """A page that is being fetched: what closes it, the visit that it is of, itself."""
    stack = ExitStack()
    visit = stack.enter_context(opener())
    return stack, visit, visit(place, until="commit")


def look_at(stack: ExitStack, visit, page, axe: str) -> Seen:
    with stack:
        page.wait_for_load_state("load")
        page.wait_for_function("() => !window.MathJax?.startup?.promise || document.querySelector('mjx-container')"
                               " || !document.querySelector('.math')")  # fmt: skip
        page.wait_for_load_state("networkidle")
        fetched, readable = set(visit.fetched), page.evaluate(PAINTED)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # brings the widgets
        page.wait_for_function(WIDGETS_DRAWN)
        page.evaluate(axe)
        violations = {"light": page.evaluate(AXE, WCAG)}
        silent = page.evaluate(
            "() => [...document.images].filter((i) => !i.alt.trim()).map((i) => i.outerHTML.slice(0, 99))"
        )
        contrasts, footers = {"light": page.evaluate(CONTRAST)}, page.locator("footer").all_inner_texts()
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        contrasts["dark"] = page.evaluate(CONTRAST)
        violations["dark"] = page.evaluate(AXE, OF_COLOUR)
        page.set_viewport_size({"width": 380, "height": 900})
        narrow, bent = page.evaluate("document.documentElement.scrollWidth"), page.evaluate(BENT)
        return Seen(list(visit.outside), list(visit.errors), contrasts, silent, footers, narrow, bent, violations,
                    fetched, readable)  # fmt: skip


def test_no_page_asks_for_anything_outside_or_complains(seen):
    assert {"index.html", "results.html", "bibliography.html", "search.html", "labs/98-widget.html"} <= set(seen)
    outside, errors = (
        [fault for page in seen.values() for fault in getattr(page, kind)] for kind in ("outside", "errors")
    )
    print(f"requests outside on {len(seen)} pages: {len(outside)}; errors: {len(errors)}")
    assert outside == []
    assert errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(seen, theme):
    found = {place: page.axe[theme] for place, page in seen.items() if page.axe[theme]}
    assert found == {}, json.dumps(found, indent=1)


def test_links_within_the_book_lead_somewhere(built):
    assert dead_links(built.html) == []


def test_pages_are_light_and_soon_readable(seen, built, opener):
    """As served with gzip, before any widget is used; the soonest of three on a machine that does other things."""
    weights = {place: weigh(built.html, page.fetched) for place, page in seen.items()}
    for place, page in seen.items():
        if page.readable > MOST_MS:
            for _ in range(2):
                with opener() as visit:
                    page.readable = min(page.readable, visit(place).evaluate(PAINTED))
    for place in sorted(weights, key=weights.get, reverse=True)[:8]:
        print(f"{place}: {weights[place] / 1e6:.2f} MB, readable after {seen[place].readable:.0f} ms")
    assert {place: weight for place, weight in weights.items() if weight > most_bytes(seen[place])} == {}
    assert {place: page.readable for place, page in seen.items() if page.readable > MOST_MS} == {}


def most_bytes(page: Seen) -> int:
    """What a page may weigh; Jupyter's own script comes on top where a widget stands at its very beginning."""
    return MOST_BYTES + WIDGET_BYTES * any("embed-amd" in url for url in page.fetched)


def test_mathjax_comes_where_there_are_formulas_alone(seen, built):
    for place, page in seen.items():
        formulas = 'class="math ' in (built.html / place).read_text(encoding="utf-8")
        assert any("mathjax/" in url for url in page.fetched) == formulas, place


def test_no_page_names_a_script_or_style_elsewhere(built, pages):
    """Seen in the files too: a script that waits for a click asks later."""
    pattern = re.compile(
        r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+"""
        r"""|https?://[^"' ]*(?:unpkg|jsdelivr|cdnjs)[^"' ]*"""
    )
    named = {place: pattern.findall((built.html / place).read_text(encoding="utf-8")) for place in pages}
    assert {place: found for place, found in named.items() if found} == {}


def test_equations_are_set(visit):
    page = visit("chapters/12-grpo.html")
    page.wait_for_selector("mjx-container")
    left = page.evaluate(
        "() => [...document.querySelectorAll('article .math')].filter((m) => !m.querySelector('mjx-container')).length"
    )  # noqa: E501
    assert left == 0
    loaded = "[...document.fonts].some((font) => font.status === 'loaded' && font.family.includes('MJX'))"
    assert page.evaluate(f"() => document.fonts.ready.then(() => {loaded})")
    assert visit.outside == [] and visit.errors == []


def test_search_finds_a_word(visit, rare):
    page = visit(f"search.html?q={rare}")
    page.wait_for_selector("#search-results ul.search li a")
    hits = page.locator("#search-results ul.search li a").all_text_contents()
    assert len(hits) == 1 and "Lab 98" in hits[0]
    page.locator("#search-results ul.search li a").first.click()
    page.wait_for_url("**/labs/98-widget.html*")


def test_dark_mode_toggles_and_stays(visit):
    page = visit("index.html")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    seen = {}
    for _ in range(3):  # automatic, light, dark, in some order
        page.locator("button.theme-switch-button").last.click()
        seen[page.evaluate("document.documentElement.dataset.theme")] = page.evaluate(ground)
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert "dark" in seen
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = sum(int(part) for part in re.findall(r"\d+", page.evaluate(ground))[:3])
    assert dark < 150
    light = sum(int(part) for part in re.findall(r"\d+", visit("index.html").evaluate(ground))[:3])
    assert light > 600


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out(seen, theme):
    """4.5 to 1 is what WCAG asks of text of this size."""
    for place, page in seen.items():
        ratio, text = page.contrasts[theme]
        assert ratio >= 4.5, f"{place}: {text}: {ratio:.2f}"


def test_a_narrow_screen_needs_no_sideways_scrolling(seen):
    assert {place: page.narrow for place, page in seen.items() if page.narrow > 380} == {}


def test_pictures_keep_their_proportions_on_a_narrow_screen(seen):
    assert {place: page.bent for place, page in seen.items() if page.bent} == {}


def test_pictures_have_words_and_pages_a_licence(seen):
    for place, page in seen.items():
        assert page.silent == [], place
        assert any("CC BY 4.0" in text and "Apache-2.0" in text for text in page.footers), place


def answer_to_a_key(page) -> float:
    """Milliseconds that the first scrubber of a page takes to answer a key."""
    page.locator(SCRUBBER).first.get_by_role("slider").press("Home")
    page.evaluate(SETTLED)
    page.evaluate(PROBE)
    return answer_to(page, ["ArrowRight"] * 5 + ["ArrowLeft"] * 5)


def test_a_widget_answers_a_key_on_the_static_page(visit):
    page = visit("labs/98-widget.html")
    page.wait_for_selector(SCRUBBER)
    assert answer_to_a_key(page) <= 50
    assert visit.outside == [] and visit.errors == []


def test_the_fonts_of_widgets_are_the_books(visit):
    """Chromium asks for a font when a text first wants it, and that may be never: here all of them are wanted."""
    page = visit("labs/98-widget.html")
    page.wait_for_selector(SCRUBBER)
    wanted = page.evaluate(
        """async () => {
            const faces = [...document.fonts].filter((face) => /awesome/i.test(face.family));
            await Promise.allSettled(faces.map((face) => face.load()));
            return faces.map((face) => `${face.family} ${face.weight} ${face.status}`);
        }"""
    )
    assert len(wanted) >= 2 and [face for face in wanted if not face.endswith(" loaded")] == []
    assert visit.outside == [] and visit.errors == []


def test_lab_07_shows_its_trajectory(visit, built, course_of_the_book):
    """Where lab 07 has been executed, its scrubber lives on the page; it is looked for wherever lab 07 is."""
    contents = yaml.safe_dump(yaml.safe_load((built.html.parent / "src" / "_toc.yml").read_text(encoding="utf-8")))
    found = re.search(r"labs/07-[\w-]+", contents)
    if not found:
        pytest.skip("there is no lab 07 yet")
    if not (course_of_the_book / "book" / "executed" / "07.ipynb").exists():
        pytest.fail("lab 07 has not been executed for the book: pixelpolicy run 07 --profile cpu --book")
    page = visit(f"{found[0]}.html")
    page.wait_for_load_state("networkidle")
    assert not any("embed-amd" in url for url in visit.fetched)  # the widget is far down, and comes by a key
    page.keyboard.press("Tab")
    page.wait_for_selector(SCRUBBER)
    assert answer_to_a_key(page) <= 50
    assert visit.outside == [] and visit.errors == []


def test_a_widget_that_comes_late_has_the_colours_of_the_page(visit):
    """The floor of lab 17 is drawn in two greys, which a widget without a place on the page does not know."""
    page = visit("labs/17-four-d.html")
    page.keyboard.press("Tab")
    canvases = page.locator(".pixelpolicy-boxes-root canvas")
    canvases.nth(3).wait_for()
    page.evaluate(SETTLED)
    dark = canvases.evaluate_all(
        """(all) => all.map((canvas) => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let black = 0, drawn = 0;
            for (let at = 0; at < pixels.length; at += 4) {
              drawn += pixels[at + 3] > 0;
              black += pixels[at + 3] > 0 && pixels[at] + pixels[at + 1] + pixels[at + 2] === 0;
            }
            return black / drawn;
        })"""
    )
    assert len(dark) >= 4 and all(share < 0.1 for share in dark), dark


@pytest.mark.parametrize("number, kind", [(1, "gridworld"), (4, "clip"), (5, "tilt")])
def test_the_widgets_of_part_one_live_on_their_pages(visit, built, number, kind):
    """Without a kernel: each of its sliders moves by a key, is announced, and redraws what is seen."""
    (found,) = (built.html / "labs").glob(f"{number:02d}-*.html")
    page = visit(f"labs/{found.name}")
    widget = page.locator(f".pixelpolicy-{kind}, .pixelpolicy-{kind}-root").first
    page.evaluate(f"document.querySelector(`{VIEWS}`).parentElement.scrollIntoView()")
    widget.wait_for()
    sliders = widget.get_by_role("slider")
    assert sliders.count() >= 1
    drawn, redrawn = "node => [...node.querySelectorAll('svg, [role=grid]')].map((n) => n.innerHTML).join()", 0
    for slider in sliders.all():
        before, value = widget.evaluate(drawn), slider.get_attribute("aria-valuetext")
        slider.press("Home")
        if slider.get_attribute("aria-valuetext") == value:
            slider.press("End")
        assert slider.get_attribute("aria-valuetext") != value
        redrawn += widget.evaluate(drawn) != before
        slider.press("End")  # at its first sweep a gridworld would show no other change
    assert redrawn >= max(1, sliders.count() - 1)  # the gridworld's next prize is not drawn before it is placed
    assert widget.get_by_role("status").first.inner_text().strip()
    assert visit.outside == [] and visit.errors == []


@pytest.mark.parametrize("place", ["reward-explorer.html", "labs/98-widget.html"])
def test_the_reward_explorer_draws_without_a_kernel(visit, place):
    """By the directive, and as a cell of an executed lab put it out; nothing of the model comes before a press."""
    page = visit(place)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.locator(".pixelpolicy-rewards .pixelpolicy-explorer-lamp:not(.none)").wait_for()
    assert not [name for name in asked if name.endswith((".wasm", ".onnx", ".safetensors"))]
    page.get_by_role("button", name="Draw 16").click()
    news = page.locator(".pixelpolicy-explorer-news").filter(has_text="16 pictures in")
    news.wait_for()
    print(f"{place}: {news.inner_text()}")
    assert page.locator(".pixelpolicy-explorer-tile:not(.empty)").count() == 16
    assert "ort-wasm-simd-threaded.wasm" in asked
    assert visit.outside == [] and visit.errors == []


def test_tables_that_cells_show_are_tables(built):
    """Where a lab has been executed; a table in Markdown would else stand there as its source."""
    for page in (built.html / "labs").glob("*.html"):
        assert not re.search(r"(?m)^<p>\|.*\|$|^\|(---\|)+$", page.read_text(encoding="utf-8")), page.name


def test_exercises_are_readable_and_answers_folded(visit):
    page = visit("labs/12-grpo.html")
    assert page.get_by_text("Exercise 12.1: Group-relative advantages").count()
    answer = page.locator("details.hide").filter(has_text="Show an answer to exercise 12.1")
    code = answer.locator("pre")
    assert not code.first.is_visible()
    answer.locator("summary").click()
    assert code.first.is_visible() and "correction=0" in code.first.inner_text()
    assert page.get_by_text('raise NotImplementedError("Exercise 12.1').count() == 1
    assert page.get_by_text("catch_up(").count() == 0


def test_the_build_is_quick_and_the_list_of_works_is_whole(built):
    print(f"built in {built.seconds:.0f} s, {built.cpu_seconds:.0f} s of the processor")
    assert min(built.seconds, built.cpu_seconds) <= 180  # a busy machine is slow, not wrong
    chapter = (built.html / "chapters/12-grpo.html").read_text(encoding="utf-8")
    works = (built.html / "bibliography.html").read_text(encoding="utf-8")
    cited = set(re.findall(r'bibliography\.html#(id\d+|[\w-]+)"', chapter))
    assert len(cited) > 3 and all(f'id="{key}"' in works for key in cited)
    assert "et al., 20" in works and "and others" not in works
