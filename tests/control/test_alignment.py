"""Small policies against enumeration and integration; each way of aligning against the closed form."""

import inspect
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from pixelpolicy import rl
from pixelpolicy.control.alignment import (
    AlignmentConfig,
    by_preferences,
    by_reward,
    by_weights,
    compare,
    fit_reward,
)
from pixelpolicy.control.exact import Mixture, divergence, masses, total_variation, world
from pixelpolicy.errors import ControlError, RewardError
from pixelpolicy.rl import chain_distribution, clipped_surrogate, group_advantages, tilted, tilted_mixture

NAMES = ("bandit", "chain", "mixture")
NEAR = 0.05


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("name", NAMES)
def test_masses_add_up_and_samples_fall_as_the_masses_say(name, generator):
    policy = world(name).reference
    chances, outcomes, samples = masses(policy), policy.outcomes(), policy.sample(40_000, generator)
    assert chances.sum().item() == pytest.approx(1, abs=1e-6)
    if name == "mixture":
        cells = ((samples + 10) / policy.cell).long()
        counted = torch.bincount(cells, minlength=len(outcomes)).double().cumsum(0) / len(samples)
        assert (counted - chances.cumsum(0)).abs().max() < 0.012  # Kolmogorov's distance, 1.63 / sqrt(n) at 1%
    else:
        rows = outcomes.reshape(len(outcomes), -1)
        counted = (samples.reshape(len(samples), 1, -1) == rows).all(2).double().mean(0)
        assert total_variation(counted, chances) < 0.02


def test_log_probabilities_of_the_line_and_the_chain():
    policy, x = world("mixture").reference, torch.tensor([-9.0, 0.3, 2.0], dtype=torch.float64)
    parts = Normal(policy.means, policy.log_stds.exp())
    expected = MixtureSameFamily(Categorical(policy.logits.softmax(0)), parts).log_prob(x)
    torch.testing.assert_close(policy.log_prob(x), expected, rtol=0, atol=1e-10)
    chain = world("chain").reference
    sequences, chances = chain_distribution(chain.logits)
    torch.testing.assert_close(chain.log_prob(sequences), chances.log(), rtol=0, atol=1e-10)


def test_the_optimum_of_the_line_is_the_tilted_mixture():
    here = world("mixture")
    p, slope = here.reference, (here.reward(torch.tensor(1.0)) - here.reward(torch.tensor(0.0))).item()
    stds = p.log_stds.exp()
    best = Mixture(*tilted_mixture(p.logits.softmax(0), p.means, stds, slope, here.beta), stds)
    torch.testing.assert_close(here.optimum(), masses(best), rtol=0, atol=1e-7)


def test_the_chain_can_represent_its_optimum():
    """Conditionals of the tilted distribution depend on the token before alone."""
    here = world("chain")
    sequences, best = here.reference.outcomes(), here.optimum()
    for first in range(3):
        rows = []
        for start in range(3):
            mine = (sequences[:, 0] == start) & (sequences[:, 1] == first)
            rows.append(torch.stack([best[mine & (sequences[:, 2] == s)].sum() for s in range(3)]) / best[mine].sum())
        assert torch.allclose(rows[0], rows[1]) and torch.allclose(rows[0], rows[2])


@pytest.mark.parametrize("name", NAMES)
def test_divergence_and_total_variation(name):
    here = world(name)
    student = here.student()
    assert divergence(student, here.reference).item() == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        student.logits += torch.linspace(-0.5, 0.5, student.logits.numel()).reshape(student.logits.shape)
    p, q = masses(student), masses(here.reference)
    expected = math.fsum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    far = divergence(student, here.reference)
    assert far.item() == pytest.approx(expected, abs=1e-10)
    assert total_variation(p, q) == pytest.approx((p - q).abs().sum().item() / 2, abs=1e-6)
    far.backward()
    assert student.logits.grad.abs().max() > 0 and here.reference.logits.grad is None
    assert not any(part.requires_grad for part in here.reference.parameters())


def test_comparisons_are_won_as_often_as_the_rewards_say(generator):
    here = world("bandit")
    winners, losers = compare(here, 60_000, generator)
    for a, b in ((3, 0), (1, 2), (5, 0)):
        won, lost = ((winners == a) & (losers == b)).sum(), ((winners == b) & (losers == a)).sum()
        chance = torch.sigmoid(here.reward(a) - here.reward(b)).item()
        assert (won / (won + lost)).item() == pytest.approx(chance, abs=3.5 * math.sqrt(0.25 / (won + lost)))


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_model_finds_the_reward_up_to_a_constant(name, generator):
    here = world(name)
    model = fit_reward(here, *compare(here, 20_000, generator))
    p, outcomes = masses(here.reference), here.reference.outcomes()
    gap = model(outcomes) - here.reward(outcomes)
    spread = (p * (gap - (p * gap).sum()).square()).sum().sqrt()
    assert spread < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_way_reaches_the_closed_form(name, generator):
    here = world(name)
    best, pairs = here.optimum(), compare(here, 40_000, generator)
    assert total_variation(masses(here.reference), best) > 0.25
    reached = {
        "rwr": by_weights(here, here.reference.sample(20_000, generator)),
        "rlhf": by_reward(here, fit_reward(here, *pairs), AlignmentConfig(group_size=256), seed=0),
        "dpo": by_preferences(here, *pairs),
        "grpo": by_reward(here, here.reward, AlignmentConfig(), seed=0),
    }
    apart = {way: total_variation(masses(policy), best) for way, policy in reached.items()}
    assert max(apart.values()) <= NEAR, apart


def test_a_reward_that_pays_for_the_leash_has_no_noise_at_the_optimum():
    """There r - beta log(p / ref) is one number for all samples, so that training comes to rest exactly."""
    here = world("bandit")
    policy = by_reward(here, here.reward, AlignmentConfig(), seed=1)
    assert total_variation(masses(policy), here.optimum()) < 1e-3


def test_dividing_by_the_deviation_changes_the_temperature():
    """With the KL in the loss, GRPO's normalised advantages come to rest where beta is beta times the deviation."""
    here = world("chain")
    config = AlignmentConfig(leash="loss", group_size=256)
    policy = by_reward(here, here.reward, config, seed=0, advantages=group_advantages)
    p, rewards, beta = masses(here.reference), here.reward(here.reference.outcomes()), here.beta
    for _ in range(200):
        q = tilted(p / p.sum(), rewards, beta)
        beta = here.beta * (q * (rewards - (q * rewards).sum()).square()).sum().sqrt().item()
    assert total_variation(masses(policy), q) < NEAR < 0.25 < total_variation(masses(policy), here.optimum())


def test_the_functions_given_are_the_ones_that_train():
    here, seen, calls = world("bandit"), [], []

    def climb_down(*arguments):
        calls.append(arguments[3])
        return -clipped_surrogate(*arguments)

    config = AlignmentConfig(iterations=20, passes=1)
    given = {"advantages": partial(group_advantages, scale="none"), "leash": lambda rewards, *_: rewards}
    worse = by_reward(here, here.reward, config, seed=0, loss=climb_down, report=seen.append, **given)
    better = by_reward(here, here.reward, config, seed=0, **given)
    values = [(masses(policy) * here.reward(policy.outcomes())).sum() for policy in (worse, here.reference, better)]
    assert values[0] < values[1] < values[2] and calls == [0.2] * 20
    assert [row["iteration"] for row in seen] == list(range(1, 21)) and seen[-1]["reward"] < seen[0]["reward"]


def test_the_losses_are_those_of_rl():
    """The very objects that the generator labs import."""
    defaults = {
        (function, name): inspect.signature(function).parameters[name].default
        for function, name in ((fit_reward, "loss"), (by_preferences, "loss"), (by_reward, "loss"))
    }
    assert list(defaults.values()) == [rl.bradley_terry_loss, rl.dpo_loss, rl.clipped_surrogate]
    assert inspect.signature(by_reward).parameters["advantages"].default.func is rl.group_advantages


def test_a_run_can_be_repeated():
    here, config = world("mixture"), AlignmentConfig(iterations=3)
    one, two, other = (masses(by_reward(here, here.reward, config, seed=s)) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_bad_input(generator):
    with pytest.raises(ControlError, match="no world 'maze'"):
        world("maze")
    with pytest.raises(ValueError, match="'ratio'.*reward, loss"):
        AlignmentConfig(leash="ratio")
    with pytest.raises(ValueError, match="whole groups"):
        AlignmentConfig(batch=100, group_size=16)
    broken = replace(world("bandit"), reward=lambda s: torch.full(s.shape, float("nan")))
    for use in (
        lambda: compare(broken, 8, generator),
        lambda: by_weights(broken, torch.arange(6)),
        lambda: by_reward(broken, broken.reward, AlignmentConfig(iterations=1), seed=0),
    ):
        with pytest.raises(RewardError, match="not finite"):
            use()
