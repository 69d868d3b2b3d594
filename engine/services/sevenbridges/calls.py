"""Makes the calls of Seven Bridges' API, and reads its answers: one method for each call, tasks and pages as values.

Only here its words are read. Where an answer cannot be understood, an UnexpectedAnswer is raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from engine.model.error_hints import Carries
from engine.model.errors import UnexpectedAnswer
from engine.model.record import Row
from engine.services.base import JSON_HEADERS, Answer, Call, Caller, Intent, json_object, json_rows

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


def page_of(answer: Answer, offset: int = 0) -> Page:
    """Return one page of a list, the items of which begin at `offset`."""
    items = json_rows(answer, "items")
    total = next((value for name, value in answer.headers.items() if name.lower() == TOTAL_HEADER), "")
    if total.isdecimal():
        return Page(items, int(total))
    links = json_object(answer).get("links")
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


PAGE_ITEMS = 100
"""Most items on a page, and most ids in a bulk call; the vendor's maximum."""

_FIELDS = {"fields": TASK_FIELDS}


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are: in the root of a project, or in a folder of it."""

    project: str
    folder: str = ""
    """Its id."""

    @property
    def query(self) -> Mapping[str, str]:
        """What a list of it is asked for by: a project or a parent, not both (the vendor's page on listing files)."""
        return {"parent": self.folder} if self.folder else {"project": self.project}


class ListShifted(UnexpectedAnswer):
    """A list changed while its pages were read, so that something may have slipped from one to the other."""


class Calls:
    """The calls of one service."""

    def __init__(self, caller: Caller, base_url: str) -> None:
        self._caller = caller
        self._base_url = base_url
        self._bulk_query: Mapping[str, str] = {"fields": BULK_FIELDS}
        """Nothing, once that has brought something else than tasks: then they come whole, with all they hold."""

    async def create(self, body: bytes, *, disable_batch: bool, intent: Intent | None = None) -> Task:
        """Create a draft.

        Raises:
            PossiblyApplied: the answer was lost; the draft can be looked for by its marker.
        """
        # The body has "batch": false as well; the query is how the vendor's client says it.
        query = {**_FIELDS, "batch": "False"} if disable_batch else _FIELDS
        call = Call(
            "create", "POST", self._url("tasks"), query, JSON_HEADERS, body, carries=Carries.RECORDS, intent=intent
        )
        call = replace(call, repeatable=False, reconcilable=True)
        return task_of(json_object(await self._caller.call(call)))

    async def run(self, task_id: str) -> Task:
        """Run a draft; repeatable, because the service refuses to run what is none any more (7007, 7010)."""
        url = self._url(f"tasks/{task_id}/actions/run")
        call = Call("run", "POST", url, _FIELDS, JSON_HEADERS, b"{}", carries=Carries.RELEASE)
        return task_of(json_object(await self._caller.call(call)))

    async def rate_limit(self) -> None:
        """Ask about the request window: the one call that costs nothing of it."""
        json_object(await self._caller.call(Call("limit", "GET", self._url("rate_limit"))))

    async def get(self, task_id: str) -> Task:
        """Ask about one task."""
        call = Call("get", "GET", self._url(f"tasks/{task_id}"), _FIELDS)
        return task_of(json_object(await self._caller.call(call)))

    async def bulk(self, task_ids: Sequence[str]) -> Sequence[Task]:
        """Ask about up to PAGE_ITEMS tasks; those that are not there are left out.

        Raises:
            UnexpectedAnswer: no item is a task, and not all of them are errors.
        """
        resources = await self._resources(task_ids)
        if self._bulk_query and any("id" not in one for one in resources):
            self._bulk_query = {}
            resources = await self._resources(task_ids)
        tasks = [task_of(one) for one in resources if "id" in one]
        if resources and not tasks:
            raise UnexpectedAnswer(f"{len(resources)} items of the answer are neither tasks nor errors", call="bulk")
        return tasks

    async def _resources(self, task_ids: Sequence[str]) -> Sequence[Row]:
        body = orjson.dumps({"task_ids": task_ids})
        call = Call("bulk", "POST", self._url("bulk/tasks/get"), self._bulk_query, JSON_HEADERS, body, yielding=True)
        resources = map(resource_of, json_rows(await self._caller.call(call), "items"))
        return [resource for resource in resources if resource is not None]

    async def delete(self, task_id: str) -> None:
        """Delete a draft."""
        await self._caller.call(Call("delete", "DELETE", self._url(f"tasks/{task_id}")))

    async def abort(self, task_id: str) -> None:
        """Stop a task."""
        await self._caller.call(
            Call("abort", "POST", self._url(f"tasks/{task_id}/actions/abort"), {}, JSON_HEADERS, b"{}")
        )

    def created_since(self, project: str, seconds: float) -> AsyncIterator[Page]:
        """Yield the pages of a project's tasks, oldest first, from those created at a time (Unix seconds) on."""
        query = {"project": project, "created_from": time_text(seconds), "order_by": "created_time", "order": "asc"}
        return self._pages(Call("find", "GET", self._url("tasks"), {**query, **_FIELDS}))

    def children(self, task_id: str) -> AsyncIterator[Page]:
        """Yield the pages of a parent's children."""
        query = {"parent": task_id, **_FIELDS}
        return self._pages(Call("children", "GET", self._url("tasks"), query, yielding=True))

    def files(self, place: Place, names: Sequence[str] = ()) -> AsyncIterator[Page]:
        """Yield the pages of the files and folders in a place: those that have one of these names, or all.

        Raises:
            Refused, Unavailable: by its status, or because it timed out, perhaps for the number of the names.
        """
        # In the address, because a query of a Call has each key once.
        path = "?".join(filter(None, ["files", urlencode([("name", name) for name in names], quote_via=quote)]))
        query = {**place.query, "fields": "id,name,type"}
        return self._pages(Call("files", "GET", self._url(path), query, few_tries=len(names) > 1))

    async def _pages(self, call: Call) -> AsyncIterator[Page]:
        """Yield all pages of the list that a call asks for, each item once.

        Each page after the first is asked for from the last item of the one before, and must begin with it: if an item
        was deleted meanwhile, those behind it moved up, and one would have been passed over.

        Raises:
            ListShifted: it did not.
        """
        offset, last = 0, None
        while True:
            place = {"limit": str(PAGE_ITEMS), "offset": str(offset)}
            page = page_of(await self._caller.call(replace(call, query={**call.query, **place})), offset)
            items = page.items
            if last is not None and (not items or items[0].get("id") != last):
                raise ListShifted("the list changed while it was read", call=call.kind)
            yield Page(items if last is None else items[1:], page.total)
            if offset + len(items) >= page.total:
                return
            if len(items) <= 1:
                said = f"the list says it has {page.total} items, and shows {offset + len(items)}"
                raise ListShifted(said, call=call.kind)
            offset, last = offset + len(items) - 1, items[-1].get("id")

    def _url(self, path: str) -> str:
        return f"{self._base_url}/{path}"
