"""Rewards for motion, against the verifier's own formulas and on motions of a known flaw."""

import numpy as np
import pytest
import torch

from pixelpolicy.rewards import gait
from pixelpolicy.worlds import walker

TEXTS, CLEAN = walker.sample(240, np.random.default_rng(0))
SAMPLES = torch.from_numpy(CLEAN)


def flawed(flaw: str) -> torch.Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(walker.samples_of(np.stack([walker.move(text, rng, flaw=flaw) for text in TEXTS])))


def test_tensors_and_arrays_agree():
    both = torch.cat([SAMPLES, flawed("moonwalk"), flawed("limp")])
    places = gait.bodies(both)
    np.testing.assert_allclose(places, walker.bodies(both.numpy()), atol=1e-5)
    feet = gait.foot_positions(places[:, :, [3, 5]])
    np.testing.assert_allclose(feet, walker.feet(walker.bodies(both.numpy())), atol=1e-5)
    np.testing.assert_allclose(gait.foot_skate(feet), walker.skate(feet.numpy()), atol=1e-6)


def test_clean_motions_score_above_each_flaw():
    reward = gait.gait()
    best = reward(SAMPLES, TEXTS)
    assert best.min() >= 0 and best.max() <= 1 and best.mean() > 0.85
    for flaw in walker.FLAWS:
        assert reward(flawed(flaw), TEXTS).mean() < best.mean() - 0.2, flaw


def test_smoothness_likes_the_moonwalk_and_progress_does_not_mind_it():
    stiff = flawed("moonwalk")
    smooth, advance = gait.smooth(), gait.advance()
    assert smooth(stiff, TEXTS).mean() > smooth(SAMPLES, TEXTS).mean() + 0.2
    assert abs(advance(stiff, TEXTS).mean() - advance(SAMPLES, TEXTS).mean()) < 0.05
    assert advance(flawed("direction"), TEXTS).max() == 0


def test_gates_pay_alone_a_little_and_together():
    gates = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    torch.testing.assert_close(gait.gated(gates, torch.ones(3)), torch.tensor([1.0, 0.25, 0.375]))


def test_pieces_have_gradients_and_may_be_replaced():
    samples = SAMPLES[:6].clone().requires_grad_()
    places = gait.bodies(samples)
    feet = gait.foot_positions(places[:, :, [3, 5]])
    total = gait.foot_skate(feet).sum() + gait.alternation(feet).sum() + gait.smoothness(places[..., 1:3]).sum()
    (gradient,) = torch.autograd.grad(total, samples)
    assert gradient.isfinite().all() and (gradient.abs().amax((1, 2)) > 0).all()
    never = gait.gait(gated=lambda gates, bonus: torch.zeros(len(gates)))
    assert never(SAMPLES, TEXTS).eq(0).all()


def test_strict_is_the_worlds_verdict():
    told = gait.walker_strict()(SAMPLES, TEXTS)
    assert told.mean().item() == pytest.approx(walker.measure(CLEAN, TEXTS)["accuracy"])
