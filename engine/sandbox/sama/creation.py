"""Batches and the creation of their tasks: into the journal, the callbacks and the counts, each exactly once.

`service.py`'s calls open, start and close batches; all else follows from the clock. A run knows when its n-th task is
created, so nothing runs per task:

    created_at(n) = starts_at + (n + 1) / tasks_per_second        (starts_at, if the speed is 0: at once)

`done` is how many of its tasks have been created or failed so far; only the creator moves it, in blocks, so that
answers stay quick while a million tasks are being created. A request for a batch's status moves that batch on as well.
A batch has no run while it waits for its upload, one after `continue`, and more if a repeated `continue` duplicates.
Each change has its time, so what a batch was at an earlier one (`as_of`) needs no history.
A task's id holds where the task stands, so that no table of ids is needed: server start, batch, run, position.
"""

import heapq
from collections.abc import Callable, Sequence
from enum import StrEnum

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.behaviour import Behaviour, Callbacks, value_at
from engine.sandbox.journal import Journal
from engine.sandbox.sama.rules import NotCreated, TaskRules
from engine.sandbox.traffic import Stats

BLOCK_TASKS = 2000  # about 10 ms of work
_FIRST_BATCH_SPACE = 1000
_PREPROCESSED = 10  # how many tasks before their creation leave the queue: any few


class BatchState(StrEnum):
    """The state of a batch's creation job."""

    WAITING = "waiting"
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class TaskAddress(Struct, frozen=True):
    """Where a task stands: batch, run of the batch (from 0), position in it (from 0)."""

    batch_id: int
    run: int
    position: int

    def task_id(self, started: int) -> str:
        """Return the 24 hex digits that the vendor's ids have; `started` tells servers apart."""
        return f"{started & 0xFFFFFFFF:08x}{self.batch_id:08x}{self.run:02x}{self.position:06x}"

    @classmethod
    def parse(cls, task_id: str, started: int) -> "TaskAddress | None":
        """Read an id that this server gave out; None for any other text."""
        try:
            fields = [int(task_id[low:high], 16) for low, high in ((0, 8), (8, 16), (16, 18), (18, 24))]
        except ValueError:
            return None
        address = cls(*fields[1:])
        return address if address.task_id(started) == task_id else None


class CreationRun(Struct):
    """One creation of a batch's tasks, planned at `planned_at`; `number` counts the runs of a batch from 0."""

    batch_id: int
    number: int
    tasks: list[object]
    total: int
    starts_at: float
    tasks_per_second: float
    done: int = 0
    canceled: bool = False
    planned_at: float = 0.0
    canceled_at: float = 0.0
    stall_seconds: float = 0.0
    failures: dict[int, tuple[NotCreated, ...]] = {}
    failed_data: dict[int, object] = {}

    def due(self, now: float) -> int:
        """Say how many tasks count as created (or failed) at this time."""
        if self.canceled or now < self.starts_at:
            return self.done
        due, half = self._due_after(now - self.starts_at), self.total // 2
        return max(half, self._due_after(now - self.starts_at - self.stall_seconds)) if due > half else due

    def _due_after(self, seconds: float) -> int:
        if seconds < 0 or self.tasks_per_second == 0:
            return 0 if seconds < 0 else self.total
        return min(self.total, int(seconds * self.tasks_per_second))

    def as_of(self, at: float) -> "CreationRun":
        """Return what was to be seen of it at an earlier time."""
        then = replace(self, canceled=self.canceled and self.canceled_at <= at)
        then.done = min(self.done, replace(then, canceled=False, done=0).due(at))
        then.failures = {position: why for position, why in self.failures.items() if position < then.done}
        return then

    def address(self, position: int) -> TaskAddress:
        """Say where the task at this position stands."""
        return TaskAddress(self.batch_id, self.number, position)

    def created_at(self, position: int) -> float:
        """Say when the task at this position counts as created."""
        stall = self.stall_seconds if position >= self.total // 2 else 0.0
        return self.starts_at + ((position + 1) / self.tasks_per_second if self.tasks_per_second else 0.0) + stall

    @property
    def ends_at(self) -> float:
        """When the last task is created."""
        return self.created_at(self.total - 1)

    @property
    def finished(self) -> bool:
        """True once no task of this run will be created any more."""
        return self.canceled or self.done >= self.total

    @property
    def created(self) -> int:
        """How many tasks exist because of this run."""
        return self.done - len(self.failures)

    def has_created(self, position: int) -> bool:
        """Say whether the task at this position exists."""
        return position < self.done and position not in self.failures

    def task_state(self, position: int) -> str:
        """Return the creation state of one task, in the vendor's words."""
        if position < self.done:
            return "failed" if position in self.failures else "created"
        if self.canceled:
            return "canceled"
        ahead = position - self.done if self.done else _PREPROCESSED
        return "ready" if ahead == 0 else "preprocessing" if ahead < _PREPROCESSED else "queued"


class Message(Struct, frozen=True):
    """What a batch says to people, and since when."""

    at: float
    text: str


class SandboxBatch(Struct):
    """A batch at the service.

    `closed` is the state of a batch that ended without a run, at `closed_at`; `continued` is True from the moment its
    tasks are taken, even if its run begins later. A closed batch may still get a run, from a service that lies.
    """

    project_id: int
    batch_id: int
    opened_at: float
    runs: list[CreationRun] = []
    messages: list[Message] = []
    closed: BatchState | None = None
    closed_at: float = 0.0
    continued: bool = False

    def as_of(self, at: float) -> "SandboxBatch":
        """Return what was to be seen of it at an earlier time; before its beginning it waits."""
        return replace(
            self,
            runs=[run.as_of(at) for run in self.runs if run.planned_at <= at],
            messages=[message for message in self.messages if message.at <= at],
            closed=self.closed if self.closed_at <= at else None,
        )

    def state(self, now: float) -> BatchState:
        """Return the state of the creation job."""
        if not self.runs:
            return self.closed or BatchState.WAITING
        run = self.runs[-1]
        if run.canceled:
            return BatchState.CANCELED
        if run.finished:
            return BatchState.COMPLETED
        return BatchState.QUEUED if now < run.starts_at else BatchState.PROCESSING


class CallbackBodies:
    """Collects what became of tasks, and sends it on as bodies of callbacks: created and failed ones apart.

    The failure body is as the vendor shows it; the success body is this sandbox's choice by analogy.
    """

    def __init__(self, settings: Callbacks, send: Callable[[bytes], object]) -> None:
        self._tasks_per_call, self._names, self._send = settings.tasks_per_call, settings.names, send
        self._created: list[dict[str, object]] = []
        self._failed: list[dict[str, object]] = []

    def created(self, task_id: str, batch_id: int) -> None:
        """Take one task that was created."""
        self._created.append({"id": task_id, "state": "created", **({"batch_id": batch_id} if self._names else {})})
        if len(self._created) >= self._tasks_per_call:
            self.flush()

    def failed(self, task_id: str, failures: Sequence[NotCreated], data: object) -> None:
        """Take one task that was not, with its data."""
        message = " ".join(failure.message for failure in failures)
        self._failed.append({"task_id": task_id, "type": 400, "message": message, "request_data": data})
        if len(self._failed) >= self._tasks_per_call:
            self.flush()

    def flush(self) -> None:
        """Send what has come together, however little."""
        if self._created:
            self._send(orjson.dumps({"success": True, "tasks": self._created}))
        if self._failed:
            self._send(orjson.dumps({"success": False, "errors": self._failed}))
        self._created, self._failed = [], []


class Creator:
    """Holds all batches of a server and creates their tasks by the clock."""

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        stats: Stats,
        clock: Callable[[], float],
        report: Callable[[bytes], object] | None = None,
    ) -> None:
        """Send the bodies of callbacks to `report`. Raise BehaviourError for a schema or rule that cannot be used."""
        self._behaviour, self._journal, self._stats = behaviour, journal, stats
        self._reports = CallbackBodies(behaviour.callbacks, report) if report else None
        self.clock = clock
        self.started = int(clock())
        self.batches: dict[int, SandboxBatch] = {}
        self._rules = {project.id: TaskRules(project, behaviour.failures) for project in behaviour.projects}
        self._any_rules = TaskRules(None, behaviour.failures)
        self._unfinished: list[CreationRun] = []
        self._started_runs = 0
        self._lanes: list[float] = []  # when each of the parallel batches ends
        self._marked: dict[str, list[TaskAddress]] = {}
        # A later server's batches must not be taken for an earlier one's: ids start with the time.
        self._next_id = self.started % 1_000_000 * _FIRST_BATCH_SPACE + 1

    def rules(self, project_id: int) -> TaskRules | None:
        """Return the rules of a project, None if there is no such project."""
        return self._rules.get(project_id) if self._rules else self._any_rules

    def open(self, project_id: int) -> SandboxBatch:
        """Add a batch that waits for its tasks."""
        batch = SandboxBatch(project_id, self._next_id, opened_at=self.clock())
        self._next_id += 1
        self.batches[batch.batch_id] = batch
        self._stats.batches += 1
        return batch

    def start(self, batch: SandboxBatch, tasks: list[object], at: float) -> None:
        """Plan the creation of a batch's tasks, which begins `at` this time."""
        pace, place = self._behaviour.creation, (batch.batch_id, len(batch.runs))
        run = CreationRun(*place, tasks, len(tasks), at + pace.delay_seconds, pace.tasks_per_second, planned_at=at)
        self._queue_up(run)
        self._started_runs += 1
        if self._started_runs in pace.stalled:
            run.stall_seconds = pace.stall_seconds
        batch.runs.append(run)
        self._unfinished.append(run)

    def marked(self, client_batch_id: str) -> Sequence[TaskAddress]:
        """Return where the created tasks with this `client_batch_id` stand; none where task data is not kept."""
        return self._marked.get(client_batch_id, ())

    def close(self, batch: SandboxBatch, state: BatchState, message: str, at: float) -> None:
        """End a batch that has no run, or cancel the run that it has, `at` this time."""
        self.advance(batch)
        batch.messages.append(Message(at, message))
        for run in batch.runs:
            if not run.finished:
                run.canceled, run.canceled_at = True, at
                self._end(run)
        if not batch.runs:
            batch.closed, batch.closed_at = state, at

    def advance(self, batch: SandboxBatch) -> None:
        """Create what is due of one batch, at most one block of each run."""
        for run in batch.runs:
            if not run.finished:
                self._create_block(run, BLOCK_TASKS)

    def advance_all(self) -> bool:
        """Create what is due, at most one block over all batches, oldest first; True if more may be due at once."""
        room = BLOCK_TASKS
        for run in self._unfinished:
            room -= self._create_block(run, room)
            if room == 0:
                break
        self._unfinished = [run for run in self._unfinished if not run.finished]
        return room == 0

    def _queue_up(self, run: CreationRun) -> None:
        parallel = self._behaviour.creation.parallel_batches
        if parallel == 0:
            return
        if len(self._lanes) >= parallel:
            run.starts_at = max(run.starts_at, heapq.heappop(self._lanes))
        heapq.heappush(self._lanes, run.ends_at)

    def _create_block(self, run: CreationRun, room: int) -> int:
        low, high = run.done, min(run.due(self.clock()), run.done + room)
        if low == high:
            return 0
        rules = self.rules(self.batches[run.batch_id].project_id) or self._any_rules
        for position in range(low, high):
            task = run.tasks[position]
            if failures := rules.failures(task):
                run.failures[position] = failures
                run.failed_data[position] = task.get("data") if isinstance(task, dict) else task
        created = [position for position in range(low, high) if position not in run.failures]
        # The journal comes first: nobody may be told of a task that it lacks.
        self._write(run, created)
        run.done = high
        self._stats.tasks_created += len(created)
        self._stats.tasks_failed += high - low - len(created)
        if self._behaviour.keep_task_data:
            self._index(run, created)
        if self._reports is not None:
            self._report(run, range(low, high), self._reports)
        if run.finished:
            self._end(run)
        return high - low

    def _write(self, run: CreationRun, created: Sequence[int]) -> None:
        self._journal.append(
            self._journal.entry(
                run.tasks[position],
                at=run.created_at(position),
                batch_id=run.batch_id,
                task_id=run.address(position).task_id(self.started),
                position=position,
            )
            for position in created
        )

    def _index(self, run: CreationRun, created: Sequence[int]) -> None:
        for position in created:
            marker = value_at(run.tasks[position], ("data", "client_batch_id"))
            if marker is not None:
                self._marked.setdefault(str(marker), []).append(run.address(position))

    def _report(self, run: CreationRun, positions: Sequence[int], reports: CallbackBodies) -> None:
        for position in positions:
            task_id = run.address(position).task_id(self.started)
            if position in run.failures:
                reports.failed(task_id, run.failures[position], run.failed_data[position])
            else:
                reports.created(task_id, run.batch_id)

    def _end(self, run: CreationRun) -> None:
        if self._reports:
            self._reports.flush()
        if not self._behaviour.keep_task_data:
            run.tasks = []
