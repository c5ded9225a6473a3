"""The world of words: what is drawn is legible, lies inside the picture and follows from the seed."""

import numpy as np
import pytest

from pixelpolicy.errors import PromptError, SizeError
from pixelpolicy.worlds import words


@pytest.fixture(scope="module")
def pictures():
    return words.draw(list(words.prompts()), np.random.default_rng(0))


def test_pictures_are_float32_in_range(pictures):
    assert pictures.shape == (len(words.WORDS), 3, words.HEIGHT, words.WIDTH)
    assert pictures.dtype == np.float32
    assert np.isfinite(pictures).all() and abs(pictures).max() <= 1


def test_a_margin_of_plain_ground_lies_around_every_word(pictures):
    inside = np.zeros((words.HEIGHT, words.WIDTH), dtype=bool)
    inside[words.MARGIN : -words.MARGIN, words.MARGIN : -words.MARGIN] = True
    for picture, word in zip(pictures, words.WORDS, strict=True):
        ground = picture[:, 0, 0]
        ink = np.abs(picture - ground[:, None, None]).max(0) > 0.1
        assert ink[inside].sum() > 20, word
        assert not ink[~inside].any(), word


def test_ink_and_ground_differ_in_brightness(pictures):
    brightness = np.tensordot(np.array([0.299, 0.587, 0.114]), (pictures + 1) / 2, (0, 1))
    for values in brightness:
        strongest = np.abs(values - values[0, 0]).max()
        assert strongest >= 0.8 * words.LEAST_CONTRAST  # thin strokes cover no pixel wholly


def test_the_seed_decides_everything():
    texts = ['the word "CAT"'] * 6
    first, again, other = (words.draw(texts, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({picture.tobytes() for picture in first}) == 6


def test_every_prompt_gives_its_word_back():
    assert [words.parse(text) for text in words.prompts()] == list(words.WORDS)
    assert len(set(words.WORDS)) == len(words.WORDS)
    drawn = words.draw_prompts(500, np.random.default_rng(0))
    assert set(drawn) <= set(words.prompts()) and len(set(drawn)) > 30
    assert all(type(text) is str for text in drawn)


@pytest.mark.parametrize(
    "text", ["", "CAT", "the word CAT", 'the word ""', 'the word "two words"', 'the word "naïve"', 'a word "CAT"',
             'the word "CAT" twice', 'the word "ABCDEFGHIJKLM"', "the word 'CAT'"],
)  # fmt: skip
def test_another_prompt_is_refused_with_the_form(text):
    with pytest.raises(PromptError, match="Write 'the word \"CAT\"'"):
        words.parse(text)


def test_prompt_refuses_what_parse_refuses():
    assert words.prompt("42") == 'the word "42"'
    with pytest.raises(PromptError):
        words.prompt('say "hi"')


def test_a_word_that_does_not_fit_is_refused():
    with pytest.raises(SizeError, match="'ABCDEFGHIJKL'.*16x24"):
        words.draw(['the word "ABCDEFGHIJKL"'], np.random.default_rng(0), height=16, width=24)


def test_other_sizes():
    drawn = words.draw(['the word "CAT"'] * 3, np.random.default_rng(0), height=64, width=64)
    assert drawn.shape == (3, 3, 64, 64)
