"""What shuts an answer's process in. Each module is one way, with the same two functions:

- `unavailable()` says why it cannot be done on this machine, empty where it can;
- `start(channel, task, limits)` starts `child.py` with one end of a connected socket, and returns the function that
  ends it; it may change the task, which is handed over afterwards, to what holds inside.

`view` is what an answer sees of the machine, `calls` what it may not ask of the kernel.
"""

from types import ModuleType

from pixelpolicy.course.grading.backends import bubblewrap, docker, unsafe
from pixelpolicy.errors import GradingError

BACKENDS: dict[str, ModuleType] = {"bubblewrap": bubblewrap, "docker": docker, "unsafe": unsafe}


def backend_of(name: str) -> ModuleType:
    """The backend of that name, once it can shut answers in here. Raises GradingError where it cannot."""
    if name not in BACKENDS:
        raise GradingError(f"there is no backend {name!r}: {', '.join(BACKENDS)} are what there is")
    if why := BACKENDS[name].unavailable():
        raise GradingError(
            f"submissions cannot be shut in: {why}. Nothing was run. To run them with your own rights all the same, "
            "say --unsafe"
        )
    return BACKENDS[name]
