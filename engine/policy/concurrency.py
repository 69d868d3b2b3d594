"""Finished calls -> how many may be in flight, with the reason for each change. Pure.

What is sought is the limit at which the service takes most, so throughput is what is compared, and the time of a call
(RTT) only guides where to look. RTT alone misleads: a database behind a lock answers each of eight calls in turn, and
takes a fortieth of what it takes from one. Three phases:

    slow start ── growth stops paying ──> holding ── every so often ──> probing a higher or a lower limit
                                             ^                                 │ kept if it pays, else back
                                             └─────────────────────────────────┘

- Slow start doubles, and quadruples while RTT hardly rises. When doubling stops paying, Little's law says where the
  knee was: the throughput reached, times the RTT of the uncrowded service.
- A probe is a short run at another limit, judged against the runs at the present one as a sequential test: as soon as
  the difference is beyond what chance explains, and chance is measured, not assumed. A probe upwards has to pay; one
  downwards has only to cost nothing, so the limit does not creep beyond the knee. A probe that fails doubles the time
  to the next one in its direction, so that what is spent on looking stays a small share; one that pays is followed by
  a larger one at once.
- A change of the service shows as a jump between runs at the same limit: probing starts over.
- Push-back lowers the limit at once, and once per round trip. Lost calls count as time without yield.
- Where the client has too little to send, the limit is not reached and nothing is learned from that.

Throughput is counted in mean calls: part per call, part per byte, in the proportion in which the time of a call depends
on its size (`CallCost`). So batches of mixed sizes neither look like noise where bytes cost, nor where they do not.

Rivals this started from: Vector's adaptive request concurrency (one more per RTT while that does not rise, a tenth less
otherwise) and Netflix's Gradient2. Both take a stable RTT for "room left" and a rising one for "too many";
`benchmarks/simulation` runs Vector's rule beside this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from engine.model.settings import MOST_IN_FLIGHT


class Fate(Enum):
    """How a call ended, as far as its concurrency is concerned."""

    DONE = "done"
    """Answered; a refusal of what was sent is an answer, too."""
    PUSHED_BACK = "pushed back"
    """429 or 503: not done, and too much."""
    LOST = "lost"
    """No answer, or one that says that the service broke."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A call that has ended."""

    started: float
    ended: float
    """Monotonic seconds."""
    sent_bytes: int
    in_flight: int
    """Calls under way when it started, itself included."""
    fate: Fate = Fate.DONE


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """One of the coupled limits has a new value."""

    name: str
    before: int
    after: int
    reason: str


_COST_MEMORY = 0.998
"""It looks back over some five hundred: the mean of a few batches of mixed sizes is no unit to measure by."""


_LEAST_CALLS = 3.5
"""Weight of four calls; through fewer, a line fits anything."""
_LEAST_SPREAD = 0.05
"""Deviation of the sizes from their mean below which they count as one size."""


@dataclass(slots=True)
class CallCost:
    """By how much the time of a call depends on its size: a regression that forgets."""

    _weight: float = 0.0
    _bytes: float = 0.0
    _seconds: float = 0.0
    _bytes_bytes: float = 0.0
    _bytes_seconds: float = 0.0

    def observe(self, sent_bytes: int, seconds: float) -> None:
        """Take in an answered call."""
        self._weight = self._weight * _COST_MEMORY + 1
        self._bytes = self._bytes * _COST_MEMORY + sent_bytes
        self._seconds = self._seconds * _COST_MEMORY + seconds
        self._bytes_bytes = self._bytes_bytes * _COST_MEMORY + sent_bytes**2
        self._bytes_seconds = self._bytes_seconds * _COST_MEMORY + sent_bytes * seconds

    @property
    def mean_bytes(self) -> float:
        """Payload of the mean call."""
        return self._bytes / self._weight if self._weight else 0.0

    @property
    def mean_seconds(self) -> float:
        """Duration of the mean call."""
        return self._seconds / self._weight if self._weight else 0.0

    @property
    def size_share(self) -> float:
        """Share of a mean call's time that goes by its bytes, 0 to 1; 0 where all are of one size: nobody can tell."""
        if self._weight < _LEAST_CALLS or self.mean_seconds <= 0:
            return 0.0
        variance = self._bytes_bytes / self._weight - self.mean_bytes**2
        if variance <= (_LEAST_SPREAD * self.mean_bytes) ** 2:
            return 0.0
        slope = (self._bytes_seconds / self._weight - self.mean_bytes * self.mean_seconds) / variance
        return min(1.0, max(0.0, slope * self.mean_bytes / self.mean_seconds))


@dataclass(frozen=True, slots=True)
class _Pace:
    """What is answered a second. Kept in both units, for what is worth more is learned on the way."""

    calls: float
    sent_bytes: float

    def worth(self, cost: CallCost) -> float:
        """Return it in mean calls a second."""
        share = cost.size_share
        return max(1e-9, (1 - share) * self.calls + share * self.sent_bytes / (cost.mean_bytes or 1.0))

    def towards(self, other: _Pace, weight: float) -> _Pace:
        """Return the mean of both, with so much `weight` on the other."""
        return _Pace(
            self.calls + weight * (other.calls - self.calls),
            self.sent_bytes + weight * (other.sent_bytes - self.sent_bytes),
        )


@dataclass(slots=True)
class _Trial:
    """Calls counted while the limit stands."""

    limit: int
    since: float
    skip: int
    """Calls that end before counting begins: what they met was the limit before."""
    began: float = math.inf
    ended: float = 0.0
    calls: int = 0
    """All that ended, the lost ones included."""
    answered: int = 0
    answered_bytes: int = 0
    busy_seconds: float = 0.0
    peak: int = 0
    full: int = 0
    """Calls that started with the limit reached."""

    def take(self, call: Finished) -> None:
        self.peak = max(self.peak, call.in_flight)
        if self.skip:
            self.skip -= call.started >= self.since
            self.began = call.ended
            return
        self.ended = call.ended
        self.calls += 1
        self.full += call.in_flight >= _FULL * self.limit
        self.busy_seconds += call.ended - call.started
        if call.fate is Fate.DONE:
            self.answered += 1
            self.answered_bytes += call.sent_bytes

    def pace(self) -> _Pace:
        """By the clock: right over whole rounds."""
        seconds = max(self.ended - self.began, 1e-9)
        return _Pace(self.answered / seconds, self.answered_bytes / seconds)

    def pace_by_little(self) -> _Pace:
        """By Little's law: right from the first round on, but blind for calls that are still under way."""
        seconds = max(self.busy_seconds / self.limit, 1e-9)
        return _Pace(self.answered / seconds, self.answered_bytes / seconds)


_FIRST_CALLS = 2
"""Calls before slow start first looks; more, and a fast service stays idle for as many round trips."""
_PAYS = 0.25
"""Slow start goes on while it brings this share of what it could at best."""
_EASY = 0.85
"""Share of the best possible growth from which it quadruples: RTT has risen by less than a fifth."""
_SURE_CALLS = 8
"""Calls before slow start ends: the first few of a service that wakes up, or of mixed sizes, say little."""
_HEADROOM = 1.2
"""Beyond the knee: a service that grows shows it only where somebody waits in line."""
_TRIAL_CALLS = 16
_TRIAL_ROUNDS = 2
_FULL = 0.9
"""Share of the limit that counts as reached."""
_LOSS = 0.1
"""A step downwards may cost this share of what it could at worst, and a step upwards has to bring `_PAYS` of what it
could at best; less is not worth the memory and the wait of others."""
_SOONEST = 4
"""Calls before a probe is judged for the first time."""
_DOUBT = 0.4
"""Standard errors that a step upwards has to pay beyond what it must: chance alone shall not carry the limit up."""
_SURE = 2.5
"""Standard errors beyond which a probe ends before its time."""
_JUMP = 0.25
"""A difference between two runs at one limit that is a change of the service, if chance does not explain it."""
_SHORTEST_HOLD = 3
_LONGEST_HOLD = 24
_HOLD_PER_LOSS = 40
"""Runs between probes in one direction: a probe that fails delays the next by what it cost, so that looking costs some
2 %. One that costs nothing may soon be made again, and finds out when the service grows."""
_PUSHED_HOLD = 3
_LONGEST_PUSHED_HOLD = 24
"""Runs without a probe upwards after push-back, doubled each time: obeying comes before looking."""
_LONGEST_STRIDE = 4
"""Quarters of the limit that a step upwards may grow to while steps pay."""
_LEAST_NOISE = 0.02
_START_VARIANCE = 0.25
"""Variance of a call's time, relative to its mean, assumed before it is measured: half the mean, either way."""


class Direction(Enum):
    """Where a probe goes."""

    UP = 1
    DOWN = -1


@dataclass(slots=True)
class _Search:
    """One direction: how soon to look there again, and how far."""

    left: int = 1
    stride: int = 1

    def failed(self, loss: float) -> None:
        """Wait for as long as the probe's loss asks for."""
        self.left = round(min(_LONGEST_HOLD, _SHORTEST_HOLD + _HOLD_PER_LOSS * max(0.0, loss)))
        self.stride = 1

    def paid(self) -> None:
        """Go on, and further."""
        self.left, self.stride = 0, min(_LONGEST_STRIDE, self.stride * 2)

    def start_over(self) -> None:
        """Look soon."""
        self.left, self.stride = 0, 1


@dataclass(slots=True)
class _Roof:
    """Where the service pushed back: not to be tried again for a while, twice as long after each time."""

    height: int
    """Highest limit that may be tried."""
    most: int
    left: int = 0
    pushed: int = 0
    """Push-backs that are not forgotten yet."""
    deaf_until: float = -math.inf
    """Push-backs before it are the same one: calls that had left already."""

    def lower(self, limit: int, until: float) -> None:
        """Note that `limit` was too much."""
        self.height, self.deaf_until = max(1, limit - 1), until
        self.left = min(_LONGEST_PUSHED_HOLD, _PUSHED_HOLD * 2**self.pushed)
        self.pushed = min(self.pushed + 1, _LONGEST_PUSHED_HOLD)

    def pass_run(self) -> None:
        """Note that a run went by."""
        self.left -= 1
        if self.left <= 0:
            self.height = self.most

    def passed(self) -> None:
        """Note that more than before was borne."""
        self.pushed //= 2


@dataclass(slots=True)
class Concurrency:
    """How many calls may be in flight. Feed it every finished call; obey `limit`."""

    most: int = MOST_IN_FLIGHT
    limit: int = 1
    _cost: CallCost = field(default_factory=CallCost)
    _slow: bool = True
    _before: tuple[int, _Pace] | None = None
    """Slow start: the limit before, and what it brought."""
    _base: _Pace | None = None
    """What the limit that holds brings; None: not measured yet."""
    _base_limit: int = 1
    _probing: Direction | None = None
    _variance: float = _START_VARIANCE
    _search: dict[Direction, _Search] = field(default_factory=lambda: {way: _Search() for way in Direction})
    _trial: _Trial = field(init=False)
    _roof: _Roof = field(init=False)

    def __post_init__(self) -> None:
        self._roof = _Roof(self.most, self.most)
        self._trial = _Trial(self.limit, -math.inf, 0)
        self._base_limit = self.limit

    def observe(self, call: Finished) -> LimitChanged | None:
        """Take in a finished call; return the change of the limit, if it makes one."""
        known = call.started >= self._trial.since
        if not known and (self._slow or call.fate is Fate.PUSHED_BACK):
            return None  # it met another limit; counted by the clock it is welcome all the same
        if call.fate is Fate.PUSHED_BACK:
            return self._push_back(call)
        if call.fate is Fate.DONE:
            self._cost.observe(call.sent_bytes, call.ended - call.started)
        self._trial.take(call)
        if self._slow:
            return self._judge_slow_start(call.ended)
        return self._judge_probe(call.ended) if self._probing else self._judge_hold(call.ended)

    # -- slow start

    def _judge_slow_start(self, now: float) -> LimitChanged | None:
        trial = self._trial
        if trial.calls < max(_FIRST_CALLS, self.limit) or trial.peak < self.limit:
            return None
        if trial.answered < trial.calls / 2:
            return self._halve(now)
        pace = trial.pace_by_little()
        if self._before is None:
            self._before = (self.limit, pace)
            return self._set(self.limit * 2, now, "slow start")
        limit, slower = self._before
        ideal = self.limit / limit
        gain = pace.worth(self._cost) / slower.worth(self._cost)
        share = (gain - 1) / (ideal - 1)
        if share < _PAYS and trial.calls < _SURE_CALLS:
            return None
        if share >= _PAYS and self.limit < self.most:
            self._before = (self.limit, pace)
            return self._set(self.limit * (4 if share >= _EASY else 2), now, f"slow start: {gain:.2f} times the speed")
        self._slow = False
        knee = self.limit if share >= _PAYS else min(self.limit, max(limit, math.ceil(limit * gain * _HEADROOM)))
        return self._set(knee, now, f"slow start is over: {gain:.2f} times the speed at {ideal:g} times the calls")

    # -- holding

    def _judge_hold(self, now: float) -> LimitChanged | None:
        trial = self._trial
        if trial.calls < self._whole_rounds(_TRIAL_CALLS):
            return None
        if trial.full < trial.calls / 2:  # the client has too little to send: that says nothing of the service
            self._renew(now)
            return None
        if trial.answered < trial.calls / 2:
            return self._halve(now)
        self._learn_base(trial)
        for search in self._search.values():
            search.left -= 1
        self._roof.pass_run()
        way = self._next_probe()
        if way is None:
            self._renew(now)
            return None
        return self._probe(way, now)

    def _learn_base(self, trial: _Trial) -> None:
        pace = trial.pace()
        if self._base is None:
            self._base = pace
            return
        jump = math.log(pace.worth(self._cost) / self._base.worth(self._cost))
        if abs(jump) > max(_JUMP, 3 * self._error(trial.calls)):
            for search in self._search.values():
                search.start_over()
            self._base = pace
        else:
            self._variance += 0.2 * (jump**2 / 2 * trial.calls - self._variance)
            self._base = self._base.towards(pace, 0.4)

    def _next_probe(self) -> Direction | None:
        open_ways = [way for way, search in self._search.items() if search.left <= 0 and self._can(way)]
        return min(open_ways, key=lambda way: self._search[way].left, default=None)

    def _probe(self, way: Direction, now: float) -> LimitChanged | None:
        self._probing, self._base_limit = way, self.limit
        if way is Direction.UP:
            step = max(1, self.limit * self._search[way].stride // 4)
            return self._set(min(self._roof.height, self.limit + step), now, "probing upwards")
        return self._set(self.limit - max(1, self.limit // 5), now, "probing downwards")

    # -- probing

    def _judge_probe(self, now: float) -> LimitChanged | None:
        trial, way, base = self._trial, self._probing, self._base
        assert way is not None  # noqa: S101 -- only called while probing, and that begins with a base
        assert base is not None  # noqa: S101 - a probe begins only where it is known
        if trial.calls < _SOONEST or trial.calls % self.limit:
            return None
        done = trial.calls >= self._whole_rounds(_TRIAL_CALLS)
        if done and trial.full < trial.calls / 2:
            return self._back(way, 0.0, now, "the limit was not reached, which is no evidence")
        gain = math.log(trial.pace().worth(self._cost) / base.worth(self._cost))
        error = self._error(trial.calls)
        ideal = math.log(self.limit / self._base_limit)
        wanted = ideal * (_PAYS if way is Direction.UP else _LOSS)
        if not done and abs(gain - wanted) < _SURE * error:
            return None
        if gain < wanted + (_DOUBT * error if done and way is Direction.UP else 0.0):
            return self._back(way, 1 - math.exp(gain), now, f"{math.exp(gain):.2f} times the speed")
        return self._stay(way, trial.pace(), now)

    def _back(self, way: Direction, loss: float, now: float, why: str) -> LimitChanged | None:
        self._probing = None
        self._search[way].failed(loss)
        return self._set(self._base_limit, now, f"back: {why}")

    def _stay(self, way: Direction, pace: _Pace, now: float) -> LimitChanged | None:
        """Keep the limit that was tried, and look further the same way at once."""
        self._base, self._probing = pace, None
        self._search[way].paid()
        if way is Direction.UP:
            self._roof.passed()
            if self.limit >= self._roof.height:
                self._search[way].stride = 1  # what lies beyond has been too much before: gently
        other = self._search[Direction.DOWN if way is Direction.UP else Direction.UP]
        other.left = max(other.left, _SHORTEST_HOLD)
        if self._can(way):
            return self._probe(way, now)
        self._renew(now)
        return None

    def _can(self, way: Direction) -> bool:
        return self.limit < self._roof.height if way is Direction.UP else self.limit > 1

    # -- push-back

    def _push_back(self, call: Finished) -> LimitChanged | None:
        """Step down. What brought it on is undone: the last leap of slow start, or the probe; else a twentieth goes."""
        if call.ended < self._roof.deaf_until:
            return None
        self._roof.lower(self.limit, call.ended + self._cost.mean_seconds)
        up = self._search[Direction.UP]
        up.failed(0.0)
        down = self._search[Direction.DOWN]
        down.left = max(down.left, _SHORTEST_HOLD)
        if self._slow and self._before is not None:
            after = self._before[0]
            up.left, up.stride = 0, _LONGEST_STRIDE  # the rest of the leap is made up for step by step
        elif self._probing is Direction.UP:
            after = self._base_limit
        else:
            after, self._base = min(self.limit - 1, math.floor(self.limit * 0.95)), None
        self._slow, self._probing = False, None
        return self._set(after, call.ended, "the service pushes back")

    # -- common

    def _halve(self, now: float) -> LimitChanged | None:
        """Step back from where most calls are lost."""
        trial, self._base = self._trial, None
        return self._set(self.limit // 2, now, f"{trial.calls - trial.answered} of {trial.calls} calls lost")

    def _whole_rounds(self, calls: int) -> int:
        """At least so many calls and two rounds, and no part of a round: calls that started together end together."""
        return self.limit * max(_TRIAL_ROUNDS, math.ceil(calls / self.limit))

    def _error(self, calls: int) -> float:
        return max(_LEAST_NOISE, math.sqrt(self._variance / calls))

    def _renew(self, now: float) -> None:
        self._trial = _Trial(self.limit, self._trial.since, 0, began=now)

    def _set(self, limit: int, now: float, reason: str) -> LimitChanged | None:
        before, self.limit = self.limit, max(1, min(self.most, limit))
        self._trial = _Trial(self.limit, now, 0 if self._slow else max(1, self.limit // 2))
        return None if before == self.limit else LimitChanged("max_in_flight", before, self.limit, reason)
