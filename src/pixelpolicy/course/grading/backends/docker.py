"""Docker: a container without an image of its own, which sees what bubblewrap would show, through a running engine.

A container outlives the grader where that is killed. Each says until when it may live, and what is past its time is
ended when the next grader asks whether Docker is there.
"""

from __future__ import annotations

import functools
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pixelpolicy.course.grading.backends import bubblewrap, calls, view
from pixelpolicy.course.grading.limits import Limits

IMAGE = "pixelpolicy-nothing:1"  # an image without a file
_UNTIL = "pixelpolicy.until"
SPARE = 900.0  # seconds that a container may live beyond the answer's own
_NOBODY = 65534


@functools.cache
def unavailable() -> str:
    """Why nothing can be shut in by Docker on this machine; empty where it can."""
    if why := calls.unavailable() or view.incomplete():
        return why
    if shutil.which("docker") is None:
        return "docker is not installed (on Debian and Ubuntu: apt install docker.io)"
    if (asked := _docker("version", "--format", "{{.Server.Os}}")).returncode:
        return f"Docker's engine does not answer: {_said(asked)}"
    if _docker("image", "inspect", IMAGE).returncode:
        nothing = io.BytesIO()
        tarfile.open(fileobj=nothing, mode="w").close()
        if (made := _docker("import", "-", IMAGE, input=nothing.getvalue())).returncode:
            return f"Docker's engine takes no image: {_said(made)}"
    _end_what_is_left()
    with tempfile.TemporaryDirectory() as folder, _rules() as rules:
        os.chmod(folder, 0o755)
        command = [*_command(name := _name(), Path(folder), (), Limits(), rules), *view.PYTHON, "-c", ""]
        tried = subprocess.run(command, capture_output=True, timeout=60, pass_fds=[rules.fileno()])
    _docker("rm", "--force", name)
    return "" if tried.returncode == 0 else f"a container does not start here: {_said(tried)}"


def start(channel: socket.socket, task: dict[str, Any], limits: Limits) -> Callable[[], None]:
    """Start `child.py` in a container whose standard streams are `channel`; what is returned ends it."""
    library, name = Path(task["library"]), _name()
    task["library"] = view.LIBRARY
    task["limits"].pop("RLIMIT_NPROC")  # it would count over all containers of one user
    with _rules() as rules:
        command = [*_command(name, library, tuple(task["blocked"]), limits, rules), *view.PYTHON, "/grader/child.py"]
        process = subprocess.Popen(
            [*command, "0", "1"], stdin=channel, stdout=channel, stderr=subprocess.DEVNULL,
            pass_fds=[rules.fileno()], start_new_session=True,
        )  # fmt: skip

    def end() -> None:
        _docker("rm", "--force", name)
        bubblewrap.end(process)

    return end


def _command(name: str, library: Path, blocked: tuple[str, ...], limits: Limits, rules: IO[bytes]) -> list[str]:
    """The command that shuts a program in; the program's own words follow it."""
    user, group = (os.getuid(), os.getgid()) if os.getuid() else (_NOBODY, _NOBODY)
    private = f"rw,nosuid,nodev,noexec,size={limits.file_mb << 20},nr_inodes=10000"
    until = int(time.time() + limits.seconds + SPARE)
    command = ["docker", "run", "--interactive", "--pull", "never", "--log-driver", "none", "--name", name]
    command += ["--label", f"{_UNTIL}={until}", "--network", "none", "--ipc", "private", "--read-only"]
    command += ["--user", f"{user}:{group}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    command += ["--security-opt", f"seccomp=/dev/fd/{rules.fileno()}", "--pids-limit", str(limits.processes)]
    command += ["--tmpfs", f"/tmp:{private},mode=0700,uid={user},gid={group}", "--workdir", "/tmp"]
    command += ["--tmpfs", f"/dev/shm:{private},mode=1777"]
    for variable, value in view.ENVIRONMENT.items():
        command += ["--env", f"{variable}={value}"]
    for place, inside in view.seen(library).items():
        command += ["--mount", f"type=bind,source={place.resolve()},target={inside},readonly"]
    for place in view.masked(blocked):
        if place.is_dir():
            command += ["--tmpfs", f"{place}:ro,size=4096"]
        else:
            command += ["--mount", f"type=bind,source=/dev/null,target={place},readonly"]
    return [*command, IMAGE]


def _rules() -> IO[bytes]:
    return view.as_file(json.dumps(calls.profile()).encode())


def _name() -> str:
    return f"pixelpolicy-answer-{secrets.token_hex(8)}"


def _end_what_is_left() -> None:
    """End containers that are past their time: those of a grader that was killed."""
    form = f'{{{{.ID}}}} {{{{.Label "{_UNTIL}"}}}}'
    listed = _docker("ps", "--all", "--filter", f"label={_UNTIL}", "--format", form)
    for line in listed.stdout.decode().splitlines():
        container, until = line.split()
        if time.time() > int(until):
            _docker("rm", "--force", container)


def _docker(*words: str, input: bytes | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(["docker", *words], input=input, capture_output=True, timeout=60)


def _said(process: subprocess.CompletedProcess) -> str:
    return process.stderr.decode(errors="replace").strip()[:300]
