"""Fitting image-text, on made-up features: the regression against another formula, splits, sheets, what is missing."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import CheckpointError
from pixelpolicy.rewards import emoji, image_text
from pixelpolicy.rewards import image_text_fit as fitting
from pixelpolicy.verified import check_manifest

NAMES = tuple(f"thing {i:03}" for i in range(400))


@pytest.fixture(scope="module")
def seen():
    """Features [2, 400, 24] that two vendors share but for noise, tied linearly to sentences [16]."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 24, generator=rng)
    texts = torch.nn.functional.normalize(hidden @ torch.randn(24, 16, generator=rng), dim=1)
    features = {
        vendor: hidden + 0.3 * torch.randn(2, 400, 24, generator=rng) + torch.randn(24, generator=rng)
        for vendor in image_text.VENDORS
    }
    features["noto"] += features["fluent"].mean() - features["noto"].mean()
    return fitting.Seen(dict.fromkeys(image_text.VENDORS, NAMES), features, dict(zip(NAMES, texts, strict=True)))


def test_without_whitening_it_is_ridge_regression_by_least_squares(seen):
    """The same as ordinary least squares on data with sqrt(n ridge) I appended: Tikhonov's augmented system."""
    concepts = fitting.split(seen.captions, 0)
    tie = fitting.fit(seen, "fluent", concepts, ridge=0.7, whitening=0.0, copies=1)
    kept = [i for i, name in enumerate(NAMES) if name not in concepts]
    x = seen.features["fluent"][0, kept].double().numpy()
    y = torch.stack([seen.sentences[NAMES[i]] for i in kept]).double().numpy()
    x = (x - x.mean(0)) / (x.std(0, ddof=1) + 1e-3)
    augmented = np.vstack([x, np.sqrt(0.7 * len(x)) * np.eye(24)])
    expected = np.linalg.lstsq(augmented, np.vstack([y - y.mean(0), np.zeros((24, 16))]), rcond=None)[0]
    np.testing.assert_allclose(tie["weight"], expected, atol=1e-5)
    np.testing.assert_allclose(tie["text_map"], np.eye(16), atol=1e-5)


def test_whitening_by_a_half_makes_the_sentences_white(seen):
    tie = fitting.fit(seen, "fluent", (), whitening=0.5)
    y = torch.stack([*seen.sentences.values()])
    white = (y - tie["text_mean"]) @ tie["text_map"]
    torch.testing.assert_close(white.T @ white / len(y), torch.eye(16), atol=0.02, rtol=0)


def test_the_fit_never_sees_what_is_held_out(seen):
    concepts = fitting.split(seen.captions, 0)
    spoilt = {vendor: values.clone() for vendor, values in seen.features.items()}
    rows = [NAMES.index(name) for name in concepts]
    spoilt["fluent"][:, rows] = torch.nan
    spoilt["noto"][:] = torch.nan
    sentences = seen.sentences | dict.fromkeys(concepts, torch.full((16,), torch.nan))
    again = fitting.fit(fitting.Seen(seen.captions, spoilt, sentences), "fluent", concepts)
    for name, value in fitting.fit(seen, "fluent", concepts).items():
        assert torch.equal(value, again[name]), name


def test_recall_is_high_where_there_is_a_tie_and_chance_where_there_is_none(seen):
    scores = fitting.across(seen, 1)
    assert set(scores) == {"fluent_to_noto", "noto_to_fluent"}
    for score in scores.values():
        assert score["recall_at_1"] > 0.3 and score["recall_at_5"] > score["recall_at_1"]
        assert score["shuffled_recall_at_1"] == pytest.approx(1 / 150, abs=0.004)
    noise = {v: torch.randn(2, 400, 24, generator=torch.Generator().manual_seed(5)) for v in image_text.VENDORS}
    nothing = fitting.across(fitting.Seen(seen.captions, noise, seen.sentences), 1)
    assert nothing["fluent_to_noto"]["recall_at_1"] < 0.05


def test_splits():
    captions = {"fluent": NAMES, "noto": NAMES[50:]}
    first = fitting.split(captions, 0)
    assert len(set(first)) == fitting.HELD_OUT and set(first) <= set(NAMES[50:])
    assert first == fitting.split(captions, 0) != fitting.split(captions, 1)
    assert not set(first) & set(fitting.split(captions, 1000, without=first))


def test_emoji_lie_on_the_ground_they_are_given():
    pictures = torch.zeros(2, 4, 64, 64)
    pictures[0, 0], pictures[0, 3] = 1, 0.5
    drawn = emoji.Emoji(("red veil", "nothing"), pictures).on(torch.tensor([0.0, 0.0, 1.0]))
    assert drawn[0, :, 0, 0].tolist() == [0, -1, 0]
    assert drawn[1, :, 5, 5].tolist() == [-1, -1, 1]


def test_variants_of_skin_tone_are_left_out_and_lights_are_not():
    body = '<rect width="8" height="16" fill="#f00"/>'
    icons = {"width": 16, "height": 16, "icons": {name: {"body": body} for name in ("police-car-light", "boy-dark")}}
    pytest.importorskip("resvg_py", reason='resvg-py is not installed: pip install ".[rewards]"')
    drawn = emoji._drawn(icons, {"1f6a8": "police-car-light", "1f466-1f3ff": "boy-dark", "1f": "absent"})
    assert drawn.captions == ("police car light",)
    assert drawn.pictures[0, :, 32, 8].tolist() == [1, 0, 0, 1] and drawn.pictures[0, 3, 32, 56] == 0


def test_without_npm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CheckpointError, match="npm was not found, and remaking image-text needs @iconify-json/fluent"):
        emoji.collect()


def test_what_is_written_is_what_is_read(tmp_path, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    names = NAMES[:160]
    pictures = emoji.Emoji(names, torch.rand(160, 4, 64, 64, generator=rng))
    icons = dict.fromkeys(image_text.VENDORS, pictures)
    features = {vendor: torch.rand(2, 160, 1280, generator=rng) for vendor in icons}
    sentences = dict(zip(names, torch.randn(160, 384, generator=rng), strict=True))
    monkeypatch.setattr(image_text, "sentences", lambda texts: torch.randn(len(texts), 384, generator=rng))
    fitting.write(tmp_path / "made", icons, fitting.Seen(dict.fromkeys(icons, names), features, sentences))
    assert {"README.md", "fluent.safetensors", "held-out-noto.png"} <= check_manifest(tmp_path / "made").keys()
    concepts = fitting.split(dict.fromkeys(icons, names), 0)
    tiles = image_text._cut(tmp_path / "made" / "held-out-noto.png", 150)
    expected = pictures.on(fitting.WHITE)[[names.index(c) for c in concepts]]
    torch.testing.assert_close(tiles, expected, atol=0.005, rtol=0)
