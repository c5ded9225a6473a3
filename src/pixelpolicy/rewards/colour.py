"""Rewards that look at nothing but colour: cheap, plausible, and easily fooled, which is their use here.

The reward explorer computes both in the reader's browser too (`widgets/reward_explorer_engine.js`).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.rewards.pictures import as_arrays
from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import shapes

PALETTE = np.stack([shapes.BACKGROUND, *shapes.COLOURS.values()])  # [colours, 3] in [0, 1], the ground first


def redness() -> Reward:
    """How much redder than green and blue a picture is, whatever the prompt; differentiable.

    The mean over pixels of ``R - (G + B) / 2``, colours in [0, 1]: from -1 to 1, 0 for grey.
    """
    return Reward("redness", _redness, differentiable=True)


def prompt_colours() -> Reward:
    """The share of a picture's coloured pixels that have a colour of the prompt, in [0, 1]; 0 where none is coloured.

    A pixel has the colour of the palette that is nearest to it in RGB, or that of the ground. It counts no objects and
    knows no shapes: one blot of the right colour earns all of it.
    """
    return Reward("colours", _prompt_colours)


def _redness(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    as_arrays(samples, prompts)  # raises where these are no pictures, or not as many as prompts
    red, green, blue = samples.unbind(1)
    return ((red - (green + blue) / 2) / 2).mean((1, 2))


def _prompt_colours(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    as_arrays(samples, prompts)
    palette = torch.from_numpy(PALETTE).to(samples)
    nearest = (((samples + 1) / 2)[:, None] - palette[:, :, None, None]).square().sum(2).argmin(1)
    names = list(shapes.COLOURS)
    shares = []
    for picture, pixels, prompt in zip(samples, nearest, prompts, strict=True):
        asked = [1 + names.index(colour) for colour, _ in shapes.parse(prompt).wanted]
        hit = torch.isin(pixels, torch.tensor(asked, device=pixels.device)).sum()
        share = hit / (pixels > 0).sum().clamp_min(1)
        shares.append(torch.where(picture.isfinite().all(), share, torch.nan))
    return torch.stack(shares) if shares else samples.new_zeros(0)
