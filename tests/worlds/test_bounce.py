"""The bounce world: its physics against plain mechanics, and what its verifier accepts and rejects."""

import numpy as np
import pytest

from pixelpolicy.errors import PromptError, SizeError
from pixelpolicy.worlds import bounce
from pixelpolicy.worlds.bounce import COLOURS, DIRECTIONS, FLAWS, FRAMES, GRAVITY, GROUND, KINDS, RESTITUTION, SHAPES


def clips_of(texts: list[str], seed: int, *, flaw: str | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return bounce.draw([bounce.scene(text, rng, flaw=flaw) for text in texts])


def accepted(clips: np.ndarray, texts: list[str]) -> float:
    return float(np.mean([verdict.strict for verdict in bounce.verify(clips, texts)]))


def empty(count: int = 1) -> np.ndarray:
    return np.broadcast_to(bounce.stage() * 2 - 1, (count, FRAMES, 3, 24, 24)).copy()


# Prompts ------------------------------------------------------------------------------------------------------


def test_prompts_are_all_combinations_and_parse_to_themselves():
    every = bounce.prompts()
    assert len(every) == len(set(every)) == len(COLOURS) * len(SHAPES) * len(DIRECTIONS)
    assert [p for kind in KINDS for p in bounce.prompts(kind)] == list(every)
    for text in every:
        asked = bounce.parse(text)
        assert text == f"a {asked.colour} {asked.shape} thrown {asked.direction}"
        assert bounce.words(text) == [asked.colour, asked.shape, asked.direction]
    assert bounce.token_rows([""]) == [[0, 0, 0]]


def test_held_out_prompts_are_never_drawn():
    held = set(bounce.held_out_prompts())
    assert held and not held & set(bounce.trained_prompts())
    assert not held & set(bounce.draw_prompts(500, np.random.default_rng(0)))
    assert all(bounce.held_out_prompts(kind) and bounce.trained_prompts(kind) for kind in KINDS)


@pytest.mark.parametrize("text", ["", "a red disc", "a pink disc thrown up", "a red disc thrown away", "red"])
def test_a_prompt_outside_the_world_is_refused_with_the_vocabulary(text):
    with pytest.raises(PromptError, match="triangle"):
        bounce.parse(text)


def test_evaluation_pairs_are_fixed_and_share_no_seed():
    splits = [bounce.evaluation_pairs(split, 40) for split in ("test", "validation", "held-out")]
    assert splits[0] == bounce.evaluation_pairs("test", 40)
    seeds = [seed for _, part in splits for seed in part]
    assert len(seeds) == len(set(seeds)) == 3 * 4 * 40
    assert set(splits[2][0]) <= set(bounce.held_out_prompts())
    with pytest.raises(ValueError, match="unknown split"):
        bounce.evaluation_pairs("train")


# Physics ------------------------------------------------------------------------------------------------------


def test_free_flight_is_a_parabola():
    t = np.arange(FRAMES)
    path = bounce.heights(10.0, -3.0, 1e9)
    np.testing.assert_allclose(path, 10 - 3 * t + GRAVITY * t**2 / 2)


def test_a_bounce_against_fine_steps():
    fine = 20_000
    y, v, path = 8.0, 0.5, [8.0]
    for i in range((FRAMES - 1) * fine):
        y, v = y + v / fine, v + GRAVITY / fine
        if y > 18:
            y, v = 18.0, -RESTITUTION * v
        if (i + 1) % fine == 0:
            path.append(y)
    np.testing.assert_allclose(bounce.heights(8.0, 0.5, 18.0), path, atol=2e-3)


def test_every_throw_stays_on_the_stage_and_goes_where_it_should():
    rng = np.random.default_rng(0)
    for text in bounce.prompts():
        track, radius = bounce.throw(text, rng)
        side, up, down = (radius * r for r in bounce.reach(bounce.parse(text).shape))
        assert track[:, 0].min() >= side and track[:, 0].max() <= 24 - side
        assert track[:, 1].min() >= up and track[:, 1].max() <= GROUND - down + 1e-9
        moved = track[-1, 0] - track[0, 0]
        wanted = {"left": -1, "right": 1}.get(bounce.parse(text).direction, 0)
        assert np.sign(moved) * (abs(moved) > 2) == wanted


# Verifier -----------------------------------------------------------------------------------------------------


def test_clean_clips_are_accepted_and_measured_truly():
    texts, clips = bounce.draw_clips(600, np.random.default_rng(1))
    scores = bounce.measure(clips, texts)
    assert scores["accuracy"] >= 0.97 and scores["dense"] >= 0.97
    assert scores["mass"] == pytest.approx(np.pi * 3.2**2, rel=0.03)
    assert 0.15 < scores["diversity"] < 0.3


def test_noise_and_dimming_within_reason_are_accepted():
    texts, clips = bounce.draw_clips(200, np.random.default_rng(2))
    noise = np.random.default_rng(3).normal(0, 0.08, clips.shape).astype(np.float32)
    assert accepted((clips + noise).clip(-1, 1), texts) >= 0.97
    assert accepted((clips - empty()) * 0.9 + empty(), texts) >= 0.97


def test_the_tracker_finds_the_throw():
    rng = np.random.default_rng(4)
    scenes = [bounce.scene(text, rng) for text in bounce.prompts() * 4]
    track = bounce.follow(bounce.draw(scenes))
    true = np.stack([scene["track"] for scene in scenes])
    assert np.abs(track.centres - true).max() < 0.25
    speed = true[:, 1, 0] - true[:, 0, 0]
    assert np.abs(track.throws[:, 2] - speed).max() < 0.05
    assert np.quantile(track.deviations, 0.99) < 0.25


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_is_rejected_by_the_check_that_names_it(flaw):
    texts = [str(t) for t in np.random.default_rng(5).choice(bounce.prompts(), 200)]
    verdicts = bounce.verify(clips_of(texts, 6, flaw=flaw), texts)
    assert np.mean([v.strict for v in verdicts]) <= 0.02
    check = {"vanishing": "presence", "jitter": "physics", "gravity": "physics"}.get(flaw, flaw)
    assert np.mean([v.checks[check] for v in verdicts]) <= 0.02
    assert np.mean([v.dense for v in verdicts]) < 0.95


def test_the_hacks_of_the_literature_of_this_course_are_rejected():
    """An empty stage; a ball that hangs still and is elsewhere in one frame; a second ball; a smear; pure noise."""
    text = "a red disc thrown left"
    scene = bounce.scene(text, np.random.default_rng(7))
    frozen = dict(scene, track=np.array([[16.0, 10.0]] * 4 + [[8.0, 10.0]] * 4))
    rolling = dict(scene, track=np.stack([16 - 1.2 * np.arange(FRAMES), np.full(FRAMES, 18.8)], 1))
    other = bounce.draw([dict(scene, track=24 - scene["track"])])
    clips = np.concatenate([
        empty(), bounce.draw([frozen]), bounce.draw([rolling]), np.maximum(bounce.draw([scene]), other),
        np.full_like(empty(), 0.7), np.random.default_rng(8).uniform(-1, 1, empty().shape).astype(np.float32),
    ])  # fmt: skip
    verdicts = bounce.verify(clips, [text] * len(clips))
    assert not any(v.strict for v in verdicts)
    assert verdicts[0].dense == 0 and not verdicts[1].checks["physics"] and not verdicts[2].checks["physics"]
    assert not verdicts[3].checks["clean"]


def test_a_shrinking_ball_and_a_small_one_fail_by_their_mass():
    text = "a blue disc thrown right"
    scene = bounce.scene(text, np.random.default_rng(9))
    frames = [bounce.draw([dict(scene, radius=r)])[0, i] for i, r in enumerate(np.linspace(3.6, 2.0, FRAMES))]
    small = bounce.draw([dict(scene, radius=1.8)])
    verdicts = bounce.verify(np.concatenate([np.stack(frames)[None], small]), [text] * 2)
    assert not verdicts[0].checks["mass"] and not verdicts[1].checks["mass"]


def test_another_prompt_is_refused():
    texts = list(bounce.prompts())
    shifted = texts[1:] + texts[:1]
    assert accepted(clips_of(texts, 10), shifted) <= 0.05


def test_a_verdict_does_not_depend_on_its_batch():
    texts, clips = bounce.draw_clips(9, np.random.default_rng(11), flawed=0.5)
    alone = [bounce.verify(clips[i : i + 1], texts[i : i + 1])[0] for i in range(9)]
    assert [v.dense for v in bounce.verify(clips, texts)] == pytest.approx([v.dense for v in alone])
    assert bounce.verify(clips[:0], []) == []


def test_clips_of_another_size_are_refused():
    with pytest.raises(SizeError, match="24"):
        bounce.verify(np.zeros((1, FRAMES, 3, 32, 32)), ["a red disc thrown up"])
    with pytest.raises(ValueError, match="one prompt a clip"):
        bounce.verify(empty(2), ["a red disc thrown up"])
    with pytest.raises(ValueError, match="unknown flaw"):
        bounce.scene("a red disc thrown up", np.random.default_rng(0), flaw="rust")


# Diversity ----------------------------------------------------------------------------------------------------


def test_equal_clips_have_no_diversity_and_different_ones_have():
    texts = ["a green square thrown up"] * 6
    assert bounce.diversity(bounce.verify(np.repeat(clips_of(texts[:1], 12), 6, 0), texts), texts) == 0
    assert bounce.diversity(bounce.verify(clips_of(texts, 13), texts), texts) > 0.05
    assert np.isnan(bounce.diversity(bounce.verify(empty(2), texts[:2]), texts[:2]))
