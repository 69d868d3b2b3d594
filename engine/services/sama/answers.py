"""What Sama answers enters, what it means leaves. Names that nobody could see are read tolerantly, here only.

Those are `state`, `total` and `created` of a creation status, and ids as `id` or `task_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import orjson

from engine.model.doubt import Standing
from engine.model.errors import UnexpectedAnswer
from engine.model.outcomes import Settlement
from engine.model.records import Row
from engine.ports import Answer

WAITING = frozenset({"waiting"})
FINISHED = frozenset({"completed", "failed", "canceled"})
"""States of a batch's creation. Any other, also one we have never heard of, counts as under way."""

CREATED = frozenset({"created", "ready"})
"""States of a task's creation in which it exists."""

NOT_CREATED = frozenset({"failed", "canceled"})
"""States of a task's creation in which it never will. In a batch that has ended there is no third kind."""


def object_in(answer: Answer) -> Row:
    """Return the JSON object that an answer holds.

    Raises:
        UnexpectedAnswer: it holds something else; so for all in this module.
    """
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"the answer is not a JSON object: {answer.body[:80]!r}", status=answer.status)
    return body


def batch_id_in(answer: Answer, body: Row) -> str:
    """Return the name of the batch that an answer is about."""
    found = body.get("batch_id") or body.get("id")
    if not isinstance(found, int | str):
        raise UnexpectedAnswer("the answer has no batch_id", status=answer.status)
    return str(found)


def state_of(body: Row) -> str:
    """Return the state of a batch or of a task; "" if it does not say."""
    return str(body.get("state") or body.get("status") or "")


def standing_of(status: Row) -> Standing:
    """Return whether a batch was continued, by its creation status."""
    state = state_of(status)
    if not state:
        raise UnexpectedAnswer("status: the answer names no state", call="status")
    if state in WAITING:
        return Standing.WAITING
    return Standing.ENDED if state in NOT_CREATED and created_of(status) == 0 else Standing.STARTED


def created_of(status: Row) -> int | None:
    """Return how many tasks of a batch exist; None if the service does not say."""
    created = status.get("created")
    return created if type(created) is int else None


def tasks_in(body: Row) -> Sequence[Row]:
    """Return the tasks that an answer lists."""
    tasks = body.get("tasks") or []
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UnexpectedAnswer("the answer's tasks are not a list of objects")
    return tasks


def settlement_of(records: int, tasks: Sequence[Row], status: Row) -> Settlement:
    """Return the fate of each record.

    Raises:
        UnexpectedAnswer: the list does not fit the records, so nobody can say which task is whose: guessing could call
            a record failed that is a task, and a retry would make a second one.
    """
    states = list(map(state_of, tasks))
    created = sum(map(CREATED.__contains__, states))
    # One that was stopped may list the tasks that it came to; they stand in the order in which they were sent.
    cut_short = state_of(status) != "completed" and created == (created_of(status) or created)
    if len(tasks) > records or (len(tasks) < records and not cut_short):
        raise UnexpectedAnswer(f"the service lists {len(tasks)} tasks for {records} records")
    ids = [
        str(task.get("id") or task.get("task_id") or "") if state in CREATED else None
        for task, state in zip(tasks, states, strict=True)
    ]
    ids += [None] * (records - len(tasks))
    if created == records:
        return Settlement(ids)
    errors: dict[int, str] = {}
    summary = "; ".join(map(str, status.get("messages") or [])) or f"the batch ended as {state_of(status)!r}"
    for position in range(records):
        if ids[position] is not None:
            continue
        task = tasks[position] if position < len(tasks) else {}
        if task and states[position] not in NOT_CREATED:
            raise UnexpectedAnswer(f"the batch has ended, and its task {position + 1} is {states[position]!r}")
        errors[position] = _task_error(task) or summary
    return Settlement(ids, errors)


def _task_error(task: Row) -> str:
    errors = [error for error in task.get("errors") or [] if isinstance(error, dict)]
    words = "; ".join(f"{error.get('type', 'error')}: {error.get('message', '')}" for error in errors)
    return words or (f"the task's creation ended as {state_of(task)!r}" if task else "")


def made_at(task: Row) -> float:
    """Return when a task was created, in Unix seconds."""
    try:
        return datetime.fromisoformat(str(task["created_at"])).timestamp()
    except (KeyError, ValueError) as error:
        raise UnexpectedAnswer("tasks: a task does not say when it was created") from error


def data_of(task: Row) -> Row:
    """Return the inputs of a task, and its outputs, if it has any."""
    data = task.get("data")
    if not isinstance(data, dict):
        raise UnexpectedAnswer("tasks: a task does not show its data")
    return data


def is_one_of(task: Row, candidates: Sequence[Row]) -> bool:
    """Tell whether a task holds what we sent; the service may have added outputs to it."""
    data = data_of(task)
    return any(all(key in data and data[key] == value for key, value in sent.items()) for sent in candidates)


def batch_of(task: Row) -> str:
    """Return the name of the batch that a task came with."""
    batch_id = task.get("batch_id")
    if not isinstance(batch_id, int | str):
        raise UnexpectedAnswer("tasks: a task does not name its batch")
    return str(batch_id)
