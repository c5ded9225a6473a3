"""Furniture: its prompts, that true pieces stand and flawed ones fall, and what each side check is blind to."""

import numpy as np
import pytest

from pixelpolicy.errors import PromptError
from pixelpolicy.worlds import boxes as solids
from pixelpolicy.worlds import furniture
from pixelpolicy.worlds.furniture import FLAWS, KINDS

PER_KIND = 200


def test_sixteen_prompts_parse_to_colour_and_kind():
    every = furniture.prompts()
    assert len(every) == len(set(every)) == 16
    for kind in KINDS:
        assert all(furniture.parse(text)[1] == kind for text in furniture.prompts(kind))
        assert set(furniture.trained_prompts(kind)) | set(furniture.held_out_prompts(kind)) == set(
            furniture.prompts(kind)
        )
    assert set(furniture.HELD_OUT) == set(furniture.held_out_prompts()) == set(every) - set(furniture.trained_prompts())
    assert furniture.is_held_out("a blue lamp") and not furniture.is_held_out("a red lamp")


@pytest.mark.parametrize(
    "text", ["", "chair", "a chair", "a purple chair", "a red sofa", "A red chair", "a red chair "]
)
def test_a_prompt_outside_the_vocabulary_is_refused_with_the_vocabulary(text):
    with pytest.raises(PromptError, match="red, green, blue, yellow and kinds chair, table, lamp, shelf"):
        furniture.parse(text)


def test_words_tell_prompts_apart():
    rows = furniture.token_rows(["", *furniture.prompts()])
    assert len({tuple(row) for row in rows}) == 17 and rows[0] == [0, 0]
    assert furniture.words("a blue lamp") == ["blue", "lamp"] and furniture.words("") == []
    with pytest.raises(PromptError, match="sofa"):
        furniture.prompts("sofa")


def test_draws_follow_from_the_seed_and_never_show_a_held_out_prompt():
    first, again = (furniture.draw_prompts(200, np.random.default_rng(3)) for _ in range(2))
    assert first == again and set(first) == set(furniture.trained_prompts())


@pytest.mark.parametrize("kind", KINDS)
def test_true_pieces_stand_and_pass_every_side_check(kind):
    texts = [str(t) for t in np.random.default_rng(0).choice(furniture.prompts(kind), PER_KIND)]
    scores = furniture.measure(furniture.draw(texts, np.random.default_rng(1)), texts)
    assert scores["accuracy"] == scores[f"accuracy_{kind}"] >= 0.97
    assert scores["precision"] >= 0.97 and scores["colour"] == 1 and scores["symmetry"] > 0.99
    assert 0.95 < scores["height"] < 1.05 and scores["diversity"] > 0.1


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_flawed_pieces_do_not_stand_and_say_why(kind, flaw):
    rng = np.random.default_rng(2)
    texts = [f"a red {kind}"] * PER_KIND
    verdicts = furniture.verify(np.stack([furniture.furnish(text, rng, flaw=flaw) for text in texts]), texts)
    assert np.mean([v.strict for v in verdicts]) <= 0.03
    if flaw == "apart":
        assert np.mean([v.connected for v in verdicts]) <= 0.03 and np.mean([v.tilt > 6 for v in verdicts]) > 0.97
    else:
        assert np.mean([v.tilt < furniture.LEAST_MARGIN for v in verdicts]) >= 0.9


def test_an_unknown_flaw_is_refused():
    with pytest.raises(ValueError, match="short, shifted, apart"):
        furniture.furnish("a red lamp", np.random.default_rng(0), flaw="rotten")


def test_a_flat_slab_stands_but_has_neither_height_nor_precision():
    texts, _ = furniture.evaluation_pairs(per_kind=30)
    flat = furniture.draw(texts, np.random.default_rng(4))
    flat[..., [2, 5]] *= 0.4
    scores = furniture.measure(flat, texts)
    assert scores["accuracy"] > 0.95 and scores["height"] < 0.45 and scores["precision"] < 0.05


def test_the_wrong_kind_or_colour_stands_but_is_found_out():
    texts, _ = furniture.evaluation_pairs(per_kind=30)
    scores = furniture.measure(furniture.draw(texts, np.random.default_rng(5)), texts[30:] + texts[:30])
    assert scores["accuracy"] > 0.97 and scores["precision"] < 0.05
    other = [text.replace("red", "blue") for text in texts if "red" in text]
    pieces = furniture.draw([text for text in texts if "red" in text], np.random.default_rng(5))
    assert furniture.measure(pieces, other)["colour"] < 0.03


def test_small_noise_is_forgiven_and_large_noise_is_not():
    texts, _ = furniture.evaluation_pairs(per_kind=50)
    rng = np.random.default_rng(6)
    pieces = furniture.draw(texts, rng)
    noise = rng.standard_normal(pieces.shape)
    small, large = (furniture.measure(pieces + scale * noise, texts) for scale in (0.004, 0.05))
    assert small["accuracy"] > 0.97 and small["precision"] > 0.97
    assert large["accuracy"] < 0.2 and large["precision"] < 0.1


def test_one_piece_many_times_has_no_diversity():
    text = "a red chair"
    piece = furniture.draw([text], np.random.default_rng(7))
    verdicts = furniture.verify(np.repeat(piece, 5, 0), [text] * 5)
    assert furniture.diversity(verdicts, [text] * 5) == 0
    assert np.isnan(furniture.diversity(verdicts[:1], [text]))
    two = furniture.verify(furniture.draw([text] * 2, np.random.default_rng(8)), [text] * 2)
    expected = np.linalg.norm(two[0].attributes - two[1].attributes)
    assert furniture.diversity(two, [text] * 2) == pytest.approx(expected)


def test_pieces_that_are_no_numbers_are_rejected_not_raised():
    texts = ["a red chair"] * 3
    pieces = furniture.draw(texts, np.random.default_rng(9))
    pieces[1, 0, 2] = np.nan
    pieces[2] = 0
    scores = furniture.measure(pieces, texts)
    assert [v.strict for v in furniture.verify(pieces, texts)] == [True, False, False]
    assert np.isfinite(scores["accuracy"]) and scores["precision"] == pytest.approx(1 / 3)


def test_as_many_prompts_as_pieces():
    with pytest.raises(ValueError, match="2 pieces were given with 1 prompts"):
        furniture.verify(np.zeros((2, 12, 10)), ["a red chair"])
    assert furniture.verify(np.zeros((0, 12, 10)), []) == []


def test_evaluation_pairs_are_fixed_and_share_no_seed():
    splits = {split: furniture.evaluation_pairs(split) for split in ("test", "validation", "held-out")}
    seeds = [seed for _, part in splits.values() for seed in part]
    assert len(seeds) == len(set(seeds)) and len(splits["test"][1]) == 1024
    assert splits == {split: furniture.evaluation_pairs(split) for split in splits}
    assert set(splits["test"][0]) == set(furniture.trained_prompts())
    assert set(splits["held-out"][0]) == set(furniture.HELD_OUT)
    with pytest.raises(ValueError, match="unknown split"):
        furniture.evaluation_pairs("train")


def test_a_piece_has_twelve_boxes_within_the_view():
    pieces = furniture.draw(list(furniture.prompts()) * 10, np.random.default_rng(10))
    assert pieces.shape == (160, furniture.BOXES, solids.CHANNELS) and pieces.dtype == np.float32
    views = solids.silhouettes(pieces[:32], size=24)
    assert not views[:, :, [0, -1]].any() and not views[:, :, :, [0, -1]].any()


def test_samples_follow_from_the_seed_and_are_flawed_where_asked():
    texts, pieces = furniture.sample(60, np.random.default_rng(11))
    again = furniture.sample(60, np.random.default_rng(11))
    assert texts == again[0] and (pieces == again[1]).all() and set(texts) <= set(furniture.prompts())
    assert furniture.stands(pieces).mean() > 0.97
    assert furniture.stands(furniture.sample(60, np.random.default_rng(12), flawed=True)[1]).mean() < 0.05
