"""Submit records again whose tasks were created and have failed at the service for good: `retry --task-failed`.

They become a job of their own, `NAME.again`, then `NAME.again-2` and so on. The ledger has it together with which
record of the parent each of its records is, so none is in two of them, wherever a process ends. A service says which
failures are for good: what people do over by themselves is never submitted again.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count as count_from
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from engine.batch.payload import PayloadReader
from engine.commands import wiring
from engine.commands.endings import tells_end
from engine.commands.later import asked_about, refreshing_of, seen_tasks, tasks_of
from engine.commands.paths import claim_output, open_ledger
from engine.commands.result import Result
from engine.commands.submit import go_on, work_on
from engine.files import DEFAULT_LEDGER, make_private_folder, private
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import JobError
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Later
from engine.model.record import Format, Source
from engine.model.settings import RunLimits, SourceSettings
from engine.progress.events import Listener, unheard
from engine.reports.outcomes import KnownBatch, settled_batches
from engine.run.bounds import check_open
from engine.run.context import Stop
from engine.services.base import Service
from engine.source.sources import describe

SOURCE = "failed-tasks.ndjson"
"""By it a job of failed tasks is known."""
_GONE = frozenset({Later.UNDONE})
_PAGE_RECORDS = 10_000
_MOST_BYTES = 16 << 20
"""Of a record: a report would cut a longer one."""


_Records: TypeAlias = Sequence[tuple[int, bytes]]
"""Index and text of records."""


class FailedTasks(Struct, frozen=True):
    """What would be submitted again: people are asked by it."""

    tasks: int
    kind: str
    host: str
    job: str
    """Which they become."""
    price: Mapping[str, float]
    """What they have cost, by currency, as far as it is known."""
    priced: int
    """Of how many it is known."""


async def find_failed_tasks(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> FailedTasks:
    """Ask the service which tasks of a job have failed for good, and what they have cost.

    Raises:
        JobError: the job is not finished, or none has.
    """
    async with open_ledger(ledger) as opened:
        job = await _ended(name, opened)
        setup = wiring.load(job.config)
        tasks, prices, priced = 0, Counter[str](), 0
        async with wiring.online(setup, job, unheard, opened) as service:
            taken = await _taken(job, opened)
            async for group in seen_tasks(job, opened, service, without=_GONE):
                for seen in group:
                    if seen.state is None or not seen.state.again or seen.index in taken:
                        continue
                    tasks += 1
                    if seen.state.price is not None:
                        amount, currency = seen.state.price
                        prices[currency] += amount  # type: ignore[assignment] # a Counter of floats
                        priced += 1
        if not tasks:
            raise JobError(_nothing(name))
        host = str(urlsplit(setup.service.base_url).hostname)
        return FailedTasks(tasks, job.service, host, _next_name(job, await opened.jobs()), dict(prices), priced)


@tells_end
async def retry_tasks(
    name: str,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    limits: RunLimits | None = None,
    metrics_textfile: Path | str | None = None,
) -> Result:
    """Submit the records of a job again whose tasks have failed for good; one that is not finished goes on first.

    `limits` and `metrics_textfile`: as of `submit`.

    Raises:
        WindowClosed: it is not the time for it.
        JobError: the job is not finished, or no task has failed that was not submitted again.
        JobLocked: another process works on it, or on what was submitted again.
    """
    stop = stop or Stop()
    async with open_ledger(ledger) as opened:
        with opened.lock(name):
            job = await _ended(name, opened)
            child = next((one for one in await _children(job, opened) if one.state is JobState.OPEN), None)
            if child is None:
                setup = wiring.load(job.config, limits=limits, textfile=metrics_textfile)
                with ExitStack() as held:
                    held.enter_context(opened.lock(_next_name(job, await opened.jobs())))
                    child = await _made(job, setup, opened, emit, held)
                    return await work_on(child, opened, setup, emit, stop, command="retry")
            with opened.lock(child.name):
                return await go_on(child, opened, emit, stop, command="retry", limits=limits, textfile=metrics_textfile)


async def _ended(name: str, ledger: Ledger) -> Job:
    job = await ledger.job(name)
    if job.state is JobState.OPEN:
        raise JobError(f"job {name!r} is not finished; `bulksubmit resume {name}` first")
    return job


async def _children(job: Job, ledger: Ledger) -> Sequence[Job]:
    """Return the jobs in which failed tasks of a job were submitted again."""
    jobs = [one for one in await ledger.jobs() if one.parent == job.name]
    return [one for one in jobs if any(Path(source.path).name == SOURCE for source in one.sources)]


def _next_name(job: Job, jobs: Sequence[Job]) -> str:
    names = {one.name for one in jobs}
    wanted = (f"{job.name}.again{f'-{number}' if number > 1 else ''}" for number in count_from(1))
    return check_job_name(next(name for name in wanted if name not in names))


async def _taken(job: Job, ledger: Ledger) -> frozenset[int]:
    """Return the records that were submitted again before."""
    taken: set[int] = set()
    for child in await _children(job, ledger):
        start = 0
        while page := await ledger.origins(child.name, start, start + _PAGE_RECORDS):
            taken.update(page.values())
            start += _PAGE_RECORDS
    return frozenset(taken)


def _nothing(name: str) -> str:
    return (
        f"no task of job {name!r} has failed for good that was not submitted again; `bulksubmit status {name} --tasks "
        "--failed` names those that have failed"
    )


async def _made(job: Job, setup: wiring.Setup, ledger: Ledger, emit: Listener, held: ExitStack) -> Job:
    """Make the job of the failed tasks, its name locked; where its records come from is in the ledger with it.

    `held`: holds its folder, too.
    """
    check_open(setup.settings.window, wiring.CLOCK.now())
    name = _next_name(job, await ledger.jobs())
    folder = Path(job.output).with_name(name)
    await claim_output(folder, ledger, held)
    async with wiring.online(setup, job, emit, ledger) as service:
        payloads = wiring.offline(setup, job, service).payloads(job)
        source, origins = await _write(folder / SOURCE, _failed(job, ledger, service, payloads))
    if source is None:
        raise JobError(_nothing(job.name))
    child = replace(
        job,
        name=name,
        sources=(source,),
        output=str(folder),
        state=JobState.OPEN,
        read_complete=False,
        parent=job.name,
        attempt=job.attempt + 1,
        learnt="",
        slowest_start=0.0,
        lost_stages=0,
        created_at=wiring.CLOCK.now(),
        # The family knows these records by the first task; that they are sent again is a person's word.
        family="",
        delta=False,
    )
    await ledger.create_job(child, origins=origins)
    return child


async def _failed(job: Job, ledger: Ledger, service: Service, payloads: PayloadReader) -> AsyncIterator[_Records]:
    """Yield, batch by batch, index and text of the records whose tasks have failed for good."""
    refreshing, taken = refreshing_of(service), await _taken(job, ledger)
    async for group in settled_batches(job, ledger, refreshing.polls_together):
        asked = [seen for known in group for seen in tasks_of(known) if seen.known != Later.UNDONE]
        asked = [seen for seen in asked if seen.index not in taken]
        states = await refreshing.task_states(asked_about(group, asked)) if asked else {}
        failed = {seen.index for seen in asked if seen.task_id in states and states[seen.task_id].again}
        for known in group if failed else ():
            yield await anyio.to_thread.run_sync(_records, known, failed, payloads)


def _records(known: KnownBatch, wanted: set[int], payloads: PayloadReader) -> _Records:
    """Return index and text of some records of a batch.

    Raises:
        SourceChanged: they are not what was sent.
        JobError: one is too long to be taken out of its source.
    """
    places = [place for place in zip(*known.places(), strict=True) if place[0] in wanted]
    if not places:
        return []
    payloads.read(known.batch)  # which holds it against the sha256 of what was sent
    found = []
    for index, offset, length in places:
        if length > _MOST_BYTES:
            raise JobError(f"record {index} has {length} bytes, too many to be submitted again by itself")
        found.append((index, payloads.as_json(offset, length)))
    return found


async def _write(target: Path, batches: AsyncIterator[_Records]) -> tuple[Source | None, Sequence[int]]:
    """Write records, a line each; return the file and which record of the parent each is. None if there are none."""
    origins, path = array("q"), anyio.Path(target)
    try:
        make_private_folder(target.parent)
        await path.unlink(missing_ok=True)
        async with await anyio.open_file(target, "xb", opener=private) as file:
            async for records in batches:
                await file.writelines(text.replace(b"\n", b" ") + b"\n" for _, text in records)
                origins.extend(index for index, _ in records)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        if not origins:
            await path.unlink()
            await path.parent.rmdir()
            return None, ()
    except OSError as error:
        raise JobError(
            f"{target} cannot be written ({error.strerror}); make room, or move it out of the way"
        ) from error
    return describe(target, SourceSettings(format=Format.NDJSON), ours=True), origins
