"""Work enters with the time at which it is to be done, and is done then, whether requests come meanwhile or not.

A fault puts the work of one call off (`put_off`). The handler that would do it asks nothing: it gives the work to
`Agenda.do`, which does it at once, later or never. Knows no service; what is still to be done ends with the sandbox.
"""

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from itertools import count

Act = Callable[[float], object]
"""Does the work as of a time, in epoch seconds."""

NEVER = float("inf")
_TICK_SECONDS = 0.02  # how late the work may be: the clock may be a made-up one, so it is looked at again and again
_delay_seconds: ContextVar[float] = ContextVar("delay_seconds", default=0.0)


@contextlib.contextmanager
def put_off(seconds: float) -> Iterator[None]:
    """Have the work of the calls that are handled in the block done so much later."""
    before = _delay_seconds.set(seconds)
    try:
        yield
    finally:
        _delay_seconds.reset(before)


class Agenda:
    """What is still to be done, by time; each work belongs to a key: a batch's or a task's id."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with nothing to do."""
        self._clock = clock
        self._due: list[tuple[float, int, Hashable, Act]] = []
        self._numbers = count()
        self._pending: Counter[Hashable] = Counter()
        self._wake = asyncio.Event()

    @property
    def delays(self) -> bool:
        """True while a call is handled whose work is put off."""
        return _delay_seconds.get() > 0

    @property
    def swallows(self) -> bool:
        """True while a call is handled whose work will never be done."""
        return _delay_seconds.get() == NEVER

    def do(self, key: Hashable, act: Act) -> None:
        """Do the work of the call that is being handled, in its time."""
        now, delay = self._clock(), _delay_seconds.get()
        if delay <= 0:
            act(now)
        elif delay < NEVER:
            heapq.heappush(self._due, (now + delay, next(self._numbers), key, act))
            self._pending[key] += 1
            self._wake.set()

    def awaits(self, key: Hashable) -> bool:
        """Say whether work of this key is still to come."""
        return self._pending[key] > 0

    def forget(self, key: Hashable) -> None:
        """Leave undone what is still to come of this key."""
        self._due = [entry for entry in self._due if entry[2] != key]
        heapq.heapify(self._due)
        del self._pending[key]

    def advance(self) -> None:
        """Do all that is due, each as of its own time."""
        while self._due and self._due[0][0] <= self._clock():
            at, _, key, act = heapq.heappop(self._due)
            self._pending[key] -= 1
            if not self._pending[key]:
                del self._pending[key]
            act(at)

    async def run(self) -> None:
        """Do what becomes due until cancelled."""
        while True:
            if not self._due:
                self._wake.clear()
                await self._wake.wait()
            self.advance()
            await asyncio.sleep(_TICK_SECONDS)
