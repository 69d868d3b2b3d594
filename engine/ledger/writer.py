"""The one thread that writes to a SQLite ledger, many operations in one transaction; and these operations.

Called by sqlite.py. `write` returns once its operation is on disk; an error of a write reaches whoever waits for it.

While the thread commits, operations gather in its queue; it then takes them all. So a lone caller waits for one fsync
and sixty-four callers share one: 10,000 moves/s against 44,000, measured on two cores. An operation that is refused
takes back only what it did itself, since each runs in a savepoint.

Steps of batches come by the thousand where each record is a batch, so those of a group are written together, in one
savepoint: each statement gives the interpreter's lock away and has to wait for it again. Only if one of them is refused
are all of them taken back and written one by one, to find out which. Measured: 3 µs a step instead of 14.

The writer stops at the first failure that is not about one operation: a full disk, an I/O error. After a failed commit
nobody can say what a later fsync would cover (https://www.usenix.org/conference/atc20/presentation/rebello), so all
later operations are refused with the same error, and a new process reads from the disk what is there. A ledger held too
long by another program changes nothing: only that group is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Concatenate, TypeAlias

import apsw
from msgspec import Struct
from msgspec.structs import asdict

from engine.ledger.database import QUERIES, as_ledger_error, job_id, mark_left_behind
from engine.ledger.rows import BatchStep, batch_row, check_joined, reject_row, to_submitted
from engine.model.batch import Batch
from engine.model.errors import JobError, LedgerError
from engine.model.job import Job, JobState, check_job_name
from engine.model.record import Reject
from engine.model.submission import State

WAL_PAGES = 1_000
"""4 MB, as SQLite's own https://sqlite.org/pragma.html#pragma_wal_autocheckpoint."""


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


class _Queued(Struct):
    """An operation on its way to the disk, and back to whoever waits for it."""

    operation: Operation
    values: tuple[object, ...]
    future: asyncio.Future[None]
    error: Exception | None = None
    """Why it was refused."""


class Writer:
    """The one thread that writes to a ledger."""

    def __init__(self, path: Path, connection: apsw.Connection, hooks: Hooks) -> None:
        self._path = path
        self._connection = connection
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._failure: Exception | None = None
        self._closed = False
        self._wal_pages = self._mark_at = 0
        connection.set_wal_hook(self._note_wal)  # SQLite itself folds nothing in from now on: the mark must be renewed
        # A daemon, so that a program that forgets to close the ledger can end; what is committed is safe.
        self._thread = Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    async def write(self, operation: Operation, *values: object) -> None:
        """Run `operation` and return once it is on disk. If the caller is canceled, it runs all the same.

        Those who pass the same operation at the time share one call of it, with the values of all.

        Raises:
            LedgerError, JobError: it was refused, and nothing of it was written.
        """
        self.check_open()
        queued = _Queued(operation, values, self._loop.create_future())
        self._queue.put(queued)
        await queued.future

    def check_open(self) -> None:
        """Raise LedgerError once `stop` was called."""
        if self._closed:
            raise LedgerError(f"ledger {self._path} is closed")

    def stop(self) -> None:
        """Refuse what comes from now on; the thread ends when all before is written."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended, then let go of the file."""
        self._thread.join()
        with suppress(apsw.Error):  # a dead disk: all that is committed is in the WAL, where the next process finds it
            self._connection.close()

    def _run(self) -> None:
        """Write what has gathered, group after group, until `stop`."""
        group: list[_Queued] = []
        while (queued := self._queue.get()) is not None:
            group.append(queued)
            if self._queue.empty():  # nobody else takes from it
                self._write(group)
                group = []
        if group:
            self._write(group)

    def _write(self, group: Sequence[_Queued]) -> None:
        """Commit a group, and tell those who wait how it went."""
        failure = self._failure or self._commit(group)
        if failure is not None:
            for queued in group:
                queued.error = as_ledger_error(self._path, failure)
        with suppress(RuntimeError):  # a loop that is gone has nobody left who waits; what is written stays written
            self._loop.call_soon_threadsafe(_resolve, group)

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


def _resolve(group: Sequence[_Queued]) -> None:
    """Tell those who wait; those who were canceled meanwhile do not."""
    for queued in group:
        if queued.future.done():
            continue
        if queued.error is None:
            queued.future.set_result(None)
        else:
            queued.future.set_exception(queued.error)


def create_job(connection: apsw.Connection, job: Job, now: float) -> Sequence[Change]:
    """Remember a new job; its time is now if it names none."""
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
    return [Change("create_job", job.name, state=job.state)]


def update_job(connection: apsw.Connection, query: str, name: str, bindings: Mapping[str, Any]) -> Sequence[Change]:
    """Write one thing about a job by a query that is named after the ledger's method."""
    connection.execute(QUERIES[query], {"job": job_id(connection, name), **bindings})
    return [Change(query, name, state=bindings.get("state"))]


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
    job = job_id(connection, name)
    (end,) = connection.execute(QUERIES["frozen_end"], {"job": job}).fetchall()
    check_joined(name, end, batches)
    changes = _add_batches(connection, "freeze", name, [batch_row(job, batch, now) for batch in batches])
    connection.executemany(QUERIES["add_reject"], [reject_row(job, reject) for reject in rejects])
    if last:
        connection.execute(QUERIES["set_read_complete"], {"job": job})
    return changes or [Change("freeze", name)]


def _add_batches(
    connection: apsw.Connection, operation: str, name: str, rows: Sequence[Mapping[str, Any]]
) -> Sequence[Change]:
    connection.executemany(QUERIES["add_batch"], rows)
    connection.executemany(QUERIES["add_spans"], rows)
    return [Change(operation, name, row["sequence"], row["state"]) for row in rows]


def take_steps(connection: apsw.Connection, *steps: BatchStep) -> Sequence[Change]:
    """Take batches one step on each, or none of them; what is said of a refusal is only right of a single one."""
    jobs: dict[str, int] = {}
    rows, orphans, settlements, changes = [], [], [], list[Change]()
    for step in steps:
        if step.job not in jobs:
            jobs[step.job] = job_id(connection, step.job)
        row, state = step.row(jobs[step.job]), step.submission.state
        rows.append(row)
        if state in {State.STAGING, State.SPLIT} and step.expected is not State.FROZEN:
            orphans.append(row)  # if it gives up what was staged at the service before
        if state is State.SETTLED:
            settlements.append(row)
        changes.append(Change(step.operation, step.job, step.submission.sequence, state))
    connection.executemany(QUERIES["keep_orphan"], orphans)
    if len(connection.executemany(QUERIES["move"], rows).fetchall()) < len(rows):
        raise steps[0].refusal(connection.execute(QUERIES["state"], rows[0]).fetchall())
    connection.executemany(QUERIES["add_settlement"], settlements)
    return changes


def split_batch(connection: apsw.Connection, step: BatchStep) -> Sequence[Change]:
    """Take a batch its last step, and freeze the two parts that stand for it from then on."""
    changes = take_steps(connection, step)
    job = job_id(connection, step.job)
    whole = {"job": job, "sequence": step.submission.sequence}
    (columns,) = connection.execute(QUERIES["batch"], whole).fetchall()
    step.check_halves(to_submitted(*columns)[0])
    return [
        *changes,
        *_add_batches(connection, "split", step.job, [batch_row(job, half, step.now) for half in step.halves]),
    ]
