"""Views of boxes that have a gradient: a soft twin of `worlds.boxes.render`, for rewards that look.

Where a hard rasteriser asks whether a ray meets a box, this one asks how nearly: the length of the ray inside the box,
over a temperature, through a sigmoid; so moving a box a little changes the picture a little (the idea of Liu et al.
2019, arXiv 1904.01786, for boxes and parallel rays).
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.errors import SizeError
from pixelpolicy.worlds import boxes as solids

SOFTNESS = 0.02  # metres over which an edge fades
DEPTH = 0.03  # metres by which one surface must lie before another to hide most of it
PRESENCE = 0.1  # how sharply presence is read around 0.5


@functools.cache
def _rays(azimuths: tuple[float, ...], elevation: float, size: int) -> tuple[Tensor, Tensor, Tensor]:
    starts, directions = solids.rays(azimuths, elevation, size)
    directions = torch.from_numpy(directions).unsqueeze(1)  # [views, 1, 3]
    steep = torch.where(directions.abs() < 1e-3, torch.sign(directions) * 1e-3, directions)
    light = torch.from_numpy(solids.LIGHT / (solids.LIGHT**2).sum() ** 0.5)
    shade = solids.AMBIENT + (1 - solids.AMBIENT) * (-torch.sign(directions) * light).clamp_min(0)
    return torch.from_numpy(starts).flatten(1, 2), steep, shade


def soft_views(
    boxes: Float[Tensor, "batch boxes 10"],
    azimuths: tuple[float, ...] = solids.AZIMUTHS,
    *,
    elevation: float = solids.ELEVATION,
    size: int = 16,
    softness: float = SOFTNESS,
) -> tuple[Float[Tensor, "batch views 3 size size"], Float[Tensor, "batch views size size"]]:
    """``(pictures in [-1, 1], silhouettes in [0, 1])``, both with a gradient with respect to every number of a box.

    As ``softness`` goes to 0 they become those of `worlds.boxes.render` and `worlds.boxes.silhouettes`. Raises
    `SizeError` unless ``boxes`` is ``[batch, boxes, 10]``.
    """
    if boxes.ndim != 3 or boxes.shape[-1] != solids.CHANNELS:
        raise SizeError(f"boxes of shape {list(boxes.shape)} were given; give [batch, boxes, {solids.CHANNELS}]")
    start, direction, shade = (t.to(boxes) for t in _rays(tuple(azimuths), elevation, size))
    half = boxes[..., solids.HALF].clamp_min(solids.LEAST_HALF)[:, :, None, None]
    centre = boxes[..., solids.CENTRE][:, :, None, None]  # [batch, boxes, 1, 1, 3]
    middle, reach = (centre - start) / direction, half / direction.abs()  # [batch, boxes, views, pixels, 3]
    entries = middle - reach
    entry = entries.amax(-1)
    inside = (middle + reach).amin(-1) - entry
    there = torch.sigmoid((boxes[..., 0] - 0.5) / PRESENCE)[:, :, None, None]
    hit = there * torch.sigmoid(inside / softness)  # [batch, boxes, views, pixels]
    face = (torch.softmax(entries / softness, -1) * shade).sum(-1)
    paint = boxes[..., None, None, solids.COLOUR].clamp(0, 1) * face[..., None]
    nearness = torch.softmax(torch.log(hit + 1e-6) - entry / DEPTH, 1)
    covered = 1 - (1 - hit).prod(1)
    ground = torch.from_numpy(solids.BACKGROUND).to(boxes)
    seen = (nearness[..., None] * paint).sum(1)
    pictures = seen * covered[..., None] + ground * (1 - covered[..., None])
    shape = (len(boxes), len(azimuths), size, size)
    return pictures.view(*shape, 3).movedim(-1, 2) * 2 - 1, covered.view(shape)
