"""What travels between a policy and the loss that trains it: the `Policy` protocol and its `Rollout`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelpolicy.errors import RolloutError


class Policy(Protocol):
    """A generator seen as a policy: each sampling step is an action with a density."""

    def rollout(self, prompts: list[str], *, seeds: Int[Tensor, "batch"]) -> Rollout:
        """Sample once per prompt. Each sample draws from its own random stream, whatever the batch around it."""
        ...

    def log_prob(self, rollout: Rollout, step: int) -> Float[Tensor, "batch"]:
        """Log-probability of one stored step, with gradient.

        Before any update it equals ``rollout.log_probs[:, step]`` exactly. Raises `RolloutError` on a
        deterministic step.
        """
        ...


@dataclass(eq=False)
class Rollout:
    """A batch of sampled trajectories. Raises `RolloutError` where the parts disagree in length.

    - ``states [batch, steps + 1, ...]``: in the stored dtype; log-probabilities are those of the stored next state
    - ``sigmas [steps + 1]``: the noise level of each state
    - ``stochastic [steps]``: which steps have a density; ``log_probs [batch, steps]`` means something only there
    - ``samples``: decoded, in the world's own units; a tensor, an array, or a list with one entry a sample
    """

    prompts: list[str]
    seeds: Int[Tensor, "batch"]
    states: Float[Tensor, "batch steps+1 ..."]
    sigmas: Float[Tensor, "steps+1"]
    stochastic: Bool[Tensor, "steps"]
    log_probs: Float[Tensor, "batch steps"]
    samples: Any

    def __post_init__(self) -> None:
        batch, steps = len(self.prompts), len(self.stochastic)
        expected = {
            "seeds": (batch,),
            "states": (batch, steps + 1),
            "sigmas": (steps + 1,),
            "log_probs": (batch, steps),
        }
        for name, shape in expected.items():
            given = tuple(getattr(self, name).shape)
            if given[: len(shape)] != shape or (name != "states" and len(given) != len(shape)):
                raise RolloutError(
                    f"rollout.{name} has shape {list(given)}; {batch} prompts and {steps} steps (the lengths of "
                    f"prompts and of stochastic) need {list(shape)}{' and more' if name == 'states' else ''}. "
                    "Store every state, the first one too."
                )

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Int[Tensor, "chosen"] | Bool[Tensor, "batch"] | Sequence[int] | slice) -> Rollout:
        """The rollout of some samples only, in the order of ``rows``: indices, a mask or a slice."""
        rows = rows.cpu() if isinstance(rows, Tensor) else rows
        index = torch.arange(len(self))[rows].reshape(-1)
        if self.samples is None or hasattr(self.samples, "shape"):
            samples = self.samples if self.samples is None else self.samples[index]
        else:
            samples = [self.samples[i] for i in index]
        return Rollout(
            prompts=[self.prompts[i] for i in index],
            seeds=self.seeds[index],
            states=self.states[index],
            sigmas=self.sigmas,
            stochastic=self.stochastic,
            log_probs=self.log_probs[index],
            samples=samples,
        )

    def log_prob_at(self, step: int) -> Float[Tensor, "batch"]:
        """The stored log-probability of one step.

        Raises `RolloutError` on a deterministic step, which has no density, and on a step that does not exist.
        """
        steps = len(self.stochastic)
        if not 0 <= step < steps:
            raise RolloutError(
                f"step {step} was asked of a rollout of {steps} steps; give a step from 0 to {steps - 1}"
            )
        if not self.stochastic[step]:
            raise RolloutError(
                f"step {step} is deterministic and has no density; ask only for stochastic steps, here "
                f"{self.stochastic.nonzero().flatten().tolist()} (see rollout.stochastic)"
            )
        return self.log_probs[:, step]
