"""What the pages show of a ledger, read for all viewers together.

The same thing is read once in `FRESH_SECONDS`, however many ask for it, and never while nobody does. The ledger is
opened for a read and closed again, as `bulksubmit status` does: between two reads nothing of it is held, so a run that
ends finds itself alone with its ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from engine.commands.lineage import Retried, retried
from engine.commands.overview import overview
from engine.commands.paths import open_ledger
from engine.commands.result import JobStatus, ServiceCan, service_can
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.ledger.search import LedgerSearch
from engine.model.errors import BulkSubmitError, NoLedger
from engine.model.job import Job, JobState
from engine.model.runs import PastRun
from engine.reports.overview import Overview

T = TypeVar("T")

FRESH_SECONDS = 0.9
"""A little less than the second after which a page is looked at again."""
PACE_SECONDS = 10.0
"""Over which the pace of a job is taken."""
RECHECK_SECONDS = 60.0
"""After which a job is counted again although no sign says that it has changed."""
DEPTH_SECONDS = 5.0
"""Before which the depth of a job is not read anew."""
PAGE_WAITS_SECONDS = 0.7
"""For which a page waits for it when it is read first."""
_MOST_KEPT = 512
_MOST_DEPTHS = 32


class Shared:
    """Makes a value once for all who ask for it within some seconds; who asks meanwhile waits for it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kept: OrderedDict[Hashable, tuple[float, asyncio.Future[Any]]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]], seconds: float = FRESH_SECONDS) -> T:
        """Return what `make` makes, or what it made within the last seconds for the same key.

        An error is shared, too. Nobody who asks can take it from the others by no longer waiting.
        """
        at, made = self._kept.get(key, (0.0, None))
        if made is None or (made.done() and self._now() - at >= seconds):
            made = asyncio.ensure_future(make())
            made.add_done_callback(partial(self._done, key))
            self._kept[key] = self._now(), made
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        value: T = await asyncio.shield(made)
        return value

    def _done(self, key: Hashable, made: asyncio.Future[Any]) -> None:
        if not made.cancelled():
            made.exception()  # looked at, whether or not somebody still waits for it
        if key in self._kept and self._kept[key][1] is made:
            self._kept[key] = self._now(), made

    def forget(self) -> None:
        """Have all that is made be made anew: something was done that it does not show yet."""
        for key in [key for key, (_, made) in self._kept.items() if made.done()]:
            del self._kept[key]

    async def close(self) -> None:
        """Wait for nothing that is still being made."""
        unfinished = [made for _, made in self._kept.values() if not made.done()]
        for made in unfinished:
            made.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


class JobRead(Struct, frozen=True):
    """A job as it was read last: its batches are not counted again as long as nobody has worked on it."""

    status: JobStatus
    read_at: float
    """By the monotonic clock."""
    seen: Sequence[tuple[float, int]]
    """Of a job that is worked on: when it was looked at lately, and how many records had their fate."""

    def is_stale(self, job: Job, runs: Sequence[PastRun], now: float) -> bool:
        """Return whether something may have changed; whoever changes a job has a run, holds it, or changes its row."""
        same = self.status.job == job and self.status.runs == runs and not self.status.running
        return not same or now - self.read_at >= RECHECK_SECONDS


class Depth(Struct, frozen=True):
    """What takes longer to read of a job: its records' failures, its series, its relatives."""

    overview: Overview
    retried: Retried | None
    service_can: ServiceCan
    status: JobStatus
    """How the job stood then."""
    read_at: float
    """By the monotonic clock."""
    took_seconds: float


class Reader:
    """Reads one ledger for all pages."""

    def __init__(self, ledger: LedgerAddress) -> None:
        self.ledger = ledger
        self._shared = Shared()
        self._known: dict[str, JobRead] = {}
        self._depths: dict[str, Depth] = {}
        self._diving: dict[str, asyncio.Task[None]] = {}

    async def shared(self, key: Hashable, make: Callable[[], Awaitable[T]], seconds: float = FRESH_SECONDS) -> T:
        """Return what is made once for all who ask within some seconds."""
        return await self._shared.get(key, make, seconds)

    def forget(self) -> None:
        """Read anew what was read a moment ago."""
        self._shared.forget()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ledger]:
        """Open the ledger for one read. Raises: JobError: there is none. LedgerError: it cannot be read."""
        async with open_ledger(self.ledger) as ledger:
            yield ledger

    async def search(self, ask: Callable[[LedgerSearch], T], seconds: float = 0.5) -> T:
        """Return what a search says, which is given so many seconds, in a thread."""

        def work() -> T:
            with LedgerSearch(self.ledger, seconds) as search:
                return ask(search)

        return await asyncio.to_thread(work)

    async def jobs(self) -> Sequence[Job]:
        """Return all jobs, newest first; none of a ledger that is not there yet."""

        async def read() -> Sequence[Job]:
            try:
                async with self.opened() as ledger:
                    return [job for job in await ledger.jobs() if job.state is not JobState.REMOVED]
            except NoLedger:
                return []

        return await self.shared("jobs", read)

    async def running(self) -> frozenset[str]:
        """Return the names of the jobs that a process works on just now."""

        async def read() -> frozenset[str]:
            jobs = await self.jobs()
            if not jobs:
                return frozenset()
            async with self.opened() as ledger:
                return frozenset(job.name for job in jobs if ledger.is_locked(job.name))

        return await self.shared("running", read)

    async def statuses(self, jobs: Sequence[Job]) -> Sequence[JobStatus]:
        """Return where some jobs stand. What nobody works on is not counted again each time."""
        names = tuple(job.name for job in jobs)
        if not names:
            return []

        async def read() -> Sequence[JobStatus]:
            async with self.opened() as ledger:
                return [await self._status(job, ledger) for job in jobs]

        return await self.shared(("statuses", names), read)

    async def status(self, name: str) -> JobStatus:
        """Return where one job stands. Raises: JobError: there is none."""

        async def read() -> JobStatus:
            async with self.opened() as ledger:
                return await self._status(await ledger.job(name), ledger)

        return await self.shared(("status", name), read)

    async def _status(self, job: Job, ledger: Ledger) -> JobStatus:
        running = ledger.is_locked(job.name)
        runs = await ledger.runs(job.name)
        running = running or ledger.is_locked(job.name)  # a run that began or ended meanwhile was not killed
        known, now = self._known.get(job.name), time.monotonic()
        if known is None or running or known.is_stale(job, runs, now):
            samples = await ledger.samples(job.name, runs[-1].number) if runs else ()
            status = JobStatus(job, await ledger.tally(job.name), running, runs=runs, samples=samples)
            seen = [*(known.seen if known and running else ()), (now, status.tally.resolved)]
            recent = [one for one in seen if now - one[0] <= PACE_SECONDS]
            known = JobRead(status, now, recent)
            self._known[job.name] = known
            while len(self._known) > _MOST_KEPT:
                self._known.pop(next(iter(self._known)))
        return known.status

    def pace(self, name: str) -> float | None:
        """Return how many records of a job that is worked on get their fate a second, by the last looks at it."""
        known = self._known.get(name)
        if known is None or not known.status.running or len(known.seen) < 2:  # noqa: PLR2004 - it takes two looks
            return None
        (began, before), (now, after) = known.seen[0], known.seen[-1]
        return (after - before) / (now - began) if now > began else None

    async def depth(self, status: JobStatus) -> Depth | None:
        """Return what was read last of all records of a job; None if that is still being read for the first time.

        Of a large job it takes seconds. So it is read beside what is shown, sooner where the job stands otherwise,
        and for a tenth of the time at most.
        """
        name, now = status.job.name, time.monotonic()
        known, task = self._depths.get(name), self._diving.get(name)
        is_due = known is None
        if known is not None:  # its relatives may have changed, where it has not
            pause = DEPTH_SECONDS if known.status != status else 3 * DEPTH_SECONDS
            is_due = now - known.read_at >= max(pause, 10 * known.took_seconds)
        if is_due and task is None:
            task = self._diving[name] = asyncio.ensure_future(self._dive(status))
        if known is None and task is not None:
            await asyncio.wait([task], timeout=PAGE_WAITS_SECONDS)
        return self._depths.get(name)

    async def _dive(self, status: JobStatus) -> None:
        name, began = status.job.name, time.monotonic()
        try:
            facts = await overview(name, self.ledger)
            job, tally = status.job, status.tally
            async with self.opened() as ledger:
                tried = await retried(job, ledger) if job.parent or tally.failed or tally.rejected else None
            can = await asyncio.to_thread(service_can, status.job) if tally.uncertain else ServiceCan()
            now = time.monotonic()
            self._depths[name] = Depth(facts, tried, can, status, now, now - began)
            while len(self._depths) > _MOST_DEPTHS:
                self._depths.pop(next(iter(self._depths)))
        except BulkSubmitError:  # the page says of the ledger itself what is wrong with it
            pass
        finally:
            del self._diving[name]

    async def close(self) -> None:
        """End what is being read."""
        diving = list(self._diving.values())
        for task in diving:
            task.cancel()
        await asyncio.gather(*diving, return_exceptions=True)
        await self._shared.close()
