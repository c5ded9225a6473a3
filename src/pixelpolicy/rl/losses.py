"""Losses that do not care what the policy is: a cart, a denoiser or a token model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelpolicy.errors import RolloutError
from pixelpolicy.rl.advantages import group_sums, number_groups
from pixelpolicy.rl.log_probs import at_least_float32, positive_std, reduce_dimensions


def policy_gradient_loss(log_probs: Float[Tensor, "*batch"], advantages: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """REINFORCE as a loss: ``mean(-A log_prob)``; minus its gradient estimates the policy gradient (Williams 1992).

    The value means nothing. Only ``log_probs`` carries gradient. ``advantages`` may be ``[batch, 1]`` beside
    log-probabilities ``[batch, steps]``; the mean is over all of them. Raises `RolloutError` for other shapes.
    """
    _fitting(advantages, log_probs)
    return -(advantages.detach() * log_probs).mean()


def clipped_surrogate(
    log_probs: Float[Tensor, "*batch"],
    old_log_probs: Float[Tensor, "*batch"],
    advantages: Float[Tensor, "*batch"],
    clip_range: float,
) -> Float[Tensor, ""]:
    """PPO's clipped objective: ``mean max(-A rho, -A clip(rho, 1 - c, 1 + c))`` (Schulman et al. 2017, eq. 7).

    ``rho = exp(log_probs - old_log_probs)``. Only ``log_probs`` carries gradient. ``advantages`` may be ``[batch, 1]``
    beside log-probabilities ``[batch, steps]``. Raises `RolloutError` for other shapes, `ValueError` for ``c <= 0``.
    """
    advantages = advantages.detach()
    ratio = _ratio(log_probs, old_log_probs, clip_range)
    _fitting(advantages, log_probs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped).mean()


def clip_fraction(
    log_probs: Float[Tensor, "*batch"], old_log_probs: Float[Tensor, "*batch"], clip_range: float
) -> Float[Tensor, ""]:
    """Share of ratios outside ``[1 - clip_range, 1 + clip_range]``, without gradient."""
    ratio = _ratio(log_probs.detach(), old_log_probs, clip_range)
    return ((ratio < 1 - clip_range) | (ratio > 1 + clip_range)).to(ratio.dtype).mean()


def gaussian_kl(
    mean: Float[Tensor, "batch ..."],
    mean_ref: Float[Tensor, "batch ..."],
    std: Float[Tensor, "..."] | float,
    *,
    reduce: str = "mean",
) -> Float[Tensor, "batch"]:
    """KL between two steps of equal spread: ``|mean - mean_ref|^2 / (2 std^2)``, reduced over all but the batch.

    ``std`` is that of the step, ``g sqrt(-dt)``; Flow-GRPO's code divides by ``2 g^2`` and so scales by ``-dt``.
    Raises `RolloutError` for ``std <= 0`` or shapes that do not fit, `ValueError` for an unknown ``reduce``.
    """
    if mean.shape != mean_ref.shape:
        raise RolloutError(
            f"mean has shape {list(mean.shape)}, mean_ref {list(mean_ref.shape)}; give both the same shape"
        )
    difference = at_least_float32(mean) - at_least_float32(mean_ref)
    return reduce_dimensions(0.5 * (difference / positive_std(std, mean)).square(), reduce)


def reward_weights(
    rewards: Float[Tensor, "batch"], beta: float, groups: Int[Tensor, "batch"] | None = None
) -> Float[Tensor, "batch"]:
    """``exp(r / beta)`` with mean 1 over the batch, or over each group; without gradient (Peters and Schaal 2007).

    Safe for any finite reward. Raises `ValueError` for ``beta <= 0``, `RewardError` for a reward that is not finite.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; give a positive temperature (small: only the best count, large: all alike)")
    groups = torch.zeros_like(rewards, dtype=torch.long) if groups is None else groups
    rewards, index, sizes = number_groups(rewards, groups)
    highest = rewards.new_zeros(len(sizes)).scatter_reduce(0, index, rewards, "amax", include_self=False)
    weights = ((rewards - highest[index]) / beta).exp()
    return weights * (sizes / group_sums(weights, index, len(sizes)))[index]


def _fitting(advantages: Tensor, log_probs: Tensor) -> None:
    if advantages.ndim != log_probs.ndim or any(
        a not in (1, n) for a, n in zip(advantages.shape, log_probs.shape, strict=True)
    ):
        raise RolloutError(
            f"advantages have shape {list(advantages.shape)}, log_probs {list(log_probs.shape)}; "
            "give one advantage a log-probability, or advantages[:, None] for [batch, steps]"
        )


def _ratio(log_probs: Tensor, old_log_probs: Tensor, clip_range: float) -> Tensor:
    if not clip_range > 0:
        raise ValueError(
            f"clip_range is {clip_range}; give a positive number, such as 0.2 (control) or 1e-4 (denoising)"
        )
    if log_probs.shape != old_log_probs.shape:
        raise RolloutError(
            f"log_probs have shape {list(log_probs.shape)}, old_log_probs {list(old_log_probs.shape)}; "
            "give the same steps of the same samples"
        )
    return (log_probs - old_log_probs.detach()).exp()
