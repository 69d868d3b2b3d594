"""The JSON text of records: parse it, say why a text is not JSON, and find where its elements and members end.

Used by the formats, `mapping`, `chunker` and `retry`. Finding ends is exact on any bytes and parses no value.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import orjson

from engine.model.record import Row, loads
from engine.source.splitter import RecordProof, too_long

BLANKS = b" \t\r\n"
"""What JSON allows around values (RFC 8259, section 2)."""

_NOUNS = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb')*+(["\[\]{}])', re.DOTALL)
"""Up to the next bracket; or to the quote of a string that does not end in these bytes."""
_OUTSIDE = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb')*+(["\[\]{},])', re.DOTALL)
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


_MEMBER = re.compile(rb"[{,\s]*+(" + _STRING + rb")\s*+:\s*+(" + _STRING + rb'|[^\s\[{,}"]++)?', re.DOTALL)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_NO_VALUE = re.compile(r"-?(?:NaN|Infinity)\b|<[^<>\"]{1,80}>")
"""What other programs write, and `source.parquet` for what JSON cannot hold."""
_NOT_OF_ENCODING = 0xFF
"""So `encodings` marks what it cannot decode."""

_QUOTE, _COMMA, _CLOSED_ARRAY = b'",]'
_OPENING = b"[{"

_LEVELS = 1024
"""Of nesting, as orjson takes them."""
_NO_OPENING = bytes(set(range(256)) - set(b"[{"))


class ElementScan:
    """Finds where an element of an array ends, over any number of windows, in one pass; a `Skip`."""

    unclosed = " and without an end: its brackets or quotes do not balance, so it takes the rest of the file with it"

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes, at: int = 0) -> int | None:
        """Return where the comma or bracket stands that ends the element; None if beyond `data`."""
        while at < len(data):
            if self._in_string:
                at = self._leave_string(data, at)
                continue
            found = (_INSIDE if self._depth else _OUTSIDE).match(data, at)
            if found is None:
                break
            at = found.end()
            if self._ends(data[at - 1]):
                return at - 1
        return None

    def _ends(self, token: int) -> bool:
        """Take the next token; return whether the element ends before it."""
        if token == _QUOTE:
            self._in_string = True
        elif token in _OPENING:
            self._depth += 1
        elif self._depth:
            self._depth -= 1
        else:
            return token in (_COMMA, _CLOSED_ARRAY)  # a stray `}` belongs to the element, which then is no JSON
        return False

    def _leave_string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        rest = _STRING_REST.match(data, at)
        at = rest.end() if rest else at
        if at < len(data):  # at the closing quote, or at a backslash that is the last byte
            self._in_string = data[at] != _QUOTE
            self._escaped = self._in_string
            at += 1
        return at


def members(raw: bytes) -> dict[str, bytes]:
    """Return name → text of its value. `raw` is an object that orjson takes; of duplicate names the last one counts."""
    with suppress(RecursionError):  # msgspec goes less deep than orjson
        return {name: bytes(text) for name, text in _members(raw).items()}
    found: dict[str, bytes] = {}
    at = 0
    while member := _MEMBER.match(raw, at):
        at = member.end()
        name, text = member.groups()
        if text is None:
            start, at = at, closed(raw, at)
            text = raw[start:at]
        found[orjson.loads(name)] = text
    return found


def closed(raw: bytes, at: int) -> int:
    """Return where the array or object ends that begins at `at`; 0 if it does not end in these bytes."""
    depth = 0
    while bracket := _INSIDE.match(raw, at):
        at = bracket.end()
        if raw[at - 1] == _QUOTE:
            break
        depth += 1 if raw[at - 1] in _OPENING else -1
        if not depth:
            return at
    return 0


def proven(raws: Sequence[bytes], max_record_bytes: int, proof: RecordProof | None) -> bool:
    """Return whether `parse` would find no flaw in any text, and nobody needs the rows: in a quarter of the time.

    The texts are UTF-8. What a proof skips it judges as orjson does, but for the nesting.
    """
    longest = max(map(len, raws), default=0)
    if proof is None or longest > max_record_bytes:
        return False
    try:
        deque(map(proof.decode, raws), 0)  # one by one: of lines together, two broken ones can make a good one
    except (msgspec.DecodeError, RecursionError):
        return False
    return longest <= _LEVELS or max(len(raw.translate(None, _NO_OPENING)) for raw in raws) <= _LEVELS


def parse(raws: Sequence[bytes], max_record_bytes: int) -> tuple[list[Row], dict[int, str]]:
    """Return a row for each text, and by position why a text is not a record; then its row is empty."""
    rows: list[Any] = []
    flaws: dict[int, str] = {}
    texts = _bounded(raws, max_record_bytes, flaws)
    parsing = map(orjson.loads, texts)  # one loop in C, which is left only for texts that fail
    while len(rows) < len(texts):
        try:
            rows.extend(parsing)  # keeps what came before an error, and the iterator goes on after it
        except orjson.JSONDecodeError:
            position = len(rows)
            try:
                rows.append(loads(texts[position]))
            except orjson.JSONDecodeError as error:
                flaws.setdefault(position, explain(texts[position], error))
                rows.append({})
    if set(map(type, rows)) - {dict}:
        for position, row in enumerate(rows):
            if type(row) is not dict:
                flaws.setdefault(position, f"is {_NOUNS[type(row)]}, a record must be an object")
                rows[position] = {}
    return rows, flaws


def _bounded(raws: Sequence[bytes], max_record_bytes: int, flaws: dict[int, str]) -> Sequence[bytes]:
    """Return `raws` with those that are too long left empty, so that they are not parsed."""
    if max(map(len, raws), default=0) <= max_record_bytes:
        return raws
    long = [position for position, raw in enumerate(raws) if len(raw) > max_record_bytes]
    flaws.update(dict.fromkeys(long, too_long(max_record_bytes)))
    return [b"" if position in flaws else raw for position, raw in enumerate(raws)]


def explain(raw: bytes, error: orjson.JSONDecodeError) -> str:
    """Return why `raw` is not JSON and where in it."""
    if not raw:
        return "is empty: a comma stands there without a record"
    encoding = invalid_utf8(raw)
    if encoding:
        return encoding
    text = error.doc[max(error.pos - 1, 0) :]
    if found := _NO_VALUE.match(text) or _NO_VALUE.match(text, 1):
        return f"not valid JSON: {found[0].lstrip('-')} is no value that JSON has"
    if error.msg == "depth limit exceeded":
        return f"nested deeper than {_LEVELS} levels"
    where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno} of the record"
    return f"not valid JSON: {error.msg} at {where}"


def invalid_utf8(raw: bytes) -> str:
    """Return where `raw` stops being UTF-8; "" if all of it is."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        cure = "convert the file, for example with iconv, or name its encoding under [source]"
        if raw[error.start] == _NOT_OF_ENCODING:
            cure = "in the file, it is not of the encoding that the others are: mend it there, or name another encoding"
        return f"not valid UTF-8 at byte {error.start + 1} of the record: {cure}"
    return ""
