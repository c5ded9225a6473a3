"""Oracles against numerical integration, enumeration in plain Python, autograd and finite differences."""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from pixelpolicy.rl import chain_distribution, exact_kl, exact_policy_gradient, tilted, tilted_mixture


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.05, 1.0, 20.0])
def test_tilted_is_the_formula(beta):
    p, rewards = random(3, 5).softmax(-1), random(3, 5, seed=1)
    for row in range(3):
        raw = [a * math.exp(r / beta) for a, r in zip(p[row].tolist(), rewards[row].tolist(), strict=True)]
        expected = torch.tensor([v / math.fsum(raw) for v in raw], dtype=torch.float64)
        torch.testing.assert_close(tilted(p, rewards, beta)[row], expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(
            tilted(p[row].float(), rewards[row].float(), beta).double(), expected, rtol=1e-5, atol=1e-6
        )


def test_tilted_maximises_reward_minus_kl():
    """The optimum is worth beta log Z, its gradient vanishes, and every neighbour is worth less."""
    p, rewards, beta = random(5).softmax(-1), random(5, seed=1), 0.3

    def worth(q):
        return (q * (rewards - beta * (q / p).log())).sum()

    logits = tilted(p, rewards, beta).log().requires_grad_()
    best = worth(logits.softmax(-1))
    assert best.item() == pytest.approx(beta * math.log((p * (rewards / beta).exp()).sum()), abs=1e-10)
    assert torch.autograd.grad(best, logits)[0].abs().max() < 1e-10
    for seed in range(20):
        assert worth((logits.detach() + 0.1 * random(5, seed=seed)).softmax(-1)) < best


def test_tilted_never_draws_the_impossible_and_does_not_overflow():
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    assert tilted(p, torch.tensor([1e4, -1e4, 1e5], dtype=torch.float64), 1e-3).tolist() == [1, 0, 0]


@pytest.mark.parametrize(("slope", "beta"), [(1.0, 1.0), (-2.0, 0.8), (0.5, 5.0), (0.0, 1.0)])
def test_tilted_mixture_by_numerical_integration(slope, beta):
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means, stds = (
        torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64),
        torch.tensor([0.4, 1.0, 0.7], dtype=torch.float64),
    )
    x = torch.linspace(-25, 25, 50_001, dtype=torch.float64)

    def density(weights, means):
        z = (x[:, None] - means) / stds
        return (weights * (-z.square() / 2).exp() / (stds * math.sqrt(2 * math.pi))).sum(1)

    raw = density(weights, means) * (slope * x / beta).exp()
    expected = raw / torch.trapezoid(raw, x)  # exponentially accurate: the integrand vanishes at both ends
    new_weights, new_means = tilted_mixture(weights, means, stds, slope, beta)
    assert new_weights.sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(density(new_weights, new_means), expected, rtol=0, atol=1e-10)


def test_tilted_mixture_gradient():
    weights, means = random(3).softmax(-1), random(3, seed=1)
    stds = random(3, seed=2).exp()
    logits = weights.log().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w, m, s: tilted_mixture(w.softmax(-1), m, s, 0.7, 0.5),
        (logits, means.requires_grad_(), stds.requires_grad_()),
    )


def slow_chain(logits):
    """Every sequence and its probability, multiplied up step by step with autograd intact."""
    steps, states = logits.shape[:2]
    for sequence in itertools.product(range(states), repeat=steps):
        probability, state = 1.0, 0
        for t, following in enumerate(sequence):
            row = logits[t, state]
            probability = probability * row[following].exp() / row.exp().sum()
            state = following
        yield sequence, probability


def reward(sequences):
    """Depends on order and on neighbours, so that a gradient credited to the wrong step or state shows."""
    sequences = sequences.double()
    places = torch.arange(1, sequences.shape[1] + 1, dtype=torch.float64)
    return (sequences * places).sum(1).sin() + (sequences[:, 1:] == sequences[:, :-1]).sum(1)


@pytest.mark.parametrize(("steps", "states"), [(1, 3), (2, 2), (3, 3), (4, 2)])
def test_chain_distribution(steps, states):
    logits = random(steps, states, states)
    sequences, probabilities = chain_distribution(logits)
    expected = dict(slow_chain(logits))
    assert [tuple(s) for s in sequences.tolist()] == list(expected)
    slow = torch.stack(list(expected.values()))
    torch.testing.assert_close(probabilities, slow, rtol=0, atol=1e-10)
    torch.testing.assert_close(chain_distribution(logits.float())[1].double(), slow, rtol=0, atol=1e-6)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("steps", "states"), [(1, 3), (2, 2), (3, 3), (4, 2)])
def test_exact_policy_gradient_against_autograd(steps, states):
    logits = random(steps, states, states).requires_grad_()
    expected = sum(p * reward(torch.tensor([s]))[0] for s, p in slow_chain(logits))
    gradient = torch.autograd.grad(expected, logits)[0]
    given = exact_policy_gradient(logits, reward)
    torch.testing.assert_close(given, gradient, rtol=0, atol=1e-10)
    assert not given.requires_grad
    torch.testing.assert_close(exact_policy_gradient(logits.float(), reward).double(), gradient, rtol=1e-5, atol=1e-6)


def test_exact_policy_gradient_against_finite_differences():
    logits, h = random(3, 2, 2), 1e-5
    given = exact_policy_gradient(logits, reward)

    def value(shifted):
        return sum(p * reward(torch.tensor([s]))[0] for s, p in slow_chain(shifted)).item()

    for place in itertools.product(range(3), range(2), range(2)):
        bump = torch.zeros_like(logits)
        bump[place] = h
        slope = (value(logits + bump) - value(logits - bump)) / (2 * h)
        assert given[place].item() == pytest.approx(slope, abs=1e-9)


def test_no_gradient_reaches_states_the_chain_cannot_be_in():
    gradient = exact_policy_gradient(random(2, 3, 3), reward)
    assert (gradient[0, 1:] == 0).all() and (gradient[0, 0] != 0).all() and (gradient[1] != 0).all()


def test_a_constant_reward_teaches_nothing():
    gradient = exact_policy_gradient(random(3, 3, 3), lambda s: torch.full((len(s),), 7.0))
    assert gradient.abs().max() < 1e-12


def test_exact_kl():
    p, q = random(4, 6).softmax(-1), random(4, 6, seed=1).softmax(-1)
    expected = kl_divergence(Categorical(probs=p), Categorical(probs=q))
    torch.testing.assert_close(exact_kl(p, q), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(exact_kl(p.float(), q.float()).double(), expected, rtol=1e-5, atol=1e-6)
    assert (exact_kl(p, p) == 0).all()


def test_exact_kl_at_the_border():
    half, sure = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert exact_kl(sure, half).item() == pytest.approx(math.log(2), abs=1e-6)
    assert exact_kl(half, sure).item() == math.inf
    assert exact_kl(sure, sure).item() == 0


def test_exact_kl_gradient():
    a, b = (random(5, seed=s).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(lambda a, b: exact_kl(a.softmax(-1), b.softmax(-1)), (a, b))


@pytest.mark.parametrize("p", [[0.5, 0.6], [-0.5, 1.5], [float("nan"), 1.0]], ids=str)
def test_no_distribution(p):
    p, good = torch.tensor(p), torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match="p is no distribution.*sum to 1"):
        tilted(p, good, 1.0)
    with pytest.raises(ValueError, match="p is no distribution"):
        exact_kl(p, good)
    with pytest.raises(ValueError, match="q is no distribution"):
        exact_kl(good, p)
    with pytest.raises(ValueError, match="weights is no distribution"):
        tilted_mixture(p, good, good, 1.0, 1.0)


def test_other_bad_arguments():
    half = torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match="beta is 0; give a positive number"):
        tilted(half, half, 0)
    with pytest.raises(ValueError, match="beta is -1"):
        tilted_mixture(half, half, half, 1.0, -1)
    with pytest.raises(ValueError, match="positive one"):
        tilted_mixture(half, half, torch.tensor([1.0, 0.0]), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"\[2, 3\]; a chain needs \[steps, states, states\]"):
        chain_distribution(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="1073741824 sequences; take a shorter chain"):
        exact_policy_gradient(torch.zeros(15, 4, 4), reward)
