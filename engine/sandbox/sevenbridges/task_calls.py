"""Calls about tasks enter, Seven Bridges' answers leave."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.faults import html_answer
from engine.sandbox.sevenbridges.answers import (
    Bulk,
    SevenBridgesError,
    base_url,
    flag_of,
    is_uuid,
    json_answer,
    json_body,
    json_ids,
    list_answer,
    page_of,
    seconds_of,
    wanted_fields,
)
from engine.sandbox.sevenbridges.book import ORDERS, SevenBridgesTaskBook, SevenBridgesTaskFilter, Times
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.drafts import MISSING_INPUT, changed_draft, input_errors, new_draft
from engine.sandbox.sevenbridges.life import TaskLife
from engine.sandbox.sevenbridges.tasks import ABORTABLE, Draft, SevenBridgesTask, Status
from engine.sandbox.sevenbridges.views import SHORT_TASK, TASK_FIELDS, View
from engine.sandbox.traffic import Traffic

Call = Callable[[web.Request], Awaitable[web.Response]]
_ALL_FIELDS = tuple(TASK_FIELDS)
_MOST_DESCRIBED = 100
_STORED: Mapping[str, Callable[[str], str]] = {
    "kept": str,
    "trimmed": str.strip,
    "one_line": lambda text: " ".join(text.split()),
    "cut": lambda text: text[:_MOST_DESCRIBED],
}


class SevenBridgesTaskCalls:
    """Answers every call about tasks; changes that are due by the clock are made first."""

    def __init__(
        self,
        book: SevenBridgesTaskBook,
        life: TaskLife,
        catalog: Catalog,
        traffic: Traffic,
        behaviour: Behaviour,
        clock: Callable[[], float],
    ) -> None:
        """Work on these."""
        self._book, self._life, self._catalog, self._clock = book, life, catalog, clock
        self._stats, self._agenda = traffic.stats, traffic.agenda
        self._settings, self._unwritten = behaviour.sevenbridges, behaviour.sevenbridges.unwritten
        self._busy_while_late, self._reads = behaviour.busy_while_late, behaviour.reads

    def routes(self) -> Iterator[tuple[str, str, str, Call]]:
        """Yield method, path, kind of call, and who answers."""
        yield "POST", "/tasks", "create", self._create
        yield "GET", "/tasks", "list", self._list
        yield "GET", "/tasks/{task_id}", "get", self._get
        yield "PATCH", "/tasks/{task_id}", "update", self._update
        yield "DELETE", "/tasks/{task_id}", "delete", self._delete
        yield "POST", "/tasks/{task_id}/actions/run", "run", self._run
        yield "POST", "/tasks/{task_id}/actions/abort", "abort", self._abort
        yield "POST", "/tasks/{task_id}/actions/clone", "clone", self._clone
        yield "GET", "/tasks/{task_id}/execution_details", "details", self._details
        yield "POST", "/bulk/tasks/get", "bulk", self._bulk

    async def _create(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        draft = new_draft(body, self._catalog, batch=flag_of(request.query, "batch"))
        stored = _STORED[self._unwritten.descriptions](draft.description)
        return self._added(request, replace(draft, description=stored))

    async def _clone(self, request: web.Request) -> web.Response:
        await request.read()
        return self._added(request, self._task(request).draft)

    async def _list(self, request: web.Request) -> web.Response:
        now, lag = self._now(), self._reads.list_seconds
        page, wanted = page_of(request.query), self._filter(request.query)
        tasks, total = self._book.page_as_of(wanted, page, now - lag) if lag else self._book.page(wanted, page)
        if request.query.get("origin_id"):
            tasks, total = [], 0  # no task here comes from an automation
        names, view = wanted_fields(request.query, _ALL_FIELDS, SHORT_TASK), self._view(request, now - lag)
        shown = [view.task(task, names) for task in tasks]
        return list_answer(request, shown, page, total, says_total=self._unwritten.total_header)

    async def _get(self, request: web.Request) -> web.Response:
        at = self._now() - self._reads.single_seconds
        task = self._seen(request.match_info["task_id"], at)
        return json_answer(self._view(request, at).task(task, self._fields(request)))

    async def _bulk(self, request: web.Request) -> web.Response:
        ids = await json_ids(request, "task_ids")
        at = self._now() - self._reads.single_seconds
        view, bulk = self._view(request, at), Bulk(request.query, ids, _ALL_FIELDS, self._unwritten)
        return bulk.answer(lambda task_id, names: view.task(self._seen(task_id, at), names))

    async def _update(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        task = self._draft_task(request)
        self._change(task, changed_draft(task.draft, body, self._catalog))
        return self._shown(request, task)

    async def _delete(self, request: web.Request) -> web.Response:
        await request.read()
        self._book.remove(self._draft_task(request), self._clock())
        return web.Response(status=204)

    async def _run(self, request: web.Request) -> web.Response:
        await request.read()
        self._now()
        task = self._free_task(request)
        if (task.told or task.status is not Status.DRAFT) and self._settings.run_again != "duplicate":
            return self._run_told_again(request, task)
        interruptible = flag_of(request.query, "use_interruptible_instances")
        if interruptible is not None:
            self._change(task, replace(task.draft, interruptible=interruptible))
        if flag_of(request.query, "batch") is False:
            self._change(task, replace(task.draft, batching=None))
        if task.errors:
            raise SevenBridgesError(7012 if any(error.type == MISSING_INPUT for error in task.errors) else 7024)
        self._agenda.do(task.id, partial(self._start, task))
        task.told = not self._agenda.swallows
        return self._shown(request, replace(task, **_as_told(self._clock())) if self._agenda.delays else task)

    async def _abort(self, request: web.Request) -> web.Response:
        await request.read()
        now = self._now()
        task = self._free_task(request)
        if task.status not in ABORTABLE:
            raise SevenBridgesError(
                7011, f"The task is {task.status}: only CREATING, QUEUED and RUNNING can be aborted."
            )
        self._life.abort(task, now)
        return self._shown(request, task)

    async def _details(self, request: web.Request) -> web.Response:
        at = self._now() - self._reads.single_seconds
        return json_answer(self._view(request, at).details(self._seen(request.match_info["task_id"], at)))

    def _added(self, request: web.Request, draft: Draft) -> web.Response:
        run = flag_of(request.query, "run") is True or request.query.get("action") == "run"
        now = self._now()
        if not self._agenda.delays:
            return self._shown(request, self._make(draft, run, "", now), 201)
        task = SevenBridgesTask(-1, self._book.reserve_id(), draft, now, input_errors(draft, self._catalog))
        self._agenda.do(task.id, partial(self._make, draft, run, task.id))
        return self._shown(request, replace(task, **_as_told(now)) if run and not task.errors else task, 201)

    def _make(self, draft: Draft, run: bool, task_id: str, at: float) -> SevenBridgesTask:  # noqa: FBT001 - of a partial
        self._life.advance(at)  # children that are due come first: numbers grow with time
        task = self._book.add(draft, at, input_errors(draft, self._catalog), task_id=task_id)
        self._stats.tasks_created += 1
        self._life.record("task", [task], at)
        if run and not task.errors:
            self._life.run(task, at)
        return task

    def _start(self, task: SevenBridgesTask, at: float) -> None:
        """Run a draft, unless it is gone by then."""
        self._life.advance(at)
        if self._book.find(task.id) is task:
            self._life.run(task, at)

    def _change(self, task: SevenBridgesTask, draft: Draft) -> None:
        task.draft, task.errors = draft, input_errors(draft, self._catalog)
        self._book.touch()

    def _now(self) -> float:
        now = self._clock()
        self._life.advance(now)
        return now

    def _shown(self, request: web.Request, task: SevenBridgesTask, status: int = 200) -> web.Response:
        """Show a task as it is: what becomes due from here on is for the next request to see."""
        return json_answer(self._view(request, self._clock()).task(task, self._fields(request)), status)

    def _fields(self, request: web.Request) -> list[str]:
        return wanted_fields(request.query, _ALL_FIELDS, _ALL_FIELDS)

    def _view(self, request: web.Request, now: float) -> View:
        return View(base_url(request), self._settings, now)

    def _run_told_again(self, request: web.Request, task: SevenBridgesTask) -> web.Response:
        if self._settings.run_again == "error":
            words = "about to run" if task.status is Status.DRAFT else f"{task.status}, not DRAFT"
            raise SevenBridgesError(7010, f"The task is {words}.")
        return html_answer(409) if self._settings.run_again == "html" else self._shown(request, task)

    def _draft_task(self, request: web.Request) -> SevenBridgesTask:
        self._now()
        task = self._free_task(request)
        if task.status is not Status.DRAFT:
            raise SevenBridgesError(7007, f"The task is {task.status}, not DRAFT.")
        return task

    def _free_task(self, request: web.Request) -> SevenBridgesTask:
        """Find a task that may be changed: with `busy_while_late`, not one whose run is still to come."""
        task = self._task(request)
        if self._busy_while_late and self._agenda.awaits(task.id):
            raise SevenBridgesError(90000, "The task is busy.", 409)
        return task

    def _task(self, request: web.Request) -> SevenBridgesTask:
        """Find a task that is to be changed."""
        return self._found(request.match_info["task_id"], self._unwritten.run_lag_seconds)

    def _found(self, task_id: str, lag_seconds: float = 0.0) -> SevenBridgesTask:
        task = self._book.find(task_id)
        if task is None or (lag_seconds and task.created_at + lag_seconds > self._clock()):
            raise SevenBridgesError(7002 if is_uuid(task_id) else 7005)
        return task

    def _seen(self, task_id: str, at: float) -> SevenBridgesTask:
        """Find a task as single reads show it."""
        if not self._reads.single_seconds:
            return self._found(task_id)
        task = self._book.find_as_of(task_id, at)
        if task is None or (self._reads.new_are_unknown and not task.existed(at)):
            raise SevenBridgesError(7002 if is_uuid(task_id) else 7005)
        return task

    def _filter(self, query: Mapping[str, str]) -> SevenBridgesTaskFilter:
        status, parent = query.get("status", "").upper(), query.get("parent")
        if status and status not in Status.__members__:
            raise SevenBridgesError(7006)
        order_by, order = query.get("order_by", "created_time"), query.get("order", "asc").lower()
        if order_by not in ORDERS or order not in ("asc", "desc"):
            raise SevenBridgesError(90000, f"order_by must be one of {', '.join(ORDERS)}; order asc or desc.")
        newest, z_times = self._unwritten.list_order == "newest", self._unwritten.z_times
        return SevenBridgesTaskFilter(
            project=query.get("project") or None,
            parent=self._found(parent) if parent else None,
            status=Status(status) if status else None,
            batch=flag_of(query, "batch"),
            created=_times(query, "created", z_times=z_times),
            started=_times(query, "started", z_times=z_times),
            ended=_times(query, "ended", z_times=z_times),
            order_by="created_time" if newest else order_by,
            descending=newest or order == "desc",
        )


def _as_told(now: float) -> dict[str, Any]:
    """Return how a task looks to who has just told it to run."""
    return {"status": Status.CREATING, "run_at": now}


def _times(query: Mapping[str, str], name: str, *, z_times: bool) -> Times:
    low = seconds_of(query, f"{name}_from", float("-inf"), z_times=z_times)
    return low, seconds_of(query, f"{name}_to", float("inf"), z_times=z_times)
