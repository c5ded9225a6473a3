"""A sampler's schedule learnt by REINFORCE: where to step and how much to guide, on a generator that stays frozen.

TPDM (Ye et al. 2024, arXiv 2412.01243) trains a head that predicts the next noise level picture by picture. Here, in
small, the policy is a Gaussian over the numbers of one schedule for all pictures: for T steps, T logarithms of time
increments and T logarithms of guidance weights. Every schedule of a batch is tried on the same prompts and noise, and
schedules come in antithetic pairs, mean + d and mean - d, so that a difference between two is the schedules' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.errors import RolloutError
from pixelpolicy.finetune.batch import grouped
from pixelpolicy.policies.denoising import Denoiser, DenoisingPolicy
from pixelpolicy.policies.transitions import ode
from pixelpolicy.rl import Reward, gaussian_log_prob, policy_gradient_loss

Span = tuple[float, float]  # the first and the last noise level of a sampler


class Schedule(NamedTuple):
    """Noise levels from high to low, and the weight of the guidance at each step; a weight of 1 is no guidance."""

    sigmas: Float[Tensor, "steps+1"]
    guidance: Float[Tensor, "steps"]


def schedule_of(numbers: Float[Tensor, "2*steps"], span: Span = (1.0, 0.0)) -> Schedule:
    """The schedule that numbers stand for: increments by a softmax of the first half, weights ``exp`` of the second.

    Whatever the numbers, the levels fall from the first to the last of ``span`` and the weights are positive.
    """
    logits, log_weights = numbers.chunk(2)
    walked = torch.cat([numbers.new_zeros(1), logits.softmax(0).cumsum(0)])
    walked[-1] = 1.0  # not 0.9999999, so that the last level is that of the span
    return Schedule(span[0] + (span[1] - span[0]) * walked, log_weights.exp())


def numbers_of(schedule: Schedule) -> Float[Tensor, "2*steps"]:
    """The way back: numbers whose schedule this is, those of the increments with mean 0."""
    logits = (schedule.sigmas[:-1] - schedule.sigmas[1:]).log()
    return torch.cat([logits - logits.mean(), schedule.guidance.log()])


def uniform(generator: Denoiser, steps: int, guidance: float = 1.0) -> Schedule:
    """The generator's own noise levels with one guidance weight at all steps: where learning starts."""
    return Schedule(generator.sigmas(steps).float().cpu(), torch.full((steps,), float(guidance)))


def antithetic(
    mean: Float[Tensor, "numbers"], std: float, pairs: int, stream: torch.Generator
) -> Float[Tensor, "2*pairs numbers"]:
    """Draws of ``N(mean, std^2)`` in pairs: the second half are the first half's mirror images in the mean."""
    deviations = std * torch.randn(pairs, len(mean), generator=stream)
    return torch.cat([mean + deviations, mean - deviations])


def pair_advantages(scores: Float[Tensor, "2*pairs"]) -> Float[Tensor, "2*pairs"]:
    """Each score against its mirror image's, as `antithetic` orders them: half the difference, with both signs."""
    first, second = scores.chunk(2)
    half = (first - second) / 2
    return torch.cat([half, -half])


def score_of(
    rewards: Float[Tensor, "schedules"], diversities: Float[Tensor, "schedules"], usual: float, weight: float
) -> Float[Tensor, "schedules"]:
    """Reward plus ``weight`` times the diversity as a share of the ``usual``, which counts up to 1.

    More than usual is not paid for: a schedule could buy it with disorder. A diversity that could not be measured
    (NaN) counts as none.
    """
    return rewards + weight * (diversities / usual).nan_to_num(0.0).clamp(max=1.0)


@torch.no_grad()
def generate(
    generator: Denoiser, schedule: Schedule, prompts: list[str], seeds: Int[Tensor, "batch"], *, micro_batch: int = 128
) -> Any:
    """Samples by Euler steps of the ODE along a schedule, one random stream a sample, as the generator's own."""
    policy = DenoisingPolicy(generator, ode, steps=len(schedule.guidance))
    samples = []
    for start in range(0, len(prompts), micro_batch):
        texts, part = prompts[start : start + micro_batch], torch.as_tensor(seeds)[start : start + micro_batch]
        state = policy.first_state(next(policy.draws(part)))
        both = generator.encode([""] * len(texts) + texts)
        told = tuple(tensor[len(texts) :] for tensor in both)
        for sigma, following, weight in zip(schedule.sigmas, schedule.sigmas[1:], schedule.guidance, strict=False):
            level = sigma.to(state.device)
            if weight == 1:
                velocity = generator.velocity(state, level, *told)
            else:
                without, velocity = generator.velocity(torch.cat([state, state]), level, *both).chunk(2)
                velocity = without + weight.to(state.device) * (velocity - without)
            state = state + (following - sigma).to(state.device) * velocity
        samples.append(generator.decode(state).float().cpu())
    return torch.cat(samples)


@dataclass(frozen=True)
class ScheduleConfig:
    """Settings. An iteration tries ``2 * pairs`` schedules on ``prompts_per_iteration * group_size`` samples each."""

    pairs: int = 4
    prompts_per_iteration: int = 16
    group_size: int = 4
    std: float = 0.25  # of the policy, in natural logarithms: a factor of about 1.3 up or down
    diversity_weight: float = 0.3
    micro_batch: int = 128
    seed: int = 0


class ScheduleMean(nn.Module):
    """All that is trained: the mean of the Gaussian over the numbers of a schedule."""

    def __init__(self, start: Schedule):
        super().__init__()
        self.mean = nn.Parameter(numbers_of(start))


@dataclass
class ScheduleSearch:
    """The algorithm as the loop wants it; ``schedule()`` is the learnt one, that of the mean.

    A schedule's score is `score_of` its mean reward and the ``diversity`` of its samples, held against the
    ``usual_diversity`` of the start. Raises `RolloutError` for a usual diversity that is not positive.
    """

    generator: Denoiser
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    diversity: Callable[[Any, list[str]], float]
    usual_diversity: float
    start: Schedule
    config: ScheduleConfig = ScheduleConfig()
    schedule_of: Callable[[Tensor, Span], tuple[Tensor, Tensor]] = schedule_of
    draw: Callable[[Tensor, float, int, torch.Generator], Tensor] = antithetic
    score_of: Callable[[Tensor, Tensor, float, float], Tensor] = score_of
    advantages_of: Callable[[Tensor], Tensor] = pair_advantages
    objective: Callable[[Tensor, Tensor], Tensor] = policy_gradient_loss

    def __post_init__(self) -> None:
        if not self.usual_diversity > 0:
            raise RolloutError(
                f"usual_diversity is {self.usual_diversity}; give that of the starting schedule, a positive number, "
                "measured on enough samples that some prompt has two accepted ones"
            )
        self.model = ScheduleMean(self.start)
        self.span = (float(self.start.sigmas[0]), float(self.start.sigmas[-1]))

    def schedule(self) -> Schedule:
        """The schedule of the policy's mean."""
        return self._schedule(self.model.mean.detach().cpu())

    def _schedule(self, numbers: Float[Tensor, "2*steps"]) -> Schedule:
        return Schedule(*self.schedule_of(numbers, self.span))

    def collect(self, iteration: int) -> tuple[tuple[Tensor, Tensor], dict[str, float]]:
        """Schedules drawn of the policy, and what each scored on the same prompts and noise."""
        config = self.config
        rng = np.random.default_rng([config.seed, iteration])
        prompts, _ = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        stream = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = self.draw(self.model.mean.detach().cpu(), config.std, config.pairs, stream)
        judged = torch.tensor([self.judge(self._schedule(numbers), prompts, seeds) for numbers in drawn])
        rewards, diversities = judged.unbind(1)
        scores = self.score_of(rewards, diversities, self.usual_diversity, config.diversity_weight)
        metrics = {"reward": rewards.mean().item(), "diversity": diversities.nan_to_num(0.0).mean().item()}
        return (drawn, scores), metrics | {"score": scores.mean().item(), "spread": scores.std().item()}

    def judge(self, schedule: Schedule, prompts: list[str], seeds: Int[Tensor, "batch"]) -> tuple[float, float]:
        """Mean reward and diversity of samples along one schedule."""
        samples = generate(self.generator, schedule, prompts, seeds, micro_batch=self.config.micro_batch)
        return self.reward(samples, prompts).mean().item(), float(self.diversity(samples, prompts))

    def minibatches(self, experience: tuple[Tensor, Tensor], iteration: int) -> Iterator[list]:
        """One optimiser step: REINFORCE on the density of the schedules that were drawn."""
        drawn, scores = (part.to(self.model.mean.device) for part in experience)

        def loss() -> tuple[Tensor, dict[str, float]]:
            mean = self.model.mean.expand_as(drawn)
            log_probs = gaussian_log_prob(drawn, mean, self.config.std, reduce="sum")
            value = self.objective(log_probs, self.advantages_of(scores))
            return value, {"loss": value.item()}

        yield [loss]
