"""Rewards for motion: a gait that fits the prompt, feet that stay where they are put, and smoothness, which alone
teaches a walker to glide.

Motions are ``[batch, 8, 42]`` as in `worlds.walker`. The pieces are differentiable functions of tensors, so that they
can stand in a reward gradient too; the verifier of the world measures the same things by formulas of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.rl.reward import Reward
from pixelpolicy.worlds import walker

SKATE_SCALE = 0.05  # metres a frame of slide at which a planted score has fallen to 1 / e
TOLERANCE = 0.5  # share of the wanted speed by which the speed may miss it before its score is 0
SMOOTH_SCALE = 0.03  # metres of mean squared second difference's root at which smoothness is 1 / e
Bodies = Float[Tensor, "batch frames parts 7"]


def bodies(samples: Float[Tensor, "batch frames 42"]) -> Bodies:
    """`worlds.walker.bodies` for tensors: every part where it is, with gradient."""
    rows = samples.unflatten(-1, (len(walker.PARTS), walker.NUMBERS))
    steps = torch.cat([torch.zeros_like(rows[:, :1, 0, walker.X]), rows[:, 1:, 0, walker.X]], 1)
    torso = torch.stack([steps.cumsum(1), rows[:, :, 0, walker.Y], rows[:, :, 0, walker.Z]], -1)
    places = torch.cat([torso[:, :, None], rows[:, :, 1:, 1:4] + torso[:, :, None]], 2)
    return torch.cat([rows[..., :1], places, rows[..., 4:]], -1)


def foot_positions(shins: Float[Tensor, "batch frames 2 7"]) -> Float[Tensor, "batch frames 2 2"]:
    """Where the feet are, x and y: the lower ends of the shins, half a length against their direction."""
    along = torch.stack([shins[..., walker.SINE], shins[..., walker.COSINE]], -1)
    return shins[..., [walker.X, walker.Y]] - shins[..., walker.LENGTH, None] * along


def foot_skate(feet: Float[Tensor, "batch frames 2 2"], contact: float = walker.CONTACT) -> Float[Tensor, "batch"]:
    """Metres that a foot slides from a frame to the next while at most ``contact`` high in both, on average.

    0 where no foot is ever planted in two frames running. Gradient to where the feet are, not to when they are down.
    """
    down = feet[..., 1] <= contact
    both = (down[:, 1:] & down[:, :-1]).to(feet.dtype)
    slide = (feet[:, 1:, :, 0] - feet[:, :-1, :, 0]).abs() * both
    return slide.sum((1, 2)) / both.sum((1, 2)).clamp_min(1)


def progress(
    torso: Float[Tensor, "batch frames"], wanted: Float[Tensor, "batch"], seconds: float = walker.SECONDS
) -> Float[Tensor, "batch"]:
    """How near the mean speed comes to the wanted one, both signed, in [0, 1]: 1 there, 0 from `TOLERANCE` away on."""
    speed = (torso[:, -1] - torso[:, 0]) / (seconds * (torso.shape[1] - 1))
    return (1 - (speed - wanted).abs() / (TOLERANCE * wanted.abs())).clamp(0, 1)


def alternation(feet: Float[Tensor, "batch frames 2 2"]) -> Float[Tensor, "batch"]:
    """How the feet pass each other, in metres: the largest less the smallest lead of the left over the right.

    A walker's is the length of two steps; that of one who hops, or whose legs are stiff, is 0.
    """
    lead = feet[:, :, 0, 0] - feet[:, :, 1, 0]
    return lead.amax(1) - lead.amin(1)


def smoothness(centres: Float[Tensor, "batch frames parts 2"]) -> Float[Tensor, "batch"]:
    """``exp(-rms / SMOOTH_SCALE)`` of the second differences over time of where parts are: 1 for a body that glides."""
    second = centres[:, 2:] - 2 * centres[:, 1:-1] + centres[:, :-2]
    return torch.exp(-second.square().flatten(1).mean(1).add(1e-12).sqrt() / SMOOTH_SCALE)


def gated(gates: Float[Tensor, "batch gates"], bonus: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """``0.5 mean(gates) + 0.5 prod(gates) bonus``: each gate pays a little alone, and the bonus all together only."""
    return 0.5 * gates.mean(1) + 0.5 * gates.prod(1) * bonus


def wanted_speeds(prompts: list[str]) -> Float[Tensor, "batch"]:
    """The middle of the range of speeds that each prompt asks for, negative to the left, in metres a second."""
    asked = [walker.parse(text) for text in prompts]
    return torch.tensor([one.direction * sum(walker.SPEEDS[one.gait, one.pace]) / 2 for one in asked])


def gait(
    *,
    foot_positions: Callable = foot_positions,
    foot_skate: Callable = foot_skate,
    progress: Callable = progress,
    alternation: Callable = alternation,
    gated: Callable = gated,
) -> Reward:
    """Whether a motion is the gait asked for, in [0, 1].

    The gates are progress, planted feet (shut for a body that floats), and feet that pass each other or, in a hop,
    keep together; the bonus is 1 for a whole body of the right gait, 0.5 for one of another, 0 for one that is not
    whole, by the world's own checks. Each of the pieces may be replaced.
    """

    def judge(samples: Tensor, prompts: list[str]) -> Tensor:
        samples = samples.detach().cpu().float()
        places = bodies(samples)
        feet = foot_positions(places[:, :, [3, 5]])
        gaits = [walker.parse(text).gait for text in prompts]
        hops = torch.tensor([one == "hop" for one in gaits])
        passes = (alternation(feet) / 0.5).clamp(0, 1)
        checks = walker.verify(samples.numpy(), prompts)
        whole, grounded, right = (
            torch.tensor([float(getattr(v, name)) for v in checks]) for name in ("whole", "grounded", "gait")
        )
        gates = torch.stack(
            [
                progress(places[:, :, 0, walker.X], wanted_speeds(prompts)),
                torch.exp(-foot_skate(feet) / SKATE_SCALE) * grounded,  # a body in the air does not slide either
                torch.where(hops, 1 - passes, passes),
            ],
            1,
        )
        return gated(gates, whole * (0.5 + 0.5 * right))

    return Reward("gait", judge)


def smooth(smoothness: Callable = smoothness) -> Reward:
    """How smoothly the parts move, in [0, 1], whatever the prompt: too heavy in a mix, it freezes the legs."""

    def judge(samples: Tensor, prompts: list[str]) -> Tensor:
        return smoothness(bodies(samples.detach().cpu().float())[..., [walker.X, walker.Y]])

    return Reward("smoothness", judge)


def advance(progress: Callable = progress) -> Reward:
    """Whether the torso moves as fast as the prompt says, and whether it goes there, in [0, 1]: no word of the feet."""

    def judge(samples: Tensor, prompts: list[str]) -> Tensor:
        return progress(bodies(samples.detach().cpu().float())[:, :, 0, walker.X], wanted_speeds(prompts))

    return Reward("progress", judge)


def walker_strict() -> Reward:
    """1 where the verifier of the world accepts, else 0: the world's accuracy."""

    def judge(samples: Tensor, prompts: list[str]) -> Tensor:
        return torch.tensor([float(v.strict) for v in walker.verify(samples.detach().cpu().numpy(), prompts)])

    return Reward("walker strict", judge)
