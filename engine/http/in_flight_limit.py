"""Tasks in, no more of them at work than a limit that may change while they are: first come, first served.

`anyio.CapacityLimiter` can change its limit, too, but counts a task once however many slots it wants, and does not tell
how many were taken when a slot was; that number is what `adaptive.concurrency` learns from.
"""

from __future__ import annotations

from collections import deque

import anyio


class InFlightLimit:
    """Slots whose number may change. For one event loop; a slot may be given back by another task than took it."""

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
