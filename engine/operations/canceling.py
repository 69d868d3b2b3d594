"""A job that shall not go on in, the fate of each of its records out; and what else is tidied up at the service."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread

from engine import assembly
from engine.model.batches import Batch
from engine.model.errors import CallFailed, JobError, Refused, Unauthorized
from engine.model.jobs import JobState
from engine.model.outcomes import Settlement
from engine.model.submissions import UNSENT, State, Submission
from engine.observe.events import Listener
from engine.operations.finishing import CLOCK, summarize
from engine.operations.places import open_ledger
from engine.operations.values import Result
from engine.ports import Standing
from engine.run import Run, Stop, unless_stopped

CANCELED = "canceled before it was sent"
TIDY_SECONDS = 5.0
"""Longest that a finished run waits for empty batches to be cancelled; they do no harm if they stay."""


async def cancel(name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result:
    """Have the service create nothing more of a job, and settle what was never sent; interrupted, it may be repeated.

    Raises:
        JobError: there is no such job, or it is finished.
        JobLocked: a process works on it; stop that first.
    """
    started = CLOCK.monotonic()
    async with open_ledger(ledger_path) as ledger:
        job = await ledger.job(name)
        with ledger.lock(name):
            if job.state is JobState.FINISHED:
                raise JobError(f"job {name!r} is finished; there is nothing left to cancel")
            setup = assembly.load(job.config)
            await ledger.set_job_state(name, JobState.CANCELED)
            job = replace(job, state=JobState.CANCELED)
            async with assembly.online(setup, job, emit, CLOCK) as service:
                run = Run(job, service, ledger, CLOCK, random.random, emit, stop)
                try:
                    await unless_stopped(stop, lambda: cancel_batches(run))
                except CallFailed as failure:
                    run.end(failure)
                error = await assembly.pipeline(setup, run).work()
                await cancel_orphans(run)
            return await summarize(job, ledger, started, error)


async def cancel_batches(run: Run) -> None:
    """Tell the service to stop, and settle every batch that was never released."""
    async for batch, submission in run.ledger.batches(run.job.name, UNSENT | {State.RELEASED}):
        if submission.state is State.STAGING:
            submission = replace(submission, remote_id=await _find(run, batch))  # noqa: PLW2901 - the same, better known
        started = submission.state is State.RELEASED or (
            submission.state is State.RELEASING and await _was_released(run, submission)
        )
        if submission.remote_id is not None:
            await _cancel_remote(run, submission.remote_id)
        if not started:
            settled = replace(submission, state=State.SETTLED, note=CANCELED)
            refused = Settlement.refused(batch.count, CANCELED)
            await run.ledger.settle(run.job.name, settled, refused, expected=submission.state)
        elif submission.state is State.RELEASING:
            # Followed, it tells what was created. Inline there is nobody to ask.
            state = State.RELEASED if submission.remote_id else State.UNCERTAIN
            moved = replace(submission, state=state, note="canceled while its release was unclear")
            await run.ledger.move(run.job.name, moved, expected=submission.state)


async def _find(run: Run, batch: Batch) -> str | None:
    """Find what staging left at the service before its answer was lost, so that it is cancelled, too."""
    reader = assembly.load_offline(run.job).payloads(run.job)
    payload = await anyio.to_thread.run_sync(reader.read, batch)
    return await run.service.find(batch, payload)


async def _was_released(run: Run, submission: Submission) -> bool:
    if submission.remote_id is None:
        return True  # inline: for all we know
    return await run.service.standing(submission.remote_id) is not Standing.WAITING


async def _cancel_remote(run: Run, remote_id: str) -> None:
    try:
        await run.service.cancel(remote_id)
    except Unauthorized:
        raise
    except Refused:
        return  # finished in the meantime; following it shows what was created


async def cancel_orphans(run: Run) -> None:
    """Tidy up the empty batches that were staged and given up; what cannot be cancelled now is reported."""
    with anyio.move_on_after(TIDY_SECONDS):
        await unless_stopped(run.stop, lambda: _cancel_orphans(run))


async def _cancel_orphans(run: Run) -> None:
    for remote_id in await run.ledger.orphans(run.job.name):
        try:
            await run.service.cancel(remote_id)
        except Refused:
            continue
        except CallFailed:
            return
        await run.ledger.forget_orphan(run.job.name, remote_id)
