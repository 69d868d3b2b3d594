"""Whose fault a refusal is: a table of calls and answers. Pure.

A call that carries no record decides no record's fate, and a store that keeps bytes unread decides none either. So a
record fails only by an answer to a call that carried it, or released it, worded as the service words its errors. What
is worded otherwise comes from a proxy, a firewall's included: that is no fact about a record before a call without the
record has succeeded.

`whose_fault` returns the first row that fits, and the last one fits always.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from engine.model.error_hints import Blame, Carries


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says that is no success."""

    status: int
    own: bool = True
    """Worded as whoever was called words its errors."""
    code: str = ""
    """Its own code for what went wrong."""
    names_records: bool = False
    """It says which records are at fault: others may have been taken."""


@dataclass(frozen=True, slots=True)
class BlameRow:
    """One row of the table. A column that is left out fits everything."""

    blame: Blame
    reason: str
    carries: Collection[Carries] = ()
    statuses: Collection[int] = ()
    codes: Collection[str] = ()
    own: bool | None = None
    names_records: bool | None = None

    def fits(self, carries: Carries, said: Said) -> bool:
        """Tell whether it is about a call and an answer like these."""
        words = ((self.carries, carries), (self.statuses, said.status), (self.codes, said.code))
        flags = ((self.own, said.own), (self.names_records, said.names_records))
        return all(not column or value in column for column, value in words) and all(
            wanted is None or wanted == flag for wanted, flag in flags
        )


TOO_LARGE = "EntityTooLarge"
"""S3's word; it says so with a 400."""
STORE_TIME_OUT = "RequestTimeout"
"""S3's word for an upload that did not come in time; likewise."""
STORE_LATER = frozenset({STORE_TIME_OUT, "OperationAborted", "SlowDown", "InternalError", "TemporaryRedirect"})
"""What S3's list of errors says to try again. The last one is a 307, while a new bucket's name spreads."""

_BYTES = (Carries.BYTES,)
_RECORDS = (Carries.RECORDS,)
_RELEASE = (Carries.RELEASE,)
_READ = (Carries.RECORDS, Carries.RELEASE)
_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_CONTENT = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_THERE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)
_SIZE = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE,)

_STORE = (
    BlameRow(Blame.NOT_NOW, "the store asks to try again", _BYTES, codes=STORE_LATER),
    BlameRow(Blame.PAYLOAD, "it is too large for the store", _BYTES, _SIZE),
    BlameRow(Blame.PAYLOAD, "it is too large for the store", _BYTES, codes=(TOO_LARGE,)),
    BlameRow(Blame.URL, "a presigned URL is refused so when it is too old", _BYTES, _KEY),
    # It parses nothing, so it is about the request and never about a record. The next URL may lead elsewhere.
    BlameRow(Blame.URL, "the store does not take it this way", _BYTES, own=True),
    BlameRow(Blame.NOT_NOW, "the store does not speak so", _BYTES),
)
_SERVICE = (
    BlameRow(Blame.PAYLOAD, "it is too large", _READ, _SIZE),
    BlameRow(Blame.KEY, "the credentials do not hold", statuses=(HTTPStatus.UNAUTHORIZED,)),
    BlameRow(Blame.KEY, "the credentials do not hold", statuses=(HTTPStatus.FORBIDDEN,), own=True),
    BlameRow(Blame.SUSPECT, "a proxy answers in its place", _RECORDS, own=False),
    BlameRow(Blame.NOT_NOW, "a proxy answers in its place", own=False),
    BlameRow(Blame.RECORDS, "the service says which", _READ, _CONTENT, names_records=True),
    BlameRow(Blame.PAYLOAD, "the service does not say which", _RECORDS, (*_CONTENT, HTTPStatus.CONFLICT)),
    BlameRow(Blame.PAYLOAD, "the service does not say which", _RELEASE, _CONTENT),
    BlameRow(Blame.RECORDS, "it is about what was brought before", _RELEASE, _THERE),
)

TABLE: tuple[BlameRow, ...] = (
    *_STORE,
    *_SERVICE,
    # No record was carried, or the status is none that speaks of content: unknown project, wrong method, wrong address.
    BlameRow(Blame.JOB, "it concerns no record"),
)
"""Every row, in order."""


def whose_fault(carries: Carries, said: Said) -> Blame:
    """Return whose fault it is that a call was answered so."""
    return next(row.blame for row in TABLE if row.fits(carries, said))


def is_for_size(said: Said) -> bool:
    """Tell whether a refusal is for the length of what the call carried."""
    return said.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or said.code == TOO_LARGE


_RECORD_KEYS = frozenset(
    {"index", "position", "row", "line", "record", "task", "task_id", "id", "data", "request_data"}
)
"""By which an error names the record that it is about; Sama's callbacks have task_id and request_data."""


def names_records(body: bytes) -> bool:
    """Tell whether the body of a refusal says which records are at fault."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    lists = [value for value in said.values() if isinstance(value, list)] if isinstance(said, dict) else [said]
    entries = [entry for found in lists if isinstance(found, list) for entry in found if isinstance(entry, dict)]
    return any(not _RECORD_KEYS.isdisjoint(entry) for entry in entries)
