"""Rewards for clips of the bounce world: smoothness, presence, what the prompt asks for, and Newton's law.

All but the verifier's own (`bounce_strict`, `bounce_dense`) have a gradient: they follow the object softly, each pixel
weighing as much as it differs from the empty stage. Clips are ``[batch, frames, 3, 24, 24]`` in [-1, 1].
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import bounce

FAINT = 0.12  # an RGB distance from the stage below which a pixel weighs nothing
SIZE_KEPT = 0.9  # share of an object's difference from the middle radius that `likeness` grants it
SPEED_WANTED = 0.8  # sideways, pixels a frame; what goes up or down should have less than a quarter of it


def bounce_strict() -> Reward:
    """1 where the verifier accepts a clip for its prompt, else 0: accuracy."""
    return Reward("strict", lambda clips, prompts: _verdicts(clips, prompts, "strict"))


def bounce_dense() -> Reward:
    """How near a clip is to its prompt and to physics, in [0, 1], by the verifier."""
    return Reward("dense", lambda clips, prompts: _verdicts(clips, prompts, "dense"))


def smoothness() -> Reward:
    """Minus the mean squared change of a pixel from frame to frame, times 10: 0 for a clip that stands still."""
    return Reward("smoothness", lambda clips, prompts: -10 * clips.diff(dim=1).square().mean((1, 2, 3, 4)), True)


def presence() -> Reward:
    """The mean over frames of the object's soft mass, as a share of that of a small clean one, at most 1."""

    def reward(clips: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        least = math.pi * bounce.RADIUS_RANGE[0] ** 2 * 0.5
        return (cover(clips).sum((-2, -1)) / least).clamp(max=1).mean(1)

    return Reward("presence", reward, differentiable=True)


def likeness() -> Reward:
    """How much each frame looks like the object asked for, in [0, 1], wherever it is: colour, shape, size, no more.

    Any number of frames will do, one for instance (VADER). The mean over frames of ``exp(-2 e)``, where e is the
    squared distance to a drawing of that object at the tracked centre, as a share of what the drawing adds to the
    empty stage. It is drawn with the object's own radius, pulled a little towards the middle of the world's: otherwise
    each error of its measurement would be the next one's goal, and objects would grow from step to step.
    """
    return Reward("likeness", _likeness, differentiable=True)


def heading() -> Reward:
    """How far the throw goes the way the prompt says, in [-1, 1]."""
    return Reward("heading", _heading, differentiable=True)


def newton() -> Reward:
    """``1 / (1 + residual)`` with the `newton_residual` of the track, in (0, 1]."""

    def reward(clips: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        weights = cover(clips)
        track = centres(weights)
        return 1 / (1 + newton_residual(track, in_flight(track.detach(), lowest(prompts).to(track))))

    return Reward("newton", reward, differentiable=True)


# Tracking -----------------------------------------------------------------------------------------------------


def cover(clips: Float[Tensor, "batch frames 3 h w"]) -> Float[Tensor, "batch frames h w"]:
    """How much each pixel differs from the empty stage: RGB distance less `FAINT`, 0 where nothing is."""
    stage = torch.from_numpy(bounce.stage().copy()).to(clips)
    return ((((clips + 1) / 2 - stage).square().sum(2) + 1e-8).sqrt() - FAINT).relu()


def centres(weights: Float[Tensor, "batch frames h w"]) -> Float[Tensor, "batch frames 2"]:
    """The centre of mass (x, y) of each frame in pixels, those of pixels being at .5; the middle of an empty frame."""
    height, width = weights.shape[-2:]
    x, y = torch.arange(width).to(weights) + 0.5, torch.arange(height).to(weights) + 0.5
    mass = weights.sum((-2, -1)) + 1e-3
    middle = 1e-3 * torch.tensor([width / 2, height / 2]).to(weights)
    moments = torch.stack([(weights.sum(-2) * x).sum(-1), (weights.sum(-1) * y).sum(-1)], -1)
    return (moments + middle) / mass[..., None]


def lowest(prompts: list[str]) -> Float[Tensor, "batch"]:
    """The y at which the centre of a middle-sized object of each prompt touches the ground."""
    radius = sum(bounce.RADIUS_RANGE) / 2
    return torch.tensor([bounce.GROUND - radius * bounce.reach(bounce.parse(p).shape)[2] for p in prompts])


def in_flight(
    track: Float[Tensor, "batch frames 2"], floor: Float[Tensor, "batch"], slack: float = 0.4
) -> Bool[Tensor, "batch frames-2"]:
    """For each frame but the first and last, whether no bounce is next to it.

    Between two frames there was a bounce where free flight, drawn on from before and drawn back from after, would have
    gone below the floor (by more than minus ``slack``).
    """
    y = track[..., 1]
    step = y.diff(dim=1)
    ahead, behind = torch.full_like(step, math.inf), torch.full_like(step, math.inf)
    ahead[:, 1:] = y[:, 1:-1] + step[:, :-1] + bounce.GRAVITY
    behind[:, :-1] = y[:, 1:-1] - step[:, 1:] + bounce.GRAVITY
    bounced = torch.minimum(ahead, behind) > (floor - slack)[:, None]
    return ~(bounced[:, :-1] | bounced[:, 1:])


def newton_residual(
    track: Float[Tensor, "batch frames 2"], free: Bool[Tensor, "batch frames-2"], gravity: float = bounce.GRAVITY
) -> Float[Tensor, "batch"]:
    """Mean squared gap of the acceleration to Newton's: none sideways, ``gravity`` downwards, in (pixels / frame^2)^2.

    The acceleration is the second difference of the track. Sideways every frame counts; downwards only those in free
    flight, and where there is none, none.
    """
    acceleration = track[:, 2:] - 2 * track[:, 1:-1] + track[:, :-2]
    down = ((acceleration[..., 1] - gravity) ** 2 * free).sum(1) / free.sum(1).clamp_min(1)
    return (acceleration[..., 0] ** 2).mean(1) + down


# The prompt ---------------------------------------------------------------------------------------------------


def _heading(clips: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    track = centres(cover(clips))
    time = torch.arange(track.shape[1]).to(track) - (track.shape[1] - 1) / 2
    vx = (track[..., 0] * time).sum(1) / time.square().sum()
    vy = track[:, 1, 1] - track[:, 0, 1] - bounce.GRAVITY / 2
    directions = [bounce.parse(prompt).direction for prompt in prompts]
    sign = torch.tensor([{"left": -1.0, "right": 1.0}.get(d, 0.0) for d in directions]).to(track)
    rise = torch.tensor([{"up": -1.0, "down": 1.0}.get(d, 0.0) for d in directions]).to(track)
    straight = (1 - (vx.abs() / SPEED_WANTED - 0.25).relu()).clamp(-1, 1)
    fall = torch.where(rise > 0, (vy + 1) / 1.3, -vy / -bounce.UPWARDS[1]).clamp(-1, 1)
    return torch.where(sign != 0, (sign * vx / SPEED_WANTED).clamp(-1, 1), torch.minimum(straight, fall))


def _likeness(clips: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    stage = torch.from_numpy(bounce.stage().copy()).to(clips)
    asked = [bounce.parse(prompt) for prompt in prompts]
    paint = torch.stack([torch.from_numpy(bounce.COLOURS[a.colour]) for a in asked]).to(clips)
    contrast = (paint - stage[:, 0, 0])[:, None, :, None, None]
    difference = (clips + 1) / 2 - stage
    with torch.no_grad():  # where to draw it, and how large
        place = centres(cover(clips))
        # no pixel is clamped: a faint halo, here too bright and there too dark, must not make the object larger
        mass = ((difference * contrast).sum(2) / contrast.square().sum(2)).sum((-2, -1)).clamp_min(0)
        middle = sum(bounce.RADIUS_RANGE) / 2
        radius = middle + SIZE_KEPT * ((mass / math.pi).sqrt().clamp(*bounce.RADIUS_RANGE) - middle)
        drawn = clips.new_empty(clips.shape[:2] + clips.shape[3:])
        for shape in bounce.SHAPES:
            rows = [i for i, a in enumerate(asked) if a.shape == shape]
            xyr = (place[rows, :, 0], place[rows, :, 1], radius[rows])
            drawn[rows] = torch.from_numpy(bounce.coverage(shape, *(v.cpu().numpy() for v in xyr))).to(clips)
    target = drawn[:, :, None] * contrast
    gap = (difference - target).square().sum((2, 3, 4)) / target.square().sum((2, 3, 4))
    return torch.exp(-2 * gap).mean(1)


def _verdicts(clips: Tensor, prompts: list[str], name: str) -> Float[Tensor, "batch"]:
    finite = clips.isfinite().flatten(1).all(1).cpu()
    verdicts = bounce.verify(clips.detach().float().nan_to_num().cpu().numpy(), prompts)
    return torch.tensor([float(getattr(v, name)) for v in verdicts]) * finite
