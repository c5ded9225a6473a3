"""Figures of the course, each with alternative text."""

from pixelpolicy.viz.figures import COLOURS, Picture, curves, picture, sample_sheet
from pixelpolicy.viz.film import Film, episode_frames, film, side_by_side
from pixelpolicy.viz.grids import grids
from pixelpolicy.viz.mesh import save_mesh

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
    "save_mesh",
    "side_by_side",
]
