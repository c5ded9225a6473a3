"""What an agent has lived through: the record of control, and the collector that fills it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Bool, Float
from torch import Tensor

from pixelpolicy.control.environments import check_playable, finite_rewards, to_environment
from pixelpolicy.errors import ControlError
from pixelpolicy.rl import gae

Act = Callable[[Float[Tensor, "envs ..."]], tuple[Tensor, Float[Tensor, "envs"]]]


@dataclass
class Trajectory:
    """Steps of several copies of an environment, time first.

    Where ``valid`` is False nothing was decided: the copy was being reset, or its only episode was over.
    """

    observations: Float[Tensor, "steps+1 envs ..."]
    actions: Tensor  # [steps, envs] or [steps, envs, size]
    log_probs: Float[Tensor, "steps envs"]
    rewards: Float[Tensor, "steps envs"]
    terminated: Bool[Tensor, "steps envs"]  # the world ended: nothing comes after
    truncated: Bool[Tensor, "steps envs"]  # the clock ran out: more would have come
    valid: Bool[Tensor, "steps envs"]

    def flat(self, **more: Float[Tensor, "steps envs"]) -> dict[str, Tensor]:
        """The valid steps in one batch, by field; ``more`` (such as advantages) is cut likewise."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)} | more
        kept["observations"] = self.observations[:-1]
        return {name: tensor[self.valid] for name, tensor in kept.items() if name != "valid"}


def advantages(
    trajectory: Trajectory,
    values: Float[Tensor, "steps+1 envs"],
    discount: float,
    lam: float,
    estimator: Callable[..., Tensor] = gae,
) -> Float[Tensor, "steps envs"]:
    """Generalised advantages of a trajectory with resets in it; 0 where nothing was decided.

    A reset step gets the reward ``values`` expected of it, so its error is 0, and it ends the sum. So the step before
    it keeps what its last state was worth where the clock ran out (*truncated*), and nothing where the world ended.
    """
    rewards = torch.where(trajectory.valid, trajectory.rewards, values[:-1])
    dones = trajectory.terminated | ~trajectory.valid
    return estimator(rewards, values[:-1], dones, values[-1], discount, lam) * trajectory.valid


class Collector:
    """Plays on where it stopped. ``finished`` holds the return of every episode that ended, in order.

    Gymnasium's vector environments reset at the step *after* the one that ended an episode: that step ignores its
    action, and is marked as not valid.
    """

    def __init__(self, envs: VectorEnv, *, seed: int):
        check_playable(envs)
        self.envs, self.finished = envs, []
        self._observations = torch.as_tensor(envs.reset(seed=seed)[0])
        self._resetting = torch.zeros(envs.num_envs, dtype=torch.bool)
        self._returns = torch.zeros(envs.num_envs)

    @torch.no_grad()
    def collect(self, act: Act, steps: int) -> Trajectory:
        """The next ``steps`` steps of each copy; ``act`` maps observations to actions and their log-probabilities."""
        check_playable(self.envs)
        rows = [self._step(act) for _ in range(steps)]
        return self._trajectory(rows)

    @torch.no_grad()
    def episodes(self, act: Act, most_steps: int = 10_000) -> Trajectory:
        """One whole episode of each copy, from its first state; steps after its end are not valid.

        Raises `ControlError` where one has not ended after ``most_steps``.
        """
        check_playable(self.envs)
        self._observations = torch.as_tensor(self.envs.reset()[0])
        self._returns.zero_(), self._resetting.zero_()
        playing, rows = torch.ones_like(self._resetting), []
        while playing.any():
            if len(rows) == most_steps:
                raise ControlError(f"an episode has not ended after {most_steps} steps; give it a time limit")
            rows.append(self._step(act, playing))
            playing = playing & ~(rows[-1]["terminated"] | rows[-1]["truncated"])
        return self._trajectory(rows)

    def _step(self, act: Act, playing: Bool[Tensor, "envs"] | None = None) -> dict[str, Tensor]:
        actions, log_probs = act(self._observations)
        following, rewards, terminated, truncated, _ = self.envs.step(to_environment(actions, self.envs))
        valid = ~self._resetting if playing is None else playing
        terminated, truncated = torch.as_tensor(terminated), torch.as_tensor(truncated)
        self._resetting = terminated | truncated
        row = {
            "observations": self._observations, "actions": actions, "log_probs": log_probs,
            "rewards": finite_rewards(rewards) * valid,
            "terminated": terminated & valid, "truncated": truncated & valid, "valid": valid,
        }  # fmt: skip
        self._returns += row["rewards"]
        ended = self._resetting & valid
        self.finished += self._returns[ended].tolist()
        self._returns[ended] = 0
        self._observations = torch.as_tensor(following)
        return row

    def _trajectory(self, rows: list[dict[str, Tensor]]) -> Trajectory:
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        stacked["observations"] = torch.cat([stacked["observations"], self._observations[None]])
        return Trajectory(**stacked)
