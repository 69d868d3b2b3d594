"""A failed attempt, the time and a random number -> when to try again, with the reason. Pure.

Full jitter (a uniform draw below a doubling bound) spreads callers that failed together; of the usual schemes it costs
the fewest calls ("Exponential Backoff and Jitter", AWS Architecture Blog). What the service asks for in `Retry-After`
is a minimum, never shortened: if it asks for longer than we are willing to wait, we give up at once instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

LONGEST_ASKED_SECONDS = 86_400.0
"""A service that asks for more than a day has its clock wrong, or means "do not come back"; both end in giving up."""
_CLOCKS_AGREE_SECONDS = 2.0

_EPOCH_FROM = 1e9
"""`X-RateLimit-Reset` is Unix time (Seven Bridges) or seconds left (others); nobody's window lasts 30 years."""
_MANTISSA = 60
"""Doublings after which the bound is far past any cap; more would overflow a float."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How patient we are."""

    base_seconds: float = 0.5
    cap_seconds: float = 20.0
    give_up_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again."""

    after_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again."""

    reason: str


Decision: TypeAlias = Retry | GiveUp


def decide(
    rules: RetryRules,
    *,
    attempt: int,
    failing_seconds: float,
    draw: float,
    asked_seconds: float | None = None,
) -> Decision:
    """Decide about a call whose `attempt`-th try failed (from 1) and that has been failing for `failing_seconds`.

    `draw` is uniform in [0, 1); `asked_seconds` is what the service asked for, if it did.
    """
    left = rules.give_up_seconds - failing_seconds
    if left <= 0:
        return GiveUp(f"it has failed for {failing_seconds:.0f} s, and give_up_seconds is {rules.give_up_seconds:g}")
    if asked_seconds is None:
        bound = _bound(rules, attempt - 1)
        return Retry(draw * bound, f"full jitter below {bound:g} s")
    if asked_seconds > left:
        return GiveUp(
            f"the service asks to wait {asked_seconds:.0f} s, which is longer than the {left:.0f} s left of "
            f"give_up_seconds ({rules.give_up_seconds:g})"
        )
    # A little more than asked for, or all who were told the same second come back in it.
    return Retry(asked_seconds + draw * rules.base_seconds, f"the service asked for {asked_seconds:g} s")


def probe_spacing(rules: RetryRules, probes: int, draw: float) -> float:
    """Return the seconds between probe number `probes` (from 0) and the next: half fixed, half drawn, up to the cap.

    Not full jitter: probes go one at a time, so there is nobody to spread, and a draw near zero would hammer.
    """
    bound = _bound(rules, probes)
    return bound * (0.5 + 0.5 * draw)


def _bound(rules: RetryRules, doublings: int) -> float:
    return min(rules.cap_seconds, rules.base_seconds * 2.0 ** min(doublings, _MANTISSA))


def asked_wait(headers: Mapping[str, str], now: float, *, status: int) -> float | None:
    """Return the seconds for which the service asks not to be called, by its headers; None if it does not.

    `headers` must be case-insensitive; `now` is Unix seconds by our clock, which the answer's own `Date` overrules: a
    date in a header is meant by the clock of whoever wrote it.
    """
    if status < HTTPStatus.BAD_REQUEST:  # there Retry-After says when to ask for the result of this call
        return None
    now = server_now(headers, now)
    if (asked := retry_after(headers.get("Retry-After", ""), now)) is not None:
        return asked
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return seconds_until(headers.get("X-RateLimit-Reset", ""), now)
    return None


def server_now(headers: Mapping[str, str], now: float) -> float:
    """Return Unix seconds by the clock of whoever answered: its `Date`, where that differs from ours by more than 2 s.

    A `Date` has whole seconds and may be cached for one; where the clocks agree, ours is the better one.
    """
    date = _http_date(headers.get("Date", ""))
    return now if date is None or abs(date - now) <= _CLOCKS_AGREE_SECONDS else date


def retry_after(value: str, now: float) -> float | None:
    """Read a `Retry-After` (RFC 9110 §10.2.3: seconds or an HTTP date) as seconds from `now`; None if unreadable."""
    value = value.strip()
    if (seconds := _number(value)) is not None:
        return _clamped(seconds)
    date = _http_date(value)
    return None if date is None else _clamped(date - now)


def seconds_until(value: str, now: float) -> float | None:
    """Read an `X-RateLimit-Reset` (Unix seconds, or seconds left) as seconds from `now`; None if unreadable."""
    number = _number(value.strip())
    if number is None:
        return None
    return _clamped(number - now if number >= _EPOCH_FROM else number)


def _number(value: str) -> float | None:
    # Some services send decimals. No sign, no exponent, no "inf".
    return float(value) if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", value) else None


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
