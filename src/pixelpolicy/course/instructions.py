"""The texts of an assignment: what students read, what is checked, and how nbgrader's course directory is used."""

from __future__ import annotations

from pixelpolicy import __version__
from pixelpolicy.course.exercises import exercises_of
from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.grading.submissions import LARGEST
from pixelpolicy.course.source import Source

INSTALL = """## What you need

- Python 3.11 or newer, and about 3 GB of disk (more where torch comes with CUDA's libraries).
- The package `pixelpolicy`, version {version}. It holds what the labs import, their checks and their small models, and
  is on no package index. {where}

```
python3 -m venv .venv
.venv/bin/python -m pip install --constraint constraints.txt torch
.venv/bin/python -m pip install --constraint constraints.txt {what}
```

On Windows `.venv\\Scripts\\python` stands in the place of `.venv/bin/python`. Once it is installed, the labs need no
network and no graphics card.
"""
WORK = """## How to work

```
.venv/bin/python -m pixelpolicy lab {first:02d}
```

Run in this folder, this opens JupyterLab with a copy of your own, `work/{name}.ipynb`; what lies in `labs/` stays as it
is. Fill in the functions. The cell below each tells at once what holds and what does not. Hints are in folds, in three
steps. `.venv/bin/python -m pixelpolicy status` shows how far you are.

Where an exercise will not yield, the catch-up cell below its check takes the course's own answer, so that you can go
on. What is graded is what stands in your own cell.

## What to hand in

{files}

Save first. Leave the names of the files and of the functions as they are, and each function in its own cell. Above
{megabytes:.0f} MB a notebook is not read: clear its outputs then.
"""
GRADED = """## How it is graded

- **Each exercise by itself.** Your function is taken out of its cell with the imports, functions and constants above it
  that it names. The rest of the notebook is not run. An earlier exercise that it calls is the course's own answer, so
  that no mistake counts twice.
- **By properties.** `CHECKS.md` lists them. Points are the share of the properties that hold, of the exercise's points.
- **On inputs that you have not seen**, beside those of the notebook. What is right for the notebook's inputs alone
  counts nothing.
- **Without the library's own answer.** What an exercise forbids is not there when it is graded.
- **Shut in**: without a network, {seconds:g} s and {memory} MB for an exercise.

You get a page for each lab: what held, what did not, and the hint of the mistake, where it is a known one.
"""
BY_NBGRADER = """## How it is graded

nbgrader runs your notebook from top to bottom, in the profile `smoke`, in which trainings are short. The points of an
exercise are the share of its properties that hold; `CHECKS.md` lists them. The course's own answer counts nothing.

## What to hand in

`{name}.ipynb`, by nbgrader. Leave the names of the file and of the functions as they are, and do not add cells in
between that stop the notebook.
"""
COURSE_DIRECTORY = """# Labs for nbgrader

A course directory of nbgrader: {names}.
**`source/` holds the answers.** Hand out what nbgrader makes of it in `release/`, and keep this folder to yourself.

You need the package `pixelpolicy` {version} with its extra `nbgrader`, on the machine that grades; students need the
package.

```
{generate}
```

Submissions go to `submitted/STUDENT/LAB/LAB.ipynb`, by `nbgrader collect`, or by hand. Then:

```
{grade}
```

- An exercise's points stand in a cell of its own below its check, whose hidden test asks the check again: partial
  answers earn the share of the properties that hold, the course's own answer and a blank nothing.
- `nbgrader_config.py` sets the profile `smoke`, since autograding runs each notebook from end to end.
- **nbgrader runs students' code with your rights**, with nothing around it, and a notebook can change what judges it.
  Run it where there is nothing to lose, or take nbgrader for handing out and collecting alone, and grade what it
  collected with each exercise shut in and on inputs drawn from your secret:

```
pixelpolicy grade submitted --labs {numbers} --out ../grades
```
"""


def for_students(sources: list[Source], repository: str = "", *, nbgrader: bool = False) -> str:
    """README.md of an assignment."""
    tasks = [task for source in sources for task in source.tasks.values()]
    points, minutes = sum(task.points for task in tasks), sum(task.minutes for task in tasks)
    title = "Lab" if len(sources) == 1 else "Labs"
    lines = [f"# {title} {_listed([source.name for source in sources])}", ""]
    lines += [f"{len(tasks)} exercises, {points:g} points. The exercises take about {minutes} minutes; reading and "
              "trainings come on top.", ""]  # fmt: skip
    lines += [table(sources), ""]
    what, where = "WHERE", "Your instructor tells you `WHERE` it is: an address, a folder or a `.whl` file."
    if repository:
        what, where = f'"pixelpolicy @ git+{repository}"', f"It lies at {repository}."
    lines.append(INSTALL.format(version=__version__, where=where, what=what))
    limits = Limits()
    if nbgrader:
        lines.append(BY_NBGRADER.format(name=sources[0].name))
    else:
        files = "\n".join(f"- `work/{source.name}.ipynb`" for source in sources)
        lines.append(WORK.format(first=sources[0].number, name=sources[0].name, files=files,
                                 megabytes=LARGEST / 2**20))  # fmt: skip
        lines.append(GRADED.format(seconds=limits.seconds, memory=limits.memory_mb))
    lines.append("`assignment.json` holds the SHA-256 of every file that was handed out.")
    return "\n".join(lines) + "\n"


def table(sources: list[Source]) -> str:
    """Every exercise with its difficulty, minutes and points, in Markdown."""
    rows = ["| exercise | what | you write | difficulty | minutes | points |", "|---|---|---|---|---|---|"]
    for source in sources:
        for task in source.tasks.values():
            rows.append(f"| {task.id} | {task.title} | `{task.name}` | {task.difficulty} of 4 | {task.minutes} | "
                        f"{task.points:g} |")  # fmt: skip
    return "\n".join(rows)


def checks(sources: list[Source]) -> str:
    """CHECKS.md: the public part of the checks, in words."""
    lines = ["# What is checked", ""]
    lines += ["The properties that the check below each exercise tries. All of an exercise count alike.", ""]
    for source in sources:
        for id, exercise in exercises_of(source.number).items():
            points = f"{exercise.points:g} point{'' if exercise.points == 1 else 's'}"
            lines += [f"## {id} `{exercise.name}`, {points}", ""]
            lines += [f"- {property.name}" for property in exercise.properties]
            if exercise.forbidden:
                lines += ["", f"You may not use {_listed([f'`{name}`' for name in exercise.forbidden])}."]
            lines.append("")
    return "\n".join(lines)


def for_nbgrader(sources: list[Source]) -> str:
    """README.md of nbgrader's course directory."""
    names = [source.name for source in sources]
    return COURSE_DIRECTORY.format(
        names=_listed(names), version=__version__, numbers=",".join(name[:2] for name in names),
        generate="\n".join(f"nbgrader generate_assignment {name}" for name in names),
        grade="\n".join(f"nbgrader {word} {name}" for name in names for word in ("autograde", "generate_feedback")),
    )  # fmt: skip


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
