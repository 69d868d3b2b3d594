"""Sama's task API as its vendor documents it; bodies that nobody documents are this sandbox's choice.

`server.py` serves it over sockets, tests in made-up time. Batches are handled here, tasks and the rest in `tasks.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from random import Random

from engine.model.record import loads
from engine.sandbox.behaviour import Behaviour, RateLimit
from engine.sandbox.journal import Journal
from engine.sandbox.messages import (
    Route,
    SandboxAnswer,
    SandboxRefusal,
    SandboxRequest,
    WrongInput,
    flag_of,
    html_answer,
    int_of,
    json_answer,
)
from engine.sandbox.sama.creation import BatchState, CreationRun, Creator, SandboxBatch, TaskAddress
from engine.sandbox.sama.rules import error_answer, refusal
from engine.sandbox.sama.tasks import ProjectHandler, SamaTasks
from engine.sandbox.sama.uploads import UPLOAD_PATH, Uploads, s3_error_answer
from engine.sandbox.traffic import CallKinds, SandboxService, Traffic

CALLS = CallKinds(
    frozenset({"create", "put", "continue", "status", "cancel"})
    | {"task", "tasks", "delivered", "reject", "delete", "update", "schema", "project"},
    outside=frozenset({"put"}),
    deferrable=frozenset({"create", "continue"}),
)
_S3_CODES = {401: "AccessDenied", 403: "AccessDenied", 404: "NoSuchKey", 409: "OperationAborted"}
_S3_CODES |= dict.fromkeys((429, 503), "SlowDown")
"""What S3 says with a status, after its list of error codes."""
MAX_STATUS_PAGE = 1000  # the vendor's limit
DEFAULT_STATUS_PAGE = 100  # unknown; small, so that a client that relies on it is noticed


class SamaService(SandboxService):
    """Serves Sama's API."""

    name = "Sama"

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        uploads: Uploads | None = None,
        report: Callable[[bytes], object] | None = None,
    ) -> None:
        """Keep uploads in memory where no other place is given; send the bodies of callbacks to `report`.

        Raise BehaviourError for what cannot be served.
        """
        per_second = behaviour.sama.task_lists_per_second  # the one limit that the vendor documents
        own_limits = [RateLimit(1, 1 / per_second, "tasks")] if per_second else []
        traffic = Traffic(behaviour, calls=CALLS, error=_error, clock=clock, own_limits=own_limits)
        self._behaviour, self._clock, self._reads = behaviour, clock, behaviour.reads
        self._unwritten, self._agenda = behaviour.sama.unwritten, traffic.agenda
        self._creator = Creator(behaviour, journal, traffic.stats, clock, report)
        self._tasks = SamaTasks(self._creator, behaviour)
        self._newest: SandboxBatch | None = None
        self._opened = 0
        self._uploads = uploads or Uploads(clock, etag=self._unwritten.etag)
        below_project = [*self._batch_routes(), *self._tasks.routes()]
        routes = [
            Route(method, "/v2/projects/{project_id}" + path, kind, partial(self._handle, handler))
            for method, path, kind, handler in below_project
        ]
        put = UPLOAD_PATH.replace("{project_id}", r"{project_id:\d+}")
        super().__init__(traffic, [*routes, Route("PUT", put, "put", self._uploads.put)])

    def _batch_routes(self) -> Iterator[tuple[str, str, str, ProjectHandler]]:
        batch = "/batches/{batch_id}"
        yield "POST", "/batches.json", "create", self._create
        yield "POST", batch + "/continue.json", "continue", self._continue
        yield "POST", batch + "/cancel.json", "cancel", self._cancel
        yield "GET", batch + ".json", "status", self._status

    def advance(self) -> bool:
        """Do what was put off, and create what is due, at most one block of tasks."""
        self._agenda.advance()
        return self._creator.advance_all()

    def _handle(self, handler: ProjectHandler, request: SandboxRequest) -> SandboxAnswer:
        if request.query.get("access_key") not in self._behaviour.access_keys:
            raise refusal(401, "Not authorized.")
        project_id = request.params["project_id"]
        if not project_id.isdecimal() or self._creator.rules(int(project_id)) is None:
            raise refusal(404, f"There is no project {project_id}.")
        if request.body is None:
            raise refusal(413, f"A body may have {self._behaviour.max_body_bytes} bytes at most.")
        try:
            return handler(request, int(project_id))
        except WrongInput as error:
            raise refusal(400, str(error), "InvalidParameter" if error.is_json else "InvalidJson") from error

    def _create(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        body = request.json_object()
        tasks = body.get("tasks")
        if tasks is None:
            return self._create_waiting(request, project_id)
        if not isinstance(tasks, list) or not tasks:
            raise WrongInput("tasks must be an array of tasks.")
        if len(tasks) > self._behaviour.max_inline_tasks:
            limit = self._behaviour.max_inline_tasks
            raise refusal(400, f"A batch may have {limit} tasks at most, not {len(tasks)}.", "TooManyTasks")
        self._refuse(tasks)
        batch = self._creator.open(project_id)
        batch.continued = True
        self._agenda.do(batch.batch_id, partial(self._creator.start, batch, tasks))
        return json_answer({"batch_id": batch.batch_id, **self._told(batch, len(tasks))}, 202)

    def _refuse(self, tasks: list[object]) -> None:
        for rule in self._behaviour.refusals:
            if any(rule.hits(task) for task in tasks):
                raise refusal(rule.status, rule.message, rule.type)

    def _create_waiting(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
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

    def _continue(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        batch, again = self._batch(request, project_id), self._behaviour.continue_again
        self._check_busy(batch)
        if batch.closed or (batch.continued and again == "error"):
            state = batch.state(self._clock())
            words = "continued already" if state is BatchState.WAITING else f"{state}, not waiting"
            raise refusal(400, f"Batch {batch.batch_id} is {words}.", "InvalidBatchState")
        if batch.continued and again == "html":
            return html_answer(409)
        if not batch.continued or again == "duplicate":
            self._start_uploaded(batch)
        return json_answer({"batch_id": batch.batch_id}, 202)

    def _start_uploaded(self, batch: SandboxBatch) -> None:
        body = self._uploads.fetch(batch.project_id, batch.batch_id)
        if body is None:
            raise refusal(400, f"No tasks file was uploaded for batch {batch.batch_id}.", "TasksFileMissing")
        try:
            tasks = self._read_tasks(body)
        except ValueError as error:
            work = partial(self._creator.close, batch, BatchState.FAILED, str(error))
        else:
            self._refuse(tasks)
            work = partial(self._creator.start, batch, tasks)
        self._agenda.do(batch.batch_id, work)
        batch.continued = not self._agenda.swallows  # a swallowed one was never told, so that telling it again helps
        if batch.continued and self._behaviour.continue_again != "duplicate":
            self._uploads.forget(batch.project_id, batch.batch_id)

    def _read_tasks(self, body: bytes) -> list[object]:
        tasks = loads(body)
        if not isinstance(tasks, list):
            raise ValueError("The tasks file must hold an array of tasks.")  # noqa: TRY004 - wrong data, no wrong call
        if len(tasks) > self._behaviour.max_upload_tasks:
            limit = self._behaviour.max_upload_tasks
            raise ValueError(f"A tasks file may hold {limit} tasks at most, not {len(tasks)}.")
        return tasks

    def _status(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        """Word a creation status: keys, words and the order of tasks are our choice.

        The vendor's page names the states of a task, *waiting* for a batch, and says that a status shows the data of
        failed tasks. All else could be otherwise, and `SamaUnwritten` says how.
        """
        at = self._clock() - self._reads.status_seconds
        batch = self._seen_batch(request, project_id, at)
        page = int_of(request.query, "page", 1, 1, 10**9)
        size = int_of(request.query, "page_size", DEFAULT_STATUS_PAGE, 0, MAX_STATUS_PAGE)
        omit_data = flag_of(request.query, "omit_failed_task_data") is True
        run = batch.runs[-1] if batch.runs else None
        body: dict[str, object] = {
            "batch_id": batch.batch_id,
            "state": self._word(batch.state(at), self._unwritten.batch_words),
        }
        if self._unwritten.counts:
            body |= {"total": run.total if run else 0, "created": run.created if run else 0}
        body["messages"] = [message.text for message in batch.messages]
        if size:
            order = _order(self._unwritten.task_order, run.batch_id, run.total) if run else ()
            positions = order[(page - 1) * size : page * size]
            body["tasks"] = [self._status_task(run, one, omit_data=omit_data) for one in positions] if run else []
        return json_answer(body)

    def _seen_batch(self, request: SandboxRequest, project_id: int, at: float) -> SandboxBatch:
        """Find a batch and return it as it was `at` a time."""
        batch = self._batch(request, project_id)
        self._creator.advance(batch)
        if not self._reads.status_seconds:
            return batch
        if self._reads.new_are_unknown and batch.opened_at > at:
            raise _no_batch(batch.batch_id, project_id)
        return batch.as_of(at)

    def _cancel(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        batch = self._batch(request, project_id)
        self._check_busy(batch)
        state = batch.state(self._clock())
        if state in (BatchState.COMPLETED, BatchState.FAILED):
            raise refusal(400, f"Batch {batch.batch_id} is {state} already.", "InvalidBatchState")
        if self._behaviour.cancel == "refuse":
            raise refusal(400, f"Batch {batch.batch_id} is {state} and cannot be canceled.", "InvalidBatchState")
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
            raise refusal(409, f"Batch {batch.batch_id} is busy.", "Conflict")

    def _batch(self, request: SandboxRequest, project_id: int) -> SandboxBatch:
        text = request.params["batch_id"]
        batch = self._creator.batches.get(int(text)) if text.isdecimal() else None
        if batch is None or batch.project_id != project_id:
            raise _no_batch(text, project_id)
        waited = self._clock() - batch.opened_at
        if not batch.continued and batch.closed is None and waited > self._behaviour.waiting_seconds:
            self._creator.close(batch, BatchState.CANCELED, "The batch waited too long for its tasks.", self._clock())
        return batch

    def _told(self, batch: SandboxBatch, tasks: int) -> dict[str, object]:
        """Return what the answer to inline tasks says of their ids."""
        key = self._unwritten.told_ids
        if not key:
            return {}
        ids = [TaskAddress(batch.batch_id, 0, position).task_id(self._creator.started) for position in range(tasks)]
        told: list[object] = [{"id": task_id, "state": "queued"} if key == "tasks" else task_id for task_id in ids]
        return {key: told}

    def _status_task(self, run: CreationRun, position: int, *, omit_data: bool) -> dict[str, object]:
        state = self._word(run.task_state(position), self._unwritten.task_words)
        if position in run.failures:
            failures = run.failures[position]
            errors = [{"type": failure.type, "message": failure.message} for failure in failures]
            task: dict[str, object] = {"state": state, "errors": errors}
            shows = self._unwritten.failed_data and not omit_data
            return {**task, "data": run.failed_data[position]} if shows else task
        if position >= run.done:
            return {"state": state}
        return {**self._id(run, position), "state": state}

    def _id(self, run: CreationRun, position: int) -> dict[str, object]:
        unwritten = self._unwritten
        if _strikes(unwritten.no_id_every, position):
            return {}
        shown = position - 1 if _strikes(unwritten.same_id_every, position) else position
        return {"id": run.address(shown).task_id(self._creator.started)}

    def _word(self, word: str, others: Mapping[str, str]) -> str:
        word, case = others.get(word, word), self._unwritten.case
        return str(word) if case == "lower" else word.upper() if case == "upper" else word.title()


def _no_batch(batch_id: int | str, project_id: int) -> SandboxRefusal:
    return refusal(404, f"There is no batch {batch_id} in project {project_id}.")


def _error(kind: str, status: int, message: str) -> SandboxAnswer:
    if kind == "put":
        code = _S3_CODES.get(status, "InvalidRequest" if status < 500 else "InternalError")  # noqa: PLR2004 - HTTP codes
        return s3_error_answer(status, code, message)
    return error_answer(status, message, status)


def _strikes(every: int, number: int) -> bool:
    return every > 0 and number % every == every - 1


@lru_cache(maxsize=8)
def _order(kind: str, seed: int, tasks: int) -> Sequence[int]:
    """Return the positions in the order of the list: the same for each page of a batch."""
    if kind == "shuffled":
        return Random(seed).sample(range(tasks), tasks)
    return [*range(1, tasks), 0][:tasks] if kind == "shifted" else range(tasks)
