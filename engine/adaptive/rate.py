"""Calls and the time -> how long each call has to wait, so that a rate holds and a push-back is obeyed by all. Pure.

GCRA (the leaky bucket as one number, ITU-T I.371): the time at which the next call is due. aiolimiter does the same
with the event loop's clock, so tests could not make time up, and it cannot be told "nobody before T", which is what a
`Retry-After` means to every caller alike.

A service that limits the rate without saying how far (429 and no window in its headers) is found out (`LearnedRate`).

Both are kept as JSON by `adaptive.shared_limits`, which has no infinity: so all times in them are finite, and 0 is
before all of them.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

_STEADY_CALLS = 20
"""Answered since the last cut: the pace then was nearly right, else too high."""
_SLIGHTLY, _FAR = 0.9, 0.7
_CLIMB = 0.1
_CLIMB_CALLS = 50
_CLIMB_SECONDS = 10.0
"""pace = pace after the cut · (1 + 0.1 · (calls / n)²), where n is 50 calls, or the calls of 10 s if those are more.
The square keeps it just below the limit for long, and still finds soon that the limit was raised. So at most one call
in fifty is pushed back, and the pause after it, at least a second, takes at most a tenth of the time."""
_MEMORY_CALLS = 32
_MOMENT_SECONDS = 0.01


class Pacer(Struct):
    """The pace of one or more callers."""

    per_second: float | None = None
    """None: as fast as the callers like, push-backs aside."""
    held_until: float = 0.0
    """A push-back holds everybody so long; whoever has an earlier place books anew."""
    _due: float = 0.0

    def book(self, now: float) -> float:
        """Take the next place in the queue; return the seconds until it is due."""
        interval = 1.0 / self.per_second if self.per_second else 0.0
        due = max(self._due, now, self.held_until)
        self._due = due + interval
        return max(0.0, due - now)

    def book_ahead(self, now: float, most: int, seconds: float) -> tuple[float, int]:
        """Take the next places, `most` at most, that are due within so many seconds; there must be a rate.

        Return the seconds until the first of them is due, and how many they are.
        """
        assert self.per_second is not None  # noqa: S101 - else places have no times
        due = max(self._due, now, self.held_until)
        number = max(0, min(most, math.ceil((now + seconds - due) * self.per_second)))
        self._due = due + number / self.per_second if number else self._due
        return due - now, number

    def hold(self, until: float) -> bool:
        """Let nobody go before `until`; return whether that is news. Never shortens an earlier hold."""
        if until <= self.held_until:
            return False
        self.held_until = until
        self._due = max(self._due, until)
        return True


class LearnedRate(Struct):
    """The pace that a service takes, by its push-backs. Counts in calls and not in seconds, so it fits any limit."""

    slowest: float = 0.05
    """Calls a second that are never too many."""
    per_second: float | None = None
    """None: nothing was pushed back so far."""
    _after_cut: float = 0.0
    _cut_at: float = -1.0
    _answered: int = 0
    _due: float = 0.0
    _booked: list[float] = field(default_factory=list)

    def book(self, now: float) -> float:
        """Take the next place; return the seconds until it is due."""
        due = max(self._due, now)
        if self.per_second is None:
            self._booked.append(due)
            del self._booked[:-_MEMORY_CALLS]
        else:
            self._due = due + 1.0 / self.per_second
        return due - now

    def answered(self, sent_at: float) -> None:
        """Note that a call was let in: the pace may rise a little."""
        if self.per_second is not None and sent_at > self._cut_at:
            self._answered += 1
            climbs = self._answered / max(_CLIMB_CALLS, self._after_cut * _CLIMB_SECONDS)
            self.per_second = self._after_cut * (1 + _CLIMB * climbs**2)

    def pushed_back(self, now: float, sent_at: float, until: float, measured: float | None = None) -> None:
        """Note a 429 that holds all calls `until`: it cuts the pace, once for all calls that were under way.

        `measured`: calls a second of late, where they are not booked here.
        """
        if sent_at <= self._cut_at:
            return
        pace = self.per_second or measured
        if pace is None:
            pace = len(self._booked) / max(now - self._booked[0], _MOMENT_SECONDS) if self._booked else self.slowest
        cut = _SLIGHTLY if self._answered >= _STEADY_CALLS else _FAR
        self.per_second = self._after_cut = max(self.slowest, pace * cut)
        self._cut_at, self._answered, self._due = now, 0, max(self._due, until)
