"""Which calls of the system end in "not permitted" for an answer.

New processes, other namespaces, sockets (some kinds, such as vsock, know no namespace), tracing, and doors of the
kernel that no answer needs. clone3 is answered by "no such call", so that threads are made by clone, whose flags can
be looked at.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys
from typing import Any

# by machine: its number of architecture, the number of clone, and the numbers of what is denied
_CALLS = {
    "x86_64": (0xC000003E, 56, {"fork": 57, "vfork": 58, "execveat": 322, "ptrace": 101, "mount": 165, "umount2": 166,
               "unshare": 272, "setns": 308, "bpf": 321, "add_key": 248, "request_key": 249, "keyctl": 250,
               "userfaultfd": 323, "perf_event_open": 298, "io_uring_setup": 425, "socket": 41}),
    "aarch64": (0xC00000B7, 220, {"execveat": 281, "ptrace": 117, "mount": 40, "umount2": 39, "unshare": 97,
                "setns": 268, "bpf": 280, "add_key": 217, "request_key": 218, "keyctl": 219, "userfaultfd": 282,
                "perf_event_open": 241, "io_uring_setup": 425, "socket": 198}),
}  # fmt: skip
_CLONE3, _CLONE_THREAD = 435, 0x00010000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def unavailable() -> str:
    """Why calls cannot be refused on this machine; empty where they can."""
    if not sys.platform.startswith("linux"):
        return "answers can be shut in on Linux alone"
    if platform.machine() not in _CALLS:
        return f"the filter of system calls is written for {' and '.join(_CALLS)}, not for {platform.machine()}"
    return ""


def program() -> bytes:
    """The rules as a program for the kernel's filter (struct sock_filter, seccomp(2))."""
    arch, clone, denied = _CALLS[platform.machine()]
    load, equal, above, bits, end = 0x20, 0x15, 0x35, 0x45, 0x06
    deny, absent = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    rules = [(load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, _KILL), (load, 0, 0, 0)]
    rules += [(above, 0, 1, 0x40000000), (end, 0, 0, _KILL)]  # the x32 calls have numbers of their own
    rules += [(equal, 0, 1, _CLONE3), (end, 0, 0, absent)]
    for number in denied.values():
        rules += [(equal, 0, 1, number), (end, 0, 0, deny)]
    rules += [(equal, 0, 3, clone), (load, 0, 0, 16), (bits, 1, 0, _CLONE_THREAD), (end, 0, 0, deny)]
    rules += [(end, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *rule) for rule in rules)


def profile() -> dict[str, Any]:
    """The same rules as a profile of Docker's. Calls of another architecture end the process there too."""
    denied = [*_CALLS[platform.machine()][2]]
    no_thread = {"index": 0, "value": _CLONE_THREAD, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [f"SCMP_ARCH_{platform.machine().upper()}"],
        "syscalls": [
            {"names": denied, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM, "args": [no_thread]},
        ],
    }
