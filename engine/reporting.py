"""A job's ledger in, its reports out: `outcomes.ndjson` and `rejects.ndjson`.

Both files are written batch by batch beside their final name and moved there when whole, so a reader never sees half.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import anyio.to_thread
import orjson

from engine.ledger.files import make_private_folder
from engine.model.batches import Batch, decode_spans, good_indexes
from engine.model.jobs import Job
from engine.model.outcomes import Fate, Outcome, Settlement
from engine.model.records import Reject, source_at
from engine.model.submissions import State, Submission
from engine.ports import Ledger

OUTCOMES = "outcomes.ndjson"
REJECTS = "rejects.ndjson"
REPLAYABLE = frozenset({Fate.FAILED, Fate.REJECTED})
"""Fates after which sending the record again cannot make a second task."""


@dataclass(frozen=True, slots=True)
class Fated:
    """A record with its outcome and with where it stands, so that it can be read again."""

    outcome: Outcome
    joined_offset: int
    length: int
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Reports:
    """Where the reports of a job are."""

    outcomes: Path
    rejects: Path


TaskUrl: TypeAlias = Callable[[str], str]
"""The page of a task by its id."""
RecordAt: TypeAlias = Callable[[int, int], bytes]
"""(joined offset, length) → the record as JSON, whatever it held."""


async def fates(job: Job, ledger: Ledger, task_url: TaskUrl) -> AsyncIterator[Sequence[Fated]]:
    """Yield the fate of every record read so far, in order of their indexes, a batch at a time."""
    async for batch, submission in ledger.batches(job.name):
        yield await _fates_of(job, ledger, batch, submission, task_url)


async def fate_of(job: Job, ledger: Ledger, task_url: TaskUrl, index: int) -> Outcome | None:
    """Return the outcome of the record with this index; None if it was not read. One batch is looked at."""
    found = await ledger.batch_at(job.name, index)
    block = await _fates_of(job, ledger, *found, task_url) if found else ()
    return next((fated.outcome for fated in block if fated.outcome.index == index), None)


async def _fates_of(
    job: Job, ledger: Ledger, batch: Batch, submission: Submission, task_url: TaskUrl
) -> Sequence[Fated]:
    rejects = await ledger.rejects(job.name, batch.start.index, batch.end.index) if batch.rejected else ()
    settlement = await ledger.settlement(job.name, batch.sequence) if submission.state is State.SETTLED else None
    return batch_fates(job, batch, submission, settlement, rejects, task_url)


def batch_fates(
    job: Job,
    batch: Batch,
    submission: Submission,
    settlement: Settlement | None,
    rejects: Sequence[Reject],
    task_url: TaskUrl,
) -> Sequence[Fated]:
    """Return the fate of every record of a batch, in order of their indexes; `settlement` only of a settled one."""
    sent = _sent(job, batch, submission, settlement, [reject.index for reject in rejects], task_url)
    refused = [_rejected(job, reject) for reject in rejects]
    return sorted([*sent, *refused], key=lambda fated: fated.outcome.index) if refused else list(sent)


def _sent(
    job: Job,
    batch: Batch,
    submission: Submission,
    settlement: Settlement | None,
    rejected: Sequence[int],
    task_url: TaskUrl,
) -> Iterator[Fated]:
    indexes = good_indexes(batch, rejected)
    offsets, lengths = decode_spans(batch.start.offset, batch.spans)
    fate, error = _open_fate(submission)
    task_id: str | None = None
    url: str | None = None
    details: Mapping[str, Any] = {}
    for position, (index, offset, length) in enumerate(zip(indexes, offsets, lengths, strict=True)):
        if settlement is not None:
            task_id, error = settlement.task_ids[position], settlement.errors.get(position)
            details = settlement.details.get(position, {})
            fate = Fate.FAILED if task_id is None else Fate.CREATED
            url = task_url(task_id) if task_id else None
        source = source_at(job.sources, offset)
        outcome = Outcome(
            index, source.path, offset - source.base, fate, task_id, submission.remote_id, url, error, details
        )
        yield Fated(outcome, offset, length)


def _open_fate(submission: Submission) -> tuple[Fate, str | None]:
    if submission.state is State.UNCERTAIN:
        return Fate.UNCERTAIN, submission.note
    return Fate.UNRESOLVED, f"its batch is {submission.state}"


def _rejected(job: Job, reject: Reject) -> Fated:
    source = source_at(job.sources, reject.offset)
    outcome = Outcome(reject.index, source.path, reject.offset - source.base, Fate.REJECTED, error=reject.reason)
    return Fated(outcome, reject.offset, reject.length, reject.line)


async def write_reports(job: Job, ledger: Ledger, task_url: TaskUrl, record_at: RecordAt) -> Reports:
    """Write both reports into the job's output folder."""
    folder = Path(job.output)
    reports = Reports(folder / OUTCOMES, folder / REJECTS)
    await anyio.to_thread.run_sync(make_private_folder, folder)
    with _replaced(reports.outcomes) as outcomes, _replaced(reports.rejects) as rejects:

        def write(block: Sequence[Fated]) -> None:
            outcomes.write(b"".join(outcome_lines(block)))
            rejects.write(b"".join(reject_lines(job, block, record_at)))

        async for block in fates(job, ledger, task_url):
            await anyio.to_thread.run_sync(write, block)
    return reports


def existing_reports(job: Job) -> Reports | None:
    """Return the reports that were written before, if both are there."""
    folder = Path(job.output)
    reports = Reports(folder / OUTCOMES, folder / REJECTS)
    return reports if reports.outcomes.exists() and reports.rejects.exists() else None


def outcome_lines(block: Sequence[Fated]) -> Iterator[bytes]:
    """Yield the line of each record in the outcomes."""
    return (orjson.dumps(fated.outcome.as_line(), option=orjson.OPT_APPEND_NEWLINE) for fated in block)


def reject_lines(job: Job, block: Sequence[Fated], record_at: RecordAt) -> Iterator[bytes]:
    """Yield the line of each record that stands in the rejects."""
    return (_reject_line(job, fated, record_at) for fated in block if _belongs(fated))


def _belongs(fated: Fated) -> bool:
    """Tell whether a record stands in the rejects: not created, and not still on its way."""
    return fated.outcome.state not in {Fate.CREATED, Fate.UNRESOLVED}


def _reject_line(job: Job, fated: Fated, record_at: RecordAt) -> bytes:
    outcome = fated.outcome
    line = {
        "job": job.name,
        "index": outcome.index,
        "source": outcome.source,
        "offset": outcome.offset,
        "line": fated.line,
        "state": outcome.state,
        "error": outcome.error,
        "attempts": job.attempt,
        # In JSON a line break can only stand between tokens, and a line of this file must not have one.
        "record": orjson.Fragment(record_at(fated.joined_offset, fated.length).replace(b"\n", b" ")),
    }
    return orjson.dumps(line) + b"\n"


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a new private file and put it in the place of `path` once it is whole and on disk."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
