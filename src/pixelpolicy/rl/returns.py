"""Returns and advantages along time, for policies that act step after step."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def discounted_returns(
    rewards: Float[Tensor, "time batch"], dones: Bool[Tensor, "time batch"], discount: float
) -> Float[Tensor, "time batch"]:
    """Reward to go: ``G_t = r_t + discount * (1 - done_t) * G_{t+1}``, and zero after the last row.

    ``dones[t]`` says that the episode ended with the step that earned ``rewards[t]``.
    Raises `ValueError` for other shapes or a discount outside [0, 1].
    """
    _same_shape(rewards, dones=dones)
    _share(discount=discount)
    alive = 1 - dones.to(rewards.dtype)
    returns, following = [], torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = rewards[t] + discount * alive[t] * following
        returns.append(following)
    return torch.stack(returns[::-1])


def gae(
    rewards: Float[Tensor, "time batch"],
    values: Float[Tensor, "time batch"],
    dones: Bool[Tensor, "time batch"],
    last_value: Float[Tensor, "batch"],
    discount: float,
    lam: float,
) -> Float[Tensor, "time batch"]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), cut where an episode ends.

    ``values[t]`` judges the state before step t, ``last_value`` the state after the last step.
    ``dones[t]`` says that the episode ended with step t, so that nothing is worth anything after it.
    ``lam = 0`` gives the one-step error, ``lam = 1`` returns minus values.
    Raises `ValueError` for other shapes, a discount or ``lam`` outside [0, 1].
    """
    _same_shape(rewards, values=values, dones=dones)
    _same_shape(rewards[0], last_value=last_value)
    _share(discount=discount, lam=lam)
    alive = 1 - dones.to(rewards.dtype)
    next_values = torch.cat([values[1:], last_value[None]])
    deltas = rewards + discount * alive * next_values - values
    advantages, following = [], torch.zeros_like(last_value)
    for t in reversed(range(len(rewards))):
        following = deltas[t] + discount * lam * alive[t] * following
        advantages.append(following)
    return torch.stack(advantages[::-1])


def _same_shape(like: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.shape != like.shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}; rewards need {list(like.shape)}, time first")


def _share(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number <= 1:  # says so of NaN too
            raise ValueError(f"{name} is {number}; give a number from 0 to 1, such as 0.99")
