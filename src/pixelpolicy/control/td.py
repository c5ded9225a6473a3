"""Values from experience: Monte Carlo, TD(0), Q-learning and SARSA on tables (Sutton and Barto 2018, chapters 5, 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelpolicy.control.mdp import check_discount
from pixelpolicy.errors import ControlError, RewardError
from pixelpolicy.rl import discounted_returns

Episode = tuple[Int[Tensor, "time"], Float[Tensor, "time"]]  # states, and the reward that followed each


@dataclass(frozen=True)
class TableConfig:
    episodes: int = 500
    step_size: float = 0.5
    discount: float = 1.0
    epsilon: float = 0.1
    most_steps: int = 10_000  # of one episode


@dataclass
class TableResult:
    """Action values ``[states, actions]``, and the undiscounted return of each episode as it was played."""

    q: Float[Tensor, "states actions"]
    returns: Float[Tensor, "episodes"]


def monte_carlo(episodes: Sequence[Episode], states: int, discount: float) -> Float[Tensor, "states"]:
    """Mean of the discounted returns that followed each visit to a state; 0 where there was none."""
    check_discount(discount)
    totals, visits = torch.zeros(states, dtype=torch.float64), torch.zeros(states, dtype=torch.float64)
    for visited, rewards in episodes:
        never = torch.zeros(len(rewards), 1, dtype=torch.bool)  # an episode ends with its last row
        totals.index_add_(0, visited, discounted_returns(rewards.double()[:, None], never, discount)[:, 0])
        visits.index_add_(0, visited, torch.ones(len(visited), dtype=torch.float64))
    return totals / visits.clamp_min(1)


def td_target(
    rewards: Float[Tensor, "batch"],
    next_values: Float[Tensor, "batch"],
    terminated: Bool[Tensor, "batch"],
    truncated: Bool[Tensor, "batch"],
    discount: float,
) -> Float[Tensor, "batch"]:
    """``r + discount * V(s')``, and ``r`` alone where the world ended; where only the clock ran out, V(s') counts."""
    return rewards + discount * next_values * ~terminated


def td0(
    episodes: Sequence[Episode],
    values: Float[Tensor, "states"],
    step_size: float,
    discount: float,
    target: Callable[..., Tensor] = td_target,
) -> Float[Tensor, "states"]:
    """Values after one pass over whole episodes: each visited one moves by ``step_size`` towards its target.

    Every episode ended in the world, not by the clock: its last step is terminal.
    """
    check_discount(discount)
    values = values.clone()
    for visited, rewards in episodes:
        last, clock = torch.zeros(len(visited), dtype=torch.bool), torch.tensor(False)
        last[-1] = True
        following = visited.roll(-1)  # of the last one any state, since a terminal step takes no value
        for t, state in enumerate(visited):
            wanted = target(rewards[t], values[following[t]], last[t], clock, discount)
            values[state] += step_size * (wanted - values[state])
    return values


def epsilon_greedy(values: Float[Tensor, "*batch actions"], epsilon: float) -> Float[Tensor, "*batch actions"]:
    """Probability of each action: ``epsilon`` shared by all alike, the rest by the best (evenly, where they tie)."""
    best = (values == values.amax(-1, keepdim=True)).to(values.dtype)
    return epsilon / values.shape[-1] + (1 - epsilon) * best / best.sum(-1, keepdim=True)


def q_learning_update(
    q: Float[Tensor, "states actions"],
    state: int,
    action: int,
    reward: float,
    next_state: int,
    terminated: bool,
    step_size: float,
    discount: float,
) -> Float[Tensor, "states actions"]:
    """The table after one step, towards the best that may follow (Watkins and Dayan 1992)."""
    target = reward if terminated else reward + discount * q[next_state].max()
    q = q.clone()
    q[state, action] += step_size * (target - q[state, action])
    return q


def sarsa_update(
    q: Float[Tensor, "states actions"],
    state: int,
    action: int,
    reward: float,
    next_state: int,
    next_action: int,
    terminated: bool,
    step_size: float,
    discount: float,
) -> Float[Tensor, "states actions"]:
    """The table after one step, towards what the action taken next is worth."""
    target = reward if terminated else reward + discount * q[next_state, next_action]
    q = q.clone()
    q[state, action] += step_size * (target - q[state, action])
    return q


def q_learning(name: str, config: TableConfig | None = None, *, seed: int, update=q_learning_update, **more):
    """Learn the table of the best policy while another, epsilon-greedy, plays; see `_play` for the rest."""

    def learn(q, state, action, reward, following, _, *rest):
        return update(q, state, action, reward, following, *rest)

    return _play(name, config or TableConfig(), learn, seed=seed, **more)


def sarsa(name: str, config: TableConfig | None = None, *, seed: int, update=sarsa_update, **more):
    """Learn the table of the very policy that plays, epsilon and all; see `_play` for the rest."""
    return _play(name, config or TableConfig(), update, seed=seed, **more)


def _play(name, config, update, *, seed, explore=epsilon_greedy, report=None) -> TableResult:
    """Episodes by ``explore(q[state], epsilon)``, the table updated after each step; ``report`` gets each episode.

    Raises `ControlError` for spaces that are not discrete, a discount outside [0, 1] or an episode that never ends,
    `RewardError` for a reward that is not finite.
    """
    check_discount(config.discount)
    env, stream = _table_env(name), torch.Generator().manual_seed(seed)
    q = torch.zeros(int(env.observation_space.n), int(env.action_space.n), dtype=torch.float64)

    def choose(state: int) -> int:
        return int(torch.multinomial(explore(q[state], config.epsilon), 1, generator=stream))

    returns = []
    for episode in range(config.episodes):
        state = int(env.reset(seed=seed if episode == 0 else None)[0])
        action, total, over = choose(state), 0.0, False
        for _ in range(config.most_steps):
            following, reward, terminated, truncated, _ = env.step(action)
            if reward != reward or abs(reward) == float("inf"):
                raise RewardError(f"{name} gave a reward of {reward}; mend the environment first")
            following, reward, total = int(following), float(reward), total + float(reward)
            next_action = choose(following)
            q = update(q, state, action, reward, following, next_action, terminated, config.step_size, config.discount)
            state, action, over = following, next_action, terminated or truncated
            if over:
                break
        if not over:
            raise ControlError(f"an episode of {name} has not ended after {config.most_steps} steps")
        returns.append(total)
        if report:
            report({"episode": episode + 1, "return": total})
    env.close()
    return TableResult(q, torch.tensor(returns))


def greedy_path(q: Float[Tensor, "states actions"], name: str, *, seed: int = 0, most_steps: int = 1_000):
    """States and return of one greedy episode, cut after ``most_steps``: a policy that walks in circles has no end."""
    env = _table_env(name)
    state, total = int(env.reset(seed=seed)[0]), 0.0
    path = [state]
    for _ in range(most_steps):
        state, reward, terminated, truncated, _ = env.step(int(q[state].argmax()))
        path.append(int(state))
        total += float(reward)
        if terminated or truncated:
            break
    return path, total


def _table_env(name: str) -> gymnasium.Env:
    try:
        env = gymnasium.make(name)
    except gymnasium.error.Error as error:
        raise ControlError(f"there is no environment '{name}' to make: {error}") from error
    for what, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not isinstance(space, spaces.Discrete):
            raise ControlError(f"{what} of {name} are {space}; a table needs a Discrete space, as CliffWalking's")
    return env
