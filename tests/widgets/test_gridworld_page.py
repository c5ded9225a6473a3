"""The gridworld editor alone on a page in headless Chromium: keys, mouse, sweeps, names, themes, and its speed."""

import numpy as np
import pytest
import torch
from browser import answer_to

from pixelpolicy.control import Gridworld
from pixelpolicy.control.planning import action_values, greedy_actions, value_iteration
from pixelpolicy.widgets import GridworldEditor

MINUS = "\N{MINUS SIGN}"
WORLD = Gridworld(walls=[(1, 1)], prizes={(0, 3): 1.0, (1, 3): -1.0}, slip=0.2, width=4, height=3)
MOVES = ("left", "down", "right", "up")
PLACE, PARTS = "window.model.get('{}')", ("walls", "prizes", "slip", "discount", "sweep")
CONTROLS = {"grid", "gridcell", "slider", "button", "group", "figure", "image", "img", "combobox", "textbox"}
# What is drawn: the number and the triangles of every cell, and which cells are walls and prizes.
DRAWN = """() => [...document.querySelectorAll("[role=gridcell]")].map((node) => ({
  number: node.querySelector(".pixelpolicy-gridworld-number").textContent,
  moves: [...node.querySelectorAll(".pixelpolicy-gridworld-arrow")].map((arrow) => arrow.checkVisibility()),
  wall: node.classList.contains("wall"), prize: node.classList.contains("prize"), label: node.ariaLabel,
}))"""


def editor(grid: Gridworld = WORLD, **words) -> GridworldEditor:
    words = {"alt": "a grid of three rows and four columns", "caption": "A world to edit."} | words
    return GridworldEditor(grid, **words)


def drawn_world(page) -> tuple[Gridworld, float, int | None]:
    """The world that the page's model holds, as Python would read it, with its discount and sweep."""
    walls, prizes, slip, discount, sweep = (page.evaluate(PLACE.format(name)) for name in PARTS)
    width, height = (page.evaluate(PLACE.format(name)) for name in ("width", "height"))
    world = Gridworld(walls, {(row, column): prize for row, column, prize in prizes}, slip, width, height)
    return world, discount, sweep


def assert_drawn(page, digits: int = 2) -> None:
    """All that is drawn is what Python computes for the world, the discount and the sweep that the model holds."""
    world, discount, sweep = drawn_world(page)
    mdp = world.mdp()
    plan = value_iteration(mdp, discount)
    values = torch.zeros(mdp.states).double()
    for _ in range(plan.sweeps if sweep is None else sweep):
        values = action_values(mdp, values, discount).max(-1).values
    moves = greedy_actions(mdp, values, discount)
    for cell, shown in zip(world.cells(), page.evaluate(DRAWN), strict=True):
        value, best = values[world.state(cell)].item(), moves[world.state(cell)].tolist()
        assert (shown["wall"], shown["prize"]) == (cell in world.walls, cell in world.prizes), cell
        assert shown["moves"] == best, (cell, shown, best)
        assert shown["label"].startswith(f"row {cell[0] + 1}, column {cell[1] + 1}: ")
        if cell in world.walls:
            assert shown["number"] == "" and shown["label"].endswith("wall")
        elif cell in world.prizes:
            assert number(shown["number"]) == world.prizes[cell]
        else:
            assert abs(number(shown["number"]) - value) <= 0.5 * 10**-digits + 1e-6
            names = [name for name, good in zip(MOVES, best, strict=True) if good]
            assert all(name in shown["label"] for name in names) or len(names) == 4
    settled = page.locator(".pixelpolicy-gridworld-status").inner_text()
    assert settled == f"Settled after {plan.sweeps} sweeps"
    assert page.get_by_role("slider", name="Sweep").input_value() == str(plan.sweeps if sweep is None else sweep)


def number(text: str) -> float:
    return float(text.replace(MINUS, "-"))


def cell(page, row: int, column: int):
    return page.get_by_role("row").nth(row).get_by_role("gridcell").nth(column)


def focused(page) -> str:
    return page.evaluate("document.activeElement.ariaLabel").split(":")[0]


def said(page) -> str:
    return page.get_by_role("status").inner_text()


def test_arrows_walk_over_the_cells_and_one_cell_is_a_stop(stand):
    page = stand(editor())
    assert_drawn(page)
    page.keyboard.press("Tab")
    assert focused(page) == "row 1, column 1"
    walk = [
        ("ArrowLeft", 1, 1), ("ArrowUp", 1, 1), ("ArrowRight", 1, 2), ("ArrowDown", 2, 2), ("ArrowDown", 3, 2),
        ("ArrowDown", 3, 2), ("End", 3, 4), ("ArrowRight", 3, 4), ("Home", 3, 1), ("Control+End", 3, 4),
        ("Control+Home", 1, 1), ("ArrowRight", 1, 2),
    ]  # fmt: skip
    for key, row, column in walk:
        page.keyboard.press(key)
        assert focused(page) == f"row {row}, column {column}", key
        assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Sweep"
    page.keyboard.press("Shift+Tab")
    assert focused(page) == "row 1, column 2"  # where it was left


def test_keys_alone_edit_the_world_and_each_edit_is_said(stand):
    page = stand(editor())
    cell(page, 0, 0).focus()
    edits = [
        (["ArrowRight", "w"], "row 1, column 2: wall", lambda world: (0, 1) in world.walls),
        (["ArrowDown", "e"], "row 2, column 2: empty", lambda world: (1, 1) not in world.walls),
        (["ArrowDown", "p"], "row 3, column 2: prize +1", lambda world: world.prizes[2, 1] == 1),
        (["-"], "row 3, column 2: prize +0.9", lambda world: world.prizes[2, 1] == 0.9),
        (["+"], "row 3, column 2: prize +1", lambda world: world.prizes[2, 1] == 1),
        (["w"], "row 3, column 2: wall", lambda world: (2, 1) in world.walls and (2, 1) not in world.prizes),
        (["Delete"], "row 3, column 2: empty", lambda world: not world.walls & {(2, 1), (1, 1)}),
        (["-", "-"], f"row 3, column 2: prize {MINUS}0.2", lambda world: world.prizes[2, 1] == -0.2),
        (["+", "+"], "row 3, column 2: prize 0", lambda world: world.prizes[2, 1] == 0),
        (["Space"], "row 3, column 2: wall", lambda world: (2, 1) in world.walls),  # the chosen tool is the wall
        (["Enter"], "row 3, column 2: empty", lambda world: (2, 1) not in world.walls),
    ]
    for keys, words, holds in edits:
        for key in keys:
            page.keyboard.press(key)
        assert said(page).startswith(words), (keys, said(page))
        assert holds(drawn_world(page)[0]), keys
        assert_drawn(page)
        assert page.evaluate("model.saved.walls.length") == len(drawn_world(page)[0].walls)
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    assert said(page).endswith(page.locator(".pixelpolicy-gridworld-status").inner_text().lower() + ".")


def test_one_cell_stays_free(stand):
    page = stand(editor(Gridworld([], {(0, 1): 1.0}, 0, 2, 1)))
    cell(page, 0, 1).press("w")
    cell(page, 0, 0).press("w")
    assert said(page) == "One cell must stay free."
    assert drawn_world(page)[0].walls == {(0, 1)}


def test_the_mouse_edits_by_clicks_and_by_dragging(stand):
    page = stand(editor())
    cell(page, 2, 0).click()
    assert drawn_world(page)[0].walls == {(1, 1), (2, 0)}
    assert focused(page) == "row 3, column 1"
    cell(page, 2, 0).click()  # a wall already: gone again
    assert drawn_world(page)[0].walls == {(1, 1)}
    boxes = [cell(page, 2, column).bounding_box() for column in (1, 2, 3)]
    middles = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
    page.mouse.move(*middles[0])
    page.mouse.down()
    for middle in middles[1:]:
        page.mouse.move(*middle, steps=4)
    page.mouse.up()
    page.mouse.move(*middles[0], steps=4)
    assert drawn_world(page)[0].walls == {(1, 1), (2, 1), (2, 2), (2, 3)}
    assert_drawn(page)

    page.get_by_role("button", name="prize").click()
    prize = page.get_by_role("slider", name="Prize to place")
    for _ in range(5):
        prize.press("ArrowLeft")
    cell(page, 0, 0).click()
    assert drawn_world(page)[0].prizes[0, 0] == 0.5
    page.get_by_role("button", name="empty").click()
    cell(page, 0, 3).click()
    assert set(drawn_world(page)[0].prizes) == {(0, 0), (1, 3)}
    assert_drawn(page)
    pressed = {button.inner_text(): button.get_attribute("aria-pressed") for button in page.get_by_role("button").all()}
    assert pressed == {"wall": "false", "prize": "false", "empty": "true", "Begin again": None}
    page.get_by_role("button", name="Begin again").press("Enter")
    world = drawn_world(page)[0]
    assert (world.walls, world.prizes) == (WORLD.walls, WORLD.prizes)
    assert_drawn(page)


def test_sliders_of_slip_and_discount_redraw_at_once(stand):
    page = stand(editor())
    slip, discount = (page.get_by_role("slider", name=name) for name in ("Slip", "Discount"))
    for slider, key, trait, value in [
        (slip, "ArrowRight", 2, 0.25), (slip, "ArrowDown", 2, 0.2), (slip, "Home", 2, 0), (slip, "ArrowLeft", 2, 0),
        (discount, "ArrowLeft", 3, 0.94), (discount, "PageDown", 3, 0.84), (discount, "End", 3, 1),
        (slip, "End", 2, 1), (discount, "Home", 3, 0), (slip, "PageDown", 2, 0.5),
    ]:  # fmt: skip
        slider.press(key)
        assert page.evaluate(PLACE.format(PARTS[trait])) == value
        assert slider.get_attribute("aria-valuetext") == f"{value:.2f}"
        assert_drawn(page)
    box = slip.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert page.evaluate(PLACE.format("slip")) == 0
    assert_drawn(page)


def test_the_sweeps_of_value_iteration_one_by_one(stand):
    page = stand(editor())
    slider = page.get_by_role("slider", name="Sweep")
    total = int(slider.get_attribute("max"))
    assert page.evaluate(PLACE.format("sweep")) is None and slider.input_value() == str(total)
    slider.press("Home")
    for sweep in range(8):
        assert page.evaluate(PLACE.format("sweep")) == sweep
        assert slider.get_attribute("aria-valuetext") == f"{sweep} of {total}"
        assert_drawn(page)
        slider.press("ArrowRight")
    # the sweep stays while the world is edited, and the settled values are None
    cell(page, 2, 2).press("w")
    assert page.evaluate(PLACE.format("sweep")) == 8
    assert_drawn(page)
    slider.press("End")
    assert page.evaluate(PLACE.format("sweep")) is None
    cell(page, 2, 2).press("e")
    assert_drawn(page)


def test_below_the_grid_the_moves_of_a_cell_can_be_checked_by_hand(stand):
    page = stand(editor())
    mdp = WORLD.mdp()
    values = value_iteration(mdp, 0.95).values
    q = action_values(mdp, values, 0.95)
    told = page.locator(".pixelpolicy-gridworld-told")
    cell(page, 2, 2).focus()
    expected = ", ".join(f"{name} {value:.4f}" for name, value in zip(MOVES, q[10].tolist(), strict=True))
    assert told.inner_text().splitlines() == [f"Row 3, column 3: value {values[10]:.4f}", f"moves: {expected}"]
    cell(page, 1, 3).hover()  # the mouse reads without an edit, and gives the place back when it leaves
    assert told.inner_text().startswith(f"Row 2, column 4: prize {MINUS}1")
    page.get_by_role("slider", name="Slip").hover()
    assert told.inner_text().startswith("Row 3, column 3")
    assert (drawn_world(page)[0].walls, drawn_world(page)[0].prizes) == (WORLD.walls, WORLD.prizes)


@pytest.mark.parametrize("seed", range(4))
def test_random_worlds_are_drawn_as_python_plans_them(stand, seed):
    rng = np.random.default_rng(seed)
    cells = [(row, column) for row in range(6) for column in range(6)]
    rng.shuffle(cells)
    cells = [tuple(cell) for cell in np.array(cells).tolist()]
    prizes = {cell: float(prize) for cell, prize in zip(cells[:3], rng.uniform(-1, 1, 3).round(2), strict=True)}
    page = stand(editor(Gridworld(cells[3:11], prizes, [0, 0.1, 0.35, 1][seed], 6, 6), discount=0.9))
    assert_drawn(page)


def test_what_the_kernel_sets_is_shown_and_a_closed_view_is_deaf(stand):
    page = stand(editor())
    page.evaluate("() => { model.set('walls', [[2, 2]]); model.set('prizes', [[0, 0, 0.5]]); model.set('sweep', 2); }")
    page.wait_for_function("() => document.querySelector('[role=gridcell]').classList.contains('prize')")
    assert_drawn(page)
    before = page.evaluate(DRAWN)
    page.evaluate("() => { leave(); model.set('walls', [[0, 1]]); }")
    cell(page, 2, 0).press("w")
    page.wait_for_timeout(50)
    assert page.evaluate(DRAWN) == before and page.evaluate(PLACE.format("walls")) == [[0, 1]]


def test_a_world_that_does_not_settle_says_so(stand):
    page = stand(editor(Gridworld([(0, 0)], {(0, 1): -1.0, (1, 0): -1.0}, 1e-5, 2, 2), discount=1.0))
    assert "Not settled after 500000 sweeps: take a lower discount" in page.locator("figure").inner_text()


def test_every_control_has_a_role_and_a_name(stand):
    page = stand(editor())
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in tree if node.get("role", {}).get("value") in CONTROLS and not node["ignored"]]
    roles = [node["role"]["value"] for node in found]
    assert [roles.count(role) for role in ("grid", "gridcell", "slider", "button")] == [1, 12, 4, 4]
    unnamed = [node["role"]["value"] for node in found if not node.get("name", {}).get("value", "").strip()]
    assert not unnamed
    names = {node["name"]["value"] for node in found}
    assert {"Sweep", "Slip", "Discount", "Prize to place", "wall", "a grid of three rows and four columns"} <= names
    assert any(name.startswith("row 1, column 3: 0.") and name.endswith("best right") for name in names)
    ranges = [
        {entry["name"]: entry["value"].get("value") for entry in node["properties"]}
        for node in found
        if node["role"]["value"] == "slider"
    ]
    assert [(entry["valuemin"], entry["valuemax"]) for entry in ranges][1:] == [(0, 1), (0, 1), (-1, 1)]
    children = page.get_by_role("grid").locator("> *")
    assert [child.get_attribute("role") for child in children.all()] == ["row"] * 3
    described = page.get_by_role("grid").get_attribute("aria-describedby")
    assert "arrows move, W wall" in page.locator(f"#{described}").inner_text()
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (4, 3), (12, 8), (20, 20)])
def test_a_narrow_screen_needs_no_sideways_scrolling(stand, width, height):
    page = stand(editor(Gridworld([], {(0, width - 1): 10.0} if width > 1 else {}, 0.1, width, height)), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [cell(page, 0, 0).bounding_box(), cell(page, height - 1, width - 1).bounding_box()]
    assert all(abs(box["width"] - box["height"]) < 1 for box in boxes)
    if width <= 12:  # WCAG 2.2, 2.5.8: a target of 24 by 24 pixels
        assert min(boxes[0]["width"], boxes[1]["width"]) >= 24
    for button in page.get_by_role("button").all():
        assert min(button.bounding_box()["width"], button.bounding_box()["height"]) >= 24


THEMES = [
    ("", False, False),
    ("", True, True),
    ("document.documentElement.dataset.theme = 'dark'", False, True),
    ("document.documentElement.dataset.theme = 'light'", True, False),
    ("document.body.dataset.jpThemeLight = 'false'", False, True),
    ("document.body.dataset.jpThemeLight = 'true'", True, False),
]
# A colour as the screen has it: also one that is mixed, painted on a canvas and read back, as red, green, blue.
READ = """(node, property) => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  pen.fillStyle = getComputedStyle(node)[property];
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


@pytest.mark.parametrize(("host", "wish", "dark"), THEMES)
def test_light_and_dark_follow_the_host_first_and_are_legible(stand, host, wish, dark):
    page = stand(editor(), dark=wish)
    page.evaluate(f"() => {{ {host} }}")

    def luminance(node, attribute: str) -> float:
        parts = np.array(node.evaluate(READ, attribute)) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    def contrast(a: float, b: float) -> float:
        return (max(a, b) + 0.05) / (min(a, b) + 0.05)

    def part(name: str):
        return page.locator(f".pixelpolicy-gridworld-{name}").first

    # WCAG 2.2, 1.4.3 and 1.4.11: text 4.5 to 1, what must be seen to understand 3 to 1
    paper = luminance(part("root"), "backgroundColor")
    assert (paper < 0.2) is dark
    for name in ("place", "moves", "status", "changed", "words", "help", "button[aria-pressed=false]"):
        ink = luminance(part(name), "color")
        assert contrast(ink, paper) >= 4.5, name
    assert contrast(luminance(page.locator("figcaption"), "color"), paper) >= 4.5
    chosen = part("button")
    assert contrast(luminance(chosen, "color"), luminance(chosen, "backgroundColor")) >= 4.5
    grounds = []
    for row in range(3):
        for column in range(4):
            node = cell(page, row, column)
            if (row, column) == (1, 1):
                continue
            ground = luminance(node, "backgroundColor")
            grounds.append(ground)
            assert contrast(luminance(node, "color"), ground) >= 4.5, (row, column)
            arrow = node.locator(".pixelpolicy-gridworld-arrow").first
            assert contrast(luminance(arrow, "backgroundColor"), ground) >= 3
    assert len({round(ground, 3) for ground in grounds}) >= 6  # values are told apart by their ground as well
    wall = part("root").evaluate("node => getComputedStyle(node).getPropertyValue('--wall')")
    part("help").evaluate("(node, wall) => { node.style.color = wall; }", wall)  # a gradient cannot be asked for it
    assert contrast(luminance(part("help"), "color"), paper) >= 3
    # all four moves tie nowhere but at the start: there the arrows are quieter, and still to be seen
    page.get_by_role("slider", name="Sweep").press("Home")
    alike = page.locator(".pixelpolicy-gridworld-cell.alike").first
    quiet = luminance(alike.locator(".pixelpolicy-gridworld-arrow").first, "backgroundColor")
    assert contrast(quiet, luminance(alike, "backgroundColor")) >= 3


def test_nothing_moves_by_itself_and_the_readers_own_colours_leave_arrows_and_walls(stand):
    page = stand(editor())
    moving = """[...document.querySelectorAll("figure, figure *")].filter((node) => {
      const { animationName, transitionDuration } = getComputedStyle(node);
      return animationName !== "none" || transitionDuration !== "0s";
    }).length"""
    assert page.evaluate(moving) == 0
    page.emulate_media(forced_colors="active")
    ground = cell(page, 0, 0).evaluate(READ, "backgroundColor")
    arrow = cell(page, 0, 0).locator(".pixelpolicy-gridworld-arrow.right")
    assert arrow.is_visible() and arrow.evaluate(READ, "backgroundColor") != ground
    assert cell(page, 1, 1).evaluate(READ, "backgroundColor") != ground


def test_a_key_is_answered_within_fifty_milliseconds(stand):
    """From the key to the frame that shows it: walls and sweeps on a full board of 20 x 20, planned anew each time."""
    page = stand(editor(Gridworld([], {(0, 19): 1.0, (10, 10): -1.0}, 0.2, 20, 20), discount=0.99))
    page.evaluate(PROBE)
    for control, keys in ((cell(page, 5, 5), "we" * 6), (page.get_by_role("slider", name="Sweep"), ["ArrowLeft"] * 12)):
        control.focus()
        assert answer_to(page, keys) <= 50


PROBE = """() => {
  const shown = () => document.querySelector("figure").innerHTML + document.querySelector("input").value;
  window.times = [];
  window.addEventListener("keydown", (event) => {
    const look = () => requestAnimationFrame(() => {
      if (shown() === window.before) return look();
      times.push(performance.now() - event.timeStamp);
      window.before = shown();
    });
    look();
  }, { capture: true });
  window.before = shown();
}"""
