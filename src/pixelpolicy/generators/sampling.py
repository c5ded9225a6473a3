"""How a sequence of tokens is drawn: the distribution made narrower, and a choice from it by one random number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

Narrow = Callable[[Tensor, float, float], Tensor]  # (logits, temperature, top_p) -> logits


class Draft(Protocol):
    """Sequences that are being written, one a prompt: the logits of their next token, and the means to add it."""

    steps: int
    logits: Float[Tensor, "batch choices"]

    def append(self, tokens: Int[Tensor, "batch"]) -> None:
        """Write one token more; ``logits`` are then those of the next, as long as there is one."""
        ...


def nucleus(
    logits: Float[Tensor, "*batch choices"], temperature: float = 1.0, top_p: float = 1.0
) -> Float[Tensor, "*batch choices"]:
    """Logits of the distribution that is really drawn from: divided by ``temperature``, the unlikely tail at -inf.

    What stays is the fewest choices whose probabilities add up to ``top_p``, the nucleus: the likeliest always, and
    each whose likelier ones do not reach ``top_p`` yet. Raises `ValueError` out of range.
    """
    if not (temperature > 0 and 0 < top_p <= 1):
        raise ValueError(f"temperature {temperature} and top_p {top_p} were given; temperature > 0, 0 < top_p <= 1")
    logits = logits / temperature
    if top_p == 1:
        return logits
    probabilities, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    beyond = probabilities.cumsum(-1) - probabilities >= top_p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf"))


def choose(logits: Float[Tensor, "batch choices"], uniforms: Float[Tensor, "batch"]) -> Int[Tensor, "batch"]:
    """The choice at which the cumulative probability passes a uniform number in [0, 1); one of probability 0 never."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulative, uniforms.double()[:, None] * cumulative[:, -1:], right=True).squeeze(1)


@torch.no_grad()
def write(
    draft: Draft, seeds: Int[Tensor, "batch"], temperature: float = 1.0, top_p: float = 1.0, narrow: Narrow = nucleus
) -> Int[Tensor, "batch steps"]:
    """Draw all tokens of a draft, each sequence from its own random stream: one number a token."""
    streams = [torch.rand(draft.steps, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    uniforms, tokens = torch.stack(streams).to(draft.logits.device), []
    for step in range(draft.steps):
        tokens.append(choose(narrow(draft.logits, temperature, top_p), uniforms[:, step]))
        draft.append(tokens[-1])
    return torch.stack(tokens, 1)
