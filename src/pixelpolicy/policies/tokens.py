"""A writer of tokens seen as a policy: the state is what is written so far, the action is the next token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pixelpolicy.errors import RolloutError
from pixelpolicy.generators.sampling import Draft, Narrow, nucleus, write
from pixelpolicy.rl import Rollout, token_kl, token_log_probs


class Writer(Protocol):
    """What a policy asks of a generator of tokens; the small one of `generators` and the real one of `pipelines` have
    it. A token that may not stand where it is has logit -inf."""

    transformer: nn.Module
    steps: int

    def begin(self, prompts: list[str]) -> Draft:
        """Sequences to be written, a token at a time."""
        ...

    def logits(self, prompts: list[str], tokens: Int[Tensor, "batch steps"]) -> Float[Tensor, "batch steps+1 choices"]:
        """Logits of whole sequences at once, with gradient: those at ``t`` are of token ``t``, from all before it."""
        ...

    def drawings(self, tokens: Int[Tensor, "batch steps"]) -> list[Any]:
        """What sequences show, in the world's own units, an entry a sample."""
        ...

    def student(self) -> Writer:
        """The same generator with weights to train; this one stays as it is."""
        ...

    def reference(self) -> Writer:
        """The same generator as it is now, or was before its training, with weights that nothing trains."""
        ...


@dataclass(frozen=True)
class TokenPolicy:
    """The tokens of a sequence as actions of a stochastic policy; a step is a place in the sequence.

    ``states[:, t + 1]`` of its rollouts is token ``t``, and ``states[:, 0]`` is -1, the empty page; ``sigmas`` is the
    share of the sequence that is still to be written. Log-probabilities are those of the distribution that is drawn
    from, ``narrow`` and all. They come of one pass over the whole sequences, as in a replay, not of the pass that
    wrote them token by token, whose rounding differs: so a replay at equal ``micro_batch`` repeats them to the bit.
    """

    generator: Writer
    temperature: float = 1.0
    top_p: float = 1.0
    micro_batch: int = 96
    log_prob_of: Callable[[Tensor, Tensor], Tensor] = token_log_probs
    narrow: Narrow = nucleus

    def frozen_copy(self) -> TokenPolicy:
        """The same policy on weights that nothing trains: the reference of a KL."""
        return replace(self, generator=self.generator.reference())

    def noisy_steps(self) -> list[int]:
        """The steps that draw something: all of them."""
        return list(range(self.generator.steps))

    @torch.no_grad()
    def rollout(self, prompts: list[str], *, seeds: Int[Tensor, "batch"]) -> Rollout:
        """Write one sequence a prompt, each from its own random stream."""
        if len(prompts) != len(seeds):
            raise RolloutError(f"{len(prompts)} prompts came with {len(seeds)} seeds; give one seed a prompt")
        states, log_probs, samples = [], [], []
        for start in range(0, len(prompts), self.micro_batch):
            texts, part = prompts[start : start + self.micro_batch], seeds[start : start + self.micro_batch]
            tokens = write(self.generator.begin(texts), part, self.temperature, self.top_p, self.narrow)
            states.append(torch.cat([torch.full_like(tokens[:, :1], -1), tokens], 1).cpu())
            log_probs.append(self.log_prob_of(self._logits(texts, tokens), states[-1].to(tokens.device)).cpu())
            samples += self.generator.drawings(tokens)
        steps = self.generator.steps
        return Rollout(
            prompts=list(prompts),
            seeds=torch.as_tensor(seeds),
            states=torch.cat(states),
            sigmas=torch.linspace(1, 0, steps + 1),
            stochastic=torch.ones(steps, dtype=torch.bool),
            log_probs=torch.cat(log_probs),
            samples=samples,
        )

    def _logits(self, prompts: list[str], tokens: Tensor) -> Tensor:
        return self.narrow(self.generator.logits(prompts, tokens), self.temperature, self.top_p)

    def logits(self, rollout: Rollout) -> Float[Tensor, "batch steps+1 choices"]:
        """Of the distributions that the tokens were drawn from, with gradient; the last are behind the end."""
        return self._logits(rollout.prompts, rollout.states[:, 1:])

    def log_probs(self, rollout: Rollout) -> Float[Tensor, "batch steps"]:
        """Log-probabilities of all stored tokens in one pass, with gradient."""
        logits = self.logits(rollout)
        return self.log_prob_of(logits, rollout.states.to(logits.device))

    def log_prob(self, rollout: Rollout, step: int) -> Float[Tensor, "batch"]:
        """Log-probability of the stored token at one step, with gradient."""
        rollout.log_prob_at(step)  # raises where there is no such step
        return self.log_probs(rollout)[:, step]


def chosen(logits: Float[Tensor, "batch steps+1 choices"]) -> Bool[Tensor, "batch steps"]:
    """Which tokens were a choice: where more than one could stand."""
    return (~logits[:, :-1].isneginf()).sum(-1) > 1


@torch.no_grad()
def sequence_kl(
    policy: TokenPolicy, reference: TokenPolicy, prompts: list[str], seeds: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """KL from ``policy`` to ``reference`` in nats along the policy's own sequences: exact at every token."""
    rollout, total = policy.rollout(prompts, seeds=seeds), []
    for start in range(0, len(prompts), policy.micro_batch):
        part = rollout.select(slice(start, start + policy.micro_batch))
        logits, others = policy.logits(part)[:, :-1], reference.logits(part)[:, :-1]
        total.append(token_kl(logits, others).sum(1).cpu())
    return torch.cat(total)
