"""Releases and what polls show -> when to ask about which batch. Pure.

A poll costs the service a query, and one that learns nothing helps nobody. So we foretell when each batch will be
done, from what the batches before it have shown, and ask a little after that:

    pace        how fast tasks are created, how long after a release that begins, and how close to the end to aim
    lanes       on how many batches the service works at once, and which of them wait
    timetable   from these, the date of the next look at each batch

Here is what a look teaches: each is held against what was foretold, and where they differ, it says which of the three
was wrong. Nothing moves until others are done? Then there are fewer lanes. It began late although nothing stood ahead?
Then starts take longer. It is further, or less far, than it should be? Then the speed is another.

What does not move although it should is asked about ever less often, and what stands behind it is then looked at all
the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.adaptive.poll_batch import PolledBatch
from engine.adaptive.poll_lanes import WAITED, Lanes
from engine.adaptive.poll_pace import LEAST_SECONDS, MARGIN, PACE_STEP, Pace, Sighting
from engine.adaptive.poll_times import PollRules, PollTimes

_SURE_TASKS = 5
"""Fewer tasks created say little of a speed: counts are whole."""
_CHECK_SOON = 0.25
"""Of the time between the last two looks: the next, if the batch began in between and no speed is known."""


class PollSchedule:
    """What is known of a service that creates tasks, and the order in which to ask about its open batches."""

    def __init__(self, rules: PollRules) -> None:
        self._open: dict[int, PolledBatch] = {}
        self._number = 0
        self._shows = False
        """The service tells how far a batch is, not only that it is done."""
        self._pace = Pace(rules.together)
        self._lanes = Lanes(self._open)
        self._times = PollTimes(rules, self._pace, self._open)

    @property
    def speed(self) -> float:
        """Tasks/s of one batch that is being worked on; 0 while unknown."""
        return self._pace.speed

    @property
    def start_seconds(self) -> float:
        """From release to the first task, where nothing stands ahead."""
        return self._pace.start_seconds

    @property
    def lanes(self) -> float:
        """Batches worked on at once; infinite as long as none was seen to wait."""
        return self._lanes.number

    def release(self, key: int, count: int, now: float) -> None:
        """Watch a batch of `count` tasks from now on."""
        self._times.now = now
        self._number += 1
        one = self._open[key] = PolledBatch(self._number, key, count, now, now, quiet_since=now)
        if self._lanes.known:
            self._lanes.wait(one)
        else:
            self._times.plan(one)

    def forget(self, key: int, now: float) -> None:
        """Watch a batch no longer: its fate is known, or it will not be."""
        one = self._open.pop(key)
        one.due_at = float("inf")
        if not one.done:  # given up: its lane is free as far as anybody can tell
            one.done, one.ends_at = True, now
            self._times.plan_after(one)

    def next_due(self) -> float:
        """Return when the next look is due; infinite if all open batches are being asked about."""
        self._fill_lanes()
        one = self._times.first()
        return one.due_at if one else float("inf")

    def take(self, now: float) -> Sequence[int]:
        """Take the batches out of the queue that the next poll is about: those due, and others that fit beside them."""
        self._fill_lanes()
        return self._times.take(now)

    def ask_again(self, key: int, at: float) -> None:
        """Have a batch asked about again at a certain time: the answer about it was none."""
        one = self._open[key]
        one.asked, one.aim = False, 0.0
        self._times.queue(one, at)

    def saw(self, key: int, now: float, created: int, *, finished: bool) -> None:
        """Take in what a look at a batch showed."""
        one = self._open[key]
        one.asked = False
        one.looks += 1
        gained = created - one.created
        self._times.count_look(now, fruitful=finished or gained > 0)
        if finished:
            if not one.done:
                self._ended(one, now)
                self._times.plan_anew()
            return
        if gained > 0:
            one.unchanged, one.quiet_since = 0, now
            self._moved(one, now, created)
        else:
            one.unchanged += 1
            self._stood(one, now)
        one.looked_at, one.created = now, created
        if one.created:
            one.waits = False
        if not one.waits:
            self._times.plan(one)
        self._times.plan_after(one)
        self._times.plan_anew()

    def _fill_lanes(self) -> None:
        """Give the batches that wait the lanes that will be free before the next look."""
        while (one := self._lanes.admit(self._times.first())) is not None:
            self._times.plan(one)

    def _set_lanes(self, number: float) -> None:
        for one in self._lanes.set_number(number):
            self._times.plan(one)

    # A batch is done

    def _ended(self, one: PolledBatch, now: float) -> None:
        if not self._pace.speed:
            self._pace.take_first(one, now)
        elif one.aim and self._pace.hit(one, lanes_known=self._lanes.known):
            self._set_lanes(float("inf"))  # what is overdue is looked at, and tells how many there are
        one.done, one.waits, one.after = True, False, None
        one.ends_at = min(max(one.ends_at, one.looked_at), now)
        self._lanes.ended(one)
        self._times.plan_after(one)

    # A batch is under way

    def _moved(self, one: PolledBatch, now: float, created: int) -> None:
        self._shows = True
        known = self._pace.speed
        seen = self._sight(one, now, created)
        one.checked = seen.pair or seen.rough or (known > 0 and not seen.surprise)
        one.speed = seen.speed
        unlikely = seen.surprise and not seen.pair
        if known and (seen.rough or (unlikely and now - created / known >= one.released_at)):
            one.speed = known  # it is likelier that it began at another time than that the service is another
        self._pace.take(seen)
        if one.aim and not unlikely:
            self._pace.missed(one)
        began = now - created / one.speed
        steady = seen.pair or (known > 0 and self._pace.sure and not seen.rough)
        self._place(one, began, now, steady=steady)
        one.begun_at = began
        if not known and one.looks > 1:
            one.check_at = now + (now - one.looked_at) * _CHECK_SOON

    def _sight(self, one: PolledBatch, now: float, created: int) -> Sighting:
        """Return how fast a batch is created: between two looks at best, else since it may have begun."""
        since, gained = now - one.looked_at, created - one.created
        pair = one.created > 0 and since > 0 and gained >= min(_SURE_TASKS, one.count / 10)
        begun = one.earliest
        if not one.created and one.looks > 1:
            begun = max(begun, one.looked_at)  # there was nothing then
        speed = gained / since if pair else created / max(now - begun, 1e-6)
        rough = created < _SURE_TASKS and not pair
        return Sighting(speed, rough, pair, surprise=self._pace.surprises(speed) and not rough)

    def _place(self, one: PolledBatch, began: float, now: float, *, steady: bool) -> None:
        """Learn from when a batch began how long a start takes and how many lanes there are."""
        lanes, pace = self._lanes, self._pace
        running = lanes.running(now, but=one) + 1
        seconds = one.count / one.speed
        late = began - one.released_at - pace.start_seconds
        stood = self._stood_behind(one)
        if lanes.number < running:
            self._set_lanes(running)
        elif not steady:
            return
        elif not lanes.known and late > WAITED * seconds and lanes.took_over(one, began, seconds):
            one.begun_at, one.created = began, max(one.created, 1)
            self._set_lanes(max(1, lanes.ahead(one, began - MARGIN * seconds)))
        elif lanes.known and began < one.begun_at - WAITED * seconds and one.after:
            self._set_lanes(lanes.number + 1)
        elif not stood:
            far = abs(late) > WAITED * seconds or not pace.start_seconds
            pace.take_start(late, far=far)

    # Nothing new was seen of a batch

    def _stood(self, one: PolledBatch, now: float) -> None:
        pace, lanes, before = self._pace, self._lanes, one.after
        if not pace.speed:
            self._times.lengthen_first_wait(now - one.released_at)
        elif one.created:
            return
        elif now < one.begun_at:
            one.unchanged = 0  # it rode along; nothing was to be seen yet
        elif before is not None and not before.done:
            self._look_before(before, now)
        else:
            ahead = lanes.ahead(one, now) if self._shows else 0
            late = now - one.released_at - 1.1 * pace.start_seconds
            if pace.sure and 0 < ahead < lanes.number and late * pace.speed >= max(1.0, WAITED * one.count):
                self._set_lanes(ahead)
            elif one.aim:
                self._came_too_early(one, now)
            if one.unchanged > 1:
                lanes.leave(one)

    def _look_before(self, before: PolledBatch, now: float) -> None:
        """Look at the batch that keeps another one waiting: it knows for how long."""
        just_now = now - max(LEAST_SECONDS, PACE_STEP * before.count / self._pace.speed)
        if before.due_at < float("inf") and before.looked_at < just_now:
            before.aim = 0.0
            self._times.queue(before, now)

    def _came_too_early(self, one: PolledBatch, now: float) -> None:
        """Learn from a batch that should have been done and of which nothing is there."""
        if not (self._shows and self._pace.sure):
            self._pace.is_slower(one, now)
        elif not self._stood_behind(one):
            self._pace.start_seconds = max(self._pace.start_seconds, now - one.released_at)

    def _stood_behind(self, one: PolledBatch) -> bool:
        """Tell whether others were being worked on when a batch could have begun."""
        return self._lanes.ahead(one, one.released_at + self._pace.start_seconds) > 0
