"""Plans for a school, a course and a workshop. Minutes and points are those of the exercises, read from the labs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelpolicy.course.source import Source, Task, read_source, sources
from pixelpolicy.errors import LabError


@dataclass(frozen=True)
class Session:
    """A part of a plan: `minutes` set aside, `topic` in words, `chapters` to hear or read, `work` to do.

    Work is a lab ("12": all of its exercises) or an exercise ("7.1").
    """

    when: str
    minutes: int
    topic: str
    chapters: tuple[int, ...] = ()
    work: tuple[str, ...] = ()


# Four hours at the keyboard a day; talks come on top.
SCHOOL = (
    Session("Day 1", 240, "Policies that learn", (3, 4), ("03", "04")),
    Session("Day 2", 240, "A generator is a policy", (6, 7), ("06", "07")),
    Session("Day 3", 240, "Rewards, and the first fine-tuning", (8, 9), ("08", "09")),
    Session("Day 4", 240, "Gradients of rewards, groups, the forward process", (10, 12, 13), ("10", "12", "13")),
    Session("Day 5", 240, "Three dimensions; too much of a reward", (16, 19), ("16", "19")),
)
# Three hours of work a week; lectures come on top.
COURSE = (
    Session("Week 1", 180, "Planning and values", (1, 2), ("01", "02")),
    Session("Week 2", 180, "Policy gradients, PPO", (3, 4), ("03", "04")),
    Session("Week 3", 180, "Alignment; generators", (5, 6), ("05", "06")),
    Session("Week 4", 180, "Denoising as a decision process; rewards", (7, 8), ("07", "08")),
    Session("Week 5", 180, "DDPO; gradients of rewards", (9, 10), ("09", "10")),
    Session("Week 6", 180, "Preferences; GRPO", (11, 12), ("11", "12")),
    Session("Week 7", 180, "The forward process; tokens", (13, 14), ("13", "14")),
    Session("Week 8", 180, "Video; three dimensions", (15, 16), ("15", "16")),
    Session("Week 9", 180, "Motion; learning as a part of the generator", (17, 18), ("17", "18")),
    Session("Week 10", 180, "Open problems, and the capstone", (19,), ("19",)),
)
# Talks and breaks are in it.
WORKSHOP = (
    Session("0:00", 25, "Talk: a generator is a policy", (7,)),
    Session("0:25", 40, "The sampler becomes a policy; exercise 7.3 by its catch-up cell", (), ("7.1", "7.2", "7.4")),
    Session("1:05", 10, "Break"),
    Session("1:15", 15, "Talk: groups instead of a critic", (12,)),
    Session("1:30", 65, "A text-to-image model learns to do as it is told", (), ("12",)),
    Session("2:35", 15, "Together, on the page of the reward explorer: go too far"),
    Session("2:50", 10, "What was simplified; where to go on"),
)
PLANS = {"school": SCHOOL, "course": COURSE, "workshop": WORKSHOP}


def labs_of(root: Path) -> dict[int, Source]:
    """The labs of a course that have exercises, by number."""
    found = (read_source(path, checks=False) for path in sources(root))
    return {source.number: source for source in found if source.tasks}


def tasks_of(work: Sequence[str], labs: dict[int, Source]) -> list[Task]:
    """The exercises that a session's work names; LabError where there is no such lab or exercise."""
    found = []
    for name in work:
        lab = labs.get(int(name.partition(".")[0]))
        tasks = [task for task in lab.tasks.values() if "." not in name or task.id == name] if lab else []
        if not tasks:
            raise LabError(f"a plan names {name}, and the labs have no such exercise: change course/syllabi.py")
        found += tasks
    return found
