"""A call that did not succeed -> the error that says so: what was called, what came back, what to do. Pure.

Always the call's kind, method, host, port and path, never its query or body; and nothing leaves without `redact`.
"""

from __future__ import annotations

from collections.abc import Callable

from yarl import URL

from engine.model.errors import (
    CallFailed,
    PossiblyApplied,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    WrongAddress,
)
from engine.policy.blame import Said, is_for_size, names_records
from engine.policy.outcome import Advice, Effect, Verdict
from engine.ports import Answer, Call
from engine.transport.wire import Lost
from engine.transport.words import service_code, service_words

_REDIRECTION = 3
"""The class of RFC 9110 §15.4."""

_ERRORS: dict[Advice, tuple[type[CallFailed], str]] = {
    Advice.REFUSED: (Refused, "was refused"),
    Advice.UNAUTHORIZED: (Unauthorized, "was refused, the credentials do not hold. Renew them, then resume"),
    Advice.STOP: (WrongAddress, "cannot be made"),
    Advice.REPEAT: (Unavailable, "did not succeed"),
    Advice.ASK: (PossiblyApplied, "may or may not have been applied"),
    Advice.DISTRUST: (UnexpectedAnswer, "may or may not have been applied, its answer cannot be used"),
}


def failure(
    call: Call, verdict: Verdict, answer: Answer | Lost, redact: Callable[[str], str], *, why: str = ""
) -> CallFailed:
    """Return the error for a call that ended so; `why` it is not tried again, where that was a decision."""
    kind, what = _ERRORS[verdict.advice]
    said = service_words(answer.body, redact) if isinstance(answer, Answer) else answer.detail
    parts = [f"{described(call)} {what}", verdict.reason + _redirection(answer), said]
    message = ": ".join(part for part in parts if part) + (f" (not tried again: {why})" if why else "")
    status = answer.status if isinstance(answer, Answer) else None
    failed = kind(redact(message), call=call.kind, status=status)
    if isinstance(failed, Refused) and isinstance(answer, Answer) and verdict.blame is not None:
        failed.blame, failed.code = verdict.blame, service_code(answer.body)
        failed.too_large = is_for_size(Said(answer.status, code=failed.code))
    failed.stranger = verdict.stranger
    failed.timed_out = verdict.timed_out and verdict.effect is Effect.POSSIBLY_APPLIED
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
