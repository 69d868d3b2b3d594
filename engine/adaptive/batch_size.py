"""How uploads and creation go -> bytes per batch and open batches, two limits coupled with that of requests. Pure.

A batch's size trades the fixed cost of its calls (staging, releasing, the way there and back) against what a service,
or something in front of it, refuses or does not get in time. Open batches feed a service that creates tasks in its own
time: more of them than it works on speed nothing up, fewer leave it idle.

How the three hang together: `concurrency` counts in mean calls, part per call and part per byte, so it finds its limit
again when batches change their size. The bytes in flight are their product, which `in_flight` bounds: smaller batches
leave room for more at once. And open batches are counted by the records of the mean batch: the smaller it is, the more
are open.
"""

from __future__ import annotations

import math
from enum import Enum

from msgspec import Struct, field

from engine.adaptive.concurrency import LimitChanged
from engine.adaptive.throughput import CallCost

SLOW_BYTES = 64 * 1024
"""A payload below it that times out does not do so for its size: a modem of 1990 takes it in a minute. Nor is one cut
off for its size."""
_LEAST = 1024
"""A single longer record goes alone in any case."""
_LOOK_EVERY = 16
"""Batches between two looks whether larger ones pay; doubled whenever one times out."""
_LOOK_SELDOM = 1024
_FIXED_SHARE = 0.3
"""More than this of a batch's time spent on what does not depend on its size: larger ones pay."""
_GAIN = 1.25
"""Growth by less is not worth it: whoever reads the sources begins anew behind the batch frozen last."""


class Upload(Enum):
    """How a payload fared."""

    TAKEN = "taken"
    TOO_LARGE = "was too large"
    """413, or the store's word for it."""
    TIMED_OUT = "timed out"
    RESET = "was cut off again and again"


class BatchBytes(Struct):
    """How many bytes the batches cut from now on may have. Tell it of batches that could be smaller.

    Nothing larger than what got through is tried again: as many as are in flight would fail before the first answer
    tells, and half of what is possible is not much slower. What did get through before it timed out may do so another
    day; that is found out, ever later.
    """

    most: int
    """What settings and service allow."""
    limit: int = 0
    _taken: int = 0
    """The largest that got through."""
    _refused: int = 0
    """The smallest that was refused; 0 if none was."""
    _slow: int = 0
    """The smallest that timed out or was cut off, until larger ones are tried again; 0 if none was."""
    _cost: CallCost = field(default_factory=CallCost)
    _look_every: int = _LOOK_EVERY
    _since_look: int = 0

    def __post_init__(self) -> None:
        self.limit = self.limit or self.most

    def bars(self, size_bytes: int) -> bool:
        """Return whether so much did not get through: a batch that was frozen before that had better go in halves.

        So had one that is a little smaller, unless as much got through before: it was cut for a limit that has failed.
        """
        failed = [size for size in (self._refused, self._slow) if size]
        return bool(failed) and (size_bytes >= min(failed) or size_bytes > max(_GAIN * self.limit, self._taken))

    def observe(self, size_bytes: int, seconds: float, upload: Upload = Upload.TAKEN) -> LimitChanged | None:
        """Take in how a batch fared, and how long that took; return the change of the limit, if it makes one.

        One well beyond the limit was frozen before the last change and is no reason for another.
        """
        if upload is Upload.TAKEN:
            return self._take(size_bytes, seconds)
        if upload is not Upload.TOO_LARGE and size_bytes < SLOW_BYTES:
            return None
        news = size_bytes <= _GAIN * self.limit  # a larger one was frozen before the last change
        if upload is not Upload.TIMED_OUT and self._taken >= size_bytes:
            self._taken = 0  # as much got through before: its records or chance may be the cause. The next one decides
            return None
        if upload is Upload.TOO_LARGE:
            self._refused = min(size_bytes, self._refused or size_bytes)
            after = max(_LEAST, size_bytes // 2, self._taken)
        else:
            self._slow = min(size_bytes, self._slow or size_bytes)
            self._look_every = min(_LOOK_SELDOM, self._look_every * (1 + news))
            after = max(SLOW_BYTES, size_bytes // 2)
        if not news or after >= self.limit:
            return None
        self._since_look = 0
        return self._set(after, f"a payload of {size_bytes} bytes {upload.value}")

    def _take(self, size_bytes: int, seconds: float) -> LimitChanged | None:
        self._taken = max(self._taken, size_bytes)
        if size_bytes >= self._refused:
            self._refused = 0  # it was not for its size
        self._cost.observe(size_bytes, seconds)
        self._since_look += size_bytes > self.limit / 2  # others would be no larger if they might
        if self._since_look < self._look_every:
            return None
        self._since_look, self._slow = 0, 0
        fixed = 1 - self._cost.size_share
        after = min(2 * self.limit, self._taken)
        if fixed <= _FIXED_SHARE or after < _GAIN * self.limit:
            return None
        return self._set(after, f"{fixed:.0%} of a batch's time does not depend on its size")

    def _set(self, limit: int, reason: str) -> LimitChanged:
        before, self.limit = self.limit, limit
        return LimitChanged("max_batch_bytes", before, limit, reason)


_SMOOTHING = 0.4
"""Weight of the newest speed: Vector's `ewma_alpha`, which follows a change within about three polls."""
_MEASURE_SECONDS = 1.0
"""Over shorter times one poll more or less would sway the speed. What all batches gained counts: one sees its share."""
_SPARE = 2.0
"""Times what Little's law asks for: creation speed is a mean, and a service that runs dry creates nothing."""
_LEAST_OPEN = 4
"""One being created, one next in line, and two for the time until a poll has told of the first."""
_WORTH = 0.2
"""A change by less is not worth an event."""


class OpenBatches(Struct):
    """How many batches may be released and not yet settled."""

    most: int
    """What settings and service allow."""
    since: float = 0.0
    """Monotonic seconds; what was created from then on counts for the newest speed."""
    limit: int = 0
    _created: int = 0
    _speed: float = 0.0
    """Tasks/s that the service creates, over all batches."""

    def __post_init__(self) -> None:
        self.limit = self.limit or self.most

    def observe(self, created: int, now: float, *, batch_records: float, lag_seconds: float) -> LimitChanged | None:
        """Take in how many tasks a poll has shown that were not seen before; return the change of the limit, if any.

        `batch_records` is the mean batch; `lag_seconds` the time from the end of a batch's creation until a new one is
        released in its place: wait for the poll, upload and release. Within it the service works on what is open. Not
        for jobs that run side by side: each one open adds to the speed.
        """
        self._created += created
        seconds = now - self.since
        if seconds < _MEASURE_SECONDS:
            return None
        created, self._created, self.since = self._created, 0, now
        self._speed += (created / seconds - self._speed) * (_SMOOTHING if self._speed else 1)
        if created <= 0 or batch_records <= 0:
            return None
        speed = self._speed
        wanted = math.ceil(_SPARE * speed * lag_seconds / batch_records) + _LEAST_OPEN
        after = max(1, min(self.most, wanted))
        before = self.limit
        if after == before or abs(after - before) < _WORTH * before:
            return None
        self.limit = after
        busy = speed * lag_seconds / batch_records
        reason = (
            f"{speed:.0f} tasks/s are created, {busy:.1f} batches in the {lag_seconds:.1f} s until a new one is there; "
            f"{_SPARE:g} times as many, and {_LEAST_OPEN} more, may be open"
        )
        return LimitChanged("max_open_batches", before, after, reason)
