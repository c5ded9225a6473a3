"""Soft views: what they become as edges sharpen, their gradient, and what they refuse."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import SizeError
from pixelpolicy.rewards.rendering import soft_views
from pixelpolicy.worlds import boxes as solids
from pixelpolicy.worlds import furniture

PIECES = furniture.draw(list(furniture.prompts())[::2], np.random.default_rng(0))


def test_without_softness_they_are_the_hard_views():
    soft, covered = soft_views(torch.tensor(PIECES), softness=1e-4, size=24)
    assert np.abs(covered.numpy() - solids.silhouettes(PIECES, size=24)).mean() < 0.005
    assert np.abs(soft.numpy() - solids.render(PIECES, size=24)).mean() < 0.01


def test_values_and_shapes():
    pictures, covered = soft_views(torch.tensor(PIECES), (0.0, 90.0, 200.0), elevation=0, size=12)
    assert pictures.shape == (8, 3, 3, 12, 12) and covered.shape == (8, 3, 12, 12)
    assert pictures.abs().max() <= 1 and 0 <= covered.min() and covered.max() <= 1


def test_the_gradient_is_that_of_finite_differences():
    piece = torch.tensor(PIECES[:1], dtype=torch.float64).requires_grad_()
    weights = torch.rand(1, 4, 3, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(boxes):
        pictures, covered = soft_views(boxes, size=10, softness=0.05)
        return (pictures * weights).sum() + covered.sum()

    (gradient,) = torch.autograd.grad(value(piece), piece)
    for slot, channel in [(0, 2), (0, 4), (1, 1), (5, 0), (5, 8), (2, 5)]:
        step = torch.zeros_like(piece)
        step[0, slot, channel] = 1e-5
        slope = (value(piece + step) - value(piece - step)).item() / 2e-5
        assert gradient[0, slot, channel].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_an_absent_box_is_not_seen():
    piece = torch.tensor(PIECES[:1])
    piece[..., 0] = -1
    assert soft_views(piece)[1].max() < 1e-3


def test_another_shape_is_refused():
    with pytest.raises(SizeError, match="batch, boxes, 10"):
        soft_views(torch.zeros(12, 10))
