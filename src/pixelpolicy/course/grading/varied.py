"""Checks on inputs that nobody has seen: a lab's module of checks, its inputs varied by the instructor's secret.

The text of `course/checks/labNN.py` is run once more with two changes. Every seed in it goes through a keyed hash of
the secret; and the fractions among the numbers of its UPPER-CASE constants are bent: x becomes sign(x) |x|^p, with p
near 1 drawn from the secret. Such a bend keeps 0 and 1, signs, order and ties, and so what the inputs are meant to
show; the expected values follow, since a check computes them by its own formula. A property that the course's own
answer does not satisfy on the varied inputs (they were made by hand for it) is left as it is. Inputs without
fractions or seeds are renamed instead (see `_RENAMED`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import hmac
import importlib
import inspect
import random
import sys
import types
from typing import Any

from torch import Tensor

from pixelpolicy.course.exercises import Exercise

_SEEDING = {"manual_seed", "default_rng", "seeded", "Random"}
_COUNTING = {"arange", "linspace", "logspace", "range"}
_LEAST, _MOST = 0.03, 0.12  # how far the power of the bend is from 1


def derived(secret: bytes, *words: object) -> int:
    """A number of 31 bits that follows from the secret and the words, and tells nothing of the secret."""
    digest = hmac.new(secret, "\0".join(map(str, words)).encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def varied_exercises(lab: int, secret: bytes) -> dict[str, Exercise]:
    """The exercises of a lab with their inputs varied by `secret`, by id."""
    return {exercise.id: exercise for exercise in _varied_module(lab, secret).EXERCISES}


@functools.lru_cache(maxsize=64)
def _varied_module(lab: int, secret: bytes) -> types.ModuleType:
    name = f"pixelpolicy.course.checks.lab{lab:02d}"
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    part = derived(secret, lab, "power") / 2**31
    power = 1 + (1 if part >= 0.5 else -1) * (_LEAST + (_MOST - _LEAST) * (part * 2 % 1))
    tree = ast.fix_missing_locations(_Vary(power).visit(tree))
    module = types.ModuleType(f"{name}_varied_{derived(secret, lab)}")
    module.__file__ = f"<{name}, varied>"
    vars(module)["_of_the_secret"] = lambda *given: _seed(secret, lab, given)
    vars(module)["_lab_varied"] = lambda number: _varied_module(number, secret)
    sys.modules[module.__name__] = module  # dataclasses of the module look it up there
    exec(compile(tree, module.__file__, "exec"), vars(module))
    for (of, constant), rename in _RENAMED.items():
        if of == lab:
            straight = getattr(importlib.import_module(name), constant)  # a bend would change what is expected
            vars(module)[constant] = rename(straight, random.Random(derived(secret, lab, constant)))
    return module


def _seed(secret: bytes, lab: int, given: tuple) -> Any:
    return derived(secret, lab, "seed", *given)


def _other_letters(pairs: list[tuple[str, str]], draw: random.Random) -> list[tuple[str, str]]:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    others = draw.sample(letters, len(letters))
    table = str.maketrans(
        "".join(letters + [x.upper() for x in letters]), "".join(others + [x.upper() for x in others])
    )
    return [tuple(text.translate(table) for text in pair) for pair in pairs]


def _other_nodes(graphs: list[tuple[Tensor, Tensor]], draw: random.Random) -> list[tuple[Tensor, Tensor]]:
    done = []
    for links, there in graphs:
        order = draw.sample(range(there.shape[1]), there.shape[1])
        done.append((links[:, order][:, :, order], there[:, order]))
    return done


def _other_rows(tables: list[tuple[Tensor, Tensor]], draw: random.Random) -> list[tuple[Tensor, Tensor]]:
    done = []
    for flags, groups in tables:
        order = draw.sample(range(len(flags)), len(flags))
        done.append((flags[order], groups[order] + draw.randrange(1, 50)))
    return done


def _other_things(layouts: list[tuple], draw: random.Random) -> list[tuple]:
    """Layouts of things that nobody has seen, in another order; what they share stays as it was."""
    words: dict[str, str] = {}

    def other(thing: tuple[str, str]) -> tuple[str, str]:
        return tuple(words.setdefault(word, f"{draw.getrandbits(32):x}") for word in thing)

    def moved(things: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return draw.sample([other(thing) for thing in things], len(things))

    return [(moved(planned), moved(wanted), *rest) for planned, wanted, *rest in layouts]


# Constants of a lab that hold texts, graphs and flags: the same ones under other names.
_RENAMED = {
    (8, "READ"): _other_letters,
    (14, "LAYOUTS"): _other_things,
    (16, "TOUCHING"): _other_nodes,
    (16, "KEPT"): _other_rows,
}


class _Vary(ast.NodeTransformer):
    """Bends the fractions of constants and sends every seed through `_of_the_secret`."""

    def __init__(self, power: float) -> None:
        self.power, self.inside = power, False

    def visit_Module(self, node: ast.Module) -> ast.Module:
        done = [self._statement(child) for child in node.body]
        node.body = [part for one in done for part in (one if isinstance(one, list) else [one])]
        return node

    def _statement(self, node: ast.stmt) -> ast.stmt:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        # a number by itself is a setting (a tolerance, an epsilon), and an exercise is no input
        value = getattr(node, "value", None)
        data = bool(names) and all(name.id.lstrip("_").isupper() for name in names)
        data = data and not isinstance(value, ast.Constant | ast.UnaryOp)
        data = data and not (isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Exercise")
        data = data and not any(isinstance(part, ast.Name) and part.id == "EXERCISES" for part in names)
        self.inside = data
        done = self.visit(node)
        self.inside = False
        return done

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        """A lab that shares exercises of another shares them varied."""
        if node.module != "pixelpolicy.course.checks":
            return node
        labs = [(alias.asname or alias.name, int(alias.name.removeprefix("lab"))) for alias in node.names]
        return [ast.parse(f"{name} = _lab_varied({number})").body[0] for name, number in labs]

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if self.inside and isinstance(node.value, float) and node.value == node.value and abs(node.value) < 1e6:
            return ast.copy_location(ast.Constant(abs(node.value) ** self.power), node)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg in ("atol", "rtol", "dtype"):
            return node
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _COUNTING:  # a bend would change how many numbers there are
            return node
        node = self.generic_visit(node)
        if name in _SEEDING and len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
            node.args = [ast.Call(ast.Name("_of_the_secret", ast.Load()), node.args, [])]
        return node
