"""Tasks that were created, seen as a project's list: filters and the clock enter, tasks in the vendor's shape leave.

Every read is of a time, now or a little earlier. Nothing is stored per task but what a call changed. A task's state
follows from that time: it is worked on in its turn, `tasks_per_second` from the batch's start on, and takes
`step_seconds` from each state to the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from engine.sandbox.behaviour import WorkPace
from engine.sandbox.sama.batches import SandboxBatch, TaskAddress
from engine.sandbox.sama.creation import Creator

STATES = ("new", "in progress", "completed", "approved", "delivered", "rejected", "acknowledged")
_STEPS = STATES[:5]


@dataclass(frozen=True, slots=True)
class SamaTaskFilter:
    """What a list call asks for; None asks for nothing. Times are epoch seconds."""

    batch_id: int | None = None
    client_batch_id: str | None = None
    contains: bool = False
    task_id: str | None = None
    states: tuple[str, ...] = STATES
    created_from: float = float("-inf")
    created_to: float = float("inf")


@dataclass(frozen=True, slots=True)
class _Change:
    state: str | None = None
    priority: int | None = None
    deleted: bool = False
    at: float = float("-inf")


_ROUNDING_SECONDS = 1e-3  # more than what adding to an epoch time loses
_KEPT_CHANGES = 8  # of one task, so that a read can look back
_UNCHANGED = _Change()


@dataclass(frozen=True, slots=True)
class SamaTask:
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
        sent: dict[str, object] = {
            "id": self.id,
            "project_id": self.project_id,
            "batch_id": self.batch_id,
            "created_at": at,
            "state": self.state,
            "priority": self.priority,
            "data": self.data,
        }
        return {**sent, "answers": {}} if answers else sent


class SamaTaskBook:
    """All tasks of a server."""

    def __init__(self, creator: Creator, work: WorkPace) -> None:
        """See the creator's batches."""
        self._creator, self._work = creator, work
        self._changes: dict[str, list[_Change]] = {}
        self._delivered: dict[tuple[int, str], set[str]] = {}

    def find(self, project_id: int, task_id: str, at: float) -> SamaTask | None:
        """Return one task as it was at a time, one that is newer as it began; None if there is none with this id."""
        address = TaskAddress.parse(task_id, self._creator.started)
        batch = self._creator.batches.get(address.batch_id) if address else None
        if address is None or batch is None or batch.project_id != project_id or address.run >= len(batch.runs):
            return None
        run = batch.runs[address.run]
        exists = address.position < run.done and address.position not in run.failures
        return self._task(batch, address, at) if exists and not self._changed(task_id, at).deleted else None

    def page(self, project_id: int, wanted: SamaTaskFilter, skip: int, size: int, at: float) -> list[SamaTask]:
        """Return the tasks that passed the filter at a time, oldest batch first, some skipped."""
        return list(islice(self._passing(project_id, wanted, at), skip, skip + size))

    def delivered_since_last(
        self, project_id: int, consumer: str, wanted: SamaTaskFilter, size: int, at: float
    ) -> list[SamaTask]:
        """Return delivered tasks that this consumer has not got yet, and remember that it has them now."""
        seen = self._delivered.setdefault((project_id, consumer), set())
        tasks = list(islice((task for task in self._passing(project_id, wanted, at) if task.id not in seen), size))
        seen.update(task.id for task in tasks)
        return tasks

    def count_states(self, project_id: int) -> dict[str, int]:
        """Count a project's tasks by state."""
        counts = dict.fromkeys(STATES, 0)
        for task in self._passing(project_id, SamaTaskFilter(), self._creator.clock()):
            counts[task.state] += 1
        return counts

    def reject(self, task: SamaTask) -> None:
        """Send a task back to work."""
        self._change(task, state="rejected")

    def delete(self, task: SamaTask) -> None:
        """Remove a task."""
        self._change(task, deleted=True)

    def set_priority(self, task: SamaTask, priority: int) -> None:
        """Change a task's priority."""
        self._change(task, priority=priority)

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
        for address, batch in self._addresses(project_id, wanted):
            task = self._task(batch, address, at)
            exists = task.existed(at) and not self._changed(task.id, at).deleted
            if exists and self._passes(task, wanted):
                yield task

    def _addresses(self, project_id: int, wanted: SamaTaskFilter) -> Iterator[tuple[TaskAddress, SandboxBatch]]:
        if wanted.client_batch_id is not None and not wanted.contains:
            addresses = self._creator.marked(wanted.client_batch_id)
            batches = ((address, self._creator.batches[address.batch_id]) for address in addresses)
            yield from (pair for pair in batches if pair[1].project_id == project_id)
            return
        for batch in list(self._creator.batches.values()):
            if batch.project_id == project_id and wanted.batch_id in (None, batch.batch_id):
                for number, run in enumerate(batch.runs):
                    created = (position for position in range(run.done) if position not in run.failures)
                    yield from ((TaskAddress(batch.batch_id, number, position), batch) for position in created)

    def _passes(self, task: SamaTask, wanted: SamaTaskFilter) -> bool:
        if wanted.client_batch_id is not None:
            marker = str(task.data.get("client_batch_id", "")) if isinstance(task.data, dict) else ""
            if not (wanted.client_batch_id in marker if wanted.contains else wanted.client_batch_id == marker):
                return False
        return (
            wanted.batch_id in (None, task.batch_id)
            and wanted.task_id in (None, task.id)
            and task.state in wanted.states
            and wanted.created_from <= task.created_at <= wanted.created_to
        )

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
