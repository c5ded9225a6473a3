"""The channel: what crosses it whole, what it refuses, and that gradients and random numbers are as in one process."""

import ast
import json
import math
import socket
import struct
import threading
import time
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import forked

from pixelpolicy.course.comparing import seeded
from pixelpolicy.course.grading import wire
from pixelpolicy.course.grading.wire import BLOB, HEADER, TOTAL, ChannelError, Line, Peer, as_bytes
from pixelpolicy.errors import GroupError

Pair = namedtuple("Pair", "first second")


@dataclass
class Record:
    number: int
    rows: torch.Tensor


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
TENSORS = {
    **{str(dtype): torch.tensor([[1.5, -0.0, math.inf], [math.nan, 7.0, -2.0]]).to(dtype) for dtype in FLOATS},
    **{str(dtype): torch.tensor([0, 1, 127]).to(dtype) for dtype in WHOLE},
    "complex": torch.tensor([1 + 2j, complex(math.nan, -1)]),
    "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "bool": torch.tensor([True, False]),
    "no dimension": torch.tensor(3.0),
    "no element": torch.zeros(2, 0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "every other": torch.arange(6.0)[::2],
}
ARRAYS = {
    **{dtype: np.array([[0, 1], [1, 1]], dtype) for dtype in ("?", "i1", "u2", "<i8", "f2", "f4", "f8", "c16")},
    "big end first": np.array([1.5, np.nan], ">f8"),
    "no dimension": np.array(2.5),
    "no element": np.zeros((0, 4), "f4"),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "scalar": np.float32(1.25),
    "one bool": np.bool_(True),
}
PLAIN = [
    None, True, 0, -3, 1 << 70, 1.5, math.inf, -0.0, "", "é \u202e \U0001f600", [], [1, [2.0, ["x"]]], (1, "a"),
    {"a": 1, 2: [3], (1, 2): None}, {3, 4}, 1 + 2j, torch.float64, torch.device("cpu"), Pair(1, [2]),
]  # fmt: skip


@pytest.fixture(scope="module")
def echo():
    with forked(lambda value: value) as answer:
        yield answer


def alike(got, want):
    """Of one kind, one type of elements, one shape, and the same to the bit."""
    assert as_bytes(got) == as_bytes(want), (got, want)


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_crosses_whole(echo, name):
    got = echo.function(TENSORS[name])
    assert (got.dtype, got.shape) == (TENSORS[name].dtype, TENSORS[name].shape)
    alike(got, TENSORS[name])


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_crosses_whole(echo, name):
    got, want = echo.function(ARRAYS[name]), ARRAYS[name]
    assert (got.dtype.newbyteorder("="), got.shape) == (want.dtype.newbyteorder("="), want.shape)
    alike(got, want)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}")
def test_a_plain_value_crosses_whole(echo, value):
    got = echo.function(value)
    assert got == value and str(got) == str(value).replace("Pair", "Record")


def test_nan_is_a_number_that_is_none(echo):
    assert math.isnan(echo.function(math.nan)) and math.isnan(echo.function([math.nan])[0])


def test_records_become_plain_ones_and_random_streams_stay_where_they_are(echo):
    got = echo.function(Record(3, torch.ones(2)))
    assert isinstance(got, SimpleNamespace) and got.number == 3 and torch.equal(got.rows, torch.ones(2))
    stream, numbers = torch.Generator().manual_seed(5), np.random.default_rng(5)
    assert torch.equal(torch.rand(3, generator=echo.function(stream)), torch.rand(3, generator=stream))
    assert echo.function(numbers).random() == numbers.random()


# Gradients, functions, random numbers ----------------------------------------------------------------------------


def test_gradients_are_those_of_one_process():
    weight = torch.tensor([2.0, -1.0], requires_grad=True)

    def function(x, scale):
        return (x**3 * weight).sum() * scale, x.exp()

    def grads(f):
        x, scale = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
        one, other = f(x, scale)
        return torch.autograd.grad(one * 2 + other.prod(), (x, scale))

    with forked(function) as answer:
        got, want = grads(answer.function), grads(function)
    for a, b in zip(got, want, strict=True):
        alike(a, b)


def test_backward_on_the_other_side_reaches_the_leaf_here():
    def function(x):
        (x * x).sum().backward()

    x = torch.tensor([3.0], requires_grad=True)
    with forked(function) as answer:
        answer.function(x)
        answer.function(x)
    alike(x.grad, torch.tensor([12.0]))


def test_a_function_handed_over_is_called_back_gradients_and_all():
    weight = torch.tensor(5.0, requires_grad=True)
    with forked(lambda x, score: score(x * 2) + x) as answer:
        x = torch.tensor(3.0, requires_grad=True)
        found = torch.autograd.grad(answer.function(x, lambda y: weight * y), (x, weight))
    alike(list(found), [torch.tensor(11.0), torch.tensor(6.0)])


def test_writing_into_an_argument_is_seen_here():
    def function(x, rows, stream):
        rows.append(float(torch.rand((), generator=stream)))
        x.add_(1)

    x, rows, stream = torch.zeros(2), [1.0], torch.Generator().manual_seed(0)
    with forked(function) as answer:
        answer.function(x, rows=rows, stream=stream)
    own = torch.Generator().manual_seed(0)
    assert rows == [1.0, float(torch.rand((), generator=own))] and x.tolist() == [1, 1]
    assert torch.equal(stream.get_state(), own.get_state())


def test_random_numbers_follow_the_seed_here_and_ours_follow_nothing_there():
    def draws(call):
        with seeded(3):
            return [call(), torch.rand(2)]

    with forked(lambda: torch.rand(2)) as answer:
        got = draws(answer.function)
    with seeded(3):
        want = torch.rand(2)
    alike(got, [want, want])

    def meddling(say):
        torch.manual_seed(12345)
        say()

    with forked(meddling) as answer:
        assert torch.equal(draws(lambda: answer.function(lambda: None))[1], want)


def test_errors_keep_their_kind_and_none_ends_a_loop_of_the_check():
    def function(what):
        raise {"group": GroupError, "stop": StopIteration, "exit": SystemExit, "key": KeyboardInterrupt,
               "decode": lambda text: UnicodeDecodeError("utf-8", b"x", 0, 1, text), "none": NotImplementedError,
               "own": type("Own", (LookupError,), {})}[what](what)  # fmt: skip

    with forked(function) as answer:
        for what, kind in {"group": GroupError, "none": NotImplementedError, "own": LookupError}.items():
            with pytest.raises(kind, match=what):
                answer.function(what)
        for what in ("stop", "exit", "key", "decode"):
            with pytest.raises(RuntimeError) as caught:
                answer.function(what)
            assert type(caught.value) is RuntimeError


def test_an_error_of_a_check_comes_home_as_itself():
    error = KeyError("mine")

    def raising():
        raise error

    with forked(lambda call: call()) as answer, pytest.raises(KeyError) as caught:
        answer.function(raising)
    assert caught.value is error


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [lambda: iter([1]), lambda: b"bytes", lambda: np.array([object()]), lambda: torch.eye(2).to_sparse(),
     lambda: np.array(["text"]), object],
)  # fmt: skip
def test_other_things_are_not_handed_over(value):
    with forked(value) as answer, pytest.raises(TypeError, match="cannot be handed over"):
        answer.function()


def test_lists_within_themselves_are_not_handed_over():
    def function():
        rows = []
        rows.append(rows)
        return rows

    with forked(function) as answer, pytest.raises(ValueError, match="too deeply"):
        answer.function()


def test_an_answer_too_large_ends_the_channel():
    with forked(lambda: torch.zeros(BLOB // 4 + 1)) as answer:
        with pytest.raises(ChannelError, match="ended"):
            answer.function()
        with pytest.raises(ChannelError):
            answer.begin()


def replied(*messages, heard=0, seconds=5.0):
    """What a call gives where the other end says these bytes, whatever it was asked."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"".join(messages))
        there.shutdown(socket.SHUT_WR)
        peer = Peer(Line(here, lambda: seconds))
        peer.line.heard = heard
        exported = peer.export(torch.zeros(2, requires_grad=True))
        assert exported == 0
        try:
            return peer.call(0, (torch.zeros(2), [1]), {})
        except ChannelError:
            with pytest.raises(ChannelError):  # and it stays refused, even where a check has caught the error
                peer.call(0, (), {})
            raise


def message(header, blob=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">IQ", len(text), len(blob)) + text + blob


def value(said, blob=b"", **more):
    return message({"op": "return", "value": said, **more}, blob)


def tensor(**more):
    return {"k": "tensor", "d": "float32", "s": [2], "b": [0, 8], **more}


EIGHT = b"\0" * 8
MALFORMED = {
    "nothing": b"",
    "half a length": b"\0\0",
    "noise": bytes(range(256)),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.",
    "no JSON": message(b"{'op': 1}"),
    "half a sign": message(b'{"op": "\xff"}'),
    "nested without end": message(b"[" * 100_000),
    "a number without end": message(b'{"op": ' + b"9" * 5000 + b"}"),
    "a list": message([1]),
    "no kind": message({"value": 1}),
    "a kind that is a list": message({"op": ["return"]}),
    "out of turn": message({"op": "ready"}),
    "an end in the middle": value(tensor(), EIGHT)[:-3],
    "no value": message({"op": "return"}),
    "a value of no kind": value({"v": 1}),
    "a value of a strange kind": value({"k": "pickle", "v": "gASVCwAAAA=="}),
    "a bare list": value([1, 2]),
    "an object array": value({"k": "array", "d": "O8", "s": [1], "b": [0, 8]}, EIGHT),
    "a text array": value({"k": "array", "d": "U2", "s": [1], "b": [0, 8]}, EIGHT),
    "an unknown type": value(tensor(d="quint8"), EIGHT),
    "fewer bytes than it says": value(tensor(), b"\0" * 4),
    "more bytes than its shape": value(tensor(s=[1]), EIGHT),
    "bytes from before": value(tensor(b=[-8, 8]), EIGHT),
    "bytes from beyond": value(tensor(b=[4, 8]), EIGHT),
    "a shape below nothing": value(tensor(s=[-1, -2])),
    "a shape of fractions": value(tensor(s=[2.0]), EIGHT),
    "a shape of truths": value(tensor(s=[True, 2]), EIGHT),
    "a shape too large": value(tensor(s=[1 << 40, 1 << 40])),
    "empty rows too many": value(tensor(s=[1 << 40, 0], b=[0, 0])),
    "too many dimensions": value(tensor(s=[1] * 13, b=[0, 4]), EIGHT),
    "a gradient of whole numbers": value(tensor(d="int64", g=0, s=[1]), EIGHT),
    "an export that there is not": value(tensor(r=7)),
    "an export before the first": value(tensor(r=-1)),
    "an output hanging on nothing known": value(tensor(y=0, of=[["yours", 99, [2], "float32"]]), EIGHT),
    "an output hanging on too much": value(tensor(y=0, of=[["mine", 1, [1 << 30], "float32"]]), EIGHT),
    "a function that there is not": value({"k": "function", "r": 5}),
    "a record with a hidden field": value({"k": "record", "v": [["__class__", 1]]}),
    "a record with a field that is none": value({"k": "record", "v": [["a b", 1]]}),
    "a tuple with a keyword": value({"k": "tuple", "v": [1], "n": ["class"]}),
    "a tuple with too few names": value({"k": "tuple", "v": [1, 2], "n": ["a"]}),
    "a dictionary by lists": value({"k": "dict", "v": [[{"k": "list", "v": []}, 1]]}),
    "a complex number of text": value({"k": "complex", "v": ["x", 0]}),
    "a random stream past its end": value({"k": "generator", "b": [0, 5056]}, b"\xff" * 5056),
    "a random stream of another kind": value({"k": "rng", "v": {"bit_generator": "MT19937"}}),
    "values too deep": value(eval("{'k': 'list', 'v': [" * 60 + "1" + "]}" * 60)),
    "written where nothing is": value(1, written=[[5, 1]]),
    "written under a name that is none": value(1, written=[["x", 1]]),
    "written as no pair": value(1, written=[1]),
    "a gradient for nothing": value(1, grads=[[3, None]]),
    "an error that is a number": message({"op": "return", "error": 3}),
    "an error of no kind": message({"op": "return", "error": {"text": "x", "kinds": []}}),
    "a call of what was not handed over": message({"op": "call", "f": 0, "args": [], "kwargs": {}, "seed": None}),
    "a pull of what was not handed over": message({"op": "vjp", "y": 0, "g": None}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_messages_are_refused(name):
    with pytest.raises(ChannelError):
        replied(MALFORMED[name])


def test_the_same_frame_well_formed_is_taken():
    assert replied(value(tensor(), struct.pack("ff", 1, 2))).tolist() == [1, 2]
    assert replied(value(tensor(r=0))).requires_grad
    assert replied(value(1e400)) == math.inf


def test_sizes_are_capped_before_anything_is_read():
    for lengths in ((HEADER + 1, 0), (10, BLOB + 1), (1 << 31, 1 << 62)):
        with pytest.raises(ChannelError, match="more than the channel takes"):
            replied(struct.pack(">IQ", *lengths))
    with pytest.raises(ChannelError, match="more than the channel takes"):
        replied(value(1), heard=TOTAL)


def test_who_answers_byte_by_byte_gets_no_more_time():
    here, there = socket.socketpair()
    end = time.monotonic() + 0.5

    def left():
        if (seconds := end - time.monotonic()) <= 0:
            raise ChannelError("late")
        return seconds

    def drip():
        try:
            while True:
                there.sendall(b"\0")
                time.sleep(0.1)
        except OSError:
            pass

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    with pytest.raises(ChannelError):
        Line(here, left)._read(1 << 20)
    assert time.monotonic() - started < 5
    here.close()
    thread.join(5)
    there.close()


def test_nothing_is_ever_unpickled():
    for path in Path(wire.__file__).parent.parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for n in node.names}
        used |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        assert not used & {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}, path
        assert not called & {"torch.load", "np.load", "numpy.load", "eval"}, path
