"""Values as JSON and plain bytes; nothing is ever pickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .bounds import BLOB, DEPTH, NUMPY, TORCH, ChannelError

if TYPE_CHECKING:
    from .peer import Peer


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
        if depth > DEPTH:
            raise ValueError("lists are nested too deeply to hand over")
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic | np.ndarray):
            array = np.ascontiguousarray(value).reshape(np.shape(value))
            if array.dtype.str[1:] not in NUMPY:
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
        if name not in TORCH or value.layout is not torch.strided:
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
