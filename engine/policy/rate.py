"""Calls and the time -> how long each call has to wait, so that a rate holds and a push-back is obeyed by all. Pure.

GCRA (the leaky bucket as one number, ITU-T I.371): the time at which the next call is due. aiolimiter does the same
with the event loop's clock, so tests could not make time up, and it cannot be told "nobody before T", which is what a
`Retry-After` means to every caller alike.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pacer:
    """The pace of one or more callers."""

    per_second: float | None = None
    """None: as fast as the callers like, push-backs aside."""
    burst: int = 1
    """Calls that may go at once after a rest."""
    _due: float = float("-inf")
    _held_until: float = float("-inf")

    def book(self, now: float) -> float:
        """Take the next place in the queue; return the seconds until it is due."""
        interval = 1.0 / self.per_second if self.per_second else 0.0
        due = max(self._due, now - interval * (self.burst - 1), self._held_until)
        self._due = due + interval
        return max(0.0, due - now)

    def hold(self, until: float) -> bool:
        """Let nobody go before `until`; return whether that is news. Never shortens an earlier hold."""
        if until <= self._held_until:
            return False
        self._held_until = until
        self._due = max(self._due, until)
        return True

    def held_seconds(self, now: float) -> float:
        """Return how long a push-back still holds; whoever wakes within one books anew."""
        return max(0.0, self._held_until - now)
