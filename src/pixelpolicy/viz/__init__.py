"""Figures of the course, each with alternative text."""

from pixelpolicy.viz.figures import COLOURS, Picture, curves, picture, sample_sheet
from pixelpolicy.viz.film import Film, episode_frames, film, side_by_side

__all__ = [
    "COLOURS",
    "Film",
    "Picture",
    "curves",
    "episode_frames",
    "film",
    "picture",
    "sample_sheet",
    "side_by_side",
]
