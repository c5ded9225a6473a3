"""How far a proxy was climbed, and what became of the gold reward meanwhile (Gao, Schulman and Hilton 2022, arXiv
2210.10760).

Distances are ``d = sqrt(KL)`` to the base with the KL in nats; gains are of the gold reward, over the base's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Form = Literal["rl", "best-of-n"]


class Peak(NamedTuple):
    """Where a fitted curve is highest, ``distance = sqrt(KL)``, and the ``gain`` there; infinite without a turn."""

    distance: float
    gain: float


def best_of_n_kl(n: int | Float[Tensor, "*counts"]) -> Float[Tensor, "*counts"]:
    """KL to the base, in nats, of keeping the best of ``n`` samples: ``log n - (n - 1) / n``.

    Exact where no two samples have the same reward. Raises `ValueError` for ``n < 1``.
    """
    n = torch.as_tensor(n, dtype=torch.float64)
    if not (n >= 1).all():
        raise ValueError(f"n is {n.tolist()}; the best of at least one sample can be kept")
    return n.log() - (n - 1) / n


def expected_best(
    proxy: Float[Tensor, "*batch samples"], gold: Float[Tensor, "*batch samples"], n: int
) -> Float[Tensor, "*batch"]:
    """Mean gold reward of the one with the highest proxy among ``n`` of the samples, over all ways to choose ``n``.

    The sample at rank ``i`` of ``M`` (from the lowest, 1) wins in ``C(i - 1, n - 1)`` of the ``C(M, n)`` ways. Equal
    proxies rank in their order. Raises `ValueError` unless ``1 <= n <= M`` and both have one shape.
    """
    count = proxy.shape[-1]
    if proxy.shape != gold.shape or not 1 <= n <= count:
        raise ValueError(
            f"n is {n}, proxy has shape {list(proxy.shape)}, gold {list(gold.shape)}; give both for the same samples, "
            f"and n from 1 to their number"
        )
    chances = torch.tensor([math.comb(i, n - 1) / math.comb(count, n) for i in range(count)], dtype=torch.float64)
    ranked = gold.gather(-1, proxy.argsort(dim=-1, stable=True))
    return (ranked * chances.to(ranked)).sum(-1)


def goodhart_curve(
    distance: Float[Tensor, "*points"], alpha: float, beta: float, form: Form = "rl"
) -> Float[Tensor, "*points"]:
    """Gao et al.'s gain in gold: ``d (alpha - beta log d)`` for reinforcement learning, ``d (alpha - beta d)`` for
    best-of-n; 0 at ``d = 0``."""
    return alpha * distance - beta * _bend(distance, form)


def fit_goodhart(
    distance: Float[Tensor, "points"], gain: Float[Tensor, "points"], form: Form = "rl"
) -> tuple[float, float]:
    """``(alpha, beta)`` of the `goodhart_curve` that is nearest by least squares; it is linear in both.

    Raises `ValueError` where fewer than two different distances above 0 are given.
    """
    distance, gain = distance.double(), gain.double()
    if len(distance[distance > 0].unique()) < 2:
        raise ValueError(f"distances are {distance.tolist()}; two different ones above 0 are needed to fit two numbers")
    columns = torch.stack([distance, -_bend(distance, form)], dim=1)
    alpha, beta = torch.linalg.lstsq(columns, gain[:, None]).solution[:, 0].tolist()
    return alpha, beta


def goodhart_peak(alpha: float, beta: float, form: Form = "rl") -> Peak:
    """Where a `goodhart_curve` turns: ``d = exp(alpha / beta - 1)``, or ``alpha / (2 beta)`` for best-of-n.

    It never does where ``beta <= 0``; with ``alpha <= 0`` best-of-n only falls, from its peak at 0.
    """
    if beta <= 0:
        return Peak(math.inf, math.inf)
    if form == "best-of-n":
        distance = max(alpha, 0.0) / (2 * beta)
    else:
        distance = math.exp(min(alpha / beta - 1, 700.0))
    return Peak(distance, goodhart_curve(torch.tensor(distance, dtype=torch.float64), alpha, beta, form).item())


def early_stop(golds: Sequence[float], patience: int) -> tuple[int, int]:
    """``(kept, asked)``: the best of the queries before stopping, and how many were asked.

    Stops once ``patience`` queries in a row were no better than the best before them. Of equals the first is kept.
    Raises `ValueError` for no queries or ``patience < 1``.
    """
    if not golds or patience < 1:
        raise ValueError(f"{len(golds)} queries, patience {patience}; give at least one of each")
    kept = 0
    for number, gold in enumerate(golds):
        if gold > golds[kept]:
            kept = number
        if number - kept >= patience:
            return kept, number + 1
    return kept, len(golds)


def explained_share(rewards: Float[Tensor, "states branches"]) -> float:
    """Which share of the variance of a reward is decided by the state that its trajectory branched from.

    From ``branches`` continuations of each state: variance between states over the total, both without bias (one-way
    analysis of variance), so that pure chance gives 0 on average and may fall below. No variance at all is 0.
    Raises `ValueError` for fewer than two states or branches.
    """
    states, branches = rewards.shape
    if states < 2 or branches < 2:
        raise ValueError(f"{states} states with {branches} branches each; give at least two of both")
    within = rewards.var(dim=1).mean()
    between = rewards.mean(dim=1).var() - within / branches
    total = between + within
    return (between / total).item() if total > 0 else 0.0


def _bend(distance: Tensor, form: Form) -> Tensor:
    if form == "rl":
        return torch.xlogy(distance, distance)
    if form == "best-of-n":
        return distance.square()
    raise ValueError(f"the form {form!r} is unknown; it is 'rl' or 'best-of-n'")
