"""Losses that learn from comparisons: the one of two was liked better, nobody says by how much."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pixelpolicy.errors import RewardError, RolloutError


def bradley_terry_loss(
    reward_winner: Float[Tensor, "*batch"], reward_loser: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """``mean -log sigmoid(r_w - r_l)``: how surprised a reward model is by who won (Bradley and Terry 1952).

    Both rewards carry gradient; only their difference counts, so a reward is known up to a constant. Raises
    `RolloutError` for rewards of different shapes or none at all, `RewardError` for one that is not finite.
    """
    _paired(reward_winner=reward_winner, reward_loser=reward_loser)
    margin = reward_winner - reward_loser
    if not margin.isfinite().all():
        raise RewardError("the reward model gave a reward that is not finite; mend it before comparing")
    return -F.logsigmoid(margin).mean()


def dpo_loss(
    log_probs_winner: Float[Tensor, "*batch"],
    log_probs_loser: Float[Tensor, "*batch"],
    ref_winner: Float[Tensor, "*batch"],
    ref_loser: Float[Tensor, "*batch"],
    beta: float,
) -> Float[Tensor, ""]:
    """``mean -log sigmoid(beta [(l_w - ref_w) - (l_l - ref_l)])`` (Rafailov et al. 2023, eq. 7).

    ``l`` are the policy's log-probabilities of whole samples, ``ref`` those of the frozen reference, which carry no
    gradient. Each pair has its own sigmoid; the mean comes last. Raises `RolloutError` for arguments of different
    shapes or none at all, `ValueError` for ``beta <= 0``.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; give a positive number (small: far from the reference, large: near it)")
    _paired(
        log_probs_winner=log_probs_winner, log_probs_loser=log_probs_loser, ref_winner=ref_winner, ref_loser=ref_loser
    )
    margin = (log_probs_winner - ref_winner.detach()) - (log_probs_loser - ref_loser.detach())
    return -F.logsigmoid(beta * margin).mean()


def _paired(**given: Tensor) -> None:
    shapes = {name: list(value.shape) for name, value in given.items()}
    first = next(iter(given.values()))
    if first.numel() == 0 or any(shape != list(first.shape) for shape in shapes.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise RolloutError(f"got {told}; give the same pairs in all, at least one of them")
