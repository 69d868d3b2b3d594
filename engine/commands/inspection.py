"""Looks at the beginning of a source, for `init`: its format and delimiter, its columns, and the types of their values.

A sample is read by the readers of a submit. What it says is a proposal: nobody has seen the rest.
"""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.commands.intake import as_file
from engine.files import regular
from engine.model.errors import SourceError
from engine.model.record import Format, Position, Row, Source
from engine.model.settings import SourceSettings
from engine.services.base import Column
from engine.source.csv_rows import CONVERSIONS
from engine.source.delimiters import DELIMITERS
from engine.source.reader import read_blocks
from engine.source.sources import NOTHING_COPIED, Copied, describe, header_of

SAMPLED_RECORDS = 1000
_SAMPLED_BYTES = 32 << 20
"""Likewise, where each of them is long."""
_TEXT_BYTES = 1 << 20
"""Where a letter that is not UTF-8 is looked for."""
_OTHER_ENCODING = "windows-1252"
"""What such a text most likely is: Excel writes it."""
_VALUES = 3
_MOST_DIGITS = 15
"""A longer integer is a name made of digits rather than a number; many programs cannot even hold it."""
_NAME_LIKE = re.compile(r"(?i:(?:^|[_\W])(?:id|uuid|key|code|zip|phone)$)|I[dD]$")
"""Columns whose digits are a name: nobody adds them up."""


class Inspected(Struct, frozen=True):
    """What the beginning of a source shows."""

    source: Source
    settings: SourceSettings
    """By which it can be read."""
    columns: Sequence[Column]
    records: int
    """That were looked at, those among them that are none as well; 0: there are none."""
    whole: bool
    """They are all."""


async def look_into(name: str, format_: str | None, folder: Path) -> Inspected:
    """Look at the first records of a source of any sort; what has to be copied is copied to `folder`.

    Raises:
        SourceError: it cannot be read, whatever its delimiter is.
    """
    settings = SourceSettings(format=format_)
    path, copied = await as_file(name, settings, folder)
    if copied.row_groups is None and not await anyio.to_thread.run_sync(_is_utf8, path):
        settings = replace(settings, encoding=_OTHER_ENCODING)
        path, copied = await as_file(name, settings, folder)
    return await anyio.to_thread.run_sync(partial(inspect, path, settings=settings, copied=copied))


def _is_utf8(path: Path) -> bool:
    """Return whether the beginning of a file is, or no text at all: whoever reads it says what it is."""
    with open(path, "rb", opener=regular) as file:
        head = file.read(_TEXT_BYTES)
    try:
        utf_8_decode(head)
    except UnicodeDecodeError:
        return b"\0" in head
    return True


def inspect(
    path: Path, format_: str | None = None, *, settings: SourceSettings | None = None, copied: Copied = NOTHING_COPIED
) -> Inspected:
    """Look at the first records of a file; `settings` in place of a format.

    Raises:
        SourceError: it cannot be read, whatever its delimiter is.
    """
    source, settings = _described(path, settings or SourceSettings(format=format_), copied)
    rows: list[Row] = []
    records = size_bytes = 0
    whole = True
    for block in read_blocks([source], Position(), settings):
        room = SAMPLED_RECORDS - len(rows)
        rows += islice(block.rows or (), room)
        records = block.indexes[room] if len(block.indexes) > room else block.end.index
        size_bytes += sum(block.lengths)
        if len(rows) >= SAMPLED_RECORDS or records >= 2 * SAMPLED_RECORDS or size_bytes > _SAMPLED_BYTES:
            whole = block.end.offset >= source.end and records == block.end.index
            break
    header = header_of(source, settings)
    return Inspected(source, settings, _columns(rows, header), records, whole)


def _described(path: Path, settings: SourceSettings, copied: Copied) -> tuple[Source, SourceSettings]:
    """Find the delimiter of a table: the one by which most rows fit the header, and that has the most columns."""
    best: tuple[tuple[float, int], Source, SourceSettings] | None = None
    trouble: SourceError | None = None
    for delimiter in DELIMITERS:
        tried = replace(settings, delimiter=delimiter)
        try:
            source = describe(path, tried, copied=copied)
        except SourceError as error:
            trouble = trouble or error
            continue
        if source.format != Format.CSV:
            return source, settings
        score = _fitting(source, tried), len(header_of(source, tried) or ())
        if best is None or score > best[0]:
            best = score, source, tried
    if best is not None:
        return best[1], best[2]
    raise trouble or SourceError(f"{path} cannot be read")


def _fitting(source: Source, settings: SourceSettings) -> float:
    """Return the share of the first rows that fit the header, in tenths; 0 if it has one column: any line fits that."""
    if len(header_of(source, settings) or ()) == 1:
        return 0.0
    block = next(read_blocks([source], Position(), settings), None)
    rows = len(block.indexes) + len(block.rejects) if block else 0
    return round(len(block.indexes) / rows, 1) if block and rows else 1.0


def _columns(rows: Sequence[Row], header: Sequence[str] | None) -> list[Column]:
    values: dict[str, list[Any]] = defaultdict(list)
    for name in header or ():
        values[name] = []
    for row in rows:
        for name, value in row.items():
            values[name] += [value] if value is not None and value != "" else []
    textual = header is not None
    return [Column(name, _type(name, seen, textual=textual), seen[:_VALUES], textual) for name, seen in values.items()]


def _type(name: str, values: Sequence[Any], *, textual: bool) -> str:
    """Return the type that fits all values; a string where none does."""
    if not values:
        return "string"
    if not textual:
        kinds = {_JSON_TYPES.get(type(value), "json") for value in values}
        kinds = {"number"} if kinds == {"integer", "number"} else kinds
        return kinds.pop() if len(kinds) == 1 else "json"
    digits = [value for value in values if value.strip("-").isdecimal()]
    if digits and (_NAME_LIKE.search(name) or max(map(len, digits)) > _MOST_DIGITS):
        return "string"
    if all(value.strip().lower() in {"true", "false"} for value in values):
        return "boolean"
    if all(value.lstrip().startswith(("{", "[")) for value in values):
        return "json" if _fits("json", values) else "string"
    return next((kind for kind in ("integer", "number") if _fits(kind, values)), "string")


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


def _fits(kind: str, values: Sequence[str]) -> bool:
    try:
        for value in values:
            orjson.dumps(CONVERSIONS[kind](value))
    except ValueError:
        return False
    return True
