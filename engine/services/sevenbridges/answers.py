"""Answers of Seven Bridges in, tasks and pages of lists as values out; only here their words are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from engine.model.errors import UnexpectedAnswer
from engine.model.record import Row
from engine.services.base import Answer

TOTAL_HEADER = "x-total-matching-query"
"""How many items a list has in all its pages."""

DRAFT = "DRAFT"
UNSTARTED = frozenset({DRAFT, "CREATING"})
STOPPABLE = frozenset({"CREATING", "QUEUED", "RUNNING"})
BROKEN = frozenset({"FAILED", "ABORTED"})
ENDED = BROKEN | {"COMPLETED"}
UNDER_WAY = UNSTARTED | STOPPABLE | {"ABORTING"}
"""A status that we have never heard of is under way as well, until the task has an `end_time`."""
KNOWN = UNDER_WAY | ENDED

CHILD_COUNTS = ("queued", "running", "completed", "failed", "aborted")
"""What a parent's `execution_status` counts its children by."""

TIMES = ("created_time", "start_time", "end_time")
STEPS = (
    "steps_completed",
    "steps_total",
    "queued_duration",
    "running_duration",
    "execution_duration",
    "duration",
)
"""What the `execution_status` of a single task or a child counts; the vendor's client has these names, and no unit."""

TASK_FIELDS = ",".join(
    (
        *("id", "name", "status", "project", "description", "parent", "batch", "batch_group"),
        *("errors", "execution_status", "price", *TIMES),
    )
)
"""What `Task` reads: without the selector each answer would bring all the inputs and outputs."""

BULK_FIELDS = ",".join(f"resource.{name}" for name in TASK_FIELDS.split(","))
"""The same of a bulk call, whose items hold the task under `resource`: the vendor's page on bulk calls."""


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
    times: Mapping[str, str] = field(default_factory=dict)
    """TIMES, as far as there are any, as the service writes them."""
    price: Mapping[str, Any] | None = None

    @property
    def children(self) -> Mapping[str, int]:
        """How many children a parent has, by their state."""
        counts = {word: self.execution.get(word) for word in CHILD_COUNTS}
        return {word: count for word, count in counts.items() if type(count) is int}

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.status in ENDED or (self.status not in UNDER_WAY and "end_time" in self.times)

    @property
    def exists(self) -> bool:
        """All that it will be exists: it has been started, and a parent has its children."""
        if self.status in UNSTARTED:
            return False
        return not self.batch or self.ended or sum(self.children.values()) > 0

    @property
    def complaint(self) -> str:
        """Why it cannot be run, in words."""
        return "; ".join(f"inputs.{one.get('input_id', '?')}: {one.get('message', one)}" for one in self.errors)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: Sequence[Row]
    total: int
    """Items of the whole list; where the service does not say how many, one more than it has shown while there are."""


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


def page_of(answer: Answer, offset: int = 0) -> Page:
    """Return one page of a list, the items of which begin at `offset`."""
    items = items_of(answer)
    total = next((value for name, value in answer.headers.items() if name.lower() == TOTAL_HEADER), "")
    if total.isdecimal():
        return Page(items, int(total))
    links = object_of(answer).get("links")
    if not isinstance(links, list):  # a page that is taken for the last one may hide a draft, which is then made twice
        raise UnexpectedAnswer(f"the list says neither how long it is ({TOTAL_HEADER}) nor what follows (links)")
    more = any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
    return Page(items, offset + len(items) + more)


def resource_of(item: Row) -> Row | None:
    """Return what an item of a bulk answer holds: {} if that is nothing; None where it says an error instead."""
    resource = item.get("resource")
    if isinstance(resource, dict) and resource:
        return resource
    return None if isinstance(item.get("error"), dict) else {}


def task_of(body: Row) -> Task:
    """Return a task; only its id and status must be there."""
    task_id, status = body.get("id"), body.get("status")
    if not isinstance(task_id, str) or not isinstance(status, str) or not task_id:
        raise UnexpectedAnswer(f"the answer is no task: {str(body)[:80]}")
    group, execution, errors = body.get("batch_group"), body.get("execution_status"), body.get("errors")
    price, times = body.get("price"), {name: body.get(name) for name in TIMES}
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
        times={name: at for name, at in times.items() if isinstance(at, str) and at},
        price=price if isinstance(price, dict) else None,
    )


def details_of(task: Task) -> Row:
    """Return what an outcome says of a task besides its id, in the service's own words."""
    said: Row = {"status": task.status, **task.times}
    if task.batch and task.execution:  # its message is among the counts
        said["execution_status"] = task.execution
    else:
        said |= {name: task.execution[name] for name in STEPS if task.execution.get(name) is not None}
        if task.status in BROKEN and (message := task.execution.get("message")):
            said["message"] = message
    if task.price:
        said["price"] = task.price
    if task.errors:
        said["errors"] = task.errors
    return said


def child_details(child: Task) -> Row:
    """Return what a parent's outcome says of a child."""
    said = {"task_id": child.id, "name": child.name, "batch_group": child.batch_group}
    return said | details_of(child)


def time_text(seconds: float) -> str:
    """Write Unix seconds as the service wants to be asked: 2016-01-12T18:39:30+00:00. Its page names no `Z`."""
    return datetime.fromtimestamp(max(0, int(seconds)), UTC).isoformat()


def _seconds(text: Any) -> float | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
