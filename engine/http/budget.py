"""What a service's headers say of its request window -> how long the next call has to wait. Pure.

A fixed window (Seven Bridges: 1,000 requests in 5 minutes) is used to its last request and never beyond. The headers of
an answer count what the server had seen by then, so calls without an answer yet are taken off what they say remains;
when the last of them is answered, the number is exact. Headers may lower our allowance within a window, never raise it.
Other programs may use up the same budget; then the headers say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.http.retry import seconds_until, server_now

YIELDED_SHARE = 0.2
"""Most of a window that yielding calls (polls) may take while others want it: the creation of tasks goes first, and a
fifth of the budget at 100 tasks a poll still follows 20 times as many tasks as the rest creates."""

_MOMENT_SECONDS = 0.01
_LATE_SECONDS = 1.0
"""How long a window may last beyond the reset that we read: it is told in whole seconds, rounded either way."""

BUSY_SECONDS = 1.0
"""A call that does not yield speaks for this long: within it, the next one is likely."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an answer says of the window."""

    limit: int
    remaining: int
    ends_in_seconds: float


@dataclass(slots=True)
class WindowBudget:
    """The requests of the current window that are still ours."""

    _limit: int | None = None
    """None: the service has not spoken of a window yet, so there is none."""
    _remaining: int = 0
    _ends_at: float = float("-inf")
    _unanswered: int = 0
    _yielded: int = 0
    _busy_until: float = float("-inf")

    def take(self, now: float, *, yielding: bool) -> float:
        """Take one request out of the window; return 0, or the seconds after which to ask again."""
        if not yielding:
            self._busy_until = now + BUSY_SECONDS
        if self._limit is not None:
            self._turn_over(now, self._limit)
            if self._ends_at == float("inf") and self._unanswered:
                return _MOMENT_SECONDS  # one call opens a window: if the server's clock is behind, it alone is told off
            if self._remaining - self._unanswered <= 0:
                return self._wait(now)
            if yielding and now < self._busy_until and self._yielded >= YIELDED_SHARE * self._limit:
                return min(self._busy_until - now, self._wait(now))
        self._yielded += yielding
        self._unanswered += 1
        return 0.0

    def answered(self, now: float, allowance: Allowance | None, *, refused: bool = False) -> None:
        """Note that a call ended, what its answer said of the window, if anything, and whether it was a 429."""
        self._unanswered -= 1
        if refused and allowance is not None:
            # Also when its reset has come by our clock: that has whole seconds, and clocks differ.
            self._limit, self._remaining = allowance.limit, 0
            self._ends_at = now + max(allowance.ends_in_seconds, _LATE_SECONDS)
            return
        if allowance is None:
            # No answer, no word: the server may have counted it.
            self._remaining = max(0, self._remaining - 1)
            return
        if self._limit is None or now >= self._ends_at:
            self._remaining, self._yielded = allowance.remaining, 0
        self._limit = allowance.limit
        self._remaining = min(self._remaining, allowance.remaining)
        self._ends_at = now + allowance.ends_in_seconds

    def _turn_over(self, now: float, limit: int) -> None:
        """Begin a new window; when it ends is known with its first answer, or, if all are lost, it is over."""
        if now >= self._ends_at or (self._ends_at == float("inf") and self._remaining <= 0):
            self._remaining, self._yielded, self._ends_at = limit, 0, float("inf")

    def _wait(self, now: float) -> float:
        """Until the window ends; where an answer under way may show that something is left, for a moment."""
        return _MOMENT_SECONDS if self._remaining > 0 else max(0.0, self._ends_at - now)


def allowance(headers: Mapping[str, str], now: float) -> Allowance | None:
    """Read `X-RateLimit-Remaining`, `-Reset` and, where it is there, `-Limit`; None if nothing is said of a window.

    `headers` must be case-insensitive; `now` is Unix seconds by our clock.
    """
    said = headers.get("X-RateLimit-Remaining")
    if said is None:
        return None
    try:
        remaining = int(said)
        limit = int(headers.get("X-RateLimit-Limit", max(1, remaining)))
    except ValueError:
        return None
    ends_in = seconds_until(headers.get("X-RateLimit-Reset", ""), server_now(headers, now))
    return None if ends_in is None else Allowance(limit, remaining, ends_in)
