"""Calls about tasks enter, Seven Bridges' answers leave."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace

from aiohttp import web

from engine.sandbox.sevenbridges.answers import (
    ApiError,
    Bulk,
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
from engine.sandbox.sevenbridges.book import ORDERS, TaskBook, TaskFilter, Times
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.drafts import MISSING_INPUT, changed_draft, input_errors, new_draft
from engine.sandbox.sevenbridges.life import TaskLife
from engine.sandbox.sevenbridges.settings import SevenBridges
from engine.sandbox.sevenbridges.tasks import ABORTABLE, Draft, Status, Task
from engine.sandbox.sevenbridges.views import SHORT_TASK, TASK_FIELDS, View
from engine.sandbox.stats import Stats

Call = Callable[[web.Request], Awaitable[web.Response]]
_ALL_FIELDS = tuple(TASK_FIELDS)
_STORED: Mapping[str, Callable[[str], str]] = {
    "kept": str,
    "trimmed": str.strip,
    "one_line": lambda text: " ".join(text.split()),
}


class TaskCalls:
    """Answers every call about tasks; changes that are due by the clock are made first."""

    def __init__(
        self,
        book: TaskBook,
        life: TaskLife,
        catalog: Catalog,
        stats: Stats,
        clock: Callable[[], float],
        settings: SevenBridges,
    ) -> None:
        """Work on these."""
        self._book, self._life, self._catalog, self._stats = book, life, catalog, stats
        self._clock, self._settings, self._unwritten = clock, settings, settings.unwritten

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
        now = self._now()
        page, wanted = page_of(request.query), self._filter(request.query, now)
        tasks, total = self._book.page(wanted, page)
        if request.query.get("origin_id"):
            tasks, total = [], 0  # no task here comes from an automation
        names, view = wanted_fields(request.query, _ALL_FIELDS, SHORT_TASK), self._view(request, now)
        shown = [view.task(task, names) for task in tasks]
        return list_answer(request, shown, page, total, says_total=self._unwritten.total_header)

    async def _get(self, request: web.Request) -> web.Response:
        self._now()
        return self._shown(request, self._visible(request.match_info["task_id"]))

    async def _bulk(self, request: web.Request) -> web.Response:
        ids = await json_ids(request, "task_ids")
        view = self._view(request, self._now())
        bulk = Bulk(request.query, ids, _ALL_FIELDS, self._unwritten)
        return bulk.answer(lambda task_id, names: view.task(self._visible(task_id), names))

    async def _update(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        task = self._draft_task(request, 7007)
        self._change(task, changed_draft(task.draft, body, self._catalog))
        return self._shown(request, task)

    async def _delete(self, request: web.Request) -> web.Response:
        await request.read()
        self._book.remove(self._draft_task(request, 7007))
        return web.Response(status=204)

    async def _run(self, request: web.Request) -> web.Response:
        await request.read()
        task = self._draft_task(request, 7010)
        interruptible = flag_of(request.query, "use_interruptible_instances")
        if interruptible is not None:
            self._change(task, replace(task.draft, interruptible=interruptible))
        if flag_of(request.query, "batch") is False:
            self._change(task, replace(task.draft, batching=None))
        if task.errors:
            raise ApiError(7012 if any(error.type == MISSING_INPUT for error in task.errors) else 7024)
        self._life.run(task, self._clock())
        return self._shown(request, task)

    async def _abort(self, request: web.Request) -> web.Response:
        await request.read()
        now = self._now()
        task = self._task(request)
        if task.status not in ABORTABLE:
            raise ApiError(7011, f"The task is {task.status}: only CREATING, QUEUED and RUNNING can be aborted.")
        self._life.abort(task, now)
        return self._shown(request, task)

    async def _details(self, request: web.Request) -> web.Response:
        now = self._now()
        return json_answer(self._view(request, now).details(self._task(request)))

    def _added(self, request: web.Request, draft: Draft) -> web.Response:
        run = flag_of(request.query, "run") is True or request.query.get("action") == "run"
        now = self._now()  # children that are due come first: numbers grow with time
        task = self._book.add(draft, now, input_errors(draft, self._catalog))
        self._stats.tasks_created += 1
        self._life.record("task", [task], now)
        if run and not task.errors:
            self._life.run(task, now)
        return self._shown(request, task, 201)

    def _change(self, task: Task, draft: Draft) -> None:
        task.draft, task.errors = draft, input_errors(draft, self._catalog)
        self._book.touch()

    def _now(self) -> float:
        now = self._clock()
        self._life.advance(now)
        return now

    def _shown(self, request: web.Request, task: Task, status: int = 200) -> web.Response:
        """Show a task as it is: what becomes due from here on is for the next request to see."""
        names = wanted_fields(request.query, _ALL_FIELDS, _ALL_FIELDS)
        return json_answer(self._view(request, self._clock()).task(task, names), status)

    def _view(self, request: web.Request, now: float) -> View:
        return View(base_url(request), self._settings, now)

    def _draft_task(self, request: web.Request, code: int) -> Task:
        self._now()
        task = self._task(request)
        if task.status is not Status.DRAFT:
            raise ApiError(code, f"The task is {task.status}, not DRAFT.")
        return task

    def _task(self, request: web.Request) -> Task:
        return self._found(request.match_info["task_id"], self._unwritten.run_lag_seconds)

    def _visible(self, task_id: str) -> Task:
        return self._found(task_id, self._unwritten.lag_seconds)

    def _found(self, task_id: str, lag_seconds: float = 0.0) -> Task:
        task = self._book.find(task_id)
        if task is None or (lag_seconds and task.created_at + lag_seconds > self._clock()):
            raise ApiError(7002 if is_uuid(task_id) else 7005)
        return task

    def _filter(self, query: Mapping[str, str], now: float) -> TaskFilter:
        status, parent = query.get("status", "").upper(), query.get("parent")
        if status and status not in Status.__members__:
            raise ApiError(7006)
        order_by, order = query.get("order_by", "created_time"), query.get("order", "asc").lower()
        if order_by not in ORDERS or order not in ("asc", "desc"):
            raise ApiError(90000, f"order_by must be one of {', '.join(ORDERS)}; order asc or desc.")
        newest, z_times = self._unwritten.list_order == "newest", self._unwritten.z_times
        return TaskFilter(
            project=query.get("project") or None,
            parent=self._found(parent) if parent else None,
            status=Status(status) if status else None,
            batch=flag_of(query, "batch"),
            created=_times(query, "created", z_times=z_times),
            started=_times(query, "started", z_times=z_times),
            ended=_times(query, "ended", z_times=z_times),
            order_by="created_time" if newest else order_by,
            descending=newest or order == "desc",
            made_by=now - self._unwritten.lag_seconds if self._unwritten.lag_seconds else float("inf"),
        )


def _times(query: Mapping[str, str], name: str, *, z_times: bool) -> Times:
    low = seconds_of(query, f"{name}_from", float("-inf"), z_times=z_times)
    return low, seconds_of(query, f"{name}_to", float("inf"), z_times=z_times)
