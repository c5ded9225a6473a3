"""Figures of the course, each with alternative text."""

from pixelpolicy.viz.boxes import Boxes
from pixelpolicy.viz.figures import COLOURS, Picture, curves, picture, sample_sheet
from pixelpolicy.viz.film import Film, episode_frames, film, side_by_side
from pixelpolicy.viz.grids import grids
from pixelpolicy.viz.mesh import save_mesh
from pixelpolicy.viz.strip import strip

__all__ = [
    "Boxes",
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
    "strip",
]
