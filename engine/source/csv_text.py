"""CSV text, row by row, with the lines that each row takes; and where a row ends that is too long to be held.

Used by `csv_rows`. Python's csv module decides what a row is (RFC 4180, strictly). A row that it refuses ends with its
line, here and there alike.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

OPEN_QUOTE = "unexpected end of data"
"""csv.Error's words where the text ends within quotes."""

_PROBLEMS = {
    OPEN_QUOTE: "a quote is opened and never closed, so it takes the rest of the file with it",
    "new-line character seen in unquoted field": "a carriage return stands in a value: quote the value",
}
"""How csv.Error begins → better words."""

_QUOTE = b'"'[0]


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Rows as the csv module sees them, as columns."""

    values: list[list[str]]
    """Empty for a blank line, and for a row with a problem."""
    after: list[int]
    """The line behind each row, from 0."""
    problems: dict[int, str]
    """Position → why the csv module refuses the row."""


class CsvText:
    """Some text of a CSV file, read row by row; bytes that are no UTF-8 become surrogates."""

    def __init__(self, text: bytes, delimiter: str) -> None:
        lines = (line.decode(errors="surrogateescape") for line in io.BytesIO(text))
        self._reader = csv.reader(lines, delimiter=delimiter, strict=True)

    def take(self, limit: int) -> CsvRows:
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
        return CsvRows(values, after, problems)


def in_words(problem: str) -> str:
    """Return what csv.Error means."""
    words = (words for beginning, words in _PROBLEMS.items() if problem.startswith(beginning))
    return next(words, f"not valid CSV: {problem}")


class _State(Enum):
    """Where in a row a scan stands."""

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
        return f"; {_PROBLEMS[OPEN_QUOTE]}" if self._state is _State.QUOTED else ""

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
