"""A server, a rule for the limit and a seed -> what a run of so many calls came to, in virtual time.

The client is a closed loop as the engine is one: it keeps as many calls under way as the limit allows, holds everybody
for a `Retry-After`, and repeats what was pushed back or lost. A run ends with the answer to call number `calls`, while
more are waiting: what is measured is speed, not how the last few calls trickle out.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from benchmarks.simulation.server import Demand, Server, Turn, Workshop
from engine.adaptive.concurrency import CallFate, Finished, LimitChanged
from engine.http.retry import Retry, RetryRules, backoff

BINS = 120
"""Points of a time series."""
MOST_SECONDS = 1e6
"""A run that has not ended by then does not end; no fixed setting of the suite comes near."""


class Rule(Protocol):
    """Decides how many calls may be under way."""

    @property
    def limit(self) -> int:
        """The limit now."""
        ...

    def observe(self, call: Finished) -> LimitChanged | None:
        """Take in a finished call."""
        ...


@dataclass(frozen=True, slots=True)
class Point:
    """A slice of a run."""

    at_seconds: float
    limit: float
    rtt_seconds: float
    """Mean of the calls answered in it; 0 if there were none."""
    mebibytes_per_second: float


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to."""

    seconds: float
    answered: int
    answered_bytes: int
    pushed_back: int
    lost: int
    changes: tuple[tuple[float, LimitChanged], ...]
    series: tuple[Point, ...]

    @property
    def bytes_per_second(self) -> float:
        """Payload taken by the server a second."""
        return self.answered_bytes / self.seconds


@dataclass(slots=True)
class _Sent:
    """A call under way."""

    number: int
    attempt: int
    size: int
    started: float
    in_flight: int


@dataclass(slots=True)
class _Simulation:
    server: Server
    rule: Rule
    seed: int
    most_calls: int
    demand: Demand = field(init=False)
    workshop: Workshop = field(init=False)
    chance: random.Random = field(init=False)
    now: float = 0.0
    fresh: int = 0
    slots: int = 0
    """Taken by calls under way and by those that wait for their repetition: a batch keeps its slot until it is done."""
    held_until: float = 0.0
    tokens: float = 0.0
    tokens_at: float = 0.0
    pushed_back: int = 0
    lost: int = 0
    under_way: dict[int, _Sent] = field(default_factory=dict)
    again: deque[tuple[int, int]] = field(default_factory=deque)
    repeats: list[tuple[int, int]] = field(default_factory=list)
    unheard: set[int] = field(default_factory=set)
    """Calls whose answer gets lost on its way."""
    events: list[tuple[float, int, str, int]] = field(default_factory=list)
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, LimitChanged]] = field(default_factory=list)
    rules: RetryRules = field(default_factory=RetryRules)
    _serial: int = 0

    def __post_init__(self) -> None:
        self.demand = Demand(self.server, self.seed)
        self.workshop = Workshop(self.server, self.seed)
        self.chance = random.Random(self.seed)
        self.tokens = float(self.server.burst)
        self.limits.append((0.0, self.rule.limit))
        for index, turn in enumerate(self.server.turns):
            self._at(turn.at_seconds, "turn", index)
        for kind, every in (("walk", self.server.walk_seconds), ("scale", self.server.scale_seconds)):
            if every is not None:
                self._at(every, kind, 0)

    def run(self) -> Run:
        self._dispatch()
        while len(self.answers) < self.most_calls and self.now < MOST_SECONDS:
            finish = self.workshop.next_finish()
            if self.events and self.events[0][0] <= finish:
                self.now, _, kind, about = heappop(self.events)
                self._happen(kind, about)
            else:
                self.now = finish
                self._leave(self.workshop.finish(finish))
            self._dispatch()
        size = sum(answer[2] for answer in self.answers)
        changes, series = tuple(self.changes), tuple(self._series())
        return Run(self.now, len(self.answers), size, self.pushed_back, self.lost, changes, series)

    def _at(self, when: float, kind: str, about: int) -> None:
        self._serial += 1
        heappush(self.events, (when, self._serial, kind, about))

    def _again(self, kind: str, about: int, every: float | None) -> None:
        if every is not None:
            self._at(self.now + every, kind, about)

    def _happen(self, kind: str, about: int) -> None:
        match kind:
            case "turn":
                turn: Turn = self.server.turns[about]
                self.workshop.change(self.now, turn)
                self._again(kind, about, self.server.every_seconds)
            case "walk":
                self.workshop.walk(self.now)
                self._again(kind, about, self.server.walk_seconds)
            case "scale":
                self.workshop.scale(self.now)
                self._again(kind, about, self.server.scale_seconds)
            case "tire":
                if self.workshop.turn_away(about):
                    self._leave(about, "push")
            case "arrive":
                self._arrive(about)
            case "again":
                self.again.append(self.repeats[about])
            case "done" | "push" | "lose":
                self._end(about, {"done": CallFate.DONE, "push": CallFate.PUSHED_BACK, "lose": CallFate.LOST}[kind])
            case _:  # "wake": somebody may go now
                pass

    def _dispatch(self) -> None:
        if self.now < self.held_until:
            return
        while self.again:
            self._send(*self.again.popleft())
        while self.slots < self.rule.limit and self._supplied():
            self.slots += 1
            self.fresh += 1
            self._send(self.fresh - 1, 0)

    def _supplied(self) -> bool:
        """Tell whether the client has the next batch ready; if not, wake up when it has."""
        if self.server.supply_per_second is None:
            return True
        ready = self.fresh / self.server.supply_per_second
        if ready <= self.now:
            return True
        if not any(event[2] == "wake" and event[0] >= self.now for event in self.events):
            self._at(ready, "wake", 0)
        return False

    def _send(self, number: int, attempt: int) -> None:
        size, _ = self.demand.of(number)
        self._serial += 1
        self.under_way[self._serial] = _Sent(number, attempt, size, self.now, self.slots)
        self._at(self.now + self.server.network_seconds / 2, "arrive", self._serial)

    def _arrive(self, key: int) -> None:
        if not self._take_token():
            self._at(self.now + self.server.network_seconds / 2, "push", key)
            return
        if self.workshop.full:
            self._at(self.now + self.server.lost_seconds, "lose", key)
            return
        if self.server.lost_share and self.chance.random() < self.server.lost_share:
            self._at(self.now + self.server.lost_seconds, "lose", key)
            self.unheard.add(key)
        if self.server.queue_seconds is not None:
            self._at(self.now + self.server.queue_seconds, "tire", key)
        self.workshop.arrive(self.now, key, self.demand.of(self.under_way[key].number)[1])

    def _leave(self, key: int, answer: str = "done") -> None:
        """The server has answered; unless the answer is lost, the client has it soon."""
        if key in self.unheard:
            self.unheard.remove(key)
        else:
            self._at(self.now + self.server.network_seconds / 2, answer, key)

    def _take_token(self) -> bool:
        rate = self.server.rate_per_second
        if rate is None:
            return True
        self.tokens = min(self.server.burst, self.tokens + (self.now - self.tokens_at) * rate)
        self.tokens_at = self.now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def _end(self, key: int, fate: CallFate) -> None:
        sent = self.under_way.pop(key)
        if fate is CallFate.DONE:
            self.slots -= 1
            self.answers.append((self.now, self.now - sent.started, sent.size))
        else:
            self._repeat(sent, fate)
        change = self.rule.observe(Finished(sent.started, self.now, sent.size, sent.in_flight, fate))
        if change is not None:
            self.changes.append((self.now, change))
            self.limits.append((self.now, self.rule.limit))

    def _repeat(self, sent: _Sent, fate: CallFate) -> None:
        attempt = sent.attempt + 1
        asked = None
        if fate is CallFate.PUSHED_BACK:
            self.pushed_back += 1
            asked = self.server.retry_after_seconds
        else:
            self.lost += 1
        if asked is not None:
            self.held_until = max(self.held_until, self.now + asked)
            self._at(self.held_until, "wake", 0)
        decision = backoff(self.rules, attempt, 0.0, self.chance.random(), asked)
        self.repeats.append((sent.number, attempt))
        after = decision.after_seconds if isinstance(decision, Retry) else math.inf
        self._at(self.now + after, "again", len(self.repeats) - 1)

    def _series(self) -> list[Point]:
        width = self.now / BINS
        points, answers, limits, limit = [], deque(self.answers), deque(self.limits), self.limits[0][1]
        for index in range(BINS):
            until = (index + 1) * width if index < BINS - 1 else math.inf
            area, since = 0.0, index * width
            while limits and limits[0][0] < until:
                when, after = limits.popleft()
                area += limit * max(0.0, when - since)
                since, limit = max(since, when), after
            area += limit * (min(until, self.now) - since)
            ended = []
            while answers and answers[0][0] <= until:
                ended.append(answers.popleft())
            rtt = sum(answer[1] for answer in ended) / len(ended) if ended else 0.0
            size = sum(answer[2] for answer in ended) / 2**20
            points.append(Point((index + 0.5) * width, area / width, rtt, size / width))
        return points


def simulate(server: Server, rule: Rule, seed: int = 1, calls: int | None = None) -> Run:
    """Let `rule` drive `server` until so many calls (the server's own number by default) are answered."""
    return _Simulation(server, rule, seed, calls or server.calls).run()
