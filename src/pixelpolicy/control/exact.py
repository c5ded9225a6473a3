"""Policies and worlds small enough to know exactly: a bandit, a chain of tokens, a mixture on the line.

A policy has ``sample(count, generator)``, ``log_prob(samples)`` ``[batch]`` and ``outcomes()``, all that can come out
(on the line, the middles of cells of width ``cell``), so that training can be held against ``p e^(r / beta) / Z``.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.errors import ControlError
from pixelpolicy.rl import chain_distribution, tilted

EDGE, CELLS = 10.0, 4000


class Bandit(nn.Module):
    """One choice of several; a sample is its number."""

    cell = 1.0

    def __init__(self, probabilities: Float[Tensor, "arms"]):
        super().__init__()
        self.logits = nn.Parameter(probabilities.double().log())

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "batch"]:
        return torch.multinomial(self.logits.detach().softmax(0), count, replacement=True, generator=generator)

    def log_prob(self, samples: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        return self.logits.log_softmax(0)[samples]

    def outcomes(self) -> Int[Tensor, "arms"]:
        return torch.arange(len(self.logits))


class Chain(nn.Module):
    """Tokens one after another, each drawn given the one before it; before the first stands token 0."""

    cell = 1.0

    def __init__(self, logits: Float[Tensor, "steps states states"]):
        super().__init__()
        self.logits = nn.Parameter(logits.double())

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "batch steps"]:
        tokens = [torch.zeros(count, dtype=torch.long)]
        for step in self.logits.detach().softmax(-1):
            tokens.append(torch.multinomial(step[tokens[-1]], 1, generator=generator).squeeze(1))
        return torch.stack(tokens[1:], 1)

    def log_prob(self, samples: Int[Tensor, "batch steps"]) -> Float[Tensor, "batch"]:
        return self.logits.log_softmax(-1)[torch.arange(samples.shape[1]), before(samples), samples].sum(1)

    def outcomes(self) -> Int[Tensor, "sequences steps"]:
        return chain_distribution(self.logits.detach())[0]


class Mixture(nn.Module):
    """A number on the line, from a mixture of normal distributions."""

    cell = 2 * EDGE / CELLS

    def __init__(self, weights: Float[Tensor, "parts"], means: Float[Tensor, "parts"], stds: Float[Tensor, "parts"]):
        super().__init__()
        self.logits = nn.Parameter(weights.double().log())
        self.means, self.log_stds = nn.Parameter(means.double()), nn.Parameter(stds.double().log())

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "batch"]:
        part = torch.multinomial(self.logits.detach().softmax(0), count, replacement=True, generator=generator)
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        return self.means.detach()[part] + self.log_stds.detach().exp()[part] * noise

    def log_prob(self, samples: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        parts = torch.distributions.Normal(self.means, self.log_stds.exp()).log_prob(samples[:, None])
        return (self.logits.log_softmax(0) + parts).logsumexp(1)

    def outcomes(self) -> Float[Tensor, "cells"]:
        return (torch.arange(CELLS, dtype=torch.float64) + 0.5) * self.cell - EDGE


def before(tokens: Int[Tensor, "batch steps"]) -> Int[Tensor, "batch steps"]:
    """The token before each."""
    return F.pad(tokens[:, :-1], (1, 0))


def masses(policy: nn.Module) -> Float[Tensor, "outcomes"]:
    """The probability of every outcome, without gradient; on the line, of every cell."""
    with torch.no_grad():
        return policy.log_prob(policy.outcomes()).exp() * policy.cell


def divergence(policy: nn.Module, reference: nn.Module) -> Float[Tensor, ""]:
    """``KL(policy || reference)`` in nats, summed over all outcomes, with gradient."""
    log_p, log_ref = policy.log_prob(policy.outcomes()), reference.log_prob(policy.outcomes())
    return (log_p.exp() * (log_p - log_ref)).sum() * policy.cell


def total_variation(p: Float[Tensor, "outcomes"], q: Float[Tensor, "outcomes"]) -> float:
    """The share of the mass that has to move to make ``q`` of ``p``: 0 where they are the same, 1 where disjoint."""
    return max(0.0, 1 - torch.minimum(p, q).sum().item())


@dataclass(frozen=True)
class World:
    """A reference policy, a reward, what a reward model may see of a sample, and the price ``beta`` of a nat."""

    reference: nn.Module
    reward: Callable[[Tensor], Float[Tensor, "batch"]]
    features: Callable[[Tensor], Float[Tensor, "batch features"]]
    beta: float

    def student(self) -> nn.Module:
        """A copy of the reference, to be trained."""
        return deepcopy(self.reference).requires_grad_()

    def optimum(self) -> Float[Tensor, "outcomes"]:
        """``p e^(r / beta) / Z`` for every outcome: the masses of what maximises ``E[r] - beta KL``."""
        p = masses(self.reference)
        return tilted(p / p.sum(), self.reward(self.reference.outcomes()), self.beta)


def world(name: str) -> World:
    """The world called "bandit", "chain" or "mixture". Raises `ControlError` for any other name.

    A policy can only reach an optimum that it can represent: the chain's reward adds up over neighbours, so that the
    optimum is a chain again; the mixture's is linear, so that the optimum is a mixture again.
    """
    if name == "bandit":
        prizes = torch.tensor([-0.4, 0.2, 0.0, 0.7, 0.3, 1.1], dtype=torch.float64)
        policy, beta = Bandit(torch.tensor([0.35, 0.25, 0.18, 0.12, 0.06, 0.04], dtype=torch.float64)), 0.6
        reward, features = prizes.__getitem__, lambda s: F.one_hot(s, 6).double()
    elif name == "chain":
        pairs = torch.tensor([[0.0, 0.5, -0.2], [-0.2, 0.0, 0.5], [0.5, -0.2, 0.1]], dtype=torch.float64)
        policy, beta = Chain(torch.tensor([[1.0, 0.0, 0.2], [0.2, 0.9, 0.0], [0.0, 0.3, 0.8]]).repeat(4, 1, 1)), 0.6
        reward = lambda s: pairs[before(s), s].sum(1)  # noqa: E731
        features = lambda s: F.one_hot(3 * before(s) + s, 9).sum(1).double()  # noqa: E731
    elif name == "mixture":
        parts = ([0.5, 0.35, 0.15], [-2.0, 0.0, 2.5], [0.7, 0.5, 0.6])
        policy, beta = Mixture(*(torch.tensor(part, dtype=torch.float64) for part in parts)), 0.7
        reward, features = (lambda s: 0.4 * s), lambda s: torch.stack([s / 2, s**2 / 4, s**3 / 8], -1)
    else:
        raise ControlError(f"there is no world '{name}'; choose bandit, chain or mixture")
    return World(policy.requires_grad_(False), reward, features, beta)
