"""The gridworld editor: draw a world, and see at once what value iteration makes of it."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from pixelpolicy.control.gridworld import Gridworld
from pixelpolicy.control.mdp import check_discount
from pixelpolicy.errors import ControlError, FigureError
from pixelpolicy.widgets.assets import joined

LARGEST = 400  # cells: more could be neither told apart nor solved within a key's fifty milliseconds


def _rows(prizes: dict, _: Any) -> list:
    return [[*cell, prize] for cell, prize in sorted(prizes.items())]


def _prizes(rows: list, _: Any) -> dict:
    return {(row, column): prize for row, column, prize in rows}


class GridworldEditor(anywidget.AnyWidget):
    """A gridworld to edit by mouse and by keys, with its optimal values and best moves; it needs no kernel once made.

    ``grid`` is a `Gridworld` of 400 cells at most, ``alt`` says what it shows for those who cannot see it. The reader
    changes walls, prizes, slip and discount, and steps through the sweeps of value iteration.

    ``walls`` (a list of ``(row, column)``), ``prizes`` (a dict from ``(row, column)`` to a reward), ``slip``,
    ``discount`` and ``sweep`` (how many sweeps are shown; None is all of them) may be read, set and observed; `grid` is
    the world as it stands. Raises `FigureError` without ``alt`` or for a larger grid, `ControlError` for a discount
    outside [0, 1], a sweep below 0, and whatever `Gridworld` refuses.
    """

    _esm = joined("js", "gridworld_solver", "gridworld")
    _css = joined("css", "paper", "explorer", "gridworld")

    height = traitlets.Int().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    walls = traitlets.List(traitlets.Tuple(traitlets.Int(), traitlets.Int())).tag(sync=True)
    prizes = traitlets.Dict(
        key_trait=traitlets.Tuple(traitlets.Int(), traitlets.Int()), value_trait=traitlets.Float()
    ).tag(sync=True, to_json=_rows, from_json=_prizes)
    slip = traitlets.Float().tag(sync=True)
    discount = traitlets.Float().tag(sync=True)
    sweep = traitlets.Int(None, allow_none=True).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(self, grid: Gridworld, *, discount: float = 0.95, alt: str, caption: str = ""):
        if not alt.strip():
            raise FigureError("the editor has no alternative text: say in alt= what its grid shows")
        if grid.width * grid.height > LARGEST:
            raise FigureError(f"the grid has {grid.width * grid.height} cells; the editor shows {LARGEST} at most")
        super().__init__(
            height=grid.height,
            width=grid.width,
            walls=sorted(grid.walls),
            prizes=dict(grid.prizes),
            slip=grid.slip,
            discount=discount,
            alt=alt,
            caption=caption,
        )

    @property
    def grid(self) -> Gridworld:
        """The world as it has been edited."""
        return Gridworld(self.walls, self.prizes, self.slip, self.width, self.height)

    @traitlets.validate("walls", "prizes", "slip")
    def _a_world(self, proposal: Any) -> Any:
        parts = {name: getattr(self, name) for name in ("walls", "prizes", "slip", "width", "height")}
        Gridworld(**parts | {proposal["trait"].name: proposal["value"]})
        return proposal["value"]

    @traitlets.validate("discount")
    def _a_discount(self, proposal: Any) -> float:
        check_discount(proposal["value"])
        return proposal["value"]

    @traitlets.validate("sweep")
    def _a_sweep(self, proposal: Any) -> int | None:
        if proposal["value"] is not None and proposal["value"] < 0:
            raise ControlError(f"there is no sweep {proposal['value']}; give 0 or more, or None for the last")
        return proposal["value"]
