"""Preferences over single denoising steps: D3PO (Yang et al. 2023, arXiv 2311.13231), whose steps share the verdict on
their pictures, and SPO (Liang et al. 2024, arXiv 2406.04314), which judges each step by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.finetune.batch import BatchConfig, Division, grouped
from pixelpolicy.finetune.grpo import ChooseSteps, random_steps
from pixelpolicy.finetune.preference import PairLoss, best_and_worst, d3po_loss, spo_loss
from pixelpolicy.finetune.processes import total
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.rl import Reward

Judge = Callable[[DenoisingPolicy, Reward, Tensor, Tensor, list[str]], Tensor]


@dataclass(frozen=True)
class StepPreferenceConfig(BatchConfig):
    """Settings: of each trajectory of a batch, ``trained_steps`` noisy steps are trained.

    D3PO draws ``group_size`` trajectories a prompt, SPO one, with ``group_size`` candidates at every trained step.
    """

    prompts_per_iteration: int = 48
    group_size: int = 4
    trained_steps: int = 1000


@dataclass(frozen=True)
class StepPairs:
    """At one step of the sampler, for each prompt the better and the worse of two next states.

    ``starts`` are the states they were drawn from: ``[pairs, 2, ...]``, the winner's first, or ``[pairs, 1, ...]``
    where both left from one.
    """

    step: int
    prompts: list[str]
    starts: Float[Tensor, "pairs kinds ..."]
    winners: Float[Tensor, "pairs ..."]
    losers: Float[Tensor, "pairs ..."]

    def select(self, rows: Int[Tensor, "chosen"] | slice) -> StepPairs:
        index = torch.arange(len(self.prompts))[rows]
        prompts = [self.prompts[i] for i in index]
        return replace(
            self, prompts=prompts, starts=self.starts[index], winners=self.winners[index], losers=self.losers[index]
        )

    def log_probs(self, policy: DenoisingPolicy) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
        """Those of winners and losers under a policy; one forward pass a pair where both left from one state."""
        kinds = self.starts.shape[1]
        conditioning = policy.conditioning([text for text in self.prompts for _ in range(kinds)])
        sigmas = policy.generator.sigmas(policy.steps)
        mean, std = policy.gaussian(self.starts.flatten(0, 1), conditioning, sigmas, self.step, True)
        means = mean.unflatten(0, (-1, kinds))
        won, lost = (states.to(mean.device, torch.float32) for states in (self.winners, self.losers))
        return policy.log_prob_of(won, means[:, 0], std), policy.log_prob_of(lost, means[:, -1], std)


@dataclass
class D3PO:
    """D3PO: of each group the `best_and_worst` trajectories make pairs of steps, one pair at every trained step.

    ``loss_of`` takes the log-probabilities of the steps of winner and loser, then those under the base.
    ``winner_ratio`` and ``loser_ratio`` are mean ratios to the base, ``told_apart`` the share of the pairs whose
    winner's ratio is the greater.
    """

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: StepPreferenceConfig = StepPreferenceConfig()
    loss_of: PairLoss = d3po_loss
    choose: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = best_and_worst
    choose_steps: ChooseSteps = random_steps

    def __post_init__(self) -> None:
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[list[StepPairs] | None, dict[str, float]]:
        """This process's pairs at each trained step; None where all groups tie."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        prompts, groups = grouped(self.draw_prompts(config.prompts_per_iteration, rng), config.group_size)
        steps = self.choose_steps(self.policy.noisy_steps(), config.trained_steps, rng)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(prompts)))
        division = Division(config, self.policy.micro_batch, iteration)
        rollout = self.policy.rollout([prompts[row] for row in division.mine], seeds=seeds[division.mine])
        rewards, components = division.judge(self.reward, rollout)
        states = torch.zeros(len(prompts), *rollout.states.shape[1:], dtype=rollout.states.dtype)
        states[division.mine] = rollout.states
        states = total(states)  # the two of a pair may have been sampled by two processes
        best, worst = self.choose(rewards, groups)
        metrics = {"reward": rewards.mean().item(), "pairs": float(len(best))}
        metrics |= {f"reward/{name}": value.mean().item() for name, value in components.items()}
        if not len(best):
            return None, metrics
        mine = pairs_division(self, iteration).mine % len(best)  # as many pairs as are wanted: the same over and over
        both, told = states[torch.stack([best, worst], 1)[mine]], [prompts[best[row]] for row in mine]
        return [StepPairs(t, told, both[:, :, t], both[:, 0, t + 1], both[:, 1, t + 1]) for t in steps], metrics

    def minibatches(self, experience: list[StepPairs] | None, iteration: int) -> Iterator[list[Callable]]:
        """The pairs in ``config.minibatches`` parts, every trained step of each; none where all groups tie."""
        return step_losses(self, experience or [], iteration)


@torch.no_grad()
def judge_by_leap(
    policy: DenoisingPolicy,
    reward: Reward,
    states: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, ""],
    prompts: list[str],
) -> Float[Tensor, "batch"]:
    """How good a picture noisy states promise: the reward of the picture that the policy's velocity points at.

    It takes the place of SPO's step-aware preference model, which was trained on noisy pictures.
    """
    scores, end = [], policy.generator.sigmas(policy.steps)[-1]  # decoded is what lies at the last noise level
    for first in range(0, len(prompts), policy.micro_batch):
        rows = slice(first, first + policy.micro_batch)
        part, texts = states[rows], prompts[rows]
        velocity = policy.velocity(part, sigma.to(part.device), policy.conditioning(texts))
        picture = part + (end - sigma).to(part.device) * velocity
        scores.append(reward(policy.generator.decode(picture).float().cpu(), texts))
    return torch.cat(scores).float().cpu()


def best_and_worst_candidates(
    scores: Float[Tensor, "prompts candidates"],
) -> tuple[Int[Tensor, "prompts"], Int[Tensor, "prompts"]]:
    """Which candidate of each row is best and which is worst; one and the same where all are equal.

    A pair of one state with itself has no gradient.
    """
    best, worst = scores.argmax(1), scores.argmin(1)
    return best, torch.where(scores.amax(1) > scores.amin(1), worst, best)


@dataclass
class SPO:
    """SPO: at every trained step several next states are drawn from *one* state; the best is preferred to the worst.

    ``judge`` scores noisy states, by the base's eyes, which training does not move. A candidate drawn by chance is
    where the next step begins, so that the pairs of a step tell of that step alone. ``loss_of`` and the metrics are
    those of `D3PO`; ``reward`` is that of the finished pictures, ``spread`` the scores' range among candidates.
    """

    policy: DenoisingPolicy
    reward: Reward
    draw_prompts: Callable[[int, np.random.Generator], list[str]]
    config: StepPreferenceConfig = StepPreferenceConfig()
    loss_of: PairLoss = spo_loss
    judge: Judge = judge_by_leap
    choose: Callable[[Tensor], tuple[Tensor, Tensor]] = best_and_worst_candidates
    choose_steps: ChooseSteps = random_steps

    def __post_init__(self) -> None:
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    @torch.no_grad()
    def collect(self, iteration: int) -> tuple[list[StepPairs], dict[str, float]]:
        """This process's trajectories, and at each trained step of them a pair of candidates."""
        config, rng = self.config, np.random.default_rng([self.config.seed, iteration])
        drawn = self.draw_prompts(config.prompts_per_iteration, rng)
        trained = self.choose_steps(self.policy.noisy_steps(), config.trained_steps, rng)
        seeds = torch.from_numpy(rng.integers(2**62, size=len(drawn)))
        picks = torch.from_numpy(rng.integers(config.group_size, size=(self.policy.steps, len(drawn))))
        mine = pairs_division(self, iteration).mine
        pairs, spreads, rewards = [], [], []
        for rows in mine.split(max(self.policy.micro_batch // 2, 1)):
            made, finished = self._trajectories([drawn[row] for row in rows], seeds[rows], picks[:, rows], trained)
            pairs.append([pair for pair, _ in made])
            spreads += [spread for _, spread in made]
            rewards.append(self.reward(finished, [drawn[row] for row in rows]).float().cpu())
        sums = total(torch.stack([torch.cat(rewards).sum(), torch.tensor(float(len(mine)))]))
        spread = torch.cat(spreads).mean().item() if spreads else 0.0
        metrics = {"reward": (sums[0] / sums[1]).item(), "spread": spread}
        return [joined(parts) for parts in zip(*pairs, strict=True)], metrics

    def _trajectories(self, prompts: list[str], seeds: Tensor, picks: Tensor, trained: list[int]):
        policy, count = self.policy, self.config.group_size
        noisy, sigmas, draws = policy.noisy_steps(), policy.generator.sigmas(policy.steps), policy.draws(seeds)
        state, conditioning, made = policy.first_state(next(draws)), policy.conditioning(prompts), []
        everyone = torch.arange(len(prompts))
        for step in range(policy.steps):
            mean, std = policy.gaussian(state, conditioning, sigmas, step, step in noisy)
            if step not in trained:
                state = (mean + std * next(draws) if step in noisy else mean).to(policy.dtype)
                continue
            candidates = torch.stack([mean + std * next(draws) for _ in range(count)], 1).to(policy.dtype)
            texts = [text for text in prompts for _ in range(count)]
            scores = self.judge(
                self.reference, self.reward, candidates.flatten(0, 1).float(), sigmas[step + 1], texts
            ).unflatten(0, (-1, count))
            best, worst = self.choose(scores)
            at = candidates.cpu()
            pair = StepPairs(step, prompts, state[:, None].cpu(), at[everyone, best], at[everyone, worst])
            made.append((pair, scores.amax(1) - scores.amin(1)))
            state = candidates[everyone, picks[step]]
        return made, policy.generator.decode(state.float()).float().cpu()

    def minibatches(self, experience: list[StepPairs], iteration: int) -> Iterator[list[Callable]]:
        """The pairs in ``config.minibatches`` parts, every trained step of each."""
        return step_losses(self, experience, iteration)


# What both do with pairs of steps -------------------------------------------------------------------------------------


def joined(parts: tuple[StepPairs, ...]) -> StepPairs:
    """Pairs of one step, one after another."""
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("starts", "winners", "losers")}
    return replace(parts[0], prompts=[text for part in parts for text in part.prompts], **tensors)


def pairs_division(algorithm: D3PO | SPO, iteration: int) -> Division:
    """A batch of one pair a prompt, in micro-batches of as many states as the policy's."""
    return Division(replace(algorithm.config, group_size=1), max(algorithm.policy.micro_batch // 2, 1), iteration)


def step_losses(algorithm: D3PO | SPO, experience: list[StepPairs], iteration: int) -> Iterator[list[Callable]]:
    """The optimiser steps of pairs of steps, each with all trained steps of its prompts."""
    if not experience:
        return
    for part in pairs_division(algorithm, iteration).optimiser_steps():
        yield [step_loss(algorithm, pairs.select(rows), share) for rows, share in part for pairs in experience]


def step_loss(algorithm: D3PO | SPO, pairs: StepPairs, share: float) -> Callable:
    """The loss of pairs at one step, and how far their probabilities have moved from the base's."""

    def loss() -> tuple[Tensor, dict[str, float]]:
        won, lost = pairs.log_probs(algorithm.policy)
        with torch.no_grad():
            base_won, base_lost = pairs.log_probs(algorithm.reference)
        up, down = (won - base_won).detach(), (lost - base_lost).detach()
        return share * algorithm.loss_of(won, lost, base_won, base_lost), {
            "winner_ratio": up.exp().mean().item(),
            "loser_ratio": down.exp().mean().item(),
            "told_apart": (up > down).float().mean().item(),
        }

    return loss
