"""A source's path enters, its bytes leave; whatever the disk has to say is mapped to the engine's errors here."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from engine.model.errors import SourceChanged, SourceError
from engine.model.record import Source


class SourceFile(AbstractContextManager["SourceFile"]):
    """An open source, read by joined offsets; safe to share between threads, since it has no cursor."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._handle = open_file(source.path)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from joined `offset` on.

        Raises:
            SourceChanged: the file ends before that.
            SourceError: the disk does not answer.
        """
        at = offset - self.source.base
        data = self._read_once(at, length)
        while len(data) < length:  # pread returns at most 2 GiB, and may return less
            more = self._read_once(at + len(data), length - len(data))
            if not more:
                raise SourceChanged(
                    f"{self.source.path} ends at byte {at + len(data)}: it was cut short while it was read"
                )
            data += more
        return data

    def _read_once(self, at: int, length: int) -> bytes:
        try:
            return os.pread(self._handle, length, at)
        except OSError as error:
            raise unreadable(self.source.path, error) from error

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def open_file(path: str) -> int:
    """Open a file for reading and return its descriptor."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> SourceError:
    """Map what the system says of a path."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path} does not exist: check the path, and the working directory if it is relative")
    if isinstance(error, PermissionError):
        return SourceError(f"{path} may not be read by this user: change its permissions")
    return SourceError(f"{path} cannot be read: {error.strerror or error}")
