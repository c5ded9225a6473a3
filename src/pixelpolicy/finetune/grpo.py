"""Group relative policy optimisation of a sampler (Flow-GRPO, Liu et al. 2025, arXiv 2505.05470).

The choice of transition and of trained steps makes the relatives: `dance_sde` and no KL is DanceGRPO (arXiv
2505.07818), noise in a window of steps alone is MixGRPO (arXiv 2507.21802), `cps` is Flow-CPS (arXiv 2509.05952).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.rl import (
    Reward,
    Rollout,
    clip_fraction,
    clipped_surrogate,
    gaussian_kl,
    group_advantages,
    zero_variance_groups,
)

ChooseSteps = Callable[[Sequence[int], int, np.random.Generator], list[int]]


def random_steps(available: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` of the available steps, without repetition, in order."""
    return sorted(rng.choice(available, size=min(count, len(available)), replace=False).tolist())


def window_steps(available: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` neighbouring steps at a random place (MixGRPO's window)."""
    first = int(rng.integers(max(len(available) - count, 0) + 1))
    return list(available[first : first + count])


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of GRPO; a batch is ``prompts_per_iteration * group_size`` trajectories."""

    prompts_per_iteration: int = 16
    group_size: int = 12
    trained_steps: int = 3
    noise_only_where_trained: bool = False
    minibatches: int = 2
    clip_range: float = 2e-3
    kl_weight: float = 0.02
    seed: int = 0


@dataclass
class GRPO:
    """The algorithm as the loop wants it. Every piece of mathematics is a function that one may replace."""

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: GRPOConfig = GRPOConfig()
    advantages_of: Callable[[Tensor, Tensor], Tensor] = group_advantages
    objective: Callable[[Tensor, Tensor, Tensor, float], Tensor] = clipped_surrogate
    kl_of: Callable[[Tensor, Tensor, Tensor], Tensor] = gaussian_kl
    choose_steps: ChooseSteps = random_steps

    def __post_init__(self) -> None:
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[tuple[Rollout, Tensor, list[int]], dict[str, float]]:
        """Sample a group of pictures for each prompt, judge them, and compare within groups."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        texts = self.draw_prompts(config.prompts_per_iteration, rng)
        prompts = [text for text in texts for _ in range(config.group_size)]
        groups = torch.arange(config.prompts_per_iteration).repeat_interleave(config.group_size)
        steps = self.choose_steps(self.policy.noisy_steps(), config.trained_steps, rng)
        policy = replace(self.policy, stochastic_steps=steps) if config.noise_only_where_trained else self.policy
        rollout = policy.rollout(prompts, seeds=torch.from_numpy(rng.integers(2**62, size=len(prompts))))
        rewards, components = self.reward.evaluate(rollout.samples, prompts)
        metrics = {"reward": rewards.mean().item(), "zero_variance_groups": zero_variance_groups(rewards, groups)}
        metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
        return (rollout, self.advantages_of(rewards, groups), steps), metrics

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """Optimiser steps: the micro-batches of the rollout in ``config.minibatches`` parts, every trained step."""
        rollout, advantages, steps = experience
        size = self.policy.micro_batch
        starts = np.random.default_rng([self.config.seed, iteration, 1]).permutation(range(0, len(rollout), size))
        for part in np.array_split(starts, min(self.config.minibatches, len(starts))):
            parts = [(rollout.select(rows), advantages[rows]) for rows in (slice(s, s + size) for s in part)]
            # The loop takes the mean of the losses: a smaller micro-batch must count for less.
            shares = [len(r) * len(parts) / sum(len(r) for r, _ in parts) for r, _ in parts]
            yield [self._loss(r, a, step, w) for (r, a), w in zip(parts, shares, strict=True) for step in steps]

    def _loss(
        self, rollout: Rollout, advantages: Tensor, step: int, share: float
    ) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        def loss() -> tuple[Tensor, dict[str, float]]:
            mean, std = self.policy.distribution(rollout, step)
            action = rollout.states[:, step + 1].to(mean.device, torch.float32)
            log_probs = self.policy.log_prob_of(action, mean, std)
            old = rollout.log_prob_at(step).to(mean.device)
            value = self.objective(log_probs, old, advantages.to(mean.device), self.config.clip_range)
            details = {"clip_fraction": float(clip_fraction(log_probs, old, self.config.clip_range))}
            if self.config.kl_weight:
                with torch.no_grad():
                    reference_mean, _ = self.reference.distribution(rollout, step)
                kl = self.kl_of(mean, reference_mean, std).mean()
                value, details["kl"] = value + self.config.kl_weight * kl, kl.item()
            return share * value, details

        return loss
