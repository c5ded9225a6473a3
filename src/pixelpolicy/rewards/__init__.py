"""Rewards: what judges a sample. Each is a `pixelpolicy.rl.Reward`; they add and scale."""

from pixelpolicy.rewards.colour import prompt_colours, redness
from pixelpolicy.rewards.compressibility import jpeg_compressibility, jpeg_incompressibility
from pixelpolicy.rewards.verifier import shapes_dense, shapes_strict

__all__ = [
    "jpeg_compressibility",
    "jpeg_incompressibility",
    "prompt_colours",
    "redness",
    "shapes_dense",
    "shapes_strict",
]
