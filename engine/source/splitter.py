"""What every input format offers: a window of bytes enters, cuts of whole records leave.

The reader owns the file, the windows and the positions; a splitter only knows its format. They meet in three values:
the reader passes a `Window`, the splitter returns `Cut`s, and where a record outgrows every window it lends a `Skip`,
which finds the record's end in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.model.record import Row, Source

BOM = b"\xef\xbb\xbf"
"""UTF-8's byte order mark; Excel and PowerShell write it, JSON and CSV parsers refuse it."""

CUT_RECORDS = 1000
"""Records in a cut: as many as a batch holds, so what is parsed ahead stays about one batch."""

WINDOW_PIECES = 1 << 16
"""Pieces that a window is split into at once, so one that grew for a long record never becomes millions of them."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some bytes of a source, from where reading goes on."""

    source: Source
    offset: int
    """Joined offset of the first byte."""
    line: int
    """Line of the first byte."""
    data: bytes = field(repr=False)

    @property
    def first(self) -> bool:
        """The source begins here."""
        return self.offset == self.source.base

    @property
    def last(self) -> bool:
        """The source ends with this window."""
        return self.offset + len(self.data) == self.source.end


@dataclass(frozen=True, slots=True)
class Cut:
    """Consecutive records, good and bad, as columns; together with their separators they end at `end`."""

    offsets: Sequence[int]
    """Joined."""
    lengths: Sequence[int]
    lines: Sequence[int]
    raws: Sequence[bytes]
    """Each record as JSON text."""
    rows: Sequence[Row]
    """Each record, parsed; an empty row in place of a bad one."""
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
        ...

    @property
    def unclosed(self) -> str:
        """What to add to the reject's reason if the source ends first; empty where that is a fair end."""
        ...

    def feed(self, data: bytes) -> int | None:
        """Take the next bytes from the record's start on; return where in them it ends, None if it does not."""
        ...


class Splitter(Protocol):
    """One source of one format. A new splitter per source; `raws` may be called from several threads."""

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole records of a window.

        None at all asks for a longer window; the last window of a source must be used up.
        """
        ...

    def skip(self, window: Window) -> Skip:
        """Return what finds the end of the record at the head of `window`."""
        ...

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return the JSON text of records that were good before, from their bytes in the source."""
        ...
