"""The map of rewards: every place has an entry with a source, and none of the chapter's essentials is missing."""

from pixelpolicy.atlas.data import load
from pixelpolicy.viz import reward_map

ENTRIES = {entry.key: entry for entry in load()}


def test_every_place_is_a_sourced_reward_or_benchmark():
    for key, (sight, teacher) in reward_map.PLACES.items():
        assert ENTRIES[key].source and ENTRIES[key].reward
        assert ENTRIES[key].family in ("reward-model", "benchmark", "reward-gradient") or key == "hu2024ella"
        assert 0 <= sight < len(reward_map.SIGHTS) and 0 <= teacher < len(reward_map.TEACHERS)


def test_the_map_names_what_the_chapter_speaks_of():
    alt = reward_map.reward_map(ENTRIES.values()).alt
    essential = "ImageReward, PickScore, HPS v1, HPS v2, HPSv3, UnifiedReward, GenEval (2023), T2I-CompBench"
    for name in f"{essential}, GenEval 2, VisionReward, VQAScore".split(", "):
        assert name in alt, name
