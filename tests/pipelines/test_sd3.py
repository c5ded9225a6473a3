"""Stable Diffusion 3 as a generator: held against diffusers' own pipeline, scheduler and adapter switch."""

import json
from dataclasses import replace

import pytest
import torch
from adapters import lora_of, noise, shaken

from pixelpolicy.errors import CheckpointError, SizeError
from pixelpolicy.pipelines import sd3
from pixelpolicy.pipelines.clip import WORDS
from pixelpolicy.pipelines.lora import with_lora
from pixelpolicy.pipelines.sd3_config import FETCH, PUBLISHED, REPOSITORY

KINDS = ["sd3"]
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]


# Against the pipeline ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 10, 28])
def test_the_noise_levels_are_the_schedulers(generator, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    before = generator.pipeline.scheduler.sigmas.clone()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    assert torch.equal(generator.sigmas(steps), scheduler.sigmas)
    assert torch.equal(generator.pipeline.scheduler.sigmas, before)  # the pipeline's own stands as it was
    generator.pipeline.scheduler.set_timesteps(steps)
    assert torch.equal(generator.pipeline.scheduler.sigmas, scheduler.sigmas)


def test_the_noise_levels_follow_another_shift(folder, opened):
    generator = opened(folder)
    shifted = generator.sigmas(10)
    generator.pipeline.scheduler = type(generator.pipeline.scheduler)(shift=1.0)
    plain = generator.sigmas(10)
    torch.testing.assert_close(plain[:-1], torch.linspace(1, 0.001, 10))
    assert (shifted[1:-2] > plain[1:-2] + 0.02).all()


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_the_ode_ends_where_the_pipeline_ends(generator, guidance, size):
    """The same starting noise, the same steps: the latents and the pictures of `pipeline(...)`."""
    own = replace(generator, height=size[0], width=size[1])
    asked = {"num_inference_steps": 6, "guidance_scale": guidance, "max_sequence_length": 16}
    asked |= {"height": size[0], "width": size[1], "return_dict": False, "latents": noise(own, 3)}
    expected = generator.pipeline(PROMPTS, output_type="latent", **asked)[0]
    kept, decode = [], sd3.SD3Generator.decode
    own.decode = lambda latents: kept.append(latents) or decode(own, latents)
    pictures = own.generate(PROMPTS, [0, 1, 2], steps=6, guidance_scale=guidance)
    torch.testing.assert_close(torch.cat(kept), expected, rtol=0, atol=1e-5)
    drawn = generator.pipeline(PROMPTS, output_type="pt", **asked)[0]
    assert pictures.shape == (3, 3, *size) and pictures.dtype == torch.float32
    torch.testing.assert_close((pictures + 1) / 2, drawn, rtol=0, atol=5e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_velocity_is_the_transformers_in_its_dtype_and_float32_outside(folder, dtype, opened):
    generator = opened(folder, dtype)
    x, conditioning = noise(generator, 3), generator.encode(PROMPTS)
    assert generator.dtype == dtype and {part.dtype for part in conditioning} == {dtype}
    with torch.no_grad():
        velocity = generator.velocity(x, torch.tensor(0.7), *conditioning)
        expected = generator.pipeline.transformer(
            x.to(dtype), conditioning[0], conditioning[1], torch.full((3,), 0.7) * 1000
        ).sample
    assert velocity.dtype == torch.float32 and torch.equal(velocity, expected.float())
    assert velocity.abs().max() > 0.01


def test_a_size_the_model_cannot_draw_is_refused(generator):
    for height, width in ((60, 64), (64, 8), (0, 64), (272, 64)):
        with pytest.raises(SizeError, match=rf"{height} x {width}.*multiples of 16 up to 256"):
            replace(generator, height=height, width=width)


# Prompts ----------------------------------------------------------------------------------------------------------


def test_remembered_embeddings_are_those_of_encode_prompt(generator):
    embeds, pooled = generator.encode([*PROMPTS, "", PROMPTS[0]])
    for i, prompt in enumerate([*PROMPTS, "", PROMPTS[0]]):
        expected, negative, expected_pooled, negative_pooled = generator.pipeline.encode_prompt(
            prompt, prompt, prompt, torch.device("cpu"), max_sequence_length=16
        )
        assert torch.equal(embeds[i], expected[0]) and torch.equal(pooled[i], expected_pooled[0])
        if not prompt:  # what the pipeline takes for guidance
            assert torch.equal(embeds[i], negative[0]) and torch.equal(pooled[i], negative_pooled[0])
    assert len({tuple(row.tolist()) for row in pooled}) == 4  # the twin tells prompts apart


# Student and reference --------------------------------------------------------------------------------------------


def test_the_adapter_is_in_every_joint_attention(generator):
    """Two blocks of eight projections; the last has no way back to the text, so no `to_add_out`."""
    layers = {name.split(".lora_")[0] for name in lora_of(generator.student())}
    assert len(layers) == 8 + 7 and "transformer_blocks.1.attn.to_add_out" not in layers


def test_lora_adds_what_its_formula_says(generator):
    student, base = shaken(generator.student(rank=4, alpha=6)), generator.transformer
    layer, plain = (m.transformer_blocks[0].attn.to_q for m in (student.transformer, base))
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ plain.weight.T + plain.bias + 6 / 4 * (x @ a.T @ b.T)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)


def test_the_second_attention_and_the_feed_forward_stay_plain(generator):
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel.from_config(generator.transformer.config).requires_grad_(False)
    adapted = with_lora(model, sd3.TARGETS, rank=2, alpha=2)
    names = {name.rsplit(".lora_", 1)[0] for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(".attn." in name for name in names) and model.transformer_blocks[0].attn2 is not None


# Loading ----------------------------------------------------------------------------------------------------------


def test_the_twin_is_the_published_pipeline_in_small(folder, generator):
    parts = json.loads((folder / "model_index.json").read_text())
    assert parts["_class_name"] == "StableDiffusion3Pipeline" == type(generator.pipeline).__name__
    assert {kind for _, kind in (v for v in parts.values() if isinstance(v, list)) if kind} == {
        "AutoencoderKL", "CLIPTextModelWithProjection", "CLIPTokenizer", "FlowMatchEulerDiscreteScheduler",
        "SD3Transformer2DModel", "T5EncoderModel", "T5Tokenizer",
    }  # fmt: skip
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "scheduler"):
        config = getattr(generator.pipeline, part).config
        config = config if isinstance(config, dict) else config.to_dict()
        assert PUBLISHED[part].keys() <= config.keys(), part
    for key in ("qk_norm", "patch_size", "in_channels"):
        assert generator.transformer.config[key] == PUBLISHED["transformer"][key]
    for key in ("scaling_factor", "shift_factor"):
        assert generator.pipeline.vae.config[key] == PUBLISHED["vae"][key]
    assert generator.transformer.transformer_blocks[0].attn2 is not None  # dual attention, as in 3.5
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 5e6


def test_the_twins_tokenizers_know_the_words_and_spell_the_rest(generator):
    first, second, third = (getattr(generator.pipeline, f"tokenizer{n}") for n in ("", "_2", "_3"))
    for word in WORDS:
        assert len(first(word).input_ids) == 3 and len(third(word).input_ids) == 2
    assert first.convert_ids_to_tokens(first("a zebra").input_ids)[2:-1] == ["z", "e", "b", "r", "a</w>"]
    assert max(first.get_vocab().values()) == first.eos_token_id == first.pad_token_id
    assert second.pad_token == "!" and second.model_max_length == 77
    assert first("a red circle").input_ids == first("a  Red CIRCLE").input_ids


def test_weights_that_are_not_there_name_the_command_and_the_licence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        sd3.load()
    assert f"`{FETCH}`" in str(error.value) and FETCH.startswith(f"hf download {REPOSITORY}")
    assert "Stability AI Community License" in str(error.value) and "hf auth login" in str(error.value)
    with pytest.raises(CheckpointError, match="hf download someone/other-model --exclude") as error:
        sd3.load("someone/other-model")
    assert "gated" not in str(error.value)
    for missing in (tmp_path / "nothing", "./nothing", "nothing"):
        with pytest.raises(CheckpointError, match="there is no folder"):
            sd3.load(missing)
