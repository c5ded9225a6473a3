"""Panels of cells: what is drawn, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from pixelpolicy import viz
from pixelpolicy.errors import FigureError


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)


def ink(picture):
    """How many pixels are nearly black."""
    return (pixels(picture).max(-1) < 40).sum()


def test_the_higher_value_is_the_lighter_cell():
    drawn = pixels(viz.grids({"": np.array([[0.0, 1.0]])}, alt="Two cells.", digits=0))
    middle, width = drawn.shape[0] // 2 + 8, drawn.shape[1]
    assert drawn[middle, 3 * width // 4].sum() > drawn[middle, width // 4].sum() + 150


def test_panels_share_one_scale_and_stand_in_columns():
    drawn = viz.grids({"a": np.zeros((2, 2)), "b": np.ones((2, 2)), "c": np.ones((2, 2))}, alt="Three.", columns=2)
    high, wide, _ = pixels(drawn).shape
    assert drawn.alt == "Three." and abs(high - wide) < 0.25 * wide
    one = pixels(viz.grids({"a": np.ones((2, 2))}, alt="One.", limits=(0, 1), digits=0))
    assert one[one.shape[0] * 3 // 4, one.shape[1] // 4].sum() > 450


def test_arrows_marks_and_walls_are_drawn():
    values, arrows = np.ones((1, 2)), np.zeros((1, 2, 4), bool)
    bare = viz.grids({"": values}, alt="Bare.", limits=(0, 1), digits=0)
    assert ink(viz.grids({"": values}, alt="A word.", limits=(0, 1), digits=0, marks={(0, 1): "goal"})) > ink(bare)
    arrows[0, 0, 1] = True
    assert ink(viz.grids({"": values}, alt="Down.", limits=(0, 1), digits=0, arrows={"": arrows})) > ink(bare)
    grey = pixels(viz.grids({"": values}, alt="A wall.", limits=(0, 1), digits=0, walls={(0, 1)}))
    assert abs(grey[grey.shape[0] * 3 // 4, grey.shape[1] * 3 // 4] - 127).max() <= 1


def test_what_is_no_figure_is_refused():
    with pytest.raises(FigureError, match="needs both"):
        viz.grids({"": np.ones((1, 1))}, alt=" ")
    with pytest.raises(FigureError, match="0 panels"):
        viz.grids({}, alt="Nothing.")
