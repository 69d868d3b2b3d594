"""Tasks that were created, and every call about them; also the calls about schemas and projects.

`SamaService` routes calls here. Every read is of a time, now or a little earlier. Nothing is stored per task but what a
call changed: a task's state follows from that time. It is worked on in its turn, `tasks_per_second` from the batch's
start on, and takes `step_seconds` from each state to the next. A project's list has the oldest batch first.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.messages import (
    SandboxAnswer,
    SandboxRefusal,
    SandboxRequest,
    WrongInput,
    flag_of,
    int_of,
    json_answer,
)
from engine.sandbox.sama.creation import Creator, SandboxBatch, TaskAddress
from engine.sandbox.sama.rules import INT32_MAX, INT32_MIN, refusal

STATES = ("new", "in progress", "completed", "approved", "delivered", "rejected", "acknowledged")
_STEPS = STATES[:5]
_DELIVERED = ("delivered", "acknowledged")
MAX_LIST_PAGE = 100  # the vendor's limit
MAX_DELIVERED_PAGE = 1000  # what the vendor's client asks for
_ROUNDING_SECONDS = 1e-3  # more than what adding to an epoch time loses
_KEPT_CHANGES = 8  # of one task, so that a read can look back
_DELIVERY_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "required": ["id", "state"],
    "properties": {"id": {"type": "string"}, "state": {"enum": list(STATES)}, "data": {"type": "object"}},
}
ProjectHandler = Callable[[SandboxRequest, int], SandboxAnswer]
"""A handler that is given the project, too."""


class SamaTaskFilter(Struct, frozen=True):
    """What a list call asks for; None asks for nothing. Times are epoch seconds."""

    batch_id: int | None = None
    client_batch_id: str | None = None
    contains: bool = False
    task_id: str | None = None
    states: tuple[str, ...] = STATES
    created_from: float = float("-inf")
    created_to: float = float("inf")

    def passes(self, task: "SamaTask") -> bool:
        """Say whether a task is asked for."""
        if self.client_batch_id is not None:
            marker = str(task.data.get("client_batch_id", "")) if isinstance(task.data, dict) else ""
            if not (self.client_batch_id in marker if self.contains else self.client_batch_id == marker):
                return False
        return (
            self.batch_id in (None, task.batch_id)
            and self.task_id in (None, task.id)
            and task.state in self.states
            and self.created_from <= task.created_at <= self.created_to
        )


class _Change(Struct, frozen=True):
    state: str | None = None
    priority: int | None = None
    deleted: bool = False
    at: float = float("-inf")


_UNCHANGED = _Change()


class SamaTask(Struct, frozen=True):
    """One created task as calls see it."""

    id: str
    project_id: int
    batch_id: int
    created_at: float
    state: str
    priority: int
    data: object

    def existed(self, at: float) -> bool:
        """Say whether it was there at a time."""
        return self.created_at <= at + _ROUNDING_SECONDS

    def as_sent(self, *, answers: bool = True, zones: bool = True) -> dict[str, object]:
        """Return the vendor's form; without `zones` its time has none."""
        at = datetime.fromtimestamp(self.created_at, UTC).isoformat(timespec="milliseconds")
        at = at.replace("+00:00", "Z" if zones else "")
        sent = {**asdict(self), "created_at": at}
        return {**sent, "answers": {}} if answers else sent


class SamaTasks:
    """All tasks of a server, and the handlers of every call that is not about a batch."""

    def __init__(self, creator: Creator, behaviour: Behaviour) -> None:
        """See the creator's batches."""
        self._creator, self._work = creator, behaviour.work
        self._keeps_data, self._reads = behaviour.keep_task_data, behaviour.reads
        self._unwritten = behaviour.sama.unwritten
        self._changes: dict[str, list[_Change]] = {}
        self._delivered_to: dict[tuple[int, str], set[str]] = {}

    def routes(self) -> Iterator[tuple[str, str, str, ProjectHandler]]:
        """Yield method, path below the project, kind of call, and who answers; fixed paths before `{task_id}`."""
        yield "GET", "/tasks.json", "tasks", self._list
        yield "GET", "/tasks/delivered.json", "delivered", self._delivered
        yield "POST", "/tasks/delivered.json", "delivered", self._delivered_since_last
        yield "POST", "/tasks/delete_tasks.json", "delete", self._delete
        yield "POST", "/tasks/bulk_update.json", "update", self._update
        yield "PUT", "/tasks/{task_id}/reject.json", "reject", self._reject
        yield "GET", "/tasks/{task_id}.json", "task", self._get
        yield "GET", "/schemas/create_task.json", "schema", self._creation_schema
        yield "GET", "/schemas/deliver_task.json", "schema", lambda *_: json_answer(_DELIVERY_SCHEMA)
        yield "GET", ".json", "project", self._project
        yield "GET", "/stats.json", "project", self._project_stats

    # The calls

    def _list(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        query = request.query
        wanted = self._filter(query)
        answers = not flag_of(query, "omit_answers")
        tasks = self._page(query, project_id, wanted, MAX_LIST_PAGE)
        if wanted.client_batch_id is not None and not self._unwritten.searches:
            tasks = []
        zones = self._unwritten.zones
        return json_answer({"tasks": [task.as_sent(answers=answers, zones=zones) for task in tasks]})

    def _delivered(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        wanted = self._filter(request.query, _DELIVERED)
        tasks = self._page(request.query, project_id, wanted, MAX_DELIVERED_PAGE)
        return json_answer({"tasks": [task.as_sent() for task in tasks]})

    def _delivered_since_last(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        """Return delivered tasks that this consumer has not got yet, and remember that it has them now."""
        body = request.json_object()
        size = int_of(body, "limit", MAX_DELIVERED_PAGE, 1, MAX_DELIVERED_PAGE)
        seen = self._delivered_to.setdefault((project_id, _text_of(body, "consumer") or ""), set())
        passing = self._passing(project_id, self._filter(body, _DELIVERED), self._listed_at())
        tasks = list(islice((task for task in passing if task.id not in seen), size))
        seen.update(task.id for task in tasks)
        return json_answer({"tasks": [task.as_sent() for task in tasks]})

    def _get(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        task_id, at = request.params["task_id"], self._creator.clock() - self._reads.single_seconds
        task = self._found(project_id, task_id, at)
        if self._reads.new_are_unknown and not task.existed(at):
            raise _no_task(project_id, task_id)
        return json_answer({"task": task.as_sent()})

    def _reject(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        reasons = request.json_object().get("reasons")
        if not isinstance(reasons, list) or not reasons:
            raise WrongInput("reasons must be an array of reasons.")
        task = self._found(project_id, request.params["task_id"])
        if task.state == "new":
            raise refusal(400, f"Task {task.id} is new: nobody has worked on it.", "InvalidTaskState")
        self._change(task, state="rejected")
        return json_answer({"task": self._found(project_id, task.id).as_sent()})

    def _delete(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        tasks = self._named(project_id, request.json_object())
        started = [task.id for task in tasks if task.state != "new"]
        if started and self._unwritten.deletes == "new":
            raise refusal(400, f"Only new tasks can be deleted, not {', '.join(started)}.", "InvalidTaskState")
        if self._unwritten.deletes == "some":
            tasks = [task for task in tasks if task.state == "new"]
        for task in tasks:
            self._change(task, deleted=True)
        return json_answer({"task_ids": [task.id for task in tasks]})

    def _update(self, request: SandboxRequest, project_id: int) -> SandboxAnswer:
        body = request.json_object()
        tasks = self._named(project_id, body)
        priority = int_of(body, "priority", 0, INT32_MIN, INT32_MAX)
        for task in tasks:
            self._change(task, priority=priority)
        return json_answer({"task_ids": [task.id for task in tasks]})

    def _creation_schema(self, _: SandboxRequest, project_id: int) -> SandboxAnswer:
        rules = self._creator.rules(project_id)
        return json_answer(rules.schema if rules else {})

    def _project(self, _: SandboxRequest, project_id: int) -> SandboxAnswer:
        return json_answer({"project": {"id": project_id, "name": f"Sandbox project {project_id}", "state": "active"}})

    def _project_stats(self, _: SandboxRequest, project_id: int) -> SandboxAnswer:
        counts = dict.fromkeys(STATES, 0)
        for task in self._passing(project_id, SamaTaskFilter(), self._creator.clock()):
            counts[task.state] += 1
        return json_answer({"project_id": project_id, "tasks": counts})

    # What they share

    def _filter(self, values: Mapping[str, object], states: tuple[str, ...] = STATES) -> SamaTaskFilter:
        wanted = _parse_filter(values, states)
        if wanted.client_batch_id is not None and not self._keeps_data:
            raise WrongInput("This sandbox keeps no task data to find a client_batch_id in.")
        return wanted

    def _page(self, query: Mapping[str, str], project_id: int, wanted: SamaTaskFilter, most: int) -> list[SamaTask]:
        page = int_of(query, "page", 1, 1, 10**9)
        size = int_of(query, "page_size", most, 1, most)
        return list(islice(self._passing(project_id, wanted, self._listed_at()), (page - 1) * size, page * size))

    def _listed_at(self) -> float:
        return self._creator.clock() - self._reads.list_seconds

    def _named(self, project_id: int, body: Mapping[str, object]) -> list[SamaTask]:
        ids = body.get("task_ids")
        if not isinstance(ids, list) or not ids:
            raise WrongInput("task_ids must be an array of task ids.")
        return [self._found(project_id, str(task_id)) for task_id in ids]

    def _found(self, project_id: int, task_id: str, at: float | None = None) -> SamaTask:
        """Find a task as it is, or as it was at a time; one that is newer as it began."""
        at = self._creator.clock() if at is None else at
        address = TaskAddress.parse(task_id, self._creator.started)
        batch = self._creator.batches.get(address.batch_id) if address else None
        if address is not None and batch is not None and batch.project_id == project_id:
            created = address.run < len(batch.runs) and batch.runs[address.run].has_created(address.position)
            if created and not self._changed(task_id, at).deleted:
                return self._task(batch, address, at)
        raise _no_task(project_id, task_id)

    def _change(self, task: SamaTask, **what: Any) -> None:
        now = self._creator.clock()
        changes = self._changes.setdefault(task.id, [])
        changes.append(replace(self._changed(task.id, now), at=now, **what))
        del changes[:-_KEPT_CHANGES]

    def _changed(self, task_id: str, at: float) -> _Change:
        """Return all that calls had changed of a task at a time."""
        changes = self._changes.get(task_id, ())
        return next((change for change in reversed(changes) if change.at <= at), _UNCHANGED)

    def _passing(self, project_id: int, wanted: SamaTaskFilter, at: float) -> Iterator[SamaTask]:
        """Yield the tasks that passed the filter at a time."""
        for address, batch in self._addresses(project_id, wanted):
            task = self._task(batch, address, at)
            if task.existed(at) and not self._changed(task.id, at).deleted and wanted.passes(task):
                yield task

    def _addresses(self, project_id: int, wanted: SamaTaskFilter) -> Iterator[tuple[TaskAddress, SandboxBatch]]:
        if wanted.client_batch_id is not None and not wanted.contains:
            addresses = self._creator.marked(wanted.client_batch_id)
            batches = ((address, self._creator.batches[address.batch_id]) for address in addresses)
            yield from (pair for pair in batches if pair[1].project_id == project_id)
            return
        for batch in list(self._creator.batches.values()):
            if batch.project_id == project_id and wanted.batch_id in (None, batch.batch_id):
                for run in batch.runs:
                    yield from ((run.address(position), batch) for position in filter(run.has_created, range(run.done)))

    def _task(self, batch: SandboxBatch, address: TaskAddress, at: float) -> SamaTask:
        run = batch.runs[address.run]
        task_id = address.task_id(self._creator.started)
        change = self._changed(task_id, at)
        sent = run.tasks[address.position] if run.tasks else {}
        fields = sent if isinstance(sent, dict) else {}
        created_at = run.created_at(address.position)
        state = change.state or self._state(at - created_at, address.position, submitted=fields.get("submit") is True)
        priority = fields.get("priority") or 0 if change.priority is None else change.priority
        return SamaTask(task_id, batch.project_id, batch.batch_id, created_at, state, priority, fields.get("data"))

    def _state(self, age_seconds: float, position: int, *, submitted: bool) -> str:
        first = _STEPS.index("completed") if submitted else 0
        if self._work.tasks_per_second == 0:
            return _STEPS[first]
        worked = age_seconds - (position + 1) / self._work.tasks_per_second
        if worked < 0:
            return _STEPS[first]
        steps = 1 + int(worked / self._work.step_seconds) if self._work.step_seconds else len(_STEPS)
        return _STEPS[min(first + steps, len(_STEPS) - 1)]


def _no_task(project_id: int, task_id: str) -> SandboxRefusal:
    return refusal(404, f"There is no task {task_id} in project {project_id}.")


def _parse_filter(values: Mapping[str, object], states: tuple[str, ...]) -> SamaTaskFilter:
    batch_id, state = _text_of(values, "batch_id"), _text_of(values, "state")
    match = _text_of(values, "client_batch_id_match_type") or "exact"
    if match not in ("exact", "contains"):
        raise WrongInput("client_batch_id_match_type must be exact or contains.")
    if batch_id is not None and not batch_id.isdecimal():
        raise WrongInput("batch_id must be a whole number.")
    if state is not None and state not in STATES:
        raise WrongInput(f"state must be one of {', '.join(STATES)}.")
    return SamaTaskFilter(
        batch_id=None if batch_id is None else int(batch_id),
        client_batch_id=_text_of(values, "client_batch_id"),
        contains=match == "contains",
        task_id=_text_of(values, "task_id"),
        states=states if state is None else (state,),
        created_from=_time(values, "from", float("-inf")),
        created_to=_time(values, "to", float("inf")),
    )


def _text_of(values: Mapping[str, object], name: str) -> str | None:
    """Read a text; empty or absent is None."""
    value = values.get(name)
    return None if value in (None, "") else str(value)


def _time(values: Mapping[str, object], name: str, default: float) -> float:
    text = _text_of(values, name)
    if text is None:
        return default
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise WrongInput(f"{name} must be an RFC 3339 time.") from error
