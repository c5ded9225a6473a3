"""What an answer may use."""

from __future__ import annotations

from dataclasses import dataclass

_MEGABYTE = 1 << 20


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
