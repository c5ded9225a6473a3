"""Group relative policy optimisation of a sampler (Flow-GRPO, Liu et al. 2025, arXiv 2505.05470).

The choice of transition and of trained steps makes the relatives: `dance_sde` and no KL is DanceGRPO (arXiv
2505.07818), noise in a window of steps alone is MixGRPO (arXiv 2507.21802), `cps` is Flow-CPS (arXiv 2509.05952).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
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
class GRPOConfig(BatchConfig):
    """Settings of GRPO: of each trajectory of a batch, ``trained_steps`` are trained."""

    trained_steps: int = 3
    noise_only_where_trained: bool = False
    clip_range: float = 2e-3
    kl_weight: float = 0.02


@dataclass(frozen=True)
class Judged:
    """A batch with its rewards; prompts, groups and rewards are of all of it, the rollout is of the rows ``mine``."""

    prompts: list[str]
    groups: Int[Tensor, "batch"]
    rewards: Float[Tensor, "batch"]
    mine: Int[Tensor, "rows"]
    rollout: Rollout


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
        prompts, groups = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        steps = self.choose_steps(self.policy.noisy_steps(), config.trained_steps, rng)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        policy = replace(self.policy, stochastic_steps=steps) if config.noise_only_where_trained else self.policy
        division = Division(config, self.policy.micro_batch, iteration)
        mine = division.mine
        rollout = policy.rollout([prompts[row] for row in mine], seeds=seeds[mine])
        rewards, components = division.judge(self.reward, rollout)
        metrics = {"reward": rewards.mean().item()}
        if config.group_size > 1:
            metrics["zero_variance_groups"] = zero_variance_groups(rewards, groups)
        metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
        return (rollout, self.compare(Judged(prompts, groups, rewards, mine, rollout)), steps), metrics

    def compare(self, judged: Judged) -> Float[Tensor, "rows"] | Float[Tensor, "rows steps"]:
        """The advantages of this process's samples, here over the others of their groups; or those of each step."""
        return self.advantages_of(judged.rewards, judged.groups)[judged.mine]

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """Optimiser steps: the micro-batches of the rollout in ``config.minibatches`` parts, every trained step."""
        rollout, advantages, steps = experience
        for part in Division(self.config, self.policy.micro_batch, iteration).optimiser_steps():
            pieces = [(rollout.select(rows), advantages[rows], weight) for rows, weight in part]
            yield [
                self._loss(r, a if a.ndim == 1 else a[:, step], step, weight)
                for r, a, weight in pieces
                for step in steps
            ]

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
