"""REINFORCE as one would write it for any Gymnasium environment teaches a sampler to draw elsewhere."""

import gymnasium
import numpy as np
import pytest
import torch

from pixelpolicy.policies.environment import ENVIRONMENT_ID
from pixelpolicy.rl import Reward, gaussian_log_prob, group_advantages

CENTRE, SPREAD, GOAL = 0.5, 0.6, -1.0
STEPS, EPISODES = 4, 32


class Cloud:
    """A `Denoiser` of two numbers, each from ``N(CENTRE, SPREAD^2)``, by the exact velocity."""

    device, latent_shape = torch.device("cpu"), (2,)

    def encode(self, prompts):
        return ()

    def velocity(self, latents, sigma):
        offset, kept = latents - (1 - sigma) * CENTRE, (1 - sigma) * SPREAD**2
        total = (1 - sigma) * kept + sigma**2
        return (sigma - kept) / total * offset - CENTRE

    def decode(self, latents):
        return latents

    def sigmas(self, steps):
        return torch.linspace(1, 0, steps + 1)


def episodes(environments, shift, seed):
    """An episode of each environment under ``N(mean + std * shift[step], std^2)``: log-probabilities and returns."""
    observations, infos = environments.reset(seed=seed)
    rng, log_probs, returns = np.random.default_rng(seed), torch.zeros(EPISODES), torch.zeros(EPISODES)
    ended = np.zeros(EPISODES, bool)
    while not ended.all():
        std = torch.from_numpy(infos["std"])[:, None]
        own = torch.from_numpy(infos["mean"]) + std * shift[torch.from_numpy(observations["step"])]
        actions = own.detach() + std * torch.from_numpy(rng.standard_normal(own.shape, np.float32))
        if (std > 0).all():
            log_probs = log_probs + gaussian_log_prob(actions, own, std, reduce="sum")
        observations, rewards, ended, _, infos = environments.step(actions.numpy())
        returns += torch.from_numpy(rewards)
    return log_probs, returns


def test_reinforce_moves_the_sampler_to_where_the_reward_is():
    reward = Reward("near the goal", lambda points, prompts: -(points - GOAL).square().mean(1))
    environments = gymnasium.make_vec(
        ENVIRONMENT_ID,
        EPISODES,
        vectorization_mode="sync",
        reward=reward,
        prompts=["a point"],
        generator=Cloud(),
        steps=STEPS,
        tokenizer=(lambda texts: torch.zeros(len(texts), 1, dtype=torch.int64), 1),
    )
    shift = torch.zeros(STEPS, 2, requires_grad=True)
    optimizer, group = torch.optim.Adam([shift], lr=0.1), torch.zeros(EPISODES, dtype=torch.int64)
    untrained = torch.cat([episodes(environments, shift, 10_000 * k)[1] for k in range(1, 5)])
    for iteration in range(25):
        log_probs, returns = episodes(environments, shift, 100 * iteration)
        loss = -(group_advantages(returns, group) * log_probs).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = torch.cat([episodes(environments, shift, 10_000 * k)[1] for k in range(1, 5)])
    # A reward of squares is minus the distance of the mean from the goal, squared, minus the variance; a shift mends
    # the first alone.
    distance = (CENTRE - GOAL) ** 2
    gained = (trained.mean() - untrained.mean()).item()
    assert gained == pytest.approx(distance, rel=0.1)
