"""CSV text enters, rows leave, with the lines that each takes; and where a row too long to be held ends.

Python's csv module decides what a row is (RFC 4180, strictly). A row that it refuses ends with its line.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
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
    """Some text of a CSV file, read row by row."""

    def __init__(self, text: str, delimiter: str) -> None:
        self._reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)

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


class RowSkip:
    """Finds the end of a row."""

    def __init__(self, start: int, delimiter: str) -> None:
        self.start = start
        self._turn = re.compile(b"\n|" + re.escape(delimiter.encode()) + rb'(?="|\Z)')
        self._quoted = False
        self._may_open = True  # at the beginning of a value, or right behind a quote that may be half of two

    @property
    def unclosed(self) -> str:
        """What to add to the reject's reason if the source ends first."""
        return f"; {_PROBLEMS[OPEN_QUOTE]}" if self._quoted else ""

    def feed(self, data: bytes) -> int | None:
        """Return where the newline stands that ends the row."""
        at = 0
        while at < len(data):
            if self._quoted:
                quote = data.find(b'"', at)
                if quote < 0:
                    return None
                at = quote + 1
                self._quoted, self._may_open = False, True
            elif self._may_open:
                self._quoted, self._may_open = data[at] == _QUOTE, False
                at += self._quoted
            else:
                turn = self._turn.search(data, at)
                if turn is None:
                    return None
                if turn[0] == b"\n":
                    return turn.start()
                at = turn.end()
                self._may_open = True
        return None
