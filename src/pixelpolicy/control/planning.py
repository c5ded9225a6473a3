"""Planning: with the whole table of a Markov decision process known, dynamic programming finds values and policies.

Everything is float64. A policy is a table of probabilities ``[states, actions]``; values are expected discounted
sums of rewards. Equations: Bellman 1957; Sutton and Barto 2018, chapters 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from pixelpolicy.control.gridworld import Gridworld
from pixelpolicy.control.mdp import MDP, check_discount, distributions, mdp_of
from pixelpolicy.errors import ControlError

__all__ = [
    "MDP",
    "Gridworld",
    "Plan",
    "action_values",
    "greedy_actions",
    "greedy_policy",
    "mdp_of",
    "policy_iteration",
    "policy_values",
    "solve",
    "value_iteration",
]

_EPSILON = torch.finfo(torch.float64).eps


@dataclass
class Plan:
    """What a planner found, and in how many sweeps (for policy iteration: improvements) it found it."""

    values: Float[Tensor, "states"]
    policy: Float[Tensor, "states actions"]
    sweeps: int


def action_values(mdp: MDP, values: Float[Tensor, "states"], discount: float) -> Float[Tensor, "states actions"]:
    """``q[s, a] = r[s, a] + discount * sum over s' of p[s, a, s'] v[s']``: take a once, then be worth ``values``."""
    check_discount(discount)
    return mdp.rewards + discount * mdp.transitions @ values


def greedy_actions(
    mdp: MDP, values: Float[Tensor, "states"], discount: float, tie: float = 1e-9
) -> Bool[Tensor, "states actions"]:
    """Every action within ``tie`` of the best one; none in a terminal state."""
    found = action_values(mdp, values, discount)
    return (found >= found.max(-1, keepdim=True).values - tie) & ~mdp.terminal[:, None]


def greedy_policy(mdp: MDP, values: Float[Tensor, "states"], discount: float) -> Float[Tensor, "states actions"]:
    """The policy that takes the best action of each state, the first of equals."""
    return one_hot(action_values(mdp, values, discount).argmax(-1), mdp.actions).double()


def policy_values(
    mdp: MDP, policy: Float[Tensor, "states actions"], discount: float, tolerance: float = 1e-10
) -> Float[Tensor, "states"]:
    """What each state is worth under ``policy``, by sweeps of Bellman's expectation equation from 0.

    Below discount 1 the result is within ``tolerance``, or as near as float64 comes; at 1 the last sweep changed it
    by no more. Raises `ControlError` for a discount outside [0, 1], or discount 1 and a policy that never ends.
    """
    chain, rewards = _under(mdp, policy, discount)
    return _sweep(lambda values: rewards + discount * chain @ values, mdp.states, discount, tolerance, 1_000_000)[0]


def solve(mdp: MDP, policy: Float[Tensor, "states actions"], discount: float) -> Float[Tensor, "states"]:
    """The same by a linear solve of ``(I - discount P) v = r`` over the states that are not terminal."""
    chain, rewards = _under(mdp, policy, discount)
    values, open_ = torch.zeros_like(rewards), ~mdp.terminal
    system = torch.eye(int(open_.sum()), dtype=torch.float64) - discount * chain[open_][:, open_]
    values[open_] = torch.linalg.solve(system, rewards[open_])
    return values


def value_iteration(mdp: MDP, discount: float, tolerance: float = 1e-10, most_sweeps: int = 100_000) -> Plan:
    """The best values by sweeps of Bellman's optimality equation from 0, and a policy that is greedy on them.

    As near as `policy_values` says. Raises `ControlError` where ``most_sweeps`` are not enough, as at discount 1 in a
    world with a reward that can be collected for ever.
    """
    check_discount(discount)

    def best(values: Tensor) -> Tensor:
        return action_values(mdp, values, discount).max(-1).values

    values, sweeps = _sweep(best, mdp.states, discount, tolerance, most_sweeps)
    return Plan(values, greedy_policy(mdp, values, discount), sweeps)


def policy_iteration(mdp: MDP, discount: float) -> Plan:
    """Evaluate a policy exactly, be greedy on it, and again, from the uniform policy until nothing is better.

    A state whose actions are all equally good keeps the row it has. Raises as `solve` does.
    """
    policy = mdp.uniform()
    for sweeps in range(1, 10_000):
        values = solve(mdp, policy, discount)
        found = action_values(mdp, values, discount)
        better = found.max(-1).values > values + 1e-12 * (1 + values.abs().max())
        better &= ~mdp.terminal
        if not better.any():
            return Plan(values, policy, sweeps)
        policy[better] = one_hot(found.argmax(-1), mdp.actions).double()[better]
    raise ControlError("policy iteration went round in circles; rewards of such different sizes are beyond float64")


def _sweep(
    step: Callable[[Tensor], Tensor], states: int, discount: float, tolerance: float, most_sweeps: int
) -> tuple[Float[Tensor, "states"], int]:
    """Repeat ``step`` from 0 until it changes too little to matter; a contraction by ``discount`` bounds the error."""
    if not tolerance > 0:
        raise ControlError(f"the tolerance is {tolerance}; give a small number above 0, such as 1e-10")
    enough = tolerance * (1 - discount) / discount if 0 < discount < 1 else tolerance
    values = torch.zeros(states, dtype=torch.float64)
    for sweep in range(1, most_sweeps + 1):
        values, before = step(values), values
        if (values - before).abs().max() <= max(enough, 4 * _EPSILON * values.abs().max().item()):
            return values, sweep
    raise ControlError(
        f"values still change after {most_sweeps} sweeps; take a discount below 1 ({discount} was given)"
    )


def _under(
    mdp: MDP, policy: Float[Tensor, "states actions"], discount: float
) -> tuple[Float[Tensor, "states states"], Float[Tensor, "states"]]:
    """The chain of states under a policy and its expected rewards; checks that they have values at all."""
    check_discount(discount)
    policy = torch.as_tensor(policy, dtype=torch.float64)
    if policy.shape != mdp.rewards.shape:
        raise ControlError(
            f"the policy is {list(policy.shape)}; give probabilities of [states, actions], "
            f"here {list(mdp.rewards.shape)}"
        )
    if not distributions(policy).all():
        state = int((~distributions(policy)).nonzero()[0, 0])
        raise ControlError(
            f"in state {state} the policy is {policy[state].tolist()}; its probabilities must add up to 1"
        )
    chain = torch.einsum("sa,sat->st", policy, mdp.transitions)
    if discount == 1:
        _check_ends(chain, mdp.terminal)
    return chain, (policy * mdp.rewards).sum(-1)


def _check_ends(chain: Float[Tensor, "states states"], terminal: Bool[Tensor, "states"]) -> None:
    """Raise `ControlError` where some state never reaches a terminal one."""
    ends, before = terminal.clone(), None
    while before is None or not torch.equal(ends, before):
        ends, before = ends | ((chain > 0) & ends).any(-1), ends
    if not ends.all():
        state = int((~ends).nonzero()[0, 0])
        raise ControlError(
            f"from state {state} this policy never ends, and with discount 1 its rewards have no sum; "
            "take a discount below 1 or another policy"
        )
