"""Stable Diffusion 1.5 as a policy: every step is `DDIMScheduler.step`, every trajectory the pipeline's."""

from functools import partial

import numpy as np
import pytest
import torch
from adapters import noise

from pixelpolicy.policies import DenoisingPolicy, ddim_eta
from pixelpolicy.policies.environment import DenoisingEnv
from pixelpolicy.rl import Reward

KINDS = ["sd15"]
TEXTS = ["a red circle", "two blue squares", "a red circle"]
STEPS = 5


def policy_of(generator, eta, **settings):
    return DenoisingPolicy(generator, partial(ddim_eta, noise=eta), **({"steps": STEPS, "micro_batch": 3} | settings))


def process(states, sigmas):
    """States of the flow ``[batch, steps, ...]`` in the coordinates of the variance-preserving process."""
    return states / ((1 - sigmas) ** 2 + sigmas**2).sqrt()[:, None, None, None]


@pytest.fixture(params=[False, True], ids=["final_alpha", "alpha_one"])
def ending(request, kind):
    """The twin, and a scheduler like its own that is not its own; SD 1.5's, and one whose last step ends at alpha 1."""
    from diffusers import DDIMScheduler

    generator = kind.opened(kind.folder)
    config = dict(generator.pipeline.scheduler.config) | {"set_alpha_to_one": request.param}
    generator.pipeline.scheduler, other = (DDIMScheduler.from_config(config) for _ in range(2))
    other.set_timesteps(STEPS)
    return generator, other


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_step_is_the_schedulers(ending, eta, guidance):
    """Mean and standard deviation, at the states of a trajectory, the last step included."""
    generator, scheduler = ending
    policy = policy_of(generator, eta, guidance_scale=guidance)
    rollout = policy.rollout(TEXTS, seeds=torch.arange(3))
    stochastic = [eta > 0] * (STEPS - 1) + [eta > 0 and not scheduler.config.set_alpha_to_one]
    assert rollout.stochastic.tolist() == stochastic
    conditioning, sigmas = policy.conditioning(TEXTS), rollout.sigmas
    for step, timestep in enumerate(scheduler.timesteps):
        x = process(rollout.states[:, step : step + 1], sigmas[step : step + 1])[:, 0]
        with torch.no_grad():
            mean, std = policy.gaussian(rollout.states[:, step], conditioning, sigmas, step, stochastic[step])
            eps = generator.pipeline.unet(torch.cat([x] * (len(conditioning[0]) // 3)), timestep, *conditioning).sample
        if guidance != 1:
            nothing, told = eps.chunk(2)
            eps = nothing + guidance * (told - nothing)
        still, shaken = (
            scheduler.step(eps, timestep, x, eta, variance_noise=torch.full_like(x, size)).prev_sample
            for size in (0.0, 1.0)
        )
        length = ((1 - sigmas[step + 1]) ** 2 + sigmas[step + 1] ** 2).sqrt()
        torch.testing.assert_close(mean / length, still, rtol=0, atol=2e-5)
        spread = torch.as_tensor(std / length).expand_as(x)
        torch.testing.assert_close(spread, shaken - still, rtol=0, atol=2e-6)
        assert (std > 0) == stochastic[step]


@pytest.mark.parametrize(("eta", "guidance"), [(0.0, 1.0), (0.5, 5.0), (1.0, 1.0), (1.0, 5.0)])
def test_a_trajectory_is_the_pipelines_from_the_same_noise(generator, eta, guidance):
    """Latents after every step, and the pictures; only rounding in float32 is between them."""
    policy = policy_of(generator, eta, guidance_scale=guidance)
    rollout = policy.rollout(TEXTS, seeds=torch.arange(3))
    streams = [torch.Generator().manual_seed(i) for i in range(3)]
    first, after = torch.stack([torch.randn(4, 8, 8, generator=stream) for stream in streams]), []
    drawn = generator.pipeline(
        TEXTS, num_inference_steps=STEPS, guidance_scale=guidance, eta=eta, latents=first, generator=streams,
        height=64, width=64, output_type="pt",
        callback_on_step_end=lambda pipeline, step, timestep, kept: after.append(kept["latents"]) or {},
    ).images  # fmt: skip
    mine = process(rollout.states, rollout.sigmas)
    torch.testing.assert_close(mine, torch.stack([first, *after], 1), rtol=0, atol=5e-5)
    torch.testing.assert_close((rollout.samples + 1) / 2, drawn, rtol=0, atol=2e-4)


def test_the_first_state_has_the_length_of_the_processs_noise(generator):
    rollout = policy_of(generator, 1.0, dtype=torch.bfloat16).rollout(TEXTS, seeds=torch.arange(3))
    expected = generator.initial_scale(STEPS) * noise(generator, 3)
    assert torch.equal(rollout.states[:, 0], expected.bfloat16()) and generator.initial_scale(STEPS) < 0.9


def test_the_environment_begins_and_ends_as_the_rollout_does(generator):
    red = Reward("red", lambda pictures, prompts: pictures[:, 0].mean((1, 2)))
    tokenizer = lambda texts: torch.zeros(len(texts), 1, dtype=torch.long), 2  # noqa: E731
    settings = {"transition": partial(ddim_eta, noise=1.0), "steps": STEPS}
    environment = DenoisingEnv(red, TEXTS, generator=generator, tokenizer=tokenizer, **settings)
    observation, info = environment.reset(seed=3)
    rollout = DenoisingPolicy(generator, **settings).rollout([info["prompt"]], seeds=torch.tensor([info["seed"]]))
    np.testing.assert_allclose(observation["latent"], rollout.states[0, 0], atol=1e-6)
    for step in range(STEPS):
        assert info["std"] > 0
        observation, reward, ended, _, info = environment.step(rollout.states[0, step + 1].numpy())
        assert info["log_prob"] == pytest.approx(rollout.log_probs[0, step].item(), abs=1e-5)
    assert ended and reward == pytest.approx(rollout.samples[0, 0].mean().item(), abs=1e-5)
