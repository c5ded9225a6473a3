"""What every kind of pipeline does as a generator: prompts, decoding, adapters and loading."""

import copy
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from adapters import lora_of, noise, shaken

from pixelpolicy.errors import CheckpointError, PromptError

KINDS = ["sd3", "flux2_klein", "sd15", "wan", "shap_e"]
BLOCKS = (
    "ResnetBlock2D", "JointTransformerBlock", "Flux2SingleTransformerBlock", "WanTransformerBlock", "WanResidualBlock",
)  # fmt: skip
PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]


# Pictures ---------------------------------------------------------------------------------------------------------


def test_guidance_does_something(generator):
    plain, guided = (generator.generate(PROMPTS, [0, 1, 2], steps=4, guidance_scale=g) for g in (1.0, 4.5))
    assert (plain - guided).abs().max() > 1e-3


def test_a_sample_does_not_depend_on_its_batch(generator):
    together = generator.generate(PROMPTS, [0, 1, 2], steps=3)
    apart = generator.generate(PROMPTS, [0, 1, 2], steps=3, batch_size=2)
    torch.testing.assert_close(together, apart, rtol=0, atol=5e-5)
    alone = replace(generator, decode_batch=1).generate(PROMPTS[1:2], [1], steps=3)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=5e-5)


def test_the_decoder_keeps_its_own_dtype(kind, folder, opened):
    half = opened(folder, torch.bfloat16)
    other = opened(folder, torch.bfloat16, vae_dtype=torch.bfloat16)
    assert [kind.decoder_of(one).dtype for one in (half, other)] == [torch.float32, torch.bfloat16]
    latents = noise(half, 3)
    pictures = half.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half.decode(latents), pictures)
    assert pictures.dtype == other.decode(latents).dtype == torch.float32
    assert pictures.abs().max() <= 1 and not torch.equal(pictures, other.decode(latents))
    latents.requires_grad_()
    half.decode(latents).sum().backward()
    assert latents.grad.abs().max() > 0


# Prompts ----------------------------------------------------------------------------------------------------------


def test_each_prompt_is_encoded_once_and_kept_on_the_cpu(folder, monkeypatch, opened):
    generator = opened(folder)
    name = "encode_prompt" if hasattr(generator.pipeline, "encode_prompt") else "_encode_prompt"
    calls, encode = [], getattr(generator.pipeline, name)
    monkeypatch.setattr(
        generator.pipeline, name, lambda prompt, *a, **k: calls.append(prompt) or encode(prompt, *a, **k)
    )
    first = generator.encode(PROMPTS[:2])
    student = generator.student()
    again = student.encode([PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    student.reference().encode([""])
    assert calls == ["", *PROMPTS[:2]]
    assert torch.equal(first[0][0], again[0][1]) and torch.equal(again[0][0], again[0][2])
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
    assert all(getattr(generator.pipeline, name) is None for name in generator.TEXT_ENCODERS)
    for drawer in (generator, student, student.reference()):
        assert torch.equal(drawer.generate(PROMPTS[:2], [0, 1], steps=3, guidance_scale=3.0), before)
        with pytest.raises(PromptError, match=r"'a green triangle above a red square' is new.*remember\(\)"):
            drawer.encode(PROMPTS)


# Student and reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_student_begins_as_the_base_to_the_bit(kind, folder, dtype, opened):
    base = opened(folder, dtype)
    student = base.student()
    adapter = lora_of(student)
    assert adapter and all("lora_" in name for name in adapter)
    assert {p.dtype for p in adapter.values()} == {torch.float32}
    assert {p.shape[0] for name, p in adapter.items() if "lora_A" in name} == {base.RANK}
    scalings = {layer.scaling["default"] for layer in student.transformer.modules() if hasattr(layer, "scaling")}
    assert scalings == {base.ALPHA / base.RANK}
    dtypes = {p.dtype for name, p in student.transformer.named_parameters() if name not in adapter}
    assert dtypes == ({dtype, torch.float32} if kind.norms_in_float32 else {dtype})
    x, conditioning = noise(base, 3), base.encode(PROMPTS)
    for sigma in (0.99, 0.6, 0.0089):
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


@pytest.mark.parametrize("part", ["network", "decoder"])
def test_checkpointing_computes_again_and_leaves_the_gradient_as_it_was(kind, folder, part):
    generator = kind.opened(folder)
    student, latents = shaken(generator.student()), noise(generator, 2).requires_grad_()
    if part == "network" and not student.transformer._supports_gradient_checkpointing:
        pytest.skip("diffusers has none for this network")
    decoder = kind.decoder_of(generator)
    network = student.transformer if part == "network" else getattr(decoder, "decoder", decoder)
    inputs = [latents, *lora_of(student).values()] if part == "network" else [latents]
    calls, gradients = [0], []
    layers = [m for m in network.modules() if type(m).__name__ in BLOCKS] or network.mlp.mlp
    layer = layers[-1]
    layer.register_forward_pre_hook(lambda *_: calls.append(calls.pop() + 1))
    for on in (False, True, False):
        student.checkpoint_gradients(on)
        if part == "network":
            result = student.velocity(latents, 0.6, *student.encode(PROMPTS[:2]))
        else:
            result = student.decode(0.1 * latents)
        gradients.append(torch.autograd.grad(result.square().sum(), inputs, allow_unused=True))
        calls.append(0)
    assert calls[0] == calls[2] > 0 and calls[1] == 2 * calls[0]
    for plain, again, after in zip(*gradients, strict=True):
        assert (plain is None) == (again is None)
        if plain is not None:
            torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)
            assert torch.equal(after, plain)


# Loading ----------------------------------------------------------------------------------------------------------


def test_twins_follow_from_their_seed(kind, folder, tmp_path, opened):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    same, other = (opened(kind.module.twin(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert torch.equal(torch.rand(2), expected)
    first = opened(folder)
    x, conditioning = noise(first, 3), first.encode(PROMPTS)
    assert torch.equal(first.velocity(x, 0.5, *conditioning), same.velocity(x, 0.5, *conditioning))
    assert not torch.equal(first.velocity(x, 0.5, *conditioning), other.velocity(x, 0.5, *conditioning))


@pytest.mark.parametrize("harm", ["empty", "no network", "truncated"])
def test_a_folder_that_is_not_whole_is_refused(kind, folder, tmp_path, harm, opened):
    broken = tmp_path / "broken"
    broken.mkdir()
    if harm != "empty":
        shutil.copytree(folder, broken, dirs_exist_ok=True)
        weights = broken / kind.generator.NETWORK / "diffusion_pytorch_model.safetensors"
        if harm == "truncated":
            weights.write_bytes(weights.read_bytes()[:5000])
        else:
            shutil.rmtree(weights.parent)
    with pytest.raises(CheckpointError, match=f"is no whole {kind.config.SOURCE.name} pipeline"):
        opened(broken)


@pytest.mark.slow
def test_a_fetched_repository_loads_by_its_id(kind, folder, tmp_path):
    """A cache as `hf download` leaves it, in another process, because the hub reads its place only once."""
    commit, place = "a" * 40, tmp_path / "hub" / "models--someone--small"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    code = (
        "from pixelpolicy.course.network import cut_network; cut_network()\n"
        f"from {kind.module.__name__} import load\n"
        f"print(load('someone/small', **{kind.settings}).latent_shape)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == str(kind.generator.latent_shape), done.stderr[-2000:]
    assert not done.stderr.strip()  # neither advice nor progress bars


def test_a_rehearsal_gets_the_twin_and_a_gpu_the_model(kind, monkeypatch):
    module = kind.module
    monkeypatch.setenv("PIXELPOLICY_PROFILE", "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    generator = module.load_for_profile(height=512, width=512, template="{prompt}!")
    assert generator.latent_shape == kind.generator.latent_shape and generator.template == "{prompt}!"
    assert generator.generate(["a red circle"], [0], steps=2).shape == (1, *kind.sample_shape)
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "load", lambda *given, **settings: asked.append((given, settings)))
    module.load_for_profile(height=512, width=512, **dict.fromkeys(kind.several, 17))
    assert asked == [((), {"height": 512, "width": 512} | dict.fromkeys(kind.several, 17))]


def test_importing_pipelines_imports_no_diffusers():
    code = (
        "import sys; from pixelpolicy.pipelines import flux2_klein, sd3, sd15, shap_e, wan\n"
        "print(sorted({'diffusers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_copy_of_a_policy_is_possible(generator):
    assert copy.deepcopy(generator.student()).base is not generator
