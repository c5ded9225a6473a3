"""What an agent has lived through, kept to learn from again: transitions that look some steps ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelpolicy.control.mdp import check_discount
from pixelpolicy.control.trajectory import Trajectory
from pixelpolicy.errors import ControlError


class Replay:
    """The last ``capacity`` transitions; a full one forgets the oldest. Draws with replacement, from its own stream."""

    def __init__(self, capacity: int, *, ahead: int, discount: float, seed: int):
        check_discount(discount)
        if capacity < 1 or ahead < 1:
            raise ControlError(f"a replay of {capacity} transitions that look {ahead} ahead; give 1 at least of both")
        self.capacity, self.ahead, self.discount = capacity, ahead, discount
        self._count, self._next, self._kept = 0, 0, {}
        self._stream = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self._count

    def add(self, trajectory: Trajectory) -> None:
        """Keep every step in which something was decided: Gymnasium's autoreset steps are left out."""
        fresh = trajectory.flat(**look_ahead(trajectory, self.ahead, self.discount))
        fresh = {name: rows[-self.capacity :] for name, rows in fresh.items()}
        size = len(fresh["returns"])
        slots = (self._next + torch.arange(size)) % self.capacity
        for name, rows in fresh.items():
            empty = torch.zeros(self.capacity, *rows.shape[1:], dtype=rows.dtype)
            self._kept.setdefault(name, empty)[slots] = rows
        self._next = (self._next + size) % self.capacity
        self._count = min(self._count + size, self.capacity)

    def sample(self, size: int) -> dict[str, Tensor]:
        """``size`` transitions by field. Raises `ControlError` where there is none."""
        if not self._count:
            raise ControlError("the replay is empty; add a trajectory first")
        drawn = torch.randint(self._count, (size,), generator=self._stream)
        return {name: rows[drawn] for name, rows in self._kept.items()}


def look_ahead(trajectory: Trajectory, ahead: int, discount: float) -> dict[str, Tensor]:
    """For each step: the discounted sum of the next ``ahead`` rewards, and where that led. All ``[steps, envs]``.

    It stops early where the episode or the trajectory ends. ``arrivals`` are the observations after the last step that
    counts, ``ended`` says that this step ended the world (not the clock), ``discounts`` are ``discount`` to the power
    of the number of steps that count.
    """
    length, over = len(trajectory.rewards), trajectory.terminated | trajectory.truncated
    returns, discounts = torch.zeros_like(trajectory.rewards), torch.ones_like(trajectory.rewards)
    arrivals, ended = trajectory.observations[1:].clone(), trajectory.terminated.clone()
    going = torch.ones_like(over)
    for k in range(min(ahead, length)):
        first, counts = slice(0, length - k), going[: length - k]
        returns[first] += discounts[first] * trajectory.rewards[k:] * counts
        discounts[first] = torch.where(counts, discounts[first] * discount, discounts[first])
        arrivals[first] = torch.where(
            counts[(...,) + (None,) * (arrivals.ndim - 2)], trajectory.observations[k + 1 :], arrivals[first]
        )
        ended[first] = torch.where(counts, trajectory.terminated[k:], ended[first])
        going[first] = counts & ~over[k:]
    return {"returns": returns, "arrivals": arrivals, "ended": ended, "discounts": discounts}
