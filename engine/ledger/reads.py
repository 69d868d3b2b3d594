"""A connection and a question enter; values of the model leave. Each function is one short read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import apsw
import orjson

from engine.ledger.queries import QUERIES, fetch
from engine.model.batch import Batch, batch_name
from engine.model.errors import JobError
from engine.model.job import Job, JobState
from engine.model.outcome import Kept, Settlement, Tally
from engine.model.record import Format, Position, Reject, Source
from engine.model.submission import State, Submission

_NAMES_SHOWN = 10
"""Jobs that an error names: what fits on a few lines."""
_PAGE_BATCHES = 200
_PAGE_SPANS_BYTES = 4 * 1024 * 1024
"""A page ends at either limit: 200 batches of 1,000 records have 1.6 MB of spans; far larger ones fill no memory."""


def job_id(connection: apsw.Connection, name: str) -> int:
    """Return the short name of a job in the other tables.

    Raises:
        JobError: there is none of that name.
    """
    found = fetch(connection, "job_id", {"name": name})
    if not found:
        raise JobError(f"there is no job {name!r}; {_existing(connection)}")
    return int(found[0][0])


def _existing(connection: apsw.Connection) -> str:
    names = [name for (name,) in fetch(connection, "recent_names", {"limit": _NAMES_SHOWN + 1})]
    if not names:
        return "there are no jobs yet. `bulksubmit submit` makes one."
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"there are: {', '.join(names[:_NAMES_SHOWN])}{more}. `bulksubmit status` lists them all."


def jobs(connection: apsw.Connection, name: str | None = None) -> Sequence[Job]:
    """Return all jobs, newest first, or the one of that name."""
    rows = fetch(connection, "jobs", {"name": name})
    return [_job(row, fetch(connection, "sources", {"job": row[0]})) for row in rows]


def job(connection: apsw.Connection, name: str) -> Job:
    """Return a job."""
    job_id(connection, name)
    return jobs(connection, name)[0]


def _job(row: tuple[Any, ...], sources: Iterable[tuple[Any, ...]]) -> Job:
    (_id, name, service, config, output, state, read_complete, parent, attempt, until, strict, learnt, *rest) = row
    slowest_start, lost_stages, created_at = rest
    return Job(
        name=name,
        service=service,
        config=config,
        sources=[Source(number, path, Format(kind), *figures) for number, path, kind, *figures in sources],
        output=output,
        state=JobState(state),
        read_complete=bool(read_complete),
        parent=parent,
        attempt=attempt,
        until=until,
        strict=bool(strict),
        learnt=learnt,
        slowest_start=slowest_start,
        lost_stages=lost_stages,
        created_at=created_at,
    )


def last_batch(connection: apsw.Connection, name: str) -> Batch | None:
    """Return the batch frozen last."""
    rows = fetch(connection, "last_batch", {"job": job_id(connection, name)})
    return _batch(rows[0]) if rows else None


def _batch(row: tuple[Any, ...]) -> Batch:
    return Batch(row[0], Position(*row[1:4]), Position(*row[4:7]), *row[7:11])


def page(
    connection: apsw.Connection, name: str, after: int, states: frozenset[State] | None
) -> Sequence[tuple[Batch, Submission]]:
    """Return the next batches after sequence `after` in one of `states`, as many as fit on a page; [] at the end.

    Those that are split are among them always: their parts may be in one of `states`.
    """
    bindings = {
        "job": job_id(connection, name),
        "after": after,
        "states": _array(frozenset(State) if states is None else states | {State.SPLIT}),
        "limit": _PAGE_BATCHES,
    }
    with closing(connection.execute(QUERIES["page"], bindings)) as rows:
        return list(_until_full(rows))


def _until_full(rows: Iterable[Any]) -> Iterator[tuple[Batch, Submission]]:
    held = 0
    for row in rows:
        batch, submission = _followed(row)
        yield batch, submission
        held += len(batch.spans)
        if held >= _PAGE_SPANS_BYTES:
            return


def names(connection: apsw.Connection, remote_id: str) -> bool:
    """Tell whether some batch of some job has this name at the service."""
    jobs = [key for (key,) in fetch(connection, "job_ids", {})]
    return any(fetch(connection, "names", {"job": key, "remote_id": remote_id}) for key in jobs)


def owner(connection: apsw.Connection, name: str, remote_id: str) -> int | None:
    """Return the sequence of the batch that has this name at the service; None if none of the job has it."""
    found = fetch(connection, "owner", {"job": job_id(connection, name), "remote_id": remote_id})
    return int(found[0][0]) if found else None


def last_settled_at(connection: apsw.Connection, name: str) -> float:
    """Return when a batch of a job was settled last, in Unix seconds; 0 if none was."""
    ((at,),) = fetch(connection, "last_settled_at", {"job": job_id(connection, name), "settled": State.SETTLED})
    return float(at or 0)


def split(connection: apsw.Connection, name: str, after: int) -> Sequence[tuple[Batch, Submission]]:
    """Return the next batches and parts after sequence `after` that were split; [] at the end."""
    bindings = {"job": job_id(connection, name), "after": after, "limit": _PAGE_BATCHES}
    with closing(connection.execute(QUERIES["split"], bindings)) as rows:
        return list(_until_full(rows))


def parts(
    connection: apsw.Connection, name: str, sequence: int, states: frozenset[State] | None
) -> Sequence[tuple[Batch, Submission]]:
    """Return the parts that stand for a batch and are in one of `states`, in the order of their records."""
    wanted = (frozenset(State) if states is None else states) - {State.SPLIT}
    bindings = {"job": job_id(connection, name), "sequence": sequence, "states": _array(wanted)}
    return [_followed(row) for row in fetch(connection, "parts", bindings)]


def _followed(row: tuple[Any, ...]) -> tuple[Batch, Submission]:
    batch = _batch(row)
    _spans, state, remote_id, changed_at, note = row[10:]
    return batch, Submission(batch.sequence, State(state), remote_id, changed_at, note)


def _array(states: frozenset[State]) -> str:
    return orjson.dumps(sorted(states)).decode()


def settlement(connection: apsw.Connection, name: str, sequence: int) -> Settlement | None:
    """Return the fate of a settled batch's records; None before that."""
    return settlements(connection, name, [sequence]).get(sequence)


def settlements(connection: apsw.Connection, name: str, sequences: Sequence[int]) -> Mapping[int, Settlement]:
    """Return the fates of the records of some batches, those that are settled, by sequence."""
    bindings = {"job": job_id(connection, name), "sequences": orjson.dumps(list(sequences)).decode()}
    return {
        sequence: Settlement([]) if columns[0] is None else _settlement(*columns)
        for sequence, *columns in fetch(connection, "settlements", bindings)
    }


def _settlement(task_ids: str, errors: str, details: str | None, uncertain: str | None) -> Settlement:
    return Settlement(
        task_ids=orjson.loads(task_ids),
        errors=_by_position(errors),
        details={int(position): said for position, said in orjson.loads(details or "{}").items()},
        uncertain={} if uncertain is None else _by_position(uncertain),
    )


def _by_position(text: str) -> Mapping[int, str]:
    """Turn reason → positions around again."""
    return {position: reason for reason, positions in orjson.loads(text).items() for position in positions}


def kept(connection: apsw.Connection, name: str, sequence: int) -> Kept:
    """Return what a batch's row counts, and the settlement that is kept of it, in whatever state it is.

    Raises:
        ValueError, TypeError, AttributeError: the settlement is not what the ledger writes.
    """
    (row,) = fetch(connection, "kept", {"job": job_id(connection, name), "sequence": sequence})
    created, failed, uncertain, *columns = row
    return Kept(created, failed, uncertain, None if columns[0] is None else _settlement(*columns))


def partly_uncertain(connection: apsw.Connection, name: str, after: int) -> Sequence[tuple[Batch, Settlement]]:
    """Return the next settled batches after sequence `after` of some of whose records nobody knows; [] at the end."""
    bindings = {"job": job_id(connection, name), "after": after, "limit": _PAGE_BATCHES}
    return [(_batch(row), _settlement(*row[11:])) for row in fetch(connection, "partly_uncertain", bindings)]


def batch(connection: apsw.Connection, name: str, sequence: int) -> tuple[Batch, Submission] | None:
    """Return a batch, or a part, and where it stands; None if there is none."""
    rows = fetch(connection, "batch", {"job": job_id(connection, name), "sequence": sequence})
    return _followed(rows[0]) if rows else None


def batch_at(connection: apsw.Connection, name: str, index: int) -> tuple[Batch, Submission] | None:
    """Return the batch that holds the record with this index; None if that was not read."""
    rows = fetch(connection, "batch_at", {"job": job_id(connection, name), "record_index": index})
    return next(_until_full(rows), None)


def count_rejects(connection: apsw.Connection, name: str) -> int:
    """Count the rejects of a job, wherever they stand."""
    return int(fetch(connection, "count_rejects", {"job": job_id(connection, name)})[0][0])


def count_unproven(connection: apsw.Connection, name: str) -> int:
    """Count the created records whose id may be that of another record of their batch."""
    return int(fetch(connection, "count_unproven", {"job": job_id(connection, name)})[0][0])


def loose_rows(connection: apsw.Connection, name: str) -> Sequence[str]:
    """Say of which rows one half is missing: of this job's batches, and of any table's."""
    bindings = {"job": job_id(connection, name), "limit": _NAMES_SHOWN}
    bare = [
        f"batch {sequence} has no row in spans" for (sequence,) in fetch(connection, "batches_without_spans", bindings)
    ]
    bare += [
        f"batch {batch_name(sequence)} is split, and its halves are not where it was"
        for (sequence,) in fetch(connection, "badly_split", bindings)
    ]
    hanging = Counter((table, parent) for table, _row, parent, _key in fetch(connection, "loose_rows", {}))
    return bare + [
        f"{count} rows of {table} belong to no row of {parent}" for (table, parent), count in hanging.items()
    ]


def rejects(connection: apsw.Connection, name: str, start: int, stop: int) -> Sequence[Reject]:
    """Return the rejects with start ≤ index < stop, by index."""
    bindings = {"job": job_id(connection, name), "start": start, "stop": stop}
    return [Reject(*row) for row in fetch(connection, "rejects", bindings)]


def tally(connection: apsw.Connection, name: str) -> Tally:
    """Count a job's records by fate and its batches by state."""
    rows = fetch(connection, "tally", {"job": job_id(connection, name)})
    if not rows:
        return Tally()
    states, batches, counts, created, failed, uncertain, rejected, ends = zip(*rows, strict=True)
    return Tally(
        records=max(ends),
        batches=sum(batches),
        created=sum(created),
        failed=sum(failed),
        rejected=sum(rejected),
        uncertain=dict(zip(states, counts, strict=True)).get(State.UNCERTAIN, 0) + sum(uncertain),
        states=dict(zip(states, batches, strict=True)),
    )


def orphans(connection: apsw.Connection, name: str) -> Sequence[str]:
    """Return remote ids that were staged and given up."""
    return [remote_id for (remote_id,) in fetch(connection, "orphans", {"job": job_id(connection, name)})]
