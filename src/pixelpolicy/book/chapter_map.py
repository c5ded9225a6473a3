"""The map of the chapters on the front page: which builds on which, and by which idea."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from pixelpolicy.errors import BookError


@dataclass(frozen=True)
class Idea:
    """A shared idea: its name, its colour (3 to 1 at least on white and on the dark page), its dashes."""

    name: str
    colour: str
    dashes: str = ""


IDEAS = {
    "values": Idea("values", "#808080"),
    "gradient": Idea("policy gradient", "#D55E00"),
    "density": Idea("a sampler's steps", "#2F86C1", "9 3"),
    "preference": Idea("preferences", "#009E73", "2 3"),
    "pathwise": Idea("gradient of the reward", "#AA7700", "9 3 2 3"),
    "forward": Idea("forward process", "#B0609A", "5 4"),
    "judge": Idea("what a reward is worth", "#808080", "2 5"),
}
# For each chapter those that it builds on, and by which idea. What a lab's opening says that one needs is among them,
# or among those that they build on.
BUILDS_ON: dict[int, dict[int, str]] = {
    1: {},
    2: {1: "values"},
    3: {2: "values"},
    4: {3: "gradient"},
    5: {4: "gradient"},
    6: {},
    7: {6: "density"},
    8: {5: "preference"},
    9: {4: "gradient", 7: "density", 8: "judge"},
    10: {4: "pathwise", 8: "judge"},
    11: {5: "preference", 6: "forward"},
    12: {7: "density", 9: "gradient"},
    13: {6: "forward", 12: "gradient"},
    14: {12: "gradient"},
    15: {10: "pathwise", 11: "preference", 12: "gradient", 13: "forward"},
    16: {11: "preference", 12: "gradient"},
    17: {13: "forward"},
    18: {4: "gradient", 6: "density"},
    19: {10: "judge"},
}
# What stands on a chapter's sign.
SIGNS = {
    1: "Planning", 2: "Values", 3: "Policy gradient", 4: "PPO", 5: "Alignment", 6: "Generators",
    7: "Denoising MDP", 8: "Rewards", 9: "DDPO", 10: "Reward gradient", 11: "Preferences", 12: "GRPO",
    13: "Forward process", 14: "Tokens", 15: "Video", 16: "3D", 17: "4D", 18: "Structure", 19: "Open problems",
}  # fmt: skip
# The column of each chapter's sign, and its row.
PLACES = {
    1: (0, 0), 2: (1, 0), 3: (2, 0), 4: (3, 0), 5: (4, 0),
    8: (0.5, 1), 7: (2.95, 1), 6: (5.65, 1),
    9: (0, 2), 10: (1, 2), 11: (2, 2), 12: (3, 2), 13: (4, 2), 14: (5, 2), 18: (6, 2),
    19: (1, 3), 15: (2.5, 3), 16: (3.5, 3), 17: (4.5, 3),
}  # fmt: skip
STEP_X, STEP_Y, WIDE, TALL, MARGIN = 116, 118, 102, 44, 8
STYLE, CLASS = "front/map.css", "chapter-map"


def drawing(addresses: dict[int, str]) -> str:
    """The map as an SVG whose signs lead to `addresses`, which has the chapters that there are."""
    there = sorted(addresses)
    if unknown := [number for number in there if number not in BUILDS_ON]:
        raise BookError(f"the map has no chapter {unknown[0]}; add it to BUILDS_ON, SIGNS and PLACES in {__name__}")
    edges = [(low, high, idea) for high in there for low, idea in sorted(BUILDS_ON[high].items()) if low in addresses]
    signs = "".join(_sign(number, addresses[number]) for number in there)
    width, height = 2 * MARGIN + 6 * STEP_X + WIDE, 2 * MARGIN + 3 * STEP_Y + TALL
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="group" aria-label="{escape(told(there))}">'
        f"{''.join(_line(*edge, edges) for edge in edges)}{signs}</svg>"
    )


def told(there: list[int]) -> str:
    """The map in words."""
    parts = [
        f"{number}, {SIGNS[number]}, on " + " and ".join(str(low) for low in sorted(BUILDS_ON[number]))
        for number in there
        if BUILDS_ON[number]
    ]
    return "Map of the chapters. An arrow leads from a chapter to one that builds on it: " + "; ".join(parts) + "."


def legend() -> str:
    """The ideas, each with a piece of its line."""
    pieces = "".join(
        '<li><svg viewBox="0 0 36 8" width="36" height="8" aria-hidden="true">'
        f'<path d="M0 4H36" {_stroke(idea)}/></svg> '
        f"{idea.name}</li>"
        for idea in IDEAS.values()
    )
    return f'<ul class="{CLASS}-legend">{pieces}</ul>'


def _stroke(idea: Idea) -> str:
    dashes = f' stroke-dasharray="{idea.dashes}"' if idea.dashes else ""
    return f'stroke="{idea.colour}" stroke-width="2.2" fill="none"{dashes}'


def _corner(number: int) -> tuple[float, float]:
    column, row = PLACES[number]
    return MARGIN + column * STEP_X, MARGIN + row * STEP_Y


def _sign(number: int, address: str) -> str:
    x, y = _corner(number)
    middle = x + WIDE / 2
    return (
        f'<a href="{escape(address)}"><rect x="{x:.0f}" y="{y:.0f}" width="{WIDE}" height="{TALL}" rx="6"/>'
        f'<text x="{middle:.0f}" y="{y + 18:.0f}" class="{CLASS}-number">{number}</text>'
        f'<text x="{middle:.0f}" y="{y + 35:.0f}">{SIGNS[number]}</text></a>'
    )


def _line(low: int, high: int, idea: str, edges: list[tuple[int, int, str]]) -> str:
    """An arrow from below one sign to above the other, or along a row; arrows share a side evenly."""
    (x, y), (to_x, to_y) = _corner(low), _corner(high)
    if y == to_y and (high == low + 1 or to_x < x):
        right = 1 if to_x > x else -1
        start = (x + WIDE if right == 1 else x, y + TALL / 2)
        end = (to_x if right == 1 else to_x + WIDE, start[1])
        return _arrow(f"M{start[0]:.0f} {start[1]:.0f}H{end[0] - 6 * right:.0f}", end, (right, 0), IDEAS[idea])
    if y == to_y:
        start, end = (x + WIDE / 2, y + TALL), (to_x + WIDE / 4, to_y + TALL)
        path = f"M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {y + TALL + 30} {end[0]:.0f} {y + TALL + 30} "
        return _arrow(f"{path}{end[0]:.0f} {end[1] + 6:.0f}", end, (0, -1), IDEAS[idea])
    start = (x + _share(low, 0, (low, high, idea), edges), y + TALL)
    end = (to_x + _share(high, 1, (low, high, idea), edges), to_y)
    bend = 0.5 * (end[1] - start[1])
    path = (
        f"M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {start[1] + bend:.0f} "
        f"{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1] - 6:.0f}"
    )
    return _arrow(path, end, (0, 1), IDEAS[idea])


def _share(number: int, side: int, edge: tuple[int, int, str], edges: list[tuple[int, int, str]]) -> float:
    """How far from a sign's left edge an arrow begins (side 0) or ends (side 1), in the order of its other end."""
    row = PLACES[number][1]
    mine = [one for one in edges if one[side] == number and PLACES[one[1 - side]][1] != row]
    mine.sort(key=lambda one: PLACES[one[1 - side]])
    return WIDE * (mine.index(edge) + 1) / (len(mine) + 1)


def _arrow(path: str, end: tuple[float, float], towards: tuple[int, int], idea: Idea) -> str:
    (x, y), (dx, dy) = end, towards
    back = (x - 8 * dx, y - 8 * dy)
    tip = f"{x:.0f},{y:.0f} {back[0] + 4 * dy:.0f},{back[1] + 4 * dx:.0f} {back[0] - 4 * dy:.0f},{back[1] - 4 * dx:.0f}"
    return f'<path d="{path}" {_stroke(idea)}/><polygon points="{tip}" fill="{idea.colour}"/>'


def table(stems: dict[int, str]) -> str:
    """The same as a table in Markdown, from the chapters there are."""

    def named(number: int) -> str:
        return f"{{doc}}`{number} {SIGNS[number]} <chapters/{stems[number]}>`"

    rows = [
        f"| {named(number)} | "
        + "; ".join(f"{named(low)}: {IDEAS[idea].name}" for low, idea in BUILDS_ON[number].items() if low in stems)
        + " |"
        for number in sorted(stems)
    ]
    return "\n".join(["| chapter | builds on |", "|---|---|", *rows])


class Map(nodes.General, nodes.Element):
    """The place of the map in a document; it is drawn when the page is written and addresses are known."""


class MapHere(Directive):
    """`{chapter-map}`: the map stands here."""

    def run(self) -> list[nodes.Node]:
        """A place for the map, and the same as a table in a fold."""
        folder = Path(self.state.document.settings.env.srcdir) / "chapters"
        stems = {int(path.name[:2]): path.stem for path in sorted(folder.glob("[0-9][0-9]-*.md"))}
        fold = nodes.container(classes=["dropdown"])
        self.state.nested_parse(table(stems).splitlines(), self.content_offset, fold)
        return [
            Map(stems=stems),
            nodes.raw("", "<details><summary>The same as a table</summary>", format="html"),
            *fold.children,
            nodes.raw("", "</details>", format="html"),
        ]


def visit_map(self: Any, node: Map) -> None:
    """Write the map in HTML."""
    builder, here = self.builder, self.builder.current_docname
    addresses = {number: builder.get_relative_uri(here, f"chapters/{stem}") for number, stem in node["stems"].items()}
    self.body.append(
        f'<figure class="{CLASS}"><div class="{CLASS}-frame" role="region" aria-label="Map" tabindex="0">'
        f"{drawing(addresses)}</div>{legend()}<figcaption>An arrow leads from a chapter to one that builds on it, by "
        "the idea of its line. A sign leads to its chapter.</figcaption></figure>"
    )
    raise nodes.SkipNode


def add_files(app: Any, body: str) -> None:
    """Let a page whose text has the map load its style."""
    if f'class="{CLASS}"' in body:
        app.add_css_file(STYLE, priority=811)
