"""Rewards: adding, naming, and what happens when one goes wrong."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import RewardError
from pixelpolicy.rl import Reward

PROMPTS = ["a red circle", "a blue square", "two green rings"]
SAMPLES = torch.tensor([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])


def column(name, number, **kwargs) -> Reward:
    return Reward(name, lambda samples, prompts: samples[:, number], **kwargs)


def test_value_of_a_weighted_sum():
    reward = 0.7 * column("spelling", 0) + 0.3 * column("compactness", 1)
    assert reward.name == "0.7 spelling + 0.3 compactness"
    expected = [0.7 * a + 0.3 * b for a, b in SAMPLES.tolist()]
    torch.testing.assert_close(reward(SAMPLES, PROMPTS), torch.tensor(expected), rtol=0, atol=1e-6)


def test_weights_multiply_through_and_merge():
    a, b = column("a", 0), column("b", 1)
    assert (2 * (0.5 * a + b * 3) + a).name == "2 a + 6 b"
    assert (a + b).name == "a + b"
    assert (a + -1 * b).name == "a + -1 b"
    assert (a + a)(SAMPLES, PROMPTS).tolist() == [2, 4, 6]
    assert (np.float64(0.5) * a)(SAMPLES, PROMPTS).tolist() == [0.5, 1, 1.5]


def test_components_are_unweighted_and_named():
    components = (0.7 * column("a", 0) + 0 * column("b", 1)).components(SAMPLES, PROMPTS)
    assert {name: value.tolist() for name, value in components.items()} == {"a": [1, 2, 3], "b": [4, 5, 6]}
    assert column("a", 0).components(SAMPLES, PROMPTS)["a"].tolist() == [1, 2, 3]


def test_each_component_is_evaluated_once():
    calls = []

    def counted(samples, prompts):
        calls.append(1)
        return samples[:, 0]

    once = Reward("once", counted)
    total, components = (once + 2 * column("other", 1) + 3 * once).evaluate(SAMPLES, PROMPTS)
    assert len(calls) == 1
    assert total.tolist() == [4 * a + 2 * b for a, b in SAMPLES.tolist()] and list(components) == ["once", "other"]


@pytest.mark.parametrize("values", [[True, False, True], [1, 0, 1], np.array([1, 0, 1]), torch.tensor([1, 0, 1])])
def test_counts_and_truths_become_floats(values):
    result = Reward("count", lambda samples, prompts: values)(None, PROMPTS)
    assert result.tolist() == [1.0, 0.0, 1.0] and result.dtype == torch.float32


def test_float64_stays():
    assert column("a", 0)(SAMPLES.double(), PROMPTS).dtype == torch.float64


def test_a_differentiable_reward_passes_gradient():
    samples = SAMPLES.clone().requires_grad_()
    (0.5 * column("a", 0, differentiable=True)(samples, PROMPTS)).sum().backward()
    assert samples.grad.tolist() == [[0.5, 0.0]] * 3


def test_others_build_no_graph_and_a_sum_is_differentiable_only_if_all_are():
    samples = SAMPLES.clone().requires_grad_()
    soft, hard = column("soft", 0, differentiable=True), column("hard", 1)
    assert (soft + soft).differentiable and not (soft + hard).differentiable and not hard.differentiable
    assert not Reward("sum", lambda s, p: s.sum(1))(samples, PROMPTS).requires_grad
    (soft + hard)(samples, PROMPTS).sum().backward()
    assert samples.grad.tolist() == [[1.0, 0.0]] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_names_reward_and_prompt(bad):
    def function(samples, prompts):
        return torch.tensor([0.0, bad, float("nan")])

    with pytest.raises(RewardError, match="'spelling' returned .* sample 1, prompt 'a blue square'.*finite"):
        (0.5 * Reward("spelling", function) + column("other", 0))(SAMPLES, PROMPTS)


@pytest.mark.parametrize("shape", [(), (3, 1), (2,), (3, 3), (0,)])
def test_the_wrong_shape_names_both_shapes(shape):
    with pytest.raises(RewardError, match=r"'flat' returned shape \[.*3 prompts.*'a red circle'.*shape \[3\]"):
        Reward("flat", lambda samples, prompts: torch.zeros(shape))(SAMPLES, PROMPTS)


def test_a_reward_that_raises_is_named_and_chained():
    def function(samples, prompts):
        raise KeyError("glyph")

    with pytest.raises(RewardError, match="'spelling' raised KeyError: 'glyph'.*3 samples.*'a red circle'") as caught:
        Reward("spelling", function)(SAMPLES, PROMPTS)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("value", [None, "high", object()])
def test_a_reward_that_returns_no_numbers(value):
    with pytest.raises(RewardError, match="'odd'"):
        Reward("odd", lambda samples, prompts: value)(SAMPLES, PROMPTS)


def test_a_forgotten_return_is_called_that():
    with pytest.raises(RewardError, match="returned None; end it with a return"):
        Reward("odd", lambda samples, prompts: None)(SAMPLES, PROMPTS)


def test_two_different_rewards_of_one_name():
    with pytest.raises(RewardError, match="both named 'a'; rename one"):
        column("a", 0) + column("a", 1)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite(weight):
    with pytest.raises(RewardError, match="'a' was scaled by"):
        weight * column("a", 0)


@pytest.mark.parametrize("other", ["0.5", None, torch.ones(3)], ids=str)
def test_a_weight_is_a_number_and_a_summand_a_reward(other):
    with pytest.raises(TypeError):
        column("a", 0) * other
    with pytest.raises(TypeError):
        column("a", 0) + other


def test_an_empty_batch():
    assert column("a", 0)(torch.zeros(0, 2), []).shape == (0,)
