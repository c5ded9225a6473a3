"""The exact verifier of the shapes world as a reward, all or nothing or by degrees. Neither has a gradient."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pixelpolicy.rewards.pictures import as_arrays, per_sample
from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import shapes


def shapes_strict() -> Reward:
    """1 where the verifier accepts a picture ``[batch, 3, side, side]`` in [-1, 1] for its prompt, else 0: accuracy.

    Sides of a multiple of 32 are averaged down to 32.
    """
    return Reward("strict", _strict)


def shapes_dense() -> Reward:
    """How near a picture is to its prompt, in [0, 1]; pictures as for `shapes_strict`."""
    return Reward("dense", _dense)


def _strict(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    pictures, finite = as_arrays(samples, prompts)
    return per_sample([v.strict for v in shapes.verify(pictures, prompts)], finite)


def _dense(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    pictures, finite = as_arrays(samples, prompts)
    return per_sample([v.dense for v in shapes.verify(pictures, prompts)], finite)
