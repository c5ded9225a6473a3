"""Ensembles: the lower bound against a formula, gradients where members agree, a committee that learns from a rater."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards import ensemble as many
from pixelpolicy.rl import Reward
from pixelpolicy.worlds import shapes


def test_lower_bound_and_worst_by_hand():
    scores = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert many.lower_bound(scores, 0.5).tolist() == [1.5, 2.0]  # means 2 and 2, deviations 1 and 0
    assert many.worst(scores).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError):
        many.lower_bound(scores, -1.0)


def test_the_gradient_of_the_lower_bound():
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: many.lower_bound(s, 0.7), scores)
    alike = torch.ones(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(many.lower_bound(alike).sum(), alike)
    assert torch.allclose(gradient, torch.full((3, 2), 1 / 3))


def test_an_ensemble_is_a_reward_of_its_members():
    up = Reward("up", lambda x, _: x.mean((1, 2, 3)), differentiable=True)
    down = Reward("down", lambda x, _: -x.mean((1, 2, 3)), differentiable=True)
    pictures = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    both = many.ensemble([up, down])
    assert both.differentiable
    assert torch.allclose(both(pictures, ["a", "b"]), torch.tensor([-0.5, -0.5]))
    assert not many.ensemble([up, Reward("plain", lambda x, _: x.mean((1, 2, 3)))]).differentiable
    with pytest.raises(RewardError):
        many.ensemble([])


def _pairs(count: int):
    """True pictures of each prompt against true pictures of another."""
    rng = np.random.default_rng(0)
    prompts = [str(p) for p in rng.choice(shapes.prompts("single"), count)]
    other = [str(rng.choice([q for q in shapes.prompts("single") if q != p])) for p in prompts]
    draw = lambda texts: torch.from_numpy(shapes.draw([shapes.scene(t, rng) for t in texts]))  # noqa: E731
    return draw(prompts), draw(other), prompts


def test_the_rater_prefers_the_better_and_leaves_equals_out():
    right_ones, wrong_ones, prompts = _pairs(60)
    asked = many.simulated_comparisons(right_ones, wrong_ones, prompts, slips=0.0, temperature=0.01, least_gap=0.1)
    assert len(asked) >= 50
    assert all(v.strict for v in shapes.verify(asked.winners.numpy(), asked.prompts))
    blind = many.simulated_comparisons(right_ones, wrong_ones, prompts, slips=1.0, seed=3)
    share = np.mean([v.strict for v in shapes.verify(blind.winners.numpy(), blind.prompts)])
    assert 0.25 < share < 0.75
    with pytest.raises(RewardError):
        many.simulated_comparisons(right_ones, right_ones, prompts, least_gap=0.1)


def test_a_committee_learns_from_the_rater_and_its_members_differ():
    right_ones, wrong_ones, prompts = _pairs(120)
    told = many.simulated_comparisons(right_ones, wrong_ones, prompts, slips=0.0)
    committee = many.fit_committee(told[:80], 3, steps=60)
    members = [committee.reward(member) for member in range(3)]
    assert all(many.agreement(member, told[80:]) > 0.8 for member in members)
    pictures = told.winners[:4].clone().requires_grad_()
    scores = committee(pictures, told.prompts[:4])
    assert scores.shape == (3, 4) and not torch.equal(scores[0], scores[1])
    (gradient,) = torch.autograd.grad(scores.sum(), pictures)
    assert gradient.abs().max() > 0 and not any(p.requires_grad for p in committee.parameters())
    assert torch.equal(committee.reward(many.worst)(pictures, told.prompts[:4]), scores.amin(0))
    again = many.fit_committee(told[:80], 3, steps=60)
    assert torch.equal(again(pictures, told.prompts[:4]), scores)
    with pytest.raises(RewardError):
        many.fit_committee(told, 0)
