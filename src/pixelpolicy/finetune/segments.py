"""DPO with a preference for each segment of a clip, as DenseDPO has it (Wu et al. 2025): which half is better?

Two clips are noisy copies of one clean clip, made clean again, so that they move alike and can be compared moment by
moment. A label belongs to a segment of the frames, not to the clip, and so does the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.noising import noise_of, noised
from pixelpolicy.policies.denoising import DenoisingPolicy

SegmentLoss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def segment_means(values: Float[Tensor, "pairs frames"], segments: int) -> Float[Tensor, "pairs segments"]:
    """The mean over the frames of each of ``segments`` equal parts. Raises `TrainingError` where they are not equal."""
    if segments < 1 or values.shape[1] % segments:
        raise TrainingError(f"{values.shape[1]} frames cannot be cut into {segments} equal segments")
    return values.unflatten(1, (segments, -1)).mean(2)


def segment_labels(
    scores_a: Float[Tensor, "pairs frames"], scores_b: Float[Tensor, "pairs frames"], segments: int, margin: float = 0.0
) -> Float[Tensor, "pairs segments"]:
    """+1 where the first clip's segment has the higher mean score, -1 where the second's, 0 within ``margin``."""
    gap = segment_means(scores_a, segments) - segment_means(scores_b, segments)
    return gap.sign() * (gap.abs() > margin)


def segment_dpo_loss(
    errors_a: Float[Tensor, "pairs frames"],
    errors_b: Float[Tensor, "pairs frames"],
    base_a: Float[Tensor, "pairs frames"],
    base_b: Float[Tensor, "pairs frames"],
    labels: Float[Tensor, "pairs segments"],
    beta: float = 100.0,
) -> Float[Tensor, ""]:
    """``-log sigmoid(-label beta/2 [(e_a - b_a) - (e_b - b_b)])``, mean over the labelled segments (0 without any).

    ``e`` are matching errors of each frame, ``b`` those of the base (no gradient); a segment's is the mean of its own.
    """
    change = (errors_a - base_a.detach()) - (errors_b - base_b.detach())
    terms = F.softplus(labels * beta / 2 * segment_means(change, labels.shape[1]))
    labelled = (labels != 0).to(terms.dtype)
    return (terms * labelled).sum() / labelled.sum().clamp_min(1)


@dataclass(frozen=True)
class SegmentPairs:
    """Final latents ``[pairs, channels, frames, ...]`` of two clips of each prompt, and a label for each segment."""

    prompts: list[str]
    first: Float[Tensor, "pairs ..."]
    second: Float[Tensor, "pairs ..."]
    labels: Float[Tensor, "pairs segments"]

    def select(self, rows: Int[Tensor, "chosen"]) -> SegmentPairs:
        return SegmentPairs([self.prompts[i] for i in rows], self.first[rows], self.second[rows], self.labels[rows])


@torch.no_grad()
def corrupted_copies(
    policy: DenoisingPolicy,
    prompts: list[str],
    clean: Float[Tensor, "pairs ..."],
    *,
    start: int,
    seed: int = 0,
) -> tuple[Float[Tensor, "pairs ..."], Float[Tensor, "pairs ..."]]:
    """Two copies of clean latents, noised to the level of step ``start`` and made clean again by the ODE."""
    generator, sigmas = policy.generator, policy.generator.sigmas(policy.steps)
    conditioning, copies = policy.conditioning(prompts), []
    for copy in range(2):
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2 * seed + copy))
        state = (1 - sigmas[start]) * clean + sigmas[start] * noise
        for sigma, following in zip(sigmas[start:-1], sigmas[start + 1 :], strict=True):
            state = state + (following - sigma) * policy.velocity(state.to(generator.device), sigma, conditioning)
        copies.append(state)
    return copies[0], copies[1]


@dataclass
class SegmentDPO:
    """The algorithm as the loop wants it: ``batch`` pairs an optimiser step, ``steps`` of them an iteration."""

    policy: DenoisingPolicy
    pairs: SegmentPairs
    batch: int = 64
    steps: int = 4
    seed: int = 0
    loss_of: SegmentLoss = segment_dpo_loss
    noise: Callable[[Tensor, int, tuple[int, ...]], tuple[Tensor, Tensor]] = field(default=noise_of)

    def __post_init__(self) -> None:
        if not (self.pairs.labels != 0).any():
            raise TrainingError("no segment of any pair has a label; lower the margin, or give other pairs")
        self.reference = self.policy.frozen_copy()

    @property
    def model(self) -> nn.Module:
        return self.policy.generator.transformer

    def collect(self, iteration: int) -> tuple[np.random.Generator, dict[str, float]]:
        """Nothing is sampled: the pairs are given."""
        return np.random.default_rng([self.seed, iteration]), {}

    def minibatches(self, experience: np.random.Generator, iteration: int) -> Iterator[list[Callable]]:
        """Random pairs, each with noise that its two clips share."""
        for _ in range(self.steps):
            count = min(self.batch, len(self.pairs.prompts))
            rows = torch.from_numpy(experience.choice(len(self.pairs.prompts), count, replace=False))
            seeds = torch.from_numpy(experience.integers(2**62, size=count))
            yield [self._loss(self.pairs.select(rows), seeds)]

    def _loss(self, pairs: SegmentPairs, seeds: Tensor) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        def loss() -> tuple[Tensor, dict[str, float]]:
            generator = self.policy.generator
            sigma, x1 = self.noise(seeds, 0, pairs.first.shape[1:])
            x0 = torch.cat([pairs.first, pairs.second]).to(generator.device)
            sigma, x1 = (torch.cat([t, t]).to(generator.device) for t in (sigma, x1))
            state, conditioning = noised(x0, x1, sigma), generator.encode(pairs.prompts * 2)

            def errors(g) -> Tensor:
                gap = (g.velocity(state, sigma, *conditioning) - (x1 - x0)).square()
                return gap.transpose(1, 2).flatten(2).mean(2)

            with torch.no_grad():
                base = errors(self.reference.generator)
            mine = errors(generator)
            value = self.loss_of(*mine.chunk(2), *base.chunk(2), pairs.labels.to(mine))
            return value, {"error_change": (mine.detach() - base).mean().item(), "loss": value.item()}

        return loss
