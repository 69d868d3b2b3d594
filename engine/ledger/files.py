"""Files and folders that only their owner can use, whatever the umask, and locks on files.

Called by the ledger, and by whoever makes a folder for reports. SQLite gives -wal and -shm the mode of the file they
belong to, so one private file makes three.

A lock is held by one process at most. flock belongs to the open file, so the kernel frees it when the process dies,
however it dies. Lock files stay: removing one that another process is just opening would let two of them in. `is_held`
takes the lock shared for an instant; whoever wants it meanwhile finds that it can share it too, so no process holds it,
and tries again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.model.errors import JobLocked

_OWNER_ONLY_FILE = 0o600
_OWNER_ONLY_FOLDER = 0o700


def make_private_folder(path: Path) -> None:
    """Create the folders of `path` that are missing, durably (Path.mkdir would leave its parents to the umask)."""
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir(mode=_OWNER_ONLY_FOLDER, exist_ok=True)
            _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    """Make the entries of a folder durable. SQLite does so for the ledger's own folder, not for those above it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_file(path: Path) -> None:
    """Create an empty file, unless there is one: an owner may have opened an old one to others on purpose."""
    if not path.exists():
        os.close(_open_private(path))


def _open_private(path: Path) -> int:
    """Return a descriptor of a file, created if need be; refuse a symbolic link, which may lead anywhere."""
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _OWNER_ONLY_FILE)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for the lock and hold it for a moment."""
    descriptor = _open_private(path)
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
    descriptor = _open_private(path)
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
