"""JSON text of records enters, rows leave, and for each text that is no record the reason, in words for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.model.record import Row

BLANKS = b" \t\r\n"
"""What JSON allows around values (RFC 8259, section 2)."""

_NOUNS = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """Rows, one for each text, and the flaws by position; a flawed text has an empty row."""

    rows: list[Row]
    flaws: dict[int, str]


def parse(raws: Sequence[bytes], max_record_bytes: int) -> Parsed:
    """Parse records in one C loop, which is left only for those that fail."""
    rows: list[Any] = []
    flaws: dict[int, str] = {}
    texts = _bounded(raws, max_record_bytes, flaws)
    parsing = map(orjson.loads, texts)
    while len(rows) < len(texts):
        try:
            rows.extend(parsing)  # keeps what came before an error, and the iterator goes on after it
        except orjson.JSONDecodeError as error:
            position = len(rows)
            flaws.setdefault(position, explain(texts[position], error))
            rows.append({})
    if set(map(type, rows)) - {dict}:
        for position, row in enumerate(rows):
            if type(row) is not dict:
                flaws.setdefault(position, f"is {_NOUNS[type(row)]}, a record must be an object")
                rows[position] = {}
    return Parsed(rows, flaws)


def _bounded(raws: Sequence[bytes], max_record_bytes: int, flaws: dict[int, str]) -> Sequence[bytes]:
    """Return `raws` with those that are too long left empty, so that they are not parsed."""
    if max(map(len, raws), default=0) <= max_record_bytes:
        return raws
    long = [position for position, raw in enumerate(raws) if len(raw) > max_record_bytes]
    flaws.update(dict.fromkeys(long, too_long(max_record_bytes)))
    return [b"" if position in flaws else raw for position, raw in enumerate(raws)]


def too_long(max_record_bytes: int) -> str:
    """Return the reason of a record over the limit."""
    return f"longer than max_record_bytes ({max_record_bytes})"


def explain(raw: bytes, error: orjson.JSONDecodeError) -> str:
    """Return why `raw` is not JSON and where in it."""
    if not raw:
        return "is empty: a comma stands there without a record"
    encoding = invalid_utf8(raw)
    if encoding:
        return encoding
    if error.msg == "depth limit exceeded":
        return "nested deeper than 1024 levels"
    where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno} of the record"
    return f"not valid JSON: {error.msg} at {where}"


def invalid_utf8(raw: bytes) -> str:
    """Return where `raw` is no UTF-8; nothing if it is."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"not valid UTF-8 at byte {error.start + 1} of the record: convert the file, for example with iconv"
    return ""
