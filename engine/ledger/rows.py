"""Values of the model as rows of a ledger, and back; and what may be written: the same for every store.

Called by sqlite.py and writer.py; nothing here knows a store. A batch moves only along TRANSITIONS, and ends only with
the fate of each of its records, or with halves that cover it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.model.batch import Batch, batch_name, part_sequences
from engine.model.errors import LedgerError, NameTaken
from engine.model.job import Job, JobState
from engine.model.outcome import Kept, Settlement, Tally
from engine.model.record import Keyed, Position, Reject, Skipped, Source, Taken, Why
from engine.model.runs import PastAudit, PastRun, RunCounts, Sample
from engine.model.submission import TRANSITIONS, State, Submission

_SPOILT_RECORDS = 1_000_000
"""A number that is wrong by less can be looked into: the audit says what is wrong with it."""
_KEYS_A_ROW = 1000
"""More would be read for each that is looked up."""


class BatchStep(Struct):
    """One step of a batch: what it becomes, if it still stands where it is expected.

    Raises:
        LedgerError: it is not in TRANSITIONS, has no settlement or halves where it needs them, or has them where it
            does not, or a record has no fate, or two.
    """

    operation: str
    """The ledger's method that takes it."""
    job: str
    submission: Submission
    expected: State
    now: float
    """Unix seconds."""
    settlement: Settlement | None = None
    """The fate of its records, if it is settled by it."""
    halves: tuple[Batch, ...] = ()
    """The two parts that stand for it, if it is split by it."""
    unique: bool = False
    """No other batch of the job may have its remote id."""
    lease: tuple[int, int] | None = None
    """First sequence of its shard, and the token of the lease under which it is taken; None: nobody shares the job."""

    def __post_init__(self) -> None:
        state = self.submission.state
        if (self.settlement is not None) != (state is State.SETTLED):
            raise LedgerError(f"{self} {'does not settle it' if self.settlement else 'needs the fate of the records'}")
        if bool(self.halves) != (state is State.SPLIT):
            raise LedgerError(f"{self} {'does not split it' if self.halves else 'needs halves'}")
        if state not in TRANSITIONS[self.expected]:
            raise LedgerError(f"{self} does not exist")
        if self.settlement is not None and (wrong := self.settlement.unclear()):
            raise LedgerError(f"{self}: position {min(wrong)} must have either a task id, an error or an uncertainty")

    def __str__(self) -> str:
        change = f"the step from {self.expected} to {self.submission.state}"
        return f"job {self.job!r}, batch {batch_name(self.submission.sequence)}: {change}"

    def row(self, job: int) -> Sequence[Any]:
        """Return what the query `move` wants to know, in its order."""
        submission, fates = self.submission, self.settlement
        ended = (0, 0, 0) if fates is None else (fates.created, len(fates.errors), len(fates.uncertain))
        records = None if fates is None else len(fates.task_ids)
        became = (submission.state, submission.remote_id, self.now, submission.note, submission.sent_at, *ended)
        return (*became, job, submission.sequence, self.expected, records, self.unique)

    def refusal(self, found: Sequence[Sequence[Any]]) -> LedgerError:
        """Say why it was not taken; `found` are the rows of the batch: its state, and how many of its records go up."""
        if not found:
            return LedgerError(f"{self} cannot be taken: there is no such batch")
        ((state, count),) = found
        if self.unique and state == self.expected:
            return NameTaken(f"{self}: another batch has the name {self.submission.remote_id}")
        if self.settlement is None or state != self.expected:
            is_in = f"it is in state {state}. Is another process working on the job?"
            return LedgerError(f"{self} cannot be taken: {is_in}")
        return LedgerError(f"{self}: {count} records went up, but {len(self.settlement.task_ids)} are to be settled")

    def check_halves(self, whole: Batch) -> None:
        """Refuse parts that do not cover exactly what the whole covers."""
        first, second = self.halves
        fine = (
            (first.sequence, second.sequence) == part_sequences(whole.sequence)
            and (first.start, second.end) == (whole.start, whole.end)
            and first.end == second.start
            and first.count + second.count == whole.count
            and first.skipped + second.skipped == whole.skipped
            and min(first.count, second.count) > 0
        )
        if not fine:
            raise LedgerError(f"{self}: its halves do not cover it")


def check_joined(job: str, frozen_end: Sequence[Any], batches: Sequence[Batch]) -> None:
    """Refuse batches that leave a gap, overlap, or come after the end.

    `frozen_end`: whether the job is read to its end, and the sequence, end offset and end index of its last batch, None
    if it has none. Lines are not compared: they only tell people where to look, and begin anew in each source.
    """
    read_complete, sequence, offset, index = frozen_end
    if read_complete:
        raise LedgerError(f"job {job!r} is read to its end; no more of it can be frozen")
    due = 0 if sequence is None else sequence + 1
    end = Position() if sequence is None else Position(offset, index)
    for batch in batches:
        start = batch.start
        if (batch.sequence, start.offset, start.index) != (due, end.offset, end.index):
            raise LedgerError(
                f"job {job!r}: batch {due} at offset {end.offset}, record {end.index} is due, not batch "
                f"{batch.sequence} at offset {start.offset}, record {start.index}"
            )
        due, end = due + 1, batch.end


def batch_row(job: int, batch: Batch, now: float, sent_at: float | None = None) -> Sequence[Any]:
    """Return what `add_batch` wants to know, in its order; a batch of no records is settled at once.

    `sent_at`: of the batch whose half it is.
    """
    start, end = batch.start, batch.end
    edges = (start.offset, start.index, start.line, end.offset, end.index, end.line)
    state = State.FROZEN if batch.count else State.SETTLED
    return (
        job,
        batch.sequence,
        *edges,
        batch.count,
        batch.size_bytes,
        batch.sha256,
        batch.skipped,
        state,
        now,
        sent_at,
    )


def reject_row(job: int, reject: Reject) -> Sequence[Any]:
    """Return what `add_reject` wants to know, in its order."""
    return (job, reject.index, reject.offset, reject.length, reject.line, reject.reason)


def settlement_row(job: int, sequence: int, fates: Settlement) -> Sequence[Any]:
    """Return what `add_settlement` wants to know, in its order."""
    return (
        job,
        sequence,
        _json(fates.task_ids),
        _json(_by_reason(fates.errors)) if fates.errors else "{}",
        _json(fates.details) if fates.details else None,
        _json(_by_reason(fates.uncertain)) if fates.uncertain else None,
    )


def skip_row(job: int, skip: Skipped, other: int) -> Sequence[Any]:
    """Return what `add_skip` wants to know, in its order; `other` has the records."""
    return (job, skip.index, skip.count, skip.offset, skip.spans, other, skip.other_index, skip.why)


def key_rows(job: int, keys: Sequence[Keyed]) -> Iterator[Sequence[Any]]:
    """Yield what `add_keys` wants to know, in its order: a row for keys side by side, a thousand at most."""
    first = 0
    for last, (one, after) in enumerate(pairwise([*keys, None]), 1):
        if one is not None and (after is None or after.index != one.index + 1 or last - first == _KEYS_A_ROW):
            yield (job, keys[first].index, b"\n".join(key.text for key in keys[first:last]))
            first = last


def known_row(job: int, taken: Taken) -> Sequence[Any]:
    """Return what `add_known` and `add_copy` want to know, in their order."""
    return (taken.hash, taken.rest, job, taken.index)


def to_skip(*columns: Any) -> Skipped:
    """Return records that were skipped by their columns."""
    index, count, offset, spans, other, other_index, why = columns
    return Skipped(index, count, offset, spans, other, other_index, Why(why))


def to_job(*columns: Any) -> Job:
    """Return a job by its columns; its sources are a JSON array of theirs."""
    name, service, config, sources, output, state, read_complete, parent, attempt, until, *rest = columns
    files = [Source(*columns) for columns in orjson.loads(sources)]
    strict, learnt, slowest_start, lost_stages, created_at, family, delta = rest
    where_it_stands = (JobState(state), bool(read_complete), parent, attempt, until, bool(strict))
    learnt_of_service = (learnt, slowest_start, lost_stages)
    return Job(
        name, service, config, files, output, *where_it_stands, *learnt_of_service, created_at, family, bool(delta)
    )


def to_batch(*columns: Any) -> Batch:
    """Return a batch by its thirteen columns.

    Raises:
        ValueError: it has more records than bytes, by far: whoever counted up to that would never end.
    """
    batch = Batch(columns[0], Position(*columns[1:4]), Position(*columns[4:7]), *columns[7:])
    records = max(batch.count, batch.end.index - batch.start.index)
    if records > batch.end.offset - batch.start.offset + _SPOILT_RECORDS:
        raise ValueError(f"batch {batch_name(batch.sequence)} has {records} records in fewer bytes")
    return batch


def to_submitted(*columns: Any) -> tuple[Batch, Submission]:
    """Return a batch and where it stands, by the columns of both."""
    state, *rest = columns[13:]
    return to_batch(*columns[:13]), Submission(columns[0], State(state), *rest)


def to_settled(*columns: Any) -> tuple[Batch, Settlement]:
    """Return a batch and the fate of its records, by the columns of both."""
    return to_batch(*columns[:13]), to_settlement(*columns[13:])


def to_settlement(task_ids: str | None, errors: str, details: str | None, uncertain: str | None) -> Settlement:
    """Return the fate of a batch's records by its columns; a batch of no records has none of them.

    Raises:
        ValueError, TypeError, AttributeError: they are not what a ledger writes.
    """
    if task_ids is None:
        return Settlement([])
    return Settlement(
        task_ids=orjson.loads(task_ids),
        errors=_by_position(errors),
        details={int(position): said for position, said in orjson.loads(details or "{}").items()},
        uncertain=_by_position(uncertain or "{}"),
    )


def to_numbered_settlement(sequence: int, *columns: Any) -> tuple[int, Settlement]:
    """Return the sequence of a batch and the fate of its records. Raises: as `to_settlement`."""
    return sequence, to_settlement(*columns)


def to_kept(created: int, failed: int, uncertain: int, *columns: Any) -> Kept:
    """Return what a batch's row counts and its settlement, if there is one. Raises: as `to_settlement`."""
    return Kept(created, failed, uncertain, None if columns[0] is None else to_settlement(*columns))


def to_tally(rows: Sequence[Sequence[Any]]) -> Tally:
    """Return the numbers of a job by those of each state of its batches."""
    if not rows:
        return Tally()
    states, batches, counts, created, failed, uncertain, rejected, skipped, ends = zip(*rows, strict=True)
    return Tally(
        records=max(ends),
        batches=sum(batches),
        created=sum(created),
        failed=sum(failed),
        rejected=sum(rejected),
        uncertain=dict(zip(states, counts, strict=True)).get(State.UNCERTAIN, 0) + sum(uncertain),
        skipped=sum(skipped),
        states=dict(zip(states, batches, strict=True)),
    )


def run_row(run: PastRun) -> Mapping[str, Any]:
    """Return the columns of a run."""
    before = None if run.counts_before is None else msgspec.json.encode(run.counts_before).decode()
    return asdict(run) | {"counts": msgspec.json.encode(run.counts).decode(), "counts_before": before}


def to_run(*columns: Any) -> PastRun:
    """Return a run by its columns. Raises: ValueError if a ledger does not write such."""
    run = PastRun(*columns)
    before = None if run.counts_before is None else msgspec.json.decode(columns[-1], type=RunCounts)
    return replace(run, counts=msgspec.json.decode(columns[7], type=RunCounts), counts_before=before)


def as_kept(value: Sample | PastAudit) -> str:
    """Return a sample, or what an audit found, as it is kept."""
    return msgspec.json.encode(value).decode()


def to_sample(text: str) -> Sample:
    """Return a sample that was kept. Raises: ValueError if a ledger does not write such."""
    return msgspec.json.decode(text, type=Sample)


def to_past_audit(text: str) -> PastAudit:
    """Return what an audit found, as it was kept. Raises: ValueError if a ledger does not write such."""
    return msgspec.json.decode(text, type=PastAudit)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _by_reason(reasons: Mapping[int, str]) -> Mapping[str, Sequence[int]]:
    """Turn position → reason around, so that a reason shared by a thousand records is kept once."""
    positions: dict[str, list[int]] = {}
    for position, reason in reasons.items():
        positions.setdefault(reason, []).append(position)
    return positions


def _by_position(text: str) -> Mapping[int, str]:
    """Turn reason → positions around again."""
    return {position: reason for reason, positions in orjson.loads(text).items() for position in positions}
