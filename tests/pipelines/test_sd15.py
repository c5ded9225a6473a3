"""Stable Diffusion 1.5 as a generator: held against diffusers' own pipeline and its DDIM."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from adapters import noise, shaken

from pixelpolicy.errors import CheckpointError, RolloutError, SizeError
from pixelpolicy.pipelines import sd15
from pixelpolicy.pipelines.sd15_config import FETCH, PUBLISHED

KINDS = ["sd15"]
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]


def published(**changed):
    """DDIM with the numbers of the published scheduler, written out."""
    from diffusers import DDIMScheduler

    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return DDIMScheduler(**(settings | {"steps_offset": 1, "set_alpha_to_one": False} | changed))


def alphas_of(sigmas):
    """``abar`` of noise levels, by the change of variables."""
    return (1 - sigmas) ** 2 / ((1 - sigmas) ** 2 + sigmas**2)


# The change of variables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 10, 50, 500])
def test_the_noise_levels_are_those_of_ddims_timesteps(generator, steps):
    scheduler, sigmas = published(), generator.sigmas(steps)
    scheduler.set_timesteps(steps)
    expected = [*scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod]
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32 and (sigmas.diff() < 0).all()
    torch.testing.assert_close(alphas_of(sigmas), torch.stack(expected), rtol=1e-5, atol=0)
    assert scheduler.timesteps.tolist() == [1 + i * (1000 // steps) for i in reversed(range(steps))]
    assert generator.timesteps(sigmas[:-1]).tolist() == scheduler.timesteps.tolist()
    assert sigmas[0] < 0.94 and sigmas[-1] == pytest.approx(0.0283, abs=1e-4)  # neither 1 nor 0
    assert generator.pipeline.scheduler.num_inference_steps is None  # the pipeline's own stands as it was


def test_steps_that_leave_no_room_are_refused(generator):
    for steps in (0, 501, 1000):
        with pytest.raises(RolloutError, match=f"{steps} steps was asked for; this sampler takes 1 to 500"):
            generator.sigmas(steps)


def test_every_timestep_is_found_again_and_a_level_between_goes_to_the_nearest(generator):
    abar = published().alphas_cumprod
    levels = (1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())
    assert generator.timesteps(levels).tolist() == list(range(1000))
    between = levels[:-1] + 0.4 * levels.diff()
    assert generator.timesteps(between).tolist() == list(range(999))
    assert generator.timesteps(torch.tensor([0.0, 0.9999])).tolist() == [0, 999]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_velocity_is_that_of_the_noise_and_the_picture_that_the_unet_predicts(kind, dtype):
    generator = kind.opened(kind.folder, dtype)
    conditioning, vp = generator.encode(PROMPTS), noise(generator, 3)
    assert generator.dtype == dtype and [part.dtype for part in conditioning] == [dtype]
    for timestep in (1, 400, 981):
        abar = published().alphas_cumprod[timestep]
        sigma = (1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())
        latents = vp * ((1 - sigma) ** 2 + sigma**2).sqrt()
        with torch.no_grad():
            eps = generator.pipeline.unet(vp.to(dtype), timestep, conditioning[0]).sample.float()
            velocity = generator.velocity(latents, sigma, *conditioning)
        x0 = (vp - (1 - abar).sqrt() * eps) / abar.sqrt()
        # The latents go to the process and back, and the UNet sees them rounded to its dtype.
        tolerance = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
        assert velocity.dtype == torch.float32 and velocity.abs().max() > 0.5
        torch.testing.assert_close(velocity, eps - x0, rtol=tolerance, atol=tolerance)


def test_each_sample_may_have_its_own_noise_level(generator):
    latents, conditioning, sigmas = noise(generator, 3), generator.encode(PROMPTS), torch.tensor([0.1, 0.5, 0.9])
    together = generator.velocity(latents, sigmas, *conditioning)
    for i, sigma in enumerate(sigmas):
        alone = generator.velocity(latents[i : i + 1], sigma, conditioning[0][i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    with pytest.raises(RolloutError, match="at sigma = 1; .* only below 1"):
        generator.velocity(latents, torch.tensor([0.5, 1.0, 0.5]), *conditioning)


def test_a_picture_is_decoded_from_where_a_trajectory_ends(generator):
    """A latent at the last noise level, in the flow's coordinates: it goes back to the process before the decoder."""
    vp, sigma = noise(generator, 3), generator.sigmas(10)[-1]
    latents = vp * ((1 - sigma) ** 2 + sigma**2).sqrt()
    with torch.no_grad():
        expected = generator.pipeline.vae.decode(vp / 0.18215).sample.clamp(-1, 1)
        torch.testing.assert_close(generator.decode(latents), expected, rtol=0, atol=1e-4)
        assert (generator.decode(vp) - expected).abs().max() > 1e-3


def test_pictures_of_another_shape(kind):
    wide = replace(kind.generator, height=32, width=72)
    assert wide.generate(PROMPTS[:1], [0], steps=2).shape == (1, 3, 32, 72)


@pytest.mark.parametrize("steps", [2, 50])
def test_unit_noise_begins_as_long_as_the_process_has_it(generator, steps):
    """At the first noise level the signal has the weight ``sqrt(abar)`` in the process, ``1 - sigma`` in the flow."""
    sigma = generator.sigmas(steps)[0]
    expected = (1 - sigma) / alphas_of(sigma).sqrt()
    assert generator.initial_scale(steps) == pytest.approx(expected.item(), rel=1e-6) and expected < 0.95


# Against the pipeline ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_ode_is_the_pipelines_ddim(generator, guidance):
    pictures = generator.generate(PROMPTS, [0, 1, 2], steps=6, guidance_scale=guidance)
    drawn = generator.pipeline(
        PROMPTS, num_inference_steps=6, guidance_scale=guidance, latents=noise(generator, 3), height=64, width=64,
        output_type="pt", return_dict=False,
    )[0]  # fmt: skip
    assert pictures.shape == (3, 3, 64, 64) and pictures.dtype == torch.float32
    torch.testing.assert_close((pictures + 1) / 2, drawn, rtol=0, atol=1e-4)


def test_remembered_embeddings_are_those_of_encode_prompt(generator):
    (embeds,) = generator.encode([*PROMPTS, "", PROMPTS[0]])
    assert embeds.shape == (5, 77, 32)
    for i, prompt in enumerate([*PROMPTS, "", PROMPTS[0]]):
        expected, negative = generator.pipeline.encode_prompt(prompt, "cpu", 1, True)
        assert torch.equal(embeds[i], expected[0]) and (prompt or torch.equal(embeds[i], negative[0]))
    assert len({tuple(row.flatten().tolist()) for row in embeds}) == 4  # the twin tells prompts apart


# The adapter ------------------------------------------------------------------------------------------------------


def test_the_adapter_is_in_both_attentions_of_every_block(generator):
    student = generator.student()
    layers = {name.split(".lora_")[0] for name, p in student.transformer.named_parameters() if p.requires_grad}
    blocks = {name.rsplit(".attn1", 1)[0] for name, _ in generator.transformer.named_modules() if ".attn1" in name}
    blocks = {name for name in blocks if name.endswith("transformer_blocks.0")}
    ends = [f"attn{n}.{name}" for n in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")]
    assert len(blocks) == 4 and layers == {f"{block}.{end}" for block in blocks for end in ends}
    assert {layer.scaling["default"] for layer in student.transformer.modules() if hasattr(layer, "scaling")} == {1.0}
    assert {p.shape[0] for name, p in student.transformer.named_parameters() if "lora_A" in name} == {4}


# The gradient of a reward -----------------------------------------------------------------------------------------


def test_a_reward_reaches_the_adapter_through_two_steps_and_the_decoder(kind):
    """In float64, against central differences; the policy's own float32 agrees with that up to its rounding."""
    from pixelpolicy.policies import DenoisingPolicy, ddim_eta

    exact = kind.opened(kind.folder, torch.float64, vae_dtype=torch.float64)
    student = shaken(exact.student(), size=0.1)
    student.transformer.double()
    policy = DenoisingPolicy(student, ddim_eta, steps=2, guidance_scale=2.0)
    draws = [noise(student, 2, first=10 * i).double() for i in range(3)]
    conditioning, sigmas = policy.conditioning(PROMPTS[:2]), student.sigmas(2)

    def redness(generator, gaussian, dtype):
        state = (generator.initial_scale(2) * draws[0]).to(dtype)
        for step in range(2):
            mean, std = gaussian(state, step)
            state = mean + std * draws[1 + step].to(dtype)
        pictures = generator.decode(state)
        return (pictures[:, 0] - pictures[:, 1:].mean(1)).mean()

    def wide(state, step):
        sigma, following = sigmas[step : step + 2].double()
        return ddim_eta(state, policy.velocity(state, sigma, conditioning), sigma, following)

    weights = [p for p in student.transformer.parameters() if p.requires_grad]
    reward = redness(student, wide, torch.float64)
    assert reward.dtype == torch.float64
    gradients = torch.autograd.grad(reward, weights)
    assert all(gradient.abs().max() > 1e-9 for gradient in gradients)
    for place in (0, 21, 42, 63):
        weight, gradient = weights[place].view(-1), gradients[place].flatten()
        component, kept, values = gradient.abs().argmax(), weights[place].detach().clone(), []
        for size in (1e-5, -1e-5):
            with torch.no_grad():
                weight[component] += size
                values.append(redness(student, wide, torch.float64).item())
                weights[place].copy_(kept)
        assert gradient[component].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)

    # What trains a model: float32, `gaussian` of the policy.
    narrow = shaken(kind.generator.student(), size=0.1)
    own = replace(policy, generator=narrow)
    told = own.conditioning(PROMPTS[:2])
    reward32 = redness(narrow, lambda state, step: own.gaussian(state, told, sigmas, step, True), torch.float32)
    found = torch.autograd.grad(reward32, [p for p in narrow.transformer.parameters() if p.requires_grad])
    assert reward32.item() == pytest.approx(reward.item(), abs=1e-5)
    mine, its = (torch.cat([g.flatten() for g in parts]) for parts in (found, gradients))
    assert (mine - its).norm() < 1e-4 * its.norm()


# Loading ----------------------------------------------------------------------------------------------------------


def test_the_twin_is_the_published_pipeline_in_small(folder, generator):
    parts = json.loads((folder / "model_index.json").read_text())
    assert parts["_class_name"] == "StableDiffusionPipeline" == type(generator.pipeline).__name__
    assert {kind for _, kind in (v for v in parts.values() if isinstance(v, list)) if kind} == {
        "AutoencoderKL", "CLIPTextModel", "CLIPTokenizer", "PNDMScheduler", "UNet2DConditionModel",
    }  # fmt: skip
    for part in PUBLISHED:
        config = getattr(generator.pipeline, part).config
        config = config if isinstance(config, dict) else config.to_dict()
        assert PUBLISHED[part].keys() <= config.keys(), part
    for key in ("down_block_types", "up_block_types"):
        assert set(generator.transformer.config[key]) == set(PUBLISHED["unet"][key])
    assert generator.pipeline.vae.config.scaling_factor == 0.18215
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 4e6


def test_the_sampler_is_ddim_whatever_the_folder_says(kind, tmp_path, generator):
    copied = tmp_path / "copy"
    shutil.copytree(kind.folder, copied)
    place = copied / "scheduler" / "scheduler_config.json"
    told = json.loads(place.read_text()) | {"timestep_spacing": "trailing"}
    place.write_text(json.dumps(told))
    # As a fetched repository has it: the index names a filter of pictures whose folder was left out.
    index = json.loads((copied / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (copied / "model_index.json").write_text(json.dumps(index))
    other = kind.opened(copied)
    assert type(other.pipeline.scheduler).__name__ == "DDIMScheduler" and other.pipeline.safety_checker is None
    assert torch.equal(other.sigmas(10), generator.sigmas(10))
    place.write_text(json.dumps(told | {"prediction_type": "v_prediction"}))
    with pytest.raises(CheckpointError, match="predicts 'v_prediction'.*prediction_type is 'epsilon'"):
        kind.opened(copied)


def test_weights_that_are_not_there_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="are not on this machine") as error:
        sd15.load()
    assert f"`{FETCH}`" in str(error.value) and "gated" not in str(error.value)
    with pytest.raises(CheckpointError, match="`StableDiffusionPipeline.save_pretrained` wrote"):
        sd15.load(tmp_path / "nothing")


def test_a_size_the_model_cannot_draw_is_refused(generator):
    for height, width in ((60, 64), (64, 0), (-8, 64)):
        with pytest.raises(SizeError, match=rf"{height} x {width}.*multiples of 8\. Choose"):
            replace(generator, height=height, width=width)


def test_a_scheduler_that_ends_at_the_picture(kind):
    generator = kind.opened(kind.folder)
    generator.pipeline.scheduler = published(set_alpha_to_one=True)
    assert generator.sigmas(10)[-1] == 0
    vp = noise(generator, 1)
    with torch.no_grad():
        expected = generator.pipeline.vae.decode(vp / 0.18215).sample.clamp(-1, 1)
        torch.testing.assert_close(generator.decode(vp), expected, rtol=0, atol=1e-5)
