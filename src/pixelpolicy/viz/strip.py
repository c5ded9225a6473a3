"""Motions as a strip of stills: what moves, frame by frame, on a ground whose marks stand still."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from scipy.spatial import ConvexHull

from pixelpolicy.errors import FigureError
from pixelpolicy.viz.boxes import Boxes
from pixelpolicy.viz.figures import Picture, picture

MARK = 0.25  # metres between the marks on the ground
PITCH = 1.35  # metres from a frame to the next on the strip
HEIGHT = 1.9  # metres that a row shows


def strip(
    objects: Sequence[Boxes], labels: Sequence[str], *, alt: str, accepted: Sequence[bool] | None = None
) -> Picture:
    """A row for each motion, seen from the side (x to the right, y up), its frames from left to right.

    Each frame follows the first box; the marks on the ground, `MARK` metres apart, stay where they are, so that a foot
    that slides is seen to. Labels of accepted motions are green and ticked. Raises `FigureError` where the parts do
    not fit.
    """
    if not objects or len(labels) != len(objects) or (accepted is not None and len(accepted) != len(objects)):
        raise FigureError(f"{len(objects)} motions came with {len(labels)} labels; give one a motion, and one at least")
    frames = max(one.frames for one in objects)
    figure = Figure(figsize=(1.02 * frames, 1.42 * len(objects)))
    for row, (one, label) in enumerate(zip(objects, labels, strict=True)):
        axis = figure.add_subplot(len(objects), 1, row + 1)
        for frame in range(one.frames):
            _draw(axis, one.at(frame) if one.moving else one, frame * PITCH)
        axis.plot([-PITCH / 2, (frames - 0.5) * PITCH], [0, 0], color="#777777", linewidth=0.8, zorder=0)
        axis.set(xlim=(-PITCH / 2, (frames - 0.5) * PITCH), ylim=(-0.12, HEIGHT), xticks=[], yticks=[], aspect="equal")
        for spine in axis.spines.values():
            spine.set_visible(False)
        good = accepted is not None and accepted[row]
        title = f"{label}  \N{CHECK MARK}" if good else label
        axis.set_title(title, fontsize=8, loc="left", pad=1, color="#007a58" if good else "#333333")
    figure.subplots_adjust(hspace=0.15)
    return picture(figure, alt=alt)


def _draw(axis, boxes: Boxes, place: float) -> None:
    middle = boxes.centres[0, 0]
    first = np.ceil((middle - PITCH / 2) / MARK) * MARK
    for mark in np.arange(first, middle + PITCH / 2, MARK):
        x = mark - middle + place
        axis.plot([x, x], [-0.08, 0], color="#aaaaaa", linewidth=0.8, zorder=0)
    for box in np.argsort(boxes.centres[:, 2]):  # the nearer last
        corners = boxes.corners()[box, :, :2]
        if np.ptp(corners, axis=0).min() < 1e-6:
            continue
        outline = corners[ConvexHull(corners).vertices] + [place - middle, 0]
        axis.add_patch(Polygon(outline, facecolor=boxes.colours[box], edgecolor="#222222", linewidth=0.4))
