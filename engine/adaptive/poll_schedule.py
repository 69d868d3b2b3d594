"""Releases and what polls show -> when to ask about which batch. Pure; `run.poller` feeds it and asks it.

A poll costs the service a query, and one that learns nothing helps nobody. So each batch is asked about a little after
it should be done. When that is follows from three figures, which earlier polls have shown:

    speed           tasks/s of one batch that is being created
    start_seconds   from a release to the first task, where nothing stands ahead
    workers         batches that the service creates at once; the others wait in line, first come, first served

While no speed is known, the oldest batch is asked about alone. If a poll about it fails, the next one is, too: what a
service does not tell of one batch, it may tell of the others.

From these, one pass over the open batches foretells when each ends. A poll that finds a batch done does not tell for
how long it has been. So each such poll moves the next ones a little earlier, until one comes too early: that one shows
how far its batch is, and costs one poll more. Every second or third batch pays it.

A service may also tell of tasks unasked (callbacks). While it goes on telling of a batch, that is not asked about; when
it has told of as many tasks as the batch has, at once. What it tells may be late, doubled, lost or untrue: so silence
ends the waiting, at the latest `most_seconds` after the date that is foretold, and a batch about which it was wrong
twice is asked about as if nothing were told.

Invariant: a batch that is not being asked about has a date, or waits for one that has. What does not move although it
should is asked about ever less often: the oldest when it is late by a quarter more, the others by twice as much.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import chain

from msgspec import Struct

_INFINITE = float("inf")

_MARGIN = 0.03  # share of its creation time by which a batch is asked about later than it should be done; so, too:
_MARGIN_TOGETHER = 0.08  # likewise where a poll covers many: waiting lets more finish, and the others cost nothing
_AGAIN = 0.1  # after which we ask again about what should have been done
_WAITED = 0.3  # by which it has begun late, and not by chance
_STEP, _MOST_STEPS = 0.015, 5
"""The speed is taken to be higher by this share after a poll that found a batch done, doubled with each one in a row.
After so many in a row it is rather the number of workers that is wrong."""
_SMOOTHING = 0.4  # weight of the newest speed: Vector's `ewma_alpha`, which follows a change within about three polls
_SURPRISE = 0.35  # one look that differs by more from the known speed shows a late begin rather than another speed
_SURE_TASKS, _SOON_TASKS = 5, 10  # fewer say little of a speed, for counts are whole; to measure it we wait for ten
_HANGS = 4  # looks that showed nothing new, after which a batch no longer counts as one that is being created
_MOST_WORKERS = 64  # more are as good as no limit
_FIRST_SHARE = 0.1  # of `first_seconds`: when the first batch of all is asked about, for the service may be a fast one
_LEAST_SECONDS = 0.002  # between two polls of a batch, however fast the service
_MOST_UNTRUE = 2  # times that a batch was told to be done and was not
_TICK = 1e-6  # seconds that are no difference: clocks are floats


class PolledBatch(Struct):
    """What is known of one open batch; times are those of the monotonic clock."""

    number: int  # in the order of releases
    count: int
    released_at: float
    looked_at: float
    begins_at: float = 0.0  # foretold, as the next two are, until some of it was seen
    ends_at: float = 0.0
    seconds: float = 0.0  # from begin to end
    created: int = 0
    seen: int = 0  # how much was created when some of it was first seen
    seen_at: float = 0.0
    in_vain: int = 0  # looks in a row that showed nothing new
    asked: bool = False  # it is being asked about
    ask_at: float | None = None  # when to ask, whatever is foretold
    passed_at: float | None = None  # the newest poll failed: from then on the next one is asked about beside it
    told: int = 0  # tasks of which callbacks have told
    told_before: int = 0  # likewise, when it was asked about last
    told_from: float = 0.0  # the first one that came, and the newest
    told_at: float = 0.0
    told_last: int = 0  # tasks of the newest one
    untrue: int = 0  # times that all was told, and a look showed that it was not so

    @property
    def is_late(self) -> bool:
        """Whether it should have been done when it was looked at."""
        return self.in_vain > 0 and self.looked_at >= self.ends_at


class PollSchedule:
    """What is known of a service that creates tasks, and when to ask about each of its open batches."""

    def __init__(self, first_seconds: float = 0.5, most_seconds: float = 30.0, together: int = 1) -> None:
        """Wait for `first_seconds` at most while nothing is known, and for `most_seconds` where nothing moves."""
        self.speed = _INFINITE  # while unknown
        self.start_seconds = 0.0
        self.workers = _INFINITE  # as long as no batch was seen to wait
        self._first_wait, self._longest_wait, self._together = first_seconds * _FIRST_SHARE, most_seconds, together
        self._margin = _MARGIN if together == 1 else _MARGIN_TOGETHER
        self._sure = False  # the speed was measured; before, it is only known not to be lower
        self._shows = False  # the service tells how far a batch is, not only that it is done
        self._steps = 0
        self._moved_at = self._polled_at = -_INFINITE  # when a look showed something new; when the last poll was sent
        self._told_at = -_INFINITE  # when a callback has told of any batch
        self._number = 0
        self._fewest = _INFINITE  # tasks of the smallest batch
        self._alone: dict[int, PolledBatch] = {}  # their dates do not depend on others
        self._in_line: dict[int, PolledBatch] = {}  # the others, by their release
        self._ended: deque[PolledBatch] = deque(maxlen=_MOST_WORKERS)  # the newest
        self._first: float | None = None  # the earliest date of all; None if they must be foretold anew

    def release(self, key: int, count: int, now: float) -> None:
        """Watch a batch of `count` tasks from now on."""
        self._number += 1
        self._fewest = min(self._fewest, count)
        batch = self._in_line[key] = PolledBatch(self._number, max(1, count), now, now)
        if self._first is not None and self.workers == _INFINITE and self.speed < _INFINITE:  # it waits for no other
            batch.begins_at, batch.seconds = now + self.start_seconds, batch.count / self.speed
            batch.ends_at = batch.begins_at + batch.seconds
            self._first = min(self._first, self._due(batch, oldest=False, still=False))
        else:
            self._first = None

    def forget(self, key: int, now: float) -> None:
        """Watch a batch no longer: its fate is known, or it will not be."""
        batch = self._alone.pop(key, None) or self._in_line.pop(key, None)
        if batch is not None:
            batch.ends_at = min(batch.ends_at, now)
            self._ended.append(batch)
            self._first = None

    def ask_again(self, key: int, at: float, now: float) -> None:
        """Have a batch asked about again at a certain time: the poll failed, or said nothing of it."""
        batch = self._find(key, alone=True)
        batch.asked, batch.ask_at, batch.passed_at = False, at, now + self._first_wait
        self._first = None

    def hear(self, key: int, tasks: int, now: float) -> bool:
        """Take in that the service tells, unasked, of so many more tasks of a batch; return whether that were all."""
        batch = self._find(key, alone=True)
        if not batch.told:
            batch.told_from = now
        batch.told, batch.told_last = batch.told + tasks, tasks
        batch.told_at = self._told_at = now
        all_told = batch.told >= batch.count and batch.untrue < _MOST_UNTRUE
        if all_told:  # else nothing is due sooner, and `take` looks again
            self._first = None
        return all_told

    def next_due(self) -> float:
        """Return when the next poll is due; infinite if all open batches are being asked about."""
        if self._first is None:
            self._first = next((due for due, _, _ in self._plan(1)), _INFINITE)
        measured = self._together > 1 and self.speed < _INFINITE
        pause = self._margin * self._fewest / self.speed if measured else 0.0  # more fit into the next one
        return max(self._first, self._polled_at + pause)

    def take(self, now: float) -> Sequence[int]:
        """Take the batches that the next poll is about, if it is due: up to `together`, those due first."""
        if self.next_due() > now + _TICK:
            return []
        dates = self._plan(self._together + (self._together > 1))  # one more, which is due first then
        if dates and dates[0][0] > now + _TICK:  # it was put off: the service tells of it
            self._first = dates[0][0]
            return []
        keys = [key for due, _, key in dates[: self._together] if due < _INFINITE]
        for key in keys:
            batch = self._find(key)
            batch.asked, batch.ask_at, batch.told_before = True, None, batch.told
        self._polled_at = now
        self._first = None if self._together == 1 else (*(due for due, _, _ in dates[self._together :]), _INFINITE)[0]
        return keys

    def saw(self, key: int, now: float, created: int, *, finished: bool) -> None:
        """Take in what a look at a batch showed; a finished one is not asked about unless `ask_again` is called."""
        batch, self._first = self._find(key), None
        batch.asked, batch.passed_at = finished, None
        told_all = batch.told_before >= batch.count and batch.untrue < _MOST_UNTRUE
        if batch.told and not finished:
            batch.untrue += told_all
            batch.told = created + batch.told - batch.told_before  # what a look shows is so
        if finished and told_all and self.speed < _INFINITE:
            batch.ends_at = min(batch.ends_at, now)  # that it is done now says nothing of how well it was foretold
        elif finished:
            self._learn_from_end(batch, now)
            batch.ends_at = min(max(batch.ends_at, batch.looked_at), now)
        elif created > batch.created:
            self._learn_from_progress(self._find(key, alone=True), now, created)
        else:
            batch.in_vain += 1
            self._learn_from_nothing(batch, now)
        if finished or created > batch.created:
            self._moved_at = max(self._moved_at, now)
        batch.looked_at, batch.created = now, created

    def _find(self, key: int, *, alone: bool = False) -> PolledBatch:
        if alone and key in self._in_line:
            self._alone[key] = self._in_line.pop(key)
        return self._alone.get(key) or self._in_line[key]

    def _plan(self, most: int) -> Sequence[tuple[float, int, int]]:
        """Foretell the open batches; return date, number and key of those to ask about first."""
        free, shortest = self._free_workers(), (1 + self._margin) * self._fewest / self.speed
        dates: list[tuple[float, int, int]] = []
        first, oldest, still = _INFINITE, True, False
        for key, batch in chain(self._alone.items(), self._in_line.items()):
            begins_at = max(batch.released_at + self.start_seconds, free[0] if free else -_INFINITE)
            if most == 1 and not still and begins_at + shortest >= first and key in self._in_line:
                break  # neither it nor what comes after is due first: there may be thousands
            if not batch.created and not batch.asked:
                batch.begins_at, batch.seconds = begins_at, batch.count / self.speed
                batch.ends_at = begins_at + batch.seconds
            if free and batch.in_vain <= _HANGS:
                heapq.heapreplace(free, self._frees_at(batch))
            if oldest and batch.is_late:
                still = self._moved_at <= batch.ends_at < batch.looked_at - max(self._longest_wait, batch.seconds) / 2
            if not batch.asked:
                dates.append((self._due(batch, oldest=oldest, still=still), batch.number, key))
                first = min(first, dates[-1][0])
            oldest = oldest and batch.passed_at is not None
        return heapq.nsmallest(most, dates)

    def _frees_at(self, batch: PolledBatch) -> float:
        """Return when a batch leaves its worker to the next one; infinite if that depends on a poll."""
        if self.speed < _INFINITE:
            return max(batch.ends_at, batch.looked_at)
        return _INFINITE if batch.passed_at is None else batch.passed_at

    def _free_workers(self) -> list[float]:
        """Return as a heap when each worker is free; nothing if they have no end. Until a speed is known, try one."""
        if self.workers == _INFINITE and self.speed < _INFINITE:
            return []
        workers = int(self.workers) if self.speed < _INFINITE else self._together
        ends = sorted(batch.ends_at for batch in self._ended)[-workers:]
        return [-_INFINITE] * (workers - len(ends)) + ends

    def _due(self, batch: PolledBatch, *, oldest: bool, still: bool) -> float:
        if batch.ask_at is not None:
            return batch.ask_at
        due = self._foretold(batch, oldest=oldest, still=still)
        if self._told_at == -_INFINITE or batch.untrue >= _MOST_UNTRUE:
            return due
        if batch.told >= batch.count:
            return batch.told_at
        since, told_at = batch.told_from, batch.told_at
        if not batch.told:  # but of others: it is not begun, it seems
            since, told_at = batch.released_at, self._told_at
        lately = max(_AGAIN * batch.count, 2 * batch.told_last) / self.speed  # bodies come unevenly, or many at once
        silence = max(_AGAIN * (told_at - since), lately, _LEAST_SECONDS)
        return max(due, min(told_at + silence, due + self._longest_wait))

    def _foretold(self, batch: PolledBatch, *, oldest: bool, still: bool) -> float:
        if batch.is_late:
            late = batch.looked_at - batch.ends_at
            wait = max(_AGAIN * batch.seconds, late / 4 if oldest else late, _LEAST_SECONDS)
            return batch.looked_at + min(wait, self._longest_wait)
        soonest = batch.looked_at + (_LEAST_SECONDS if self.speed < _INFINITE else self._first_wait)
        latest = batch.looked_at + self._longest_wait if still else _INFINITE
        return max(min(batch.ends_at + self._margin * batch.seconds, latest), soonest)

    def _learn_from_end(self, batch: PolledBatch, now: float) -> None:
        """Learn from a batch that is done: it ended between the look before and this one."""
        if self.speed == _INFINITE or (batch.created and not self._sure):
            least = (batch.count - batch.created) / max(now - batch.looked_at, _LEAST_SECONDS)
            self.speed = max(least, self.speed if self.speed < _INFINITE else 0.0)
        elif batch.is_late and not self._shows:
            most = batch.count / max(batch.looked_at - batch.begins_at, _LEAST_SECONDS)
            self.speed += _SMOOTHING * min(0.0, most - self.speed)
            self._sure = True
        elif batch.created or batch.is_late or (self._together > 1 and self._shows):
            pass  # it was foretold from a look at itself; and what rides along shows how far it is
        elif now > batch.ends_at + (self._margin + 2 * _AGAIN) * batch.seconds:
            pass  # it was overdue: that it is done is no news
        elif self._sure and self._steps < _MOST_STEPS:
            self.speed *= 1 + _STEP * 2**self._steps
            self._steps += 1
        else:  # far faster, or there are more workers: then what is overdue is asked about, and tells how many
            self.speed, self._steps, self.workers = 2 * self.speed, 0, _INFINITE

    def _learn_from_progress(self, batch: PolledBatch, now: float, created: int) -> None:
        """Learn from a batch under way how fast it is, and from that when it began."""
        first = not batch.created
        if first:
            self._steps, batch.seen_at, batch.seen = 0, now, created
        if not self._shows:  # what was learned before took silence for slowness
            self._shows, self._sure = True, False
            speed = self.speed = created / max(now - batch.looked_at, _LEAST_SECONDS)
        elif created - batch.seen >= min(_SURE_TASKS, batch.count / 10):  # two looks saw it under way
            speed = (created - batch.seen) / max(now - batch.seen_at, _TICK)
            usual = self._sure and abs(speed / self.speed - 1) <= _SURPRISE
            self.speed += (_SMOOTHING if usual else 1) * (speed - self.speed)
            self._sure = True
        else:
            speed = created / max(now - batch.begins_at, _LEAST_SECONDS)
            if created < _SURE_TASKS or abs(speed / self.speed - 1) > _SURPRISE:
                speed = self.speed
            self.speed += _SMOOTHING * (speed - self.speed)
        seconds, began = batch.count / speed, now - created / speed
        late = began - batch.released_at - self.start_seconds
        if self._sure and late > _WAITED * seconds and not self._count_ahead(batch, began - 0.1 * seconds):
            self.start_seconds += late
        batch.in_vain, batch.begins_at, batch.seconds, batch.ends_at = 0, began, seconds, began + seconds
        if first and not self._sure:
            batch.ask_at = now + min(_SOON_TASKS / speed, batch.ends_at - now)

    def _learn_from_nothing(self, batch: PolledBatch, now: float) -> None:
        """Learn from a batch that should be under way and is not: others stand ahead of it, or a start takes longer."""
        if not self._shows:
            self._steps = 0
            if now > batch.begins_at and not self._sure and self.speed < _INFINITE and batch.in_vain == 1:
                self.speed = min(self.speed, batch.count / (now - batch.begins_at))
        elif not batch.created and (now - batch.begins_at) * self.speed >= max(1.0, _WAITED * batch.count):
            if ahead := self._count_ahead(batch, now):
                self.workers = min(ahead, self.workers)
            elif batch.in_vain == 1:  # once: else it would never be late, and be asked about all the time
                self.start_seconds = max(self.start_seconds, now - batch.released_at)

    def _count_ahead(self, batch: PolledBatch, at: float) -> float:
        """Count the batches released earlier that were being created at a time; infinite if there are very many."""
        count = 0
        for other in chain(self._ended, self._alone.values(), self._in_line.values()):
            works = other.begins_at <= at < other.ends_at and (other.created or other.in_vain <= 1)
            count += works and other.number < batch.number
        return count if count < _MOST_WORKERS else _INFINITE
