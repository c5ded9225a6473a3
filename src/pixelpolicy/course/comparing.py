"""Comparing what a student's function gives with what it should give: values, gradients, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Mismatch(AssertionError):
    """A property does not hold; the message says what came out and what was expected."""


def same(got: Any, want: Any, *, atol: float = 1e-6, rtol: float = 1e-5, what: str = "") -> None:
    """Raise Mismatch unless `got` has the shape of `want` and its values within `atol + rtol |want|`.

    Both may be tensors, numbers, or tuples, lists and dictionaries of them; anything else must be equal. `what` names
    the thing compared.
    """
    label = f"{what}:" if what else ""
    if isinstance(want, dict | list | tuple):
        keys = list(want) if isinstance(want, dict) else range(len(want))
        alike = isinstance(got, dict) if isinstance(want, dict) else isinstance(got, list | tuple)
        if not alike or len(got) != len(want) or (isinstance(want, dict) and set(got) != set(want)):
            raise Mismatch(_apart(label, show(got), f"{type(want).__name__} with {len(want)} parts: {show(want)}"))
        for key in keys:
            same(got[key], want[key], atol=atol, rtol=rtol, what=f"{what}[{key!r}]")
        return
    if not _numeric(want):
        if got is not want and got != want:
            raise Mismatch(_apart(label, show(got), show(want)))
        return
    if not _numeric(got):
        raise Mismatch(_apart(label, f"{show(got)} ({type(got).__name__})", show(want)))
    got, want = torch.as_tensor(got).detach(), torch.as_tensor(want).detach()
    if got.shape != want.shape:
        shapes = f"shape {list(got.shape)}", f"shape {list(want.shape)}"
        raise Mismatch(_apart(label, f"{shapes[0]}: {show(got)}", f"{shapes[1]}: {show(want)}"))
    wide = torch.float64 if not (got.is_complex() or want.is_complex()) else torch.complex128
    a, b = got.to(wide), want.to(wide)
    if not torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
        largest = (a - b).abs().max().item()
        raise Mismatch(_apart(label, show(got), show(want)) + f"\nlargest difference  {largest:.3g}")


def same_gradient(
    function: Callable,
    want_function: Callable,
    inputs: Sequence[Any],
    *,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    names: Sequence[str] = (),
) -> None:
    """Raise Mismatch unless both functions have the same gradients with respect to every floating input.

    Outputs that are no scalars are weighed with fixed unequal numbers, so that no two elements can be exchanged or
    cancel. An input that the output does not depend on has gradient zero. `names` label the inputs.
    """
    got, want = gradients(function, inputs), gradients(want_function, inputs)
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        if b is not None:
            label = names[number] if number < len(names) else f"input {number}"
            same(a, b, atol=atol, rtol=rtol, what=f"the gradient with respect to {label} (outputs weighed unequally)")


def raises(error: type[BaseException], function: Callable, *args: Any, **kwargs: Any) -> None:
    """Raise Mismatch unless `function(*args, **kwargs)` raises `error`."""
    try:
        got = function(*args, **kwargs)
    except error:
        return
    except NotImplementedError:
        raise
    except Exception as other:
        raise Mismatch(_apart("", f"{type(other).__name__}: {other}", f"a {error.__name__}")) from other
    raise Mismatch(_apart("", show(got), f"a {error.__name__}"))


def gradients(function: Callable, inputs: Sequence[Any]) -> list[Tensor | None]:
    """The gradient of the weighted output with respect to each input; None for inputs that are no floating tensors."""
    floating = [isinstance(x, Tensor) and x.is_floating_point() for x in inputs]
    fresh = [x.detach().clone().requires_grad_() if f else x for x, f in zip(inputs, floating, strict=True)]
    with torch.enable_grad():
        outputs = [x for x in tensors(function(*fresh)) if x.requires_grad]
    leaves = [x for x, f in zip(fresh, floating, strict=True) if f]
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if outputs and leaves:
        total = sum((x * _weights(x)).sum() for x in outputs)
        found = torch.autograd.grad(total, leaves, allow_unused=True)
    filled = iter([torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)])
    return [next(filled) if f else None for f in floating]


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors and numbers in a value, in order, numbers as float64 tensors."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, Tensor):
        yield value
    elif _numeric(value):
        yield torch.as_tensor(value, dtype=torch.float64)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Torch's random numbers from a fixed seed inside, and as they were after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fingerprint(function: Callable, probes: Callable[[], list[tuple]]) -> list[Any]:
    """What a function answers to each probe: its values and gradients, or the name of the error it raises."""
    answers: list[Any] = []
    # fresh arguments for the gradients: the first call may have written into its own
    for arguments, again in zip(probes(), probes(), strict=True):
        answers.append(_answer(lambda: [x.detach().clone() for x in tensors(function(*arguments))]))  # noqa: B023
        if any(isinstance(x, Tensor) and x.is_floating_point() for x in again):
            answers.append(_answer(lambda: [x for x in gradients(function, again) if x is not None]))  # noqa: B023
    return answers


def _answer(ask: Callable[[], list[Tensor]]) -> list[Tensor] | str:
    try:
        with seeded():
            return ask()
    except Exception as error:
        return type(error).__name__


def alike(one: list[Any], other: list[Any]) -> bool:
    """Whether two fingerprints agree to 1e-5 relative, 1e-7 absolute."""
    return len(one) == len(other) and all(_alike(a, b) for a, b in zip(one, other, strict=True))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-7, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def show(value: Any, limit: int = 300) -> str:
    """A value in a few characters."""
    if isinstance(value, Tensor):
        value = value.detach()
        text = repr(value) if value.numel() <= 24 else f"tensor of shape {list(value.shape)}, {value.flatten()[:4]} ..."
    else:
        text = repr(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _apart(label: str, got: str, want: str) -> str:
    return f"{label}\ncame out  {got}\nexpected  {want}".lstrip("\n")


def _weights(x: Tensor) -> Tensor:
    return torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape) + 1.5 if x.dim() else torch.ones_like(x)


def _numeric(value: Any) -> bool:
    return isinstance(value, Tensor | bool | int | float) or hasattr(value, "__array__")
