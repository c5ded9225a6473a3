"""What every reward on pictures asks of its samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_arrays(samples: Tensor, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures ``[batch, 3, height, width]`` in [-1, 1] as float32 arrays, and which of them ``[batch]`` are finite.

    A picture that is not finite is given as zeros. Raises `ValueError` where the shape is another, or there is not one
    prompt a picture.
    """
    if not isinstance(samples, Tensor) or samples.ndim != 4 or samples.shape[1] != 3:
        given = f"shape {list(samples.shape)}" if isinstance(samples, Tensor) else type(samples).__name__
        raise ValueError(f"pictures must be a tensor of shape [batch, 3, height, width] in [-1, 1]; given {given}")
    if len(samples) != len(prompts):
        raise ValueError(f"{len(samples)} pictures were given with {len(prompts)} prompts; give one prompt a picture")
    arrays = samples.detach().to("cpu", torch.float32).numpy()
    finite = np.isfinite(arrays).all((1, 2, 3))
    return np.where(finite[:, None, None, None], arrays, np.float32(0)), finite


def per_sample(values, finite: np.ndarray) -> Tensor:
    """``values`` of pictures as a reward ``[batch]``; NaN where a picture was not finite, so that `Reward` objects."""
    return torch.from_numpy(np.where(finite, values, np.nan).astype(np.float32))
