"""A call that did not succeed -> the error that says so: what was called, what came back, what to do. Pure.

Used by `caller`. It names the call's kind, method, host, port and path, never its query or body, and what the service
says in the body of its answer, short enough for one line. Invariant: nothing leaves without `redact`.

Understood are `{"errors":[{"type","message"}]}` (Sama), `{"message","code","more_info"}` (Seven Bridges and others),
S3's `<Error><Code>…<Message>…`, and the title of a page. Nothing else is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from yarl import URL

from engine.http.classify import Said, Verdict, is_for_size
from engine.http.losses import Lost
from engine.model import errors
from engine.model.settings import json_of
from engine.progress.redaction import foreign_words
from engine.progress.text import size
from engine.services.base import Answer, Call

_REDIRECTION = 3
"""The class of RFC 9110 §15.4."""

_WHAT: dict[type[errors.CallFailed], str] = {
    errors.Refused: "was refused",
    errors.Unauthorized: "was refused, the credentials do not hold. Renew them, then run `bulksubmit resume`",
    errors.WrongAddress: "cannot be made",
    errors.Unavailable: "did not succeed",
    errors.PossiblyApplied: "may or may not have been applied",
    errors.UnexpectedAnswer: "may or may not have been applied, its answer cannot be used",
}


def failure(
    call: Call, verdict: Verdict, answer: Answer | Lost, redact: Callable[[str], str], *, why: str = ""
) -> errors.CallFailed:
    """Return the error for a call that ended so; `why` it is not tried again, where that was a decision."""
    error = verdict.error or errors.UnexpectedAnswer
    said = service_words(answer.body, redact) if isinstance(answer, Answer) else ""  # the reason has it all
    said = said.removeprefix(f"{verdict.status}: ")  # some give the status as the code of what is wrong, too
    if verdict.hint is not None and (said in verdict.reason or (verdict.status or 0) < HTTPStatus.BAD_REQUEST):
        said = ""  # a hint may have the same words, and a success has none of an error
    if said.endswith(_WORDLESS) and verdict.reason != f"status {verdict.status}":
        said = ""  # a hint has found some
    parts = [f"{described(call)} {_WHAT[error]}", verdict.reason + _redirection(answer), said]
    message = ": ".join(part for part in parts if part) + (f" (not tried again: {why})" if why else "")
    status = answer.status if isinstance(answer, Answer) else None
    failed = error(redact(message), call=call.kind, status=status)
    if isinstance(answer, Answer) and verdict.blame is not None:
        failed.code = service_code(answer.body)
        if isinstance(failed, errors.Refused):
            failed.blame = verdict.blame
            failed.too_large = is_for_size(Said(answer.status, code=failed.code))
            if verdict.hint is not None:
                flaws = verdict.hint.flaws.items()
                failed.flaws = {position: foreign_words(flaw, redact) for position, flaw in flaws}
                failed.batch_not_found, failed.exists = verdict.hint.gone, verdict.hint.exists
                failed.task_id = verdict.hint.task_id
    failed.by_proxy = verdict.by_proxy
    failed.timed_out = verdict.timed_out and verdict.lost
    failed.reset = verdict.reset
    return failed


def said_in(answer: Answer, *, own: bool) -> Said:
    """Return what an answer that is no success says; `own`: worded as whoever was called words its errors."""
    return Said(answer.status, own, service_code(answer.body), names_records(answer.body))


def described(call: Call) -> str:
    """Return what people may read of a call."""
    try:
        url = URL(call.url)
    except ValueError:
        return f"{call.kind} ({call.method})"
    return f"{call.kind} ({call.method} {url.host_port_subcomponent or ''}{url.path})"


def _redirection(answer: Answer | Lost) -> str:
    if isinstance(answer, Lost) or answer.status // 100 != _REDIRECTION:
        return ""
    try:
        host = URL(answer.headers.get("Location", "")).host_port_subcomponent
    except ValueError:
        host = None
    return f" (a redirect to {host or 'another path'}, which is not followed; check base_url)"


_MAX_ERRORS = 3
"""Of a list of errors; the first ones tell what is wrong."""
_MAX_BYTES = 65_536
"""Of a body that is looked at: whoever says more than this is not saying what is wrong."""

_WORDLESS = "without words for an error)"

# Neither goes beyond the next `<`, so each letter is looked at once.
_TITLE = re.compile(r"(?i)<title\b[^<>]*>([^<]*)<")
_S3_ELEMENT = re.compile(r"<(Code|Message)>([^<]*)</\1>")


def service_words(body: bytes, redact: Callable[[str], str]) -> str:
    """Return what a service says went wrong, on one line and without secrets; "" if it has no body.

    A body is never quoted: it may hold a presigned URL, or somebody's data. Of one in no known form its kind is named.
    """
    if not body.strip():
        return ""
    text = _beginning(body)
    if said := _from_text(text) or _from_json(json_of(body)):
        return foreign_words(said, redact)
    kind = "a page" if text.lstrip()[:1] == "<" else "JSON" if text.lstrip()[:1] in ("{", "[") else "text"
    return f"({kind} of {size(len(body))} {_WORDLESS}"


def _from_text(text: str) -> str:
    """Return the words for an error in XML or in a page; "" if there are none."""
    # Not an XML parser: two elements are wanted, and entity bombs are not.
    elements = _s3_elements(text)
    title = None if elements or not text.lstrip().startswith("<") else _TITLE.search(text)
    if not elements and title is None:
        return ""
    from html import unescape  # noqa: PLC0415 - 2 ms, and most calls succeed

    if title is not None:
        return unescape(title[1]).strip()
    return ": ".join(unescape(elements[name]) for name in ("Code", "Message") if name in elements)


def _beginning(body: bytes) -> str:
    return body[:_MAX_BYTES].decode("utf-8", "replace")


def _s3_elements(text: str) -> dict[str, str]:
    return dict(_S3_ELEMENT.findall(text)) if text.lstrip().startswith("<") else {}


def service_code(body: bytes) -> str:
    """Return the code that a service gives to what went wrong; "" if it gives none that is short enough for one."""
    text = _beginning(body)
    if text.lstrip().startswith("<"):
        return _code(_s3_elements(text).get("Code"))
    said = json_of(body)
    errors = said.get("errors") if isinstance(said, dict) else None
    error = errors[0] if isinstance(errors, list) and errors else said
    return _code(error.get("type", error.get("code"))) if isinstance(error, dict) else ""


_LONGEST_CODE = 100


def _code(said: Any) -> str:
    code = str(said) if isinstance(said, int | str) else ""
    return code if len(code) <= _LONGEST_CODE else ""


def is_of_a_store(body: bytes) -> bool:
    """Return whether a store says what went wrong: S3's form, which those that stand in for it have as well."""
    return b"<Error>" in body[:_MAX_BYTES] and service_code(body) != ""


_RECORD_KEYS = frozenset(
    {"index", "position", "row", "line", "record", "task", "task_id", "id", "data", "request_data"}
)
"""By which an error names the record that it is about; Sama's callbacks have task_id and request_data."""


def names_records(body: bytes) -> bool:
    """Return whether the body of a refusal says which records are at fault."""
    said = json_of(body)
    lists = [value for value in said.values() if isinstance(value, list)] if isinstance(said, dict) else [said]
    entries = [entry for found in lists if isinstance(found, list) for entry in found if isinstance(entry, dict)]
    return any(not _RECORD_KEYS.isdisjoint(entry) for entry in entries)


def _from_json(said: Any) -> str:
    if not isinstance(said, dict):
        return ""
    errors = said.get("errors")
    if isinstance(errors, dict):  # field → what is wrong with it
        errors = [f"{field}: {_word(words)}" for field, words in errors.items() if _word(words)]
    if isinstance(errors, list) and errors:
        words = [_from_error(error) for error in errors[:_MAX_ERRORS]]
        more = [f"and {len(errors) - _MAX_ERRORS} more"] if len(errors) > _MAX_ERRORS else []
        return "; ".join([*filter(None, words), *more])
    return _from_error(said)


def _from_error(error: Any) -> str:
    if not isinstance(error, dict):
        return _word(error)
    if isinstance(error.get("error"), dict):
        return _from_error(error["error"])
    kind = _word(error.get("type", error.get("code")))
    message = next(filter(None, (_word(error.get(key)) for key in ("message", "error", "detail", "title"))), "")
    more = _word(error.get("more_info"))
    said = f"{kind}: {message}" if kind and message else message
    return f"{said} ({more})" if said and more else said


def _word(said: Any) -> str:
    """Return what stands alone or in a list of its own; "" of anything else, which is no word of people's."""
    if isinstance(said, list) and said:
        said = said[0]
    return str(said) if isinstance(said, str | int | float) and not isinstance(said, bool) else ""
