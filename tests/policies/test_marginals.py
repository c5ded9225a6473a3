"""Samplers share marginals: with the exact velocity of a Gaussian mixture, ODE, DDIM, DDPM and SDE all pass through the
mixture's own distribution at every noise level, which is known in closed form."""

from functools import partial

import pytest
import torch

from pixelpolicy.policies.transitions import cps, dance_sde, ddim_eta, flow_sde, ode

CENTRES = torch.tensor([[-1.0, 0.5], [1.0, 0.5], [0.3, -1.2]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
SPREAD, COUNT = 0.25, 20_000
SAMPLERS = {
    "ODE": ode,
    "DDIM": partial(ddim_eta, noise=0.0),
    "DDPM": partial(ddim_eta, noise=1.0),
    "between": partial(ddim_eta, noise=0.5),
    "Flow-SDE": partial(flow_sde, noise=0.7),
    "Dance-SDE": partial(dance_sde, noise=0.5),
    "CPS": partial(cps, noise=0.1),
}


def velocity(x, sigma):
    """E[x1 - x0 | x], by the posterior over components."""
    variance = ((1 - sigma) * SPREAD) ** 2 + sigma**2
    gap = x[:, None] - (1 - sigma) * CENTRES
    chances = (WEIGHTS.log() - gap.square().sum(-1) / (2 * variance)).softmax(1)[..., None]
    picture = CENTRES + (1 - sigma) * SPREAD**2 / variance * gap
    return (chances * (sigma / variance * gap - picture)).sum(1)


def walk(transition, steps: int, stop: float = 0.0):
    """States at every level, from noise down to `stop`; the last step takes the mean alone where it ends at 0."""
    random = torch.Generator().manual_seed(0)
    sigmas = torch.linspace(1, stop, steps + 1, dtype=torch.float64)
    x = torch.randn(COUNT, 2, dtype=torch.float64, generator=random)
    states = [x]
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        mean, std = (transition if following > 0 else ode)(x, velocity(x, sigma), sigma, following)
        x = mean + std * torch.randn(x.shape, dtype=x.dtype, generator=random)
        states.append(x)
    return sigmas, states


def distribution_gap(x, sigma) -> float:
    """The largest distance of the empirical distribution from the exact one, over four directions."""
    angles = torch.arange(4, dtype=torch.float64) * torch.pi / 4
    directions = torch.stack([angles.cos(), angles.sin()])
    std = (((1 - sigma) * SPREAD) ** 2 + sigma**2) ** 0.5
    places = (x @ directions).sort(0).values
    middles = (1 - sigma) * CENTRES @ directions
    exact = (torch.special.ndtr((places[:, None] - middles) / std) * WEIGHTS[:, None]).sum(1)
    empirical = (torch.arange(len(x), dtype=torch.float64)[:, None] + 0.5) / len(x)
    return (empirical - exact).abs().max().item()


CHANCE = 1.95 / COUNT**0.5  # Kolmogorov's bound at one in a thousand


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_level_has_the_mixtures_distribution(name):
    sigmas, states = walk(SAMPLERS[name], 250)
    for step in (50, 125, 200, 250):
        gap = distribution_gap(states[step], sigmas[step].item())
        assert gap < 1.5 * CHANCE, f"{name} at sigma {sigmas[step]:.2f}: {gap:.4f}"


@pytest.mark.parametrize("name", ["ODE", "DDPM", "Flow-SDE"])
def test_more_steps_bring_them_closer(name):
    few, many = (distribution_gap(walk(SAMPLERS[name], steps)[1][-1], 0.0) for steps in (6, 100))
    assert many < few


def test_noise_without_its_correction_has_another_distribution():
    def uncorrected(x, v, sigma, following):
        return x + v * (following - sigma), flow_sde(x, v, sigma, following)[1]

    sigmas, states = walk(uncorrected, 250)
    assert distribution_gap(states[200], sigmas[200].item()) > 3 * CHANCE
