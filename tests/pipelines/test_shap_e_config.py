"""The published model as counted on the meta device: no weight is made, and the numbers are those of its files."""

from pathlib import Path

import pytest
from headers import command, rows

from pixelpolicy.pipelines.shap_e_config import (
    FETCH,
    LICENCE,
    POINTS,
    RAYS,
    REPOSITORY,
    activation_bytes,
    footprint,
    parameter_counts,
    render_bytes,
)

# Sizes of the weight files (float32), as the hub lists them, in GB; that of CLIP's text encoder is SD 3's of the kind.
LISTED = {"prior": 1.26, "shap_e_renderer": 0.905, "text_encoder": 2 * 0.247}
SOLUTIONS = sorted(Path(__file__).parents[2].glob("solutions/*.py"))
LABS = [lab for lab in SOLUTIONS if f"`{REPOSITORY}`" in lab.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_counts_are_those_of_the_published_files():
    counts = parameter_counts()
    for name, gigabytes in LISTED.items():
        assert 4 * counts[name] / 1e9 == pytest.approx(gigabytes, rel=5e-3), name
    assert counts["lora"] == 24 * 4 * 2 * 1024 * 16 and parameter_counts(rank=4)["lora"] == counts["lora"] // 4


@pytest.mark.slow
def test_activations_are_at_least_what_each_block_and_each_ray_must_keep():
    # In bfloat16: queries, keys, values and the output of the attention, and four times the width in the feed-forward.
    least = 24 * 1026 * 1024 * (4 + 4) * 2
    assert least < activation_bytes() < 4 * least
    least = RAYS * sum(POINTS) * 6 * 256 * 4  # in float32: what each layer makes
    assert least < render_bytes() < 3 * least


@pytest.mark.slow
def test_the_footprint_is_their_sum():
    size = footprint()
    assert size.disk == pytest.approx(sum(LISTED.values()), rel=3e-3)
    assert size.loading == pytest.approx(1.26 / 2 + 0.905 + 0.247, rel=3e-3)
    assert size.training == pytest.approx(1.26 / 2 + 0.905 + 20 * 3.15e6 / 1e9, rel=3e-3)
    said = [size.disk, size.loading, size.training, size.sample, render_bytes() / 1e9]
    assert [f"{gigabytes:.1f}" for gigabytes in said] == ["2.7", "1.8", "1.6", "1.0", "10.1"]
    # With guidance a sample keeps twice as much: on a card of 24 GB ten of them train at a time.
    assert size.training + 10 * 2 * size.sample < 24 < size.training + 12 * 2 * size.sample


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_on_this_model_states_what_is_counted(lab):
    text = lab.read_text(encoding="utf-8")
    size, stated = footprint(), rows(text)
    assert f"{size.disk:.1f} GB" in stated["disk"]
    assert f"{size.loading:.1f} GB" in stated["VRAM, loading"] and f"{size.training:.1f} GB" in stated["VRAM, training"]
    assert text.count("(estimate, unmeasured)") >= 2 and command(text) == FETCH
    assert LICENCE in text
