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

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.processes import place, total
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
    """Settings of GRPO; a batch is ``prompts_per_iteration * group_size`` trajectories, whoever samples them."""

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
        """Sample a group of pictures for each prompt, judge them, and compare within groups.

        Several processes share the micro-batches; prompts, seeds and advantages are those of the whole batch.
        """
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        texts = self.draw_prompts(config.prompts_per_iteration, rng)
        prompts = [text for text in texts for _ in range(config.group_size)]
        groups = torch.arange(config.prompts_per_iteration).repeat_interleave(config.group_size)
        steps = self.choose_steps(self.policy.noisy_steps(), config.trained_steps, rng)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        policy = replace(self.policy, stochastic_steps=steps) if config.noise_only_where_trained else self.policy
        mine = torch.cat([self._rows(start) for start in self._mine(self._parts(iteration))])
        rollout = policy.rollout([prompts[row] for row in mine], seeds=seeds[mine])
        judged = self.reward.evaluate(rollout.samples, rollout.prompts)
        rewards, components = self._of_all(judged, mine)
        metrics = {"reward": rewards.mean().item(), "zero_variance_groups": zero_variance_groups(rewards, groups)}
        metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
        return (rollout, self.advantages_of(rewards, groups)[mine], steps), metrics

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """Optimiser steps: the micro-batches of the rollout in ``config.minibatches`` parts, every trained step."""
        rollout, advantages, steps = experience
        parts, size = self._parts(iteration), self.policy.micro_batch
        where = {start: i * size for i, start in enumerate(self._mine(parts))}
        for part in parts:
            rows = [slice(where[start], where[start] + size) for start in part if start in where]
            pieces = [(rollout.select(chosen), advantages[chosen]) for chosen in rows]
            # The loop takes the mean of the losses: a smaller micro-batch must count for less.
            weight = len(part) / sum(len(self._rows(start)) for start in part)
            yield [self._loss(r, a, step, len(r) * weight) for r, a in pieces for step in steps]

    def _parts(self, iteration: int) -> list[list[int]]:
        """The micro-batches of each optimiser step, by their first row in the whole batch."""
        config, count = self.config, place()[1]
        starts = range(0, config.prompts_per_iteration * config.group_size, self.policy.micro_batch)
        order = np.random.default_rng([config.seed, iteration, 1]).permutation(starts)
        parts = np.array_split(order, min(config.minibatches, len(starts)))
        if any(len(part) % count for part in parts):
            raise TrainingError(
                f"{len(starts)} micro-batches of {self.policy.micro_batch} in {len(parts)} optimiser steps cannot be "
                f"shared by {count} processes: each step needs a multiple of {count}. Change micro_batch, minibatches, "
                f"prompts_per_iteration or group_size."
            )
        return [part.tolist() for part in parts]

    def _mine(self, parts: list[list[int]]) -> list[int]:
        """This process's share of every optimiser step, in the order of the batch."""
        rank, count = place()
        return sorted(start for part in parts for start in part[rank::count])

    def _rows(self, start: int) -> Tensor:
        """The rows of the whole batch in the micro-batch that begins at ``start``."""
        batch = self.config.prompts_per_iteration * self.config.group_size
        return torch.arange(start, min(start + self.policy.micro_batch, batch))

    def _of_all(self, judged: tuple[Tensor, dict[str, Tensor]], mine: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Rewards and their components of the whole batch, from those of each process's rows."""
        rewards, components = judged
        table = torch.zeros(1 + len(components), self.config.prompts_per_iteration * self.config.group_size)
        table[:, mine] = torch.stack([rewards, *components.values()]).float().cpu()
        table = total(table)
        return table[0], dict(zip(components, table[1:], strict=True))

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
