"""Rollouts: lengths that must agree, choosing rows, and densities that do not exist."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import PixelPolicyError, RolloutError
from pixelpolicy.rl import Policy, Rollout


def rollout(batch=4, steps=3, **changes) -> Rollout:
    parts = {
        "prompts": [f"prompt {i}" for i in range(batch)],
        "seeds": torch.arange(batch) + 100,
        "states": torch.arange(batch * (steps + 1) * 2.0).reshape(batch, steps + 1, 2),
        "sigmas": torch.linspace(1, 0, steps + 1),
        "stochastic": torch.tensor([True] * (steps - 1) + [False]),
        "log_probs": torch.arange(batch * steps * 1.0).reshape(batch, steps),
        "samples": torch.arange(batch * 5.0).reshape(batch, 5),
    }
    return Rollout(**parts | changes)


ROWS = [[2, 0], slice(1, None, 2), torch.tensor([3, 3, 1]), torch.tensor([False, True, True, False]), [], [-1]]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_select_takes_the_same_rows_of_every_part(rows):
    whole = rollout()
    numbers = np.arange(4)[
        np.asarray(rows, dtype=None if len(rows) else int) if isinstance(rows, list) else rows
    ].tolist()
    part = whole.select(rows)
    assert len(part) == len(numbers)
    assert part.prompts == [f"prompt {i}" for i in numbers]
    assert part.seeds.tolist() == [100 + i for i in numbers]
    for name in ("states", "log_probs", "samples"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[numbers])
    assert torch.equal(part.sigmas, whole.sigmas) and torch.equal(part.stochastic, whole.stochastic)


def test_select_keeps_samples_of_other_kinds():
    assert rollout(samples=["a", "b", "c", "d"]).select([3, 1]).samples == ["d", "b"]
    assert rollout(samples=np.arange(4)).select([3, 1]).samples.tolist() == [3, 1]
    assert rollout(samples=None).select([3, 1]).samples is None


def test_log_prob_at_a_stochastic_step():
    assert rollout().log_prob_at(1).tolist() == [1, 4, 7, 10]


def test_log_prob_of_a_deterministic_step_raises_and_names_those_that_have_one():
    with pytest.raises(RolloutError, match=r"step 2 is deterministic.*\[0, 1\]"):
        rollout().log_prob_at(2)


@pytest.mark.parametrize("step", [-1, 3])
def test_log_prob_of_a_step_that_does_not_exist(step):
    with pytest.raises(RolloutError, match=rf"step {step} .* 3 steps; give a step from 0 to 2"):
        rollout().log_prob_at(step)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", torch.arange(3)),
        ("states", torch.zeros(4, 3, 2)),
        ("states", torch.zeros(4)),
        ("sigmas", torch.zeros(3)),
        ("log_probs", torch.zeros(4)),
        ("log_probs", torch.zeros(4, 4)),
        ("log_probs", torch.zeros(4, 3, 2)),
    ],
)
def test_parts_that_disagree_in_length_are_named(name, value):
    with pytest.raises(RolloutError, match=rf"rollout\.{name} has shape .*4 prompts and 3 steps"):
        rollout(**{name: value})


def test_rollout_error_is_the_projects_own():
    assert issubclass(RolloutError, PixelPolicyError)


def test_a_policy_is_whatever_has_rollout_and_log_prob():
    members = {name for name in vars(Policy) if not name.startswith("_")}
    assert members == {"rollout", "log_prob"}
