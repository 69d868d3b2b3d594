"""Markers of drafts whose creation was not answered in, the drafts out that were created after all.

A listing of a project costs many requests, and an outage loses many answers at once. So whoever looks for a draft says
so, waits a moment, and then one listing serves all who had said so before it began. It goes back no further than one of
them needs: to the time, by the service's own clock, before which none of their calls had gone out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio

from engine.ports import Clock
from engine.services.sevenbridges.answers import Page, Task, task_of
from engine.services.sevenbridges.calls import ListShifted
from engine.services.sevenbridges.specs import MARKER

GATHER_SECONDS = 0.5
"""Wait before a listing, in which others that lost an answer join it."""

QUIET_SECONDS = 3.0
"""Wait before the last look: a lost call may still be on its way, and creating a task takes the service a second."""

SAME_CLOCK_SECONDS = 10.0
"""By how much the clocks of two of the service's machines may differ, or a list lag behind: NTP keeps them within
milliseconds, and each second here costs a page for every 100 tasks that were created in it."""

LISTING_TRIES = 5
"""Listings that may be spoilt in a row by tasks that are deleted meanwhile."""


class DraftSearch:
    """Looks for drafts in one project; `list_since` yields its tasks from a time on, oldest first."""

    def __init__(self, list_since: Callable[[float], AsyncIterator[Page]], clock: Clock) -> None:
        self._list_since = list_since
        self._clock = clock
        self._lock = anyio.Lock()
        self._wanted: dict[str, float] = {}
        self._found: dict[str, Task] = {}
        self._begun = self._done = 0
        self._covered = 0.0
        """What the last listing found, or not, up to this time (Unix seconds, the service's clock) is certain."""

    async def find(self, marker: str, since: float) -> Task | None:
        """Return the draft with this marker, created at `since` or later; None if it is not there nor to come."""
        found = await self._look(marker, since)
        if found is not None:
            return found
        since = max(since, self._covered - SAME_CLOCK_SECONDS)
        await self._clock.sleep(QUIET_SECONDS)
        return await self._look(marker, since)

    async def _look(self, marker: str, since: float) -> Task | None:
        self._wanted[marker] = since
        asked = self._begun
        try:
            await self._clock.sleep(GATHER_SECONDS)
            async with self._lock:
                if self._done <= asked:  # none that began after we had asked is done
                    await self._list()
            return self._found.get(marker)
        finally:
            del self._wanted[marker]
            self._found.pop(marker, None)

    async def _list(self) -> None:
        self._begun += 1
        since = min(self._wanted.values())
        for attempt in range(1, LISTING_TRIES + 1):
            try:
                self._covered = await self._read(since)
                break
            except ListShifted:
                if attempt == LISTING_TRIES:
                    raise
        self._done = self._begun

    async def _read(self, since: float) -> float:
        """Note what is wanted among the tasks from a time on; return the time of the last one there was at first."""
        covered, seen, at_first = since, 0, None
        async for page in self._list_since(since):
            tasks = [task_of(item) for item in page.items]
            at_first = page.total if at_first is None else at_first
            for task in tasks[: max(0, at_first - seen)]:
                covered = max(covered, task.created_at or since)
            seen += len(tasks)
            self._note(tasks)
        return covered

    def _note(self, tasks: list[Task]) -> None:
        for task in tasks:
            # A child has the description of its parent. Of two with one marker the first counts: people clone tasks.
            marker = None if task.parent else next(reversed(MARKER.findall(task.description)), None)
            if marker in self._wanted:
                self._found.setdefault(marker, task)
