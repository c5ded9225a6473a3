"""Gradients through the sampler: DRaFT (Clark et al. 2023, arXiv 2309.17400), AlignProp (Prabhudesai et al. 2023, arXiv
2310.03739) and ReFL (Xu et al. 2023, arXiv 2304.05977).

Where the reward is differentiable nothing need be tried at random: a picture is a function of the weights, and so is
its reward. The three differ in which steps of the sampler the gradient passes, which `Window` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.policies.transitions import endpoints
from pixelpolicy.rl import Reward, gaussian_kl


@dataclass(frozen=True)
class Window:
    """The steps ``first`` to ``last`` (not included) carry gradient; after them the picture is guessed in one leap.

    Where ``last`` is the number of steps there is nothing left to guess.
    """

    first: int
    last: int


ChooseWindow = Callable[[int, np.random.Generator], Window]


def last_steps(count: int) -> ChooseWindow:
    """DRaFT-K: the last ``count`` steps, always."""
    return lambda steps, rng: Window(max(steps - count, 0), steps)


def random_cut(steps: int, rng: np.random.Generator) -> Window:
    """AlignProp: from a random step to the end."""
    return Window(int(rng.integers(steps)), steps)


def one_leap(lowest: int, highest: int) -> ChooseWindow:
    """ReFL: the picture as one step guesses it, that step drawn between ``lowest`` and ``highest`` (both included)."""

    def choose(steps: int, rng: np.random.Generator) -> Window:
        first = int(rng.integers(lowest, highest + 1))
        return Window(first, first)

    return choose


def descend_reward(rewards: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """The plain loss: minus the mean reward."""
    return -rewards.mean()


def hinge(rewards: Float[Tensor, "batch"], *, enough: float = 2.0) -> Float[Tensor, ""]:
    """ReFL's loss: ``mean relu(enough - r)``; a picture that is good enough no longer pulls."""
    return (enough - rewards).relu().mean()


def differentiable_samples(
    policy: DenoisingPolicy,
    prompts: list[str],
    seeds: Tensor,
    window: Window,
    *,
    checkpointing: bool = False,
    reference: DenoisingPolicy | None = None,
) -> tuple[Tensor, Tensor]:
    """``(samples, kl [batch])``: decoded samples with the gradient of the window's steps, and their KL to a reference.

    The noise is that of ``policy.rollout`` for the same seeds, and so are the samples. ``checkpointing`` keeps one
    state a step and computes the rest again on the way back: memory for time. The KL, per dimension as in
    `gaussian_kl`, adds up over the stochastic steps of the window.
    """
    noisy, steps = policy.noisy_steps(), policy.steps
    one_step = partial(checkpoint, policy.gaussian, use_reentrant=False) if checkpointing else policy.gaussian
    kl = torch.zeros(len(prompts))
    with torch.no_grad():
        conditioning = policy.conditioning(prompts)

    def gaussian(state, conditioning, sigmas, step, stochastic):
        nonlocal kl
        with torch.set_grad_enabled(window.first <= step < window.last):
            mean, std = one_step(state, conditioning, sigmas, step, stochastic)
        if reference is not None and stochastic and window.first <= step < window.last:
            with torch.no_grad():
                mean_ref, _ = reference.gaussian(state, conditioning, sigmas, step, True)
            kl = kl.to(mean.device) + gaussian_kl(mean, mean_ref, std)
        return mean, std

    walk = policy.walk(prompts, seeds=seeds, noisy=noisy, gaussian=gaussian)
    latents = next(state for step, state, _, _ in walk if step + 1 == window.last).float()
    if window.last < steps:
        sigma = policy.generator.sigmas(steps)[window.last].to(latents.device)
        latents, _ = endpoints(latents, policy.velocity(latents, sigma, conditioning), sigma)
    return policy.generator.decode(latents), kl


@dataclass(frozen=True)
class RewardGradientConfig(BatchConfig):
    """Settings of the reward gradient; a batch has ``prompts_per_iteration`` prompts, each ``group_size`` times."""

    prompts_per_iteration: int = 96
    group_size: int = 1
    minibatches: int = 1
    kl_weight: float = 0.0
    checkpointing: bool = False


@dataclass
class RewardGradient:
    """Ascends a differentiable reward through the sampler's steps. Raises `TrainingError` for one without gradient."""

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: RewardGradientConfig = RewardGradientConfig()
    choose_window: ChooseWindow = last_steps(1)
    objective: Callable[[Tensor], Tensor] = descend_reward

    def __post_init__(self) -> None:
        if not self.reward.differentiable:
            raise TrainingError(
                f"reward '{self.reward.name}' has no gradient. Take a differentiable one, such as a learned proxy of "
                "it, or a method that needs none: DDPO, GRPO, RAFT."
            )
        self.reference = self.policy.frozen_copy() if self.config.kl_weight else None

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[tuple[list[str], Tensor, Window], dict[str, float]]:
        """Nothing is sampled yet: the samples belong to the losses, which differentiate them."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        prompts, _ = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        mine = Division(config, self.policy.micro_batch, iteration).mine
        return ([prompts[row] for row in mine], seeds[mine], self.choose_window(self.policy.steps, rng)), {}

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """The micro-batches of each optimiser step, sampled when their loss is asked for."""
        prompts, seeds, window = experience
        for part in Division(self.config, self.policy.micro_batch, iteration).optimiser_steps():
            yield [self._loss(prompts[rows], seeds[rows], window, share) for rows, share in part]

    def _loss(self, prompts: list[str], seeds: Tensor, window: Window, share: float) -> Callable:
        def loss() -> tuple[Tensor, dict[str, float]]:
            samples, kl = differentiable_samples(
                self.policy, prompts, seeds, window, checkpointing=self.config.checkpointing, reference=self.reference
            )
            rewards = self.reward(samples, prompts)
            value = self.objective(rewards)
            details = {"reward": rewards.mean().item()}
            if self.reference is not None:
                value, details["kl"] = value + self.config.kl_weight * kl.mean(), kl.mean().item()
            return share * value, details

        return loss
