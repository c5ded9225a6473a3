"""What a network may predict, and the two roads from a picture to noise: pure functions.

A state is ``z = a x0 + b x1``, a picture x0 and noise x1 with weights ``(a, b)``. On the road of the flow they are
``(1 - sigma, sigma)`` and sum to 1; on that of diffusion, called VP for *variance preserving*, they are
``(sqrt(alpha_bar), sqrt(1 - alpha_bar))`` and their squares sum to 1. Both roads pass through the same directions, so
one is the other, rescaled. Weights and levels are numbers or tensors that broadcast against the state.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from pixelpolicy.errors import TrainingError

Kind = Literal["picture", "noise", "velocity"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FLOOR = 0.05  # no weight below it is divided by


def endpoints(prediction: Tensor, kind: Kind, z: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The picture ``x0`` and the noise ``x1`` that a prediction stands for, at a state with weights ``(a, b)``.

    ``kind`` says what was predicted: the picture (x-prediction), the noise (epsilon-prediction; Ho et al. 2020, arXiv
    2006.11239, eq. 14) or the velocity ``x1 - x0`` (Lipman et al. 2022, arXiv 2210.02747). Divisors are at least
    `FLOOR`. Raises `TrainingError` for another kind.
    """
    if kind == "picture":
        return prediction, (z - a * prediction) / torch.as_tensor(b).clamp_min(FLOOR)
    if kind == "noise":
        return (z - b * prediction) / torch.as_tensor(a).clamp_min(FLOOR), prediction
    if kind == "velocity":
        return (z - b * prediction) / (a + b), (z + a * prediction) / (a + b)
    raise TrainingError(f"a network cannot predict {kind!r} here; choose one of {', '.join(KINDS)}")


def flow_to_vp(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The state on the other road, and its ``alpha_bar``: the same mixture of picture and noise, rescaled."""
    scale = torch.sqrt((1 - sigma) ** 2 + sigma**2)
    return x / scale, ((1 - sigma) / scale) ** 2


def vp_to_flow(y: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """The way back: the flow's state, and its ``sigma``."""
    a, b = torch.sqrt(alpha_bar), torch.sqrt(1 - alpha_bar)
    return y / (a + b), b / (a + b)
