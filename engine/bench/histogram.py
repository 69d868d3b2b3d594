"""Times in, percentiles out, in memory that does not grow with their number: buckets whose edges rise by a hundredth.

After Gil Tene's HdrHistogram: what is long is known as well as what is short, to the same share of itself. A percentile
is the upper edge of the bucket that holds it, so it is at most a hundredth too long and never too short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHORTEST = 1e-6
LONGEST = 1e6
"""Seconds; what is beyond counts as these, but for the maximum, which is kept as it is."""
_GROWTH = math.log(1.01)
MOST_BUCKETS = math.ceil(math.log(LONGEST / SHORTEST) / _GROWTH) + 1


@dataclass(frozen=True, slots=True)
class Percentiles:
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
    """Counts of times."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.longest = 0.0

    @property
    def buckets(self) -> int:
        """Buckets in use: never more than MOST_BUCKETS."""
        return len(self._counts)

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a time `count` times."""
        if count <= 0:
            return
        place = math.ceil(math.log(min(max(seconds, SHORTEST), LONGEST) / SHORTEST) / _GROWTH)
        self._counts[place] = self._counts.get(place, 0) + count
        self.count += count
        self.longest = max(self.longest, seconds)

    def percentile(self, share: float) -> float:
        """Return the time within which `share` (0 to 1) of all were done."""
        left = math.ceil(share * self.count)
        for place in sorted(self._counts):
            left -= self._counts[place]
            if left <= 0:
                return min(SHORTEST * math.exp(place * _GROWTH), self.longest)
        return self.longest

    def percentiles(self) -> Percentiles:
        """Return those that are shown."""
        p50, p90, p99, p999 = (self.percentile(share) for share in (0.5, 0.9, 0.99, 0.999))
        return Percentiles(self.count, p50, p90, p99, p999, self.longest)
