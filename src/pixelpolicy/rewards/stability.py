"""Rewards for furniture: whether a piece stands, by degrees, and how symmetric it is. None has a gradient.

Pieces are ``[batch, 12, 10]`` as in `worlds.furniture`. A piece with a number that is not finite has the lowest score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import boxes, furniture

ENOUGH = 9.0  # degrees of tilt beyond which a piece gains no more
HEIGHTS = (0.75, 1.25)  # of the mean true height of its kind: between them height costs nothing
FALL = 0.25  # beyond them, the share of the mean height over which the score falls to 0


def saturating_tilt(degrees: Float[np.ndarray, "batch"]) -> Float[np.ndarray, "batch"]:
    """Tilt margins as scores in [-1, 1] that stop rising at `ENOUGH`, so that flatter is not for ever better."""
    return np.clip(np.asarray(degrees) / ENOUGH, -1, 1)


def height_in_range(heights: Float[np.ndarray, "batch"], kinds: list[str]) -> Float[np.ndarray, "batch"]:
    """1 within `HEIGHTS` of the mean true height of each kind, falling to 0 on both sides."""
    share = np.asarray(heights) / np.array([furniture.true_height(kind) for kind in kinds])
    beyond = np.maximum(HEIGHTS[0] - share, share - HEIGHTS[1])
    return np.clip(1 - np.maximum(beyond, 0) / FALL, 0, 1)


def bearing(samples: Tensor) -> tuple[Float[Tensor, "batch 180 2"], Float[Tensor, "batch 3"]]:
    """What a piece stands on and what it balances: the `boxes.foot`, and the centre of mass over the ground."""
    pieces = boxes.checked(np.nan_to_num(samples.detach().cpu().numpy()))
    centre, ground = boxes.centre_of_mass(pieces), boxes.undersides(pieces).min(1)
    centre[:, 1] = np.maximum(centre[:, 1] - np.where(np.isfinite(ground), ground, 0), 1e-6)
    return torch.from_numpy(boxes.foot(pieces)).float(), torch.from_numpy(centre).float()


def stands() -> Reward:
    """1 where a piece stands, else 0: the world's accuracy."""
    return Reward("stands", _of(lambda b, _: furniture.stands(b), 0.0))


def tilt() -> Reward:
    """The saturating tilt margin, in [-1, 1]."""
    return Reward("tilt", _of(lambda b, _: saturating_tilt(boxes.tilt_margin(b)), -1.0))


def raw_tilt() -> Reward:
    """The tilt margin as a share of 90 degrees, without an end: alone it asks for flat slabs, and gets them."""
    return Reward("raw tilt", _of(lambda b, _: boxes.tilt_margin(b) / 90, -1.0))


def connection() -> Reward:
    """The share of the material that hangs together with the largest part, in [0, 1]; 1 only where all does."""
    return Reward("connection", _of(_connection, 0.0))


def height() -> Reward:
    """Whether the height is that of furniture of its kind, in [0, 1], see `height_in_range`."""
    return Reward("height", _of(lambda b, p: height_in_range(boxes.height(b), _kinds(p)), 0.0))


def symmetry() -> Reward:
    """How well left mirrors right, in [0, 1]."""
    return Reward("symmetry", _of(lambda b, _: boxes.symmetry(b), 0.0))


def standing() -> Reward:
    """What GRPO is trained with here: ``0.5 tilt + connection + 0.5 height``, its parts logged apart."""
    return 0.5 * tilt() + connection() + 0.5 * height()


def _connection(pieces: np.ndarray, _: list[str]) -> np.ndarray:
    share = boxes.reached(pieces)
    return np.where(boxes.connected(pieces), 1.0, 0.7 * share)


def _kinds(prompts: list[str]) -> list[str]:
    return [furniture.parse(text)[1] for text in prompts]


def _of(score: Callable[[np.ndarray, list[str]], np.ndarray], lowest: float) -> Callable[[Tensor, list[str]], Tensor]:
    def values(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        pieces = np.array(samples.detach().cpu().numpy() if isinstance(samples, Tensor) else samples, dtype=np.float64)
        finite = np.isfinite(pieces).all((1, 2))
        pieces[~finite] = 0
        return torch.from_numpy(np.where(finite, score(pieces, prompts), lowest)).float()

    return values
