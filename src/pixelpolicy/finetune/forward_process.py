"""Reinforcement learning on the forward process: DiffusionNFT (Zheng et al. 2025, arXiv 2509.16117) and AWM (Xue et al.
2025, arXiv 2509.25050).

No step of the sampler needs a density, and no trajectory is kept: finished samples are noised anew, as in pretraining,
and the velocity there is pulled towards good samples and pushed away from bad ones. So any sampler will do; an ODE's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
from pixelpolicy.finetune.loop import spread, whole
from pixelpolicy.finetune.noising import matching_errors, noise_of, noised, pictures_of
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.rl import Reward, clipped_surrogate, group_advantages, zero_variance_groups

ForwardLoss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def nft_loss(
    velocity: Float[Tensor, "batch ..."],
    old: Float[Tensor, "batch ..."],
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, "batch"],
    advantages: Float[Tensor, "batch"],
    *,
    beta: float = 1.0,
    advantage_clip: float = 5.0,
) -> Float[Tensor, ""]:
    """DiffusionNFT's loss: two velocities that share their weights, one for good samples and one for bad.

    A sample is good to the degree ``r = clip(A / advantage_clip, -1, 1) / 2 + 1/2``. The velocity ``v+ = beta v +
    (1-beta) old`` must find its picture, to that degree, and the mirrored ``v- = (1+beta) old - beta v`` to the other,
    ``1 - r``. The squared error of each guessed picture is divided by its mean absolute error (without gradient,
    1e-5 at least), in float64, as in the published code. Gradient to ``velocity`` alone.
    """
    good = (advantages / advantage_clip).clamp(-1, 1) / 2 + 0.5
    old, state = old.detach(), noised(x0, x1, sigma)
    level = sigma.reshape(-1, *[1] * (x0.ndim - 1))

    def error(v: Tensor) -> Float[Tensor, "batch"]:
        miss = ((state - level * v).double() - x0.double()).flatten(1)
        return miss.square().mean(1) / miss.detach().abs().mean(1).clamp_min(1e-5)

    positive, negative = error(beta * velocity + (1 - beta) * old), error((1 + beta) * old - beta * velocity)
    return advantage_clip * (good * positive + (1 - good) * negative).mean() / beta


def awm_loss(
    velocity: Float[Tensor, "batch ..."],
    old: Float[Tensor, "batch ..."],
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, "batch"],
    advantages: Float[Tensor, "batch"],
    *,
    clip_range: float | None = None,
    advantage_clip: float = 5.0,
) -> Float[Tensor, ""]:
    """AWM's loss: the flow-matching error on own samples, each counted by its advantage, which may be negative.

    Without ``clip_range`` that is ``mean_i A_i mean_j (v - (x1 - x0))_ij^2``; it has no lower bound. With one, minus
    the error takes the place of a log-probability in `clipped_surrogate`: the gradient at ``v = old`` is the same, and
    ends where the error has moved by about ``clip_range``. The noise level does not count. Gradient to ``velocity``.
    """
    advantages = advantages.clamp(-advantage_clip, advantage_clip)
    error = matching_errors(velocity, x0, x1)
    if clip_range is None:
        return (advantages * error).mean()
    return clipped_surrogate(-error, -matching_errors(old, x0, x1).detach(), advantages, clip_range)


@dataclass(frozen=True)
class ForwardProcessConfig(BatchConfig):
    """Settings of NFT and AWM: every sample is used ``noise_draws`` times, each time with noise of its own.

    The old weights, which sample, become ``old_decay * old + (1 - old_decay) * trained`` after each iteration.
    """

    noise_draws: int = 4
    old_decay: float = 0.5
    kl_weight: float = 0.1


@dataclass(frozen=True)
class Drawn:
    """What is kept of this process's samples: the final latents, without the way there."""

    prompts: list[str]
    seeds: Int[Tensor, "rows"]
    x0: Float[Tensor, "rows ..."]
    advantages: Float[Tensor, "rows"]

    def select(self, rows: slice) -> Drawn:
        return Drawn(self.prompts[rows], self.seeds[rows], self.x0[rows], self.advantages[rows])


@dataclass
class DiffusionNFT:
    """The algorithm as the loop wants it; `AWM` differs in ``loss_of`` alone. Every piece may be replaced.

    Two brakes: ``kl_weight`` times ``mean (v - v_base)^2``, which is the KL of the flow at one noise level up to a
    factor, and the old weights, a moving average that samples and that ``loss_of`` compares with. The average is part
    of a checkpoint. Samples may be drawn with guidance; the losses are of the network without.
    """

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: ForwardProcessConfig = ForwardProcessConfig()
    advantages_of: Callable[[Tensor, Tensor], Tensor] = group_advantages
    loss_of: ForwardLoss = nft_loss

    def __post_init__(self) -> None:
        self.reference = self.policy.frozen_copy() if self.config.kl_weight else None
        self._old: list[Tensor] | None = None

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[Drawn, dict[str, float]]:
        """Sample a group for each prompt with the old weights, judge it, and compare within groups."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        prompts, groups = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        division = Division(config, self.policy.micro_batch, iteration)
        mine = division.mine
        with self.old_weights():
            rollout = self.policy.rollout([prompts[row] for row in mine], seeds=seeds[mine])
        rewards, components = division.judge(self.reward, rollout)
        metrics = {"reward": rewards.mean().item(), "zero_variance_groups": zero_variance_groups(rewards, groups)}
        metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
        advantages = self.advantages_of(rewards, groups)[mine]
        return Drawn(rollout.prompts, rollout.seeds, pictures_of(rollout).float(), advantages), metrics

    def minibatches(self, experience: Drawn, iteration: int) -> Iterator[list[Callable]]:
        """The parts of the batch, ``config.noise_draws`` times over; after the last step the old weights follow."""
        for draw in range(self.config.noise_draws):
            for part in Division(self.config, self.policy.micro_batch, iteration).optimiser_steps():
                yield [self._loss(experience.select(rows), share, draw) for rows, share in part]
        with torch.no_grad():
            for old, trained in zip(self._averages(), self._trained(), strict=True):
                old.lerp_(trained, 1 - self.config.old_decay)

    def _loss(self, drawn: Drawn, share: float, draw: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        def loss() -> tuple[Tensor, dict[str, float]]:
            generator = self.policy.generator
            sigma, x1 = noise_of(drawn.seeds, draw, drawn.x0.shape[1:])
            x0, x1, sigma, advantages = (t.to(generator.device) for t in (drawn.x0, x1, sigma, drawn.advantages))
            state, conditioning = noised(x0, x1, sigma), generator.encode(drawn.prompts)
            with self.old_weights(), torch.no_grad():
                old = generator.velocity(state, sigma, *conditioning)
            velocity = generator.velocity(state, sigma, *conditioning)
            value, details = self.loss_of(velocity, old, x0, x1, sigma, advantages), {}
            if self.reference is not None:
                with torch.no_grad():
                    base = self.reference.generator.velocity(state, sigma, *conditioning)
                kl = (velocity - base).square().mean()
                value, details = value + self.config.kl_weight * kl, {"kl": kl.item()}
            return share * value, details

        return loss

    # The old weights: a moving average of those that are trained. -------------------------------------------------

    @contextmanager
    def old_weights(self) -> Iterator[None]:
        """Within this context the model has the old weights. What has been computed before cannot be differentiated
        after, since the weights are exchanged in place."""
        trained = [p.detach().clone() for p in self._trained()]
        self._put(self._averages())
        try:
            yield
        finally:
            self._put(trained)

    def _trained(self) -> list[Tensor]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _averages(self) -> list[Tensor]:
        """Made at the first use, when the loop has put the weights where they are to be."""
        if self._old is None:
            self._old = [p.detach().clone() for p in self._trained()]
        return self._old

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self._trained(), weights, strict=True):
            parameter.copy_(weight)

    def state(self) -> dict[str, Any]:
        return {"old": [whole(weight) for weight in self._averages()]}

    def load_state(self, state: dict[str, Any]) -> None:
        self._old = [spread(weight, p).clone() for weight, p in zip(state["old"], self._trained(), strict=True)]


@dataclass
class AWM(DiffusionNFT):
    """AWM: the flow-matching loss weighted by the advantage; ``partial(awm_loss, clip_range=...)`` bounds it."""

    loss_of: ForwardLoss = awm_loss
