"""Rewards of drawings: of the layout alone, and of the picture alone."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards import layout_agreement, of_pictures, shapes_dense, shapes_strict
from pixelpolicy.worlds import shapes
from pixelpolicy.worlds.layouts import Drawing, layout_of

PROMPTS = ["a red circle", "two blue squares", "a red circle and a blue square", "a red circle above a blue square"]


def drawings(planned, drawn):
    rng = np.random.default_rng(0)
    layouts = [layout_of(shapes.scene(text, rng)) for text in planned]
    pictures = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in drawn]))
    return [Drawing(layout, picture) for layout, picture in zip(layouts, pictures, strict=True)]


def test_each_sees_its_own_part():
    other = PROMPTS[::-1]
    well_planned, well_drawn = drawings(PROMPTS, other), drawings(other, PROMPTS)
    assert layout_agreement()(well_planned, PROMPTS).tolist() == [1, 1, 1, 1]
    assert (layout_agreement()(well_drawn, PROMPTS) < 1).all()
    assert of_pictures(shapes_strict())(well_drawn, PROMPTS).tolist() == [1, 1, 1, 1]
    assert of_pictures(shapes_strict())(well_planned, PROMPTS).tolist() == [0, 0, 0, 0]


def test_they_add_with_the_names_of_their_parts():
    reward = 0.5 * layout_agreement() + of_pictures(shapes_dense())
    total, parts = reward.evaluate(drawings(PROMPTS, PROMPTS), PROMPTS)
    assert set(parts) == {"layout", "dense"}
    assert torch.allclose(total, 0.5 * parts["layout"] + parts["dense"])


def test_drawings_and_prompts_come_in_pairs():
    with pytest.raises(RewardError):
        layout_agreement()(drawings(PROMPTS, PROMPTS), PROMPTS[:1])
