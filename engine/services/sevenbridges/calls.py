"""What is wanted of the API in, its answers as values out: one method for each call that the service makes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

import orjson

from engine.model.error_hints import Carries
from engine.model.errors import UnexpectedAnswer
from engine.model.record import Row
from engine.services.base import Call, Caller, Intent
from engine.services.sevenbridges.answers import (
    BULK_FIELDS,
    TASK_FIELDS,
    Page,
    Task,
    items_of,
    object_of,
    page_of,
    resource_of,
    task_of,
    time_text,
)

PAGE_ITEMS = 100
"""Most items on a page, and most ids in a bulk call; the vendor's maximum."""

_JSON = {"Content-Type": "application/json"}
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
        call = Call("create", "POST", self._url("tasks"), query, _JSON, body, carries=Carries.RECORDS, intent=intent)
        call = replace(call, repeatable=False, reconcilable=True)
        return task_of(object_of(await self._caller.call(call)))

    async def run(self, task_id: str) -> Task:
        """Run a draft; repeatable, because the service refuses to run what is none any more (7007, 7010)."""
        url = self._url(f"tasks/{task_id}/actions/run")
        call = Call("run", "POST", url, _FIELDS, _JSON, b"{}", carries=Carries.RELEASE)
        return task_of(object_of(await self._caller.call(call)))

    async def rate_limit(self) -> None:
        """Ask about the request window: the one call that costs nothing of it."""
        object_of(await self._caller.call(Call("limit", "GET", self._url("rate_limit"))))

    async def get(self, task_id: str) -> Task:
        """Ask about one task."""
        call = Call("get", "GET", self._url(f"tasks/{task_id}"), _FIELDS)
        return task_of(object_of(await self._caller.call(call)))

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
        call = Call("bulk", "POST", self._url("bulk/tasks/get"), self._bulk_query, _JSON, body, yielding=True)
        resources = map(resource_of, items_of(await self._caller.call(call)))
        return [resource for resource in resources if resource is not None]

    async def delete(self, task_id: str) -> None:
        """Delete a draft."""
        await self._caller.call(Call("delete", "DELETE", self._url(f"tasks/{task_id}")))

    async def abort(self, task_id: str) -> None:
        """Stop a task."""
        await self._caller.call(Call("abort", "POST", self._url(f"tasks/{task_id}/actions/abort"), {}, _JSON, b"{}"))

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
