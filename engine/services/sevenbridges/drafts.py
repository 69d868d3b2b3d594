"""References of drafts whose creation was not answered in, the drafts out that were created after all.

A listing of a project costs many requests, and an outage loses many answers at once. So whoever looks for a draft says
so, waits a moment, and then one listing serves all who had said so before it began. It goes back no further than one of
them needs: to the time, by the service's own clock, before which none of their calls had gone out.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import sha256

import anyio

from engine.clock import Clock
from engine.model.batch import Batch
from engine.model.job import Job
from engine.services.sevenbridges.calls import ListShifted, Page, Task

REFERENCE = re.compile(r"\[bulksubmit [^\s\]]+\]")
"""At the end of a draft's description."""

GATHER_SECONDS = 0.5
"""Wait before a listing, in which others that lost an answer join it."""

LISTING_TRIES = 5
"""Listings that may be spoilt in a row by tasks that are deleted meanwhile."""


class DraftSearch:
    """Looks for drafts in one project; `list_since` yields its tasks from a time on, oldest first."""

    def __init__(self, list_since: Callable[[float], AsyncIterator[Page[Task]]], clock: Clock) -> None:
        self._list_since = list_since
        self._clock = clock
        self._lock = anyio.Lock()
        self._wanted: dict[str, float] = {}
        self._found: dict[str, Task] = {}
        self._looked_for: dict[str, float] = {}
        """Reference → up to which time the listings have shown that its draft is not there."""
        self._begun = self._done = 0
        self._covered = 0.0
        """What the last listing found, or not, up to this time (Unix seconds, the service's clock) is certain."""

    async def find(self, reference: str, since: float, lag_seconds: float) -> Task | None:
        """Return the draft with this reference, created at `since` or later (Unix seconds, the service's clock).

        None proves nothing: it may still come. A list lags `lag_seconds` behind at most, and so far may the clocks of
        two of the service's machines differ; what was listed before that is not listed again.
        """
        if reference in self._looked_for:
            since = max(since, self._looked_for[reference] - lag_seconds)
        self._wanted[reference] = since
        asked = self._begun
        try:
            await self._clock.sleep(GATHER_SECONDS)
            async with self._lock:
                if self._done <= asked:  # none that began after we had asked is done
                    await self._list()
            self._looked_for[reference] = self._covered
            return self._found.get(reference)
        finally:
            del self._wanted[reference]
            self._found.pop(reference, None)

    async def referenced(self, since: float) -> AsyncIterator[tuple[str, Task]]:
        """Yield the tasks from a time on that have a reference, with it; not the children: they show their parent's."""
        async for page in self._list_since(since):
            for task in page.items:
                reference = None if task.parent else _reference_in(task)
                if reference is not None:
                    yield reference, task

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
            tasks = page.items
            at_first = page.total if at_first is None else at_first
            for task in tasks[: max(0, at_first - seen)]:
                covered = max(covered, task.created_at or since)
            seen += len(tasks)
            self._note(tasks)
        return covered

    def _note(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            # A child has the description of its parent. Of two with one reference the first counts: people clone tasks.
            reference = None if task.parent else _reference_in(task)
            if reference in self._wanted:
                self._found.setdefault(reference, task)


def _reference_in(task: Task) -> str | None:
    return next(reversed(REFERENCE.findall(task.description or "")), None)


def draft_reference(job: Job, batch: Batch) -> str:
    """Return the words by which a draft is known again: of this record of this job, and of no namesake elsewhere."""
    digest = sha256(repr(job.created_at).encode() + batch.sha256).hexdigest()[:12]
    return f"[bulksubmit {job.name}/{batch.sequence}/{digest}]"


def sequence_in(reference: str, job: Job) -> int | None:
    """Return the sequence of the batch that a reference names; None if it is not one of a job of this name."""
    name, _, rest = reference.removeprefix("[bulksubmit ").rpartition("/")[0].rpartition("/")
    return int(rest) if name == job.name and rest.isdecimal() else None
