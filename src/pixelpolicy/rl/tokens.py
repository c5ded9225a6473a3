"""Sequences of tokens as trajectories: a state is the token just written, an action is the next one."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelpolicy.errors import RolloutError
from pixelpolicy.rl.log_probs import at_least_float32, categorical_log_prob


def token_log_probs(
    logits: Float[Tensor, "batch steps+1 choices"], states: Int[Tensor, "batch steps+1"]
) -> Float[Tensor, "batch steps"]:
    """Log-probability of each written token: ``logits[:, t]`` come of ``states[:, : t + 1]`` and are of the next.

    The first state is the prompt's end and was not written; the last logits are of a token behind the end. Raises
    `RolloutError` for shapes that do not fit and for tokens outside ``0 .. choices - 1``.
    """
    return categorical_log_prob(logits[:, :-1], states[:, 1:])


def token_kl(
    logits: Float[Tensor, "*batch choices"], reference: Float[Tensor, "*batch choices"]
) -> Float[Tensor, "*batch"]:
    """KL of ``softmax(logits)`` to ``softmax(reference)`` in nats, exact: over all choices, not the drawn one alone.

    Gradient flows to both. A choice that is forbidden (-inf) in ``logits`` adds nothing, whatever the reference says
    of it. Raises `RolloutError` for shapes that differ.
    """
    if logits.shape != reference.shape:
        raise RolloutError(f"logits have shape {list(logits.shape)}, reference {list(reference.shape)}; give the same")
    forbidden = logits.isneginf()
    log_p, log_q = at_least_float32(logits).log_softmax(-1), at_least_float32(reference).log_softmax(-1)
    # -inf minus -inf would be no number, and 0 times it neither.
    gap = log_p.masked_fill(forbidden, 0) - log_q.masked_fill(forbidden, 0)
    return (log_p.exp() * gap).sum(-1)


def token_advantages(
    advantages: Float[Tensor, "batch"], chosen: Bool[Tensor, "batch steps"]
) -> Float[Tensor, "batch steps"]:
    """A sample's advantage at each token it chose, so weighted that samples count alike however many they chose.

    The mean over ``batch`` and ``steps`` of a loss that is proportional to these is GRPO's: for each sample the mean
    over its tokens, and of these the mean (Shao et al. 2024). A token that is not ``chosen`` has 0. Raises
    `RolloutError` where a sample chose nothing, or there is not one row a sample.
    """
    counts = chosen.sum(1)
    if len(advantages) != len(chosen) or not (counts > 0).all():
        raise RolloutError(
            f"advantages have shape {list(advantages.shape)}, chosen {list(chosen.shape)}; {int((counts == 0).sum())} "
            "rows chose nothing; give one row a sample, with one chosen token at least"
        )
    return chosen * (advantages * chosen.shape[1] / counts)[:, None]
