"""How good a generator of shapes is: always the same prompts and seeds, always by the plain ODE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.worlds import shapes


def evaluate(
    generator: ImageGenerator, split: str = "test", *, per_kind: int = 256, steps: int = 10, guidance_scale: float = 1.0
) -> dict[str, float]:
    """Accuracy (all and by kind), dense score and diversity on the fixed pairs of a split, see `shapes.measure`."""
    texts, seeds = shapes.evaluation_pairs(split, per_kind)
    pictures = generator.generate(texts, seeds, steps=steps, guidance_scale=guidance_scale)
    return shapes.measure(pictures.cpu().numpy(), texts)


def best_of(
    generator: ImageGenerator, counts: Sequence[int] = (1, 4, 12), *, per_kind: int = 64, steps: int = 10
) -> dict[int, float]:
    """Accuracy of the best of N pictures a prompt, by the strict verifier: what sampling buys without training."""
    texts, seeds = shapes.evaluation_pairs("test", per_kind)
    accepted = []
    for draw in range(max(counts)):
        pictures: Tensor = generator.generate(texts, [seed + 10_000_000 * draw for seed in seeds], steps=steps)
        accepted.append([verdict.strict for verdict in shapes.verify(pictures.cpu().numpy(), texts)])
    return {count: float(np.any(accepted[:count], axis=0).mean()) for count in counts}
