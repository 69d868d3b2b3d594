"""The port of the input formats: what a format is given and what it must offer.

The reader owns the file, the windows and the positions; a splitter knows only its format. The reader passes a `Window`
of bytes, and the splitter returns `Cut`s of whole records. Where a record is longer than every window, the splitter
returns a `Skip`, which finds the end of the record in constant memory.

The values of records (`rows`) are there only for who looks at them. Mostly nobody does: then the window has a `proof`,
a decoder that takes a text only if nobody needs its values. Where `json_text.proven` says that it takes each record of
a cut, the cut goes without rows (None). A splitter that knows nothing of proofs returns rows at all times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from engine.model.errors import SourceChanged, SourceError
from engine.model.record import Row, Source

BOM = b"\xef\xbb\xbf"
"""UTF-8's byte order mark; Excel and PowerShell write it, JSON and CSV parsers refuse it."""

CUT_RECORDS = 1000
"""Records in a cut: as many as a batch holds, so what is parsed ahead stays about one batch."""

WINDOW_PIECES = 1 << 16
"""Pieces that a window is split into at once, so one that grew for a long record never becomes millions of them."""

RecordProof: TypeAlias = msgspec.json.Decoder[Any]
"""Takes a record if nobody needs its values; of what it skips it checks neither the UTF-8 nor the nesting."""


class Window(msgspec.Struct, frozen=True):
    """Some bytes of a source, from where reading goes on."""

    source: Source
    offset: int
    """Joined offset of the first byte."""
    line: int
    """Line of the first byte."""
    data: bytes
    proof: RecordProof | None = None
    """None: the values of all records are needed, or the bytes are not all UTF-8."""

    @property
    def first(self) -> bool:
        """The source begins here."""
        return self.offset == self.source.base

    @property
    def last(self) -> bool:
        """The source ends with this window."""
        return self.offset + len(self.data) == self.source.end


class Cut(msgspec.Struct, frozen=True):
    """Consecutive records, good and bad, as columns; together with their separators they end at `end`."""

    offsets: Sequence[int]
    """Joined."""
    lengths: Sequence[int]
    lines: Sequence[int]
    raws: Sequence[bytes]
    """Each record as JSON text."""
    rows: Sequence[Row] | None
    """Each record, parsed; an empty row in place of a bad one. None: the window's proof takes each of them."""
    flaws: Mapping[int, str]
    """Position in the columns → why this record cannot be used."""
    end: int
    """Joined offset from which the next cut goes on."""
    end_line: int


class Skip(Protocol):
    """Finds the end of a record that is too long to be held."""

    @property
    def start(self) -> int:
        """Where in the window the record begins."""

    @property
    def unclosed(self) -> str:
        """What to add to the reject's reason if the source ends first; empty where that is a fair end."""

    def feed(self, data: bytes) -> int | None:
        """Take the next bytes from the record's start on; return where in them it ends, None if it does not."""


class Splitter(Protocol):
    """One source of one format. A new splitter per source; `raws` may be called from several threads."""

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole records of a window.

        None at all asks for a longer window; the last window of a source must be used up.
        """

    def skip(self, window: Window) -> Skip:
        """Return what finds the end of the record at the head of `window`."""

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return the JSON text of records that were good before, from their bytes in the source."""


@runtime_checkable
class WithHeader(Protocol):
    """What a splitter has besides if a header names the columns of all its records."""

    @property
    def columns(self) -> Sequence[str]:
        """Their names."""

    @property
    def delimiter(self) -> str:
        """What parts them."""


class SourceFile(AbstractContextManager["SourceFile"]):
    """An open source, read by joined offsets; safe to share between threads, since it has no cursor.

    Raises:
        SourceError: it cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            self._handle = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(source.path, error) from error

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from joined `offset` on.

        Raises:
            SourceChanged: the file ends before that.
            SourceError: the disk does not answer.
        """
        at, parts, missing = offset - self.source.base, [], length
        while missing:  # pread returns at most 2 GiB, and may return less
            try:
                part = os.pread(self._handle, missing, at)
            except OSError as error:
                raise unreadable(self.source.path, error) from error
            if not part:
                raise SourceChanged(f"{self.source.path} ends at byte {at}: it was cut short while it was read")
            parts.append(part)
            at, missing = at + len(part), missing - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def unreadable(path: str, error: OSError) -> SourceError:
    """Return the error to raise where the system cannot read a path."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path} does not exist: check the path, and the working directory if it is relative")
    if isinstance(error, PermissionError):
        return SourceError(f"{path} may not be read by this user: change its permissions")
    return SourceError(f"{path} cannot be read: {error.strerror or error}")


def too_long(max_record_bytes: int) -> str:
    """Return the reject's reason for a record over the limit."""
    return f"longer than max_record_bytes ({max_record_bytes})"
