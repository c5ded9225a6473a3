"""Wan 2.1 as a generator of clips: held against diffusers' own pipeline, autoencoder and scheduler."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from adapters import lora_of, noise, shaken

from pixelpolicy.errors import CheckpointError, SizeError
from pixelpolicy.pipelines import wan
from pixelpolicy.pipelines.wan_config import FETCH, PUBLISHED
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, flow_sde

KINDS = ["wan"]
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]
STEPS = 5


# Against the pipeline ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 10, 28])
def test_the_noise_levels_are_eulers_with_the_shift_of_unipc(folder, generator, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    told = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert told["_class_name"] == "UniPCMultistepScheduler" and told["flow_shift"] == 3.0
    before = generator.pipeline.scheduler.sigmas.clone()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    assert torch.equal(generator.sigmas(steps), scheduler.sigmas)
    assert torch.equal(generator.pipeline.scheduler.sigmas, before)  # the pipeline's own stands as it was


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_the_shift_is_that_of_the_folder(kind, folder, tmp_path, name):
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    key = "flow_shift" if name.startswith("UniPC") else "shift"
    told = {"_class_name": name, "num_train_timesteps": 1000, key: 5.0}
    (copied / "scheduler" / "scheduler_config.json").write_text(json.dumps(told))
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", name]}))
    sigmas = kind.opened(copied).sigmas(10)[1:-2]
    plain = torch.linspace(1, wan.load(folder, height=64, width=64).sigmas(10)[-2].item(), 10)[1:-1]
    assert (sigmas > 4 * plain / (1 + 3 * plain)).all() and (sigmas < 6 * plain / (1 + 5 * plain)).all()


def straight(generator, size, guidance):
    """Latents after every step, and the clips, of the pipeline itself from the same noise."""
    after = []
    clips = generator.pipeline(
        PROMPTS, height=size[0], width=size[1], num_frames=size[2], num_inference_steps=STEPS, guidance_scale=guidance,
        latents=noise(replace(generator, height=size[0], width=size[1], frames=size[2]), 3), max_sequence_length=16,
        output_type="pt", callback_on_step_end=lambda pipeline, i, t, kept: after.append(kept["latents"]) or {},
    ).frames  # fmt: skip
    return torch.stack(after, 1), clips


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("size", [(64, 64, 9), (32, 96, 5), (32, 32, 1)])
def test_without_noise_every_transition_is_the_pipeline(generator, guidance, size):
    """The states after every step and the clips of `pipeline(...)`: only rounding in float32 is between them."""
    latents, clips = straight(generator, size, guidance)
    own = replace(generator, height=size[0], width=size[1], frames=size[2])
    assert clips.shape == (3, size[2], 3, *size[:2])
    for transition in (flow_sde, dance_sde, cps):
        policy = DenoisingPolicy(own, partial(transition, noise=0.0), steps=STEPS, guidance_scale=guidance)
        rollout = policy.rollout(PROMPTS, seeds=torch.arange(3))
        assert not rollout.stochastic.any()
        torch.testing.assert_close(rollout.states[:, 1:], latents, rtol=0, atol=2e-5)
        torch.testing.assert_close((rollout.samples + 1) / 2, clips, rtol=0, atol=1e-4)
    drawn = own.generate(PROMPTS, [0, 1, 2], steps=STEPS, guidance_scale=guidance)
    torch.testing.assert_close((drawn + 1) / 2, clips, rtol=0, atol=1e-4)


def test_a_stochastic_step_adds_its_noise_to_the_schedulers(generator):
    """Every state of a rollout, from the transition's formula and the network asked as the pipeline asks it."""
    noise_level = 0.3
    policy = DenoisingPolicy(generator, partial(dance_sde, noise=noise_level), steps=STEPS)
    rollout = policy.rollout(PROMPTS[:2], seeds=torch.arange(2))
    (embeds,), draws = generator.encode(PROMPTS[:2]), policy.draws(torch.arange(2))
    state, sigmas = next(draws), rollout.sigmas
    for step in range(STEPS - 1):
        with torch.no_grad():
            v = generator.pipeline.transformer(state, sigmas[step].expand(2) * 1000, embeds).sample
        dt, score = sigmas[step + 1] - sigmas[step], -(state + (1 - sigmas[step]) * v) / sigmas[step]
        mean = state + (v - noise_level**2 / 2 * score) * dt
        state = mean + noise_level * (-dt) ** 0.5 * next(draws)
        torch.testing.assert_close(rollout.states[:, step + 1], state, rtol=0, atol=2e-5)
        away = (state - mean) / (noise_level * (-dt) ** 0.5)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(away) - (noise_level * (-dt) ** 0.5).log()
        torch.testing.assert_close(rollout.log_probs[:, step], density.mean((1, 2, 3, 4)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_velocity_is_the_transformers_in_its_dtype_and_float32_outside(folder, dtype, opened):
    generator = opened(folder, dtype)
    x, conditioning = noise(generator, 3), generator.encode(PROMPTS)
    assert generator.dtype == dtype and {part.dtype for part in conditioning} == {dtype}
    assert shaken(generator.student()).dtype == dtype
    with torch.no_grad():
        velocity = generator.velocity(x, torch.tensor(0.7), *conditioning)
        told = torch.full((3,), 0.7) * 1000
        expected = generator.pipeline.transformer(x.to(dtype), told, conditioning[0]).sample
    assert velocity.dtype == torch.float32 and torch.equal(velocity, expected.float())
    assert velocity.abs().max() > 0.01


# Clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_the_model_cannot_draw_is_refused(generator):
    for height, width in ((60, 64), (64, 8), (0, 64)):
        with pytest.raises(SizeError, match=rf"{height} x {width}.*multiples of 16\. Choose"):
            replace(generator, height=height, width=width)
    for frames in (0, -3, 2, 8):
        with pytest.raises(SizeError, match=rf"clips of {frames} frames.*one frame more than a multiple of 4"):
            replace(generator, frames=frames)
    shapes = [replace(generator, height=48, width=80, frames=frames).latent_shape for frames in (1, 5, 33)]
    assert shapes == [(16, 1, 6, 10), (16, 2, 6, 10), (16, 9, 6, 10)]


def test_decoding_undoes_the_mean_and_deviation_of_each_channel(generator):
    vae, latents = generator.pipeline.vae, noise(generator, 2)
    config = PUBLISHED["vae"] | dict(vae.config)
    assert len(config["latents_mean"]) == len(config["latents_std"]) == 16
    own = torch.stack([latents[:, c] * config["latents_std"][c] + config["latents_mean"][c] for c in range(16)], dim=1)
    with torch.no_grad():
        expected = vae.decode(own).sample
    clips = generator.decode(latents)
    assert clips.shape == (2, 9, 3, 64, 64) and clips.abs().max() <= 1
    torch.testing.assert_close(clips, expected.transpose(1, 2), rtol=0, atol=2e-5)
    # What comes first does not depend on what comes after it, and each frame of latents moves its own four.
    other = latents.clone()
    other[:, :, 1] += 1
    moved = (generator.decode(other) - clips).abs().amax((0, 2, 3, 4))
    assert moved[0] == 0 and (moved[1:] > 1e-3).all()


def test_decoding_in_float64_agrees_and_has_the_gradient_of_finite_differences(kind, folder):
    exact = kind.opened(folder, torch.float64, vae_dtype=torch.float64, frames=5, height=32, width=32)
    latents = noise(exact, 1).double().requires_grad_()
    clip = exact.decode(latents)
    assert clip.dtype == torch.float64
    weights = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((clip * weights).sum(), latents)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        # Wan's autoencoder doubles the size of pictures in float32, whatever its dtype.
        ahead, behind = ((exact.decode(latents + h * direction) * weights).sum() for h in (3e-4, -3e-4))
    assert gradient.norm().item() == pytest.approx((ahead - behind).item() / 6e-4, rel=1e-3)


def test_remembered_embeddings_are_those_of_encode_prompt(generator):
    (embeds,) = generator.encode([*PROMPTS, "", PROMPTS[0]])
    assert embeds.shape == (5, 16, 32)
    for i, prompt in enumerate([*PROMPTS, "", PROMPTS[0]]):
        expected, negative = generator.pipeline.encode_prompt(prompt, max_sequence_length=16)
        assert torch.equal(embeds[i], expected[0]) and (prompt or torch.equal(embeds[i], negative[0]))
    assert len({tuple(row.flatten().tolist()) for row in embeds}) == 4  # the twin tells prompts apart
    assert generator.max_sequence_length == 16 and wan.WanGenerator.max_sequence_length == 512  # the pipeline's own


def test_the_adapter_is_in_both_attentions_of_every_block(generator):
    layers = {name.split(".lora_")[0] for name in lora_of(generator.student())}
    ends = [f"attn{n}.{name}" for n in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")]
    assert layers == {f"blocks.{block}.{end}" for block in range(2) for end in ends}


# Loading ----------------------------------------------------------------------------------------------------------


def test_the_twin_is_the_published_pipeline_in_small(folder, generator):
    parts = json.loads((folder / "model_index.json").read_text())
    assert parts["_class_name"] == "WanPipeline" == type(generator.pipeline).__name__
    assert {kind for _, kind in (v for v in parts.values() if isinstance(v, list)) if kind} == {
        "AutoencoderKLWan", "T5Tokenizer", "UMT5EncoderModel", "UniPCMultistepScheduler", "WanTransformer3DModel",
    }  # fmt: skip
    for part in PUBLISHED.keys() - {"scheduler"}:
        config = getattr(generator.pipeline, part).config
        config = config if isinstance(config, dict) else config.to_dict()
        assert PUBLISHED[part].keys() <= config.keys(), part
    for part, key in (("transformer", "qk_norm"), ("transformer", "patch_size"), ("vae", "temperal_downsample")):
        assert list(getattr(generator.pipeline, part).config[key]) == list(PUBLISHED[part][key])
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 3e6


def test_models_that_denoise_otherwise_are_refused(kind, folder, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    index = json.loads((copied / "model_index.json").read_text())
    later = {"expand_timesteps": True}, {"transformer_2": index["transformer"]}
    shutil.copytree(copied / "transformer", copied / "transformer_2")
    for changed in later:
        (copied / "model_index.json").write_text(json.dumps(index | changed))
        with pytest.raises(CheckpointError, match="none that Wan2.1 makes of text alone.*Wan-AI/Wan2.1-T2V-1.3B"):
            kind.opened(copied)


def test_weights_that_are_not_there_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="are not on this machine") as error:
        wan.load()
    assert f"`{FETCH}`" in str(error.value) and "gated" not in str(error.value)
    with pytest.raises(CheckpointError, match="`WanPipeline.save_pretrained` wrote"):
        wan.load(tmp_path / "nothing")
