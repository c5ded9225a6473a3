"""One end of the channel: it calls the functions of the other end, serves calls of its own, and passes gradients on."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .bounds import ChannelError, count, understood
from .line import Line
from .packing import Packer, as_bytes, overwrite
from .unpacking import Unpacker

_ENDS_LOOPS = ("StopIteration", "StopAsyncIteration")  # raised in a check, these would end it early and in peace


class Peer:
    """One end of the channel.

    `errors` finds the class of an error of the other end by its name. With `own_stream` the random numbers of this
    end stay as they were, whatever the other end calls.
    """

    def __init__(
        self,
        line: Line,
        *,
        errors: Callable[[str], type[Exception] | None] = lambda name: None,
        own_stream: bool = False,
    ) -> None:
        self.line, self.errors, self.own_stream = line, errors, own_stream
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

    # Calling --------------------------------------------------------------------------------------------------------

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
        with understood():
            for place, value in answer.get("written", []):
                self.written(place, kwargs[place] if isinstance(place, str) else args[place], unpack(value))
            for number, value in answer.get("grads", []):
                leaf, grad = self.exports[count(number)], unpack(value)
                if leaf.is_leaf and isinstance(grad, Tensor) and grad.shape == leaf.shape:
                    leaf.grad = grad if leaf.grad is None else leaf.grad + grad
            error = self.error_of(answer)
            value = unpack(answer["value"]) if error is None else None
        if error is not None:
            raise error
        return value

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
            header, blob = self.line.receive()
            unpack = Unpacker(self, blob)
            if header["op"] == wanted:
                return header, unpack
            with understood():
                if header["op"] == "call" and self.own_stream:
                    with torch.random.fork_rng(devices=[]):
                        self._serve(header, unpack)
                elif header["op"] == "call":
                    self._serve(header, unpack)
                elif header["op"] == "vjp":
                    self._pull(header, unpack)
                else:
                    raise ChannelError("a message came out of turn")

    def _serve(self, header: dict[str, Any], unpack: Unpacker) -> None:
        function = self.functions[count(header["f"])]
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
            answer = {"op": "return", "error": self.described(error)}
        places = [*range(len(args)), *kwargs]
        for place, value, was in zip(places, (*args, *kwargs.values()), before, strict=True):
            if as_bytes(value) != was:
                answer.setdefault("written", []).append([place, pack(value, plain=True)])
        for number, leaf in self.imports.items():
            if leaf.grad is not None:
                answer.setdefault("grads", []).append([number, pack(leaf.grad, plain=True)])
                leaf.grad = None
        self.send(answer, pack)

    def described(self, error: BaseException) -> dict[str, Any]:
        """An error in words that can be sent."""
        try:
            text = str(error)
        except BaseException:
            text = ""
        self.raised.append(error)
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"kinds": kinds[:20], "text": text[:2000], "own": len(self.raised) - 1,
                "yours": getattr(error, "_of_the_other_end", None)}  # fmt: skip

    def error_of(self, answer: dict[str, Any]) -> BaseException | None:
        """The error that an answer tells of, None where it tells of none; ChannelError where it makes no sense."""
        with understood():
            return self._error(answer["error"]) if "error" in answer else None

    def _error(self, said: dict[str, Any]) -> BaseException:
        yours, kinds = said.get("yours"), [str(name) for name in said["kinds"][:20]]
        if isinstance(yours, int) and 0 <= yours < len(self.raised):
            return self.raised[yours]
        text = str(said.get("text", ""))
        for name in kinds if not set(kinds) & set(_ENDS_LOOPS) else ():
            kind = self.errors(name) or getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
                try:
                    error: Exception = kind(text)
                except TypeError:  # such as UnicodeDecodeError, which wants more than a text
                    break
                error._of_the_other_end = said.get("own")
                return error
        error = RuntimeError(f"{kinds[0][:60]}: {text}")
        error._of_the_other_end = said.get("own")
        return error

    # Gradients ----------------------------------------------------------------------------------------------------

    def _pull(self, header: dict[str, Any], unpack: Unpacker) -> None:
        output, inputs = self.outputs[count(header["y"])]
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
            answer["error"] = self.described(error)
        self.send(answer, pack)

    def pull(self, number: int, grad: Tensor) -> list[Tensor | None]:
        """The gradients of output `number` of the other end with respect to what it hangs on."""
        with self._noting():
            pack = Packer(self)
            self.send({"op": "vjp", "y": number, "g": pack(grad.detach(), plain=True)}, pack)
            answer, unpack = self.wait("pulled")
            if (error := self.error_of(answer)) is not None:
                raise error
            with understood():
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

    def send(self, header: dict[str, Any], pack: Packer) -> None:
        self.line.send(header, b"".join(pack.parts))
