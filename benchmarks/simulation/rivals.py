"""Rules for the limit to compare with: a fixed one, and Vector's adaptive request concurrency.

Vector's is written from its published description and defaults (vector.dev, "Adaptive request concurrency"): it starts
at 1; once per mean RTT it adds 1 if the limit was reached, nobody pushed back and the RTT of that time is no longer
than the mean of the past, and takes a tenth off on push-back or an RTT beyond the mean plus 2.5 deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.policy.concurrency import Fate, Finished, LimitChanged

EWMA_ALPHA = 0.4
DECREASE_RATIO = 0.9
RTT_DEVIATION_SCALE = 2.5
MOST = 200


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
        if call.fate is Fate.DONE:
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
