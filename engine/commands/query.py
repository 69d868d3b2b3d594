"""Ask about jobs: status, report, audit, validate, one record. Only `status --tasks` calls the service.

The module is a long one, since it has an operation for each question.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import cache, partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio.to_thread
from msgspec.structs import astuple, replace

from engine.batch.known import marker_for, second_of_key
from engine.batch.planning import reference_of
from engine.commands import wiring
from engine.commands.columns import check_columns
from engine.commands.configuration import Config
from engine.commands.intake import take_in
from engine.commands.keys import find_key
from engine.commands.later import seen_tasks, tell_duration
from engine.commands.lineage import Story, find_attempts, retried, story_of
from engine.commands.paths import open_ledger
from engine.commands.result import (
    DAMAGED,
    FailedTask,
    JobStatus,
    Result,
    ServiceCan,
    Validation,
    service_can,
    summarize,
)
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.ledger.known import KnownRecords
from engine.model.batch import Batch
from engine.model.errors import BulkSubmitError, DamagedRow, JobError, SourceError
from engine.model.job import Job, JobState
from engine.model.outcome import Fate, Later, Outcome
from engine.model.payload import Payload
from engine.model.record import Position, Reject, Source, kept_key, loads, no_records, source_at
from engine.model.runs import PastAudit, RunCounts, counted
from engine.model.settings import SourceSettings
from engine.model.submission import State
from engine.progress.events import JobStarted, Listener, unheard
from engine.progress.redaction import redactor
from engine.progress.text import count, duration
from engine.reports.audit import Audit, Evidence
from engine.reports.audit import audit as audit_job
from engine.reports.missing import Missing, write_missing
from engine.reports.outcomes import fate_of
from engine.run.context import Stop
from engine.run.reading import frozen_event
from engine.services.base import SourceKeys
from engine.source.given import Sources
from engine.source.sources import check_unchanged

KNOWN_THERE = frozenset({State.RELEASED, State.SETTLED, State.UNCERTAIN})
"""States of batches about which the service can be asked, if they have a name there."""

TOLD_SECONDS = 3.0
"""A shorter wait is not worth a word beforehand."""

MOST_FAILED = 1000
"""Failed tasks that are named; after `refresh`, outcomes.ndjson has them all."""

FINDINGS_KEPT = 20
"""Of an audit that are remembered."""

_HASH_BYTES = 16
"""Of a key, as a validation remembers it: no accident makes two of them alike."""
MOST_REJECTS = 100
"""Rejects that a validation shows; more would only scroll by."""

RUNNING = "running"
"""What `status` calls a job that a process works on, beside the states of jobs."""

TASKS_SHOWN = 3
TASK_CHARACTERS = 100
"""Of each task that a validation shows: what fits on a line."""


async def status(  # noqa: PLR0913 - what a person can ask
    name: str | None = None,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    *,
    tasks: bool = False,
    failed: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    state: str | None = None,
    since: float = 0.0,
    limit: int | None = None,
) -> Sequence[JobStatus]:
    """Tell where a job, or every job, stands; `tasks` asks the service how created tasks stand.

    Args:
        name: of the job; all of them, newest first, where left out.
        ledger: file or URL of a database that remembers them.
        tasks: ask the service as well.
        failed: of one job, ask it about each task instead, and name those that have failed or were rejected.
        tell: is told beforehand if that takes long.
        state: only jobs in this state: open, finished or canceled; or running, whatever the state.
        since: only jobs of which something was heard since then, in Unix seconds.
        limit: the most jobs to return.

    Raises:
        JobError: there is no such job.
    """
    async with open_ledger(ledger) as opened:
        if name:
            one = await _job_status(await opened.job(name), opened, tell if tasks and not failed else None, whole=True)
            return [await _with_failed(one, opened, tell) if failed else one]
        found: list[JobStatus] = []
        for job in await opened.jobs():
            if len(found) == limit:
                break
            if state is None or (opened.is_locked(job.name) if state == RUNNING else job.state == state):
                status = await _job_status(job, opened, tell if tasks else None)
                found += [status] if status.running or status.last_sign_at >= since else []
        return found


async def report(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> Result:
    """Write a job's reports anew from the ledger.

    Raises:
        JobError: there is no such job.
    """
    async with open_ledger(ledger) as opened:
        return await summarize(await opened.job(name), opened, wiring.CLOCK.monotonic())


async def missing(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> Missing:
    """List what the family of a job has created and the job's source no longer has, in `missing.ndjson`.

    A record is named by its key where there is one, and always by job, record and task. What an older bulksubmit has
    frozen has its key only as long as its own source is what it was. What is in the source and not fit to be sent
    counts as missing: nobody has looked it up.

    Raises:
        JobError: there is no such job, it has skipped nothing, or it has not read its source to the end.
    """
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        if not job.delta or not job.read_complete:
            why = "was not submitted with --delta" if not job.delta else "has not read its source to the end"
            raise JobError(f"job {name!r} {why}, so it cannot tell what the source no longer has")
        jobs = {one.name: one for one in await opened.jobs() if one.family == job.family}
        return await anyio.to_thread.run_sync(_missing, job, jobs, opened.address)


def _missing(job: Job, jobs: Mapping[str, Job], ledger: LedgerAddress) -> Missing:
    keys = cache(lambda name: _KeysOf(jobs[name]))
    with KnownRecords(ledger) as records:
        task_url = wiring.load_offline(job).service.task_url
        return write_missing(job, records, task_url, lambda name, offset, length: keys(name).key(offset, length))


class _KeysOf:
    """Reads keys that the ledger has not kept from the sources of a job, as long as those are what they were."""

    def __init__(self, job: Job) -> None:
        self._offline = wiring.load_offline(job)
        self._payloads = self._offline.payloads(job)
        self._marker = marker_for(job, self._offline.setup.settings.delta)
        try:
            check_unchanged(job.sources, times=True)
        except SourceError:
            self._marker = None

    def key(self, offset: int, length: int) -> bytes | None:
        """Return the key of a record as JSON; None if there is none, or nobody can tell any more."""
        if self._marker is None or not self._marker.needs_rows:
            return None
        text = self._payloads.as_json(offset, length)
        row = loads(text)
        key = self._marker.key_of(text, row) if isinstance(row, dict) else None
        return None if key is None else kept_key(key)


async def audit(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> Audit:
    """Prove from ledger, sources and reports that each record has exactly one fate.

    Raises:
        JobError: there is no such job.
    """
    async with open_ledger(ledger) as opened:
        try:
            job = await opened.job(name)
        except ValueError as error:  # a state or a format that no bulksubmit has written
            return Audit(name, findings=[f"the job cannot be read: {error}; put a backup of {ledger} back"])
        offline = wiring.load_offline(job)
        evidence = Evidence(
            offline.setup.service.kind,
            partial(offline.tasks, job),
            reference_of(offline.service),
            offline.service.task_url,
            offline.payloads(job).as_json,
        )
        began = wiring.CLOCK.now()
        found = await audit_job(job, opened, evidence)
        with suppress(BulkSubmitError):  # a job that is gone, or a ledger that cannot be written: the verdict is told
            await opened.keep_audit(name, _past(found, began))
        return found


def _past(found: Audit, at: float) -> PastAudit:
    """Return what the ledger remembers of an audit."""
    undecided = found.fates[Fate.UNRESOLVED] + found.fates[Fate.UNCERTAIN]
    hidden = redactor(os.environ)
    return PastAudit(
        at,
        found.holds,
        found.records,
        found.batches,
        [hidden(finding) for finding in found.findings[:FINDINGS_KEPT]],
        len(found.findings),
        [hidden(what) for what in found.unproven[:FINDINGS_KEPT]],
        found.unread_bytes,
        undecided,
        str(found.reports),
    )


async def backup(to: Path | str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> Sequence[Job]:
    """Copy a ledger into a new file, also while jobs of it run; return the jobs that it holds.

    Raises:
        JobError: there is no ledger.
        LedgerError: there is such a file, or it cannot be written.
    """
    async with open_ledger(ledger) as opened:
        await opened.back_up(Path(to).absolute())  # noqa: ASYNC240 - reads no disk
    async with open_ledger(to) as copied:
        return await copied.jobs()


async def find_record(name: str, index: int, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> Outcome:
    """Tell what became of the record with this index, counted from 0 over all sources.

    Raises:
        JobError: there is no such job, or no record with this index was read.
    """
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        task_url = wiring.load_offline(job).service.task_url
        try:
            outcome = await fate_of(job, opened, task_url, index)
        except DAMAGED as error:
            raise DamagedRow(f"ledger {ledger}: its rows do not fit each other ({error}): put a backup back") from error
        if outcome is None:
            raise JobError(await _not_read(job, opened, index))
    return outcome


async def _not_read(job: Job, ledger: Ledger, index: int) -> str:
    """Return why a record has no fate: there is none of that index, or nobody has come so far."""
    last = await ledger.last_batch(job.name)
    reached = last.end.index if last else 0
    if job.read_complete:
        return f"job {job.name!r} has no record {index}; indexes count from 0 over all sources"
    if ledger.is_locked(job.name):
        where = f"job {job.name!r} has come to record {reached:,} and goes on"
    elif job.state is JobState.CANCELED:
        where = f"job {job.name!r} was canceled at record {reached:,}"
    else:
        where = f"job {job.name!r} stopped at record {reached:,}; `bulksubmit resume {job.name}` goes on"
    return f"record {index:,} is not read yet: {where}"


async def tell_story(
    name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER, *, record: int | None = None, key: str | None = None
) -> Story:
    """Tell what became of one record over all attempts: in this job, in those that it retries, and in its retries.

    Args:
        name: of the job, any of the attempts.
        ledger: file or URL of a database that remembers it.
        record: index of the record in this job, from 0 over all sources.
        key: the record's own key instead: the value of the column that `[delta] key` names, or `COLUMN=VALUE`.

    Raises:
        JobError: there is no such job, or no such record was read.
        SourceError: the key cannot be looked for: the ledger keeps no values of this column, and a source is not what
            it was.
    """
    async with open_ledger(ledger) as opened:
        job = asked = await opened.job(name)
        column = wiring.load_offline(job).setup.settings.delta.key or ""
        if record is None:
            column, value = _key_asked(key or "", column)
            attempts = await find_attempts(job, opened)
            asked, record = await find_key(job, attempts.jobs, opened.address, column, value)
        try:
            story = await story_of(asked, opened, record, column)
        except DAMAGED as error:
            raise DamagedRow(f"ledger {ledger}: its rows do not fit each other ({error}): put a backup back") from error
        if story is None:
            raise JobError(await _not_read(asked, opened, record))
    return story


def _key_asked(key: str, column: str) -> tuple[str, str]:
    """Return column and value of a key that a person asks for."""
    if column:
        return column, key
    column, given, value = key.partition("=")
    if not given:
        raise JobError("which column holds the key? Ask for COLUMN=VALUE, or name the column as `key` in [delta]")
    return column, value


async def validate(
    sources: Sources,
    config: Config,
    emit: Listener = unheard,
    *,
    format: str | None = None,  # noqa: A002 - as the option is called
    processes: int | None = None,
) -> Validation:
    """Read, map and check everything, the configuration as `submit` does; send nothing. The arguments are those of it.

    Raises:
        ConfigError, SourceError: the configuration or a source cannot be used at all.
    """
    setup = wiring.load(wiring.read_config(config), processes=processes)
    wiring.check_parts(setup, _validation_job(setup))
    settings = wiring.source_settings(setup, format)
    async with opened_sources(sources, settings, emit) as found:
        await check_columns(found, setup.settings, settings, thorough=True)
        return await _validated(setup, found, emit)


@asynccontextmanager
async def opened_sources(
    sources: Sources, settings: SourceSettings, emit: Listener = unheard
) -> AsyncIterator[tuple[Source, ...]]:
    """Find sources that are only looked at; what is no plain file is kept in a temporary one meanwhile.

    Raises:
        SourceError: one cannot be used at all.
    """
    with TemporaryDirectory(prefix="bulksubmit-") as folder:
        yield await take_in(sources, settings, Path(folder), emit, Stop())


def _validation_job(setup: wiring.Setup, found: tuple[Source, ...] = ()) -> Job:
    return Job("validate", setup.service.kind, "", found, "")


async def _validated(setup: wiring.Setup, found: tuple[Source, ...], emit: Listener) -> Validation:
    job = _validation_job(setup, found)
    emit(JobStarted("", job.size_bytes))  # it is no job that anybody could name
    offline = wiring.offline(setup, job)
    plans = offline.plans(job, None)
    batches = records = rejected = 0
    first: Batch | None = None
    shown: list[tuple[Source, Reject]] = []
    while (plan := await anyio.to_thread.run_sync(next, plans, None)) is not None:
        read = sum(batch.end.index - batch.start.index for batch in plan.batches)
        batches += sum(batch.count > 0 for batch in plan.batches)  # one without a task is never sent
        records, rejected = records + read, rejected + len(plan.rejects)
        shown += [(source_at(found, bad.offset), bad) for bad in plan.rejects[: MOST_REJECTS - len(shown)]]
        first = first or next((batch for batch in plan.batches if batch.count), None)
        emit(frozen_event(plan))
    tasks = await anyio.to_thread.run_sync(_first_tasks, offline, job, first) if first else []
    twins, first_twins = await anyio.to_thread.run_sync(_twins, offline, job)
    size_bytes = job.size_bytes if batches else 0
    return Validation(records, rejected, batches, size_bytes, shown, tasks, no_records(found), twins, first_twins)


def _twins(offline: wiring.Offline, job: Job) -> tuple[int, Sequence[tuple[Source, Reject]]]:
    """Return how many records have a key that an earlier one has, and the first of them. Memory stays flat."""
    source_keys: SourceKeys | None = getattr(offline.setup.module, "source_keys", None)
    keys_of = source_keys(offline.setup.service) if source_keys is not None else None
    if keys_of is None:
        return 0, ()
    found, shown = 0, list[tuple[Source, Reject]]()
    with closing(sqlite3.connect("")) as seen:  # a file of its own, which nobody else sees, and which SQLite removes
        seen.execute("CREATE TABLE seen (hash BLOB PRIMARY KEY, record INTEGER, offset INTEGER) WITHOUT ROWID")
        for block in offline.tasks(job, Position()):
            keys = keys_of(Payload.of(block.raws, block.indexes))
            hashes = [sha256(key.encode()).digest()[:_HASH_BYTES] for key in keys]
            before = seen.total_changes
            rows = zip(hashes, block.indexes, block.offsets, strict=True)
            seen.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", rows)
            if seen.total_changes - before == len(hashes):
                continue
            for at, hash_ in enumerate(hashes):
                ((first, offset),) = seen.execute("SELECT record, offset FROM seen WHERE hash = ?", (hash_,))
                if first == block.indexes[at]:
                    continue
                found += 1
                if len(shown) < MOST_REJECTS:
                    why = second_of_key(job.sources, first, offset)
                    place = block.indexes[at], block.offsets[at], block.lengths[at], block.lines[at]
                    shown.append((source_at(job.sources, block.offsets[at]), Reject(*place, why)))
    return found, shown


def _first_tasks(offline: wiring.Offline, job: Job, batch: Batch) -> list[str]:
    """Return the first tasks of a batch as lines of text."""
    tasks = chain.from_iterable(block.raws for block in offline.tasks(job, batch.start))
    return [_as_line(task) for task in islice(tasks, min(TASKS_SHOWN, batch.count))]


def _as_line(task: bytes) -> str:
    # A letter takes four bytes at most; one that is cut in two is left out.
    text = task[: 4 * TASK_CHARACTERS].decode(errors="ignore")
    return text if len(text) <= TASK_CHARACTERS and len(task) <= 4 * TASK_CHARACTERS else text[:TASK_CHARACTERS] + "…"


async def _job_status(
    job: Job, ledger: Ledger, tell: Callable[[str], None] | None, *, whole: bool = False
) -> JobStatus:
    running = ledger.is_locked(job.name)
    runs = await ledger.runs(job.name)  # after the lock, or a run that ends between would look like one that was killed
    running = running or ledger.is_locked(job.name)  # and one that begins between, too
    wanted = bool(runs) and (whole or runs[-1].ended_at is None)
    samples = await ledger.samples(job.name, runs[-1].number) if wanted else ()
    tally = await ledger.tally(job.name)
    working = await _working(job, ledger, tell) if tell else {}
    can = await anyio.to_thread.run_sync(service_can, job) if tally.uncertain or tell else ServiceCan()
    later = await ledger.count_later(job.name)
    runs = counted(runs, RunCounts.of_job(tally, later))
    tried_again = await retried(job, ledger) if whole and (job.parent or tally.failed or tally.rejected) else None
    last_step = await ledger.last_step_at(job.name) if runs and runs[-1].ended_at is None else 0.0
    return JobStatus(
        job,
        tally,
        running,
        working,
        can,
        runs,
        samples,
        later,
        await ledger.workers(job.name) if whole else (),
        await ledger.shards(job.name) if whole else (),
        retried=tried_again,
        last_step_at=last_step,
    )


async def _with_failed(status: JobStatus, ledger: Ledger, tell: Callable[[str], None]) -> JobStatus:
    """Ask the service about each created task of a job; keep the first that have failed, and count all by state."""
    job, words, failed = status.job, Counter[str](), 0
    first: list[FailedTask] = []
    async with wiring.online(wiring.load(job.config), job, unheard, ledger) as service:
        await tell_duration(job, ledger, service, tell)
        async for group in seen_tasks(job, ledger, service, without=frozenset({Later.UNDONE})):
            for index, task_id, state, _ in map(astuple, group):
                words[state.word if state else "not shown"] += 1
                if state is None or state.later not in {Later.FAILED, Later.REJECTED}:
                    continue
                failed += 1
                if len(first) < MOST_FAILED:
                    first.append(FailedTask(index, task_id, service.task_url(task_id), state.later, state.reason))
        people = service.refreshing is not None and service.refreshing.by_people
    can = replace(status.service_can, people=people)
    return replace(status, working=words, service_can=can, failed_tasks=first, failed=failed)


async def _working(job: Job, ledger: Ledger, tell: Callable[[str], None]) -> Counter[str]:
    counts: Counter[str] = Counter()
    setup = wiring.load(job.config)
    async with wiring.online(setup, job, unheard, ledger) as service:
        counting = service.counting
        if counting is None:
            tell(f"job {job.name}: {service.kind} does not say how its tasks stand")
            return counts
        sizes = [batch.count async for batch, sent in ledger.batches(job.name, KNOWN_THERE) if sent.remote_id]
        if (seconds := counting.counting_seconds(sizes)) >= TOLD_SECONDS:
            tell(
                f"job {job.name}: counting the tasks of {count(len(sizes), 'batch')} by their state takes about "
                f"{duration(seconds)}, as fast as the service lets them be listed"
            )
        group: list[str] = []
        async for _, submission in ledger.batches(job.name, KNOWN_THERE):
            group += [submission.remote_id] if submission.remote_id is not None else []
            if len(group) == counting.polls_together:
                counts.update(await counting.count_work(group))
                group = []
        if group:
            counts.update(await counting.count_work(group))
    return counts
