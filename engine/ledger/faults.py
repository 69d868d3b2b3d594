"""Errors of SQLite and of the file system enter; one LedgerError leaves: what happened and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from engine.model.errors import BulkSubmitError, LedgerError

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


def as_ledger_error(path: Path, error: Exception) -> BulkSubmitError:
    """Return what to tell of `error`; an error of our own tree tells enough itself."""
    if isinstance(error, BulkSubmitError):
        return error
    words = next((words for kind, words in _WORDS.items() if isinstance(error, kind)), "it cannot be used")
    mapped = LedgerError(f"ledger {path}: {words} ({type(error).__name__}: {error})")
    mapped.__cause__ = error
    return mapped


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the file system as LedgerError."""
    try:
        yield
    except (apsw.Error, UnicodeEncodeError, OSError) as error:
        raise as_ledger_error(path, error) from error
