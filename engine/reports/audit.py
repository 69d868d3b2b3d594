"""Proves a job from its ledger, its sources and its reports: every byte in one batch, each record with one fate.

`commands.query` calls it. It trusts no counter: it walks the batches in the order of their records, checks that they
lie end to end from the first byte to the last, cuts the sources into records again and compares what each batch and
each reject says of them, counts the fates one by one, sees that no task id stands twice, and holds the reports against
all of that.

Where a source is gone or another file by now, which is the rule after a night, that is said once, and all that does not
need it is proven.

What cannot be seen from here, since nothing else knows it: two task ids of a batch that changed places in the ledger
and in the outcomes alike; a blank between two records that became another blank; the text of a reject that is refused
for the same reason as before, where there is no `rejects.ndjson` to compare it with; the user's own keys, which only
help people to find records.

The module is a long one: the walk passes each batch to every check in turn, and they share what it has read of it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from tempfile import TemporaryFile

import anyio.to_thread

from engine.batch.chunker import ReferenceOf
from engine.ledger.base import Ledger
from engine.ledger.known import KnownRecords
from engine.model.batch import Batch, batch_name, good_indexes
from engine.model.errors import DamagedRow
from engine.model.job import Job, JobState
from engine.model.outcome import Fate, Holding, Kept, LaterFate, Settlement, Tally
from engine.model.record import Position, Reject, Skipped
from engine.model.submission import State, Submission
from engine.progress.text import count
from engine.reports.audit_checks import FamilyProof, Recut, ReportsCheck, TasksFrom, place
from engine.reports.audit_sources import SourcesCheck, find_lost
from engine.reports.outcomes import Fated, KnownBatch, RecordAt, TaskUrl, batch_fates, existing_reports
from engine.source.sources import is_untouched

MOST_FINDINGS = 100
"""Findings that are spelled out; a broken disk would name millions."""

_AFTER_SENDING = (Fate.CREATED, Fate.FAILED, Fate.UNCERTAIN)
"""Fates of the records that went up, once their batch is settled."""

_RUN_IDS = 1 << 18
"""Sorting them takes some 10 MiB."""
_BUCKETS = 256
"""10,000,000 ids make 40,000 a bucket."""
_BUCKET_EDGES = [(bucket << 56) - (1 << 63) for bucket in range(1, _BUCKETS)]
_HASH_BYTES = array("q").itemsize

_TICK_SECONDS = 0.02
"""A file's time comes from the kernel's coarse clock, which is up to a tick behind the one that steps are dated by."""


class Reported(StrEnum):
    """What was done with the reports of a job."""

    COMPARED = "compared"
    ABSENT = "absent"
    """They are not there, or not both: there is nothing to compare."""
    OUTDATED = "outdated"
    """They were written before the last step of a batch: `bulksubmit report` writes them anew."""


@dataclass(slots=True)
class Audit:
    """What an audit counted and what it found wrong."""

    job: str
    records: int = 0
    batches: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    unread_bytes: int = 0
    """Bytes of the sources that no batch covers yet: the job was stopped while it was reading."""
    findings: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    """For each source that is gone or another file by now: which, and what could not be compared with it."""
    reports: Reported = Reported.ABSENT
    mended: int = 0
    """Records in the rejects report that are not as in the source: mended for `retry`, as a person may."""
    taken_out: int = 0
    """Records whose line is not in the rejects report: taken out, so that `retry` leaves them alone."""

    @property
    def consistent(self) -> bool:
        """Whether nothing is wrong: each record that was read has exactly one fate."""
        return not self.findings and self.records == self.fates.total()

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong, and all was compared with the sources."""
        return self.consistent and not self.unproven

    def find(self, what: str) -> None:
        """Note something that is wrong."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(what)

    def find_all(self, findings: Iterable[str]) -> None:
        """Note several things that are wrong."""
        for what in findings:
            self.find(what)


class Repeats(AbstractContextManager["Repeats"]):
    """Collects task ids; `found` are the hashes of those that came more than once.

    An id is kept as a hash of 8 bytes in a temporary file. Each run of hashes is written sorted, so that those of one
    bucket lie together; afterwards one bucket after the other is read from all runs. Two ids with one hash are rare (of
    10,000,000, once in 370,000 audits) and no harm: the audit compares the ids themselves.
    """

    def __init__(self, run_ids: int = _RUN_IDS) -> None:
        self._run_ids = run_ids
        self._file = TemporaryFile(prefix="bulksubmit-")  # noqa: SIM115 - closed by __exit__
        self._run: list[int] = []
        self._runs: list[Sequence[int]] = []
        """For each run, where in the file each of its buckets begins, and its end."""

    def add(self, ids: Sequence[str]) -> None:
        """Take some ids."""
        self._run += map(hash, ids)
        if len(self._run) >= self._run_ids:
            self._write()

    def _write(self) -> None:
        self._run.sort()
        base = self._file.tell() // _HASH_BYTES
        inner = [base + bisect_left(self._run, edge) for edge in _BUCKET_EDGES]
        self._runs.append(array("q", [base, *inner, base + len(self._run)]))
        array("q", self._run).tofile(self._file)
        self._run = []

    def found(self, most: int) -> frozenset[int]:
        """Return the hashes that came more than once, but no more than `most`."""
        self._write()
        found: list[int] = []
        for bucket in range(_BUCKETS):
            hashes = self._bucket(bucket)
            if len(set(hashes)) < len(hashes):
                found += [value for value, count in Counter(hashes).items() if count > 1]
            if len(found) >= most:
                break
        return frozenset(found[:most])

    def _bucket(self, bucket: int) -> Sequence[int]:
        hashes = array("q")
        for edges in self._runs:
            self._file.seek(edges[bucket] * _HASH_BYTES)
            hashes.frombytes(self._file.read((edges[bucket + 1] - edges[bucket]) * _HASH_BYTES))
        return hashes

    def __exit__(self, *_: object) -> None:
        self._file.close()


def repeated(ids: Sequence[str | None], hashes: frozenset[int]) -> Iterator[tuple[int, str]]:
    """Yield position and id of those whose hash is among `hashes`."""
    return ((at, task_id) for at, task_id in enumerate(ids) if task_id and hash(task_id) in hashes)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a job is held against besides its ledger."""

    kind: str
    """Of the service, as the configuration says it."""
    tasks_from: TasksFrom
    reference: ReferenceOf
    task_url: TaskUrl
    record_at: RecordAt


@dataclass(frozen=True, slots=True)
class _Kept:
    """A batch and all that the ledger keeps of it."""

    batch: Batch
    submission: Submission
    fates: Kept
    rejects: Sequence[Reject]
    skips: Sequence[Skipped]
    holders: Sequence[Sequence[Holding]]
    later: Mapping[int, LaterFate]

    @property
    def named(self) -> str:
        return f"batch {batch_name(self.batch.sequence)}"


async def audit(job: Job, ledger: Ledger, evidence: Evidence) -> Audit:
    """Check a job from its ledger, its sources and its reports."""
    result = Audit(job.name)
    _check_job(result, job, evidence.kind)
    with ExitStack() as opened:
        repeats = opened.enter_context(Repeats())
        family = None
        if job.family:
            family = FamilyProof(opened.enter_context(KnownRecords(ledger.address)), job)
        recut = partial(Recut, job.sources, evidence.tasks_from, evidence.reference, family)
        sources = SourcesCheck(job, await find_lost(job, ledger, recut), recut(), family)
        reports = await _reports(result, job, ledger, evidence, opened, sources.lost)
        expected = Position()
        async for batch, submission in ledger.batches(job.name):
            _check_place(result, job, batch, expected)
            kept = await _kept(result, job, ledger, batch, submission)
            whole = _check_fates(result, kept, repeats)
            result.find_all(await anyio.to_thread.run_sync(sources.check, batch, kept.rejects, kept.skips))
            if reports is not None and whole:
                await anyio.to_thread.run_sync(reports.check, _listed(result, job, kept, evidence.task_url))
            result.batches += 1
            result.records += batch.end.index - batch.start.index
            expected = batch.end
        await _check_divided(result, job, ledger, replace(sources, recut=recut()))
        if reports is not None:
            await anyio.to_thread.run_sync(reports.finish)
            result.mended, result.taken_out = reports.mended, reports.taken_out
        await _check_ids(result, job, ledger, repeats.found(MOST_FINDINGS))
    said = [sources.unproven(source) for source in job.sources if source.path in sources.lost]
    if job.state is JobState.OPEN:  # it cannot go on: a person or the next night must end it
        result.find_all(said)
    else:
        result.unproven += said
    _check_end(result, job, expected)
    await _check_rest(result, job, ledger)
    return result


async def _check_divided(result: Audit, job: Job, ledger: Ledger, recut: SourcesCheck) -> None:
    """Check what parts stand for: it must have been cut as they were, and has no fate of its own."""
    async for whole in ledger.split_batches(job.name):
        rejects = await ledger.rejects(job.name, whole.start.index, whole.end.index)
        skips = await ledger.skips(job.name, whole.start.index, whole.end.index)
        result.find_all(await anyio.to_thread.run_sync(recut.check, whole, rejects, skips))
        if await ledger.stored_fates(job.name, whole.sequence) != Kept():
            result.find(f"batch {batch_name(whole.sequence)}: it is split, and yet has an outcome of its own")


def _check_job(result: Audit, job: Job, kind: str) -> None:
    if job.service != kind:
        result.find(f"the job is one for {job.service!r}, its configuration one for {kind!r}")
    base = 0
    for number, source in enumerate(job.sources):
        if (source.number, source.base) != (number, base):
            result.find(
                f"source {source.number} ({source.path}) begins at joined byte {source.base}; source {number} should "
                f"stand here and begin at {base}"
            )
        base += source.size


async def _reports(
    result: Audit, job: Job, ledger: Ledger, evidence: Evidence, opened: ExitStack, lost: Mapping[str, str]
) -> ReportsCheck | None:
    """Open the reports if they are there and belong to what the ledger says now."""
    found = await anyio.to_thread.run_sync(existing_reports, job)
    if found is None:
        return None
    written = min(path.stat().st_mtime for path in (found.outcomes, found.rejects))
    if await _last_step(job, ledger) > written + _TICK_SECONDS:
        result.reports = Reported.OUTDATED
        return None
    result.reports = Reported.COMPARED
    touched = {source.shown for source in job.sources if not is_untouched(source)}
    return opened.enter_context(
        ReportsCheck(result.find, job, found, evidence.record_at, touched.__contains__, lost=lost)
    )


async def _last_step(job: Job, ledger: Ledger) -> float:
    last = 0.0
    async for _, submission in ledger.batches(job.name):
        last = max(last, submission.changed_at)
    return max(last, await ledger.last_later_at(job.name))


def _check_place(result: Audit, job: Job, batch: Batch, expected: Position) -> None:
    if batch.start != expected:
        start, name = batch.start, batch_name(batch.sequence)
        result.find(
            f"batch {name}: begins at joined byte {start.offset}, record {start.index}, line {start.line}; the one "
            f"before ends at byte {expected.offset}, record {expected.index}, line {expected.line} "
            f"({place(job.sources, expected.offset)})"
        )


async def _kept(result: Audit, job: Job, ledger: Ledger, batch: Batch, submission: Submission) -> _Kept:
    rejects = await ledger.rejects(job.name, batch.start.index, batch.end.index)
    skips = await ledger.skips(job.name, batch.start.index, batch.end.index)
    holders: Sequence[Sequence[Holding]] = ()
    try:
        holders = await ledger.holders(skips)
    except DamagedRow as error:
        result.find(f"batch {batch_name(batch.sequence)}: {error}")
    fates = Kept()
    try:
        fates = await ledger.stored_fates(job.name, batch.sequence)
    except (ValueError, TypeError, AttributeError) as error:
        result.find(f"batch {batch_name(batch.sequence)}: its settlement cannot be read ({error})")
    later = await ledger.later_fates(job.name, batch.start.index, batch.end.index)
    return _Kept(batch, submission, fates, rejects, skips, holders, later)


def _check_fates(result: Audit, kept: _Kept, repeats: Repeats) -> bool:
    """Count the fates of a batch; return whether they are whole."""
    before = len(result.findings)
    batch, submission = kept.batch, kept.submission
    result.fates[Fate.REJECTED] += len(kept.rejects)
    if len(kept.rejects) != batch.rejected:
        result.find(f"{kept.named}: {batch.rejected} records were rejected, {len(kept.rejects)} rejects are there")
    skipped = sum(skip.count for skip in kept.skips)
    if skipped:
        result.fates[Fate.SKIPPED] += skipped
    if skipped != batch.skipped:
        result.find(f"{kept.named}: {batch.skipped} records were skipped, {skipped} are in skips")
    if submission.state is State.SETTLED:
        _check_settlement(result, kept, repeats)
    else:
        fate = Fate.UNCERTAIN if submission.state is State.UNCERTAIN else Fate.UNRESOLVED
        result.fates[fate] += batch.count
        if kept.fates != Kept():
            result.find(f"{kept.named}: it is {submission.state}, and has the outcomes of a settled one")
    return len(result.findings) == before < MOST_FINDINGS


def _listed(result: Audit, job: Job, kept: _Kept, task_url: TaskUrl) -> Sequence[Fated]:
    settlement = (kept.fates.settlement or Settlement([])) if kept.submission.state is State.SETTLED else None
    try:
        known = KnownBatch(kept.batch, kept.submission, settlement, kept.rejects, kept.skips, kept.holders, kept.later)
        return batch_fates(job, known, task_url)
    except (ValueError, IndexError) as error:
        result.find(f"{kept.named}: its records cannot be listed ({error})")
        return ()


def _check_settlement(result: Audit, kept: _Kept, repeats: Repeats) -> None:
    batch, settlement = kept.batch, kept.fates.settlement or Settlement([])
    ids = settlement.task_ids
    if len(ids) != batch.count:
        result.find(f"{kept.named}: {batch.count} records went up, {len(ids)} outcomes are there")
    if kept.fates.settlement is not None and not batch.count:
        result.find(f"{kept.named}: it has no record to send, and a settlement")
    created = [task_id for task_id in ids if task_id is not None]
    if not all(isinstance(task_id, str) for task_id in created):
        result.find(f"{kept.named}: a task id is no text")
        return
    if "" in created:
        what = count(created.count(""), "record")
        result.find(f"{kept.named}: {what} called created without a task id; look them up at the service")
    wrong = settlement.unclear() | {at for at in settlement.details if not 0 <= at < len(ids)}
    if wrong:
        result.find(f"{kept.named}: position {min(wrong)} of it has no single outcome")
    unknown = len(settlement.uncertain)
    counted = len(created), len(ids) - len(created) - unknown, unknown
    stated = kept.fates.created, kept.fates.failed, kept.fates.uncertain
    if counted != stated:
        result.find(f"{kept.named}: it counts {_fates(stated)}, its outcomes are {_fates(counted)}")
    repeats.add([task_id for task_id in created if task_id])
    for fate, number in zip(_AFTER_SENDING, counted, strict=True):
        result.fates[fate] += number


def _fates(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number} {fate}" for fate, number in zip(_AFTER_SENDING, numbers, strict=True))


async def _check_ids(result: Audit, job: Job, ledger: Ledger, hashes: frozenset[int]) -> None:
    """Name the records that share a task id; the ledger is read again only if there may be some."""
    first: dict[str, str] = {}
    if not hashes:
        return
    async for batch, _ in ledger.batches(job.name, frozenset({State.SETTLED})):
        try:
            settlement = (await ledger.stored_fates(job.name, batch.sequence)).settlement
        except (ValueError, TypeError, AttributeError):
            continue  # found before
        hits = list(repeated(settlement.task_ids, hashes)) if settlement else []
        if not hits:
            continue
        rejects = await ledger.rejects(job.name, batch.start.index, batch.end.index)
        skips = await ledger.skips(job.name, batch.start.index, batch.end.index)
        indexes = good_indexes(batch, [reject.index for reject in rejects], skips)
        for at, task_id in hits:
            record = f"record {indexes[at] if at < len(indexes) else '?'} (batch {batch_name(batch.sequence)})"
            if task_id in first:
                result.find(
                    f"{first[task_id]} and {record} have the same task id {task_id!r}: one of them was not created, or "
                    "the ledger was changed; look both up at the service"
                )
            first.setdefault(task_id, record)


def _check_end(result: Audit, job: Job, reached: Position) -> None:
    if job.read_complete and reached.offset != job.size_bytes:
        result.find(f"the sources have {job.size_bytes} bytes, the batches cover {reached.offset}")
    result.unread_bytes = job.size_bytes - reached.offset
    undecided = result.fates[Fate.UNRESOLVED]
    if job.state is JobState.FINISHED and (undecided or not job.read_complete):
        whole = "read to the end" if job.read_complete else "not read to the end"
        result.find(f"the job is finished, yet its sources are {whole} and {undecided} of its records unresolved")


async def _check_rest(result: Audit, job: Job, ledger: Ledger) -> None:
    """Compare totals, and look for rows that the walk did not pass."""
    tally: Tally = await ledger.tally(job.name)
    counted = {fate: result.fates[fate] for fate in Fate}
    stated = {fate: getattr(tally, fate.value) for fate in Fate}
    if counted != stated or tally.records != result.records or tally.batches != result.batches:
        result.find(
            f"the ledger's totals say {_sum(stated)} of {tally.records} records in {tally.batches} batches, its "
            f"batches {_sum(counted)} of {result.records} in {result.batches}"
        )
    rejects = await ledger.count_rejects(job.name)
    if rejects != result.fates[Fate.REJECTED]:
        result.find(f"the ledger has {rejects} rejects, {result.fates[Fate.REJECTED]} of them within a batch")
    skipped = await ledger.count_skipped(job.name)
    if skipped != result.fates[Fate.SKIPPED]:
        result.find(f"the ledger has {skipped} skipped records, {result.fates[Fate.SKIPPED]} of them within a batch")
    if job.parent and job.read_complete and result.records:
        await _check_origins(result, job, ledger)
    result.find_all(await ledger.inconsistent_rows(job.name))


async def _check_origins(result: Audit, job: Job, ledger: Ledger) -> None:
    """See that a retry knows of each of its records where it comes from; one by an older bulksubmit knows of none."""
    known = await ledger.origins(job.name, 0, 1)
    last = await ledger.origins(job.name, result.records - 1, result.records + 1)
    if (known or last) and list(last) != [result.records - 1]:
        result.find(
            f"the ledger does not say of each of {result.records} records which one of {job.parent!r} it is: put a "
            "backup of the ledger back"
        )


def _sum(fates: dict[Fate, int]) -> str:
    return " + ".join(f"{number} {fate}" for fate, number in fates.items())
