# ruff: noqa: D102 - what each method does stands once, in base.py
"""The `Ledger` in a database of PostgreSQL that any number of machines share.

`commands/` opens it by its address. Locks are advisory locks of a session of their own: they end with the process, and
with the database. A session that is lost is opened anew, and takes its locks again; one of a process that stands still
is ended by the database after `_SILENT_SECONDS`. Whoever takes a lock gets a token that is one more than that of the
holder before; freezing asks for it, so an earlier holder that has missed the end of its lock freezes nothing more.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Self

import psycopg
from psycopg import errors

from engine.clock import Clock
from engine.ledger.address import PostgresAddress
from engine.ledger.postgres_connection import (
    STATEMENTS,
    PostgresConnection,
    PostgresWriter,
    mapped,
    open_reader,
    open_writer,
    session,
)
from engine.ledger.sql import SqlLedger
from engine.ledger.writer import Hooks, Writer
from engine.model.errors import JobLocked, LeaseLost, LedgerError
from engine.model.job import check_job_name

_NO_HOOKS = Hooks()
_SIGN_SECONDS = 0.5
"""Between two signs of life of the session that holds locks; so late is it noticed that they were lost."""
_SILENT_SECONDS = 30
"""After which the database ends that session: its process stands still, or its machine is gone."""
_KEY = "HASHTEXTEXTENDED(CURRENT_DATABASE() || ' ' || CURRENT_SCHEMA() || ' ' || %s, 0)"
"""Two names of one key would only keep their holders apart for no reason."""
_LOCK = f"SELECT pg_try_advisory_lock({_KEY})"
_UNLOCK = f"SELECT pg_advisory_unlock({_KEY})"
_IS_LOCKED = (
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 "  # noqa: S608 - a text of our own
    "AND database = (SELECT oid FROM pg_database WHERE datname = CURRENT_DATABASE()) "
    f"AND (CAST(classid AS BIGINT) << 32) + CAST(objid AS BIGINT) = {_KEY}"
)


class PostgresLedger(SqlLedger):
    """The durable memory of jobs in a database of PostgreSQL."""

    def __init__(
        self,
        address: PostgresAddress,
        clock: Clock,
        writing: PostgresWriter,
        reading: PostgresConnection,
        hooks: Hooks = _NO_HOOKS,
    ) -> None:
        super().__init__(clock, Writer(str(address), writing, hooks), reading)
        self._address = address
        self._locking: psycopg.Connection[tuple[object, ...]] | None = None
        """The session whose locks are ours, once there is any."""
        self._tokens: dict[str, int] = {}
        """Of the locks that we hold."""
        self._lost: set[str] = set()
        """Those of them that another process has taken meanwhile."""
        self._opening = Lock()
        """Of that session."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, address: PostgresAddress, clock: Clock, *, hooks: Hooks = _NO_HOOKS, create: bool = True
    ) -> AsyncIterator[Self]:
        """Open the ledger until the block ends; `create`: its tables are made where there are none.

        Raises:
            LedgerError: it cannot be used, or was written by a newer bulksubmit.
            NoLedger: the database has none, and none shall be made.
        """
        writing = await asyncio.to_thread(partial(open_writer, address, create=create))
        try:
            reading = await asyncio.to_thread(open_reader, address)
        except BaseException:
            writing.close()
            raise
        ledger = cls(address, clock, writing, reading, hooks)
        signs = asyncio.create_task(ledger._show_signs())
        try:
            yield ledger
        finally:
            signs.cancel()
            await ledger.close()

    @property
    def address(self) -> PostgresAddress:
        return self._address

    @property
    def shares_jobs(self) -> bool:
        return True

    def lock(self, name: str) -> AbstractContextManager[None]:
        return self._held(f"job:{check_job_name(name)}", f"job {name!r}")

    def lock_family(self, family: str) -> AbstractContextManager[None]:
        return self._held(f"family:{check_job_name(family)}", f"a job of family {family!r}")

    def lock_nights(self, family: str) -> AbstractContextManager[None]:
        return self._held(f"nights:{check_job_name(family)}", f"the nightly load of family {family!r}")

    @contextmanager
    def _held(self, name: str, what: str) -> Iterator[None]:
        with mapped(self._address):
            self._tokens[name] = self._take(name, what)
        try:
            yield
        finally:
            self._tokens.pop(name, None)
            self._lost.discard(name)
            with suppress(psycopg.Error):  # a session that is gone has freed it
                self._asked(_UNLOCK, [name])

    def _take(self, name: str, what: str) -> int:
        if name in self._tokens:  # the session would let us have it twice
            raise JobLocked(f"this process is working on {what} already")
        ((taken,),) = self._asked(_LOCK, [name])
        if not taken:
            rows = self._asked(STATEMENTS["lock_holder"], {"name": name})
            holder = rows[0][0] if rows else "unknown"
            helps = f" `bulksubmit work {job}` helps it." if (job := name.removeprefix("job:")) != name else ""
            raise JobLocked(f"process {holder} is working on {what}. Wait until it ends, or stop it first.{helps}")
        holder = f"{os.getpid()} on {socket.gethostname()}"
        ((token,),) = self._asked(STATEMENTS["take_lock"], {"name": name, "holder": holder})
        return int(str(token))

    def _asked(self, sql: str, bindings: Sequence[object] | Mapping[str, object]) -> Sequence[tuple[object, ...]]:
        """Ask in the session that holds our locks; once more, if only that shows that it was lost."""
        session = self._session()
        try:
            return session.execute(sql, bindings).fetchall()
        except psycopg.OperationalError:
            if not session.closed:
                raise
        return self._session().execute(sql, bindings).fetchall()

    def _session(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return the session that holds our locks; if it was lost, another one that has taken them again."""
        with self._opening:
            if self._locking is None or self._locking.closed or self._locking.broken:
                opened = session(self._address)
                with suppress(errors.UndefinedObject):  # before PostgreSQL 14
                    opened.execute(f"SET idle_session_timeout = '{_SILENT_SECONDS}s'")
                for name, token in self._tokens.items():
                    if not _taken_again(opened, name, token):
                        self._lost.add(name)
                self._locking = opened
            return self._locking

    async def _show_signs(self) -> None:
        """Keep the session of the locks alive; open it anew where it was lost."""
        while True:
            await asyncio.sleep(_SIGN_SECONDS)
            if self._locking is not None:
                with suppress(psycopg.Error):  # away: the next time
                    await asyncio.to_thread(self._show_sign)

    def _show_sign(self) -> None:
        self._asked("SELECT 1", [])

    def check_lock(self, name: str) -> None:
        if f"job:{name}" in self._lost:
            raise LeaseLost(f"another process has taken over job {name!r} since the database was lost, and goes on")

    def is_locked(self, name: str) -> bool:
        with mapped(self._address):
            return bool(self._asked(_IS_LOCKED, [f"job:{check_job_name(name)}"]))

    def _locks_held(self) -> Mapping[str, int]:
        return dict(self._tokens)

    async def free_bytes(self) -> int:
        return 0  # the database cleans up by itself, and keeps that to itself

    async def back_up(self, to: Path) -> None:
        raise LedgerError(
            f"ledger {self._address}: a database has backups of its own (pg_dump, or its archive); "
            f"`bulksubmit ledger copy {shlex.quote(str(self._address))} {shlex.quote(str(to))}` makes a file of it "
            "while no process works on it"
        )

    async def close(self) -> None:
        await super().close()
        if self._locking is not None:
            self._locking.close()


def _taken_again(session: psycopg.Connection[tuple[object, ...]], name: str, token: int) -> bool:
    """Take a lock that was lost; return whether nobody has had it since."""
    ((taken,),) = session.execute(_LOCK, [name]).fetchall()
    return bool(taken) and session.execute(STATEMENTS["lock_tokens"], {"names": [name]}).fetchall() == [(name, token)]
