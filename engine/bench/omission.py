"""The time that calls took in, those out that were never made meanwhile: the correction for coordinated omission.

Whoever sends the next batch only once the last one is done sends nothing while the service stalls, and so measures a
stall once, however many batches it would have met. In an open loop the schedule mends that: time is counted from when
a batch was due. A closed loop has no schedule, so what it omitted is put back: a place that was held for long would
have sent one batch more every `expected` seconds, and each of them would have waited for what was left of the stall.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median


def expected_seconds(held: Sequence[float]) -> float:
    """Return how long a batch usually holds its place: the median, which a few stalls do not move."""
    return median(held) if held else 0.0


def omitted(held_seconds: float, expected: float) -> Iterator[float]:
    """Yield, for each batch that was not sent while one held its place, by how much less it would have waited."""
    if expected <= 0:
        return
    later = expected
    while held_seconds - later >= expected:
        yield later
        later += expected
