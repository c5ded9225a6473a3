"""Score distillation with a reward: one object's own numbers are optimised, the generator stays frozen.

DreamFusion's score distillation (Poole et al. 2022, arXiv 2209.14988) in the notation of flows, and the reward term
that DreamReward (Ye et al. 2024, arXiv 2403.14613) adds to it. With the furniture generator and a learned preference:

    reward = rewards.multiview_reward(network)
    latents, history = distill(generator, prompts, noise, reward=reward, config=DistillationConfig(reward_weight=0.1))
    pieces = generator.decode(latents)

A learned reward is climbed by every means: judge the pieces by what it was fitted to, such as `Rater.worth`, and lower
``reward_weight`` until that rises too. Even 0.1 may be far too much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.noising import noised
from pixelpolicy.policies.denoising import Denoiser
from pixelpolicy.rl import Reward


def distillation_gradient(
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "batch ..."],
    sigma: Float[Tensor, "batch"],
    velocity: Float[Tensor, "batch ..."],
) -> Float[Tensor, "batch ..."]:
    """``sigma (v - (x1 - x0))``: from the object to what the generator makes of it once noised, with the sign turned.

    ``velocity`` is the frozen generator's at ``(1 - sigma) x0 + sigma x1``, so that this is ``x0`` minus the guessed
    object. The generator is not differentiated, as in score distillation. No gradient passes.
    """
    level = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    return (level * (velocity - (x1 - x0))).detach()


def surrogate(x0: Float[Tensor, "batch ..."], gradient: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """A loss whose gradient in ``x0`` is ``gradient``, per object: its value means nothing."""
    return (x0 * gradient.detach()).sum()


def falling(step: int, steps: int, lowest: float = 0.05, highest: float = 0.95) -> float:
    """Noise levels from high to low: first what the object is as a whole, then its details."""
    return highest + (lowest - highest) * step / max(steps - 1, 1)


@dataclass(frozen=True)
class DistillationConfig:
    """``reward_weight`` is in units of latents: how far a reward of slope 1 pulls against the generator."""

    steps: int = 100
    learning_rate: float = 0.05
    guidance_scale: float = 1.0
    reward_weight: float = 0.0
    seed: int = 0


def distill(
    generator: Denoiser,
    prompts: list[str],
    parameters: Tensor,
    *,
    represent: Callable[[Tensor], Tensor] = lambda parameters: parameters,
    reward: Reward | None = None,
    config: DistillationConfig = DistillationConfig(),
    noise_level: Callable[[int, int], float] = falling,
) -> tuple[Tensor, list[dict[str, float]]]:
    """Optimise ``parameters`` until ``represent(parameters)``, latents ``[batch, ...]``, please generator and reward.

    Returns the final latents and a row of metrics a step: ``pull``, the mean square of `distillation_gradient`, and
    ``reward``. The start is not changed. ``represent`` may be a renderer and its encoder; by default the parameters are
    the latents. Raises `TrainingError` for a reward without gradient.
    """
    if reward is not None and not reward.differentiable:
        raise TrainingError(f"reward '{reward.name}' has no gradient; take a learned one, such as multiview_reward")
    parameters, stream = parameters.detach().clone().requires_grad_(), torch.Generator().manual_seed(config.seed)
    optimizer, history = torch.optim.Adam([parameters], config.learning_rate), []
    told, untold = generator.encode(prompts), generator.encode([""] * len(prompts))
    for step in range(config.steps):
        x0 = represent(parameters)
        x1 = torch.randn(x0.shape, generator=stream).to(x0)
        sigma = x0.new_full((len(x0),), noise_level(step, config.steps))
        with torch.no_grad():
            state = noised(x0, x1, sigma)
            velocity = generator.velocity(state, sigma, *told)
            if config.guidance_scale != 1:
                plain = generator.velocity(state, sigma, *untold)
                velocity = plain + config.guidance_scale * (velocity - plain)
        gradient = distillation_gradient(x0, x1, sigma, velocity)
        loss, row = surrogate(x0, gradient), {"pull": gradient.square().mean().item()}
        if reward is not None:
            values = reward(generator.decode(x0), prompts)
            loss, row["reward"] = loss - config.reward_weight * values.sum(), values.mean().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(row)
    return represent(parameters).detach(), history
