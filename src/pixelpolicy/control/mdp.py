"""A Markov decision process as a table: every state, every action, every chance. Float64 throughout."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pixelpolicy.errors import ControlError, RewardError


@dataclass
class MDP:
    """``transitions[s, a, s']`` is the chance of s' after action a in s, ``rewards[s, a]`` the expected reward.

    Terminal states are worth 0 and never left: what their rows say is replaced by standing still for nothing.
    Raises `ControlError` for tables that do not fit or are no probabilities, `RewardError` for rewards not finite.
    """

    transitions: Float[Tensor, "states actions states"]
    rewards: Float[Tensor, "states actions"]
    terminal: Bool[Tensor, "states"]

    def __post_init__(self):
        self.transitions = torch.as_tensor(self.transitions, dtype=torch.float64).clone()
        self.rewards = torch.as_tensor(self.rewards, dtype=torch.float64).clone()
        self.terminal = torch.as_tensor(self.terminal, dtype=torch.bool)
        _check_tables(self.transitions, self.rewards, self.terminal)
        self.transitions[self.terminal] = torch.eye(self.states, dtype=torch.float64)[self.terminal][:, None]
        self.rewards[self.terminal] = 0

    @property
    def states(self) -> int:
        return self.rewards.shape[0]

    @property
    def actions(self) -> int:
        return self.rewards.shape[1]

    def uniform(self) -> Float[Tensor, "states actions"]:
        """The policy that takes every action equally often."""
        return torch.full((self.states, self.actions), 1 / self.actions, dtype=torch.float64)


def mdp_of(env: gymnasium.Env) -> MDP:
    """The table of a toy-text environment of Gymnasium, such as FrozenLake; where episodes end, a state is terminal.

    Raises `ControlError` for an environment without a table.
    """
    table = getattr(env.unwrapped, "P", None)
    if not isinstance(table, dict):
        raise ControlError(f"{env.unwrapped} has no table of transitions; planning needs one, as FrozenLake-v1 has")
    states, actions = len(table), len(table[0])
    transitions, rewards = torch.zeros(states, actions, states).double(), torch.zeros(states, actions).double()
    terminal = torch.zeros(states, dtype=torch.bool)
    for state, choices in table.items():
        for action, outcomes in choices.items():
            for chance, following, reward, ends in outcomes:
                transitions[state, action, following] += chance
                rewards[state, action] += chance * reward
                terminal[following] |= bool(ends)
    return MDP(transitions, rewards, terminal)


def check_discount(discount: float) -> None:
    """Raise `ControlError` for a discount that is no number from 0 to 1."""
    if not 0 <= discount <= 1:
        raise ControlError(f"the discount is {discount}; give a number from 0 (the next reward only) to 1 (all alike)")


def distributions(probabilities: Float[Tensor, "... outcomes"]) -> Bool[Tensor, "..."]:
    """Which rows are probabilities: none below 0, together 1."""
    return (probabilities >= 0).all(-1) & ((probabilities.sum(-1) - 1).abs() < 1e-9)


def _check_tables(transitions: Tensor, rewards: Tensor, terminal: Tensor) -> None:
    if rewards.dim() != 2 or 0 in rewards.shape:
        raise ControlError(f"rewards are {list(rewards.shape)}; give one for each [states, actions]")
    if transitions.shape != (*rewards.shape, len(rewards)) or terminal.shape != rewards.shape[:1]:
        raise ControlError(
            f"transitions are {list(transitions.shape)} and terminal is {list(terminal.shape)}; with rewards of "
            f"{list(rewards.shape)} they must be {[*rewards.shape, len(rewards)]} and {[len(rewards)]}"
        )
    wrong = ~distributions(transitions) & ~terminal[:, None]
    if wrong.any():
        state, action = wrong.nonzero()[0].tolist()
        raise ControlError(
            f"after action {action} in state {state} the chances of the next states are no distribution: "
            f"they add up to {transitions[state, action].sum().item():g}, the least is "
            f"{transitions[state, action].min().item():g}"
        )
    if not rewards[~terminal].isfinite().all():
        state, action = ((~rewards.isfinite()) & ~terminal[:, None]).nonzero()[0].tolist()
        raise RewardError(f"the reward of action {action} in state {state} is {rewards[state, action].item()}")
