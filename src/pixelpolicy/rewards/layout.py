"""Rewards of what is planned before it is drawn, and of the drawing: samples are `worlds.layouts.Drawing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds.layouts import Drawing, Layout, agreement


def layout_agreement(judge: Callable[[Layout, str], float] = agreement) -> Reward:
    """How far the layouts of drawings say what the prompts ask, from 0 to 1: an exact check, without gradient."""

    def function(drawings: Sequence[Drawing], prompts: list[str]) -> Float[Tensor, "batch"]:
        return torch.tensor([judge(d.layout, p) for d, p in zip(drawings, prompts, strict=True)], dtype=torch.float32)

    return Reward("layout", function)


def of_pictures(reward: Reward) -> Reward:
    """A reward of pictures, such as `shapes_dense`, for drawings: it sees their pictures alone."""

    def function(drawings: Sequence[Drawing], prompts: list[str]) -> Float[Tensor, "batch"]:
        return reward(torch.stack([drawing.picture for drawing in drawings]), prompts)

    return Reward(reward.name, function)
