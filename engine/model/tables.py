"""A table of TOML in, a checked value of its type out, in one walk that names every mistake.

`commands.configuration` and `sandbox.behaviour` read their files so. Where anything is wrong, there is no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import msgspec.inspect
from msgspec import Meta
from msgspec.structs import FieldInfo, fields

from engine.model.settings import Section, of_text

Model = TypeVar("Model", bound=Section)

ONE_OR_MORE = Meta(extra={"one_or_more": True})
"""Of a key whose value is a list: a single value may stand for a list of one."""

_MEANT = {"yes": True, "y": True, "on": True, "t": True, "no": False, "n": False, "off": False, "f": False}
"""What a variable may say besides true, false, 1 and 0."""


@cache
def fields_of(model: type[Section]) -> Sequence[FieldInfo]:
    """Return the fields of a table; msgspec evaluates all their types each time that it is asked."""
    return fields(model)


def table_of(model: type[Model], table: Any, place: str, complaints: list[str]) -> Model | None:
    """Return a table as a checked `model`; None, and all that is wrong with it in `complaints`."""
    if not isinstance(table, dict):
        complaints.append(f"{place}: must be a table, [{place}]")
        return None
    begin, before = f"{place}." if place else "", len(complaints)
    known = {field.encode_name: field for field in fields_of(model)}
    for key in [key for key in table if key not in known]:
        near = get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        complaints.append(f"{begin}{key}: unknown key; {hint}")
    values = {}
    for key, field in known.items():
        if key in table:
            values[field.name] = _value(field.type, table[key], f"{begin}{key}", complaints)
        elif field.required:
            complaints.append(f"{begin}{key}: missing")
    try:
        return model(**values) if len(complaints) == before else None
    except ValueError as error:
        complaints.append(f"{begin}{error}")
        return None


def _value(kind: Any, value: Any, place: str, complaints: list[str]) -> Any:
    """Return a value as its type wants it; what cannot be read so is told in `complaints`."""
    if not isinstance(value, list) and _takes_one(kind):
        value = [value]
    inner = section_in(kind)
    if inner is not None and get_origin(kind) is not tuple:
        return table_of(inner, value, place, complaints)
    if inner is not None and isinstance(value, list):
        return tuple(table_of(inner, item, f"{place}[{at}]", complaints) for at, item in enumerate(value))
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: _value(get_args(kind)[1], item, f"{place}.{key}", complaints) for key, item in value.items()}
    meant = [_MEANT.get(value.strip().lower(), value.strip())] if isinstance(value, str) else []
    for written in (value, *meant):
        with suppress(msgspec.ValidationError):
            return msgspec.convert(written, kind, strict=False, dec_hook=of_text)
    complaints.append(f"{place}: must be {_words(msgspec.inspect.type_info(kind))}")
    return None


def _takes_one(kind: Any) -> bool:
    """Return whether a single value may stand for a list of one."""
    return ONE_OR_MORE in getattr(kind, "__metadata__", ()) or any(map(_takes_one, get_args(kind)))


def section_in(kind: Any) -> type[Section] | None:
    """Return the class of the tables of a key: of one, of one or none, of an array of them."""
    kinds = (kind,) if get_origin(kind) is dict else (kind, *get_args(kind))
    return next((one for one in kinds if isinstance(one, type) and issubclass(one, Section)), None)


def _words(kind: msgspec.inspect.Type) -> str:
    """Return what people call a type."""
    match kind:
        case msgspec.inspect.UnionType():
            return " or ".join(_words(one) for one in kind.types if not isinstance(one, msgspec.inspect.NoneType))
        case msgspec.inspect.LiteralType():
            *names, last = map(repr, kind.values)
            return f"{', '.join(names)} or {last}" if names else last
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            noun = "a whole number" if isinstance(kind, msgspec.inspect.IntType) else "a number"
            least = "" if kind.ge is None else f" from {kind.ge}" + (" on" if kind.le is None else f" to {kind.le}")
            return noun + (least if kind.gt is None else f" above {kind.gt}")
        case msgspec.inspect.StrType(max_length=1):
            return "one character"
    nouns = {"BoolType": "true or false", "DictType": "a table", "ListType": "a list", "VarTupleType": "a list"}
    return nouns.get(type(kind).__name__, "a text")
