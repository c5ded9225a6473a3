"""The image generator: its shapes, its prompts, and that a sample depends on its own seed and prompt alone."""

import pytest
import torch
from torch.nn import functional as F

from pixelpolicy.errors import PromptError
from pixelpolicy.generators.flow import PromptEncoder, initial_noise
from pixelpolicy.generators.image import build
from pixelpolicy.worlds import shapes

PROMPTS = [
    "a red circle",
    "two blue squares",
    "a red circle left of a green triangle",
    "a yellow square and a red circle",
]
SEEDS = [11, 12, 13, 14]


@pytest.mark.parametrize(("width", "layers", "heads"), [(32, 1, 1), (96, 2, 3)])
def test_the_parts_have_the_sizes_asked_for(width, layers, heads):
    generator = build(width=width, layers=layers, channels=(8, 8, 8))
    config = generator.transformer.config
    assert (config.attention_head_dim, config.num_attention_heads, config.num_layers) == (32, heads, layers)
    assert generator.transformer.inner_dim == width
    assert generator.latent_shape == (4, 8, 8)
    latents = torch.zeros(2, *generator.latent_shape)
    embeds, pooled = generator.encode(PROMPTS[:2])
    assert generator.velocity(latents, 0.5, embeds, pooled).shape == latents.shape
    assert generator.decode(latents).shape == (2, 3, shapes.SIZE, shapes.SIZE)


def test_prompts_become_embeddings_that_tell_them_apart(tiny):
    embeds, pooled = tiny.encode(["", *PROMPTS])
    assert embeds.shape == (5, shapes.MOST_WORDS, 64)
    assert pooled.shape == (5, 64)
    assert len({tuple(row.tolist()) for row in pooled}) == 5
    alone = tiny.encode(PROMPTS[1:2])
    torch.testing.assert_close(alone[0][0], embeds[2], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(alone[1][0], pooled[2], atol=1e-6, rtol=1e-6)


def test_tokens_are_the_numbers_of_words_padded_with_the_empty_word():
    encoder = PromptEncoder.of(shapes)
    tokens = encoder.tokens(["a red circle", "a red circle left of a blue square", ""])
    words = [[shapes.VOCABULARY[i] for i in row] for row in tokens]
    assert words == [["red", "circle", "", "", ""], ["red", "circle", "left", "blue", "square"], [""] * 5]


@pytest.mark.parametrize("text", ["a purple circle", "a cat", "A red circle", "five red circles"])
def test_a_prompt_outside_the_vocabulary_is_refused(tiny, text):
    with pytest.raises(PromptError, match="outside the vocabulary.*yellow.*triangle.*four.*below"):
        tiny.encode(["a red circle", text])
    with pytest.raises(PromptError):
        tiny.generate([text], [0], steps=1)


def test_noise_levels_are_shifted_as_schedulers_do(tiny):
    from diffusers import FlowMatchEulerDiscreteScheduler

    torch.testing.assert_close(tiny.sigmas(5), torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0]))
    plain, shifted = tiny.scheduler, FlowMatchEulerDiscreteScheduler(shift=3.0)
    try:
        tiny.scheduler = shifted
        sigmas = tiny.sigmas(4)
    finally:
        tiny.scheduler = plain
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 2.25 / 2.5, 1.5 / 2, 0.75 / 1.5, 0.0]))
    shifted.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(sigmas, shifted.sigmas)


def test_velocity_takes_one_noise_level_or_one_a_sample(tiny):
    latents, embeds = initial_noise(SEEDS[:2], tiny.latent_shape), tiny.encode(PROMPTS[:2])
    together = tiny.velocity(latents, torch.tensor([0.25, 0.75]), *embeds)
    low, high = tiny.velocity(latents, 0.25, *embeds), tiny.velocity(latents, torch.tensor(0.75), *embeds)
    torch.testing.assert_close(together, torch.stack([low[0], high[1]]), atol=1e-5, rtol=1e-5)
    assert (low[1] - high[1]).abs().max() > 1e-4
    raw = tiny.transformer(latents, embeds[0], embeds[1], torch.tensor([250.0, 750.0])).sample
    torch.testing.assert_close(together, raw, atol=1e-5, rtol=1e-5)


def test_decoding_undoes_the_scale_of_latents_and_keeps_the_gradient(tiny):
    latents = initial_noise(SEEDS[:2], tiny.latent_shape).requires_grad_()
    pictures = tiny.decode(latents)
    expected = tiny.vae.decode(latents / 1.75 + 0.25).sample.clamp(-1, 1)
    torch.testing.assert_close(pictures, expected)
    assert pictures.abs().max() <= 1
    pictures.sum().backward()
    assert latents.grad.abs().sum() > 0


def test_noise_has_one_stream_a_sample():
    noise = initial_noise([3, 4, 3], (4, 8, 8))
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1], torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(4)))
    many = initial_noise(list(range(200)), (4, 8, 8))
    assert many.mean().abs() < 0.02
    assert many.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_generating_is_deterministic_and_does_not_depend_on_the_batch(tiny, guidance_scale):
    def generate(rows, **options):
        prompts, seeds = [PROMPTS[i] for i in rows], [SEEDS[i] for i in rows]
        return tiny.generate(prompts, seeds, steps=2, guidance_scale=guidance_scale, **options)

    every = [0, 1, 2, 3]
    together = generate(every)
    assert together.shape == (4, 3, 32, 32)
    assert torch.equal(together, generate(every))
    for rows, options in ((every, {"batch_size": 3}), ([3, 1], {}), ([2], {}), ([3, 2, 1, 0], {"batch_size": 1})):
        torch.testing.assert_close(generate(rows, **options), together[rows], atol=1e-5, rtol=0)
    torch.manual_seed(99)
    torch.testing.assert_close(generate(every), together, atol=0, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_generating_follows_the_ode_by_eulers_method(tiny):
    x = initial_noise(SEEDS, tiny.latent_shape)
    text, empty = tiny.encode(PROMPTS), tiny.encode([""] * 4)
    with torch.no_grad():
        for k in range(5):
            sigma = 1 - k / 5
            conditional, free = tiny.velocity(x, sigma, *text), tiny.velocity(x, sigma, *empty)
            x = x - ((1 - 2.0) * free + 2.0 * conditional) / 5
        expected = tiny.decode(x)
    pictures = tiny.generate(PROMPTS, SEEDS, steps=5, guidance_scale=2.0)
    torch.testing.assert_close(pictures, expected, atol=1e-5, rtol=0)
    assert F.mse_loss(tiny.generate(PROMPTS, SEEDS, steps=5), expected) > 0
