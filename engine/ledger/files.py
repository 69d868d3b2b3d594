"""Locks on files, for the ledger; and the file of the ledger itself, made for its owner only.

A lock is held by one process at most. flock belongs to the open file, so the kernel frees it when the process dies,
however it dies. Lock files stay: removing one that another process is just opening would let two of them in. `is_held`
takes the lock shared for an instant; whoever wants it meanwhile finds that it can share it too, so no process holds it,
and tries again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.files import private, refuse_foreign
from engine.model.errors import JobLocked

_BESIDE = ("-wal", "-shm", "-journal")
"""SQLite makes them beside the ledger, with its mode; and it reads into the ledger what it finds in them."""


def make_ledger_file(path: Path) -> None:
    """Create an empty file, unless there is one; refuse what somebody else may have put there.

    An owner may have let others read an old one on purpose: that stays so.
    """
    try:
        os.close(private(path, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    except FileExistsError:  # not opened: closing it again would take the locks of SQLite off it, all of this process's
        refuse_foreign(path)
    for ending in _BESIDE:
        with suppress(FileNotFoundError):
            refuse_foreign(path.with_name(path.name + ending))


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for the lock and hold it for a moment."""
    descriptor = private(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold the lock, the file naming this process; `what` is what it then works on.

    Raises:
        JobLocked: another process holds it, and which.
    """
    descriptor = private(path, os.O_CREAT | os.O_RDWR)
    try:
        if not _acquire(descriptor):
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise JobLocked(f"process {holder} is working on {what}. Wait until it ends, or stop it first.")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock."""
    try:
        descriptor = private(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int) -> bool:
    while not _try(descriptor, fcntl.LOCK_EX):
        if not _try(descriptor, fcntl.LOCK_SH):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
