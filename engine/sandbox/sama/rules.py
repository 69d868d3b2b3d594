"""A task as it was sent enters, the reasons why Sama would not create it leave (none: it is created).

The field rules are the vendor's: `data` an object, `priority` int32, `reserve_for` an agent's id, `submit` a bool,
`duration` only with `submit`. Nulls count as absent, because the vendor's client sends them.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from engine.sandbox.behaviour import FailureRule, Project
from engine.sandbox.errors import BehaviourError
from engine.sandbox.failing import PlannedFailure
from engine.sandbox.sama.batches import FailedTask

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
_FIELDS = frozenset({"data", "priority", "reserve_for", "submit", "duration"})

TASK_SCHEMA: Mapping[str, object] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "object"},
        "priority": {"type": "integer", "minimum": INT32_MIN, "maximum": INT32_MAX, "default": 0},
        "reserve_for": {"type": ["string", "integer"]},
        "submit": {"type": "boolean", "default": False},
        "duration": {"type": "number", "minimum": 0},
    },
}


class TaskRules:
    """All rules that the tasks of one project must pass."""

    def __init__(self, project: Project | None, failures: Iterable[FailureRule]) -> None:
        """Load the project's schema, if it has one. Raise BehaviourError."""
        self.schema = TASK_SCHEMA if project is None or project.schema is None else _load_schema(project.schema)
        own = self.schema is not TASK_SCHEMA
        self._validator = jsonschema.validators.validator_for(self.schema)(self.schema) if own else None
        self._planned = [PlannedFailure(rule) for rule in failures]

    def failures(self, task: object) -> tuple[FailedTask, ...]:
        """Return why this task fails, empty if it does not."""
        wrong = _wrong_fields(task) or self._against_schema(task)
        if wrong:
            return tuple(FailedTask("InvalidInputSchema", message) for message in wrong)
        return tuple(FailedTask(plan.rule.type, plan.rule.message) for plan in self._planned if plan.hits(task))

    def _against_schema(self, task: object) -> list[str]:
        if self._validator is None:
            return []
        return [f"{error.json_path}: {error.message}" for error in self._validator.iter_errors(_without_nulls(task))]


def _wrong_fields(task: object) -> list[str]:
    if not isinstance(task, dict):
        return ["A task must be an object."]
    present = {key: value for key, value in task.items() if value is not None}
    wrong = [f"Unknown field: {key}." for key in present.keys() - _FIELDS]
    if not isinstance(present.get("data"), dict):
        wrong.append("data must be an object.")
    return wrong + _wrong_options(present)


def _wrong_options(task: Mapping[str, Any]) -> list[str]:
    wrong = []
    priority, submit, duration = task.get("priority", 0), task.get("submit", False), task.get("duration")
    if type(priority) is not int or not INT32_MIN <= priority <= INT32_MAX:
        wrong.append(f"priority must be a whole number from {INT32_MIN} to {INT32_MAX}.")
    if type(task.get("reserve_for", "")) not in (str, int):
        wrong.append("reserve_for must be the id of an agent.")
    if type(submit) is not bool:
        wrong.append("submit must be true or false.")
    if duration is not None and (type(duration) not in (int, float) or duration < 0):
        wrong.append("duration must be a number of seconds.")
    elif duration is not None and submit is not True:
        wrong.append("duration is only allowed with submit.")
    return wrong


def _without_nulls(task: object) -> Any:
    return {key: value for key, value in task.items() if value is not None} if isinstance(task, dict) else task


@lru_cache
def _load_schema(path: Path) -> Mapping[str, Any]:
    try:
        schema = orjson.loads(path.read_bytes())
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except (OSError, ValueError, jsonschema.SchemaError) as error:
        raise BehaviourError(f"the schema {path} cannot be used: {error}") from error
    return schema  # type: ignore[no-any-return] # checked to be a schema
