"""A behaviour file enters as TOML, a checked `Behaviour` leaves; an unknown key is an error that names the nearest."""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.errors import BehaviourError

_BEHAVIOUR = TypeAdapter(Behaviour)
_UNKNOWN_KEY = "unexpected_keyword_argument"
_WORDS = {"missing": "missing", "missing_argument": "missing", "dataclass_type": "expected a table"}


def load_behaviour(path: Path) -> Behaviour:
    """Read a behaviour file; paths in it are relative to the file. Raise BehaviourError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BehaviourError(f"cannot read the behaviour file {path}: {error}") from error
    return parse_behaviour(text, base=path.parent)


def parse_behaviour(text: str, base: Path = Path()) -> Behaviour:
    """Read behaviour from TOML text. Raise BehaviourError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BehaviourError(f"the behaviour file is not TOML: {error}") from error
    try:
        # As JSON, because strict checks take a list for a tuple and a text for a path only there.
        return _BEHAVIOUR.validate_json(orjson.dumps(table), context=base)
    except ValidationError as error:
        raise BehaviourError("\n".join(_complaint(item) for item in error.errors(include_url=False))) from None


def unknown_name(what: str, name: str, known: Iterable[str]) -> BehaviourError:
    """Word the error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return BehaviourError(f"unknown {what} {name!r}: {hint}")


def _complaint(item: ErrorDetails) -> str:
    *table, last = item["loc"] or ("",)
    place = _dotted((*table, last))
    if item["type"] == _UNKNOWN_KEY:
        return str(unknown_name("key", place, [_dotted((*table, key)) for key in _keys_at(table)]))
    if item["type"] == "value_error":
        return f"{place}: {item['ctx']['error']}"
    return f"{place}: {_WORDS.get(item['type']) or _wrong_value(item)}"


def _wrong_value(item: ErrorDetails) -> str:
    return f"{item['msg'][:1].lower()}{item['msg'][1:]}, not {item['input']!r}"


def _dotted(place: Iterable[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _keys_at(place: Iterable[int | str]) -> list[str]:
    """Follow a place in the file through tables, arrays and tables of tables to the keys that it may have."""
    hint: Any = Behaviour
    for part in place:
        if dataclasses.is_dataclass(hint):
            hint = get_type_hints(hint)[str(part)]
        else:
            hint = get_args(hint)[0 if isinstance(part, int) else -1]
    return [field.name for field in dataclasses.fields(hint)]
