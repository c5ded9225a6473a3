"""Cutting a process off the network, to prove that a lab needs none.

`python -m pixelpolicy.course.network -f FILE` is an IPython kernel so cut: tests and `run_lab(network=False)` start it.
"""

from __future__ import annotations

import os
import socket
import sys
from ipaddress import ip_address
from typing import Any

from pixelpolicy.errors import PixelPolicyError


class NetworkCut(PixelPolicyError, ConnectionError):
    """A connection outside this machine was asked for where the network is cut."""


def cut_network() -> None:
    """From now on every connection of this process outside loopback raises NetworkCut, and so does every look-up.

    HF_HUB_OFFLINE is set to 1. There is no way back: call it in a process of its own.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _see(host)
        return look_up(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


def kernel_command(*, network: bool) -> list[str]:
    """The command that starts an IPython kernel of this interpreter, `{connection_file}` standing for its file."""
    module = "ipykernel_launcher" if network else "pixelpolicy.course.network"
    return [sys.executable, "-m", module, "-f", "{connection_file}"]


def _guarded(whole: Any) -> Any:
    def call(self: socket.socket, *args: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _see(args[-1][0])  # the address is the last argument of each of them
        return whole(self, *args)

    return call


def _see(host: Any) -> None:
    """Raise NetworkCut unless `host` is this machine."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return
    try:
        here = ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if not here:
        raise NetworkCut(
            f"the network is cut, and a connection to {host!r} was asked for: a lab may use only what is installed "
            "or in the repository"
        )


if __name__ == "__main__":
    from ipykernel.kernelapp import launch_new_instance

    # the module's own name, so that NetworkCut is one class and not two
    from pixelpolicy.course.network import cut_network as cut

    cut()
    launch_new_instance()
