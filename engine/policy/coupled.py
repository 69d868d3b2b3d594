"""How uploads and creation go -> bytes per batch and open jobs, the two limits coupled with requests in flight. Pure.

A batch's size trades the fixed cost of its calls (staging, releasing, the way there and back) against what is lost when
one does not go through, and a service may refuse or not manage large ones. Open jobs feed a service that creates tasks
in its own time: more of them than it works on speed nothing up, fewer leave it idle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from engine.policy.concurrency import CallCost, LimitChanged
from engine.policy.polling import CreationSpeed

_FIXED_SHARE = 0.3
"""More than this of a call's time spent on what does not depend on its size: larger batches pay."""
_LOOK_EVERY = 16
"""Uploads between two looks; the regression needs several sizes, and batches already frozen keep theirs."""
_CEILING_SHARE = 0.9
"""Of a size that did not get through, what is never tried again."""


class Upload(Enum):
    """How a payload fared."""

    TAKEN = "taken"
    TOO_LARGE = "too large"
    """413."""
    TIMED_OUT = "timed out"
    """It did not get there in the time that a call may take."""


@dataclass(slots=True)
class BatchBytes:
    """How many bytes the batches cut from now on may have; those that are frozen keep theirs."""

    most: int
    """What settings and service allow."""
    limit: int
    least: int = 1024
    """A single longer record goes alone in any case."""
    _cost: CallCost = field(default_factory=CallCost)
    _ceiling: int = 0
    """0: nothing was refused yet."""
    _since_look: int = 0

    def observe(self, sent_bytes: int, seconds: float, upload: Upload = Upload.TAKEN) -> LimitChanged | None:
        """Take in how long the calls of a batch took; return the change of the limit, if it makes one."""
        if upload is not Upload.TAKEN:
            return self._shrink(sent_bytes, upload)
        self._cost.observe(sent_bytes, seconds)
        self._since_look += 1
        if self._since_look < _LOOK_EVERY:
            return None
        self._since_look = 0
        fixed = 1 - self._cost.size_share
        full = self._cost.mean_bytes > self.limit / 2
        if fixed <= _FIXED_SHARE or not full:
            return None
        return self._set(self.limit * 2, f"{fixed:.0%} of a call's time does not depend on its size")

    def _shrink(self, sent_bytes: int, upload: Upload) -> LimitChanged | None:
        """Halve what did not get through. A batch smaller than the limit says as much as one that fills it."""
        ceiling = max(self.least, math.floor(sent_bytes * _CEILING_SHARE))
        self._ceiling = min(self._ceiling, ceiling) if self._ceiling else ceiling
        self._since_look = 0
        return self._set(min(self.limit, sent_bytes // 2), f"a payload of {sent_bytes} bytes: {upload.value}")

    def _set(self, limit: int, reason: str) -> LimitChanged | None:
        before = self.limit
        self.limit = max(self.least, min(limit, self.most, self._ceiling or self.most))
        return None if self.limit == before else LimitChanged("max_batch_bytes", before, self.limit, reason)


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
