"""Send records of a job again: those that were not created, or, by the word of a person, those that are uncertain.

An uncertain batch is sent again in its place. A settled one is final, so those of its records of which nobody knows
become a job of their own, by the same way as failed ones. Batches come first: how they end may leave more records open.

The module is a long one: both ways begin with the same questions.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count as count_from
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.configuration import Config
from engine.commands.endings import tells_end
from engine.commands.lineage import (
    SOURCE,
    UNCERTAIN_SOURCE,
    Attempts,
    find_attempts,
    flagged,
    indexes_sent,
    source_name,
)
from engine.commands.mended import Chosen, given_records, mended_records
from engine.commands.paths import claim_output, open_ledger
from engine.commands.result import Result, UncertainRecords, nothing_sent, summarize
from engine.commands.submit import family_lock, go_on, work_on
from engine.files import DEFAULT_LEDGER, make_private_folder, private
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.batch import Batch, batch_name
from engine.model.doubt import INHERITED, RemoteStatus
from engine.model.errors import ConfigError, JobError
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Fate
from engine.model.record import Format
from engine.model.settings import RunLimits, SourceSettings
from engine.model.submission import State, Submission
from engine.progress.events import Listener, Noticed, unheard
from engine.reports.outcomes import REJECTS, REPLAYABLE
from engine.run.bounds import check_open
from engine.run.context import Stop
from engine.source.sources import check_unchanged, describe

_Take: TypeAlias = Callable[[Attempts, bytearray], AsyncIterator[Chosen]]
"""Which records may be sent → those that are, with their text."""
MOST_EXAMPLES = 3
"""Batches that a question spells out; `report` tells of each record."""


class _Kind(Struct, frozen=True):
    """Of a retry: which records it takes."""

    file: str
    """That it writes them to; by it the job is known."""
    fates: frozenset[Fate]
    take: _Take


class _Call(Struct, frozen=True):
    """What a person has said of one call, for whatever it works on."""

    emit: Listener
    stop: Stop
    limits: RunLimits | None
    textfile: Path | str | None

    def load(self, config: str) -> wiring.Setup:
        """Check a configuration; what the person has said stands above it."""
        return wiring.load(config, limits=self.limits, textfile=self.textfile)


@tells_end
async def retry(  # noqa: PLR0913 - what a person can say of a retry
    name: str,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    uncertain: bool = False,
    config: Config | None = None,
    from_file: Path | str | None = None,
    limits: RunLimits | None = None,
    metrics_textfile: Path | str | None = None,
) -> Result:
    """Submit the failed and rejected records of a job again, as a job of its own.

    The new job is `NAME.retry`, then `NAME.retry-2` and so on. It takes what no attempt has created, as it stands in
    `rejects.ndjson`, where it can be mended first: that of the newest attempt, or of an older one that was mended
    since. A retry that is not finished goes on first; where nothing is left, the newest one is reported.

    Args:
        name: of the job.
        ledger: file or URL of a database that remembers it.
        emit: is told what happens.
        stop: ends the run early.
        uncertain: send what is uncertain instead, by the word of a person: what arrived is created a second time, but
            where a repeat does no more than once. Those are the job's uncertain batches, in their place; where there
            are none, the uncertain records of settled batches, as a job of their own. Of a job that is not finished, it
            is what the service has accepted and does not begin with.
        config: of the new job; that of the old one where left out.
        from_file: with the records that were mended elsewhere, and only those: lines as in `rejects.ndjson`, or a table
            as `rejects.csv`.
        limits: of this run; what is left out is as configured.
        metrics_textfile: as of `submit`.

    Raises:
        JobError: the job is not finished, or nothing of it can be tried again.
        ConfigError: the configuration cannot be used; nothing was sent.
        JobLocked: another process works on a retry, or is about to make one.
        WindowClosed: it is not the time for it.
    """
    call = _Call(emit, stop or Stop(), limits, metrics_textfile)
    async with open_ledger(ledger) as opened:
        if uncertain:
            return await _send_uncertain(name, opened, call)
        job = await opened.job(name)
        attempts = await find_attempts(job, opened)
        if job.state is JobState.OPEN:
            raise JobError(f"job {name!r} is not finished; `bulksubmit resume {name}` first")
        for child in [*attempts.below(job), *attempts.unknown]:
            if child.state is JobState.OPEN and source_name(child) in {SOURCE, UNCERTAIN_SOURCE}:
                if config is not None or from_file is not None:
                    raise JobError(
                        f"job {child.name!r}, a retry of {name!r}, is not finished; "
                        f"`bulksubmit resume {child.name}` first"
                    )
                return await _go_on_first(name, child.name, opened, call)
        if config is not None:
            job = replace(job, config=_new_config(job, wiring.read_config(config)))
        given = None if from_file is None else Path(from_file)
        return await _send_failed(job, opened, call, given)


def _new_config(job: Job, text: str) -> str:
    """Return a configuration with which records of a job may be sent again.

    Raises:
        ConfigError: it cannot be used, or is one for another service.
    """
    setup = wiring.load(text)
    if setup.service.kind != job.service:
        raise ConfigError(
            f"service.kind: {setup.service.kind!r}, but job {job.name!r} is one for {job.service!r}: submit its "
            "records there as a new job"
        )
    wiring.check_parts(setup, job)
    return text


async def _go_on_first(parent: str, name: str, ledger: Ledger, call: _Call) -> Result:
    """Go on with a retry that is not finished."""
    call.emit(
        Noticed(f"{name} goes on first; `bulksubmit retry {parent}` once more sends what was mended since it began")
    )
    job = await ledger.job(name)
    with ledger.lock(name), family_lock(job, ledger):
        job = await ledger.job(name)
        return await go_on(
            job, ledger, call.emit, call.stop, command="retry", limits=call.limits, textfile=call.textfile
        )


async def _send_failed(job: Job, ledger: Ledger, call: _Call, given: Path | None) -> Result:
    # What another job of the family has created since is not sent a second time.
    job = replace(job, delta=bool(job.family))
    setup = call.load(job.config)

    def take(attempts: Attempts, flags: bytearray) -> AsyncIterator[Chosen]:
        if given is None:
            return mended_records(job, attempts, flags)
        types = setup.settings.source.types
        return given_records(given, job, attempts, flags, types, lambda said: call.emit(Noticed(said)))

    with ExitStack() as locks:
        child = await _new_child(job, setup, ledger, locks, _Kind(SOURCE, REPLAYABLE, take))
        if child is not None:
            return await work_on(child, ledger, setup, call.emit, call.stop, command="retry")
    if given is not None:
        raise JobError(f"{given} holds no record of job {job.name!r} that failed and that no retry has created")
    attempts = await find_attempts(job, ledger)
    retries = [one for one in attempts.below(job) if source_name(one) == SOURCE]
    if not retries:
        raise JobError(f"{_rejects(job)} holds no record that failed or was rejected; there is nothing to try again")
    note = f"nothing of job {job.name} is left to try again: what was not taken out of its rejects has been created"
    result = await summarize(retries[-1], ledger, wiring.CLOCK.monotonic(), note=note, rewrite=False)
    return nothing_sent(result, job.config, call.limits)


async def _send_uncertain(name: str, ledger: Ledger, call: _Call) -> Result:
    job = await ledger.job(name)
    setup = call.load(job.config)
    with ledger.lock(name), family_lock(job, ledger):
        job = await ledger.job(name)
        found = await uncertain_in(job, ledger)
        if found.job == name:
            check_unchanged(job.sources, times=False)
            check_open(setup.settings.window, wiring.CLOCK.now())
            # First: killed in between, a job that seems finished would leave the batches unsent for good.
            await ledger.set_job_state(name, JobState.OPEN)
            job = replace(job, state=JobState.OPEN)
            return await work_on(
                job, ledger, setup, call.emit, call.stop, command="retry", released_again_by_user=found.sequences
            )
    # Whatever the family says of them, a person wants them sent.
    job = replace(job, delta=False)
    with ExitStack() as locks:
        kind = _Kind(UNCERTAIN_SOURCE, frozenset({Fate.UNCERTAIN}), partial(mended_records, job))
        child = await _new_child(job, setup, ledger, locks, kind)
        if child is None:
            raise JobError(f"{_rejects(job)} holds no record that is uncertain; there is nothing to try again")
        return await work_on(child, ledger, setup, call.emit, call.stop, command="retry")


async def _new_child(job: Job, setup: wiring.Setup, ledger: Ledger, locks: ExitStack, kind: _Kind) -> Job | None:
    """Make the job that tries records of `job` again, of some kind, and lock it; None if there are none.

    It has the configuration of `job`, which may be a new one. It is in the ledger together with where each of its
    records comes from. Two retries of one first job are never made at once, or both would take the same records.
    """
    check_open(setup.settings.window, wiring.CLOCK.now())
    with ledger.lock((await find_attempts(job, ledger)).first.name):
        attempts = await find_attempts(job, ledger)
        _check_known(job, attempts)
        name = retry_name(job, await ledger.jobs())
        locks.enter_context(ledger.lock(name))
        locks.enter_context(family_lock(job, ledger))
        flags = await attempts.without_taken(job, await flagged(job, ledger, kind.fates))
        if not any(flags):
            return None
        folder = Path(job.output).with_name(name)
        await claim_output(folder, ledger, locks)
        origins = await _write(folder / kind.file, kind.take(attempts, flags))
        if not origins:
            return None
        below = attempts.below(job)
        child = replace(
            job,
            name=name,
            sources=(describe(folder / kind.file, SourceSettings(format=Format.NDJSON), ours=True),),
            output=str(folder),
            state=JobState.OPEN,
            read_complete=False,
            parent=job.name,
            attempt=max(one.attempt for one in [job, *below]) + 1,
            learnt="",
            slowest_start=0.0,
            lost_stages=0,
            created_at=wiring.CLOCK.now(),
        )
        await ledger.create_job(child, origins=origins)
        return child


def _check_known(job: Job, attempts: Attempts) -> None:
    """Refuse to send records again where nobody knows which of them a retry has created.

    Raises:
        JobError: an older bulksubmit made one that does not say where its records come from.
    """
    for old in attempts.unknown:
        raise JobError(
            f"job {old.name!r} was made by an older bulksubmit, and which records of {job.name!r} it holds is not "
            f"known: `bulksubmit retry {old.name}` sends what is left"
        )


def retry_name(job: Job, jobs: Sequence[Job]) -> str:
    """Return the name of the job in which records of this one are tried again next: one that no job has."""
    names = {one.name for one in jobs}
    wanted = (f"{job.name}.retry{f'-{number}' if number > 1 else ''}" for number in count_from(1))
    return check_job_name(next(name for name in wanted if name not in names))


async def _write(target: Path, pages: AsyncIterator[Chosen]) -> Sequence[int]:
    """Write the records that are taken, a line each; return which record of the parent each is. No file if none is.

    Raises:
        JobError: the file cannot be written, or a record is there twice.
    """
    origins = array("q")
    try:
        make_private_folder(target.parent)
        await anyio.Path(target).unlink(missing_ok=True)
        async with await anyio.open_file(target, "xb", opener=private) as file:
            async for taken in pages:
                await file.writelines(text + b"\n" for _, text in taken)
                origins.extend(index for index, _ in taken)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        if not origins:
            await anyio.Path(target).unlink()
            await anyio.Path(target.parent).rmdir()
    except OSError as error:
        raise JobError(
            f"{target} cannot be written ({error.strerror}); make room, or move it out of the way"
        ) from error
    return origins


async def find_uncertain(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> UncertainRecords:
    """Tell which records of a job may be at the service without anybody knowing, before `retry` sends them again.

    Raises:
        JobError: the job is not finished, or there are none.
    """
    async with open_ledger(ledger) as opened:
        return await uncertain_in(await opened.job(name), opened)


async def uncertain_in(job: Job, ledger: Ledger) -> UncertainRecords:
    """Return which records of a job may be at the service without anybody knowing, and are to be sent again next.

    Of a job that is not finished, it is what the service has accepted and still says waiting of: it is asked.

    Raises:
        JobError: there are none, or they were made a job before.
        CallFailed: the service could not be asked.
    """
    found = await _uncertain_in(job, ledger)
    return replace(found, harmless=wiring.load_offline(job).service.again in INHERITED)


async def _uncertain_in(job: Job, ledger: Ledger) -> UncertainRecords:
    if job.state is JobState.OPEN:
        return await _waiting(job, ledger)
    if job.state is JobState.CANCELED:
        raise JobError(
            f"job {job.name!r} was canceled: nothing more of it is sent. Submit those that {_rejects(job)} calls "
            "uncertain as a new job, once you have seen at the service that they are not there"
        )
    tally = await ledger.tally(job.name)
    if not tally.uncertain:
        raise JobError(f"no record of job {job.name!r} is uncertain; there is nothing to send again")
    batches = [pair async for pair in ledger.batches(job.name, frozenset({State.UNCERTAIN}))]
    return _spelled_out(batches, job.name) if batches else await _uncertain_in_settled(job, ledger)


async def _waiting(job: Job, ledger: Ledger) -> UncertainRecords:
    async with wiring.online(wiring.load(job.config), job, unheard, ledger) as service:
        polling = service.polling
        batches = [
            (batch, replace(submission, note="accepted, and the service says that it waits"))
            async for batch, submission in ledger.batches(job.name, frozenset({State.RELEASED}))
            if polling and await polling.remote_status(str(submission.remote_id)) is RemoteStatus.WAITING
        ]
    if not batches:
        raise JobError(f"job {job.name!r} is not finished; `bulksubmit resume {job.name}` first")
    return _spelled_out(batches, job.name)


def _spelled_out(batches: Sequence[tuple[Batch, Submission]], job: str) -> UncertainRecords:
    examples = [
        f"records {batch.start.index} to {batch.end.index - 1} (batch {batch_name(batch.sequence)}: {submission.note})"
        for batch, submission in batches[:MOST_EXAMPLES]
    ]
    sequences = frozenset(batch.sequence for batch, _ in batches)
    return UncertainRecords(sum(batch.count for batch, _ in batches), len(batches), examples, job, sequences)


async def _uncertain_in_settled(job: Job, ledger: Ledger) -> UncertainRecords:
    attempts = await find_attempts(job, ledger)
    _check_known(job, attempts)
    flags = await attempts.without_taken(job, await flagged(job, ledger, frozenset({Fate.UNCERTAIN})))
    if not any(flags):
        raise JobError(_sent_again(job, attempts))
    records = batches = 0
    examples: list[str] = []
    async for batch, settlement in ledger.partly_created(job.name):
        sent = await indexes_sent(job, ledger, batch)
        left = [reason for position, reason in settlement.uncertain.items() if flags[sent[position]]]
        records, batches = records + len(left), batches + bool(left)
        if left and batches <= MOST_EXAMPLES:
            examples.append(
                f"{len(left)} of records {batch.start.index} to {batch.end.index - 1} "
                f"(batch {batch_name(batch.sequence)}: {left[0]})"
            )
    return UncertainRecords(records, batches, examples, retry_name(job, await ledger.jobs()))


def _sent_again(job: Job, attempts: Attempts) -> str:
    """Say by which job the uncertain records were sent again, and how it goes on."""
    name = [one.name for one in attempts.below(job) if source_name(one) == UNCERTAIN_SOURCE][-1]
    return (
        f"the uncertain records of job {job.name!r} were sent again as job {name!r}; "
        f"`bulksubmit resume {name}` goes on with it"
    )


def _rejects(job: Job) -> Path:
    return Path(job.output) / REJECTS
