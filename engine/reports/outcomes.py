"""Writes a job's two report files, `outcomes.ndjson` and `rejects.ndjson`, and tells the fate of one record.

`commands.result` and `commands.query` call it. Both files are written batch by batch beside their final name and moved
there when whole, so a reader never sees half.

Nearly all records of most jobs were created, and their lines differ in four values only. Those lines are one join over
columns: a tenth of the time that an object and a call for each line take. The audit makes each line by itself and
compares, so neither way is its own judge.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import anyio.to_thread
import orjson

from engine.files import make_private_folder
from engine.ledger.base import Ledger
from engine.model.batch import Batch, decode_spans, good_indexes
from engine.model.job import Job
from engine.model.outcome import Fate, Outcome, Settlement
from engine.model.record import Reject, at, source_at
from engine.model.submission import State, Submission

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
class KnownBatch:
    """A batch with what became of its records."""

    batch: Batch
    submission: Submission
    settlement: Settlement | None
    """Of those that went up, once the batch is settled."""
    rejects: Sequence[Reject]

    def places(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return index, joined offset and length of each record that went up, as columns."""
        offsets, lengths = decode_spans(self.batch.start.offset, self.batch.spans)
        return good_indexes(self.batch, [reject.index for reject in self.rejects]), offsets, lengths


@dataclass(frozen=True, slots=True)
class Reports:
    """Where the reports of a job are."""

    outcomes: Path
    rejects: Path


TaskUrl: TypeAlias = Callable[[str], str]
"""The page of a task by its id."""
RecordAt: TypeAlias = Callable[[int, int], bytes]
"""(joined offset, length) → the record as JSON, whatever it held."""
_Followed: TypeAlias = tuple[Batch, Submission]

_GROUP_RECORDS = 1000
"""Batches are asked about and written together until they hold so many records: both cost a change of threads."""


async def fate_of(job: Job, ledger: Ledger, task_url: TaskUrl, index: int) -> Outcome | None:
    """Return the outcome of the record with this index; None if it was not read. One batch is looked at."""
    found = await ledger.batch_at(job.name, index)
    known = await _known(job, ledger, [found] if found else [])
    fates = (fated for one in known for fated in batch_fates(job, one, task_url))
    return next((fated.outcome for fated in fates if fated.outcome.index == index), None)


async def _known(job: Job, ledger: Ledger, group: Sequence[_Followed]) -> Sequence[KnownBatch]:
    settled = [batch.sequence for batch, submission in group if submission.state is State.SETTLED]
    settlements = await ledger.settlements(job.name, settled)
    return [
        KnownBatch(
            batch,
            submission,
            settlements.get(batch.sequence),
            await ledger.rejects(job.name, batch.start.index, batch.end.index) if batch.rejected else (),
        )
        for batch, submission in group
    ]


def batch_fates(job: Job, known: KnownBatch, task_url: TaskUrl) -> Sequence[Fated]:
    """Return the fate of every record of a batch, in order of their indexes."""
    sent = _sent(job, known, task_url)
    refused = [_rejected(job, reject) for reject in known.rejects]
    return sorted([*sent, *refused], key=lambda fated: fated.outcome.index) if refused else list(sent)


def _sent(job: Job, known: KnownBatch, task_url: TaskUrl, without: Collection[int] = ()) -> Iterator[Fated]:
    """Yield the fate of each record that went up, except for those at some positions."""
    submission, settlement = known.submission, known.settlement
    fate = Fate.UNRESOLVED
    error: str | None = f"its batch is {submission.state}"
    if submission.state is State.UNCERTAIN:
        fate, error = Fate.UNCERTAIN, submission.note
    task_id: str | None = None
    url: str | None = None
    details: Mapping[str, Any] = {}
    for position, (index, offset, length) in enumerate(zip(*known.places(), strict=True)):
        if position in without:
            continue
        if settlement is not None:
            if position in settlement.uncertain:
                task_id, fate, error = None, Fate.UNCERTAIN, settlement.uncertain[position]
            else:
                task_id, error = settlement.task_ids[position], settlement.errors.get(position)
                fate = Fate.FAILED if task_id is None else Fate.CREATED
            details = settlement.details.get(position, {})
            url = task_url(task_id) if task_id else None
        source = source_at(job.sources, offset)
        outcome = Outcome(
            index, source.path, offset - source.base, fate, task_id, submission.remote_id, url, error, details
        )
        yield Fated(outcome, offset, length)


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

        def write(group: Sequence[KnownBatch]) -> None:
            for known in group:
                lines, others = _batch_lines(job, known, task_url)
                outcomes.write(lines)
                rejects.write(b"".join(reject_lines(job, others, record_at)))

        async for group in _groups(ledger.batches(job.name)):
            await anyio.to_thread.run_sync(write, await _known(job, ledger, group))
    return reports


async def _groups(
    batches: AsyncIterator[_Followed],
) -> AsyncIterator[Sequence[_Followed]]:
    """Yield batches in groups of about `_GROUP_RECORDS` records, one batch at least."""
    group: list[_Followed] = []
    records = 0
    async for batch, submission in batches:
        group.append((batch, submission))
        records += batch.end.index - batch.start.index
        if records >= _GROUP_RECORDS:
            yield group
            group, records = [], 0
    if group:
        yield group


def existing_reports(job: Job) -> Reports | None:
    """Return the reports that were written before, if both are there."""
    folder = Path(job.output)
    reports = Reports(folder / OUTCOMES, folder / REJECTS)
    return reports if reports.outcomes.exists() and reports.rejects.exists() else None


def _batch_lines(job: Job, known: KnownBatch, task_url: TaskUrl) -> tuple[bytes, Sequence[Fated]]:
    """Return the outcomes' lines of a batch by index, and the fate of each record that was not plainly created."""
    plain = _plainly_created(known.settlement) if known.settlement else ()
    created = _created_lines(job, known, plain, task_url)
    if created and len(plain) == known.batch.end.index - known.batch.start.index:
        return created, ()
    done = plain if created else ()
    sent = _sent(job, known, task_url, frozenset(done))
    others = [*sent, *(_rejected(job, reject) for reject in known.rejects)]
    others.sort(key=lambda fated: fated.outcome.index)
    indexes = at(done, known.places()[0]) + [fated.outcome.index for fated in others]
    lines = dict(zip(indexes, [*created.splitlines(keepends=True), *outcome_lines(others)], strict=True))
    return b"".join(lines[index] for index in sorted(lines)), others


def _plainly_created(settlement: Settlement) -> Sequence[int]:
    """Return the positions of the records that became tasks of which there is nothing else to say."""
    task_ids, details = settlement.task_ids, settlement.details
    if not details and all(task_ids):
        return range(len(task_ids))
    return [position for position, task_id in enumerate(task_ids) if task_id and position not in details]


def _created_lines(job: Job, known: KnownBatch, positions: Sequence[int], task_url: TaskUrl) -> bytes:
    """Return the lines of the records at some positions, all plainly created; none if they are made one by one."""
    indexes, offsets, _ = known.places()
    task_ids: Sequence[Any] = known.settlement.task_ids if known.settlement else ()
    if not positions or not len(indexes) == len(offsets) == len(task_ids):
        return b""
    if len(positions) < len(task_ids):
        indexes, offsets, task_ids = at(positions, indexes), at(positions, offsets), at(positions, task_ids)
    source = source_at(job.sources, offsets[0])
    if offsets[-1] >= source.end:  # the batch runs across files
        return b""
    in_source = [offset - source.base for offset in offsets] if source.base else offsets
    varying = {"index": list(indexes), "offset": in_source, "task_id": task_ids, "url": list(map(task_url, task_ids))}
    line = [b"{"]
    """What all lines share, with a gap between for each value that varies."""
    for key, value in Outcome(0, source.path, 0, Fate.CREATED, batch_id=known.submission.remote_id).as_line().items():
        line[-1] += orjson.dumps(key) + b":"
        if key in varying:
            line += [b"", b","]
        else:
            line[-1] += orjson.dumps(value) + b","
    line[-1] = line[-1].removesuffix(b",") + b"}\n"
    lines = line * len(positions)
    for gap, values in enumerate(varying.values()):
        texts = orjson.dumps(values)[1:-1].split(b",")
        if len(texts) != len(positions):  # a comma stands within one
            return b""
        lines[2 * gap + 1 :: len(line)] = texts
    return b"".join(lines)


def outcome_lines(block: Sequence[Fated]) -> Iterator[bytes]:
    """Yield the line of each record in the outcomes."""
    return (orjson.dumps(fated.outcome.as_line(), option=orjson.OPT_APPEND_NEWLINE) for fated in block)


def reject_lines(job: Job, block: Sequence[Fated], record_at: RecordAt) -> Iterator[bytes]:
    """Yield the line of each record that stands in the rejects: not created, and not still on its way."""
    kept = (fated for fated in block if fated.outcome.state not in {Fate.CREATED, Fate.UNRESOLVED})
    return (_reject_line(job, fated, record_at) for fated in kept)


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
