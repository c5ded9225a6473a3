"""Inputs of a check, lent to an answer: what the answer writes into them does not reach the check.

A check works out what it expects of the inputs that it hands over. An answer that writes into them would alter what is
expected. So it is given copies. A tensor that wants a gradient is given itself, since gradients are asked of it, and is
put back afterwards. Functions, generators of random numbers and objects that are no records are given themselves: they
are there to be used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Lender:
    """Lends inputs to calls; `wrote` names the arguments that answers have changed, by place or by name.

    `changes` are the places of arguments that an answer is meant to change, which the check sees. With `through` it
    sees every change, as it would without a lender, until `put_back`.
    """

    def __init__(self, changes: Sequence[int | str] = (), *, through: bool = False) -> None:
        self.changes, self.through = changes, through
        self.wrote: list[int | str] = []
        self._were: list[tuple[Any, Any]] = []
        self._asked: list[Tensor] = []

    def __call__(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What `function` returns of its inputs."""
        places = [*enumerate(args), *kwargs.items()]
        pairs: dict[int, tuple[Any, Any]] = {}  # tensors and arrays, by identity: each, and what is handed over of it
        given = [_lent(value, pairs) for _, value in places]
        before = {id(own): own.detach().clone() for own, lent in pairs.values() if lent is own}
        try:
            return function(*given[: len(args)], **dict(zip(kwargs, given[len(args) :], strict=True)))
        finally:
            for (place, own), lent in zip(places, given, strict=True):
                self._see(place, own, lent, pairs, before)
            if not self.through:
                self.put_back()

    def _see(self, place: int | str, own: Any, lent: Any, pairs: dict, before: dict[int, Tensor]) -> None:
        """What a call has done to one argument."""
        if place in self.changes:
            _fill(own, lent)
            return
        inside = {id(x): x for x in _parts(own)}
        themselves = [(x, before[i]) for i, x in inside.items() if i in before and _differ(x, before[i])]
        asked = [x for i, x in inside.items() if i in pairs and i not in before and _wants(pairs[i][1])]
        if themselves or asked or _differ(own, lent):
            self.wrote.append(place)
            self._were += themselves
            if self.through:
                self._were.append((own, copied(own)))
                _fill(own, lent)
                self._asked += [x.requires_grad_() for x in asked]

    def put_back(self) -> None:
        """Undo what was written."""
        for own, was in reversed(self._were):
            _fill(own, was)
        for tensor in self._asked:
            tensor.requires_grad_(False)
        self._were, self._asked = [], []


def copied(value: Any) -> Any:
    """A copy, as deep as lists, dictionaries and records go; of tensors without their past."""
    return _mapped(value, lambda x: x.detach().clone() if isinstance(x, Tensor) else x.copy())


def _lent(value: Any, pairs: dict[int, tuple[Any, Any]]) -> Any:
    def lend(x: Any) -> Any:
        if id(x) not in pairs:
            itself = isinstance(x, Tensor) and x.requires_grad
            pairs[id(x)] = x, x if itself else x.clone() if isinstance(x, Tensor) else x.copy()
        return pairs[id(x)][1]

    return _mapped(value, lend)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value, containers copied, with `change` of every tensor and array in it."""
    if isinstance(value, Tensor | np.ndarray):
        return change(value)
    if type(value) is dict:
        return {k: _mapped(v, change) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(x, change) for x in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(x, change) for x in value))
    if type(value) is set:
        return set(value)
    if names := _names(value):
        new = copy.copy(value)
        for name in names:
            object.__setattr__(new, name, _mapped(getattr(value, name), change))
        return new
    return value


def _names(value: Any) -> list[str]:
    """The fields of a record; none of anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        return [f.name for f in fields(value) if hasattr(value, f.name)]
    return list(vars(value)) if isinstance(value, SimpleNamespace) else []


def _parts(value: Any) -> list[Any]:
    """The tensors and arrays in a value."""
    found: list[Any] = []
    _mapped(value, lambda x: found.append(x) or x)
    return found


def _wants(value: Any) -> bool:
    """Whether somebody has asked this tensor, which came of no other, for its gradient."""
    return isinstance(value, Tensor) and value.is_leaf and value.requires_grad


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype
        return not alike or not torch.allclose(one.detach(), other.detach(), rtol=0, atol=0, equal_nan=True)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape != other.shape or one.tobytes() != other.tobytes()
    if type(one) is not type(other):
        return True
    if isinstance(one, dict):
        return list(one) != list(other) or any(_differ(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) != len(other) or any(map(_differ, one, other))
    if names := _names(one):
        return names != _names(other) or any(_differ(getattr(one, n), getattr(other, n)) for n in names)
    return one is not other and one != other


def _fill(old: Any, new: Any) -> Any:
    """Make `old` hold what `new` holds, in place where it can be; returns what now stands for it."""
    if old is new:
        return old
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        spread = any(
            n > 1 and step == 0 for n, step in zip(old.shape, old.stride(), strict=True)
        )  # cannot be written to
        if old.shape == new.shape and old.dtype == new.dtype and not spread:
            old.data.copy_(new.data)
        else:
            old.data = new.detach().clone()
        return old
    if type(old) is not type(new):
        return new
    if isinstance(old, np.ndarray):
        if old.shape != new.shape or not old.flags.writeable:
            return new
        old[...] = new
    elif isinstance(old, list):
        old[:] = [_fill(old[i], x) if i < len(old) else x for i, x in enumerate(new)]
    elif isinstance(old, dict):
        filled = {k: _fill(old[k], v) if k in old else v for k, v in new.items()}
        old.clear()
        old.update(filled)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, tuple):
        same = len(old) == len(new) and all(_fill(a, b) is a for a, b in zip(old, new, strict=True))
        return old if same else new
    elif names := _names(new):
        for name in names:
            object.__setattr__(old, name, _fill(getattr(old, name, None), getattr(new, name)))
    else:
        return new
    return old
