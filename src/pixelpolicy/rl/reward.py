"""A reward: a named function of samples and prompts that is checked at every call and adds up with others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.errors import RewardError


@dataclass(frozen=True)
class Reward:
    """Judges samples: ``function(samples, prompts)`` returns one finite number a sample, shape ``[batch]``.

    Rewards add and scale: ``0.7 * spelling + 0.3 * compactness`` is a `Reward` of that name. A sum is
    differentiable if all its components are. A reward that is not differentiable is evaluated without gradient.
    """

    name: str
    function: Callable[[Any, list[str]], Tensor] | None
    differentiable: bool = False
    parts: tuple[tuple[float, Reward], ...] = ()

    @property
    def terms(self) -> tuple[tuple[float, Reward], ...]:
        """Weights and components; a reward that is no sum is its own only component."""
        return self.parts or ((1.0, self),)

    def __call__(self, samples: Any, prompts: list[str]) -> Float[Tensor, "batch"]:
        """The total reward. Raises `RewardError` if a component raises, or returns NaN or the wrong shape."""
        return self.evaluate(samples, prompts)[0]

    def components(self, samples: Any, prompts: list[str]) -> dict[str, Float[Tensor, "batch"]]:
        """Each component by name, without its weight."""
        return self.evaluate(samples, prompts)[1]

    def evaluate(self, samples: Any, prompts: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and its unweighted components; each component is called once."""
        values = {term.name: _checked(term, samples, prompts) for _, term in self.terms}
        return sum(weight * values[term.name] for weight, term in self.terms), values

    def __mul__(self, weight: Real) -> Reward:
        if not isinstance(weight, Real):
            return NotImplemented
        if not math.isfinite(weight):
            raise RewardError(f"reward '{self.name}' was scaled by {weight}; give a finite weight")
        return _sum([(float(weight) * inner, term) for inner, term in self.terms])

    __rmul__ = __mul__

    def __add__(self, other: Reward) -> Reward:
        return _sum([*self.terms, *other.terms]) if isinstance(other, Reward) else NotImplemented


def _sum(terms: list[tuple[float, Reward]]) -> Reward:
    merged: dict[str, tuple[float, Reward]] = {}
    for weight, term in terms:
        before, same = merged.get(term.name, (0.0, term))
        if same != term:
            raise RewardError(
                f"two different rewards are both named '{term.name}'; rename one, they are logged by name"
            )
        merged[term.name] = (before + weight, term)
    name = " + ".join(term.name if weight == 1 else f"{weight:g} {term.name}" for weight, term in merged.values())
    return Reward(name, None, all(term.differentiable for _, term in merged.values()), tuple(merged.values()))


def _checked(reward: Reward, samples: Any, prompts: list[str]) -> Float[Tensor, "batch"]:
    start = f"; the first prompt is '{prompts[0]}'" if prompts else ""
    try:
        with torch.set_grad_enabled(reward.differentiable and torch.is_grad_enabled()):
            values = reward.function(samples, prompts)
        if values is None:
            raise TypeError("it returned None; end it with a return")
        values = torch.as_tensor(values)
    except Exception as error:
        raise RewardError(
            f"reward '{reward.name}' raised {type(error).__name__}: {error} (on {len(prompts)} samples{start}). "
            "Call its function on these samples alone to mend it."
        ) from error
    if values.shape != (len(prompts),):
        raise RewardError(
            f"reward '{reward.name}' returned shape {list(values.shape)} for {len(prompts)} prompts{start}. "
            f"Return one number a sample: shape [{len(prompts)}]."
        )
    values = values if values.is_floating_point() else values.float()
    if not values.isfinite().all():
        row = int((~values.isfinite()).nonzero()[0])
        raise RewardError(
            f"reward '{reward.name}' returned {values[row].item()} for sample {row}, prompt '{prompts[row]}'. "
            "Return finite numbers; give an unreadable sample the lowest score instead."
        )
    return values
