"""Rules for the limit to compare with: a fixed one, Vector's adaptive request concurrency, and Netflix's Gradient2.

Vector's is written from its published description and defaults (vector.dev, "Adaptive request concurrency"): it starts
at 1; once per mean RTT it adds 1 if the limit was reached, nobody pushed back and the RTT of that time is no longer
than the mean of the past, and takes a tenth off on push-back or an RTT beyond the mean plus 2.5 deviations.

Gradient2 is written from the published formula and defaults of Netflix's concurrency-limits: every second in which ten
calls were answered, the limit moves by 0.2 of the way towards itself times 1.5 long RTT / short RTT (held between 0.5
and 1) plus 4; the short RTT is the mean of that second, the long one a mean over some 600 of them. It starts at 20. Its
makers let it go no lower, either; here it may, since a service may take less. Push-back does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.adaptive.concurrency import CallFate, Finished, LimitChanged

EWMA_ALPHA = 0.4
DECREASE_RATIO = 0.9
RTT_DEVIATION_SCALE = 2.5
MOST = 200
"""Both rivals' highest limit."""

WINDOW_SECONDS = 1.0
WINDOW_CALLS = 10
LONG = 600
WARM_UP = 10
"""Windows after which the plain mean becomes one that forgets."""
SMOOTHING = 0.2
QUEUE_SIZE = 4
RTT_TOLERANCE = 1.5
DRIFT, DRIFT_DECAY = 2.0, 0.95
"""A long RTT beyond so many times the short one shrinks by this factor."""


@dataclass(slots=True)
class Fixed:
    """The limit that somebody has set."""

    limit: int

    def observe(self, call: Finished) -> None:
        """Change nothing."""
        del call


@dataclass(slots=True)
class Vector:
    """Vector's rule."""

    limit: int = 1
    _mean: float | None = None
    _variance: float = 0.0
    _seconds: float = 0.0
    _calls: int = 0
    _reached: bool = False
    _pushed_back: bool = False
    _decide_at: float = 0.0

    def observe(self, call: Finished) -> LimitChanged | None:
        """Take in a finished call; once per mean RTT, decide."""
        self._reached |= call.in_flight >= self.limit
        if call.fate is CallFate.DONE:
            self._seconds += call.ended - call.started
            self._calls += 1
        else:
            self._pushed_back = True
        if call.ended < self._decide_at:
            return None
        return self._decide(call.ended)

    def _decide(self, now: float) -> LimitChanged | None:
        before = self.limit
        current = self._seconds / self._calls if self._calls else None
        reason = ""
        if current is not None and self._mean is None:
            self._mean = current
        elif self._mean is not None:
            threshold = self._mean + RTT_DEVIATION_SCALE * math.sqrt(self._variance)
            if self._pushed_back or (current is not None and current >= threshold and current > self._mean):
                self.limit = max(1, math.floor(self.limit * DECREASE_RATIO))
                reason = "pushed back, or RTT beyond the deviation"
            elif self._reached and current is not None and current <= self._mean:
                self.limit = min(MOST, self.limit + 1)
                reason = "the limit was reached and RTT is no longer than its mean"
            if current is not None:
                off = current - self._mean
                self._mean += EWMA_ALPHA * off
                self._variance = (1 - EWMA_ALPHA) * (self._variance + EWMA_ALPHA * off * off)
        self._seconds, self._calls, self._reached, self._pushed_back = 0.0, 0, False, False
        self._decide_at = now + (self._mean or 0.0)
        return LimitChanged("max_in_flight", before, self.limit, reason) if before != self.limit else None


@dataclass(slots=True)
class Gradient2:
    """Netflix's rule."""

    limit: int = 20
    _exact: float = 20.0
    _long: float = 0.0
    _windows: int = 0
    _seconds: float = 0.0
    _calls: int = 0
    _peak: int = 0
    _decide_at: float = 0.0

    def observe(self, call: Finished) -> LimitChanged | None:
        """Take in a finished call; once per window, decide."""
        self._peak = max(self._peak, call.in_flight)
        if call.fate is CallFate.DONE:
            self._seconds += call.ended - call.started
            self._calls += 1
        if call.ended < self._decide_at:
            return None
        self._decide_at = call.ended + WINDOW_SECONDS
        seconds, calls, peak = self._seconds, self._calls, self._peak
        self._seconds, self._calls, self._peak = 0.0, 0, 0
        return self._decide(seconds / calls, peak) if calls >= WINDOW_CALLS else None

    def _decide(self, short: float, peak: int) -> LimitChanged | None:
        before = self.limit
        self._windows += 1
        self._long += (short - self._long) * max(1 / self._windows if self._windows <= WARM_UP else 0, 2 / (LONG + 1))
        over = self._long / short
        if over > DRIFT:
            self._long *= DRIFT_DECAY
        if peak >= self._exact / 2:
            gradient = max(0.5, min(1.0, RTT_TOLERANCE * over))
            aim = self._exact * gradient + QUEUE_SIZE
            self._exact = max(1.0, min(MOST, self._exact + SMOOTHING * (aim - self._exact)))
            self.limit = int(self._exact)
        reason = f"gradient {over:.2f}"
        return LimitChanged("max_in_flight", before, self.limit, reason) if before != self.limit else None
