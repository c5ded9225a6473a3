"""The box viewer: objects of coloured boxes that turn under the hand, and move where they have frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets

from pixelpolicy.errors import FigureError
from pixelpolicy.viz.boxes import Boxes
from pixelpolicy.widgets.assets import joined

MOST_BOXES = 2_000  # boxes times frames of all objects: what a page carries without weight, and draws without delay


class BoxViewer(anywidget.AnyWidget):
    """Objects side by side, seen by one eye; it needs no kernel once it is made.

    - ``objects``: `Boxes`, or several; those that move have the same number of frames, and a button that plays them
    - ``alt``: what they show, for those who cannot see them
    - ``names``: one string an object, written below it; ``caption`` stands below all
    - ``up``: the axis that points up, "y" or "z"; ``ground``: the height of a chequered floor, None for no floor
    - ``fps``: frames a second; ``azimuth`` and ``elevation``: from where one looks, in degrees

    ``azimuth``, ``elevation``, ``zoom`` (1 fits) and ``frame`` may be read, set and observed. Raises `FigureError`
    where the parts do not fit, where ``alt`` is missing, for more than `MOST_BOXES`, and for a frame that is not there.
    """

    _esm = joined("js", "box_viewer")
    _css = joined("css", "paper", "box_viewer")

    azimuth = traitlets.Float(-60.0).tag(sync=True)
    elevation = traitlets.Float(20.0, min=-90, max=90).tag(sync=True)
    zoom = traitlets.Float(1.0, min=0.5, max=3).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    # of each object its boxes at each frame: centre and the three half axes, 12 numbers; then the colours, 3 a box
    places = traitlets.List().tag(sync=True)
    colours = traitlets.List().tag(sync=True)
    frames = traitlets.Int().tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    ground = traitlets.Float(None, allow_none=True).tag(sync=True)
    fps = traitlets.Float().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        objects: Boxes | Sequence[Boxes],
        *,
        alt: str,
        names: Sequence[str] | None = None,
        up: str = "z",
        ground: float | None = None,
        fps: float = 8,
        azimuth: float = -60,
        elevation: float = 20,
        caption: str = "",
    ):
        if not alt.strip():
            raise FigureError("the viewer has no alternative text: say in alt= what its objects show")
        objects = [objects] if isinstance(objects, Boxes) else list(objects)
        if not objects or not all(isinstance(one, Boxes) for one in objects):
            raise FigureError("the viewer shows objects of pixelpolicy.viz.boxes.Boxes; give it one at least")
        frames = max(one.frames for one in objects)
        if any(one.frames not in (1, frames) for one in objects):
            raise FigureError(
                f"the objects have {', '.join(str(one.frames) for one in objects)} frames; give those that move the "
                f"same number"
            )
        count = sum(one.centres[..., 0].size for one in objects)
        if count > MOST_BOXES:
            raise FigureError(f"there are {count} boxes over all frames; {MOST_BOXES} are the most that are shown")
        names = [""] * len(objects) if names is None else names
        if isinstance(names, str) or len(names) != len(objects):
            raise FigureError(f"give one name an object, {len(objects)} in all, or none; given {names!r}")
        if up not in ("y", "z"):
            raise FigureError(f"up is {up!r}; say which axis points up, 'y' or 'z'")
        if not fps > 0:
            raise FigureError(f"fps is {fps}; give frames a second above 0")
        super().__init__(
            places=[_places(one, up) for one in objects],
            colours=[np.round(one.colours.reshape(one.frames, -1, 3)[0], 3).tolist() for one in objects],
            frames=frames,
            names=[str(name) for name in names],
            ground=ground,
            fps=fps,
            azimuth=azimuth,
            elevation=elevation,
            alt=alt,
            caption=caption,
        )

    @traitlets.validate("frame")
    def _there(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] < max(self.frames, 1):
            raise FigureError(f"there is no frame {proposal['value']}; choose one from 0 to {self.frames - 1}")
        return proposal["value"]


def _places(boxes: Boxes, up: str) -> list[list[list[float]]]:
    """``[frames][boxes][12]``, with z up."""
    axes = boxes.rotations * boxes.halves[..., None, :]  # column k is the half axis k
    rows = np.concatenate([boxes.centres[..., None, :], axes.swapaxes(-1, -2)], -2)  # [..., boxes, 4, 3]
    if up == "y":
        rows = np.stack([rows[..., 2], rows[..., 0], rows[..., 1]], -1)
    return np.round(rows.reshape(boxes.frames, -1, 12), 4).tolist()
