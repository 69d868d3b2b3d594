"""Batches to create enter, created tasks leave: into the journal, the callbacks and the counts, each exactly once.

One background loop serves all batches. It creates in blocks, so that answers stay quick while a million tasks are
being created; a request for a batch's status moves that batch on as well, by at most one block.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.callbacks import CallbackSender, CreationResult
from engine.sandbox.journal import Journal, value_at
from engine.sandbox.sama.batches import BatchState, CreationRun, Message, SandboxBatch, TaskAddress
from engine.sandbox.sama.rules import TaskRules
from engine.sandbox.stats import Stats

BLOCK_TASKS = 2000  # about 10 ms of work
_TICK_SECONDS = 0.02  # how late the journal may be, at a creation speed above 0
_FIRST_BATCH_SPACE = 1000


class Creator:
    """Holds all batches of a server and creates their tasks by the clock."""

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        callbacks: CallbackSender,
        stats: Stats,
        clock: Callable[[], float],
    ) -> None:
        """Raise BehaviourError for a schema or a rule that cannot be used."""
        self._behaviour, self._journal, self._callbacks, self._stats = behaviour, journal, callbacks, stats
        self.clock = clock
        self.started = int(clock())
        self.batches: dict[int, SandboxBatch] = {}
        self._rules = {project.id: TaskRules(project, behaviour.failures) for project in behaviour.projects}
        self._any_rules = TaskRules(None, behaviour.failures)
        self._unfinished: list[tuple[SandboxBatch, int]] = []
        self._lanes: list[float] = []  # when each of the parallel batches ends
        self._marked: dict[str, list[TaskAddress]] = {}
        self._wake = asyncio.Event()
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
        speed = self._behaviour.creation.tasks_per_second
        run = CreationRun(tasks, len(tasks), at + self._behaviour.creation.delay_seconds, speed, planned_at=at)
        self._queue_up(run)
        batch.runs.append(run)
        self._unfinished.append((batch, len(batch.runs) - 1))
        self._wake.set()

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
        for number, run in enumerate(batch.runs):
            if not run.finished:
                self._create_block(batch, number, run, BLOCK_TASKS)

    def advance_all(self) -> bool:
        """Create what is due, at most one block over all batches, oldest first; True if more may be due at once."""
        room = BLOCK_TASKS
        for batch, number in self._unfinished:
            room -= self._create_block(batch, number, batch.runs[number], room)
            if room == 0:
                break
        self._unfinished = [(batch, number) for batch, number in self._unfinished if not batch.runs[number].finished]
        return room == 0

    async def run(self) -> None:
        """Create tasks until cancelled."""
        while True:
            if not self._unfinished:
                self._wake.clear()
                await self._wake.wait()
            more = self.advance_all()
            await asyncio.sleep(0 if more or not self._unfinished else _TICK_SECONDS)

    def _queue_up(self, run: CreationRun) -> None:
        parallel = self._behaviour.creation.parallel_batches
        if parallel == 0:
            return
        if len(self._lanes) >= parallel:
            run.starts_at = max(run.starts_at, heapq.heappop(self._lanes))
        heapq.heappush(self._lanes, run.ends_at)

    def _create_block(self, batch: SandboxBatch, number: int, run: CreationRun, room: int) -> int:
        low, high = run.done, min(run.due(self.clock()), run.done + room)
        if low == high:
            return 0
        self._judge(batch, run, low, high)
        # The journal comes first: nobody may be told of a task that it lacks.
        if self._journal.enabled:
            self._journal.append(
                self._journal.entry(
                    run.tasks[position],
                    at=run.created_at(position),
                    batch_id=batch.batch_id,
                    task_id=TaskAddress(batch.batch_id, number, position).task_id(self.started),
                    position=position,
                )
                for position in _created(run, low, high)
            )
        run.done = high
        if self._behaviour.keep_task_data:
            self._index(batch, number, run, low, high)
        self._count(batch, number, run, low, high)
        if run.finished:
            self._end(run)
        return high - low

    def _end(self, run: CreationRun) -> None:
        self._callbacks.flush()
        if not self._behaviour.keep_task_data:
            run.tasks = []

    def _judge(self, batch: SandboxBatch, run: CreationRun, low: int, high: int) -> None:
        rules = self.rules(batch.project_id) or self._any_rules
        for position in range(low, high):
            task = run.tasks[position]
            if failures := rules.failures(task):
                run.failures[position] = failures
                run.failed_data[position] = task.get("data") if isinstance(task, dict) else task

    def _index(self, batch: SandboxBatch, number: int, run: CreationRun, low: int, high: int) -> None:
        for position in _created(run, low, high):
            marker = value_at(run.tasks[position], ("data", "client_batch_id"))
            if marker is not None:
                self._marked.setdefault(str(marker), []).append(TaskAddress(batch.batch_id, number, position))

    def _count(self, batch: SandboxBatch, number: int, run: CreationRun, low: int, high: int) -> None:
        failed = sum(1 for position in range(low, high) if position in run.failures) if run.failures else 0
        self._stats.tasks_failed += failed
        self._stats.tasks_created += high - low - failed
        if self._callbacks.enabled:
            for position in range(low, high):
                task_id = TaskAddress(batch.batch_id, number, position).task_id(self.started)
                self._callbacks.push(_result(run, position, task_id))


def _created(run: CreationRun, low: int, high: int) -> Iterator[int]:
    return (position for position in range(low, high) if position not in run.failures)


def _result(run: CreationRun, position: int, task_id: str) -> CreationResult:
    failures = run.failures.get(position, ())
    return CreationResult(task_id, " ".join(f.message for f in failures), run.failed_data.get(position))
