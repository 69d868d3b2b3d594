"""`rejects.csv`: the rejects as a table for a spreadsheet, and the way back from there.

`reports.outcomes` writes it from the lines of `rejects.ndjson`; `commands.mended` reads it, or another table whose
first column is `index`. A cell that a spreadsheet would take for a formula gets an apostrophe in front, and so does one
that begins with an apostrophe: so it can be taken off again, and only that. A cell that comes back as it went out
leaves the value, and its type, as it was.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec
import orjson
from msgspec import Struct

from engine.files import regular
from engine.model.errors import JobError
from engine.model.record import loads
from engine.source.json_text import members
from engine.source.splitter import BOM

_KEYS = ("job", "index", "line", "state", "error")
"""Of a line of the rejects, as far as they stand in the first columns."""
_OURS = ("job", "index", "line", "state", "reason", "unread")
"""The first columns; `unread` holds a record that is no object. The columns of the records come behind them."""
_RECORD = b',"record":'
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_APOSTROPHE = "'"
_MOST_ROWS = 1_048_575
"""Below a header, Excel opens no more: https://support.microsoft.com/office/excel-specifications-and-limits-1672b34d."""
_MOST_COLUMNS = 1_000
"""Records whose keys are data would make millions; what has no column comes back as it was."""
_MOST_CHARACTERS = 32_766
"""In a cell of Excel, with room for an apostrophe; on the same page."""
_CUT_CHARACTERS = 200
_CHUNK_ROWS = 1_000


def write_spreadsheet(rejects: BinaryIO, to: BinaryIO) -> None:
    """Write the lines of a `rejects.ndjson`, each from its own file's beginning, as a table: the first million."""
    columns = _columns(rejects)
    rejects.seek(0)
    to.write(BOM)
    rows = _rows(rejects, columns)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(chunk)
        to.write(text.getvalue().encode("utf-8", "replace"))


def _columns(rejects: BinaryIO) -> Sequence[str]:
    columns: dict[str, None] = {}
    for line in islice(rejects, _MOST_ROWS):
        record = loads(line)["record"]
        if isinstance(record, dict) and len(columns) < _MOST_COLUMNS:
            columns.update(dict.fromkeys(record))
    return list(columns)[:_MOST_COLUMNS]


def _rows(rejects: BinaryIO, columns: Sequence[str]) -> Iterator[Sequence[str]]:
    yield [*_OURS, *map(neutral, columns)]
    for line in islice(rejects, _MOST_ROWS):
        values = loads(line)
        ours = [neutral(_plain(values[key]) or "") for key in _KEYS]
        record = values["record"]
        if not isinstance(record, dict):
            yield [*ours, neutral(cell(_record_text(line)))]
            continue
        shown = [_plain(record.get(column)) for column in columns]
        if None in shown:
            texts = members(_record_text(line))
            shown = [cell(texts[column]) if one is None else one for column, one in zip(columns, shown, strict=True)]
        yield [*ours, "", *(neutral(one or "") for one in shown)]


def _record_text(line: bytes) -> bytes:
    """Return the text of the record in a line as we write it: it stands last, and no quote of a text is bare."""
    return line[line.index(_RECORD) + len(_RECORD) : line.rindex(b"}")]


def _plain(value: object) -> str | None:
    """Return what a cell shows of a value that says all that its text does; None for another one.

    A number with a point may have more digits in its text, and so may one within an array or object.
    """
    if isinstance(value, str):
        return _cut(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else None


def cell(text: bytes | None) -> str:
    """Return what a cell shows of a JSON value: a text itself, nothing for null, anything else as it is written."""
    plain = None if text is None or text[:1] in b"[{" else _plain(loads(text))
    return _cut((text or b"").decode()) if plain is None else plain


def _cut(shown: str) -> str:
    """Return a cell that a spreadsheet can hold: one that is cut silently would come back as another value."""
    if len(shown) <= _MOST_CHARACTERS:
        return shown
    return f"{shown[:_CUT_CHARACTERS]}… ({len(shown)} characters: mend it in rejects.ndjson)"


def neutral(shown: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return _APOSTROPHE + shown if shown.startswith((*_FORMULA, _APOSTROPHE)) else shown


def restored(shown: str) -> str:
    """Return what a cell said before it was made neutral."""
    marked = shown.startswith(_APOSTROPHE) and shown[1:].startswith((*_FORMULA, _APOSTROPHE))
    return shown[1:] if marked else shown


class TableRow(Struct, frozen=True):
    """A row that came back from a spreadsheet."""

    where: str
    job: str | None
    index: int
    unread: str
    cells: Mapping[str, str]
    """By column; what the row has of them."""

    def record(self, was: bytes, types: Mapping[str, str], *, complete: bool) -> bytes:
        """Return the record that it says, which was another one as it went out.

        What has changed becomes what `source.types` says of its column or, without that, of the type that it had.
        Where there was no object, its columns make one, `complete` with those that are empty.

        Raises:
            JobError: a cell does not fit the type.
        """
        values = None
        if was.startswith(b"{"):
            with suppress(msgspec.DecodeError):  # a line that is no JSON, which is why it was rejected
                values = members(was)
        if values is None:
            if not any(self.cells.values()):
                before = _cut(was.decode("utf-8", "replace"))
                return was if _on_one_line(self.unread) == before else self.unread.encode()
            made = {name: self._typed(name, shown, None, types) for name, shown in self.cells.items()}
            return orjson.dumps({name: value for name, value in made.items() if complete or self.cells[name]})
        changed = {
            name: self._typed(name, shown, values.get(name), types)
            for name, shown in self.cells.items()
            if not _same(shown, values.get(name))
        }
        if not changed:
            return was
        return orjson.dumps({name: orjson.Fragment(text) for name, text in values.items()} | changed)

    def _typed(self, column: str, shown: str, was: bytes | None, types: Mapping[str, str]) -> object:
        kind = types.get(column) or _kind(was)
        if not shown and (column in types or kind != "string"):
            return None
        from engine.source.csv_rows import CONVERSIONS  # noqa: PLC0415 - whoever writes a table reads none

        try:
            return CONVERSIONS[kind](shown)
        except ValueError as error:
            raise JobError(f"{self.where}: column {column!r}: {shown!r} is no {error}") from error


def _kind(was: bytes | None) -> str:
    """Return the type of a value as `source.types` calls it; what was not there, or null, becomes a text."""
    begins = (was or b'"')[:1]
    if begins in b'"n':
        return "string"
    return {b"t": "boolean", b"f": "boolean", b"{": "json", b"[": "json"}.get(begins, "number")


def _on_one_line(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", " ")


def _same(shown: str, was: bytes | None) -> bool:
    """Return whether a cell came back as it went out, as far as spreadsheets leave cells alone."""
    before = cell(was)
    if was in {b"true", b"false"}:
        return shown.lower() == before
    return shown.replace("\r\n", "\n") == before.replace("\r\n", "\n")


def read_spreadsheet(path: Path) -> Iterator[TableRow]:
    """Yield the rows of a table that a person has mended.

    Raises:
        JobError: it cannot be read, or does not say which record a row is.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=regular) as file:
            rows = csv.reader(file, delimiter=_delimiter(file), strict=True)
            header = next(rows, [])
            ours = _ours(header, path)
            names = [restored(name) for name in header[len(ours) :]]
            for row in rows:
                if any(row):
                    yield _row(row, ours, names, f"{path}, line {rows.line_num}")
    except OSError as error:
        raise JobError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path} is not UTF-8: save it as “CSV UTF-8”") from error
    except csv.Error as error:
        raise JobError(f"{path}, line {rows.line_num}: not valid CSV: {error}") from error


def _delimiter(file: io.TextIOBase) -> str:
    """Return what parts the columns: spreadsheets of many countries write semicolons."""
    head = file.readline()
    file.seek(0)
    name = next((name for name in ("job", "index") if head.startswith((name, f'"{name}"'))), "")
    rest = head.removeprefix(f'"{name}"' if head.startswith('"') else name)
    return rest[0] if rest[:1] in {",", ";", "\t"} else ","


def _ours(header: Sequence[str], path: Path) -> Sequence[str]:
    """Return our own columns among those of a table."""
    for ours in (_OURS, _OURS[:2], _OURS[1:2]):
        if tuple(header[: len(ours)]) == ours:
            return ours
    raise JobError(
        f"{path}: its first columns must be {', '.join(_OURS)}, as in rejects.csv, or index alone: the number of the "
        "record, from 0; then the columns of the record"
    )


def _row(row: Sequence[str], ours: Sequence[str], names: Sequence[str], where: str) -> TableRow:
    own = dict(zip(ours, map(restored, row), strict=False))
    cells = [restored(shown) for shown in row[len(ours) :]]
    if len(cells) > len(names) and any(cells[len(names) :]):
        raise JobError(f"{where}: has more cells than the header has names")
    if not own["index"].isdecimal():
        raise JobError(f"{where}: its index is {own['index']!r}, not the number of a record, from 0")
    job, unread = own.get("job") or None, own.get("unread", "")
    return TableRow(where, job, int(own["index"]), unread, dict(zip(names, cells, strict=False)))
