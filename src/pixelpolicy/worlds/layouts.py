"""A layout says what stands where before a picture is drawn: "red circle c5, blue square f3" for the world of shapes.

The places are those of a chessboard laid over the picture: columns a to h from the left, rows 1 to 8 from the top. A
layout has four slots of four words each, colour, shape, column and row; a slot that is not used has empty words.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from pixelpolicy.worlds import shapes

CELLS = 8
CELL = shapes.SIZE / CELLS  # pixels
COLUMNS, ROWS = tuple("abcdefgh"), tuple("12345678")
SLOTS, SLOT = 4, 4
LENGTH = SLOTS * SLOT
WORDS = (*shapes.VOCABULARY, *COLUMNS, *ROWS)  # of prompts and of layouts; "" is number 0
ALLOWED = (tuple(shapes.COLOURS), shapes.SHAPES, COLUMNS, ROWS)  # at the places of a slot
NEAR = 1.5  # cells between a planned and a drawn place that count as the same


@dataclass(frozen=True)
class Planned:
    """One object of a layout; ``column`` and ``row`` count from 0."""

    colour: str
    shape: str
    column: int
    row: int

    def __str__(self) -> str:
        return f"{self.colour} {self.shape} {COLUMNS[self.column]}{ROWS[self.row]}"


Layout = tuple[Planned, ...]


@dataclass(frozen=True)
class Drawing:
    """What a model of tokens makes of a prompt: first a layout, then a picture ``[3, 32, 32]`` in [-1, 1]."""

    layout: Layout
    picture: Any


def layout_of(things: Sequence[shapes.Thing]) -> Layout:
    """The layout of a scene: in the scene's order, or row by row where its objects are all alike."""
    planned = [Planned(t.colour, t.shape, *(min(int(v / CELL), CELLS - 1) for v in (t.x, t.y))) for t in things]
    if len({(p.colour, p.shape) for p in planned}) == 1:
        planned.sort(key=lambda p: (p.row, p.column))
    return tuple(planned)


def written(layout: Layout) -> list[int]:
    """A layout as ``LENGTH`` numbers of `WORDS`."""
    words = [w for p in layout for w in (p.colour, p.shape, COLUMNS[p.column], ROWS[p.row])]
    return [WORDS.index(word) for word in words] + [0] * (LENGTH - len(words))


def read(numbers: Sequence[int]) -> Layout:
    """The layout that ``LENGTH`` numbers of `WORDS` say; it ends at the first empty slot."""
    words = [WORDS[number] for number in numbers]
    slots = itertools.takewhile(lambda slot: slot[0], (words[i : i + SLOT] for i in range(0, LENGTH, SLOT)))
    return tuple(Planned(c, s, COLUMNS.index(x), ROWS.index(y)) for c, s, x, y in slots)


def related(relation: str, first: Planned, second: Planned) -> bool:
    """Whether a layout puts ``first`` in ``relation`` to ``second``: a cell apart, and no farther off across."""
    rx, ry = shapes.RELATIONS[relation]
    dx, dy = first.column - second.column, first.row - second.row
    along, across = (dx * rx, dy) if rx else (dy * ry, dx)
    return along >= 1 and along >= abs(across)


def share_found(planned: Sequence[tuple[str, str]], wanted: Sequence[tuple[str, str]], holds: bool) -> float:
    """How many of the ``(colour, shape)`` wanted are among those planned, as a share of the longer of the two lists.

    Each planned one answers for one wanted one. Where the relation that is asked for does not hold, half of that.
    """
    left = list(wanted)
    for pair in planned:
        if pair in left:
            left.remove(pair)
    share = (len(wanted) - len(left)) / max(len(planned), len(wanted))
    return share if holds else share / 2


def agreement(layout: Layout, prompt: str, share: Callable[[list, list, bool], float] = share_found) -> float:
    """How far a layout says what the prompt asks, from 0 to 1: its objects, and the relation between them."""
    asked = shapes.parse(prompt)
    places = {(p.colour, p.shape): p for p in reversed(layout)}
    holds = asked.relation is None or (
        all(pair in places for pair in asked.wanted) and related(asked.relation, *(places[w] for w in asked.wanted))
    )
    return share([(p.colour, p.shape) for p in layout], list(asked.wanted), holds)


def followed(drawing: Drawing) -> bool:
    """Whether a picture shows the objects of its layout, no other, each within `NEAR` cells of its place."""
    found = shapes.detect(np.asarray(drawing.picture)).things
    if len(found) != len(drawing.layout):
        return False
    cost = np.full((len(found), len(found)), 1e3)
    for (i, thing), (j, planned) in itertools.product(enumerate(found), enumerate(drawing.layout)):
        if (thing.colour, thing.shape) == (planned.colour, planned.shape):
            cost[i, j] = np.hypot(thing.x / CELL - planned.column - 0.5, thing.y / CELL - planned.row - 0.5)
    return bool((cost[linear_sum_assignment(cost)] <= NEAR).all())
