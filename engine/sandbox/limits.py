"""Arrival times enter, admissions leave: the rate limits of a service, in fixed windows."""

from collections.abc import Iterable

from engine.sandbox.behaviour import ALL_CALLS, RateLimit


class RateWindow:
    """One limit and its current window, which opens with the first request after the last window's end."""

    def __init__(self, limit: RateLimit) -> None:
        """Start with no window open."""
        self.limit = limit
        self._ends_at = float("-inf")
        self._used = 0

    def wait_seconds(self, now: float) -> float:
        """Say how long a request has to wait: 0 where the window has room."""
        if now >= self._ends_at:
            self._ends_at, self._used = now + self.limit.seconds, 0
        return 0.0 if self._used < self.limit.requests else self._ends_at - now

    def take(self) -> None:
        """Use up one request of the window."""
        self._used += 1

    def remaining(self, now: float) -> int:
        """Say how many requests still have room."""
        return self.limit.requests - (self._used if now < self._ends_at else 0)

    def ends_at(self, now: float) -> float:
        """Say when the window ends; one that is not open would end a whole window from now."""
        return self._ends_at if now < self._ends_at else now + self.limit.seconds


class RateLimits:
    """All limits of a service. A refused request uses up nothing."""

    def __init__(self, limits: Iterable[RateLimit], outside: frozenset[str] = frozenset()) -> None:
        """Take the limits; the calls in `outside` go to another host, so limits for "all" do not count them."""
        self.windows = [RateWindow(limit) for limit in limits]
        self._outside = outside

    def refusal(self, kind: str, now: float) -> tuple[RateLimit, float] | None:
        """Admit a request (None), or name the limit it exceeds and the seconds until that limit's window ends."""
        windows = [window for window in self.windows if self._covers(window.limit, kind)]
        for window in windows:
            if (wait := window.wait_seconds(now)) > 0:
                return window.limit, wait
        for window in windows:
            window.take()
        return None

    def _covers(self, limit: RateLimit, kind: str) -> bool:
        return limit.call == kind or (limit.call == ALL_CALLS and kind not in self._outside)
