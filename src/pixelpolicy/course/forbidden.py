"""Finding the library's own answer in a submission, and keeping it from being imported while a check runs.

This guides an honest student. It is no wall: grading a class runs submissions apart from everything else.
"""

from __future__ import annotations

import dis
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pixelpolicy.course.lending import Lender, copied

# what catch_up has given out, by identity: an exercise may build on the answers of those before it
handed_out: dict[int, str] = {}


def offence(function: Any, forbidden: Sequence[str], *, exercise: str, answer: Any = None) -> str | None:
    """How `function` uses what is forbidden, in words ("it is the library's own ..."); None where it does not.

    Looks at the function, at what its code names among its globals and closures, at its imports and string constants,
    and on into helpers of the same module. Answers of other exercises taken by `catch_up` are allowed.
    """
    things = [_resolve(name) for name in forbidden]
    if function is answer or any(_is(function, name, thing) for name, thing in zip(forbidden, things, strict=True)):
        return "it is the library's own"
    for used, value in _used(function, getattr(function, "__module__", None), seen=set()):
        if handed_out.get(id(value), exercise) != exercise:
            continue
        if value is answer and answer is not None:
            return f"it uses {used}, the course's own answer"
        for name, thing in zip(forbidden, things, strict=True):
            if _is(value, name, thing) or (isinstance(value, str) and _below(value, name)):
                return f"it uses {used}, which belongs to {name}"
    return None


def watched(function: Callable, forbidden: Sequence[str], log: dict[str, Any], lender: Lender) -> Callable:
    """`function`, which cannot import what is forbidden, its inputs lent, its last call and error kept in `log`.

    Inside a call, importing a forbidden module raises ImportError. The arguments are kept as they were before it.
    """
    hidden = {name: module for name, module in sys.modules.items() if any(_below(name, f) for f in forbidden)}
    nothing = dict.fromkeys(hidden)

    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        log.update(args=copied(args), kwargs=copied(kwargs), error=None)
        sys.modules.update(nothing)
        try:
            return lender(function, args, kwargs)
        except Exception as error:
            log["error"] = error
            raise
        finally:
            sys.modules.update(hidden)

    return call


def _resolve(name: str) -> Any:
    """The module or object at a dotted path, or None where there is none (yet)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), attribute, None) if module else None
        except ModuleNotFoundError:
            return None


def _below(name: str, forbidden: str) -> bool:
    return name == forbidden or name.startswith(forbidden + ".")


def _is(value: Any, name: str, thing: Any) -> bool:
    """Whether a value is the forbidden thing, or is defined in the forbidden module."""
    if thing is not None and value is thing:
        return True
    if isinstance(value, types.ModuleType):
        return _below(value.__name__, name)
    home = getattr(value, "__module__", None) if callable(value) else None
    return isinstance(home, str) and _below(home, name)


def _used(function: Any, home: str | None, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Names and values that a function reaches: globals, attributes of modules, closures, imports, constants."""
    if id(function) in seen:
        return
    seen.add(id(function))
    if isinstance(function, functools.partial):
        function = function.func
        yield getattr(function, "__name__", "a partial"), function
    if isinstance(function, type):
        for part in vars(function).values():
            if isinstance(part, types.FunctionType):
                yield from _used(part, home, seen)
        return
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return
    for name, value in _named(function):
        yield name, value
        local = isinstance(value, types.FunctionType | type) and getattr(value, "__module__", None) == home
        if (local and id(value) not in handed_out) or isinstance(value, functools.partial):
            yield from _used(value, home, seen)


def _named(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What the code of one function names."""
    closed = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in closed:
        try:
            yield name, cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield getattr(wrapped, "__name__", "a wrapped function"), wrapped
    for code in _codes(function.__code__):
        # read from the instructions: co_names alone does not tell a global `cps` from an attribute `x.cps`
        steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
        loaded = {name for kind, name in steps if kind in ("LOAD_GLOBAL", "LOAD_NAME")}
        imported = {name for kind, name in steps if kind == "IMPORT_NAME"}
        reached = [(name, function.__globals__[name]) for name in loaded if name in function.__globals__]
        reached += [(name, sys.modules[name]) for name in imported if name in sys.modules]
        for value in (*code.co_consts, *(function.__defaults__ or ())):
            if isinstance(value, str) or callable(value):
                yield repr(value), value
        visited: set[int] = set()
        while reached:
            name, value = reached.pop()
            yield name, value
            if isinstance(value, types.ModuleType) and id(value) not in visited:
                visited.add(id(value))
                inside = vars(value)
                # names read off a module: `rl.group_advantages`, `from pixelpolicy.rl import group_advantages`
                reached += [(f"{name}.{part}", inside[part]) for part in code.co_names if part in inside]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of the functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
