"""Widgets that live in JupyterLab and, with no kernel, on a page of the book."""

from pixelpolicy.widgets.box_viewer import BoxViewer
from pixelpolicy.widgets.clip_explorer import ClipExplorer
from pixelpolicy.widgets.gridworld import GridworldEditor
from pixelpolicy.widgets.pair_labeller import PairLabeller
from pixelpolicy.widgets.reward_explorer import RewardExplorer
from pixelpolicy.widgets.tilt_explorer import TiltExplorer
from pixelpolicy.widgets.trajectory_scrubber import TrajectoryScrubber

__all__ = [
    "BoxViewer",
    "ClipExplorer",
    "GridworldEditor",
    "PairLabeller",
    "RewardExplorer",
    "TiltExplorer",
    "TrajectoryScrubber",
]
