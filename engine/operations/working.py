"""Work on a job: submit, resume, retry, cancel. A job name or an order enters, the result of the run leaves."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from engine import assembly
from engine.configuration import read_config
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.errors import BulkSubmitError, DeadlineReached, Exit, JobError, Refused, StrictRejects
from engine.model.jobs import Job, JobState, check_job_name
from engine.model.outcomes import Settlement, Tally
from engine.model.records import Source
from engine.model.submissions import UNSENT, State, Submission
from engine.observe.events import JobEnded, JobStarted, Listener
from engine.operations.retrying import retry_source
from engine.operations.values import Order, Result
from engine.pipeline import Pipeline
from engine.ports import Clock, Ledger
from engine.reading.sources import check_unchanged, find_sources, spool
from engine.reporting import Reports, write_reports
from engine.run import Run, Stop
from engine.transport.clock import SystemClock

CLOCK: Clock = SystemClock()
NO_HOOKS = Hooks()
STANDARD_INPUT = "-"
CANCELED = "canceled before it was sent"


async def submit(order: Order, ledger_path: Path, emit: Listener, stop: Stop, *, hooks: Hooks = NO_HOOKS) -> Result:
    """Make a job of the order and work on it until it is finished or stopped; `hooks` see every durable step.

    Raises:
        ConfigError, SourceError, JobError: nothing was sent.
        JobLocked: another process works on a job of that name.
    """
    text = read_config(order.config)
    setup = assembly.load(text)
    name = check_job_name(order.job or f"{order.config.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    output = (order.output or ledger_path.parent / name).absolute()
    job = Job(name, setup.service.kind, text, (), str(output), until=order.until, created_at=CLOCK.now())
    assembly.rehearse(setup, job)
    async with SqliteLedger.open(ledger_path, CLOCK, hooks=hooks) as ledger:
        with ledger.lock(name):
            await _refuse_taken(ledger, name)
            job = replace(job, sources=await _sources(order, setup, output))
            await ledger.create_job(job)
            return await _work(job, ledger, setup, emit, stop, strict=order.strict)


async def resume(name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result:
    """Go on with a job where it stopped; a finished one is reported as it is.

    Raises:
        JobError: there is no such job, or it was canceled.
        SourceChanged: a source is not what it was.
        JobLocked: another process works on it.
    """
    async with SqliteLedger.open(ledger_path, CLOCK) as ledger:
        job = await ledger.job(name)
        with ledger.lock(name):
            return await _resume(job, ledger, emit, stop)


async def retry(name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result:
    """Submit the failed and rejected records of a job again, as a job of its own.

    The new job is `NAME.retry`; it takes its records from the `rejects.ndjson` of the old one, where they can be mended
    first. Asked again, it goes on with that job instead of sending its records a second time.

    Raises:
        JobError: the job is not finished, or nothing of it can be tried again.
    """
    async with SqliteLedger.open(ledger_path, CLOCK) as ledger:
        parent = await ledger.job(name)
        child = check_job_name(f"{name}.retry")
        with ledger.lock(child):
            existing = [job for job in await ledger.jobs() if job.name == child]
            if existing:
                return await _resume(existing[0], ledger, emit, stop)
            if (await ledger.tally(name)).unresolved or not parent.read_complete:
                raise JobError(f"job {name!r} is not finished; `bulksubmit resume {name}` first")
            source = await retry_source(parent, Path(parent.output).with_name(child))
            text = parent.config
            job = Job(
                child,
                parent.service,
                text,
                (source,),
                str(Path(source.path).parent),
                parent=name,
                attempt=parent.attempt + 1,
                until=parent.until,
                created_at=CLOCK.now(),
            )
            await ledger.create_job(job)
            return await _work(job, ledger, assembly.load(text), emit, stop)


async def cancel(name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result:
    """Have the service create nothing more of a job, and settle what was never sent.

    Raises:
        JobError: there is no such job, or it is finished.
        JobLocked: a process works on it; stop that first.
    """
    started = CLOCK.monotonic()
    async with SqliteLedger.open(ledger_path, CLOCK) as ledger:
        job = await ledger.job(name)
        with ledger.lock(name):
            if job.state is JobState.FINISHED:
                raise JobError(f"job {name!r} is finished; there is nothing left to cancel")
            setup = assembly.load(job.config)
            await ledger.set_job_state(name, JobState.CANCELED)
            async with assembly.online(setup, job, emit, CLOCK) as service:
                run = Run(job, service, ledger, CLOCK, random.random, emit, stop)
                await _cancel_batches(run)
                error = await assembly.pipeline(setup, run, reading=False).work()
            return await summarize(job, ledger, started, error)


async def _resume(job: Job, ledger: Ledger, emit: Listener, stop: Stop) -> Result:
    if job.state is JobState.FINISHED:
        return await summarize(job, ledger, CLOCK.monotonic(), None)
    if job.state is JobState.CANCELED:
        raise JobError(f"job {job.name!r} was canceled; submit its source as a new job")
    check_unchanged(job.sources)
    return await _work(job, ledger, assembly.load(job.config), emit, stop)


async def _work(
    job: Job, ledger: Ledger, setup: assembly.Setup, emit: Listener, stop: Stop, *, strict: bool = False
) -> Result:
    started = CLOCK.monotonic()
    await _announce(job, ledger, emit)
    async with assembly.online(setup, job, emit, CLOCK) as service:
        run = Run(job, service, ledger, CLOCK, random.random, emit, stop)
        error = await _within_deadline(assembly.pipeline(setup, run, strict=strict), run, setup)
        if error is None:
            await _cancel_orphans(run)
    if isinstance(error, StrictRejects):
        await ledger.set_job_state(job.name, JobState.CANCELED)
    result = await summarize(job, ledger, started, error)
    emit(JobEnded(job.name, result.state))
    return result


async def _announce(job: Job, ledger: Ledger, emit: Listener) -> None:
    tally, last = await ledger.tally(job.name), await ledger.last_batch(job.name)
    read_bytes = last.end.offset if last else 0
    emit(JobStarted(job.name, job.size_bytes, read_bytes, tally))


async def _within_deadline(pipeline: Pipeline, run: Run, setup: assembly.Setup) -> BulkSubmitError | None:
    async def watch() -> None:
        if (seconds := setup.settings.send.deadline_seconds) is not None:
            await CLOCK.sleep(seconds)
            run.end(DeadlineReached())

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        error = await pipeline.work()
        group.cancel_scope.cancel()
    return error


async def _cancel_orphans(run: Run) -> None:
    """Tidy up the empty batches that were staged twice; what cannot be cancelled stays empty and is reported."""
    for remote_id in await run.ledger.orphans(run.job.name):
        try:
            await run.service.cancel(remote_id)
        except BulkSubmitError:
            return


async def _cancel_batches(run: Run) -> None:
    async for batch, submission in run.ledger.batches(run.job.name, UNSENT | {State.RELEASED}):
        if submission.remote_id is not None:
            await _cancel_remote(run, submission.remote_id)
        if submission.state in {State.FROZEN, State.STAGING, State.STAGED}:
            settled = Submission(batch.sequence, State.SETTLED, submission.remote_id, note=CANCELED)
            refused = Settlement.refused(batch.count, CANCELED)
            await run.ledger.settle(run.job.name, settled, refused, expected=submission.state)
        elif submission.state is State.RELEASING:
            # It may have started: followed, it tells. Inline there is nobody to ask.
            state = State.RELEASED if submission.remote_id else State.UNCERTAIN
            moved = Submission(
                batch.sequence, state, submission.remote_id, note="canceled while its release was unclear"
            )
            await run.ledger.move(run.job.name, moved, expected=submission.state)


async def _cancel_remote(run: Run, remote_id: str) -> None:
    try:
        await run.service.cancel(remote_id)
    except Refused:
        return  # finished in the meantime; following it shows what was created


async def summarize(job: Job, ledger: Ledger, started: float, error: BulkSubmitError | None) -> Result:
    """Write the reports of a job and return its numbers; an open job whose records all have their fate is finished."""
    tally = await ledger.tally(job.name)
    job = await ledger.job(job.name)
    if error is None and job.state is JobState.OPEN and job.read_complete and not tally.unresolved:
        await ledger.set_job_state(job.name, JobState.FINISHED)
        job = await ledger.job(job.name)
    reports, trouble = await _reports(job, ledger)
    return Result(
        job.name,
        job.state,
        tally,
        CLOCK.monotonic() - started,
        exit_code(tally, error),
        "; ".join(filter(None, [str(error) if error else "", trouble])),
        reports.outcomes if reports else None,
        reports.rejects if reports else None,
        len(await ledger.orphans(job.name)),
    )


async def _reports(job: Job, ledger: Ledger) -> tuple[Reports | None, str]:
    try:
        offline = assembly.load_offline(job)
        reports = await write_reports(job, ledger, offline.service.task_url, offline.payloads(job).as_json)
    except (OSError, BulkSubmitError) as error:
        return None, f"the reports could not be written ({error}); `bulksubmit report {job.name}` writes them later"
    return reports, ""


def exit_code(tally: Tally, error: BulkSubmitError | None) -> int:
    """Return what tells a scheduler how a run ended."""
    if error is not None:
        return error.exit_status
    if tally.unresolved:
        return Exit.STOPPED_EARLY
    if tally.uncertain:
        return Exit.SOME_UNCERTAIN
    return Exit.SOME_FAILED if tally.failed or tally.rejected else Exit.ALL_CREATED


async def _refuse_taken(ledger: Ledger, name: str) -> None:
    if any(job.name == name for job in await ledger.jobs()):
        raise JobError(f"job {name!r} exists; `bulksubmit resume {name}` goes on with it, or choose another --job")


async def _sources(order: Order, setup: assembly.Setup, output: Path) -> tuple[Source, ...]:
    settings = setup.settings.source
    if order.format is not None:
        settings = settings.model_copy(update={"format": order.format})
    if list(order.sources) == [STANDARD_INPUT]:
        return (await spool(sys.stdin.buffer, output / "standard-input", settings),)
    if STANDARD_INPUT in order.sources:
        raise JobError("standard input (-) cannot be mixed with files; submit it as a job of its own")
    return await anyio.to_thread.run_sync(partial(find_sources, order.sources, settings))
