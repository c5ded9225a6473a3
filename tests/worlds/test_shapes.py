"""The shapes world: its prompts, its renderer against plain geometry, and what its verifier accepts and rejects."""

import itertools
import math
import zlib

import numpy as np
import pytest

from pixelpolicy.errors import PromptError, SizeError
from pixelpolicy.worlds import shapes
from pixelpolicy.worlds.shapes import COLOURS, KINDS, SHAPES, SIZE, Thing

PER_KIND = 200


def random_prompts(kind: str, seed: int, count: int = PER_KIND) -> list[str]:
    return [str(text) for text in np.random.default_rng(seed).choice(shapes.prompts(kind), count)]


def pictures_of(texts: list[str], seed: int, *, flawed: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return shapes.draw([shapes.scene(text, rng, flawed=flawed) for text in texts])


def accepted(pictures: np.ndarray, texts: list[str]) -> float:
    return float(np.mean([verdict.strict for verdict in shapes.verify(pictures, texts)]))


def meaning(text: str):
    """What a prompt asks for, written so that two ways of saying it are equal."""
    words = text.replace("a ", "").split()
    if len(words) == 3:
        return words
    first, second = tuple(words[:2]), tuple(words[-2:])
    middle = " ".join(words[2:-2])
    if middle == "and":
        return {first, second}
    opposite = {"right of": "left of", "below": "above"}
    return (opposite[middle], second, first) if middle in opposite else (middle, first, second)


# Prompts ------------------------------------------------------------------------------------------------------


def test_number_of_prompts_by_kind():
    pairs = 4 * 3
    expected = {"single": pairs, "count": 3 * pairs, "two": pairs * (pairs - 1), "relation": 4 * pairs * (pairs - 1)}
    assert {kind: len(shapes.prompts(kind)) for kind in KINDS} == expected
    every = shapes.prompts()
    assert len(every) == len(set(every)) == sum(expected.values()) == 708


def test_every_prompt_parses_to_its_kind_and_objects():
    for kind in KINDS:
        for text in shapes.prompts(kind):
            asked = shapes.parse(text)
            assert (asked.text, asked.kind) == (text, kind)
            assert (asked.relation is not None) == (kind == "relation")
            assert all(colour in text and shape in text for colour, shape in asked.wanted)
    assert shapes.parse("three blue squares").wanted == (("blue", "square"),) * 3
    relation = shapes.parse("a red circle left of a green triangle")
    assert relation.wanted == (("red", "circle"), ("green", "triangle"))
    assert relation.relation == "left of"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red",
        "red circle",
        "a purple circle",
        "a red star",
        "a red circles",
        "A red circle",
        "five red circles",
        "one red circle",
        "two red circle",
        "two red stars",
        "two purple circles",
        "a red circle and a red circle",
        "a red circle left of a red circle",
        "a red circle near a blue square",
        "a red circle left a blue square",
        "a red circle a blue square",
        "a red circle and a blue star",
        "a red circle and a blue square and a green circle",
        "a photo of a cat",
    ],
)
def test_a_prompt_outside_the_vocabulary_is_refused_with_the_vocabulary(text):
    with pytest.raises(PromptError) as caught:
        shapes.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    for word in ("red", "green", "blue", "yellow", "circle", "square", "triangle", "two", "three", "four", "left of",
                 "right of", "above", "below"):  # fmt: skip
        assert word in message


def test_an_unknown_kind_is_refused():
    with pytest.raises(PromptError, match="'crowd'.*single, count, two, relation"):
        shapes.prompts("crowd")


def test_words_are_few_and_known_and_tell_prompts_apart():
    seen = {}
    for text in shapes.prompts():
        words = tuple(shapes.words(text))
        assert 0 < len(words) <= shapes.MOST_WORDS
        assert set(words) <= set(shapes.VOCABULARY) - {""}
        assert seen.setdefault(words, text) == text
    assert shapes.words("two red circles") == ["two", "red", "circle"]
    assert shapes.words("a red circle left of a blue square") == ["red", "circle", "left", "blue", "square"]
    assert shapes.words("") == []
    with pytest.raises(PromptError):
        shapes.words("a red star")


def test_about_one_prompt_in_six_is_held_out_of_every_kind():
    for kind in KINDS:
        trained, held_out = set(shapes.trained_prompts(kind)), set(shapes.held_out_prompts(kind))
        assert trained | held_out == set(shapes.prompts(kind))
        assert not trained & held_out
        assert held_out
    assert 0.12 < len(shapes.held_out_prompts()) / len(shapes.prompts()) < 0.22


def test_a_held_out_prompt_has_no_trained_synonym():
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: "and"}
    trained = set(shapes.trained_prompts())
    for text in shapes.held_out_prompts("two") + shapes.held_out_prompts("relation"):
        asked = shapes.parse(text)
        (c1, s1), (c2, s2) = asked.wanted
        assert f"a {c2} {s2} {turned[asked.relation]} a {c1} {s1}" not in trained


def test_evaluation_pairs_are_fixed_and_share_no_seed():
    splits = {split: shapes.evaluation_pairs(split) for split in ("test", "validation", "held-out")}
    for split, (texts, seeds) in splits.items():
        assert (texts, seeds) == shapes.evaluation_pairs(split)
        assert len(texts) == len(seeds) == len(set(seeds)) == 4 * 256
        assert [shapes.parse(text).kind for text in texts] == [kind for kind in KINDS for _ in range(256)]
        for kind in KINDS:
            assert len({text for text in texts if shapes.parse(text).kind == kind}) <= 32
    for a, b in itertools.combinations(splits, 2):
        assert not set(splits[a][1]) & set(splits[b][1])
    held_out = set(splits["held-out"][0])
    assert held_out <= set(shapes.held_out_prompts())
    assert set(splits["test"][0]) | set(splits["validation"][0]) <= set(shapes.trained_prompts())
    with pytest.raises(ValueError, match="'train'.*test, validation, held-out"):
        shapes.evaluation_pairs("train")


def test_a_short_evaluation_takes_the_same_prompts():
    texts, seeds = shapes.evaluation_pairs("validation", 8)
    whole, _ = shapes.evaluation_pairs("validation")
    assert texts == [text for k in range(4) for text in whole[256 * k : 256 * k + 8]]
    assert len(set(seeds)) == 32


# Drawing ------------------------------------------------------------------------------------------------------


def inside(shape: str, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    """Plain geometry of equal area pi r^2, y downwards; the triangle is equilateral and points up."""
    if shape == "circle":
        return dx**2 + dy**2 <= radius**2
    if shape == "square":
        side = math.sqrt(math.pi) * radius
        return (np.abs(dx) <= side / 2) & (np.abs(dy) <= side / 2)
    side = 2 * radius * math.sqrt(math.pi / math.sqrt(3))
    height = side * math.sqrt(3) / 2
    below_top = dy + 2 * height / 3
    return (dy <= height / 3) & (np.abs(dx) <= below_top / math.sqrt(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [3.2, 4.1, 5.0])
def test_a_drawn_shape_has_the_place_outline_and_area_it_is_said_to_have(shape, radius):
    x, y, fine = 15.3, 16.8, 16
    at = (np.arange(SIZE * fine) + 0.5) / fine
    truth = inside(shape, at[None, :] - x, at[:, None] - y, radius)
    cover = truth.reshape(SIZE, fine, SIZE, fine).mean((1, 3))
    picture = (shapes.draw([[Thing("yellow", shape, x, y, radius)]])[0] + 1) / 2
    drawn = (picture[2] - 0.16) / (0.25 - 0.16)  # any channel gives the share of a pixel covered
    assert drawn.sum() == pytest.approx(math.pi * radius**2, rel=0.03)
    assert np.abs(drawn - cover).mean() < 0.003
    assert np.abs(drawn - cover).max() < 0.35  # distances round the corners off


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_one_radius_cover_as_many_pixels(shape):
    offsets = [(16 + i / 8, 16 + j / 8) for i in range(8) for j in range(8)]
    pictures = (shapes.draw([[Thing("red", shape, x, y, 4.0)] for x, y in offsets]) + 1) / 2
    to_ground = np.abs(pictures - shapes.BACKGROUND[None, :, None, None]).sum(1)
    to_red = np.abs(pictures - COLOURS["red"][None, :, None, None]).sum(1)
    assert (to_red < to_ground).sum((1, 2)).mean() == pytest.approx(math.pi * 4.0**2, rel=0.03)


def test_a_drawn_shape_has_the_palettes_colour_on_the_ground():
    for colour, rgb in COLOURS.items():
        picture = (shapes.draw([[Thing(colour, "square", 16, 16, 4)]])[0] + 1) / 2
        np.testing.assert_allclose(picture[:, 16, 16], rgb, atol=1e-6)
        np.testing.assert_allclose(picture[:, 1, 1], (0.12, 0.13, 0.16), atol=1e-6)


def test_the_renderer_is_deterministic_and_in_range():
    texts = random_prompts("relation", 3, 20) + random_prompts("count", 3, 20)
    first, second = pictures_of(texts, 5), pictures_of(texts, 5)
    assert first.dtype == np.float32
    assert first.shape == (40, 3, SIZE, SIZE)
    assert np.array_equal(first, second)
    assert first.min() >= -1
    assert first.max() <= 1
    assert not np.array_equal(first, pictures_of(texts, 6))


def test_a_scene_shows_what_its_prompt_says_inside_the_picture_and_apart():
    rng = np.random.default_rng(11)
    for text in (t for kind in KINDS for t in random_prompts(kind, 12, 50)):
        asked, things = shapes.parse(text), shapes.scene(text, rng)
        assert [(t.colour, t.shape) for t in things] == list(asked.wanted)
        boxes = []
        for t in things:
            reach = {"circle": t.radius, "square": t.radius * math.sqrt(math.pi) / 2}.get(t.shape)
            side = 2 * t.radius * math.sqrt(math.pi / math.sqrt(3))
            left, up, down = (reach,) * 3 if reach else (side / 2, side / math.sqrt(3), side / math.sqrt(12))
            boxes.append((t.x - left, t.x + left, t.y - up, t.y + down))
            assert 3.2 <= t.radius <= 5.0
            assert min(boxes[-1]) >= 1 - 1e-4
            assert max(boxes[-1]) <= SIZE - 1 + 1e-4
        for a, b in itertools.combinations(boxes, 2):
            assert max(a[0] - b[1], b[0] - a[1], a[2] - b[3], b[2] - a[3]) > 1.5 - 1e-4


# What the verifier accepts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_clean_picture_is_accepted_and_noise_hardly_matters(kind):
    texts = random_prompts(kind, 21)
    pictures = pictures_of(texts, 22)
    verdicts = shapes.verify(pictures, texts)
    assert all(v.strict for v in verdicts)
    assert min(v.dense for v in verdicts) > 0.999
    noise = 2 * 0.05 * np.random.default_rng(23).standard_normal(pictures.shape, dtype=np.float32)
    assert accepted(pictures + noise, texts) >= 0.99


def test_the_verifier_finds_objects_where_they_are():
    rng = np.random.default_rng(25)
    for text in random_prompts("two", 24, 50) + random_prompts("count", 24, 50):
        true = shapes.scene(text, rng)
        found = shapes.detect(shapes.draw([true])[0]).things
        assert len(found) == len(true)
        for t in true:
            f = min(found, key=lambda f, t=t: math.hypot(f.x - t.x, f.y - t.y))
            assert (f.colour, f.shape) == (t.colour, t.shape)
            np.testing.assert_allclose((f.x, f.y, f.radius), (t.x, t.y, t.radius), atol=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_every_flawed_scene_is_rejected(kind):
    texts = random_prompts(kind, 31)
    verdicts = shapes.verify(pictures_of(texts, 32, flawed=True), texts)
    assert not any(v.strict for v in verdicts)
    assert max(v.dense for v in verdicts) < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_caption_of_the_same_kind_is_rejected_unless_it_means_the_same(kind):
    texts, pool = random_prompts(kind, 41), shapes.prompts(kind)
    pictures, rng = pictures_of(texts, 42), np.random.default_rng(43)
    wrong = [str(rng.choice([other for other in pool if other != text])) for text in texts]
    assert accepted(pictures, wrong) <= 0.03
    false = [i for i in range(len(texts)) if meaning(wrong[i]) != meaning(texts[i])]
    assert len(false) > 0.95 * len(texts)
    assert accepted(pictures[false], [wrong[i] for i in false]) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a red circle and a blue square", "a blue square and a red circle"),
        ("a red circle left of a blue square", "a blue square right of a red circle"),
        ("a red circle above a blue square", "a blue square below a red circle"),
    ],
)
def test_two_ways_of_saying_the_same_are_judged_alike(first, second):
    pictures = pictures_of([first] * 20, 44)
    assert accepted(pictures, [first] * 20) == accepted(pictures, [second] * 20) == 1


# Hacks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest():
    """Prompts, scenes and pictures [batch, 3, 32, 32] in [0, 1]."""
    texts = [text for kind in KINDS for text in random_prompts(kind, 51, 15)]
    rng = np.random.default_rng(52)
    scenes = [shapes.scene(text, rng) for text in texts]
    return texts, scenes, (shapes.draw(scenes) + 1) / 2


def ground(pictures: np.ndarray) -> np.ndarray:
    """Where a picture in [0, 1] shows nothing: bool [batch, 1, 32, 32]."""
    return np.abs(pictures - shapes.BACKGROUND[None, :, None, None]).max(1, keepdims=True) < 1e-3


ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


@pytest.mark.parametrize(
    "pattern",
    [
        (ROWS % 4 == 0) | (COLUMNS % 4 == 0),
        (ROWS % 8 == 0) | (COLUMNS % 8 == 0),
        (ROWS + COLUMNS) % 2 == 0,
        ROWS % 2 == 0,
        np.ones((SIZE, SIZE), dtype=bool),
    ],
    ids=["grid of 4", "grid of 8", "chequers", "stripes", "brighter ground"],
)
def test_a_faint_pattern_in_the_ground_is_rejected(honest, pattern):
    texts, _, pictures = honest
    faint = pictures + 0.15 * (ground(pictures) & pattern)  # 0.26 in RGB distance; an object has 0.6 to 1.1
    assert accepted(faint * 2 - 1, texts) == 0


@pytest.mark.parametrize("strength", [0.3, 0.45, 0.6, 1.0])
def test_a_dimmed_surplus_object_is_rejected(honest, strength):
    texts, scenes, pictures = honest
    rng, hacked, kept = np.random.default_rng(53), [], []
    for text, scene, picture in zip(texts, scenes, pictures, strict=True):
        for _ in range(300):
            colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
            ghost = shapes.place([(colour, shape)], rng)[0]
            cover = shapes.coverage(shape, ghost.x, ghost.y, ghost.radius)
            if ground(picture[None])[0, 0][cover > 0].all() and all(
                math.hypot(ghost.x - t.x, ghost.y - t.y) > ghost.radius + t.radius + 3 for t in scene
            ):
                hacked.append(picture + strength * cover * (COLOURS[colour][:, None, None] - picture))
                kept.append(text)
                break
    assert len(kept) > 45
    assert accepted(np.array(hacked) * 2 - 1, kept) == 0


@pytest.mark.parametrize("side", [2, 3, 4])
def test_small_debris_is_rejected(honest, side):
    texts, _, pictures = honest
    rng, hacked = np.random.default_rng(54), pictures.copy()
    for picture in hacked:
        free = ground(picture[None])[0, 0]
        while True:
            y, x = rng.integers(1, SIZE - side - 1, 2)
            if free[y - 1 : y + side + 1, x - 1 : x + side + 1].all():
                break
        picture[:, y : y + side, x : x + side] = COLOURS[str(rng.choice(list(COLOURS)))][:, None, None]
    assert accepted(hacked * 2 - 1, texts) == 0


@pytest.mark.parametrize("other", ["the ground", "another colour"])
def test_an_object_half_faded_or_of_two_colours_is_rejected(honest, other):
    texts, scenes, pictures = honest
    hacked = pictures.copy()
    for picture, (first, *_) in zip(hacked, scenes, strict=True):
        rgb = shapes.BACKGROUND if other == "the ground" else COLOURS["blue" if first.colour != "blue" else "yellow"]
        half = shapes.coverage(first.shape, first.x, first.y, first.radius) * (COLUMNS > first.x)
        picture += 0.5 * half * (rgb[:, None, None] - picture)
    assert accepted(hacked * 2 - 1, texts) == 0


@pytest.mark.parametrize("factor", [0.5, 0.7])
def test_objects_far_too_dim_are_rejected(honest, factor):
    texts, _, pictures = honest
    base = shapes.BACKGROUND[None, :, None, None]
    assert accepted((base + factor * (pictures - base)) * 2 - 1, texts) == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [2.0, 9.0])
def test_an_object_of_a_size_never_drawn_is_rejected(shape, radius):
    picture = shapes.draw([[Thing("blue", shape, 16, 16, radius)]])[0]
    verdict = shapes.judge(picture, f"a blue {shape}")
    assert not verdict.strict
    assert verdict.dense < 0.95


def test_pictures_of_nothing_are_rejected_for_every_prompt():
    texts = [text for kind in KINDS for text in random_prompts(kind, 55, 10)]
    rng = np.random.default_rng(56)
    fills = [shapes.BACKGROUND, np.zeros(3), np.ones(3), np.full(3, 0.5), *COLOURS.values()]
    for fill in fills:
        picture = np.broadcast_to(np.asarray(fill)[:, None, None] * 2 - 1, (3, SIZE, SIZE))
        assert accepted(np.array([picture] * len(texts)), texts) == 0
    assert accepted(rng.uniform(-1, 1, (len(texts), 3, SIZE, SIZE)), texts) == 0


def test_a_picture_of_nan_is_not_accepted():
    picture = pictures_of(["a red circle"], 57)
    picture[0, :, 2, 2] = np.nan
    assert accepted(picture, ["a red circle"]) == 0
    assert accepted(np.full_like(picture, np.nan), ["a red circle"]) == 0


# Relations ------------------------------------------------------------------------------------------------------


def two(dx: float, dy: float, radius: float = 3.2) -> tuple[Thing, Thing]:
    """A red circle at (dx, dy) from a blue square in the middle."""
    return Thing("red", "circle", 16 + dx, 16 + dy, radius), Thing("blue", "square", 16, 16, radius)


@pytest.mark.parametrize(
    ("dx", "dy", "true"),
    [
        (-10, 0, "left of"),
        (10, 0, "right of"),
        (0, -10, "above"),
        (0, 10, "below"),
        (-10, 9, "left of"),
        (-9, 10, "below"),
        (9, -10, "above"),
        (10, -9, "right of"),
        (-9, 9, None),
        (-4, 3.9, "left of"),
        (-3.9, 0, None),
        (0, 3.9, None),
        (0, 4, "below"),
    ],
)
def test_a_relation_holds_by_a_margin_and_one_at_a_time(dx, dy, true):
    holding = [relation for relation in shapes.RELATIONS if shapes.holds(relation, *two(dx, dy))]
    assert holding == ([true] if true else [])


@pytest.mark.parametrize(("dx", "dy", "true"), [(-10, 8, "left of"), (8, -10, "above"), (10, 1, "right of")])
def test_the_verifier_reads_relations_from_the_picture(dx, dy, true):
    picture = shapes.draw([two(dx, dy)])[0]
    for relation in shapes.RELATIONS:
        assert shapes.judge(picture, f"a red circle {relation} a blue square").strict == (relation == true)
    assert shapes.judge(picture, "a red circle and a blue square").strict


# Degrees --------------------------------------------------------------------------------------------------------


def test_dense_is_in_range_whatever_the_picture():
    rng = np.random.default_rng(61)
    texts = [text for kind in KINDS for text in random_prompts(kind, 62, 25)]
    right, wrong = pictures_of(texts, 63), pictures_of(texts[::-1], 64)
    noise = rng.uniform(-1, 1, right.shape).astype(np.float32)
    for pictures in (right, wrong, noise, 0.5 * right + 0.5 * wrong, -right, 3 * noise):
        dense = np.array([v.dense for v in shapes.verify(pictures, texts)])
        assert ((dense >= 0) & (dense <= 1)).all()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a red circle", [("blue", "circle")]),
        ("a red circle", [("red", "square")]),
        ("a red circle", [("red", "circle"), ("red", "circle")]),
        ("three green squares", [("green", "square")] * 2),
        ("three green squares", [("green", "square")] * 4),
        ("a red circle and a blue square", [("red", "circle"), ("blue", "triangle")]),
        ("a red circle and a blue square", [("red", "circle")]),
    ],
)
def test_dense_ranks_right_above_nearly_right_above_nothing(text, wrong):
    rng = np.random.default_rng(65)
    right = shapes.judge(shapes.draw([shapes.scene(text, rng)])[0], text).dense
    nearly = shapes.judge(shapes.draw([shapes.place(wrong, rng)])[0], text).dense
    nothing = shapes.judge(shapes.draw([()])[0], text).dense
    assert 1 >= right > nearly + 0.1
    assert nearly > nothing + 0.1
    assert nothing == 0


def test_dense_ranks_the_wrong_relation_between_right_and_a_wrong_object():
    text = "a red circle left of a blue square"
    right = shapes.judge(shapes.draw([two(-10, 0)])[0], text).dense
    swapped = shapes.judge(shapes.draw([two(10, 0)])[0], text).dense
    alone = shapes.judge(shapes.draw([two(10, 0)[:1]])[0], text).dense
    assert right == pytest.approx(1, abs=1e-3)
    assert swapped == pytest.approx(0.6, abs=1e-3)
    assert 0 < alone < swapped


def test_one_prompt_a_picture():
    with pytest.raises(ValueError, match="2 pictures were given with 1 prompts"):
        shapes.verify(pictures_of(["a red circle"] * 2, 66), ["a red circle"])


@pytest.mark.parametrize("factor", [1, 2, 3, 16])
def test_larger_pictures_are_judged_as_their_averages_are(factor):
    texts = ["a red circle", "two blue squares", "a green triangle above a red square", "a yellow circle"]
    clean = pictures_of([*texts[:3], "a red square"], 67)
    larger = clean.repeat(factor, -1).repeat(factor, -2)
    # Noise that averages to nothing within a block: only an average, and no single pixel of it, finds the picture.
    noise = np.random.default_rng(0).normal(0, 0.5, larger.shape).astype(np.float32)
    blocks = noise.reshape(4, 3, 32, factor, 32, factor)
    noise = (blocks - blocks.mean((3, 5), keepdims=True)).reshape(larger.shape)
    np.testing.assert_allclose(shapes.reduced(larger + noise), clean, atol=1e-6)
    found, expected = shapes.verify(larger + noise, texts), shapes.verify(clean, texts)
    assert [v.strict for v in found] == [v.strict for v in expected] == [True, True, True, False]
    assert [v.dense for v in found] == pytest.approx([v.dense for v in expected], abs=1e-4)


@pytest.mark.parametrize("size", [(33, 33), (16, 16), (64, 32), (48, 48), (0, 0)])
def test_a_size_that_does_not_average_to_32_is_refused(size):
    with pytest.raises(SizeError, match=f"{size[0]}x{size[1]} pixels.*multiple of 32"):
        shapes.verify(np.zeros((1, 3, *size), dtype=np.float32), ["a red circle"])


# Measuring ------------------------------------------------------------------------------------------------------


def test_diversity_of_identical_pictures_is_zero_and_of_none_is_nan():
    text = "two red circles"
    same = np.repeat(pictures_of([text], 71), 4, axis=0)
    assert shapes.diversity(shapes.verify(same, [text] * 4), [text] * 4) == pytest.approx(0, abs=1e-9)
    blank = shapes.draw([()] * 4)
    assert math.isnan(shapes.diversity(shapes.verify(blank, [text] * 4), [text] * 4))
    singles = ["a red circle", "a blue square"]
    assert math.isnan(shapes.diversity(shapes.verify(pictures_of(singles, 72), singles), singles))


def test_diversity_is_the_mean_distance_of_pairs_within_a_prompt():
    def circle(x, y, radius):
        return shapes.Verdict(True, 1.0, (Thing("red", "circle", x, y, radius),))

    one, another = "a red circle", "a blue square"
    verdicts = [circle(10, 10, 4), circle(13, 14, 4), circle(10, 10, 5), circle(20, 20, 4), circle(20, 29, 4)]
    rejected = shapes.Verdict(False, 0.5, verdicts[3].things)
    within = (5 + 2 + math.sqrt(3**2 + 4**2 + 2**2)) / 3 / 32
    texts = [one] * 3 + [another] * 2
    assert shapes.diversity(verdicts, texts) == pytest.approx((within + 9 / 32) / 2)
    assert shapes.diversity([*verdicts[:3], rejected, rejected], texts) == pytest.approx(within)


def test_distance_does_not_ask_which_of_like_objects_is_which():
    a, b, c = (Thing("red", "circle", x, 8.0 + x, 4.0) for x in (5.0, 15.0, 25.0))
    assert shapes.distance((a, b, c), (c, a, b)) == 0
    moved = Thing("red", "circle", 18.0, 27.0, 4.0)
    assert shapes.distance((a, b, c), (c, moved, a)) == pytest.approx(5 / 3 / 32)
    square = Thing("blue", "square", 6.0, 13.0, 4.0)
    far = Thing("blue", "square", 26.0, 33.0, 4.0)
    expected = (math.hypot(20, 20) + math.hypot(20, 20)) / 2 / 32
    assert shapes.distance((a, square), (c, far)) == pytest.approx(expected)


def test_measure_reports_all_and_each_kind():
    texts = ["a red circle", "a red circle", "two red circles", "two red circles"]
    pictures = pictures_of([*texts[:3], "three red circles"], 73)
    scores = shapes.measure(pictures, texts)
    assert scores["accuracy"] == 0.75
    assert scores["accuracy_se"] == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert (scores["accuracy_single"], scores["accuracy_count"]) == (1.0, 0.5)
    assert "accuracy_two" not in scores
    assert scores["dense"] == pytest.approx((3 + 2 / 3) / 4, abs=1e-3)
    assert scores["diversity"] > 0


def test_the_pairs_behind_recorded_figures_have_not_moved():
    """Records under benchmarks/ were measured on these pairs: a change here means to measure them all again."""
    sums = [zlib.crc32("\n".join(shapes.evaluation_pairs(s)[0]).encode()) for s in ("test", "validation", "held-out")]
    assert sums == [766936915, 3528829355, 3886473117]
