"""Sends jobs together with other processes, on this machine and on others, by a ledger that all of them reach.

A worker takes shards of what one process freezes, and works on them as a run of its own does. That process holds the
job's lock; where nobody holds it, the worker takes it: then it reads on, and ends the job, as `resume` does. So any
number of workers may come and go, and there is always one that plans.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.batch.dask import check_dask
from engine.commands import wiring
from engine.commands.intake import copied_here
from engine.commands.paths import folder_beside, open_ledger, spelled, spelling
from engine.commands.submit import TAKES_OVER, family_lock, go_on
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import (
    BulkSubmitError,
    CallFailed,
    ConfigError,
    Exit,
    JobCanceled,
    JobError,
    JobLocked,
    LeaseLost,
    LedgerAway,
    RecordsSent,
    SendingEnded,
    SourceError,
    WindowClosed,
)
from engine.model.job import Job, JobState
from engine.progress.events import BatchSettled, Event, JobStarted, Listener, Noticed, fan_out, unheard
from engine.run.context import Stop, beside, pause_unless_stopped
from engine.run.in_flight import InFlight
from engine.run.shards import tell_tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LOOK_SECONDS = 2.0
"""Between two looks at which jobs there are, or whether one has shards."""

_TAKEN_OVER = frozenset({None, Exit.LOCKED, 128 + signal.SIGINT, 128 + signal.SIGTERM})
"""How the run before has ended where a worker plans in its place: it was killed, interrupted, or lost its leases. One
that ended for a reason, such as a limit or a wrong key, is for a person, who says `resume`."""


class WorkDone(Struct, frozen=True):
    """What a worker has done."""

    jobs: Sequence[str]
    """That it has worked on, in this order."""
    created: int
    """Records that it has settled as created."""
    not_created: int
    """Records that it has settled otherwise."""
    exit_code: int
    message: str = ""
    """Why it ended early; empty if nothing was left to do."""


async def work(  # noqa: PLR0913 - what a person can say of it
    job: str | None = None,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    stay: bool = False,
    processes: int | None = None,
    dask: str = "",
) -> WorkDone:
    """Take part in sending one job, or all open jobs of a ledger, until nothing of them is left.

    Args:
        job: name of the job; all that are open where left out.
        ledger: a database of PostgreSQL, by its URL.
        emit: is told what happens.
        stop: ends the work early; what this worker has is given back at once.
        stay: wait for further jobs, or for one of that name, until stopped.
        processes: that read beside this one, where it plans; as configured where left out.
        dask: as of `submit`, where it plans.

    Raises:
        ConfigError: the ledger cannot be shared, or `dask` names no cluster.
        JobError: there is no such job.
    """
    stop = stop or Stop()
    if dask:
        check_dask(dask)
    async with open_ledger(ledger, create=stay) as opened:
        if not opened.shares_jobs:
            raise ConfigError(
                f"ledger {opened.address}: a file is for one process at a time; workers need a database of PostgreSQL "
                "(--ledger postgresql://…). `bulksubmit ledger copy` brings the jobs of a file there"
            )
        if job and stay and all(known.name != job for known in await opened.jobs()):
            emit(Noticed(f"there is no job {job!r} in {opened.address} yet: it is waited for"))
        worker = _Worker(opened, fan_out(emit, (counts := _Counts()).hear), stop, processes, dask)
        error = await worker.work(job, stay=stay)
        message = "; ".join(filter(None, [worker.message, str(error) if error else ""]))
        return WorkDone(
            worker.jobs,
            counts.created,
            counts.not_created,
            worker.exit_code if error is None else error.exit_status,
            spelled(message, opened.address, " ".join(["work", *filter(None, [job]), *(["--stay"] * stay)])),
        )


class _Counts:
    """Counts the records that were settled here."""

    def __init__(self) -> None:
        self.created = self.not_created = 0

    def hear(self, event: Event) -> None:
        if isinstance(event, BatchSettled):
            self.created += event.created
            self.not_created += event.failed + event.uncertain


class _Worker:
    """One worker."""

    def __init__(self, ledger: Ledger, emit: Listener, stop: Stop, processes: int | None, dask: str) -> None:
        self._ledger = ledger
        self._emit = emit
        self._stop = stop
        self._go_on = partial(go_on, command=TAKES_OVER, processes=processes, dask=dask)
        self.jobs: list[str] = []
        self._why: dict[str, tuple[int, str]] = {}
        """Jobs with which it could not go on → exit code and reason, of the last time."""
        self._ended: dict[str, int] = {}
        """Jobs with which this worker cannot go on: a person has to do something first, or it is not the time. → How
        many runs each had by then: with the next one, it can."""

    @property
    def exit_code(self) -> int:
        """Of the first job that it could not go on with."""
        return next((exit_code for exit_code, _ in self._why.values() if exit_code), int(Exit.ALL_CREATED))

    @property
    def message(self) -> str:
        """Why it could not go on with which jobs."""
        return "; ".join(f"job {name}: {why}" for name, (exit_code, why) in self._why.items() if exit_code and why)

    async def work(self, name: str | None, *, stay: bool) -> BulkSubmitError | None:
        """Work until nothing is left; return why it ended early."""
        while self._stop.error is None:
            todo = await self._todo(name, stay=stay)
            for job in todo:
                if job.name not in self.jobs:
                    self.jobs.append(job.name)
                await self._work_on(job)
                if self._stop.error is not None:
                    break
            if not todo and not stay:
                return None
            await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS if not todo else 0.0)
        return self._stop.error

    async def _todo(self, name: str | None, *, stay: bool) -> Sequence[Job]:
        jobs = await self._ledger.jobs()
        if name is not None and not stay and all(job.name != name for job in jobs):
            await self._ledger.job(name)  # tells which there are
        wanted = [job for job in jobs if name in {None, job.name} and job.state is JobState.OPEN]
        return [job for job in reversed(wanted) if not await self._has_ended(job)]

    async def _has_ended(self, job: Job) -> bool:
        return job.name in self._ended and len(await self._ledger.runs(job.name)) <= self._ended[job.name]

    async def _work_on(self, job: Job) -> None:
        """Plan and send a job where nobody does; else take part in sending it."""
        try:
            self._why.pop(job.name, None)
            async with _linked(self._stop) as stop:
                with self._ledger.lock(job.name), family_lock(job, self._ledger):
                    job = await self._ledger.job(job.name)
                    if job.state is not JobState.OPEN:
                        return
                    runs = await self._ledger.runs(job.name)
                    if runs and runs[-1].exit_code not in _TAKEN_OVER:
                        exit_code = runs[-1].exit_code or Exit.ERROR
                        reason = runs[-1].reason.rstrip(".") or f"its last run ended with exit code {exit_code}"
                        if "`bulksubmit resume" not in reason:
                            reason = f"{reason}. `bulksubmit resume {job.name}` goes on with it"
                        await self._note(job, exit_code, reason)
                        return
                    job = await self._with_sources(job)
                    result = await self._go_on(job, self._ledger, self._emit, stop)
            if result.exit_code == Exit.LOCKED:  # its leases were lost: whoever has them goes on, and then we do
                await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS)
                return
            await self._note(job, result.exit_code, result.message)
        except JobLocked:
            error = await self._helped(job)
            if isinstance(error, RecordsSent | SendingEnded):  # the one that plans ends; if it was killed, we do
                await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS)
            elif error is not None and error is not self._stop.error and not isinstance(error, LeaseLost | JobCanceled):
                await self._note(job, error.exit_status, _here(error))
        except (ConfigError, SourceError, JobError, CallFailed, WindowClosed) as error:  # of this job: others go on
            await self._note(job, error.exit_status, self._told(job, error))
        except (LeaseLost, LedgerAway):
            await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS)

    async def _with_sources(self, job: Job) -> Job:
        """Return a job whose sources can be read here: of what is elsewhere, each machine has a copy of its own."""
        folder = folder_beside(self._ledger.address) / job.name
        return await copied_here(job, wiring.load(job.config).settings.source, folder, self._emit)

    async def _note(self, job: Job, exit_code: int, message: str) -> None:
        """Remember how a job ended, for this worker."""
        self._ended[job.name] = len(await self._ledger.runs(job.name))
        self._why[job.name] = (exit_code, message)

    def _told(self, job: Job, error: BulkSubmitError) -> str:
        """Return what to tell of an error; what this machine lacks is told at once, for nothing else does."""
        words = _here(error)
        if isinstance(error, ConfigError | SourceError):
            self._emit(Noticed(f"job {job.name}: {words}"))
        return words

    async def _helped(self, job: Job) -> BulkSubmitError | None:
        """Send shards of a job that another process plans; return why it ended early, or was not begun."""
        try:
            return await self._help(job)
        except (ConfigError, SourceError, JobError, CallFailed, WindowClosed) as error:
            self._told(job, error)
            return error
        except (LeaseLost, LedgerAway):
            await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS)
            return None

    async def _help(self, job: Job) -> BulkSubmitError | None:
        """Send shards of a job that another process plans; return why it ended early."""
        wiring.load((await self._ledger.job(job.name)).config)  # a key that is missing here is told before all is taken
        while not (await self._ledger.count_shards(job.name, "")).free:  # and until the first one is there
            if not await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS):
                return self._stop.error
            job = await self._ledger.job(job.name)
            if job.state is not JobState.OPEN or not self._ledger.is_locked(job.name):
                return None
        job = await self._with_sources(await self._ledger.job(job.name))
        setup = wiring.load(job.config)
        last = await self._ledger.last_batch(job.name)
        tally = await self._ledger.tally(job.name)
        self._emit(JobStarted(job.name, job.size_bytes, last.end.offset if last else 0, tally))
        in_flight = InFlight(setup.settings.send, wiring.CLOCK, self._emit)
        emit = fan_out(spelling(self._emit, self._ledger.address, f"work {job.name}"), in_flight.hear)
        error: BulkSubmitError | None = None
        async with (
            _linked(self._stop) as stop,
            beside(partial(tell_tally, job, self._ledger, wiring.CLOCK, self._emit)),
            wiring.open_run(setup, job, self._ledger, emit, stop, in_flight) as run,
        ):
            error = await wiring.pipeline(setup, run, in_flight, plans_job=False).work()
        if error is None:
            await pause_unless_stopped(self._stop, wiring.CLOCK, _LOOK_SECONDS)  # the one that plans ends it
        return error


def _here(error: BulkSubmitError) -> str:
    """Return what to tell of an error of one worker; other machines may have what this one lacks."""
    if isinstance(error, SourceError):
        return (
            f"on {socket.gethostname()}: {error}. Workers read sources by the paths of the job: shared disk, or s3://"
        )
    return str(error)


@asynccontextmanager
async def _linked(stop: Stop) -> AsyncIterator[Stop]:
    """Yield a wish to end of its own, which `stop` brings about, too; what ends one job ends no other."""
    own = Stop()

    async def pass_on() -> None:
        await stop.wait()
        assert stop.error is not None  # noqa: S101 - it was given with one
        own.request(stop.error)

    async with beside(pass_on):
        yield own
