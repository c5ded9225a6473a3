"""One map of the literature's reward models and benchmarks: what each looks at, and who taught it.

Names, years and kinds are those of methods.yaml; the places follow from its fields `reward` and `base_model`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from matplotlib.figure import Figure

from pixelpolicy.viz.figures import COLOURS, Picture, picture

TEACHERS = (
    "nobody: a rule, or a\ndetector's findings",
    "pictures with captions, or\nwith questions and answers",
    "people's choices, by a\nscoring network (CLIP, BLIP)",
    "people's choices, by a\nvision-language model",
)
SIGHTS = (
    "many sides,\neach apart",
    "liked or not,\nas a whole",
    "does it show\nthe prompt?",
    "the pixels\nalone",
)
# key of methods.yaml -> (what it looks at, who taught it), as numbers of SIGHTS and TEACHERS
PLACES = {
    "ghosh2023geneval": (2, 0),
    "huang2023t2icomp": (2, 1),
    "kamath2025geneval2": (2, 1),
    "lin2024vqascore": (2, 1),
    "hu2024ella": (2, 1),
    "xu2023imagereward": (1, 2),
    "kirstain2023pickapic": (1, 2),
    "wu2023hps": (1, 2),
    "wu2023hpsv2": (1, 2),
    "ma2025hpsv3": (1, 3),
    "wang2025unifiedreward": (1, 3),
    "zhang2024mps": (0, 2),
    "xu2024visionreward": (0, 3),
}
OURS = {
    "bytes, redness": (3, 0),
    "verifier, text rendering": (2, 0),
    "image-text": (2, 1),
    "your clicks": (1, 2),
}


def reward_map(entries: Iterable) -> Picture:
    """The map as a figure, of `atlas.data.load()`'s entries.

    Filled marks are reward models, open ones benchmarks, italics the course's own rewards.
    """
    by_key = {entry.key: entry for entry in entries}
    cells: dict[tuple[int, int], list] = defaultdict(list)
    for key, place in PLACES.items():
        entry = by_key[key]
        name = entry.name.split(" / ")[0 if entry.family == "reward-gradient" else -1]
        cells[place].append((f"{name} ({entry.year})", entry.family == "benchmark", False))
    for name, place in OURS.items():
        cells[place].append((name, False, True))
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    axis = figure.subplots()
    for (row, column), members in cells.items():
        for k, (name, benchmark, ours) in enumerate(members):
            y = row + 0.5 + 0.155 * (k - (len(members) - 1) / 2)
            colour = "#666666" if ours else COLOURS["grpo" if benchmark else "nft"]
            mark = "D" if ours else "o"
            axis.plot(column + 0.07, y, mark, color=colour, fillstyle="none" if benchmark else "full", markersize=6)
            style = "italic" if ours else "normal"
            axis.text(column + 0.13, y, name, va="center", fontsize=9, style=style, color="#222222")
    axis.set(xlim=(0, len(TEACHERS)), ylim=(len(SIGHTS), 0), xlabel="who taught it", ylabel="what it looks at")
    axis.set_xticks([i + 0.5 for i in range(len(TEACHERS))], TEACHERS, fontsize=8)
    axis.set_yticks([i + 0.5 for i in range(len(SIGHTS))], SIGHTS, fontsize=8)
    axis.tick_params(length=0)
    for line in range(1, 4):
        axis.axhline(line, color="#cccccc", linewidth=0.8)
        axis.axvline(line, color="#cccccc", linewidth=0.8)
    for label, mark, fill, colour in (
        ("reward model", "o", "full", COLOURS["nft"]),
        ("benchmark", "o", "none", COLOURS["grpo"]),
        ("this course", "D", "full", "#666666"),
    ):
        axis.plot([], [], mark, fillstyle=fill, color=colour, label=label)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    told = "; ".join(
        f"{SIGHTS[row]} by {TEACHERS[column]}: {', '.join(name for name, *_ in members)}".replace("\n", " ")
        for (row, column), members in sorted(cells.items())
    )
    return picture(figure, alt=f"A map of rewards by what they look at and who taught them. {told}.")
