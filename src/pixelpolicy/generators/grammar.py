"""Which token may stand where: a layout of words first, then the codes of a picture. All else has probability 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelpolicy.worlds import layouts


@dataclass(frozen=True)
class Grammar:
    """Sequences of ``layouts.LENGTH`` words and ``picture`` codes.

    Tokens are numbered: first the words of `layouts.WORDS`, then ``codes`` codes. In a layout the first slot is filled,
    and behind an empty one all are empty: tokens that nobody chose, of probability 1.
    """

    codes: int
    picture: int

    @property
    def first_code(self) -> int:
        return len(layouts.WORDS)

    @property
    def choices(self) -> int:
        return self.first_code + self.codes

    @property
    def steps(self) -> int:
        return layouts.LENGTH + self.picture

    @cached_property
    def by_step(self) -> Bool[Tensor, "steps choices"]:
        """What may stand at each step of a sequence whose layout has not ended."""
        allowed = torch.zeros(self.steps, self.choices, dtype=torch.bool)
        for step in range(layouts.LENGTH):
            allowed[step, [layouts.WORDS.index(word) for word in layouts.ALLOWED[step % layouts.SLOT]]] = True
        allowed[layouts.SLOT : layouts.LENGTH : layouts.SLOT, 0] = True
        allowed[layouts.LENGTH :, self.first_code :] = True
        return allowed

    def ended(self, tokens: Int[Tensor, "batch written"]) -> Bool[Tensor, "batch written"]:
        """Whether the layout has ended at or before each token that is written."""
        begun = torch.arange(tokens.shape[1], device=tokens.device)
        starts = (begun % layouts.SLOT == 0) & (begun < layouts.LENGTH)
        return ((tokens == 0) & starts).cummax(1).values if tokens.shape[1] else tokens.bool()

    def allowed_next(self, tokens: Int[Tensor, "batch written"]) -> Bool[Tensor, "batch choices"]:
        """What may follow the tokens that are written."""
        step = tokens.shape[1]
        allowed = self.by_step[step].to(tokens.device).expand(len(tokens), -1)
        if not 0 < step < layouts.LENGTH:
            return allowed
        return torch.where(self.ended(tokens)[:, -1:], self._empty(tokens), allowed)

    def allowed(self, tokens: Int[Tensor, "batch steps"]) -> Bool[Tensor, "batch steps choices"]:
        """What may stand at each step of whole sequences, given what stands before it."""
        allowed = self.by_step.to(tokens.device).expand(len(tokens), -1, -1).clone()
        over = self.ended(tokens)[:, : layouts.LENGTH - 1]
        allowed[:, 1 : layouts.LENGTH][over] = self._empty(tokens)
        return allowed

    def masked(
        self, logits: Float[Tensor, "batch steps+1 choices"], tokens: Int[Tensor, "batch steps"]
    ) -> Float[Tensor, "batch steps+1 choices"]:
        """Logits with -inf for what may not stand there; the last speak of no token and stay."""
        return torch.cat([logits[:, :-1].masked_fill(~self.allowed(tokens), float("-inf")), logits[:, -1:]], 1)

    def _empty(self, tokens: Tensor) -> Bool[Tensor, "choices"]:
        return torch.arange(self.choices, device=tokens.device) == 0
