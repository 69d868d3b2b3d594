"""Sama: batches in, created tasks with their ids out, by asynchronous batch creation.

Presigned (the default): create a batch without tasks, PUT the array to its `tasks_put_url`, then continue it. Inline:
one POST of the tasks, with no step that could be repeated safely; but where the project's schema has the input
`client_batch_id`, every task of a batch carries it, and a batch whose answer was lost is searched for by it.

What the vendor documents: the page "Create a batch of tasks" and the API reference at docs.sama.com. Names that nobody
could see (`state`, `total`, `created` of a creation status; ids as `id` or `task_id`) are read tolerantly, here only.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, SecretStr

from engine.model.batches import Batch, Limits, Mark, batch_name
from engine.model.errors import ConfigError, Refused, Unauthorized, UnexpectedAnswer
from engine.model.jobs import Job
from engine.model.outcomes import Settlement
from engine.model.records import Row
from engine.model.settings import BatchSettings, ServiceSettings
from engine.model.submissions import Submission
from engine.ports import Answer, Call, Caller, Clock, Progress, Released, Staged, Standing

UPLOAD_URL_SECONDS = 4 * 3600 - 600
"""The vendor's page: 4 hours. Ten minutes are kept for the upload itself and for clocks that differ."""

PAGE_SIZE = 1000
"""Most tasks on one page of a creation status; the vendor's maximum."""

TASKS_PAGE_SIZE = 100
"""Most tasks on one page of the task list; the vendor's maximum."""

WAITING = frozenset({"waiting"})
FINISHED = frozenset({"completed", "failed", "canceled"})
"""States of a batch's creation. Any other, also one we have never heard of, counts as under way."""

CREATED = frozenset({"created", "ready"})
"""States of a task's creation in which it exists."""

NOT_CREATED = frozenset({"failed", "canceled"})
"""States of a task's creation in which it never will. In a batch that has ended there is no third kind."""

MARK = "client_batch_id"
"""The input by which the vendor lets tasks be found again."""

MARKED, UNMARKED = "marked", "unmarked"
"""What is learnt of a project: whether its tasks have that input."""

SKEW_SECONDS = 900.0
"""A task made so long before its batch was sent is none of ours: the longest call, and clocks that differ."""

INT32 = range(-(2**31), 2**31)
TASK_KEYS = ("data", "priority", "reserve_for", "submit", "duration")


class SamaSettings(ServiceSettings):
    """`[service]` with `kind = "sama"`."""

    kind: Literal["sama"]
    base_url: str = "https://api.sama.com/v2"
    project_id: Annotated[int, Field(ge=0, lt=2**63)]
    access_key: SecretStr
    mode: Literal["presigned", "inline"] = "presigned"
    notification_email: str | None = None
    """Told by the service when a batch's creation has finished."""
    tasks_file_name: str | None = None
    """The name people see for the upload; the job's name where left out."""
    upload_hosts: tuple[str, ...] = ("*.amazonaws.com",)
    """Hosts to which `tasks_put_url` may point, besides the service's own when it is on loopback."""
    task_schema: Path | None = None
    """The project's JSON Schema of a task (`/schemas/create_task.json`), to find bad tasks before they are sent."""
    max_tasks_per_batch: Annotated[int, Field(ge=1)] = 1000
    """The vendor's limit, should it change."""

    def secret_query(self) -> Mapping[str, SecretStr]:
        """The key travels in the query of every API call."""
        return {"access_key": self.access_key}

    def allowed_upload_hosts(self) -> Sequence[str]:
        """Presigned URLs point to S3."""
        return self.upload_hosts


class Sama:
    """The service `sama`; see the module's head."""

    kind = "sama"
    polls_together = 1
    open_batches = 500
    """Half a million tasks on their way; more would only stand in line at the service."""

    def __init__(self, settings: SamaSettings, batch: BatchSettings, job: Job, caller: Caller, clock: Clock) -> None:
        if job.until not in {"", "created"}:
            raise ConfigError(f"--until {job.until}: a Sama task is done when it is created; leave --until out")
        self.stages = settings.mode == "presigned"
        self.limits = Limits(min(batch.max_records, settings.max_tasks_per_batch), batch.max_bytes)
        self._settings = settings
        self._project = f"{settings.base_url.rstrip('/')}/projects/{settings.project_id}"
        self._options = _batch_options(settings, job.name)
        self._caller = caller
        self._clock = clock
        self._schema = _read_schema(settings.task_schema) if settings.task_schema else None
        self._schema_error = _schema_check(self._schema, settings.task_schema) if self._schema else None
        self._job_name = job.name
        self._token = _token_of(job.learnt)

    def check(self, task: Row) -> str | None:
        """Return why Sama would not take this task, naming the field."""
        return _field_error(task) or (self._schema_error(task) if self._schema_error else None)

    def task_url(self, task_id: str) -> str:
        """Return the task's read-only workspace."""
        return f"https://app.sama.com/projects/{self._settings.project_id}/tasks/{task_id}"

    async def learn(self) -> str:
        """Ask whether the tasks of the project have an input to find them by; only inline it matters."""
        if self.stages or not await self._has_mark():
            return UNMARKED
        # Random: jobs of the same name that begin at the same moment elsewhere must not find each other's batches.
        self._token = secrets.token_hex(8)
        return f"{MARKED} {self._token}"

    async def _has_mark(self) -> bool:
        if self._schema is not None:
            return _takes_marks(self._schema)
        try:
            answer = await self._caller.call(Call("schema", "GET", f"{self._project}/schemas/create_task.json"))
            return _takes_marks(_object(answer))
        except Unauthorized:
            raise
        except (Refused, UnexpectedAnswer):  # no schema to be had: no mark
            return False

    def mark(self, sequence: int) -> Mark | None:
        """Return the `client_batch_id` of a batch, where the project has that input and it is needed."""
        return Mark("data", MARK, f"{self._job_name}-{self._token}-{batch_name(sequence)}") if self._token else None

    async def locate(self, batch: Batch, payload: bytes, since: float) -> Sequence[str]:
        """Search the project's tasks for those of a batch by each `client_batch_id` that its tasks carry.

        A value of our own making is on no other batch. One that came with the records may be: then it must be on tasks
        that are new and hold what we sent, in a batch of as many.
        """
        inputs: dict[str, list[Row]] = {}
        for task in orjson.loads(payload):
            inputs.setdefault(str(task["data"].get(MARK)), []).append(task["data"])
        mark = self.mark(batch.sequence)
        ours: set[str] = set()
        alike: set[str] = set()
        for value, candidates in inputs.items():
            async for task in self._listed({MARK: value, f"{MARK}_match_type": "exact"}):
                if str(_data_of(task).get(MARK)) != value:
                    raise UnexpectedAnswer(f"tasks: the service does not search by {MARK}", call="tasks")
                if mark is not None and value == mark.value:
                    ours.add(_batch_of(task))
                elif _made_at(task) >= since - SKEW_SECONDS and _is_one_of(task, candidates):
                    alike.add(_batch_of(task))
        return sorted(ours | {name for name in alike - ours if await self._has_as_many(name, batch.count)})

    async def _has_as_many(self, remote_id: str, records: int) -> bool:
        total = (await self._status(remote_id, page=None)).get("total")
        if type(total) is not int:
            raise UnexpectedAnswer("status: the answer does not say how many tasks the batch has", call="status")
        return total == records

    async def find(self, batch: Batch, payload: bytes) -> str | None:
        """Return None: what a lost call made is an empty batch that nobody can find, or needs to."""
        del batch, payload
        return None

    async def stage(self, batch: Batch, payload: bytes, *, again: bool, known: str | None = None) -> Staged:
        """Create an empty batch. An earlier one is empty, too, and its upload URL died with the process."""
        del batch, payload, again, known
        started = self._clock.monotonic()
        answer = await self._post("create", "batches.json", orjson.dumps(self._options))
        body = _object(answer)
        url = body.get("tasks_put_url")
        if not isinstance(url, str):
            raise UnexpectedAnswer("create: the answer has no tasks_put_url", call="create", status=answer.status)
        return Staged(_batch_id(answer, body), url, started + UPLOAD_URL_SECONDS)

    async def upload(self, staged: Staged, payload: bytes) -> None:
        """PUT the array to the presigned URL, without our key."""
        assert staged.upload_url is not None  # noqa: S101 - `stage` always sets it
        answer = await self._caller.call(
            Call("put", "PUT", staged.upload_url, headers=_JSON, body=payload, authenticated=False),
        )
        if "ETag" not in answer.headers:  # S3 answers every upload with one; a page from somewhere between has none
            raise UnexpectedAnswer("put: the answer is not the store's, it has no ETag", call="put")

    async def release(self, batch: Batch, remote_id: str | None, payload: bytes | None) -> Released:
        """Create the tasks: from the uploaded file, or (inline) from the payload itself."""
        del batch
        if remote_id is not None:
            answer = await self._post("continue", f"batches/{remote_id}/continue.json", None, repeatable=False)
            _batch_id(answer, _object(answer))  # else it is not Sama who answered, and we ask what became of it
            return Released(remote_id)
        body = b"".join((b'{"tasks":', payload or b"[]", b",", orjson.dumps(self._options)[1:]))
        answer = await self._post("post", "batches.json", body, repeatable=False)
        return Released(_batch_id(answer, _object(answer)))

    async def standing(self, remote_id: str) -> Standing:
        """Ask whether the batch still waits for `continue`."""
        try:
            status = await self._status(remote_id, page=None)
        except Refused as refusal:
            if refusal.status == 404:  # noqa: PLR2004 - the one status that says so
                return Standing.UNKNOWN
            raise
        if not _state(status):
            raise UnexpectedAnswer("status: the answer names no state", call="status")
        return Standing.WAITING if _state(status) in WAITING else Standing.STARTED

    async def progress(self, followed: Sequence[Submission]) -> Sequence[Progress]:
        """Ask for the counts alone (`page_size=0`)."""
        (submission,) = followed
        status = await self._status(str(submission.remote_id), page=None)
        return [Progress(submission.sequence, _created(status) or 0, finished=_state(status) in FINISHED)]

    async def settlement(self, batch: Batch, remote_id: str) -> Settlement:
        """Fetch the creation status of every task, in the order in which they were sent."""
        tasks: list[Row] = []
        number, whole = 0, False
        while not whole:
            number += 1
            status = await self._status(remote_id, page=number)
            if _state(status) not in FINISHED:
                raise UnexpectedAnswer("status: this is no page of a finished batch", call="status")
            page = _tasks(status)
            tasks += page
            # A page may be shorter than we asked for; unless a total says so, only an empty one shows that this is all.
            last = len(page) < PAGE_SIZE or status.get("total") == batch.count
            whole = not page or len(tasks) > batch.count or (len(tasks) == batch.count and last)
        return _settlement(batch.count, tasks, status)

    async def cancel(self, remote_id: str) -> None:
        """Cancel the creation of what is not created yet."""
        await self._post("cancel", f"batches/{remote_id}/cancel.json", None)

    async def working(self, remote_ids: Sequence[str]) -> Mapping[str, int]:
        """Count the batch's tasks by the state of people's work on them."""
        (remote_id,) = remote_ids
        return Counter(
            [_state(task) or "unknown" async for task in self._listed({"batch_id": remote_id}, least=TASKS_PAGE_SIZE)]
        )

    async def _listed(self, wanted: Mapping[str, str], *, least: int = 1) -> AsyncIterator[Row]:
        """Yield the tasks of all pages; one of fewer than `least` is the last: only an empty one proves it."""
        for page in count(1):
            query = {**wanted, "omit_answers": "true", "page": str(page), "page_size": str(TASKS_PAGE_SIZE)}
            answer = await self._caller.call(Call("tasks", "GET", f"{self._project}/tasks.json", query=query))
            body = _object(answer)
            if not isinstance(
                body.get("tasks"), list
            ):  # not Sama's: nothing found must not be believed of anybody else
                raise UnexpectedAnswer("tasks: the answer has no list of tasks", call="tasks")
            tasks = _tasks(body)
            for task in tasks:
                yield task
            if len(tasks) < least:
                return

    async def _post(self, kind: str, path: str, body: bytes | None, *, repeatable: bool = True) -> Answer:
        url = f"{self._project}/{path}"
        return await self._caller.call(
            Call(kind, "POST", url, headers=_JSON, body=body, repeatable=repeatable, reconcilable=kind == "continue")
        )

    async def _status(self, remote_id: str, page: int | None) -> Row:
        query = {"page_size": "0"}
        if page is not None:
            query = {"page_size": str(PAGE_SIZE), "page": str(page), "omit_failed_task_data": "true"}
        url = f"{self._project}/batches/{remote_id}.json"
        return _object(await self._caller.call(Call("status", "GET", url, query=query, yielding=True)))


_JSON = {"Content-Type": "application/json"}


def _batch_options(settings: SamaSettings, job: str) -> Row:
    options = {"tasks_file_name": settings.tasks_file_name or job}
    if settings.notification_email:
        options["notification_email"] = settings.notification_email
    return options


def _object(answer: Answer) -> Row:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"the answer is not a JSON object: {answer.body[:80]!r}", status=answer.status)
    return body


def _batch_id(answer: Answer, body: Row) -> str:
    found = body.get("batch_id") or body.get("id")
    if not isinstance(found, int | str):
        raise UnexpectedAnswer("the answer has no batch_id", status=answer.status)
    return str(found)


def _state(body: Row) -> str:
    return str(body.get("state") or body.get("status") or "")


def _created(status: Row) -> int | None:
    """Return how many tasks of a batch exist; None if the service does not say."""
    created = status.get("created")
    return created if type(created) is int else None


def _tasks(body: Row) -> Sequence[Row]:
    tasks = body.get("tasks") or []
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UnexpectedAnswer("the answer's tasks are not a list of objects")
    return tasks


def _settlement(records: int, tasks: Sequence[Row], status: Row) -> Settlement:
    """Return the fate of each record.

    Raises:
        UnexpectedAnswer: the list does not fit the records, so nobody can say which task is whose: guessing could call
            a record failed that is a task, and a retry would make a second one.
    """
    states = list(map(_state, tasks))
    created = sum(map(CREATED.__contains__, states))
    # One that was stopped may list the tasks that it came to; they stand in the order in which they were sent.
    cut_short = _state(status) != "completed" and created == (_created(status) or created)
    if len(tasks) > records or (len(tasks) < records and not cut_short):
        raise UnexpectedAnswer(f"the service lists {len(tasks)} tasks for {records} records")
    ids = [
        str(task.get("id") or task.get("task_id") or "") if state in CREATED else None
        for task, state in zip(tasks, states, strict=True)
    ]
    ids += [None] * (records - len(tasks))
    if created == records:
        return Settlement(ids)
    errors: dict[int, str] = {}
    summary = "; ".join(map(str, status.get("messages") or [])) or f"the batch ended as {_state(status)!r}"
    for position in range(records):
        if ids[position] is not None:
            continue
        task = tasks[position] if position < len(tasks) else {}
        if task and states[position] not in NOT_CREATED:
            raise UnexpectedAnswer(f"the batch has ended, and its task {position + 1} is {states[position]!r}")
        errors[position] = _task_error(task) or summary
    return Settlement(ids, errors)


def _task_error(task: Row) -> str:
    errors = [error for error in task.get("errors") or [] if isinstance(error, dict)]
    words = "; ".join(f"{error.get('type', 'error')}: {error.get('message', '')}" for error in errors)
    return words or (f"the task's creation ended as {_state(task)!r}" if task else "")


def _field_error(task: Row) -> str | None:
    if task.keys() == {"data"} and type(task["data"]) is dict:
        return None
    for key in task:
        if key not in TASK_KEYS:
            return _unknown_key(key)
    return _data_error(task) or _priority_error(task) or _submit_error(task)


def _unknown_key(key: str) -> str:
    near = get_close_matches(key, TASK_KEYS, 1)
    hint = f"did you mean {near[0]!r}?" if near else 'inputs belong under "data" (mapping.wrap = "data" does it)'
    return f"{key}: not a key of a task; {hint}"


def _data_error(task: Row) -> str | None:
    if "data" not in task:
        return 'data: missing; a task is {"data": {…}} (mapping.wrap = "data" wraps plain rows)'
    return None if isinstance(task["data"], dict) else "data: must be an object of inputs"


def _priority_error(task: Row) -> str | None:
    priority = task.get("priority", 0)
    if type(priority) is not int or priority not in INT32:
        hint = "; source.types gives a CSV column its type" if isinstance(priority, str) else ""
        return f"priority: {_shown(priority)} is not an integer from {INT32.start} to {INT32.stop - 1}{hint}"
    reserved = task.get("reserve_for", "")
    return None if type(reserved) in (str, int) else f"reserve_for: {_shown(reserved)} is not the id of an agent"


def _submit_error(task: Row) -> str | None:
    submit = task.get("submit", False)
    if type(submit) is not bool:
        return f"submit: {_shown(submit)} is neither true nor false"
    if "duration" not in task:
        return None
    duration = task["duration"]
    if not submit:
        return "duration: only goes with submit = true"
    fine = type(duration) in (int, float) and duration >= 0
    return None if fine else f"duration: {_shown(duration)} is not a number of seconds"


def _shown(value: Any) -> str:
    """Return a value as the source has it."""
    return orjson.dumps(value).decode()


def _token_of(learnt: str) -> str:
    """Return what the marks of a job have in common; "" if it has none."""
    word, _, token = learnt.partition(" ")
    return token if word == MARKED else ""


def _made_at(task: Row) -> float:
    try:
        return datetime.fromisoformat(str(task["created_at"])).timestamp()
    except (KeyError, ValueError) as error:
        raise UnexpectedAnswer("tasks: a task does not say when it was created") from error


def _data_of(task: Row) -> Row:
    data = task.get("data")
    if not isinstance(data, dict):
        raise UnexpectedAnswer("tasks: a task does not show its data")
    return data


def _is_one_of(task: Row, candidates: Sequence[Row]) -> bool:
    """Tell whether a task holds what we sent; the service may have added outputs to it."""
    data = _data_of(task)
    return any(all(key in data and data[key] == value for key, value in sent.items()) for sent in candidates)


def _batch_of(task: Row) -> str:
    batch_id = task.get("batch_id")
    if not isinstance(batch_id, int | str):
        raise UnexpectedAnswer("tasks: a task does not name its batch")
    return str(batch_id)


def _takes_marks(schema: object) -> bool:
    """Tell whether a project's JSON Schema has the input and lets a mark of ours stand in it."""
    import jsonschema  # noqa: PLC0415 - only where marks are wanted

    if not isinstance(schema, dict):
        return False
    validator = jsonschema.validators.validator_for(schema)(schema)
    found = [own[MARK] for data in _property(schema, "data") for own in _properties(data) if MARK in own]
    try:
        return bool(found) and all(validator.evolve(schema=part).is_valid(_LONGEST_MARK) for part in found)
    except Exception:  # noqa: BLE001 - whatever is wrong with a schema that others wrote
        return False


_LONGEST_MARK = "j" * 100 + "-0123456789abcdef-4294967295" + ".2" * 10
"""A job's name may have 100 characters; its batches are numbered, and their parts by their halves."""


def _properties(schema: object) -> Iterator[Row]:
    """Yield the properties of a schema, and of those that it is made of."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        yield schema["properties"]
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word) or ():
            yield from _properties(part)


def _property(schema: Row, name: str) -> Iterator[object]:
    return (properties[name] for properties in _properties(schema) if name in properties)


def _read_schema(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"service.task_schema: {path} is not a usable JSON Schema: {error}") from error


def _schema_check(schema: Any, path: Path | None) -> Callable[[Row], str | None]:
    import jsonschema  # noqa: PLC0415 - only where a schema is given

    try:
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"service.task_schema: {path} is not a usable JSON Schema: {error}") from error
    return partial(_schema_error, validator(schema))


def _schema_error(validator: Any, task: Row) -> str | None:
    error = next(validator.iter_errors(task), None)
    return None if error is None else f"{error.json_path.removeprefix('$.')}: {error.message[:200]}"


def build(settings: SamaSettings, batch: BatchSettings, job: Job, caller: Caller, clock: Clock) -> Sama:
    """Return the service; the one function that `assembly` calls."""
    return Sama(settings, batch, job, caller, clock)


SETTINGS = SamaSettings
