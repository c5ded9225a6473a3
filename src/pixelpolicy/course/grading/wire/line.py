"""Messages over a socket: two lengths, a JSON header, and a blob of bytes, the tensors that the header describes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from .bounds import BLOB, HEADER, TOTAL, ChannelError

_LENGTHS = struct.Struct(">IQ")


class Line:
    """One end of a connected socket, or of what sends and receives like one.

    `left` gives the seconds that remain, or raises ChannelError where none do.
    """

    def __init__(self, socket: Any, left: Callable[[], float] | None = None) -> None:
        self.socket, self.left = socket, left
        self.heard = 0

    def send(self, header: dict[str, Any], blob: bytes) -> None:
        text = json.dumps(header).encode()
        if len(text) > HEADER or len(blob) > BLOB:
            raise ChannelError(f"a message of {len(text) + len(blob)} bytes is too large for the channel")
        self.put(_LENGTHS.pack(len(text), len(blob)) + text + blob)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        length, size = _LENGTHS.unpack(self._read(_LENGTHS.size))
        self.heard += length + size
        if length > HEADER or size > BLOB or self.heard > TOTAL:
            raise ChannelError("it answered with more than the channel takes")
        try:
            header = json.loads(self._read(length))
        except (ValueError, RecursionError) as error:
            raise ChannelError("a message was no JSON") from error
        if not isinstance(header, dict) or not isinstance(header.get("op"), str):
            raise ChannelError("a message had no kind")
        return header, self._read(size)

    def put(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._settle()
            self.socket.sendall(data)  # the time limit holds for all of it together
        except OSError as error:
            raise ChannelError(f"the other end does not listen ({type(error).__name__})") from error

    def _read(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            self._settle()  # each time: who sends byte by byte is not to begin a new term with each
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

    def _settle(self) -> None:
        if self.left is not None:
            self.socket.settimeout(self.left())
