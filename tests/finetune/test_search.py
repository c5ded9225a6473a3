"""Search without training: its mathematics in closed form, and its samplers on a random twin."""

import math
from functools import partial

import pytest
import torch

from pixelpolicy.errors import RolloutError, TrainingError
from pixelpolicy.finetune.search import (
    amortised,
    draw_pool,
    effective_draws,
    importance_weights,
    log_potential,
    noise_log_density,
    optimise_noise,
    steer,
    systematic_resample,
    worth_training,
)
from pixelpolicy.policies import DenoisingPolicy, cps, ode
from pixelpolicy.rl import Reward, tilted

PROMPTS = ["a red circle", "two blue squares", "a green triangle"]
SEEDS = torch.tensor([3, 5, 8])
KINDS = ("difference", "max", "sum")


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


RED = Reward("redness", redness, differentiable=True)


@pytest.fixture
def policy(make_twin):
    return DenoisingPolicy(make_twin(), partial(cps, noise=0.5), steps=4, micro_batch=8)


# Mathematics ----------------------------------------------------------------------------------------------------------


def test_importance_weights_tilt_the_base():
    rewards = torch.randn(3, 5, dtype=torch.float64)
    for beta in (0.1, 1.0, 7.0):
        expected = torch.stack([tilted(torch.full((5,), 0.2, dtype=torch.float64), row, beta) for row in rewards])
        torch.testing.assert_close(importance_weights(rewards, beta), expected, rtol=1e-10, atol=1e-12)
    assert importance_weights(1e4 * rewards, 0.01).isfinite().all()


def test_effective_draws_between_one_and_all():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(effective_draws(weights), torch.tensor([4.0, 1, 2]))


def test_systematic_resampling_takes_each_draw_as_often_as_it_weighs():
    weights = torch.tensor([[0.1, 0.55, 0.05, 0.3]], dtype=torch.float64)
    offsets = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    chosen = systematic_resample(weights.expand(2000, -1), offsets, 8)
    counts = torch.stack([(chosen == k).sum(1) for k in range(4)], 1)
    torch.testing.assert_close(counts.double().mean(0), 8 * weights[0], rtol=0, atol=2e-3)
    assert ((counts - 8 * weights).abs() < 1).all()
    assert (chosen.diff(dim=1) >= 0).all()


def test_systematic_resampling_at_its_edges():
    even = torch.full((1, 4), 0.25)
    for offset in (0.0, 0.5, 0.999):
        assert systematic_resample(even, torch.tensor([offset]), 4).tolist() == [[0, 1, 2, 3]]
    sure = torch.tensor([[0.0, 1.0, 0.0]])
    assert systematic_resample(sure, torch.tensor([0.0]), 4).tolist() == [[1, 1, 1, 1]]
    tiny = torch.softmax(torch.tensor([[0.0, -90.0, 0.0]]), 1)
    assert set(systematic_resample(tiny, torch.tensor([0.99999994]), 3)[0].tolist()) <= {0, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_the_potentials_of_a_history_multiply_to_the_target(kind):
    rewards, strength = torch.randn(5, 2, 3, dtype=torch.float64), 3.0
    total = sum(log_potential(rewards[: t + 1], kind, strength, t == 4) for t in range(5))
    torch.testing.assert_close(total, strength * rewards[-1], rtol=1e-10, atol=1e-12)


def test_potentials_by_hand():
    history = torch.tensor([[1.0, 3.0], [2.0, 1.0]])
    assert log_potential(history, "difference", 2.0, False).tolist() == [2, -4]
    assert log_potential(history, "max", 2.0, False).tolist() == [4, 6]
    assert log_potential(history, "sum", 2.0, False).tolist() == [6, 8]
    assert [log_potential(history[:1], kind, 2.0, False).tolist() for kind in KINDS] == [[2, 6]] * 3
    assert [log_potential(history[:1], kind, 2.0, True).tolist() for kind in KINDS] == [[2, 6]] * 3
    assert log_potential(history, "max", 2.0, True).tolist() == [2, -4]


def test_the_density_of_a_length_and_its_gradient():
    noise = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    value = noise_log_density(noise)
    lengths = [math.sqrt(math.fsum(x * x for x in row.flatten().tolist())) for row in noise]
    expected = [(17 * math.log(length) - length**2 / 2) / 18 for length in lengths]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    value.sum().backward()
    by_hand = torch.stack([(17 / n**2 - 1) * z / 18 for n, z in zip(lengths, noise.detach(), strict=True)])
    torch.testing.assert_close(noise.grad, by_hand, rtol=1e-10, atol=1e-12)


def test_what_training_costs_a_picture():
    torch.testing.assert_close(amortised(1000, 10, torch.tensor([1.0, 100])), torch.tensor([1010.0, 20]))
    assert worth_training(1000, 40, 20) == 50 and worth_training(1000, 10, 10) == float("inf")


# Samplers -------------------------------------------------------------------------------------------------------------


def test_best_of_n_is_the_best_of_the_first_n_and_the_first_is_the_plain_sample(policy):
    pool = draw_pool(policy, RED, PROMPTS, seeds=SEEDS, draws=5)
    plain = policy.rollout(PROMPTS, seeds=SEEDS)
    torch.testing.assert_close(pool.samples[:, 0], plain.samples)
    for count in (1, 3, 5):
        found = pool.best(count)
        assert found.evaluations == 4 * count
        torch.testing.assert_close(found.rewards, pool.rewards[:, :count].max(1).values)
        torch.testing.assert_close(RED(found.samples, PROMPTS), found.rewards)


def test_importance_resampling_lies_between_the_base_and_the_best(policy):
    pool = draw_pool(policy, RED, PROMPTS, seeds=SEEDS, draws=5)
    cold = pool.resampled(5, 1e-6)
    torch.testing.assert_close(cold.rewards, pool.best(5).rewards)
    warm = torch.stack([pool.resampled(5, 1e6, seed).rewards for seed in range(400)]).mean(0)
    spread = pool.rewards.std(1) / 20
    assert ((warm - pool.rewards.mean(1)).abs() < 4 * spread).all()


def test_steering_repeats_itself_and_one_particle_is_a_plain_rollout(policy):
    plain = policy.rollout(PROMPTS, seeds=SEEDS)
    one = steer(policy, RED, PROMPTS, seeds=SEEDS, particles=1)
    torch.testing.assert_close(one.samples, plain.samples, rtol=1e-4, atol=1e-5)
    first, second = (steer(policy, RED, PROMPTS, seeds=SEEDS, particles=4, strength=50) for _ in range(2))
    assert torch.equal(first.samples, second.samples) and first.evaluations == 16
    torch.testing.assert_close(RED(first.samples, PROMPTS), first.rewards)


def test_steering_without_strength_is_best_of_n(policy):
    """Equal weights keep every particle where it is."""
    pool = draw_pool(policy, RED, PROMPTS, seeds=SEEDS, draws=4)
    found = steer(policy, RED, PROMPTS, seeds=SEEDS, particles=4, strength=0.0)
    torch.testing.assert_close(found.rewards, pool.best(4).rewards, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_steering_asks_for_potentials_of_the_lineage(policy, kind):
    seen = []

    def potential(history, *rest):
        seen.append((history.clone(), rest))
        return log_potential(history, *rest)

    steer(policy, RED, PROMPTS[:2], seeds=SEEDS[:2], particles=4, strength=100.0, kind=kind, potential=potential)
    assert [(len(history), *rest) for history, rest in seen] == [(1, kind, 100.0, False), (2, kind, 100.0, False)]
    before, after = seen[0][0][0], seen[1][0][0]
    assert all(set(b.tolist()) >= set(a.tolist()) for b, a in zip(before, after, strict=True))


def test_a_steered_draw_is_the_base_without_strength_and_the_best_with_much(policy):
    def rewards(strength, deliver, seeds=SEEDS):
        return steer(policy, RED, PROMPTS, seeds=seeds, strength=strength, deliver=deliver).rewards

    torch.testing.assert_close(rewards(1e6, "drawn"), rewards(1e6, "best"))
    pool = draw_pool(policy, RED, PROMPTS, seeds=SEEDS, draws=4)
    drawn = rewards(0.0, "drawn")
    assert all((pool.rewards[i] - drawn[i]).abs().min() < 1e-5 for i in range(3))
    assert any(rewards(0.0, "drawn", SEEDS + k)[0] < rewards(0.0, "best", SEEDS + k)[0] for k in range(4))


def test_steering_needs_noise_where_it_looks(policy):
    with pytest.raises(RolloutError, match="Take a transition with noise"):
        steer(DenoisingPolicy(policy.generator, ode, steps=4), RED, PROMPTS, seeds=SEEDS)
    with pytest.raises(RolloutError, match="looks"):
        steer(policy, RED, PROMPTS, seeds=SEEDS, looks=[3])


def test_optimised_noise_starts_at_the_seed_climbs_and_stays_as_long(policy):
    plain = DenoisingPolicy(policy.generator, ode, steps=4)
    rollout = plain.rollout(PROMPTS, seeds=SEEDS)
    none = optimise_noise(policy, RED, PROMPTS, seeds=SEEDS, iterations=0)
    torch.testing.assert_close(none.samples, rollout.samples, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(none.noise, rollout.states[:, 0])
    assert none.evaluations == 4
    wide = dict(learning_rate=100.0, most=1e-3)
    found = optimise_noise(policy, RED, PROMPTS, seeds=SEEDS, iterations=6, **wide)
    assert (found.rewards > none.rewards).all() and found.evaluations == 4 * 25
    torch.testing.assert_close(RED(found.samples, PROMPTS), found.rewards)
    assert not any(p.grad is not None for p in policy.generator.transformer.parameters())
    heavy = optimise_noise(policy, RED, PROMPTS, seeds=SEEDS, iterations=6, gaussian_weight=100.0, **wide)
    goal = math.sqrt(rollout.states[0, 0].numel() - 1)

    def off(noise):
        return (noise.flatten(1).norm(dim=1) - goal).abs()

    assert (off(heavy.noise) <= off(none.noise) + 1e-4).all()


def test_noise_can_only_climb_what_has_a_gradient(policy):
    with pytest.raises(TrainingError, match="has no gradient"):
        optimise_noise(policy, Reward("verdict", redness), PROMPTS, seeds=SEEDS)
