"""Send records of a job again: those that were not created, or, by the word of a person, those that are uncertain.

An uncertain batch is sent again in its place. A settled one is final, so those of its records of which nobody knows
become a job of their own, by the same way as failed ones. Batches come first: how they end may leave more records open.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio.to_thread
import orjson
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.paths import claim_output, open_ledger
from engine.commands.result import Result, UncertainRecords
from engine.commands.submit import check_reopening, family_lock, go_on, work_on
from engine.files import DEFAULT_LEDGER, make_private_folder, private, regular
from engine.ledger.base import Ledger
from engine.model.batch import Batch, batch_name, good_indexes
from engine.model.doubt import RemoteStatus
from engine.model.errors import JobError
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Fate
from engine.model.record import Format, Source, loads
from engine.model.settings import SourceSettings
from engine.model.submission import State, Submission
from engine.progress.events import Listener, unheard
from engine.reports.outcomes import REJECTS, REPLAYABLE
from engine.run.bounds import check_open
from engine.run.context import Stop
from engine.source.json_text import members
from engine.source.sources import check_unchanged, describe

SOURCE = "records.ndjson"
UNCERTAIN_SOURCE = "uncertain.ndjson"
"""By it a job that was made of uncertain records is known."""
_WriteSource: TypeAlias = Callable[[Path], Awaitable[Source]]
"""Folder → the records of a new job, written there."""
MOST_EXAMPLES = 3
"""Batches that a question spells out; `report` tells of each record."""


_Takes: TypeAlias = Callable[[Fate, object], bool]
"""Fate and index of a line of a rejects file → whether its record is sent again."""


async def retry(
    name: str,
    ledger: Path | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    uncertain: bool = False,
) -> Result:
    """Submit the failed and rejected records of a job again, as a job of its own.

    The new job is `NAME.retry`; it takes its records from the `rejects.ndjson` of the old one, where they can be mended
    first. Asked again, it goes on with that job instead of sending its records a second time.

    `uncertain`: send what is uncertain instead, by the word of a person: what arrived is created a second time. That
    are the job's uncertain batches, in their place; where there are none, the uncertain records of settled batches, as
    the job `NAME.retry`. Of a job that is not finished, it is what the service has accepted and does not begin with.

    Raises:
        JobError: the job is not finished, or nothing of it can be tried again.
    """
    stop = stop or Stop()
    async with open_ledger(ledger) as opened:
        if uncertain:
            return await _send_uncertain(name, opened, emit, stop)
        parent = await opened.job(name)
        child = retry_name(parent)
        with opened.lock(child), family_lock(parent, opened):
            existing = [job for job in await opened.jobs() if job.name == child]
            if existing:
                check_retried(parent, existing[0])
                if existing[0].state is JobState.CANCELED:
                    await check_reopening(existing[0], opened)
                note = f"{child} ran before; to try its own rejects again, mend them and `bulksubmit retry {child}`"
                return await go_on(existing[0], opened, emit, stop, note=note)
            if parent.state is JobState.OPEN:
                raise JobError(f"job {name!r} is not finished; `bulksubmit resume {name}` first")
            # What another job of the family has created since is not sent a second time.
            missed = replace(parent, delta=bool(parent.family))
            return await _work_on_child(missed, partial(retry_source, parent), opened, emit, stop)


async def _send_uncertain(name: str, ledger: Ledger, emit: Listener, stop: Stop) -> Result:
    job = await ledger.job(name)
    with ledger.lock(name), family_lock(job, ledger):
        job = await ledger.job(name)
        found = await uncertain_in(job, ledger)
        if found.job != name:
            with ledger.lock(found.job):
                # Whatever the family says of them, a person wants them sent.
                resent = replace(job, delta=False)
                return await _work_on_child(resent, partial(uncertain_source, job, ledger), ledger, emit, stop)
        check_unchanged(job.sources, times=False)
        setup = wiring.load(job.config)
        check_open(setup.settings.window, wiring.CLOCK.now())
        # First: killed in between, a job that seems finished would leave the batches unsent for good.
        await ledger.set_job_state(name, JobState.OPEN)
        job = replace(job, state=JobState.OPEN)
        return await work_on(job, ledger, setup, emit, stop, released_again_by_user=found.sequences)


async def _work_on_child(parent: Job, source: _WriteSource, ledger: Ledger, emit: Listener, stop: Stop) -> Result:
    """Make the job that tries records of `parent` again, its name locked, and work on it."""
    setup = wiring.load(parent.config)
    check_open(setup.settings.window, wiring.CLOCK.now())
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
        created_at=wiring.CLOCK.now(),
    )
    await ledger.create_job(job)
    return await work_on(job, ledger, setup, emit, stop)


def retry_name(job: Job) -> str:
    """Return the name of the job in which records of this one are tried again."""
    return check_job_name(f"{job.name}.retry")


def check_retried(parent: Job, child: Job) -> None:
    """Refuse to go on with `child` as the retry of what failed, if it was made of what was uncertain.

    Raises:
        JobError: it was.
    """
    if _is_of_uncertain(child):
        raise JobError(
            f"job {child.name!r} was made of the uncertain records of {parent.name!r}. Submit those that "
            f"{_rejects(parent)} calls failed or rejected as a job of another name"
        )


def _is_of_uncertain(child: Job) -> bool:
    return any(Path(source.path).name == UNCERTAIN_SOURCE for source in child.sources)


async def find_uncertain(name: str, ledger: Path | str = DEFAULT_LEDGER) -> UncertainRecords:
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
    async with wiring.online(wiring.load(job.config), job, unheard) as service:
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
    await _check_not_made(job, ledger)
    records = batches = 0
    examples: list[str] = []
    async for batch, settlement in ledger.partly_uncertain(job.name):
        records, batches = records + len(settlement.uncertain), batches + 1
        if batches <= MOST_EXAMPLES:
            examples.append(
                f"{len(settlement.uncertain)} of records {batch.start.index} to {batch.end.index - 1} "
                f"(batch {batch_name(batch.sequence)}: {next(iter(settlement.uncertain.values()))})"
            )
    return UncertainRecords(records, batches, examples, retry_name(job))


async def _check_not_made(job: Job, ledger: Ledger) -> None:
    """Refuse to make a second job of records, or one whose name is taken."""
    name = retry_name(job)
    for child in await ledger.jobs():
        if child.name == name and _is_of_uncertain(child):
            raise JobError(
                f"the uncertain records of job {job.name!r} were sent again as job {name!r}; "
                f"`bulksubmit resume {name}` goes on with it"
            )
        if child.name == name:
            raise JobError(
                f"the uncertain records of job {job.name!r} would become job {name!r}, which exists and holds others. "
                f"Submit those that {_rejects(job)} calls uncertain as a job of another name"
            )


async def retry_source(parent: Job, folder: Path) -> Source:
    """Write the records that can be tried again into `folder`, as they stand in the parent's `rejects.ndjson`.

    A person may have mended them there. Uncertain ones are left out: sending them again could make second tasks.

    Raises:
        JobError: the file is missing or damaged, or nothing in it can be tried again.
    """
    work = partial(_write, parent, folder / SOURCE, "failed or was rejected", lambda fate, _: fate in REPLAYABLE)
    return await anyio.to_thread.run_sync(work)


async def uncertain_source(parent: Job, ledger: Ledger, folder: Path) -> Source:
    """Write the uncertain records of the parent's settled batches into `folder`, as `retry_source` does with others.

    The ledger says which they are: a report may be older than what has become known since.

    Raises:
        JobError: as `retry_source` does.
    """
    indexes: set[int] = set()
    async for batch, settlement in ledger.partly_uncertain(parent.name):
        rejects = await ledger.rejects(parent.name, batch.start.index, batch.end.index)
        skips = await ledger.skips(parent.name, batch.start.index, batch.end.index)
        sent = good_indexes(batch, [reject.index for reject in rejects], skips)
        indexes.update(sent[position] for position in settlement.uncertain)

    def takes(fate: Fate, index: object) -> bool:
        return fate is Fate.UNCERTAIN and index in indexes

    return await anyio.to_thread.run_sync(partial(_write, parent, folder / UNCERTAIN_SOURCE, "is uncertain", takes))


def _rejects(job: Job) -> Path:
    return Path(job.output) / REJECTS


def _write(parent: Job, target: Path, chosen: str, takes: _Takes) -> Source:
    rejects = _rejects(parent)
    try:
        make_private_folder(target.parent)
        target.unlink(missing_ok=True)
        with open(target, "xb", opener=private) as file:
            file.writelines(_records(parent.name, rejects, takes))
            file.flush()
            os.fsync(file.fileno())
            written = file.tell()
    except OSError as error:
        raise JobError(
            f"{target} cannot be written ({error.strerror}); make room, or move it out of the way"
        ) from error
    if not written:
        raise JobError(f"{rejects} holds no record that {chosen}; there is nothing to try again")
    return describe(target, SourceSettings(format=Format.NDJSON), ours=True)


def _records(job: str, rejects: Path, takes: _Takes) -> Iterator[bytes]:
    """Yield the text of each record that is chosen, as a line, untouched: big integers survive."""
    try:
        with open(rejects, "rb", opener=regular) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    fate, index, text = _record(job, line.strip(), f"{rejects}, line {number}")
                    if takes(fate, index):
                        yield text.replace(b"\n", b" ") + b"\n"
    except OSError as error:
        raise JobError(f"{rejects} cannot be read ({error.strerror}); `bulksubmit report` writes it again") from error


def _record(job: str, line: bytes, where: str) -> tuple[Fate, object, bytes]:
    """Return fate, index and text of the record in a line of a rejects file."""
    try:
        values = loads(line)
        fate = Fate(values["state"])
        texts = members(line)
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{where}: not a line of a rejects file: it needs state and record") from error
    if values.get("job", job) != job:
        raise JobError(f"{where}: a record of job {values['job']!r}, not of {job!r}; retry that one")
    if "record" not in texts:
        raise JobError(f"{where}: the record is missing")
    text = texts["record"]
    # A record that was no JSON stands there as a string: its text is tried as it is, or as a person mended it.
    return fate, values.get("index"), orjson.loads(text).encode() if text.startswith(b'"') else text
