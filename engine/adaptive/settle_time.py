"""How long a service may take until it shows what a call did: the settle time, before which silence proves nothing.

It is what the configuration or the service says (`send.settle_seconds`), or twice the longest time that an answered
release of this job took to leave *waiting*, whichever is longer: a service that was seen to be slow is given more.
"""

from __future__ import annotations

SETTLE_SECONDS = 120.0
"""Where neither the configuration nor the service says otherwise. No vendor documents a bound. Load balancers give up
after 60 s (AWS, nginx) and what stands behind them works on for as long again."""

_MARGIN = 2.0
"""The next one may be slower than the slowest one yet."""


class SettleTime:
    """The settle time of one job; grows as its service is seen to be slow."""

    def __init__(self, settle_seconds: float = SETTLE_SECONDS, slowest_start: float = 0.0) -> None:
        """Begin with what earlier runs have seen: the longest time to leave *waiting*, in seconds."""
        self._settle_seconds = settle_seconds
        self._slowest_start = slowest_start

    @property
    def seconds(self) -> float:
        """The settle time."""
        return max(self._settle_seconds, _MARGIN * self._slowest_start)

    def saw_start(self, seconds: float) -> bool:
        """Note how long an answered release took to leave *waiting*; return whether the settle time grew by it."""
        before = self.seconds
        self._slowest_start = max(self._slowest_start, seconds)
        return self.seconds > before
