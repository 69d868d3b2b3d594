"""The path of a ledger enters; connections to it leave: one that writes, at this version's schema, and one that reads.

Settings of https://sqlite.org/pragma.html:

- WAL: the reader and the writer do not wait for each other, and a commit is one append.
- synchronous=FULL: a commit has reached the disk when it returns; NORMAL would lose the last ones with the power.
- a busy timeout, because another job in another process may be writing to the same ledger.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import apsw

from engine.ledger.files import make_private_file, make_private_folder
from engine.ledger.locks import in_turn
from engine.ledger.queries import QUERIES, STEPS
from engine.model.errors import LedgerError

APPLICATION_ID = 0x62756C6B
"""As schema.sql sets it."""
NEWEST_VERSION = STEPS[-1].version


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a ledger."""

    path: Path
    busy_seconds: float
    """Wait for a process that holds it."""
    vfs: str | None
    """Name of a file system registered with apsw; None takes SQLite's own."""

    def connect(self, flags: int) -> apsw.Connection:
        """Return a connection."""
        connection = apsw.Connection(str(self.path), flags, self.vfs)
        connection.set_busy_timeout(round(self.busy_seconds * 1000))
        return connection


def open_writer(opening: Opening) -> apsw.Connection:
    """Open a ledger, created if there is none, brought to the newest schema if it is older.

    Raises:
        LedgerError: it belongs to another program, or to a newer bulksubmit.
        apsw.Error, OSError: it cannot be opened.
    """
    path = opening.path
    make_private_folder(path.parent)
    make_private_file(path)
    with ExitStack() as undo:
        connection = opening.connect(apsw.SQLITE_OPEN_READWRITE)
        undo.callback(connection.close)
        _check_version(path, connection)
        with _turn_to_upgrade(path, connection):
            connection.execute(QUERIES["settings"]).fetchall()
            _upgrade(connection)
        undo.pop_all()
    return connection


def open_reader(opening: Opening) -> apsw.Connection:
    """Open a ledger that a writer of this process holds open, for reading only."""
    return opening.connect(apsw.SQLITE_OPEN_READONLY)


def _version(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def _check_version(path: Path, connection: apsw.Connection) -> None:
    """Refuse a file that is not ours before anything in it is changed."""
    tables = connection.execute(QUERIES["count_tables"]).get
    if tables and connection.pragma("application_id") != APPLICATION_ID:
        raise LedgerError(f"{path} belongs to another program. Name another file with --ledger.")
    if _version(connection) > NEWEST_VERSION:
        raise LedgerError(
            f"ledger {path} was written by a newer bulksubmit: its schema is version {_version(connection)}, this one "
            f"knows up to {NEWEST_VERSION}. Update bulksubmit, or name another file with --ledger."
        )


def _turn_to_upgrade(path: Path, connection: apsw.Connection) -> AbstractContextManager[None]:
    """Let one process at a time make or upgrade the file.

    Of two that switch a new file to WAL at once, SQLite refuses one without regard to its busy timeout.
    """
    if _version(connection) == NEWEST_VERSION:
        return nullcontext()
    return in_turn(path.with_name(f"{path.name}.lock"))


def _upgrade(connection: apsw.Connection) -> None:
    """Take the steps that are missing, all or none; the version is read again since another process may be quicker."""
    if _version(connection) == NEWEST_VERSION:
        return
    connection.execute(QUERIES["begin"])
    for step in STEPS[_version(connection) :]:
        connection.execute(step.sql)
        connection.pragma("user_version", step.version)
    connection.execute(QUERIES["commit"])
