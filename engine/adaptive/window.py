"""The requests of a service's window that are still ours, by what its headers say. Pure: no clock, no I/O.

`http.throttle` takes each call of a lone worker out of it, `adaptive.shared_limits` those of many. It is kept as JSON
there, which has no infinity: so all times in it are finite, and 0 is before all of them.
"""

from __future__ import annotations

from msgspec import Struct

YIELDED_SHARE = 0.2
"""Most of a window that yielding calls (polls) may take while others want it: the creation of tasks goes first, and a
fifth of the budget at 100 tasks a poll still follows 20 times as many tasks as the rest creates."""
BUSY_SECONDS = 1.0
"""A call that does not yield speaks for this long: within it, the next one is likely."""
_MOMENT_SECONDS = 0.01
_LATE_SECONDS = 1.0
"""How long a window may last beyond the reset that we read: it is told in whole seconds, rounded either way."""

_OTHER_SECONDS = 5.0
"""An end that is later by more than this is that of another window. Less may be the time that an answer was under way,
by which the end is too late where it is told as seconds from now."""


class Allowance(Struct, frozen=True):
    """What an answer says of the service's window of requests."""

    limit: int
    remaining: int
    ends_in_seconds: float
    fixed: bool = False
    """The service does not tell when the window ends: it lasts so long at most, from the first answer in it."""


class WindowBudget(Struct):
    """The requests of the current window that are still ours.

    A fixed window (Seven Bridges: 1,000 requests in 5 minutes) is used to its last request and never beyond. The
    headers of an answer count what the server had seen by then, so calls without an answer yet are taken off what they
    say remains; when the last of them is answered, the number is exact. Headers may lower our allowance within a
    window, never raise it. Other programs may use up the same budget; then the headers say so.
    """

    _limit: int | None = None
    """None: the service has not spoken of a window yet, so there is none."""
    _remaining: int = 0
    _ends_at: float = 0.0
    _opening: bool = False
    """It has begun by our clock, and no answer has told yet when it ends."""
    unanswered: int = 0
    """Requests taken that have no answer yet."""
    _yielded: int = 0
    _busy_until: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the service has spoken of a window."""
        return self._limit is not None

    def has_ended(self, now: float) -> bool:
        """Return whether the window is over by our clock, and no call has opened the next one."""
        return self.known and not self._opening and now >= self._ends_at

    def take(self, now: float, *, yielding: bool) -> float:
        """Take one request out of the window; return 0, or the seconds after which to ask again."""
        if not yielding:
            self._busy_until = now + BUSY_SECONDS
        if self._limit is not None:
            self._turn_over(now, self._limit)
            if self._opening and self.unanswered:
                return _MOMENT_SECONDS  # one call opens a window: if the server's clock is behind, it alone is told off
            if self._remaining - self.unanswered <= 0:
                return self._wait(now)
            if yielding and now < self._busy_until and self._yielded >= YIELDED_SHARE * self._limit:
                return min(self._busy_until - now, self._wait(now))
        self._yielded += yielding
        self.unanswered += 1
        return 0.0

    def give_back(self, *, yielding: bool) -> None:
        """Note that a request that was taken is not made."""
        self.unanswered -= 1
        self._yielded -= yielding

    def answered(self, now: float, allowance: Allowance | None, *, pushed_back: bool = False) -> None:
        """Note that a call ended, what its answer said of the window, if anything, and whether it was a 429."""
        self.unanswered -= 1
        self.hear(now, allowance, pushed_back=pushed_back)

    def hear(self, now: float, allowance: Allowance | None, *, pushed_back: bool = False) -> None:
        """Do the same, where somebody else counts the calls that have no answer yet."""
        if pushed_back and allowance is not None:
            # Also when its reset has come by our clock: that has whole seconds, and clocks differ.
            self._limit, self._remaining, self._opening = allowance.limit, 0, False
            self._ends_at = now + max(allowance.ends_in_seconds, _LATE_SECONDS)
            return
        if allowance is None:
            # No answer, no word: the server may have counted it.
            self._remaining = max(0, self._remaining - 1)
            return
        over = self._limit is None or (now >= self._ends_at and not self._opening) or self._is_next(now, allowance)
        if over:
            self._remaining, self._yielded = allowance.remaining, 0
        self._limit = allowance.limit
        self._remaining = min(self._remaining, allowance.remaining)
        if over or not allowance.fixed or self._opening:  # the end of a fixed one does not move
            self._ends_at, self._opening = now + allowance.ends_in_seconds, False

    def _is_next(self, now: float, allowance: Allowance) -> bool:
        """Return whether an answer tells of the next window, although the one that we know is not over by our clock.

        Else the little that was left of it would be all that we take of the next one.
        """
        near = not self._opening and now >= self._ends_at - _OTHER_SECONDS
        return near and not allowance.fixed and now + allowance.ends_in_seconds > self._ends_at + _OTHER_SECONDS

    def _turn_over(self, now: float, limit: int) -> None:
        """Begin a new window; when it ends is known with its first answer, or, if all are lost, it is over."""
        if now >= self._ends_at and (not self._opening or self._remaining <= 0):
            self._remaining, self._yielded, self._opening = limit, 0, True

    def _wait(self, now: float) -> float:
        """Until the window ends; where an answer under way may show that something is left, for a moment."""
        return _MOMENT_SECONDS if self._remaining > 0 else max(0.0, self._ends_at - now)
