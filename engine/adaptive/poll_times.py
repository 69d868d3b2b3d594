"""What is known of open batches -> when to look at each, and which come next. Pure.

A batch is looked at a little after it should be done. What does not move although it should is looked at ever less
often.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.adaptive.poll_batch import PolledBatch
from engine.adaptive.poll_pace import LEAST_SECONDS, PACE_STEP, Pace

_FIRST_SHARE = 0.1
"""Of the longest first wait: the first one of all, where nothing is known. The service may be a fast one."""
_REST_MARGIN = 0.02
"""Share of its creation time by which a batch is looked at late once a poll has shown exactly how far it is."""
_AGAIN = 0.1
"""Share of the creation time after which to ask again about what should have been done."""
_LOOKS_PAY = 64
"""Batches planned anew for each look since the last time: what a look costs anyway is more."""
_TICK = 1e-6
"""Time that is no difference: sleeping for less would go on forever where clocks are floats."""


@dataclass(frozen=True, slots=True)
class PollRules:
    """How eagerly batches are asked about."""

    first_seconds: float = 0.5
    """Longest first wait while nothing is known."""
    cap_seconds: float = 30.0
    """Longest wait while nothing moves. The end of a batch that does may be foretold for later."""
    together: int = 1
    """Batches that one poll covers."""


@dataclass(slots=True)
class PollTimes:
    """When to look at which open batch."""

    rules: PollRules
    pace: Pace
    open: Mapping[int, PolledBatch]
    now: float = 0.0
    _first_wait: float = field(init=False)
    _fruitless: int = 0
    """Polls in a row, of whatever batches, that showed nothing new."""
    _quiet_until: float = float("-inf")
    _looks_since: int = 0
    """Since all were planned anew."""
    _planned_pace: float = 0.0
    _due: list[tuple[float, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first_wait = self.rules.first_seconds * _FIRST_SHARE

    # The queue

    def first(self) -> PolledBatch | None:
        """Return the batch to look at next; None if all are being asked about."""
        while self._due:
            at, _, key = self._due[0]
            one = self.open.get(key)
            if one is not None and one.due_at == at:
                return one
            heapq.heappop(self._due)
        return None

    def take(self, now: float) -> Sequence[int]:
        """Take out those due, if there are any, and others that fit beside them into one poll."""
        taken: list[int] = []
        while len(taken) < self.rules.together and (one := self.first()) and (taken or one.due_at <= now + _TICK):
            heapq.heappop(self._due)
            one.due_at, one.asked = float("inf"), True
            taken.append(one.key)
        return taken

    def queue(self, one: PolledBatch, at: float) -> None:
        """Have a batch looked at at a certain time; one that is being asked about is looked at already."""
        if one.asked:
            return
        one.due_at = at
        heapq.heappush(self._due, (at, one.number, one.key))

    def count_look(self, now: float, *, fruitful: bool) -> None:
        """Take note of a look at one batch, and whether it showed anything new; one poll may look at many."""
        self._looks_since += 1
        if fruitful:
            self._fruitless = 0
        elif now >= self._quiet_until:  # several polls at once that show nothing are one look in vain
            self._fruitless += 1
            self._quiet_until = now + LEAST_SECONDS * 2.0 ** min(self._fruitless, 30)
        self.now = now

    def lengthen_first_wait(self, seconds: float) -> None:
        """Take note that a batch showed nothing for so long, and nothing is known of the service."""
        self._first_wait = min(self.rules.first_seconds, max(self._first_wait, seconds))

    # The dates

    def plan(self, one: PolledBatch) -> None:
        """Foretell when a batch will be done, and queue the look that should find it so."""
        one.aim = 0.0
        if not one.created and self.pace.speed:
            due_at = self._foretell(one)
        elif one.unchanged or not one.created:
            due_at = one.looked_at + self._back_off(one)
        else:
            due_at = self._end_of_rest(one)
        self.queue(one, max(due_at, one.looked_at + (LEAST_SECONDS if one.looks else 0.0)))

    def _foretell(self, one: PolledBatch) -> float:
        """Return when to look at a batch of which nothing was seen yet."""
        pace, before = self.pace, one.after
        seconds = one.count / pace.speed
        one.begun_at = max(one.released_at + pace.start_seconds, before.ends_at if before else 0.0)
        one.ends_at = one.begun_at + seconds
        due_at = one.begun_at + pace.aim * seconds
        if one.unchanged and (before is None or before.done or due_at <= self.now):
            return one.looked_at + self._back_off(one)
        if due_at >= self.now:  # else it is overdue, and that it is done is no news
            one.aim, one.planned_speed = pace.aim, pace.speed
        return due_at

    def _end_of_rest(self, one: PolledBatch) -> float:
        """Return when to look at a batch that was seen under way."""
        rest = one.left / one.speed
        one.ends_at = one.looked_at + rest
        rough = min(0.5, 0.6 / one.created) if one.checked else 0.4
        margin = self.pace.margin if self.rules.together > 1 else _REST_MARGIN
        due_at = one.ends_at + margin * one.count / one.speed - rest * rough
        due_at, one.check_at = min(due_at, one.check_at), float("inf")
        return due_at

    def _back_off(self, one: PolledBatch) -> float:
        """Return how long to wait before another look at a batch that shows nothing."""
        speed = self.pace.speed
        if not one.looks and not speed:
            return min(self._first_wait, self.rules.cap_seconds)
        if not speed:
            quiet = one.looked_at - max(one.quiet_since, one.begun_at)
            return min(max(quiet, self._first_wait), self.rules.cap_seconds)
        again = _AGAIN * one.count / (one.speed or speed) * 2.0 ** min(one.unchanged - 1, 30)
        return min(max(again, LEAST_SECONDS * 2.0 ** min(self._fruitless, 30)), self.rules.cap_seconds)

    def plan_after(self, one: PolledBatch) -> None:
        """Put off, or bring forward, what takes over the lane of a batch."""
        while (follower := one.next) is not None and not follower.done:
            if follower.due_at < float("inf") and not follower.created:
                follower.unchanged = min(follower.unchanged, self._fruitless)
                self.plan(follower)
            one = follower

    def plan_anew(self) -> None:
        """Plan all again if the pace is another; not so often that it would cost more than the looks themselves."""
        if not self.pace.speed or self._looks_since * _LOOKS_PAY < len(self.open):
            return
        pace = self.pace.aim / self.pace.speed
        if abs(pace - self._planned_pace) <= PACE_STEP * pace:
            return
        first, self._planned_pace, self._looks_since = not self._planned_pace, pace, 0
        for one in self.open.values():
            if first:
                one.unchanged = 0  # nobody could tell before when there would be something to see
            if one.due_at < float("inf") and not one.created and not one.unchanged:
                self.plan(one)
