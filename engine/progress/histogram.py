"""How long many things took, in memory that does not grow with their number. Runs and the bench measure by it.

After Gil Tene's HdrHistogram: buckets whose edges rise by a constant share, so that what is short is known as well as
what is long. The counts of two histograms of one growth can be added.
"""

from __future__ import annotations

import math

from msgspec import Struct

from engine.model.runs import Spread

SHORTEST = 1e-6
LONGEST = 1e6
"""Seconds; what is beyond counts as these, except for the maximum, which is kept as it is."""
FINE = 0.01
"""For a measurement that lasts as long as its process."""
COARSE = 0.1
"""For what the ledger keeps of each run: some dozen numbers for each kind of call."""


class Percentiles(Struct, frozen=True):
    """How long it took, in seconds; 0 where nothing was counted."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float

    def beyond(self, share: float) -> int:
        """Return how many were counted above the percentile of `share`: of a handful, p99.9 says no more than max."""
        return self.count - math.ceil(share * self.count)


class Histogram:
    """Counts of times.

    A percentile is the upper edge of the bucket that holds it: never too short, and too long by the share `growth` at
    most.
    """

    def __init__(self, growth: float = FINE) -> None:
        self._growth = math.log1p(growth)
        self._counts: dict[int, int] = {}
        self.count = 0
        self.longest = 0.0

    @property
    def buckets(self) -> int:
        """Buckets in use."""
        return len(self._counts)

    @property
    def most_buckets(self) -> int:
        """More than these are never in use."""
        return math.ceil(math.log(LONGEST / SHORTEST) / self._growth) + 1

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a time `count` times."""
        if count <= 0:
            return
        place = math.ceil(math.log(min(max(seconds, SHORTEST), LONGEST) / SHORTEST) / self._growth)
        self._counts[place] = self._counts.get(place, 0) + count
        self.count += count
        self.longest = max(self.longest, seconds)

    @property
    def spread(self) -> Spread:
        """What is to be kept of it."""
        return Spread(self._counts.copy(), round(self.longest, 6))

    def add(self, spread: Spread) -> None:
        """Count what was kept of another histogram of the same growth."""
        for place, count in spread.counts.items():
            self._counts[place] = self._counts.get(place, 0) + count
            self.count += count
        self.longest = max(self.longest, spread.longest)

    def percentile(self, share: float) -> float:
        """Return the time within which `share` (0 to 1) of all were done."""
        left = math.ceil(share * self.count)
        for place in sorted(self._counts):
            left -= self._counts[place]
            if left <= 0:
                return min(SHORTEST * math.exp(place * self._growth), self.longest)
        return self.longest

    def percentiles(self) -> Percentiles:
        """Return those that are shown."""
        p50, p90, p99, p999 = (self.percentile(share) for share in (0.5, 0.9, 0.99, 0.999))
        return Percentiles(self.count, p50, p90, p99, p999, self.longest)
