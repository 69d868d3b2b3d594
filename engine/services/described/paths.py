"""Dotted paths into what a service answers, compiled once: `response.body.id` in, the value at that place out.

A part of a path is the name of a member. A number is a place in a list, from 0 on; -1 is the last one. `*` is the only
value of an object that has one, whatever its name. A name that holds a dot stands in quotes: `"a.b".c`. A path that
begins with `=` is no path: what follows it is the value. The empty path is the whole value.

A value costs less than 1 µs. What is not there is MISSING, and no error: answers are written by others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson

Getter: TypeAlias = Callable[[Any], Any]
"""A value → what stands in it at a path; MISSING if nothing does."""


class Nothing(Enum):
    """What a path finds where nothing stands."""

    MISSING = "missing"


MISSING: Final = Nothing.MISSING

ANY = "*"
"""Among wanted values: whatever is there, and not null."""

_PART = re.compile(r'"((?:[^"\\]|\\.)+)"|([^."]+)')
_PLACE = re.compile(r"-?[0-9]{1,9}")
_NOTHING: tuple[Any, ...] = ("", [], {}, False)
"""Where words of an error may stand, these say that there is none."""


def parts_of(path: str) -> Sequence[str]:
    """Return the parts of a path; of one that begins with `=`, or is empty, there are none.

    Raises:
        ValueError: it cannot be read; says why.
    """
    if not path or path.startswith("="):
        return ()
    parts, at = [], 0
    while True:
        found = _PART.match(path, at)
        if found is None:
            raise ValueError(f"{path!r} is no path: a name is missing at character {at + 1}; write it as a.b.0.c")
        quoted, plain = found.groups()
        parts.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
        at = found.end()
        if at == len(path):
            return tuple(parts)
        if path[at] != ".":
            raise ValueError(f"{path!r} is no path: a dot is missing at character {at + 1}; write it as a.b.0.c")
        at += 1


@lru_cache(512)
def compiled(path: str) -> Getter:
    """Return what finds the value at a path.

    Raises:
        ValueError: the path cannot be read.
    """
    if path.startswith("="):
        literal = path[1:]
        return lambda _value: literal
    parts = parts_of(path)
    if not parts:
        return lambda value: value
    if any(part == "*" or _PLACE.fullmatch(part) for part in parts):
        return _stepwise([_step(part) for part in parts])
    if len(parts) == 1:
        return _member(parts[0])
    return _members(parts)


def _member(name: str) -> Getter:
    def get(value: Any) -> Any:
        try:
            return value[name]
        except (KeyError, TypeError):  # what is no object has no members
            return MISSING

    return get


def _members(names: Sequence[str]) -> Getter:
    def get(value: Any) -> Any:
        try:
            for name in names:
                value = value[name]
        except (KeyError, TypeError):
            return MISSING
        return value

    return get


def _stepwise(steps: Sequence[Getter]) -> Getter:
    def get(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return get


def _step(part: str) -> Getter:
    if part == "*":
        return _only
    if _PLACE.fullmatch(part):
        return _at(int(part), part)
    return _member(part)


def _only(value: Any) -> Any:
    if type(value) is dict and len(value) == 1:
        (only,) = value.values()
        return only
    return MISSING


def _at(place: int, name: str) -> Getter:
    def get(value: Any) -> Any:
        if type(value) is list:
            return value[place] if -len(value) <= place < len(value) else MISSING
        return value.get(name, MISSING) if type(value) is dict else MISSING

    return get


def words_at(paths: Sequence[str]) -> Callable[[Any], str]:
    """Return what finds the words of an error: the text of the first of some paths that says anything; "" if none does.

    Nothing is said by null, false, and what is empty. An object or a list is said as JSON. The words are another's:
    whoever shows them bounds them.

    Raises:
        ValueError: one of the paths cannot be read.
    """
    getters = [compiled(path) for path in paths]

    def words(value: Any) -> str:
        for getter in getters:
            found = getter(value)
            if found is MISSING or found is None:
                continue
            if found not in _NOTHING or (found == 0 and found is not False):
                return text_of_value(found)
        return ""

    return words


def text_of_value(value: Any) -> str:
    """Return a value of JSON as a text: a text as it is, anything else as JSON writes it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def fitting(wanted: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Return what says whether a value fits: at each path of `wanted` stands its value, or one of its values.

    Values are compared as texts, so that a table without types (CSV) can be asked for `200` and `true`. `*` is any
    value that is there and not null.

    Raises:
        ValueError: a path cannot be read.
    """
    tests = [(compiled(path), _texts(values)) for path, values in wanted.items()]

    def fits(value: Any) -> bool:
        for getter, texts in tests:
            found = getter(value)
            if found is None or found is MISSING:
                return False
            text = found if type(found) is str else str(found) if type(found) is int else text_of_value(found)
            if text not in texts and ANY not in texts:
                return False
        return True

    return fits


def _texts(values: Any) -> frozenset[str]:
    return frozenset(map(text_of_value, values if isinstance(values, list | tuple) else [values]))
