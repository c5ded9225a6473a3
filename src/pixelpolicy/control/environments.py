"""Vector environments of Gymnasium, checked before they are played, and the judge of a policy: greedy episodes."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.errors import ControlError, RewardError


class _Closing(VectorWrapper):
    """Says that it is closed; the batched CartPole of Gymnasium would play on."""

    def close(self, **options) -> None:
        self.env.close(**options)
        self.env.unwrapped.closed = True


def make(name: str, count: int) -> VectorEnv:
    """``count`` copies of an environment as one, batched where Gymnasium has a batched version of it (CartPole).

    Raises `ControlError` where there is no such environment or ``count`` is not positive.
    """
    if count < 1:
        raise ControlError(f"{count} environments were asked for; give one at least")
    try:
        batched = gymnasium.spec(name).vector_entry_point is not None
        envs = gymnasium.make_vec(name, num_envs=count, vectorization_mode="vector_entry_point" if batched else "sync")
        return _Closing(envs)
    except gymnasium.error.Error as error:
        raise ControlError(f"there is no environment '{name}' to make: {error}") from error


def check_playable(envs: VectorEnv) -> None:
    """Raise `ControlError` where ``envs`` cannot be played: not a vector environment, closed, or resetting at once."""
    if not isinstance(envs, VectorEnv):
        raise ControlError(f"this is a {type(envs).__name__}, no vector environment; make it by control.make(name, 8)")
    if envs.unwrapped.closed:
        raise ControlError("the environment is closed; make a new one")
    if envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP) != AutoresetMode.NEXT_STEP:
        raise ControlError(
            "the environment resets within the step that ends an episode, so its last state is lost; "
            "make it with Gymnasium's default, AutoresetMode.NEXT_STEP"
        )


def observation_size(envs: VectorEnv) -> int:
    """How many numbers an observation has. Raises `ControlError` where it is no flat box."""
    space = envs.single_observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ControlError(
            f"observations are {space}; this algorithm needs a flat Box, such as CartPole's four numbers"
        )
    return space.shape[0]


def action_count(envs: VectorEnv) -> int:
    """How many actions there are to choose from. Raises `ControlError` where they are not discrete."""
    space = envs.single_action_space
    if not isinstance(space, spaces.Discrete):
        raise ControlError(f"actions are {space}; this policy chooses one of a Discrete space, such as CartPole's two")
    return int(space.n)


def action_size(envs: VectorEnv) -> int:
    """How many numbers an action has. Raises `ControlError` where it is no flat box."""
    space = envs.single_action_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ControlError(f"actions are {space}; a Gaussian policy needs a flat Box, such as Pendulum's torque")
    return space.shape[0]


def to_environment(actions: Tensor, envs: VectorEnv) -> np.ndarray:
    """Actions as the environment takes them; those of a Box are clipped to its bounds, as the density is not."""
    space = envs.single_action_space
    given = actions.detach().numpy()
    return given.clip(space.low, space.high) if isinstance(space, spaces.Box) else given


def finite_rewards(rewards: np.ndarray) -> Float[Tensor, "envs"]:
    """Rewards of one step. Raises `RewardError` where one is not finite."""
    if not np.isfinite(rewards).all():
        number = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise RewardError(f"environment {number} gave a reward of {rewards[number]}; mend the environment first")
    return torch.as_tensor(rewards, dtype=torch.float32)


@torch.no_grad()
def evaluate(
    act: Callable[[Tensor], Tensor], name: str, *, episodes: int = 100, seed: int = 0, most_steps: int = 10_000
) -> Float[Tensor, "episodes"]:
    """Undiscounted return of each of ``episodes`` whole episodes, one a copy; ``act`` maps observations to actions.

    Raises `ControlError` for an episode that has not ended after ``most_steps``.
    """
    envs = make(name, episodes)
    observations, _ = envs.reset(seed=seed)
    returns, playing = torch.zeros(episodes), torch.ones(episodes, dtype=torch.bool)
    for _ in range(most_steps):
        actions = act(torch.as_tensor(observations))
        observations, rewards, terminated, truncated, _ = envs.step(to_environment(actions, envs))
        returns += finite_rewards(rewards) * playing
        playing &= ~torch.as_tensor(terminated | truncated)
        if not playing.any():
            envs.close()
            return returns
    raise ControlError(f"an episode of {name} has not ended after {most_steps} steps; give it a time limit")
