"""What Sama accepts, and how it refuses: errors, and which tasks it creates.

Sama documents `{"errors": [{"type", "message"}]}`, where `type` is a number or a name. The names other than
InvalidInputSchema are this sandbox's choice. The rules for a task's fields are the vendor's: `data` an object,
`priority` int32, `reserve_for` an agent's id, `submit` a bool, `duration` only with `submit`. Nulls count as absent,
because the vendor's client sends them.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Never

import jsonschema_rs
import orjson
from msgspec import Struct

from engine.sandbox.behaviour import BehaviourError, FailureRule, Project
from engine.sandbox.messages import SandboxAnswer, SandboxRefusal, json_answer

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


def error_answer(status: int, message: str, type: int | str | None = None) -> SandboxAnswer:  # noqa: A002 - the wire's name
    """Word an error; without a `type` the status stands in its place, as the vendor does for 401."""
    return json_answer({"errors": [{"type": status if type is None else type, "message": message}]}, status)


def refusal(status: int, message: str, type: int | str | None = None) -> SandboxRefusal:  # noqa: A002 - the wire's name
    """Make an error to raise."""
    return SandboxRefusal(error_answer(status, message, type))


class NotCreated(Struct, frozen=True):
    """Why a task was not created."""

    type: int | str
    message: str


class TaskRules:
    """All rules that the tasks of one project must pass."""

    def __init__(self, project: Project | None, failures: Iterable[FailureRule]) -> None:
        """Load the project's schema, if it has one. Raise BehaviourError."""
        self.schema = TASK_SCHEMA if project is None or project.schema is None else _load_schema(project.schema)
        own = self.schema is not TASK_SCHEMA
        self._validator = _validator(self.schema) if own else None
        self._planned = tuple(failures)

    def failures(self, task: object) -> tuple[NotCreated, ...]:
        """Return why this task fails, empty if it does not."""
        wrong = self._wrong(task)
        if wrong:
            return tuple(NotCreated("InvalidInputSchema", message) for message in wrong)
        return tuple(NotCreated(rule.type, rule.message) for rule in self._planned if rule.hits(task))

    def _wrong(self, task: object) -> list[str]:
        if not isinstance(task, dict):
            return ["A task must be an object."]
        present = {key: value for key, value in task.items() if value is not None}
        wrong = _wrong_fields(present)
        if wrong or self._validator is None:
            return wrong
        errors = self._validator.iter_errors(present)
        return [f"{'.'.join(map(str, ['$', *error.instance_path]))}: {error.message}" for error in errors]


def _wrong_fields(task: Mapping[str, Any]) -> list[str]:
    wrong = [f"Unknown field: {key}." for key in task.keys() - _FIELDS]
    if not isinstance(task.get("data"), dict):
        wrong.append("data must be an object.")
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


@lru_cache
def _load_schema(path: Path) -> Mapping[str, Any]:
    try:
        schema = orjson.loads(path.read_bytes())
        _validator(schema)
    except (OSError, ValueError) as error:
        raise BehaviourError(f"the schema {path} cannot be used: {error}") from error
    return schema  # type: ignore[no-any-return] # checked to be a schema


def _validator(schema: Any) -> Any:
    return jsonschema_rs.validator_for(
        schema, retriever=_fetch_nothing, pattern_options=jsonschema_rs.RegexOptions(), validate_formats=False
    )


def _fetch_nothing(address: str) -> Never:
    raise ValueError(f"it refers to {address}, and nothing is fetched")
