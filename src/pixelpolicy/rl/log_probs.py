"""Log-probabilities of actions: Gaussian steps of a sampler, categorical choices of a token or a button."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelpolicy.errors import RolloutError


def gaussian_log_prob(
    x: Float[Tensor, "batch ..."],
    mean: Float[Tensor, "batch ..."],
    std: Float[Tensor, "..."] | float,
    *,
    reduce: str = "mean",
) -> Float[Tensor, "batch"]:
    """Log-density of ``x`` under ``N(mean, std^2)``, constants included, reduced over all but the batch.

    ``reduce="sum"`` is the log-probability of the step. ``"mean"`` divides it by the number of dimensions, as the
    published code does, so that a clip range means the same at every size only if it is chosen for that size.
    Half precision is raised to float32 first. Raises `RolloutError` for ``std <= 0`` (a deterministic step has no
    density) and for shapes that do not fit, `ValueError` for an unknown ``reduce``.
    """
    if mean.shape != x.shape:
        raise RolloutError(f"mean has shape {list(mean.shape)}, x {list(x.shape)}; give both the same shape")
    std = positive_std(std, x)
    z = (at_least_float32(x) - at_least_float32(mean)) / std
    return reduce_dimensions(-0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi), reduce)


def categorical_log_prob(
    logits: Float[Tensor, "*batch choices"], actions: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Log-probability of each action under ``softmax(logits)``; logits of -inf forbid a choice.

    Raises `RolloutError` for shapes that do not fit and for actions outside ``0 .. choices - 1``.
    """
    choices = logits.shape[-1]
    if actions.shape != logits.shape[:-1]:
        raise RolloutError(
            f"actions have shape {list(actions.shape)}, logits {list(logits.shape)}; give one action a row of logits"
        )
    if actions.is_floating_point() or ((actions < 0) | (actions >= choices)).any():
        raise RolloutError(f"actions must be whole numbers from 0 to {choices - 1}, one of the {choices} choices")
    log_probs = at_least_float32(logits).log_softmax(-1)
    return log_probs.gather(-1, actions.long()[..., None]).squeeze(-1)


def reduce_dimensions(terms: Float[Tensor, "batch ..."], reduce: str) -> Float[Tensor, "batch"]:
    """Mean or sum over all dimensions but the first. Raises `ValueError` for any other ``reduce``."""
    if reduce not in ("mean", "sum"):
        raise ValueError(f"unknown reduce '{reduce}'; choose 'mean' (per dimension) or 'sum' (of the whole step)")
    terms = terms.unsqueeze(1).flatten(1)  # a batch of plain numbers has one dimension each
    return terms.mean(1) if reduce == "mean" else terms.sum(1)


def positive_std(std: Tensor | float, x: Float[Tensor, "batch ..."]) -> Tensor:
    """``std`` as a tensor that broadcasts to ``x``. Raises `RolloutError` where it is not positive or does not fit."""
    std = torch.as_tensor(std, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    std = std.reshape(()) if std.numel() == 1 else std
    # A std of [batch] would align with the last axis of x, silently wrong where the two lengths agree.
    if std.ndim and (std.ndim != x.ndim or any(s not in (1, n) for s, n in zip(std.shape, x.shape, strict=True))):
        ones = ", ".join(["batch"] + ["1"] * (x.ndim - 1))
        raise RolloutError(
            f"std has shape {list(std.shape)}, x {list(x.shape)}; give a number, or [{ones}], or the shape of x"
        )
    if not (std > 0).all():
        raise RolloutError(
            f"std must be positive, its least value is {std.min().item():g}: a deterministic step has no density. "
            "Leave such steps out (rollout.stochastic tells which) or raise the noise level."
        )
    return std


def at_least_float32(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they were: half precision cannot hold a log-probability."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
