"""The published model as counted on the meta device: no weight is made, and the numbers are those of its files."""

from pathlib import Path

import pytest
from headers import command, rows

from pixelpolicy.pipelines.sd3_config import FETCH, activation_bytes, footprint, parameter_counts

# Sizes of the weight files in the repository, as the hub lists them, in GB.
LISTED = {
    "transformer": 4.94,
    "vae": 0.168,
    "text_encoder": 0.247,
    "text_encoder_2": 1.39,
    "text_encoder_3": 4.99 + 4.53,
}
LAB = Path(__file__).parents[2] / "solutions" / "12-grpo.py"


@pytest.mark.slow
def test_counts_are_those_of_the_published_files():
    counts = parameter_counts()
    for name, gigabytes in LISTED.items():
        assert 2 * counts[name] / 1e9 == pytest.approx(gigabytes, rel=5e-3), name
    # 24 blocks of eight projections of 1536 x 1536, less the last block's way back to the text.
    assert counts["lora"] == (24 * 8 - 1) * 2 * 1536 * 32
    assert parameter_counts(rank=8)["lora"] == counts["lora"] // 4


@pytest.mark.slow
def test_activations_grow_with_the_tokens_and_are_at_least_what_each_block_must_keep():
    few, many = activation_bytes(), activation_bytes(tokens=77 + 256)
    picture, text, width = 32 * 32, 77 + 128, 1536
    # In bfloat16: queries, keys, values and the output, and what is four times as wide within the feed-forward.
    least = 24 * (picture + text) * width * (4 + 4) * 2
    assert least < few < 5 * least
    assert many / few == pytest.approx((picture + 77 + 256) / (picture + text), rel=0.05)


@pytest.mark.slow
def test_the_lab_states_what_is_counted():
    size, text = footprint(), LAB.read_text(encoding="utf-8")
    stated = rows(text)
    disk = sum(LISTED.values())
    assert size.disk == pytest.approx(disk, rel=5e-3)
    assert size.training == pytest.approx(4.94 + 2 * 0.168 + 20 * 18.8e6 / 1e9, rel=5e-3)
    assert size.loading > size.disk > size.training
    assert f"{size.disk:.1f} GB" in stated["disk"]
    assert f"{size.loading:.1f} GB" in stated["VRAM, loading"] and f"{size.training:.1f} GB" in stated["VRAM, training"]
    assert size.training + 4 * size.sample < 24 < size.training + 8 * size.sample  # the lab's micro_batch of 4
    assert text.count("(estimate, unmeasured)") == 2
    assert command(text) == FETCH
