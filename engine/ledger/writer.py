"""Operations enter a queue from the event loop; they leave it committed, many in one transaction.

One thread writes. While it commits, operations gather in the queue; it then takes them all. So a lone caller waits for
one fsync and sixty-four callers share one: 10,000 moves/s against 44,000, measured on two cores. An operation that is
refused takes back only what it did itself, since each runs in a savepoint.

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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeAlias, TypeVar

import apsw

from engine.ledger.faults import as_ledger_error
from engine.ledger.queries import QUERIES
from engine.model.errors import LedgerError
from engine.model.job import JobState
from engine.model.submission import State


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that an operation wrote."""

    operation: str
    """Name of the ledger's method."""
    job: str
    sequence: int | None = None
    """Of the batch; None if it is about the job."""
    state: State | JobState | None = None
    """What it is now in; None if that did not change."""


T = TypeVar("T")
Operation: TypeAlias = Callable[[apsw.Connection], Sequence[Change]]
Joint: TypeAlias = Callable[[apsw.Connection, Sequence[T]], Sequence[Change]]
"""Does the same with each of some values, or with none of them if one is refused."""
Hook: TypeAlias = Callable[[Sequence[Change]], None]
Future: TypeAlias = "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called in the writer thread with the changes of each group: tests fail the disk or end the process there."""

    before_commit: Hook | None = None
    """What it raises is taken as if the disk had raised it."""
    on_commit: Hook | None = None
    """The changes are durable, and nobody who waits for them knows it yet."""


@dataclass(frozen=True, slots=True)
class _Queued:
    operation: Joint[Any]
    value: object
    future: Future


@dataclass(frozen=True, slots=True)
class _Done:
    future: Future
    error: Exception | None = None


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
        # A daemon, so that a program that forgets to close the ledger can end; what is committed is safe.
        self._thread = Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    async def write(self, operation: Operation) -> None:
        """Run `operation` and return once it is on disk. If the caller is cancelled, the operation runs all the same.

        Raises:
            LedgerError, JobError: it was refused, and nothing of it was written.
        """
        await self.write_each(lambda connection, _: operation(connection), None)

    async def write_each(self, operation: Joint[T], value: T) -> None:
        """Run `operation` on `value`, and on those that others pass to it at the time; else like `write`."""
        self.check_open()
        future = self._loop.create_future()
        self._queue.put(_Queued(operation, value, future))
        await future

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
        open_ = True
        while open_:
            group, open_ = self._take()
            if group:
                self._answer(self._write(group))

    def _answer(self, done: Sequence[_Done]) -> None:
        with suppress(RuntimeError):  # a loop that is gone has nobody left who waits; what is written stays written
            self._loop.call_soon_threadsafe(_resolve, done)

    def _take(self) -> tuple[list[_Queued], bool]:
        """Wait for an operation; return all that are queued and whether more may come."""
        group: list[_Queued] = []
        queued = self._queue.get()
        while queued is not None:
            group.append(queued)
            try:
                queued = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _write(self, group: Sequence[_Queued]) -> Sequence[_Done]:
        if self._failure is None:
            try:
                return self._commit(group)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
                return self._give_up(group, error)
        return [_Done(queued.future, self._refusal(self._failure)) for queued in group]

    def _commit(self, group: Sequence[_Queued]) -> Sequence[_Done]:
        self._connection.execute(QUERIES["begin"])
        changes: list[Change] = []
        done = [one for _, run in groupby(group, _operation) for one in self._apply_run(list(run), changes)]
        if changes and self._hooks.before_commit:
            self._hooks.before_commit(changes)
        self._connection.execute(QUERIES["commit"])
        if changes and self._hooks.on_commit:
            self._hooks.on_commit(changes)
        return done

    def _apply_run(self, run: Sequence[_Queued], changes: list[Change]) -> Sequence[_Done]:
        """Run one operation on all its values; if one of them is refused, on each alone."""
        refusal = self._apply(
            lambda connection: run[0].operation(connection, [queued.value for queued in run]), changes
        )
        if refusal is None or len(run) == 1:
            return [_Done(queued.future, refusal) for queued in run]
        return [one for queued in run for one in self._apply_run([queued], changes)]

    def _apply(self, operation: Operation, changes: list[Change]) -> Exception | None:
        """Run one operation; return why it was refused. What concerns all of the group is raised.

        apsw's own `with connection` would hide a full disk: SQLite has then rolled back everything, the savepoint too.
        """
        refusal = None
        self._connection.execute(QUERIES["set_mark"])
        try:
            changes += operation(self._connection)
        except Exception as error:  # a mistake in one operation is told to its caller alone
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
                raise
            self._connection.execute(QUERIES["return_to_mark"])
            refusal = as_ledger_error(self._path, error)
        self._connection.execute(QUERIES["remove_mark"])
        return refusal

    def _give_up(self, group: Sequence[_Queued], error: Exception) -> Sequence[_Done]:
        with suppress(apsw.Error):  # some errors have rolled back already, and a dead disk may not let us
            self._connection.execute(QUERIES["roll_back"])
        if not isinstance(error, apsw.BusyError):
            self._failure = error
        return [_Done(queued.future, self._refusal(error)) for queued in group]

    def _refusal(self, error: Exception) -> Exception:
        """Return a new exception, since each that is raised collects its own traceback."""
        mapped = as_ledger_error(self._path, error)
        return mapped if mapped is not error else type(mapped)(str(mapped))


def _operation(queued: _Queued) -> Joint[Any]:
    return queued.operation


def _resolve(done: Sequence[_Done]) -> None:
    """Tell those who wait; those who were cancelled meanwhile do not."""
    for one in done:
        if one.future.done():
            continue
        if one.error is None:
            one.future.set_result(None)
        else:
            one.future.set_exception(one.error)
