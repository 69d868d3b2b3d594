r"""The JSON array format: each element of one array of objects is a record.

Where elements end is known in two ways. The exact way scans strings and brackets, one element after the other. The
quick one takes many at once, up to a guessed place: most arrays have the same bytes between all their elements, from
the comma to the next one's first keys, and the last such bytes of a window probably part two elements. msgspec reads
the text before that place as an array and says which bytes each element has. If it refuses, one element is taken the
exact way. The next guess then looks four times as far as that one went, so guesses cost a few times what the exact way
costs at most, and a wrong one never costs a record.

Elements end at a comma or bracket outside their own brackets; `parse` judges whatever stands between. So one broken
element is one reject, as long as its brackets and quotes balance; if not, one reject takes the rest of the file.

Reading may go on before a separator, where a block ended, or at an element, where a batch ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat

import msgspec

from engine.model.record import Row
from engine.model.settings import SourceSettings
from engine.source.json_text import BLANKS, ElementScan, parse, proven
from engine.source.splitter import CUT_RECORDS, Cut, Skip, SourceFile, Window

_BLANK = rb"[ \t\r\n]*"
_OPENED = re.compile(rb"(?:\xef\xbb\xbf)?_(?P<within>\[_(?P<closing>\]_)?)?".replace(b"_", _BLANK))
_SEPARATED = re.compile(rb"_(?P<within>,_|(?P<closing>\]_)?)".replace(b"_", _BLANK))
_BETWEEN = re.compile(rb'(((?P<gap>_,_)\{)(?:_"[^"\\]{0,256}"_:)?)(?:_\{_"[^"\\]{0,256}"_:)?'.replace(b"_", _BLANK))
"""From one element over the next one's brace to its first key, and to that one's first: the longer, the rarer."""

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode

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
        self._between: re.Match[bytes] | None = None

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole elements of a window."""
        elements = _ArrayWindow(window, self._max_record_bytes, self._between)
        yield from elements.cuts()
        self._between = elements.between

    def skip(self, window: Window) -> Skip:
        """Return what finds the end of the element at the head of `window`."""
        before = _matched(_OPENED if window.first else _SEPARATED, window.data)
        return _Rest(before.start("closing") + 1) if before["closing"] else ElementScan(before.end())

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return `slices`: they are JSON."""
        return slices


class _Rest:
    """All that is left of a source: behind the array are more blanks than a window holds; a `Skip`."""

    unclosed = "; " + _GOES_ON

    def __init__(self, start: int) -> None:
        self.start = start

    def feed(self, data: bytes) -> None:
        """Find no end in `data`."""


def _matched(pattern: re.Pattern[bytes], data: bytes, at: int = 0) -> re.Match[bytes]:
    found = pattern.match(data, at)
    assert found is not None  # noqa: S101 - the patterns take no bytes at all, too
    return found


class _ArrayWindow:
    """The elements of one window; `between` is what was found last between two elements, if any."""

    def __init__(self, window: Window, max_record_bytes: int, between: re.Match[bytes] | None) -> None:
        self.between = between
        self._window = window
        self._data = window.data
        self._proof = window.proof
        self._max_record_bytes = max_record_bytes
        self._multiline = b"\n" in window.data
        self._counted, self._line = 0, window.line
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._raws: list[bytes] = []
        self._done = 0  # so many are in a cut
        self._unproved = 0  # so many, up to the last one that no proof has taken
        self._lost = ""  # why the last element is a reject that takes all the rest
        self._end: int | None = None  # where the last cut ends, if not with its last element

    def cuts(self) -> Iterator[Cut]:
        """Yield the elements."""
        at = self._element(_matched(_OPENED if self._window.first else _SEPARATED, self._data))
        reach = len(self._data)
        while at is not None:
            following = self._take_many(at, at + reach)
            if following is None:
                following = self._take_one(at)
            elif at + reach >= len(self._data) and not self._window.last:
                following = None  # the next window begins with what is not whole in this one
            reach = 4 * ((following or at) - at)
            at = following
            while len(self._offsets) - self._done >= CUT_RECORDS:
                yield self._cut()
        if self._done < len(self._offsets) or self._end is not None:
            yield self._cut()

    def _cut(self) -> Cut:
        """Return the next elements that no cut has taken."""
        taken = slice(self._done, self._done + CUT_RECORDS)
        offsets, lengths, raws = self._offsets[taken], self._lengths[taken], self._raws[taken]
        rows: Sequence[Row] | None = None
        flaws: dict[int, str] = {}
        if self._unproved > self._done or not raws:
            rows, flaws = parse(raws, self._max_record_bytes)
        self._done += len(raws)
        end = offsets[-1] + lengths[-1] if offsets else 0
        if self._done == len(self._raws):
            end, self._end = end if self._end is None else self._end, None
            if self._lost:
                flaws[len(raws) - 1] = self._lost
        lines = self._lines_at(offsets)
        return Cut(offsets, lengths, lines, raws, rows, flaws, end, self._lines_at([end])[0])

    def _lines_at(self, offsets: Sequence[int]) -> Sequence[int]:
        """Return the lines of what stands there, behind all that was asked for before."""
        if not self._multiline:
            return [self._line] * len(offsets)
        places = [self._counted, *[offset - self._window.offset for offset in offsets]]
        newlines = map(self._data.count, repeat(b"\n"), places, places[1:])
        first, *lines = accumulate(newlines, initial=self._line)
        self._counted, self._line = places[-1], lines[-1] if lines else first
        return lines

    def _element(self, before: re.Match[bytes]) -> int | None:
        """Return where the element begins that follows `before`; None if this window has none."""
        at = before.end()
        outside = _GOES_ON if before["closing"] else _NOT_OPENED if before["within"] is None else ""
        if at < len(self._data):
            if not outside:
                return at
            self._lose(at, outside)
        elif self._window.last:
            if outside:
                self._end = self._window.offset + at  # nothing but blanks is no record
            else:
                self._lose(at, _NOT_CLOSED)
        return None

    def _lose(self, at: int, reason: str) -> None:
        """Reject all from `at` to the end of the source."""
        self._end = self._window.source.end
        start = min(self._window.offset + at, self._end - 1)  # on a byte, be it the last one of a record
        self._add([start], [b""])
        self._lengths[-1] = self._end - start
        self._lost = reason

    def _add(self, offsets: Sequence[int], raws: Sequence[bytes], *, proved: bool = False) -> None:
        self._offsets += offsets
        self._raws += raws
        self._lengths += map(len, raws)
        if not proved:
            self._unproved = len(self._raws)

    def _take_one(self, at: int) -> int | None:
        """Take an element the exact way; return where the next one begins, None if this window has none."""
        end = ElementScan().feed(self._data, at)
        if end is None and not self._window.last:
            return None
        raw = self._data[at:end].rstrip(BLANKS)
        if end is None and (flaws := parse([raw], self._max_record_bytes)[1]):
            self._lose(at, flaws[0] + _UNBALANCED)
            return None
        self._add([self._window.offset + at], [raw], proved=self._proven([raw]))
        self.between = _BETWEEN.match(self._data, at + len(raw)) or self.between
        return self._element(_matched(_SEPARATED, self._data, at + len(raw)))

    def _take_many(self, at: int, until: int) -> int | None:
        """Take all elements up to a guessed place; return where the next one begins, None if the guess was wrong."""
        if self.between is None:
            return None
        for between in self.between.group(0, 1, 2):
            end = self._data.rfind(between, at, until)
            if end > at:
                break
        else:
            return None
        text, gap = self._data[at:end], self.between["gap"]
        try:
            raws = list(map(bytes, _elements(b"[%b]" % text)))
        except (msgspec.DecodeError, RecursionError):
            self._proof = None  # a broken element is likely, and then all those around it are parsed
            return None
        if gap.join(raws) == text:
            places = list(accumulate([len(raw) + len(gap) for raw in raws[:-1]], initial=self._window.offset + at))
        else:
            places = []
            for raw in raws:
                places.append(self._window.offset + at)
                at = _matched(_SEPARATED, self._data, at + len(raw)).end()
        self._add(places, raws, proved=self._proven(raws))
        return end + len(gap)

    def _proven(self, raws: Sequence[bytes]) -> bool:
        return proven(raws, self._max_record_bytes, self._proof)
