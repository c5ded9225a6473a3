"""Worlds made of cells: a value in each cell, and arrows for what to do there."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pixelpolicy.errors import FigureError
from pixelpolicy.viz.figures import Picture, picture

_TOWARDS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # left, down, right, up on a picture: (x, y), y grows downwards
_LIGHT_FROM = 0.6


def grids(
    values: Mapping[str, Float[np.ndarray, "height width"]],
    *,
    alt: str,
    arrows: Mapping[str, Bool[np.ndarray, "height width 4"]] | None = None,
    marks: Mapping[tuple[int, int], str] | None = None,
    walls: Collection[tuple[int, int]] = (),
    limits: tuple[float, float] | None = None,
    digits: int = 2,
    columns: int = 4,
    size: float = 2.2,
) -> Picture:
    """Panels of cells coloured by ``values``, all on one scale, each under its name.

    ``arrows`` (left, down, right, up) are drawn in the cells of the panel of that name, ``marks`` are words in place
    of the number in a cell ``(row, column)``; ``digits=0`` leaves the numbers out. ``limits`` is the scale of colours,
    by default from the least value to the largest. Raises `FigureError` without panels or without alternative text.
    """
    if not alt.strip() or not values:
        raise FigureError(f"{len(values)} panels came with the alternative text {alt!r}; a figure needs both")
    panels = {name: np.asarray(panel, dtype=float) for name, panel in values.items()}
    low, high = limits or (min(p.min() for p in panels.values()), max(p.max() for p in panels.values()))
    scale = Normalize(low, high if high > low else low + 1)
    columns, (height, width) = min(columns, len(panels)), next(iter(panels.values())).shape
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(columns * size, rows * (size * height / width + 0.3)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).flat
    for axis in axes:
        axis.axis("off")
    for axis, (name, panel) in zip(figure.axes, panels.items(), strict=False):
        axis.set_title(name, fontsize=8, pad=3)
        _panel(axis, panel, (arrows or {}).get(name), marks or {}, frozenset(walls), scale, digits, size / width)
    return picture(figure, alt=alt)


def _panel(axis, panel, arrows, marks, walls, scale, digits, cell: float) -> None:
    """One panel; ``cell`` is the width of a cell in inches."""
    shown = colormaps["viridis"](scale(panel))
    for row, column in walls:
        shown[row, column] = (0.5, 0.5, 0.5, 1)
    height, width = panel.shape
    axis.imshow(shown, interpolation="nearest")
    for edge in range(1, max(height, width)):
        style = {"color": "white", "linewidth": 0.6}
        axis.plot([edge - 0.5] * 2, [-0.5, height - 0.5], **style) if edge < width else None
        axis.plot([-0.5, width - 0.5], [edge - 0.5] * 2, **style) if edge < height else None
    for row, column in set(np.ndindex(panel.shape)) - set(walls):
        ink = "black" if scale(panel[row, column]) > _LIGHT_FROM else "white"
        pointing = arrows is not None and arrows[row, column].any()
        words = marks.get((row, column), f"{panel[row, column]:.{digits}f}" if digits else "")
        lower = 0.3 if pointing else 0.0
        axis.text(column, row + lower, words, ha="center", va="center", color=ink, fontsize=min(9, 17 * cell))
        for action in np.flatnonzero(arrows[row, column]) if pointing else ():
            _arrow(axis, column, row - (0.12 if words else 0), _TOWARDS[action], ink)


def _arrow(axis, x: float, y: float, towards: tuple[int, int], ink: str, length: float = 0.26) -> None:
    end = (x + length * towards[0], y + length * towards[1])
    axis.annotate("", end, (x, y), arrowprops={"arrowstyle": "->", "color": ink, "shrinkA": 0, "shrinkB": 0})
