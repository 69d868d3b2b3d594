"""What goes wrong on purpose: which calls a fault strikes, and what is done later than it was asked.

`traffic.py` asks `FaultPlan` and tells the `Agenda`, to which a handler gives its work. Nothing here knows a service.
"""

import contextlib
import heapq
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from random import Random

from engine.sandbox.behaviour import Fault

Act = Callable[[float], object]
"""Does the work as of a time, in epoch seconds."""
NEVER = float("inf")


class Agenda:
    """What is still to be done, by time; each work belongs to a key: a batch's or a task's id.

    A handler gives its work to `do`, which does it at once, later or never: as a fault has `put_off` says.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, Hashable, Act]] = []
        self._numbers = count()
        self._delay_seconds = 0.0

    @contextlib.contextmanager
    def put_off(self, seconds: float) -> Iterator[None]:
        """Have the work of the call that is handled in the block done so much later; infinity: never."""
        self._delay_seconds = seconds
        try:
            yield
        finally:
            self._delay_seconds = 0.0

    @property
    def delays(self) -> bool:
        """True while a call is handled whose work is put off."""
        return self._delay_seconds > 0

    @property
    def swallows(self) -> bool:
        """True while a call is handled whose work will never be done."""
        return self._delay_seconds == NEVER

    def do(self, key: Hashable, act: Act) -> None:
        """Do the work of the call that is being handled, in its time."""
        now = self._clock()
        if not self.delays:
            act(now)
        elif not self.swallows:
            heapq.heappush(self._due, (now + self._delay_seconds, next(self._numbers), key, act))

    def awaits(self, key: Hashable) -> bool:
        """Say whether work of this key is still to come."""
        return any(entry[2] == key for entry in self._due)

    def forget(self, key: Hashable) -> None:
        """Leave undone what is still to come of this key."""
        self._due = [entry for entry in self._due if entry[2] != key]
        heapq.heapify(self._due)

    def advance(self) -> None:
        """Do all that is due, each as of its own time."""
        while self._due and self._due[0][0] <= self._clock():
            at, _, _, act = heapq.heappop(self._due)
            act(at)


class FaultPlan:
    """Counts the calls that one fault looks at and says which of them it strikes."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._seen = 0
        self._random = Random(fault.seed)

    def strikes(self, elapsed_seconds: float = 0.0) -> bool:
        """Count one call, so long after the start; True if the fault strikes it."""
        self._seen += 1
        timed = self.fault.from_seconds <= elapsed_seconds < self.fault.to_seconds
        drawn = self.fault.share > 0 and self._random.random() < self.fault.share
        periodic = self.fault.every > 0 and self._seen % self.fault.every == 0
        return timed or drawn or periodic or self._seen in self.fault.nth
