"""Runs and aborts enter, each task's way through its states leaves, by the clock and in the right order of events.

    DRAFT → CREATING → QUEUED → RUNNING → COMPLETED | FAILED        abort: … → ABORTING → ABORTED

Every change to come stands in a heap; `advance` makes those that are due, so nothing runs beside the requests. A parent
gets its children when it leaves CREATING; from then on its state follows from theirs:

    any child not at its end:  QUEUED while all are queued, else RUNNING
    all at their end:          ABORTED if the parent was aborted, else FAILED or ABORTED if any child is, else COMPLETED
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable

from engine.sandbox.behaviour import FailureRule
from engine.sandbox.failing import PlannedFailure
from engine.sandbox.journal import EntryKind, Journal
from engine.sandbox.sevenbridges.batching import children
from engine.sandbox.sevenbridges.book import SevenBridgesTaskBook
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.settings import Life
from engine.sandbox.sevenbridges.tasks import ABORTABLE, TERMINAL, SevenBridgesTask, Status
from engine.sandbox.stats import Stats

# A change is made only from here: others were overtaken by an abort.
_BEFORE = {
    Status.QUEUED: Status.CREATING,
    Status.RUNNING: Status.QUEUED,
    Status.COMPLETED: Status.RUNNING,
    Status.ABORTED: Status.ABORTING,
}


class TaskLife:
    """Moves the tasks of a book through their states."""

    def __init__(
        self,
        settings: Life,
        failures: Iterable[FailureRule],
        book: SevenBridgesTaskBook,
        catalog: Catalog,
        journal: Journal,
        stats: Stats,
    ) -> None:
        """Raise BehaviourError for a rule that cannot be used."""
        self._settings, self._book, self._catalog = settings, book, catalog
        self._journal, self._stats = journal, stats
        self._failures = [PlannedFailure(rule) for rule in failures]
        self._due: list[tuple[float, int, SevenBridgesTask, Status]] = []
        self._planned = 0
        self._waiting: deque[SevenBridgesTask] = deque()
        self.running = 0

    def run(self, task: SevenBridgesTask, now: float) -> None:
        """Start a draft; with no time for creating it is queued at once.

        What is no draft any more is run once more: the journal says so, the life that is shown stays the first one's.
        """
        self._stats.tasks_run += 1
        self.record("run", [task], now)
        task.told = True
        if task.status is not Status.DRAFT:
            return
        task.run_at = now
        self._move(task, Status.CREATING, now)
        if self._settings.creating_seconds:
            self._plan(task, Status.QUEUED, now + self._settings.creating_seconds)
        else:
            self._queue(task, now)

    def abort(self, task: SevenBridgesTask, now: float) -> None:
        """Stop a task, or a parent's children that have not ended; a draft cannot be aborted."""
        task.aborted = True
        if task.children:
            for number in task.children:
                if (child := self._book.numbered(number)).status in ABORTABLE:
                    self.abort(child, now)
        elif self._settings.aborting_seconds:
            self._leave(task, Status.ABORTING, now)
            self._plan(task, Status.ABORTED, now + self._settings.aborting_seconds)
        else:
            self._leave(task, Status.ABORTED, now)

    def advance(self, now: float) -> None:
        """Make all changes that are due."""
        while self._due and self._due[0][0] <= now:
            at, _, task, status = heapq.heappop(self._due)
            if task.status is not _BEFORE[status]:
                continue
            if status is Status.QUEUED:
                self._queue(task, at)
            elif status is Status.RUNNING:
                self._waiting.append(task)
                self._fill(at)
            elif status is Status.COMPLETED:
                self._end(task, at)
            else:
                self._leave(task, status, at)

    def record(self, kind: EntryKind, tasks: Iterable[SevenBridgesTask], at: float) -> None:
        """Write tasks into the journal."""
        if self._journal.enabled:
            self._journal.append(
                self._journal.entry(
                    task.draft.document(),
                    at=at,
                    batch_id=task.parent.id if task.parent else "",
                    task_id=task.id,
                    position=task.number - task.parent.children.start if task.parent else task.number,
                    kind=kind,
                )
                for task in tasks
            )

    def _queue(self, task: SevenBridgesTask, at: float) -> None:
        if task.draft.batching is None:
            self._move(task, Status.QUEUED, at)
            self._plan(task, Status.RUNNING, at + self._settings.queued_seconds)
            return
        made = [
            self._book.add(child.draft, at, parent=task, group=child.group)
            for child in children(task.draft, task.draft.batching, self._catalog)
        ]
        task.children = range(made[0].number, made[-1].number + 1)
        task.counts = Counter({Status.DRAFT: len(made)})
        task.queued_at = at
        self.record("child", made, at)
        for child in made:
            child.run_at = at
            self._queue(child, at)

    def _fill(self, at: float) -> None:
        """Let waiting tasks run while there is room."""
        while self._waiting and (not self._settings.parallel or self.running < self._settings.parallel):
            task = self._waiting.popleft()
            if task.status is Status.QUEUED:
                self.running += 1
                task.running_at = at
                self._move(task, Status.RUNNING, at)
                self._plan(task, Status.COMPLETED, at + self._settings.running_seconds)

    def _end(self, task: SevenBridgesTask, at: float) -> None:
        document = task.draft.document() if self._failures else {}
        failed = next((plan for plan in self._failures if plan.hits(document)), None)
        if failed is not None:
            self._stats.tasks_failed += 1
            task.message = failed.rule.message
        self._leave(task, Status.FAILED if failed else Status.COMPLETED, at)

    def _leave(self, task: SevenBridgesTask, status: Status, at: float) -> None:
        """Move to a state after which others may run."""
        was_running = task.status is Status.RUNNING
        self._move(task, status, at)
        if was_running:
            self.running -= 1
            self._fill(at)

    def _move(self, task: SevenBridgesTask, status: Status, at: float) -> None:
        before, task.status = task.status, status
        if status in TERMINAL:
            task.ended_at = at
        elif status is Status.QUEUED:
            task.queued_at = at
        elif status is Status.ABORTING:
            task.aborting_at = at
        self._book.touch()
        if task.parent is not None and task.parent.counts is not None:
            task.parent.counts[before] -= 1
            task.parent.counts[status] += 1
            self._follow(task.parent, _status_of_parent(task.parent, task.parent.counts), at)

    def _follow(self, parent: SevenBridgesTask, status: Status, at: float) -> None:
        if status is not parent.status:
            if status is Status.RUNNING:
                parent.running_at = at
            self._move(parent, status, at)

    def _plan(self, task: SevenBridgesTask, status: Status, at: float) -> None:
        self._planned += 1
        heapq.heappush(self._due, (at, self._planned, task, status))


def _status_of_parent(parent: SevenBridgesTask, counts: Counter[Status]) -> Status:
    ended = sum(counts[status] for status in TERMINAL)
    if ended < len(parent.children):
        return Status.RUNNING if ended or counts[Status.RUNNING] or counts[Status.ABORTING] else Status.QUEUED
    if parent.aborted:
        return Status.ABORTED
    return next((status for status in (Status.FAILED, Status.ABORTED) if counts[status]), Status.COMPLETED)
