r"""The JSON array format: each element of one array of objects is a record.

Where an element ends is known in two ways. The exact way scans strings and brackets. The quick way guesses: most
arrays are written by a program and have the same bytes between all their elements, from the closing brace over the
comma to the next element's first key. The window is split at those bytes. A piece that begins where an element begins,
and that orjson takes as a whole object, *is* that element, so the next piece begins where an element begins, too. A
piece that orjson refuses is scanned instead, up to where pieces and elements meet again. So a wrong guess costs time
but never a record, and each byte is scanned once and parsed twice at most.

Elements end at a comma or bracket outside their own brackets; orjson judges whatever stands between. So one broken
element is one reject, as long as its brackets and quotes balance; if not, one reject takes the rest of the file.

Reading may go on before a separator, where a block ended, or at an element, where a batch ended.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, repeat, takewhile

import orjson

from engine.model.record import Row
from engine.model.settings import SourceSettings
from engine.source.json_text import BLANKS, ElementScan, parse
from engine.source.splitter import CUT_RECORDS, WINDOW_PIECES, Cut, SourceFile, Window

_OPENED = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*(\[?)[ \t\r\n]*")
_SEPARATED = re.compile(rb"[ \t\r\n]*(?:,[ \t\r\n]*)?")
_BLANK = re.compile(rb"[ \t\r\n]*")
_BETWEEN = re.compile(rb'([ \t\r\n]*,[ \t\r\n]*)(\{)([ \t\r\n]*"[^"\\]{0,256}"[ \t\r\n]*:)?')
"""From one element to the next one's first key."""

_OPENINGS = 8
"""First keys that are remembered: some writers begin with an optional one. Each new one splits a window again."""

_NOT_OPENED = "the file does not begin with [, so it is no JSON array; records on lines of their own are format ndjson"
_NOT_CLOSED = "the array is not closed: its ] is missing, so the file may have been cut short"
_GOES_ON = "text after the array's closing ]: put all records into one array, or on lines of their own as NDJSON"
_UNBALANCED = "; brackets or quotes do not balance, so the rest of the file cannot be told apart"


def open_splitter(_file: SourceFile, settings: SourceSettings) -> JsonArraySplitter:
    """Return the splitter of a JSON array: it has no header to be read."""
    return JsonArraySplitter(settings.max_record_bytes)


class JsonArraySplitter:
    """The elements of one array; a `Splitter`."""

    def __init__(self, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._separator: _Separator | None = None
        self._guess_key = True

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole elements of a window."""
        elements = _ArrayWindow(window, self._max_record_bytes, self._separator, guess_key=self._guess_key)
        while elements.advance():
            if elements.full:
                yield elements.cut()
        if elements.pending:
            yield elements.cut()
        self._separator = None if elements.misguessed else elements.separator
        self._guess_key ^= elements.misguessed

    def skip(self, window: Window) -> ElementScan:
        """Return what finds the end of the element at the head of `window`."""
        before = (_OPENED if window.first else _SEPARATED).match(window.data)
        return ElementScan(before.end() if before else 0)

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return `slices`: they are JSON."""
        return slices


@dataclass(frozen=True, slots=True)
class _Separator:
    """A guess of the bytes between elements."""

    gap: bytes
    """From the end of one element to the beginning of the next."""
    openings: tuple[bytes, ...]
    """How elements begin: with a brace, and with a first key where that is guessed, too."""

    def split(self, data: bytes) -> list[bytes]:
        """Return `data` in pieces, of which each but the last one is followed by the gap and an opening."""
        if len(self.openings) > 1:
            beginning = b"|".join(map(re.escape, self.openings))
            return re.split(re.escape(self.gap) + b"(?=" + beginning + b")", data, maxsplit=WINDOW_PIECES)
        (opening,) = self.openings
        first, *others = data.split(self.gap + opening, WINDOW_PIECES)  # in a third of a pattern's time
        return [first, *[opening + other for other in others]]


class _ArrayWindow:
    """Walks over the elements of one window: `advance`, take a `cut` whenever `full`, and at the end if `pending`.

    `separator` is what an earlier window has learnt, if any; with `guess_key`, a new one holds the first key.
    """

    def __init__(self, window: Window, max_record_bytes: int, separator: _Separator | None, *, guess_key: bool) -> None:
        self.separator = separator
        self._window = window
        self._data = window.data
        self._source_end = window.source.end - window.offset
        self._max_record_bytes = max_record_bytes
        self._guess_key = guess_key
        self._pieces: list[bytes] = []
        self._edges: list[int] = []  # where each piece begins, and at last where the one after them does
        self._quick = self._exact = 0
        self._tried = CUT_RECORDS  # pieces at once
        self._multiline = b"\n" in window.data
        self._counted, self._line = 0, window.line
        self._clear()
        self._at = self._enter()
        if self._at is not None:
            self._split(self._at)

    def _clear(self) -> None:
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._raws: list[bytes] = []
        self._rows: list[Row] = []
        self._flaws: dict[int, str] = {}
        self._end: int | None = None  # where the cut ends, if not with its last element

    @property
    def full(self) -> bool:
        """There are enough elements for a whole cut."""
        return len(self._starts) >= CUT_RECORDS

    @property
    def pending(self) -> bool:
        """There are elements, or an end, that no cut has taken."""
        return bool(self._starts) or self._end is not None

    @property
    def misguessed(self) -> bool:
        """The guess failed too often: keys vary, so it should go without; or objects are nested, so it needs one."""
        return self._exact > 2 + (self._quick >> 3)

    def advance(self) -> bool:
        """Take the next elements; return whether more may follow in this window."""
        if self._at is not None:
            following = self._take_pieces(self._at)
            self._at = self._take_element(self._at) if following is None else following
        if self._edges[-1:] == [self._at] and not self._window.last:
            self._at = None  # the next window begins with what is not whole in this one
        return self._at is not None

    def cut(self) -> Cut:
        """Return the elements taken since the last cut."""
        offset, data, starts = self._window.offset, self._data, self._starts
        edges = [self._counted, *starts]
        newlines = map(data.count, repeat(b"\n"), edges, starts) if self._multiline else repeat(0, len(starts))
        lines = list(accumulate(newlines, initial=self._line))
        end = starts[-1] + self._lengths[-1] if self._end is None else self._end
        self._counted, self._line = end, lines[-1] + data.count(b"\n", edges[-1], end)
        cut = Cut(
            offsets=[offset + start for start in starts],
            lengths=self._lengths,
            lines=lines[1:],
            raws=self._raws,
            rows=self._rows,
            flaws=self._flaws,
            end=offset + end,
            end_line=self._line,
        )
        self._clear()
        return cut

    def _enter(self) -> int | None:
        """Return where the first element begins; None if the window has none."""
        if self._window.first:
            return self._enter_array()
        return self._element_after(_skip_blanks(self._data, 0))

    def _enter_array(self) -> int | None:
        opened = _OPENED.match(self._data)
        at = opened.end() if opened else 0
        if opened and opened[1]:
            return self._element_or_close(at)
        if at < len(self._data):
            self._lose(at, _NOT_OPENED)
        elif self._window.last:
            self._end = at  # nothing but blanks is no record
        return None

    def _element_after(self, at: int) -> int | None:
        """Return where the next element begins, from where the one before it ended."""
        if self._data[at : at + 1] != b",":
            return self._element_or_close(at)
        return self._element_or_end(_skip_blanks(self._data, at + 1))

    def _element_or_close(self, at: int) -> int | None:
        if self._data[at : at + 1] != b"]":
            return self._element_or_end(at)
        self._close(at)
        return None

    def _element_or_end(self, at: int) -> int | None:
        if at < len(self._data):
            return at
        if self._window.last:
            self._lose(at, _NOT_CLOSED)
        return None

    def _close(self, at: int) -> None:
        """End the array at its bracket: nothing but blanks may follow."""
        rest = _skip_blanks(self._data, at + 1)
        if rest < len(self._data):
            self._lose(rest, _GOES_ON)
        elif self._window.last:
            self._end = rest

    def _lose(self, at: int, reason: str) -> None:
        """Reject all from `at` to the end of the source."""
        start = min(at, self._source_end - 1)  # a reject stands on a byte, be it the last one of a record
        self._add(start, b"", {}, reason)
        self._lengths[-1] = self._source_end - start
        self._end = self._source_end

    def _add(self, start: int, raw: bytes, row: Row, flaw: str | None) -> None:
        if flaw is not None:
            self._flaws[len(self._starts)] = flaw
        self._starts.append(start)
        self._lengths.append(len(raw))
        self._raws.append(raw)
        self._rows.append(row)

    def _take_element(self, at: int) -> int | None:
        """Take one element the exact way; return where the next one begins, None if this window has none."""
        end = ElementScan().feed(self._data, at)
        if end is None and not self._window.last:
            return None
        raw = self._data[at:end].rstrip(BLANKS)
        (row,), flaws = parse([raw], self._max_record_bytes)
        flaw = flaws.get(0)
        if end is None and flaw is not None:
            self._lose(at, flaw + _UNBALANCED)
            return None
        self._add(at, raw, row, flaw)
        self._exact += 1
        if end is None:
            self._lose(len(self._data), _NOT_CLOSED)
            return None
        following = self._element_after(end)
        if following is not None and (self._learn(at + len(raw)) or not self._edges):
            self._split(following)
        return following

    def _learn(self, end: int) -> bool:
        """Guess the separator from what follows the element that ends at `end`; return whether the guess is new."""
        between = _BETWEEN.match(self._data, end)
        if between is None:
            return False
        gap, brace, key = between.groups(b"")
        opening = brace + key if self._guess_key else brace
        known = self.separator.openings if self.separator else ()
        if self.separator and (self.separator.gap != gap or opening in known or len(known) == _OPENINGS):
            return False
        self.separator = _Separator(gap, (*known, opening))
        return True

    def _split(self, start: int) -> None:
        """Split the window from an element's `start` on: once, and again for each opening that is learnt in it."""
        if self.separator is None or self._data[start : start + 1] != b"{":
            return
        self._pieces = self.separator.split(self._data[start:])
        self._pieces.pop()  # its end is not in the window
        gap_bytes = len(self.separator.gap)
        self._edges = list(accumulate([len(piece) + gap_bytes for piece in self._pieces], initial=start))

    def _take_pieces(self, at: int) -> int | None:
        """Take the pieces from `at` on that are elements; return where the next one begins, None if there are none."""
        first = bisect_left(self._edges, at)
        if first >= len(self._pieces) or self._edges[first] != at:
            return None
        pieces = self._pieces[first : first + min(self._tried, CUT_RECORDS - len(self._starts))]
        taken = _parsed_until_failure(pieces, self._rows, self._max_record_bytes)
        # Few after a failure: with a thousand at hand for each that fails, bad ones took the square of their number.
        self._tried = 1 if taken < len(pieces) else self._tried * 4
        if not taken:
            return None
        self._starts += self._edges[first : first + taken]
        self._lengths += map(len, pieces[:taken])
        self._raws += pieces[:taken]
        self._quick += taken
        return self._edges[first + taken]


def _skip_blanks(data: bytes, at: int) -> int:
    blank = _BLANK.match(data, at)
    return blank.end() if blank else at


def _parsed_until_failure(pieces: Sequence[bytes], rows: list[Row], max_record_bytes: int) -> int:
    """Parse pieces onto `rows` until one is no JSON or too long; return how many were taken."""
    before = len(rows)
    fitting = pieces
    if max(map(len, pieces), default=0) > max_record_bytes:
        fitting = list(takewhile(lambda piece: len(piece) <= max_record_bytes, pieces))
    with suppress(orjson.JSONDecodeError):
        rows.extend(map(orjson.loads, fitting))  # keeps what came before an error
    return len(rows) - before
