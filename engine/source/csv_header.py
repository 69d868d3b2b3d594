"""A CSV file enters, the splitter for its rows leaves: the header is read here, and judged."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Sequence

from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.source.csv_rows import CsvLayout, CsvSplitter
from engine.source.csv_text import OPEN_QUOTE, CsvText, in_words
from engine.source.csv_values import ValueTypes
from engine.source.files import SourceFile
from engine.source.parsing import too_long
from engine.source.splitter import BOM

_WINDOW_BYTES = 1 << 16


def open_csv(file: SourceFile, settings: SourceSettings) -> CsvSplitter:
    """Return the splitter for a CSV file.

    Raises:
        SourceError: the header cannot be used.
    """
    path = file.source.path
    if settings.delimiter in '"\r\n':
        raise SourceError(f"source.delimiter cannot be {settings.delimiter!r}: CSV needs that character itself")
    delimiter = "\t" if path.lower().endswith(".tsv") and settings.delimiter == "," else settings.delimiter
    csv.field_size_limit(
        sys.maxsize
    )  # it would end a row amid a long value; max_record_bytes bounds whole rows instead
    size = _WINDOW_BYTES
    while True:
        data = file.read(file.source.base, min(size, file.source.size))
        whole = len(data) == file.source.size
        names, lines = _header(data if whole else data[: data.rfind(b"\n") + 1], delimiter, path, whole=whole)
        if names or whole:
            _refuse_unusable(names, path)
            head_bytes = _length(data, lines) if names else len(BOM) * data.startswith(BOM)
            if head_bytes > settings.max_record_bytes:
                break
            types = ValueTypes(names, settings, path)
            return CsvSplitter(CsvLayout(delimiter, types, settings.max_record_bytes, head_bytes, lines))
        if size > settings.max_record_bytes:
            break
        size *= 2
    raise SourceError(f"the header of {path} is {too_long(settings.max_record_bytes)}: is this CSV?")


def _header(text: bytes, delimiter: str, path: str, *, whole: bool) -> tuple[Sequence[str], int]:
    """Return the column names and the lines up to their end; no names if the text ends before they do."""
    rows = CsvText(text.removeprefix(BOM), delimiter)
    while (row := rows.take(1)).values:
        problem = row.problems.get(0)
        if problem == OPEN_QUOTE and not whole:
            break
        if problem is not None:
            raise SourceError(f"the header of {path} cannot be read: {in_words(problem)}")
        if row.values[0]:
            return row.values[0], row.after[0]
    return (), 0


def _length(data: bytes, lines: int) -> int:
    parts = data.split(b"\n", lines)
    return len(data) - len(parts[lines]) if len(parts) > lines else len(data)


def _refuse_unusable(names: Sequence[str], path: str) -> None:
    for position, name in enumerate(names, 1):
        if not name.strip():
            raise SourceError(f"column {position} in the header of {path} has no name: give it one, or remove it")
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            raise SourceError(f"the header of {path} is not UTF-8: convert the file, for example with iconv -t UTF-8")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(f"the header of {path} names {twice[0]!r} more than once: rename one of the columns")
