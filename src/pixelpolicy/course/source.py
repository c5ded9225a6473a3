"""Solved labs as written: reading a percent source, seeing that it is whole, and cutting its answers out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext

from pixelpolicy.course.exercises import Exercise, exercises_of
from pixelpolicy.errors import LabError

LONGEST_CELL, WIDEST_LINE = 30, 120
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
# a lab needs catch_up as well, which its source never uses: the build adds it
IMPORT = re.compile(r"^from pixelpolicy\.course import (?=.*\bcheck\b)(?:catch_up, )?", flags=re.MULTILINE)
ROLES = ("goal", "exercise", "hints", "check")  # in the order in which a lab has them
KEYS = {"id": str, "name": str, "points": (int, float), "minutes": int, "difficulty": int, "forbidden": list}
OPTIONAL_KEYS = {"title": str}


@dataclass(frozen=True)
class Cell:
    """A cell of a source. `role` is one of ROLES or empty; `task` is the id of the exercise it belongs to."""

    number: int
    kind: str
    text: str
    metadata: dict[str, Any]
    role: str = ""
    task: str = ""

    def __str__(self) -> str:
        first = next((line for line in self.text.splitlines() if line.strip()), "")
        return f"cell {self.number} ({first.strip()[:60]!r})"


@dataclass(frozen=True)
class Task:
    """An exercise as its cell declares it, with the four cells that make it up."""

    id: str
    name: str
    points: float
    minutes: int
    difficulty: int
    forbidden: list[str]
    title: str
    cells: dict[str, Cell]

    @property
    def solution(self) -> str:
        """The exercise's code with its answer in, without the markers."""
        return solved(self.cells["exercise"].text)

    @property
    def blank(self) -> str:
        """The exercise's code as a student finds it."""
        return stripped(self.cells["exercise"].text, self.id, self.name)


@dataclass(frozen=True)
class Source:
    """A solved lab: `name` such as "12-grpo", its cells in order, its exercises by id."""

    name: str
    path: Path
    cells: list[Cell]
    tasks: dict[str, Task]

    @property
    def number(self) -> int:
        return int(self.name[:2])

    def answers(self) -> list[str]:
        """The lines between solution markers, of all exercises."""
        return [line for task in self.tasks.values() for line in answer_lines(task.cells["exercise"].text)]

    def submission(self, id: str, code: str) -> Any:
        """The object that `code`, in the place of exercise `id`, defines under the exercise's name.

        Of the cells above only imports, functions, classes, and UPPER-CASE constants are run, with the answers in.
        """
        task = self.tasks[id]
        space: dict[str, Any] = {"__name__": f"lab{self.number:02d}"}
        for cell in self.cells[: self.cells.index(task.cells["exercise"])]:
            if cell.kind == "code" and cell.role != "check":
                kept = [node for node in ast.parse(plain(solved(cell.text))).body if _defines(node)]
                exec(compile(ast.Module(kept, []), f"<{self.name} {cell.number}>", "exec"), space)
        exec(compile(plain(code), f"<{self.name} exercise {id}>", "exec"), space)
        return space[task.name]


def sources(root: Path) -> list[Path]:
    """The solved labs of a course, in order; LabError where a file's name is not of the form NN-name.py."""
    paths = sorted((root / "solutions").glob("*.py"))
    for path in paths:
        if not re.fullmatch(r"\d\d-[a-z0-9-]+", path.stem):
            raise LabError(f"{path} is no lab: a solved lab is called NN-name.py, as in 12-grpo.py")
    return paths


def find_source(root: Path, number: int | str) -> Path:
    """The solved lab with this number (12, "12" or "12-grpo"); LabError lists the labs there are."""
    paths = sources(root)
    wanted = str(number).zfill(2)
    for path in paths:
        if wanted in (path.stem, path.stem[:2]):
            return path
    there = ", ".join(path.stem for path in paths) or f"none in {root / 'solutions'}"
    raise LabError(f"there is no lab {number}: the labs are {there}")


def read_source(path: Path, *, checks: bool = True) -> Source:
    """Read a solved lab and see that it is whole; LabError names the lab, the cell and what to do.

    With `checks` its exercises must also agree with the lab's module of checks.
    """
    name = path.stem
    try:
        notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    except OSError as error:
        raise LabError(f"lab {name}: {path} cannot be read: {error.strerror or error}") from error
    cells = [_cell(name, number, raw) for number, raw in enumerate(notebook.cells, start=1)]
    for cell in cells:
        _see(name, cell)
    source = Source(name, path, cells, _tasks(name, cells))
    if source.tasks and not any(cell.kind == "code" and IMPORT.search(cell.text) for cell in cells):
        raise LabError(f"lab {name}: no cell has the line `from pixelpolicy.course import check`: add it")
    if checks:
        _agree(source, exercises_of(source.number) if source.tasks else {})
    return source


def answer_lines(text: str) -> list[str]:
    """The lines between solution markers."""
    return [line for line, inside in _marked(text) if inside]


def solved(text: str) -> str:
    """A cell with its answer in and the markers out."""
    return "\n".join(line for line, _ in _marked(text))


def stripped(text: str, id: str, name: str) -> str:
    """A cell whose every answer is `raise NotImplementedError`, indented as the answer was."""
    lines, was_inside = [], False
    blocks = iter(re.findall(rf"^([ \t]*){re.escape(BEGIN)}", text, flags=re.M))
    for line, inside in _marked(text, keep_markers=True):
        if inside and not was_inside:
            lines.append(f'{next(blocks)}raise NotImplementedError("Exercise {id}: write {name}")')
        if not inside:
            lines.append(line)
        was_inside = inside and line.strip() != END
    return "\n".join(lines)


def _marked(text: str, *, keep_markers: bool = False) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is of an answer; markers count as of the answer, where they are kept."""
    inside = False
    for line in text.splitlines():
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
            if keep_markers:
                yield line, True
        else:
            yield line, inside


def _cell(lab: str, number: int, raw: Any) -> Cell:
    metadata = {key: value for key, value in raw.metadata.items() if key != "lines_to_next_cell"}
    roles = [role for role in ROLES if role in metadata]
    cell = Cell(number, raw.cell_type, raw.source.strip("\n"), metadata)
    if not roles:
        return cell
    if len(roles) > 1:
        raise LabError(f"lab {lab}, {cell}: a cell is one of {', '.join(ROLES)}, not {' and '.join(roles)}")
    value = metadata.pop(roles[0])
    if roles[0] == "exercise":
        metadata["exercise"] = value
        value = value.get("id") if isinstance(value, dict) else None
    if not isinstance(value, str):
        wanted = 'exercise={"id": "12.1", ...}' if roles[0] == "exercise" else f'{roles[0]}="12.1"'
        raise LabError(f"lab {lab}, {cell}: write {wanted} on its marker, with the exercise's id in quotes")
    return Cell(number, raw.cell_type, cell.text, metadata, roles[0], value)


def _see(lab: str, cell: Cell) -> None:
    """What must hold of each cell by itself."""
    kind = "code" if cell.role in ("", "exercise", "check") else "markdown"
    if cell.role and cell.kind != kind:
        raise LabError(f"lab {lab}, {cell}: {cell.role} is a {kind} cell, not {cell.kind}")
    if cell.role == "goal" and re.search(r"(?m)^##? ", cell.text):
        raise LabError(f"lab {lab}, {cell}: a section's heading would stand below the exercise's: give it a cell above")
    markers = [line.strip() for line in cell.text.splitlines() if line.strip().startswith("### ")]
    markers = [line for line in markers if cell.kind == "code" and line.split()[1:2] in (["BEGIN"], ["END"])]
    if markers != [BEGIN, END] * (len(markers) // 2):
        raise LabError(f"lab {lab}, {cell}: solution markers do not pair up: {markers}; each {BEGIN} needs its {END}")
    if markers and cell.role != "exercise":
        raise LabError(f"lab {lab}, {cell}: an answer stands outside an exercise: add exercise={{...}} to its marker")
    if cell.role == "exercise" and not markers:
        raise LabError(f"lab {lab}, {cell}: exercise {cell.task} has no answer: put it between {BEGIN} and {END}")
    length = len(solved(cell.text).splitlines())
    if cell.kind == "code" and length > LONGEST_CELL:
        raise LabError(f"lab {lab}, {cell}: {length} lines, and {LONGEST_CELL} at most are allowed: split it")
    wide = [line for line in cell.text.splitlines() if len(line) > WIDEST_LINE]
    if cell.kind == "code" and wide:
        raise LabError(
            f"lab {lab}, {cell}: a line is wider than {WIDEST_LINE} signs: {wide[0].strip()[:40]!r}: break it"
        )
    if cell.kind == "code":
        for text in [solved(cell.text), stripped(cell.text, "", "")]:
            try:
                ast.parse(plain(text))
            except SyntaxError as error:
                raise LabError(f"lab {lab}, {cell}: line {error.lineno} is no Python: {error.msg}") from error


def _tasks(lab: str, cells: list[Cell]) -> dict[str, Task]:
    """The exercises of a lab, each with its four cells in order."""
    tasks: dict[str, Task] = {}
    for cell in cells:
        if cell.role != "exercise":
            continue
        declared = cell.metadata["exercise"]
        _see_declared(lab, cell, declared)
        if sum(c.role == "exercise" and c.task == cell.task for c in cells) > 1:
            raise LabError(f"lab {lab}, {cell}: exercise {cell.task} is there twice: give each its own id")
        own = [c for c in cells if c.task == cell.task]
        for role in ROLES:
            count = sum(c.role == role for c in own)
            if count != 1:
                raise LabError(
                    f"lab {lab}: exercise {cell.task} has {count or 'no'} {role} cells and needs one: "
                    f'mark it {role}="{cell.task}"'
                )
        if [c.role for c in own] != list(ROLES):
            raise LabError(f"lab {lab}: the cells of exercise {cell.task} must stand in the order {', '.join(ROLES)}")
        title = declared.get("title") or declared["name"].replace("_", " ").capitalize()
        task = Task(**{**declared, "title": title}, cells={c.role: c for c in own})
        _see_parts(lab, task)
        tasks[task.id] = task
    for cell in cells:
        if cell.role and cell.task not in tasks:
            raise LabError(f"lab {lab}, {cell}: there is no exercise {cell.task}: the lab has {', '.join(tasks)}")
    return tasks


def _see_declared(lab: str, cell: Cell, declared: dict[str, Any]) -> None:
    """What must hold of the metadata of an exercise."""
    kinds = KEYS | OPTIONAL_KEYS
    wrong = [f"{key!r} is missing" for key in KEYS if key not in declared]
    wrong += [f"{key!r} is no key of an exercise" for key in declared if key not in kinds]
    wrong += [
        f"{key!r} is {value!r}"
        for key, value in declared.items()
        if key in kinds and (not isinstance(value, kinds[key]) or isinstance(value, bool))
    ]
    if not wrong:
        if not re.fullmatch(rf"{int(lab[:2])}\.\d+", declared["id"]):
            wrong.append(f"the id {declared['id']!r} is not {int(lab[:2])}. and a number")
        if declared["difficulty"] not in (1, 2, 3, 4):
            wrong.append(f"the difficulty is {declared['difficulty']}, and must be 1, 2, 3 or 4")
        wrong += [f"{key!r} is {declared[key]}, and must be above 0" for key in ("points", "minutes") if
                  declared[key] <= 0]  # fmt: skip
        wrong += [f"'forbidden' holds {name!r}" for name in declared["forbidden"] if not isinstance(name, str)]
    if wrong:
        raise LabError(f"lab {lab}, {cell}: the exercise's metadata is not right: {'; '.join(wrong)}")


def _see_parts(lab: str, task: Task) -> None:
    """What must hold of the cells of an exercise together."""
    hints = task.cells["hints"].text
    folds = len(re.findall(r"<details\b", hints)), hints.count("</details>"), hints.count("<summary>")
    if folds != (3, 3, 3):
        raise LabError(
            f"lab {lab}: exercise {task.id} needs exactly three hints, each <details><summary>...</summary> ... "
            f"</details>; its cell has {folds[0]} openings, {folds[1]} ends and {folds[2]} summaries"
        )
    for text in (task.solution, task.blank):
        if task.name not in {getattr(node, "name", None) for node in ast.parse(plain(text)).body}:
            raise LabError(
                f"lab {lab}: the cell of exercise {task.id} must define {task.name!r} as a function or class, "
                "with only its body between the solution markers"
            )
    wanted = f'check("{task.id}", {task.name})'
    if wanted not in {ast.unparse(node).replace("'", '"') for node in ast.parse(task.cells["check"].text).body}:
        raise LabError(f"lab {lab}: the check cell of exercise {task.id} must say {wanted}")


def _agree(source: Source, exercises: dict[str, Exercise]) -> None:
    """What a source and its module of checks both say, they must say alike."""
    module = f"course/checks/lab{source.number:02d}.py"
    if source.tasks.keys() != exercises.keys():
        raise LabError(
            f"lab {source.name} has exercises {', '.join(source.tasks)} and {module} has {', '.join(exercises)}: "
            "write the checks that are missing, or take out what is over"
        )
    for id, task in source.tasks.items():
        for key in ("name", "points", "forbidden"):
            here, there = getattr(task, key), getattr(exercises[id], key)
            if here != (list(there) if key == "forbidden" else there):
                raise LabError(f"exercise {id}: {key} is {here!r} in {source.path.name} and {there!r} in {module}")


def plain(text: str) -> str:
    """Code without IPython's own lines, `%magic` and `!shell`."""
    return "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", line) for line in text.splitlines())


def _defines(node: ast.stmt) -> bool:
    """Whether a statement only brings names in: an import, a function, a class, an UPPER-CASE constant."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id.isupper()
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
