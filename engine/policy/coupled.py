"""How creation goes -> how many jobs may be open at the service, a limit coupled with requests in flight. Pure.

Open jobs feed a service that creates tasks in its own time: more of them than it works on speed nothing up, fewer leave
it idle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from engine.policy.concurrency import LimitChanged
from engine.policy.pace import CreationSpeed

_SPARE = 2.0
"""Times what Little's law asks for: creation speed is a mean, and a service that runs dry creates nothing."""
_LEAST_OPEN = 4
"""One being created, one next in line, and two for the time until a poll has told of the first."""
_WORTH = 0.2
"""A change by less is not worth an event."""


@dataclass(slots=True)
class OpenJobs:
    """How many batches may be released and not yet settled."""

    most: int
    """What settings and service allow."""
    limit: int = 0
    _speed: CreationSpeed = field(default_factory=CreationSpeed)

    def __post_init__(self) -> None:
        self.limit = self.limit or self.most

    def observe(
        self, created: int, seconds: float, *, batch_records: float, lag_seconds: float, in_line: bool = True
    ) -> LimitChanged | None:
        """Take in that the service created so many tasks in a time; return the change of the limit, if it makes one.

        `batch_records` is the mean batch; `lag_seconds` the time from the end of a batch's creation until a new one is
        released in its place: wait for the poll, upload and release. Within it the service works on what is open. Where
        jobs do not stand in line but run side by side (`in_line` is False), each one open adds to the speed: no limit.
        """
        self._speed.observe(created, seconds)
        speed = self._speed.tasks_per_second
        if not in_line or created <= 0 or batch_records <= 0:
            return None
        wanted = math.ceil(_SPARE * speed * lag_seconds / batch_records) + _LEAST_OPEN
        after = max(1, min(self.most, wanted))
        before = self.limit
        if after == before or abs(after - before) < _WORTH * before:
            return None
        self.limit = after
        reason = f"{speed:.0f} tasks/s for {lag_seconds:.1f} s are {speed * lag_seconds / batch_records:.1f} batches"
        return LimitChanged("max_open_batches", before, after, reason)
