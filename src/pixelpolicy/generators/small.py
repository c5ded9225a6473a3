"""Networks that learn a flow in seconds to minutes on one core: for points of the plane, and for digits.

Both take a state and its noise level and answer with a tensor of the state's shape; what it means, a picture, noise or
a velocity, the caller decides (`generators.prediction`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.errors import TrainingError
from pixelpolicy.generators.training import schedule

NO_LABEL = 10  # what `DigitNet` is told where it is told nothing
WAVES = 8


def level_features(level: Float[Tensor, "batch"]) -> Float[Tensor, "batch 17"]:
    """A noise level in [0, 1] as waves of growing frequency, so that a network tells near levels apart."""
    angle = level[:, None] * torch.pi * 2.0 ** torch.arange(-1, WAVES - 1, device=level.device)
    return torch.cat([level[:, None], angle.sin(), angle.cos()], 1)


class PointNet(nn.Module):
    """A few dense layers for points of the plane: ``x [batch, 2]``, ``level [batch]`` to ``[batch, 2]``."""

    def __init__(self, width: int = 128, layers: int = 4):
        super().__init__()
        sizes = [2 + 2 * WAVES + 1] + [width] * layers
        hidden = [part for i in range(layers) for part in (nn.Linear(*sizes[i : i + 2]), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, x: Float[Tensor, "batch 2"], level: Float[Tensor, "batch"]) -> Float[Tensor, "batch 2"]:
        return self.layers(torch.cat([x, level_features(level)], 1))


class Block(nn.Module):
    """Two convolutions beside a shortcut; what is known of level and label scales and shifts what lies between."""

    def __init__(self, width: int, known: int):
        super().__init__()
        self.norm = nn.GroupNorm(4, width, affine=False)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.modulation = nn.Linear(known, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.modulation(known)[..., None, None].chunk(2, 1)
        return x + self.second(F.silu(self.first(F.silu(self.norm(x))) * (1 + scale) + shift))


class DigitNet(nn.Module):
    """A small convolutional network for digits: ``x [batch, 1, 16, 16]``, ``level [batch]``, ``labels [batch]``.

    It works at 8x8 and 4x4, where a convolution sees the whole digit. `NO_LABEL` stands for "any digit".
    """

    def __init__(self, fine: int = 48, coarse: int = 96, known: int = 96):
        super().__init__()
        self.label, self.level = nn.Embedding(NO_LABEL + 1, known), nn.Linear(2 * WAVES + 1, known)
        self.known = nn.Sequential(nn.SiLU(), nn.Linear(known, known), nn.SiLU())
        self.enter, self.leave = nn.Conv2d(1, fine, 4, 2, 1), nn.ConvTranspose2d(fine, 1, 4, 2, 1)
        self.down, self.up = nn.Conv2d(fine, coarse, 2, 2), nn.ConvTranspose2d(coarse, fine, 2, 2)
        self.before, self.after = Block(fine, known), Block(fine, known)
        self.middle = nn.ModuleList([Block(coarse, known), Block(coarse, known)])

    def forward(
        self, x: Float[Tensor, "batch 1 16 16"], level: Float[Tensor, "batch"], labels: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch 1 16 16"]:
        known = self.known(self.label(labels) + self.level(level_features(level)))
        skipped = self.before(self.enter(x), known)
        coarse = self.down(skipped)
        for block in self.middle:
            coarse = block(coarse, known)
        return self.leave(F.silu(self.after(skipped + self.up(coarse), known)))


class WaistNet(nn.Module):
    """Dense layers for digits that all must squeeze through a narrow waist; called as `DigitNet` is.

    A digit fits through a few dozen numbers, noise of 256 does not: this network shows what is easy to predict.
    """

    def __init__(self, waist: int = 32, width: int = 384, pixels: int = 256):
        super().__init__()
        told = 2 * WAVES + 1 + NO_LABEL + 1
        self.inwards = nn.Sequential(nn.Linear(pixels + told, width), nn.SiLU(), nn.Linear(width, waist))
        self.outwards = nn.Sequential(nn.Linear(waist + told, width), nn.SiLU(), nn.Linear(width, pixels))

    def forward(
        self, x: Float[Tensor, "batch 1 16 16"], level: Float[Tensor, "batch"], labels: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch 1 16 16"]:
        told = torch.cat([level_features(level), F.one_hot(labels, NO_LABEL + 1).to(x)], 1)
        squeezed = self.inwards(torch.cat([x.flatten(1), told], 1))
        return self.outwards(torch.cat([squeezed, told], 1)).view_as(x)


def fit(
    network: nn.Module,
    loss: Callable[[], Float[Tensor, ""]],
    steps: int,
    *,
    rate: float = 2e-3,
    warmup: int = 100,
    decay: float = 0.998,
    report: Callable[[int, float], None] = lambda *_: None,
) -> list[float]:
    """Descend ``loss()``, drawn anew at each step, and return its values; the network ends with averaged weights.

    AdamW with linear warm-up and half a cosine to zero, the gradient clipped at length 1; the average is exponential
    with ``decay``, shorter at the start. ``report`` is told each step and its loss. Raises `TrainingError` where the
    loss is no finite number or has no gradient; the network is then as the last sound step left it.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    values = []
    for step in range(steps):
        value = loss()
        if not value.requires_grad or not math.isfinite(value.item()):
            state = f"is {value.item():.4g}" if value.requires_grad else "has no gradient"
            raise TrainingError(f"the loss of step {step} {state}; it must be finite and reach the network's weights")
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, steps, warmup=warmup)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(decay, (step + 1) / (step + 10)))
        values.append(value.item())
        report(step, values[-1])
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.data.copy_(mean)
    return values
