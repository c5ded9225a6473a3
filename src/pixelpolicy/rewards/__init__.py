"""Rewards: what judges a sample. Each is a `pixelpolicy.rl.Reward`; they add and scale."""

from pixelpolicy.rewards.colour import prompt_colours, redness
from pixelpolicy.rewards.compressibility import jpeg_compressibility, jpeg_incompressibility
from pixelpolicy.rewards.image_text import held_out_emoji, image_text_alignment, known_prompts
from pixelpolicy.rewards.layout import layout_agreement, of_pictures
from pixelpolicy.rewards.learned import RewardNetwork, fit_pairs, fit_scores, learned_proxy, learned_reward
from pixelpolicy.rewards.multiview import (
    MultiViewNetwork,
    Rater,
    compare,
    consistency,
    drawn_pairs,
    held_out_agreement,
    multiview_reward,
    share_won,
    views_of,
)
from pixelpolicy.rewards.reading import compare_readers, second_text_rendering, text_rendering
from pixelpolicy.rewards.verifier import shapes_dense, shapes_strict

__all__ = [
    "MultiViewNetwork",
    "Rater",
    "RewardNetwork",
    "compare",
    "compare_readers",
    "consistency",
    "drawn_pairs",
    "fit_pairs",
    "fit_scores",
    "held_out_agreement",
    "held_out_emoji",
    "image_text_alignment",
    "jpeg_compressibility",
    "jpeg_incompressibility",
    "known_prompts",
    "layout_agreement",
    "learned_proxy",
    "learned_reward",
    "multiview_reward",
    "of_pictures",
    "prompt_colours",
    "redness",
    "second_text_rendering",
    "shapes_dense",
    "shapes_strict",
    "share_won",
    "text_rendering",
    "views_of",
]
