"""Says why Sama would not take a task: by the vendor's rules for every project, and by the project's own JSON Schema.

And whether the project's tasks can carry a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from engine.model.errors import ConfigError
from engine.model.record import Row

INT32 = range(-(2**31), 2**31)
TASK_KEYS = ("data", "priority", "reserve_for", "submit", "duration")

MARK = "client_batch_id"
"""The input by which the vendor lets tasks be found again."""

_LONGEST_MARK = "j" * 100 + "-0123456789abcdef-4294967295" + ".2" * 10
"""A job's name may have 100 characters; its batches are numbered, and their parts by their halves."""


def field_error(task: Row) -> str | None:
    """Return why no project would take a task, naming the field; None if nothing is wrong with it."""
    if task.keys() == {"data"} and type(task["data"]) is dict:
        return None
    for key in task:
        if key not in TASK_KEYS:
            return _unknown_key(key)
    return _data_error(task) or _priority_error(task) or _submit_error(task)


def _unknown_key(key: str) -> str:
    near = get_close_matches(key, TASK_KEYS, 1)
    hint = f"did you mean {near[0]!r}?" if near else 'inputs belong under "data" (mapping.wrap = "data" does it)'
    return f"{key}: not a key of a task; {hint}"


def _data_error(task: Row) -> str | None:
    if "data" not in task:
        return 'data: missing; a task is {"data": {…}} (mapping.wrap = "data" wraps plain rows)'
    return None if isinstance(task["data"], dict) else "data: must be an object of inputs"


def _priority_error(task: Row) -> str | None:
    priority = task.get("priority", 0)
    if type(priority) is not int or priority not in INT32:
        hint = "; source.types gives a CSV column its type" if isinstance(priority, str) else ""
        return f"priority: {_shown(priority)} is not an integer from {INT32.start} to {INT32.stop - 1}{hint}"
    reserved = task.get("reserve_for", "")
    return None if type(reserved) in (str, int) else f"reserve_for: {_shown(reserved)} is not the id of an agent"


def _submit_error(task: Row) -> str | None:
    submit = task.get("submit", False)
    if type(submit) is not bool:
        return f"submit: {_shown(submit)} is neither true nor false"
    if "duration" not in task:
        return None
    duration = task["duration"]
    if not submit:
        return "duration: only goes with submit = true"
    fine = type(duration) in (int, float) and duration >= 0
    return None if fine else f"duration: {_shown(duration)} is not a number of seconds"


def _shown(value: Any) -> str:
    """Return a value as the source has it."""
    return orjson.dumps(value).decode()


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
