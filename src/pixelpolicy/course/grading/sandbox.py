"""A process for one answer, shut in by bubblewrap: no network, nothing to read but Python, nothing to write to keep."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelpolicy import errors
from pixelpolicy.course.grading.wire import ChannelError, Line, Packer, Peer
from pixelpolicy.errors import GradingError

HERE = Path(__file__).parent
PACKAGE = Path(errors.__file__).parent
# what the course may not show to an answer, whatever an exercise forbids
_KEPT_BACK = ("pixelpolicy.course", "pixelpolicy.book", "pixelpolicy.checkpoints")
_MEGABYTE = 1 << 20
STARTING = 180.0  # seconds that python and torch may take before the answer's own time begins

# Which calls of the system end in "not permitted": new processes, other namespaces, sockets (some kinds, such as
# vsock, know no namespace), tracing, and doors of the kernel that no answer needs. clone3 is answered by "no such
# call", so that threads are made by clone, whose flags can be looked at.
_CALLS = {
    "x86_64": (0xC000003E, 56, {"fork": 57, "vfork": 58, "execveat": 322, "ptrace": 101, "mount": 165, "umount": 166,
               "unshare": 272, "setns": 308, "bpf": 321, "add_key": 248, "request_key": 249, "keyctl": 250,
               "userfaultfd": 323, "perf_event_open": 298, "io_uring_setup": 425, "socket": 41}),
    "aarch64": (0xC00000B7, 220, {"execveat": 281, "ptrace": 117, "mount": 40, "umount": 39, "unshare": 97,
                "setns": 268, "bpf": 280, "add_key": 217, "request_key": 218, "keyctl": 219, "userfaultfd": 282,
                "perf_event_open": 241, "io_uring_setup": 425, "socket": 198}),
}  # fmt: skip
_CLONE3, _CLONE_THREAD = 435, 0x00010000
_ALLOW, _DENY, _ABSENT, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


@dataclass(frozen=True)
class Limits:
    """What one exercise of one submission may use."""

    seconds: float = 60.0  # wall time, from the first line of the student's code to the last check
    cpu_seconds: int = 30  # of the student's code
    memory_mb: int = 1536  # that can be written, and addresses beyond what python and torch take
    address_mb: int = 8192  # in all
    file_mb: int = 16  # each file, and the private folder as a whole
    files: int = 64
    processes: int = 64  # threads; new processes there are none

    def resources(self) -> dict[str, int]:
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_DATA": self.memory_mb * _MEGABYTE,
            "RLIMIT_AS": self.address_mb * _MEGABYTE,
            "RLIMIT_FSIZE": self.file_mb * _MEGABYTE,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_CORE": 0,
        }


@functools.cache
def unavailable() -> str:
    """Why nothing can be shut in on this machine; empty where it can."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap runs on Linux alone"
    if platform.machine() not in _CALLS:
        return f"the filter of system calls is written for {' and '.join(_CALLS)}, not for {platform.machine()}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (on Debian and Ubuntu: apt install bubblewrap)"
    with tempfile.TemporaryDirectory() as folder, _filter() as rules:
        command = [*_bwrap(Path(folder), Path(folder), (), rules.fileno()), "/bin/true"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=30, pass_fds=[rules.fileno()])
    return "" if tried.returncode == 0 else f"bubblewrap does not start here: {tried.stderr.strip()[:300]}"


class NotStarted(Exception):
    """The process for an answer did not come up: nothing of the student's was run, and nothing is known of it."""


class Answer:
    """A student's function in a process of its own, as a context: `function` calls it; ends with the process dead.

    Raises GradingError where the machine cannot shut it in and `unsafe` is not set, NotStarted where the process does
    not come up, and ChannelError where it dies or is late before the function is there. What the code itself raised
    stands in `error`; `began` is when its time began, by the monotonic clock.
    """

    def __init__(
        self, name: str, code: list[str], imports: list[bool], library: Path, *, blocked: tuple[str, ...] = (),
        limits: Limits | None = None, unsafe: bool = False,
    ) -> None:  # fmt: skip
        if not unsafe and (why := unavailable()):
            raise GradingError(
                f"submissions cannot be shut in: {why}. Nothing was run. To run them with your own rights all the "
                "same, say --unsafe"
            )
        self.limits, self.unsafe = limits or Limits(), unsafe
        self.task = {
            "name": name, "code": code, "imports": imports, "blocked": list(blocked), "library": str(library),
            "limits": self.limits.resources(),
        }  # fmt: skip
        if unsafe:  # a limit on processes counts all that its user runs
            self.task["limits"].pop("RLIMIT_NPROC")
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
        process = getattr(self, "process", None)
        if process is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

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
            self.folder = Path(tempfile.mkdtemp(prefix="pixelpolicy-answer-"))
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
        python = [sys.executable, "-s", "-B", "-X", "utf8"]
        with there, _filter() as rules:
            if self.unsafe:
                command, where = [*python, str(HERE / "child.py")], self.folder
            else:
                library = Path(self.task["library"])
                command = _bwrap(HERE, library, tuple(self.task["blocked"]), rules.fileno(), self.limits.file_mb)
                command, where = [*command, *python, "/grader/child.py"], None
                self.task["library"] = "/library"
            self.process = subprocess.Popen(
                [*command, str(there.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=where,
                env=_environment(), pass_fds=[there.fileno(), rules.fileno()], start_new_session=True,
            )  # fmt: skip


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


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}  # fmt: skip


def _bwrap(grader: Path, library: Path, blocked: tuple[str, ...], rules: int, size_mb: int = 16) -> list[str]:
    """The command that shuts a program in."""
    size = str(size_mb * _MEGABYTE)
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    # before Python is bound, which may itself lie below /tmp
    command += ["--size", size, "--perms", "0700", "--tmpfs", "/tmp"]
    for place in ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"):
        command += ["--ro-bind-try", place, place]
    for place in sorted({sys.prefix, sys.base_prefix, *sys.exec_prefix.split("\0")}):
        if not place.startswith("/usr/") and place != "/usr":
            command += ["--ro-bind", place, place]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for file in ("child.py", "wire"):
        command += ["--ro-bind-try", str(grader / file), f"/grader/{file}"]
    command += ["--ro-bind", str(library), "/library"]
    for place in _masked(blocked):
        command += (
            ["--size", "4096", "--tmpfs", str(place)] if place.is_dir() else ["--ro-bind", "/dev/null", str(place)]
        )
    command += ["--size", size, "--tmpfs", "/dev/shm"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(rules)]


@functools.cache
def _masked(blocked: tuple[str, ...]) -> list[Path]:
    """Files and folders of modules that are out of reach, and of this course where it is installed among others."""
    found = []
    for scheme in ("purelib", "platlib"):
        found.append(Path(sysconfig.get_path(scheme)) / "pixelpolicy")
    for name in blocked:
        if (first := name.partition(".")[0]) in ("torch", "numpy", "pixelpolicy") or first in sys.stdlib_module_names:
            continue  # what the grader itself needs is taken away after it has started
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        for place in (spec.submodule_search_locations or [spec.origin]) if spec else ():
            found.append(Path(place))
            if str(place).endswith(".py"):
                found.append(Path(importlib.util.cache_from_source(place)))
    return sorted({place for place in found if place.exists()})


def _filter() -> Any:
    """The rules for system calls, as a file to be handed to bubblewrap."""
    arch, clone, denied = _CALLS.get(platform.machine(), _CALLS["x86_64"])
    load, equal, above, bits, end = 0x20, 0x15, 0x35, 0x45, 0x06
    rules = [(load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, _KILL), (load, 0, 0, 0)]
    rules += [(above, 0, 1, 0x40000000), (end, 0, 0, _KILL)]  # the x32 calls have numbers of their own
    rules += [(equal, 0, 1, _CLONE3), (end, 0, 0, _ABSENT)]
    for number in denied.values():
        rules += [(equal, 0, 1, number), (end, 0, 0, _DENY)]
    rules += [(equal, 0, 3, clone), (load, 0, 0, 16), (bits, 1, 0, _CLONE_THREAD), (end, 0, 0, _DENY)]
    rules += [(end, 0, 0, _ALLOW)]
    file = tempfile.TemporaryFile()
    file.write(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    file.flush()
    file.seek(0)
    return file
