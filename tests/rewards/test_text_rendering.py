"""Text rendering: clean print is read, wrong words score low, and what cannot be read says why."""

import math
import random
import shutil
import string
import subprocess
import sys

import numpy as np
import pytest
import torch

from pixelpolicy.errors import CheckpointError, PromptError, RewardError
from pixelpolicy.rewards import compare_readers, reading, second_text_rendering, text_rendering
from pixelpolicy.worlds import words

EVERY = [text_rendering, second_text_rendering]


@pytest.fixture(scope="module")
def clean():
    """Pictures [88, 3, 32, 96] of every word of the world, twice."""
    texts = list(words.prompts()) * 2
    return torch.from_numpy(words.draw(texts, np.random.default_rng(3))), texts


@pytest.fixture(scope="module")
def judged(clean):
    return {make: make()(*clean) for make in EVERY}


def test_clean_print_is_read(judged):
    first, second = (judged[make] for make in EVERY)
    assert (first == 1).float().mean() >= 0.95 and first.mean() >= 0.95
    assert (second == 1).float().mean() >= 0.80 and second.mean() >= 0.93


def test_the_reading_is_the_word_but_for_case_and_spaces(clean):
    pictures, texts = clean
    read = reading.read(pictures[:8])
    assert [r.replace(" ", "").lower() for r in read] == [words.parse(t).lower() for t in texts[:8]]


@pytest.mark.parametrize("make", EVERY)
def test_wrong_words_score_low(clean, judged, make):
    pictures, texts = clean
    wrong = make()(pictures, texts[7:] + texts[:7])
    assert wrong.mean() < 0.25
    assert (wrong < judged[make]).all()


def test_a_letter_off_costs_its_share():
    pictures = torch.from_numpy(words.draw(['the word "FIRE"'], np.random.default_rng(0)))
    for word, expected in {"FIRE": 1, "fire": 1, "FIRES": 4 / 5, "FIR": 3 / 4, "WIRE": 3 / 4, "MOON": 0}.items():
        assert text_rendering()(pictures, [words.prompt(word)]).item() == pytest.approx(expected), word


def test_pictures_without_text_score_nothing():
    noise = torch.rand(4, 3, 32, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for pictures in (noise, torch.zeros(4, 3, 32, 96), torch.ones(4, 3, 32, 32)):
        assert (text_rendering()(pictures, ['the word "CAT"'] * 4) <= 0.34).all()


def distance_by_recursion(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return distance_by_recursion(a[1:], b[1:])
    return 1 + min(distance_by_recursion(*p) for p in ((a[1:], b), (a, b[1:]), (a[1:], b[1:])))


def test_edit_distance_against_its_definition():
    rng = random.Random(0)
    for _ in range(200):
        a, b = ("".join(rng.choices("abc", k=rng.randint(0, 6))) for _ in range(2))
        assert reading.edit_distance(a, b) == distance_by_recursion(a, b)
    assert reading.edit_distance("kitten", "sitting") == 3


def test_scores_lie_between_zero_and_one():
    rng = random.Random(1)
    texts = ["".join(rng.choices(string.printable, k=rng.randint(0, 30))) for _ in range(300)]
    values = reading.scores(texts, ['the word "CAT"'] * 300)
    assert all(0 <= value <= 1 for value in values)
    assert reading.scores([" c A\u3000t "], ['the word "CAT"']) == [1]


@pytest.mark.parametrize("make", EVERY)
def test_a_picture_is_judged_alone(clean, judged, make):
    pictures, texts = clean
    some = [40, 3, 87, 3]
    assert torch.equal(make()(pictures[some], [texts[i] for i in some]), judged[make][some])
    assert torch.equal(make()(pictures[:1], texts[:1]), judged[make][:1])
    assert make()(pictures[:0], []).shape == (0,)


@pytest.mark.parametrize("make", EVERY)
def test_it_is_a_reward_without_gradient(clean, judged, make):
    pictures, texts = clean
    values = make()(pictures[:2].clone().requires_grad_(), texts[:2])
    assert values.dtype == torch.float32 and not values.requires_grad and not make().differentiable
    assert make() == make()
    assert torch.equal((make() + make())(pictures[:2], texts[:2]), 2 * values)


def test_the_two_are_logged_apart(clean):
    _, parts = (text_rendering() + 0.0 * second_text_rendering()).evaluate(clean[0][:2], clean[1][:2])
    assert set(parts) == {"text", "text, second reader"}


def test_other_sizes_are_read():
    texts = ['the word "CAT"', 'the word "42"']
    for height, width in ((32, 32), (64, 64), (64, 192), (48, 40)):
        drawn = words.draw(texts, np.random.default_rng(5), height=height, width=width)
        assert text_rendering()(torch.from_numpy(drawn), texts).tolist() == [1, 1], (height, width)


def test_the_readers_are_compared(clean, judged):
    pictures, texts = clean[0][:6], clean[1][:6]
    readings = compare_readers(pictures, texts)
    assert torch.equal(readings.first_scores, judged[text_rendering][:6])
    assert torch.equal(readings.second_scores, judged[second_text_rendering][:6])
    assert readings.first == reading.read(pictures) and readings.second == reading.read(pictures, "second")
    assert not readings.disagree.any()
    assert compare_readers(pictures, texts, apart=0.0).disagree.all()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_picture_that_is_not_finite_is_refused(clean, make, value):
    pictures = clean[0][:3].clone()
    pictures[1, 0, 4, 4] = value
    with pytest.raises(RewardError, match=f"'{make().name}' returned nan for sample 1.*DOG"):
        make()(pictures, clean[1][:3])


@pytest.mark.parametrize("make", EVERY)
def test_samples_of_another_shape_are_refused(clean, make):
    pictures, texts = clean
    with pytest.raises(RewardError, match=r"\[3, 32, 96\]"):
        make()(pictures[0], texts[:1])
    with pytest.raises(RewardError, match="3 pictures were given with 2 prompts"):
        make()(pictures[:3], texts[:2])


def test_a_prompt_without_a_word_is_refused(clean):
    with pytest.raises(RewardError, match="PromptError.*'a red circle' asks for no word"):
        text_rendering()(clean[0][:1], ["a red circle"])
    with pytest.raises(PromptError):
        compare_readers(clean[0][:1], ["a red circle"])


def test_an_unknown_reader_is_refused(clean):
    with pytest.raises(RewardError, match="'third'.*first, second"):
        reading.read(clean[0][:1], "third")


def test_an_altered_second_reader_is_refused(tmp_path, monkeypatch):
    folder = shutil.copytree(reading.CHECKPOINTS / reading.SECOND, tmp_path / reading.SECOND)
    data = bytearray((folder / "model.onnx").read_bytes())
    data[1_000_000] ^= 1
    (folder / "model.onnx").write_bytes(bytes(data))
    monkeypatch.setattr(reading, "CHECKPOINTS", tmp_path)
    with pytest.raises(CheckpointError, match="model.onnx is altered"):
        reading._second_model()


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RewardError, match="rapidocr is not installed.*pip install"):
        reading._first_model()


def test_reading_imports_no_opencv():
    code = (
        "import sys, torch; from pixelpolicy.rewards import text_rendering;"
        "text_rendering()(torch.zeros(1, 3, 32, 96), ['the word \"CAT\"']);"
        "print([m for m in ('cv2', 'rapidocr', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
