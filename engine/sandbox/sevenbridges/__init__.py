"""Seven Bridges' API v2: drafts, batch tasks with children, files and apps, with its authorization and rate limit.

`server.py` serves it over sockets, tests in made-up time. Calls about tasks are handled here, the others in
`catalog.py`. Changes of tasks that are due by the clock are made before each call looks.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from msgspec.structs import replace

from engine.sandbox.behaviour import Behaviour, RateLimit
from engine.sandbox.journal import Journal
from engine.sandbox.messages import (
    Handler,
    Route,
    SandboxAnswer,
    SandboxRequest,
    WrongInput,
    flag_of,
    html_answer,
    json_answer,
)
from engine.sandbox.sevenbridges.answers import View, is_uuid, refusal, seconds_of
from engine.sandbox.sevenbridges.catalog import SHORT_FIELDS, Catalog
from engine.sandbox.sevenbridges.drafts import MISSING_INPUT, changed_draft, input_errors, new_draft
from engine.sandbox.sevenbridges.life import ORDERS, SevenBridgesTaskFilter, SevenBridgesTasks, Times
from engine.sandbox.sevenbridges.tasks import (
    ABORTABLE,
    TASK_FIELDS,
    Draft,
    SevenBridgesTask,
    Status,
    execution_details,
)
from engine.sandbox.traffic import CallKinds, ReadBody, SandboxService, Sleep, Traffic

CALLS = CallKinds(
    frozenset({"create", "list", "get", "update", "delete", "run", "abort", "clone", "details", "bulk"})
    | {"files", "file", "bulk_files", "apps", "app", "projects", "project", "user", "rate_limit"},
    outside=frozenset({"rate_limit"}),  # the vendor does not count it
    deferrable=frozenset({"create", "clone", "run"}),
)
_UNLIMITED = 10**9
_INSTANCES = 100  # how many tasks a user may run at once; unknown, a choice
_MOST_DESCRIBED = 100
_STORED: Mapping[str, Callable[[str], str]] = {
    "kept": str,
    "trimmed": str.strip,
    "one_line": lambda text: " ".join(text.split()),
    "cut": lambda text: text[:_MOST_DESCRIBED],
}


class SevenBridgesService(SandboxService):
    """Serves Seven Bridges' API."""

    name = "Seven Bridges"

    def __init__(self, behaviour: Behaviour, journal: Journal, clock: Callable[[], float]) -> None:
        """Raise BehaviourError for what cannot be served."""
        settings = self._settings = behaviour.sevenbridges
        vendors = (RateLimit(settings.rate.requests, settings.rate.seconds),) if settings.rate.requests > 0 else ()
        limited = replace(behaviour, rate_limits=(*vendors, *behaviour.rate_limits))
        traffic = Traffic(limited, calls=CALLS, error=_error, clock=clock)
        self._behaviour, self._clock, self._reads = behaviour, clock, behaviour.reads
        self._unwritten, self._agenda, self._stats = settings.unwritten, traffic.agenda, traffic.stats
        self._window = traffic.limits.windows[0] if vendors else None
        self._catalog = Catalog(settings)
        self._tasks = SevenBridgesTasks(behaviour, self._catalog, journal, traffic.stats)
        rows = [*self._task_routes(), *self._catalog.routes()]
        super().__init__(
            traffic,
            [Route(method, "/v2" + path, kind, partial(self._handle, handler)) for method, path, kind, handler in rows],
        )

    async def answer(self, request: SandboxRequest, read: ReadBody, sleep: Sleep) -> SandboxAnswer:
        """Answer a request, with the headers about the rate limit."""
        answer = await super().answer(request, read, sleep)
        if self._window is not None:
            now = self._clock()
            answer.headers["X-RateLimit-Limit"] = str(self._window.limit.requests)
            answer.headers["X-RateLimit-Remaining"] = str(self._window.remaining(now))
            answer.headers["X-RateLimit-Reset"] = str(math.ceil(self._window.ends_at(now)))
        return answer

    def advance(self) -> bool:
        """Do what was put off, and move tasks on: nothing is left that may be due at once."""
        self._agenda.advance()
        self._now()
        return False

    def _handle(self, handler: Handler, request: SandboxRequest) -> SandboxAnswer:
        token = request.headers.get("X-SBG-Auth-Token")
        if token is None:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._behaviour.access_keys:
            raise refusal(90001)
        if request.body is None:
            raise refusal(90000, f"A body may have {self._behaviour.max_body_bytes} bytes at most.", 413)
        try:
            return handler(request)
        except WrongInput as error:
            raise refusal(90000 if error.is_json else 90009, str(error)) from error

    def _task_routes(self) -> Iterator[tuple[str, str, str, Handler]]:
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
        yield "GET", "/rate_limit", "rate_limit", self._rate_limit

    def _create(self, request: SandboxRequest) -> SandboxAnswer:
        body = request.json_object()
        draft = new_draft(body, self._catalog, batch=flag_of(request.query, "batch"))
        stored = _STORED[self._unwritten.descriptions](draft.description)
        return self._added(request, replace(draft, description=stored))

    def _clone(self, request: SandboxRequest) -> SandboxAnswer:
        return self._added(request, self._task(request).draft)

    def _list(self, request: SandboxRequest) -> SandboxAnswer:
        now, lag = self._now(), self._reads.list_seconds
        view = View(request, self._settings, now - lag)
        tasks, total = self._tasks.page(self._filter(request.query), view.page, now - lag if lag else None)
        if request.query.get("origin_id"):
            tasks, total = [], 0  # no task here comes from an automation
        return view.listed(tasks, total, TASK_FIELDS, SHORT_FIELDS)

    def _get(self, request: SandboxRequest) -> SandboxAnswer:
        at = self._now() - self._reads.single_seconds
        return View(request, self._settings, at).one(self._seen(request.params["task_id"], at), TASK_FIELDS)

    def _bulk(self, request: SandboxRequest) -> SandboxAnswer:
        at = self._now() - self._reads.single_seconds
        return View(request, self._settings, at).bulk("task_ids", lambda one: self._seen(one, at), TASK_FIELDS)

    def _update(self, request: SandboxRequest) -> SandboxAnswer:
        body = request.json_object()
        task = self._draft_task(request)
        self._change(task, changed_draft(task.draft, body, self._catalog))
        return self._shown(request, task)

    def _delete(self, request: SandboxRequest) -> SandboxAnswer:
        self._tasks.remove(self._draft_task(request), self._clock())
        return SandboxAnswer(204)

    def _run(self, request: SandboxRequest) -> SandboxAnswer:
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
            raise refusal(7012 if any(error.type == MISSING_INPUT for error in task.errors) else 7024)
        self._agenda.do(task.id, partial(self._start, task))
        task.told = not self._agenda.swallows
        return self._shown(request, _as_told(task, self._clock()) if self._agenda.delays else task)

    def _abort(self, request: SandboxRequest) -> SandboxAnswer:
        now = self._now()
        task = self._free_task(request)
        if task.status not in ABORTABLE:
            raise refusal(7011, f"The task is {task.status}: only CREATING, QUEUED and RUNNING can be aborted.")
        self._tasks.abort(task, now)
        return self._shown(request, task)

    def _details(self, request: SandboxRequest) -> SandboxAnswer:
        at = self._now() - self._reads.single_seconds
        return json_answer(
            execution_details(self._seen(request.params["task_id"], at), View(request, self._settings, at))
        )

    def _added(self, request: SandboxRequest, draft: Draft) -> SandboxAnswer:
        run = flag_of(request.query, "run") is True or request.query.get("action") == "run"
        now = self._now()
        if not self._agenda.delays:
            return self._shown(request, self._make(draft, run, "", now), 201)
        task = SevenBridgesTask(-1, self._tasks.reserve_id(), draft, now, input_errors(draft, self._catalog))
        self._agenda.do(task.id, partial(self._make, draft, run, task.id))
        return self._shown(request, _as_told(task, now) if run and not task.errors else task, 201)

    def _make(self, draft: Draft, run: bool, task_id: str, at: float) -> SevenBridgesTask:  # noqa: FBT001 - of a partial
        self._tasks.advance(at)  # children that are due come first: numbers grow with time
        task = self._tasks.add(draft, at, input_errors(draft, self._catalog), task_id=task_id)
        self._stats.tasks_created += 1
        self._tasks.record("task", [task], at)
        if run and not task.errors:
            self._tasks.run(task, at)
        return task

    def _start(self, task: SevenBridgesTask, at: float) -> None:
        """Run a draft, unless it is gone by then."""
        self._tasks.advance(at)
        if self._tasks.find(task.id) is task:
            self._tasks.run(task, at)

    def _change(self, task: SevenBridgesTask, draft: Draft) -> None:
        task.draft, task.errors = draft, input_errors(draft, self._catalog)

    def _now(self) -> float:
        now = self._clock()
        self._tasks.advance(now)
        return now

    def _shown(self, request: SandboxRequest, task: SevenBridgesTask, status: int = 200) -> SandboxAnswer:
        """Show a task as it is: what becomes due from here on is for the next request to see."""
        return View(request, self._settings, self._clock()).one(task, TASK_FIELDS, status)

    def _run_told_again(self, request: SandboxRequest, task: SevenBridgesTask) -> SandboxAnswer:
        if self._settings.run_again == "error":
            words = "about to run" if task.status is Status.DRAFT else f"{task.status}, not DRAFT"
            raise refusal(7010, f"The task is {words}.")
        return html_answer(409) if self._settings.run_again == "html" else self._shown(request, task)

    def _draft_task(self, request: SandboxRequest) -> SevenBridgesTask:
        self._now()
        task = self._free_task(request)
        if task.status is not Status.DRAFT:
            raise refusal(7007, f"The task is {task.status}, not DRAFT.")
        return task

    def _free_task(self, request: SandboxRequest) -> SevenBridgesTask:
        """Find a task that may be changed: with `busy_while_late`, not one whose run is still to come."""
        task = self._task(request)
        if self._behaviour.busy_while_late and self._agenda.awaits(task.id):
            raise refusal(90000, "The task is busy.", 409)
        return task

    def _task(self, request: SandboxRequest) -> SevenBridgesTask:
        """Find a task that is to be changed."""
        return self._found(request.params["task_id"], self._unwritten.run_lag_seconds)

    def _found(self, task_id: str, lag_seconds: float = 0.0) -> SevenBridgesTask:
        task = self._tasks.find(task_id)
        if task is None or (lag_seconds and task.created_at + lag_seconds > self._clock()):
            raise refusal(7002 if is_uuid(task_id) else 7005)
        return task

    def _seen(self, task_id: str, at: float) -> SevenBridgesTask:
        """Find a task as single reads show it."""
        if not self._reads.single_seconds:
            return self._found(task_id)
        task = self._tasks.find_as_of(task_id, at)
        if task is None or (self._reads.new_are_unknown and not task.existed(at)):
            raise refusal(7002 if is_uuid(task_id) else 7005)
        return task

    def _filter(self, query: Mapping[str, str]) -> SevenBridgesTaskFilter:
        status, parent = query.get("status", "").upper(), query.get("parent")
        if status and status not in Status.__members__:
            raise refusal(7006)
        order_by, order = query.get("order_by", "created_time"), query.get("order", "asc").lower()
        if order_by not in ORDERS or order not in ("asc", "desc"):
            raise WrongInput(f"order_by must be one of {', '.join(ORDERS)}; order asc or desc.")
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

    def _rate_limit(self, _: SandboxRequest) -> SandboxAnswer:
        now, instances = self._now(), self._settings.life.parallel or _INSTANCES
        window = self._window
        rate = {
            "limit": window.limit.requests if window else _UNLIMITED,
            "remaining": window.remaining(now) if window else _UNLIMITED,
            "reset": math.ceil(window.ends_at(now) if window else now),
        }
        left = max(0, instances - self._tasks.running)
        return json_answer({"rate": rate, "instance_limit": {"limit": instances, "remaining": left}})


def _error(_: str, status: int, message: str) -> SandboxAnswer:
    if status == 503:  # noqa: PLR2004 - maintenance is the 503 that the vendor's client knows
        return refusal(0).answer
    code = 1000 if status == 429 else 7000 if status >= 500 else 90000  # noqa: PLR2004 - HTTP codes
    return refusal(code, message, status).answer


def _as_told(task: SevenBridgesTask, now: float) -> SevenBridgesTask:
    """Return a task as it looks to who has just told it to run."""
    return replace(task, since={**task.since, Status.CREATING: now})


def _times(query: Mapping[str, str], name: str, *, z_times: bool) -> Times:
    low = seconds_of(query, f"{name}_from", float("-inf"), z_times=z_times)
    return low, seconds_of(query, f"{name}_to", float("inf"), z_times=z_times)
