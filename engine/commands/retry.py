"""A finished job in, what of it can be submitted again out: its rejects as a source, or what of it is uncertain.

An uncertain batch is sent again in its place. A settled one is final, so those of its records of which nobody knows
become a job of their own, by the same way as failed ones. Batches come first: how they end may leave more records open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio.to_thread
import orjson

from engine.clock import SystemClock
from engine.commands import wiring
from engine.commands.orders import UncertainRecords
from engine.ledger.base import Ledger
from engine.model.batch import Batch, batch_name, good_indexes
from engine.model.doubt import Standing
from engine.model.errors import JobError
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Fate
from engine.model.record import Format, Source
from engine.model.settings import SourceSettings
from engine.model.submission import State, Submission
from engine.reports.outcomes import REJECTS, REPLAYABLE
from engine.source.json_text import members
from engine.source.sources import describe

SOURCE = "records.ndjson"
UNCERTAIN_SOURCE = "uncertain.ndjson"
"""By it a job that was made of uncertain records is known."""
MOST_EXAMPLES = 3
"""Batches that a question spells out; `report` tells of each record."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which lines of a rejects file are sent again."""

    words: str
    fates: frozenset[Fate]
    indexes: frozenset[int] | None = None
    """Only these records; all of those fates where left out."""

    def takes(self, fate: Fate, index: object) -> bool:
        return fate in self.fates and (self.indexes is None or index in self.indexes)


_NOT_CREATED = _Choice("failed or was rejected", REPLAYABLE)


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
        raise JobError(f"job {job.name!r} was canceled: nothing more of it is sent. Submit its records as a new job")
    tally = await ledger.tally(job.name)
    if not tally.uncertain:
        raise JobError(f"no record of job {job.name!r} is uncertain; there is nothing to send again")
    if tally.states.get(State.UNCERTAIN):
        return await _uncertain_batches(job, ledger)
    return await _uncertain_in_settled(job, ledger)


async def _waiting(job: Job, ledger: Ledger) -> UncertainRecords:
    async with wiring.online(wiring.load(job.config), job, lambda _: None, SystemClock()) as service:
        polling = service.polling
        batches = [
            (batch, replace(submission, note="accepted, and the service says that it waits"))
            async for batch, submission in ledger.batches(job.name, frozenset({State.RELEASED}))
            if polling and await polling.standing(str(submission.remote_id)) is Standing.WAITING
        ]
    if not batches:
        raise JobError(f"job {job.name!r} is not finished; `bulksubmit resume {job.name}` first")
    return _spelled_out(batches, job.name)


async def _uncertain_batches(job: Job, ledger: Ledger) -> UncertainRecords:
    return _spelled_out([pair async for pair in ledger.batches(job.name, frozenset({State.UNCERTAIN}))], job.name)


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
    return await anyio.to_thread.run_sync(partial(_write, parent, folder / SOURCE, _NOT_CREATED))


async def uncertain_source(parent: Job, ledger: Ledger, folder: Path) -> Source:
    """Write the uncertain records of the parent's settled batches into `folder`, as `retry_source` does with others.

    The ledger says which they are: a report may be older than what has become known since.

    Raises:
        JobError: as `retry_source` does.
    """
    indexes: set[int] = set()
    async for batch, settlement in ledger.partly_uncertain(parent.name):
        rejects = await ledger.rejects(parent.name, batch.start.index, batch.end.index)
        sent = good_indexes(batch, [reject.index for reject in rejects])
        indexes.update(sent[position] for position in settlement.uncertain)
    choice = _Choice("is uncertain", frozenset({Fate.UNCERTAIN}), frozenset(indexes))
    return await anyio.to_thread.run_sync(partial(_write, parent, folder / UNCERTAIN_SOURCE, choice))


def _rejects(job: Job) -> Path:
    return Path(job.output) / REJECTS


def _write(parent: Job, target: Path, choice: _Choice) -> Source:
    rejects = _rejects(parent)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JobError(f"{target} cannot be written ({error.strerror}); move it out of the way") from error
    written = 0
    with os.fdopen(descriptor, "wb") as file:
        for record in _records(parent.name, rejects, choice):
            file.write(record + b"\n")
            written += 1
        file.flush()
        os.fsync(file.fileno())
    if not written:
        raise JobError(f"{rejects} holds no record that {choice.words}; there is nothing to try again")
    return describe(target, SourceSettings(format=Format.NDJSON))


def _records(job: str, rejects: Path, choice: _Choice) -> Iterator[bytes]:
    """Yield the text of each record that is chosen, untouched: big integers survive."""
    try:
        with rejects.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _record(job, line.strip(), f"{rejects}, line {number}", choice)
    except OSError as error:
        raise JobError(f"{rejects} cannot be read ({error.strerror}); `bulksubmit report` writes it again") from error


def _record(job: str, line: bytes, where: str, choice: _Choice) -> Iterator[bytes]:
    try:
        values = orjson.loads(line)
        state = Fate(values["state"])
        texts = members(line)
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{where}: not a line of a rejects file: it needs state and record") from error
    if values.get("job", job) != job:
        raise JobError(f"{where}: a record of job {values['job']!r}, not of {job!r}; retry that one")
    if "record" not in texts:
        raise JobError(f"{where}: the record is missing")
    if choice.takes(state, values.get("index")):
        # A record that was no JSON stands there as a string: its text is tried as it is, or as a person mended it.
        text = texts["record"]
        yield orjson.loads(text).encode().replace(b"\n", b" ") if text.startswith(b'"') else text.replace(b"\n", b" ")
