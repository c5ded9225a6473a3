"""Objects made of coloured boxes, at rest or over frames: what is shown and written of them.

Right-handed coordinates in the world's own units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixelpolicy.errors import SizeError

# Corners of the box with half sizes 1, and its faces by corner, each counter-clockwise as seen from outside.
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
FACES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


@dataclass(frozen=True, eq=False)
class Boxes:
    """One object. Leading ``frames`` make it move; parts without them stand for all frames.

    - ``centres [frames, boxes, 3]`` and ``halves``, half the sizes along a box's own axes (a box of size 0 is absent)
    - ``colours``: RGB in [0, 1]
    - ``rotations [frames, boxes, 3, 3]``: their columns are a box's axes; without them boxes stand straight

    Raises `SizeError` where the parts do not fit one another, or hold what is no finite number.
    """

    centres: np.ndarray
    halves: np.ndarray
    colours: np.ndarray
    rotations: np.ndarray | None = None

    def __post_init__(self) -> None:
        turned = np.eye(3) if self.rotations is None else self.rotations
        parts = {
            "centres": (self.centres, (3,)),
            "halves": (self.halves, (3,)),
            "colours": (self.colours, (3,)),
            "rotations": (turned, (3, 3)),
        }
        try:
            arrays = {name: np.asarray(part, dtype=float) for name, (part, _) in parts.items()}
            heads = [array.shape[: array.ndim - len(parts[name][1])] for name, array in arrays.items()]
            head = np.broadcast_shapes(*heads)
            fitted = {name: np.broadcast_to(array, head + parts[name][1]) for name, array in arrays.items()}
        except ValueError as error:
            shapes = {name: list(np.shape(part)) for name, (part, _) in parts.items()}
            raise SizeError(
                f"the parts of these boxes do not fit one another: {shapes}. Give [boxes, 3] or [frames, boxes, 3] "
                f"each, rotations [boxes, 3, 3] or [frames, boxes, 3, 3]"
            ) from error
        if len(head) not in (1, 2) or 0 in head:
            raise SizeError(f"boxes come as [boxes, 3] or [frames, boxes, 3], one at least; given {[*head, 3]}")
        for name, array in fitted.items():
            if not np.isfinite(array).all():
                raise SizeError(f"{name} of boxes hold numbers that are not finite")
            object.__setattr__(self, name, array)
        if (self.halves < 0).any():
            raise SizeError(f"half sizes of boxes are 0 or more; the least given is {self.halves.min():.3g}")
        if self.colours.min() < 0 or self.colours.max() > 1:
            raise SizeError("colours of boxes are RGB from 0 to 1; scale those given")
        if np.abs(self.rotations @ self.rotations.swapaxes(-1, -2) - np.eye(3)).max() > 1e-3:
            raise SizeError("rotations of boxes have columns of length 1 that stand square to one another")

    @classmethod
    def from_rows(cls, rows: np.ndarray) -> Boxes:
        """From rows ``[boxes, 10]`` or ``[frames, boxes, 10]`` as `worlds.boxes` has them (y is up there).

        Absent boxes have size 0; sizes and colours out of range are brought into it.
        """
        rows = np.asarray(rows, dtype=float)
        halves = np.maximum(rows[..., 4:7], 0) * (rows[..., :1] > 0.5)
        return cls(rows[..., 1:4], halves, rows[..., 7:10].clip(0, 1))

    @property
    def moving(self) -> bool:
        return self.centres.ndim == 3

    @property
    def frames(self) -> int:
        return len(self.centres) if self.moving else 1

    def at(self, frame: int) -> Boxes:
        """The object at one frame, at rest."""
        if not self.moving:
            return self
        return Boxes(self.centres[frame], self.halves[frame], self.colours[frame], self.rotations[frame])

    def corners(self) -> np.ndarray:
        """Where the corners are, ``[frames, boxes, 8, 3]`` or ``[boxes, 8, 3]``."""
        return (CORNERS * self.halves[..., None, :]) @ self.rotations.swapaxes(-1, -2) + self.centres[..., None, :]


def turn(angles: np.ndarray, axis: int) -> np.ndarray:
    """Rotations ``[..., 3, 3]`` by angles ``[...]`` in radians about the axis 0 (x), 1 (y) or 2 (z), right-handed."""
    angles = np.asarray(angles, dtype=float)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    made = np.zeros((*angles.shape, 3, 3))
    made[..., axis, axis] = 1
    made[..., first, first] = made[..., second, second] = np.cos(angles)
    made[..., second, first], made[..., first, second] = np.sin(angles), -np.sin(angles)
    return made
