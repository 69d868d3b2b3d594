"""Answered calls -> how fast a service is, in calls or in bytes, whichever the time of a call depends on. Pure.

Throughput is counted in mean calls: part per call, part per byte, in the proportion in which the time of a call depends
on its size (`CallCost`). So batches of mixed sizes neither look like noise where bytes cost, nor where they do not.
"""

from __future__ import annotations

from msgspec import Struct

_COST_MEMORY = 0.998
"""It looks back over some five hundred: the mean of a few batches of mixed sizes is no unit to measure by."""


_LEAST_CALLS = 3.5
"""Weight of four calls; through fewer, a line fits anything."""
_LEAST_SPREAD = 0.05
"""Deviation of the sizes from their mean below which they count as one size."""


class CallCost(Struct):
    """By how much the time of a call depends on its size: a regression that forgets."""

    _weight: float = 0.0
    _bytes: float = 0.0
    _seconds: float = 0.0
    _bytes_bytes: float = 0.0
    _bytes_seconds: float = 0.0

    def observe(self, sent_bytes: int, seconds: float) -> None:
        """Take in an answered call."""
        self._weight = self._weight * _COST_MEMORY + 1
        self._bytes = self._bytes * _COST_MEMORY + sent_bytes
        self._seconds = self._seconds * _COST_MEMORY + seconds
        self._bytes_bytes = self._bytes_bytes * _COST_MEMORY + sent_bytes**2
        self._bytes_seconds = self._bytes_seconds * _COST_MEMORY + sent_bytes * seconds

    @property
    def mean_bytes(self) -> float:
        """Payload of the mean call."""
        return self._bytes / self._weight if self._weight else 0.0

    @property
    def mean_seconds(self) -> float:
        """Duration of the mean call."""
        return self._seconds / self._weight if self._weight else 0.0

    @property
    def size_share(self) -> float:
        """Share of a mean call's time that goes by its bytes, 0 to 1; 0 where all are of one size: nobody can tell."""
        if self._weight < _LEAST_CALLS or self.mean_seconds <= 0:
            return 0.0
        variance = self._bytes_bytes / self._weight - self.mean_bytes**2
        if variance <= (_LEAST_SPREAD * self.mean_bytes) ** 2:
            return 0.0
        slope = (self._bytes_seconds / self._weight - self.mean_bytes * self.mean_seconds) / variance
        return min(1.0, max(0.0, slope * self.mean_bytes / self.mean_seconds))


class Throughput(Struct, frozen=True):
    """What is answered a second. Kept in both units, for what is worth more is learned on the way."""

    calls: float
    sent_bytes: float

    @classmethod
    def of(cls, calls: int, sent_bytes: int, seconds: float) -> Throughput:
        """Return the pace of so many calls in a time."""
        seconds = max(seconds, 1e-9)
        return cls(calls / seconds, sent_bytes / seconds)

    def worth(self, cost: CallCost) -> float:
        """Return it in mean calls a second."""
        share = cost.size_share
        return max(1e-9, (1 - share) * self.calls + share * self.sent_bytes / (cost.mean_bytes or 1.0))

    def towards(self, other: Throughput, weight: float) -> Throughput:
        """Return the mean of both, with so much `weight` on the other."""
        return Throughput(
            self.calls + weight * (other.calls - self.calls),
            self.sent_bytes + weight * (other.sent_bytes - self.sent_bytes),
        )
