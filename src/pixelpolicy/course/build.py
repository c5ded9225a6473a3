'''Labs out of solved labs: `solutions/NN-name.py` -> `labs/NN-name.ipynb`, the same bytes every time.

The next lab is a file `solutions/NN-name.py` in jupytext's percent format, a module `course/checks/labNN.py` (its form
stands in `course.checking`), and wrong answers in `tests/mutants/labNN.py` (their form stands in `course.proof`).

**Cells.** `# %% [markdown]` begins a text cell, `# %%` a code cell; what follows on that line is `key=value` metadata,
the values JSON. A code cell has 30 lines at most. Some code cell must hold the line
`from pixelpolicy.course import check`, to which the build adds `catch_up`. Cells without one of the four keys below
are otherwise copied as they are.

**An exercise** is four cells, in this order, other cells between them allowed:

    # %% [markdown] goal="12.1"
    # Give every sample its advantage over the other samples of its own prompt.

    # %% exercise={"id": "12.1", "name": "group_advantages", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl.advantages"]}
    def group_advantages(rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """The rewards of each group, its mean taken away, over its standard deviation plus 1e-4."""
        ### BEGIN SOLUTION
        ...
        ### END SOLUTION

    # %% [markdown] hints="12.1"
    # <details><summary>Hint 1: what to look at</summary>
    #
    # Which samples is a sample compared with?
    #
    # </details>
    # ... two more folds ...

    # %% check="12.1"
    check("12.1", group_advantages)

- `exercise=` has these keys: `id` (the lab's number, a dot, a number), `name` (the function or class that the cell
  defines), `points`, `minutes`, `difficulty` (1 to 4), `forbidden` (dotted paths of modules or objects that an answer
  may not use; may be empty); and, if the name put in words will not do, `title`.
- What stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes one
  `raise NotImplementedError("Exercise 12.1: write group_advantages")`, indented as the marker is.
- The hints cell has exactly three `<details>` folds, each with its `<summary>`.
- The check cell says `check("12.1", group_advantages)` on a line of its own.
- `name`, `points` and `forbidden` stand in the module of checks too, and must agree.
- An exercise cell may use imports, functions, classes and UPPER-CASE constants of the cells above, and nothing else:
  tests run it without the rest of the lab.

**Made by the build:** the exercise's title, dots, minutes and points above the goal; a catch-up cell below the check;
nbgrader's metadata (the exercise is a solution cell, the check a locked test cell that carries the points), and under
`pixelpolicy` what the exercise's marker said; cell ids, from an exercise's id or else from a cell's content.

No line of an answer may stand anywhere in the lab, hints included: see `leaks`.
'''  # noqa: E501

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pixelpolicy.course.files import course_root
from pixelpolicy.course.source import IMPORT, Cell, Source, Task, read_source, sources
from pixelpolicy.errors import LabError
from pixelpolicy.files import write_whole

# lines any lab may hold, whoever wrote them
_COMMON = re.compile(
    r"return [\w, ]+|for [\w, ()]+ in [\w.()]+:|while \w+:|with torch\.\w+\(\):|(el)?if [\w. ]+:|else:|try:"
    r"|import .*|from .*|except .*|[\w]+ = \w+|[\w, ]+ = [\w.]+\.shape"
)
_SHORTEST = 10


def build_labs(check: bool = False, root: Path | None = None) -> list[Path]:
    """Make `labs/` out of `solutions/`; returns the labs that were written, none where all stood as they should.

    With `check` nothing is written, and LabError says which labs are missing, stale, or without a source. A file in
    `labs/` without a source is never deleted. Raises LabError too where a source is not whole or an answer leaks.
    """
    root = root or course_root()
    folder = root / "labs"
    wanted = {folder / f"{path.stem}.ipynb": lab_text(read_source(path)) for path in sources(root)}
    present = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.ipynb")}
    if check:
        drift = [f"{path.name} is missing" for path in wanted if path not in present]
        drift += [f"{path.name} is stale" for path, text in wanted.items() if present.get(path, text) != text]
        extra = [f"{path.name} has no source: delete it" for path in sorted(present) if path not in wanted]
        if drift:
            drift[-1] += ": run `pixelpolicy build-labs`"
        if drift or extra:
            raise LabError(f"labs/ does not follow from solutions/: {'; '.join(drift + extra)}")
        return []
    written = [path for path, text in wanted.items() if present.get(path) != text]
    for path in written:
        write_whole(path, wanted[path])
    return written


def lab_text(source: Source, *, answers: bool = False) -> str:
    """A lab as the text of its `.ipynb`; LabError where it holds a line of an answer that it should not."""
    notebook = lab_notebook(source, answers=answers)
    if not answers and (found := leaks(source, notebook)):
        raise LabError(f"lab {source.name} would give its answers away: {'; '.join(found)}. Reword those cells")
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def lab_notebook(source: Source, *, answers: bool = False) -> nbformat.NotebookNode:
    """A lab as a notebook: the student's, or the solved one with `answers`."""
    cells: list[nbformat.NotebookNode] = []
    for cell in source.cells:
        cells += _made(cell, source.tasks.get(cell.task), answers)
    taken: dict[str, int] = {}
    for cell in cells:
        cell.id = _cell_id(cell, taken)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "pixelpolicy": {"lab": source.name, "made_from": f"solutions/{source.name}.py"},
    }
    return new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def leaks(source: Source, notebook: nbformat.NotebookNode) -> list[str]:
    """Where a notebook holds a line of one of the source's answers, cell by cell; empty where it holds none.

    Spaces and comments do not count. Lines that any lab may hold (`return x`, `for i in range(n):`, fewer than ten
    signs) are no answers.
    """
    lines = {}
    for line in source.answers():
        code = re.sub(r"\s+#.*$|^\s*#.*$", "", line).strip()
        packed = re.sub(r"\s+", "", code)
        if len(packed) >= _SHORTEST and not _COMMON.fullmatch(code) and not re.fullmatch(r"[\"'\])}(,]*", packed):
            lines[packed] = code
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        text = cell.source + json.dumps(cell.get("outputs", [])) + json.dumps(cell.metadata)
        packed = re.sub(r"\s+", "", text)
        found += [f"cell {number} holds {code!r}" for key, code in lines.items() if key in packed]
    return found


def _made(cell: Cell, task: Task | None, answers: bool) -> list[nbformat.NotebookNode]:
    """The cells of the lab that one cell of the source becomes."""
    if task is None:
        new = new_markdown_cell if cell.kind == "markdown" else new_code_cell
        if cell.kind == "raw":
            new = nbformat.v4.new_raw_cell
        text = IMPORT.sub("from pixelpolicy.course import catch_up, ", cell.text)
        return [new(text if cell.kind == "code" else cell.text, metadata=dict(cell.metadata))]
    ours = {"role": cell.role, "id": task.id}
    if cell.role == "goal":
        return [
            new_markdown_cell(f"{_header(task)}\n\n{cell.text}", metadata={"pixelpolicy": ours | {"role": "header"}})
        ]
    if cell.role == "hints":
        return [new_markdown_cell(cell.text, metadata=cell.metadata | {"pixelpolicy": ours})]
    if cell.role == "exercise":
        for key in ("name", "title", "points", "minutes", "difficulty", "forbidden"):
            ours[key] = getattr(task, key)
        extra = {key: value for key, value in cell.metadata.items() if key != "exercise"}
        metadata = extra | {"nbgrader": _nbgrader(task, solution=True), "pixelpolicy": ours}
        return [new_code_cell(task.solution if answers else task.blank, metadata=metadata)]
    metadata = cell.metadata | {"nbgrader": _nbgrader(task, solution=False), "pixelpolicy": ours}
    return [new_code_cell(cell.text, metadata=metadata), _catch_up(task)]


def _header(task: Task) -> str:
    dots = "●" * task.difficulty + "○" * (4 - task.difficulty)
    points = f"{task.points:g} point" + ("" if task.points == 1 else "s")
    about = f"Difficulty {dots} ({task.difficulty} of 4) · about {task.minutes} minutes · {points}"
    return f"### Exercise {task.id}: {task.title}\n\n{about} · write `{task.name}`"


def _catch_up(task: Task) -> nbformat.NotebookNode:
    text = (
        "# Stuck? Uncomment the line below to go on with the course's own answer; the exercise then counts no points.\n"
        f'# {task.name} = catch_up("{task.id}")'
    )
    return new_code_cell(text, metadata={"pixelpolicy": {"role": "catch-up", "id": task.id}})


def _nbgrader(task: Task, *, solution: bool) -> dict[str, Any]:
    """nbgrader's metadata, schema 3: a solution cell to fill in, or a locked test cell that carries the points."""
    kind = "exercise" if solution else "check"
    metadata = {
        "schema_version": 3,
        "grade": not solution,
        "solution": solution,
        "locked": not solution,
        "task": False,
        "grade_id": f"{kind}-{task.id.replace('.', '-')}",
        "cell_type": "code",
    }
    return metadata if solution else metadata | {"points": task.points}


def _cell_id(cell: nbformat.NotebookNode, taken: dict[str, int]) -> str:
    """From the exercise's id, else from the content, so that a new cell above leaves the others' ids alone."""
    ours = cell.metadata.get("pixelpolicy")
    if ours:
        name = f"{ours['role']}-{ours['id'].replace('.', '-')}"
    else:
        name = "cell-" + hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"
