"""How one iteration's batch is used up: micro-batches, optimiser steps, and whose part is whose.

Several processes share the micro-batches; prompts, seeds and rewards are those of the whole batch, whoever samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.processes import place, total
from pixelpolicy.rl import Reward, Rollout


@dataclass(frozen=True)
class BatchConfig:
    """A batch has ``prompts_per_iteration * group_size`` samples and is used up in ``minibatches`` optimiser steps."""

    prompts_per_iteration: int = 16
    group_size: int = 12
    minibatches: int = 2
    seed: int = 0

    @property
    def size(self) -> int:
        return self.prompts_per_iteration * self.group_size


def grouped(texts: list[str], group_size: int) -> tuple[list[str], Int[Tensor, "batch"]]:
    """Every text ``group_size`` times in a row, and the number of the group of each."""
    return [text for text in texts for _ in range(group_size)], torch.arange(len(texts)).repeat_interleave(group_size)


@dataclass(frozen=True)
class Division:
    """The rows of a batch in micro-batches, and these in optimiser steps.

    Raises `TrainingError` where the processes cannot share each optimiser step evenly.
    """

    config: BatchConfig
    micro_batch: int
    iteration: int

    @property
    def mine(self) -> Int[Tensor, "rows"]:
        """The rows of the whole batch that this process samples, in the order of the batch."""
        return torch.cat([self._rows(start) for start in self._my_starts()])

    def optimiser_steps(self) -> Iterator[list[tuple[slice, float]]]:
        """For each optimiser step, this process's micro-batches: which of its own rows, and with which weight.

        The loop takes the mean of the losses, so that a smaller micro-batch must count for less: multiply the mean
        loss of each by its weight.
        """
        size = self.micro_batch
        where = {start: i * size for i, start in enumerate(self._my_starts())}
        for part in self._parts():
            share = len(part) / sum(len(self._rows(start)) for start in part)
            yield [(slice(where[s], where[s] + size), len(self._rows(s)) * share) for s in part if s in where]

    def judge(self, reward: Reward, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """Rewards ``[batch]`` and their components of the whole batch, from each process's rollout of its rows."""
        rewards, components = reward.evaluate(rollout.samples, rollout.prompts)
        table = torch.zeros(1 + len(components), self.config.size)
        table[:, self.mine] = torch.stack([rewards, *components.values()]).float().cpu()
        table = total(table)
        return table[0], dict(zip(components, table[1:], strict=True))

    def _parts(self) -> list[list[int]]:
        """The micro-batches of each optimiser step, by their first row in the whole batch."""
        starts, count = range(0, self.config.size, self.micro_batch), place()[1]
        order = np.random.default_rng([self.config.seed, self.iteration, 1]).permutation(starts)
        parts = np.array_split(order, min(self.config.minibatches, len(starts)))
        if any(len(part) % count for part in parts):
            raise TrainingError(
                f"{len(starts)} micro-batches of {self.micro_batch} in {len(parts)} optimiser steps cannot be "
                f"shared by {count} processes: each step needs a multiple of {count}. Change micro_batch, minibatches, "
                f"prompts_per_iteration or group_size."
            )
        return [part.tolist() for part in parts]

    def _my_starts(self) -> list[int]:
        """This process's share of every optimiser step, in the order of the batch."""
        rank, count = place()
        return sorted(start for part in self._parts() for start in part[rank::count])

    def _rows(self, start: int) -> Tensor:
        """The rows of the whole batch in the micro-batch that begins at ``start``."""
        return torch.arange(start, min(start + self.micro_batch, self.config.size))
