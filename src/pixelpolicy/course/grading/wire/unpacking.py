"""JSON and plain bytes as values again, believing nothing of what they say."""

from __future__ import annotations

import math
import struct
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .bounds import DEPTH, NUMPY, TORCH, ChannelError, count, differentiable, field_name, shape_of

if TYPE_CHECKING:
    from .peer import Peer


class Unpacker:
    """Turns JSON and bytes back into values, believing nothing of what they say."""

    def __init__(self, peer: Peer, blob: bytes) -> None:
        self.peer, self.blob = peer, blob

    def __call__(self, said: Any, depth: int = 0) -> Any:
        if depth > DEPTH:
            raise ChannelError("a value is nested too deeply")
        if said is None or isinstance(said, bool | int | float | str):
            return said
        kind, value = said["k"], said.get("v")
        if kind == "tensor":
            return self._tensor(said)
        if kind in ("array", "scalar"):
            if said["d"] not in NUMPY:
                raise ChannelError("an array has a type that is not known")
            dtype = np.dtype("<" + said["d"])
            shape = shape_of(said["s"])
            data = self._bytes(said["b"], math.prod(shape) * dtype.itemsize)
            if said["d"] == "b1":
                array = (np.frombuffer(data, np.uint8) != 0).reshape(shape)
            else:
                array = np.frombuffer(data, dtype).reshape(shape).copy()
            return array[()] if kind == "scalar" and array.shape == () else array
        if kind == "list":
            return [self(x, depth + 1) for x in value]
        if kind == "tuple":
            parts = tuple(self(x, depth + 1) for x in value)
            if "n" in said:
                return namedtuple("Record", [field_name(n) for n in said["n"]])(*parts)
            return parts
        if kind == "dict":
            return {self(k, depth + 1): self(v, depth + 1) for k, v in value}
        if kind == "set":
            return {self(x, depth + 1) for x in value}
        if kind == "record":
            return SimpleNamespace(**{field_name(k): self(v, depth + 1) for k, v in value})
        if kind == "complex":
            return complex(float(value[0]), float(value[1]))
        if kind == "dtype":
            return TORCH[value]
        if kind == "device":
            return torch.device("cpu")
        if kind == "generator":
            generator = torch.Generator()
            generator.set_state(self.generator_state(said["b"]))
            return generator
        if kind == "rng":
            rng = np.random.default_rng(0)
            if value["bit_generator"] != rng.bit_generator.state["bit_generator"]:
                raise ChannelError("a random stream is of another kind")
            rng.bit_generator.state = value
            return rng
        if kind == "function":
            return self._function(said)
        raise ChannelError("a value is of a kind that is not known")

    def generator_state(self, place: list[int]) -> Tensor:
        """The bytes of a torch generator, seen to be a state it can be in."""
        size = torch.Generator().get_state().numel()
        data = self._bytes(place, size)
        left, following = struct.unpack_from("<i", data, 8)[0], struct.unpack_from("<Q", data, 16)[0]
        if (left, following) != (1, 0) and not (1 <= left <= 624 and left + following == 625):
            raise ChannelError("a random stream is in a state that it cannot be in")
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _function(self, said: dict[str, Any]) -> Callable:
        peer = self.peer
        if "r" in said:
            return peer.functions[count(said["r"])]
        number = count(said["f"])
        if number not in peer.stubs:
            peer.stubs[number] = lambda *args, **kwargs: peer.call(number, args, kwargs)
            peer.theirs[id(peer.stubs[number])] = number
        return peer.stubs[number]

    def _tensor(self, said: dict[str, Any]) -> Tensor:
        peer = self.peer
        if said.get("r") is not None:
            return peer.exports[count(said["r"])]
        dtype, shape = TORCH[said["d"]], shape_of(said["s"])
        data = self._bytes(said["b"], math.prod(shape) * dtype.itemsize)
        tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        tensor = (tensor != 0 if dtype is torch.bool else tensor.view(dtype)).reshape(shape)
        if said.get("g") is not None:
            differentiable(dtype)
            return peer.adopt(count(said["g"]), tensor, shape, dtype)
        if said.get("y") is not None:
            differentiable(dtype)
            inputs = []
            for side, number, size, name in said["of"]:
                if side == "yours":
                    inputs.append(peer.exports[count(number)])
                else:
                    inputs.append(peer.adopt(count(number), None, shape_of(size), differentiable(TORCH[name])))
            with torch.enable_grad():
                return _Bridge.apply(peer, count(said["y"]), tensor, *inputs)
        return tensor

    def _bytes(self, place: list[int], wanted: int) -> bytes:
        start, size = (count(x) for x in place)
        if size != wanted or start + size > len(self.blob):
            raise ChannelError("a value has another size than it says")
        return self.blob[start : start + size]


class _Bridge(torch.autograd.Function):
    """A value that the other end computed from `inputs`."""

    @staticmethod
    def forward(ctx: Any, peer: Peer, number: int, data: Tensor, *inputs: Tensor) -> Tensor:
        ctx.peer, ctx.number, ctx.inputs = peer, number, [(x.shape, x.dtype) for x in inputs]
        return data.view_as(data)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        found = ctx.peer.pull(ctx.number, grad)
        grads = []
        for (shape, dtype), x in zip(ctx.inputs, found, strict=True):
            if x is not None and (not isinstance(x, Tensor) or x.shape != shape):
                raise ChannelError("a gradient has another shape than what it belongs to")
            grads.append(None if x is None else x.to(dtype))
        return (None, None, None, *grads)
