"""A filter enters, the project's created tasks that pass it leave, page after page: the one call that shows their data.

The vendor allows one such call a second. They are spaced here, so that none is refused and no other call is held up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count

from engine.adaptive.rate import Pacer
from engine.clock import Clock
from engine.model.errors import UnexpectedAnswer
from engine.model.record import Row
from engine.services.base import Call, Caller
from engine.services.sama.answers import object_in, tasks_in

TASKS_PAGE_SIZE = 100
"""Most tasks on one page of the task list; the vendor's maximum."""

TASKS_SECONDS = 1.05
"""Between two calls: the vendor allows one a second, and a call may take a little less time than the one before it."""


class TaskList:
    """The tasks of one project."""

    def __init__(self, project: str, caller: Caller, clock: Clock) -> None:
        """Take the project's address."""
        self._url = f"{project}/tasks.json"
        self._caller = caller
        self._clock = clock
        self._pacer = Pacer(1 / TASKS_SECONDS)

    async def page(self, wanted: Mapping[str, str], number: int = 1) -> Sequence[Row]:
        """Return the tasks of one page, from 1.

        Raises:
            UnexpectedAnswer: it has no list of tasks: nothing found must not be believed of anybody but the service.
        """
        await self._clock.sleep(self._pacer.book(self._clock.monotonic()))
        query = {**wanted, "omit_answers": "true", "page": str(number), "page_size": str(TASKS_PAGE_SIZE)}
        # The vendor's page on multi-task status: one call a second, and this call alone.
        body = object_in(await self._caller.call(Call("tasks", "GET", self._url, query=query, lane="tasks")))
        if not isinstance(body.get("tasks"), list):
            raise UnexpectedAnswer("tasks: the answer has no list of tasks", call="tasks")
        return tasks_in(body)

    async def all(self, wanted: Mapping[str, str], *, least: int = 1) -> AsyncIterator[Row]:
        """Yield the tasks of all pages; one of fewer than `least` is the last: only an empty one proves it."""
        for number in count(1):
            tasks = await self.page(wanted, number)
            for task in tasks:
                yield task
            if len(tasks) < least:
                return


def seconds_for(tasks: Sequence[int]) -> float:
    """Return how long it takes at least to list batches of so many tasks; a page that is not full is the last."""
    return sum(number // TASKS_PAGE_SIZE + 1 for number in tasks) * TASKS_SECONDS
