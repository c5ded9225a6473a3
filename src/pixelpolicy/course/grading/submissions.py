"""Finding a class's notebooks, reading them warily, and cutting one exercise's code out of one of them.

Nothing of a notebook is run here: its code is parsed and taken apart.
"""

from __future__ import annotations
import __future__

import ast
import dis
import hashlib
import json
import os
import re
import stat
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from pixelpolicy.course.grading.visible import visible
from pixelpolicy.course.matching import exercise_names, marks, matched
from pixelpolicy.course.source import Source, plain
from pixelpolicy.errors import GradingError

LARGEST = 20 << 20  # bytes of a notebook
# cells of a notebook; signs of code in all of them; signs of code in one exercise with all that it needs
MOST_CELLS, MOST_TEXT, MOST_CODE = 2000, 1_000_000, 200_000
DEEPEST = 200  # of code: statements and terms inside each other
SHOWN = 10  # names in a note


@dataclass(frozen=True)
class Submission:
    """One student's notebook of one lab."""

    student: str
    lab: int
    path: Path


@dataclass(frozen=True)
class Piece:
    """What one exercise needs: statements in order, which of them are imports, and the answer's own text.

    `fault` says why there is nothing to run; `blank` that the cell is as the course wrote it. The code is then empty.
    """

    name: str
    code: tuple[str, ...] = ()
    imports: tuple[bool, ...] = ()
    own: str = ""
    fault: str = ""
    blank: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join((self.name, *self.code)).encode("utf-8", "surrogatepass")).hexdigest()


def find_submissions(folder: Path, labs: list[int]) -> tuple[list[Submission], list[str]]:
    """All notebooks in a folder, `STUDENT/…/12-grpo.ipynb` or `STUDENT.ipynb`, and what was left out and why.

    nbgrader's `submitted/` and `autograded/` are such folders; of its course directory, `submitted/` is taken. The lab
    is read from the name of the file (`12-grpo.ipynb`). Where one lab alone is graded, a notebook that names none
    stands for it, unless its student has one that does. Links are never followed. Of several notebooks of one student
    and lab, one in a folder of the lab's name counts before others, and then the newest. Raises GradingError where
    there is none.
    """
    if not folder.is_dir():
        raise GradingError(f"{folder} is no folder: give the one that holds the class's notebooks")
    if (folder / "nbgrader_config.py").is_file():  # its source/ and release/ are no students
        folder = folder / "submitted"
        if folder.is_symlink() or not folder.is_dir():
            raise GradingError(f"there is no folder {folder}, in which nbgrader keeps what students hand in")
    found: dict[tuple[str, int], list[tuple[bool, bool, float, Path]]] = {}
    links, nameless, others = [], [], []
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if any((folder / Path(*inside.parts[:n])).is_symlink() for n in range(1, len(inside.parts) + 1)):
            links.append(visible(str(inside)))
            continue
        number = re.search(r"(?<!\d)(\d\d)-[a-z]", path.name)
        lab = int(number[1]) if number else labs[0] if len(labs) == 1 else 0
        if lab not in labs:
            (others if number else nameless).append(visible(str(inside)))
            continue
        student = inside.parts[0] if len(inside.parts) > 1 else re.sub(r"[_ -]*\d\d-[a-z0-9-]+$", "", path.stem)
        own = len(inside.parts) > 2 and path.parent.name == path.stem
        candidate = bool(number), own, path.lstat().st_mtime, path
        found.setdefault((student or path.stem, lab), []).append(candidate)
    chosen, older = [], []
    for (student, lab), candidates in found.items():
        *rest, (*_, best) = sorted(candidates)
        chosen.append(Submission(student, lab, best))
        counts = visible(str(best.relative_to(folder)))
        older += [f"{visible(str(path.relative_to(folder)))} ({counts} counts)" for *_, path in rest]
    notes = [
        f"left out, {why}: {', '.join(names[:SHOWN])}{f', and {len(names) - SHOWN} more' * (len(names) > SHOWN)}"
        for why, names in (
            ("links, which are not followed", links),
            ("names that tell no lab, as 12-grpo.ipynb does", nameless),
            ("of labs that are not graded now", others),
            ("other notebooks of the same student and lab", older),
        )
        if names
    ]
    if not chosen:
        raise GradingError(f"there is no notebook of lab {', '.join(map(str, labs))} in {folder}: {'; '.join(notes)}")
    return chosen, notes


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook, its outputs dropped; GradingError in words for the student where it is none."""
    try:
        said = json.loads(_text(path))
        if isinstance(said.get("cells"), list):  # counted before anything is made of them
            if len(said["cells"]) > MOST_CELLS:
                raise GradingError(f"it has {len(said['cells'])} cells, and {MOST_CELLS} at most are read")
            for cell in said["cells"]:
                if "outputs" in cell:
                    cell["outputs"] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that older notebooks lack
            notebook = nbformat.reads(json.dumps(said), as_version=4)
        cells = notebook.cells
        if len(cells) > MOST_CELLS:
            raise GradingError(f"it has {len(cells)} cells, and {MOST_CELLS} at most are read")
        for cell in cells:
            if not isinstance(cell.source, str) or not isinstance(cell.cell_type, str):
                raise GradingError("a cell of it has no text")
        if (signs := sum(len(cell.source) for cell in cells if cell.cell_type == "code")) > MOST_TEXT:
            raise GradingError(f"its code has {signs} signs, and {MOST_TEXT} at most are read")
        for cell in cells:
            if not isinstance(cell.get("metadata"), dict):
                cell.metadata = nbformat.NotebookNode()
            cell.outputs = []
    except GradingError:
        raise
    except Exception as error:  # of a file that anybody may have written, anything
        raise GradingError(f"it cannot be read as a notebook ({type(error).__name__})") from error
    return notebook


def _text(path: Path) -> str:
    """What a plain file of a student's holds; it is opened once, so that it cannot be exchanged in between.

    A file with a second name (a hard link) may be anybody's: a solution, another's notebook. It is refused.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise GradingError("it is no file")
        if facts.st_nlink > 1:
            raise GradingError("it is one file under two names (a hard link): hand in a copy")
        if facts.st_size > LARGEST:
            raise GradingError(
                f"it has {facts.st_size / 1e6:.0f} MB, and {LARGEST / 1e6:.0f} MB at most are read: clear its outputs"
            )
        return file.read(LARGEST).decode("utf-8")


def piece_of(notebook: Any, released: list[Any], source: Source, id: str) -> Piece:
    """The code of exercise `id` in a student's notebook, with the statements of the cells above that it needs.

    The exercise's cell is found as `update` finds it: by its mark, its id, its text, or the function it defines.
    Of the rest only what the function names, directly or not, is taken: imports, functions, classes, assignments.
    An earlier exercise that it builds on is the course's own, so that no mistake is counted twice.
    """
    task = source.tasks[id]
    try:
        place = _cell_of(notebook.cells, released, task.name, id)
        if place is None:
            return Piece(task.name, fault="the notebook has no cell that defines it")
        text = notebook.cells[place].source
        if len(text) > MOST_CODE:
            return Piece(task.name, fault="its cell is too long to be read")
        own = parsed(text)
        if ast.dump(own) == ast.dump(parsed(task.blank)):
            return Piece(task.name, blank=True)
        above: list[ast.stmt] = []
        others = {t.name: t for key, t in source.tasks.items() if key != id}
        for cell in notebook.cells[:place]:
            if cell.cell_type == "code":
                above += _statements(cell.source)
        above += [node for t in others.values() for node in parsed(t.solution).body if _names(node) == {t.name}]
        kept = _needed(task.name, above, own.body)
        code = tuple(ast.unparse(node) for node in kept)
        text = ast.unparse(own)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return Piece(task.name, fault=f"its cell is no Python: {type(error).__name__}{line}")
    if not kept:
        return Piece(task.name, fault=f"its cell does not define {task.name}")
    if sum(map(len, code)) > MOST_CODE:
        return Piece(task.name, fault="it needs more code than is read")
    return Piece(task.name, code, tuple(isinstance(n, ast.Import | ast.ImportFrom) for n in kept), text)


def forbidden_in(piece: Piece, forbidden: tuple[str, ...]) -> str:
    """The forbidden name that the code holds, in words; empty where it holds none.

    This tells an honest student what is wrong. What keeps the library's answer away is that the sandbox lacks it.
    """
    for text in piece.code:
        tree = ast.parse(text)
        said: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                said |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                said |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute):
                said.add(ast.unparse(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
        for name in forbidden:
            for word in sorted(said):
                if word == name or word.startswith(name + "."):
                    return f"it uses {word[:80]}, which belongs to {name}"
    return ""


def _cell_of(cells: list[Any], released: list[Any], name: str, id: str) -> int | None:
    """The place of an exercise's cell in a student's notebook."""
    wanted = [cell for cell in released if marks(cell).get("role") == "exercise" and marks(cell)["id"] == id]
    pairs = matched(wanted, cells, exercise_names(released))
    if 0 in pairs:
        return pairs[0]
    return next((i for i, cell in enumerate(cells) if re.search(rf"^(def|class) {name}\b", cell.source, re.M)), None)


def _statements(text: str) -> list[ast.stmt]:
    """What a cell says at its top, where it is Python; other cells of a student's need not be."""
    try:
        return parsed(text).body if len(text) <= MOST_CODE else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def parsed(text: str) -> ast.Module:
    """A cell's code, taken apart; SyntaxError where it is none, RecursionError where it goes too deep to be walked."""
    tree = ast.parse(plain(text))
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise RecursionError(f"its code is nested more than {DEEPEST} deep")


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement at the top brings in."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.AugAssign):
        return set()
    return {part.id for part in _targets(node) if isinstance(part.ctx, ast.Store)}


def _changes(node: ast.stmt) -> set[str]:
    """The names whose values a statement at the top changes: `table["a"] = 1`, `f.count = 0`, `total += 1`."""
    written = {part.id for part in _targets(node) if isinstance(part.ctx, ast.Load) or isinstance(node, ast.AugAssign)}
    return written - _names(node)


def _targets(node: ast.stmt) -> list[ast.Name]:
    """The names on the left of an assignment, those within an index among them."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else targets
    return [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _needed(name: str, above: list[ast.stmt], own: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that `name` needs, in order: of those that bring a name in the last, and what changes it."""
    every = above + [node for node in own if _names(node) or _changes(node)]
    latest: dict[str, int] = {}
    changes: dict[str, list[int]] = {}
    for number, node in enumerate(every):
        for found in _names(node):
            latest[found], changes[found] = number, []
        for found in _changes(node):
            changes.setdefault(found, []).append(number)
    if name not in latest or latest[name] < len(above):
        return []
    kept: set[int] = set()
    waiting = [name]
    while waiting:
        found = waiting.pop()
        for number in [latest[found], *changes[found]] if found in latest else []:
            if number not in kept:
                kept.add(number)
                waiting += _looked_up(every[number])
    return [every[number] for number in sorted(kept)]


def _looked_up(node: ast.stmt) -> list[str]:
    """The names that a statement looks up outside itself; annotations are not looked at, as nobody runs them."""
    flags = __future__.annotations.compiler_flag
    waiting = [compile(ast.Module([node], []), "<cell>", "exec", flags=flags, dont_inherit=True)]
    found = []
    while waiting:
        code = waiting.pop()
        steps = dis.get_instructions(code)
        found += [step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF")]
        waiting += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return found
