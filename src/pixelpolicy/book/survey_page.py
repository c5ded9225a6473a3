"""The page that lays the survey's map beside the chapters: what is attested of it, and counts from the atlas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pixelpolicy import atlas
from pixelpolicy.atlas.data import GROUNDWORK, Entry
from pixelpolicy.book.chapter_map import SIGNS

PAGE, KEY = "survey", "liang2025survey"


@dataclass(frozen=True)
class Part:
    """A part of the survey, as attested; the chapters that treat the same, and how."""

    survey: str
    chapters: tuple[int, ...]
    here: str


PARTS = (
    Part(
        "Introduction: likelihood and reconstruction stand in for what one wants, and miss perception, semantics and "
        "physics; reinforcement learning can climb what has no gradient, what people prefer, what unfolds in time",
        (6, 8),
        "the loss that covers and does not choose is measured; rewards are built, and three of them hacked",
    ),
    Part(
        "The evolution of reinforcement learning, from control to a general tool: value methods, actor-critics, TRPO "
        "and PPO; where they fall short; offline, model-based and alignment-driven learning",
        (1, 2, 3, 4, 5),
        "the same road, its main methods run; chapter 1 begins earlier, with planning",
    ),
    Part("Images", (7, 9, 10, 11, 12, 13, 14), "one family a chapter from 9 on; 7 to 13 on one base, 14 on another"),
    Part("Video", (15,), "rewards that watch time pass"),
    Part("3D and 4D", (16, 17), "what stands, and what walks"),
    Part("Open challenges and future directions", (19,), "each with a measurement, and a task that is open"),
)
GROUPS = {
    "PPO-based": (("ppo", "policy-gradient", "actor-critic"), (4, 9, 18)),
    "DPO-based": (("dpo",), (5, 11, 15, 16)),
    "GRPO-based": (("grpo",), (12, 14, 15, 16)),
}
BESIDE = {
    "reward gradients": (("reward-gradient",), (10, 15)),
    "reward weighting": (("reward-weighted",), (5, 9, 16)),
    "the forward process": (("forward-process",), (13, 15, 17)),
    "search at inference": (("search",), (13, 19)),
    "reward models and benchmarks": (("reward-model", "benchmark"), (8, 16, 19)),
}
ROLES = {"fine-tuning": (9, 10, 11, 12, 13, 14, 15, 16, 17), "structural": (18,)}


def survey_page(staged: Path) -> str:
    """The page in Markdown, for the chapters that the staged book has."""
    stems = {int(number): stem for number, stem in atlas.numbered(staged / "chapters", "md").items()}
    cited, entries = atlas.citing_chapters(staged), atlas.load()

    def links(chapters: tuple[int, ...]) -> str:
        return ", ".join(
            f"{{doc}}`{number} {SIGNS[number]} <chapters/{stems[number]}>`" for number in chapters if number in stems
        )

    def works(chapters: tuple[int, ...]) -> int:
        wanted = {stems.get(number) for number in chapters}
        return sum(bool(wanted & set(where)) for where in cited.values())

    parts = "\n".join(
        f"| {part.survey} | {links(part.chapters)} | {part.here} | {works(part.chapters)} |" for part in PARTS
    )
    return TEXT.format(
        survey=f"{{cite:p}}`{KEY}`", parts=parts, groups=_families(GROUPS, entries, links),
        beside=_families(BESIDE, entries, links), attested=_attested(entries, cited),
        roles="\n".join(
            f"- **{name}**, {_count(entries, role=name)} works of the atlas: {links(chapters)}"
            for name, chapters in ROLES.items()
        ),
    )  # fmt: skip


def _count(entries: list[Entry], *, families: tuple[str, ...] = (), role: str = "") -> int:
    """Works of these families that are no foundations, or in this role."""
    if role:
        return sum(entry.role == role for entry in entries)
    kept = [entry for entry in entries if entry.family in families]
    grounds = any(family in GROUNDWORK for family in families)
    return sum(grounds or entry.domain != "foundation" for entry in kept)


def _families(rows: dict, entries: list[Entry], links) -> str:
    return "\n".join(
        f"| {name} | {links(chapters)} | {_count(entries, families=families)} |"
        for name, (families, chapters) in rows.items()
    )


def _attested(entries: list[Entry], cited: dict[str, list[str]]) -> str:
    """The works that a summary of the survey names, as citations where a chapter treats them."""
    return ", ".join(
        f"{entry.name} {{cite:p}}`{entry.key}`"
        for entry in entries
        if entry.in_survey.startswith("yes") and entry.key in cited
    )


TEXT = """# How the survey's map and this book's chapters correspond

This book is an independent companion to a survey {survey}. Both walk the same country, in the same order: how
reinforcement learning grew up, then images, video, three dimensions, and what is open. This page lays the two maps
on each other.

What stands here of the survey is its outline and its grouping. Its list of references was **not** compared entry by
entry, so this page does not say which works it treats, beyond those named below. To know what the survey says, read the
survey.

## Part by part

| the survey, in its order | chapters here | how | works they cite |
|---|---|---|---|
{parts}

The last column counts different works of the {{doc}}`atlas <atlas>`. Chapter 18 belongs to a role rather than a part;
see below.

## Families of methods

The survey groups methods by the optimiser that they descend from, in three groups. The third column counts what the
atlas holds of a family, foundations left out where the family has any.

| the survey's group | chapters here | works in the atlas |
|---|---|---|
{groups}

A reader who comes late in 2026 meets more than those. This book adds:

| added here | chapters | works in the atlas |
|---|---|---|
{beside}

## Two roles

The survey tells apart two roles of reinforcement learning: a way to fine-tune a generator that is there, and a part of
the generator itself. So does the atlas, whose `role` says for each work which it is.

{roles}

## What is attested

A summary of the survey by others names these in its account of how reinforcement learning evolved, or as the heads of
its groups: {attested}.

The survey itself counts how fast the field grew: 13 papers in 2019 and 2020, 91 in 2024 and 2025, of which 77 are of
the first half of 2025 {survey}. The {{doc}}`atlas's timeline <atlas>` counts something else, what was gathered there.

## What differs

- **The survey reviews; this book runs.** A chapter takes few methods, and each has a lab or a function of the library.
  A method that cannot be run at small scale stands in a table, with its citation.
- **Comparisons.** Where this book compares methods, it does so on its own small bases ({{doc}}`all on one task
  <algorithms>`), and ranks nothing outside them.
- **Later works.** Those posted after the survey's last version, of 19 January 2026, are in the atlas and cannot be in
  the survey.
"""
