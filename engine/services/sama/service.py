"""Sama: batches in, created tasks with their ids out, by asynchronous batch creation.

Presigned (the default): create a batch without tasks, PUT the array to its `tasks_put_url`, then continue it. Inline:
one POST of the tasks, with no step that could be repeated safely; but where the project's schema has the input
`client_batch_id`, every task of a batch carries it, and a batch whose answer was lost is searched for by it.

What the vendor documents: the page "Create a batch of tasks" and the API reference at docs.sama.com.

The module is a long one, since each way to create needs each step.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.clock import Clock
from engine.model.batch import Batch, ClientReference, Limits, batch_name
from engine.model.doubt import Again, RemoteStatus
from engine.model.error_hints import Blame, Carries
from engine.model.errors import ConfigError, Refused, UnexpectedAnswer, WrongAddress
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.payload import NO_TASKS, Payload
from engine.model.record import Row, loads
from engine.model.settings import BatchSettings
from engine.progress.events import Listener, Noticed, unheard
from engine.services.base import (
    JSON_HEADERS,
    Answer,
    Asked,
    BatchProgress,
    Call,
    Caller,
    Intent,
    Located,
    Released,
    Staged,
    no_intent,
)
from engine.services.created import CreatedTasks, TaskState
from engine.services.decoding import Anything, decode, path_part
from engine.services.sama.answers import (
    ENDS,
    SKEW_SECONDS,
    Creation,
    CreationStatus,
    MixedPage,
    Phase,
    ToldBatch,
    creation_status,
    id_of,
    is_the_stores,
    listed,
    phase_of,
    remote_status_of,
    work_state,
)
from engine.services.sama.fates import PAGE_SIZE, TASKS_PAGE_SIZE, TASKS_SECONDS, Fates, TaskList
from engine.services.sama.schema import REFERENCE_INPUT, UncheckableSchema, read_schema, schema_check, takes_references
from engine.services.sama.settings import SamaSettings
from engine.services.sama.tasks import PlainTask, field_error

if TYPE_CHECKING:
    from engine.services.checks import Checking

UPLOAD_URL_SECONDS = 4 * 3600 - 600
"""The vendor's page: 4 hours. Ten minutes are kept for the upload itself and for clocks that differ."""

NOT_WAITING = "InvalidBatchState"
"""Our guess of the error's type when a batch is continued that does not wait; 409 counts as well."""

MARKED, UNMARKED = "marked", "unmarked"
"""What is learnt of a project: whether its tasks have that input."""

_LIKELY = 0.5
"""Share of polls that find the end from which on each asks for the fates, too: a request less for nearly every batch,
a page for nothing now and then."""
_NEWEST = 0.1
"""Weight of the newest poll in that share: a few batches must have shown it."""

_CARRIES = {"post": Carries.RECORDS, "continue": Carries.RELEASE}
"""Of our POSTs; an empty batch carries none, and an upload goes to the store."""


class Sama:
    """The service `sama`; see the module's head."""

    kind = "sama"
    drafting = None
    """What a lost call to stage made is an empty batch that nobody can find, or needs to."""
    polls_together = 1
    undone_together = TASKS_PAGE_SIZE
    by_people = True
    stage_again = Again.SAFE
    """An empty batch that is not continued creates nothing."""
    settle_seconds = SETTLE_SECONDS
    key_seconds = float("inf")
    open_batches = 500
    """Half a million tasks on their way; more would only stand in line at the service."""

    def __init__(
        self,
        settings: SamaSettings,
        batch: BatchSettings,
        job: Job,
        caller: Caller,
        clock: Clock,
        emit: Listener = unheard,
    ) -> None:
        if job.until not in {"", "created"}:
            raise ConfigError(
                f"--until {job.until}: a record counts as done when its Sama task is created; leave --until out. "
                "`bulksubmit resume JOB --until finished` follows people's work on the tasks afterwards"
            )
        presigned = settings.mode == "presigned"
        self.staging: Sama | None = self if presigned else None
        self.referencing: Sama | None = None if presigned else self
        self.polling = self.canceling = self.counting = self
        self.refreshing = self.undoing = self
        self.limits = Limits(min(batch.max_records, settings.max_tasks_per_batch), batch.max_bytes)
        self._settings = settings
        self._project = f"{settings.base_url.rstrip('/')}/projects/{settings.project_id}"
        self._options = {"tasks_file_name": settings.tasks_file_name or job.name}
        if settings.notification_email:
            self._options["notification_email"] = settings.notification_email
        self._caller = caller
        self._clock = clock
        self._emit = emit
        self._schema = read_schema(settings.task_schema) if settings.task_schema else None
        self._schema_error = schema_check(self._schema, settings.task_schema) if self._schema else None
        self.plain_task = None if self._schema_error else PlainTask
        self._job_name = job.name
        word, _, token = job.learnt.partition(" ")
        self._token = token if word == MARKED else ""
        """What the client references of a job have in common; "" if it has none."""
        self._tasks = TaskList(self._project, caller)
        self._fates = Fates(self._status, self._tasks, clock, emit)
        self._polls_that_end = 0.0
        self._looks_pay: dict[str, bool] = {}
        """By word that we do not know: whether a batch that was called so turned out to be done."""
        self._counts_shown = True
        self._found: dict[str, tuple[str, CreationStatus | None]] = {}
        """By batch: its word and the first page of its tasks, if the poll that found the end brought it along."""

    @property
    def again(self) -> Again:
        """A batch that was staged can be asked about; one sent inline can be searched for, if its tasks are marked."""
        if self.staging:
            return Again.ASK
        return Again.SEARCH if self._token else Again.NEVER

    @property
    def checking(self) -> Checking:
        """Asks about the project; loaded where it is wanted."""
        from engine.services.sama.checks import SamaChecks  # noqa: PLC0415 - no load needs it

        return SamaChecks(self._settings, self._project, self._caller, self._clock, self.reference(0))

    def check(self, task: Row) -> str | None:
        """Return why Sama would not take this task, naming the field."""
        return field_error(task) or (self._schema_error(task) if self._schema_error else None)

    def task_url(self, task_id: str) -> str:
        """Return the task's read-only workspace."""
        return f"https://app.sama.com/projects/{self._settings.project_id}/tasks/{task_id}"

    async def learn(self) -> str:
        """Ask whether the tasks of the project have an input to find them by."""
        if not await self._has_mark():
            return UNMARKED
        # Random: jobs of the same name that begin at the same moment elsewhere must not find each other's batches.
        self._token = secrets.token_hex(8)
        return f"{MARKED} {self._token}"

    async def _has_mark(self) -> bool:
        if self._schema is not None:
            return self._takes_marks(self._schema)
        try:
            answer = await self._caller.call(Call("schema", "GET", f"{self._project}/schemas/create_task.json"))
            return self._takes_marks(decode(answer, dict[str, Any], call="schema"))
        except (Refused, UnexpectedAnswer):  # no schema to be had: no mark
            return False
        except WrongAddress:
            await self.look()  # else it is the address that is wrong
            return False

    def _takes_marks(self, schema: Any) -> bool:
        """Go on without client references where the project's schema is beyond us, and say what that costs."""
        try:
            return takes_references(schema)
        except UncheckableSchema as error:
            project = self._settings.project_id
            said = f"the schema of project {project} cannot be checked here ({error}), so its tasks carry no mark: "
            self._emit(Noticed(f"{said}a batch whose answer is lost stays uncertain. In presigned mode none does"))
            return False

    def reference(self, sequence: int) -> ClientReference | None:
        """Return the `client_batch_id` of a batch, where the project has that input and it is needed."""
        if not self._token:
            return None
        return ClientReference("data", REFERENCE_INPUT, f"{self._job_name}-{self._token}-{batch_name(sequence)}")

    async def locate(self, batch: Batch, payload: Payload, since: float) -> Located:
        """Search the project's tasks for those of a batch by each `client_batch_id` that its tasks carry.

        A value of our own making is on no other batch. One that came with the records may be: then it must be on tasks
        that are new and hold what we sent, in a batch of as many.
        """
        inputs: dict[str, list[Row]] = {}
        for task in loads(payload.array):
            inputs.setdefault(str(task["data"].get(REFERENCE_INPUT)), []).append(task["data"])
        reference = self.reference(batch.sequence)
        ours: set[str] = set()
        alike: set[str] = set()
        for value, candidates in inputs.items():
            async for task in self._tasks.all(
                {REFERENCE_INPUT: value, f"{REFERENCE_INPUT}_match_type": "exact"}, mend=False
            ):
                if str(task.inputs.get(REFERENCE_INPUT)) != value:
                    raise UnexpectedAnswer(f"tasks: the service does not search by {REFERENCE_INPUT}", call="tasks")
                if reference is not None and value == reference.value:
                    ours.add(task.batch)
                elif task.made_at >= since - SKEW_SECONDS and task.is_one_of(candidates):
                    alike.add(task.batch)
        return Located(sorted(ours | {name for name in alike - ours if await self._has_as_many(name, batch.count)}))

    async def _has_as_many(self, remote_id: str, records: int) -> bool:
        total = (await self._status(remote_id, page=None)).total
        if total is None:
            raise UnexpectedAnswer("status: the answer does not say how many tasks the batch has", call="status")
        return total == records

    async def stage(
        self, batch: Batch, payload: Payload, *, earlier_id: str | None = None, intent: Intent = no_intent
    ) -> Staged:
        """Create an empty batch. An earlier one is empty, too, and its upload URL died with the process."""
        del batch, payload, earlier_id, intent
        started = self._clock.monotonic()
        answer = await self._post("create", "batches.json", orjson.dumps(self._options))
        told = decode(answer, ToldBatch, call="create")
        if not told.tasks_put_url:
            raise UnexpectedAnswer("create: the answer has no tasks_put_url", call="create", status=answer.status)
        return Staged(told.name, told.tasks_put_url, started + UPLOAD_URL_SECONDS)

    async def upload(self, staged: Staged, payload: Payload, *, few_tries: bool = False) -> None:
        """PUT the array to the presigned URL, without our key."""
        assert staged.upload_url is not None  # noqa: S101 - `stage` always sets it
        put = Call("put", "PUT", staged.upload_url, headers=JSON_HEADERS, body=payload.array, carries=Carries.BYTES)
        try:
            answer = await self._caller.call(replace(put, authenticated=False, few_tries=few_tries))
        except ConfigError as error:  # one answer may be spoilt; the next URL may lead to where payloads may go
            raise Refused(str(error), call="put", blame=Blame.URL) from error
        if not is_the_stores(answer):
            raise UnexpectedAnswer("put: the answer is not a store's", call="put", status=answer.status)

    async def look(self) -> str:
        """Ask for the project.

        Raises:
            Refused: it is not there, or not for this key; names the key of the configuration.
        """
        try:
            answer = await self._caller.call(Call("project", "GET", f"{self._project}.json"))
        except Refused as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                words = f"service.project_id {self._settings.project_id} is no project of this key ({refusal})"
                raise Refused(words, call="project", status=refusal.status) from refusal
            raise
        decode(answer, Anything, call="project")
        said = ", ".join(self._options)
        return f"project {self._settings.project_id} is there, so look at what else was said of a batch: {said}"

    async def release(
        self,
        batch: Batch,
        remote_id: str | None,
        payload: Payload | None,
        intent: Intent = no_intent,
        *,
        sent_before: bool = False,
    ) -> Released:
        """Create the tasks: from the uploaded file, or (inline) from the payload itself."""
        del batch, sent_before
        if remote_id is None:
            body = (b'{"tasks":', (payload or NO_TASKS).array, b"," + orjson.dumps(self._options)[1:])
            told = decode(await self._post("post", "batches.json", body, intent), ToldBatch, call="post")
            self._fates.were_told(told.name, told.told_ids)
            return Released(told.name)
        try:
            answer = await self._post("continue", f"batches/{path_part(remote_id)}/continue.json", None, intent)
        except Refused as refusal:
            # A guess: the vendor documents no word for it.
            refusal.released_before = refusal.status == HTTPStatus.CONFLICT or refusal.code == NOT_WAITING
            raise
        _ = decode(
            answer, ToldBatch, call="continue"
        ).name  # else it is not Sama who answered: we ask what became of it
        return Released(remote_id)

    async def remote_status(self, remote_id: str) -> RemoteStatus:
        """Ask whether the batch still waits for `continue`."""
        try:
            status = await self._status(remote_id, page=None)
        except Refused as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                return RemoteStatus.NOT_THERE
            raise
        return remote_status_of(status)

    async def progress(self, followed: Sequence[Asked]) -> Sequence[BatchProgress]:
        """Ask for the counts alone (`page_size=0`), unless most polls find the end: then for the fates at once."""
        (asked,) = followed
        remote_id = str(asked.remote_id)
        with_fates = asked.unmoved or not self._counts_shown or self._polls_that_end > _LIKELY
        status = await self._status(remote_id, 1 if with_fates else None)
        word, created = status.word, self._created_in(status)
        phase = phase_of(word)
        finished = phase in ENDS or created >= asked.count
        self._polls_that_end += (finished - self._polls_that_end) * _NEWEST
        # A word that nobody knows may be one for the end: whether looking pays is seen by one look.
        finished |= asked.unmoved or (phase is Phase.UNKNOWN and self._looks_pay.get(word, True))
        if finished:
            self._found[remote_id] = word, status if with_fates else None
        understood, waiting = phase is not Phase.UNKNOWN or not word, phase is Phase.WAITING
        created = min(created, asked.count)
        progress = BatchProgress(asked.sequence, created, finished, waiting=waiting, said=word, understood=understood)
        return [progress]

    def _created_in(self, status: CreationStatus) -> int:
        """Return how many tasks exist: by the count, or where the service shows none, by the first page of tasks."""
        created = status.created
        if created is None and status.word:
            self._counts_shown = False
            created = sum(task.creation is Creation.CREATED for task in listed(status))
        if created is None:
            raise UnexpectedAnswer("status: the answer says nothing of the batch", call="status")
        return created

    async def settlement(self, asked: Asked) -> Settlement | None:
        """Fetch the creation status of every task; None while some of them are not in a final state."""
        word, first_page = self._found.pop(str(asked.remote_id), ("", None))
        settlement = await self._fates.settle(asked, first_page)
        if phase_of(word) is Phase.UNKNOWN:
            self._looks_pay[word] = settlement is not None
        return settlement

    async def cancel(self, remote_id: str) -> None:
        """Cancel the creation of what is not created yet."""
        await self._post("cancel", f"batches/{path_part(remote_id)}/cancel.json", None)
        self._fates.was_canceled(remote_id)

    async def count_work(self, remote_ids: Sequence[str]) -> Mapping[str, int]:
        """Count the batch's tasks by the state of people's work on them."""
        (remote_id,) = remote_ids
        tasks = self._tasks.all({"batch_id": remote_id}, least=TASKS_PAGE_SIZE)
        return Counter([task.word or "unknown" async for task in tasks])

    async def task_states(self, batches: Sequence[CreatedTasks]) -> Mapping[str, TaskState]:
        """List the tasks of a batch."""
        (batch,) = batches
        wanted, states, listed_tasks = frozenset(batch.task_ids), dict[str, TaskState](), 0
        async for task in self._tasks.all({"batch_id": batch.remote_id}):
            listed_tasks += 1
            if listed_tasks > batch.records:
                raise UnexpectedAnswer("tasks: the service lists other tasks than those of the batch", call="tasks")
            if (task_id := id_of(task)) in wanted:
                states[task_id] = work_state(task)
            if len(states) == len(wanted):  # a call less: an empty page would show only that this is all
                break
        return states

    async def undo(self, task_ids: Sequence[str]) -> None:
        """Delete tasks that are new: the vendor's client has the call, and no page says what it refuses."""
        await self._post("delete", "tasks/delete_tasks.json", orjson.dumps({"task_ids": list(task_ids)}))

    def counting_seconds(self, tasks: Sequence[int]) -> float:
        """Return how long `working` takes at least: a page a second, and one that is not full is the last."""
        return sum(number // TASKS_PAGE_SIZE + 1 for number in tasks) * TASKS_SECONDS

    async def _post(
        self, kind: str, path: str, body: bytes | tuple[bytes, ...] | None, intent: Intent | None = None
    ) -> Answer:
        """Make a call; one with an intent starts work, and is not repeated on its own."""
        call = Call(
            kind,
            "POST",
            f"{self._project}/{path}",
            headers=JSON_HEADERS,
            body=body,
            repeatable=intent is None,
            reconcilable=kind == "continue",
            intent=intent,
            carries=_CARRIES.get(kind, Carries.NOTHING),
        )
        return await self._caller.call(call)

    async def _status(self, remote_id: str, page: int | None) -> CreationStatus:
        query = {"page_size": "0"}
        if page is not None:
            # With the data of failed tasks, which tells whose they are.
            query = {"page_size": str(PAGE_SIZE), "page": str(page)}
        url = f"{self._project}/batches/{path_part(remote_id)}.json"
        answer = await self._caller.call(Call("status", "GET", url, query=query, yielding=True))
        return creation_status(answer) if page else decode(answer, MixedPage, call="status")


build = Sama
