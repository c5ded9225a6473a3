"""Four ways to align a policy with a reward or with comparisons: weighting, a reward model, DPO, GRPO.

The losses come in as arguments; what they should reach is known exactly in the worlds of `control.exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelpolicy.control.exact import World, divergence
from pixelpolicy.errors import ControlError, RewardError
from pixelpolicy.rl import bradley_terry_loss, clipped_surrogate, dpo_loss, group_advantages, reward_weights

Reward = Callable[[Tensor], Float[Tensor, "batch"]]
centred = partial(group_advantages, scale="none")


@dataclass(frozen=True)
class AlignmentConfig:
    """``iterations * batch`` samples are drawn, and each batch is used ``passes`` times.

    ``leash`` says where the KL to the reference stands: sample by sample in the "reward", or exactly in the "loss".
    """

    iterations: int = 150
    batch: int = 256
    group_size: int = 16
    passes: int = 2
    clip_range: float = 0.2
    learning_rate: float = 0.05
    leash: str = "reward"

    def __post_init__(self):
        if self.leash not in ("reward", "loss"):
            raise ControlError(f"unknown leash '{self.leash}'; choose reward, loss")
        if min(self.iterations, self.batch, self.group_size, self.passes) < 1 or self.batch % self.group_size:
            raise ControlError(f"{self}: all counts must be positive, and the batch a number of whole groups")


def compare(world: World, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Winners and losers of ``count`` pairs drawn from the reference, judged as Bradley and Terry have it.

    ``a`` wins over ``b`` with probability ``sigmoid(r_a - r_b)``. Raises `RewardError` for a reward not finite.
    """
    first, second = (world.reference.sample(count, generator) for _ in range(2))
    chances = torch.sigmoid(finite(world.reward(first) - world.reward(second)))
    won = torch.rand(count, generator=generator, dtype=chances.dtype) < chances
    won = won.reshape(-1, *[1] * (first.ndim - 1))
    return torch.where(won, first, second), torch.where(won, second, first)


def descend(parameters: Iterable[nn.Parameter], objective: Callable[[], Tensor], *, steps: int) -> None:
    """Adam on all of the data at once; the learning rate falls from 0.05 to 0 along a cosine."""
    optimiser = torch.optim.Adam(list(parameters), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        objective().backward()
        optimiser.step()
        schedule.step()


def fit_reward(world: World, winners: Tensor, losers: Tensor, *, loss=bradley_terry_loss, steps: int = 200) -> Reward:
    """A reward model, linear in the features of the world, fitted by ``loss(reward_winner, reward_loser)``."""
    better, worse = world.features(winners), world.features(losers)
    weights = torch.zeros(better.shape[1], dtype=better.dtype, requires_grad=True)
    descend([weights], lambda: loss(better @ weights, worse @ weights), steps=steps)
    return lambda samples: world.features(samples) @ weights.detach()


def weighted_loss(log_probs: Float[Tensor, "batch"], rewards: Float[Tensor, "batch"], beta: float) -> Float[Tensor, ""]:
    """``-mean w log p``, where ``w`` is ``e^(r / beta)`` scaled to mean 1 (Peters and Schaal 2007)."""
    return -(reward_weights(rewards, beta) * log_probs).mean()


def by_weights(world: World, samples: Tensor, *, loss=weighted_loss, steps: int = 200) -> nn.Module:
    """RWR: a student imitates samples of the reference, by ``loss(log_probs, rewards, beta)``."""
    policy, rewards = world.student(), finite(world.reward(samples))
    descend(policy.parameters(), lambda: loss(policy.log_prob(samples), rewards, world.beta), steps=steps)
    return policy


def by_preferences(world: World, winners: Tensor, losers: Tensor, *, loss=dpo_loss, steps: int = 200) -> nn.Module:
    """DPO: a student fitted to comparisons of the reference's samples, with no reward model in between."""
    policy, references = world.student(), [world.reference.log_prob(samples) for samples in (winners, losers)]

    def objective() -> Tensor:
        return loss(policy.log_prob(winners), policy.log_prob(losers), *references, world.beta)

    descend(policy.parameters(), objective, steps=steps)
    return policy


def leashed(
    rewards: Float[Tensor, "batch"], log_probs: Float[Tensor, "batch"], refs: Float[Tensor, "batch"], beta: float
) -> Float[Tensor, "batch"]:
    """``r - beta (log p - log p_ref)``: a sample's reward less the price of its distance, without gradient."""
    return (rewards - beta * (log_probs - refs)).detach()


def by_reward(
    world: World,
    reward: Reward,
    config: AlignmentConfig,
    *,
    seed: int,
    loss=clipped_surrogate,
    advantages=centred,
    leash=leashed,
    report: Callable[[dict], None] | None = None,
) -> nn.Module:
    """RLHF and GRPO: a student samples, is judged beside its group, and follows ``loss``.

    ``reward`` may be the world's or a model of it. ``report`` is given the ``iteration``, the mean ``reward`` of its
    samples and the ``policy``. Raises `RewardError` for a reward that is not finite.
    """
    policy, generator = world.student(), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(policy.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.iterations)
    groups = torch.arange(config.batch) // config.group_size
    for iteration in range(1, config.iterations + 1):
        samples = policy.sample(config.batch, generator)
        old, judged = policy.log_prob(samples).detach(), finite(reward(samples))
        if report:
            report({"iteration": iteration, "reward": judged.mean().item(), "policy": policy})
        if config.leash == "reward":
            judged = leash(judged, old, world.reference.log_prob(samples), world.beta)
        gains = advantages(judged, groups)
        for _ in range(config.passes):
            objective = loss(policy.log_prob(samples), old, gains, config.clip_range)
            if config.leash == "loss":
                objective = objective + world.beta * divergence(policy, world.reference)
            optimiser.zero_grad()
            objective.backward()
            optimiser.step()
        schedule.step()
    return policy


def finite(rewards: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """The rewards as they are. Raises `RewardError` where one is not finite."""
    if not rewards.isfinite().all():
        raise RewardError("the reward of a sample is not finite; mend the reward before training on it")
    return rewards
