"""A project's JSON Schema of a task enters; the check of a task leaves, and whether its tasks can carry a mark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from engine.model.errors import ConfigError
from engine.model.record import Row

MARK = "client_batch_id"
"""The input by which the vendor lets tasks be found again."""

_LONGEST_MARK = "j" * 100 + "-0123456789abcdef-4294967295" + ".2" * 10
"""A job's name may have 100 characters; its batches are numbered, and their parts by their halves."""


def read_schema(path: Path) -> Any:
    """Return the schema in a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"service.task_schema: {path} is not a usable JSON Schema: {error}") from error


def schema_check(schema: Any, path: Path | None) -> Callable[[Row], str | None]:
    """Return what says why a task does not fit a schema, None if it does; `path` is for people.

    Raises:
        ConfigError: it is no JSON Schema.
    """
    import jsonschema  # noqa: PLC0415 - only where a schema is given

    try:
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"service.task_schema: {path} is not a usable JSON Schema: {error}") from error
    return partial(_schema_error, validator(schema))


def _schema_error(validator: Any, task: Row) -> str | None:
    error = next(validator.iter_errors(task), None)
    return None if error is None else f"{error.json_path.removeprefix('$.')}: {error.message[:200]}"


def takes_marks(schema: object) -> bool:
    """Tell whether a project's JSON Schema has the input and lets a mark of ours stand in it."""
    if not isinstance(schema, dict):
        return False
    found = [own[MARK] for data in _property(schema, "data") for own in _properties(data) if MARK in own]
    if not found:
        return False
    import jsonschema  # noqa: PLC0415 - 50 ms, only where a project has the input

    validator = jsonschema.validators.validator_for(schema)(schema)
    try:
        return all(validator.evolve(schema=part).is_valid(_LONGEST_MARK) for part in found)
    except Exception:  # noqa: BLE001 - whatever is wrong with a schema that others wrote
        return False


def _properties(schema: object) -> Iterator[Row]:
    """Yield the properties of a schema, and of those that it is made of."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        yield schema["properties"]
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word) or ():
            yield from _properties(part)


def _property(schema: Row, name: str) -> Iterator[object]:
    return (properties[name] for properties in _properties(schema) if name in properties)
