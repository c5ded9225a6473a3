"""The published model as counted on the meta device: no weight is made, and the numbers are those of its files."""

from pathlib import Path

import pytest
from headers import command, rows

from pixelpolicy.pipelines.sd15_config import (
    FETCH,
    LICENCE,
    REPOSITORY,
    activation_bytes,
    decode_bytes,
    footprint,
    parameter_counts,
)

# Sizes of the weight files (safetensors, float32), as the hub lists them, in GB.
LISTED = {"unet": 3.44, "vae": 0.335, "text_encoder": 0.492}
SOLUTIONS = sorted(Path(__file__).parents[2].glob("solutions/*.py"))
LABS = [lab for lab in SOLUTIONS if REPOSITORY in lab.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_counts_are_those_of_the_published_files():
    counts = parameter_counts()
    assert counts["unet"] == 859_520_964 and counts["vae"] == 83_653_863 and counts["text_encoder"] == 123_060_480
    for name, gigabytes in LISTED.items():
        assert 4 * counts[name] / 1e9 == pytest.approx(gigabytes, rel=2e-3), name
    # Of each width so many blocks, each with eight projections: six have width x width, two (to the text) 768 x width.
    blocks = {320: 5, 640: 5, 1280: 6}
    assert counts["lora"] == 4 * sum(n * (6 * 2 * width + 2 * (768 + width)) for width, n in blocks.items())
    assert parameter_counts(rank=8)["lora"] == 2 * counts["lora"]


@pytest.mark.slow
def test_activations_are_at_least_what_each_block_must_keep():
    whole, checkpointed, small = activation_bytes(), activation_bytes(checkpointed=True), activation_bytes(picture=256)
    # In bfloat16: queries, keys, values and the output of both attentions, and 4 + 8 times as wide in the feed-forward.
    levels = [(320, 64, 5), (640, 32, 5), (1280, 16, 5), (1280, 8, 1)]
    least = sum(n * side**2 * width * (4 + 4) * 2 for width, side, n in levels)
    assert least < whole < 8 * least and whole / small == pytest.approx(4, rel=0.05)
    # Kept then are the blocks' inputs: the skips of the UNet at least.
    skips = 2 * (4 * 64**2 * 320 + 32**2 * 2 * 640 + 32**2 * 320 + 16**2 * 2 * 1280 + 16**2 * 640 + 8**2 * 3 * 1280)
    assert skips < checkpointed < whole / 5


@pytest.mark.slow
def test_the_decoder_keeps_most_at_full_size():
    whole, checkpointed = decode_bytes(), decode_bytes(checkpointed=True)
    assert 20 * 512**2 * 128 * 4 < whole < 7e9 and checkpointed < whole / 5
    assert whole / decode_bytes(picture=256) == pytest.approx(4, rel=0.05)


@pytest.mark.slow
def test_the_footprint_is_their_sum():
    size = footprint()
    assert size.disk == pytest.approx(sum(LISTED.values()), rel=1e-3)
    assert size.training == pytest.approx(3.44 / 2 + 0.335 + 20 * 797_184 / 1e9, rel=2e-3)
    assert size.disk > size.loading == pytest.approx(3.44 / 2 + 0.335 + 0.492 / 2, rel=2e-3)
    assert size.training + 8 * 2 * size.sample < 24 < size.training + 16 * 2 * size.sample  # with guidance
    # Reward gradients through the last steps, checkpointed; the bounds are as if all of one picture's decoder, or all
    # of the UNet, were computed again at once.
    light, decoders = footprint(checkpointed=True), [decode_bytes(checkpointed=on) / 1e9 for on in (False, True)]
    for steps, micro_batch in ((1, 8), (10, 4)):
        held = light.training + micro_batch * steps * 2 * light.sample
        assert held + micro_batch * decoders[1] + decoders[0] < 24 and held + micro_batch * 2 * size.sample < 24
    # What the headers of labs 09 and 10 say besides: a guided step, the decoder, and lab 09's micro_batch of 8.
    said = [2 * size.sample, decoders[0], 2 * light.sample, decoders[1], size.training + 8 * 2 * size.sample]
    assert [f"{gigabytes:.1f}" for gigabytes in said] == ["2.2", "6.0", "0.3", "0.9", "19.5"]


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_on_this_model_states_what_is_counted(lab):
    text = lab.read_text(encoding="utf-8")
    size, stated = footprint(), rows(text)
    assert f"{size.disk:.1f} GB" in stated["disk"]
    assert f"{size.loading:.1f} GB" in stated["VRAM, loading"] and f"{size.training:.1f} GB" in stated["VRAM, training"]
    assert text.count("(estimate, unmeasured)") >= 2 and command(text) == FETCH
    assert LICENCE in text
