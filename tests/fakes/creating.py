"""A service that creates tasks in made-up time, and polls of it when `PollSchedule` says so: no loop, no clock."""

import heapq
import random
from dataclasses import dataclass
from statistics import median

from engine.adaptive.poll_schedule import PollSchedule
from engine.adaptive.poll_times import PollRules

LEARNING = 8
"""Batches during which nothing is promised."""


@dataclass(frozen=True)
class Creating:
    """How a service creates, and what it is given."""

    speed: float
    """Tasks/s of a batch that is being worked on."""
    lanes: int = 10**9
    """Batches worked on at once."""
    sizes: tuple[int, int] = (1000, 1000)
    batches: int = 80
    load: float = 2.0
    """Batches released in the time in which the service creates one in each lane (at most 8); below 1 it runs dry."""
    start: float = 0.0
    """Seconds from a release to the first task."""
    jitter: float = 0.0
    """Standard deviation of each batch's speed, as a share of it."""
    change: float = 1.0
    """By this factor the speed is another, from the middle of the batches on."""
    shows: bool = True
    """It tells how far a batch is."""
    together: int = 1
    round_trip: float = 0.0
    first_seconds: float = 0.5


@dataclass(frozen=True)
class Batch:
    count: int
    released: float
    begun: float
    end: float

    def created(self, now):
        return int(self.count * min(1.0, max(0.0, (now - self.begun) / (self.end - self.begun))))


def plan(what):
    """Return the batches with the times of their creation."""
    dice = random.Random(7)
    low, high = what.sizes
    mean = (low + high) / 2 / what.speed
    free = [0.0] * min(what.lanes, 1000)
    released, batches = 0.0, []
    for number in range(what.batches):
        count = dice.randint(low, high)
        speed = what.speed * max(0.2, dice.gauss(1.0, what.jitter))
        speed *= what.change if number >= what.batches // 2 else 1.0
        begun = max(released + what.start, heapq.heappop(free))
        heapq.heappush(free, begun + count / speed)
        batches.append(Batch(count, released, begun, begun + count / speed))
        released += max(0.02, mean / min(what.lanes, 8) / what.load)
    return batches


@dataclass
class Followed:
    polls: int
    """Of all batches, those of the learning time included."""
    oracle: int
    median: float
    """Of the delays after the learning time, as shares of the creation time."""
    delays: list
    schedule: PollSchedule


def oracle_polls(batches, together, tolerance=0.1):
    """Return the polls of one who knows all times beforehand and may be late by `tolerance` of a creation time."""
    ended = sorted((one.end + tolerance * (one.end - one.begun), one.end) for one in batches)
    polls = 0
    while ended:
        now = ended[0][0]
        seen = [one for one in ended if one[1] <= now][:together]
        ended = [one for one in ended if one not in seen]
        polls += 1
    return polls


def follow(what, *, most_polls=5000):
    """Follow all batches to their end."""
    batches = plan(what)
    schedule = PollSchedule(PollRules(what.first_seconds, 30.0, what.together))
    releases = [(one.released, key) for key, one in enumerate(batches)][::-1]
    answers, known, polls, now, sent = [], {}, 0, 0.0, 0.0
    while len(known) < len(batches):
        look = max(schedule.next_due(), sent)
        release = releases[-1][0] if releases else float("inf")
        answer = answers[0][0] if answers else float("inf")
        now = max(now, min(look, release, answer))
        if release <= min(look, answer):
            _, key = releases.pop()
            schedule.release(key, batches[key].count, now)
        elif answer <= look:
            _, at, keys = heapq.heappop(answers)
            for key in keys:
                one = batches[key]
                finished = at >= one.end
                created = one.created(at) if what.shows or finished else 0
                schedule.saw(key, at, created, finished=finished)
                if finished:
                    known[key] = at
                    schedule.forget(key, now)
        else:
            keys = schedule.take(now)
            sent = now + what.round_trip / 2
            heapq.heappush(answers, (now + what.round_trip / 2, now, keys))
            polls += 1
            assert polls < most_polls
    delays = [(known[key] - one.end) / (one.end - one.begun) for key, one in enumerate(batches)]
    return Followed(polls, oracle_polls(batches, what.together), median(delays[LEARNING:]), delays, schedule)
