"""One step of a sampler as a Gaussian: ``(x, velocity, sigma, sigma_next) -> (mean, std)``, all pure.

Notation of flow matching: ``x = (1 - sigma) x0 + sigma x1`` with noise x1 at sigma = 1, velocity ``v = x1 - x0``,
``sigma_next < sigma``. Noise levels are scalars (or tensors that broadcast against x); means are in x's dtype.
A standard deviation of 0 is a deterministic step, which has no density.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Transition = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def endpoints(x: Tensor, velocity: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The picture ``x0`` and the noise ``x1`` that a velocity points at."""
    return x - sigma * velocity, x + (1 - sigma) * velocity


def ode(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """Euler's step of the flow's ODE: no noise."""
    return x + (sigma_next - sigma) * velocity, torch.zeros_like(torch.as_tensor(sigma))


def _sde(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Euler-Maruyama step of the reverse SDE with diffusion coefficient g (Song et al. 2021, arXiv 2011.13456)."""
    dt = sigma_next - sigma
    score = -(x + (1 - sigma) * velocity) / sigma
    return x + (velocity - g**2 * score / 2) * dt, g * torch.sqrt(-dt)


def flow_sde(
    x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, *, noise: float = 0.7
) -> tuple[Tensor, Tensor]:
    """Flow-GRPO's step (Liu et al. 2025, arXiv 2505.05470): ``g = noise sqrt(sigma / (1 - sigma))``.

    At sigma = 1 the denominator, and it alone, takes the next noise level.
    """
    bounded = torch.where(torch.as_tensor(sigma) == 1, sigma_next, sigma)
    return _sde(x, velocity, sigma, sigma_next, noise * torch.sqrt(sigma / (1 - bounded)))


def dance_sde(
    x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, *, noise: float = 0.3
) -> tuple[Tensor, Tensor]:
    """DanceGRPO's step (Xue et al. 2025, arXiv 2505.07818): the same SDE with constant ``g = noise``."""
    return _sde(x, velocity, sigma, sigma_next, torch.as_tensor(noise, dtype=x.dtype))


def _renoised(
    x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, kept: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """Move to the next noise level, with ``std`` of its noise fresh and ``kept = sqrt(sigma_next^2 - std^2)`` of the
    predicted: the noise of a known picture stays what it should be."""
    x0, x1 = endpoints(x, velocity, sigma)
    return (1 - sigma_next) * x0 + kept * x1, std


def cps(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, *, noise: float = 0.8) -> tuple[Tensor, Tensor]:
    """Coefficients-preserving sampling (Flow-CPS): ``std = sigma_next sin(noise pi / 2)``."""
    sigma_next, angle = torch.as_tensor(sigma_next), noise * math.pi / 2
    return _renoised(x, velocity, sigma, sigma_next, sigma_next * abs(math.cos(angle)), sigma_next * math.sin(angle))


def ddim_eta(
    x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, *, noise: float = 1.0
) -> tuple[Tensor, Tensor]:
    """DDIM's step with eta = ``noise`` (Song et al. 2021, arXiv 2010.02502, eq. 16), carried over to the flow.

    The change of variables ``abar = (1-sigma)^2 / ((1-sigma)^2 + sigma^2)``, ``x_vp = x / sqrt((1-sigma)^2 + sigma^2)``
    is exact. ``ratio`` is ``abar_t (1-abar_s) / (abar_s (1-abar_t))`` for the step t -> s, so that the eq.'s variance
    becomes ``noise^2 sigma_next^2 (1-ratio)``; written so, nothing cancels at sigma = 1, where all noise is fresh.
    """
    sigma, sigma_next = torch.as_tensor(sigma), torch.as_tensor(sigma_next)
    ratio = (sigma_next * (1 - sigma) / (sigma * (1 - sigma_next))) ** 2
    kept = sigma_next * torch.sqrt((1 - noise**2 + noise**2 * ratio).clamp_min(0))
    return _renoised(x, velocity, sigma, sigma_next, kept, noise * sigma_next * torch.sqrt(1 - ratio))
