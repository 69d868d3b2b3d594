"""A behaviour file enters as TOML, a checked `Behaviour` leaves; an unknown key is an error that names the nearest."""

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.errors import BehaviourError

T = TypeVar("T")


def load_behaviour(path: Path) -> Behaviour:
    """Read a behaviour file; paths in it are relative to the file. Raise BehaviourError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BehaviourError(f"cannot read the behaviour file {path}: {error.strerror}") from error
    return parse_behaviour(text, base=path.parent)


def parse_behaviour(text: str, base: Path = Path()) -> Behaviour:
    """Read behaviour from TOML text. Raise BehaviourError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BehaviourError(f"the behaviour file is not TOML: {error}") from error
    return _Reader(base).build(Behaviour, table, "")


def unknown_name(what: str, name: str, known: Iterable[str]) -> BehaviourError:
    """Word the error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return BehaviourError(f"unknown {what} {name!r}: {hint}")


class _Reader:
    """Turns TOML values into the annotated types; `where` is the dotted key, for errors."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def build(self, cls: type[T], table: object, where: str) -> T:
        if not isinstance(table, dict):
            raise BehaviourError(f"{where}: expected a table")
        hints = get_type_hints(cls)
        for key in table:
            if key not in hints:
                raise unknown_name("key", f"{where}.{key}".lstrip("."), [f"{where}.{k}".lstrip(".") for k in hints])
        values = {key: self._convert(hints[key], value, f"{where}.{key}".lstrip(".")) for key, value in table.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise BehaviourError(f"{where}: {_missing(cls, table)}") from error
        except BehaviourError as error:
            raise BehaviourError(f"{where}: {error}") from error

    def _convert(self, hint: Any, value: object, where: str) -> object:
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            return self._convert_union(get_args(hint), value, where)
        if origin is Literal:
            return _choice(get_args(hint), value, where)
        if origin is tuple:
            items = value if isinstance(value, list) else [value]
            return tuple(self._convert(get_args(hint)[0], item, f"{where}[{n}]") for n, item in enumerate(items))
        if origin is Mapping:
            return self._convert_mapping(get_args(hint)[1], value, where)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.build(hint, value, where)
        return self._convert_plain(hint, value, where)

    def _convert_union(self, hints: tuple[Any, ...], value: object, where: str) -> object:
        for hint in hints:
            if type(value) is hint:
                return value
        return self._convert(hints[0], value, where)

    def _convert_mapping(self, hint: Any, value: object, where: str) -> object:
        if not isinstance(value, dict):
            raise BehaviourError(f"{where}: expected a table of tables")
        return types.MappingProxyType({key: self._convert(hint, item, f"{where}.{key}") for key, item in value.items()})

    def _convert_plain(self, hint: Any, value: object, where: str) -> object:
        if hint is Path and isinstance(value, str):
            return self._base / value
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
        raise BehaviourError(f"{where}: expected {hint.__name__}, got {value!r}")


def _choice(choices: tuple[object, ...], value: object, where: str) -> object:
    if value not in choices:
        raise BehaviourError(f"{where}: {value!r} is not one of {', '.join(map(str, choices))}")
    return value


def _missing(cls: Any, table: Mapping[str, object]) -> str:
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    return f"missing {', '.join(name for name in required if name not in table)}"
