"""Fetches a file that is elsewhere into a file of ours. A download that broke off goes on where it stopped.

That takes a server that gives parts of a file and names its version (a strong ETag): the next part is asked for with
If-Match, so two versions are never joined. From other servers, and once the version has changed, all is fetched from
the start. What has come, and of which version it is, stays on disk: what a killed process has fetched serves the next.

`web_file` and `s3_file` know how to ask; this module knows files and patience.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import anyio.to_thread
import msgspec

from engine.files import check_disk_room, make_private_folder, private, regular
from engine.model.errors import SourceError, SourceUnreachable
from engine.progress.events import CallRetried, Listener, SourceCopied
from engine.progress.text import size

MOST_TRIES = 6
"""One after the other that bring nothing; the waits between them are a minute together."""
LONGEST_WAIT_SECONDS = 30.0
SYNC_BYTES = 16 << 20
"""What is on disk for good is noted so often; after a kill no more than this is fetched twice."""
_CALL = "download"


class DownloadBroken(Exception):
    """A download broke off, and may go on; says why."""


class Changed(Exception):
    """The file is not of the version any more that was asked for."""


class Part(msgspec.Struct, frozen=True):
    """What a server sends of a file: all from `start` on."""

    start: int
    size_bytes: int | None
    """Of the whole file; None if the server does not say."""
    version: str
    """Strong ETag; "" if there is none."""
    blocks: AsyncIterator[bytes]


class RemoteFile(Protocol):
    """A file that is elsewhere."""

    @property
    def name(self) -> str:
        """What people know it by, without secrets."""

    @property
    def file_name(self) -> str:
        """The last part of it, whose ending tells the format."""

    def read(self, start: int, version: str) -> AbstractAsyncContextManager[Part]:
        """Ask for the file from byte `start` on, if it still is of `version`; of no version, from the start.

        Raises:
            DownloadBroken: it may be asked again.
            Changed: it is another version.
            SourceError: it cannot be read.
        """

    async def version(self) -> str:
        """Return the version that the file has now; "" if that cannot be told."""


class _Note(msgspec.Struct, frozen=True):
    """What a file of ours that grows is a part of."""

    name: str
    version: str
    size_bytes: int | None
    synced_bytes: int
    """So many of it are on disk, whatever happens."""


async def download(remote: RemoteFile, path: Path, sleep: Callable[[float], Awaitable[None]], emit: Listener) -> str:
    """Fetch a file into a private one at `path`, and return its version. What is there of it already is kept.

    Raises:
        SourceUnreachable: it does not come, however often it is asked for. What has come stays for the next time.
        SourceError: it cannot be read, or not be written here.
    """
    growing = _GrowingCopy(remote.name, path)
    tries = 0
    try:
        growing.open()
        while True:
            before = growing.have
            try:
                await _go_on(remote, growing, emit)
            except Changed:
                why = "the file is another one by now: it is fetched from the start"
                growing.forget()
                tries += 1
            except DownloadBroken as error:
                why = str(error)
                tries = 1 if growing.have > before else tries + 1
            else:
                return growing.version
            if tries >= MOST_TRIES:
                kept = f"; the {size(growing.have)} that have come are kept in {path}" if growing.version else ""
                raise SourceUnreachable(
                    f"{remote.name} could not be fetched: {why}. Nothing was sent{kept}. Run the same command later"
                )
            wait = min(2.0**tries, LONGEST_WAIT_SECONDS)
            emit(CallRetried(_CALL, tries, wait, why))
            await sleep(wait)
    except OSError as error:
        raise SourceError(
            f"{remote.name} could not be written to {path} ({error.strerror or error}): make room, or name another "
            "folder with --output"
        ) from error
    finally:
        growing.close()


async def _go_on(remote: RemoteFile, growing: _GrowingCopy, emit: Listener) -> None:
    """Fetch what is missing.

    Raises:
        DownloadBroken: not all has come.
        Changed: it is another version.
    """
    whole = growing.have > 0 and growing.have == growing.size_bytes
    start = growing.have - whole if growing.version else 0  # the last byte of a whole file shows that it is the same
    async with remote.read(start, growing.version) as part:
        if part.start > growing.have or (part.start and part.version != growing.version):
            raise Changed
        growing.begin(part)
        check_disk_room(growing.path.parent, (part.size_bytes or 0) - growing.have)
        _tell(emit, growing)
        async for block in part.blocks:
            await anyio.to_thread.run_sync(growing.write, block)
            _tell(emit, growing)
    if growing.size_bytes is not None and growing.have < growing.size_bytes:
        raise DownloadBroken(f"the connection ended after {growing.have:,} of {growing.size_bytes:,} bytes")
    if growing.size_bytes is not None and growing.have > growing.size_bytes:
        raise Changed
    await anyio.to_thread.run_sync(growing.sync)
    _tell(emit, growing, ended=True)


def _tell(emit: Listener, growing: _GrowingCopy, *, ended: bool = False) -> None:
    have, path = growing.have, str(growing.path)
    emit(SourceCopied(growing.name, path, "fetched", have, growing.size_bytes, have, ended))


def note_of(path: Path) -> Path:
    """Return where it is noted what the growing file at `path` is a part of."""
    return path.with_name(f"{path.name}.note")


class _GrowingCopy:
    """A file as it comes, and the note beside it. What is not synced is kept within one process only."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.have = 0
        self.version = ""
        self.size_bytes: int | None = None
        self._file: BinaryIO | None = None
        self._synced = 0

    def open(self) -> None:
        """Open the file with what an earlier process has fetched of it."""
        make_private_folder(self.path.parent)
        left = self._left()
        self._file = open(self.path, "ab", opener=private)  # noqa: SIM115 - `close` does
        if left is None:
            self._cut(0)
        else:
            self._cut(left.synced_bytes)
            self.version, self.size_bytes = left.version, left.size_bytes

    def _left(self) -> _Note | None:
        with suppress(OSError, msgspec.DecodeError), open(note_of(self.path), "rb", opener=regular) as file:
            note = msgspec.json.decode(file.read(), type=_Note)
            if note.name == self.name and note.version and note.synced_bytes <= self.path.stat().st_size:
                return note
        return None

    def _cut(self, length: int) -> None:
        assert self._file is not None  # noqa: S101 - `open` comes first
        self._file.flush()
        self._file.truncate(length)
        self.have = self._synced = length

    def begin(self, part: Part) -> None:
        """Keep what stands before a part, and take note of what it is a part of."""
        if part.start < self.have:
            self._cut(part.start)
        self.version, self.size_bytes = part.version, part.size_bytes
        self._note()

    def forget(self) -> None:
        """Begin from the start: what has come is of another version."""
        self._cut(0)
        self.version, self.size_bytes = "", None

    def write(self, block: bytes) -> None:
        """Write what follows."""
        assert self._file is not None  # noqa: S101 - likewise
        check_disk_room(self.path.parent, len(block))
        self._file.write(block)
        self.have += len(block)
        if self.have - self._synced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Have all on disk that has come."""
        assert self._file is not None  # noqa: S101 - likewise
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = self.have
        self._note()

    def _note(self) -> None:
        note = _Note(self.name, self.version, self.size_bytes, self._synced)
        path = note_of(self.path)
        fresh = path.with_name(f"{path.name}.part")
        fresh.unlink(missing_ok=True)
        with open(fresh, "xb", opener=private) as file:
            file.write(msgspec.json.encode(note))
        fresh.replace(path)

    def close(self) -> None:
        """Close the file; what has come is kept."""
        if self._file is not None:
            with suppress(OSError):
                self.sync()
            self._file.close()
