"""Makes lines of JSON of the rows of a Parquet file, a few at a time. `spool` writes them; pyarrow reads the file.

Batches are frozen as bytes of a file, which are read again to be sent and to be proved. Rows of Parquet have no bytes
of their own, so each becomes one line of a copy: line 1 is the first row, and `groups_of` says how they lie in groups.

One value has one text, whoever wrote the file: docs/configuration.md has the table. What JSON cannot hold (NaN,
infinity, text that is not UTF-8) stays in the line as what JSON has not, so that the row is a reject at its place.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial
from importlib import import_module
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from engine.files import regular
from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.source.packed import check_amount
from engine.source.splitter import unreadable

MAGIC = b"PAR1"
_MOST_ROWS = 1024
_FIRST_ROWS = 64
_STEP_BYTES = 4 << 20
"""Of rows that are decoded together, by what the file says of their size; and of rows that become JSON together, by
what those before them have shown: a value that is there once in the file may stand in each row."""
_PIECE_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 18
"""Of each column: a group of rows is never read whole."""

Values = list[Any]
"""Of one column, as orjson writes them."""

_FRACTION_END = re.compile(r"(\.[0-9]*?)0+(?=Z?$)")
_BEYOND = "<value out of range"
_NOT_JSON = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def groups_of(counts: Sequence[int]) -> str:
    """Return how many rows each group of rows has, as a source keeps it: `3*1000 17`."""
    runs = [(rows, sum(1 for _ in same)) for rows, same in groupby(counts)]
    return " ".join(f"{times}*{rows}" if times > 1 else str(rows) for rows, times in runs)


class ParquetRows(AbstractContextManager["ParquetRows"]):
    """The rows of a Parquet file, as lines of JSON; a block of `with` closes the file."""

    def __init__(self, path: Path, name: str, settings: SourceSettings) -> None:
        """Open it. `name`: what messages call it.

        Raises:
            SourceError: pyarrow is missing, or it is no Parquet file whose rows can be written as JSON.
        """
        self._name, self._settings = name, settings
        self._arrow = _pyarrow(name)
        self.size_bytes = path.stat().st_size
        self._file: BinaryIO = self._opened(path)
        try:
            self._read = import_module("pyarrow.parquet").ParquetFile(
                self._file, buffer_size=_BUFFER_BYTES, pre_buffer=False
            )
            meta = self._read.metadata
            self._rows = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
            sizes = [meta.row_group(number).total_byte_size for number in range(meta.num_row_groups)]
            schema = self._read.schema_arrow
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            self._file.close()
            raise self._damaged(error) from error
        widest = max((size / rows for size, rows in zip(sizes, self._rows, strict=True) if rows), default=1)
        self._together = max(1, min(_MOST_ROWS, int(_STEP_BYTES / max(widest, 1))))
        self._at_once = min(_FIRST_ROWS, self._together)
        self.groups = groups_of(self._rows)
        try:
            self._columns = self._converters(schema)
        except BaseException:  # whoever asked for it gets no file that it could close
            self._file.close()
            raise

    def _opened(self, path: Path) -> BinaryIO:
        try:
            file = open(path, "rb", opener=regular)  # noqa: SIM115 - `__exit__` closes it
        except OSError as error:
            raise unreadable(self._name, error) from error
        if (head := file.read(len(MAGIC))) != MAGIC:
            file.close()
            raise SourceError(f"{self._name} begins with {head!r}, and no Parquet file does: leave its format out")
        return file

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of all rows, about a MiB at a time.

        Raises:
            SourceError: it is damaged, or becomes more than the settings allow.
        """
        written = rows = 0
        batches = self._read.iter_batches(self._together, use_threads=False)
        while (batch := self._next(batches)) is not None:
            for piece in self._pieces(batch):
                written += len(piece)
                check_amount(self._name, "Parquet", self.size_bytes, written, self._settings)
                yield piece
            rows += batch.num_rows
        if rows != sum(self._rows):
            raise SourceError(f"{self._name} is damaged: it has {rows:,} rows and says {sum(self._rows):,}")

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SourceError:
        said = str(error).partition("\n")[0]
        return SourceError(f"{self._name} cannot be read as Parquet ({said}): is it whole? Get the file again")

    def _converters(self, schema: Any) -> Sequence[tuple[str, Callable[[Any], Values]]]:
        twice = [name for name, times in Counter(schema.names).items() if times > 1]
        if twice:
            raise SourceError(f"{self._name} has the column {twice[0]!r} more than once: rename one of them")
        return [(field.name, self._converter(field.type, field.name)) for field in schema]

    def _pieces(self, batch: Any) -> Iterator[bytes]:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, self._at_once)
            start, size = start + part.num_rows, 0
            for piece in self._pieces_of(part):
                size += len(piece)
                yield piece
            self._at_once = max(1, min(_MOST_ROWS, _STEP_BYTES * part.num_rows // max(size, 1)))

    def _pieces_of(self, batch: Any) -> Iterator[bytes]:
        names = [name for name, _ in self._columns]
        columns = [of(column) for (_, of), column in zip(self._columns, batch.columns, strict=True)]
        lines: list[bytes] = []
        size = 0
        for values in zip(*columns, strict=True) if columns else ((),) * batch.num_rows:
            line = orjson.dumps(dict(zip(names, values, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
            lines.append(line)
            size += len(line)
            if size >= _PIECE_BYTES:
                yield b"".join(lines)
                lines, size = [], 0
        if lines:
            yield b"".join(lines)

    def _converter(self, kind: Any, where: str) -> Callable[[Any], Values]:  # noqa: C901, PLR0911, PLR0912 - a table
        """Return what makes values of a column of a type.

        Raises:
            SourceError: there is none.
        """
        arrow, types = self._arrow, self._arrow.types
        if isinstance(kind, arrow.BaseExtensionType):
            if kind.extension_name == "arrow.uuid":
                return lambda column: _each(str_of_uuid, column.storage.to_pylist())
            inner = self._converter(kind.storage_type, where)
            return lambda column: inner(column.storage)
        if types.is_dictionary(kind):
            inner = self._converter(kind.value_type, where)
            return lambda column: inner(column.dictionary_decode())
        if types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind):
            return _as_it_is
        if types.is_float64(kind):
            return _doubles
        if types.is_floating(kind):
            return partial(_texts, _float, arrow.float32())
        if types.is_decimal(kind):
            return partial(_texts, _decimal, None)
        if _is_any(kind, types.is_string, types.is_large_string, types.is_string_view):
            return partial(_strings, arrow)
        if _is_any(kind, types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary):
            return lambda column: _each(_base64, column.to_pylist())
        if types.is_timestamp(kind):
            # As a plain number first: the names of zones need a database, and an instant has none.
            plain = arrow.timestamp(kind.unit)
            return partial(_instants, arrow.int64(), plain, "Z" if kind.tz else "")
        if types.is_date(kind) or types.is_time(kind):
            return partial(_texts, _moment, None)
        if types.is_duration(kind):
            return partial(_texts, _whole, arrow.int64())
        if types.is_map(kind):
            return self._map(kind, where)
        if types.is_struct(kind):
            return self._struct(kind, where)
        if hasattr(kind, "value_type"):  # lists of every sort
            inner = self._converter(kind.value_type, f"{where}[]")
            lengths = import_module("pyarrow.compute").list_value_length
            return lambda column: _lists(inner(column.flatten()), lengths(column).to_pylist())
        raise SourceError(f"column {where!r} of {self._name} is of the type {kind}, for which JSON has no form")

    def _struct(self, kind: Any, where: str) -> Callable[[Any], Values]:
        fields = [kind.field(number) for number in range(kind.num_fields)]
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            raise SourceError(f"column {where!r} of {self._name} has two members of one name: rename one of them")
        inner = [self._converter(field.type, f"{where}.{field.name}") for field in fields]

        def of(column: Any) -> Values:
            parts = [each(part) for each, part in zip(inner, column.flatten(), strict=True)]
            rows = zip(*parts, strict=True) if parts else ((),) * len(column)
            valid = column.is_valid().to_pylist()
            return [dict(zip(names, row, strict=True)) if ok else None for ok, row in zip(valid, rows, strict=True)]

        return of

    def _map(self, kind: Any, where: str) -> Callable[[Any], Values]:
        keys, items = self._converter(kind.key_type, f"{where}.key"), self._converter(kind.item_type, f"{where}.value")

        def of(column: Any) -> Values:
            offsets = column.offsets.to_pylist()
            first, length = offsets[0], offsets[-1] - offsets[0]
            pairs = list(
                zip(keys(column.keys.slice(first, length)), items(column.items.slice(first, length)), strict=True)
            )
            valid = column.is_valid().to_pylist()
            return [
                _object(pairs[start - first : end - first]) if ok else None
                for ok, start, end in zip(valid, offsets, offsets[1:], strict=False)
            ]

        return of


def _pyarrow(name: str) -> Any:
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise SourceError(
            f"{name}: Parquet needs a package that is not installed: pip install 'bulksubmit[parquet]'"
        ) from error


def _is_any(kind: Any, *tests: Callable[[Any], bool]) -> bool:
    return any(test(kind) for test in tests)


# Values of columns, as orjson writes them


def _as_it_is(column: Any) -> Values:
    values: Values = column.to_pylist()
    return values


def _each(of: Callable[[Any], Any], values: Values) -> Values:
    return [None if value is None else of(value) for value in values]


def _texts(of: Callable[[str], Any], through: Any, column: Any) -> Values:
    """Return what `of` makes of each value's text, as Arrow writes it."""
    return _each(of, (column if through is None else column.cast(through)).cast("string").to_pylist())


def _doubles(column: Any) -> Values:
    return [
        value if value is None or isfinite(value) else orjson.Fragment(_NOT_JSON[str(value)])
        for value in column.to_pylist()
    ]


def _float(text: str) -> orjson.Fragment:
    """Return a number of 32 bits by the fewest digits that name it, as a float has them."""
    return orjson.Fragment(_NOT_JSON.get(text) or (text if set(text) & set(".e") else f"{text}.0"))


def _decimal(text: str) -> orjson.Fragment:
    return orjson.Fragment(format(Decimal(text), "f") if "E" in text else text)


def _whole(text: str) -> orjson.Fragment:
    return orjson.Fragment(text)


def _moment(text: str) -> Any:
    """Return a date, a time or both as ISO 8601 has them, without zeros at the end of a second's fraction."""
    if text.startswith(_BEYOND):
        return orjson.Fragment(text)  # no JSON: a reject
    shown = text.replace(" ", "T", 1)
    return _FRACTION_END.sub(r"\1", shown).replace(".Z", "Z").removesuffix(".") if "." in shown else shown


def _instants(number: Any, plain: Any, zone: str, column: Any) -> Values:
    return _texts(lambda text: _moment(f"{text}{zone}"), None, column.cast(number).cast(plain))


def _strings(arrow: Any, column: Any) -> Values:
    try:
        return _as_it_is(column)
    except UnicodeDecodeError:
        return _each(_string, column.cast(arrow.large_binary()).to_pylist())


def _string(text: bytes) -> Any:
    try:
        return text.decode()
    except UnicodeDecodeError:  # 0xFF is in no UTF-8: a reject
        return orjson.Fragment(orjson.dumps(text.decode(errors="replace"))[:-1] + b'\xff"')


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def str_of_uuid(value: bytes) -> str:
    """Return a UUID as people write it."""
    return str(uuid.UUID(bytes=value))


def _lists(values: Values, lengths: Sequence[int | None]) -> Values:
    lists: Values = []
    at = 0
    for length in lengths:
        lists.append(None if length is None else values[at : at + length])
        at += length or 0
    return lists


def _object(pairs: Sequence[tuple[Any, Any]]) -> Any:
    """Return a map as an object; one that has a key twice as what JSON has not, for one of them would be lost."""
    names = [key if isinstance(key, str) else orjson.dumps(key).decode() for key, _ in pairs]
    if len(set(names)) < len(names):
        return orjson.Fragment(b"<a map that has a key twice>")
    return dict(zip(names, (item for _, item in pairs), strict=True))
