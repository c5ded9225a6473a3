"""REINFORCE: it learns, it learns by what it is handed, and each step is judged by what came after it."""

import math

import pytest
import torch

from pixelpolicy.control import evaluate
from pixelpolicy.control.reinforce import ReinforceConfig, mean_at_each_step, train
from pixelpolicy.errors import ControlError, TrainingError
from pixelpolicy.rl import discounted_returns, policy_gradient_loss

SHORT = ReinforceConfig(episodes=8, iterations=3, validate_every=0)


def weights(policy):
    return torch.cat([p.detach().flatten().clone() for p in policy.parameters()])


def test_it_balances_the_pole_longer_and_longer():
    result = train(config=ReinforceConfig(episodes=16, iterations=25, validation_episodes=20), seed=11)
    first, last = result.log[0]["return"], result.log[-1]["return"]
    assert first < 40 and last > 2.5 * first
    assert [row["iteration"] for row in result.log if "validation" in row] == [5, 10, 15, 20, 25]


def test_the_policy_that_did_best_on_the_validation_episodes_is_kept():
    """A learning rate far too high: the last policy is seldom the best."""
    config = ReinforceConfig(
        episodes=8, iterations=12, learning_rate=0.3, anneal=False, validate_every=1, validation_episodes=10
    )
    result = train(config=config, seed=1)
    seen = [row["validation"] for row in result.log]
    assert result.validation == max(seen) > seen[-1]
    again = evaluate(result.policy.greedy, "CartPole-v1", episodes=10, seed=1_000_001)
    assert again.mean().item() == pytest.approx(max(seen))


def test_what_is_handed_in_is_what_trains():
    untouched = train(config=SHORT, seed=2, loss=lambda log_probs, advantages: 0 * log_probs.sum())
    learned, same = (train(config=SHORT, seed=2) for _ in range(2))
    assert not torch.equal(weights(untouched.policy), weights(learned.policy))
    assert torch.equal(weights(learned.policy), weights(same.policy)) and learned.log == same.log
    away = train(config=SHORT, seed=2, loss=lambda *given: -policy_gradient_loss(*given))
    assert away.log[0] == learned.log[0], "the same episodes"
    assert not torch.equal(weights(away.policy), weights(learned.policy))


def test_each_step_gets_its_return_to_go_less_that_of_the_others_still_playing():
    """CartPole pays 1 a step, so all follows from the lengths of the episodes."""
    discount, seen = 0.9, {}

    def returns(rewards, dones, given):
        assert given == discount
        seen["lengths"] = (dones.long().argmax(0) + 1).tolist()
        return discounted_returns(rewards, dones, given)

    def loss(log_probs, advantages):
        seen["advantages"] = advantages
        return policy_gradient_loss(log_probs, advantages)

    config = ReinforceConfig(episodes=4, iterations=1, discount=discount, normalise_advantages=False, validate_every=0)
    result = train(config=config, seed=3, loss=loss, returns=returns)
    lengths = seen["lengths"]
    assert result.log[0]["return"] == sum(lengths) / 4 and result.log[0]["steps"] == sum(lengths)
    expected = []
    for t in range(max(lengths)):
        to_go = [(1 - discount ** (length - t)) / (1 - discount) for length in lengths if length > t]
        expected += [g - math.fsum(to_go) / len(to_go) for g in to_go]
    torch.testing.assert_close(seen["advantages"], torch.tensor(expected), rtol=0, atol=1e-4)


def test_normalised_advantages_have_deviation_1():
    def loss(log_probs, advantages):
        assert advantages.std().item() == pytest.approx(1, abs=1e-4)
        return policy_gradient_loss(log_probs, advantages)

    train(config=SHORT, seed=4, loss=loss)


def test_the_baseline_is_the_mean_of_those_who_play():
    returns = torch.tensor([[3.0, 1.0, 8.0], [2.0, 50.0, 6.0], [1.0, 70.0, 90.0], [9.0, 9.0, 9.0]])
    valid = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
    assert mean_at_each_step(returns, valid).tolist() == [[4.0] * 3, [4.0] * 3, [1.0] * 3, [0.0] * 3]


def test_a_baseline_of_ones_own_is_used():
    seen = []

    def baseline(returns, valid):
        seen.append((returns.shape, valid.sum().item()))
        return torch.zeros_like(returns)

    result = train(config=SHORT, seed=5, baseline=baseline)
    assert [count for _, count in seen] == [row["steps"] for row in result.log]


def test_continuous_actions_are_drawn_from_a_gaussian():
    result = train("Pendulum-v1", ReinforceConfig(episodes=2, iterations=1, validate_every=0), seed=6)
    assert result.log[0]["steps"] == 400 and -2000 < result.log[0]["return"] < -200


def test_every_iteration_is_reported():
    rows = []
    result = train(config=SHORT, seed=7, report=rows.append)
    assert rows == result.log and len(rows) == 3


def test_a_gradient_that_is_no_number_stops_training():
    with pytest.raises(TrainingError, match="gradient of iteration 1 is nan"):
        train(config=SHORT, seed=8, loss=lambda log_probs, advantages: (log_probs * math.nan).sum())


@pytest.mark.parametrize(
    "given, message",
    [
        ({"discount": 1.5}, "discount is 1.5"),
        ({"discount": -0.1}, "discount is -0.1"),
        ({"iterations": 0}, "iterations is 0"),
        ({"episodes": 1}, "no others to be compared with"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(ControlError, match=message):
        ReinforceConfig(**given)


def test_spaces_that_fit_no_policy_are_refused():
    with pytest.raises(ControlError, match="flat Box"):
        train("CliffWalking-v1", SHORT, seed=0)
