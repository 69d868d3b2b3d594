"""Work on a job: submit, resume, retry. An order or a job's name enters, the result of the run leaves."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio

from engine.commands import wiring
from engine.commands.cancel import cancel_batches, cancel_orphans, find_extras, is_unsent, take_back
from engine.commands.orders import Order, Result
from engine.commands.paths import claim_output, open_ledger
from engine.commands.result import CLOCK, summarize
from engine.commands.retry import check_retried, retry_name, retry_source, uncertain_in, uncertain_source
from engine.ledger.base import Ledger
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.batch import Batch
from engine.model.errors import BulkSubmitError, DeadlineReached, JobError, SourceChanged, StrictRejects
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Tally
from engine.model.record import Source
from engine.model.submission import UNSENT, State
from engine.progress.events import JobEnded, JobStarted, Listener, fan_out
from engine.run.context import Run, Stop, unless_stopped
from engine.run.pipeline import Pipeline
from engine.source.sources import check_unchanged, find_sources, spool

NO_HOOKS = Hooks()
STANDARD_INPUT = "-"
_WriteSource: TypeAlias = Callable[[Path], Awaitable[Source]]
"""Folder → the records of a new job, written there."""


async def submit(order: Order, ledger_path: Path, emit: Listener, stop: Stop, *, hooks: Hooks = NO_HOOKS) -> Result:
    """Make a job of the order and work on it until it is finished or stopped; `hooks` see every durable step.

    Raises:
        ConfigError, SourceError, JobError: nothing was sent.
        JobLocked: another process works on a job of that name.
        Interrupted: while standard input was spooled; there is no job.
    """
    text = wiring.read_config(order.config)
    setup = wiring.load(text, processes=order.processes)
    name = check_job_name(order.job or f"{order.config.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    output = (order.output or ledger_path.parent / name).absolute()
    job = Job(
        name, setup.service.kind, text, (), str(output), until=order.until, strict=order.strict, created_at=CLOCK.now()
    )
    wiring.check_parts(setup, job)
    async with SqliteLedger.open(ledger_path, CLOCK, hooks=hooks) as ledger:
        with ledger.lock(name):
            if any(job.name == name for job in await ledger.jobs()):
                raise JobError(
                    f"job {name!r} exists; `bulksubmit resume {name}` goes on with it, or choose another --job"
                )
            await claim_output(output, ledger)
            job = replace(job, sources=await _sources(order, setup, output, stop))
            await ledger.create_job(job)
            return await work_on(job, ledger, setup, emit, stop)


async def resume(
    name: str,
    ledger_path: Path,
    emit: Listener,
    stop: Stop,
    *,
    config: Path | None = None,
    processes: int | None = None,
) -> Result:
    """Go on with a job where it stopped; a finished one is reported as it is.

    Args:
        name: of the job.
        ledger_path: where it is remembered.
        emit: is told what happens.
        stop: ends the run early.
        config: from now on the job's configuration; addresses, secrets and `[send]` may differ, and where tasks go
            while nothing was created or released.
        processes: that read beside this one; as configured where left out.

    Raises:
        JobError: there is no such job, or it was canceled.
        ConfigError: the new configuration would make other batches.
        SourceChanged: a source is not what it was.
        JobLocked: another process works on it.
    """
    async with open_ledger(ledger_path) as ledger:
        job = await ledger.job(name)
        with ledger.lock(name):
            if config is not None:
                job = replace(job, config=await _mended(job, wiring.read_config(config), ledger, emit, stop))
                await ledger.set_config(name, job.config)
            return await _resume(job, ledger, emit, stop, processes=processes)


async def _mended(job: Job, config: str, ledger: Ledger, emit: Listener, stop: Stop) -> str:
    """Return the configuration with which a job goes on; what it has staged at another place is canceled first.

    Raises:
        ConfigError: it cannot go on with it.
        CallFailed: what it has staged could not be canceled.
    """
    drafts = wiring.load_offline(job).service.drafting is not None
    text = wiring.replace_config(job.config, config, unsent=await is_unsent(job, ledger, drafts=drafts))
    if wiring.goes_elsewhere(job.config, text):
        setup = wiring.load(job.config)
        async with wiring.online(setup, job, emit, CLOCK) as service:
            run = Run(job, service, ledger, CLOCK, random.random, emit, stop, wiring.quiet_time(job, service))
            await take_back(run)
    return text


async def retry(name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result:
    """Submit the failed and rejected records of a job again, as a job of its own.

    The new job is `NAME.retry`; it takes its records from the `rejects.ndjson` of the old one, where they can be mended
    first. Asked again, it goes on with that job instead of sending its records a second time.

    Raises:
        JobError: the job is not finished, or nothing of it can be tried again.
    """
    async with open_ledger(ledger_path) as ledger:
        parent = await ledger.job(name)
        child = retry_name(parent)
        with ledger.lock(child):
            existing = [job for job in await ledger.jobs() if job.name == child]
            if existing:
                check_retried(parent, existing[0])
                note = f"{child} ran before; to try its own rejects again, mend them and `bulksubmit retry {child}`"
                return await _resume(existing[0], ledger, emit, stop, note=note)
            if parent.state is JobState.OPEN:
                raise JobError(f"job {name!r} is not finished; `bulksubmit resume {name}` first")
            return await _work_on_child(parent, partial(retry_source, parent), ledger, emit, stop)


async def _work_on_child(parent: Job, source: _WriteSource, ledger: Ledger, emit: Listener, stop: Stop) -> Result:
    """Make the job that tries records of `parent` again, its name locked, and work on it."""
    name = retry_name(parent)
    folder = Path(parent.output).with_name(name)
    await claim_output(folder, ledger)
    job = replace(
        parent,
        name=name,
        sources=(await source(folder),),
        output=str(folder),
        state=JobState.OPEN,
        read_complete=False,
        parent=parent.name,
        attempt=parent.attempt + 1,
        learnt="",
        slowest_start=0.0,
        lost_stages=0,
        created_at=CLOCK.now(),
    )
    await ledger.create_job(job)
    return await work_on(job, ledger, wiring.load(job.config), emit, stop)


async def send_again(name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result:
    """Send what is uncertain of a job again, by the word of a person: what arrived is created a second time.

    That are its uncertain batches, in their place; where there are none, the uncertain records of settled batches, as
    the job `NAME.retry`. Of a job that is not finished, it is what the service has accepted and does not begin with.

    Raises:
        JobError: nothing of it is uncertain, nor waits, or there is a job `NAME.retry`.
    """
    async with open_ledger(ledger_path) as ledger:
        with ledger.lock(name):
            job = await ledger.job(name)
            found = await uncertain_in(job, ledger)
            if found.job != name:
                return await _send_records_again(job, ledger, emit, stop)
            check_unchanged(job.sources, times=False)
            setup = wiring.load(job.config)
            # First: killed in between, a job that seems finished would leave the batches unsent for good.
            await ledger.set_job_state(name, JobState.OPEN)
            job = replace(job, state=JobState.OPEN)
            return await work_on(job, ledger, setup, emit, stop, again_by_person=found.sequences)


async def _send_records_again(job: Job, ledger: SqliteLedger, emit: Listener, stop: Stop) -> Result:
    """Make a job of the uncertain records of settled batches, and work on it."""
    with ledger.lock(retry_name(job)):
        return await _work_on_child(job, partial(uncertain_source, job, ledger), ledger, emit, stop)


async def _resume(
    job: Job, ledger: Ledger, emit: Listener, stop: Stop, *, note: str = "", processes: int | None = None
) -> Result:
    if job.state is JobState.CANCELED:
        raise JobError(f"job {job.name!r} was canceled; `bulksubmit retry {job.name}` sends what was not created")
    # Records that a settled batch left uncertain stay so: there is nothing that the service could be asked again.
    tally = await ledger.tally(job.name)
    if job.state is JobState.FINISHED and not (tally.states.get(State.UNCERTAIN) or tally.unresolved):
        return await summarize(job, ledger, CLOCK.monotonic(), None, note=note, rewrite=False)
    changed = None
    if not job.read_complete or not UNSENT.isdisjoint(tally.states):  # what was released is followed in any case
        changed = _changed(job, tally)
    if job.state is JobState.FINISHED:
        # First: what no search finds is sent again. Killed in between, a job that seems finished would leave it so.
        await ledger.set_job_state(job.name, JobState.OPEN)
        job = replace(job, state=JobState.OPEN)
    return await work_on(job, ledger, wiring.load(job.config, processes=processes), emit, stop, changed=changed)


def _changed(job: Job, tally: Tally) -> SourceChanged | None:
    """Return how the sources have changed, where something of the job can be followed without them.

    Raises:
        SourceChanged: they have, and nothing is.
    """
    try:
        check_unchanged(job.sources, times=not job.read_complete)
    except SourceChanged as error:
        if not tally.states.get(State.RELEASED):
            raise
        return error
    return None


async def work_on(  # noqa: PLR0913 - what a run is made of
    job: Job,
    ledger: Ledger,
    setup: wiring.Setup,
    emit: Listener,
    stop: Stop,
    *,
    pace: wiring.PlanPace = wiring.at_once,
    again_by_person: frozenset[int] = frozenset(),
    changed: SourceChanged | None = None,
) -> Result:
    """Work on a job that this process has locked until it is finished or stopped, and write its reports.

    `again_by_person`: sequences of the batches that a person has sent again, whatever may come twice. `changed`: the
    sources are not what they were, so only what was released is followed.
    """
    started = CLOCK.monotonic()
    last = await ledger.last_batch(job.name)
    with wiring.standby(setup, job, last) as standby:
        await _announce(job, last, ledger, emit)
        in_flight = wiring.in_flight(setup, CLOCK, emit)
        async with wiring.online(setup, job, fan_out(emit, in_flight.hear), CLOCK) as service:
            quiet = wiring.quiet_time(job, service)
            run = Run(job, service, ledger, CLOCK, random.random, emit, stop, quiet, again_by_person, changed)
            run = await _learnt(run)
            pipeline = wiring.pipeline(setup, run, in_flight, pace, standby)
            error = stop.error or await _within_deadline(pipeline, run, setup) or changed
            note = ""
            if error is None:
                await cancel_orphans(run)
                note = await find_extras(run)
            if isinstance(error, StrictRejects):
                await ledger.set_job_state(job.name, JobState.CANCELED)
                await cancel_batches(replace(run, job=replace(run.job, state=JobState.CANCELED)))
    result = await summarize(job, ledger, started, error, note=note)
    emit(JobEnded(job.name, result.state))
    return result


async def _learnt(run: Run) -> Run:
    """Return the run with what the service says once in the life of a job, before it decides over any payload."""
    name = run.job.name
    marking = run.service.marking
    if marking is None or run.job.learnt or await run.ledger.last_batch(name) is not None:
        return run
    try:
        learnt = await unless_stopped(run.stop, marking.learn)
    except BulkSubmitError as error:
        run.end(error)
        return run
    if learnt is None:
        return run
    await run.ledger.set_learnt(name, learnt)
    return replace(run, job=replace(run.job, learnt=learnt))


async def _announce(job: Job, last: Batch | None, ledger: Ledger, emit: Listener) -> None:
    read_bytes = last.end.offset if last else 0
    emit(JobStarted(job.name, job.size_bytes, read_bytes, await ledger.tally(job.name)))


async def _within_deadline(pipeline: Pipeline, run: Run, setup: wiring.Setup) -> BulkSubmitError | None:
    async def watch() -> None:
        if (seconds := setup.settings.send.deadline_seconds) is not None:
            await CLOCK.sleep(seconds)
            run.end(DeadlineReached())

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        error = await pipeline.work()
        group.cancel_scope.cancel()
    return error


async def _sources(order: Order, setup: wiring.Setup, output: Path, stop: Stop) -> tuple[Source, ...]:
    settings = wiring.source_settings(setup, order.format)
    if list(order.sources) != [STANDARD_INPUT]:
        return await anyio.to_thread.run_sync(partial(find_sources, order.sources, settings))
    spooled = output / "standard-input"
    source = await unless_stopped(stop, lambda: spool(sys.stdin.buffer, spooled, settings))
    if stop.error is not None:
        # Whoever wrote to us may have been interrupted, too: an end of input now is no proof that this is all.
        spooled.unlink(missing_ok=True)
        raise stop.error
    assert source is not None  # noqa: S101 - only a stop leaves it out
    return (source,)
