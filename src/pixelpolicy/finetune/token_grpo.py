"""GRPO on sequences of tokens, as T2I-R1 (Jiang et al. 2025, arXiv 2505.00703) and GoT-R1 (Duan et al. 2025, arXiv
2505.17022) train writers of pictures: the groups, the advantages and the clipped objective are those of `GRPO`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelpolicy.finetune.batch import Division
from pixelpolicy.finetune.grpo import GRPO, GRPOConfig
from pixelpolicy.policies.tokens import TokenPolicy, chosen
from pixelpolicy.rl import Rollout, clip_fraction, token_advantages, token_kl


@dataclass
class TokenGRPO(GRPO):
    """`GRPO` where a step is a token: one pass over a sequence gives the losses of all its steps.

    ``config.trained_steps`` tokens of each sequence are trained, by default all of them. ``kl_of`` compares logits.
    """

    policy: TokenPolicy
    config: GRPOConfig = GRPOConfig(trained_steps=100_000, clip_range=0.2, kl_weight=0.01)
    kl_of: Callable[[Tensor, Tensor], Tensor] = token_kl
    spread: Callable[[Tensor, Tensor], Tensor] = token_advantages

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """Optimiser steps: the micro-batches of the rollout in ``config.minibatches`` parts."""
        rollout, advantages, steps = experience
        for part in Division(self.config, self.policy.micro_batch, iteration).optimiser_steps():
            yield [self._loss(rollout.select(rows), advantages[rows], steps, weight) for rows, weight in part]

    def _loss(
        self, rollout: Rollout, advantages: Tensor, steps: Sequence[int], share: float
    ) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        def loss() -> tuple[Tensor, dict[str, float]]:
            logits = self.policy.logits(rollout)
            states, old = rollout.states.to(logits.device), rollout.log_probs.to(logits.device)[:, steps]
            log_probs = self.policy.log_prob_of(logits, states)[:, steps]
            gains = self.spread(advantages.to(logits.device), chosen(logits)[:, steps])
            value = self.objective(log_probs, old, gains, self.config.clip_range)
            details = {"clip_fraction": float(clip_fraction(log_probs, old, self.config.clip_range))}
            if self.config.kl_weight:
                with torch.no_grad():
                    reference = self.reference.logits(rollout)
                kl = self.kl_of(logits[:, steps], reference[:, steps]).mean()
                value, details["kl"] = value + self.config.kl_weight * kl, kl.item()
            return share * value, details

        return loss
