"""Widgets that live in JupyterLab and, with no kernel, on a page of the book."""

from pixelpolicy.widgets.trajectory_scrubber import TrajectoryScrubber

__all__ = ["TrajectoryScrubber"]
