"""A behaviour enters, Sama's routes below /v2 leave: batches here, tasks and the rest in `task_calls.py`.

Bodies that the vendor does not document are this sandbox's choice; they stand in `answers.py`, here and in `tasks.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import orjson
from aiohttp import web

from engine.sandbox.behaviour import Behaviour, RateLimit
from engine.sandbox.callbacks import CallbackSender
from engine.sandbox.failing import PlannedFailure
from engine.sandbox.faults import Handler, StreamHandler, html_answer
from engine.sandbox.journal import Journal
from engine.sandbox.sama.answers import (
    SamaError,
    error_answer,
    flag_parameter,
    int_parameter,
    json_answer,
    json_body,
    s3_error_answer,
)
from engine.sandbox.sama.batches import BatchState, SandboxBatch
from engine.sandbox.sama.creation import Creator
from engine.sandbox.sama.statuses import Statuses, StatusPage
from engine.sandbox.sama.task_calls import SamaTaskCalls
from engine.sandbox.sama.uploads import UPLOAD_PATH, LocalUploads, Uploads
from engine.sandbox.traffic import CallKinds, Traffic

BATCH_CALLS = frozenset({"create", "put", "continue", "status", "cancel"})
CALLS = CallKinds(
    BATCH_CALLS | {"task", "tasks", "delivered", "reject", "delete", "update", "schema", "project"},
    outside=frozenset({"put"}),
    deferrable=frozenset({"create", "continue"}),
)
_S3_CODES = {401: "AccessDenied", 403: "AccessDenied", 404: "NoSuchKey", 409: "OperationAborted"}
_S3_CODES |= dict.fromkeys((429, 503), "SlowDown")
"""What S3 says with a status, after its list of error codes."""
MAX_STATUS_PAGE = 1000  # the vendor's limit
DEFAULT_STATUS_PAGE = 100  # unknown; small, so that a client that relies on it is noticed
ProjectCall = Callable[[web.Request, int], Awaitable[web.Response]]


class SamaService:
    """Serves Sama's API: `add_to` an application, then `run` beside it."""

    name = "Sama"

    def __init__(
        self, behaviour: Behaviour, journal: Journal, uploads: Uploads | None, clock: Callable[[], float]
    ) -> None:
        """Raise BehaviourError for what cannot be served; without `uploads` they are kept in memory."""
        self._behaviour = behaviour
        self._clock = clock
        self._reads = behaviour.reads
        self.traffic = Traffic(behaviour, calls=CALLS, error=_error, clock=clock, own_limits=_own_limits(behaviour))
        self._agenda = self.traffic.agenda
        self._callbacks = CallbackSender(behaviour.callbacks)
        self._creator = Creator(behaviour, journal, self._callbacks, self.traffic.stats, clock)
        self._unwritten = behaviour.sama.unwritten
        self._statuses = Statuses(self._unwritten, self._creator.started)
        self._newest: SandboxBatch | None = None
        self._opened = 0
        self._local = LocalUploads(clock, behaviour.max_body_bytes, etag=self._unwritten.etag)
        self._uploads = uploads or self._local
        self._tasks = SamaTaskCalls(self._creator, behaviour)
        self._refusals = [(rule.status, PlannedFailure(rule)) for rule in behaviour.refusals]

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        batch = "/batches/{batch_id}"
        self._add(app, "POST", "/batches.json", "create", self._create)
        self._add(app, "POST", batch + "/continue.json", "continue", self._continue)
        self._add(app, "POST", batch + "/cancel.json", "cancel", self._cancel)
        self._add(app, "GET", batch + ".json", "status", self._status)
        for method, path, kind, call in self._tasks.routes():
            self._add(app, method, path, kind, call)
        put = UPLOAD_PATH.replace("{project_id}", r"{project_id:\d+}")
        app.router.add_put(put, self.traffic.guard("put", self._local.put))

    @web.middleware
    async def unserved(self, request: web.Request, handler: StreamHandler) -> web.StreamResponse:
        """Answer what no route serves in the vendor's shape: a middleware."""
        try:
            return await handler(request)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
            return error_answer(error.status, f"{request.method} {request.path} is not served.", error.status)

    async def run(self) -> None:
        """Create tasks, do what was put off, and send callbacks until cancelled."""
        await asyncio.gather(self._creator.run(), self._agenda.run(), self._callbacks.run())

    def _add(self, app: web.Application, method: str, path: str, kind: str, call: ProjectCall) -> None:
        handler: Handler = partial(self._answer, call)
        app.router.add_route(method, "/v2/projects/{project_id}" + path, self.traffic.guard(kind, handler))

    async def _answer(self, call: ProjectCall, request: web.Request) -> web.Response:
        try:
            return await call(request, self._project_id(request))
        except SamaError as error:
            return error.answer()
        except web.HTTPRequestEntityTooLarge:
            return error_answer(413, f"A body may have {self._behaviour.max_body_bytes} bytes at most.", 413)

    def _project_id(self, request: web.Request) -> int:
        if request.query.get("access_key") not in self._behaviour.access_keys:
            raise SamaError(401, "Not authorized.")
        project_id = request.match_info["project_id"]
        if not project_id.isdecimal() or self._creator.rules(int(project_id)) is None:
            raise SamaError(404, f"There is no project {project_id}.")
        return int(project_id)

    async def _create(self, request: web.Request, project_id: int) -> web.Response:
        body = await json_body(request)
        tasks = body.get("tasks")
        if tasks is None:
            return self._create_waiting(request, project_id)
        if not isinstance(tasks, list) or not tasks:
            raise SamaError(400, "tasks must be an array of tasks.", "InvalidParameter")
        if len(tasks) > self._behaviour.max_inline_tasks:
            limit = self._behaviour.max_inline_tasks
            raise SamaError(400, f"A batch may have {limit} tasks at most, not {len(tasks)}.", "TooManyTasks")
        self._refuse(tasks)
        batch = self._creator.open(project_id)
        batch.continued = True
        self._agenda.do(batch.batch_id, partial(self._creator.start, batch, tasks))
        return json_answer({"batch_id": batch.batch_id, **self._statuses.told(batch, len(tasks))}, 202)

    def _refuse(self, tasks: list[object]) -> None:
        for status, rule in self._refusals:
            if any(rule.hits(task) for task in tasks):
                raise SamaError(status, rule.rule.message, rule.rule.type)

    def _create_waiting(self, request: web.Request, project_id: int) -> web.Response:
        batch = self._opened_batch(project_id)
        lifetime = self._behaviour.tasks_put_url_seconds
        url = self._uploads.url(project_id, batch.batch_id, str(request.url.origin()), lifetime)
        return json_answer({"batch_id": batch.batch_id, "tasks_put_url": url}, 202)

    def _opened_batch(self, project_id: int) -> SandboxBatch:
        """Open a batch, or name the one before again."""
        self._opened += 1
        every = self._unwritten.known_batch_every
        again = every > 0 and self._opened % every == 0
        if self._newest is None or not again or self._newest.project_id != project_id:
            self._newest = self._creator.open(project_id)
        return self._newest

    async def _continue(self, request: web.Request, project_id: int) -> web.Response:
        await request.read()
        batch, again = self._batch(request, project_id), self._behaviour.continue_again
        self._check_busy(batch)
        if batch.closed or (batch.continued and again == "error"):
            state = batch.state(self._clock())
            words = "continued already" if state is BatchState.WAITING else f"{state}, not waiting"
            raise SamaError(400, f"Batch {batch.batch_id} is {words}.", "InvalidBatchState")
        if batch.continued and again == "html":
            return html_answer(409)
        if not batch.continued or again == "duplicate":
            await self._start_uploaded(batch)
        return json_answer({"batch_id": batch.batch_id}, 202)

    async def _start_uploaded(self, batch: SandboxBatch) -> None:
        batch.continued = True  # before the first await: two calls at once must not both be the first
        body = await self._uploads.fetch(batch.project_id, batch.batch_id)
        if body is None:
            batch.continued = False
            raise SamaError(400, f"No tasks file was uploaded for batch {batch.batch_id}.", "TasksFileMissing")
        try:
            tasks = self._read_tasks(body)
            self._refuse(tasks)
            work = partial(self._creator.start, batch, tasks)
        except SamaError:
            batch.continued = False
            raise
        except ValueError as error:
            work = partial(self._creator.close, batch, BatchState.FAILED, str(error))
        self._agenda.do(batch.batch_id, work)
        if self._agenda.swallows:
            batch.continued = False  # as if it had never been told, so that telling it again helps
        elif self._behaviour.continue_again != "duplicate":
            self._uploads.forget(batch.project_id, batch.batch_id)

    def _read_tasks(self, body: bytes) -> list[object]:
        tasks = orjson.loads(body)
        if not isinstance(tasks, list):
            raise ValueError("The tasks file must hold an array of tasks.")  # noqa: TRY004 - wrong data, no wrong call
        if len(tasks) > self._behaviour.max_upload_tasks:
            limit = self._behaviour.max_upload_tasks
            raise ValueError(f"A tasks file may hold {limit} tasks at most, not {len(tasks)}.")
        return tasks

    async def _status(self, request: web.Request, project_id: int) -> web.Response:
        at = self._clock() - self._reads.status_seconds
        batch = self._seen_batch(request, project_id, at)
        page = int_parameter(request.query, "page", 1, 1, 10**9)
        page_size = int_parameter(request.query, "page_size", DEFAULT_STATUS_PAGE, 0, MAX_STATUS_PAGE)
        omit_data = flag_parameter(request.query, "omit_failed_task_data")
        return json_answer(self._statuses.status(batch, at, StatusPage((page - 1) * page_size, page_size, omit_data)))

    def _seen_batch(self, request: web.Request, project_id: int, at: float) -> SandboxBatch:
        """Find a batch and return it as it was `at` a time."""
        batch = self._batch(request, project_id)
        self._creator.advance(batch)
        if not self._reads.status_seconds:
            return batch
        if self._reads.new_are_unknown and batch.opened_at > at:
            raise _no_batch(batch.batch_id, project_id)
        return batch.as_of(at)

    async def _cancel(self, request: web.Request, project_id: int) -> web.Response:
        await request.read()
        batch = self._batch(request, project_id)
        self._check_busy(batch)
        state = batch.state(self._clock())
        if state in (BatchState.COMPLETED, BatchState.FAILED):
            raise SamaError(400, f"Batch {batch.batch_id} is {state} already.", "InvalidBatchState")
        if self._behaviour.cancel == "refuse":
            raise SamaError(400, f"Batch {batch.batch_id} is {state} and cannot be canceled.", "InvalidBatchState")
        lies = self._behaviour.cancel == "lie"
        if state is not BatchState.CANCELED and not (lies and batch.runs):
            self._close(batch, lies=lies)
        return json_answer({"batch_id": batch.batch_id}, 202)

    def _close(self, batch: SandboxBatch, *, lies: bool) -> None:
        """Cancel a batch; if that is a lie, what is late comes all the same."""
        if not lies:
            self._agenda.forget(batch.batch_id)
        self._creator.close(batch, BatchState.CANCELED, "The creation was canceled.", self._clock())
        self._uploads.forget(batch.project_id, batch.batch_id)

    def _check_busy(self, batch: SandboxBatch) -> None:
        if self._behaviour.busy_while_late and self._agenda.awaits(batch.batch_id):
            raise SamaError(409, f"Batch {batch.batch_id} is busy.", "Conflict")

    def _batch(self, request: web.Request, project_id: int) -> SandboxBatch:
        text = request.match_info["batch_id"]
        batch = self._creator.batches.get(int(text)) if text.isdecimal() else None
        if batch is None or batch.project_id != project_id:
            raise _no_batch(text, project_id)
        waited = self._clock() - batch.opened_at
        if not batch.continued and batch.closed is None and waited > self._behaviour.waiting_seconds:
            self._creator.close(batch, BatchState.CANCELED, "The batch waited too long for its tasks.", self._clock())
        return batch


def _own_limits(behaviour: Behaviour) -> list[RateLimit]:
    """Return the one limit that the vendor documents."""
    per_second = behaviour.sama.task_lists_per_second
    return [RateLimit(1, 1 / per_second, "tasks")] if per_second else []


def _no_batch(batch_id: int | str, project_id: int) -> SamaError:
    return SamaError(404, f"There is no batch {batch_id} in project {project_id}.")


def _error(kind: str, status: int, message: str) -> web.Response:
    if kind == "put":
        code = _S3_CODES.get(status, "InvalidRequest" if status < 500 else "InternalError")  # noqa: PLR2004 - HTTP codes
        return s3_error_answer(status, code, message)
    return error_answer(status, message, status)
