"""What runs inside the sandbox: it takes a student's code, and serves calls of one function over the channel.

Started as `python child.py FD`, a connected socket, or as `python child.py IN OUT`, two pipes. The first message holds
the limits, the code, the function's name, and the modules that are out of reach; limits are set before any of the
student's code is read.
"""

import __future__

import builtins
import json
import linecache
import math
import os
import resource
import socket
import sys
import time
import types


def main() -> None:
    ends = [int(number) for number in sys.argv[1:]]
    channel = socket.socket(fileno=ends[0]) if len(ends) == 1 else Pipes(*ends)
    length = int.from_bytes(channel.recv(4, socket.MSG_WAITALL), "big")
    task = json.loads(channel.recv(length, socket.MSG_WAITALL))
    for name, most in task["limits"].items():
        if name != "RLIMIT_CPU":
            resource.setrlimit(getattr(resource, name), (most, most))
    sys.path.insert(0, task["library"])
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import torch
    from wire import Line, Packer, Peer

    torch.set_num_threads(1)
    peer = Peer(Line(channel))
    blocked(task["blocked"])
    from_here(task["limits"])
    peer.send({"op": "up"}, Packer(peer))
    answer, function = {"op": "ready"}, None
    try:
        space = defined(task, peer)
        function = space[task["name"]]
        if not callable(function):
            raise TypeError(f"{task['name']} is a {type(function).__name__}, not a function")
    except BaseException as error:
        answer["error"] = peer.described(error)
    peer.send(answer, Packer(peer))
    serve(peer, function)


class Pipes:
    """Two pipes that do for the channel what a socket would; what held their places then leads nowhere."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = os.dup(reads), os.dup(writes)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for place in (reads, writes):
            os.dup2(nowhere, place)
        os.close(nowhere)

    def recv(self, count: int, flags: int = 0) -> bytes:
        data = os.read(self.reads, count)
        while flags & socket.MSG_WAITALL and 0 < len(data) < count:
            more = os.read(self.reads, count - len(data))
            if not more:
                break
            data += more
        return data

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.writes, view) :]


def from_here(limits: dict) -> None:
    """Limits that count from here, as what python and torch took is not the answer's: CPU time, and room of any kind.

    RLIMIT_DATA knows private memory alone; what is shared, with nobody, is memory too, and takes addresses.
    """
    if "RLIMIT_CPU" in limits:
        most = math.ceil(time.process_time()) + limits["RLIMIT_CPU"]
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    if "RLIMIT_AS" in limits and "RLIMIT_DATA" in limits:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        most = min(limits["RLIMIT_AS"], taken + limits["RLIMIT_DATA"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def serve(peer, function) -> None:
    """Answer calls of `function` until the other end has gone; "begin" makes both ends forget what they exchanged."""
    while True:
        peer.wait("begin")
        peer.reset()
        peer.functions = [function]


def blocked(names: list) -> None:
    """Take modules out of reach: importing one raises ImportError, and no package holds it as an attribute."""
    for name in names:
        for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            sys.modules[module] = None
        sys.modules[name] = None
        package, _, last = name.rpartition(".")
        if package in sys.modules and hasattr(sys.modules[package], last):
            delattr(sys.modules[package], last)


def defined(task: dict, peer) -> dict:
    """The names that the student's code brings in; an import that fails leaves its name undefined."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    space = vars(module)
    space["__builtins__"] = builtins
    for number, text in enumerate(task["code"]):
        place = f"<cell {number}>"
        linecache.cache[place] = (len(text), None, text.splitlines(True), place)
        flags = __future__.annotations.compiler_flag
        code = compile(text, place, "exec", flags=flags, dont_inherit=True)
        try:
            exec(code, space)
        except ImportError:
            if not task["imports"][number]:
                raise
    return space


if __name__ == "__main__":
    try:
        main()
    except Exception:
        os._exit(3)
