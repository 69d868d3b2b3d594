"""Batches that want to be carried enter, the right number of them at once leaves: as many as pay, in bounded memory.

What pays is found out by `adaptive.concurrency`, or said by the settings. Bytes are bounded besides, since a payload is
held in memory while it is on its way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from http import HTTPStatus

import anyio

from engine.adaptive.concurrency import CallFate, Concurrency, Finished
from engine.clock import Clock
from engine.model.settings import AUTO, MEBIBYTE, SendSettings
from engine.progress.events import CallEnded, Event, Listener, Paused
from engine.run.queues import Signal

MOST_BYTES = 32 * MEBIBYTE
"""Payloads under way at once; one that alone is longer goes alone."""


class InFlightLimit:
    """Slots whose number may change, first come, first served; one may be given back by another task than took it.

    `anyio.CapacityLimiter` can change its limit, too, but does not tell how many slots were taken when one was: the
    number that `adaptive.concurrency` learns from. For one event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = _checked(limit)
        self._taken = 0
        self._waiting: deque[anyio.Event] = deque()

    @property
    def limit(self) -> int:
        """The number of slots; more may be taken for a while after it was lowered."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = _checked(limit)
        self._hand_on()

    @property
    def taken(self) -> int:
        """Slots taken, and those handed to a task that has not run since."""
        return self._taken

    async def acquire(self) -> int:
        """Take a slot, waiting for one if need be; return how many are taken then, this one included."""
        if self._taken < self._limit:  # then nobody waits: whoever frees a slot hands it on
            self._taken += 1
            return self._taken
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # handed a slot and cancelled in the same moment: pass it on
                self.release()
            else:
                self._waiting.remove(turn)
            raise
        return self._taken

    def release(self) -> None:
        """Give a slot back."""
        if not self._taken:
            raise RuntimeError("released more often than acquired")
        self._taken -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and self._taken < self._limit:
            self._taken += 1
            self._waiting.popleft().set()


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"a limit of {limit} would let nobody pass")
    return limit


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that is taken."""

    size_bytes: int
    in_flight: int
    """Places taken when it was, this one included."""
    since: float
    """Monotonic seconds."""


class InFlight:
    """Places for batches on their way to the service."""

    def __init__(self, settings: SendSettings, clock: Clock, emit: Listener) -> None:
        self._controller = Concurrency() if settings.max_in_flight == AUTO else None
        self._limiter = InFlightLimit(self._controller.limit if self._controller else settings.most_in_flight)
        self._clock = clock
        self._emit = emit
        self._paused_until = float("-inf")
        self._bytes = 0
        self._freed = Signal()

    @property
    def taken(self) -> int:
        """Batches that have a place."""
        return self._limiter.taken

    async def take(self, size_bytes: int) -> Slot:
        """Wait for a place, and for room in memory."""
        in_flight = await self._limiter.acquire()
        try:
            while self._bytes and self._bytes + size_bytes > MOST_BYTES:
                await self._freed.wait()
        except BaseException:
            self._limiter.release()
            raise
        self._bytes += size_bytes
        return Slot(size_bytes, in_flight, self._clock.monotonic())

    def give_back(self, slot: Slot, fate: CallFate | None) -> None:
        """Free a place; `fate` tells how the batch fared, None that it says nothing of the service's speed."""
        self._bytes -= slot.size_bytes
        self._freed.give()
        self._limiter.release()
        if fate is not None and slot.since > self._paused_until:
            now = self._clock.monotonic()
            self._observe(Finished(slot.since, now, slot.size_bytes, slot.in_flight, fate))

    def hear(self, event: Event) -> None:
        """Take note of push-back, which a call may meet many times before it gets through, and of pauses.

        A batch that met a pause took long because calls waited: that says nothing of how many the service takes.
        """
        match event:
            case CallEnded(status=HTTPStatus.TOO_MANY_REQUESTS):  # not 503: a proxy says it of what is down, too
                now = self._clock.monotonic()
                self._observe(Finished(now - event.seconds, now, 0, 1, CallFate.PUSHED_BACK))
            case Paused():
                self._paused_until = max(self._paused_until, self._clock.monotonic() + event.wait_seconds)

    def _observe(self, finished: Finished) -> None:
        if self._controller is None:
            return
        change = self._controller.observe(finished)
        if change is not None:
            self._limiter.limit = change.after
            self._emit(change)
