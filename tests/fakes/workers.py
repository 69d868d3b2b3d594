"""Workers that share the limits of one service, simulated in made-up time: real throttles, a model of the service."""

import heapq
import random
from itertools import count

from engine.adaptive.shared_limits import SYNC_SECONDS, FlightReport, SharedLimits
from engine.adaptive.window import Allowance
from engine.http.classify import Loss, judge_loss, judge_status
from engine.http.retry import CallState, GiveUp, RetryRules
from engine.http.share import Share
from engine.http.throttle import Throttle
from engine.services.base import Call

STATUS = Call("status", "GET", "https://api.example.com/v2/batches/1.json")
OK, PUSHED_BACK = (judge_status(status, repeatable=True) for status in (200, 429))
LOST = judge_loss(Loss.CUT, repeatable=True)
FAR_SECONDS = 0.05
"""From the last sync of a worker to the one that it asks for."""


def with_fields(verdict, **fields):
    return type(verdict)(**{**{name: getattr(verdict, name) for name in verdict.__struct_fields__}, **fields})


class Bucket:
    """A service that takes so many calls a second, and a few at once."""

    def __init__(self, per_second, burst):
        self.per_second, self.burst = per_second, burst
        self.tokens, self.filled_at = float(burst), 0.0

    def call(self, now):
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.per_second)
        self.filled_at = now
        if self.tokens < 1:
            return PUSHED_BACK
        self.tokens -= 1
        return OK


class FixedWindow:
    """A service that takes so many calls in each window, and tells what is left and when it ends."""

    def __init__(self, limit, seconds):
        self.limit, self.seconds = limit, seconds
        self.number, self.used = -1, 0

    def call(self, now):
        number = int(now // self.seconds)
        if number != self.number:
            self.number, self.used = number, 0
        refused = self.used >= self.limit
        self.used += not refused
        window = Allowance(self.limit, self.limit - self.used, (number + 1) * self.seconds - now)
        return with_fields(PUSHED_BACK if refused else OK, window=window)


class Changing:
    """A service that is another one from some times on."""

    def __init__(self, first, *later):
        self.services = [(0.0, first), *later]

    def call(self, now):
        return next(service for since, service in reversed(self.services) if since <= now).call(now)


class Answering:
    """A service that ends every call alike."""

    def __init__(self, verdict):
        self.verdict = verdict

    def call(self, now):
        return self.verdict


class Worker:
    """One process with its own clock: `callers` calls at a time, one after the other."""

    def __init__(  # noqa: PLR0913 - what a test may vary
        self, world, name, callers, *, requests_per_second=None, call=STATUS, seconds=0.2, rest=0.0
    ):
        self.world, self.name = world, name
        self.share = Share(name)
        self.share.on_ask, self.share.on_grant = self.ask, self.wake
        self.throttle = Throttle(RetryRules(), requests_per_second, world.draw, self.share)
        self.call, self.seconds, self.rest = call, seconds, rest
        self.skew = world.draw() * 1000
        self.flight = FlightReport()
        self.grants = []
        self.waiting = []
        self.given_up = 0
        self.stopped_until = 0.0
        self.dead = self.unreachable = False
        self.synced_at, self.syncing, self.asked = -1.0, False, True
        self.callers = callers
        world.at(world.now, self.sync)
        for _ in range(callers):
            world.at(world.now, self.begin)

    def clock(self):
        return self.world.now + self.skew

    def alive(self, work, *args):
        """Return whether work may be done now; a stopped process does it when it goes on."""
        if self.dead:
            return False
        if self.world.now < self.stopped_until:
            self.world.at(self.stopped_until, work, *args)
            return False
        return True

    def begin(self):
        self.admit(CallState(self.call))

    def admit(self, state):
        if not self.alive(self.admit, state):
            return
        wait = self.throttle.admit(state, self.clock())
        if isinstance(wait, GiveUp):
            self.given_up += 1
        elif wait.seconds == float("inf"):
            self.waiting.append(state)
        elif wait.seconds > 0:
            self.world.at(self.world.now + wait.seconds, self.admit, state)
        else:
            self.send(state)

    def send(self, state):
        state.sent_at = self.clock()
        verdict = self.world.service.call(self.world.now)
        self.world.calls.append((self.world.now, self.name, verdict.status))
        self.world.at(self.world.now + self.seconds * (0.5 + self.world.draw()), self.end, state, verdict)

    def end(self, state, verdict):
        if not self.alive(self.end, state, verdict):
            return
        probed = state.probing
        self.throttle.observe(state, verdict, self.clock())
        if probed:
            self.wake()
        if verdict.error is None:
            self.world.at(self.world.now + self.rest * self.world.draw(), self.begin)
        else:
            state.retry_at = self.clock() + (verdict.asked_seconds or 0.1)
            self.admit(state)

    def wake(self):
        waiting, self.waiting = self.waiting, []
        for state in waiting:
            self.admit(state)

    def ask(self):
        if not self.asked and not self.syncing:
            self.world.at(max(self.world.now, self.synced_at + FAR_SECONDS), self.sync)
        self.asked = True

    def sync(self):
        if not self.alive(self.sync) or self.syncing:
            return
        if not self.asked and self.world.now < self.synced_at + SYNC_SECONDS - 1e-9:
            return  # there was one meanwhile
        self.syncing, self.asked = True, False
        asked = self.clock()
        self.world.at(self.world.now + self.world.latency(), self.revise, self.share.report(asked, self.flight), asked)

    def revise(self, report, asked):
        grant = None if self.unreachable else self.world.revise(report)
        self.world.at(self.world.now + self.world.latency(), self.granted, report, grant, asked)

    def granted(self, report, grant, asked):
        if not self.alive(self.granted, report, grant, asked):
            return
        self.syncing, self.synced_at = False, self.world.now
        self.world.at(self.world.now + SYNC_SECONDS, self.sync)
        if grant is None:
            self.asked = False
            return
        self.grants.append(grant)
        self.share.grant(report, grant, asked, self.clock())
        if self.asked:
            self.world.at(self.world.now + FAR_SECONDS, self.sync)

    def leave(self):
        report = self.share.report(self.clock(), self.flight)
        report.leaving = True
        self.world.revise(report)
        self.dead = True


class World:
    """A service, a ledger and its clock."""

    def __init__(self, service, seed=1, latency_seconds=0.01):
        self.service = service
        self.draw = random.Random(seed).random
        self.latency_seconds = latency_seconds
        self.now, self.events, self.numbers = 0.0, [], count()
        self.calls = []
        """(time, worker, status) of each."""
        self.text = None

    def latency(self):
        return self.latency_seconds * (0.5 + self.draw())

    def revise(self, report):
        limits = SharedLimits.of(self.text)
        grant = limits.sync(report, 1.8e9 + self.now)
        self.text = limits.text()
        return grant

    def at(self, time, work, *args):
        heapq.heappush(self.events, (time, next(self.numbers), work, args))

    def run(self, until):
        while self.events and self.events[0][0] <= until:
            self.now, _, work, args = heapq.heappop(self.events)
            work(*args)
        self.now = until

    def workers(self, number, callers, **options):
        return [Worker(self, f"w{index}", callers, **options) for index in range(number)]

    def pushed_back(self, since=0.0):
        return [call for call in self.calls if call[2] == PUSHED_BACK.status and call[0] >= since]

    def let_in(self, since, until):
        return sum(since <= time < until and status == OK.status for time, _, status in self.calls)
