"""How good a generator is: always the same prompts and seeds, always by the plain ODE."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from torch import Tensor

from pixelpolicy.generators.flow import FlowGenerator
from pixelpolicy.worlds import shapes


def world_of(generator: FlowGenerator) -> ModuleType:
    """The world of a generator; a real model has none of its own, and is asked for shapes."""
    return getattr(generator, "world", shapes)


def evaluate(
    generator: FlowGenerator, split: str = "test", *, per_kind: int = 256, steps: int = 10, guidance_scale: float = 1.0
) -> dict[str, float]:
    """What the generator's world measures on the fixed pairs of a split: accuracy (all and by kind), diversity ..."""
    world = world_of(generator)
    texts, seeds = world.evaluation_pairs(split, per_kind)
    samples = generator.generate(texts, seeds, steps=steps, guidance_scale=guidance_scale)
    return world.measure(samples.cpu().numpy(), texts)


def best_of(
    generator: FlowGenerator, counts: Sequence[int] = (1, 4, 12), *, per_kind: int = 64, steps: int = 10
) -> dict[int, float]:
    """Accuracy of the best of N samples a prompt, by the strict verifier: what sampling buys without training."""
    world = world_of(generator)
    texts, seeds = world.evaluation_pairs("test", per_kind)
    accepted = []
    for draw in range(max(counts)):
        samples: Tensor = generator.generate(texts, [seed + 10_000_000 * draw for seed in seeds], steps=steps)
        accepted.append([verdict.strict for verdict in world.verify(samples.cpu().numpy(), texts)])
    return {count: float(np.any(accepted[:count], axis=0).mean()) for count in counts}
