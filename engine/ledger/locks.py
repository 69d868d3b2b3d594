"""The path of a lock file enters; the right to work on a job leaves, for as long as this process lives.

flock belongs to the open file, so the kernel frees it when the process dies, however it dies. Lock files stay: removing
one that another process is just opening would let two of them in. A look at a lock takes it shared for an instant;
whoever wants it meanwhile finds that it can share it too, so no process holds it, and tries again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.ledger.files import open_private
from engine.model.errors import JobLocked


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _acquire(descriptor: int) -> bool:
    while not _try(descriptor, fcntl.LOCK_EX):
        if not _try(descriptor, fcntl.LOCK_SH):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for the lock and hold it for a moment."""
    descriptor = open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold(path: Path, job: str) -> Iterator[None]:
    """Hold the lock, the file naming this process.

    Raises:
        JobLocked: another process holds it, and which.
    """
    descriptor = open_private(path)
    try:
        if not _acquire(descriptor):
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise JobLocked(f"process {holder} is working on job {job!r}. Wait until it ends, or stop it first.")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
