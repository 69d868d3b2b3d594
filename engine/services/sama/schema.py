"""The project's own JSON Schema of a task: does a task fit it, can tasks carry a client reference? `service` asks.

A schema comes from the service, or from a vendor as a file, so it is foreign: nothing that it refers to is fetched, its
patterns are matched in linear time, and how long it is, how deep and how much it refers to itself is bounded. What
cannot be checked within these bounds is an error, never a guess.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from engine.files import regular
from engine.model.errors import ConfigError
from engine.model.record import Row

REFERENCE_INPUT = "client_batch_id"
"""The input by which the vendor lets tasks be found again."""

MAX_SCHEMA_BYTES = 1 << 20
"""Of a file; the longest that are published for tasks and forms have some hundred KB."""
MAX_EXPANSION = 10_000
"""Parts of a schema that one value is checked against; references that double each other would make it billions."""
MAX_PARTS = 100_000
"""Objects in a schema, wherever it comes from: a file of the greatest length has no more."""
_ALL_PATTERNS_BYTES = 64 << 20
"""Memory for the patterns of a schema, all together."""
_ONE_PATTERN_BYTES = 1 << 20

_LONGEST_MARK = "j" * 100 + "-0123456789abcdef-4294967295" + ".2" * 10
"""A job's name may have 100 characters; its batches are numbered, and their parts by their halves."""
_SHOWN = 200
"""Letters of a reason: it quotes the value."""
_VALUE = "\ue000"
"""Stands in the engine's words for the value; a letter that Unicode leaves to private use."""
_UNFETCHED = re.compile(r"Resource '([^']+)' is not present")
_NO_PATTERN = ' is not a "regex"'
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*")
_LISTS = ("allOf", "anyOf", "oneOf")
_SAME_VALUE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IDENTIFIERS = ("$id", "id")
_ANCHORS = ("$anchor", "$dynamicAnchor", *_IDENTIFIERS)


class UncheckableSchema(ConfigError):
    """This schema cannot be checked here."""


def read_schema(path: Path) -> Any:
    """Return the schema in a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            text = file.read(MAX_SCHEMA_BYTES + 1)
        if len(text) <= MAX_SCHEMA_BYTES:
            return orjson.loads(text)
        error: Exception = ValueError(f"it is longer than {MAX_SCHEMA_BYTES // 1024} KiB")
    except (OSError, ValueError) as unusable:
        error = unusable
    raise ConfigError(f"service.task_schema: {path} is not a usable JSON Schema: {error}")


def schema_check(schema: Any, path: Path | None) -> Callable[[Row], str | None]:
    """Return what says why a task does not fit a schema, None if it does; `path` is for people.

    Raises:
        ConfigError: it is no JSON Schema, or one that cannot be checked here.
    """
    try:
        return partial(_schema_error, _validator(schema))
    except UncheckableSchema as error:
        raise ConfigError(f"service.task_schema: {path} is not a usable JSON Schema: {error}") from error


def _schema_error(validator: Any, task: Row) -> str | None:
    try:
        error = next(validator.iter_errors(task), None)
        reason = _reason(error) if error else ""
    except ValueError as unfit:  # a text that is no Unicode, a number without end, nesting without end
        return f"it cannot be checked against service.task_schema: {unfit}"[:_SHOWN]
    return None if error is None else f"{_place(error.instance_path)}: {reason}"


def _reason(error: Any) -> str:
    """Return what a value breaks; of a long one, the keyword and what it wants, so that the value hides neither."""
    about = error.kind.error if error.kind.name == "propertyNames" else error  # it is the name that does not fit
    whole = _whole(about)
    if len(whole) <= _SHOWN:
        return whole
    return f"{error.kind.name}: {about.message.replace(_VALUE, 'the value')[:_SHOWN]}"


def _whole(error: Any) -> str:
    """Return the engine's words with the value in them."""
    value = json.dumps(error.instance, ensure_ascii=False, separators=(",", ":"))
    return str(error.message).replace(_VALUE, value, 1)


def _place(path: list[str | int]) -> str:
    """Return where in a task something is, as in `data.boxes[1]`."""
    steps = [f".{step}" if _PLAIN_KEY.fullmatch(str(step)) else f"[{step!r}]" for step in path]
    return "".join(steps).removeprefix(".") or "the task"


def takes_references(schema: object) -> bool:
    """Return whether a project's JSON Schema has the input and lets a client reference of ours stand in it.

    Raises:
        UncheckableSchema: it has the input, and what may stand there cannot be found out.
    """
    if not isinstance(schema, dict):
        return False
    found = [
        f"{place}/{REFERENCE_INPUT}"
        for data in _properties(schema, "")
        if "data" in data[1]
        for place, own in _properties(data[1]["data"], f"{data[0]}/data")
        if REFERENCE_INPUT in own
    ]
    return all(_validator(schema, place).is_valid(_LONGEST_MARK) for place in found) and bool(found)


def inputs_of(schema: object) -> Sequence[str]:
    """Return the names of the inputs that a task's `data` may have."""
    found = [
        names for place in _properties(schema, "") if "data" in place[1] for names in _properties(place[1]["data"], "")
    ]
    return list(dict.fromkeys(name for _, own in found for name in own))


def _properties(schema: object, place: str) -> Iterator[tuple[str, Row]]:
    """Yield the properties of a schema, and of those that it is made of, with the JSON pointer to each."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        yield f"{place}/properties", schema["properties"]
    for word in _LISTS:
        parts = schema.get(word)
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from _properties(part, f"{place}/{word}/{number}")


class _Unasserted:
    """A keyword that says how a text is to be read, and decides nothing; only one of the engines asserts it."""

    def __init__(self, *_: object) -> None: ...

    def validate(self, instance: object) -> None: ...


_ROOT = "urn:bulksubmit:schema"


def _validator(schema: Any, place: str | None = None) -> Any:
    """Return what checks values against a schema, or against the part of it that a JSON pointer names.

    Raises:
        UncheckableSchema: it is none, or it reaches beyond the bounds.
    """
    import jsonschema_rs  # noqa: PLC0415 - only where there is a schema

    def retrieve(address: str) -> Any:
        if address != _ROOT:
            raise ValueError("nothing is fetched")
        return schema

    try:
        patterns = _checked(schema)
        most = min(_ONE_PATTERN_BYTES, _ALL_PATTERNS_BYTES // max(patterns, 1))
        if isinstance(schema, dict) and not _is_known(schema.get("$schema")):
            schema = {key: value for key, value in schema.items() if key != "$schema"}
        return jsonschema_rs.validator_for(
            schema if place is None else {"$ref": f"{_ROOT}#{place}"},
            retriever=retrieve,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=most, dfa_size_limit=most),
            validate_formats=False,
            mask=_VALUE,
            keywords={"contentEncoding": _Unasserted, "contentMediaType": _Unasserted},
        )
    except (ValueError, TypeError) as error:
        raise UncheckableSchema(_worded(error)) from None
    except RecursionError:
        raise UncheckableSchema("it is nested too deeply, or refers to itself too often") from None


def _worded(error: Exception) -> str:
    judged = hasattr(error, "kind")  # the schema itself, as a value
    message = _whole(error) if judged else str(error)
    if found := _UNFETCHED.match(message):
        return (
            f"it refers to {found[1][:_SHOWN]}, and nothing is fetched; put what is meant there into the schema itself"
        )
    if message.endswith(_NO_PATTERN):
        pattern = message.removesuffix(_NO_PATTERN)[:_SHOWN]
        return (
            f"the pattern {pattern} is none, or cannot be matched in linear time: it looks ahead, looks behind, refers "
            "back or is too large; take it out"
        )
    return _reason(error) if judged else message[:_SHOWN]


def _is_known(dialect: object) -> bool:
    """Return whether a schema says in which dialect it is written; in any other, it is read as one of the newest."""
    return dialect is None or not isinstance(dialect, str) or "json-schema.org/" in dialect


def _checked(schema: Any) -> int:
    """Count the patterns of a schema.

    Raises:
        ValueError: one value is checked against too many parts of it.
    """
    parts = list(islice(_parts(schema), MAX_PARTS + 1))
    if len(parts) > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS:,} parts")
    within = _InPlace(schema, parts)
    if any(within.count(part) > MAX_EXPANSION for part in parts):
        raise ValueError("it refers to itself so often that a value is checked against too many parts of it")
    return sum(len(part.get("patternProperties") or ()) + ("pattern" in part) for part in parts)


def _parts(value: Any) -> Iterator[Row]:
    """Yield every object of a schema."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


class _InPlace:
    """Counts the parts of a schema that one value is checked against: references are followed, members are not."""

    def __init__(self, root: Any, parts: list[Row]) -> None:
        self._counts: dict[int, int] = {}
        self._resources = [root]
        self._left = MAX_PARTS
        """Steps of looking up references: each may mean a place in any schema that has a name here."""
        self._named: Mapping[str, list[Row]] = defaultdict(list)
        for part in parts:
            names = [name for key in _ANCHORS if isinstance(name := part.get(key), str)]
            for name in names:
                self._named[name.rstrip("#").rpartition("#")[2].rpartition("/")[2]].append(part)
            if any(isinstance(part.get(key), str) for key in _IDENTIFIERS):
                self._resources.append(part)

    def count(self, part: Any) -> int:
        """Return how many they are; a reference back to where it came from counts as one, for it ends there."""
        if not isinstance(part, dict):
            return 1
        if id(part) not in self._counts:
            self._counts[id(part)] = 1
            beside = [list(listed) for word in _LISTS if isinstance(listed := part.get(word), list)]
            beside += [[part[word]] for word in _SAME_VALUE if word in part]
            beside += [list(named.values()) for word in _MAPS if isinstance(named := part.get(word), dict)]
            total = 1 + sum(self.count(inner) for group in beside for inner in group)
            for word in _REFERENCES:
                if isinstance(reference := part.get(word), str):
                    total += max(map(self.count, self._targets(reference)), default=1)
            self._counts[id(part)] = min(total, MAX_EXPANSION + 1)
        return self._counts[id(part)]

    def _targets(self, reference: str) -> Iterator[Any]:
        """Yield what a reference may mean: one that is relative, in any of the schemas that have a name here."""
        base, _, fragment = unquote(reference).partition("#")
        self._left -= len(self._resources)
        if self._left < 0:
            raise ValueError("it holds so many schemas with names of their own that its references cannot be followed")
        if fragment.startswith("/"):
            for resource in self._resources:
                yield _pointed(resource, fragment)
        elif fragment or base:
            yield from self._named.get(fragment or base.rpartition("/")[2], ())
        else:
            yield from self._resources


def _pointed(value: Any, pointer: str) -> Any:
    """Return what a JSON pointer names; None if nothing stands there."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
