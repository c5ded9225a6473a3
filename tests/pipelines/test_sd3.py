"""Stable Diffusion 3 as a generator: held against diffusers' own pipeline, scheduler and adapter switch."""

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from pixelpolicy.errors import CheckpointError, PromptError, SizeError
from pixelpolicy.pipelines import sd3
from pixelpolicy.pipelines.lora import with_lora
from pixelpolicy.pipelines.sd3_config import FETCH, PUBLISHED, REPOSITORY
from pixelpolicy.pipelines.sd3_twin import WORDS

PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]


def noise(generator, count, first=0):
    streams = [torch.Generator().manual_seed(first + i) for i in range(count)]
    return torch.stack([torch.randn(generator.latent_shape, generator=stream) for stream in streams])


def lora_of(generator):
    return {name: p for name, p in generator.transformer.named_parameters() if p.requires_grad}


def shaken(student, size=0.05, seed=0):
    """A student whose adapter does something."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_of(student).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=stream))
    return student


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


def test_guidance_does_something(generator):
    plain, guided = (generator.generate(PROMPTS, [0, 1, 2], steps=4, guidance_scale=g) for g in (1.0, 4.5))
    assert (plain - guided).abs().max() > 1e-3


def test_a_sample_does_not_depend_on_its_batch(generator):
    together = generator.generate(PROMPTS, [0, 1, 2], steps=3)
    apart = generator.generate(PROMPTS, [0, 1, 2], steps=3, batch_size=2)
    torch.testing.assert_close(together, apart, rtol=0, atol=5e-5)
    alone = replace(generator, decode_batch=1).generate(PROMPTS[1:2], [1], steps=3)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=5e-5)


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


def test_the_autoencoder_keeps_its_own_dtype(folder, opened):
    half = opened(folder, torch.bfloat16)
    other = opened(folder, torch.bfloat16, vae_dtype=torch.bfloat16)
    assert half.pipeline.vae.dtype == torch.float32 and other.pipeline.vae.dtype == torch.bfloat16
    latents = noise(half, 3)
    pictures = half.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half.decode(latents), pictures)
    assert pictures.dtype == other.decode(latents).dtype == torch.float32
    assert pictures.abs().max() <= 1 and not torch.equal(pictures, other.decode(latents))
    latents.requires_grad_()
    half.decode(latents).sum().backward()
    assert latents.grad.abs().max() > 0


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


def test_each_prompt_is_encoded_once_and_kept_on_the_cpu(folder, monkeypatch, opened):
    generator = opened(folder)
    calls, encode = [], generator.pipeline.encode_prompt
    monkeypatch.setattr(
        generator.pipeline, "encode_prompt", lambda prompt, *a, **k: calls.append(prompt) or encode(prompt, *a, **k)
    )
    first = generator.encode(PROMPTS[:2])
    student = generator.student()
    again = student.encode([PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    student.reference().encode([""])
    assert calls == ["", *PROMPTS[:2]]
    assert torch.equal(first[0][0], again[0][1]) and torch.equal(again[1][0], again[1][2])
    assert all(part.device.type == "cpu" for kept in generator.embeddings.values() for part in kept)
    # The batch asked for last is at hand, of whichever of them asked; others do not pile up.
    assert student.encode([""])[0] is generator.encode([""])[0] and len(generator.latest) == 1


def test_a_template_is_set_round_every_prompt_but_the_empty_one(folder, generator, opened):
    framed = opened(folder, template="a flat drawing of {prompt} on a black background")
    expected = generator.encode(["a flat drawing of a red circle on a black background", ""])
    for mine, its in zip(framed.encode(["a red circle", ""]), expected, strict=True):
        assert torch.equal(mine, its)
    with pytest.raises(PromptError, match="no place for the prompt"):
        opened(folder, template="a flat drawing")


def test_without_text_encoders_the_remembered_prompts_still_draw(folder, opened):
    generator = opened(folder)
    generator.remember(PROMPTS[:2])
    before = generator.generate(PROMPTS[:2], [0, 1], steps=3, guidance_scale=3.0)
    student = generator.student()
    generator.forget_text_encoders()
    assert all(getattr(generator.pipeline, name) is None for name in sd3.TEXT_ENCODERS)
    for drawer in (generator, student, student.reference()):
        assert torch.equal(drawer.generate(PROMPTS[:2], [0, 1], steps=3, guidance_scale=3.0), before)
        with pytest.raises(PromptError, match=r"'a green triangle above a red square' is new.*remember\(\)"):
            drawer.encode(PROMPTS)


# Student and reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_student_begins_as_the_base_to_the_bit(folder, dtype, opened):
    base = opened(folder, dtype)
    student = base.student()
    adapter = lora_of(student)
    # Two blocks of eight projections; the last has no way back to the text, so no `to_add_out`.
    assert len(adapter) == 2 * (8 + 7) and all("lora_" in name for name in adapter)
    assert {p.dtype for p in adapter.values()} == {torch.float32}
    assert {p.shape[0] for name, p in adapter.items() if "lora_A" in name} == {32}
    assert {layer.scaling["default"] for layer in student.transformer.modules() if hasattr(layer, "scaling")} == {2.0}
    assert {p.dtype for name, p in student.transformer.named_parameters() if name not in adapter} == {dtype}
    x, conditioning = noise(base, 3), base.encode(PROMPTS)
    for sigma in (1.0, 0.6, 0.0089):
        assert torch.equal(student.velocity(x, sigma, *conditioning), base.velocity(x, sigma, *conditioning))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_reference_is_the_student_with_its_adapter_off(folder, dtype, opened):
    base = opened(folder, dtype)
    student = shaken(base.student())
    x, conditioning = noise(base, 3), base.encode(PROMPTS)
    with torch.no_grad():
        moved = student.velocity(x, 0.6, *conditioning)
        reference = student.reference().velocity(x, 0.6, *conditioning)
        student.transformer.disable_adapters()
        off = student.velocity(x, 0.6, *conditioning)
        student.transformer.enable_adapters()
        assert torch.equal(student.velocity(x, 0.6, *conditioning), moved)
    assert torch.equal(reference, off) and torch.equal(reference, base.velocity(x, 0.6, *conditioning))
    assert (moved - off).abs().max() > 1e-3
    assert not any(p.requires_grad for p in student.reference().transformer.parameters())


def test_the_frozen_weights_are_shared_and_the_base_has_no_adapter(generator):
    one, other = shaken(generator.student(), seed=1), shaken(generator.student(), seed=2)
    mine, its = dict(one.transformer.named_parameters()), dict(generator.transformer.named_parameters())
    shared = {name.replace(".base_layer", ""): p for name, p in mine.items() if not p.requires_grad}
    assert shared.keys() == its.keys() and all(shared[name] is its[name] for name in its)
    x, conditioning = noise(generator, 3), generator.encode(PROMPTS)
    assert not torch.equal(one.velocity(x, 0.5, *conditioning), other.velocity(x, 0.5, *conditioning))
    assert not any("lora" in name for name in its) and not any(p.requires_grad for p in its.values())


def test_a_students_student_goes_on_from_it(generator):
    student = shaken(generator.student())
    further, x, conditioning = student.student(), noise(generator, 3), generator.encode(PROMPTS)
    before = student.velocity(x, 0.5, *conditioning)
    assert torch.equal(further.velocity(x, 0.5, *conditioning), before)
    shaken(further, seed=3)
    assert torch.equal(student.velocity(x, 0.5, *conditioning), before)
    assert not torch.equal(further.velocity(x, 0.5, *conditioning), before)
    assert further.reference() is generator


def test_an_adapter_follows_from_its_seed_and_leaves_torchs_stream_alone(generator):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    students = [generator.student(rank=4, alpha=8, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    weights = [torch.cat([p.flatten() for p in lora_of(student).values()]) for student in students]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


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


def test_twins_follow_from_their_seed(folder, tmp_path, opened):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    same, other = (opened(sd3.twin(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert torch.equal(torch.rand(2), expected)
    first = opened(folder)
    x, conditioning = noise(first, 3), first.encode(PROMPTS)
    assert torch.equal(first.velocity(x, 0.5, *conditioning), same.velocity(x, 0.5, *conditioning))
    assert not torch.equal(first.velocity(x, 0.5, *conditioning), other.velocity(x, 0.5, *conditioning))


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


@pytest.mark.parametrize("harm", ["empty", "no transformer", "truncated"])
def test_a_folder_that_is_not_whole_is_refused(folder, tmp_path, harm, opened):
    broken = tmp_path / "broken"
    broken.mkdir()
    if harm != "empty":
        shutil.copytree(folder, broken, dirs_exist_ok=True)
        weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
        if harm == "truncated":
            weights.write_bytes(weights.read_bytes()[:5000])
        else:
            shutil.rmtree(broken / "transformer")
    with pytest.raises(CheckpointError, match="is no whole Stable Diffusion 3 pipeline"):
        opened(broken)


@pytest.mark.slow
def test_a_fetched_repository_loads_by_its_id(folder, tmp_path):
    """A cache as `hf download` leaves it, in another process, because the hub reads its place only once."""
    commit, place = "a" * 40, tmp_path / "hub" / "models--someone--small"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    code = (
        "from pixelpolicy.course.network import cut_network; cut_network()\n"
        "from pixelpolicy.pipelines import sd3\n"
        "print(sd3.load('someone/small', height=64, width=64, device='cpu').latent_shape)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "(16, 8, 8)", done.stderr[-2000:]
    assert not done.stderr.strip()  # neither advice nor progress bars


def test_a_rehearsal_gets_the_twin_and_a_gpu_the_model(monkeypatch, tmp_path):
    monkeypatch.setenv("PIXELPOLICY_PROFILE", "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    generator = sd3.load_for_profile(height=512, width=512, template="{prompt}!", max_sequence_length=16)
    assert generator.latent_shape == (16, 8, 8) and generator.template == "{prompt}!"
    assert generator.generate(["a red circle"], [0], steps=2).shape == (1, 3, 64, 64)
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sd3, "load", lambda *given, **settings: asked.append((given, settings)))
    sd3.load_for_profile(height=512, width=512)
    assert asked == [((), {"height": 512, "width": 512})]


def test_importing_pipelines_imports_no_diffusers():
    code = "import sys; from pixelpolicy.pipelines import sd3; print(sorted({'diffusers', 'peft'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_copy_of_a_policy_is_possible(generator):
    assert copy.deepcopy(generator.student()).base is not generator
