"""A process for one answer, shut in: no network, nothing to read but Python, nothing to write to keep."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from pixelpolicy import errors
from pixelpolicy.course.grading.backends import backend_of
from pixelpolicy.course.grading.limits import Limits
from pixelpolicy.course.grading.wire import ChannelError, Line, Packer, Peer

PACKAGE = Path(errors.__file__).parent
# what the course may not show to an answer, whatever an exercise forbids
_KEPT_BACK = ("pixelpolicy.course", "pixelpolicy.book", "pixelpolicy.checkpoints")
STARTING = 180.0  # seconds that python and torch may take before the answer's own time begins


class NotStarted(Exception):
    """The process for an answer did not come up: nothing of the student's was run, and nothing is known of it."""


class Answer:
    """A student's function in a process of its own, as a context: `function` calls it; ends with the process dead.

    Raises GradingError where the backend cannot shut it in on this machine, NotStarted where the process does not come
    up, and ChannelError where it dies or is late before the function is there. What the code itself raised
    stands in `error`; `began` is when its time began, by the monotonic clock.
    """

    def __init__(
        self, name: str, code: list[str], imports: list[bool], library: Path, *, blocked: tuple[str, ...] = (),
        limits: Limits | None = None, backend: str = "bubblewrap",
    ) -> None:  # fmt: skip
        self.backend, self.limits = backend_of(backend), limits or Limits()
        self.task = {
            "name": name, "code": code, "imports": imports, "blocked": list(blocked), "library": str(library),
            "limits": self.limits.resources(),
        }  # fmt: skip
        self.error: BaseException | None = None
        self.began: float | None = None

    def __enter__(self) -> Answer:
        self.deadline = time.monotonic() + STARTING
        try:
            self._come_up()
            ready, _ = self.peer.wait("ready")
            self.error = self.peer.error_of(ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        if hasattr(self, "socket"):
            self.socket.close()
        if hasattr(self, "end"):
            self.end()

    def begin(self) -> None:
        """Forget the tensors handed over so far; the function stays."""
        if self.peer.fault:
            raise ChannelError(self.peer.fault)
        self.peer.reset()
        self.peer.send({"op": "begin"}, Packer(None))

    def function(self, *args: Any, **kwargs: Any) -> Any:
        """Call the student's function."""
        return self.peer.call(0, args, kwargs)

    def _come_up(self) -> None:
        """Start the process and hand it its task; up to here nothing of the student's has run."""
        try:
            self.socket, there = socket.socketpair()
            line = Line(self.socket, self._left)
            self.peer = Peer(line, errors=lambda name: getattr(errors, name, None), own_stream=True)
            self._start(there)
            text = json.dumps(self.task).encode()
            line.put(len(text).to_bytes(4, "big") + text)
            self.peer.wait("up")
        except (OSError, ChannelError) as error:
            raise NotStarted(f"its process did not come up ({error})") from error
        self.began = time.monotonic()
        self.deadline = self.began + self.limits.seconds

    def _left(self) -> float:
        """The seconds that remain before the answer's deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ChannelError(f"it took longer than its {self.limits.seconds:g} seconds")
        return left

    def _start(self, there: socket.socket) -> None:
        with there:
            self.end = self.backend.start(there, self.task, self.limits)


@functools.cache
def version() -> str:
    """A digest of all the package's text: of the graders, the checks, and the library that answers are given."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def library_without(forbidden: tuple[str, ...], folder: Path) -> Path:
    """A copy of the course's library that lacks what an exercise forbids, its checks, and its checkpoints.

    Returns the folder to import it from, made once below `folder` for each set of names.
    """
    names = sorted({*_KEPT_BACK, *(name for name in forbidden if name.partition(".")[0] == "pixelpolicy")})
    parts = hashlib.sha256("\0".join([version(), *names]).encode()).hexdigest()
    place = folder / f"library-{parts[:20]}"
    if place.is_dir():
        return place
    hidden = {PACKAGE.parent.joinpath(*name.split(".")).with_suffix(end) for name in names for end in ("", ".py")}
    # a name below a module (an object in it) hides the whole module: its text would give the object away
    hidden |= {path.parent.with_suffix(".py") for path in hidden if path.parent.with_suffix(".py").is_file()}
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder, prefix=".library-"))
    for path in PACKAGE.rglob("*.py"):
        if not any(path == bad or bad in path.parents for bad in hidden):
            target = made / path.relative_to(PACKAGE.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    os.chmod(made, 0o755)
    try:
        made.rename(place)
    except OSError:  # another worker was first
        shutil.rmtree(made)
    return place
