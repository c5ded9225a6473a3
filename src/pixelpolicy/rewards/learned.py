"""Learned rewards: a small network that judges pictures, fitted to scores or to comparisons.

A learned reward has a gradient, which the verifier has not: it is the proxy that gradient methods climb, and that every
method can over-optimise. What it was fitted to remains the independent check.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from pixelpolicy.errors import RewardError
from pixelpolicy.generators.checkpoint import CHECKPOINTS, load_weights
from pixelpolicy.rl.preferences import bradley_terry_loss
from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import shapes

PROXY = CHECKPOINTS / "proxy" / "proxy.safetensors"


class RewardNetwork(nn.Module):
    """Pictures of shapes and the words of their prompts to one number each.

    Convolutions see the picture and its coordinates; the prompt scales and shifts their channels (FiLM, Perez et al.
    2018, arXiv 1709.07871), so that "left of" may look for other things than "red".
    """

    def __init__(self, width: int = 32, text_width: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(len(shapes.VOCABULARY), text_width)
        self.sentence = nn.Sequential(
            nn.Linear(shapes.MOST_WORDS * text_width, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU()
        )
        self.stem = nn.Conv2d(5, width, 3, stride=2, padding=1)
        channels = (width, width, 2 * width, 2 * width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 + (a != b), padding=1) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.films = nn.ModuleList(nn.Linear(128, 2 * c) for c in channels)
        self.head = nn.Sequential(nn.Linear(2 * width * 16 + 128, 128), nn.SiLU(), nn.Linear(128, 1))
        line = (torch.arange(shapes.SIZE) + 0.5) / shapes.SIZE * 2 - 1
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(line, line, indexing="ij")), persistent=False)

    def tokens(self, prompts: list[str]) -> Int[Tensor, "batch words"]:
        """Token numbers of prompts. Raises `PromptError` outside the vocabulary."""
        return torch.tensor(shapes.token_rows(prompts), device=self.coordinates.device)

    def forward(
        self, pictures: Float[Tensor, "batch 3 side side"], tokens: Int[Tensor, "batch words"]
    ) -> Float[Tensor, "batch"]:
        words = self.sentence(self.embedding(tokens).flatten(1))
        coordinates = self.coordinates.expand(pictures.shape[0], -1, -1, -1)
        x = self.stem(torch.cat([pictures, coordinates], 1))
        for i, film in enumerate(self.films):
            scale, shift = film(words)[:, :, None, None].chunk(2, 1)
            x = F.silu(x * (1 + scale) + shift)
            if i < len(self.convolutions):
                x = self.convolutions[i](x)
        spots = F.avg_pool2d(x, x.shape[-1] // 4).flatten(1)
        return self.head(torch.cat([spots, words], 1)).squeeze(1)


def learned_reward(network: RewardNetwork, name: str = "learned") -> Reward:
    """A network as a differentiable reward on pictures ``[batch, 3, 32, 32]`` in [-1, 1]; its weights stay as they are.

    Raises `RewardError` for pictures of another shape, `PromptError` outside the vocabulary.
    """
    network = network.eval().requires_grad_(False)

    def reward(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        if not isinstance(samples, Tensor) or samples.shape[1:] != (3, shapes.SIZE, shapes.SIZE):
            given = f"shape {list(samples.shape)}" if isinstance(samples, Tensor) else type(samples).__name__
            raise ValueError(f"pictures must be a tensor of shape [batch, 3, 32, 32] in [-1, 1]; given {given}")
        network.to(samples.device)
        return network(samples.float(), network.tokens(prompts))

    return Reward(name, reward, differentiable=True)


@functools.cache
def learned_proxy() -> Reward:
    """The shipped proxy of `shapes_dense`, by the name "proxy"; `pixelpolicy.rewards.proxy` says how it was made.

    Raises `CheckpointError` where its weights are missing or altered.
    """
    network = RewardNetwork()
    network.load_state_dict(load_weights(PROXY))
    return learned_reward(network, "proxy")


def fit_scores(
    network: RewardNetwork,
    pictures: Float[Tensor, "samples 3 side side"],
    prompts: list[str],
    scores: Float[Tensor, "samples"],
    *,
    steps: int = 3_000,
    batch: int = 128,
    seed: int = 0,
) -> list[float]:
    """Fit the network to scores by least squares, in place; the losses of the steps. Raises `RewardError` for NaN."""
    tokens = network.tokens(prompts)

    def loss(rows: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        return F.mse_loss(network(noise(pictures[rows]), tokens[rows]), scores[rows].float())

    return _fit(network, loss, len(_finite(scores)), steps, batch, seed)


def fit_pairs(
    network: nn.Module,
    winners: Float[Tensor, "pairs *views 3 side side"],
    losers: Float[Tensor, "pairs *views 3 side side"],
    prompts: list[str],
    *,
    steps: int = 600,
    batch: int = 64,
    seed: int = 0,
) -> list[float]:
    """Fit the network to comparisons of two pictures of one prompt (`bradley_terry_loss`), in place; the losses.

    `RewardNetwork` or another with ``tokens``, such as `multiview.MultiViewNetwork`, which sees several views of each.
    """
    tokens = network.tokens(prompts)

    def loss(rows: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        both = torch.cat([winners[rows], losers[rows]])
        won, lost = network(noise(both), tokens[rows].repeat(2, 1)).chunk(2)
        return bradley_terry_loss(won, lost)

    return _fit(network, loss, len(_finite(winners)), steps, batch, seed)


def _fit(network: nn.Module, loss: Callable, count: int, steps: int, batch: int, seed: int) -> list[float]:
    """AdamW with a short warm-up and a straight descent to zero; pictures get a little noise, as a sampler's have."""
    network.train().requires_grad_(True)
    stream = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 100) * (1 - step / steps))

    def noise(pictures: Tensor) -> Tensor:
        strength = 0.1 * torch.rand(len(pictures), *[1] * (pictures.ndim - 1), generator=stream)
        return pictures.float() + strength * torch.randn(pictures.shape, generator=stream)

    losses = []
    for _ in (bar := tqdm(range(steps), desc="reward model")):
        value = loss(torch.randint(count, (batch,), generator=stream), noise)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        ramp.step()
        losses.append(value.item())
        if len(losses) % 100 == 0:
            bar.set_postfix(loss=f"{sum(losses[-100:]) / 100:.4f}")
    network.eval().requires_grad_(False)
    return losses


def _finite(values: Tensor) -> Tensor:
    if not len(values) or not values.isfinite().all():
        raise RewardError(
            f"a reward model was to be fitted to {len(values)} values, of which "
            f"{int((~values.isfinite()).sum())} are not finite; give at least one, and only finite ones"
        )
    return values
