"""Says why Sama would not take a task, by the vendor's rules for every project; `schema` knows the project's own."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

import msgspec
import orjson

from engine.model.record import Row
from engine.services.decoding import Anything

INT32 = range(-(2**31), 2**31)
TASK_KEYS = ("data", "priority", "reserve_for", "submit", "duration")


class PlainTask(msgspec.Struct, forbid_unknown_fields=True):
    """A task in which `field_error` finds nothing. One with a duration is left to it: that goes with `submit` only."""

    data: Anything
    priority: Annotated[int, msgspec.Meta(ge=INT32.start, lt=INT32.stop)] = 0
    reserve_for: str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = ""
    submit: bool = False


def field_error(task: Row) -> str | None:
    """Return why no project would take a task, naming the field; None if nothing is wrong with it."""
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
