"""The SQLite file of a ledger: its statements, its schema, connections to it, and what its errors mean.

Called by sqlite.py and writer.py. A file is used only if it is a ledger, at the schema of this version.

Settings of a connection that writes (https://sqlite.org/pragma.html):

- WAL: the reader and the writer do not wait for each other, and a commit is one append.
- synchronous=FULL: a commit has reached the disk when it returns; NORMAL would lose the last ones with the power.
- a busy timeout, because another job in another process may be writing to the same ledger.

What is newest stands in the WAL beside the file, and whoever copies or moves the file alone leaves it behind. Nobody
would see it: what is in the file is whole, and old. So the file says itself that it is not all: its version is written
with LEFT_BEHIND and folded into the file, then written without it, which stands in the WAL only. A file that reads
LEFT_BEHIND, with no WAL beside it that goes on from it, was parted from it; that some file has the WAL's name says
nothing. Once the WAL is folded in, by whomever, the file is all.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw

from engine.files import (
    explains_itself,
    make_private_folder,
    private,
    refuse_foreign,
    refuse_foreign_link,
    sync_folder,
)
from engine.ledger.connection import Bindings
from engine.ledger.files import in_turn, make_ledger_file
from engine.ledger.statements import QUERIES, STEPS
from engine.model.errors import BulkSubmitError, LedgerError

T = TypeVar("T")

APPLICATION_ID = 0x62756C6B
"""As schema.sql sets it."""
LEFT_BEHIND = 1 << 16
"""Added to the version in a file that is not all; an older bulksubmit takes that for a newer one's, and stops."""
_READER_SECONDS = 10.0
"""A reader waits only while the WAL is begun anew."""
WAL_PAGES = 1_000
"""4 MB, as SQLite's own https://sqlite.org/pragma.html#pragma_wal_autocheckpoint."""
_RESUME = "then `bulksubmit resume` goes on where the job stopped"
_WORDS: dict[type[Exception], str] = {
    apsw.FullError: f"the disk is full; make room, {_RESUME}",
    apsw.IOError: f"the disk could not be written or read; check it, {_RESUME}",
    apsw.NotADBError: "this is not a ledger (or it is damaged); name another file, or put a backup back",
    apsw.CorruptError: "the file is damaged; put a backup back, or save what the sqlite3 shell's `.recover` finds",
    apsw.ReadOnlyError: "the file cannot be written; check the permissions of the file and of its folder",
    apsw.PermissionsError: "the file cannot be used; check the permissions of the file and of its folder",
    apsw.CantOpenError: "the file cannot be opened; check the path and its permissions",
    apsw.BusyError: "another program holds it for writing; end that program, or try again later",
    apsw.LockedError: "another program holds it for writing; end that program, or try again later",
    apsw.ConstraintError: "it already holds something else in this place; this is a defect worth reporting",
    UnicodeEncodeError: "a text is not valid Unicode and cannot be kept",
    TypeError: "a value cannot be kept; this is a defect worth reporting",
    OSError: "the file cannot be opened; check the path and its permissions",
}
"""Looked up in this order; SQLite's result codes: https://sqlite.org/rescode.html"""

_PARTED = (
    "ledger {path} is not whole: its newest steps are in {wal}, which was left where the file was copied or moved "
    "from. Put it beside the file. (`bulksubmit backup` copies a ledger whole, even while a job runs)"
)


def as_ledger_error(path: Path, error: Exception) -> BulkSubmitError:
    """Return what to tell of `error`: what happened and what to do. An error of our own tree tells enough itself."""
    if isinstance(error, BulkSubmitError):
        return error
    words = next((words for kind, words in _WORDS.items() if isinstance(error, kind)), "it cannot be used")
    told = f"{words} ({type(error).__name__}: {error})"
    if isinstance(error, OSError) and explains_itself(error):
        told = str(error.strerror) if error.filename == str(path) else f"{error.filename}: {error.strerror}"
    mapped = LedgerError(f"ledger {path}: {told}")
    mapped.__cause__ = error
    return mapped


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the file system as LedgerError."""
    try:
        yield
    except (apsw.Error, UnicodeEncodeError, OSError) as error:
        raise as_ledger_error(path, error) from error


class SqliteConnection:
    """A `Connection` to a SQLite file."""

    def __init__(self, path: Path, raw: apsw.Connection) -> None:
        """`path`: as messages name the file."""
        self._path = path
        self.raw = raw

    def fetch(self, query: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Return all rows that a statement yields."""
        return self.raw.execute(QUERIES[query], bindings).fetchall()

    def stream(self, query: str, bindings: Bindings = ()) -> Generator[tuple[Any, ...], None, None]:
        """Yield its rows one by one."""
        with closing(self.raw.execute(QUERIES[query], bindings)) as found:
            yield from found

    def change(self, query: str, rows: Sequence[Bindings]) -> int:
        """Run it once for each of some bindings; return how many rows it changed in all."""
        before = self.raw.total_changes()
        self.raw.executemany(QUERIES[query], rows)
        return self.raw.total_changes() - before

    def close(self) -> None:
        """Let go of the file."""
        with suppress(apsw.Error):  # a dead disk: all that is committed is in the WAL, where the next process finds it
            self.raw.close()


class SqliteReader(SqliteConnection):
    """One that only reads."""

    def fetch(self, query: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Return all rows that a statement yields."""
        with mapped_errors(self._path):
            return super().fetch(query, bindings)

    def stream(self, query: str, bindings: Bindings = ()) -> Generator[tuple[Any, ...], None, None]:
        """Yield its rows one by one."""
        with mapped_errors(self._path):
            yield from super().stream(query, bindings)

    def free_bytes(self) -> int:
        """Return how much of the file is empty."""
        with mapped_errors(self._path):
            return int(self.raw.pragma("freelist_count")) * int(self.raw.pragma("page_size"))


class SqliteWriter(SqliteConnection):
    """A `WritingConnection` to a SQLite file. It keeps the WAL short, and the file marked."""

    def __init__(self, path: Path, raw: apsw.Connection) -> None:
        """`path`: as messages name the file."""
        super().__init__(path, raw)
        self._wal_pages = self._mark_at = 0
        raw.set_wal_hook(self._note_wal)  # SQLite itself folds nothing in from now on: the mark must be renewed

    def told(self, error: Exception) -> BulkSubmitError:
        """Return what to tell of an error."""
        return as_ledger_error(self._path, error)

    def transaction(self, work: Callable[[], None]) -> None:
        """Do `work`, and make what it writes durable."""
        try:
            self._keep_marked()
            self.raw.execute(QUERIES["begin"])
            work()
            self.raw.execute(QUERIES["commit"])
        except BaseException:
            with suppress(apsw.Error):  # some errors have rolled back already, and a dead disk may not let us
                self.raw.execute(QUERIES["roll_back"])
            raise

    def attempt(self, work: Callable[[], T]) -> T:
        """Do a part of a transaction.

        apsw's own `with connection` would hide a full disk: SQLite has then rolled back everything, the savepoint too.
        """
        self.raw.execute(QUERIES["set_mark"])
        try:
            result = work()
        except Exception as error:
            if self.is_refusal(error):
                self.raw.execute(QUERIES["return_to_mark"])
                self.raw.execute(QUERIES["remove_mark"])
            raise
        self.raw.execute(QUERIES["remove_mark"])
        return result

    def is_refusal(self, error: Exception) -> bool:
        """Return whether an error concerns only the part that raised it."""
        return not isinstance(error, apsw.Error) or isinstance(error, apsw.ConstraintError)

    def is_passing(self, error: Exception) -> bool:
        """Return whether what failed a transaction says nothing of the next one."""
        return isinstance(error, apsw.BusyError)

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _keep_marked(self) -> None:
        """Fold the WAL into the file before it grows long, and have the file say that it is not all."""
        if self._wal_pages >= self._mark_at:
            mark_left_behind(self.raw)
            self._mark_at = self._wal_pages + WAL_PAGES


def open_connections(path: Path, busy_seconds: float, vfs: str | None) -> tuple[Path, SqliteWriter, SqliteReader]:
    """Return where the ledger is, a connection that writes and one that reads; it is created if there is none.

    A lock must be one file, whichever link leads to the ledger, so links are followed; errors name what was asked for.
    `busy_seconds` is how long a process may hold it that is waited for; `vfs` names a file system registered with apsw.

    Raises:
        LedgerError: it cannot be opened, belongs to another program, or to a newer bulksubmit.
    """
    with mapped_errors(path), ExitStack() as undo:
        refuse_foreign_link(path)
        real = path.resolve()
        writer = undo.enter_context(closing(open_writer(real, busy_seconds, vfs)))
        reader = _connect(real, apsw.SQLITE_OPEN_READONLY, busy_seconds, vfs)
        undo.pop_all()
    return real, SqliteWriter(real, writer), SqliteReader(real, reader)


def open_writer(
    path: Path, busy_seconds: float = 0, vfs: str | None = None, steps: Sequence[str] = STEPS
) -> apsw.Connection:
    """Open a ledger, created if there is none, brought to the schema after the last of `steps` if it is older.

    Raises:
        LedgerError: it belongs to another program, or to a newer bulksubmit.
        apsw.Error, OSError: it cannot be opened.
    """
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and not path.exists():  # SQLite would take it for a rest, and remove it
        raise LedgerError(f"ledger {path} is missing, and its newest steps are in {wal}; put the file back beside it")
    make_private_folder(path.parent)
    make_ledger_file(path)
    for _ in range(2):  # another process may be marking the file just now
        with ExitStack() as undo:
            connection = undo.enter_context(closing(_connect(path, apsw.SQLITE_OPEN_READWRITE, busy_seconds, vfs)))
            marked = _version(path, connection, len(steps)) & LEFT_BEHIND
            if marked and not _wal_goes_on(connection):
                if wal.exists() and wal.stat().st_size:  # whoever it belongs to: SQLite would remove it
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                continue
            if marked:  # the disk may fail once more: the file must not be left alone while it says so
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            _prepare(path, connection, steps)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            undo.pop_all()
            return connection
    raise LedgerError(_PARTED.format(path=path, wal=wal.name))


def _wal_goes_on(connection: apsw.Connection) -> bool:
    """Return whether the WAL goes on from a file that reads LEFT_BEHIND: a process ended while it marked the file.

    A file that was parted may have a WAL all the same: an empty one, one of another file, or one that another program
    has begun. Ours is the one that the first page of the file was folded in from, or one that was begun anew once all
    was folded in: its header counts that, and its first salt is one more than before. What the power cut short in just
    that moment looks like a damaged one, and is taken for ours.
    https://sqlite.org/fileformat2.html#the_write_ahead_log
    """
    if not int.from_bytes(connection.read("main", 0, 60, 4)[1]) & LEFT_BEHIND:  # so the mark itself is in the WAL
        return True
    if connection.pragma("journal_mode") != "wal":
        return False
    begun_anew, salt = struct.unpack(">II", connection.read("main", 1, 12, 8)[1])
    page_size = int(connection.pragma("page_size"))
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)  # only asks how many are whole
    if not frames:  # the first one was being written over: header, salt and page may be new or old, each for itself
        there, frame_salt = connection.read("main", 1, 40, 4)
        return there and (int.from_bytes(frame_salt) - salt) % 2**32 in {0, 1, 2**32 - 1}
    if begun_anew:
        return True
    first_page = connection.read("main", 0, 0, page_size)
    starts = range(32, 32 + frames * (24 + page_size), 24 + page_size)
    return any(connection.read("main", 1, start + 24, page_size) == first_page for start in starts)


def _prepare(path: Path, connection: apsw.Connection, steps: Sequence[str]) -> None:
    with ExitStack() as alone:
        if _version(path, connection, len(steps)) % LEFT_BEHIND < len(steps):
            # One process at a time makes or upgrades the file: of two that switch a new one to WAL at once, SQLite
            # refuses one without regard to its busy timeout.
            alone.enter_context(in_turn(path.with_name(f"{path.name}.lock")))
        connection.execute(QUERIES["settings"]).fetchall()
        _upgrade(connection, steps)


def mark_left_behind(connection: apsw.Connection) -> None:
    """Have the file say that it is not all, for what is written from now on stands beside it; the head says how."""
    # Whatever fails in between: the file must not be left alone while it says so.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    _write_version(connection, LEFT_BEHIND)
    with suppress(apsw.BusyError):  # another process folds the WAL in just now; ours is tried again with the next one
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    _write_version(connection, 0)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def _write_version(connection: apsw.Connection, mark: int) -> None:
    connection.execute(QUERIES["begin"])
    connection.pragma("user_version", int(connection.pragma("user_version")) % LEFT_BEHIND + mark)
    connection.execute(QUERIES["commit"])


def open_reader(path: Path) -> SqliteReader:
    """Open a ledger that is there, to read beside whoever writes. Raises: LedgerError."""
    with mapped_errors(path):
        reader = SqliteReader(path, _connect(path, apsw.SQLITE_OPEN_READONLY, _READER_SECONDS, None))
        # Pages come from the system's memory, which all processes share.
        reader.raw.execute(QUERIES["read_mapped"]).fetchall()
    return reader


def _connect(path: Path, flags: int, busy_seconds: float, vfs: str | None) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags, vfs)
    connection.set_busy_timeout(round(busy_seconds * 1000))
    return connection


def _version(path: Path, connection: apsw.Connection, newest: int) -> int:
    """Return the version of a file; refuse one that is not ours, before anything in it is changed."""
    if connection.execute(QUERIES["count_tables"]).get and connection.pragma("application_id") != APPLICATION_ID:
        raise LedgerError(f"{path} belongs to another program. Name another file with --ledger.")
    version = int(connection.pragma("user_version"))
    if version % LEFT_BEHIND > newest:
        raise LedgerError(
            f"ledger {path} was written by a newer bulksubmit: its schema is version {version}, this one knows up to "
            f"{newest}. Update bulksubmit, or name another file with --ledger."
        )
    return version


def _upgrade(connection: apsw.Connection, steps: Sequence[str]) -> None:
    """Take the steps that are missing, all or none; the version is read again since another process may be quicker."""
    version = int(connection.pragma("user_version"))
    missing = steps[version % LEFT_BEHIND :]
    if missing or version >= LEFT_BEHIND:  # a process ended while it marked the file
        connection.execute(QUERIES["begin"])
        for step in missing:
            connection.execute(step)
        connection.pragma("user_version", len(steps))
        connection.execute(QUERIES["commit"])


def copy_ledger(connection: apsw.Connection, to: Path) -> None:
    """Copy all that a connection sees into a new file, which is there once it is whole.

    Raises:
        LedgerError: there is such a file, or it cannot be written.
    """
    growing = to.with_name(f"{to.name}.{os.getpid()}.partial")
    with mapped_errors(to), ExitStack() as undo:
        if os.path.lexists(to):
            raise LedgerError(f"{to} exists, and a backup writes over nothing; name another file")
        make_private_folder(to.parent)
        os.close(private(growing, os.O_CREAT | os.O_EXCL | os.O_RDWR))
        undo.callback(growing.unlink, missing_ok=True)
        with closing(_connect(growing, apsw.SQLITE_OPEN_READWRITE, 0, None)) as copy:
            with copy.backup("main", connection, "main") as pages:
                pages.step()  # all at once: what others write meanwhile is no part of it
            copy.pragma("journal_mode", "delete")  # one file, with nothing beside it
            copy.pragma("user_version", int(copy.pragma("user_version")) % LEFT_BEHIND)
        os.link(growing, to)  # unlike a renaming, not over a file that has come in between
        sync_folder(to.parent)


def examine(path: Path, busy_seconds: float = 1.0) -> tuple[int, int]:
    """Return the version of a ledger that is there, and the one that this bulksubmit writes; nothing is changed.

    Raises:
        LedgerError: it is no ledger, is not whole, or cannot be written; says what to do.
    """
    with mapped_errors(path):
        refuse_foreign_link(path)
        real = path.resolve()
        refuse_foreign(real)
        with closing(_connect(real, apsw.SQLITE_OPEN_READWRITE, busy_seconds, None)) as connection:
            version = _version(path, connection, len(STEPS))
            if version & LEFT_BEHIND:  # what stands beside it is left as it is
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                if not _wal_goes_on(connection):
                    raise LedgerError(_PARTED.format(path=path, wal=f"{real.name}-wal"))
            if not os.access(real.parent, os.W_OK):
                raise apsw.ReadOnlyError(str(real.parent))
            connection.execute(QUERIES["begin"])  # what cannot be written, or is held, says so here
            connection.execute(QUERIES["roll_back"])
    return version % LEFT_BEHIND, len(STEPS)
