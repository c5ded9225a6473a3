"""Objects made of boxes: do they hang together and stand, and how do they look from several sides.

Boxes are float arrays ``[batch, boxes, 10]``, the faces parallel to the axes: presence (there if above 0.5), centre
x, y, z, half sizes, colour red, green, blue in [0, 1]. x points right, y up, z towards the viewer; lengths are in
metres, the ground is y = 0, and all boxes are of one solid material.
"""

from __future__ import annotations

import numpy as np

from pixelpolicy.errors import SizeError

CHANNELS = 10
CENTRE, HALF, COLOUR = slice(1, 4), slice(4, 7), slice(7, 10)
LEAST_HALF = 0.004  # thinner boxes, and those of negative size, count as so thick
CONTACT = 0.04  # a box bears weight if its underside is so near to that of the lowest
GROUND = 0.05  # how far from y = 0 the lowest underside may be
TOUCH = 0.03  # boxes touch across a gap of this
AZIMUTHS = (20.0, 65.0, 110.0, 155.0)  # degrees, of the usual four views
ELEVATION = 15.0
BACKGROUND = np.array([0.93, 0.93, 0.91], dtype=np.float32)
LIGHT = np.array([0.45, 0.75, 0.49], dtype=np.float32)  # where the light comes from
AMBIENT = 0.45
WINDOW = 0.95  # half the side of what a view shows, around `FOCUS`
FOCUS = np.array([0.0, 0.75, 0.0], dtype=np.float32)
_FAN = np.deg2rad(np.arange(0.5, 360.5, 2.0))
_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])


def checked(boxes: np.ndarray) -> np.ndarray:
    """Boxes in float64 with half sizes of at least `LEAST_HALF`. Raises `SizeError` unless ``[batch, boxes, 10]``."""
    boxes = np.array(boxes, dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[-1] != CHANNELS:
        raise SizeError(f"boxes of shape {list(boxes.shape)} were given; give [batch, boxes, {CHANNELS}]")
    boxes[..., HALF] = np.maximum(boxes[..., HALF], LEAST_HALF)
    return boxes


def present(boxes: np.ndarray) -> np.ndarray:
    """Which boxes are there, ``[batch, boxes]``."""
    return boxes[..., 0] > 0.5


def undersides(boxes: np.ndarray) -> np.ndarray:
    """Height of the underside of each box, infinite for those that are absent, ``[batch, boxes]``."""
    return np.where(present(boxes), boxes[..., 2] - boxes[..., 5], np.inf)


def height(boxes: np.ndarray) -> np.ndarray:
    """Height of the highest upper side over the lowest underside, ``[batch]``; 0 where there is no box."""
    tops = np.where(present(boxes), boxes[..., 2] + boxes[..., 5], -np.inf)
    return np.maximum(tops.max(1) - undersides(boxes).min(1), 0.0)


def centre_of_mass(boxes: np.ndarray) -> np.ndarray:
    """``[batch, 3]``, each box weighing its volume; 0 where there is no box."""
    mass = boxes[..., HALF].prod(-1) * present(boxes)
    return (mass[..., None] * boxes[..., CENTRE]).sum(1) / np.maximum(mass.sum(1), 1e-12)[:, None]


def foot(boxes: np.ndarray) -> np.ndarray:
    """The corners (x, z) of each object's foot in order, many of them repeated, ``[batch, 180, 2]``.

    The foot is the convex hull of the undersides that bear weight (`CONTACT`); seen with x to the right and z up, its
    corners run anticlockwise. Without a box all corners are 0.
    """
    boxes, low = checked(boxes), undersides(boxes)
    bearing = low <= low.min(1, keepdims=True) + CONTACT
    corners = boxes[:, :, None, [1, 3]] + _CORNERS * boxes[:, :, None, [4, 6]]  # [batch, boxes, 4, 2]
    directions = np.stack([np.cos(_FAN), np.sin(_FAN)])
    reach = np.where(bearing[:, :, None, None], corners @ directions, -np.inf).reshape(len(boxes), -1, _FAN.size)
    farthest = np.take_along_axis(corners.reshape(len(boxes), -1, 2), reach.argmax(1)[..., None], 1)
    return np.where(present(boxes).any(1)[:, None, None], farthest, 0.0)


def tilt_margin(boxes: np.ndarray) -> np.ndarray:
    """By how many degrees each object can be tilted before it falls, ``[batch]``; negative if it falls by itself.

    Over each edge of the `foot` the object tips when the centre of mass comes to stand above that edge: at the angle
    whose tangent is the distance of its plumb point to the edge, divided by its height. The least angle counts.
    Without a box it is -90.
    """
    corner, centre = foot(boxes), centre_of_mass(checked(boxes))
    edge = np.roll(corner, -1, 1) - corner
    offset = centre[:, None, [0, 2]] - corner
    length = np.linalg.norm(edge, axis=-1)
    inside = edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]
    distance = np.where(length > 1e-9, inside / np.maximum(length, 1e-9), np.inf).min(1)
    ground = undersides(checked(boxes)).min(1)
    there = np.isfinite(ground)
    above = np.maximum(centre[:, 1] - np.where(there, ground, 0.0), 1e-6)
    return np.where(there, np.degrees(np.arctan2(np.where(there, distance, 0.0), above)), -90.0)


def grounded(boxes: np.ndarray) -> np.ndarray:
    """Whether the lowest underside lies on the ground, within `GROUND`, ``[batch]``."""
    return np.abs(undersides(checked(boxes)).min(1)) <= GROUND


def gaps(boxes: np.ndarray) -> np.ndarray:
    """The gap between every two boxes along the axis where it is widest, ``[batch, boxes, boxes]``; below 0 inside."""
    apart = np.abs(boxes[:, :, None, CENTRE] - boxes[:, None, :, CENTRE])
    return (apart - boxes[:, :, None, HALF] - boxes[:, None, :, HALF]).max(-1)


def reached(boxes: np.ndarray) -> np.ndarray:
    """The share of an object's material that hangs together with its largest connected part, ``[batch]`` in [0, 1]."""
    boxes = checked(boxes)
    there = present(boxes)
    link = (gaps(boxes) <= TOUCH) & there[:, :, None] & there[:, None, :]
    for _ in range(int(np.ceil(np.log2(boxes.shape[1])))):
        link = (link.astype(np.float32) @ link.astype(np.float32)) > 0
    mass = boxes[..., HALF].prod(-1) * there
    return (link * mass[:, None]).sum(-1).max(1) / np.maximum(mass.sum(1), 1e-12)


def connected(boxes: np.ndarray) -> np.ndarray:
    """Whether all boxes of an object hang together, ``[batch]``; an object without a box does not."""
    return reached(boxes) > 1 - 1e-6


def symmetry(boxes: np.ndarray) -> np.ndarray:
    """How well left mirrors right, in [0, 1], ``[batch]``: 1 where each box has its exact counterpart.

    The mirror stands in the middle of the object; a mean mismatch of 5 cm a box gives 1/e.
    """
    boxes = checked(boxes)
    there = present(boxes)
    left = np.where(there, boxes[..., 1] - boxes[..., 4], np.inf).min(1)
    right = np.where(there, boxes[..., 1] + boxes[..., 4], -np.inf).max(1)
    middle = np.where(there.any(1), (left + np.where(there.any(1), right, 0)) / 2, 0.0)
    mirrored = boxes[..., 1:7].copy()
    mirrored[..., 0] = 2 * middle[:, None] - mirrored[..., 0]
    mismatch = np.abs(boxes[:, :, None, 1:7] - mirrored[:, None]).sum(-1)
    nearest = np.where(there[:, None, :], mismatch, np.inf).min(-1)
    mean = np.where(there, nearest, 0.0).sum(1) / np.maximum(there.sum(1), 1)
    return np.where(there.any(1), np.exp(-mean / 0.05), 0.0)


# Views --------------------------------------------------------------------------------------------------------


def camera(azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, up, and the direction from the object to the camera, of a view in degrees; azimuth 0 sees the front."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    towards = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    return right, np.cross(towards, right), towards


def rays(azimuths, elevation: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Starting points ``[views, size, size, 3]`` and directions ``[views, 3]`` of parallel rays, one a pixel."""
    place = (np.arange(size) + 0.5) / size * 2 * WINDOW - WINDOW
    starts, directions = [], []
    for azimuth in azimuths:
        right, up, towards = camera(azimuth, elevation)
        starts.append(FOCUS + 5 * towards + place[None, :, None] * right - place[:, None, None] * up)
        directions.append(np.where(np.abs(towards) < 1e-6, 1e-6, -towards))
    return np.stack(starts).astype(np.float32), np.stack(directions).astype(np.float32)


def pixels_of_grid(azimuths=AZIMUTHS, *, elevation: float = ELEVATION, size: int = 16, side: int = 24) -> np.ndarray:
    """In which pixel of each view every point of a cube of ``side`` cubed points falls, ``[views, points]``.

    Pixels of a view are numbered row by row from 0. The cube fills the window; points outside a view are left out.
    """
    axis = (np.arange(side) + 0.5) / side * 2 * WINDOW - WINDOW
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    numbers = []
    for azimuth in azimuths:
        right, up, _ = camera(azimuth, elevation)
        column = np.floor((points @ right + WINDOW) / (2 * WINDOW) * size).astype(int)
        row = np.floor((WINDOW - points @ up) / (2 * WINDOW) * size).astype(int)
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        numbers.append(np.where(inside, row * size + column, -1))
    numbers = np.stack(numbers)
    return numbers[:, (numbers >= 0).all(0)]


def render(
    boxes: np.ndarray,
    azimuths=AZIMUTHS,
    *,
    elevation: float = ELEVATION,
    size: int = 32,
    oversample: int = 1,
) -> np.ndarray:
    """Pictures ``[batch, views, 3, size, size]`` in [-1, 1] of objects seen from several sides, by casting rays.

    Each pixel is the mean of ``oversample`` squared rays. About 1 ms an object for four views of 32x32.
    """
    shaded, _ = _cast(boxes, azimuths, elevation, size * oversample)
    return _reduced(shaded, oversample) * 2 - 1


def silhouettes(boxes: np.ndarray, azimuths=AZIMUTHS, *, elevation: float = ELEVATION, size: int = 32) -> np.ndarray:
    """Where a view meets the object: 1, else 0, ``[batch, views, size, size]``."""
    return _cast(boxes, azimuths, elevation, size)[1]


def _reduced(pictures: np.ndarray, factor: int) -> np.ndarray:
    *front, height, width = pictures.shape
    return pictures.reshape(*front, height // factor, factor, width // factor, factor).mean((-3, -1))


def _cast(boxes, azimuths, elevation, size) -> tuple[np.ndarray, np.ndarray]:
    boxes = checked(boxes).astype(np.float32)
    starts, directions = rays(azimuths, elevation, size)
    there = present(boxes)
    shaded = np.empty((len(boxes), len(starts), 3, size, size), np.float32)
    covered = np.empty((len(boxes), len(starts), size, size), np.float32)
    for view, (start, direction) in enumerate(zip(starts, directions, strict=True)):
        nearest = np.full((len(boxes), size, size), np.inf, np.float32)
        colour = np.broadcast_to(BACKGROUND, (len(boxes), size, size, 3)).copy()
        facing = -np.sign(direction)
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing * LIGHT / np.linalg.norm(LIGHT), 0)  # of the seen faces
        for n in range(boxes.shape[1]):
            low, high = boxes[:, n, CENTRE] - boxes[:, n, HALF], boxes[:, n, CENTRE] + boxes[:, n, HALF]
            entry = leave = face = None
            for axis in range(3):
                first, last = (low, high) if direction[axis] > 0 else (high, low)
                a = (first[:, axis, None, None] - start[..., axis]) / direction[axis]
                b = (last[:, axis, None, None] - start[..., axis]) / direction[axis]
                if entry is None:
                    entry, leave, face = a, b, np.full(a.shape, light[0], np.float32)
                else:
                    face = np.where(a > entry, light[axis], face)
                    entry, leave = np.maximum(entry, a), np.minimum(leave, b)
            hit = (entry < leave) & (entry < nearest) & there[:, n, None, None]
            nearest = np.where(hit, entry, nearest)
            paint = np.clip(boxes[:, n, None, None, COLOUR], 0, 1) * face[..., None]
            colour = np.where(hit[..., None], paint, colour)
        shaded[:, view] = np.moveaxis(colour, -1, 1)
        covered[:, view] = np.isfinite(nearest)
    return shaded, covered
