"""Several reward models in place of one: where they disagree, none of them knows.

Coste et al. (2024, *Reward Model Ensembles Help Mitigate Overoptimization*) climb the worst of several models, or their
mean less their variance. Here the models are heads on one frozen body, so that several cost what one does; they share
the body's blind spots, which no disagreement shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelpolicy.errors import RewardError
from pixelpolicy.generators.checkpoint import load_weights
from pixelpolicy.rewards.learned import PROXY, RewardNetwork, learned_reward
from pixelpolicy.rewards.verifier import shapes_dense
from pixelpolicy.rl.preferences import bradley_terry_loss
from pixelpolicy.rl.reward import Reward

Combine = Callable[[Float[Tensor, "members batch"]], Float[Tensor, "batch"]]


# Answers of a rater -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparisons:
    """Answers of a rater: of two pictures ``[pairs, 3, side, side]`` of each prompt, which one was preferred."""

    winners: Tensor
    losers: Tensor
    prompts: list[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: slice) -> Comparisons:
        return Comparisons(self.winners[rows], self.losers[rows], self.prompts[rows])


def simulated_comparisons(
    left: Tensor,
    right: Tensor,
    prompts: list[str],
    *,
    gold: Reward | None = None,
    temperature: float = 0.1,
    slips: float = 0.05,
    least_gap: float = 0.0,
    seed: int = 0,
) -> Comparisons:
    """What a rater with faults says of pairs of pictures; those less than ``least_gap`` apart in gold are left out.

    It prefers the left one with probability ``(1 - slips) sigmoid((gold_l - gold_r) / temperature) + slips / 2``. Gold
    is the dense verifier unless given. Raises `RewardError` where no pair is left.
    """
    gold = gold or shapes_dense()
    gap = gold(left, prompts) - gold(right, prompts)
    chance = (1 - slips) * torch.sigmoid(gap / temperature) + slips / 2
    left_won = torch.rand(len(chance), generator=torch.Generator().manual_seed(seed)) < chance
    rows = (gap.abs() >= least_gap).nonzero()[:, 0]
    if not len(rows):
        raise RewardError(f"none of {len(prompts)} pairs differs by {least_gap} in gold; give more, or a smaller gap")
    won = left_won[rows, None, None, None]
    winners, losers = torch.where(won, left[rows], right[rows]), torch.where(won, right[rows], left[rows])
    return Comparisons(winners, losers, [prompts[row] for row in rows])


# Models of the rater ------------------------------------------------------------------------------------------------


class Committee(nn.Module):
    """Heads on one body: pictures ``[batch, 3, 32, 32]`` and prompts to ``[members, batch]``, with gradient.

    The body is the shipped proxy without its head, as a reward model of real pictures begins from an encoder that has
    seen many; features are brought to mean 0 and deviation about 1 on the pictures that were compared.
    """

    def __init__(self, members: int, hidden: int = 64):
        super().__init__()
        self.body = RewardNetwork()
        self.body.load_state_dict(load_weights(PROXY))
        features = self.body.head[0].in_features
        self.body.head = nn.Identity()
        self._body = learned_reward(self.body).function  # checks the pictures, freezes the body
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, 1)) for _ in range(members)
        )

    def features(self, samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch features"]:
        self.to(samples.device)
        return (self._body(samples, prompts) - self.mean) / self.scale

    def forward(self, samples: Tensor, prompts: list[str]) -> Float[Tensor, "members batch"]:
        features = self.features(samples, prompts)
        return torch.stack([head(features).squeeze(1) for head in self.heads])

    def reward(self, combine: Combine | int = 0, name: str = "committee") -> Reward:
        """A differentiable reward: one member by its number, or all of them by a function of ``[members, batch]``."""
        chosen = (lambda scores: scores[combine]) if isinstance(combine, int) else combine
        return Reward(name, lambda samples, prompts: chosen(self(samples, prompts)), differentiable=True)


def fit_committee(
    comparisons: Comparisons,
    members: int = 5,
    *,
    steps: int = 300,
    batch: int = 64,
    learning_rate: float = 2e-3,
    centring: float = 0.01,
    seed: int = 0,
) -> Committee:
    """Heads that learnt from the same answers, by `bradley_terry_loss`.

    They differ in where they began and in how often each answer counts for them (a bootstrap; the first sees each
    once). A preference model is known up to a constant of each prompt only, since that cancels in every pair. So
    ``centring`` times the mean square of each pair's sum is added: else the members' spread would be that of their
    constants. Raises `RewardError` for no members, or pictures of the wrong shape.
    """
    if members < 1:
        raise RewardError(f"a committee of {members} members was asked for; give at least one")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        committee = Committee(members)
    with torch.no_grad():
        sides = [committee.features(side, comparisons.prompts) for side in (comparisons.winners, comparisons.losers)]
        committee.mean.copy_(torch.cat(sides).mean(0))
        committee.scale.copy_(torch.cat(sides).std(0) + 0.01)
        won, lost = ((side - committee.mean) / committee.scale for side in sides)
    for member, head in enumerate(committee.heads):
        count = len(comparisons)
        drawn = torch.from_numpy(np.random.default_rng([seed, member]).integers(count, size=count))
        seen = drawn if member else torch.arange(count)
        _fit_head(head, won[seen], lost[seen], steps, batch, learning_rate, centring, 1000 * seed + member)
    return committee.requires_grad_(False)


def _fit_head(head: nn.Module, won: Tensor, lost: Tensor, steps, batch, learning_rate, centring, seed) -> None:
    stream = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=1e-2)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        rows = torch.randint(len(won), (batch,), generator=stream)
        both = torch.cat([won[rows], lost[rows]])
        both = both + 0.1 * torch.randn(both.shape, generator=stream)
        winner, loser = head(both).squeeze(1).chunk(2)
        loss = bradley_terry_loss(winner, loser) + centring * (winner + loser).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ramp.step()


def agreement(reward: Reward, comparisons: Comparisons) -> float:
    """The share of comparisons that a reward decides as the rater did; equal rewards count half."""
    with torch.no_grad():
        won, lost = (reward(side, comparisons.prompts) for side in (comparisons.winners, comparisons.losers))
    return ((won > lost).float() + 0.5 * (won == lost).float()).mean().item()


# Many opinions, one reward ------------------------------------------------------------------------------------------


def lower_bound(scores: Float[Tensor, "members batch"], caution: float = 1.0) -> Float[Tensor, "batch"]:
    """The mean over members less ``caution`` standard deviations (of these members, so over their number).

    Where all members agree the gradient is that of the mean. Raises `ValueError` for a negative caution.
    """
    if caution < 0:
        raise ValueError(f"caution is {caution}; less than 0 would seek what the members disagree on")
    variance = scores.var(0, correction=0)
    apart = variance > 0  # the root's slope is infinite at 0
    return scores.mean(0) - caution * variance.where(apart, torch.ones_like(variance)).sqrt() * apart


def worst(scores: Float[Tensor, "members batch"]) -> Float[Tensor, "batch"]:
    """The lowest of the members' scores, picture by picture."""
    return scores.amin(0)


def cautious(caution: float) -> Combine:
    """`lower_bound` with a caution."""
    return partial(lower_bound, caution=caution)


def ensemble(members: Sequence[Reward], combine: Combine = lower_bound, name: str = "ensemble") -> Reward:
    """One reward of several, each on the same samples, by a function of their scores ``[members, batch]``.

    Differentiable if all members are. Raises `RewardError` for no members.
    """
    if not members:
        raise RewardError("an ensemble of no rewards was asked for; give at least one")

    def reward(samples, prompts: list[str]) -> Float[Tensor, "batch"]:
        return combine(torch.stack([member(samples, prompts) for member in members]))

    return Reward(name, reward, differentiable=all(member.differentiable for member in members))
