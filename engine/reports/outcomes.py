"""Writes a job's report files, `outcomes.ndjson` and `rejects.ndjson`, and tells the fate of one record.

`commands.submit`, `commands.result` and `commands.query` call it. `rejects.csv` is made of the rejects at the end.
Both files are written batch by batch beside their final name and moved there when whole, so a reader never sees half.
Beside a run they grow with it, as far as all batches from the first one on are settled: nothing that a line says of a
settled batch changes any more. The state has no step out of it, and settlement, spans and rejects are written once. All
is read from the ledger, so the files say what it says, and what an earlier process left behind counts for nothing.

Nearly all records of most jobs were created, and their lines differ in four values only. Those lines are one join over
columns: a tenth of the time that an object and a call for each line take. The audit makes each line by itself and
compares, so neither way is its own judge. Both ways of a line stand here, side by side, which makes the module long.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from engine.files import DISK_ROOM_BYTES, make_private_folder, private
from engine.ledger.base import Ledger
from engine.model.batch import ROOTS, Batch, decode_lines, decode_spans, good_indexes
from engine.model.job import Job
from engine.model.outcome import Fate, Holding, LaterFate, Outcome, Settlement
from engine.model.record import Format, Position, Reject, Skipped, Source, Why, at, source_at
from engine.model.submission import State, Submission
from engine.progress.events import BatchSettled, Event
from engine.reports.spreadsheet import write_spreadsheet

OUTCOMES = "outcomes.ndjson"
REJECTS = "rejects.ndjson"
SPREADSHEET = "rejects.csv"
REPLAYABLE = frozenset({Fate.FAILED, Fate.REJECTED})
"""Fates after which sending the record again cannot make a second task."""
_NOT_REJECTED = frozenset({Fate.CREATED, Fate.SKIPPED, Fate.UNRESOLVED})
"""Fates of records that do not stand in the rejects."""


class Fated(Struct, frozen=True):
    """A record with its outcome and with where it stands, so that it can be read again."""

    outcome: Outcome
    joined_offset: int
    length: int
    line: int | None = None
    """In its source, from 1; None if the ledger does not know it: of a skipped record, or one that an older version has
    frozen."""


class KnownBatch(Struct, frozen=True):
    """A batch with what became of its records."""

    batch: Batch
    submission: Submission
    settlement: Settlement | None
    """Of those that went up, once the batch is settled."""
    rejects: Sequence[Reject]
    skips: Sequence[Skipped] = ()
    holders: Sequence[Sequence[Holding]] = ()
    """For each record of each skip, what the other job has in its place."""
    later: Mapping[int, LaterFate] = field(default_factory=dict)
    """By index: what became of created records' tasks afterwards."""

    def places(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return index, joined offset and length of each record that went up, as columns."""
        offsets, lengths = decode_spans(self.batch.start.offset, self.batch.spans)
        return good_indexes(self.batch, [reject.index for reject in self.rejects], self.skips), offsets, lengths


class Reports(Struct, frozen=True):
    """Where the reports of a job are."""

    outcomes: Path
    rejects: Path
    spreadsheet: Path
    """The rejects once more."""


TaskUrl: TypeAlias = Callable[[str], str]
"""The page of a task by its id."""
RecordAt: TypeAlias = Callable[[int, int], bytes]
"""(joined offset, length) → the record as JSON, whatever it held."""
_Followed: TypeAlias = tuple[Batch, Submission]

_GROUP_RECORDS = 2000
"""Batches are asked about and written together until they hold so many records: both cost a change of threads. A
record of batches of 1,000 costs 0.80 µs in groups of 1,000, 0.70 of 2,000, 0.67 of 4,000."""
_LOOK_RECORDS = 10_000
"""Records settled between two looks for what can be written: one for each 2,000 costs 0.2 to 0.4 µs a record."""


async def fate_of(job: Job, ledger: Ledger, task_url: TaskUrl, index: int) -> Outcome | None:
    """Return the outcome of the record with this index; None if it was not read. One batch is looked at."""
    _, fates = await fates_beside(job, ledger, task_url, index)
    return next((fated.outcome for fated in fates if fated.outcome.index == index), None)


async def fates_beside(
    job: Job, ledger: Ledger, task_url: TaskUrl, index: int
) -> tuple[KnownBatch | None, Sequence[Fated]]:
    """Return the batch that holds the record with this index, and the fate of every record of it; no batch if none."""
    found = await ledger.batch_at(job.name, index)
    if found is None:
        return None, ()
    (known,) = await _known(job, ledger, [found])
    return known, batch_fates(job, known, task_url)


async def _known(
    job: Job, ledger: Ledger, group: Sequence[_Followed], *, later_known: bool = True
) -> Sequence[KnownBatch]:
    """Return batches with what became of their records; `later_known`: something is known of a task since."""
    if not group:
        return []
    settled = [batch.sequence for batch, submission in group if submission.state is State.SETTLED]
    settlements = await ledger.settlements(job.name, settled)
    later: Mapping[int, LaterFate] = {}
    if settled and later_known:
        later = await ledger.later_fates(job.name, group[0][0].start.index, group[-1][0].end.index)
    return [
        replace(await known_batch(job, ledger, batch, submission, settlements.get(batch.sequence)), later=later)
        for batch, submission in group
    ]


async def known_batch(
    job: Job, ledger: Ledger, batch: Batch, submission: Submission, settlement: Settlement | None
) -> KnownBatch:
    """Return a batch with what the ledger knows of those of its records that did not go up."""
    start, stop = batch.start.index, batch.end.index
    rejects = await ledger.rejects(job.name, start, stop) if batch.rejected else ()
    skips = await ledger.skips(job.name, start, stop) if batch.skipped else ()
    return KnownBatch(batch, submission, settlement, rejects, skips, await ledger.holders(skips))


def batch_fates(job: Job, known: KnownBatch, task_url: TaskUrl) -> Sequence[Fated]:
    """Return the fate of every record of a batch, in order of their indexes."""
    sent = _sent(job, known, task_url)
    others = [_rejected(job, reject) for reject in known.rejects]
    for skip, holders in zip(known.skips, known.holders, strict=True):
        others += _skipped(job, skip, holders, task_url)
    return sorted([*sent, *others], key=lambda fated: fated.outcome.index) if others else list(sent)


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
    lines: Sequence[int | None] = decode_lines(known.batch) or [None] * known.batch.count
    for position, (index, offset, length, line) in enumerate(zip(*known.places(), lines, strict=True)):
        if position in without:
            continue
        if settlement is not None:
            if position in settlement.uncertain:
                task_id, fate, error = None, Fate.UNCERTAIN, settlement.uncertain[position]
            else:
                task_id, error = settlement.task_ids[position], settlement.errors.get(position)
                fate = Fate.FAILED if task_id is None else Fate.CREATED
            details = settlement.details.get(position, {})
            if known.later and (later := known.later.get(index)) is not None:
                details = {**details, "later": later.fate}
                details |= {"later_reason": later.reason} if later.reason else {}
            url = task_url(task_id) if task_id else None
        source = source_at(job.sources, offset)
        outcome = Outcome(
            index,
            source.shown,
            offset - source.base,
            fate,
            task_id,
            submission.remote_id,
            url,
            error,
            {**source.row_at(line), **details},
        )
        yield Fated(outcome, offset, length, line)


def _rejected(job: Job, reject: Reject) -> Fated:
    source = source_at(job.sources, reject.offset)
    outcome = Outcome(
        reject.index,
        source.shown,
        reject.offset - source.base,
        Fate.REJECTED,
        error=reject.reason,
        details=source.row_at(reject.line),
    )
    return Fated(outcome, reject.offset, reject.length, reject.line)


_WHY_SKIPPED = {
    Why.CREATED: None,
    Why.UNCERTAIN: "nobody knew what became of record {index} of job {job}, which it is the same as: not sent again",
    Why.CHANGED: "record {index} of job {job} has its key and other content: not sent (delta.changed)",
}


def _skipped(job: Job, skip: Skipped, holders: Sequence[Holding], task_url: TaskUrl) -> Iterator[Fated]:
    """Yield the fate of each record of a skip, with the job and the task that have it."""
    reason = _WHY_SKIPPED[skip.why]
    for number, (offset, length, held) in enumerate(zip(*decode_spans(skip.offset, skip.spans), holders, strict=True)):
        source = source_at(job.sources, offset)
        outcome = Outcome(
            skip.index + number,
            source.shown,
            offset - source.base,
            Fate.SKIPPED,
            held.task_id,
            held.batch_id,
            task_url(held.task_id) if held.task_id else None,
            reason.format(index=held.index, job=held.job) if reason else None,
            {"job": held.job, "record": held.index},
        )
        yield Fated(outcome, offset, length)


async def settled_batches(job: Job, ledger: Ledger, together: int) -> AsyncIterator[Sequence[KnownBatch]]:
    """Yield the settled batches of a job that have a name at the service, in groups of so many."""
    group: list[_Followed] = []
    async for batch, submission in ledger.batches(job.name, frozenset({State.SETTLED})):
        if submission.remote_id is not None:
            group.append((batch, submission))
        if len(group) == together:
            yield await _known(job, ledger, group)
            group = []
    if group:
        yield await _known(job, ledger, group)


class ReportWriter(AbstractContextManager["ReportWriter"]):
    """Writes both reports of one job into its output folder; what is not finished when the block ends is removed."""

    def __init__(
        self, job: Job, ledger: Ledger, task_url: TaskUrl, record_at: RecordAt, room_bytes: int = DISK_ROOM_BYTES
    ) -> None:
        self._job = job
        self._ledger = ledger
        self._task_url = task_url
        self._record_at = record_at
        self._room_bytes = room_bytes
        self._news = _LOOK_RECORDS  # so that the first one is looked at: earlier runs may have settled much
        """Records settled since the last look."""
        self._due = anyio.Event()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._files: Sequence[_Growing] = ()
        """Outcomes and rejects, once something of them is written."""
        self._written = Position()
        """Where the records end whose lines are written."""
        self._next = 0
        """Sequence of the first batch of which something is missing; of a split one, parts may be written."""

    def hear(self, event: Event) -> None:
        """Listen to the run, to know when there is something to write."""
        if isinstance(event, BatchSettled):
            self._news += event.created + event.failed + event.uncertain
            if self._news >= _LOOK_RECORDS:
                self._news = 0
                self._due.set()

    async def follow(self) -> None:
        """Write what is settled while the run goes on, until it is canceled.

        If that cannot be done, it is no matter of the run: `finish` begins anew, and says what is wrong.
        """
        with suppress(Exception):
            while True:
                await self._due.wait()
                self._due = anyio.Event()
                found = await self._ledger.batch(self._job.name, self._next)
                if found and found[1].state in {State.SETTLED, State.SPLIT}:  # cheaper than a page in vain
                    await self._write_on(frozenset({State.SETTLED}))

    async def finish(self) -> Reports:
        """Write the rest, whatever became of it, and put both files in the place of those that were there.

        Raises:
            OSError, SourceError, LedgerError: they could not be written, and the old ones stay.
            ValueError, TypeError, LookupError: likewise, since the ledger is damaged.
        """
        if not all(growing.is_there() for growing in self._files):  # `report` was called meanwhile
            self._discard()
        await self._write_on(None)
        return await anyio.to_thread.run_sync(self._put_in_place)

    async def _write_on(self, states: frozenset[State] | None) -> None:
        """Write the batches that come next, as long as they are in some states.

        Each group is written in a thread, and the next one is begun by the event loop, after all that is due there: so
        the sending waits no longer than a group takes, some milliseconds.
        """
        later_known = await self._ledger.last_later_at(self._job.name) > 0
        async for group in self._groups(states):
            known = await _known(self._job, self._ledger, group, later_known=later_known)
            await anyio.to_thread.run_sync(self._write, known, self._room_bytes if states else 0)

    async def _groups(self, states: frozenset[State] | None) -> AsyncIterator[Sequence[_Followed]]:
        """Yield these batches in groups of about `_GROUP_RECORDS` records, one batch at least."""
        group: list[_Followed] = []
        records = 0
        written = reached = self._written
        async for batch, submission in self._ledger.batches(self._job.name, states, after=self._next - 1):
            if (batch.end.offset, batch.end.index) <= (written.offset, written.index):
                continue  # a part of a batch of which not all was written
            if states and batch.start != reached:
                break  # what lies between is in another state
            reached = batch.end
            group.append((batch, submission))
            records += batch.end.index - batch.start.index
            if records >= _GROUP_RECORDS:
                yield group
                group, records = [], 0
        if group:
            yield group

    def _write(self, group: Sequence[KnownBatch], room_bytes: int) -> None:
        """Write the lines of some batches if so much room is left on the disk; if it fails, remove both files."""
        try:
            outcomes, rejects = self._files = self._files or self._opened()
            outcomes.check_room(room_bytes)
            for known in group:
                lines, others = _batch_lines(self._job, known, self._task_url)
                outcomes.file.write(lines)
                rejects.file.writelines(reject_lines(self._job, others, self._record_at))
            for growing in self._files:
                growing.file.flush()
        except BaseException:
            self._discard()
            raise
        batch = group[-1].batch
        self._written = batch.end
        self._next = batch.sequence + 1 if batch.sequence < ROOTS else batch.sequence % ROOTS

    def _opened(self) -> Sequence[_Growing]:
        reports = reports_of(self._job)
        make_private_folder(reports.outcomes.parent)
        return _Growing(reports.outcomes), _Growing(reports.rejects)

    def _put_in_place(self) -> Reports:
        reports = reports_of(self._job)
        outcomes, rejects = self._files or self._opened()
        spreadsheet = _Growing(reports.spreadsheet)
        self._files = outcomes, rejects, spreadsheet
        rejects.file.seek(0)
        write_spreadsheet(rejects.file, spreadsheet.file)
        for growing in self._files:
            growing.file.flush()
            os.utime(growing.file.fileno())  # one that got no line for long is as new as the ledger all the same
            os.fsync(growing.file.fileno())
        for growing in self._files:
            growing.put_in_place()
        return reports

    def _discard(self) -> None:
        for growing in self._files:
            growing.discard()
        self._begin_anew()

    def __exit__(self, *_: object) -> None:
        self._discard()


def reports_of(job: Job) -> Reports:
    """Return where the reports of a job are, or will be."""
    folder = Path(job.output)
    return Reports(folder / OUTCOMES, folder / REJECTS, folder / SPREADSHEET)


def existing_reports(job: Job) -> Reports | None:
    """Return the reports that were written before, if both are there."""
    reports = reports_of(job)
    return reports if reports.outcomes.exists() and reports.rejects.exists() else None


def _batch_lines(job: Job, known: KnownBatch, task_url: TaskUrl) -> tuple[bytes, Sequence[Fated]]:
    """Return the outcomes' lines of a batch by index, and the fate of each record that was not plainly created."""
    plain = _plainly_created(known, known.settlement) if known.settlement else ()
    created = _created_lines(job, known, plain, task_url)
    if created and len(plain) == known.batch.end.index - known.batch.start.index:
        return created, ()
    done = plain if created else ()
    sent = _sent(job, known, task_url, frozenset(done))
    others = [*sent, *(_rejected(job, reject) for reject in known.rejects)]
    indexes, skipped = at(done, known.places()[0]), b""
    for skip, holders in zip(known.skips, known.holders, strict=True):
        joined = _skipped_lines(job, skip, holders, task_url)
        skipped += joined
        if joined:
            indexes += range(skip.index, skip.index + skip.count)
        else:
            others += _skipped(job, skip, holders, task_url)
    if len(skipped) and len(indexes) == known.batch.end.index - known.batch.start.index == known.batch.skipped:
        return skipped, ()
    others.sort(key=lambda fated: fated.outcome.index)
    indexes += [fated.outcome.index for fated in others]
    texts = [*created.splitlines(keepends=True), *skipped.splitlines(keepends=True), *outcome_lines(others)]
    lines = dict(zip(indexes, texts, strict=True))
    return b"".join(lines[index] for index in sorted(lines)), others


def _plainly_created(known: KnownBatch, settlement: Settlement) -> Sequence[int]:
    """Return the positions of the records that became tasks of which there is nothing else to say."""
    task_ids, details = settlement.task_ids, settlement.details
    if known.later:
        told = {position for position, index in enumerate(known.places()[0]) if index in known.later}
        return [at for at, task_id in enumerate(task_ids) if task_id and at not in details and at not in told]
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
    varying = {"index": list(indexes), "offset": in_source, "task_id": task_ids}
    page = _page(task_url, task_ids)
    if page is None:
        varying["url"] = list(map(task_url, task_ids))
    rows = _rows(source, known.batch, positions)
    alike = Outcome(0, source.shown, 0, Fate.CREATED, batch_id=known.submission.remote_id, details=dict.fromkeys(rows))
    return _joined(alike, {**varying, **rows}, page)


def _page(task_url: TaskUrl, task_ids: Sequence[str]) -> tuple[str, str] | None:
    """Return what stands before and after a task's id in the URL of its page; None if that cannot be told.

    Only the id differs from task to task, as `Service.task_url` promises, so the ids' texts are used once more: to make
    all URLs takes as long as the rest of the lines.
    """
    first, last = task_ids[0], task_ids[-1]
    before, found, after = task_url(first).rpartition(first)
    return (before, after) if found and first != last and task_url(last) == f"{before}{last}{after}" else None


def _rows(source: Source, batch: Batch, positions: Sequence[int]) -> Mapping[str, Sequence[int]]:
    """Return the groups of rows and the rows in them where records of a batch stand, as columns; of Parquet only."""
    lines = decode_lines(batch) if source.format == Format.PARQUET else None
    if lines is None:
        return {}
    places = [source.row_at(line) for line in at(positions, lines)]
    return {key: [place[key] for place in places] for key in places[0]}


def _skipped_lines(job: Job, skip: Skipped, holders: Sequence[Holding], task_url: TaskUrl) -> bytes:
    """Return the lines of records that were skipped for others that were created; none if they are made one by one."""
    offsets, _ = decode_spans(skip.offset, skip.spans)
    source = source_at(job.sources, offsets[0])
    task_ids = [held.task_id for held in holders if held.task_id]
    if skip.why is not Why.CREATED or offsets[-1] >= source.end or len(task_ids) < skip.count:
        return b""
    varying: dict[str, Sequence[Any]] = {
        "index": list(range(skip.index, skip.index + skip.count)),
        "offset": [offset - source.base for offset in offsets],
        "task_id": task_ids,
        "batch_id": [held.batch_id for held in holders],
        "url": list(map(task_url, task_ids)),
        "record": [held.index for held in holders],
    }
    details = {"job": skip.other, "record": 0}
    return _joined(Outcome(0, source.shown, 0, Fate.SKIPPED, details=details), varying)


def _joined(outcome: Outcome, varying: Mapping[str, Sequence[Any]], page: tuple[str, str] | None = None) -> bytes:
    """Return the lines of outcomes that differ from one in some values, by key in the order of the keys in a line.

    `page`: what stands before and after the task's id in its URL, which differs likewise.
    """
    number = len(varying["index"])
    line = [b"{"]
    """What all lines share, with a gap between for each value that varies."""
    columns: list[Sequence[bytes]] = []
    ids: Sequence[bytes] = ()
    for key, value in outcome.as_line().items():
        line[-1] += orjson.dumps(key) + b":"
        if key == "task_id" and page is not None:
            columns.append(ids := orjson.dumps(varying[key])[2:-2].split(b'","'))
            line[-1] += b'"'
            line += [b"", b'",']
        elif key == "url" and page is not None:
            columns.append(ids)
            before, after = map(orjson.dumps, page)
            line[-1] += before[:-1]
            line += [b"", after[1:] + b","]
        elif key in varying:
            columns.append(orjson.dumps(varying[key])[1:-1].split(b","))
            line += [b"", b","]
        else:
            line[-1] += orjson.dumps(value) + b","
    if any(len(texts) != number for texts in columns):  # a comma stands within one
        return b""
    line[-1] = line[-1].removesuffix(b",") + b"}\n"
    lines = line * number
    for gap, texts in enumerate(columns):
        lines[2 * gap + 1 :: len(line)] = texts
    return b"".join(lines)


def outcome_lines(block: Sequence[Fated]) -> Iterator[bytes]:
    """Yield the line of each record in the outcomes."""
    return (orjson.dumps(fated.outcome.as_line(), option=orjson.OPT_APPEND_NEWLINE) for fated in block)


def reject_lines(job: Job, block: Sequence[Fated], record_at: RecordAt) -> Iterator[bytes]:
    """Yield the line of each record that stands in the rejects: not created, by whichever job, nor on its way."""
    kept = (fated for fated in block if fated.outcome.state not in _NOT_REJECTED)
    return (_reject_line(job, fated, record_at) for fated in kept)


def _reject_line(job: Job, fated: Fated, record_at: RecordAt) -> bytes:
    outcome = fated.outcome
    line = {
        "job": job.name,
        "index": outcome.index,
        "source": outcome.source,
        "offset": outcome.offset,
        "line": fated.line,
        **{key: outcome.details[key] for key in ("row_group", "row") if key in outcome.details},
        "state": outcome.state,
        "error": outcome.error,
        "attempts": job.attempt,
        # In JSON a line break can only stand between tokens, and a line of this file must not have one.
        "record": orjson.Fragment(record_at(fated.joined_offset, fated.length).replace(b"\n", b" ")),
    }
    return orjson.dumps(line) + b"\n"


class _Growing:
    """A new private file beside its final path. What an earlier process left there is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._partial.unlink(missing_ok=True)
        self.file = open(self._partial, "x+b", opener=private)  # noqa: SIM115 - closed when it is put in place

    def check_room(self, least_bytes: int) -> None:
        """Raise OSError if less is left on its disk."""
        disk = os.fstatvfs(self.file.fileno())
        if disk.f_bavail * disk.f_frsize < least_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def is_there(self) -> bool:
        """Return whether nobody has removed or replaced it."""
        try:
            return os.path.samestat(self._partial.lstat(), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            return False

    def put_in_place(self) -> None:
        """Move it to its path. Raise OSError if another process has begun its own."""
        if not self.is_there():
            raise OSError(f"another process writes {self.path}, too")
        self.file.close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove it, unless it is in its place."""
        if not self.file.closed:
            if self.is_there():
                self._partial.unlink()
            with suppress(OSError):  # what it still holds does not fit on the disk
                self.file.close()
