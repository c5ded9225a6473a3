"""Layouts: what scenes say they are, what prompts ask of them, and whether a picture follows."""

from dataclasses import replace

import numpy as np
import pytest

from pixelpolicy.worlds import layouts, shapes
from pixelpolicy.worlds.layouts import Drawing, Planned, agreement, followed, layout_of, read, written


def scenes(kind, count, seed=0, **how):
    rng = np.random.default_rng(seed)
    texts = [str(rng.choice(shapes.prompts(kind))) for _ in range(count)]
    return [(text, shapes.scene(text, rng, **how)) for text in texts]


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_layouts_of_clean_scenes_say_what_was_asked(kind):
    assert np.mean([agreement(layout_of(things), text) == 1 for text, things in scenes(kind, 300)]) >= 0.97


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_layouts_of_misdescribed_scenes_do_not(kind):
    wrong = scenes(kind, 300, flawed=True)
    assert np.mean([agreement(layout_of(things), text) == 1 for text, things in wrong]) <= 0.05


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_a_layout_is_read_as_it_was_written(kind):
    for _, things in scenes(kind, 50):
        numbers = written(layout_of(things))
        assert len(numbers) == layouts.LENGTH
        assert read(numbers) == layout_of(things)


def test_a_layout_ends_at_the_first_empty_slot():
    numbers = written((Planned("red", "circle", 2, 4),))
    numbers[8:12] = written((Planned("blue", "square", 0, 0),))[:4]
    assert read(numbers) == (Planned("red", "circle", 2, 4),)


def test_places_are_those_of_a_chessboard():
    thing = shapes.Thing("red", "circle", x=9.0, y=17.0, radius=4.0)
    assert str(layout_of([thing])[0]) == "red circle c5"


def test_like_objects_are_planned_row_by_row_and_others_as_asked():
    low, high = shapes.Thing("red", "circle", 5, 25, 4), shapes.Thing("red", "circle", 25, 5, 4)
    assert [p.row for p in layout_of([low, high])] == [1, 6]
    assert [p.colour for p in layout_of([low, replace(high, colour="blue")])] == ["red", "blue"]


RED, BLUE = Planned("red", "circle", 1, 3), Planned("blue", "square", 5, 3)


@pytest.mark.parametrize(
    ("layout", "prompt", "share"),
    [
        ((RED,), "a red circle", 1),
        ((BLUE,), "a red circle", 0),
        ((), "a red circle", 0),
        ((RED, RED), "a red circle", 1 / 2),
        ((RED, RED), "three red circles", 2 / 3),
        ((RED, BLUE), "a blue square and a red circle", 1),
        ((RED, BLUE), "a red circle left of a blue square", 1),
        ((RED, BLUE), "a red circle right of a blue square", 1 / 2),
        ((RED, BLUE), "a red circle above a blue square", 1 / 2),
        ((RED,), "a red circle left of a blue square", 1 / 4),
        ((RED, BLUE, BLUE), "a red circle left of a blue square", 2 / 3),
    ],
)
def test_agreement_counts_what_was_asked_against_what_is_there(layout, prompt, share):
    assert agreement(layout, prompt) == pytest.approx(share)


def test_a_picture_that_shows_its_layout_follows_it_and_another_does_not():
    for _, things in scenes("two", 30):
        picture = shapes.draw([things])[0]
        layout = layout_of(things)
        assert followed(Drawing(layout, picture))
        assert not followed(Drawing(layout[:1], picture))
        other = replace(layout[0], shape=next(s for s in shapes.SHAPES if s != layout[0].shape))
        assert not followed(Drawing((other, layout[1]), picture))
        moved = replace(layout[0], column=(layout[0].column + 4) % 8)
        assert not followed(Drawing((moved, layout[1]), picture))
