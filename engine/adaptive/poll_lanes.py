"""Batches in release order -> which of them a service works on, and which wait for one of its lanes. Pure.

A service that creates some batches side by side keeps the others in line, first come, first served. A batch that waits
is not asked about: it has a date only when one of those before it is done, whose lane it takes over.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from engine.adaptive.poll_batch import PolledBatch

WAITED = 0.3
"""A batch begun later than it should have been, by this share of its creation time, stood in line."""
_REMEMBERED = 64
"""Batches looked through for what stands ahead of one: more lanes than that are as good as no limit."""


@dataclass(slots=True)
class Lanes:
    """On how many batches a service works at once, and who is in which lane."""

    open: Mapping[int, PolledBatch]
    """All open batches in the order of their release."""
    number: float = float("inf")
    _waiting: list[tuple[int, int]] = field(default_factory=list)
    _tails: list[PolledBatch] = field(default_factory=list)
    """The last batch of each lane, if their number is known."""
    _ended_lately: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def known(self) -> bool:
        """Their number is."""
        return self.number < float("inf")

    def set_number(self, number: float) -> Sequence[PolledBatch]:
        """Deal the open batches anew: those under way stay, the others wait; return those that wait no longer."""
        self.number = number
        self._tails, self._waiting = [], []
        freed = []
        for one in self.open.values():
            one.after = one.next = None
            if one.done:
                continue
            if one.created or (len(self._tails) < number and not one.unchanged):
                self._tails.append(one)
                if one.waits:
                    one.waits = False
                    freed.append(one)
            else:
                self.wait(one)
        return freed

    def wait(self, one: PolledBatch) -> None:
        """Have a batch wait for a lane."""
        one.waits, one.due_at, one.unchanged = True, float("inf"), 0
        heapq.heappush(self._waiting, (one.number, one.key))

    def admit(self, first: PolledBatch | None) -> PolledBatch | None:
        """Give the batch at the head of the line a lane that is free before the look at `first`, if there is one."""
        while self._waiting:
            one = self.open.get(self._waiting[0][1])
            if one is not None and one.waits:
                return self._take_over(one, first)
            heapq.heappop(self._waiting)
        return None

    def _take_over(self, one: PolledBatch, first: PolledBatch | None) -> PolledBatch | None:
        tail = min(self._tails, key=lambda one: one.ends_at) if len(self._tails) >= self.number else None
        if tail is not None and not tail.done and (first is None or tail.ends_at > first.due_at):
            return None
        heapq.heappop(self._waiting)
        one.waits = False
        if tail is not None:
            self._tails.remove(tail)
            one.after, tail.next = tail, one
        self._tails.append(one)
        return one

    def leave(self, one: PolledBatch) -> None:
        """Take a batch that hangs out of its lane: it must not keep others from being asked about."""
        if one in self._tails:
            self._tails.remove(one)

    def ended(self, one: PolledBatch) -> None:
        """Remember when a batch ended."""
        self._ended_lately.append((one.number, one.ends_at))

    def running(self, now: float, but: PolledBatch) -> int:
        """Count the batches in a lane that are under way; where lanes are without number, nobody asks who is in one."""
        if not self.known:
            return 0
        return sum(1 for one in self._tails if not one.done and one.created and one.ends_at > now and one is not but)

    def ahead(self, one: PolledBatch, at: float) -> int:
        """Count batches released earlier that the service was at work on at that time."""
        count = sum(1 for number, ends_at in self._ended_lately if number < one.number and ends_at > at)
        for other in self._first_open():
            if other is one:
                break
            if not other.done and other.ends_at > at and (other.created or not other.unchanged):
                count += 1
        return count

    def took_over(self, one: PolledBatch, began: float, seconds: float) -> bool:
        """Tell whether a batch of so many seconds began when another one ended, as it does where it waits for that."""
        near = WAITED * seconds / 2
        return any(
            number < one.number and abs(ends_at - began) <= near for number, ends_at in self._ended_lately
        ) or any(other.number < one.number and abs(other.ends_at - began) <= near for other in self._first_open())

    def _first_open(self) -> Iterator[PolledBatch]:
        return islice(self.open.values(), _REMEMBERED)
