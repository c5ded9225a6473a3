"""The rewards on pictures against independent formulas, alone and through `Reward`."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards import (
    compressibility,
    jpeg_compressibility,
    jpeg_incompressibility,
    shapes_dense,
    shapes_strict,
)
from pixelpolicy.worlds import shapes

EVERY = [shapes_strict, shapes_dense, jpeg_compressibility, jpeg_incompressibility]


@pytest.fixture(scope="module")
def batch():
    """Pictures [16, 3, 32, 32] of four prompts: right ones, and flawed ones in every second place."""
    rng = np.random.default_rng(0)
    prompts = [
        "a red circle",
        "two blue squares",
        "a red circle and a blue square",
        "a red circle above a blue square",
    ] * 4
    scenes = [shapes.scene(text, rng, flawed=bool((i // 4) % 2)) for i, text in enumerate(prompts)]
    return torch.from_numpy(shapes.draw(scenes)), prompts


# A JPEG read by hand ----------------------------------------------------------------------------------------------


def segments(data: bytes) -> dict[int, bytes]:
    """The header segments of a JPEG file by marker, read as the standard (ITU-T T.81, annex B) lays them out."""
    assert data[:2] == b"\xff\xd8"
    assert data[-2:] == b"\xff\xd9"
    found, at = {}, 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found[data[at + 1]] = found.get(data[at + 1], b"") + data[at + 4 : at + 2 + length]
        at += 2 + length
    return found


@pytest.fixture
def files(monkeypatch):
    """The bytes of every JPEG that a reward writes."""
    written = []

    class Spy(io.BytesIO):
        def getvalue(self):
            written.append(super().getvalue())
            return written[-1]

    monkeypatch.setattr(compressibility.io, "BytesIO", Spy)
    return written


def test_compressibility_is_minus_the_kilobytes_of_a_whole_jpeg_of_the_picture(batch, files):
    pictures, prompts = batch
    rewards = jpeg_compressibility()(pictures, prompts)
    assert len(files) == 16
    for reward, data, picture in zip(rewards, files, pictures, strict=True):
        assert reward.item() == pytest.approx(-len(data) / 1000, rel=1e-6)
        header = segments(data)[0xC0]
        height, width, channels = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big"), header[5]
        assert (height, width, channels) == (32, 32, 3)
        decoded = np.asarray(Image.open(io.BytesIO(data)), dtype=np.float32) / 127.5 - 1
        # Colour is kept at half the resolution, so look at brightness.
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        original = np.tensordot(weights, picture.numpy(), 1)
        assert np.abs(decoded @ weights - original).mean() < 0.02


def test_the_quality_is_that_of_the_standards_tables(batch, files):
    """At 50 the first entry of the luminance table is the standard's 16; at 95 it is a tenth of that."""
    pictures, prompts = batch
    for quality, first in ((50, 16), (95, 2), (25, 32)):
        files.clear()
        jpeg_compressibility(quality)(pictures[:1], prompts[:1])
        assert segments(files[0])[0xDB][1] == first


def test_incompressibility_is_the_other_sign(batch):
    assert torch.equal(jpeg_incompressibility()(*batch), -jpeg_compressibility()(*batch))
    assert torch.equal(jpeg_incompressibility(40)(*batch), -jpeg_compressibility(40)(*batch))


def test_plainer_pictures_and_lower_quality_compress_better(batch):
    pictures, prompts = batch
    noise = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain, drawn, noisy = (jpeg_compressibility()(p, prompts) for p in (torch.zeros_like(pictures), pictures, noise))
    assert (plain > drawn).all()
    assert (drawn > noisy + 0.5).all()
    assert len(set(plain.tolist())) == 1
    by_quality = [jpeg_compressibility(q)(noise, prompts).mean() for q in (95, 80, 50, 20)]
    assert all(a < b for a, b in itertools.pairwise(by_quality))


def test_pictures_out_of_range_count_as_clipped(batch):
    pictures, prompts = batch
    clipped = (3 * pictures).clamp(-1, 1)
    assert torch.equal(jpeg_compressibility()(3 * pictures, prompts), jpeg_compressibility()(clipped, prompts))
    one = torch.ones(1, 3, 32, 32)
    assert jpeg_compressibility()(one, [""]) == jpeg_compressibility()(one - 0.003, [""])  # the same level, 255


@pytest.mark.parametrize("quality", [0, 96, 100, -1, 50.5, "high", None])
def test_an_impossible_quality_is_refused(quality):
    with pytest.raises(RewardError, match="quality.*1 to 95"):
        jpeg_compressibility(quality)


# The verifier -----------------------------------------------------------------------------------------------------


def test_strict_accepts_what_was_drawn_as_asked_and_nothing_else(batch):
    expected = torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4 + [0.0] * 4)
    assert torch.equal(shapes_strict()(*batch), expected)


def test_dense_counts_attributes():
    """A half for each colour and each shape that is right, as a share of all objects."""
    scene = (shapes.Thing("red", "circle", 12, 9, 4), shapes.Thing("blue", "square", 20, 22, 4))
    picture = torch.from_numpy(shapes.draw([scene]))
    cases = {
        "a red circle and a blue square": 1,
        "a red circle above a blue square": 1,
        "a red circle below a blue square": 0.6,
        "a red circle": 1 / 2,
    }
    for text, expected in cases.items():
        assert shapes_dense()(picture, [text]).item() == pytest.approx(expected, abs=0.01), text
    wrong_colour = shapes_dense()(picture, ["a yellow circle and a blue square"]).item()
    assert 0.5 < wrong_colour < 0.9
    wrong_object = shapes_dense()(picture, ["two red circles"]).item()  # a square is a circle in part
    assert 0.5 <= wrong_object < 0.6
    assert shapes_dense()(torch.full((1, 3, 32, 32), -0.75), ["a red circle"]).item() == 0


def test_dense_is_one_only_where_strict_accepts(batch):
    strict, dense = shapes_strict()(*batch), shapes_dense()(*batch)
    assert ((dense > 0.99) == (strict == 1)).all()
    assert ((dense >= 0) & (dense <= 1)).all()


# Through Reward ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", EVERY)
def test_rewards_are_float32_a_number_a_sample_without_gradient(batch, make):
    pictures, prompts = batch
    before = pictures.clone()
    values = make()(pictures.clone().requires_grad_(), prompts)
    assert values.shape == (16,)
    assert values.dtype == torch.float32
    assert not values.requires_grad
    assert not make().differentiable
    assert torch.equal(pictures, before)
    assert torch.equal(values, make()(pictures, prompts))
    assert torch.equal(values[[5, 2]], make()(pictures[[5, 2]], [prompts[5], prompts[2]]))
    half = make()(pictures.half(), prompts)
    torch.testing.assert_close(half, values, atol=0.05, rtol=0)


def test_names_and_weights():
    assert [make().name for make in EVERY] == ["strict", "dense", "compressibility", "incompressibility"]
    assert jpeg_compressibility(80).name == "compressibility (quality 80)"
    assert (0.7 * shapes_dense() + 0.3 * jpeg_compressibility()).name == "0.7 dense + 0.3 compressibility"


def test_a_weighted_sum_keeps_its_components_apart(batch):
    mixed = 0.7 * shapes_dense() + 0.05 * jpeg_compressibility()
    total, parts = mixed.evaluate(*batch)
    assert set(parts) == {"dense", "compressibility"}
    assert torch.equal(parts["dense"], shapes_dense()(*batch))
    assert torch.equal(parts["compressibility"], jpeg_compressibility()(*batch))
    for i in range(16):
        expected = 0.7 * parts["dense"][i].item() + 0.05 * parts["compressibility"][i].item()
        assert total[i].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("make", EVERY)
def test_the_same_reward_twice_is_one_of_twice_the_weight(batch, make):
    torch.testing.assert_close((make() + make())(*batch), 2 * make()(*batch))


def test_rewards_of_two_qualities_are_two(batch):
    _, parts = (jpeg_compressibility(95) + jpeg_compressibility(20)).evaluate(*batch)
    assert len(parts) == 2


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_picture_that_is_not_finite_is_refused_by_name_and_prompt(batch, make, value):
    pictures, prompts = batch[0].clone(), batch[1]
    pictures[2, 1, 5, 5] = value
    with pytest.raises(RewardError) as caught:
        make()(pictures, prompts)
    assert make().name in str(caught.value)
    assert prompts[2] in str(caught.value)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda p, t: (p[0], t[:1]), r"\[3, 32, 32\]"),
        (lambda p, t: (p[:, :1], t), r"\[16, 1, 32, 32\]"),
        (lambda p, t: (p[:3], t), "3 pictures were given with 16 prompts"),
        (lambda p, t: (p.numpy(), t), "ndarray"),
    ],
    ids=["no batch", "grey", "too few", "numpy"],
)
def test_samples_of_another_shape_are_refused(batch, make, spoil, word):
    with pytest.raises(RewardError, match=f"'{make().name}'.*{word}"):
        make()(*spoil(*batch))


@pytest.mark.parametrize("make", [shapes_strict, shapes_dense])
def test_a_prompt_outside_the_vocabulary_is_refused_with_the_vocabulary(batch, make):
    with pytest.raises(RewardError, match="'a cat' is outside the vocabulary.*yellow"):
        make()(batch[0][:1], ["a cat"])


@pytest.mark.parametrize("make", [shapes_strict, shapes_dense])
@pytest.mark.parametrize("size", [(48, 48), (32, 64)])
def test_pictures_of_an_odd_size_are_refused(make, size):
    with pytest.raises(RewardError, match=f"{size[0]}x{size[1]}"):
        make()(torch.zeros(1, 3, *size), ["a red circle"])


@pytest.mark.parametrize("make", [shapes_strict, shapes_dense])
def test_larger_pictures_get_the_same_verdicts(batch, make):
    larger = batch[0].repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.equal(make()(larger, batch[1]), make()(*batch))


@pytest.mark.parametrize("quality", [10, 95])
def test_the_header_of_a_jpeg_is_what_no_picture_can_save(quality):
    """The bytes up to the scan are equal for any two pictures of a size; those after them hold the picture alone."""
    rng, header = np.random.default_rng(0), compressibility.header_kilobytes(quality)
    files = [
        compressibility._file(p.astype(np.float32), quality)
        for p in (np.zeros((3, 32, 32)), rng.normal(size=(3, 32, 32)))
    ]
    fixed = round(header * 1000) - 2
    differs = next(i for i, (a, b) in enumerate(zip(*files, strict=False)) if a != b)
    assert differs >= fixed and files[0][:fixed] == files[1][:fixed] and files[0][-2:] == b"\xff\xd9"
    # A picture of one grey: of each 8x8 block and channel a few bits.
    assert 0 < compressibility.kilobytes(np.zeros((3, 32, 32), dtype=np.float32), quality) - header < 0.05
