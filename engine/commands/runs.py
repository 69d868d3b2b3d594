"""Remembers what a run does and how it ends: in the ledger, in the job's log file, and for who collects metrics.

Each command that works on a job does so by `remembered`, with a `RunMemory` around its work. That is begun in the
ledger before anything is sent; killed, it stays without an end. What goes on beside the run, every ten seconds a
sample, is no matter of the run: it neither delays nor fails it.

All that a run says passes here, so here its commands are written out: `bulksubmit resume` gets its job and its ledger.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread
from msgspec.structs import asdict, replace

from engine import __version__
from engine.commands import wiring
from engine.commands.configuration import hide_secret
from engine.commands.hooks import with_hooks
from engine.commands.paths import spelled, spelling
from engine.commands.result import DAMAGED, Result
from engine.ledger.base import Ledger
from engine.model.errors import RESUME, BulkSubmitError, Exit, cause_of
from engine.model.job import Job, JobState
from engine.model.outcome import Fate, Tally
from engine.model.runs import LOADING_NOTHING, PastRun, RunCounts, Sample, Standing
from engine.progress.events import Listener, Noticed, fan_out
from engine.progress.figures import RunFigures
from engine.progress.log_file import JobLog
from engine.progress.metrics import LoadMetrics, metrics_text, write_textfile
from engine.progress.redaction import redactor
from engine.progress.snapshot import Counts
from engine.progress.text import count, rate
from engine.run.context import Stop
from engine.run.in_flight import InFlight

N = TypeVar("N", int, float)
T = TypeVar("T")

SAMPLE_SECONDS = 10.0
MOST_SAMPLES = 360
"""Of a run: an hour of it. When they are so many, every second one is forgotten, and the next ones are twice as far
apart."""
METRICS_SECONDS = 60.0


async def remembered(  # noqa: PLR0913 - what a run is made of
    job: Job,
    ledger: Ledger,
    setup: wiring.Setup,
    emit: Listener,
    stop: Stop,
    work: Callable[[RunMemory], Awaitable[Result]],
    *,
    command: str,
    goes_on: str = "",
) -> Result:
    """Do the work of one run of a job that this process has locked: it is remembered, and the hooks hear of it.

    `command` and `goes_on`: as of `RunMemory`. Where it loads nothing, the metrics of the load stay as they are.
    """
    textfile = None if command in LOADING_NOTHING else setup.textfile
    async with RunMemory(job, ledger, emit, stop, command=command, textfile=textfile, goes_on=goes_on) as memory:
        done = partial(memory.spelled, partial(work, memory))
        return memory.end(await with_hooks(job, setup, memory.emit, stop, done, command=command))


class RunMemory:
    """What is remembered of one run, while the block lasts: `async with RunMemory(…) as memory`."""

    def __init__(  # noqa: PLR0913 - what a run is made of
        self,
        job: Job,
        ledger: Ledger,
        emit: Listener,
        stop: Stop,
        *,
        command: str,
        textfile: Path | None = None,
        goes_on: str = "",
    ) -> None:
        """Join the parts; `command` and `goes_on` are its word, and the words of the command that goes on with it."""
        self._job = job
        self._ledger = ledger
        self._command = command
        self._goes_on = goes_on or f"{command if command in LOADING_NOTHING else 'resume'} {job.name}"
        self._before = RunCounts()
        self._textfile = textfile
        self._redact = redactor(os.environ)
        self._figures = RunFigures(wiring.CLOCK.monotonic)
        self._log = JobLog(Path(job.output), wiring.CLOCK.monotonic, self._redact)
        self._run: PastRun
        self._result: Result | None = None
        self._told_of_textfile = False
        self._limit = 0
        """Of batches in flight, as the last sample had it."""
        hear = fan_out(emit, self._figures.hear, self._log.hear)
        self.emit = spelling(hear, ledger.address, self._goes_on)
        """Tells all who listen, the log of the job among them."""
        stop.goes_on = self._spelled(RESUME)

    def _spelled(self, text: str) -> str:
        return spelled(text, self._ledger.address, self._goes_on)

    async def __aenter__(self) -> Self:
        self._before = await self._numbers()
        number = len(await self._ledger.runs(self._job.name)) + 1
        self._run = replace(_begun(number, self._command), counts_before=self._before)
        await self._ledger.add_run(self._job.name, self._run)
        self._log.__enter__()
        run = self._run
        facts = {"run": run.number, "command": run.command, "host": run.host, "version": run.version}
        said = f"run {run.number} of job {self._job.name} begins"
        self._log.say(logging.INFO, said, event="RunBegun", pid=os.getpid(), **facts)
        await self._tell_metrics()
        return self

    async def _numbers(self) -> RunCounts:
        tally = await self._ledger.tally(self._job.name)
        return RunCounts.of_job(tally, await self._ledger.count_later(self._job.name) if tally.created else {})

    async def spelled(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do work of the run; what it ends with, a result or an error, names the exact command that goes on."""
        try:
            result = await work()
        except Exception as error:
            if isinstance(cause := cause_of(error), BulkSubmitError):
                cause.args = (self._spelled(str(cause)),)
            raise
        return replace(result, message=self._spelled(result.message))

    def end(self, result: Result) -> Result:
        """Take note of how the run ended, before the block does."""
        self._result = result
        return result

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._end(error)

    async def _end(self, error: BaseException | None) -> None:
        result, job = self._result, self._job.name
        if result is not None:
            code, reason, tally = result.exit_code, result.message, result.tally
        else:
            (code, reason), tally = _failure(error), None
        reason = self._redact(reason)
        self._log.say(
            logging.INFO if code == Exit.ALL_CREATED else logging.WARNING,
            f"run {self._run.number} of job {job} ends with exit code {code}{f': {reason}' if reason else ''}",
            event="RunEnded",
            run=self._run.number,
            exit_code=int(code),
            reason=reason,
        )
        await anyio.to_thread.run_sync(self._log.__exit__)
        counts = self._counts()
        self._run = replace(self._run, ended_at=wiring.CLOCK.now(), exit_code=int(code), reason=reason, counts=counts)
        with suppress(BulkSubmitError, *DAMAGED):  # the run itself has met what is wrong there
            now = RunCounts.of_job(result.tally, result.later) if result is not None else await self._numbers()
            self._run = replace(self._run, counts=counts.since(self._before, now))
        with suppress(BulkSubmitError):  # likewise
            await self._ledger.set_run(job, self._run)
            await self._keep_sample(self._sample(0, self._limit))  # of its last seconds: a short run has no other
        await self._tell_metrics(tally)

    async def beside(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work of a run that sends nothing, while samples are taken."""
        following = asyncio.ensure_future(self.follow())
        try:
            return await work()
        finally:
            following.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait((following,))

    async def follow(self, in_flight: InFlight | None = None) -> None:
        """Take samples and tell metrics until it is canceled. If that cannot be done, it is no matter of the run."""
        with suppress(Exception):
            async with anyio.create_task_group() as group:
                group.start_soon(self._take_samples, in_flight)
                if self._textfile is not None:
                    group.start_soon(self._tell_each_minute)

    async def _take_samples(self, in_flight: InFlight | None) -> None:
        self._limit = in_flight.limit if in_flight else 0
        seconds, kept = SAMPLE_SECONDS, 0
        while True:
            await wiring.CLOCK.sleep(seconds)
            with suppress(BulkSubmitError):
                await self._take_sample(in_flight)
            kept += 1
            if kept == MOST_SAMPLES:
                with suppress(BulkSubmitError):
                    await self._ledger.thin_samples(self._job.name, self._run.number)
                seconds, kept = 2 * seconds, kept // 2

    async def _take_sample(self, in_flight: InFlight | None) -> None:
        taken, self._limit = (in_flight.taken, in_flight.limit) if in_flight else (0, 0)
        sample = self._sample(taken, self._limit)
        now = self._figures.of_job
        told = f"{count(now.records)} read, {count(now.created)} created, {rate(sample.tasks_per_second)} tasks/s"
        self._log.say(logging.INFO, told, event="RunSampled", **asdict(sample))
        await self._keep_sample(sample)
        self._run = replace(self._run, counts=self._counts())
        await self._ledger.set_run(self._job.name, self._run)

    def _sample(self, taken: int, limit: int) -> Sample:
        """Return what was done since the last sample, without secrets."""
        sample = self._figures.sample(wiring.CLOCK.now(), taken, limit)
        return replace(
            sample,
            limit_reason=self._redact(sample.limit_reason),
            waits=self._hidden(sample.waits),
            retries=self._hidden(sample.retries),
        )

    async def _keep_sample(self, sample: Sample) -> None:
        await self._ledger.add_sample(self._job.name, self._run.number, sample)

    def _counts(self) -> RunCounts:
        """Return what the run has done so far, without secrets."""
        counts = self._figures.counts(self._log.warnings)
        return replace(
            counts,
            waits=self._hidden(counts.waits),
            retry_reasons=self._hidden(counts.retry_reasons),
            limit_steps=[replace(step, reason=self._redact(step.reason)) for step in counts.limit_steps],
        )

    def _hidden(self, sums: Mapping[str, N]) -> dict[str, N]:
        return {self._redact(reason): number for reason, number in sums.items()}

    async def _tell_each_minute(self) -> None:
        while True:
            await wiring.CLOCK.sleep(METRICS_SECONDS)
            self._run = replace(self._run, counts=self._counts())
            await self._tell_metrics()

    async def _tell_metrics(self, tally: Tally | None = None) -> None:
        if self._textfile is None:
            return
        numbers = tally or (self._figures.of_job if self._figures.of_job.records else None)
        if trouble := await tell_metrics(self._textfile, self._job, self._ledger, self._run, numbers):
            if not self._told_of_textfile:
                self.emit(Noticed(trouble))
            self._told_of_textfile = True


def _begun(number: int, command: str) -> PastRun:
    return PastRun(number, wiring.CLOCK.now(), os.uname().nodename, __version__, command=command)


def _failure(error: BaseException | None) -> tuple[int, str]:
    """Return exit code and reason of a run that ended by an exception."""
    if error is None:  # nobody has said how it ended: a defect of ours
        return Exit.ERROR, "it ended without a result"
    cause = cause_of(error)
    if isinstance(cause, BulkSubmitError):
        return cause.exit_status, str(cause)
    if isinstance(cause, Exception):
        return Exit.ERROR, f"unexpected error: {type(cause).__name__}: {cause}"
    return Exit.ERROR, f"the program that ran it has broken it off ({type(cause).__name__})"


async def remember_refusal(
    job: Job, ledger: Ledger, error: BulkSubmitError, textfile: Path | str | None, command: str
) -> None:
    """Remember a run that ended before it could begin: nobody may have read what it said."""
    error.args = (spelled(str(error), ledger.address, f"resume {job.name}"),)
    with suppress(BulkSubmitError):
        run = _begun(len(await ledger.runs(job.name)) + 1, command)
        reason = redactor(os.environ)(str(error))
        run = replace(run, ended_at=run.begun_at, exit_code=int(error.exit_status), reason=reason)
        await ledger.add_run(job.name, run)
        if textfile is None:
            textfile = wiring.load(job.config, hide_secret).textfile
        if textfile is not None:
            await tell_metrics(Path(textfile), job, ledger, run)


async def tell_metrics(
    textfile: Path, job: Job, ledger: Ledger, run: PastRun, numbers: Counts | Tally | None = None
) -> str:
    """Write the metrics of a job's load; return what is wrong with the file, if it cannot be written.

    `numbers`: those of the job as this process knows them, for a ledger that cannot be read.
    """
    load = job.family or job.name
    standing, seconds = Standing(last_success=None), run.counts.seconds
    with suppress(BulkSubmitError):
        standing = await ledger.standing(load)
        numbers, earlier = await counted_last(load, ledger)
        seconds = seconds or earlier
    if run.ended_at is not None:  # the ledger may not have taken that: a full disk is no reason to look good
        standing = replace(standing, last_completion=run.ended_at, exit_code=run.exit_code)
    return await write_metrics(textfile, load, standing, numbers, seconds)


async def counted_last(load: str, ledger: Ledger) -> tuple[Tally | None, Mapping[str, float]]:
    """Return the numbers of the newest job of a load of which anything was counted, and its last run's seconds.

    A job that has read nothing yet says nothing of the load: zeros would look as if there were no records.
    """
    for job in await ledger.jobs():
        if (job.family or job.name) == load and job.state is not JobState.REMOVED:
            tally = await ledger.tally(job.name)
            if tally.records or job.read_complete:
                runs = [run for run in await ledger.runs(job.name) if run.command not in LOADING_NOTHING]
                return tally, next((run.counts.seconds for run in reversed(runs) if run.counts.seconds), {})
    return None, {}


async def write_metrics(
    textfile: Path, load: str, standing: Standing, numbers: Counts | Tally | None, seconds: Mapping[str, float]
) -> str:
    """Write the metrics of a load; return what is wrong with the file, if it cannot be written."""
    records = {} if numbers is None else {fate.value: getattr(numbers, fate.value) for fate in Fate}
    metrics = LoadMetrics(load, __version__, standing, records, seconds)
    try:
        await anyio.to_thread.run_sync(lambda: write_textfile(textfile, metrics_text(metrics)))
    except (OSError, ImportError) as error:  # what writes them may not be installed
        why = getattr(error, "strerror", None) or error
        return f"metrics: {textfile} cannot be written ({why}); the job goes on without"
    return ""
