"""The forward process on finished samples, which imitation, NFT, AWM and preferences share: noise, state, error."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelpolicy.rl import Rollout


def pictures_of(rollout: Rollout) -> Float[Tensor, "batch ..."]:
    """The latents that were decoded. A variance-preserving sampler ends a little above noise level 0, and they are
    its state there, which is longer by ``1 / sqrt((1-sigma)^2 + sigma^2)`` than the flow's; at 0 that is 1."""
    last = rollout.sigmas[-1]
    return rollout.states[:, -1] / torch.sqrt((1 - last) ** 2 + last**2)


def noise_of(seeds: Int[Tensor, "batch"], draw: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Noise levels from a logistic normal (Esser et al. 2024, arXiv 2403.03206) and noise, a stream for each sample."""
    sigmas, noises = [], []
    for seed in seeds.tolist():
        stream = torch.Generator().manual_seed((seed + 7_919 * (draw + 1)) % 2**62)
        sigmas.append(torch.randn((), generator=stream).sigmoid())
        noises.append(torch.randn(shape, generator=stream))
    return torch.stack(sigmas), torch.stack(noises)


def noised(
    x0: Float[Tensor, "batch ..."], x1: Float[Tensor, "batch ..."], sigma: Float[Tensor, "batch"]
) -> Float[Tensor, "batch ..."]:
    """The forward process: ``(1 - sigma) x0 + sigma x1``, each sample at its own noise level."""
    level = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - level) * x0 + level * x1


def matching_errors(
    velocity: Float[Tensor, "batch ..."], x0: Float[Tensor, "batch ..."], x1: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch"]:
    """The flow-matching error of each sample: ``mean_j (v - (x1 - x0))_j^2``."""
    return (velocity - (x1 - x0)).square().flatten(1).mean(1)
