"""Releases and what polls show -> when to ask about which batch. Pure.

A poll costs the service a query, and one that learns nothing helps nobody. So we foretell when each batch will be
done, from what the batches before it have shown: how fast tasks are created, how long after the release that begins,
and on how many batches the service works at once (its lanes). Each is asked about a little after it should be done.

A poll that finds a batch done does not tell for how long it has been. So the aim creeps earlier with every such poll
until one comes too early: that one shows exactly how far the batch is, and costs one poll more. About every fourth
batch pays it, and the median batch is known soon after its end although nobody ever told how fast the service is.

A batch that waits for a lane is not asked about: it has a date only when one of those before it is done. What does
not move although it should is asked about ever less often, and what stands behind it is then looked at all the same.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

_SMOOTHING = 0.4
"""Weight of the newest speed: Vector's `ewma_alpha`, which follows a change within about three polls."""

_FIRST_SHARE = 0.1
"""Of the longest first wait: the first one of all, where nothing is known. The service may be a fast one."""
_MARGIN = 0.05
"""Share of a batch's creation time by which a poll comes later than the end foretold. Half of what is tolerable."""
_MARGIN_TOGETHER = 0.08
"""Likewise where a poll covers many batches: waiting lets more of them finish, and those that have not cost nothing."""
_REST_MARGIN = 0.02
"""Likewise once a poll has shown exactly how far the batch is."""
_CREEP = 0.005
"""The aim moves earlier by this share of the creation time, doubled with each poll in a row that found a batch done."""
_MOST_CREEP = 0.32
_MISSED = 0.07
"""And later by this after one that came too early: what three polls before had won, so one of four misses."""
_MOST_HITS = 5
"""After more polls in a row that found a batch done, we may also err about the lanes."""
_AIMS = (0.3, 2.0)
"""An aim beyond is none any more: then it is the speed that is wrong."""
_SURE_TASKS = 5
"""Fewer tasks created say little of a speed: counts are whole."""
_SURPRISE = 0.35
"""A speed that differs by more is a change of the service, or we err about when the batch was begun."""
_CHECK_SOON = 0.25
"""Of the time between the last two looks: the next, if the batch began in between and no speed is known."""
_WAITED = 0.3
"""A batch begun later than it should have been, by this share of its creation time, stood in line."""
_AGAIN = 0.1
"""Share of the creation time after which to ask again about what should have been done."""
_LEAST_SECONDS = 0.002
"""Between two polls of a batch; a service that creates a task in no time must not be asked in no time."""

_REMEMBERED = 64
"""Batches looked through for what stands ahead of one: more lanes than that are as good as no limit."""
_LOOKS_PAY = 64
"""Batches planned anew for each look since the last time: what a look costs anyway is more."""
_PACE_STEP = 0.02
"""What is foretold to take longer or shorter by less is planned anew when its turn comes."""
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
class CreationSpeed:
    """How fast a service creates tasks, over all batches."""

    tasks_per_second: float = 0.0

    def observe(self, created: int, seconds: float) -> None:
        """Take in that `created` tasks appeared within `seconds`; no time, no news."""
        if seconds <= 0:
            return
        speed = created / seconds
        known = self.tasks_per_second
        self.tasks_per_second = known + _SMOOTHING * (speed - known) if known else speed


@dataclass(slots=True)
class _Watched:
    """What is known of one open batch."""

    number: int
    """Orders batches by their release."""
    key: int
    count: int
    released_at: float
    looked_at: float
    created: int = 0
    speed: float = 0.0
    """Its own, once it was seen under way."""
    begun_at: float = 0.0
    """When it should begin, or was seen to have begun."""
    ends_at: float = float("inf")
    quiet_since: float = 0.0
    """Nothing is known to have moved since."""
    due_at: float = float("inf")
    """When to look next; infinite while it is being asked about, or waits for a lane."""
    looks: int = 0
    unchanged: int = 0
    """Looks in a row that showed nothing new."""
    aim: float = 0.0
    """Of the next look, if it is the first that should find the batch done, so that it says whether the aim is good."""
    planned_speed: float = 0.0
    checked: bool = True
    """What was seen of it is no surprise, or was seen twice."""
    check_at: float = float("inf")
    """When to look again at the latest, for it began at nobody knows what time between two looks."""
    waits: bool = False
    """For a lane."""
    done: bool = False
    after: _Watched | None = None
    """The batch whose lane it takes over."""
    next: _Watched | None = None

    @property
    def left(self) -> int:
        return self.count - self.created


@dataclass(slots=True)
class Outlook:
    """What is known of a service that creates tasks, and the order in which to ask about its open batches."""

    rules: PollRules
    speed: float = 0.0
    """Tasks/s of one batch that is being worked on; 0 while unknown."""
    lanes: float = float("inf")
    """Batches worked on at once."""
    start_seconds: float = 0.0
    """From release to the first task, where nothing stands ahead."""
    _aim: float = 1.0
    _streak: int = 0
    _sure: bool = False
    """A poll has come too early before: until then, the speed is only known not to be lower."""
    _shows: bool = False
    """The service tells how far a batch is, not only that it is done."""
    _first_wait: float = 0.0
    _ended_lately: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _planned_pace: float = 0.0
    _fruitless: int = 0
    """Looks in a row, at whatever batches, that showed nothing new."""
    _looks_since: int = 0
    _number: int = 0
    _now: float = 0.0
    _open: dict[int, _Watched] = field(default_factory=dict)
    _waiting: list[tuple[int, int]] = field(default_factory=list)
    _tails: list[_Watched] = field(default_factory=list)
    """The last batch of each lane, if their number is known."""
    _due: list[tuple[float, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._aim = 1 + self._margin
        self._first_wait = self.rules.first_seconds * _FIRST_SHARE

    @property
    def _margin(self) -> float:
        return _MARGIN if self.rules.together == 1 else _MARGIN_TOGETHER

    def release(self, key: int, count: int, now: float) -> None:
        """Watch a batch of `count` tasks from now on."""
        self._now = now
        self._number += 1
        one = self._open[key] = _Watched(self._number, key, count, now, now, quiet_since=now)
        if self.lanes == float("inf"):
            self._plan(one)
        else:
            self._wait(one)

    def forget(self, key: int, now: float) -> None:
        """Watch a batch no longer: its fate is known, or it will not be."""
        one = self._open.pop(key)
        one.due_at = float("inf")
        if not one.done:  # given up: its lane is free as far as anybody can tell
            one.done, one.ends_at = True, now
            self._plan_after(one)

    def next_due(self) -> float:
        """Return when the next look is due; infinite if all open batches are being asked about."""
        self._fill_lanes()
        one = self._first()
        return one.due_at if one else float("inf")

    def take(self, now: float) -> list[int]:
        """Take the batches out of the queue that the next poll is about: those due, and others that fit beside them."""
        self._fill_lanes()
        taken: list[int] = []
        while len(taken) < self.rules.together and (one := self._first()) and (taken or one.due_at <= now + _TICK):
            heapq.heappop(self._due)
            one.due_at = float("inf")
            taken.append(one.key)
        return taken

    def ask_again(self, key: int, at: float) -> None:
        """Have a batch asked about again at a certain time: the answer about it was none."""
        one = self._open[key]
        one.aim = 0.0
        self._queue(one, at)

    def saw(self, key: int, now: float, created: int, *, finished: bool) -> None:
        """Take in what a look at a batch showed."""
        one = self._open[key]
        self._now = now
        one.looks += 1
        self._looks_since += 1
        self._fruitless = 0 if finished or created > one.created else self._fruitless + 1
        if finished:
            if not one.done:
                self._ended(one, now)
                self._plan_anew()
            return
        gained = created - one.created
        one.unchanged = 0 if gained > 0 else one.unchanged + 1
        if gained > 0:
            self._moved(one, now, created)
        else:
            self._stood(one, now)
        one.looked_at, one.created = now, created
        if gained > 0:
            one.quiet_since = now
        if one.created:
            one.waits = False
        if not one.waits:
            self._plan(one)
        self._plan_after(one)
        self._plan_anew()

    # What a look teaches

    def _ended(self, one: _Watched, now: float) -> None:
        """Find when it may have ended between the look before and this one."""
        begun = max(one.begun_at, one.released_at)
        if not self.speed:
            # Between the look before and this one; what the truth is, the aim finds out.
            seconds = max(now - begun, _LEAST_SECONDS)
            known = one.looked_at - begun
            self.speed = one.count / ((seconds * known) ** 0.5 if known > 0 else seconds)
            self._sure = known > 0
        elif one.aim:
            self._hit(one)
        one.done, one.waits, one.after = True, False, None
        one.ends_at = min(max(one.ends_at, one.looked_at), now)
        self._ended_lately.append((one.number, one.ends_at))
        self._plan_after(one)

    def _moved(self, one: _Watched, now: float, created: int) -> None:
        """Learn from a batch that is under way."""
        self._shows = True
        since, gained = now - one.looked_at, created - one.created
        pair = one.created > 0 and since > 0 and gained >= min(_SURE_TASKS, one.count / 10)
        begun = max(one.begun_at, one.released_at)
        if not one.created and one.looks > 1:
            begun = max(begun, one.looked_at)  # there was nothing then
        seen = gained / since if pair else created / max(now - begun, 1e-6)
        rough, known = created < _SURE_TASKS and not pair, self.speed
        surprise = known > 0 and abs(seen / known - 1) > _SURPRISE and not rough
        one.checked = pair or rough or (known > 0 and not surprise)
        one.speed = seen
        if known and (rough or (surprise and not pair and now - created / known >= one.released_at)):
            one.speed = known  # it is likelier that it began at another time than that the service is another
        self._take_speed(seen, rough=rough, surprise=surprise, pair=pair)
        if one.aim and not (surprise and not pair):
            self._missed(one)
        began = now - created / one.speed
        self._place(one, began, now, steady=pair or (known > 0 and self._sure and not rough))
        one.begun_at = began
        if not known and one.looks > 1:
            one.check_at = now + (now - one.looked_at) * _CHECK_SOON

    def _take_speed(self, seen: float, *, rough: bool, surprise: bool, pair: bool) -> None:
        if not self.speed or (not rough and (not self._sure or (pair and surprise))):
            self.speed, self._aim, self._streak = seen, 1 + self._margin, 1
        elif not rough and not surprise:
            self.speed += _SMOOTHING * (seen - self.speed)
        self._sure = self._sure or pair

    def _place(self, one: _Watched, began: float, now: float, *, steady: bool) -> None:
        """Learn from when a batch began how long a start takes and how many lanes there are."""
        running = sum(1 for other in self._active() if other.created and other.ends_at > now and other is not one) + 1
        seconds = one.count / one.speed
        late = began - one.released_at - self.start_seconds
        stood = self._stood_behind(one)
        if self.lanes < running:
            self._set_lanes(running)
        elif not steady:
            return
        elif self.lanes == float("inf") and late > _WAITED * seconds and self._took_over(one, began, seconds):
            one.begun_at, one.created = began, max(one.created, 1)
            self._set_lanes(max(1, self._ahead(one, began - _MARGIN * seconds)))
        elif self.lanes < float("inf") and began < one.begun_at - _WAITED * seconds and one.after:
            self._set_lanes(self.lanes + 1)
        elif not stood:
            far = abs(late) > _WAITED * seconds or not self.start_seconds
            self.start_seconds = max(0.0, self.start_seconds + late * (1 if far else _SMOOTHING))

    def _stood(self, one: _Watched, now: float) -> None:
        """Learn from a batch of which nothing new was seen."""
        if not self.speed:
            self._first_wait = min(self.rules.first_seconds, max(self._first_wait, now - one.released_at))
            return
        if one.created:
            return
        if now < one.begun_at:
            one.unchanged = 0  # it rode along; nothing was to be seen yet
            return
        before = one.after
        if before is not None and not before.done:
            if before.due_at < float("inf") and before.looked_at < now - max(
                _LEAST_SECONDS, _PACE_STEP * before.count / self.speed
            ):
                before.aim = 0.0
                self._queue(before, now)  # it is the one that keeps this one waiting, and knows for how long
            return
        ahead = self._ahead(one, now) if self._shows else 0
        late = now - one.released_at - 1.1 * self.start_seconds
        if self._sure and 0 < ahead < self.lanes and late * self.speed >= max(1.0, _WAITED * one.count):
            self._set_lanes(ahead)
        elif one.aim:
            self._came_too_early(one, now)
        if one.unchanged > 1 and one in self._tails:
            self._tails.remove(one)  # it hangs, and must not keep the others from being asked about

    def _came_too_early(self, one: _Watched, now: float) -> None:
        """Learn from a batch that should have been done and of which nothing is there."""
        if self._shows and self._sure:
            if not self._stood_behind(one):
                self.start_seconds = max(self.start_seconds, now - one.released_at)
            return
        self.speed = min(self.speed, one.count / max(now - one.begun_at, _LEAST_SECONDS))
        self._sure = True
        self._missed(one)

    def _stood_behind(self, one: _Watched) -> bool:
        """Tell whether others were being worked on when a batch could have begun."""
        return self._ahead(one, one.released_at + self.start_seconds) > 0

    def _took_over(self, one: _Watched, began: float, seconds: float) -> bool:
        """Tell whether a batch began when another one ended, as it does where it waits for that."""
        near = _WAITED * seconds / 2
        return any(
            number < one.number and abs(ends_at - began) <= near for number, ends_at in self._ended_lately
        ) or any(
            other.number < one.number and abs(other.ends_at - began) <= near
            for other in islice(self._open.values(), _REMEMBERED)
        )

    def _ahead(self, one: _Watched, at: float) -> int:
        """Count batches released earlier that the service was at work on at that time."""
        count = sum(1 for number, ends_at in self._ended_lately if number < one.number and ends_at > at)
        for other in islice(self._open.values(), _REMEMBERED):
            if other is one:
                break
            if not other.done and other.ends_at > at and (other.created or not other.unchanged):
                count += 1
        return count

    def _active(self) -> Iterator[_Watched]:
        """Yield what is in a lane; nothing where they are without number, for nobody asks then."""
        if self.lanes < float("inf"):
            yield from (one for one in self._tails if not one.done)

    def _hit(self, one: _Watched) -> None:
        """Aim earlier, unless the look was planned when the aim was another: many may be under way at once."""
        if (
            self.rules.together > 1
            or one.aim > self._aim + _PACE_STEP
            or one.planned_speed * (1 + _MARGIN) < self.speed
        ):
            return  # and what rides along shows how far it is: no need to come too early
        if not self._sure:
            self.speed *= 2
            return
        self._streak += 1
        if self._streak > _MOST_HITS and self.lanes < float("inf"):
            self.speed /= self._aim
            self._streak, self._aim = 0, 1 + self._margin
            self._set_lanes(float("inf"))  # what is overdue is looked at, and tells how many there are
            return
        self._set_aim(self._aim - min(_MOST_CREEP, _CREEP * 2**self._streak) * min(1.0, self._aim))

    def _missed(self, one: _Watched) -> None:
        if self.rules.together == 1 and one.aim >= self._aim - _PACE_STEP:
            self._set_aim(self._aim + _MISSED)
        self._streak = 0

    def _set_aim(self, aim: float) -> None:
        self._aim = aim
        if not _AIMS[0] <= aim <= _AIMS[1]:
            self.speed /= aim
            self._aim = 1.0

    # When to look

    def _plan(self, one: _Watched) -> None:
        """Foretell when a batch will be done, and queue the look that should find it so."""
        one.aim = 0.0
        if not one.created and self.speed:
            due_at = self._foretell(one)
        elif one.unchanged or not one.created:
            due_at = one.looked_at + self._back_off(one)
        else:
            due_at = self._end_of_rest(one)
        self._queue(one, max(due_at, one.looked_at + (_LEAST_SECONDS if one.looks else 0.0)))

    def _foretell(self, one: _Watched) -> float:
        """Return when to look at a batch of which nothing was seen yet."""
        seconds, before = one.count / self.speed, one.after
        one.begun_at = max(one.released_at + self.start_seconds, before.ends_at if before else 0.0)
        one.ends_at = one.begun_at + seconds
        due_at = one.begun_at + self._aim * seconds
        if one.unchanged and (before is None or before.done or due_at <= self._now):
            return one.looked_at + self._back_off(one)
        if due_at >= self._now:  # else it is overdue, and that it is done is no news
            one.aim, one.planned_speed = self._aim, self.speed
        return due_at

    def _end_of_rest(self, one: _Watched) -> float:
        """Return when to look at a batch that was seen under way."""
        rest = one.left / one.speed
        one.ends_at = one.looked_at + rest
        rough = min(0.5, 0.6 / one.created) if one.checked else 0.4
        margin = self._margin if self.rules.together > 1 else _REST_MARGIN
        due_at = one.ends_at + margin * one.count / one.speed - rest * rough
        due_at, one.check_at = min(due_at, one.check_at), float("inf")
        return due_at

    def _back_off(self, one: _Watched) -> float:
        if not one.looks and not self.speed:
            return min(self._first_wait, self.rules.cap_seconds)
        quiet = one.looked_at - max(one.quiet_since, one.begun_at)
        if not self.speed:
            return min(max(quiet, self._first_wait), self.rules.cap_seconds)
        again = _AGAIN * one.count / (one.speed or self.speed) * 2.0 ** min(one.unchanged - 1, 30)
        return min(max(again, _LEAST_SECONDS * 2.0 ** min(self._fruitless, 30)), self.rules.cap_seconds)

    def _plan_after(self, one: _Watched) -> None:
        """Put off, or bring forward, what takes over the lane of a batch."""
        while (follower := one.next) is not None and not follower.done:
            if follower.due_at < float("inf") and not follower.created:
                follower.unchanged = min(follower.unchanged, self._fruitless)
                self._plan(follower)
            one = follower

    def _plan_anew(self) -> None:
        """Plan all again if the speed is another; not so often that it would cost more than the looks themselves."""
        if not self.speed or self._looks_since * _LOOKS_PAY < len(self._open):
            return
        pace = self._aim / self.speed
        if abs(pace - self._planned_pace) <= _PACE_STEP * pace:
            return
        first, self._planned_pace, self._looks_since = not self._planned_pace, pace, 0
        for one in self._open.values():
            if first:
                one.unchanged = 0  # nobody could tell before when there would be something to see
            if one.due_at < float("inf") and not one.created and not one.unchanged:
                self._plan(one)

    def _set_lanes(self, lanes: float) -> None:
        """Deal the open batches to so many lanes: those under way stay, the others wait."""
        self.lanes = lanes
        self._tails, self._waiting = [], []
        for one in self._open.values():
            one.after = one.next = None
            if one.done:
                continue
            if one.created or (len(self._tails) < lanes and not one.unchanged):
                self._tails.append(one)
                if one.waits:
                    one.waits = False
                    self._plan(one)
            else:
                self._wait(one)

    def _wait(self, one: _Watched) -> None:
        one.waits, one.due_at, one.unchanged = True, float("inf"), 0
        heapq.heappush(self._waiting, (one.number, one.key))

    def _fill_lanes(self) -> None:
        """Give the batches that wait the lanes that will be free before the next look."""
        while self._waiting:
            one = self._open.get(self._waiting[0][1])
            if one is None or not one.waits:
                heapq.heappop(self._waiting)
                continue
            tail = min(self._tails, key=lambda one: one.ends_at) if len(self._tails) >= self.lanes else None
            first = self._first()
            if tail is not None and not tail.done and (first is None or tail.ends_at > first.due_at):
                return
            heapq.heappop(self._waiting)
            one.waits = False
            if tail is not None:
                self._tails.remove(tail)
                one.after, tail.next = tail, one
            self._tails.append(one)
            self._plan(one)

    def _queue(self, one: _Watched, at: float) -> None:
        one.due_at = at
        heapq.heappush(self._due, (at, one.number, one.key))

    def _first(self) -> _Watched | None:
        while self._due:
            at, _, key = self._due[0]
            one = self._open.get(key)
            if one is not None and one.due_at == at:
                return one
            heapq.heappop(self._due)
        return None
