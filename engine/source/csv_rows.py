"""The CSV format: each row below the header is a record, rendered as JSON. Blank lines are no records.

Python's csv module decides what a row is (RFC 4180, strictly); a row that it refuses ends with its line. Numbers and
JSON keep their text: what a person wrote is what goes up.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from enum import Enum, auto
from io import BytesIO
from itertools import accumulate, islice
from typing import Any

import orjson
from msgspec import Struct

from engine.model.errors import SourceError
from engine.model.record import Row, loads
from engine.model.settings import AUTO, SourceSettings
from engine.source.delimiters import SAMPLE_BYTES, find_delimiter
from engine.source.head import delimiter_hint
from engine.source.json_text import explain, invalid_utf8
from engine.source.splitter import BOM, CUT_RECORDS, WINDOW_PIECES, Cut, SourceFile, Window, too_long

_HEAD_BYTES = 1 << 16
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""RFC 8259, section 6."""
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SHOWN_CHARACTERS = 60

_OPEN_QUOTE = "unexpected end of data"
"""csv.Error's words where the text ends within quotes."""

_PROBLEMS = {
    _OPEN_QUOTE: "a quote is opened and never closed, so it takes the rest of the file with it",
    "new-line character seen in unquoted field": "a carriage return stands in a value: quote the value",
}
"""How csv.Error begins → better words."""

_QUOTE = b'"'[0]


class BadValue(ValueError):
    """A row does not fit the header or the types; the message is the reject's reason."""


def open_splitter(file: SourceFile, settings: SourceSettings) -> CsvSplitter:
    """Return the splitter of a CSV file, once its header is read and judged.

    Raises:
        SourceError: the header cannot be used, or lacks a column for which a type is configured.
    """
    path = file.source.shown
    delimiter = _delimiter(file, settings)
    csv.field_size_limit(sys.maxsize)  # it would end a row within a long value; max_record_bytes bounds whole rows
    size = _HEAD_BYTES
    while True:
        data = file.read(file.source.base, min(size, file.source.size))
        whole = len(data) == file.source.size
        names, lines = _header(data if whole else data[: data.rfind(b"\n") + 1], delimiter, path, whole=whole)
        if names or whole:
            _check_names(names, path)
            head_bytes = sum(map(len, islice(BytesIO(data), lines))) or len(BOM) * data.startswith(BOM)
            if head_bytes > settings.max_record_bytes:
                break
            _check_types(names, settings, path)
            return CsvSplitter(delimiter, names, settings, head_bytes, lines)
        if size > settings.max_record_bytes:
            break
        size *= 2
    raise SourceError(f"the header of {path} is {too_long(settings.max_record_bytes)}: is this CSV?")


def _delimiter(file: SourceFile, settings: SourceSettings) -> str:
    path = file.source.shown
    if settings.delimiter == AUTO:
        return find_delimiter(file.read(file.source.base, min(file.source.size, SAMPLE_BYTES)), path)
    if settings.delimiter in '"\r\n':
        raise SourceError(f"source.delimiter cannot be {settings.delimiter!r}: CSV needs that character itself")
    return "\t" if path.lower().endswith(".tsv") and settings.delimiter == "," else settings.delimiter


def _header(text: bytes, delimiter: str, path: str, *, whole: bool) -> tuple[Sequence[str], int]:
    """Return the column names and the lines up to their end; no names if the text ends before they do."""
    rows = _Text(text.removeprefix(BOM), delimiter)
    while (row := rows.take(1)).values:
        problem = row.problems.get(0)
        if problem == _OPEN_QUOTE and not whole:
            break
        if problem is not None:
            raise SourceError(
                f"the header of {path} cannot be read: {_in_words(problem)}. {delimiter_hint(text, delimiter, path)}"
            )
        if row.values[0]:
            return row.values[0], row.after[0]
    return (), 0


def _check_names(names: Sequence[str], path: str) -> None:
    for position, name in enumerate(names, 1):
        if not name.strip():
            raise SourceError(f"column {position} in the header of {path} has no name: give it one, or remove it")
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            raise SourceError(f"the header of {path} is not of its encoding: name the right one under [source]")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(f"the header of {path} names {twice[0]!r} more than once: rename one of the columns")


def _check_types(names: Sequence[str], settings: SourceSettings, path: str) -> None:
    for name in settings.types:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, names))}"
            raise SourceError(f"source.types names column {name!r}, which the header of {path} lacks; {hint}")


class CsvSplitter:
    """The rows below a header of `head_bytes` bytes in `head_lines` lines; a `Splitter`."""

    def __init__(
        self, delimiter: str, names: Sequence[str], settings: SourceSettings, head_bytes: int, head_lines: int
    ) -> None:
        self.delimiter = delimiter
        self.columns = names
        self._types = {name: CONVERSIONS[kind] for name, kind in settings.types.items()}
        self._max_record_bytes = settings.max_record_bytes
        self._head_bytes = head_bytes
        self._head_lines = head_lines

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole rows of a window."""
        start, line = (self._head_bytes, window.line + self._head_lines) if window.first else (0, window.line)
        if len(window.data) < start:
            return
        lines = window.data[start:].split(b"\n", WINDOW_PIECES)
        to_end = window.last and len(lines) <= WINDOW_PIECES
        if not to_end or not lines[-1]:
            lines.pop()
        edges = list(accumulate([len(text) + 1 for text in lines], initial=start))
        edges[-1] = min(edges[-1], len(window.data))  # the last newline may be missing
        text = _Text(window.data[start : edges[-1]], self.delimiter)
        first = 0
        while rows := _whole(text.take(CUT_RECORDS), to_end=to_end):
            yield self._cut(window, edges, line, [first, *rows.after[:-1]], rows)
            first = rows.after[-1]
        if not first and (to_end or start):  # nothing but the header is a step, too
            yield Cut((), (), (), (), (), {}, window.offset + edges[0], line)

    def _cut(self, window: Window, edges: Sequence[int], line: int, firsts: Sequence[int], rows: _Rows) -> Cut:
        """Return rows as a cut. Row `n` begins with line `firsts[n]` of the window, which begins at byte `edges[…]`."""
        texts = [
            window.data[edges[first] : edges[after]].rstrip(b"\r\n")
            for first, after in zip(firsts, rows.after, strict=True)
        ]
        kept = [row for row, text in enumerate(texts) if text]
        raws = [b""] * len(kept)
        parsed: list[Row] = [{}] * len(kept)
        flaws: dict[int, str] = {}
        for position, row in enumerate(kept):
            try:
                raws[position], parsed[position] = self._record(rows.values[row], rows.problems.get(row), texts[row])
            except BadValue as error:
                flaws[position] = str(error)
        return Cut(
            offsets=[window.offset + edges[firsts[row]] for row in kept],
            lengths=[len(texts[row]) for row in kept],
            lines=[line + firsts[row] for row in kept],
            raws=raws,
            rows=parsed,
            flaws=flaws,
            end=window.offset + edges[rows.after[-1]],
            end_line=line + rows.after[-1],
        )

    def skip(self, window: Window) -> RowSkip:
        """Return what finds the end of the row at the head of `window`."""
        return RowSkip(self._head_bytes if window.first else 0, self.delimiter)

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return the rows of `slices` as JSON."""
        rows = _Text(b"\n".join(slices), self.delimiter).take(len(slices))
        return [self._rendered(values, b"")[0] for values in rows.values]

    def _record(self, values: Sequence[str], problem: str | None, text: bytes) -> tuple[bytes, Row]:
        """Return a row as JSON and parsed.

        Raises:
            BadValue: it cannot be a record; says why.
        """
        if len(text) > self._max_record_bytes:
            raise BadValue(too_long(self._max_record_bytes))
        if problem is not None:
            raise BadValue(_in_words(problem))
        return self._rendered(values, text)

    def _rendered(self, values: Sequence[str], text: bytes) -> tuple[bytes, Row]:
        if len(values) != len(self.columns):
            raise BadValue(
                f"has {len(values)} values and the header {len(self.columns)} names: look for a missing quote "
                "or a stray delimiter"
            )
        row: Row = dict(zip(self.columns, values, strict=True))
        for name, convert in self._types.items():
            value = row[name]
            try:
                row[name] = convert(value) if value else None
            except ValueError as error:
                shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
                raise BadValue(f"column {name!r}: {shown!r} is no {error}") from error
        try:
            raw = orjson.dumps(row)
        except (TypeError, UnicodeEncodeError) as error:  # surrogates stand for bytes that are no UTF-8
            raise BadValue(invalid_utf8(text)) from error
        try:
            return raw, loads(raw) if self._types else row
        except orjson.JSONDecodeError as error:
            raise BadValue(explain(raw, error)) from error


def _whole(rows: _Rows, *, to_end: bool) -> _Rows | None:
    """Return the rows that end within the window; None if there are none. The next window takes the last one."""
    last = len(rows.values) - 1
    if not to_end and rows.problems.get(last) == _OPEN_QUOTE:
        del rows.values[last], rows.after[last], rows.problems[last]
    return rows if rows.values else None


# How Python's csv module takes rows, and where a row ends that is too long to be held


class _Rows(Struct, frozen=True):
    """Rows as the csv module sees them, as columns."""

    values: list[list[str]]
    """Empty for a blank line, and for a row with a problem."""
    after: list[int]
    """The line behind each row, from 0."""
    problems: dict[int, str]
    """Position → why the csv module refuses the row."""


class _Text:
    """Some text of a CSV file, read row by row; bytes that are no UTF-8 become surrogates."""

    def __init__(self, text: bytes, delimiter: str) -> None:
        lines = (line.decode(errors="surrogateescape") for line in BytesIO(text))
        self._reader = csv.reader(lines, delimiter=delimiter, strict=True)

    def take(self, limit: int) -> _Rows:
        """Return the next rows, blank lines among them."""
        values: list[list[str]] = []
        after: list[int] = []
        problems: dict[int, str] = {}
        while len(values) < limit:
            try:
                for row in islice(self._reader, limit - len(values)):
                    values.append(row)
                    after.append(self._reader.line_num)
            except csv.Error as error:  # the reader goes on behind it
                problems[len(values)] = str(error)
                values.append([])
                after.append(self._reader.line_num)
            else:
                break
        return _Rows(values, after, problems)


def _in_words(problem: str) -> str:
    """Return what a message of csv.Error means, in words for people."""
    words = (words for beginning, words in _PROBLEMS.items() if problem.startswith(beginning))
    return next(words, f"not valid CSV: {problem}")


class _State(Enum):
    """Where in a row the scan has come to."""

    VALUE_START = auto()
    PLAIN = auto()
    QUOTED = auto()
    BEHIND_QUOTE = auto()
    """A closing quote, or half of two."""
    LAST_LINE = auto()
    """The csv module refuses the row, or ends it, with this line: after `"a"b`, or a carriage return."""


class RowSkip:
    """Finds the end of a row, where the csv module would."""

    def __init__(self, start: int, delimiter: str) -> None:
        self.start = start
        self._delimiter = delimiter.encode()
        self._turn = re.compile(rb"[\r\n]|" + re.escape(self._delimiter) + rb'(?="|\Z)')
        self._state = _State.VALUE_START

    @property
    def unclosed(self) -> str:
        """What to add to the reject's reason if the source ends first."""
        return f"; {_PROBLEMS[_OPEN_QUOTE]}" if self._state is _State.QUOTED else ""

    def feed(self, data: bytes) -> int | None:
        """Return where the newline stands that ends the row."""
        at = 0
        while at < len(data):
            match self._state:
                case _State.QUOTED:
                    at = self._leave_quotes(data, at)
                case _State.VALUE_START | _State.BEHIND_QUOTE:
                    at = self._step(data, at)
                case _State.PLAIN:
                    turn = self._turn.search(data, at)
                    if turn is None or turn[0] == b"\n":
                        return turn.start() if turn else None
                    at = turn.end()
                    self._state = _State.LAST_LINE if turn[0] == b"\r" else _State.VALUE_START
                case _State.LAST_LINE:
                    newline = data.find(b"\n", at)
                    return None if newline < 0 else newline
        return None

    def _leave_quotes(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        if quote < 0:
            return len(data)
        self._state = _State.BEHIND_QUOTE
        return quote + 1

    def _step(self, data: bytes, at: int) -> int:
        """Decide by the next byte; only a quote is consumed."""
        if data[at] == _QUOTE:
            self._state = _State.QUOTED
            return at + 1
        closed = self._state is _State.BEHIND_QUOTE
        broken = closed and data[at] not in b"\r\n" and not data.startswith(self._delimiter, at)
        self._state = _State.LAST_LINE if broken else _State.PLAIN
        return at


# One function for each type of `source.types`; a ValueError says what the text is not.


def _string(text: str) -> str:
    return text


def _integer(text: str) -> orjson.Fragment:
    stripped = text.strip()
    if not _INTEGER.fullmatch(stripped):
        raise ValueError("integer")
    return orjson.Fragment(stripped)


def _number(text: str) -> orjson.Fragment:
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped) or not math.isfinite(float(stripped)):
        raise ValueError("number that JSON can hold")
    return orjson.Fragment(stripped)


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise ValueError(f"boolean ({', '.join(_BOOLEANS)})")
    return value


def _json(text: str) -> orjson.Fragment:
    try:
        loads(text.encode())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"valid JSON ({error.msg} at column {error.colno})") from error
    return orjson.Fragment(text)


CONVERSIONS: dict[str, Callable[[str], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _json,
}
"""Type → what makes a value of a text; rejects that come back from a spreadsheet are read by them, too."""
