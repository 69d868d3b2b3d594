"""How a request ended -> what that says about its effect, and what to do next. Pure.

A request has three outcomes, not two: applied, not applied, *possibly applied*. Whoever repeats a call of the third
kind may create everything twice, so where there is doubt the answer here is "possibly": exactness beats speed. The
doubtful ones, and why they are not taken for a plain no:

- 503: Heroku's router says 503 (H12) when it stops waiting for an application that works on, and Varnish's built-in
  configuration adds `Retry-After: 5` to the 503 for a backend it lost. So not even with `Retry-After` it proves a no.
- 408: by RFC 9110 the request was not received in full, but Azure Cosmos DB says it of writes that may have happened.
- 302 and 303: the usual answer to a form that *was* processed (post, redirect, get).
- 500, 502, 504 and any other 5xx except 501 and 505: something broke, and nobody knows at which step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus

import orjson


class Effect(Enum):
    """What a request did at the service."""

    APPLIED = auto()
    NOT_APPLIED = auto()
    POSSIBLY_APPLIED = auto()


class Advice(Enum):
    """What to do about it."""

    ACCEPT = auto()
    REPEAT = auto()
    """Make the same call again, later."""
    REFUSED = auto()
    """Do not: it would be declined again."""
    UNAUTHORIZED = auto()
    """Do not: the credentials do not hold."""
    STOP = auto()
    """Do not: something between us and the service must be mended by a person."""
    ASK = auto()
    """Do not repeat: find out first what happened."""
    DISTRUST = auto()
    """Do not repeat: the answer cannot be understood, and the next one will look the same."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a request ended."""

    effect: Effect
    advice: Advice
    reason: str
    timed_out: bool = False


class Loss(Enum):
    """How a request ended without an answer: (what to say, certainly not sent)."""

    UNREACHABLE = ("no connection", True)
    UNTRUSTED = ("the TLS certificate is not trusted", True)
    FORBIDDEN = ("the address is not one that may be sent to", True)
    CONNECT_TIMEOUT = ("no connection in time", True)
    ANSWER_TIMEOUT = ("no answer in time", False)
    CUT = ("the connection was lost before the answer was complete", False)
    GARBLED = ("the answer is not HTTP", False)
    TOO_LARGE = ("the answer is larger than allowed", False)

    def __init__(self, words: str, unsent: bool) -> None:  # noqa: FBT001 -- an enum's value can be unpacked only so
        self.words = words
        self.unsent = unsent


_DECLINED_UNREAD = frozenset({HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""RFC 8470 §5.2 and RFC 6585 §4: welcome later."""
_CREDENTIALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_MAY_FOLLOW_SUCCESS = frozenset({HTTPStatus.FOUND, HTTPStatus.SEE_OTHER})
_CANNOT_DO_THAT = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})
"""RFC 9110 §15.6.2 and §15.6.6: at all, so it has not."""
_CONTENT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_RECORD_KEYS = frozenset(
    {"index", "position", "row", "line", "record", "task", "task_id", "id", "data", "request_data"}
)
"""By which an error names the record that it is about; Sama's callbacks have task_id and request_data."""
_STATUSES = 64
"""Verdicts kept: where each record is a call, all of them end alike."""
_TIME_OUTS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT})


@lru_cache(_STATUSES)
def judge_status(status: int, *, repeatable: bool, authenticated: bool) -> Verdict:
    """Classify an answer by its status."""
    reason = f"status {status}"
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict(Effect.APPLIED, Advice.ACCEPT, reason)
    if status in _DECLINED_UNREAD:
        return Verdict(Effect.NOT_APPLIED, Advice.REPEAT, reason)
    if status in _CREDENTIALS and authenticated:
        # Without credentials of ours, on a presigned URL, it means that the URL has expired, and a new one helps.
        return Verdict(Effect.NOT_APPLIED, Advice.UNAUTHORIZED, reason)
    doubtful = status in _MAY_FOLLOW_SUCCESS and not repeatable
    definite = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.INTERNAL_SERVER_ERROR or status in _CANNOT_DO_THAT
    if definite and not doubtful and status != HTTPStatus.REQUEST_TIMEOUT:
        return Verdict(Effect.NOT_APPLIED, Advice.REFUSED, reason)
    return _possibly(reason, repeatable=repeatable, timed_out=status in _TIME_OUTS)


def refused_as_a_whole(status: int, body: bytes) -> bool:
    """Tell whether a refusal may be for some of the records that the call carried, without a word on which.

    Where it names them, others may have been taken: nothing is sent again then.
    """
    return refused_for_size(status, body) or (status in _CONTENT and not _names_records(body))


def refused_for_size(status: int, body: bytes) -> bool:
    """Tell whether a refusal is for the length of what the call carried; S3 says so with a 400."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return True
    return status == HTTPStatus.BAD_REQUEST and b"<Code>EntityTooLarge</Code>" in body


def _names_records(body: bytes) -> bool:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    lists = [value for value in said.values() if isinstance(value, list)] if isinstance(said, dict) else [said]
    entries = [entry for found in lists if isinstance(found, list) for entry in found if isinstance(entry, dict)]
    return any(not _RECORD_KEYS.isdisjoint(entry) for entry in entries)


def judge_loss(loss: Loss, *, repeatable: bool) -> Verdict:
    """Classify a request that got no answer."""
    if loss in (Loss.UNTRUSTED, Loss.FORBIDDEN):
        return Verdict(Effect.NOT_APPLIED, Advice.STOP, loss.words)
    if loss.unsent:
        return Verdict(Effect.NOT_APPLIED, Advice.REPEAT, loss.words, timed_out=loss is Loss.CONNECT_TIMEOUT)
    if loss is Loss.TOO_LARGE or (loss is Loss.GARBLED and not repeatable):
        return Verdict(Effect.POSSIBLY_APPLIED, Advice.DISTRUST, loss.words)
    return _possibly(loss.words, repeatable=repeatable, timed_out=loss is Loss.ANSWER_TIMEOUT)


def _possibly(reason: str, *, repeatable: bool, timed_out: bool) -> Verdict:
    return Verdict(Effect.POSSIBLY_APPLIED, Advice.REPEAT if repeatable else Advice.ASK, reason, timed_out=timed_out)
