"""The one thread that writes to a ledger, many operations in one transaction.

Called by sql.py with the operations of operations.py. `write` returns once its operation is on disk; an error of a
write reaches whoever waits for it.

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
later operations are refused with the same error, and a new process reads from the disk what is there. What passes, such
as a ledger that another program holds for too long, changes nothing: only that group is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue
from threading import Thread
from typing import Concatenate, TypeAlias

from msgspec import Struct

from engine.ledger.connection import Connection, WritingConnection
from engine.ledger.operations import Change
from engine.model.errors import LedgerError

Operation: TypeAlias = Callable[Concatenate[Connection, ...], Sequence[Change]]
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

    def __init__(self, name: str, connection: WritingConnection, hooks: Hooks) -> None:
        """`name`: of the ledger, for messages."""
        self._name = name
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

    def forget(self, kind: type[Exception]) -> None:
        """Let `written` say no more that something was refused so; of what is still to be written, it will."""
        if isinstance(self._refusal, kind):
            self._refusal = None

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
                # What nobody waited for may be what it builds on: then that is the reason.
                queued.future.set_exception(self._refusal or queued.error)
        self._committing = False
        self._loop.call_soon(self._hand_over)

    def check_open(self) -> None:
        """Raise LedgerError once `stop` was called."""
        if self._closed:
            raise LedgerError(f"ledger {self._name} is closed")

    def stop(self) -> None:
        """Refuse what comes from now on; the thread ends when all before is written."""
        if not self._closed:
            self._closed = True
            self._committing = False
            self._awaited = bool(self._gathered)
            self._hand_over()
            self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended, then let go of the store."""
        self._thread.join()
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
                queued.error = self._connection.told(failure)
        with suppress(RuntimeError):  # a loop that is gone has nobody left who waits; what is written stays written
            self._loop.call_soon_threadsafe(self._tell, group)

    def _commit(self, group: Sequence[_Queued]) -> Exception | None:
        """Write a group in one transaction; return what failed it as a whole."""
        changes: list[Change] = []
        try:
            self._connection.transaction(partial(self._operate, group, changes))
            if changes and self._hooks.on_commit:
                self._hooks.on_commit(changes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            if not self._connection.is_passing(error):
                self._failure = error
            return error
        return None

    def _operate(self, group: Sequence[_Queued], changes: list[Change]) -> None:
        """Run the operations of a group; `changes`: gets what they wrote."""
        changes.clear()  # of a transaction that is begun anew
        for queued in group:
            queued.error = None
        writing = [queued for queued in group if queued.operation is not _nothing]
        for _, run in groupby(writing, attrgetter("operation")):
            self._apply(list(run), changes)
        if changes and self._hooks.before_commit:
            self._hooks.before_commit(changes)

    def _apply(self, run: Sequence[_Queued], changes: list[Change]) -> None:
        """Run one operation on all its values; if one of them is refused, on each alone."""
        values = [value for queued in run for value in queued.values]
        try:
            changes += self._connection.attempt(partial(run[0].operation, self._connection, *values))
        except Exception as error:
            if not self._connection.is_refusal(error):
                raise  # it concerns the whole group
            if len(run) == 1:
                run[0].error = self._connection.told(error)
                return
            for queued in run:
                self._apply([queued], changes)


def _nothing(_connection: Connection) -> Sequence[Change]:
    """Write nothing: who waits for it waits for what came before it."""
    return ()
