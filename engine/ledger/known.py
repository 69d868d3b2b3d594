"""What a family of jobs knows of records, looked up by hash; and what became of each with the job that has it.

`batch.known` asks it block by block, in the process that plans; `reports/` asks it about the records that were skipped.
It reads on a connection of its own and never writes. What it remembers of a job is three columns, one entry a batch, so
its memory grows with batches and not with records.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from engine.ledger import rows
from engine.ledger.address import LedgerAddress, open_reader
from engine.model.batch import Batch, decode_spans, good_indexes
from engine.model.errors import DamagedRow
from engine.model.job import JobState
from engine.model.outcome import Fate, Holding, Settlement
from engine.model.record import SHARED, Mark, Reject, Skipped, Why
from engine.model.submission import State, Submission

Holder: TypeAlias = tuple[int, int]
"""Job, by its short name, and index: a record that a family knows."""

_JOBS = 1000
"""Jobs that are remembered; a family of some years has one for each night."""
_BATCHES = 64
"""Batches of which the fate of each record is remembered: most batches are wholly created, and need none."""


class _Batches(Struct, frozen=True):
    """The batches of a job that send something, as columns."""

    name: str
    state: JobState
    undone: bool
    """Some of its created records were taken back."""
    starts: array[int]
    sequences: array[int]
    whole: bytes
    """1: every record of the batch was created."""


class _Fates(Struct, frozen=True):
    """A batch and the fate of each of its records."""

    batch: Batch
    submission: Submission
    settlement: Settlement | None
    indexes: Sequence[int]
    """Of the records that go up."""

    def position(self, index: int) -> int:
        """Return where among them a record stands."""
        return bisect_right(self.indexes, index) - 1


class KnownRecords(AbstractContextManager["KnownRecords"]):
    """Looks up records in a ledger. One thread at a time uses it.

    Raises:
        LedgerError: the ledger cannot be read.
    """

    def __init__(self, address: LedgerAddress) -> None:
        self._address = address
        self._connection = open_reader(address)
        self._whole = -1, 0, 0
        """Job, first index and end of the wholly created batch that was met last: neighbours are mostly asked about."""
        self._batches = lru_cache(_JOBS)(self._read_batches)
        self._fates = lru_cache(_BATCHES)(self._read_fates)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ledger."""
        self._connection.close()

    def job_id(self, name: str) -> int:
        """Return the short name of a job; -1 if there is none."""
        found = self._ask("job_id", name=name)
        return int(found[0][0]) if found else -1

    def job_name(self, job: int) -> str:
        """Return the name of a job."""
        return self._batches(job).name

    def find(self, hashes: Sequence[int]) -> Mapping[int, tuple[bytes, int, int]]:
        """Return hash → rest, job and index of the records that are known by some hashes."""
        wanted = orjson.dumps(hashes).decode()
        return {found: (rest, job, index) for found, rest, job, index in self._ask("known", hashes=wanted)}

    def copies(self, hash_: int) -> Sequence[tuple[bytes, int, int]]:
        """Return rest, job and index of the further records of a hash."""
        return [(rest, job, index) for rest, job, index in self._ask("copies", hash=hash_)]

    def fate(self, holder: Holder) -> Fate:
        """Return what became of a record.

        UNCERTAIN also stands for one that is still on its way. UNRESOLVED is one that its job, canceled, has not sent.
        FAILED is one that was taken back, too.
        """
        job, index = holder
        whole_job, first, end = self._whole
        if job == whole_job and first <= index < end:
            return Fate.CREATED
        batches = self._batches(job)
        at = bisect_right(batches.starts, index) - 1
        if at >= 0 and batches.whole[at] and not batches.undone:
            end = batches.starts[at + 1] if at + 1 < len(batches.starts) else index + 1
            self._whole = job, batches.starts[at], end
            return Fate.CREATED
        if at < 0:
            raise DamagedRow(f"job {batches.name!r} has no batch with record {index}, which its family knows")
        if batches.undone and self._ask("is_undone", job=job, record_index=index):
            return Fate.FAILED
        found = self._fates(job, batches.sequences[at])
        if found.settlement is not None:
            position = found.position(index)
            if found.settlement.task_ids[position] is not None:
                return Fate.CREATED
            return Fate.UNCERTAIN if position in found.settlement.uncertain else Fate.FAILED
        # STAGING may have made something: a draft, which is all that some loads want.
        # Half of a batch that may have arrived is frozen, and may be there.
        unsent = found.submission.state in {State.FROZEN, State.STAGED} and found.submission.sent_at is None
        return Fate.UNCERTAIN if not unsent or batches.state is not JobState.CANCELED else Fate.UNRESOLVED

    def holdings(self, skip: Skipped) -> Sequence[Holding]:
        """Return what the other job has in the place of each skipped record; what nobody knew then is not told now."""
        places = range(skip.other_index, skip.other_index + skip.count)
        if skip.why is Why.UNCERTAIN:
            return [Holding(skip.other, index) for index in places]
        job = self.job_id(skip.other)
        return [Holding(skip.other, index, *self.task((job, index))) for index in places]

    def task_id(self, holder: Holder) -> str | None:
        """Return the id of the task that a record became, taken back since or not; None if it became none."""
        found = self._batch_of(holder)
        position = found.position(holder[1]) if found else -1
        if found is None or found.settlement is None or position < 0 or found.indexes[position] != holder[1]:
            return None
        return found.settlement.task_ids[position]

    def task(self, holder: Holder) -> tuple[str | None, str | None]:
        """Return the id of the task that a record became, if it did, and the name of its batch at the service."""
        job, index = holder
        found = self._batch_of(holder)
        position = found.position(index) if found else -1
        if found is None or found.settlement is None or position < 0 or found.indexes[position] != index:
            raise DamagedRow(f"job {self.job_name(job)!r} has created no record {index}, which was skipped for it")
        return found.settlement.task_ids[position], found.submission.remote_id

    def _batch_of(self, holder: Holder) -> _Fates | None:
        job, index = holder
        batches = self._batches(job)
        at = bisect_right(batches.starts, index) - 1
        return self._fates(job, batches.sequences[at]) if at >= 0 else None

    def key(self, holder: Holder) -> bytes | None:
        """Return the user's own key of a record, as it is kept; None if none is, or it was frozen before any was."""
        job, index = holder
        for first, keys in self._ask("keys_at", job=job, record_index=index):
            kept = keys.split(b"\n")
            if index - first < len(kept):
                return bytes(kept[index - first])
        for first, count, *_, other, other_index in self._ask("skip_at", job=job, record_index=index):
            if index < first + count:
                return self.key((other, other_index + index - first))
        return None

    def with_key(self, job: int, mark: Mark, kept: bytes) -> Sequence[int]:
        """Return the indexes of the records of a job that have a key, given the mark of it and how it is kept.

        Mostly what the family knows tells. Of a record that did not go up, or has gone up again in a later job, only
        the keys of the job do, which are all looked through.
        """
        hash_, shared = mark
        rows = [*self.find([hash_]).values(), *self.copies(hash_)]
        holders = [(other, index) for rest, other, index in rows if rest[:SHARED] == shared]
        found = {index for other, index in holders if other == job}
        for holder in holders:
            found.update(index for index, _ in self.skipped_for(job, holder, 1))
        if not found:
            for first, keys in self._ask("keys_like", job=job, key=kept):
                found.update(first + at for at, one in enumerate(keys.split(b"\n")) if one == kept)
        return sorted(found)

    def place(self, holder: Holder) -> tuple[int, int]:
        """Return joined offset and length of a record, sent or skipped."""
        job, index = holder
        if found := self._batch_of(holder):
            position = found.position(index)
            if position >= 0 and found.indexes[position] == index:
                offsets, lengths = decode_spans(found.batch.start.offset, found.batch.spans)
                return offsets[position], lengths[position]
        for first, count, offset, spans, *_ in self._ask("skip_at", job=job, record_index=index):
            if index < first + count:
                offsets, lengths = decode_spans(offset, spans)
                return offsets[index - first], lengths[index - first]
        raise DamagedRow(f"job {self.job_name(job)!r} has no record {index}, which its family knows")

    def family_records(self, family: str, own: int) -> Iterator[tuple[Holder, Mark]]:
        """Yield what a family knows from before the job `own`, in the order of jobs and records."""
        for job, index, hash_, rest in self._stream("family_records", family=family, own=own):
            yield (job, index), (hash_, rest)

    def skipped_by(self, own: int) -> Iterator[tuple[Holder, int]]:
        """Yield, in the same order, for which records a job has skipped its own: the first of a run, and how many."""
        return (((other, index), count) for other, index, count in self._stream("skipped_by", own=own))

    def skipped_for(self, job: int, first: Holder, count: int) -> Sequence[tuple[int, int]]:
        """Return (index, other index) of what `job` skipped for one of `count` records of another one."""
        other, start = first
        found: list[tuple[int, int]] = []
        last = start + count - 1
        while last >= start and (skips := self._ask("covering_skip", job=job, other=other, other_index=last)):
            ((index, length, other_index),) = skips
            covered = range(max(start, other_index), min(last + 1, other_index + length))
            if not covered:
                break
            found += [(index + at - other_index, at) for at in covered]
            last = covered[0] - 1
        return found

    def frozen_end(self, job: int) -> int:
        """Return the index of the first record that is not frozen yet."""
        return max((index or 0 for *_, index in self._ask("frozen_end", job=job)), default=0)

    def _read_batches(self, job: int) -> _Batches:
        found = self._ask("standing", job=job)
        if not found:
            raise DamagedRow(
                f"ledger {self._address}: a family knows records of a job that is missing: put a backup back"
            )
        ((name, state, undone),) = found
        places = self._ask("places", job=job)
        return _Batches(
            name,
            JobState(state),
            bool(undone),
            array("q", [start for start, _, _ in places]),
            array("q", [sequence for _, sequence, _ in places]),
            bytes(whole for _, _, whole in places),
        )

    def _read_fates(self, job: int, sequence: int) -> _Fates:
        (columns,) = self._ask("batch", job=job, sequence=sequence)
        batch, submission = rows.to_submitted(*columns)
        here = {"job": job, "start": batch.start.index, "stop": batch.end.index}
        rejects = [Reject(*one).index for one in self._ask("rejects", **here)] if batch.rejected else []
        skips = [rows.to_skip(*one) for one in self._ask("skips", **here)] if batch.skipped else []
        settled = self._ask("settlements", job=job, sequences=f"[{sequence}]")
        settlement = rows.to_numbered_settlement(*settled[0])[1] if settled else None
        return _Fates(batch, submission, settlement, good_indexes(batch, rejects, skips))

    def _stream(self, query: str, **bindings: Any) -> Iterator[tuple[Any, ...]]:
        return self._connection.stream(query, bindings)

    def _ask(self, query: str, **bindings: Any) -> Sequence[tuple[Any, ...]]:
        try:
            return self._connection.fetch(query, bindings)
        except (ValueError, TypeError) as error:
            raise DamagedRow(f"ledger {self._address}: {error}") from error
