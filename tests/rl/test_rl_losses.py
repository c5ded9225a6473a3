"""Losses against Python loops and torch.distributions; one loss for discrete and Gaussian policies."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pixelpolicy.errors import RewardError, RolloutError
from pixelpolicy.rl import (
    categorical_log_prob,
    clip_fraction,
    clipped_surrogate,
    exact_policy_gradient,
    gaussian_kl,
    gaussian_log_prob,
    group_advantages,
    reward_weights,
)

CLIP = 0.2
RATIOS = [0.1, 0.79, 0.81, 1.0, 1.19, 1.21, 5.0]


def grid(dtype=torch.float64):
    """Every ratio with every sign of advantage, as log-probabilities around an arbitrary level."""
    ratios, advantages = np.meshgrid(RATIOS, [-2.0, -0.5, 0.0, 0.5, 3.0])
    old = torch.linspace(-4, 2, ratios.size, dtype=torch.float64)
    new = old + torch.from_numpy(np.log(ratios.ravel()))
    return new.to(dtype), old.to(dtype), torch.from_numpy(advantages.ravel()).to(dtype)


def slow_surrogate(new, old, advantages, clip):
    """Value and gradient, sample by sample."""
    value, gradient = 0.0, []
    for n, o, a in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(n - o)
        clipped = min(max(ratio, 1 - clip), 1 + clip)
        value += max(-a * ratio, -a * clipped) / len(new)
        stopped = (a > 0 and ratio > 1 + clip) or (a < 0 and ratio < 1 - clip)
        gradient.append(0.0 if stopped else -a * ratio / len(new))
    return value, torch.tensor(gradient, dtype=torch.float64)


@pytest.mark.parametrize("clip", [1e-4, CLIP, 0.5])
def test_surrogate_and_its_gradient(clip):
    new, old, advantages = grid()
    value, gradient = slow_surrogate(new, old, advantages, clip)
    loss = clipped_surrogate(new.requires_grad_(), old, advantages, clip)
    loss.backward()
    assert loss.shape == () and loss.item() == pytest.approx(value, abs=1e-10)
    torch.testing.assert_close(new.grad, gradient, rtol=0, atol=1e-10)


def test_surrogate_in_float32():
    new, old, advantages = grid(torch.float32)
    value, gradient = slow_surrogate(new, old, advantages, CLIP)
    loss = clipped_surrogate(new.requires_grad_(), old, advantages, CLIP)
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(new.grad.double(), gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("ratio", "advantage"), [(1.5, -1.0), (0.5, 1.0)])
def test_a_clamp_without_max_is_deaf_where_the_surrogate_hears(ratio, advantage):
    """Trap 8: a bad sample grown likely, a good one grown unlikely, must be put right."""
    new = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    old, advantages = torch.zeros(1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    bare = (-advantages * (new - old).exp().clamp(1 - CLIP, 1 + CLIP)).mean()
    assert torch.autograd.grad(bare, new)[0].item() == 0
    heard = torch.autograd.grad(clipped_surrogate(new, old, advantages, CLIP), new)[0].item()
    assert heard == pytest.approx(-advantage * ratio, abs=1e-10)


def test_the_first_pass_has_ratio_1_and_still_learns():
    """Trap 14: the loss is zero, its gradient is the policy gradient."""
    new = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    advantages = group_advantages(torch.tensor([1.0, 0, 0, 2, 5, 1]).double(), torch.tensor([0, 0, 0, 1, 1, 1]))
    loss = clipped_surrogate(new, new, advantages, 1e-4)  # the same tensor twice: the old one is held constant
    loss.backward()
    assert abs(loss.item()) < 1e-12
    torch.testing.assert_close(new.grad, -advantages / 6, rtol=0, atol=1e-10)


def test_only_the_new_log_probs_carry_gradient():
    new, old, advantages = (t.requires_grad_() for t in grid())
    clipped_surrogate(new, old, advantages, CLIP).backward()
    assert new.grad is not None and old.grad is None and advantages.grad is None


def test_one_advantage_a_trajectory_serves_all_its_steps():
    generator = torch.Generator().manual_seed(0)
    new, old = 0.3 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    advantages = torch.tensor([1.0, -1, 2, -2], dtype=torch.float64)
    expected, _ = slow_surrogate(new.flatten(), old.flatten(), advantages.repeat_interleave(3), CLIP)
    assert clipped_surrogate(new, old, advantages[:, None], CLIP).item() == pytest.approx(expected, abs=1e-10)


# One loss, any policy: weighting samples by their exact probability makes the batch mean an expectation.


def test_discrete_policy_gradient_by_enumeration():
    """All sequences of a chain, weighted by probability: minus the gradient is the exact policy gradient."""
    logits = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    sequences = torch.tensor([[a, b, c] for a in range(2) for b in range(2) for c in range(2)])
    present = torch.cat([torch.zeros(8, 1, dtype=torch.long), sequences[:, :2]], 1)
    log_probs = torch.stack([categorical_log_prob(logits[t][present[:, t]], sequences[:, t]) for t in range(3)], 1)

    def reward(s):
        return (s[:, 0] + 2 * s[:, 1] * s[:, 2] - s[:, 2]).double()

    weighted = 8 * log_probs.sum(1).exp() * reward(sequences)
    expected = exact_policy_gradient(logits, reward)
    whole = clipped_surrogate(log_probs.sum(1), log_probs.sum(1), weighted, CLIP)
    torch.testing.assert_close(-torch.autograd.grad(whole, logits, retain_graph=True)[0], expected, rtol=0, atol=1e-10)
    stepwise = clipped_surrogate(log_probs, log_probs, weighted[:, None], CLIP)
    torch.testing.assert_close(-3 * torch.autograd.grad(stepwise, logits)[0], expected, rtol=0, atol=1e-10)


def test_gaussian_policy_gradient_by_quadrature():
    """E[x^3] of N(m, s^2) is m^3 + 3 m s^2; Gauss-Hermite nodes take the place of samples."""
    m, s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.4, 0.7))
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(12))
    weights = weights / weights.sum()
    x = (m + s * nodes).detach()[:, None]
    log_probs = gaussian_log_prob(x, m.expand(12, 1), s, reduce="sum")
    clipped_surrogate(log_probs, log_probs, 12 * weights * x[:, 0] ** 3, CLIP).backward()
    assert -m.grad.item() == pytest.approx(3 * 0.4**2 + 3 * 0.7**2, abs=1e-10)
    assert -s.grad.item() == pytest.approx(6 * 0.4 * 0.7, abs=1e-10)


def test_clip_fraction():
    new, old, _ = grid()
    ratios = [math.exp(n - o) for n, o in zip(new.tolist(), old.tolist(), strict=True)]
    expected = sum(not 0.8 <= r <= 1.2 for r in ratios) / len(ratios)
    given = clip_fraction(new.requires_grad_(), old, CLIP)
    assert given.item() == pytest.approx(expected, abs=1e-12) and not given.requires_grad
    assert clip_fraction(old, old, 1e-4).item() == 0


@pytest.mark.parametrize("loss", [lambda n, o, c: clipped_surrogate(n, o, n, c), clip_fraction])
@pytest.mark.parametrize("clip", [0, -0.1, float("nan")])
def test_a_clip_range_that_is_not_positive(loss, clip):
    with pytest.raises(ValueError, match="clip_range is .*positive"):
        loss(torch.zeros(3), torch.zeros(3), clip)


def test_shapes_that_would_broadcast():
    new = torch.zeros(4, 4)
    with pytest.raises(RolloutError, match=r"old_log_probs \[4\]"):
        clipped_surrogate(new, new[0], new, CLIP)
    with pytest.raises(RolloutError, match=r"advantages have shape \[4\].*advantages\[:, None\]"):
        clipped_surrogate(new, new, new[0], CLIP)
    with pytest.raises(RolloutError, match=r"advantages have shape \[4, 4\]"):
        clipped_surrogate(new[:, :1], new[:, :1], new, CLIP)


@pytest.mark.parametrize(
    "std", [0.3, torch.linspace(0.1, 2, 5, dtype=torch.float64).reshape(5, 1, 1)], ids=["number", "batch"]
)
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_gaussian_kl(std, reduce):
    mean, ref = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = kl_divergence(Normal(mean, std), Normal(ref, std)).flatten(1)
    expected = terms.mean(1) if reduce == "mean" else terms.sum(1)
    torch.testing.assert_close(gaussian_kl(mean, ref, std, reduce=reduce), expected, rtol=0, atol=1e-10)
    single = torch.tensor(std).float() if isinstance(std, float) else std.float()
    given = gaussian_kl(mean.float(), ref.float(), single, reduce=reduce).double()
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6 if reduce == "mean" else 0)


def test_gaussian_kl_gradient():
    mean, ref = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    std = torch.full((5, 1, 1), 0.3, dtype=torch.float64, requires_grad=True)
    gaussian_kl(mean.requires_grad_(), ref, std).sum().backward()
    difference = (mean - ref).detach()
    torch.testing.assert_close(mean.grad, difference / 0.3**2 / 12, rtol=0, atol=1e-10)
    expected = -(difference**2).sum((1, 2), keepdim=True) / 0.3**3 / 12
    torch.testing.assert_close(std.grad, expected, rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(lambda m, r: gaussian_kl(m, r, 0.3), (mean, ref.requires_grad_()))


def test_kl_without_dt():
    """Trap 6: dividing by 2 g^2 gives |dt| times the KL of the step, whose std is g sqrt(|dt|)."""
    mean, ref = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g, dt = 0.7, -0.04
    step = kl_divergence(Normal(mean, g * math.sqrt(-dt)), Normal(ref, g * math.sqrt(-dt))).mean(1)
    torch.testing.assert_close(gaussian_kl(mean, ref, g * math.sqrt(-dt)), step, rtol=0, atol=1e-10)
    torch.testing.assert_close(gaussian_kl(mean, ref, g), 0.04 * step, rtol=0, atol=1e-10)


def test_kl_of_a_deterministic_step_and_bad_arguments():
    mean = torch.zeros(2, 3)
    with pytest.raises(RolloutError, match="deterministic step"):
        gaussian_kl(mean, mean, 0.0)
    with pytest.raises(RolloutError, match="same shape"):
        gaussian_kl(mean, mean[:1], 1.0)
    with pytest.raises(ValueError, match="'total'"):
        gaussian_kl(mean, mean, 1.0, reduce="total")


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("groups", [None, torch.tensor([4, 1, 4, 4, 1, 9])], ids=["batch", "groups"])
def test_reward_weights(beta, groups):
    rewards = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = [0] * 6 if groups is None else groups.tolist()
    raw = [math.exp(r / beta) for r in rewards.tolist()]
    expected = []
    for i, name in enumerate(names):
        siblings = [raw[j] for j in range(6) if names[j] == name]
        expected.append(raw[i] * len(siblings) / sum(siblings))
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(reward_weights(rewards, beta, groups), expected, rtol=0, atol=1e-10)
    single = reward_weights(rewards.float(), beta, groups).double()
    torch.testing.assert_close(single, expected, rtol=1e-5, atol=1e-6)


def test_reward_weights_do_not_overflow():
    rewards = torch.tensor([1000.0, 999.0, -1000.0, 3e38])
    assert reward_weights(rewards[:3], 1e-3).tolist() == [3.0, 0.0, 0.0]
    assert reward_weights(rewards, 1.0).tolist() == [0.0, 0.0, 0.0, 4.0]
    assert reward_weights(-rewards[:2], 1e-3, torch.tensor([0, 1])).tolist() == [1.0, 1.0]


def test_reward_weights_carry_no_gradient():
    assert not reward_weights(torch.ones(3, requires_grad=True), 1.0).requires_grad


def test_reward_weights_bad_arguments():
    for beta in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="beta is .*positive temperature"):
            reward_weights(torch.ones(3), beta)
    with pytest.raises(RewardError, match="reward 2 is not finite"):
        reward_weights(torch.tensor([0.0, 1.0, float("nan")]), 1.0)
