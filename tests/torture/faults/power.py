"""A disk whose power goes at a chosen sync: what SQLite wrote enters, the files as they are found afterwards leave.

Of what was written since the last sync, a disk may have kept any part in any order; `Tail` names those that are tried.
The process lays the files down as such a disk would have kept them, and dies: nothing runs on after the power is gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import apsw

SYSTEM = apsw.vfs_names()[0]
"""By its name, for an empty one would mean the default: this disk itself."""


class Tail(StrEnum):
    """What is kept of writes that were not synced."""

    DROPPED = "dropped"
    TORN = "torn"
    """The first half of them, the last of these in part: the write that was under way."""
    REORDERED = "reordered"
    """The second half of them."""
    STRAY = "stray"
    """Nothing of the file that is synced, all of the others."""
    WHOLE = "whole"
    """All of the file that is synced: the power goes when the disk is done, and nobody has heard of it."""


@dataclass(frozen=True, slots=True)
class Write:
    """Data at an offset, or the new end of the file."""

    offset: int
    data: bytes | None

    @property
    def torn(self) -> Write:
        return self if self.data is None else Write(self.offset, self.data[: len(self.data) // 2])

    def apply(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.offset - len(content))))
        if self.data is None:
            del content[self.offset :]
        else:
            content[self.offset : self.offset + len(self.data)] = self.data


@dataclass
class Image:
    """A file as the disk has it."""

    kept: bytearray
    pending: list[Write] = field(default_factory=list)

    def keep(self, writes: Iterable[Write]) -> bytes:
        for write in writes:
            write.apply(self.kept)
        return bytes(self.kept)

    def sync(self) -> None:
        self.keep(self.pending)
        self.pending.clear()

    def surviving(self, tail: Tail, *, synced: bool) -> list[Write]:
        """Return the writes that are kept, of the file that is synced or of another."""
        middle = (len(self.pending) + 1) // 2
        if tail is (Tail.WHOLE if synced else Tail.STRAY):
            return self.pending
        if synced and tail is Tail.TORN:
            head = self.pending[:middle]
            return [*head[:-1], *(last.torn for last in head[-1:])]
        return self.pending[middle:] if synced and tail is Tail.REORDERED else []


class FailingPower(apsw.VFS):
    """The file system that SQLite takes where it is not told of one; at sync number `cut_at` the process dies."""

    def __init__(self, cut_at: int, tail: Tail) -> None:
        self._cut_at, self._tail = cut_at, tail
        self._syncs = 0
        self._images: dict[str, Image] = {}
        super().__init__("failing power", SYSTEM, makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802 - apsw looks for these names
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path not in self._images:
            self._images[path] = Image(bytearray(Path(path).read_bytes() if Path(path).exists() else b""))
        return _File(self, self._images[path], name, flags)

    def xDelete(self, name, sync_folder):  # noqa: N802 - apsw's name
        self._images.pop(name, None)
        super().xDelete(name, sync_folder)

    def sync(self, image: Image) -> None:
        self._syncs += 1
        if self._syncs == self._cut_at:
            self._go_dark(image)
        image.sync()

    def _go_dark(self, synced: Image) -> None:
        for path, image in self._images.items():
            Path(path).write_bytes(image.keep(image.surviving(self._tail, synced=image is synced)))
            Path(f"{path}-shm").unlink(missing_ok=True)  # it is memory
        os.kill(os.getpid(), signal.SIGKILL)


class _File(apsw.VFSFile):
    def __init__(self, disk, image, name, flags):
        self._disk, self._image = disk, image
        super().__init__(SYSTEM, name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - apsw's name
        self._image.pending.append(Write(offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size):  # noqa: N802 - apsw's name
        self._image.pending.append(Write(size, None))
        super().xTruncate(size)

    def xSync(self, flags):  # noqa: N802 - apsw's name
        self._disk.sync(self._image)
        super().xSync(flags)
