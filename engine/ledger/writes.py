"""A connection and values of the model enter; rows are written, and what changed leaves.

Each public function is one operation. They run inside a transaction of the writer, each in a savepoint: raising takes
back what the function did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass

import apsw
import orjson

from engine.ledger.queries import QUERIES, fetch
from engine.ledger.reads import job_id
from engine.ledger.writer import Change
from engine.model.batch import Batch, batch_name, part_sequences
from engine.model.errors import JobError, LedgerError
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Settlement
from engine.model.record import Position, Reject
from engine.model.submission import TRANSITIONS, State, Submission


def create_job(connection: apsw.Connection, job: Job, now: float) -> Sequence[Change]:
    """Remember a new job."""
    row = asdict(job) | {"created_at": job.created_at or now}
    sources = row.pop("sources")
    if fetch(connection, "job_id", {"name": check_job_name(job.name)}):
        raise JobError(
            f"there is a job {job.name!r} already. Take another name with --job, "
            f"or go on with `bulksubmit resume {job.name}`."
        )
    connection.execute(QUERIES["add_job"], row)
    key = connection.last_insert_rowid()
    connection.executemany(QUERIES["add_source"], [source | {"job": key} for source in sources])
    return [Change("create_job", job.name, state=job.state)]


def set_job_state(connection: apsw.Connection, name: str, state: JobState) -> Sequence[Change]:
    """Remember where a job stands."""
    connection.execute(QUERIES["set_job_state"], {"job": job_id(connection, name), "state": state})
    return [Change("set_job_state", name, state=state)]


def set_learnt(connection: apsw.Connection, name: str, learnt: str) -> Sequence[Change]:
    """Remember what the service told of itself."""
    connection.execute(QUERIES["set_learnt"], {"job": job_id(connection, name), "learnt": learnt})
    return [Change("set_learnt", name)]


def note_slowest_start(connection: apsw.Connection, name: str, seconds: float) -> Sequence[Change]:
    """Remember how long an answered release took to begin, if none took longer."""
    connection.execute(QUERIES["note_slowest_start"], {"job": job_id(connection, name), "seconds": seconds})
    return [Change("note_slowest_start", name)]


def note_lost_stage(connection: apsw.Connection, name: str) -> Sequence[Change]:
    """Count a call that may have left something at the service."""
    connection.execute(QUERIES["note_lost_stage"], {"job": job_id(connection, name)})
    return [Change("note_lost_stage", name)]


def set_config(connection: apsw.Connection, name: str, config: str) -> Sequence[Change]:
    """Remember the configuration with which a job goes on."""
    connection.execute(QUERIES["set_config"], {"job": job_id(connection, name), "config": config})
    return [Change("set_config", name)]


def forget_orphan(connection: apsw.Connection, name: str, remote_id: str) -> Sequence[Change]:
    """Drop what is gone from the service."""
    connection.execute(QUERIES["forget_orphan"], {"job": job_id(connection, name), "remote_id": remote_id})
    return [Change("forget_orphan", name)]


def freeze(
    connection: apsw.Connection,
    name: str,
    batches: Sequence[Batch],
    rejects: Sequence[Reject],
    now: float,
    *,
    last: bool,
) -> Sequence[Change]:
    """Remember batches and rejects; `last`: the sources end here."""
    key = job_id(connection, name)
    _check_joined(connection, name, key, batches)
    states = [State.FROZEN if batch.count else State.SETTLED for batch in batches]
    _add_batches(connection, key, batches, states, now)
    connection.executemany(QUERIES["add_reject"], [_reject_row(key, reject) for reject in rejects])
    if last:
        connection.execute(QUERIES["set_read_complete"], {"job": key})
    frozen = zip(batches, states, strict=True)
    return [Change("freeze", name, batch.sequence, state) for batch, state in frozen] or [Change("freeze", name)]


def _add_batches(
    connection: apsw.Connection, key: int, batches: Sequence[Batch], states: Sequence[State], now: float
) -> None:
    rows = [_batch_row(key, batch, state, now) for batch, state in zip(batches, states, strict=True)]
    connection.executemany(QUERIES["add_batch"], rows)
    connection.executemany(
        QUERIES["add_spans"], [{"job": key, "sequence": batch.sequence, "spans": batch.spans} for batch in batches]
    )


def _check_joined(connection: apsw.Connection, name: str, key: int, batches: Sequence[Batch]) -> None:
    """Refuse batches that leave a gap, overlap, or come after the end.

    Lines are not compared: they only tell people where to look, and begin anew in each source.
    """
    read_complete, sequence, offset, index = fetch(connection, "frozen_end", {"job": key})[0]
    if read_complete:
        raise LedgerError(f"job {name!r} is read to its end; no more of it can be frozen")
    due = 0 if sequence is None else sequence + 1
    end = Position() if sequence is None else Position(offset, index)
    for batch in batches:
        start = batch.start
        if (batch.sequence, start.offset, start.index) != (due, end.offset, end.index):
            raise LedgerError(
                f"job {name!r}: batch {due} at offset {end.offset}, record {end.index} is due, not batch "
                f"{batch.sequence} at offset {start.offset}, record {start.index}"
            )
        due, end = due + 1, batch.end


def _batch_row(key: int, batch: Batch, state: State, now: float) -> Mapping[str, int | float | str | bytes]:
    return {
        "job": key,
        "sequence": batch.sequence,
        "start_offset": batch.start.offset,
        "start_index": batch.start.index,
        "start_line": batch.start.line,
        "end_offset": batch.end.offset,
        "end_index": batch.end.index,
        "end_line": batch.end.line,
        "count": batch.count,
        "size_bytes": batch.size_bytes,
        "sha256": batch.sha256,
        "state": state,
        "changed_at": now,
    }


def _reject_row(key: int, reject: Reject) -> Mapping[str, int | str]:
    return {
        "job": key,
        "record_index": reject.index,
        "start_offset": reject.offset,
        "length": reject.length,
        "line": reject.line,
        "reason": reject.reason,
    }


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One step of a batch: what it becomes if it still stands where it is expected."""

    job: str
    submission: Submission
    expected: State
    now: float
    settlement: Settlement | None = None
    """The fate of its records, if it is settled by it."""

    def __str__(self) -> str:
        change = f"the step from {self.expected} to {self.submission.state}"
        return f"job {self.job!r}, batch {batch_name(self.submission.sequence)}: {change}"

    @property
    def change(self) -> Change:
        """What is told of it."""
        operation = "move" if self.settlement is None else "settle"
        return Change(operation, self.job, self.submission.sequence, self.submission.state)


def move(connection: apsw.Connection, steps: Sequence[BatchStep]) -> Sequence[Change]:
    """Take batches one step on each, or none of them; what is said of a refusal is only right of a single one."""
    for step in steps:
        _check_kind(step)
    jobs = {name: job_id(connection, name) for name in {step.job for step in steps}}
    counts = _take(connection, jobs, steps)
    settlements = [_settlement_row(jobs[step.job], step, count) for step, count in zip(steps, counts, strict=True)]
    connection.executemany(QUERIES["add_settlement"], filter(None, settlements))
    return [step.change for step in steps]


def _check_kind(step: BatchStep) -> None:
    """Refuse a step that ends a batch without a word on its records, or says what became of them without ending it."""
    state, settlement = step.submission.state, step.settlement
    if settlement is not None:
        if state is not State.SETTLED:
            raise LedgerError(f"{step} does not settle it")
        _check_fates(step, settlement)
    elif state in {State.SETTLED, State.SPLIT}:
        raise LedgerError(f"{step} needs {'the fate of the records' if state is State.SETTLED else 'halves'}")


def _settlement_row(job: int, step: BatchStep, count: int) -> Mapping[str, object] | None:
    settlement = step.settlement
    if settlement is None:
        return None
    if count != len(settlement.task_ids):
        raise LedgerError(f"{step}: {count} records went up, but {len(settlement.task_ids)} are to be settled")
    return {
        "job": job,
        "sequence": step.submission.sequence,
        "task_ids": orjson.dumps(settlement.task_ids).decode(),
        "errors": orjson.dumps(_by_reason(settlement.errors)).decode(),
        "details": _details(settlement),
        "uncertain": orjson.dumps(_by_reason(settlement.uncertain)).decode() if settlement.uncertain else None,
    }


def split(connection: apsw.Connection, step: BatchStep, halves: tuple[Batch, Batch]) -> Sequence[Change]:
    """Let two parts stand for a batch that was refused as a whole."""
    if step.submission.state is not State.SPLIT:
        raise LedgerError(f"{step} does not split it")
    key, sequence = job_id(connection, step.job), step.submission.sequence
    _take(connection, {step.job: key}, [step])
    _check_halves(connection, step, {"job": key, "sequence": sequence}, halves)
    _add_batches(connection, key, halves, [State.FROZEN, State.FROZEN], step.now)
    parts = [Change("split", step.job, half.sequence, State.FROZEN) for half in halves]
    return [Change("split", step.job, sequence, State.SPLIT), *parts]


def _check_halves(
    connection: apsw.Connection, step: BatchStep, key: Mapping[str, int], halves: tuple[Batch, Batch]
) -> None:
    """Refuse parts that do not cover exactly what the whole covers."""
    ((sequence, *start_and_end, count),) = fetch(connection, "whole", key)
    first, second = halves
    ends = [*astuple(first.start), *astuple(second.end)]
    fine = (
        (first.sequence, second.sequence) == part_sequences(sequence)
        and ends == start_and_end
        and first.end == second.start
        and first.count + second.count == count
        and min(first.count, second.count) > 0
    )
    if not fine:
        raise LedgerError(f"{step}: its halves do not cover it")


def _details(settlement: Settlement) -> str | None:
    if not settlement.details:
        return None
    return orjson.dumps(settlement.details, option=orjson.OPT_NON_STR_KEYS).decode()


def _take(connection: apsw.Connection, jobs: Mapping[str, int], steps: Sequence[BatchStep]) -> Sequence[int]:
    """Write submissions over the expected ones; return how many records of each batch went up."""
    rows = [_step_row(jobs[step.job], step) for step in steps]
    left = {State.STAGING, State.SPLIT}
    given_up = [row for row in rows if row["state"] in left and row["expected"] is not State.FROZEN]
    connection.executemany(QUERIES["keep_orphan"], given_up)
    counts = [count for (count,) in connection.executemany(QUERIES["move"], rows)]
    if len(counts) < len(rows):
        raise LedgerError(_why_refused(connection, steps[0], rows[0]))
    return counts


def _step_row(job: int, step: BatchStep) -> Mapping[str, object]:
    submission, settlement = step.submission, step.settlement
    if submission.state not in TRANSITIONS[step.expected]:
        raise LedgerError(f"{step} does not exist")
    return {
        "job": job,
        "sequence": submission.sequence,
        "expected": step.expected,
        "state": submission.state,
        "remote_id": submission.remote_id,
        "changed_at": step.now,
        "note": submission.note,
        "created": settlement.created if settlement else 0,
        "failed": len(settlement.errors) if settlement else 0,
        "uncertain": len(settlement.uncertain) if settlement else 0,
    }


def _why_refused(connection: apsw.Connection, step: BatchStep, row: Mapping[str, object]) -> str:
    found = fetch(connection, "state", {"job": row["job"], "sequence": row["sequence"]})
    if not found:
        return f"{step} cannot be taken: there is no such batch"
    return f"{step} cannot be taken: it is in state {found[0][0]}. Is another process working on the job?"


def _check_fates(step: BatchStep, settlement: Settlement) -> None:
    """Refuse a settlement in which a position has none of an id, an error and an uncertainty, or two of them."""
    wrong = settlement.unclear()
    if wrong:
        raise LedgerError(f"{step}: position {min(wrong)} must have either a task id, an error or an uncertainty")


def _by_reason(reasons: Mapping[int, str]) -> Mapping[str, Sequence[int]]:
    """Turn position → reason around, so that a reason shared by a thousand records is kept once."""
    positions: dict[str, list[int]] = {}
    for position, reason in reasons.items():
        positions.setdefault(reason, []).append(position)
    return positions
