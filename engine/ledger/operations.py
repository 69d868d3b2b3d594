"""What is written to a ledger: each function is one operation, which the thread of writer.py makes durable.

An operation takes the connection that writes, does all that it has to, or raises; it tells what it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import orjson
from msgspec import Struct
from msgspec.structs import asdict

from engine.ledger.connection import Connection, job_id
from engine.ledger.rows import (
    BatchStep,
    batch_row,
    check_joined,
    key_rows,
    known_row,
    reject_row,
    settlement_row,
    skip_row,
    to_submitted,
)
from engine.ledger.statements import REMOVED_TABLES
from engine.model.batch import Batch
from engine.model.errors import JobError, LeaseLost, LedgerError, OtherJobs
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import LaterFate
from engine.model.record import KeptAs, Keyed, Reject, Skipped, Taken
from engine.model.shard import AWAY_SECONDS, MOST_LOST_WORKERS, Shard, ShardState, cut_into_shards
from engine.model.submission import State

NO_TOKEN = -1
"""Of a step that is taken without a lease: by whoever works on a job that no worker sends just now."""
Revision: TypeAlias = Callable[[str | None, float], str]
"""The state of a budget, None if it has none, and Unix seconds by the store's clock → its new state."""

REMOVED_ROWS = 500
"""Of a job that is removed, in one transaction: 15 MB where each is the fate of a thousand records."""
REMOVALS = (*(f"remove_{table}" for table in REMOVED_TABLES), "remove_job")
"""In their order: what hangs on another table goes before it."""


class Change(Struct, frozen=True):
    """One thing that an operation wrote."""

    operation: str
    """Name of the ledger's method."""
    job: str
    sequence: int | None = None
    """Of the batch; None if it is about the job."""
    state: State | JobState | None = None
    """What it is now in; None if that did not change."""


def create_job(
    connection: Connection,
    job: Job,
    now: float,
    seen: Collection[str] | None = None,
    origins: Sequence[int] = (),
) -> Sequence[Change]:
    """Remember a new job, and which record of its parent each of its own is; its time is now if it names none.

    `seen`: only if there is no job but these.
    """
    connection.fetch("hold_jobs")
    if seen is not None and connection.fetch("unseen", {"seen": orjson.dumps([*seen]).decode()}):
        raise OtherJobs
    row = asdict(job) | {"created_at": job.created_at or now}
    del row["sources"]
    if connection.fetch("job_id", {"name": check_job_name(job.name)}):
        raise JobError(
            f"there is a job {job.name!r} already. Take another name with --job, "
            f"or go on with `bulksubmit resume {job.name}`."
        )
    ((number,),) = connection.fetch("add_job", row)
    key = {"job": number}
    connection.change("add_source", [asdict(source) | key for source in job.sources])
    connection.change(
        "add_origin", [key | {"record_index": at, "parent_index": parent} for at, parent in enumerate(origins)]
    )
    return [Change("create_job", job.name, state=job.state)]


def note_later(connection: Connection, name: str, fates: Mapping[int, LaterFate | None]) -> Sequence[Change]:
    """Remember what became of tasks of created records afterwards, or forget it."""
    job = job_id(connection, name)
    gone = [{"job": job, "record_index": index} for index, fate in fates.items() if fate is None]
    seen = [{"job": job, "record_index": index, **asdict(fate)} for index, fate in fates.items() if fate is not None]
    connection.change("drop_later_fate", gone)
    connection.change("add_later_fate", seen)
    return [Change("note_later", name)]


def update_job(connection: Connection, query: str, name: str, bindings: Mapping[str, Any]) -> Sequence[Change]:
    """Write one thing about a job by a query that is named after the ledger's method."""
    connection.change(query, [{"job": job_id(connection, name), **bindings}])
    return [Change(query, name, state=bindings.get("state"))]


def remove_rows(connection: Connection, name: str) -> Sequence[Change]:
    """Remove up to REMOVED_ROWS rows of a job that is being removed, of the first table that has any; the job last."""
    job = job_id(connection, name)
    bindings = {"job": job, "limit": REMOVED_ROWS}
    if connection.fetch("job_state", {"job": job}) != [(JobState.REMOVED,)]:
        raise LedgerError(f"job {name!r} is not in state removed; this is a defect worth reporting")
    for removal in REMOVALS:
        if connection.change(removal, [bindings]):
            break
    return [Change("remove", name, state=JobState.REMOVED)]


def freeze(  # noqa: PLR0913 - all of one step of reading
    connection: Connection,
    name: str,
    batches: Sequence[Batch],
    rejects: Sequence[Reject],
    now: float,
    *,
    last: bool,
    skips: Sequence[Skipped] = (),
    taken: Sequence[Taken] = (),
    keys: Sequence[Keyed] = (),
    shared: bool = False,
    locks: Mapping[str, int] | None = None,
) -> Sequence[Change]:
    """Remember batches, rejects, skips, keys and what the family knows from now on; `last`: the sources end here.

    `shared`: they become shards. `locks`: the tokens of the locks under which it is done, where others could take them.

    Raises:
        LeaseLost: another process has taken one of the locks.
    """
    job = job_id(connection, name)
    if locks:
        held = dict(connection.fetch("lock_tokens", {"names": list(locks)}))
        if lost := {lock for lock, token in locks.items() if held.get(lock) != token}:
            raise LeaseLost(f"another process works on {', '.join(sorted(lost))} since the database was lost")
    (end,) = connection.fetch("frozen_end", {"job": job})
    check_joined(name, end, batches)
    changes = _add_batches(connection, "freeze", name, job, batches, now)
    if shared:
        _add_shards(connection, job, [(batch.sequence, batch.count) for batch in batches])
    connection.change("add_reject", [reject_row(job, reject) for reject in rejects])
    others = {skip.other: job_id(connection, skip.other) for skip in skips}
    connection.change("add_skip", [skip_row(job, skip, others[skip.other]) for skip in skips])
    _take(connection, job, taken)
    connection.change("add_keys", [*key_rows(job, keys)])
    if last:
        connection.change("set_read_complete", [{"job": job}])
    return changes or [Change("freeze", name)]


def _take(connection: Connection, job: int, taken: Sequence[Taken]) -> None:
    """Remember the records that a job takes, so that its family knows them before anything of them is sent."""
    if not taken:
        return
    rows = {kept_as: [known_row(job, one) for one in taken if one.kept_as is kept_as] for kept_as in KeptAs}
    connection.change("copy_known", [(hash_,) for hash_, *_ in rows[KeptAs.OVER]])
    connection.change("add_known", [*rows[KeptAs.OVER], *rows[KeptAs.ROW]])
    connection.change("add_copy", rows[KeptAs.COPY])
    for name in {name for one in taken for name in one.instead_of}:
        connection.change("set_taken_over", [{"job": job_id(connection, name), "by": job}])


def _add_batches(  # noqa: PLR0913, PLR0917 - all of a row
    connection: Connection,
    operation: str,
    name: str,
    job: int,
    batches: Sequence[Batch],
    now: float,
    sent_at: float | None = None,
) -> Sequence[Change]:
    connection.change("add_batch", [batch_row(job, batch, now, sent_at) for batch in batches])
    connection.change("add_spans", [(job, batch.sequence, batch.spans, batch.lines) for batch in batches])
    return [
        Change(operation, name, batch.sequence, State.FROZEN if batch.count else State.SETTLED) for batch in batches
    ]


def take_steps(connection: Connection, *steps: BatchStep) -> Sequence[Change]:
    """Take batches one step on each, or none of them; what is said of a refusal is only right of a single one."""
    jobs = {name: job_id(connection, name) for name in {step.job for step in steps}}
    check_leases(connection, jobs, steps)
    moved, rows, settlements = 0, list[Sequence[Any]](), []
    for step in steps:
        job, submission = jobs[step.job], step.submission
        if submission.state in {State.STAGING, State.SPLIT} and step.expected is not State.FROZEN:
            moved += _move(connection, rows)  # what it gives up may have been named just now
            rows = []
            connection.change("keep_orphan", [(job, submission.sequence, submission.remote_id)])
        rows.append(step.row(job))
        if step.settlement is not None:
            settlements.append(settlement_row(job, submission.sequence, step.settlement))
    if moved + _move(connection, rows) < len(steps):
        whose = (jobs[steps[0].job], steps[0].submission.sequence)
        raise steps[0].refusal(connection.fetch("state", whose))
    connection.change("add_settlement", settlements)
    return [Change(step.operation, step.job, step.submission.sequence, step.submission.state) for step in steps]


def check_leases(connection: Connection, jobs: Mapping[str, int], steps: Sequence[BatchStep]) -> None:
    """Refuse steps of a worker that has a lease no more.

    One that is over is still its own until somebody else ends it, which the token tells: the ledger may have been away
    for so long.

    Raises:
        LeaseLost: another one has, or may have, one of their leases.
    """
    for name, job in jobs.items():
        tokens = dict(step.lease for step in steps if step.job == name and step.lease is not None)
        for sequence in [sequence for sequence, token in tokens.items() if token == NO_TOKEN]:
            del tokens[sequence]
            row = {"job": job, "sequence": sequence, "store_now": steps[0].now}
            for holder, holds in connection.fetch("holder_of", row):
                if holds:
                    raise LeaseLost(f"job {name!r}: worker {holder} has batch {sequence}; stop it first")
                if holder:
                    connection.change("end_leases", [row])  # or it could renew it, and step in between
        if not tokens:
            continue
        wanted = orjson.dumps(list(tokens)).decode()
        found = connection.fetch("held_shards", {"job": job, "sequences": wanted})
        held = {first for first, token in found if tokens[first] == token}
        if lost := tokens.keys() - held:
            raise LeaseLost.of(name, min(lost))


def take_shards(
    connection: Connection, name: str, taken: list[Shard], bindings: Mapping[str, Any], waited: Callable[[], float]
) -> Sequence[Change]:
    """Give a worker the leases of shards that nobody has; `taken` gets them.

    `waited`: for how many seconds it has waited for that. After a long time the store was away: nothing is taken over.
    """
    over = bindings["over"] and waited() < AWAY_SECONDS
    row = {"job": job_id(connection, name), "most_losses": MOST_LOST_WORKERS, **bindings, "over": int(over)}
    if over:
        connection.change("park_shards", [row])
    taken[:] = sorted(
        (
            Shard(first, last, ShardState(state), *rest)
            for first, last, state, *rest in connection.fetch("take_shards", row)
        ),
        key=lambda shard: shard.first,
    )
    return [Change("take_shards", name)] if taken else []


def renew_shards(
    connection: Connection, name: str, kept: dict[str, Any], bindings: Mapping[str, Any], clock: Callable[[], float]
) -> Sequence[Change]:
    """Let the leases of a worker last longer, and end those whose shards are done; `kept` gets what came of it.

    `kept`: "renewed" and "done", the first sequences of the shards whose leases last on, and of those that ended; and
    "asked_at", what the `clock` said before. That is later than the wish for it where the store was away meanwhile.
    """
    kept["asked_at"] = clock()
    row = {"job": job_id(connection, name), **bindings}
    connection.change("see_worker", [row])
    connection.change("forget_silent_workers", [row])
    kept["renewed"] = {first for (first,) in connection.fetch("renew_shards", row)}
    kept["done"] = [first for (first,) in connection.fetch("end_shards", row)]
    connection.change("settle_shards", [row])
    return [Change("renew_shards", name)]


def give_back_shards(connection: Connection, name: str, bindings: Mapping[str, Any]) -> Sequence[Change]:
    """End the leases of a worker that goes."""
    row = {"job": job_id(connection, name), **bindings}
    connection.fetch("end_shards", row)
    connection.change("give_back_shards", [row])
    connection.change("forget_worker", [row])
    return [Change("give_back_shards", name)]


def open_shards(connection: Connection, name: str, *, parked: bool) -> Sequence[Change]:
    """Make shards of the batches that are in none, and let workers take again what earlier ones have left."""
    job = job_id(connection, name)
    _add_shards(connection, job, connection.fetch("batches_without_shard", {"job": job}))
    connection.change("reopen_shards", [{"job": job, "parked": parked}])
    return [Change("open_shards", name)]


def _add_shards(connection: Connection, job: int, counts: Sequence[tuple[Any, ...]]) -> None:
    shards = cut_into_shards([(sequence, count) for sequence, count in counts])
    connection.change("add_shard", [{"job": job, "first": first, "last": last} for first, last in shards])


def revise(connection: Connection, name: str, change: Revision, now: float) -> Sequence[Change]:
    """Change a budget while nobody else can."""
    ((now,),) = connection.fetch("store_now", {"store_now": now})
    connection.change("make_budget", [{"name": name}])
    ((state,),) = connection.fetch("budget", {"name": name})
    connection.change("set_budget", [{"name": name, "state": change(state or None, now)}])
    return []


def _move(connection: Connection, rows: Sequence[Sequence[Any]]) -> int:
    """Return how many of the batches stood where they were expected, and moved."""
    return connection.change("move", rows)


def split_batch(connection: Connection, step: BatchStep) -> Sequence[Change]:
    """Take a batch its last step, and freeze the two parts that stand for it from then on."""
    changes = take_steps(connection, step)
    job = job_id(connection, step.job)
    whole = {"job": job, "sequence": step.submission.sequence}
    (columns,) = connection.fetch("batch", whole)
    step.check_halves(to_submitted(*columns)[0])
    sent_at = step.submission.sent_at
    return [*changes, *_add_batches(connection, "split", step.job, job, step.halves, step.now, sent_at)]
