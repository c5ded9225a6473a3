"""Strips of motions: what they draw, and what they refuse."""

import io

import numpy as np
import pytest
from PIL import Image

from pixelpolicy import viz
from pixelpolicy.errors import FigureError

STILL = viz.Boxes(centres=[[0.0, 0.8, 0.0]], halves=[[0.2, 0.5, 0.1]], colours=[[1.0, 0.0, 0.0]])
MOVING = viz.Boxes(
    centres=[[[0.3 * frame, 0.8, 0.0], [0.3 * frame, 0.8, 0.2]] for frame in range(4)],
    halves=[[0.2, 0.5, 0.1], [0.1, 0.2, 0.05]],
    colours=[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
)


def pixels(picture: viz.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(-1).sum())


def test_every_frame_is_drawn_and_the_nearer_box_in_front():
    one = pixels(viz.strip([STILL], ["a"], alt="a box"))
    four = pixels(viz.strip([MOVING], ["a"], alt="boxes"))
    assert count(one, (255, 0, 0)) > 200
    blue, columns = count(four, (0, 0, 255)), np.nonzero((four == (0, 0, 255)).all(-1).any(0))[0]
    assert blue > 200 and (np.diff(columns) > 20).sum() == 3  # four blocks, with gaps between


def test_accepted_motions_are_marked():
    plain = viz.strip([STILL, STILL], ["a", "b"], alt="boxes", accepted=[False, False])
    ticked = viz.strip([STILL, STILL], ["a", "b"], alt="boxes", accepted=[True, False])
    assert plain.png != ticked.png and ticked.alt == "boxes"


def test_what_is_refused():
    with pytest.raises(FigureError, match="one a motion"):
        viz.strip([STILL], ["a", "b"], alt="boxes")
    with pytest.raises(FigureError, match="one a motion"):
        viz.strip([], [], alt="boxes")
    with pytest.raises(ValueError, match="alt="):
        viz.strip([STILL], ["a"], alt=" ")
