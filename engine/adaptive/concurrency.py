"""Finished calls -> how many may be in flight, with the reason for each change. Pure.

A *call* here is all that one batch does in its slot: to stage, upload and release it, with every retry. The three
phases share what they have measured, so they stand in one module, although it is a long one.

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
  downwards has only to cost nothing, so the limit does not creep beyond the knee. The more time a probe lost, the later
  the next one in its direction, so that what is spent on looking stays a small share; one that pays is followed by a
  larger one at once.
- A change of the service shows as a jump between runs at the same limit: probing starts over.
- Push-back lowers the limit at once, and once per round trip; where it brings on a pause, the longer that is, the later
  the next step upwards. Lost calls count as time without yield.
- Where the client has too little to send, the limit is not reached and nothing is learned from that.

Rivals this started from are Vector's adaptive request concurrency and Netflix's Gradient2. Both take a stable RTT for
"room left" and a rising one for "too many"; `benchmarks/simulation` runs them beside this one.
"""

from __future__ import annotations

import math
from enum import Enum

import msgspec

from engine.adaptive.throughput import CallCost, Throughput
from engine.model.settings import MOST_IN_FLIGHT


class CallFate(Enum):
    """How a call ended, as far as its concurrency is concerned."""

    DONE = "done"
    """Answered; a refusal of what was sent is an answer, too."""
    PUSHED_BACK = "pushed back"
    """429: not done, and too much. A 503 may be a proxy's word for what is down, too; the caller waits for that."""
    LOST = "lost"
    """No answer, or one that says that the service broke."""


class Finished(msgspec.Struct, frozen=True):
    """A call that has ended."""

    started: float
    ended: float
    """Monotonic seconds."""
    sent_bytes: int
    in_flight: int
    """Calls under way when it started, itself included."""
    fate: CallFate = CallFate.DONE


class LimitChanged(msgspec.Struct, frozen=True):
    """One of the coupled limits has a new value."""

    name: str
    before: int
    after: int
    reason: str


class _Trial(msgspec.Struct):
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
        if call.fate is CallFate.DONE:
            self.answered += 1
            self.answered_bytes += call.sent_bytes

    def pace(self) -> Throughput:
        """By the clock: right over whole rounds."""
        return Throughput.of(self.answered, self.answered_bytes, self.ended - self.began)

    def pace_by_little(self) -> Throughput:
        """By Little's law: right from the first round on, but blind for calls that are still under way."""
        return Throughput.of(self.answered, self.answered_bytes, self.busy_seconds / self.limit)


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
_TRIAL_CALLS, _TRIAL_ROUNDS = 16, 2
_LEAST_SECONDS = 0.25
"""Nothing is judged to fail sooner: hiccups, of our own machine among them, last by the clock and not by calls."""
_FULL = 0.9
"""Share of the limit that counts as reached."""
_LOSS = 0.1
"""A step downwards may cost this share of what it could at worst, and a step upwards has to bring `_PAYS` of what it
could at best; less is not worth the memory and the wait of others."""
_SOONEST = 4
"""Calls before a probe is judged for the first time."""
_SURE = 2.5
"""Standard errors beyond which a probe ends before its time."""
_JUMP = 0.25
"""A difference between two runs at one limit that is a change of the service, if chance does not explain it."""
_REST = 3
"""A direction rests for 3 · t. t is the time of the probe that failed there, of the run in which the service pushed
back, or of the pause that this caused."""
_LOOKING = 0.025
"""Share of the time that may be lost by probes."""
_LONGEST_WAIT = 600.0
"""Seconds; by then a service may have changed without a sign."""
_MOST_PUSHED = 3
"""How often the rest after push-back is doubled: obeying comes before looking."""
_LONGEST_STRIDE = 4
"""Quarters of the limit that a step upwards may grow to while steps pay."""
_LEAST_NOISE = 0.02
_START_VARIANCE = 0.25
"""Variance of a call's time, relative to its mean, assumed before it is measured: half the mean, either way."""


class Direction(Enum):
    """Where a probe goes."""

    UP = 1
    DOWN = -1


class _Search(msgspec.Struct):
    """One direction: how soon to look there again, and how far."""

    not_before: float = -math.inf
    stride: int = 1

    def failed(self, now: float, seconds: float, loss: float = 0.0) -> None:
        """Note a probe of so many seconds that lost so much of the throughput."""
        wait = seconds * _REST + min(_LONGEST_WAIT, seconds * loss / _LOOKING)
        self.not_before, self.stride = now + wait, 1

    def rest(self, until: float) -> None:
        """Do not look before."""
        self.not_before = max(self.not_before, until)

    def paid(self) -> None:
        """Go on, and further."""
        self.not_before, self.stride = -math.inf, min(_LONGEST_STRIDE, self.stride * 2)


def _both_ways() -> dict[Direction, _Search]:
    return {way: _Search() for way in Direction}


class _Roof(msgspec.Struct):
    """Where the service pushed back: not to be tried again for a while, twice as long after each time."""

    height: int
    """Highest limit that may be tried while it is closed."""
    closed_until: float = -math.inf
    quiet_until: float = -math.inf
    """Nothing higher is tried before it: calls had to pause."""
    deaf_until: float = -math.inf
    """Push-backs before it are the same one: calls that had left already."""
    heard: float = math.inf
    """When a call ended last; infinite unless calls may wait because of a push-back."""
    pushed: int = 0
    """Push-backs that are not forgotten yet."""

    def lower(self, limit: int, now: float, rtt: float, run: float) -> None:
        """Note that `limit` was too much; a call takes `rtt` seconds, and a run of them `run`."""
        self.height = max(1, limit - 1)
        self.closed_until, self.deaf_until = now + run * _REST * 2**self.pushed, now + rtt
        self.pushed = min(self.pushed + 1, _MOST_PUSHED)
        self.heard = now

    def hear(self, call: Finished, *, after: bool) -> None:
        """Note for how long nothing was under way, until the first call that started after the push-back."""
        if after:
            pause = max(0.0, call.started - self.heard)
            self.quiet_until = call.started + pause * _REST * 2 ** (self.pushed - 1)
        self.heard = math.inf if after else call.ended

    def passed(self) -> None:
        """Note that more than before was borne."""
        self.pushed //= 2

    def at(self, now: float, most: int) -> int:
        """Return the highest limit that may be tried."""
        return self.height if now < self.closed_until else most


class Concurrency:
    """How many calls may be in flight. Feed it every finished call; obey `limit`."""

    def __init__(self, most: int = MOST_IN_FLIGHT, limit: int = 1) -> None:
        self.most = most
        self.limit = limit
        self._cost = CallCost()
        self._slow = True
        # Slow start: the limit before, and what it brought.
        self._before: tuple[int, Throughput] | None = None
        # What the limit that holds brings; None: not measured yet.
        self._base: Throughput | None = None
        self._base_limit = limit
        self._probing: Direction | None = None
        self._variance = _START_VARIANCE
        self._search = _both_ways()
        self._trial = _Trial(limit, -math.inf, 0)
        self._roof = _Roof(most)

    @classmethod
    def holding(cls, limit: int) -> Concurrency:
        """Return one that goes on from a limit that another one has found."""
        one = cls(limit=limit)
        one._slow = False
        one._trial = _Trial(limit, -math.inf, max(1, limit // 2))
        return one

    def observe(self, call: Finished) -> LimitChanged | None:
        """Take in a finished call; return the change of the limit, if it makes one."""
        known = call.started >= self._trial.since
        if self._roof.heard < math.inf:
            self._roof.hear(call, after=known)
        if not known and (self._slow or call.fate is CallFate.PUSHED_BACK):
            return None  # it met another limit; counted by the clock it is welcome all the same
        if call.fate is CallFate.PUSHED_BACK:
            return self._push_back(call)
        if call.fate is CallFate.DONE:
            self._cost.observe(call.sent_bytes, call.ended - call.started)
        self._trial.take(call)
        if self._slow:
            return self._judge_slow_start(call.ended)
        return self._judge_probe(self._probing, call.ended) if self._probing else self._judge_hold(call.ended)

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
        share = (gain - 1) / max(ideal - 1, 1e-9)  # `most` may be 1
        if share < _PAYS and (trial.calls < _SURE_CALLS or now - trial.since < _LEAST_SECONDS):
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
        if trial.calls < self._whole_rounds(_TRIAL_CALLS) or trial.ended - trial.began < _LEAST_SECONDS:
            return None
        if trial.full < trial.calls / 2:  # the client has too little to send: that says nothing of the service
            return self._look(None, now)
        if trial.answered < trial.calls / 2:
            return self._halve(now)
        self._learn_base(trial)
        ways = [way for way, search in self._search.items() if search.not_before <= now and self._can(way, now)]
        return self._look(min(ways, key=lambda way: self._search[way].not_before, default=None), now)

    def _learn_base(self, trial: _Trial) -> None:
        pace = trial.pace()
        if self._base is None:
            self._base = pace
            return
        jump = math.log(pace.worth(self._cost) / self._base.worth(self._cost))
        if abs(jump) > max(_JUMP, 3 * self._error(trial.calls)):
            self._base, self._search = pace, _both_ways()
        else:
            self._variance += 0.2 * (jump**2 / 2 * trial.calls - self._variance)
            self._base = self._base.towards(pace, 0.4)

    def _look(self, way: Direction | None, now: float) -> LimitChanged | None:
        """Begin a probe, or go on holding."""
        self._probing, self._base_limit = way, self.limit
        if way is None:
            self._trial = _Trial(self.limit, self._trial.since, 0, began=now)
            return None
        if way is Direction.UP:
            step = max(1, self.limit * self._search[way].stride // 4)
            return self._set(min(self._roof.at(now, self.most), self.limit + step), now, "probing upwards")
        return self._set(self.limit - max(1, self.limit // 5), now, "probing downwards")

    # -- probing

    def _judge_probe(self, way: Direction, now: float) -> LimitChanged | None:
        trial, base = self._trial, self._base
        assert base is not None  # noqa: S101 - a probe begins only where it is known
        if trial.calls < _SOONEST or trial.calls % self.limit or trial.ended - trial.began < _LEAST_SECONDS:
            return None
        done = trial.calls >= self._whole_rounds(_TRIAL_CALLS)
        if done and trial.full < trial.calls / 2:
            return self._back(way, 0.0, now, "the limit was not reached, which is no evidence")
        gain = math.log(trial.pace().worth(self._cost) / base.worth(self._cost))
        wanted = math.log(self.limit / self._base_limit) * (_PAYS if way is Direction.UP else _LOSS)
        if not done and abs(gain - wanted) < _SURE * self._error(trial.calls):
            return None
        if gain < wanted:
            return self._back(way, 1 - math.exp(gain), now, f"{math.exp(gain):.2f} times the speed")
        return self._stay(way, trial.pace(), now)

    def _back(self, way: Direction, loss: float, now: float, why: str) -> LimitChanged | None:
        self._probing = None
        self._search[way].failed(now, now - self._trial.since, max(0.0, loss))
        return self._set(self._base_limit, now, f"back: {why}")

    def _stay(self, way: Direction, pace: Throughput, now: float) -> LimitChanged | None:
        """Keep the limit that was tried, and look further the same way at once."""
        self._base = pace
        self._search[way].paid()
        if way is Direction.UP:
            self._roof.passed()
        self._search[Direction(-way.value)].rest(now + _REST * (now - self._trial.since))
        return self._look(way if self._can(way, now) else None, now)

    def _can(self, way: Direction, now: float) -> bool:
        up = self.limit < self._roof.at(now, self.most) and now >= self._roof.quiet_until
        return up if way is Direction.UP else self.limit > 1

    # -- push-back

    def _push_back(self, call: Finished) -> LimitChanged | None:
        """Step down. What brought it on is undone: the last leap of slow start, or the probe; else a twentieth goes."""
        if call.ended < self._roof.deaf_until:
            return None
        now, rtt = call.ended, self._cost.mean_seconds
        run = rtt * self._whole_rounds(_TRIAL_CALLS) / self.limit
        self._roof.lower(self.limit, now, rtt, run)
        self._search[Direction.UP].failed(now, run)
        if self._slow and self._before is not None:
            after = self._before[0]
            self._search[Direction.UP] = _Search(stride=_LONGEST_STRIDE)  # the leap's rest is made up for step by step
        elif self._probing is Direction.UP:
            after = self._base_limit
        else:
            after, self._base = min(self.limit - 1, math.floor(self.limit * 0.95)), None
        self._slow, self._probing = False, None
        return self._set(after, now, "the service pushes back")

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

    def _set(self, limit: int, now: float, reason: str) -> LimitChanged | None:
        before, self.limit = self.limit, max(1, min(self.most, limit))
        self._trial = _Trial(self.limit, now, 0 if self._slow else max(1, self.limit // 2))
        return None if before == self.limit else LimitChanged("max_in_flight", before, self.limit, reason)
