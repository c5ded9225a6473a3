"""Figures of the course, each with alternative text."""

from pixelpolicy.viz.figures import COLOURS, Picture, curves, picture, sample_sheet

__all__ = ["COLOURS", "Picture", "curves", "picture", "sample_sheet"]
