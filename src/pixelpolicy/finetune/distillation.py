"""Score distillation with a reward: one object's own numbers are optimised, the generator stays frozen.

DreamFusion's score distillation (Poole et al. 2022, arXiv 2209.14988) in the notation of flows, and two ways in for a
reward. It picks among several noises the one whose guess it likes best, each for its object, and needs no gradient
(RewardSDS: Chachy et al. 2025, arXiv 2503.09601). With the furniture generator, 4 noises a step raise what stands:

    config = DistillationConfig(tries=4)
    latents, history = distill(generator, prompts, noise, reward=stability.standing(), config=config)
    pieces = generator.decode(latents)

Or its gradient is added to the generator's pull, as in DreamReward (Ye et al. 2024, arXiv 2403.14613):

    config = DistillationConfig(reward_weight=0.01)
    latents, history = distill(generator, prompts, noise, reward=rewards.multiview_reward(network), config=config)

A learned reward is climbed by every means: judge the pieces by what it was fitted to, such as `Rater.worth`. At 0.01
the furniture's learned score rises and nothing else does; at 0.1 what stands falls to a third of what it was.
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


def best_gradient(
    x0: Float[Tensor, "batch ..."],
    x1: Float[Tensor, "tries batch ..."],
    sigma: Float[Tensor, "batch"],
    velocity: Float[Tensor, "tries batch ..."],
    values: Float[Tensor, "tries batch"],
) -> Float[Tensor, "batch ..."]:
    """`distillation_gradient` by the noise, of several, whose guess has the highest value: of each object its own.

    ``values`` are a reward's of the guessed objects, ``x0`` minus their gradients. The first of equals counts.
    """
    best, objects = values.argmax(0), torch.arange(len(x0), device=x0.device)
    return distillation_gradient(x0, x1, sigma, velocity)[best, objects]


def surrogate(x0: Float[Tensor, "batch ..."], gradient: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """A loss whose gradient in ``x0`` is ``gradient``, per object: its value means nothing."""
    return (x0 * gradient.detach()).sum()


def falling(step: int, steps: int, lowest: float = 0.05, highest: float = 0.95) -> float:
    """Noise levels from high to low: first what the object is as a whole, then its details."""
    return highest + (lowest - highest) * step / max(steps - 1, 1)


@dataclass(frozen=True)
class DistillationConfig:
    """``reward_weight`` is in units of latents: how far a reward of slope 1 pulls against the generator. ``tries`` is
    how many noises are tried a step, of which the reward picks one."""

    steps: int = 100
    learning_rate: float = 0.05
    guidance_scale: float = 1.0
    reward_weight: float = 0.0
    tries: int = 1
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
    gradient_of: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = best_gradient,
) -> tuple[Tensor, list[dict[str, float]]]:
    """Optimise ``parameters`` until ``represent(parameters)``, latents ``[batch, ...]``, please generator and reward.

    Returns the final latents and a row of metrics a step: ``pull``, the mean square of the gradient, and ``reward``, of
    the object or, where there are several tries, of the guess that was picked. The start is not changed. ``represent``
    may be a renderer and its encoder; by default the parameters are the latents. Raises `TrainingError` for a
    ``reward_weight`` on a reward without gradient, and for several tries without a reward.
    """
    if reward is not None and not reward.differentiable and (config.reward_weight or config.tries == 1):
        raise TrainingError(
            f"reward '{reward.name}' has no gradient; take a learned one, such as multiview_reward, or let this one "
            "pick among noises: tries=4, reward_weight=0"
        )
    if config.tries < 1 or (config.tries > 1 and reward is None):
        raise TrainingError(f"tries={config.tries} without a reward to pick by; give one, or tries=1")
    parameters, stream = parameters.detach().clone().requires_grad_(), torch.Generator().manual_seed(config.seed)
    optimizer, history = torch.optim.Adam([parameters], config.learning_rate), []
    told, untold = generator.encode(prompts), generator.encode([""] * len(prompts))

    def velocity(state: Tensor, sigma: Tensor) -> Tensor:
        conditional = generator.velocity(state, sigma, *told)
        if config.guidance_scale == 1:
            return conditional
        plain = generator.velocity(state, sigma, *untold)
        return plain + config.guidance_scale * (conditional - plain)

    for step in range(config.steps):
        x0 = represent(parameters)
        x1 = torch.randn((config.tries, *x0.shape), generator=stream).to(x0)
        sigma = x0.new_full((len(x0),), noise_level(step, config.steps))
        values = x0.new_zeros((config.tries, len(x0)))
        with torch.no_grad():
            velocities = torch.stack([velocity(noised(x0, one, sigma), sigma) for one in x1])
            if config.tries > 1:
                guesses = x0 - distillation_gradient(x0, x1, sigma, velocities)
                values = torch.stack([reward(generator.decode(guess), prompts) for guess in guesses]).to(x0)
        gradient = gradient_of(x0, x1, sigma, velocities, values)
        loss, row = surrogate(x0, gradient), {"pull": gradient.square().mean().item()}
        if config.tries > 1:
            row["reward"] = values.amax(0).mean().item()
        if reward is not None and (config.reward_weight or config.tries == 1):
            judged = reward(generator.decode(x0), prompts)
            loss, row["reward"] = loss - config.reward_weight * judged.sum(), judged.mean().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(row)
    return represent(parameters).detach(), history
