"""Figures of the course, each with alternative text."""

from pixelpolicy.viz.figures import COLOURS, Picture, curves, picture, sample_sheet
from pixelpolicy.viz.film import Film, episode_frames, film, side_by_side
from pixelpolicy.viz.grids import grids

__all__ = [
    "COLOURS",
    "Film",
    "Picture",
    "curves",
    "episode_frames",
    "film",
    "grids",
    "picture",
    "sample_sheet",
    "side_by_side",
]
