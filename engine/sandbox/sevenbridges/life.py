"""All tasks of a server, and each one's way through its states: by the clock and in the right order of events.

    DRAFT → CREATING → QUEUED → RUNNING → COMPLETED | FAILED        abort: … → ABORTING → ABORTED

Every change to come stands in a heap; `advance` makes those that are due, so nothing runs beside the requests. A parent
gets its children when it leaves CREATING; from then on its state follows from theirs:

    any child not at its end:  QUEUED while all are queued, else RUNNING
    all at their end:          ABORTED if the parent was aborted, else FAILED or ABORTED if any child is, else COMPLETED

Numbers of tasks grow with time, so a list by project or parent, from and to a time, is a slice: these are the lists
that are asked for when there are many tasks. Other filters look at each task of that slice.
"""

import heapq
import secrets
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import EntryKind, Journal
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.drafts import children
from engine.sandbox.sevenbridges.tasks import (
    ABORTABLE,
    TERMINAL,
    BatchGroup,
    Draft,
    InputError,
    SevenBridgesTask,
    Status,
)
from engine.sandbox.traffic import Stats

_ALWAYS = (float("-inf"), float("inf"))
Times = tuple[float, float]
"""From and to, both included, in whole epoch seconds."""
ORDERS: dict[str, Callable[[SevenBridgesTask], float | str]] = {
    "created_time": lambda task: task.number,
    "start_time": lambda task: task.run_at or 0.0,
    "end_time": lambda task: task.ended_at or 0.0,
    "name": lambda task: task.draft.name,
    "status": lambda task: task.status,
}


class SevenBridgesTaskFilter(Struct, frozen=True):
    """What a list call asks for; None asks for nothing."""

    project: str | None = None
    parent: SevenBridgesTask | None = None
    status: Status | None = None
    batch: bool | None = None
    created: Times = _ALWAYS
    started: Times = _ALWAYS
    ended: Times = _ALWAYS
    order_by: str = "created_time"
    descending: bool = False

    @property
    def only_slices(self) -> bool:
        """True if the index alone answers it."""
        unfiltered = (self.status, self.batch, self.started, self.ended) == (None, None, _ALWAYS, _ALWAYS)
        return unfiltered and self.order_by == "created_time"

    def passes(self, task: SevenBridgesTask) -> bool:
        """Say whether a task of the slice is asked for."""
        return (
            self.status in (None, task.status)
            and self.batch in (None, task.draft.batching is not None)
            and _within(self.started, task.run_at)
            and _within(self.ended, task.ended_at)
        )


def _within(times: Times, at: float | None) -> bool:
    return times == _ALWAYS or (at is not None and times[0] <= int(at) <= times[1])


# A change is made only from here: others were overtaken by an abort.
_BEFORE = {
    Status.QUEUED: Status.CREATING,
    Status.RUNNING: Status.QUEUED,
    Status.COMPLETED: Status.RUNNING,
    Status.ABORTED: Status.ABORTING,
}


class SevenBridgesTasks:
    """Adds, finds and lists tasks, and moves them through their states."""

    def __init__(self, behaviour: Behaviour, catalog: Catalog, journal: Journal, stats: Stats) -> None:
        """Start empty; ids differ from every other server's."""
        self._settings, self._failures = behaviour.sevenbridges.life, behaviour.failures
        self._catalog, self._journal, self._stats = catalog, journal, stats
        self._lists_lag = behaviour.reads.list_seconds > 0  # then lists keep what was removed
        self._server = secrets.token_hex(4)
        self._tasks: list[SevenBridgesTask] = []
        self._reserved: dict[str, int | None] = {}
        self._all: list[int] = []
        self._by_project: dict[str, list[int]] = {}
        self._due: list[tuple[float, int, SevenBridgesTask, Status]] = []
        self._planned = 0
        self._waiting: deque[SevenBridgesTask] = deque()
        self.running = 0

    def add(
        self,
        draft: Draft,
        at: float,
        errors: tuple[InputError, ...] = (),
        *,
        parent: SevenBridgesTask | None = None,
        group: BatchGroup | None = None,
        task_id: str = "",
    ) -> SevenBridgesTask:
        """Make a task of a draft, under an id of its own or one that was reserved for it."""
        number = len(self._tasks)
        own_id = f"{self._server}-0000-4000-8000-{number:012x}"
        task = SevenBridgesTask(number, task_id or own_id, draft, at, errors, parent, group)
        if task_id:
            self._reserved[task_id] = number
        self._tasks.append(task)
        self._all.append(number)
        self._by_project.setdefault(draft.project, []).append(number)
        return task

    def reserve_id(self) -> str:
        """Return an id for a task that is yet to be made: until then nothing is found under it."""
        task_id = f"{self._server}-0001-4000-8000-{len(self._reserved):012x}"
        self._reserved[task_id] = None
        return task_id

    def remove(self, task: SevenBridgesTask, at: float) -> None:
        """Forget a task, except for reads that lag."""
        task.removed_at = at
        if not self._lists_lag:
            for numbers in (self._all, self._by_project[task.draft.project]):
                del numbers[bisect_left(numbers, task.number)]

    def find(self, task_id: str) -> SevenBridgesTask | None:
        """Return the task with this id; None if there is none."""
        task = self._known(task_id)
        return task if task is not None and task.removed_at is None else None

    def find_as_of(self, task_id: str, at: float) -> SevenBridgesTask | None:
        """Return a task as it was at an earlier time, one that is newer as it began; None if there was none."""
        task = self._known(task_id)
        if task is None or (task.removed_at is not None and task.removed_at <= at):
            return None
        return self._as_of(task, at)

    def _known(self, task_id: str) -> SevenBridgesTask | None:
        try:
            number = self._reserved[task_id] if task_id in self._reserved else int(task_id[24:], 16)
        except ValueError:
            return None
        task = self._tasks[number] if number is not None and number < len(self._tasks) else None
        return task if task is not None and task.id == task_id else None

    def page(
        self, wanted: SevenBridgesTaskFilter, page: slice, at: float | None = None
    ) -> tuple[list[SevenBridgesTask], int]:
        """Return some of the tasks that are asked for, as they are or were at a time, and how many there are."""
        numbers = self._slice(wanted)
        if at is None and wanted.only_slices:
            part = (numbers[::-1] if wanted.descending else numbers)[page]
            return [self._tasks[number] for number in part], len(numbers)
        tasks = (self._tasks[number] for number in numbers)
        seen = tasks if at is None else (self._as_of(task, at) for task in tasks if task.existed(at))
        passing = sorted(filter(wanted.passes, seen), key=ORDERS[wanted.order_by])
        return (passing[::-1] if wanted.descending else passing)[page], len(passing)

    def _as_of(self, task: SevenBridgesTask, at: float) -> SevenBridgesTask:
        return task.as_of(at, (self._tasks[number] for number in task.children))

    def _slice(self, wanted: SevenBridgesTaskFilter) -> Sequence[int]:
        numbers: Sequence[int] = self._all
        if wanted.parent is not None:
            numbers = wanted.parent.children if wanted.project in (None, wanted.parent.draft.project) else ()
        elif wanted.project is not None:
            numbers = self._by_project.get(wanted.project, ())
        if wanted.created == _ALWAYS:
            return numbers
        low, high = wanted.created
        return numbers[bisect_left(numbers, low, key=self._second) : bisect_right(numbers, high, key=self._second)]

    def _second(self, number: int) -> int:
        return int(self._tasks[number].created_at)

    def run(self, task: SevenBridgesTask, now: float) -> None:
        """Start a draft; with no time for creating it is queued at once.

        What is no draft any more is run once more: the journal says so, the life that is shown stays the first one's.
        """
        self._stats.tasks_run += 1
        self.record("run", [task], now)
        task.told = True
        if task.status is not Status.DRAFT:
            return
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
                if (child := self._tasks[number]).status in ABORTABLE:
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
            self.add(child.draft, at, parent=task, group=child.group)
            for child in children(task.draft, task.draft.batching, self._catalog)
        ]
        task.children = range(made[0].number, made[-1].number + 1)
        task.counts = Counter({Status.CREATING: len(made)})
        self.record("child", made, at)
        for child in made:
            child.since[Status.CREATING] = at
            self._queue(child, at)

    def _fill(self, at: float) -> None:
        """Let waiting tasks run while there is room."""
        while self._waiting and (not self._settings.parallel or self.running < self._settings.parallel):
            task = self._waiting.popleft()
            if task.status is Status.QUEUED:
                self.running += 1
                self._move(task, Status.RUNNING, at)
                self._plan(task, Status.COMPLETED, at + self._settings.running_seconds)

    def _end(self, task: SevenBridgesTask, at: float) -> None:
        document = task.draft.document() if self._failures else {}
        failed = next((rule for rule in self._failures if rule.hits(document)), None)
        if failed is not None:
            self._stats.tasks_failed += 1
            task.message = failed.message
        self._leave(task, Status.FAILED if failed else Status.COMPLETED, at)

    def _leave(self, task: SevenBridgesTask, status: Status, at: float) -> None:
        """Move to a state after which others may run."""
        was_running = task.status is Status.RUNNING
        self._move(task, status, at)
        if was_running:
            self.running -= 1
            self._fill(at)

    def _move(self, task: SevenBridgesTask, status: Status, at: float) -> None:
        before, task.since[status] = task.status, at
        parent = task.parent
        if parent is not None and parent.counts is not None:
            parent.counts[before] -= 1
            parent.counts[status] += 1
            if (follows := _status_of_parent(parent, parent.counts)) is not parent.status:
                self._move(parent, follows, at)

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
