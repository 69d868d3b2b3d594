"""The one thread that writes to a SQLite ledger, many operations in one transaction; and these operations.

Called by sqlite.py. `write` returns once its operation is on disk; an error of a write reaches whoever waits for it.

Operations gather in the event loop, for one turn of it or as long as the thread commits, and the thread is then given
them all at once. So a lone caller waits for one fsync and sixty-four callers share one, and one waking of the thread.
An operation that is refused takes back only what it did itself, since each runs in a savepoint.

An operation that nobody waits for stays with those that gather until somebody waits for one after it; operations are
written in the order in which they came. If it is refused, `written` says so.

Steps of batches come by the thousand where each record is a batch, so those of a group are written together, in one
savepoint: each statement gives the interpreter's lock away and has to wait for it again. Only if one of them is refused
are all of them taken back and written one by one, to find out which.

The writer stops at the first failure that is not about one operation: a full disk, an I/O error. After a failed commit
nobody can say what a later fsync would cover (https://www.usenix.org/conference/atc20/presentation/rebello), so all
later operations are refused with the same error, and a new process reads from the disk what is there. A ledger held too
long by another program changes nothing: only that group is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Concatenate, TypeAlias

import apsw
import orjson
from msgspec import Struct
from msgspec.structs import asdict

from engine.ledger.database import QUERIES, as_ledger_error, job_id, mark_left_behind
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
from engine.model.batch import Batch
from engine.model.errors import JobError, LedgerError, OtherJobs
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import LaterFate
from engine.model.record import KeptAs, Keyed, Reject, Skipped, Taken
from engine.model.submission import State

WAL_PAGES = 1_000
"""4 MB, as SQLite's own https://sqlite.org/pragma.html#pragma_wal_autocheckpoint."""


REMOVED_ROWS = 500
"""Of a job that is removed, in one transaction: 15 MB where each is the fate of a thousand records."""
REMOVALS = (
    "remove_later_fates",
    "remove_origins",
    "remove_samples",
    "remove_runs",
    "remove_skips",
    "remove_keys",
    "remove_rejects",
    "remove_orphans",
    "remove_settlements",
    "remove_spans",
    "remove_batches",
    "remove_sources",
    "remove_job",
)
"""What hangs on rows of another table goes before those."""


class Change(Struct, frozen=True):
    """One thing that an operation wrote."""

    operation: str
    """Name of the ledger's method."""
    job: str
    sequence: int | None = None
    """Of the batch; None if it is about the job."""
    state: State | JobState | None = None
    """What it is now in; None if that did not change."""


Operation: TypeAlias = Callable[Concatenate[apsw.Connection, ...], Sequence[Change]]
"""Takes a connection and values; writes all of them, or raises."""
Hook: TypeAlias = Callable[[Sequence[Change]], None]


class Hooks(Struct, frozen=True):
    """Called in the writer thread with the changes of each group: tests fail the disk or end the process there."""

    before_commit: Hook | None = None
    """What it raises is taken as if the disk had raised it."""
    on_commit: Hook | None = None
    """The changes are durable, and nobody who waits for them knows it yet."""


class _Queued(Struct, eq=False):
    """An operation on its way to the disk, and back to whoever waits for it."""

    operation: Operation
    values: tuple[object, ...]
    future: asyncio.Future[None] | None
    """None if nobody waits for it."""
    error: Exception | None = None
    """Why it was refused."""


class Writer:
    """The one thread that writes to a ledger."""

    def __init__(self, path: Path, connection: apsw.Connection, hooks: Hooks) -> None:
        self._path = path
        self._connection = connection
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Sequence[_Queued] | None] = SimpleQueue()
        self._gathered: list[_Queued] = []
        self._awaited = False
        """Somebody waits for what has gathered."""
        self._committing = False
        """The thread has a group."""
        self._unseen = 0
        """Operations that nobody waits for, and of which is not known how they went."""
        self._refusal: Exception | None = None
        """Of the first of them that was refused."""
        self._failure: Exception | None = None
        self._closed = False
        self._wal_pages = self._mark_at = 0
        connection.set_wal_hook(self._note_wal)  # SQLite itself folds nothing in from now on: the mark must be renewed
        # A daemon, so that a program that forgets to close the ledger can end; what is committed is safe.
        self._thread = Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    async def write(self, operation: Operation, *values: object, wait: bool = True) -> None:
        """Run `operation` and return once it is on disk. If the caller is canceled, it runs all the same.

        Those who pass the same operation at the time share one call of it, with the values of all. `wait`: if not, it
        is written before whatever comes later, and with the next that somebody waits for.

        Raises:
            LedgerError, JobError: it was refused, and nothing of it was written.
        """
        self.check_open()
        if not wait:
            self._unseen += 1
            self._gathered.append(_Queued(operation, values, None))
            return
        future = self._loop.create_future()
        self._gathered.append(_Queued(operation, values, future))
        if not self._awaited:
            self._awaited = True
            self._loop.call_soon(self._hand_over)
        await future

    async def written(self) -> None:
        """Return once all is on disk that nobody waits for.

        Raises:
            LedgerError, JobError: some of it was refused, now or earlier.
        """
        if self._unseen:
            await self.write(_nothing)
        if self._refusal is not None:
            raise self._refusal

    def _hand_over(self) -> None:
        """Give the thread what has gathered, if it is idle and somebody waits."""
        if self._awaited and not self._committing:
            self._queue.put(self._gathered)
            self._gathered, self._awaited, self._committing = [], False, True

    def _tell(self, group: Sequence[_Queued]) -> None:
        """Tell those who wait how it went, those who were canceled meanwhile do not; then go on with the next group.

        Those who are told now run first, so that their next operations are in it.
        """
        for queued in group:
            if queued.future is None:
                self._unseen -= 1
                self._refusal = self._refusal or queued.error
            elif queued.future.done():
                continue
            elif queued.error is None:
                queued.future.set_result(None)
            else:
                queued.future.set_exception(queued.error)
        self._committing = False
        self._loop.call_soon(self._hand_over)

    def check_open(self) -> None:
        """Raise LedgerError once `stop` was called."""
        if self._closed:
            raise LedgerError(f"ledger {self._path} is closed")

    def stop(self) -> None:
        """Refuse what comes from now on; the thread ends when all before is written."""
        if not self._closed:
            self._closed = True
            self._committing = False
            self._awaited = bool(self._gathered)
            self._hand_over()
            self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended, then let go of the file."""
        self._thread.join()
        with suppress(apsw.Error):  # a dead disk: all that is committed is in the WAL, where the next process finds it
            self._connection.close()

    def _run(self) -> None:
        """Write what has gathered, group after group, until `stop`."""
        while (group := self._queue.get()) is not None:
            self._write(group)

    def _write(self, group: Sequence[_Queued]) -> None:
        """Commit a group, and tell those who wait how it went."""
        failure = self._failure or self._commit(group)
        if failure is not None:
            for queued in group:
                queued.error = as_ledger_error(self._path, failure)
        with suppress(RuntimeError):  # a loop that is gone has nobody left who waits; what is written stays written
            self._loop.call_soon_threadsafe(self._tell, group)

    def _commit(self, group: Sequence[_Queued]) -> Exception | None:
        """Write a group in one transaction; return what failed it as a whole."""
        try:
            self._keep_marked()
            self._connection.execute(QUERIES["begin"])
            changes: list[Change] = []
            for _, run in groupby(group, attrgetter("operation")):
                self._apply(list(run), changes)
            if changes and self._hooks.before_commit:
                self._hooks.before_commit(changes)
            self._connection.execute(QUERIES["commit"])
            if changes and self._hooks.on_commit:
                self._hooks.on_commit(changes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            with suppress(apsw.Error):  # some errors have rolled back already, and a dead disk may not let us
                self._connection.execute(QUERIES["roll_back"])
            if not isinstance(error, apsw.BusyError):
                self._failure = error
            return error
        return None

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _keep_marked(self) -> None:
        """Fold the WAL into the file before it grows long, and have the file say that it is not all."""
        if self._wal_pages >= self._mark_at:
            mark_left_behind(self._connection)
            self._mark_at = self._wal_pages + WAL_PAGES

    def _apply(self, run: Sequence[_Queued], changes: list[Change]) -> None:
        """Run one operation on all its values; if one of them is refused, on each alone.

        apsw's own `with connection` would hide a full disk: SQLite has then rolled back everything, the savepoint too.
        """
        refusal = None
        values = [value for queued in run for value in queued.values]
        self._connection.execute(QUERIES["set_mark"])
        try:
            changes += run[0].operation(self._connection, *values)
        except Exception as error:
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
                raise  # it concerns the whole group
            self._connection.execute(QUERIES["return_to_mark"])
            refusal = as_ledger_error(self._path, error)
        self._connection.execute(QUERIES["remove_mark"])
        if refusal is not None and len(run) == 1:
            run[0].error = refusal
        elif refusal is not None:
            for queued in run:
                self._apply([queued], changes)


def _nothing(_connection: apsw.Connection) -> Sequence[Change]:
    """Write nothing: who waits for it waits for what came before it."""
    return ()


def create_job(
    connection: apsw.Connection,
    job: Job,
    now: float,
    seen: Collection[str] | None = None,
    origins: Sequence[int] = (),
) -> Sequence[Change]:
    """Remember a new job, and which record of its parent each of its own is; its time is now if it names none.

    `seen`: only if there is no job but these.
    """
    if seen is not None and connection.execute(QUERIES["unseen"], {"seen": orjson.dumps([*seen]).decode()}).get:
        raise OtherJobs
    row = asdict(job) | {"created_at": job.created_at or now}
    del row["sources"]
    if connection.execute(QUERIES["job_id"], {"name": check_job_name(job.name)}).get is not None:
        raise JobError(
            f"there is a job {job.name!r} already. Take another name with --job, "
            f"or go on with `bulksubmit resume {job.name}`."
        )
    connection.execute(QUERIES["add_job"], row)
    key = {"job": connection.last_insert_rowid()}
    connection.executemany(QUERIES["add_source"], [asdict(source) | key for source in job.sources])
    connection.executemany(
        QUERIES["add_origin"], (key | {"record_index": at, "parent_index": parent} for at, parent in enumerate(origins))
    )
    return [Change("create_job", job.name, state=job.state)]


def note_later(connection: apsw.Connection, name: str, fates: Mapping[int, LaterFate | None]) -> Sequence[Change]:
    """Remember what became of tasks of created records afterwards, or forget it."""
    job = job_id(connection, name)
    gone = [{"job": job, "record_index": index} for index, fate in fates.items() if fate is None]
    seen = [{"job": job, "record_index": index, **asdict(fate)} for index, fate in fates.items() if fate is not None]
    connection.executemany(QUERIES["drop_later_fate"], gone)
    connection.executemany(QUERIES["add_later_fate"], seen)
    return [Change("note_later", name)]


def update_job(connection: apsw.Connection, query: str, name: str, bindings: Mapping[str, Any]) -> Sequence[Change]:
    """Write one thing about a job by a query that is named after the ledger's method."""
    connection.execute(QUERIES[query], {"job": job_id(connection, name), **bindings})
    return [Change(query, name, state=bindings.get("state"))]


def remove_rows(connection: apsw.Connection, name: str) -> Sequence[Change]:
    """Remove up to REMOVED_ROWS rows of a job that is being removed, of the first table that has any; the job last."""
    job = job_id(connection, name)
    bindings = {"job": job, "limit": REMOVED_ROWS}
    if connection.execute(QUERIES["job_state"], {"job": job}).get != JobState.REMOVED:
        raise LedgerError(f"job {name!r} is not in state removed; this is a defect worth reporting")
    for query in REMOVALS:
        before = connection.total_changes()
        connection.execute(QUERIES[query], bindings)
        if connection.total_changes() > before:
            break
    return [Change("remove", name, state=JobState.REMOVED)]


def freeze(  # noqa: PLR0913 - all of one step of reading
    connection: apsw.Connection,
    name: str,
    batches: Sequence[Batch],
    rejects: Sequence[Reject],
    now: float,
    *,
    last: bool,
    skips: Sequence[Skipped] = (),
    taken: Sequence[Taken] = (),
    keys: Sequence[Keyed] = (),
) -> Sequence[Change]:
    """Remember batches, rejects, skips, keys and what the family knows from now on; `last`: the sources end here."""
    job = job_id(connection, name)
    (end,) = connection.execute(QUERIES["frozen_end"], {"job": job}).fetchall()
    check_joined(name, end, batches)
    changes = _add_batches(connection, "freeze", name, job, batches, now)
    connection.executemany(QUERIES["add_reject"], [reject_row(job, reject) for reject in rejects])
    others = {skip.other: job_id(connection, skip.other) for skip in skips}
    connection.executemany(QUERIES["add_skip"], [skip_row(job, skip, others[skip.other]) for skip in skips])
    _take(connection, job, taken)
    connection.executemany(QUERIES["add_keys"], key_rows(job, keys))
    if last:
        connection.execute(QUERIES["set_read_complete"], {"job": job})
    return changes or [Change("freeze", name)]


def _take(connection: apsw.Connection, job: int, taken: Sequence[Taken]) -> None:
    """Remember the records that a job takes, so that its family knows them before anything of them is sent."""
    if not taken:
        return
    rows = {kept_as: [known_row(job, one) for one in taken if one.kept_as is kept_as] for kept_as in KeptAs}
    connection.executemany(QUERIES["copy_known"], [(hash_,) for hash_, *_ in rows[KeptAs.OVER]])
    connection.executemany(QUERIES["add_known"], [*rows[KeptAs.OVER], *rows[KeptAs.ROW]])
    connection.executemany(QUERIES["add_copy"], rows[KeptAs.COPY])
    for name in {name for one in taken for name in one.instead_of}:
        connection.execute(QUERIES["set_taken_over"], {"job": job_id(connection, name), "by": job})


def _add_batches(
    connection: apsw.Connection, operation: str, name: str, job: int, batches: Sequence[Batch], now: float
) -> Sequence[Change]:
    connection.executemany(QUERIES["add_batch"], [batch_row(job, batch, now) for batch in batches])
    connection.executemany(QUERIES["add_spans"], [(job, batch.sequence, batch.spans, batch.lines) for batch in batches])
    return [
        Change(operation, name, batch.sequence, State.FROZEN if batch.count else State.SETTLED) for batch in batches
    ]


def take_steps(connection: apsw.Connection, *steps: BatchStep) -> Sequence[Change]:
    """Take batches one step on each, or none of them; what is said of a refusal is only right of a single one."""
    jobs = {name: job_id(connection, name) for name in {step.job for step in steps}}
    moved, rows, settlements = 0, list[Sequence[Any]](), []
    for step in steps:
        job, submission = jobs[step.job], step.submission
        if submission.state in {State.STAGING, State.SPLIT} and step.expected is not State.FROZEN:
            moved += _move(connection, rows)  # what it gives up may have been named just now
            rows = []
            connection.execute(QUERIES["keep_orphan"], (job, submission.sequence, submission.remote_id))
        rows.append(step.row(job))
        if step.settlement is not None:
            settlements.append(settlement_row(job, submission.sequence, step.settlement))
    if moved + _move(connection, rows) < len(steps):
        whose = (jobs[steps[0].job], steps[0].submission.sequence)
        raise steps[0].refusal(connection.execute(QUERIES["state"], whose).fetchall())
    connection.executemany(QUERIES["add_settlement"], settlements)
    return [Change(step.operation, step.job, step.submission.sequence, step.submission.state) for step in steps]


def _move(connection: apsw.Connection, rows: Sequence[Sequence[Any]]) -> int:
    """Return how many of the batches stood where they were expected, and moved."""
    before = connection.total_changes()
    connection.executemany(QUERIES["move"], rows)
    return connection.total_changes() - before


def split_batch(connection: apsw.Connection, step: BatchStep) -> Sequence[Change]:
    """Take a batch its last step, and freeze the two parts that stand for it from then on."""
    changes = take_steps(connection, step)
    job = job_id(connection, step.job)
    whole = {"job": job, "sequence": step.submission.sequence}
    (columns,) = connection.execute(QUERIES["batch"], whole).fetchall()
    step.check_halves(to_submitted(*columns)[0])
    return [*changes, *_add_batches(connection, "split", step.job, job, step.halves, step.now)]
