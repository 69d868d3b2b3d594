"""How a request ended -> what that says about its effect, and whose fault it is. Pure.

A request has three outcomes, not two: applied, not applied, *possibly applied*. Whoever repeats a call of the third
kind may create everything twice, so where there is doubt the answer here is "possibly": exactness beats speed. The
doubtful ones, and why they are not taken for a plain no:

- 503: Heroku's router says 503 (H12) when it stops waiting for an application that works on, and Varnish's built-in
  configuration adds `Retry-After: 5` to the 503 for a backend it lost. So not even with `Retry-After` it proves a no.
- 408: by RFC 9110 the request was not received in full, but Azure Cosmos DB says it of writes that may have happened.
- 302 and 303: the usual answer to a form that *was* processed (post, redirect, get).
- 500, 502, 504 and any other 5xx except 501 and 505: something broke, and nobody knows at which step.

Whose fault a refusal is stands in `BLAME_TABLE`: the first row that fits, and the last one fits always. A call that
carries no record decides no record's fate, and a store that keeps bytes unread decides none either. So a record fails
only by an answer to a call that carried it, or released it, worded as the service words its errors. What is worded
otherwise comes from a proxy, a firewall's included: that is no fact about a record before a call without it has
succeeded. A 301, 307 or 308 says that the same call should go elsewhere, so it concerns the address, and the job.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from http import HTTPStatus

import msgspec
from msgspec.structs import replace

from engine.adaptive.window import Allowance
from engine.model import errors
from engine.model.error_hints import Blame, Carries, Refusal
from engine.model.settings import WindowHeaders


class Verdict(msgspec.Struct, frozen=True):
    """How a request ended."""

    error: type[errors.CallFailed] | None
    """What it comes to if it is not tried again; None: it was done. `Unavailable` alone may be tried again."""
    reason: str
    status: int | None = None
    """None: there was no answer."""
    lost: bool = False
    """It may have been done, and may not."""
    timed_out: bool = False
    reset: bool = False
    """The connection broke under it."""
    misnamed: bool = False
    """Nobody has the name that was called."""
    blame: Blame | None = None
    """Whose fault a definite no is."""
    by_proxy: bool = False
    """A proxy answers: it does not word its errors as whoever was called does."""
    asked_seconds: float | None = None
    """For so long the service asks not to be called."""
    window: Allowance | None = None
    hint: Refusal | None = None
    """What the service's own code makes of it."""


class Loss(Enum):
    """How a request ended without an answer: (what to say, certainly not sent)."""

    UNREACHABLE = ("no connection", True)
    UNKNOWN_HOST = ("no such host", True)
    UNTRUSTED = ("the TLS certificate is not trusted", True)
    FORBIDDEN = ("the address is not one that may be sent to", True)
    TURNED_AWAY = ("the proxy wants a name and password", True)
    CONNECT_TIMEOUT = ("no connection in time", True)
    ANSWER_TIMEOUT = ("no answer in time", False)
    CUT = ("the connection was lost before the answer was complete", False)
    GARBLED = ("the answer cannot be read", False)
    TOO_LARGE = ("the answer is larger than allowed", False)

    def __init__(self, words: str, unsent: bool) -> None:  # noqa: FBT001 -- an enum's value can be unpacked only so
        self.words = words
        self.unsent = unsent


_WELCOME_LATER = frozenset({HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""RFC 8470 §5.2 and RFC 6585 §4: welcome later."""
_MAY_FOLLOW_SUCCESS = frozenset({HTTPStatus.FOUND, HTTPStatus.SEE_OTHER})
_CANNOT_DO_THAT = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})
"""RFC 9110 §15.6.2 and §15.6.6: at all, so it has not."""
LONGEST_ASKED_SECONDS = 86_400.0
"""A service that asks for more than a day has its clock wrong, or means "do not come back"; both end in giving up."""
_CLOCKS_AGREE_SECONDS = 2.0

_EPOCH_FROM, _EPOCH_TO = 1e9, 1e11
"""A number of seconds so large is Unix time: Seven Bridges' `X-RateLimit-Reset` is, and a few write `Retry-After` so.
Nobody asks to wait for 30 years."""
_THOUSAND = 1000.0
"""Times larger is a number of milliseconds: Unix time in them, or what is left in them, for no window lasts a day."""
_STATUSES = 64
"""Verdicts kept: where each record is a call, all of them end alike."""
_TIME_OUTS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT})


@lru_cache(_STATUSES)
def judge_status(status: int, *, repeatable: bool) -> Verdict:
    """Classify an answer by its status."""
    reason = f"status {status}"
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict(None, reason, status)
    if status in _WELCOME_LATER:
        return Verdict(errors.Unavailable, reason, status)
    doubtful = status in _MAY_FOLLOW_SUCCESS and not repeatable
    definite = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.INTERNAL_SERVER_ERROR or status in _CANNOT_DO_THAT
    if definite and not doubtful and status != HTTPStatus.REQUEST_TIMEOUT:
        return Verdict(errors.Refused, reason, status)
    error = errors.Unavailable if repeatable else errors.PossiblyApplied
    return Verdict(error, reason, status, lost=True, timed_out=status in _TIME_OUTS)


def judge_refusal(verdict: Verdict, carries: Carries, said: Said) -> Verdict:
    """Add to the verdict of a definite no whose fault it is, and so what it comes to."""
    blame = whose_fault(carries, said)
    too_slow = carries is Carries.BYTES and said.code == STORE_TIME_OUT
    error = comes_to(blame)
    return replace(verdict, error=error, blame=blame, by_proxy=not said.own, lost=too_slow, timed_out=too_slow)


def comes_to(blame: Blame) -> type[errors.CallFailed]:
    """Return what a definite no comes to, by whose fault it is."""
    return {Blame.KEY: errors.Unauthorized, Blame.NOT_NOW: errors.Unavailable}.get(blame, errors.Refused)


def judge_loss(loss: Loss, words: str = "", *, repeatable: bool) -> Verdict:
    """Classify a request that got no answer; `words` say more than the loss itself."""
    words = words or loss.words
    if loss in (Loss.UNTRUSTED, Loss.FORBIDDEN, Loss.TURNED_AWAY):
        return Verdict(errors.WrongAddress, words)
    if loss.unsent:
        misnamed = loss is Loss.UNKNOWN_HOST
        return Verdict(errors.Unavailable, words, timed_out=loss is Loss.CONNECT_TIMEOUT, misnamed=misnamed)
    if loss is Loss.TOO_LARGE or (loss is Loss.GARBLED and not repeatable):  # the next answer would look the same
        return Verdict(errors.UnexpectedAnswer, words, lost=True)
    error = errors.Unavailable if repeatable else errors.PossiblyApplied
    return Verdict(error, words, lost=True, timed_out=loss is Loss.ANSWER_TIMEOUT, reset=loss is Loss.CUT)


class Said(msgspec.Struct, frozen=True):
    """What an answer says that is no success."""

    status: int
    own: bool = True
    """Worded as whoever was called words its errors."""
    code: str = ""
    """Its own code for what went wrong."""
    names_records: bool = False
    """It says which records are at fault: others may have been taken."""


class BlameRow(msgspec.Struct, frozen=True):
    """One row of the table. A column that is left out fits everything."""

    blame: Blame
    reason: str
    carries: Collection[Carries] = ()
    statuses: Collection[int] = ()
    codes: Collection[str] = ()
    own: bool | None = None
    names_records: bool | None = None

    def fits(self, carries: Carries, said: Said) -> bool:
        """Return whether it is about a call and an answer like these."""
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
_ABOUT_STATE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)
_SIZE = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE,)
_ELSEWHERE = (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
"""RFC 9110 §15.4: the same call should go to another address, whatever it carries. Firewalls lead to their page for a
record that they dislike with a 302 or 303, so these are not among them."""

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
    BlameRow(Blame.JOB, "it is about the address", _READ, _ELSEWHERE),
    BlameRow(Blame.PAYLOAD, "it is too large", _READ, _SIZE),
    BlameRow(Blame.KEY, "the credentials do not hold", statuses=(HTTPStatus.UNAUTHORIZED,)),
    BlameRow(Blame.KEY, "the credentials do not hold", statuses=(HTTPStatus.FORBIDDEN,), own=True),
    BlameRow(Blame.SUSPECT, "a proxy answers in its place", _RECORDS, own=False),
    BlameRow(Blame.NOT_NOW, "a proxy answers in its place", own=False),
    BlameRow(Blame.RECORDS, "the service says which", _READ, _CONTENT, names_records=True),
    BlameRow(Blame.PAYLOAD, "the service does not say which", _RECORDS, (*_CONTENT, HTTPStatus.CONFLICT)),
    BlameRow(Blame.PAYLOAD, "the service does not say which", _RELEASE, _CONTENT),
    BlameRow(Blame.RECORDS, "it is about what was brought before", _RELEASE, _ABOUT_STATE),
)

BLAME_TABLE: tuple[BlameRow, ...] = (
    *_STORE,
    *_SERVICE,
    # No record was carried, or the status is none that speaks of content: unknown project, wrong method, wrong address.
    BlameRow(Blame.JOB, "it concerns no record"),
)
"""Every row, in order."""


def whose_fault(carries: Carries, said: Said) -> Blame:
    """Return whose fault it is that a call was answered so."""
    return next(row.blame for row in BLAME_TABLE if row.fits(carries, said))


def is_for_size(said: Said) -> bool:
    """Return whether a refusal is for the length of what the call carried."""
    return said.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or said.code == TOO_LARGE


USUAL_WINDOW = WindowHeaders()
"""`X-RateLimit-…`: what most services say, if they say anything."""


def allowance(headers: Mapping[str, str], now: float, names: WindowHeaders = USUAL_WINDOW) -> Allowance | None:
    """Read how many requests are left of how many, and until when; None if nothing is said of a window.

    `headers` must be case-insensitive; `now` is Unix seconds by our clock; `names` are those of the headers.
    """
    remaining = _number(headers.get(names.remaining, ""))
    if remaining is None:
        return None
    limit = _number(headers.get(names.limit, str(max(1.0, remaining))))
    if not limit or max(limit, remaining) >= _EPOCH_FROM:  # a limit of 0, or one that is none: no call could ever go
        return None
    ends_in = seconds_until(headers.get(names.reset, ""), server_now(headers, now))
    if ends_in is None:
        return Allowance(int(limit), int(remaining), names.every, fixed=True) if names.every else None
    return Allowance(int(limit), int(remaining), ends_in)


def asked_wait(
    headers: Mapping[str, str], now: float, *, status: int, names: WindowHeaders = USUAL_WINDOW
) -> float | None:
    """Return the seconds for which the service asks not to be called, by its headers; None if it does not.

    `headers` must be case-insensitive; `now` is Unix seconds by our clock, which the answer's own `Date` overrules: a
    date in a header is meant by the clock of whoever wrote it.
    """
    if status < HTTPStatus.BAD_REQUEST:  # there Retry-After says when to ask for the result of this call
        return None
    now = server_now(headers, now)
    # What asks for no wait, or for a time that has gone by, asks for nothing: our own backoff is longer.
    if asked := retry_after(headers.get("Retry-After", ""), now):
        return asked
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return seconds_until(headers.get(names.reset, ""), now) or None
    return None


def server_now(headers: Mapping[str, str], now: float) -> float:
    """Return Unix seconds by the clock of whoever answered: its `Date`, where that differs from ours by more than 2 s.

    A `Date` has whole seconds and may be cached for one; where the clocks agree, ours is the better one.
    """
    date = date_of(headers)
    return now if date is None or abs(date - now) <= _CLOCKS_AGREE_SECONDS else date


def date_of(headers: Mapping[str, str]) -> float | None:
    """Return when an answer was given, by its `Date`: Unix seconds; None if it has none. `headers`: any case."""
    return _http_date(headers.get("Date", ""))


def retry_after(value: str, now: float) -> float | None:
    """Read a `Retry-After` (RFC 9110 §10.2.3: seconds or an HTTP date) as seconds from `now`; None if unreadable.

    Unix time in seconds or milliseconds is known by its size.
    """
    number = _number(value)
    if number is None:
        date = _http_date(value.strip())
        return None if date is None else _clamped(date - now)
    until = _since_epoch(number, now)
    return until if until is not None or number >= _EPOCH_TO else _clamped(number)


def seconds_until(value: str, now: float) -> float | None:
    """Read when a window ends (Unix time, or what is left, in seconds or milliseconds) as seconds from `now`."""
    number = _number(value)
    if number is None:
        return None
    until = _since_epoch(number, now)
    if until is not None or number >= _EPOCH_TO:
        return until
    return _clamped(number if number <= LONGEST_ASKED_SECONDS else number / _THOUSAND)


def _since_epoch(number: float, now: float) -> float | None:
    """Return the seconds from `now` to a time that is written as one number; None if it is too small or too large."""
    for scale in (1.0, _THOUSAND):
        if _EPOCH_FROM <= number / scale < _EPOCH_TO:
            return _clamped(number / scale - now)
    return None


_DECIMAL = re.compile(r"[ \t]*[0-9]{1,20}(\.[0-9]{1,20})?[ \t]*")
"""Some services send decimals. No sign, no exponent, no "inf", and not 400 digits."""


def _number(value: str) -> float | None:
    return float(value) if value and _DECIMAL.fullmatch(value) else None


@lru_cache(maxsize=8)  # all answers of a second have the same, and reading it takes as long as reading the answer
def _http_date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value.strip())
        # A date without a zone is GMT by RFC 9110 §5.6.7.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _clamped(seconds: float) -> float:
    return max(0.0, min(seconds, LONGEST_ASKED_SECONDS)) if math.isfinite(seconds) else LONGEST_ASKED_SECONDS
