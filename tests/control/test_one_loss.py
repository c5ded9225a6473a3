"""One loss, many worlds: what control trains with is the very object that generators train with."""

import inspect

import pytest

from pixelpolicy import control, rl
from pixelpolicy.control import ppo, reinforce
from pixelpolicy.finetune import grpo
from pixelpolicy.policies import denoising


def default(function, parameter):
    return inspect.signature(function).parameters[parameter].default


@pytest.mark.parametrize(
    "name, users",
    [
        ("clipped_surrogate", [ppo.clipped_surrogate, default(ppo.train, "loss"), grpo.clipped_surrogate]),
        ("gae", [default(ppo.train, "estimator"), default(control.advantages, "estimator")]),
        ("group_advantages", [grpo.group_advantages]),
        ("gaussian_log_prob", [control.networks.gaussian_log_prob, denoising.gaussian_log_prob]),
        ("policy_gradient_loss", [default(reinforce.train, "loss")]),
        ("discounted_returns", [default(reinforce.train, "returns")]),
    ],
)
def test_control_and_generators_share_the_very_function(name, users):
    assert all(user is getattr(rl, name) for user in users)
