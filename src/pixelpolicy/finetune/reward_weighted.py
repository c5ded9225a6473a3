"""Learning from one's own best samples: RWR (Lee et al. 2023, arXiv 2302.12192), RAFT (Dong et al. 2023, 2304.06767).

Neither needs a density: samples are weighted by their rewards, or the best of a group are kept, and the generator is
trained on them as it was on data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
from pixelpolicy.finetune.noising import matching_errors, noise_of, noised, pictures_of
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.rl import Reward, Rollout, reward_weights

WeightsOf = Callable[[Tensor, Tensor], Tensor]
Matching = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def exponential(rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"], *, beta: float = 0.1) -> Tensor:
    """RWR's weights: ``exp(r / beta)``, of mean 1 within each group."""
    return reward_weights(rewards, beta, groups)


def best_of_group(rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"], *, keep: int = 1) -> Tensor:
    """RAFT's weights: the ``keep`` best of each group count alike, the others not at all; mean 1 within each group.

    A group whose rewards are all equal teaches nothing and has weight 0.
    """
    weights = torch.zeros_like(rewards)
    for group in groups.unique():
        rows = (groups == group).nonzero().flatten()
        if rewards[rows].max() > rewards[rows].min():
            best = rows[rewards[rows].argsort(descending=True, stable=True)[:keep]]
            weights[best] = len(rows) / len(best)
    return weights


def weighted_matching(
    velocity: Float[Tensor, "batch ..."],
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    weights: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """The flow-matching loss, each sample counted by its weight: ``mean_i w_i mean_j (v - (x1 - x0))_ij^2``."""
    return (weights * matching_errors(velocity, x0, x1)).mean()


@dataclass(frozen=True)
class RewardWeightedConfig(BatchConfig):
    """Settings of RWR and RAFT: every sample is used ``noise_draws`` times, each time with noise of its own."""

    noise_draws: int = 4
    anchor_weight: float = 0.0


@dataclass
class RewardWeighted:
    """The flow-matching loss on own samples, each counted by its weight; ``anchor_weight`` holds it to the base."""

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: RewardWeightedConfig = RewardWeightedConfig()
    weights_of: WeightsOf = exponential
    matching: Matching = weighted_matching

    def __post_init__(self) -> None:
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[tuple[Rollout, Tensor], dict[str, float]]:
        """Sample a group for each prompt, judge it, and weigh."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        prompts, groups = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        division = Division(config, self.policy.micro_batch, iteration)
        mine = division.mine
        rollout = self.policy.rollout([prompts[row] for row in mine], seeds=seeds[mine])
        rewards, components = division.judge(self.reward, rollout)
        weights = self.weights_of(rewards, groups)
        metrics = {"reward": rewards.mean().item(), "kept": (weights > 0).float().mean().item()}
        metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
        return (rollout, weights[mine]), metrics

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """The parts of the batch, ``config.noise_draws`` times over."""
        rollout, weights = experience
        for draw in range(self.config.noise_draws):
            for part in Division(self.config, self.policy.micro_batch, iteration).optimiser_steps():
                yield [self._loss(rollout.select(rows), weights[rows], share, draw) for rows, share in part]

    def _loss(self, rollout: Rollout, weights: Tensor, share: float, draw: int) -> Callable:
        def loss() -> tuple[Tensor, dict[str, float]]:
            device = self.policy.generator.device
            x0 = pictures_of(rollout).to(device, torch.float32)
            sigma, x1 = noise_of(rollout.seeds, draw, x0.shape[1:])
            sigma, x1, weight = sigma.to(device), x1.to(device), weights.to(device)
            state, conditioning = noised(x0, x1, sigma), self.policy.generator.encode(rollout.prompts)
            velocity = self.policy.generator.velocity(state, sigma, *conditioning)
            value = self.matching(velocity, x0, x1, weight)
            details = {"matching": value.item()}
            if self.config.anchor_weight:
                with torch.no_grad():
                    anchor = self.reference.generator.velocity(state, sigma, *conditioning)
                drift = (velocity - anchor).square().mean()
                value, details["drift"] = value + self.config.anchor_weight * drift, drift.item()
            return share * value, details

        return loss
