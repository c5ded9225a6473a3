"""What may cross: how much of it, of which kinds, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

HEADER, BLOB, TOTAL = 4 << 20, 32 << 20, 1 << 30  # bytes: of a header, of a blob, of all that one end may say
DEPTH, ELEMENTS = 48, 4 << 20
TORCH = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    )
}  # fmt: skip
NUMPY = "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()


class ChannelError(Exception):
    """The other end has gone, is late, or does not keep to the form of the channel.

    Its message goes to the student, and so holds nothing that the other end said: it may know what students may not.
    """


@contextmanager
def understood() -> Iterator[None]:
    """What goes wrong inside, of a message that may say anything, is the message's fault."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ChannelError(f"a message was malformed ({type(error).__name__})") from error


def differentiable(dtype: torch.dtype) -> torch.dtype:
    if not (dtype.is_floating_point or dtype.is_complex):
        raise ChannelError("a tensor of whole numbers has no gradient")
    return dtype


def count(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ChannelError("a number that counts is none")
    return number


def shape_of(shape: Any) -> list[int]:
    """A shape whose elements, and whose empty rows, are few enough to be walked."""
    shape = [count(n) for n in shape]
    if len(shape) > 12 or math.prod(max(n, 1) for n in shape) > ELEMENTS:
        raise ChannelError("a value is too large")
    return shape


def field_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or len(name) > 60:
        raise ChannelError("a field has a name that is none")
    return name
