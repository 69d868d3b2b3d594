"""Says why an address cannot be listened on, who has it, and which one is free: for all that serve on this machine."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

_TRIES = 100
"""Ports after the one that is taken."""
_LISTENS = "0A"
"""The state of a socket that listens, in the kernel's tables."""
_RESERVED = 1024
"""Ports below it are for root."""


def no_port(error: OSError, host: str, port: int, cure: Callable[[int], str]) -> str:
    """Return what to say of an address that cannot be listened on: why, who has it, and what to do.

    Args:
        error: of the attempt.
        host: an address or a name of this machine.
        port: the one that was asked for.
        cure: what a person writes to have another port, as `--port 8801`.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        free = next(_free_ports(host, port), 0)
        return f"cannot listen on {where}: {_taken_by(port)} has it. End that, or take a free one: {cure(free)}"
    if error.errno == errno.EACCES and port < _RESERVED:
        free = next(_free_ports(host, port + 8000), 0)
        return f"cannot listen on {where}: ports below {_RESERVED} are for root. Take a free one: {cure(free)}"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"cannot listen on {where}: {host} is no address of this machine; 127.0.0.1 always is"
    return f"cannot listen on {where}: {os.strerror(error.errno) if error.errno else error}"


def _taken_by(port: int) -> str:
    """Return which process listens on a port, as far as this user may see it."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # of another user, or just gone
            if any(str(one.readlink()) in inodes for one in (process / "fd").iterdir()):
                name = (process / "comm").read_text(errors="replace").strip()
                return f"process {process.name} ({name})"
    return "another process"


def _listening_inodes(port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port, at whichever address."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError, ValueError):  # not Linux
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _free_ports(host: str, after: int) -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(after + 1, min(after + _TRIES, 1 << 16)):
        with suppress(OSError), closing(socket.socket(family)) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio's servers do
            tried.bind((host, port))
            yield port
