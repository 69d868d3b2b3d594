"""Makes a file of ours of a source that cannot be read again where it is, or not as it stands, before there is a job.

Standard input, what is packed and what is elsewhere go through it. The copy is private. What stands under its final
name is whole; while it grows it has `.part` behind its name. Before and while it is written, room is left on the disk:
the ledger needs some, and a few packed bytes may become very many.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from anyio import CancelScope, to_thread
from msgspec import Struct

from engine.files import check_disk_room, make_private_folder, private, regular
from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.progress.events import Listener, SourceCopied, unheard
from engine.source.encodings import MARK_BYTES, Decoder, encoding_of
from engine.source.packed import HEAD_BYTES, Packing, Unpacker, packing_of
from engine.source.splitter import unreadable

PARQUET = b"PAR1\x15"
"""How Parquet begins: its mark, and the first byte of a page's or the file's own description."""
BLOCK_BYTES = 1 << 20
"""A pipe brings 64 KiB at a time; fewer, larger steps between threads cost less."""
_STEP_PIECES = 16
"""Unpacked pieces that are written before somebody may end the copying: a block may become thousands."""


class Original(Struct, frozen=True):
    """What a copy is made of."""

    name: str
    """What people know it by, without secrets."""
    size_bytes: int | None = None
    doing: str = "copied"
    """What people are told."""
    converted: bool = False
    """What is brought is written as it is: it is neither packed nor text in any encoding."""


async def spool(
    blocks: AsyncIterable[bytes], path: Path, original: Original, settings: SourceSettings, emit: Listener = unheard
) -> None:
    """Write what `blocks` bring to a private file at `path`, unpacked if it is packed, and text as UTF-8.

    Raises:
        SourceError: the disk is full or cannot be written, or the original is damaged. There is no file at `path` then.
    """
    try:
        writer = await to_thread.run_sync(_Writer, path, original, settings)
        try:
            _tell(emit, original, path, writer)
            async for block in blocks:
                await _all_written(writer, writer.made_of(block))
                _tell(emit, original, path, writer)
            await _all_written(writer, writer.rest())
            await to_thread.run_sync(writer.end)
        finally:
            writer.file.close()
        _tell(emit, original, path, writer, ended=True)
    except OSError as error:
        raise SourceError(
            f"{original.name} could not be spooled to {path} ({error.strerror or error}): make room, or name another "
            "folder with --output"
        ) from error
    finally:
        with suppress(OSError):
            _part_of(path).unlink()


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


class _Writer:
    """The copy as it grows; its methods run in threads, one after the other."""

    def __init__(self, path: Path, original: Original, settings: SourceSettings) -> None:
        make_private_folder(path.parent)
        check_disk_room(path.parent, original.size_bytes or 0)
        self.read_bytes = self.written_bytes = 0
        self._unpacker = None if original.converted else Unpacker(original.name, settings)
        self._decoder = Decoder(settings)
        self._part, self._path = _part_of(path), path
        for left in (self._part, path):  # by an attempt that was killed
            left.unlink(missing_ok=True)
        self.file: BinaryIO = open(self._part, "xb", opener=private)  # noqa: SIM115 - `spool` closes it

    def made_of(self, block: bytes) -> Iterator[bytes]:
        """Yield what a block becomes."""
        self.read_bytes += len(block)
        if self._unpacker is None:
            yield block
            return
        for piece in self._unpacker.feed(block):
            yield from self._decoder.feed(piece)

    def rest(self) -> Iterator[bytes]:
        """Yield what is left at the end."""
        if self._unpacker is not None:
            for piece in self._unpacker.finish():
                yield from self._decoder.feed(piece)
            yield from self._decoder.finish()

    def write(self, pieces: Iterator[bytes]) -> bool:
        """Write the next pieces; return whether there may be more."""
        for number, piece in enumerate(pieces, 1):
            check_disk_room(self._part.parent, len(piece))
            self.file.write(piece)
            self.written_bytes += len(piece)
            if number == _STEP_PIECES:
                return True
        return False

    def end(self) -> None:
        """Have it on disk, and give it its name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._part.replace(self._path)


async def _all_written(writer: _Writer, pieces: Iterator[bytes]) -> None:
    while await to_thread.run_sync(writer.write, pieces):
        pass


def _tell(emit: Listener, original: Original, path: Path, writer: _Writer, *, ended: bool = False) -> None:
    done, copied = writer.read_bytes, writer.written_bytes
    emit(SourceCopied(original.name, str(path), original.doing, done, original.size_bytes, copied, ended))


async def blocks_of_stream(stream: BinaryIO, name: str) -> AsyncIterator[bytes]:
    """Yield what a stream brings. If it brings nothing for ever, that holds up nobody who cancels.

    Raises:
        SourceError: it cannot be read.
    """
    while True:
        try:
            block = await to_thread.run_sync(stream.read, BLOCK_BYTES, abandon_on_cancel=True)
        except OSError as error:
            raise unreadable(name, error) from error
        if not block:
            return
        yield block


async def blocks_of_file(path: Path, name: str) -> AsyncIterator[bytes]:
    """Yield what is in a file.

    Raises:
        SourceError: it cannot be read.
    """
    import aiofiles  # noqa: PLC0415 - most files are no copies

    try:
        with CancelScope(shield=True):  # a thread opens it: canceled now, nobody would close it
            file = await aiofiles.open(path, "rb", opener=regular)
        try:
            while block := await file.read(BLOCK_BYTES):
                yield block
        finally:
            with CancelScope(shield=True):  # likewise
                await file.close()
    except OSError as error:
        raise unreadable(name, error) from error


def packing_at(path: Path) -> Packing | None:
    """Return how the file at `path` is packed; None if it is not, or cannot be read: whoever reads it says why."""
    return packing_of(_head(path, HEAD_BYTES))


def is_text_to_decode(path: Path, settings: SourceSettings) -> bool:
    """Return whether the file at `path`, which is not packed, is text that is to become UTF-8."""
    return bool(encoding_of(_head(path, MARK_BYTES), settings)[0])


def is_parquet(path: Path) -> bool:
    """Return whether the file at `path` is Parquet."""
    return _head(path, len(PARQUET)) == PARQUET


def _head(path: Path, length: int) -> bytes:
    with suppress(OSError), open(path, "rb", opener=regular) as file:
        return file.read(length)
    return b""


async def spool_rows(path: Path, copy: Path, name: str, settings: SourceSettings, emit: Listener = unheard) -> str:
    """Write the rows of the Parquet file at `path` as lines to `copy`; return how many each group of rows has.

    Raises:
        SourceError: as `spool`; or it is no whole Parquet file, or pyarrow is missing.
    """
    from engine.source.parquet import ParquetRows  # noqa: PLC0415 - loads pyarrow

    with CancelScope(shield=True):
        rows = await to_thread.run_sync(ParquetRows, path, name, settings)

    async def blocks() -> AsyncIterator[bytes]:
        lines = rows.lines()
        while (block := await to_thread.run_sync(next, lines, None)) is not None:
            yield block

    with rows:
        await spool(blocks(), copy, Original(name, doing="converted", converted=True), settings, emit)
    return rows.groups
