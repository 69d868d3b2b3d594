"""Files and folders that only their owner can use, whatever the umask, and none that somebody else has put there first.

The ledger, the spool, the reports, the bench and the sandbox's journal are opened through it. What is new is made by us
(O_EXCL). What is there must be a regular file of this user, without a second name, and not writable by everybody: a
link or a pipe with the name of our file would lead our records elsewhere, or hold us for ever.

A folder that everybody may write into is refused, unless only owners may move things in it (sticky, as /tmp is). A
group that may write is trusted: somebody has chosen its members.

No refusal says to remove a file: it may be a ledger, and all that a job has done would be done again.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

DEFAULT_LEDGER = Path(".bulksubmit/ledger.db")
"""Remembers the jobs of the working folder, if it is there. This very object stands for a ledger that nobody has named:
`find_ledger` says where that is."""
LEDGER_VARIABLE = "BULKSUBMIT_LEDGER"

DISK_ROOM_BYTES = 64 * 1024 * 1024
"""Left on a disk by all that is written beside a run: without room for its ledger the run would end."""

_OWNER_ONLY_FILE = 0o600
_OWNER_ONLY_FOLDER = 0o700


def find_ledger(configured: Path | str | None = None) -> Path | str:
    """Return where the ledger is that nobody has named: the first of four places. Only the first two may be a URL.

    The variable, the configuration, the working folder if it has a ledger, the user's folder for data.

    Raises:
        ConfigError: it would be in the home folder, and this user has none.
    """
    if named := os.environ.get(LEDGER_VARIABLE):
        return named
    if configured is not None:
        return configured
    if any(os.path.lexists(f"{DEFAULT_LEDGER}{ending}") for ending in ("", "-wal")):  # a WAL alone: it was parted
        return DEFAULT_LEDGER
    return _data_folder() / DEFAULT_LEDGER.name


def folder_for_jobs() -> Path:
    """Return the folder for what jobs write whose ledger is no file: that of a ledger which nobody has named.

    Raises:
        ConfigError: it would be in the home folder, and this user has none.
    """
    return DEFAULT_LEDGER.parent if DEFAULT_LEDGER.parent.is_dir() else _data_folder()


def _data_folder() -> Path:
    """Return our folder in the user's folder for data.

    That is $XDG_DATA_HOME, by https://specifications.freedesktop.org/basedir-spec/latest, and needs no HOME: cron may
    set none.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or "")  # one that is not absolute does not count
    if not data.is_absolute():
        data = Path(os.path.expanduser("~/.local/share"))  # noqa: PTH111 - Path.expanduser raises a RuntimeError
    if not data.is_absolute():
        from engine.model.errors import ConfigError  # noqa: PLC0415 - the completion of a shell waits for each import

        raise ConfigError(
            f"no ledger is named, and this user has no home folder: --ledger or {LEDGER_VARIABLE} names one"
        )
    return data / "bulksubmit"


def make_private_folder(path: Path) -> None:
    """Create the folders of `path` that are missing, durably (Path.mkdir would leave its parents to the umask).

    Raises:
        OSError: it cannot be made, or everybody may write into it.
    """
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir(mode=_OWNER_ONLY_FOLDER, exist_ok=True)
            sync_folder(folder.parent)
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise _refusal(path, "everybody may write into this folder: chmod o-w, or name a folder of your own")


def has_disk_room(folder: Path, more_bytes: int = 0) -> bool:
    """Return whether DISK_ROOM_BYTES and `more_bytes` are left on the disk of a folder; not of one that is missing."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize >= DISK_ROOM_BYTES + more_bytes


def check_disk_room(folder: Path, more_bytes: int) -> None:
    """Raise an OSError unless `more_bytes` can be written to a folder and DISK_ROOM_BYTES be left."""
    if not has_disk_room(folder, more_bytes):
        short = f"{os.strerror(errno.ENOSPC)} for {more_bytes:,} bytes and a reserve of {DISK_ROOM_BYTES:,}"
        raise OSError(errno.ENOSPC, short, str(folder))


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable. SQLite does so for the ledger's own folder, not for those above it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private(path: str | Path, flags: int) -> int:
    """Return a descriptor of a file of ours; an `opener` of Python's `open`, too, with which it is "xb" or "ab".

    With O_CREAT it is made if there is none, with O_EXCL it must be new.

    Raises:
        OSError: it cannot be opened, or somebody else may have put it there.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if flags & os.O_CREAT:
        try:
            return os.open(path, flags | os.O_EXCL, _OWNER_ONLY_FILE)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
    refuse_foreign(path)  # before it is opened: to open a device may have effects
    descriptor = os.open(path, flags & ~os.O_CREAT | os.O_NONBLOCK)
    try:
        _check_ours(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole private file in the place of `path`.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    beside = path.with_name(f".{path.name}.partial")
    beside.unlink(missing_ok=True)
    try:
        with open(beside, "xb", opener=private) as file:
            file.write(content)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def refuse_foreign(path: str | Path) -> None:
    """Refuse what is at `path`, if somebody else may have put it there.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it is not ours; says why, and what to do.
    """
    _check_ours(path, os.lstat(path))


def refuse_foreign_link(path: Path) -> None:
    """Refuse a symbolic link that somebody else has made. One of our own may lead to a file of ours."""
    if path.is_symlink() and path.lstat().st_uid not in {os.geteuid(), 0}:
        raise _refusal(path, f"it is a link of user {path.lstat().st_uid}: name the file that it should lead to")


def regular(path: str | Path, flags: int) -> int:
    """Return a descriptor of a file that is read; an `opener`. A pipe or a device would hold us for ever.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refusal(path, "it is no regular file: move it away, or name another path")
    return descriptor


def explains_itself(error: OSError) -> bool:
    """Return whether it is a refusal of this module, which says what is so and what to do."""
    return error.errno == errno.EPERM and error.strerror != os.strerror(errno.EPERM)


def _check_ours(path: str | Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _refusal(path, "it is a symbolic link: put the file itself in its place, or name another path")
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "it is no regular file: move it away, or name another path")
    if status.st_uid != os.geteuid():
        raise _refusal(
            path, f"it belongs to user {status.st_uid}: run as that user, chown it, or use a copy of it at another path"
        )
    if status.st_nlink > 1:
        name, copy = shlex.quote(str(path)), shlex.quote(f"{path}.copy")
        raise _refusal(
            path,
            "it has a second name (a hard link, as `cp -al` makes), and what is written here would stand there, too. "
            f"Once no process works on it, make it a file of its own: cp -p {name} {copy} && mv {copy} {name}",
        )
    if status.st_mode & stat.S_IWOTH:
        raise _refusal(path, "everybody may write it: if it is yours, chmod o-w")


def _refusal(path: str | Path, why: str) -> OSError:
    return OSError(errno.EPERM, why, str(path))
