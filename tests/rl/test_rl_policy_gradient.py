"""The score-function loss: by enumeration it is the exact gradient, and at ratio 1 it is the clipped surrogate's."""

import math

import pytest
import torch

from pixelpolicy.errors import RolloutError
from pixelpolicy.rl import categorical_log_prob, clipped_surrogate, gaussian_log_prob, policy_gradient_loss


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_weighed_by_their_probabilities_all_actions_give_the_exact_gradient():
    logits, rewards = normal(0, 5).requires_grad_(), normal(1, 5)
    probabilities = logits.softmax(0)
    (exact,) = torch.autograd.grad((probabilities * rewards).sum(), logits, retain_graph=True)
    log_probs = categorical_log_prob(logits.expand(5, 5), torch.arange(5))
    policy_gradient_loss(log_probs, 5 * probabilities.detach() * rewards).backward()
    torch.testing.assert_close(-logits.grad, exact, rtol=0, atol=1e-12)


def test_a_gaussian_mean_climbs_a_linear_reward_at_its_slope():
    """By quadrature: the gradient of E[3 x + 1] in the mean is 3, and in log std it is 0."""
    mean, log_std = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.4, -0.3))
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    log_probs = gaussian_log_prob(x, mean.expand_as(x), log_std.exp().expand_as(x), reduce="sum")
    weights = log_probs.detach().exp() * (18 / 4000) * len(x)
    policy_gradient_loss(log_probs, weights * (3 * x[:, 0] + 1)).backward()
    assert -mean.grad.item() == pytest.approx(3, abs=1e-8)
    assert -log_std.grad.item() == pytest.approx(0, abs=1e-8)


def test_its_gradient_is_that_of_the_clipped_surrogate_at_ratio_1():
    advantages = normal(2, 7)
    one, other = (normal(3, 7).requires_grad_() for _ in range(2))
    policy_gradient_loss(one, advantages).backward()
    clipped_surrogate(other, other, advantages, 0.2).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)


def test_value_and_one_advantage_a_trajectory():
    log_probs, advantages = normal(4, 3, 2), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    by_hand = -math.fsum(a * p for a, row in zip(advantages.tolist(), log_probs.tolist(), strict=True) for p in row) / 6
    assert policy_gradient_loss(log_probs, advantages[:, None]).item() == pytest.approx(by_hand, abs=1e-12)


def test_no_gradient_flows_into_the_advantages():
    log_probs, advantages = normal(5, 4).requires_grad_(), normal(6, 4).requires_grad_()
    policy_gradient_loss(log_probs, advantages).backward()
    assert advantages.grad is None


@pytest.mark.parametrize("shape", [(3,), (4, 1), (1, 4, 1)])
def test_other_shapes_are_refused(shape):
    """[4] beside [4, 1] would silently make a table of all pairs."""
    with pytest.raises(RolloutError, match="one advantage a log-probability"):
        policy_gradient_loss(torch.zeros(4), torch.zeros(shape))
