"""How many batches are on their way to the service at once. Used by the pipeline.

As many as pay: `adaptive.concurrency` finds that out, or the settings say it. Where many workers share one limit,
`run.sharing` says how many this one may have. Bytes are bounded besides, since a
payload is held in memory while it is on its way: never more than `MOST_BYTES`, except for a single batch that is
larger.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus

import msgspec

from engine.adaptive.concurrency import CallFate, Concurrency, Finished, LimitChanged
from engine.adaptive.shared_limits import FlightReport
from engine.clock import Clock
from engine.model.settings import AUTO, MEBIBYTE, SendSettings
from engine.progress.events import CallEnded, Event, Listener, Paused

MOST_BYTES = 32 * MEBIBYTE
"""Payloads under way at once; one that alone is longer goes alone."""

SHARED = "other workers have their part of it"


class Slot(msgspec.Struct):
    """A place that is taken."""

    size_bytes: int
    in_flight: int
    """Places taken when it was, this one included."""
    since: float
    """Monotonic seconds."""
    given_back: bool = False


class InFlight:
    """Places for batches on their way to the service, first come, first served. For one event loop.

    `anyio.CapacityLimiter` can change its limit, too, but does not tell how many places were taken when one was: the
    number that `adaptive.concurrency` learns from.
    """

    def __init__(self, settings: SendSettings, clock: Clock, emit: Listener) -> None:
        self._most = None if settings.max_in_flight == AUTO else settings.most_in_flight
        self._controller = Concurrency() if self._most is None else None
        self._following = False
        self._pushed_back = False
        """A call was, since the last report to the other workers."""
        self._limit = self._controller.limit if self._controller else settings.most_in_flight
        self._clock = clock
        self._emit = emit
        self._paused_until = float("-inf")
        self._taken = 0
        self._bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def limit(self) -> int:
        """The number of places; more may be taken for a while after it was lowered."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._hand_on()

    def report(self) -> FlightReport:
        """Return what other workers that share the limit are to know."""
        pushed_back, self._pushed_back = self._pushed_back, False
        return FlightReport(self._most, self._limit, self._taken, pushed_back)

    def await_grant(self) -> None:
        """Share the limit from now on: where it is configured there are no places before the first grant."""
        if self._most is not None:
            self._following, self._limit = True, 0

    def follow(self, limit: int | None) -> None:
        """Have as many places as the workers that share the limit leave to this one; None: find out how many pay."""
        if limit is not None:
            before, self._following, self.limit = self._limit, True, limit
            if limit != before:
                self._emit(LimitChanged("max_in_flight", before, limit, SHARED))
        elif self._following:
            self._following = False
            self._controller = Concurrency.holding(max(1, self._limit)) if self._most is None else None

    def others_pushed_back(self) -> None:
        """Note that another worker, which has as many places as this one, was told that it is too much."""
        now = self._clock.monotonic()
        self._observe(Finished(now, now, 0, 1, CallFate.PUSHED_BACK))

    @property
    def taken(self) -> int:
        """Batches that have a place, and those that were handed one and have not run since."""
        return self._taken

    async def take(self, size_bytes: int) -> Slot:
        """Wait for a place, and for room in memory."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        self._hand_on()
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._hand_on()
            else:  # handed a place and canceled in the same moment: pass it on
                self._free(size_bytes)
            raise
        return Slot(size_bytes, self._taken, self._clock.monotonic())

    def give_back(self, slot: Slot, fate: CallFate | None) -> None:
        """Free a place, if it is not free yet.

        `fate` tells how the batch fared, None that it says nothing of the service's speed.
        """
        if slot.given_back:
            return
        slot.given_back = True
        self._free(slot.size_bytes)
        if fate is not None and slot.since > self._paused_until:
            now = self._clock.monotonic()
            self._observe(Finished(slot.since, now, slot.size_bytes, slot.in_flight, fate))

    def _free(self, size_bytes: int) -> None:
        if not self._taken:
            raise RuntimeError("more places were given back than taken")
        self._taken -= 1
        self._bytes -= size_bytes
        self._hand_on()

    def _hand_on(self) -> None:
        """Give places to those who wait, in their order, as long as there is room for the first."""
        while self._waiting and self._taken < self._limit:
            size_bytes, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if self._bytes and self._bytes + size_bytes > MOST_BYTES:
                return
            self._waiting.popleft()
            self._taken += 1
            self._bytes += size_bytes
            turn.set_result(None)

    def hear(self, event: Event) -> None:
        """Take note of push-back, which a call may meet many times before it gets through, and of pauses.

        A batch that met a pause took long because calls waited: that says nothing of how many the service takes.
        """
        match event:
            case CallEnded(status=HTTPStatus.TOO_MANY_REQUESTS):  # not 503: a proxy says it of what is down, too
                now, self._pushed_back = self._clock.monotonic(), True
                self._observe(Finished(now - event.seconds, now, 0, 1, CallFate.PUSHED_BACK))
            case Paused():
                self._paused_until = max(self._paused_until, self._clock.monotonic() + event.wait_seconds)

    def _observe(self, finished: Finished) -> None:
        if self._controller is None or self._following:
            return
        change = self._controller.observe(finished)
        if change is not None:
            self.limit = change.after
            self._emit(change)
