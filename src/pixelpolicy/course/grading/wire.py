"""The channel between the grader and a sandboxed answer: calls, values and gradients as JSON and plain bytes.

Both ends run this file; it needs nothing but numpy and torch, so that the sandbox need not hold the course. A message
is two lengths, a JSON header and a blob: the bytes of the tensors that the header describes. Nothing is ever pickled.
Each end may call the functions that the other has handed it, at any depth.

Gradients cross too. A tensor that wants a gradient is handed over as a leaf (an *import* there, an *export* here).
A result that hangs on imports comes back as the output of `_Bridge`, whose backward asks the other end for the
vector-Jacobian product. Tensors that a function closes over cross as leaves without values.
"""

from __future__ import annotations

import builtins
import json
import math
import struct
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

HEADER, BLOB, TOTAL = 4 << 20, 32 << 20, 1 << 30  # bytes: of a header, of a blob, of all that one end may say
_DEPTH, _ELEMENTS = 48, 4 << 20
_LENGTHS = struct.Struct(">IQ")
_TORCH = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    )
}  # fmt: skip
_NUMPY = "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()


class ChannelError(Exception):
    """The other end has gone, is late, or does not keep to the form of the channel."""


class Peer:
    """One end of the channel over a connected socket."""

    def __init__(self, socket: Any, *, errors: Callable[[str], type[Exception] | None] = lambda name: None) -> None:
        self.socket, self.errors = socket, errors
        self.heard = 0
        self.fault = ""  # why the channel is of no more use
        self.seed: bytes | None = None
        # what becomes of arguments that the other end changed: told (place, old, new) for each
        self.written: Callable[[int | str, Any, Any], None] = lambda place, old, new: overwrite(old, new)
        self.reset()

    def reset(self) -> None:
        """Forget all that was handed over."""
        self.functions: list[Callable] = []
        self.stubs: dict[int, Callable] = {}
        self.exports: list[Tensor] = []
        self.imports: dict[int, Tensor] = {}
        self.mine: dict[int, int] = {}  # exports, by identity
        self.theirs: dict[int, int] = {}  # imports and stubs, by identity
        self.outputs: list[tuple[Tensor, list[Tensor]]] = []
        self.raised: list[BaseException] = []

    # Calling ------------------------------------------------------------------------------------------------------

    def call(self, number: int, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call function `number` of the other end; its arguments are brought up to date with what it did to them."""
        with self._noting():
            return self._call(number, args, kwargs)

    def _call(self, number: int, args: tuple, kwargs: dict[str, Any]) -> Any:
        state = torch.get_rng_state().numpy().tobytes()
        header = {"op": "call", "f": number, "grad": torch.is_grad_enabled(), "seed": None}
        pack = Packer(self)
        if state != self.seed:
            header["seed"], self.seed = pack.bytes(state), state
        header["args"], header["kwargs"] = [pack(x) for x in args], {k: pack(v) for k, v in kwargs.items()}
        self.send(header, pack)
        answer, unpack = self.wait("return")
        for place, value in answer.get("written", []):
            self.written(place, kwargs[place] if isinstance(place, str) else args[place], unpack(value))
        for number, value in answer.get("grads", []):
            leaf, grad = self.exports[number], unpack(value)
            if leaf.is_leaf and isinstance(grad, Tensor) and grad.shape == leaf.shape:
                leaf.grad = grad if leaf.grad is None else leaf.grad + grad
        if "error" in answer:
            raise self._error(answer["error"])
        return unpack(answer["value"])

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep a fault of the channel in mind: a check may catch the error that tells of it."""
        if self.fault:
            raise ChannelError(self.fault)
        try:
            yield
        except ChannelError as error:
            self.fault = str(error)
            raise

    def wait(self, wanted: str) -> tuple[dict[str, Any], Unpacker]:
        """Serve the other end until it says `wanted`."""
        while True:
            header, blob = self.receive()
            unpack = Unpacker(self, blob)
            try:
                if header["op"] == wanted:
                    return header, unpack
                if header["op"] == "call":
                    self._serve(header, unpack)
                elif header["op"] == "vjp":
                    self._pull(header, unpack)
                else:
                    raise ChannelError(f"a message of kind {str(header['op'])[:40]!r} came out of turn")
            except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
                raise ChannelError(f"a message was malformed ({type(error).__name__})") from error

    def _serve(self, header: dict[str, Any], unpack: Unpacker) -> None:
        function = self.functions[_count(header["f"])]
        args = [unpack(x) for x in header["args"]]
        kwargs = {str(k): unpack(v) for k, v in header["kwargs"].items()}
        if header["seed"] is not None:
            torch.set_rng_state(unpack.generator_state(header["seed"]))
        before = [as_bytes(x) for x in (*args, *kwargs.values())]
        answer: dict[str, Any] = {"op": "return"}
        pack = Packer(self)
        try:
            with torch.set_grad_enabled(bool(header["grad"])):
                answer["value"] = pack(function(*args, **kwargs))
        except ChannelError:
            raise
        except BaseException as error:
            pack = Packer(self)
            answer = {"op": "return", "error": self._described(error)}
        places = [*range(len(args)), *kwargs]
        for place, value, was in zip(places, (*args, *kwargs.values()), before, strict=True):
            if as_bytes(value) != was:
                answer.setdefault("written", []).append([place, pack(value, plain=True)])
        for number, leaf in self.imports.items():
            if leaf.grad is not None:
                answer.setdefault("grads", []).append([number, pack(leaf.grad, plain=True)])
                leaf.grad = None
        self.send(answer, pack)

    def _described(self, error: BaseException) -> dict[str, Any]:
        try:
            text = str(error)
        except BaseException:
            text = ""
        self.raised.append(error)
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"kinds": kinds[:20], "text": text[:2000], "own": len(self.raised) - 1,
                "yours": getattr(error, "_of_the_other_end", None)}  # fmt: skip

    def _error(self, said: dict[str, Any]) -> BaseException:
        yours = said.get("yours")
        if isinstance(yours, int) and 0 <= yours < len(self.raised):
            return self.raised[yours]
        text = str(said.get("text", ""))
        for name in said.get("kinds", [])[:20]:
            kind = self.errors(str(name)) or getattr(builtins, str(name), None)
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
                try:
                    error: Exception = kind(text)
                except TypeError:  # such as UnicodeDecodeError, which wants more than a text
                    break
                error._of_the_other_end = said.get("own")
                return error
        error = RuntimeError(f"{str(said.get('kinds', ['an error'])[0])[:60]}: {text}")
        error._of_the_other_end = said.get("own")
        return error

    # Gradients ----------------------------------------------------------------------------------------------------

    def _pull(self, header: dict[str, Any], unpack: Unpacker) -> None:
        output, inputs = self.outputs[_count(header["y"])]
        grad = unpack(header["g"])
        if not isinstance(grad, Tensor) or grad.shape != output.shape:
            raise ChannelError("a gradient has another shape than what it belongs to")
        answer: dict[str, Any] = {"op": "pulled"}
        pack = Packer(self)
        try:
            found = torch.autograd.grad(output, inputs, grad.to(output.dtype), retain_graph=True, allow_unused=True)
            answer["value"] = [pack(x, plain=True) for x in found]
        except ChannelError:
            raise
        except Exception as error:
            answer["error"] = self._described(error)
        self.send(answer, pack)

    def pull(self, number: int, grad: Tensor) -> list[Tensor | None]:
        """The gradients of output `number` of the other end with respect to what it hangs on."""
        with self._noting():
            pack = Packer(self)
            self.send({"op": "vjp", "y": number, "g": pack(grad.detach(), plain=True)}, pack)
            answer, unpack = self.wait("pulled")
        if "error" in answer:
            raise self._error(answer["error"])
        return [unpack(x) for x in answer["value"]]

    def roots(self, output: Tensor) -> list[tuple[str, int, Tensor]]:
        """What a tensor of this end hangs on: the other end's exports ("yours") and this end's ("mine")."""
        known = {(t.grad_fn, t.output_nr): i for i, t in enumerate(self.exports) if t.grad_fn is not None}
        found: dict[tuple[str, int], Tensor] = {}
        waiting, seen = [(output.grad_fn, output.output_nr)], set()
        while waiting:
            node, number = waiting.pop()
            if node is None or (node, number) in seen:
                continue
            seen.add((node, number))
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                if id(leaf) in self.theirs:
                    found["yours", self.theirs[id(leaf)]] = leaf
                else:
                    found["mine", self.export(leaf)] = leaf
            elif (node, number) in known:
                found["mine", known[node, number]] = self.exports[known[node, number]]
            else:
                waiting += [step for step in node.next_functions if step[0] is not None]
        return [(side, number, tensor) for (side, number), tensor in found.items()]

    def export(self, tensor: Tensor) -> int:
        if id(tensor) not in self.mine:
            self.exports.append(tensor)
            self.mine[id(tensor)] = len(self.exports) - 1
        return self.mine[id(tensor)]

    def adopt(self, number: int, data: Tensor | None, shape: list[int], dtype: torch.dtype) -> Tensor:
        """The leaf that stands here for export `number` of the other end."""
        if number not in self.imports:
            data = torch.zeros((), dtype=dtype).expand(shape) if data is None else data
            self.imports[number] = data.requires_grad_()
            self.theirs[id(self.imports[number])] = number
        leaf = self.imports[number]
        if data is not None and leaf is not data and leaf.shape == data.shape and not torch.equal(leaf, data):
            with torch.no_grad():
                leaf.data = data
        return leaf

    # Bytes --------------------------------------------------------------------------------------------------------

    def send(self, header: dict[str, Any], pack: Packer) -> None:
        text, blob = json.dumps(header).encode(), b"".join(pack.parts)
        if len(text) > HEADER or len(blob) > BLOB:
            raise ChannelError(f"a message of {len(text) + len(blob)} bytes is too large for the channel")
        try:
            self.socket.sendall(_LENGTHS.pack(len(text), len(blob)) + text + blob)
        except OSError as error:
            raise ChannelError(f"the other end does not listen ({type(error).__name__})") from error

    def receive(self) -> tuple[dict[str, Any], bytes]:
        length, size = _LENGTHS.unpack(self._read(_LENGTHS.size))
        self.heard += length + size
        if length > HEADER or size > BLOB or self.heard > TOTAL:
            raise ChannelError(f"it answered with more than the channel takes ({max(length, size, self.heard)} bytes)")
        try:
            header = json.loads(self._read(length))
        except (ValueError, RecursionError) as error:
            raise ChannelError("a message was no JSON") from error
        if not isinstance(header, dict) or not isinstance(header.get("op"), str):
            raise ChannelError("a message had no kind")
        return header, self._read(size)

    def _read(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.socket.recv(min(count - len(parts), 1 << 20))
            except TimeoutError as error:
                raise ChannelError("it took too long") from error
            except OSError as error:
                raise ChannelError(f"the other end has gone ({type(error).__name__})") from error
            if not part:
                raise ChannelError("its process ended in the middle")
            parts += part
        return bytes(parts)


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


class Packer:
    """Turns values into JSON, and gathers the bytes of their tensors."""

    def __init__(self, peer: Peer | None) -> None:
        self.peer, self.parts, self.size = peer, [], 0

    def bytes(self, data: bytes) -> list[int]:
        self.parts.append(data)
        self.size += len(data)
        if self.size > BLOB:
            raise ChannelError(f"{self.size} bytes are too many for the channel")
        return [self.size - len(data), len(data)]

    def __call__(self, value: Any, *, plain: bool = False, depth: int = 0) -> Any:
        if depth > _DEPTH:
            raise ValueError("lists are nested too deeply to hand over")
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic | np.ndarray):
            array = np.ascontiguousarray(value).reshape(np.shape(value))
            if array.dtype.str[1:] not in _NUMPY:
                raise TypeError(f"an array of {array.dtype} cannot be handed over")
            array = array.astype(array.dtype.newbyteorder("<"))
            kind = "scalar" if isinstance(value, np.generic) else "array"
            return {"k": kind, "d": array.dtype.str[1:], "s": list(array.shape), "b": self.bytes(array.tobytes())}
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            return {"k": "complex", "v": [value.real, value.imag]}
        if isinstance(value, Tensor):
            return self._tensor(value, plain)
        if isinstance(value, torch.dtype):
            return {"k": "dtype", "v": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"k": "device"}
        if isinstance(value, torch.Generator):
            return {"k": "generator", "b": self.bytes(value.get_state().numpy().tobytes())}
        if isinstance(value, np.random.Generator):
            return {"k": "rng", "v": json.loads(json.dumps(value.bit_generator.state, default=int))}
        more = {"plain": plain, "depth": depth + 1}
        if isinstance(value, dict):
            return {"k": "dict", "v": [[self(k, **more), self(v, **more)] for k, v in value.items()]}
        if isinstance(value, tuple):
            names = {"n": list(value._fields)} if hasattr(value, "_fields") else {}
            return {"k": "tuple", "v": [self(x, **more) for x in value], **names}
        if isinstance(value, list):
            return {"k": "list", "v": [self(x, **more) for x in value]}
        if isinstance(value, set | frozenset):
            return {"k": "set", "v": [self(x, **more) for x in value]}
        if isinstance(value, range):
            return {"k": "list", "v": list(value)}
        record = fields(value) if is_dataclass(value) and not isinstance(value, type) else ()
        if record or isinstance(value, SimpleNamespace):
            parts = {f.name: getattr(value, f.name) for f in record} if record else vars(value)
            return {"k": "record", "v": [[k, self(v, **more)] for k, v in parts.items()]}
        if callable(value):
            return {"k": "function", **self._function(value)}
        raise TypeError(f"a {type(value).__name__} cannot be handed over: give tensors, arrays, numbers, lists")

    def _function(self, function: Callable) -> dict[str, int]:
        if self.peer is None:
            return {"i": id(function)}
        if id(function) in self.peer.theirs:
            return {"r": self.peer.theirs[id(function)]}
        if function not in self.peer.functions:
            self.peer.functions.append(function)
        return {"f": self.peer.functions.index(function)}

    def _tensor(self, value: Tensor, plain: bool) -> dict[str, Any]:
        name = str(value.dtype).removeprefix("torch.")
        if name not in _TORCH or value.layout is not torch.strided:
            raise TypeError(f"a tensor of {value.dtype} and {value.layout} cannot be handed over")
        said: dict[str, Any] = {"k": "tensor", "d": name, "s": list(value.shape)}
        peer = self.peer
        wanted = peer is not None and not plain and value.requires_grad
        if wanted and id(value) in peer.theirs:
            said["r"] = peer.theirs[id(value)]
        elif wanted and (value.grad_fn is None or id(value) in peer.mine):
            said["g"] = peer.export(value)
        elif wanted:
            roots = peer.roots(value)
            peer.outputs.append((value, [tensor for *_, tensor in roots]))
            said["y"] = len(peer.outputs) - 1
            said["of"] = [[s, i, list(t.shape), str(t.dtype).removeprefix("torch.")] for s, i, t in roots]
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        said["b"] = self.bytes(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return said


class Unpacker:
    """Turns JSON and bytes back into values, believing nothing of what they say."""

    def __init__(self, peer: Peer, blob: bytes) -> None:
        self.peer, self.blob = peer, blob

    def __call__(self, said: Any, depth: int = 0) -> Any:
        if depth > _DEPTH:
            raise ChannelError("a value is nested too deeply")
        if said is None or isinstance(said, bool | int | float | str):
            return said
        kind, value = said["k"], said.get("v")
        if kind == "tensor":
            return self._tensor(said)
        if kind in ("array", "scalar"):
            if said["d"] not in _NUMPY:
                raise ChannelError("an array has a type that is not known")
            dtype = np.dtype("<" + said["d"])
            shape = _shape(said["s"])
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
                return namedtuple("Record", [_name(n) for n in said["n"]])(*parts)
            return parts
        if kind == "dict":
            return {self(k, depth + 1): self(v, depth + 1) for k, v in value}
        if kind == "set":
            return {self(x, depth + 1) for x in value}
        if kind == "record":
            return SimpleNamespace(**{_name(k): self(v, depth + 1) for k, v in value})
        if kind == "complex":
            return complex(float(value[0]), float(value[1]))
        if kind == "dtype":
            return _TORCH[value]
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
        raise ChannelError(f"a value of kind {str(kind)[:40]!r} is not known")

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
            return peer.functions[_count(said["r"])]
        number = _count(said["f"])
        if number not in peer.stubs:
            peer.stubs[number] = lambda *args, **kwargs: peer.call(number, args, kwargs)
            peer.theirs[id(peer.stubs[number])] = number
        return peer.stubs[number]

    def _tensor(self, said: dict[str, Any]) -> Tensor:
        peer = self.peer
        if said.get("r") is not None:
            return peer.exports[_count(said["r"])]
        dtype, shape = _TORCH[said["d"]], _shape(said["s"])
        data = self._bytes(said["b"], math.prod(shape) * dtype.itemsize)
        tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        tensor = (tensor != 0 if dtype is torch.bool else tensor.view(dtype)).reshape(shape)
        if said.get("g") is not None:
            _differentiable(dtype)
            return peer.adopt(_count(said["g"]), tensor, shape, dtype)
        if said.get("y") is not None:
            _differentiable(dtype)
            inputs = []
            for side, number, size, name in said["of"]:
                if side == "yours":
                    inputs.append(peer.exports[_count(number)])
                else:
                    inputs.append(peer.adopt(_count(number), None, _shape(size), _differentiable(_TORCH[name])))
            with torch.enable_grad():
                return _Bridge.apply(peer, _count(said["y"]), tensor, *inputs)
        return tensor

    def _bytes(self, place: list[int], wanted: int) -> bytes:
        start, size = (_count(x) for x in place)
        if size != wanted or start + size > len(self.blob):
            raise ChannelError("a value has another size than it says")
        return self.blob[start : start + size]


def overwrite(old: Any, new: Any) -> None:
    """Make `old` hold what `new` holds, in place, as far as they are of one kind."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        if old.shape == new.shape and old.dtype == new.dtype:
            with torch.no_grad():
                old.copy_(new)
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if old.shape == new.shape and old.dtype == new.dtype and old.flags.writeable:
            old[...] = new
    elif isinstance(old, np.random.Generator) and isinstance(new, np.random.Generator):
        old.bit_generator.state = new.bit_generator.state
    elif isinstance(old, torch.Generator) and isinstance(new, torch.Generator):
        old.set_state(new.get_state())
    elif isinstance(old, list) and isinstance(new, list):
        old[:] = [_merged(old[i] if i < len(old) else x, x) for i, x in enumerate(new)]
    elif isinstance(old, dict) and isinstance(new, dict):
        merged = {k: _merged(old.get(k, v), v) for k, v in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, tuple) and isinstance(new, tuple):
        for a, b in zip(old, new, strict=False):
            overwrite(a, b)


def _merged(old: Any, new: Any) -> Any:
    """`old`, brought up to date, where it is a thing that can be; else `new`."""
    kinds = Tensor | np.ndarray | list | dict | np.random.Generator | torch.Generator
    if isinstance(old, kinds) and type(old) is type(new) and getattr(old, "shape", 0) == getattr(new, "shape", 0):
        overwrite(old, new)
        return old
    return old if callable(old) else new


def as_bytes(value: Any) -> tuple[str, bytes]:
    """A value as it would cross without its gradients: to see whether a call has changed it."""
    pack = Packer(None)
    try:
        return json.dumps(pack(value, plain=True)), b"".join(pack.parts)
    except (TypeError, ValueError):
        return "", b""


def _differentiable(dtype: torch.dtype) -> torch.dtype:
    if not (dtype.is_floating_point or dtype.is_complex):
        raise ChannelError("a tensor of whole numbers has no gradient")
    return dtype


def _count(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ChannelError("a number that counts is none")
    return number


def _shape(shape: Any) -> list[int]:
    """A shape whose elements, and whose empty rows, are few enough to be walked."""
    shape = [_count(n) for n in shape]
    if len(shape) > 12 or math.prod(max(n, 1) for n in shape) > _ELEMENTS:
        raise ChannelError(f"a value of shape {str(shape)[:80]} is too large")
    return shape


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or len(name) > 60:
        raise ChannelError("a field has a name that is none")
    return name
