"""bubblewrap: a process in namespaces of its own, without rights and without a service that must run."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pixelpolicy.course.grading.backends import calls, view
from pixelpolicy.course.grading.limits import Limits


@functools.cache
def unavailable() -> str:
    """Why nothing can be shut in by bubblewrap on this machine; empty where it can."""
    if why := calls.unavailable() or view.incomplete():
        return why
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (on Debian and Ubuntu: apt install bubblewrap)"
    with tempfile.TemporaryDirectory() as folder, view.as_file(calls.program()) as rules:
        command = [*_command(Path(folder), (), Limits(), rules), "/bin/true"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=30, pass_fds=[rules.fileno()])
    return "" if tried.returncode == 0 else f"bubblewrap does not start here: {tried.stderr.strip()[:300]}"


def start(channel: socket.socket, task: dict[str, Any], limits: Limits) -> Callable[[], None]:
    """Start `child.py` with `channel`; what is returned ends it."""
    library = Path(task["library"])
    task["library"] = view.LIBRARY
    with view.as_file(calls.program()) as rules:
        command = [*_command(library, tuple(task["blocked"]), limits, rules), *view.PYTHON, "/grader/child.py"]
        process = subprocess.Popen(
            [*command, str(channel.fileno())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=view.ENVIRONMENT, pass_fds=[channel.fileno(), rules.fileno()], start_new_session=True,
        )  # fmt: skip
    return functools.partial(end, process)


def end(process: subprocess.Popen) -> None:
    """End a process that leads a group, and with it all that it holds."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _command(library: Path, blocked: tuple[str, ...], limits: Limits, rules: IO[bytes]) -> list[str]:
    """The command that shuts a program in; the program's own words follow it."""
    size = str(limits.file_mb << 20)
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in view.ENVIRONMENT.items():
        command += ["--setenv", name, value]
    # before Python is bound, which may itself lie below /tmp
    command += ["--size", size, "--perms", "0700", "--tmpfs", "/tmp"]
    for place, inside in view.seen(library).items():
        command += ["--ro-bind", str(place), inside]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for place in view.masked(blocked):
        nothing = ["--size", "4096", "--tmpfs"] if place.is_dir() else ["--ro-bind", "/dev/null"]
        command += [*nothing, str(place)]
    command += ["--size", size, "--tmpfs", "/dev/shm"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(rules.fileno())]
