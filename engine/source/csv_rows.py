"""CSV with a header row: windows enter, a record for each row leaves, rendered as JSON. Blank lines are no records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from engine.model.record import Row
from engine.source.columns import at
from engine.source.csv_text import OPEN_QUOTE, CsvRows, CsvText, RowSkip, in_words
from engine.source.csv_values import BadValue, ValueTypes
from engine.source.parsing import invalid_utf8, too_long
from engine.source.splitter import CUT_RECORDS, WINDOW_PIECES, Cut, Window


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """What must be known of a file to read its rows."""

    delimiter: str
    types: ValueTypes
    max_record_bytes: int
    head_bytes: int
    head_lines: int


class CsvSplitter:
    """Rows below a header."""

    def __init__(self, layout: CsvLayout) -> None:
        self._layout = layout

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole rows of a window."""
        if not window.first or len(window.data) >= self._layout.head_bytes:
            yield from _CsvWindow(window, self._layout).cuts()

    def skip(self, window: Window) -> RowSkip:
        """Return what finds the end of the row."""
        return RowSkip(self._layout.head_bytes if window.first else 0, self._layout.delimiter)

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return the rows of `slices` as JSON."""
        rows = CsvText(b"\n".join(slices), self._layout.delimiter).take(len(slices))
        return [_record(values, b"", self._layout.types)[0] for values in rows.values]


class _CsvWindow:
    """The rows of a window."""

    def __init__(self, window: Window, layout: CsvLayout) -> None:
        start = layout.head_bytes if window.first else 0
        self._layout = layout
        self._data = window.data
        self._offset = window.offset
        self._line = window.line + (layout.head_lines if window.first else 0)
        lines = window.data[start:].split(b"\n", WINDOW_PIECES)
        self._to_end = window.last and len(lines) <= WINDOW_PIECES
        if not self._to_end or not lines[-1]:
            lines.pop()
        edges = accumulate([len(text) + 1 for text in lines], initial=start)
        self._edges = [min(edge, len(window.data)) for edge in edges]  # the last newline may be missing

    def cuts(self) -> Iterator[Cut]:
        body = self._data[self._edges[0] : self._edges[-1]]
        text = CsvText(body, self._layout.delimiter)
        first = 0
        while rows := self._whole(text.take(CUT_RECORDS)):
            yield self._cut(rows, first)
            first = rows.after[-1]
        if not first and (self._to_end or self._edges[0]):  # nothing but the header is a step, too
            yield Cut((), (), (), (), (), {}, self._offset + self._edges[0], self._line)

    def _whole(self, rows: CsvRows) -> CsvRows | None:
        """Leave a row that ends beyond the window to the next one."""
        last = len(rows.values) - 1
        if not self._to_end and rows.problems.get(last) == OPEN_QUOTE:
            del rows.values[last], rows.after[last], rows.problems[last]
        return rows if rows.values else None

    def _cut(self, rows: CsvRows, first: int) -> Cut:
        firsts = [first, *rows.after[:-1]]
        spans = zip(at(firsts, self._edges), at(rows.after, self._edges), strict=True)
        texts = [self._data[start:end].rstrip(b"\r\n") for start, end in spans]
        kept = [position for position, text in enumerate(texts) if text]
        raws = [b""] * len(kept)
        parsed: list[Row] = [{}] * len(kept)
        flaws: dict[int, str] = {}
        for position, row in enumerate(kept):
            try:
                raws[position], parsed[position] = self._record(rows.values[row], rows.problems.get(row), texts[row])
            except BadValue as error:
                flaws[position] = str(error)
        return Cut(
            offsets=[self._offset + self._edges[firsts[row]] for row in kept],
            lengths=[len(texts[row]) for row in kept],
            lines=[self._line + firsts[row] for row in kept],
            raws=raws,
            rows=parsed,
            flaws=flaws,
            end=self._offset + self._edges[rows.after[-1]],
            end_line=self._line + rows.after[-1],
        )

    def _record(self, values: Sequence[str], problem: str | None, text: bytes) -> tuple[bytes, Row]:
        """Return a row as JSON and parsed."""
        if len(text) > self._layout.max_record_bytes:
            raise BadValue(too_long(self._layout.max_record_bytes))
        if problem is not None:
            raise BadValue(in_words(problem))
        return _record(values, text, self._layout.types)


def _record(values: Sequence[str], text: bytes, types: ValueTypes) -> tuple[bytes, Row]:
    try:
        return types.record(values)
    except (TypeError, UnicodeEncodeError) as error:  # surrogates stand for bytes that are no UTF-8
        raise BadValue(invalid_utf8(text)) from error
