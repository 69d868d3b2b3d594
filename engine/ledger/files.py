"""A path enters; a file or folder that only its owner can use leaves, whatever the umask.

SQLite gives -wal and -shm the mode of the file they belong to, so one private file makes three.
"""

from __future__ import annotations

import os
from pathlib import Path

_OWNER_ONLY_FILE = 0o600
_OWNER_ONLY_FOLDER = 0o700


def make_private_folder(path: Path) -> None:
    """Create the folders of `path` that are missing, durably (Path.mkdir would leave its parents to the umask)."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
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
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _OWNER_ONLY_FILE)
    except FileExistsError:
        return
    os.close(descriptor)


def open_private(path: Path) -> int:
    """Return a descriptor of a file, created if need be; refuse a symbolic link, which may lead anywhere."""
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _OWNER_ONLY_FILE)
