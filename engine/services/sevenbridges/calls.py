"""Makes the calls of Seven Bridges' API, and reads its answers: one method for each call, tasks and pages as values.

Only here its words are read. Where an answer cannot be understood, an UnexpectedAnswer is raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import orjson
from msgspec.structs import replace

from engine.model.error_hints import Carries
from engine.model.errors import UnexpectedAnswer
from engine.model.outcome import Later
from engine.model.record import Row
from engine.services.base import JSON_HEADERS, Answer, Call, Caller, Intent
from engine.services.created import TaskState
from engine.services.decoding import Anything, Extra, Name, Word, decode, path_part, told, words

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
_COUNTS = range(10**9)
_MOST_PRICE = 1e12
_MOST_TOTAL_DIGITS = 9
STEPS = (
    *("steps_completed", "steps_total"),
    *("queued_duration", "running_duration", "execution_duration", "duration"),
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


_Time = Annotated[str, msgspec.Meta(max_length=40)]
_Project = Annotated[str, msgspec.Meta(pattern=r"^[!-.0-~]{1,150}/[!-.0-~]{1,150}\Z")]


class _Item(msgspec.Struct):
    """What lists are made of."""

    id: Name


class Task(_Item):
    """What the service says of a task; only its id and status must be there."""

    status: Word
    """In capitals, however it is written there."""
    name: Extra[str] = ""
    project: Extra[_Project | None] = None
    description: str | None = None
    """Needed as it is: a draft whose reference is not read is made twice."""
    parent: Extra[Name | None] = None
    batch: Extra[bool] = False
    """It is a parent: it has children, or will have."""
    batch_group: Extra[dict[str, Any] | None] = None
    created_time: Extra[_Time | None] = None
    start_time: Extra[_Time | None] = None
    end_time: Extra[_Time | None] = None
    errors: Extra[list[dict[str, Any]]] = []
    """Why it cannot be run."""
    execution_status: Extra[dict[str, Any]] = {}
    price: Extra[dict[str, Any] | None] = None

    def __post_init__(self) -> None:
        self.status = self.status.upper()

    @property
    def created_at(self) -> float | None:
        """Unix seconds, by the service's clock."""
        return _seconds(self.created_time)

    @property
    def times(self) -> Mapping[str, str]:
        """TIMES, as far as there are any, as the service writes them."""
        return {name: at for name in TIMES if (at := getattr(self, name))}

    @property
    def children(self) -> Mapping[str, int]:
        """How many children a parent has, by their state."""
        counts = {word: self.execution_status.get(word) for word in CHILD_COUNTS}
        return {word: count for word, count in counts.items() if type(count) is int and count in _COUNTS}

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.status in ENDED or (self.status not in UNDER_WAY and bool(self.end_time))

    @property
    def exists(self) -> bool:
        """All that it will be exists: it has been started, and a parent has its children."""
        if self.status in UNSTARTED:
            return False
        return not self.batch or self.ended or sum(self.children.values()) > 0

    @property
    def complaint(self) -> str:
        """Why it cannot be run, in words."""
        return words("; ".join(f"inputs.{one.get('input_id', '?')}: {one.get('message', one)}" for one in self.errors))


class ListedFile(_Item):
    """A file or a folder, as a list shows it."""

    name: Extra[str] = ""
    type: Extra[str] = ""


T = TypeVar("T", bound=_Item)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list."""

    items: Sequence[T]
    total: int
    """Items of the whole list; where the service does not say how many, one more than it has shown while there are."""


class _Link(msgspec.Struct):
    rel: Extra[str] = ""


class _Listed(msgspec.Struct, Generic[T]):
    items: list[T]
    links: Extra[list[_Link] | None] = None


def page_of(answer: Answer, kind: type[T], offset: int = 0, call: str = "") -> Page[T]:
    """Return one page of a list of tasks or of files, the items of which begin at `offset`."""
    of_kind: Any = _Listed[kind]  # type: ignore[valid-type] # mypy knows no types that are made while it runs
    listed: _Listed[T] = decode(answer, of_kind, call=call, mend=False)
    total = next((value for name, value in answer.headers.items() if name.lower() == TOTAL_HEADER), "")
    if len(total) <= _MOST_TOTAL_DIGITS and total.isascii() and total.isdecimal():
        return Page(listed.items, int(total))
    if listed.links is None:  # a page that is taken for the last one may hide a draft, which is then made twice
        words = f"the list says neither how long it is ({TOTAL_HEADER}) nor what follows (links)"
        raise UnexpectedAnswer(words, call=call)
    more = any(link.rel == "next" for link in listed.links)
    return Page(listed.items, offset + len(listed.items) + more)


class _BulkItem(msgspec.Struct):
    resource: Extra[Task | None] = None
    error: Extra[Anything | None] = None


class _Bulk(msgspec.Struct):
    items: list[_BulkItem]


def details_of(task: Task) -> Row:
    """Return what an outcome says of a task besides its id, in the service's own words."""
    said: Row = {"status": task.status, **task.times}
    execution = told(task.execution_status)
    if task.batch and execution:  # its message is among the counts
        said["execution_status"] = execution
    else:
        said |= {name: execution[name] for name in STEPS if execution.get(name) is not None}
        if task.status in BROKEN and (message := execution.get("message")):
            said["message"] = message
    if task.price:
        said["price"] = told(task.price)
    if task.errors:
        said["errors"] = told(task.errors)
    return said


def state_of(task: Task) -> TaskState:
    """Return how a task stands. A parent has failed with one of its children, too, whatever it is called itself."""
    lost = task.children.get("failed", 0) + task.children.get("aborted", 0) if task.batch and task.ended else 0
    reason = ""
    if lost:
        reason = f"{lost} of its {sum(task.children.values())} children failed or were aborted"
    failed = task.status in BROKEN or lost > 0
    if failed:
        message = task.execution_status.get("message")
        reason = "; ".join(filter(None, [words(str(message)) if message else "", reason])) or f"it is {task.status}"
    return TaskState(
        task.status.lower(),
        untouched=task.status == DRAFT,
        ended=task.ended,
        later=Later.FAILED if failed else Later.COMPLETED if task.ended else None,
        reason=reason,
        again=task.status == "FAILED",
        price=_price(task),
    )


def _price(task: Task) -> tuple[float, str] | None:
    amount, currency = (task.price or {}).get("amount"), (task.price or {}).get("currency")
    if not isinstance(amount, int | float) or not isinstance(currency, str) or not 0 <= amount < _MOST_PRICE:
        return None
    return float(amount), words(currency)


def child_details(child: Task) -> Row:
    """Return what a parent's outcome says of a child."""
    said = {"task_id": child.id, "name": words(child.name), "batch_group": told(child.batch_group)}
    return said | details_of(child)


def time_text(seconds: float) -> str:
    """Write Unix seconds as the service wants to be asked: 2016-01-12T18:39:30+00:00. Its page names no `Z`."""
    return datetime.fromtimestamp(max(0, int(seconds)), UTC).isoformat()


def _seconds(text: str | None) -> float | None:
    try:
        at = datetime.fromisoformat(text or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


PAGE_ITEMS = 100
"""Most items on a page, and most ids in a bulk call; the vendor's maximum."""

_FIELDS = {"fields": TASK_FIELDS}


class Place(msgspec.Struct, frozen=True):
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
            PossiblyApplied: the answer was lost; the draft can be looked for by its reference.
        """
        # The body has "batch": false as well; the query is how the vendor's client says it.
        query = {**_FIELDS, "batch": "False"} if disable_batch else _FIELDS
        call = Call(
            "create", "POST", self._url("tasks"), query, JSON_HEADERS, body, carries=Carries.RECORDS, intent=intent
        )
        call = replace(call, repeatable=False, reconcilable=True)
        return decode(await self._caller.call(call), Task, call=call.kind)

    async def run(self, task_id: str) -> Task:
        """Run a draft; repeatable, because the service refuses to run what is none any more (7007, 7010)."""
        url = self._url("tasks", task_id, "actions/run")
        call = Call("run", "POST", url, _FIELDS, JSON_HEADERS, b"{}", carries=Carries.RELEASE)
        return decode(await self._caller.call(call), Task, call=call.kind)

    async def rate_limit(self) -> None:
        """Ask about the request window: the one call that costs nothing of it."""
        decode(await self._caller.call(Call("limit", "GET", self._url("rate_limit"))), Anything, call="limit")

    async def get(self, task_id: str) -> Task:
        """Ask about one task."""
        call = Call("get", "GET", self._url("tasks", task_id), _FIELDS)
        return decode(await self._caller.call(call), Task, call=call.kind)

    async def bulk(self, task_ids: Sequence[str]) -> Sequence[Task]:
        """Ask about up to PAGE_ITEMS tasks; those that are not there are left out.

        Raises:
            UnexpectedAnswer: no item is a task, and not all of them are errors.
        """
        tasks, odd = await self._items(task_ids)
        if odd and not tasks and self._bulk_query:
            self._bulk_query = {}
            tasks, odd = await self._items(task_ids)
        if odd and not tasks:
            raise UnexpectedAnswer(f"{odd} items of the answer are neither tasks nor errors", call="bulk")
        return tasks

    async def _items(self, task_ids: Sequence[str]) -> tuple[Sequence[Task], int]:
        """Return the tasks of a bulk answer, and how many of its items are neither tasks nor errors."""
        body = orjson.dumps({"task_ids": task_ids})
        call = Call("bulk", "POST", self._url("bulk/tasks/get"), self._bulk_query, JSON_HEADERS, body, yielding=True)
        items = decode(await self._caller.call(call), _Bulk, call="bulk").items
        tasks = [one.resource for one in items if one.resource is not None]
        return tasks, sum(one.resource is None and one.error is None for one in items)

    async def delete(self, task_id: str) -> None:
        """Delete a draft."""
        await self._caller.call(Call("delete", "DELETE", self._url("tasks", task_id)))

    async def abort(self, task_id: str) -> None:
        """Stop a task."""
        await self._caller.call(
            Call("abort", "POST", self._url("tasks", task_id, "actions/abort"), {}, JSON_HEADERS, b"{}")
        )

    def created_since(self, project: str, seconds: float) -> AsyncIterator[Page[Task]]:
        """Yield the pages of a project's tasks, oldest first, from those created at a time (Unix seconds) on."""
        query = {"project": project, "created_from": time_text(seconds), "order_by": "created_time", "order": "asc"}
        return self._pages(Call("find", "GET", self._url("tasks"), {**query, **_FIELDS}), Task)

    def children(self, task_id: str) -> AsyncIterator[Page[Task]]:
        """Yield the pages of a parent's children."""
        query = {"parent": task_id, **_FIELDS}
        return self._pages(Call("children", "GET", self._url("tasks"), query, yielding=True), Task)

    def files(self, place: Place, names: Sequence[str] = ()) -> AsyncIterator[Page[ListedFile]]:
        """Yield the pages of the files and folders in a place: those that have one of these names, or all.

        Raises:
            Refused, Unavailable: by its status, or because it timed out, perhaps for the number of the names.
        """
        # In the address, because a query of a Call has each key once.
        path = "?".join(filter(None, ["files", urlencode([("name", name) for name in names], quote_via=quote)]))
        query = {**place.query, "fields": "id,name,type"}
        return self._pages(Call("files", "GET", self._url(path), query, few_tries=len(names) > 1), ListedFile)

    async def _pages(self, call: Call, kind: type[T]) -> AsyncIterator[Page[T]]:
        """Yield all pages of the list that a call asks for, each item once.

        Each page after the first is asked for from the last item of the one before, and must begin with it: if an item
        was deleted meanwhile, those behind it moved up, and one would have been passed over.

        Raises:
            ListShifted: it did not.
        """
        offset, last = 0, None
        while True:
            place = {"limit": str(PAGE_ITEMS), "offset": str(offset)}
            answer = await self._caller.call(replace(call, query={**call.query, **place}))
            page = page_of(answer, kind, offset, call.kind)
            items = page.items
            if last is not None and (not items or items[0].id != last):
                raise ListShifted("the list changed while it was read", call=call.kind)
            yield Page(items if last is None else items[1:], page.total)
            if offset + len(items) >= page.total:
                return
            if len(items) <= 1:
                said = f"the list says it has {page.total} items, and shows {offset + len(items)}"
                raise ListShifted(said, call=call.kind)
            offset, last = offset + len(items) - 1, items[-1].id

    def _url(self, path: str, name: str = "", below: str = "") -> str:
        parts = (self._base_url, path, path_part(name) if name else "", below)
        return "/".join(filter(None, parts))
