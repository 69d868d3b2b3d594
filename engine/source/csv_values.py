"""One row's values, as text, enter; its JSON leaves, typed as the configuration says.

Numbers and JSON keep their text: what a person wrote is what goes up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import orjson

from engine.model.errors import SourceError
from engine.model.record import Row
from engine.model.settings import SourceSettings
from engine.source.parsing import explain

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""RFC 8259, section 6."""
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SHOWN_CHARACTERS = 60


class BadValue(ValueError):
    """A row does not fit the header or the types; the message is the reject's reason."""


class ValueTypes:
    """Makes JSON of rows with the given header.

    Raises:
        SourceError: a type is configured for a column that the header does not have.
    """

    def __init__(self, header: Sequence[str], settings: SourceSettings, path: str) -> None:
        self._header = header
        for name in settings.types:
            if name not in header:
                near = get_close_matches(name, header, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, header))}"
                raise SourceError(f"source.types names column {name!r}, which the header of {path} lacks; {hint}")
        self._types = {name: _CONVERSIONS[kind] for name, kind in settings.types.items()}

    def record(self, values: Sequence[str]) -> tuple[bytes, Row]:
        """Return the row as JSON and parsed.

        Raises:
            BadValue: there are too few or too many values, or one is not of its type.
        """
        if len(values) != len(self._header):
            raise BadValue(
                f"has {len(values)} values and the header {len(self._header)} names: look for a missing quote "
                "or a stray delimiter"
            )
        row: Row = dict(zip(self._header, values, strict=True))
        for name, convert in self._types.items():
            text = row[name]
            try:
                row[name] = convert(text) if text else None
            except ValueError as error:
                shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
                raise BadValue(f"column {name!r}: {shown!r} is no {error}") from error
        raw = orjson.dumps(row)
        return raw, _parsed(raw) if self._types else row


def _parsed(raw: bytes) -> Row:
    try:
        row: Row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadValue(explain(raw, error)) from error
    return row


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
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"valid JSON ({error.msg} at column {error.colno})") from error
    return orjson.Fragment(text)


_CONVERSIONS: dict[str, Callable[[str], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _json,
}
