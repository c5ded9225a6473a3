"""Nothing shuts the answer in: it runs with the grader's own rights. For those who ask for it in so many words."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

from pixelpolicy.course.grading.backends import bubblewrap, view
from pixelpolicy.course.grading.limits import Limits


def unavailable() -> str:
    """Empty: it can be had everywhere."""
    return ""


def start(channel: socket.socket, task: dict[str, Any], limits: Limits) -> Callable[[], None]:
    """Start `child.py` with `channel` in a folder of its own; what is returned ends it and clears the folder away."""
    task["limits"].pop("RLIMIT_NPROC")  # it would count all that its user runs
    folder = tempfile.mkdtemp(prefix="pixelpolicy-answer-")
    process = subprocess.Popen(
        [*view.PYTHON, str(view.GRADER / "child.py"), str(channel.fileno())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
        env=view.ENVIRONMENT, pass_fds=[channel.fileno()], start_new_session=True,
    )  # fmt: skip

    def end() -> None:
        bubblewrap.end(process)
        shutil.rmtree(folder, ignore_errors=True)

    return end
