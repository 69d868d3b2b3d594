"""Answers of Seven Bridges in, tasks and pages of lists as values out; only here their words are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from engine.model.errors import UnexpectedAnswer
from engine.model.records import Row
from engine.ports import Answer

TOTAL_HEADER = "x-total-matching-query"
"""How many items a list has in all its pages; the vendor's client cannot do without it either."""

DRAFT = "DRAFT"
UNSTARTED = frozenset({DRAFT, "CREATING"})
STOPPABLE = frozenset({"CREATING", "QUEUED", "RUNNING"})
BROKEN = frozenset({"FAILED", "ABORTED"})
ENDED = BROKEN | {"COMPLETED"}
"""Any other status, also one we have never heard of, counts as under way."""

CHILD_COUNTS = ("queued", "running", "completed", "failed", "aborted")
"""What a parent's `execution_status` counts its children by."""

TASK_FIELDS = "id,name,status,project,description,parent,batch,batch_group,created_time,errors,execution_status"
"""What `Task` reads: without the selector each answer would bring all the inputs and outputs."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the service says of a task."""

    id: str
    status: str
    name: str = ""
    project: str | None = None
    description: str = ""
    parent: str | None = None
    batch: bool = False
    """It is a parent: it has children, or will have."""
    batch_group: Mapping[str, Any] | None = None
    created_at: float | None = None
    """Unix seconds, by the service's clock."""
    errors: Sequence[Mapping[str, Any]] = ()
    """Why it cannot be run."""
    execution: Mapping[str, Any] = field(default_factory=dict)

    @property
    def children(self) -> Mapping[str, int]:
        """How many children a parent has, by their state."""
        counts = {word: self.execution.get(word) for word in CHILD_COUNTS}
        return {word: count for word, count in counts.items() if type(count) is int}

    @property
    def exists(self) -> bool:
        """All that it will be exists: it has been started, and a parent has its children."""
        if self.status in UNSTARTED:
            return False
        return not self.batch or self.status in ENDED or sum(self.children.values()) > 0

    @property
    def complaint(self) -> str:
        """Why it cannot be run, in words."""
        return "; ".join(f"inputs.{one.get('input_id', '?')}: {one.get('message', one)}" for one in self.errors)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: Sequence[Row]
    total: int
    """Items of the whole list."""


def object_of(answer: Answer) -> Row:
    """Return a JSON object."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"the answer is not a JSON object: {answer.body[:80]!r}", status=answer.status)
    return body


def items_of(answer: Answer) -> Sequence[Row]:
    """Return the items of a list."""
    items = object_of(answer).get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnexpectedAnswer("the answer's items are not a list of objects", status=answer.status)
    return items


def page_of(answer: Answer) -> Page:
    """Return one page of a list."""
    total = next((value for name, value in answer.headers.items() if name.lower() == TOTAL_HEADER), "")
    if not total.isdecimal():
        raise UnexpectedAnswer(f"the list does not say how long it is (header {TOTAL_HEADER})", status=answer.status)
    return Page(items_of(answer), int(total))


def task_of(body: Row) -> Task:
    """Return a task; only its id and status must be there."""
    task_id, status = body.get("id"), body.get("status")
    if not isinstance(task_id, str) or not isinstance(status, str) or not task_id:
        raise UnexpectedAnswer(f"the answer is no task: {str(body)[:80]}")
    group, execution, errors = body.get("batch_group"), body.get("execution_status"), body.get("errors")
    return Task(
        id=task_id,
        status=status.upper(),
        name=str(body.get("name") or ""),
        project=body.get("project"),
        description=str(body.get("description") or ""),
        parent=body.get("parent"),
        batch=body.get("batch") is True,
        batch_group=group if isinstance(group, dict) else None,
        created_at=_seconds(body.get("created_time")),
        errors=[one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else [],
        execution=execution if isinstance(execution, dict) else {},
    )


def details_of(task: Task) -> Row:
    """Return what an outcome says of a task besides its id."""
    said: Row = {"status": task.status}
    if task.batch and task.execution:  # its message is among the counts
        said["execution_status"] = task.execution
    elif task.status in BROKEN and (message := task.execution.get("message")):
        said["message"] = message
    if task.errors:
        said["errors"] = task.errors
    return said


def child_details(child: Task) -> Row:
    """Return what a parent's outcome says of a child."""
    said = {"task_id": child.id, "name": child.name, "batch_group": child.batch_group}
    return said | details_of(child)


def time_text(seconds: float) -> str:
    """Write Unix seconds as the service does: 2016-01-12T18:39:30Z."""
    return datetime.fromtimestamp(max(0, int(seconds)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: Any) -> float | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
