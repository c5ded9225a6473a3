"""Shap-E as a generator of views: held against diffusers' own pipeline, scheduler and renderer."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from adapters import lora_of, noise, shaken

from pixelpolicy.errors import CheckpointError, RolloutError, SizeError
from pixelpolicy.pipelines import shap_e
from pixelpolicy.pipelines.shap_e_config import FETCH, PUBLISHED
from pixelpolicy.policies import DenoisingPolicy, ddim_eta

KINDS = ["shap_e"]
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]
STEPS = 6


def published():
    """Heun's scheduler with the numbers of the published one, written out."""
    from diffusers import HeunDiscreteScheduler

    settings = {"beta_schedule": "exp", "num_train_timesteps": 1024, "prediction_type": "sample"}
    return HeunDiscreteScheduler(**settings, clip_sample=True, clip_sample_range=1.0, use_karras_sigmas=True)


def karras(states, sigma):
    """States of the flow and their noise level in the coordinates of the scheduler: ``x0 + s x1`` and s."""
    return states / (1 - sigma), sigma / (1 - sigma)


# The change of variables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 10, 64])
def test_the_noise_levels_and_their_timesteps_are_the_schedulers(generator, steps):
    scheduler, sigmas = published(), generator.sigmas(steps)
    scheduler.set_timesteps(steps)
    assert sigmas.shape == (steps + 1,) and (sigmas.diff() < 0).all() and sigmas[-1] == 0
    levels = torch.tensor(sorted(set(scheduler.sigmas.tolist()), reverse=True))
    torch.testing.assert_close(karras(sigmas, sigmas)[1], levels, rtol=1e-4, atol=0)
    timesteps = torch.tensor(sorted(set(scheduler.timesteps.tolist()), reverse=True))
    torch.testing.assert_close(generator.timesteps(sigmas[:-1]), timesteps, rtol=0, atol=5e-3)
    assert generator.initial_scale(steps) == sigmas[0] and levels[0] == pytest.approx(403.4, abs=0.1)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_step_is_the_ancestral_one_in_the_schedulers_coordinates(eta):
    """Against the formula, and for eta = 1 against Bayes' rule for x_k = x_k' + noise, x_k' = x0 + noise."""
    stream = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(5, 7, generator=stream, dtype=torch.float64) for _ in range(2))
    for s, s_next in ((403.4, 100.0), (100.0, 3.0), (3.0, 2.99), (1.0, 0.1)):
        sigma, following = (torch.tensor(v / (1 + v), dtype=torch.float64) for v in (s, s_next))
        x = (1 - sigma) * x0 + sigma * x1
        mean, std = ddim_eta(x, x1 - x0, sigma, following, noise=eta)
        (mean, _), std = karras(mean, following), std / (1 - following)
        up = eta * (s_next**2 * (s**2 - s_next**2) / s**2) ** 0.5
        torch.testing.assert_close(mean, x0 + (s_next**2 - up**2) ** 0.5 * x1)
        assert std.item() == pytest.approx(up, rel=1e-9)
        if eta == 1:
            precision = 1 / s_next**2 + 1 / (s**2 - s_next**2)
            x_k = x0 + s * x1
            torch.testing.assert_close(mean, (x0 / s_next**2 + x_k / (s**2 - s_next**2)) / precision)
            assert std.item() == pytest.approx(precision**-0.5, rel=1e-9)


def test_the_step_is_that_of_diffusers_ancestral_scheduler():
    from diffusers import EulerAncestralDiscreteScheduler

    stream = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(5, 7, generator=stream) for _ in range(2))
    other = EulerAncestralDiscreteScheduler()
    other.set_timesteps(8)
    for place in range(7):
        s, s_next = other.sigmas[place : place + 2]
        sigma, following = s / (1 + s), s_next / (1 + s_next)
        mean, std = ddim_eta((1 - sigma) * x0 + sigma * x1, x1 - x0, sigma, following, noise=1.0)
        drawn = torch.randn(x0.shape, generator=torch.Generator().manual_seed(place))
        expected = other.step(x1, other.timesteps[place], x0 + s * x1, torch.Generator().manual_seed(place)).prev_sample
        torch.testing.assert_close(karras(mean + std * drawn, following)[0], expected, rtol=1e-4, atol=1e-4)


# Against the pipeline ---------------------------------------------------------------------------------------------


def straight(generator, guidance):
    """States after every step of a loop with diffusers' scheduler, each time the first half of Heun's step."""
    pipeline, scheduler, states = generator.pipeline, published(), []
    scheduler.set_timesteps(STEPS)
    state = scheduler.init_noise_sigma * noise(generator, len(PROMPTS))
    embeds = pipeline._encode_prompt(PROMPTS, torch.device("cpu"), 1, True)
    for step, level in enumerate([*scheduler.sigmas[:-1:2]]):
        place = max(2 * step - 1, 0)
        scheduler._step_index, scheduler.dt = place, None
        assert scheduler.sigmas[place] == level and scheduler.state_in_first_order
        if step:  # the second of the two times that the level is named: where the scheduler begins a step
            scheduler._step_index = place + 1
        timestep = scheduler.timesteps[scheduler._step_index]
        with torch.no_grad():
            told = torch.cat([state, state]) / (level**2 + 1) ** 0.5
            found = pipeline.prior(told, timestep, proj_embedding=embeds).predicted_image_embedding
        nothing, conditional = found[..., : state.shape[-1]].chunk(2)
        state = scheduler.step(nothing + guidance * (conditional - nothing), timestep, state).prev_sample
        states.append(state)
    return torch.stack(states, 1)


@pytest.mark.parametrize("guidance", [1.0, 15.0])
def test_without_noise_the_steps_are_the_schedulers(generator, guidance):
    """Clamped after guidance, as the scheduler clamps; with noise 0 by the transition, and by the ODE."""
    expected = straight(generator, guidance)
    own = replace(generator, guidance=guidance)
    policy = DenoisingPolicy(own, partial(ddim_eta, noise=0.0), steps=STEPS)
    rollout = policy.rollout(PROMPTS, seeds=torch.arange(3))
    assert not rollout.stochastic.any()
    sigmas = rollout.sigmas[1:, None, None]
    torch.testing.assert_close(rollout.states[:, 1:], expected * (1 - sigmas), rtol=0, atol=2e-4)
    assert (rollout.states[:, -1].abs() == 1).any() and rollout.states[:, -1].abs().max() <= 1 + 1e-5
    for step in range(STEPS - 1):
        state, told = rollout.states[:, step], policy.conditioning(PROMPTS)
        with torch.no_grad():
            mean, std = policy.gaussian(state, told, rollout.sigmas, step, True)
        assert std == 0
        torch.testing.assert_close(mean, rollout.states[:, step + 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(own.decode(rollout.states[:, -1]), rollout.samples)
    drawn = generator.generate(PROMPTS, [0, 1, 2], steps=STEPS, guidance_scale=guidance)
    torch.testing.assert_close(drawn, own.generate(PROMPTS, [0, 1, 2], steps=STEPS))
    torch.testing.assert_close(drawn, rollout.samples, rtol=0, atol=1e-4)


def test_with_many_steps_the_trajectory_ends_where_heuns_does(generator):
    """Its steps are of first order and Heun's of second: the distance shrinks as the step does."""
    asked = {"num_inference_steps": 128, "guidance_scale": 3.0, "output_type": "latent"}
    drawn = noise(generator, 3).flatten(1)
    expected = generator.pipeline(PROMPTS, latents=drawn, **asked).images
    own, away = replace(generator, guidance=3.0), []
    for steps in (16, 64):
        policy = DenoisingPolicy(own, partial(ddim_eta, noise=0.0), steps=steps)
        states = list(policy.walk(PROMPTS, seeds=torch.arange(3), noisy=[]))
        away.append((states[-1][1] - expected).square().mean().sqrt().item())
    assert away[1] < away[0] / 2 and away[1] < 0.1 * expected.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_velocity_leads_to_the_predicted_latents(folder, dtype, opened):
    generator = opened(folder, dtype)
    x, (embeds,) = noise(generator, 3), generator.encode(PROMPTS)
    assert generator.dtype == dtype and embeds.dtype == dtype
    for sigma in (0.99, 0.5, 0.1):
        with torch.no_grad():
            velocity = generator.velocity(x, sigma, embeds)
            state, timestep = x / ((1 - sigma) ** 2 + sigma**2) ** 0.5, generator.timesteps(torch.tensor([sigma]))
            found = generator.pipeline.prior(state.to(dtype), timestep, proj_embedding=embeds).predicted_image_embedding
        assert velocity.dtype == torch.float32
        expected = found[..., : x.shape[-1]].float().clamp(-1, 1)
        torch.testing.assert_close(
            x - sigma * velocity, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.02
        )
    each = generator.velocity(x, torch.tensor([0.99, 0.5, 0.1]), embeds)
    torch.testing.assert_close(each[2:], velocity[2:], rtol=0, atol=1e-5 if dtype == torch.float32 else 0.3)


def test_there_is_no_velocity_without_noise_or_without_anything_else(generator):
    x, conditioning = noise(generator, 3), generator.encode(PROMPTS)
    for sigma in (0.0, 1.0, torch.tensor([0.5, 1.0, 0.5])):
        with pytest.raises(RolloutError, match=r"only between 0 and 1\. Take the noise levels from `sigmas`"):
            generator.velocity(x, sigma, *conditioning)


def test_one_step_is_refused(generator):
    with pytest.raises(RolloutError, match="of 1 steps was asked for; this sampler takes at least 2"):
        generator.sigmas(1)


def test_remembered_embeddings_are_those_of_the_pipeline(generator):
    (embeds,) = generator.encode([*PROMPTS, "", PROMPTS[0]])
    expected = generator.pipeline._encode_prompt([*PROMPTS, PROMPTS[0]], torch.device("cpu"), 1, True)
    nothing, told = expected.chunk(2)
    torch.testing.assert_close(embeds[[0, 1, 2, 4]], told, rtol=0, atol=1e-5)
    assert torch.equal(embeds[3], nothing[0]) and not embeds[3].any()
    assert len({tuple(row.tolist()) for row in embeds}) == 4  # the twin tells prompts apart


# Views ------------------------------------------------------------------------------------------------------------


def test_views_are_the_renderers(generator):
    """The pipeline's 20 views end where they began; nothing is written into the renderer, no seed is set."""
    renderer, latents = generator.pipeline.shap_e_renderer, noise(generator, 2).clamp(-1, 1)
    before = {name: value.clone() for name, value in renderer.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    views = replace(generator, views=19).decode(latents)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(value, before[name]) for name, value in renderer.state_dict().items())
    assert views.shape == (2, 19, 3, 64, 64) and views.abs().max() <= 1
    for one, mine in zip(latents, views, strict=True):
        with torch.random.fork_rng():
            expected = renderer.decode_to_image(one[None], "cpu", n_coarse_samples=4, n_fine_samples=8)
        torch.testing.assert_close((mine + 1) / 2, expected[:19].movedim(-1, 1), rtol=0, atol=1e-5)
    renderer.load_state_dict(before)
    few = replace(generator, views=2).decode(latents)
    assert torch.equal(few, generator.decode(latents)) and torch.equal(few[:, 0], views[:, 0])
    assert (views[0] - views[1]).abs().max() > 1e-3 and (views[0, 0] - views[0, 5]).abs().max() > 1e-3
    assert replace(generator, height=24, width=24).decode(latents).shape == (2, 2, 3, 24, 24)


def test_a_reward_reaches_the_latents(kind, folder):
    """In float64, against central differences, where all points looked up stay where they are."""
    exact = kind.opened(folder, torch.float64, vae_dtype=torch.float64, points=(6, 0), height=16, width=16)
    latents = noise(exact, 1).double().clamp(-1, 1).requires_grad_()
    views = exact.decode(latents)
    assert views.dtype == torch.float64
    weights = torch.randn(views.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((views * weights).sum(), latents)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = ((exact.decode(latents + h * direction) * weights).sum() for h in (1e-6, -1e-6))
    assert gradient.norm().item() == pytest.approx((ahead - behind).item() / 2e-6, rel=1e-4)


def test_views_that_cannot_be_are_refused(generator):
    for changed in ({"height": 32}, {"views": 0}, {"height": 0, "width": 0}):
        with pytest.raises(SizeError, match="were asked for"):
            replace(generator, **changed)


def test_the_adapter_is_in_the_attention_of_every_block(generator):
    layers = {name.split(".lora_")[0] for name in lora_of(shaken(generator.student()))}
    ends = [f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
    assert layers == {f"transformer_blocks.{block}.{end}" for block in range(2) for end in ends}


# Loading ----------------------------------------------------------------------------------------------------------


def test_the_twin_is_the_published_pipeline_in_small(folder, generator):
    parts = json.loads((folder / "model_index.json").read_text())
    assert parts["_class_name"] == "ShapEPipeline" == type(generator.pipeline).__name__
    assert {kind for _, kind in (v for v in parts.values() if isinstance(v, list)) if kind} == {
        "CLIPTextModelWithProjection", "CLIPTokenizer", "HeunDiscreteScheduler", "PriorTransformer", "ShapERenderer",
    }  # fmt: skip
    for part in PUBLISHED:
        config = getattr(generator.pipeline, part).config
        config = config if isinstance(config, dict) else config.to_dict()
        assert PUBLISHED[part].keys() <= config.keys(), part
    assert {key: generator.pipeline.scheduler.config[key] for key in PUBLISHED["scheduler"]} == PUBLISHED["scheduler"]
    for key in ("norm_in_type", "added_emb_type", "encoder_hid_proj_type", "additional_embeddings"):
        assert generator.transformer.config[key] == PUBLISHED["prior"][key]
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 2e6


def test_a_repository_as_it_is_fetched_loads(kind, folder, generator, tmp_path):
    """The index names a second renderer, whose folder was left out; and a network of another kind is refused."""
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    index = json.loads((copied / "model_index.json").read_text())
    index["renderer"] = index["shap_e_renderer"]
    (copied / "model_index.json").write_text(json.dumps(index))
    x, conditioning = noise(generator, 1), generator.encode(PROMPTS[:1])
    assert torch.equal(kind.opened(copied).velocity(x, 0.5, *conditioning), generator.velocity(x, 0.5, *conditioning))
    place = copied / "scheduler" / "scheduler_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"prediction_type": "epsilon"}))
    with pytest.raises(CheckpointError, match="predicts 'epsilon'.*prediction_type is 'sample'"):
        kind.opened(copied)


def test_weights_that_are_not_there_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="are not on this machine") as error:
        shap_e.load()
    assert f"`{FETCH}`" in str(error.value) and "gated" not in str(error.value)
    with pytest.raises(CheckpointError, match="`ShapEPipeline.save_pretrained` wrote"):
        shap_e.load(tmp_path / "nothing")
