"""FLUX.2 klein as a generator: held against diffusers' own pipeline, autoencoder and scheduler."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from adapters import lora_of, noise, shaken
from torch.nn import functional

from pixelpolicy.errors import CheckpointError, SizeError
from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig, window_steps
from pixelpolicy.pipelines import flux2_klein
from pixelpolicy.pipelines.clip import WORDS
from pixelpolicy.pipelines.flux2_klein_config import FETCH, PUBLISHED, REPOSITORY
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, flow_sde
from pixelpolicy.rewards import jpeg_compressibility

KINDS = ["flux2_klein"]
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]
STEPS = 5


# Against the pipeline ---------------------------------------------------------------------------------------------


def straight(generator, size, guidance):
    """Latents after every step, the pictures, and the noise levels, of the pipeline itself from the same noise."""
    own, after = replace(generator, height=size[0], width=size[1]), []
    pictures = generator.pipeline(
        prompt=PROMPTS, height=size[0], width=size[1], num_inference_steps=STEPS, guidance_scale=guidance,
        latents=noise(own, 3), max_sequence_length=32, output_type="pt",
        callback_on_step_end=lambda pipeline, i, t, kept: after.append(kept["latents"]) or {},
    ).images  # fmt: skip
    unpacked = torch.stack(after, 1).transpose(2, 3).unflatten(3, own.latent_shape[1:])
    return own, unpacked, pictures, generator.pipeline.scheduler.sigmas


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_without_noise_every_transition_is_the_pipeline(generator, guidance, size):
    """The states after every step and the pictures of `pipeline(...)`: only rounding in float32 is between them."""
    own, latents, pictures, sigmas = straight(generator, size, guidance)
    assert torch.equal(own.sigmas(STEPS), sigmas) and pictures.shape == (3, 3, *size)
    for transition in (cps, flow_sde, dance_sde):
        policy = DenoisingPolicy(own, partial(transition, noise=0.0), steps=STEPS, guidance_scale=guidance)
        rollout = policy.rollout(PROMPTS, seeds=torch.arange(3))
        assert not rollout.stochastic.any()
        torch.testing.assert_close(rollout.states[:, 1:], latents, rtol=0, atol=2e-5)
        torch.testing.assert_close((rollout.samples + 1) / 2, pictures, rtol=0, atol=1e-4)
    drawn = own.generate(PROMPTS, [0, 1, 2], steps=STEPS, guidance_scale=guidance)
    torch.testing.assert_close((drawn + 1) / 2, pictures, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("side", "steps"), [(64, 1), (64, 10), (512, 10), (512, 50), (1024, 50), (1072, 50)])
def test_the_noise_levels_are_shifted_as_the_model_wants(generator, side, steps):
    """The shift grows with the tokens of the picture and falls with the steps, linearly; beyond 4300 tokens, with the
    tokens alone."""
    before = generator.pipeline.scheduler.sigmas.clone()
    tokens = (side // 16) ** 2
    ten, many = 8.73809524e-05 * tokens + 1.89833333, 0.00016927 * tokens + 0.45666666
    shift = many if tokens > 4300 else ten + (steps - 10) / 190 * (many - ten)
    plain = [1 - i * (1 - 1 / steps) / max(steps - 1, 1) for i in range(steps)]
    expected = [math.exp(shift) / (math.exp(shift) + 1 / t - 1) for t in plain]
    sigmas = replace(generator, height=side, width=side).sigmas(steps)
    torch.testing.assert_close(sigmas, torch.tensor([*expected, 0.0]), rtol=0, atol=1e-6)
    assert torch.equal(generator.pipeline.scheduler.sigmas, before)  # the pipeline's own stands as it was


def test_a_step_of_cps_adds_its_noise_and_knows_its_density(generator):
    """Every state of a rollout, from the transition's formula and the network asked as the pipeline asks it."""
    eta = 0.8
    policy = DenoisingPolicy(generator, partial(cps, noise=eta), steps=STEPS)
    rollout, pipeline = policy.rollout(PROMPTS[:2], seeds=torch.arange(2)), generator.pipeline
    (embeds,), draws = generator.encode(PROMPTS[:2]), policy.draws(torch.arange(2))
    state, sigmas = next(draws), rollout.sigmas
    places = {"img_ids": pipeline._prepare_latent_ids(state), "txt_ids": pipeline._prepare_text_ids(embeds)}
    for step in range(STEPS - 1):
        with torch.no_grad():
            packed = pipeline._pack_latents(state)
            v = pipeline.transformer(packed, embeds, sigmas[step].expand(2) * 1000 / 1000, **places).sample
        v = pipeline._unpack_latents_with_ids(v, places["img_ids"])
        picture, noise_there = state - sigmas[step] * v, state + (1 - sigmas[step]) * v
        angle, following = torch.tensor(eta * math.pi / 2), sigmas[step + 1]
        mean = (1 - following) * picture + following * angle.cos() * noise_there
        spread = following * angle.sin()
        state = mean + spread * next(draws)
        torch.testing.assert_close(rollout.states[:, step + 1], state, rtol=0, atol=2e-5)
        density = torch.distributions.Normal(mean, spread).log_prob(state)
        torch.testing.assert_close(rollout.log_probs[:, step], density.mean((1, 2, 3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_velocity_is_the_transformers_in_its_dtype_and_float32_outside(folder, dtype, opened):
    generator = opened(folder, dtype, height=32, width=96)
    pipeline, x, (embeds,) = generator.pipeline, noise(generator, 3), generator.encode(PROMPTS)
    assert generator.dtype == embeds.dtype == dtype
    assert shaken(generator.student()).dtype == dtype
    with torch.no_grad():
        velocity = generator.velocity(x, torch.tensor(0.7), embeds)
        ids = pipeline._prepare_latent_ids(x)
        told = {"img_ids": ids, "txt_ids": pipeline._prepare_text_ids(embeds)}
        packed = pipeline.transformer(pipeline._pack_latents(x.to(dtype)), embeds, torch.full((3,), 0.7), **told).sample
    assert velocity.dtype == torch.float32
    assert torch.equal(velocity, pipeline._unpack_latents_with_ids(packed, ids).float())
    assert velocity.abs().max() > 0.01


# Pictures ---------------------------------------------------------------------------------------------------------


def test_decoding_undoes_the_batch_norm_and_the_patches(generator):
    """Latents, standardised by the autoencoder's own layer in patches, come back, and so does their picture."""
    vae, stream = generator.pipeline.vae, torch.Generator().manual_seed(0)
    assert vae.bn.running_mean.abs().max() > 0.5 and vae.bn.running_var.max() > 2 * vae.bn.running_var.min()
    latents = torch.randn(2, 32, 8, 8, generator=stream)
    with torch.no_grad():
        states = vae.bn(functional.pixel_unshuffle(latents, 2))
        pictures = vae.decode(latents).sample.clamp(-1, 1)
    assert states.shape[1:] == generator.latent_shape
    torch.testing.assert_close(generator.unscaled(states), latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(generator.decode(states), pictures, rtol=0, atol=5e-5)
    assert (generator.decode(functional.pixel_unshuffle(latents, 2)) - pictures).abs().max() > 1e-3


def test_a_size_the_model_cannot_draw_is_refused(generator):
    for height, width in ((60, 64), (64, 8), (0, 64), (64, 72)):
        with pytest.raises(SizeError, match=rf"{height} x {width}.*multiples of 16\. Choose"):
            replace(generator, height=height, width=width)
    assert replace(generator, height=48, width=80).latent_shape == (128, 3, 5)


# Prompts ----------------------------------------------------------------------------------------------------------


def test_remembered_embeddings_are_three_layers_of_the_language_model(generator):
    pipeline = generator.pipeline
    (embeds,) = generator.encode([*PROMPTS, "", PROMPTS[0]])
    assert embeds.shape == (5, 32, 3 * 16)
    for i, prompt in enumerate([*PROMPTS, "", PROMPTS[0]]):
        assert torch.equal(embeds[i], pipeline.encode_prompt(prompt, max_sequence_length=32)[0][0])
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        told = pipeline.tokenizer(text, padding="max_length", max_length=32, return_tensors="pt")
        with torch.no_grad():
            layers = pipeline.text_encoder(**told, output_hidden_states=True).hidden_states
        torch.testing.assert_close(embeds[i], torch.cat([layers[n][0] for n in (9, 18, 27)], -1), rtol=0, atol=1e-6)
    assert len({tuple(row.flatten().tolist()) for row in embeds}) == 4  # the twin tells prompts apart
    assert generator.max_sequence_length == 32  # so many are quick; the pipeline's own are the default
    assert flux2_klein.Flux2KleinGenerator.max_sequence_length == pipeline.tokenizer_max_length == 512


def test_the_twins_tokenizer_knows_the_words_and_spells_the_rest(generator):
    tokenizer = generator.pipeline.tokenizer
    pieces = lambda text: tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)  # noqa: E731
    for word in WORDS:
        assert pieces(word) == [word] and pieces(f"red {word}") == ["red", f"Ġ{word}"]
    assert pieces("red zebra") == ["red", "Ġ", "z", "e", "b", "r", "a"]
    said = [{"role": "user", "content": "a red circle"}]
    asked = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert pieces(asked) == [
        "<|im_start|>", "user", "Ċ", "a", "Ġred", "Ġcircle", "<|im_end|>", "Ċ",
        "<|im_start|>", "assistant", "Ċ", "<think>", "ĊĊ", "</think>", "ĊĊ",
    ]  # fmt: skip
    thinking = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert thinking == asked.partition("<think>")[0] and tokenizer.pad_token == "<|endoftext|>"


# Student and reference --------------------------------------------------------------------------------------------


def test_the_adapter_is_in_the_blocks_of_both_kinds(generator):
    """`attn.to_out` is a layer in the blocks with one stream, and a list of layers in those with two."""
    layers = {name.split(".lora_")[0] for name in lora_of(generator.student())}
    two, one = ("to_q", "to_k", "to_v", "to_out.0"), ("to_qkv_mlp_proj", "to_out")
    assert layers == {
        f"{blocks}.{block}.attn.{end}"
        for blocks, ends in (("transformer_blocks", two), ("single_transformer_blocks", one))
        for block in range(2)
        for end in ends
    }


def test_an_iteration_of_grpo_in_a_window_of_cps_without_guidance_or_text_encoder(folder, opened):
    """As the 4B is to be trained on one card: embeddings kept, no guidance, noise in three neighbouring steps alone."""
    base = opened(folder)
    base.remember(PROMPTS)
    base.forget_text_encoders()
    policy = DenoisingPolicy(base.student(rank=4, alpha=8), partial(cps, noise=0.8), steps=6, micro_batch=3)
    before = {name: weight.clone() for name, weight in policy.generator.transformer.named_parameters()}
    settings = GRPOConfig(
        prompts_per_iteration=2, group_size=3, trained_steps=3, minibatches=1, noise_only_where_trained=True,
        clip_range=1e-4,
    )  # fmt: skip
    draw = lambda count, rng: [PROMPTS[i] for i in rng.integers(3, size=count)]  # noqa: E731
    algorithm = GRPO(policy, jpeg_compressibility(), draw, settings, choose_steps=window_steps)
    (row,) = Loop(algorithm, LoopConfig(iterations=1, learning_rate=1e-2, progress=False)).run()
    assert row["grad_norm"] > 0 and row["kl"] == 0  # the only update begins at the base
    after = dict(policy.generator.transformer.named_parameters())
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    adapter = set(lora_of(policy.generator))
    assert {name for name in adapter if "lora_B" in name} <= moved <= adapter  # A has no gradient yet, while B is 0


# Loading ----------------------------------------------------------------------------------------------------------


def test_the_twin_is_the_published_pipeline_in_small(folder, generator):
    parts = json.loads((folder / "model_index.json").read_text())
    assert parts["_class_name"] == "Flux2KleinPipeline" == type(generator.pipeline).__name__
    assert parts["is_distilled"] is False
    assert {kind for _, kind in (v for v in parts.values() if isinstance(v, list)) if kind} == {
        "AutoencoderKLFlux2", "FlowMatchEulerDiscreteScheduler", "Flux2Transformer2DModel", "Qwen2Tokenizer",
        "Qwen3ForCausalLM",
    }  # fmt: skip
    for part in PUBLISHED:
        config = getattr(generator.pipeline, part).config
        config = config if isinstance(config, dict) else config.to_dict()
        assert PUBLISHED[part].keys() <= config.keys(), part
    for part, key in (("transformer", "in_channels"), ("transformer", "guidance_embeds"), ("vae", "latent_channels")):
        assert getattr(generator.pipeline, part).config[key] == PUBLISHED[part][key]
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 5e6


def test_weights_that_are_not_there_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="are not on this machine") as error:
        flux2_klein.load()
    assert f"`{FETCH}`" in str(error.value) and FETCH.startswith(f"hf download {REPOSITORY} --exclude")
    with pytest.raises(CheckpointError, match="`Flux2KleinPipeline.save_pretrained` wrote"):
        flux2_klein.load(tmp_path / "nothing")
