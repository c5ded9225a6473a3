"""How good a generator is: always the same prompts and seeds, always by its plainest sampler."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from pixelpolicy.generators.flow import FlowGenerator
from pixelpolicy.generators.picture_tokens import PictureTokenGenerator
from pixelpolicy.worlds import shapes

PLAIN_ODE = {"steps": 10, "guidance_scale": 1.0}


def world_of(generator: FlowGenerator | PictureTokenGenerator) -> ModuleType:
    """The world of a generator; a real model has none of its own, and is asked for shapes."""
    return getattr(generator, "world", shapes)


def evaluate(
    generator: FlowGenerator | PictureTokenGenerator, split: str = "test", *, per_kind: int = 256, **sampling: Any
) -> dict[str, float]:
    """What the generator's world measures on the fixed pairs of a split: accuracy (all and by kind), diversity ...

    ``sampling`` is what ``generate`` takes; a denoiser has 10 steps and no guidance unless told otherwise, a writer of
    tokens its own probabilities.
    """
    world = world_of(generator)
    texts, seeds = world.evaluation_pairs(split, per_kind)
    samples = _sample(generator, texts, seeds, sampling)
    return world.measure(samples.cpu().numpy(), texts)


def best_of(
    generator: FlowGenerator | PictureTokenGenerator,
    counts: Sequence[int] = (1, 4, 12),
    *,
    per_kind: int = 64,
    **sampling: Any,
) -> dict[int, float]:
    """Accuracy of the best of N samples a prompt, by the strict verifier: what sampling buys without training."""
    world = world_of(generator)
    texts, seeds = world.evaluation_pairs("test", per_kind)
    accepted = []
    for draw in range(max(counts)):
        samples = _sample(generator, texts, [seed + 10_000_000 * draw for seed in seeds], sampling)
        accepted.append([verdict.strict for verdict in world.verify(samples.cpu().numpy(), texts)])
    return {count: float(np.any(accepted[:count], axis=0).mean()) for count in counts}


def _sample(generator, texts: list[str], seeds: list[int], sampling: dict[str, Any]) -> Tensor:
    plain = {} if hasattr(generator, "begin") else PLAIN_ODE  # a writer of tokens begins a draft
    return generator.generate(texts, seeds, **plain | sampling)
