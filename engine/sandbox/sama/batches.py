"""Batches and the runs that create their tasks, as plain state; the clock enters, what is created by then leaves.

A run knows when its n-th task is created, so nothing runs per task:

    created_at(n) = starts_at + (n + 1) / tasks_per_second        (starts_at, if the speed is 0: at once)

`done` is how many of its tasks have been created or failed so far; only the creator (creation.py) moves it.
A batch has no run while it waits for its upload, one after `continue`, and more if a repeated `continue` duplicates.
Each change has its time, so what a batch was at an earlier one (`as_of`) needs no history.
A task's id holds where the task stands, so that no table of ids is needed: server start, batch, run, position.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

_PREPROCESSED = 10  # how many tasks before their creation leave the queue: any few


class BatchState(StrEnum):
    """The state of a batch's creation job."""

    WAITING = "waiting"
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class FailedTask:
    """Why a task was not created."""

    type: int | str
    message: str


@dataclass(frozen=True, slots=True)
class TaskAddress:
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


@dataclass(slots=True)
class CreationRun:
    """One creation of a batch's tasks, planned at `planned_at`."""

    tasks: list[object]
    total: int
    starts_at: float
    tasks_per_second: float
    done: int = 0
    canceled: bool = False
    planned_at: float = 0.0
    canceled_at: float = 0.0
    failures: dict[int, tuple[FailedTask, ...]] = field(default_factory=dict)
    failed_data: dict[int, object] = field(default_factory=dict)

    def due(self, now: float) -> int:
        """Say how many tasks count as created (or failed) at this time."""
        if self.canceled or now < self.starts_at:
            return self.done
        if self.tasks_per_second == 0:
            return self.total
        return min(self.total, int((now - self.starts_at) * self.tasks_per_second))

    def as_of(self, at: float) -> "CreationRun":
        """Return what was to be seen of it at an earlier time."""
        then = replace(self, canceled=self.canceled and self.canceled_at <= at)
        then.done = min(self.done, replace(then, canceled=False, done=0).due(at))
        then.failures = {position: why for position, why in self.failures.items() if position < then.done}
        return then

    def created_at(self, position: int) -> float:
        """Say when the task at this position counts as created."""
        return self.starts_at + ((position + 1) / self.tasks_per_second if self.tasks_per_second else 0.0)

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

    def task_state(self, position: int) -> str:
        """Return the creation state of one task, in the vendor's words."""
        if position < self.done:
            return "failed" if position in self.failures else "created"
        if self.canceled:
            return "canceled"
        ahead = position - self.done if self.done else _PREPROCESSED
        return "ready" if ahead == 0 else "preprocessing" if ahead < _PREPROCESSED else "queued"


@dataclass(frozen=True, slots=True)
class Message:
    """What a batch says to people, and since when."""

    at: float
    text: str


@dataclass(slots=True)
class SandboxBatch:
    """A batch at the service.

    `closed` is the state of a batch that ended without a run, at `closed_at`; `continued` is True from the moment its
    tasks are taken, even if its run begins later. A closed batch may still get a run, from a service that lies.
    """

    project_id: int
    batch_id: int
    opened_at: float
    runs: list[CreationRun] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
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
