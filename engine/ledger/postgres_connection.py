"""Connections to a ledger in PostgreSQL: its statements, its schema, and what its errors mean. psycopg is an extra.

Called by postgres.py, and by whoever reads a ledger by its address. The database must promise what the ledger does: a
commit that was answered is on disk, so `synchronous_commit = off` is refused.

A connection that is lost is opened anew. What was read is read again. A transaction whose COMMIT was not answered may
stand or not; only if it does not stand is it done again. The database tells by its number whether it goes on still
(pg_xact_status), but not whether it stands: after a crash a number that was lost with it is given anew, to whoever
comes first. So each transaction notes its number in the table `writers`, in the row of its connection.
https://www.postgresql.org/docs/current/functions-info.html

The module is a long one, since what a lost connection leaves open is decided here, for reads, steps and upgrades alike.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import Any, TypeVar

import psycopg
from msgspec import Struct
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown as StrDumper
from psycopg.types.string import TextLoader

from engine.ledger.address import PostgresAddress
from engine.ledger.connection import Bindings
from engine.ledger.statements import QUERIES, read_queries, read_steps, sql_file
from engine.model.errors import BulkSubmitError, LedgerAway, LedgerError, NoLedger

T = TypeVar("T")

logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of a lost connection, of which we tell ourselves

RECONNECT_SECONDS = 60.0
"""A database that is started anew, or whose standby takes over, is there again by then."""
_CONNECT_SECONDS = 5
"""Of one try."""
_BETWEEN_TRIES_SECONDS = 0.2
_STATEMENT_MS = 60_000
ANSWER_SECONDS = 75.0
"""A statement is ended by the database before that."""
_LOST_MS = 15_000
"""Until the system takes a connection for lost on which nothing is answered."""
_SETTINGS = {
    "application_name": "bulksubmit",
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": _LOST_MS,
    "target_session_attrs": "read-write",
    "options": f"-c statement_timeout={_STATEMENT_MS} -c idle_in_transaction_session_timeout={_STATEMENT_MS}",
}
"""Those that the URL names stand above them."""
_MIGRATING = 0x62756C6B
""""bulk": the advisory lock of whoever brings a database to the schema of this version."""

_BEGIN = """
BEGIN;
INSERT INTO writers (name, number, at)
VALUES ('{name}', CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT), CLOCK_TIMESTAMP())
ON CONFLICT (name) DO UPDATE SET number = excluded.number, at = excluded.at
RETURNING number, pg_backend_pid()
"""
_IS_NOTED = "SELECT 1 FROM writers WHERE name = %(name)s AND number = %(number)s"
_FORGET = "DELETE FROM writers WHERE name = %(name)s OR at < CLOCK_TIMESTAMP() - INTERVAL '1 day'"
_STATUS = "SELECT pg_xact_status(CAST(CAST(%(number)s AS TEXT) AS xid8))"
_END_OLD = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %(process)s "
    "AND backend_xid = CAST(CAST(CAST(%(number)s AS BIGINT) %% 4294967296 AS TEXT) AS xid)"
)
_RESUME = "then `bulksubmit resume` goes on where the job stopped"
_AWAY = f"the database cannot be reached; see that it runs, {_RESUME}"
_UNKNOWN = "the URL says something that is not known; one is postgresql://user@host:5432/database?sslmode=verify-full"
_REFUSED = {
    "certificate": "the two do not trust each other's certificates; check sslmode, sslrootcert and the host in the URL",
    "SSL": "the two do not agree on TLS; check sslmode in the URL, and ssl and pg_hba.conf of the server",
    "pg_hba.conf": "the server lets nobody in from here by this user; its pg_hba.conf says whom it does",
    "invalid": _UNKNOWN,
    "bad value": _UNKNOWN,
    "password": "the password is wrong or missing: PGPASSWORD gives it, or the file that PGPASSFILE names",
    "read-only": "the database is read-only, as a standby is; name the one that is written to",
    "does not exist": "there is no such database, or no such user; check the URL, or make it",
}
"""What libpq says of a connection that is refused, which has no code → what to do."""
_WORDS: Mapping[type[Exception], str] = {
    errors.DiskFull: f"the disk of the database is full; make room, {_RESUME}",
    errors.ReadOnlySqlTransaction: _REFUSED["read-only"],
    errors.InsufficientPrivilege: "this user may not do that; docs/many-machines.md has the rights that are needed",
    errors.UndefinedTable: "there is no ledger in this database; `bulksubmit submit` makes one",
    errors.DataError: "a value is none that PostgreSQL keeps; this is a defect worth reporting",
    errors.IntegrityError: "it already holds something else in this place; this is a defect worth reporting",
    UnicodeEncodeError: "a text is not valid Unicode and cannot be kept",
    psycopg.OperationalError: _AWAY,
    psycopg.Error: "the database refuses it",
    TypeError: "a value cannot be kept; this is a defect worth reporting",
}
"""Looked up in this order; https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_TEXTS = ("states", "seen", "loading_nothing")
_BOUND = re.compile(r"('[^']*')|(?<!:):(\w+)|%|0x([0-9A-F]+)")
STORE_NOW = "EXTRACT(EPOCH FROM CLOCK_TIMESTAMP())::DOUBLE PRECISION"
"""Unix seconds by the clock of the database, which all workers share; in queries: :store_now."""


def _rewritten(sql: str) -> str:
    """Return a statement of SQLite as PostgreSQL wants it, as far as that can be done by rule."""
    for name in _TEXTS:
        sql = sql.replace(
            f"SELECT value FROM json_each(:{name})",  # noqa: S608 - a name of _TEXTS
            f"SELECT JSON_ARRAY_ELEMENTS_TEXT(CAST(:{name} AS JSON))",
        )
    sql = re.sub(
        r"SELECT value FROM json_each\((:\w+)\)",
        r"SELECT CAST(JSON_ARRAY_ELEMENTS_TEXT(CAST(\1 AS JSON)) AS BIGINT)",
        sql,
    )
    sql = re.sub(r"SUM\(([^()]*)\)", r"CAST(SUM(\1) AS BIGINT)", sql)  # of BIGINT it is NUMERIC
    sql = sql.replace("CROSS JOIN", "JOIN") if "LATERAL" not in sql else sql
    sql = sql.replace("LIKE :pattern", "ILIKE :pattern")  # LIKE of SQLite does not tell capitals apart
    return sql.replace(":store_now", STORE_NOW.replace(":", "\0"))


def _names_in(sql: str) -> Sequence[str]:
    return list(dict.fromkeys(found[2] for found in _BOUND.finditer(sql) if found[2]))


def _bound(sql: str) -> str:
    """Return a statement with its names as psycopg binds them."""

    def one(found: re.Match[str]) -> str:
        literal, name, hexadecimal = found.groups()
        if literal:
            return literal.replace("%", "%%")
        if hexadecimal:
            return str(int(hexadecimal, 16))
        return f"%({name})s" if name else "%%"

    return _BOUND.sub(one, sql).replace("\0", ":")


_OWN = read_queries(sql_file("queries_postgres.sql"))
_ALL = {name: _rewritten(sql) for name, sql in {**QUERIES, **_OWN}.items() if "PRAGMA" not in sql}
STATEMENTS: Mapping[str, str] = {name: _bound(sql) for name, sql in _ALL.items()}
_ORDERS: Mapping[str, Sequence[str]] = {name: _names_in(QUERIES.get(name, sql)) for name, sql in _ALL.items()}
"""Of the names in each statement, as SQLite counts them."""
STEPS = read_steps(sql_file("schema_postgres.sql"))
TABLES: Sequence[str] = re.findall(r"^CREATE TABLE (\w+)", "".join(STEPS), re.MULTILINE)


class _Flag(Dumper):
    """Columns that are 0 or 1 are numbers, as in SQLite."""

    oid = psycopg.adapters.types["int2"].oid

    def dump(self, obj: bool) -> bytes:  # noqa: FBT001 - psycopg's method
        return b"1" if obj else b"0"


_MARK = "\ue000"
"""Begins what stands for a character that PostgreSQL does not keep, and for itself."""


class _TextDumper(StrDumper):
    """Texts may hold NUL: a field of a row, or what a service says."""

    def dump(self, obj: str) -> Buffer | None:
        if "\0" in obj or _MARK in obj:
            obj = obj.replace(_MARK, f"{_MARK}1").replace("\0", f"{_MARK}0")
        return super().dump(obj)


class _TextAsWritten(TextLoader):
    """Gives a text back as it was."""

    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        if isinstance(text, str) and _MARK in text:
            return text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)
        return text


class _Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is closed when nothing is answered for too long: a network may take all and bring nothing."""

    def wait(self, gen: Generator[Any, Any, T], *how: Any, **named: Any) -> T:
        """Wait for the answer that `gen` takes in: what each call of psycopg comes to."""
        try:
            return super().wait(_limited(gen, time.monotonic() + ANSWER_SECONDS), *how, **named)
        except _NoAnswer:
            self.close()
            raise


class _NoAnswer(psycopg.OperationalError):
    """Nothing came in time."""


def _limited(gen: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
    """Go on with what waits for the socket, up to a time. Raises: _NoAnswer."""
    ready = None
    while True:
        try:
            asked = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer
        ready = yield asked
        if not ready and time.monotonic() > until:
            raise _NoAnswer(f"the database has not answered for {ANSWER_SECONDS:g} s")


def session(address: PostgresAddress) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a session in which each statement is a transaction. Raises: psycopg.Error."""
    settings: dict[str, Any] = {**_SETTINGS, **psycopg.conninfo.conninfo_to_dict(address.url)}
    raw = _Session.connect(**settings, autocommit=True)
    raw.adapters.register_dumper(bool, _Flag)
    raw.adapters.register_dumper(str, _TextDumper)
    raw.adapters.register_loader("text", _TextAsWritten)
    return raw


class PostgresConnection:
    """A `Connection` to PostgreSQL that only reads, opened anew when it is lost."""

    def __init__(self, address: PostgresAddress) -> None:
        """Connect. Raises: psycopg.Error."""
        self.address = address
        self.raw = session(address)
        self._numbers = count(1)
        self._streams = 0
        """That are open."""
        self._begun = False
        """The transaction is theirs."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing comes through it any more."""
        return self.raw.closed or self.raw.broken or self.raw.info.transaction_status is TransactionStatus.UNKNOWN

    def reconnect(self, until: float) -> None:
        """Open it anew, as soon as that can be done. `until`: monotonic seconds. Raises: psycopg.Error."""
        self.raw.close()
        while True:
            try:
                self.raw = session(self.address)
            except psycopg.OperationalError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_BETWEEN_TRIES_SECONDS)
            else:
                return

    def _execute(self, query: str, bindings: Bindings) -> psycopg.Cursor[tuple[Any, ...]]:
        return self.raw.execute(STATEMENTS[query], _by_name(query, bindings))

    def fetch(self, query: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Return all rows that a statement yields."""
        until = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                return self._execute(query, bindings).fetchall()
            except psycopg.OperationalError as error:
                if not self.is_lost:
                    raise told(self.address, error) from error
                with mapped(self.address):
                    self.reconnect(until)
            except (psycopg.Error, UnicodeEncodeError) as error:
                raise told(self.address, error) from error

    def stream(self, query: str, bindings: Bindings = ()) -> Generator[tuple[Any, ...], None, None]:
        """Yield its rows one by one. Raises: LedgerAway: it was lost meanwhile; another call opens it anew."""
        with mapped(self.address):
            self._be_there()
        with mapped(self.address), self._in_transaction(), self.raw.cursor(f"{query}_{next(self._numbers)}") as cursor:
            cursor.execute(STATEMENTS[query], _by_name(query, bindings))
            yield from cursor

    def _be_there(self) -> None:
        """Open it anew if it was lost."""
        if self.is_lost:
            self.reconnect(time.monotonic() + RECONNECT_SECONDS)

    @contextmanager
    def _in_transaction(self) -> Iterator[None]:
        """Stay in a transaction, without which there is no cursor: in one for all that are open, in whatever order."""
        if not self._streams and self.raw.info.transaction_status is TransactionStatus.IDLE:
            self.raw.execute("BEGIN")
            self._begun = True
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams and self._begun:
                self._begun = False
                with suppress(psycopg.Error):  # lost by now
                    self.raw.execute("ROLLBACK")

    def change(self, query: str, rows: Sequence[Bindings]) -> int:  # noqa: ARG002 - as the port has it
        """Refuse: it only reads."""
        raise LedgerError(f"ledger {self.address}: {query} writes; this is a defect worth reporting")

    def close(self) -> None:
        """Let go of the database."""
        with suppress(psycopg.Error):
            self.raw.close()


class _Redo(Exception):
    """A part was refused: do it again, each part so that it can be taken back alone."""


class PostgresWriter(PostgresConnection):
    """A `WritingConnection` to PostgreSQL. Its `fetch` is a part of a transaction, so it is not repeated alone."""

    def __init__(self, address: PostgresAddress) -> None:
        """Connect. Raises: psycopg.Error."""
        super().__init__(address)
        self._name = secrets.token_hex(8)
        """Of its row in `writers`."""
        self._has_row = False
        self._marks = False
        """Each part of the transaction begins with a savepoint: costs two calls, and is seldom needed."""

    def _be_there(self) -> None:
        """Do nothing: what comes after it would be no part of the transaction."""

    def fetch(self, query: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Return all rows that a statement yields."""
        return self._execute(query, bindings).fetchall()

    def change(self, query: str, rows: Sequence[Bindings]) -> int:
        """Run it once for each of some bindings; return how many rows it changed in all."""
        if not rows:
            return 0
        with self.raw.cursor() as cursor:
            if len(rows) == 1:
                cursor.execute(STATEMENTS[query], _by_name(query, rows[0]))
            else:
                cursor.executemany(STATEMENTS[query], [_by_name(query, row) for row in rows])
            return max(0, cursor.rowcount)

    def told(self, error: Exception) -> BulkSubmitError:
        """Return what to tell of an error."""
        return told(self.address, error)

    def transaction(self, work: Callable[[], None]) -> None:
        """Do `work`, and make what it writes durable; again, if the database was lost in between."""
        until = time.monotonic() + RECONNECT_SECONDS
        self._marks = False
        while not self._is_done(work, until):
            pass

    def _is_done(self, work: Callable[[], None], until: float) -> bool:
        """Try a transaction; return whether it stands."""
        number = process = 0
        if self.is_lost:
            self.reconnect(until)
        try:
            number, process = self._begin()
            work()
            self.raw.execute("COMMIT", prepare=False)  # one message: psycopg would prepare what it has seen often
        except _Redo:
            self._marks = True
            self._roll_back()
            return False
        except psycopg.Error as error:
            if self.is_lost:
                if number and self._stands(number, process, until):
                    return True
                if time.monotonic() >= until:
                    raise
                return False
            self._roll_back()
            if not isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
                raise
            return False
        except BaseException:
            self._roll_back()
            raise
        return True

    def _roll_back(self) -> None:
        with suppress(psycopg.Error):  # lost by now: then it was rolled back
            self.raw.execute("ROLLBACK")

    def _begin(self) -> tuple[int, int]:
        """Begin a transaction; return its number and that of the database's process: COMMIT may not be answered."""
        cursor = self.raw.execute(_BEGIN.format(name=self._name), prepare=False)
        self._has_row = True
        cursor.nextset()
        ((number, process),) = cursor.fetchall()
        return int(number), int(process)

    def _stands(self, number: int, process: int, until: float) -> bool:
        """Return whether a transaction was committed whose end was not answered; what still goes on of it is ended.

        `process`: of the database, which worked on it, and may hold what it locked until somebody ends it.
        """
        while True:
            with suppress(psycopg.OperationalError):  # lost once more: `reconnect` raises when it is too late
                self.reconnect(until)
                self.raw.execute(_END_OLD, {"process": process, "number": number})
                try:
                    ((status,),) = self.raw.execute(_STATUS, {"number": number}).fetchall()
                except errors.InvalidParameterValue:  # in the future: a standby took over to which it never came
                    return False
                if status != "in progress":
                    noted = self.raw.execute(_IS_NOTED, {"name": self._name, "number": number}).fetchall()
                    return bool(status == "committed" and noted)
            if time.monotonic() >= until:
                raise LedgerError(f"ledger {self.address}: nobody can say yet whether the last step stands")
            time.sleep(_BETWEEN_TRIES_SECONDS)

    def close(self) -> None:
        """Let go of the database, and take the row away, with those of processes that could not."""
        if self._has_row and not self.is_lost:
            with suppress(psycopg.Error):
                self.raw.execute(_FORGET, {"name": self._name})
        super().close()

    def attempt(self, work: Callable[[], T]) -> T:
        """Do a part of a transaction."""
        if self._marks:
            self.raw.execute("SAVEPOINT operation")
        try:
            result = work()
        except Exception as error:
            if not self.is_refusal(error):
                raise
            if not self._marks:
                raise _Redo from error
            self.raw.execute("ROLLBACK TO operation; RELEASE operation")
            raise
        if self._marks:
            self.raw.execute("RELEASE operation")
        return result

    def is_refusal(self, error: Exception) -> bool:
        """Return whether an error concerns only the part that raised it."""
        if isinstance(error, _Redo):
            return False
        return not isinstance(error, psycopg.Error) or isinstance(error, errors.IntegrityError | errors.DataError)

    def is_passing(self, error: Exception) -> bool:
        """Return whether what failed a transaction says nothing of the next one: each one asks the database anew."""
        return isinstance(error, psycopg.Error)


def _by_name(query: str, bindings: Bindings) -> Mapping[str, Any]:
    if isinstance(bindings, Mapping):
        return bindings
    return dict(zip(_ORDERS[query], bindings, strict=True))


class mapped:  # noqa: N801 - used as a statement
    """Raises errors of the database as LedgerError."""

    def __init__(self, address: PostgresAddress) -> None:
        self.address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.Error | UnicodeEncodeError):
            raise told(self.address, error) from error


def told(address: PostgresAddress, error: Exception) -> BulkSubmitError:
    """Return what to tell of `error`: what happened and what to do. An error of our own tree tells enough itself."""
    if isinstance(error, BulkSubmitError):
        return error
    words = next((words for kind, words in _WORDS.items() if isinstance(error, kind)), "it cannot be used")
    said = " ".join(str(error).split())
    kind = LedgerAway if words == _AWAY else LedgerError
    of_libpq = type(error) in {psycopg.OperationalError, psycopg.ProgrammingError}
    if of_libpq and (refused := [why for sign, why in _REFUSED.items() if sign in said]):
        words, kind = refused[0], LedgerError
    mapped_error = kind(f"ledger {address}: {words} ({type(error).__name__}: {said})")
    mapped_error.__cause__ = error
    return mapped_error


def open_reader(address: PostgresAddress) -> PostgresConnection:
    """Open a ledger that is there, to read beside whoever writes. Raises: LedgerError."""
    with mapped(address):
        return PostgresConnection(address)


def open_writer(address: PostgresAddress, steps: Sequence[str] = STEPS, *, create: bool = True) -> PostgresWriter:
    """Open a ledger, brought to the schema after the last of `steps`; `create`: made, where the database has none.

    Raises:
        LedgerError: it cannot be used, promises too little, or was written by a newer bulksubmit.
        NoLedger: the database has none, and none shall be made.
    """
    with mapped(address):
        writer = PostgresWriter(address)
        try:
            _check_promises(writer)
            _upgrade(writer, steps, create=create)
        except BaseException:
            writer.close()
            raise
    return writer


def _check_promises(connection: PostgresConnection) -> None:
    ((setting,),) = connection.raw.execute("SHOW synchronous_commit").fetchall()
    if setting == "off":
        raise LedgerError(
            f"ledger {connection.address}: synchronous_commit is off, so a step that was answered could be lost "
            "with the power, and its records be created twice. Set it to on for this user or this database"
        )


def _has_ledger(connection: PostgresConnection) -> bool:
    ((there,),) = connection.raw.execute("SELECT TO_REGCLASS('ledger_version') IS NOT NULL").fetchall()
    return bool(there)


def version_of(connection: PostgresConnection) -> int:
    """Return the version of the schema; 0: the database has no ledger."""
    if not _has_ledger(connection):
        return 0
    ((version,),) = connection.raw.execute("SELECT MAX(version) FROM ledger_version").fetchall()
    return int(version)


def _upgrade(writer: PostgresWriter, steps: Sequence[str], *, create: bool) -> None:
    """Take the steps that are missing, all or none. Who may not change tables can work with those that are there."""
    version = version_of(writer)
    if not version and not create:
        raise NoLedger(f"there is no ledger in {writer.address}: check --ledger, or submit a first job")
    _check_version(writer, version, len(steps))
    if version == len(steps):
        return
    with writer.raw.transaction():
        writer.raw.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATING])
        _check_names(writer)
        for step in steps[version_of(writer) :]:
            writer.raw.execute(step)
        writer.raw.execute("DELETE FROM ledger_version")
        writer.raw.execute("INSERT INTO ledger_version VALUES (%s)", [len(steps)])


def _check_names(connection: PostgresConnection) -> None:
    """Refuse a database in which others have tables with names of the ledger's."""
    if _has_ledger(connection):
        return
    wanted = "SELECT tablename FROM pg_tables WHERE schemaname = CURRENT_SCHEMA() AND tablename = ANY(%s) ORDER BY 1"
    if found := [name for (name,) in connection.raw.execute(wanted, [TABLES]).fetchall()]:
        raise LedgerError(
            f"ledger {connection.address}: somebody else has tables there with names of the ledger's "
            f"({', '.join(found)}). Make a database for the ledger alone, or a schema, which the URL names by "
            "?options=-csearch_path%3DSCHEMA"
        )


def _check_version(connection: PostgresConnection, version: int, newest: int) -> None:
    if version > newest:
        raise LedgerError(
            f"ledger {connection.address} was written by a newer bulksubmit: its schema is version {version}, this one "
            f"knows up to {newest}. Update bulksubmit"
        )


class Examined(Struct, frozen=True):
    """What a database says of the ledger in it, to a user."""

    server: str
    """Version of PostgreSQL."""
    user: str
    version: int
    """Of the schema; 0: there is no ledger yet, or the user may not see it."""
    lacking: Sequence[str]
    """Rights that the user lacks, such as `INSERT on jobs`; where there are no tables, the right to make them."""
    ahead_seconds: float
    """By which the clock of the database is ahead of ours."""


def examine(address: PostgresAddress) -> Examined:
    """Look at a ledger in a database; nothing is changed.

    Raises:
        LedgerError: it cannot be reached, promises too little, or was written by a newer bulksubmit; says what to do.
    """
    with mapped(address), closing(PostgresConnection(address)) as connection:
        _check_promises(connection)
        is_there = _has_ledger(connection)
        lacking = [right for (right,) in connection.fetch("lacking_rights", {"tables": TABLES if is_there else []})]
        version = version_of(connection) if f"SELECT on {TABLES[0]}" not in lacking else 0
        _check_version(connection, version, len(STEPS))
        _check_names(connection)
        before = time.time()
        ((now,),) = connection.fetch("store_now", {"store_now": before})
        ahead = float(now) - (before + time.time()) / 2
        info = connection.raw.info
        return Examined(str(info.parameter_status("server_version")), info.user, version, lacking, ahead)
