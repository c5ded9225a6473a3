"""Diffusion-KTO (Li et al. 2024, arXiv 2404.04465): learning from single samples that were wanted or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.batch import Division
from pixelpolicy.finetune.noising import matching_errors, noise_of, noised
from pixelpolicy.finetune.preference import Pairs, PreferenceConfig, diffusion_kto_loss, sample_groups
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.rl import Reward


@dataclass(frozen=True)
class Labelled:
    """Final latents of samples, each with its prompt and whether it was wanted.

    Raises `TrainingError` for parts of different lengths.
    """

    prompts: list[str]
    latents: Float[Tensor, "samples ..."]
    wanted: Bool[Tensor, "samples"]

    def __post_init__(self) -> None:
        if not len(self.prompts) == len(self.latents) == len(self.wanted):
            raise TrainingError(
                f"{len(self.prompts)} prompts came with {len(self.latents)} samples and {len(self.wanted)} labels; "
                "give one of each a sample"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Int[Tensor, "chosen"] | slice) -> Labelled:
        index = torch.arange(len(self))[rows]
        return Labelled([self.prompts[i] for i in index], self.latents[index], self.wanted[index])

    @classmethod
    def of_pairs(cls, pairs: Pairs) -> Labelled:
        """Winners as wanted and losers as unwanted; who was compared with whom is forgotten."""
        wanted = torch.arange(2 * len(pairs)) < len(pairs)
        return cls(pairs.prompts * 2, torch.cat([pairs.winners, pairs.losers]), wanted)


def above_the_group(
    rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"]
) -> tuple[Int[Tensor, "labelled"], Bool[Tensor, "labelled"]]:
    """The rows that get a label, and it: wanted is what lies above its group's mean. An all-equal group gets none."""
    one = groups[:, None] == groups
    means = (one * rewards).sum(1) / one.sum(1)
    spread = torch.where(one, (rewards - rewards[:, None]).abs(), 0).amax(1)
    rows = (spread > 0).nonzero().flatten()
    return rows, rewards[rows] > means[rows]


@dataclass
class DiffusionKTO:
    """Diffusion-KTO on a fixed set of ``labelled`` samples; without one, on samples of the network in training.

    An iteration has ``prompts_per_iteration * group_size`` samples, each used ``noise_draws`` times with noise of its
    own; ``label`` says which rows of a sampled batch get a label, and which. ``loss_of`` takes the matching errors,
    those of the base, and the labels of a micro-batch, whose mean gain is its point of reference.

    Raises `TrainingError` where there are neither labelled samples nor a reward with prompts.
    """

    policy: DenoisingPolicy
    reward: Reward | None = None
    draw_prompts: Callable[[int, np.random.Generator], list[str]] | None = None
    config: PreferenceConfig = PreferenceConfig()
    labelled: Labelled | None = None
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor] = diffusion_kto_loss
    label: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = above_the_group

    def __post_init__(self) -> None:
        if self.labelled is None and (self.reward is None or self.draw_prompts is None):
            raise TrainingError("give labelled samples, or a reward and draw_prompts to make some with")
        if self.labelled is not None and not len(self.labelled):
            raise TrainingError("the set of labelled samples is empty; give at least one")
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[tuple[Labelled, Tensor] | None, dict[str, float]]:
        """The samples of an iteration that are this process's, and a seed for the noise of each."""
        rng = np.random.default_rng([self.config.seed, iteration])
        labelled, metrics = self._online(rng, iteration) if self.labelled is None else (self._drawn(rng), {})
        if not len(labelled):
            return None, metrics
        rows = torch.arange(self.config.size) % len(labelled)  # a batch keeps its size where groups teach nothing
        seeds = torch.from_numpy(rng.integers(2**62, size=len(rows)))
        mine = self._division(iteration).mine
        return (labelled.select(rows[mine]), seeds[mine]), metrics

    def _division(self, iteration: int) -> Division:
        return Division(self.config, self.policy.micro_batch, iteration)

    def _drawn(self, rng: np.random.Generator) -> Labelled:
        count = min(self.config.size, len(self.labelled))
        return self.labelled.select(torch.from_numpy(rng.choice(len(self.labelled), count, replace=False)))

    def _online(self, rng: np.random.Generator, iteration: int) -> tuple[Labelled, dict[str, float]]:
        drawn, metrics = sample_groups(self.policy, self.reward, self.draw_prompts, self.config, rng, iteration)
        rows, wanted = self.label(drawn.rewards, drawn.groups)
        order = torch.from_numpy(rng.permutation(len(rows)))  # a micro-batch is to have samples of both kinds
        rows, wanted = rows[order], wanted[order]
        return Labelled([drawn.prompts[row] for row in rows], drawn.latents[rows], wanted), metrics | {
            "labelled": float(len(rows))
        }

    def minibatches(self, experience, iteration: int) -> Iterator[list[Callable]]:
        """The samples in ``config.minibatches`` parts, ``config.noise_draws`` times over; none where all groups tie."""
        if experience is None:
            return
        labelled, seeds = experience
        for draw in range(self.config.noise_draws):
            for part in self._division(iteration).optimiser_steps():
                yield [self._loss(labelled.select(rows), seeds[rows], share, draw) for rows, share in part]

    def _loss(self, labelled: Labelled, seeds: Tensor, share: float, draw: int) -> Callable:
        def loss() -> tuple[Tensor, dict[str, float]]:
            generator = self.policy.generator
            sigma, x1 = (t.to(generator.device) for t in noise_of(seeds, draw, labelled.latents.shape[1:]))
            x0, wanted = labelled.latents.to(generator.device), labelled.wanted.to(generator.device)
            state, conditioning = noised(x0, x1, sigma), generator.encode(labelled.prompts)
            errors = matching_errors(generator.velocity(state, sigma, *conditioning), x0, x1)
            with torch.no_grad():
                base = self.reference.generator.velocity(state, sigma, *conditioning)
                base_errors = matching_errors(base, x0, x1)
            change = errors.detach() - base_errors
            details = {"wanted": wanted.float().mean().item(), "reference_point": max(0.0, -change.mean().item())}
            for name, rows in (("wanted_change", wanted), ("unwanted_change", ~wanted)):
                details[name] = change[rows].mean().item() if rows.any() else 0.0
            return share * self.loss_of(errors, base_errors, wanted), details

        return loss
