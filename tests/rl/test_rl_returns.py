"""Returns and GAE against double loops over time."""

import pytest
import torch

from pixelpolicy.rl import discounted_returns, gae

TIME, BATCH = 9, 4
DONES = torch.zeros(TIME, BATCH, dtype=torch.bool)
DONES[2, 0] = DONES[3, 0] = DONES[8, 1] = DONES[0, 2] = True  # twice in a row, at the end, at the start, never


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, TIME, BATCH, generator=generator, dtype=torch.float64)
    return rewards.to(dtype), values.to(dtype), torch.randn(BATCH, generator=generator, dtype=torch.float64).to(dtype)


def slow_returns(rewards, discount):
    returns = torch.zeros_like(rewards, dtype=torch.float64)
    for b in range(BATCH):
        for t in range(TIME):
            factor = 1.0
            for k in range(t, TIME):
                returns[t, b] += factor * float(rewards[k, b])
                factor *= discount
                if DONES[k, b]:
                    break
    return returns


def slow_gae(rewards, values, last_value, discount, lam):
    """The exponentially weighted average of all k-step errors (Schulman et al. 2016), not their telescoped sum."""
    extended = torch.cat([values, last_value[None]]).double()
    advantages = torch.zeros_like(rewards, dtype=torch.float64)
    for b in range(BATCH):
        for t in range(TIME):
            ends = [k for k in range(t, TIME) if DONES[k, b]]
            horizon = ends[0] if ends else TIME - 1
            estimates = []
            for k in range(t, horizon + 1):
                alive = 0.0 if DONES[k, b] else 1.0
                rewarded = sum(discount ** (j - t) * float(rewards[j, b]) for j in range(t, k + 1))
                estimates.append(
                    rewarded + alive * discount ** (k + 1 - t) * float(extended[k + 1, b]) - float(values[t, b])
                )
            n = len(estimates)
            weights = [(1 - lam) * lam**i for i in range(n - 1)] + [lam ** (n - 1)]
            advantages[t, b] = sum(w * e for w, e in zip(weights, estimates, strict=True))
    return advantages


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_discounted_returns(discount):
    rewards = data()[0]
    torch.testing.assert_close(
        discounted_returns(rewards, DONES, discount), slow_returns(rewards, discount), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_gae(discount, lam):
    rewards, values, last_value = data()
    expected = slow_gae(rewards, values, last_value, discount, lam)
    torch.testing.assert_close(gae(rewards, values, DONES, last_value, discount, lam), expected, rtol=0, atol=1e-10)


def test_float32():
    rewards, values, last_value = data(torch.float32)
    expected = slow_gae(rewards, values, last_value, 0.99, 0.95)
    given = gae(rewards, values, DONES, last_value, 0.99, 0.95)
    assert given.dtype == torch.float32
    torch.testing.assert_close(given.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        discounted_returns(rewards, DONES, 0.99).double(), slow_returns(rewards, 0.99), rtol=1e-5, atol=1e-6
    )


def test_the_end_of_an_episode_hides_what_follows():
    rewards, values, last_value = data()
    changed = rewards.clone()
    changed[4:, 0] += 100
    before, after = (gae(r, values, DONES, last_value, 0.99, 0.95) for r in (rewards, changed))
    assert torch.equal(before[:4, 0], after[:4, 0]) and not torch.equal(before[4:, 0], after[4:, 0])
    assert torch.equal(discounted_returns(changed, DONES, 0.9)[:4, 0], discounted_returns(rewards, DONES, 0.9)[:4, 0])


def test_last_value_counts_only_where_the_episode_goes_on():
    rewards, values, last_value = data()
    difference = gae(rewards, values, DONES, last_value + 1, 0.5, 1.0) - gae(
        rewards, values, DONES, last_value, 0.5, 1.0
    )
    expected = torch.tensor([0.5, 0.0, 0.5, 0.5], dtype=torch.float64)
    torch.testing.assert_close(difference[-1], expected, rtol=0, atol=1e-10)


def test_gradients():
    rewards, values, last_value = (x.requires_grad_() for x in data())
    assert torch.autograd.gradcheck(lambda r: discounted_returns(r, DONES, 0.9), rewards)
    assert torch.autograd.gradcheck(lambda r, v, last: gae(r, v, DONES, last, 0.9, 0.8), (rewards, values, last_value))


def test_dones_may_be_numbers():
    rewards, values, last_value = data()
    assert torch.equal(
        gae(rewards, values, DONES.double(), last_value, 0.9, 0.8), gae(rewards, values, DONES, last_value, 0.9, 0.8)
    )


def test_shapes_that_would_broadcast_are_refused():
    rewards, values, last_value = data()
    with pytest.raises(ValueError, match="dones has shape .*time first"):
        discounted_returns(rewards, DONES[:, :1], 0.9)
    with pytest.raises(ValueError, match="values has shape"):
        gae(rewards, values[:, :1], DONES, last_value, 0.9, 0.8)
    with pytest.raises(ValueError, match="last_value has shape"):
        gae(rewards, values, DONES, last_value[:1], 0.9, 0.8)


@pytest.mark.parametrize("number", [-0.1, 1.001, float("nan"), float("inf")])
def test_a_discount_or_lam_outside_0_to_1_is_refused(number):
    rewards, values, last_value = data()
    with pytest.raises(ValueError, match="discount is .*from 0 to 1"):
        discounted_returns(rewards, DONES, number)
    with pytest.raises(ValueError, match="discount is .*from 0 to 1"):
        gae(rewards, values, DONES, last_value, number, 0.8)
    with pytest.raises(ValueError, match="lam is .*from 0 to 1"):
        gae(rewards, values, DONES, last_value, 0.9, number)
