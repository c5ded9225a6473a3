"""The world of the walker: what it draws, what its verifier accepts, and what it refuses."""

import numpy as np
import pytest

from pixelpolicy.errors import PromptError, SizeError
from pixelpolicy.viz.boxes import Boxes
from pixelpolicy.worlds import walker

RNG = np.random.default_rng(0)
TEXTS, CLEAN = walker.sample(1_200, RNG)


def test_clean_motions_are_accepted():
    scores = walker.measure(CLEAN, TEXTS)
    assert scores["accuracy"] >= 0.97
    assert all(scores[f"accuracy_{gait}"] >= 0.95 for gait in walker.GAITS)
    # the feet of a drawn motion stand still: nothing of it is near the threshold
    assert np.quantile([v.skate for v in walker.verify(CLEAN, TEXTS)], 0.99) < walker.MOST_SKATE / 3
    assert scores["diversity"] > 0.3 and scores["swing"] > 0.5


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        ("moonwalk", "gait"),
        ("direction", "progress"),
        ("gait", "gait"),
        ("pace", "progress"),
        ("float", "grounded"),
        ("limp", "gait"),
        ("apart", "whole"),
    ],
)
def test_flawed_motions_are_refused_for_their_flaw(flaw, check):
    rng, texts = np.random.default_rng(1), TEXTS[:240]
    verdicts = walker.verify(walker.samples_of(np.stack([walker.move(t, rng, flaw=flaw) for t in texts])), texts)
    assert np.mean([v.strict for v in verdicts]) <= 0.02
    assert np.mean([not getattr(v, check) for v in verdicts]) >= 0.9


def test_a_wrong_caption_is_refused():
    others = [text for text in walker.prompts() for _ in range(20)]
    rng = np.random.default_rng(2)
    for text in walker.prompts():
        drawn = walker.draw([text] * len(others), rng)
        told = np.array([v.strict for v in walker.verify(drawn, others)])
        wrong = np.array([other != text for other in others])
        assert told[~wrong].mean() >= 0.85 and told[wrong].mean() <= 0.01, text


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("a part that is not there", lambda s: s.__setitem__((slice(None), 3, 7 * 3), 0.0)),
        ("a long leg", lambda s: s.__setitem__((slice(None), slice(None), 7 * 2 + 6), 0.4)),
        ("a body on its side", lambda s: s.__setitem__((slice(None), slice(None), [4, 5]), [1.0, 0.0])),
        ("a number that is no number", lambda s: s.__setitem__((slice(None), 0, 0), np.nan)),
        ("below the ground", lambda s: s.__setitem__((slice(None), slice(None), 2), s[:, :, 2] - 0.3)),
    ],
)
def test_broken_motions_are_refused(name, spoil):
    broken = CLEAN[:60].copy()
    spoil(broken)
    assert not any(v.strict for v in walker.verify(broken, TEXTS[:60])), name


def test_a_walker_to_the_left_mirrors_one_to_the_right():
    right = walker.move("run slowly to the right", np.random.default_rng(3))
    left = walker.move("run slowly to the left", np.random.default_rng(3))
    sign = np.array([1, -1, 1, 1, -1, 1, 1])
    np.testing.assert_allclose(left, right * sign)


def test_bodies_undo_samples():
    places = np.stack([walker.move(text, np.random.default_rng(4)) for text in walker.prompts()])
    back = walker.bodies(walker.samples_of(places))
    places[..., walker.X] -= places[:, :1, :1, walker.X]  # a sample begins at 0
    np.testing.assert_allclose(back, places, atol=1e-5)
    with pytest.raises(SizeError, match=r"\[batch, 8, 42\]"):
        walker.bodies(np.zeros((2, 48, 7)))


def test_skate_counts_planted_feet_alone():
    feet = np.zeros((1, 4, 2, 2))
    feet[0, :, 0, 0] = [0, 0.1, 0.1, 0.4]  # slides 0.1, stands, slides 0.3 of which it is in the air at the end
    feet[0, 3, 0, 1] = 0.2
    feet[0, :, 1, 1] = 0.5  # the other is in the air
    assert walker.skate(feet)[0] == pytest.approx(0.05)
    feet[..., 1] = 1
    assert walker.skate(feet)[0] == 0


def test_prompts_are_read_and_others_refused():
    assert len(walker.prompts()) == 12 == len(set(walker.prompts()))
    assert walker.parse("hop quickly to the left") == walker.Prompt("hop", "quickly", -1)
    assert walker.words("walk slowly to the right") == ["walk", "slowly", "right"] and walker.words("") == []
    rows = walker.token_rows(["", *walker.prompts()])
    assert rows[0] == [0, 0, 0] and len({tuple(row) for row in rows}) == 13
    for text in ("walk", "walk slowly to the moon", "crawl slowly to the left"):
        with pytest.raises(PromptError, match="walk, run, hop"):
            walker.parse(text)
    with pytest.raises(PromptError, match="choose one of"):
        walker.prompts("crawl")
    with pytest.raises(ValueError, match="moonwalk"):
        walker.move(walker.prompts()[0], RNG, flaw="none")


def test_evaluation_pairs_are_fixed_and_apart():
    texts, seeds = walker.evaluation_pairs("test", 8)
    assert (texts, seeds) == walker.evaluation_pairs("test", 8) and len(texts) == 24
    assert not set(seeds) & set(walker.evaluation_pairs("validation", 8)[1])
    with pytest.raises(ValueError, match="held-out"):
        walker.evaluation_pairs("held-out")


def test_a_sample_is_shown_where_its_parts_are():
    boxes = Boxes(**walker.shown(CLEAN[0]))
    places = walker.bodies(CLEAN[:1])[0]
    assert (boxes.frames, boxes.centres.shape[1]) == (8, 6)
    upper, lower = walker.ends(places)
    corners = boxes.corners()
    # the middles of a box's two small faces are the ends of its part
    high = corners.reshape(8, 6, 2, 2, 2, 3)[:, :, :, 1].mean((2, 3))[..., :2]
    low = corners.reshape(8, 6, 2, 2, 2, 3)[:, :, :, 0].mean((2, 3))[..., :2]
    np.testing.assert_allclose(high, upper, atol=1e-5)
    np.testing.assert_allclose(low, lower, atol=1e-5)
