"""The path of a ledger enters; connections to it leave: one that writes, at this version's schema, and one that reads.

Settings of https://sqlite.org/pragma.html:

- WAL: the reader and the writer do not wait for each other, and a commit is one append.
- synchronous=FULL: a commit has reached the disk when it returns; NORMAL would lose the last ones with the power.
- a busy timeout, because another job in another process may be writing to the same ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import apsw

from engine.ledger.files import make_private_file, make_private_folder
from engine.ledger.locks import in_turn
from engine.ledger.queries import QUERIES, STEPS, SchemaStep
from engine.model.errors import LedgerError

APPLICATION_ID = 0x62756C6B
"""As schema.sql sets it."""


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


def open_writer(opening: Opening, steps: Sequence[SchemaStep] = STEPS) -> apsw.Connection:
    """Open a ledger, created if there is none, brought to the schema of the last of `steps` if it is older.

    Raises:
        LedgerError: it belongs to another program, or to a newer bulksubmit.
        apsw.Error, OSError: it cannot be opened.
    """
    path, newest = opening.path, steps[-1].version
    make_private_folder(path.parent)
    make_private_file(path)
    with ExitStack() as undo:
        connection = opening.connect(apsw.SQLITE_OPEN_READWRITE)
        undo.callback(connection.close)
        _check_version(path, connection, newest)
        # One process at a time makes or upgrades the file: of two that switch a new one to WAL at once, SQLite refuses
        # one without regard to its busy timeout.
        alone = in_turn(path.with_name(f"{path.name}.lock")) if _version(connection) < newest else nullcontext()
        with alone:
            connection.execute(QUERIES["settings"]).fetchall()
            _upgrade(connection, steps)
        undo.pop_all()
    return connection


def open_reader(opening: Opening) -> apsw.Connection:
    """Open a ledger that a writer of this process holds open, for reading only."""
    return opening.connect(apsw.SQLITE_OPEN_READONLY)


def _version(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def _check_version(path: Path, connection: apsw.Connection, newest: int) -> None:
    """Refuse a file that is not ours before anything in it is changed."""
    tables = connection.execute(QUERIES["count_tables"]).get
    if tables and connection.pragma("application_id") != APPLICATION_ID:
        raise LedgerError(f"{path} belongs to another program. Name another file with --ledger.")
    version = _version(connection)
    if version > newest:
        raise LedgerError(
            f"ledger {path} was written by a newer bulksubmit: its schema is version {version}, this one knows up to "
            f"{newest}. Update bulksubmit, or name another file with --ledger."
        )


def _upgrade(connection: apsw.Connection, steps: Sequence[SchemaStep]) -> None:
    """Take the steps that are missing, all or none; the version is read again since another process may be quicker."""
    missing = steps[_version(connection) :]
    if not missing:
        return
    connection.execute(QUERIES["begin"])
    for step in missing:
        connection.execute(step.sql)
        connection.pragma("user_version", step.version)
    connection.execute(QUERIES["commit"])
