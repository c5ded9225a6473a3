"""The published model as counted on the meta device: no weight is made, and the numbers are those of its files."""

import pytest

from pixelpolicy.pipelines.flux2_klein_config import activation_bytes, footprint, parameter_counts

# Sizes of the weight files (bfloat16) in GB, as the hub lists them for the distilled model of the same architecture.
LISTED = {"transformer": 7.75, "vae": 0.168, "text_encoder": 4.97 + 3.08}


@pytest.mark.slow
def test_counts_are_those_of_the_published_files():
    counts = parameter_counts()
    for name, gigabytes in LISTED.items():
        assert 2 * counts[name] / 1e9 == pytest.approx(gigabytes, rel=2e-3), name
    # 5 blocks of four projections of 3072 x 3072; 20 with one from 3072 to thrice that and twice a feed-forward of 9216
    # numbers, and one from 3072 and 9216 back.
    wide = 3072
    sides = 5 * 4 * 2 * wide + 20 * (wide + 3 * wide + 2 * 3 * wide + wide + 3 * wide + wide)
    assert counts["lora"] == 32 * sides and parameter_counts(rank=8)["lora"] == 8 * sides


@pytest.mark.slow
def test_activations_grow_with_the_tokens_and_are_at_least_what_each_block_must_keep():
    whole, checkpointed, small = activation_bytes(), activation_bytes(checkpointed=True), activation_bytes(picture=256)
    tokens, wide = 32 * 32 + 512, 3072
    # In bfloat16: queries, keys, values and the output, and the two halves of the feed-forward.
    least = 25 * tokens * wide * (4 + 6) * 2
    assert least < whole < 5 * least
    assert 25 * tokens * wide * 2 < checkpointed < whole / 5  # the blocks' inputs at least
    assert whole / small == pytest.approx(tokens / (16 * 16 + 512), rel=0.05)


@pytest.mark.slow
def test_the_footprint_is_their_sum():
    size = footprint()
    assert size.disk == pytest.approx(sum(LISTED.values()), rel=2e-3)
    assert size.loading == pytest.approx(sum(LISTED.values()) + LISTED["vae"], rel=2e-3)
    lora = parameter_counts()["lora"]
    assert size.training == pytest.approx(LISTED["transformer"] + 2 * LISTED["vae"] + 20 * lora / 1e9, rel=2e-3)
