"""A job that shall not go on in, the fate of each of its records out; and what else is tidied up at the service."""

from __future__ import annotations

import random
from pathlib import Path

import anyio

from engine import assembly
from engine.model.errors import CallFailed, JobError, Refused, Unauthorized
from engine.model.jobs import JobState
from engine.model.outcomes import Settlement
from engine.model.submissions import UNSENT, State, Submission
from engine.observe.events import Listener
from engine.operations.finishing import CLOCK, summarize
from engine.operations.places import open_ledger
from engine.operations.values import Result
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
            async with assembly.online(setup, job, emit, CLOCK) as service:
                run = Run(job, service, ledger, CLOCK, random.random, emit, stop)
                try:
                    await unless_stopped(stop, lambda: cancel_batches(run))
                except CallFailed as failure:
                    run.end(failure)
                error = await assembly.pipeline(setup, run, reading=False).work()
            return await summarize(job, ledger, started, error)


async def cancel_batches(run: Run) -> None:
    """Tell the service to stop, and settle every batch that was never released."""
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
            note = "canceled while its release was unclear"
            moved = Submission(batch.sequence, state, submission.remote_id, note=note)
            await run.ledger.move(run.job.name, moved, expected=submission.state)


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
