"""Finds the job that has taken the same records before, so that nobody submits a file twice by accident.

`submit` asks before it makes a job. No hash of a file is kept: where a job of as many bytes and the same configuration
is known, its batches are rendered from the new files, and their sha256 are compared with those in the ledger, up to
the first that differs. So most files are read once, and the old ones need not be there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from functools import partial

import anyio.to_thread
from msgspec.structs import replace

from engine.batch.payload import PayloadReader
from engine.batch.planning import reference_of
from engine.commands import wiring
from engine.ledger.base import Ledger
from engine.model.batch import Batch
from engine.model.errors import AlreadyTaken, JobLocked, SourceChanged
from engine.model.job import Job, JobState
from engine.model.outcome import Later, Tally
from engine.model.submission import State
from engine.progress.events import Listener, Noticed
from engine.progress.text import count, size
from engine.run.context import Stop

TOLD_BYTES = 1 << 28
"""Reading less takes no second, which is not worth a word."""
GROUP_BYTES = 1 << 22
"""Payloads that are compared in one go: each costs a change of threads."""

_RELEASED = frozenset({State.RELEASING, State.RELEASED, State.UNCERTAIN})
_STAGED = frozenset({State.STAGING, State.STAGED})


async def refuse_taken(new: Job, jobs: Sequence[Job], ledger: Ledger, emit: Listener, stop: Stop) -> None:
    """Raise if one of `jobs` has taken the records of `new`.

    Jobs that have created nothing (or whose tasks were all taken back), and of which nothing is under way or uncertain,
    do not count; nor do retries; nor, with delta, jobs of its own family, which knows each of their records.

    Raises:
        AlreadyTaken: one has; says which, and what can be done.
        JobLocked: one does so just now.
        Interrupted: while the sources were compared.
    """
    for job in jobs:
        if new.delta and job.family == new.family:
            continue
        if job.parent is None and job.size_bytes == new.size_bytes and job.size_bytes and _makes_same_tasks(job, new):
            await _refuse(new, job, ledger, emit, stop)


def _makes_same_tasks(job: Job, new: Job) -> bool:
    return job.service == new.service and wiring.makes_same_tasks(job.config, new.config)


async def _refuse(new: Job, job: Job, ledger: Ledger, emit: Listener, stop: Stop) -> None:
    running = ledger.is_locked(job.name)
    tally = await ledger.tally(job.name)
    if running and _files(job) == _files(new) and (_changed_at(job) == _changed_at(new) or not tally.batches):
        raise JobLocked(_running(job))
    undone = (await ledger.count_later(job.name)).get(Later.UNDONE, 0)
    offline = wiring.load_offline(job)
    drafts = offline.service.drafting is not None
    if (running or _has_sent(job, tally, undone, drafts=drafts)) and await _holds(
        new, job, offline, ledger, emit, stop
    ):
        raise JobLocked(_running(job)) if running else AlreadyTaken(_taken(job, tally))


def _has_sent(job: Job, tally: Tally, undone: int, *, drafts: bool) -> bool:
    """Return whether something of a job is at its service, or may be.

    `undone`: created tasks that were taken back. `drafts`: people see what its service stages.
    """
    states = {state for state, number in tally.states.items() if number}
    at_the_service = _RELEASED | _STAGED if drafts else _RELEASED
    lost = drafts and job.lost_stages
    return bool(tally.created > undone or tally.uncertain or lost or not at_the_service.isdisjoint(states))


def _files(job: Job) -> Sequence[tuple[object, ...]]:
    return [(source.path, source.inode, source.size, source.mtime_ns) for source in job.sources]


def _changed_at(job: Job) -> Sequence[int]:
    """Return what tells of a file that was written in place and given its old time again: then its content decides."""
    return [source.ctime_ns for source in job.sources]


async def is_as_frozen(job: Job, ledger: Ledger) -> bool:
    """Return whether the sources of a job still hold all that it has frozen: sent, rejected and skipped."""
    from engine.ledger.known import KnownRecords  # noqa: PLC0415 - a submit seldom comes to this
    from engine.reports.audit_checks import FamilyProof, Recut  # noqa: PLC0415 - likewise

    with ExitStack() as opened:
        known = opened.enter_context(KnownRecords(ledger.address)) if job.family else None
        offline = wiring.load_offline(job)
        family = FamilyProof(known, job) if known else None
        recut = Recut(job.sources, partial(offline.tasks, job), reference_of(offline.service), family)
        async for batch, _ in ledger.batches(job.name):
            rejects = await ledger.rejects(job.name, batch.start.index, batch.end.index)
            skips = await ledger.skips(job.name, batch.start.index, batch.end.index)
            if await anyio.to_thread.run_sync(recut.check, batch, rejects, skips):
                return False
    return True


async def _holds(new: Job, job: Job, offline: wiring.Offline, ledger: Ledger, emit: Listener, stop: Stop) -> bool:
    """Return whether the sources of `new` hold all that `job` has frozen, and that is something."""
    reader = offline.payloads(replace(job, sources=new.sources))
    compared, told = 0, new.size_bytes < TOLD_BYTES
    async for group in _groups(job, ledger):
        if stop.error is not None:
            raise stop.error
        if not await anyio.to_thread.run_sync(partial(_same, reader, group)):
            return False
        compared += len(group)
        if not told:
            told = True
            emit(
                Noticed(f"the sources begin as those of job {job.name}: all {size(new.size_bytes)} are compared first")
            )
    return compared > 0


async def _groups(job: Job, ledger: Ledger) -> AsyncIterator[list[Batch]]:
    """Yield the batches with records, some MB at a time, the first one alone: another file mostly differs in it."""
    group: list[Batch] = []
    most_bytes = held = 0
    async for batch, _ in ledger.batches(job.name):
        if batch.count:
            group.append(batch)
            held += batch.size_bytes
        if held > most_bytes:
            yield group
            group, held, most_bytes = [], 0, GROUP_BYTES
    if group:
        yield group


def _same(reader: PayloadReader, batches: Sequence[Batch]) -> bool:
    try:
        for batch in batches:
            reader.read(batch)
    except SourceChanged:
        return False
    return True


def _running(job: Job) -> str:
    return (
        f"job {job.name!r} works on these records just now. Wait until it ends; `bulksubmit status {job.name}` says "
        "how far it is"
    )


def _taken(job: Job, tally: Tally) -> str:
    done = f"{count(tally.created)} of {count(tally.records, 'record')} created"
    ways = {
        JobState.OPEN: f"`bulksubmit resume {job.name}` goes on with it",
        JobState.FINISHED: f"`bulksubmit status {job.name}` says what can be done about the rest",
        JobState.CANCELED: f"`bulksubmit status {job.name}` says what can be done about it",
    }
    way = "" if tally.created == tally.records and job.state is JobState.FINISHED else f"{ways[job.state]}. "
    delta = f"--delta --family {job.family} sends only records that are new; " if job.family else ""
    return (
        f"job {job.name!r} has taken these records already, and is {job.state} ({done}). Nothing was sent. {way}"
        f"{delta}--again sends all, and creates every task a second time"
    )
