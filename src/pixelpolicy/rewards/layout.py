"""Rewards of what is planned before it is drawn, and of the drawing: samples are `worlds.layouts.Drawing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds.layouts import Drawing, agreement, share_found


def layout_agreement(share: Callable[[list, list, bool], float] = share_found) -> Reward:
    """How far the layouts of drawings say what the prompts ask, from 0 to 1: an exact check, without gradient."""

    def function(drawings: Sequence[Drawing], prompts: list[str]) -> Float[Tensor, "batch"]:
        return torch.tensor([agreement(d.layout, p, share) for d, p in zip(drawings, prompts, strict=True)]).float()

    return Reward("layout", function)


def of_pictures(reward: Reward) -> Reward:
    """A reward of pictures, such as `shapes_dense`, for drawings: it sees their pictures alone."""

    def function(drawings: Sequence[Drawing], prompts: list[str]) -> Float[Tensor, "batch"]:
        return reward(torch.stack([drawing.picture for drawing in drawings]), prompts)

    return Reward(reward.name, function)
