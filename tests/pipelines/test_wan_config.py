"""The published model as counted on the meta device: no weight is made, and the numbers are those of its files."""

from pathlib import Path

import pytest
from headers import command, rows

from pixelpolicy.pipelines.wan_config import (
    CLIP,
    FETCH,
    LICENCE,
    REPOSITORY,
    activation_bytes,
    decode_bytes,
    footprint,
    latent_size,
    parameter_counts,
)

# Sizes of the weight files (float32), as the hub lists them, in GB.
LISTED = {"transformer": 5.68, "vae": 0.508, "text_encoder": 4.97 + 4.9 + 4.97 + 5.0 + 2.89}
SOLUTIONS = sorted(Path(__file__).parents[2].glob("solutions/*.py"))
LABS = [lab for lab in SOLUTIONS if REPOSITORY in lab.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_counts_are_those_of_the_published_files():
    counts = parameter_counts()
    for name, gigabytes in LISTED.items():
        assert 4 * counts[name] / 1e9 == pytest.approx(gigabytes, rel=2e-3), name
    # 30 blocks of eight projections of 1536 x 1536: the text comes in that width already.
    assert counts["lora"] == 30 * 8 * 2 * 1536 * 32
    assert parameter_counts(rank=8)["lora"] == counts["lora"] // 4


@pytest.mark.slow
def test_activations_are_at_least_what_each_block_must_keep():
    frames, height, width = latent_size(*CLIP)
    assert (frames, height, width) == (9, 30, 52)
    tokens, wide = frames * height * width // 4, 1536
    whole, checkpointed = activation_bytes(), activation_bytes(checkpointed=True)
    # In bfloat16: queries, keys, values and the output of both attentions, and the feed-forward's 8960.
    least = 30 * tokens * (2 * 4 * wide + 8960) * 2
    assert least < whole < 3 * least
    assert 30 * tokens * wide * 2 < checkpointed < whole / 20  # the blocks' inputs at least
    shorter = activation_bytes(clip=(240, 416, 17), checkpointed=True)
    assert shorter / checkpointed == pytest.approx(5 / 9, rel=0.05)


@pytest.mark.slow
def test_a_decoder_that_computes_each_frame_again_keeps_what_passes_between_frames():
    whole, checkpointed = decode_bytes(), decode_bytes(checkpointed=True)
    assert 33 * 240 * 416 * 96 * 4 * 5 < whole and checkpointed < whole / 7
    first, two, three = (decode_bytes(clip=(240, 416, frames)) for frames in (1, 5, 9))
    assert first < (two - first) and three - two == pytest.approx(two - first, rel=1e-3)
    # One clip's reward gradient through one guided step, on a card of 24 GB: the frames, and one of them again.
    size = footprint()
    held = size.training + (checkpointed + (three - two)) / 1e9 + 2 * activation_bytes() / 1e9 / 30
    assert held + 2 * size.sample < 24 < size.training + whole / 1e9


@pytest.mark.slow
def test_the_footprint_is_their_sum():
    size = footprint()
    assert size.disk == pytest.approx(sum(LISTED.values()), rel=1e-3)
    assert size.training == pytest.approx(5.68 / 2 + 0.508 + 20 * 23.6e6 / 1e9, rel=2e-3)
    assert size.loading == pytest.approx(5.68 / 2 + 0.508 + LISTED["text_encoder"] / 2, rel=2e-3)
    said = [size.disk, size.loading, size.training, size.sample]
    assert [f"{gigabytes:.1f}" for gigabytes in said] == ["28.9", "14.7", "3.8", "0.4"]
    assert f"{footprint(checkpointed=False).sample:.1f}" == "12.8"


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_on_this_model_states_what_is_counted(lab):
    text = lab.read_text(encoding="utf-8")
    assert command(text) == FETCH and LICENCE in text
    size, stated = footprint(), rows(text)
    assert f"{size.disk:.1f} GB" in stated["disk"]
    assert f"{size.loading:.1f} GB" in stated["VRAM, loading"] and f"{size.training:.1f} GB" in stated["VRAM, training"]
    assert text.count("(estimate, unmeasured)") >= 2
