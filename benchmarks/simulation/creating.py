"""A service that creates tasks in made-up time, and polls of it when `PollSchedule` says so: no loop, no clock.

The tests hold the schedule to its target in each scenario, and `python -m benchmarks.following` prints the table.
It is compared with an oracle: told beforehand when each batch will be done, that asks as seldom as it can while it
learns of each end within a tenth of the batch's creation time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from engine.adaptive.poll_schedule import PollSchedule

LEARNING = 8
"""Batches whose delays do not count; their polls do."""
TOLERANCE = 0.1
"""Share of a batch's creation time within which its end is to be known."""
ENDLESS = 10**9
"""Lanes of a service that works on all batches at once."""


@dataclass(frozen=True, slots=True)
class Creating:
    """How a service creates, and what it is given."""

    speed: float
    """Tasks/s of a batch that is being worked on."""
    lanes: int = ENDLESS
    """Batches worked on at once."""
    sizes: tuple[int, int] = (1000, 1000)
    batches: int = 80
    load: float = 2.0
    """Batches released in the time in which the service creates one in each lane (at most 8); below 1 it runs dry."""
    release_seconds: float = 0.0
    """Between two releases, if it does not follow from the load."""
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
    callbacks: int = 0
    """In so many it tells of each batch, unasked."""
    lost: float = 0.0
    """Share of those that do not come."""


SCENARIOS = {
    f"{speed:,} tasks/s, {name}": Creating(speed, lanes)
    for speed in (5, 50, 500, 5_000, 50_000)
    for name, lanes in (("one by one", 1), ("four at once", 4), ("all at once", ENDLESS))
} | {
    "batches of one task": Creating(50, sizes=(1, 1)),
    "batches of ten tasks": Creating(50, sizes=(10, 10)),
    "1 to 1,000 tasks, one by one": Creating(500, 1, sizes=(1, 1000)),
    "1 to 1,000 tasks, all at once": Creating(500, sizes=(1, 1000)),
    "1 to 1,000 tasks, fast": Creating(5_000, 1, sizes=(1, 1000)),
    "often idle": Creating(500, 1, load=0.5),
    "often idle, four at once": Creating(500, 4, load=0.5),
    "begun after 3 s, one by one": Creating(500, 1, start=3.0),
    "begun after 3 s, four at once": Creating(500, 4, start=3.0, load=0.3),
    "begun after 3 s, all at once": Creating(500, start=3.0, load=0.3),
    "speeds that differ by 5 %, one by one": Creating(500, 1, jitter=0.05),
    "speeds that differ by 5 %, all at once": Creating(500, jitter=0.05),
    "twice as fast all of a sudden": Creating(500, 1, change=2.0),
    "half as fast all of a sudden": Creating(500, 1, change=0.5),
    "a tenth as fast all of a sudden": Creating(500, 1, change=0.1),
    "twice as fast all of a sudden, all at once": Creating(500, change=2.0),
    "half as fast all of a sudden, all at once": Creating(500, change=0.5),
    "answers that take 50 ms": Creating(500, 1, round_trip=0.05),
    "a hundred in a poll": Creating(500, together=100),
    "a hundred in a poll, speeds that differ": Creating(500, together=100, jitter=0.1),
    "a hundred in a poll, 1 to 1,000 tasks": Creating(500, together=100, sizes=(1, 1000)),
}
"""The target is twice the oracle's polls, and a median delay of a tenth of a creation time."""

BURST = Creating(5_000, 1, batches=20, release_seconds=0.02, start=3.0, round_trip=0.05)
"""Released at once, and begun only after longer than all of them take: while nothing moves, nobody can tell for how
long. So polls are spent (2.9 times the oracle's), and time is held to a target: 1.5 times the least possible."""


@dataclass(frozen=True, slots=True)
class Creation:
    """When one batch's tasks are created."""

    count: int
    released: float
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.end - self.start

    def created(self, now: float) -> int:
        """Return how many tasks there are."""
        return int(self.count * min(1.0, max(0.0, (now - self.start) / self.seconds)))


def plan(what: Creating) -> Sequence[Creation]:
    """Return when each batch is created; the same each time."""
    dice = random.Random(7)
    low, high = what.sizes
    pause = what.release_seconds or max(0.02, (low + high) / 2 / what.speed / min(what.lanes, 8) / what.load)
    free = [0.0] * min(what.lanes, 1000)
    creations = []
    for number in range(what.batches):
        count, released = dice.randint(low, high), number * pause
        speed = what.speed * max(0.2, dice.gauss(1.0, what.jitter))
        speed *= what.change if number >= what.batches // 2 else 1.0
        start = max(released + what.start, heapq.heappop(free))
        heapq.heappush(free, start + count / speed)
        creations.append(Creation(count, released, start, start + count / speed))
    return creations


def callbacks(what: Creating, creations: Sequence[Creation]) -> list[tuple[float, int, int]]:
    """Return (when, which batch, tasks) of each callback that comes, the last one first."""
    dice, told = random.Random(11), []
    for key, one in enumerate(creations):
        parts = min(what.callbacks, one.count)
        for part in range(1, parts + 1):
            tasks = one.count * part // parts - one.count * (part - 1) // parts
            if dice.random() >= what.lost:
                told.append((one.start + one.seconds * (one.count * part // parts) / one.count, key, tasks))
    return sorted(told, reverse=True)


def oracle_polls(creations: Sequence[Creation], together: int) -> int:
    """Return the fewest polls of up to `together` batches that see each end within the tolerance.

    Asking at the earliest date that is left, about those that have ended by then, is the best one can do.
    """
    left = sorted((one.end + TOLERANCE * one.seconds, one.end) for one in creations)
    polls = 0
    while left:
        now = left[0][0]
        seen = [one for one in left if one[1] <= now][:together]
        left = [one for one in left if one not in seen]
        polls += 1
    return polls


@dataclass(slots=True)
class Followed:
    """What following the batches of a scenario took."""

    creations: Sequence[Creation]
    oracle: int
    """Polls of the oracle."""
    schedule: PollSchedule
    polls: list[tuple[float, Sequence[int]]] = field(default_factory=list)
    """When the service was asked, and about which batches."""
    known: dict[int, float] = field(default_factory=dict)
    """When it said of each batch that it is done."""

    @property
    def ratio(self) -> float:
        """Polls, those of the learning time included, as a multiple of the oracle's."""
        return len(self.polls) / self.oracle

    @property
    def delays(self) -> Sequence[float]:
        """From the end of each batch until it was known, as a share of its creation time."""
        return [(self.known[key] - one.end) / one.seconds for key, one in enumerate(self.creations)]

    @property
    def median_delay(self) -> float:
        """The median of those delays that count."""
        return median(self.delays[LEARNING:])


def follow(what: Creating, *, most_polls: float = 5000) -> Followed:
    """Follow all batches to their end; one poll is sent after the other, however long answers take."""
    creations = plan(what)
    schedule = PollSchedule(together=what.together)
    done = Followed(creations, oracle_polls(creations, what.together), schedule)
    releases = [(one.released, key) for key, one in enumerate(creations)][::-1]
    answers: list[tuple[float, float, Sequence[int]]] = []
    told = callbacks(what, creations)
    now = sent = 0.0
    while len(done.known) < len(creations):
        look = max(schedule.next_due(), sent)
        release = releases[-1][0] if releases else float("inf")
        answer = answers[0][0] if answers else float("inf")
        call = told[-1][0] if told else float("inf")
        now = max(now, min(look, release, answer, call))
        if call <= min(look, answer, release):
            _, key, tasks = told.pop()
            if key not in done.known:
                schedule.hear(key, tasks, now)
        elif release <= min(look, answer):
            _, key = releases.pop()
            schedule.release(key, creations[key].count, now)
        elif answer <= look:
            _, at, keys = heapq.heappop(answers)
            for key in keys:
                one = creations[key]
                finished = at >= one.end
                schedule.saw(key, at, one.created(at) if what.shows or finished else 0, finished=finished)
                if finished:
                    done.known[key] = at
                    schedule.forget(key, now)
        else:
            keys = schedule.take(now)
            if not keys:  # it was put off
                continue
            sent = now + what.round_trip / 2
            heapq.heappush(answers, (sent, now, keys))
            done.polls.append((now, keys))
            if len(done.polls) > most_polls:
                raise AssertionError(f"more than {most_polls:g} polls")
    return done


def table() -> str:
    """Return how the schedule fares in each scenario."""
    lines = [f"{'':45}{'polls':>6}{'oracle':>8}{'times':>7}{'delay':>8}"]
    for name, what in (SCENARIOS | {"released at once, begun after 3 s": BURST}).items():
        one = follow(what)
        lines.append(f"{name:45}{len(one.polls):6}{one.oracle:8}{one.ratio:7.2f}{one.median_delay:8.1%}")
    return "\n".join(lines)
