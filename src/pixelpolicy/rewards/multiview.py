"""Rewards that see an object from several sides: a learned preference, and whether the views agree with each other.

`MultiViewNetwork` is Reward3D in small (DreamReward: Ye et al. 2024, arXiv 2403.14613): rendered views and a prompt to
one number, fitted to comparisons by the Bradley-Terry model. `agreement` is the reward of Carve3D in small (Xie et al.
2023, arXiv 2312.13980): carve a solid out of the views, and compare it with them.

    rater = Rater()
    pairs = compare(*drawn_pairs(2_000, rng), rater, rng)         # who won, from a rater that errs as people do
    network = MultiViewNetwork()
    fit_pairs(network, views_of(pairs.winners), views_of(pairs.losers), pairs.prompts, steps=400)
    held_out_agreement(network, others)                           # beside share_won of the rater's own worth
    reward = multiview_reward(network)                            # of pieces [batch, 12, 10], with a gradient
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.errors import RewardError, SizeError
from pixelpolicy.rewards.rendering import soft_views
from pixelpolicy.rewards.stability import standing, symmetry
from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import boxes as solids
from pixelpolicy.worlds import furniture

SIZE = 24  # pixels of a side of a view
GRID = 48  # points of a side of the cube that is carved
FAINT, PLAIN = 0.12, 0.30  # how far a colour is from the background's where a pixel begins to count, and counts whole


@torch.no_grad()
def views_of(
    pieces: Float[Tensor, "batch boxes 10"] | np.ndarray, size: int = SIZE, batch_size: int = 128
) -> Float[Tensor, "batch views 3 size size"]:
    """The usual four soft views of pieces, in [-1, 1], without gradient; about 4 ms a piece at 24 pixels."""
    pieces = torch.as_tensor(pieces, dtype=torch.float32)
    return torch.cat([soft_views(part, size=size)[0] for part in pieces.split(batch_size)])


# A learned preference -------------------------------------------------------------------------------------------------


def pooled(each: Float[Tensor, "batch views features"]) -> Float[Tensor, "batch two_features"]:
    """The mean over the views and, since one bad side is enough to spoil a piece, the maximum of every feature."""
    return torch.cat([each.mean(1), each.amax(1)], 1)


class MultiViewNetwork(nn.Module):
    """Views ``[batch, views, 3, side, side]`` of one object each, and the words of its prompt, to one number each.

    The same convolutions see every view, with its coordinates; the prompt scales and shifts their channels (FiLM, Perez
    et al. 2018, arXiv 1709.07871). Then the views meet in ``pool``, from features ``[batch, views, 64]`` to
    ``[batch, 128]``. By `pooled` the order of views does not count, nor how many there are.
    """

    def __init__(self, width: int = 24, text_width: int = 32, *, pool: Callable[[Tensor], Tensor] = pooled):
        super().__init__()
        self.pool = pool
        self.embedding = nn.Embedding(len(furniture.VOCABULARY), text_width)
        self.sentence = nn.Sequential(nn.Linear(furniture.MOST_WORDS * text_width, 64), nn.SiLU())
        channels = (5, width, 2 * width, 2 * width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.films = nn.ModuleList(nn.Linear(64, 2 * c) for c in channels[1:])
        self.view = nn.Sequential(nn.Linear(2 * width * 9, 64), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(64 * 3, 64), nn.SiLU(), nn.Linear(64, 1))
        line = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(line, line, indexing="ij")), persistent=False)

    def tokens(self, prompts: list[str]) -> Int[Tensor, "batch words"]:
        """Token numbers of prompts. Raises `PromptError` outside the vocabulary of furniture."""
        return torch.tensor(furniture.token_rows(prompts), device=self.coordinates.device)

    def forward(
        self, views: Float[Tensor, "batch views 3 side side"], tokens: Int[Tensor, "batch words"]
    ) -> Float[Tensor, "batch"]:
        batch, count = views.shape[:2]
        words = self.sentence(self.embedding(tokens).flatten(1))
        seen = words.repeat_interleave(count, 0)
        x = torch.cat([views.flatten(0, 1), self.coordinates.expand(batch * count, -1, -1, -1)], 1)
        for convolution, film in zip(self.convolutions, self.films, strict=True):
            scale, shift = film(seen)[:, :, None, None].chunk(2, 1)
            x = F.silu(convolution(x) * (1 + scale) + shift)
        each = self.view(x.flatten(1)).unflatten(0, (batch, count))
        return self.head(torch.cat([self.pool(each), words], 1)).squeeze(1)


def multiview_reward(network: MultiViewNetwork, name: str = "multi-view") -> Reward:
    """A network as a differentiable reward on pieces ``[batch, boxes, 10]``, which it sees by `soft_views`.

    Its weights stay as they are. Raises `RewardError` for samples that are no pieces, `PromptError` outside the
    vocabulary. What it was fitted to remains the independent check: a proxy with a gradient is climbed quickly.
    """
    network = network.eval().requires_grad_(False)

    def reward(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        network.to(samples.device)
        return network(soft_views(samples.float(), size=SIZE)[0], network.tokens(prompts))

    return Reward(name, reward, differentiable=True)


# A simulated rater ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rater:
    """Somebody who compares two pieces of one prompt, and errs where they are alike.

    What a piece is worth is whether it stands by degrees (`stability.standing`), whether it is in the colour asked
    for, whether it resembles a true piece of its kind, and its symmetry, each with a weight. The better piece wins with
    probability ``sigmoid((difference of worth) / temperature)``, which is the Bradley-Terry model.
    """

    stands: float = 1.0
    colour: float = 1.0
    resembles: float = 1.0
    symmetry: float = 0.5
    temperature: float = 0.35

    def worth(self, pieces: Float[Tensor, "batch boxes 10"] | np.ndarray, prompts: list[str]) -> Float[Tensor, "batch"]:
        """What the rater truly thinks of pieces, without error."""
        pieces = torch.as_tensor(pieces, dtype=torch.float32)
        verdicts = furniture.verify(pieces.numpy(), prompts)
        near = torch.from_numpy(furniture.resembles(pieces.numpy(), prompts)).float()
        coloured = torch.tensor([v.colour for v in verdicts]).float()
        value = self.stands * standing()(pieces, prompts) + self.symmetry * symmetry()(pieces, prompts)
        return value + self.colour * coloured + self.resembles * near

    def prefers(
        self, first: Tensor | np.ndarray, second: Tensor | np.ndarray, prompts: list[str], rng: np.random.Generator
    ) -> np.ndarray:
        """Whether the first of each two wins, ``[batch]``; the rater's errors follow from ``rng``."""
        margin = (self.worth(first, prompts) - self.worth(second, prompts)).double() / self.temperature
        return rng.random(len(prompts)) < margin.sigmoid().numpy()


@dataclass(frozen=True)
class Compared:
    """Pieces ``[pairs, boxes, 10]`` that a rater preferred, those it passed over, and what both were to be."""

    prompts: list[str]
    winners: Float[Tensor, "pairs boxes 10"]
    losers: Float[Tensor, "pairs boxes 10"]


def compare(
    first: Tensor | np.ndarray, second: Tensor | np.ndarray, prompts: list[str], rater: Rater, rng: np.random.Generator
) -> Compared:
    """Let a rater compare two pieces of each prompt. Raises `RewardError` for uneven numbers."""
    first, second = (torch.as_tensor(pieces, dtype=torch.float32) for pieces in (first, second))
    if not len(first) == len(second) == len(prompts):
        raise RewardError(
            f"{len(first)} pieces were to be compared with {len(second)}, for {len(prompts)} prompts; give two a prompt"
        )
    won = torch.from_numpy(rater.prefers(first, second, prompts, rng))[:, None, None]
    return Compared(list(prompts), torch.where(won, first, second), torch.where(won, second, first))


def drawn_pairs(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two pieces of each of ``count`` prompts out of the world itself: sound ones, flawed ones, and wrong ones.

    Of each two, either may be flawed (half are), or be a piece of another prompt (a fifth are). A generator's own
    samples may stand beside them: what a reward model has not seen it cannot judge.
    """
    texts = furniture.draw_prompts(count, rng)

    def one() -> np.ndarray:
        shown = [other if rng.random() < 0.2 else text for text, other in zip(texts, wrong(), strict=True)]
        sound, flawed = furniture.draw(shown, rng), furniture.draw(shown, rng, flawed=True)
        return np.where(rng.random((count, 1, 1)) < 0.5, sound, flawed)

    def wrong() -> list[str]:
        return furniture.draw_prompts(count, rng)

    return one(), one(), texts


def share_won(winners: Float[Tensor, "pairs"], losers: Float[Tensor, "pairs"]) -> float:
    """The share of comparisons whose winner has the higher score; ties count half."""
    return ((winners > losers).float() + 0.5 * (winners == losers).float()).mean().item()


@torch.no_grad()
def held_out_agreement(network: MultiViewNetwork, pairs: Compared, views: Sequence[int] | None = None) -> float:
    """In what share of comparisons the network rates the winner higher, by all views or only some (by number).

    The rater's own `Rater.worth` in `share_won` is the ceiling: its errors cannot be foreseen.
    """
    chosen = list(range(len(solids.AZIMUTHS))) if views is None else list(views)
    tokens = network.tokens(pairs.prompts)
    return share_won(*(network(views_of(pieces)[:, chosen], tokens) for pieces in (pairs.winners, pairs.losers)))


# Views that agree -----------------------------------------------------------------------------------------------------


def masks_of(pictures: Float[Tensor, "*batch 3 side side"]) -> Float[Tensor, "*batch side side"]:
    """Soft silhouettes in [0, 1] of pictures in [-1, 1]: how far a pixel is from the colour of the background.

    0 up to a distance of `FAINT` in [0, 1] units, 1 from `PLAIN` on.
    """
    ground = torch.from_numpy(solids.BACKGROUND).to(pictures)[:, None, None]
    distance = ((pictures + 1) / 2 - ground).square().sum(-3).clamp_min(1e-12).sqrt()
    return ((distance - FAINT) / (PLAIN - FAINT)).clamp(0, 1)


@functools.cache
def _pixels(azimuths: tuple[float, ...], elevation: float, size: int, grid: int) -> Tensor:
    return torch.from_numpy(solids.pixels_of_grid(azimuths, elevation=elevation, size=size, side=grid))


def carve(
    masks: Float[Tensor, "batch views side side"],
    azimuths: tuple[float, ...] = solids.AZIMUTHS,
    *,
    elevation: float = solids.ELEVATION,
    grid: int = GRID,
) -> Float[Tensor, "batch points"]:
    """The visual hull: how far each point of a cube lies inside all silhouettes, their *minimum* at that point.

    The product would punish a point seen as 0.9 in four views as if it were 0.66 there, and so a clean object too.
    """
    pixels = _pixels(tuple(azimuths), elevation, masks.shape[-1], grid).to(masks.device)
    return torch.stack([masks[:, v].flatten(1)[:, pixels[v]] for v in range(len(pixels))], 1).amin(1)


def project(
    hull: Float[Tensor, "batch points"],
    size: int,
    azimuths: tuple[float, ...] = solids.AZIMUTHS,
    *,
    elevation: float = solids.ELEVATION,
    grid: int = GRID,
) -> Float[Tensor, "batch views side side"]:
    """What a carved solid looks like from each side: in every pixel the most solid of the points that fall in it."""
    pixels = _pixels(tuple(azimuths), elevation, size, grid).to(hull.device)
    empty = hull.new_zeros(len(hull), size * size)
    seen = [empty.scatter_reduce(1, row.expand(len(hull), -1), hull, "amax") for row in pixels]
    return torch.stack(seen, 1).unflatten(-1, (size, size))


def agreement(
    masks: Float[Tensor, "batch views side side"],
    azimuths: tuple[float, ...] = solids.AZIMUTHS,
    *,
    elevation: float = solids.ELEVATION,
    grid: int = GRID,
) -> Float[Tensor, "batch"]:
    """How well silhouettes agree: the intersection over union of each with the carved solid, the mean over the views.

    A solid fits inside all its silhouettes, so that what one view shows and another denies is carved away and missed.
    Views of one true object come near 1 (not to it: the cube has a grid). Empty views score 0. Carries gradient.
    Raises `SizeError` unless there is one mask a view.
    """
    if masks.ndim != 4 or masks.shape[1] != len(azimuths) or masks.shape[2] != masks.shape[3]:
        raise SizeError(
            f"silhouettes of shape {list(masks.shape)} came with {len(azimuths)} azimuths; "
            f"give [batch, {len(azimuths)}, side, side]"
        )
    seen = project(carve(masks, azimuths, elevation=elevation, grid=grid), masks.shape[-1], azimuths,
                   elevation=elevation, grid=grid)  # fmt: skip
    shared, either = torch.minimum(masks, seen).sum((2, 3)), torch.maximum(masks, seen).sum((2, 3))
    return (shared / either.clamp_min(1e-6)).mean(1)


def consistency() -> Reward:
    """`agreement` of pictures ``[batch, views, 3, side, side]`` in [-1, 1] from the usual four sides; differentiable.

    It looks at outlines alone: four equal blocks agree perfectly, so put it beside a reward that asks for the prompt.
    """
    return Reward("consistency", lambda pictures, _: agreement(masks_of(pictures)), differentiable=True)
