"""All tasks of a server: filters enter, tasks leave, in time that does not grow with their number where it hurts.

Numbers of tasks grow with time, so a list by project or parent, from and to a time, is a slice. Other filters look at
each task of that slice; the last such result is kept until any task changes, which pages of one list then share.
"""

import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.sandbox.sevenbridges.answers import Page
from engine.sandbox.sevenbridges.tasks import BatchGroup, Draft, InputError, Status, Task

_ALWAYS = (float("-inf"), float("inf"))
Times = tuple[float, float]
"""From and to, both included, in whole epoch seconds."""
ORDERS: dict[str, Callable[[Task], float | str]] = {
    "created_time": lambda task: task.number,
    "start_time": lambda task: task.run_at or 0.0,
    "end_time": lambda task: task.ended_at or 0.0,
    "name": lambda task: task.draft.name,
    "status": lambda task: task.status,
}


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """What a list call asks for; None asks for nothing."""

    project: str | None = None
    parent: Task | None = None
    status: Status | None = None
    batch: bool | None = None
    created: Times = _ALWAYS
    started: Times = _ALWAYS
    ended: Times = _ALWAYS
    order_by: str = "created_time"
    descending: bool = False
    made_by: float = float("inf")
    """Epoch seconds: what was made later is not shown yet."""

    @property
    def only_slices(self) -> bool:
        """True if the index alone answers it."""
        unfiltered = (self.status, self.batch, self.started, self.ended) == (None, None, _ALWAYS, _ALWAYS)
        return unfiltered and self.order_by == "created_time"

    def passes(self, task: Task) -> bool:
        """Say whether a task of the slice is asked for."""
        return (
            self.status in (None, task.status)
            and self.batch in (None, task.draft.batching is not None)
            and _within(self.started, task.run_at)
            and _within(self.ended, task.ended_at)
        )


def _within(times: Times, at: float | None) -> bool:
    return times == _ALWAYS or (at is not None and times[0] <= int(at) <= times[1])


class TaskBook:
    """Adds, finds and lists tasks."""

    def __init__(self) -> None:
        """Start empty; ids differ from every other server's."""
        self._server = secrets.token_hex(4)
        self._tasks: list[Task | None] = []
        self._all: list[int] = []
        self._by_project: dict[str, list[int]] = {}
        self._version = 0
        self._last: tuple[TaskFilter, int, Sequence[int]] = (TaskFilter(), -1, ())

    def add(
        self,
        draft: Draft,
        at: float,
        errors: tuple[InputError, ...] = (),
        *,
        parent: Task | None = None,
        group: BatchGroup | None = None,
    ) -> Task:
        """Make a task of a draft."""
        number = len(self._tasks)
        task = Task(number, f"{self._server}-0000-4000-8000-{number:012x}", draft, at, errors, parent, group)
        self._tasks.append(task)
        self._all.append(number)
        self._by_project.setdefault(draft.project, []).append(number)
        self.touch()
        return task

    def touch(self) -> None:
        """Note that some task has changed."""
        self._version += 1

    def remove(self, task: Task) -> None:
        """Forget a task."""
        self._tasks[task.number] = None
        for numbers in (self._all, self._by_project[task.draft.project]):
            del numbers[bisect_left(numbers, task.number)]
        self.touch()

    def find(self, task_id: str) -> Task | None:
        """Return the task with this id; None if there is none."""
        try:
            number = int(task_id[24:], 16)
        except ValueError:
            return None
        task = self._tasks[number] if number < len(self._tasks) else None
        return task if task is not None and task.id == task_id else None

    def numbered(self, number: int) -> Task:
        """Return the task with a number from a list or a range of children."""
        task = self._tasks[number]
        assert task is not None  # noqa: S101 - lists forget removed tasks, and children are never removed
        return task

    def page(self, wanted: TaskFilter, page: Page) -> tuple[list[Task], int]:
        """Return some of the tasks that are asked for, and how many there are."""
        numbers = self._matching(wanted)
        total = len(numbers)
        low, high = page.offset, min(page.offset + page.limit, total)
        if wanted.descending:
            low, high = max(0, total - page.offset - page.limit), total - page.offset
        part = [self.numbered(number) for number in numbers[max(0, low) : max(0, high)]]
        return part[::-1] if wanted.descending else part, total

    def _matching(self, wanted: TaskFilter) -> Sequence[int]:
        last, version, numbers = self._last
        if (last, version) == (wanted, self._version):
            return numbers
        numbers = self._slice(wanted)
        if not wanted.only_slices:
            tasks = [task for number in numbers if wanted.passes(task := self.numbered(number))]
            numbers = [task.number for task in sorted(tasks, key=ORDERS[wanted.order_by])]
        self._last = wanted, self._version, numbers
        return numbers

    def _slice(self, wanted: TaskFilter) -> Sequence[int]:
        numbers: Sequence[int] = self._all
        if wanted.parent is not None:
            numbers = wanted.parent.children if wanted.project in (None, wanted.parent.draft.project) else ()
        elif wanted.project is not None:
            numbers = self._by_project.get(wanted.project, ())
        if wanted.made_by < float("inf"):
            numbers = numbers[: bisect_right(numbers, wanted.made_by, key=lambda one: self.numbered(one).created_at)]
        if wanted.created == _ALWAYS:
            return numbers
        low, high = wanted.created
        return numbers[bisect_left(numbers, low, key=self._second) : bisect_right(numbers, high, key=self._second)]

    def _second(self, number: int) -> int:
        return int(self.numbered(number).created_at)
