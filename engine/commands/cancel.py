"""Cancel a job, and tidy up at the service what a run has left there; `submit` does the latter at its end, too."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import anyio
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.endings import tells_end
from engine.commands.paths import open_ledger
from engine.commands.result import Result, summarize
from engine.commands.runs import RunMemory, remembered
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import CallFailed, JobError, JobLocked, JobRefused, Refused, Stopped
from engine.model.job import Job, JobState
from engine.model.next_step import Action, next_step
from engine.model.runs import CANCEL
from engine.model.submission import State
from engine.progress.events import Listener, unheard
from engine.progress.text import count
from engine.run.context import Run, Stop, doubt_from_ledger, pause_unless_stopped, unless_stopped

CANCELED = "canceled before it was sent"
"""What jobs that an older bulksubmit has canceled say of records that were not sent; today those are unresolved."""
_PLAIN = frozenset({State.STAGED, State.RELEASED})
"""States in which the service has something, and no answer is out: it is certain what it was asked for."""
_UNSENT = frozenset({State.FROZEN, State.STAGING, State.STAGED, State.SETTLED, State.SPLIT})
MOST_SHOWN = 5
"""Names that a message spells out."""
_END_SECONDS = 60.0
"""Within which a process ends that sees that its job is canceled: it lets calls finish, and writes its reports."""
_LOOK_SECONDS = 0.5
"""Between two looks whether it has."""
TIDY_SECONDS = 5.0
"""Longest that a finished run waits for empty batches to be canceled; they do no harm if they stay."""


@tells_end
async def cancel(
    name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER, emit: Listener = unheard, stop: Stop | None = None
) -> Result:
    """Have the service create nothing more of a job; interrupted, it may be repeated.

    What was not sent stays frozen and unresolved: `resume` can go on with it later. Of a job that several processes
    send, all of them end first: each sees soon that it is canceled.

    Raises:
        JobError: there is no such job, or it is finished.
        JobLocked: a process works on it, and does not end; stop that first.
    """
    stop = stop or Stop()
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        with await _taken_over(job, opened, stop):
            job = await opened.job(name)  # as whoever held it has left it
            if job.state is JobState.FINISHED:
                raise JobError(f"job {name!r} is finished; there is nothing left to cancel")
            setup = wiring.load(job.config)
            work = partial(_cancel, job, opened, setup, stop)
            return await remembered(job, opened, setup, emit, stop, work, command=CANCEL)


async def _taken_over(job: Job, ledger: Ledger, stop: Stop) -> ExitStack:
    """Return the lock of a job, which is free: where processes share it, who holds it is told to end.

    Raises:
        JobLocked: somebody holds it still.
    """
    until = wiring.CLOCK.monotonic() + _END_SECONDS
    while True:
        with ExitStack() as held:
            try:
                held.enter_context(ledger.lock(job.name))
            except JobLocked:
                if not ledger.shares_jobs or wiring.CLOCK.monotonic() > until:
                    raise
            else:
                return held.pop_all()
        await ledger.set_job_state(job.name, JobState.CANCELED, expected=JobState.OPEN)
        if not await pause_unless_stopped(stop, wiring.CLOCK, _LOOK_SECONDS):
            raise stop.error or Stopped


async def _cancel(job: Job, ledger: Ledger, setup: wiring.Setup, stop: Stop, memory: RunMemory) -> Result:
    started = wiring.CLOCK.monotonic()
    await ledger.set_job_state(job.name, JobState.CANCELED)
    job = replace(job, state=JobState.CANCELED)
    async with wiring.open_run(setup, job, ledger, memory.emit, stop) as run:
        if ledger.shares_jobs:
            await unless_stopped(stop, wiring.shards_of(setup, run).alone)
            await ledger.open_shards(job.name, parked=True)  # what is in doubt of them is asked about, too
        try:
            await unless_stopped(stop, lambda: cancel_batches(run))
        except CallFailed as failure:
            run.end(failure)
        error = await memory.beside(wiring.pipeline(setup, run).work)
        await cancel_orphans(run)
    return await summarize(job, ledger, started, error, setup=setup)


async def cancel_batches(run: Run) -> None:
    """Have the service stop, and give up what is staged there: those batches are frozen again.

    A draft that cannot be deleted stays staged, so that it is known. What is in doubt is left to the recovery of the
    run that follows: there it is canceled, too. What is frozen and may have arrived all the same, such as half of a
    lost batch, is uncertain.
    """
    async for batch, submission in run.ledger.batches(run.job.name, _PLAIN):
        doubt = doubt_from_ledger(run, submission)
        if next_step(doubt, run.settle_time.seconds).action is Action.CANCEL:
            confirmed = await _cancel_remote(run, str(submission.remote_id))
            if confirmed and submission.state is State.STAGED:
                await run.move(batch, submission, State.FROZEN, note="canceled")
    if await run.ledger.may_have_arrived(run.job.name):
        async for batch, submission in run.ledger.batches(run.job.name, frozenset({State.FROZEN})):
            if submission.sent_at is not None:
                note = "an earlier attempt may have arrived, and nothing more is sent"
                await run.move(batch, submission, State.UNCERTAIN, note=note)


async def _cancel_remote(run: Run, remote_id: str) -> bool:
    if run.service.canceling is None:
        return False
    try:
        await run.service.canceling.cancel(remote_id)
    except Refused:
        return False  # finished in the meantime; following it shows what was created
    return True


async def is_unsent(job: Job, ledger: Ledger, *, drafts: bool) -> bool:
    """Return whether nothing of a job was created or released; `drafts`: people see what its service stages.

    Then a call to stage whose answer is out may have made something.
    """
    tally = await ledger.tally(job.name)
    states = {state for state, number in tally.states.items() if number}
    doubtful = {State.STAGING} if drafts else set()
    if tally.created or tally.uncertain or job.lost_stages or not states <= _UNSENT - doubtful:
        return False
    return not await ledger.may_have_arrived(job.name)


async def take_back(run: Run) -> None:
    """Cancel what was staged and not released, and have it sent from its beginning.

    Raises:
        CallFailed: the service cannot be asked to, or declines where people would see what stays.
    """
    async for batch, submission in run.ledger.batches(run.job.name, frozenset({State.STAGING, State.STAGED})):
        if submission.remote_id is not None:
            await _take_back(run, submission.remote_id)
        await run.move(batch, submission, State.FROZEN, note="it goes elsewhere")
    for remote_id in await run.ledger.orphans(run.job.name):
        await _take_back(run, remote_id)
        await run.ledger.forget_orphan(run.job.name, remote_id)


async def _take_back(run: Run, remote_id: str) -> None:
    if not await _cancel_remote(run, remote_id) and run.service.drafting:
        raise JobRefused(f"{remote_id} was staged and cannot be canceled; cancel it by hand, or go on without a change")


async def cancel_orphans(run: Run) -> None:
    """Tidy up the empty batches that were staged and given up; what cannot be canceled now is reported."""
    with anyio.move_on_after(TIDY_SECONDS):
        await unless_stopped(run.stop, lambda: _cancel_orphans(run))


async def find_extras(run: Run) -> str:
    """Say what calls whose answer was lost have left at the service beside what is known; "" if nothing.

    They are only named: people copy drafts, and a copy has our client reference as well.
    """
    job = await run.ledger.job(run.job.name)
    drafting = run.service.drafting
    if not job.lost_stages or drafting is None:
        return ""
    try:
        found = await unless_stopped(run.stop, lambda: drafting.find_extras(partial(run.ledger.batch, job.name)))
    except CallFailed as failure:
        return f"answers were lost, and what they may have left at the service could not be listed ({failure})"
    if not found:
        return ""
    shown = ", ".join(found[:MOST_SHOWN]) + (", …" if len(found) > MOST_SHOWN else "")
    return (
        f"{count(len(found), 'task')} at the service {'has' if len(found) == 1 else 'have'} a mark of this job and "
        f"belong{'s' if len(found) == 1 else ''} to no outcome: {shown}. An answer was lost, or somebody "
        "copied a task; delete what nobody needs"
    )


async def _cancel_orphans(run: Run) -> None:
    canceling = run.service.canceling
    if canceling is None:
        return
    for remote_id in await run.ledger.orphans(run.job.name):
        try:
            await canceling.cancel(remote_id)
        except Refused:
            continue
        except CallFailed:
            return
        await run.ledger.forget_orphan(run.job.name, remote_id)
