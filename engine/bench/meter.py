"""Measures one step of a bench from the events of its run.

*Time to created* of a record runs from the moment its batch was due to be sent until the poll that showed its task
created. In an open loop a batch is due when the schedule says so, in a closed one when one of those before it is done.
So it holds the upload, the service's own work, and up to one pause between two polls.

It is corrected for coordinated omission: whoever sends the next batch only once the last one is done sends nothing
while the service stalls, and so measures a stall once, however many batches it would have met. In an open loop the
schedule mends that. A closed loop has none, so what it omitted is put back: a place that was held for long would have
sent one batch more every `expected` seconds, and each of them would have waited for what was left of the stall.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from statistics import median

from msgspec import Struct

from engine.model.batch import ROOTS, Batch
from engine.model.submission import State
from engine.progress.events import BatchMoved, BatchProgressed, BatchSettled, CallEnded, CallRetried, Event, Paused
from engine.progress.histogram import Histogram, Percentiles

STEADY_SHARE = 0.95
"""Of what was created; the end of a step, when hardly anything is left to be worked on, says little of the service."""
DONE = frozenset({State.SETTLED, State.UNCERTAIN})
"""States with which a batch gives back its place; of one that was split, that of its last part."""


class Second(Struct, frozen=True):
    """What one second of a step brought."""

    second: int
    due: int
    """Records that were due to be sent."""
    created: int
    """Records that were seen created."""
    median: float
    longest: float
    """Time to created of those."""


class Measure(Struct, frozen=True):
    """What was measured of a step. Times in seconds."""

    seconds: float
    """From the beginning until the last record that was seen created."""
    records: int
    """Records that were due."""
    batches: int
    created: int
    failed: int
    unfinished: int
    """Records that were due and had no end when the step ended; they count with the time that they had waited."""
    throughput: float
    """Records per second, by the time in which the first 95 of 100 were created: a straggler does not count."""
    time_to_created: Percentiles
    """Corrected for coordinated omission."""
    time_to_created_uncorrected: Percentiles
    """The same from when a batch was begun: what the sender sees, not the one who waits for the task."""
    calls: int
    answers_429: int
    errors: int
    """Calls without an answer, or with a status from 500 on."""
    retries: int
    pauses: int
    longest_pause_seconds: float
    pause_reason: str
    """Why calls waited for so long."""
    first_error: str
    timeline: Sequence[Second]


class _Carried(Struct):
    """One batch as it was read, its parts included."""

    due: float
    records: int
    began: float | None = None
    done: float | None = None
    failed: int = 0
    seen: list[tuple[float, int]] = []
    """When how many more of its records were seen created."""

    @property
    def created(self) -> int:
        return sum(count for _, count in self.seen)

    @property
    def unfinished(self) -> int:
        return max(0, self.records - self.created - self.failed)


class Meter:
    """Watches one step. `due` may be called from another thread than `listen`."""

    def __init__(self, clock: Callable[[], float], rate: float | None) -> None:
        """Prepare; `rate` is that of the schedule, None for a closed loop."""
        self._clock = clock
        self._rate = rate
        self._schedule_began: float | None = None
        self._batches: dict[int, _Carried] = {}
        self._shown: dict[int, int] = {}
        self._counts: Counter[str] = Counter()
        self._longest_pause = Paused("", 0.0)
        self._first_error = ""

    def due(self, batch: Batch, at: float) -> None:
        """Take note of a batch that is due."""
        if self._rate is not None and self._schedule_began is None:
            self._schedule_began = at - batch.end.index / self._rate
        if batch.count:
            self._batches[batch.sequence] = _Carried(at, batch.count)

    def listen(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case BatchMoved():
                self._move(event)
            case BatchProgressed():
                self._see(event.sequence, event.created)
            case BatchSettled():
                self._see(event.sequence, event.created)
                self._carried(event.sequence).failed += event.failed
                self._first_error = self._first_error or event.first_error
            case CallEnded(status=status):
                self._counts["calls"] += 1
                self._counts["answers_429"] += status == HTTPStatus.TOO_MANY_REQUESTS
                self._counts["errors"] += status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR
            case CallRetried():
                self._counts["retries"] += 1
            case Paused():
                self._counts["pauses"] += 1
                self._longest_pause = max(self._longest_pause, event, key=lambda pause: pause.wait_seconds)

    def _carried(self, sequence: int) -> _Carried:
        return self._batches[sequence % ROOTS]

    def _move(self, event: BatchMoved) -> None:
        carried = self._carried(event.sequence)
        if event.before is State.FROZEN and carried.began is None:
            carried.began = self._clock()
        carried.done = self._clock() if event.after in DONE else None

    def _see(self, sequence: int, created: int) -> None:
        more = created - self._shown.get(sequence, 0)
        if more > 0:
            self._shown[sequence] = created
            self._carried(sequence).seen.append((self._clock(), more))

    def measured(self) -> Measure:
        """Return what was measured until now."""
        now = self._clock()
        batches = [one for one in self._batches.values() if self._rate is not None or one.began is not None]
        started = (
            min((self._start(one) for one in batches), default=now)
            if self._schedule_began is None
            else self._schedule_began
        )
        seen = sorted(sighting for one in batches for sighting in one.seen)
        ended = seen[-1][0] if seen else now
        return Measure(
            seconds=ended - started,
            records=sum(one.records for one in batches),
            batches=len(batches),
            created=sum(one.created for one in batches),
            failed=sum(one.failed for one in batches),
            unfinished=sum(one.unfinished for one in batches),
            throughput=_throughput(seen, started),
            time_to_created=self._corrected(batches, now).percentiles(),
            time_to_created_uncorrected=_counted(batches, now, _began).percentiles(),
            calls=self._counts["calls"],
            answers_429=self._counts["answers_429"],
            errors=self._counts["errors"],
            retries=self._counts["retries"],
            pauses=self._counts["pauses"],
            longest_pause_seconds=self._longest_pause.wait_seconds,
            pause_reason=self._longest_pause.reason,
            first_error=self._first_error,
            timeline=list(self._timeline(batches, started)),
        )

    def _start(self, one: _Carried) -> float:
        return one.due if self._rate is not None else _began(one)

    def _corrected(self, batches: Sequence[_Carried], now: float) -> Histogram:
        times = _counted(batches, now, self._start)
        if self._rate is None:
            held = {id(one): (one.done or now) - _began(one) for one in batches}
            expected = expected_seconds(list(held.values()))
            for one in batches:
                for later in omitted(held[id(one)], expected):
                    for seconds, count in _times(one, now, _began):
                        times.record(max(0.0, seconds - later), count)
        return times

    def _timeline(self, batches: Sequence[_Carried], started: float) -> Iterator[Second]:
        due: Counter[int] = Counter()
        created: dict[int, Histogram] = {}
        for one in batches:
            since = self._start(one)
            due[int(since - started)] += one.records
            for at, count in one.seen:
                created.setdefault(int(at - started), Histogram()).record(at - since, count)
        for second in range(max([*due, *created], default=-1) + 1):
            times = created.get(second) or Histogram()
            yield Second(second, due[second], times.count, times.percentile(0.5), times.longest)


def _throughput(seen: Sequence[tuple[float, int]], started: float) -> float:
    """Return records per second until the first 95 of 100 were seen created. `seen` is in order of time."""
    left = math.ceil(STEADY_SHARE * sum(count for _, count in seen))
    created = 0
    for at, count in seen:
        created += count
        if created >= left and at > started:
            return created / (at - started)
    return 0.0


def _began(one: _Carried) -> float:
    return one.due if one.began is None else one.began


def _times(one: _Carried, now: float, start: Callable[[_Carried], float]) -> Iterator[tuple[float, int]]:
    """Yield how long how many records of a batch took; those without an end have taken this long at least."""
    since = start(one)
    for at, count in one.seen:
        yield at - since, count
    yield now - since, one.unfinished


def _counted(batches: Sequence[_Carried], now: float, start: Callable[[_Carried], float]) -> Histogram:
    times = Histogram()
    for one in batches:
        for seconds, count in _times(one, now, start):
            times.record(seconds, count)
    return times


def expected_seconds(held: Sequence[float]) -> float:
    """Return how long a batch usually holds its place: the median, which a few stalls do not move."""
    return median(held) if held else 0.0


def omitted(held_seconds: float, expected: float) -> Iterator[float]:
    """Yield, for each batch that was not sent while one held its place, by how much less it would have waited."""
    if expected <= 0:
        return
    later = expected
    while held_seconds - later >= expected:
        yield later
        later += expected
