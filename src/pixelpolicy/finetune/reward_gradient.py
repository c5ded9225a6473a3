"""Gradients through the sampler: DRaFT (Clark et al. 2023, arXiv 2309.17400), AlignProp (Prabhudesai et al. 2023, arXiv
2310.03739) and ReFL (Xu et al. 2023, arXiv 2304.05977).

Where the reward is differentiable nothing need be tried at random: a picture is a function of the weights, and so is
its reward. The three differ in which steps of the sampler the gradient passes, which `Window` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
from pixelpolicy.finetune.recompute import Recompute, Step, by_torch
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.policies.transitions import endpoints, ode
from pixelpolicy.rl import Reward, gaussian_kl
from pixelpolicy.rl.log_probs import at_least_float32


class Window(NamedTuple):
    """The steps ``first`` to ``last`` (not included) carry gradient; after them the picture is guessed in one leap.

    Where ``last`` is the number of steps there is nothing left to guess.
    """

    first: int
    last: int


ChooseWindow = Callable[[int, np.random.Generator], tuple[int, int]]


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


def hinge(rewards: Float[Tensor, "batch"], enough: float = 2.0) -> Float[Tensor, ""]:
    """ReFL's loss: ``mean relu(enough - r)``; a picture that is good enough no longer pulls."""
    return (enough - rewards).relu().mean()


def reparameterised(
    mean: Float[Tensor, "batch ..."], std: Float[Tensor, ""], noise: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch ..."]:
    """A draw from ``N(mean, std^2)`` as a function of mean and deviation, so that a gradient passes."""
    return mean + std * noise


def unroll(state: Float[Tensor, "batch ..."], steps: Sequence[Step], first: int) -> Float[Tensor, "batch ..."]:
    """Take the steps one after another; the gradient passes those from number ``first`` on and is cut before."""
    for number, step in enumerate(steps):
        with torch.set_grad_enabled(number >= first and torch.is_grad_enabled()):
            state = step(state)
    return state


def guess_picture(
    state: Float[Tensor, "batch ..."], velocity: Float[Tensor, "batch ..."], sigma: Float[Tensor, ""]
) -> Float[Tensor, "batch ..."]:
    """ReFL's leap from noise level ``sigma`` to the picture that the velocity points at."""
    return endpoints(state, velocity, sigma)[0]


@dataclass(frozen=True)
class RewardGradientConfig(BatchConfig):
    """Settings of the reward gradient; a batch has ``prompts_per_iteration`` prompts, each ``group_size`` times.

    ``checkpointing`` keeps one state a step and computes the rest again on the way back: memory for time.
    """

    prompts_per_iteration: int = 96
    group_size: int = 1
    minibatches: int = 1
    kl_weight: float = 0.0
    checkpointing: bool = False


@dataclass
class RewardGradient:
    """Ascends a differentiable reward through the sampler's steps. Every piece of mathematics may be replaced.

    Raises `TrainingError` for a reward without gradient, and for a KL where no window has a stochastic step.
    """

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: RewardGradientConfig = RewardGradientConfig()
    choose_window: ChooseWindow = last_steps(1)
    objective: Callable[[Tensor], Tensor] = descend_reward
    draw_state: Callable[[Tensor, Tensor, Tensor], Tensor] = reparameterised
    unroll: Callable[[Tensor, Sequence[Step], int], Tensor] = unroll
    guess_picture: Callable[[Tensor, Tensor, Tensor], Tensor] = guess_picture
    kl_of: Callable[[Tensor, Tensor, Tensor], Tensor] = gaussian_kl
    recompute: Recompute = by_torch

    def __post_init__(self) -> None:
        if not self.reward.differentiable:
            raise TrainingError(
                f"reward '{self.reward.name}' has no gradient. Take a differentiable one, such as a learned proxy of "
                "it, or a method that needs none: DDPO, GRPO, RAFT."
            )
        self.reference = self.policy.frozen_copy() if self.config.kl_weight else None
        if self.reference and not self._some_window_has_noise():
            raise TrainingError(
                f"a KL of weight {self.config.kl_weight} was asked for, but no step with gradient draws noise (of "
                f"{self.policy.steps} steps, {self.policy.noisy_steps()} do): a step without noise has no KL. Take a "
                "transition with noise and a longer window (the last step of a flow draws none), or kl_weight=0."
            )

    def _some_window_has_noise(self) -> bool:
        noisy, steps = set(self.policy.noisy_steps()), self.policy.steps
        windows = (self.choose_window(steps, np.random.default_rng(draw)) for draw in range(100))
        return any(noisy & set(range(first, last)) for first, last in windows)

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def samples(self, prompts: list[str], seeds: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """``(samples, kl [batch])``: decoded samples with the gradient of the window's steps, and their KL to the base.

        The noise is that of ``policy.rollout`` for the same seeds, and so are the samples. The KL, per dimension as in
        `gaussian_kl`, adds up over the stochastic steps of the window; without a reference it is 0.
        """
        policy, (first, last), draws = self.policy, window, self.policy.draws(seeds)
        state, noise = policy.first_state(next(draws)), {step: next(draws) for step in policy.noisy_steps()}
        sigmas, kl = policy.generator.sigmas(policy.steps).to(state.device), state.new_zeros(len(prompts))
        with torch.no_grad():
            conditioning = policy.conditioning(prompts)

        def velocity(state: Tensor, step: int) -> Tensor:
            network = partial(policy.velocity, sigma=sigmas[step], conditioning=conditioning)
            remember = torch.is_grad_enabled() and self.config.checkpointing
            return self.recompute(network, state) if remember else network(state)

        def one_step(state: Tensor, step: int) -> Tensor:
            nonlocal kl
            transition, levels = policy.transition if step in noise else ode, sigmas[step : step + 2]
            state = at_least_float32(state)
            mean, std = transition(state, velocity(state, step), *levels)
            if step in noise and step >= first and self.reference:
                # the base's word has a gradient too: it depends on the state, and that on the weights
                base_mean, _ = self.reference.gaussian(state, conditioning, sigmas, step, True)
                kl = kl + self.kl_of(mean, base_mean, std)
            return (self.draw_state(mean, std, noise[step]) if step in noise else mean).to(policy.dtype)

        state = self.unroll(state, [partial(one_step, step=step) for step in range(last)], first)
        state = at_least_float32(state)
        if last < policy.steps:
            leap = sigmas[last] - sigmas[-1]  # a pipeline's last noise level may lie a little above 0
            state = self.guess_picture(state, velocity(state, last), leap)
        return policy.generator.decode(state), kl

    def collect(self, iteration: int) -> tuple[tuple[list[str], Tensor, Window], dict[str, float]]:
        """Nothing is sampled yet: the samples belong to the losses, which differentiate them."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        prompts, _ = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        mine = Division(config, self.policy.micro_batch, iteration).mine
        window = Window(*self.choose_window(self.policy.steps, rng))
        return ([prompts[row] for row in mine], seeds[mine], window), {}

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """The micro-batches of each optimiser step, sampled when their loss is asked for."""
        prompts, seeds, window = experience
        for part in Division(self.config, self.policy.micro_batch, iteration).optimiser_steps():
            yield [self._loss(prompts[rows], seeds[rows], window, share) for rows, share in part]

    def _loss(self, prompts: list[str], seeds: Tensor, window: Window, share: float) -> Callable:
        def loss() -> tuple[Tensor, dict[str, float]]:
            samples, kl = self.samples(prompts, seeds, window)
            rewards = self.reward(samples, prompts)
            value = self.objective(rewards)
            details = {"reward": rewards.mean().item()}
            if self.reference is not None:
                value, details["kl"] = value + self.config.kl_weight * kl.mean(), kl.mean().item()
            return share * value, details

        return loss
