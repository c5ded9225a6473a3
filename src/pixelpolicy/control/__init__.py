"""Classical control: one algorithm a file, on Gymnasium's vector environments, with the losses of `rl`."""

from pixelpolicy.control.environments import evaluate, make
from pixelpolicy.control.gridworld import Gridworld
from pixelpolicy.control.networks import CategoricalPolicy, GaussianPolicy, policy_for
from pixelpolicy.control.trajectory import Collector, Trajectory, advantages

__all__ = [
    "CategoricalPolicy",
    "Collector",
    "GaussianPolicy",
    "Gridworld",
    "Trajectory",
    "advantages",
    "evaluate",
    "make",
    "policy_for",
]
