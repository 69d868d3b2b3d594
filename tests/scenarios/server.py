"""A scenario's server: the sandbox's Sama in made-up time, behind a line and a machine that have their troubles.

What a request does is the sandbox's matter (`fakes/sandbox.py`). Here is what stands before it: whether anybody is
there, how fast bodies come up, whose key holds, how many requests are worked on at once and how long that takes.
A request whose client has given up is worked on all the same, in its turn.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
from fakes.clock import FakeClock
from fakes.sandbox import InProcessSandbox
from multidict import CIMultiDict

from engine.http.classify import Loss
from engine.http.client import Lost, Request
from engine.sandbox.behaviour import Behaviour as Manner
from engine.sandbox.behaviour import CreationPace, Fault, FaultKind, RateLimit, Reads
from engine.sandbox.journal import read_journal
from engine.sandbox.sama.uploads import Uploads
from engine.sandbox.traffic import RateLimits
from engine.services.base import Answer

from .scenario import KINDS, Kind, Scenario

BASE_URL = "https://sama.example/v2"
STORE = "bucket.s3.amazonaws.com"
PROJECT = 42
ACCESS_KEYS = ("first-key", "second-key")
"""... that hold at some time."""
DOOR_SECONDS = 0.02
"""A no that needs no work."""
LATE: dict[str, FaultKind] = {"given": "act_later", "lost": "drop_late", "page": "html_late"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the server, or would have."""

    at: float
    request: Request
    """The same one, if the caller repeats it."""

    @property
    def kind(self) -> str:
        return self.request.call.kind


class Store(Uploads):
    """Where uploads go: another host than the API's."""

    def url(self, project_id: int, batch_id: int, origin: str, lifetime_seconds: float) -> str:
        return super().url(project_id, batch_id, f"https://{STORE}", lifetime_seconds)


class SimulatedSama:
    """The server, and as `engine.http.client.Client` the only way to it."""

    def __init__(self, scenario: Scenario, clock: FakeClock, folder: Path) -> None:
        self.behaviour = scenario.server
        self.seen: list[Seen] = []
        self.answered: list[tuple[float, str, int]] = []
        """(time, kind, status) of every answer that arrived."""
        self.journal: dict[str, list[str]] = defaultdict(list)
        """Marker of a record → ids of the tasks that were created of it; once the server has come to rest."""
        self.most_at_once = 0
        self.answer_timeout = 60.0
        self.call_timeout = 300.0
        self._sandbox = InProcessSandbox(manner(scenario), clock, folder, uploads=Store(clock.now))
        self._clock = clock
        self._started = clock.monotonic()
        self._changes = list(scenario.changes)
        self._workers: list[float] = []
        self._work: set[asyncio.Task[Answer | Lost]] = set()
        self._under_way = 0
        self._limit()

    async def send(self, request: Request) -> Answer | Lost:
        """Make one request, once."""
        self.seen.append(Seen(self._look(), request))
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            arrives = await self._arrives(request)
            answer = await self._conversation(request) if arrives else Lost(Loss.ANSWER_TIMEOUT)
        finally:
            self._under_way -= 1
        if isinstance(answer, Answer):
            self.answered.append((self._clock.monotonic(), request.call.kind, answer.status))
        return answer

    async def come_to_rest(self) -> None:
        """Let all be done that is still to be done: the journal is then what it will ever be."""
        await self._sandbox.come_to_rest()
        for entry in read_journal(self._sandbox.path):
            self.journal[str(entry.marker)].append(entry.task_id)

    def close(self) -> None:
        """Close the journal's file."""
        self._sandbox.close()

    # The line

    async def _arrives(self, request: Request) -> bool:
        """Let the body come up the line; False if that takes longer than a call may."""
        speed = self.behaviour.bytes_per_second
        if speed is None:
            return True
        seconds = request.call.size_bytes / speed
        await self._clock.sleep(min(seconds, self.call_timeout))
        return seconds <= self.call_timeout

    async def _conversation(self, request: Request) -> Answer | Lost:
        now, condition = self._look(), self._condition(request)
        if condition != "up":
            await self._clock.sleep(self.answer_timeout if condition == "silent" else DOOR_SECONDS)
            lost = Loss.ANSWER_TIMEOUT if condition == "silent" else Loss.UNREACHABLE
            return Answer(503, CIMultiDict(), b"") if condition == "errors" else Lost(lost)
        if (refusal := self._at_the_door(request)) is not None:
            await self._clock.sleep(DOOR_SECONDS)
            return refusal
        free, done = self._turn(request, now)
        work = asyncio.ensure_future(self._worked_on(request, free - now))
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        await self._clock.sleep(min(done - now, self.answer_timeout))
        if done > now + self.answer_timeout:
            return Lost(Loss.ANSWER_TIMEOUT)
        self._look()
        answer = await work
        return answer if self._condition(request) == "up" else Lost(Loss.CUT)

    def _condition(self, request: Request) -> str:
        return self.behaviour.store if request.url.host == STORE else self.behaviour.api

    # The machine

    def _at_the_door(self, request: Request) -> Answer | None:
        """Refuse who has no key that holds now."""
        key, status = request.url.query.get("access_key"), self.behaviour.key_refusal
        if request.url.host == STORE:
            assert key is None, "the store was shown our key"
            return None
        if key in self.behaviour.keys:
            return None
        body = {"errors": [{"type": status, "message": "Unauthorized"}]}
        return Answer(status, CIMultiDict(), orjson.dumps(body))

    def _turn(self, request: Request, now: float) -> tuple[float, float]:
        """Return when work on a request begins and when it ends; the store is as fast, however many come."""
        behaviour = self.behaviour
        if request.url.host == STORE:
            return now, now + behaviour.answer_seconds
        while self._workers and self._workers[0] <= now:
            heapq.heappop(self._workers)
        busy = len(self._workers)
        free = now if busy < behaviour.workers else heapq.nsmallest(busy - behaviour.workers + 1, self._workers)[-1]
        done = free + behaviour.answer_seconds * (1 + behaviour.slower_by_load * busy)
        heapq.heappush(self._workers, done)
        return free, done

    async def _worked_on(self, request: Request, wait_seconds: float) -> Answer | Lost:
        if wait_seconds > 0:
            await self._clock.sleep(wait_seconds)
        self._look()
        return await self._sandbox.serve(request) if self._condition(request) == "up" else Lost(Loss.CUT)

    def _look(self) -> float:
        """Make up for changes of the behaviour; return the time."""
        now = self._clock.monotonic()
        while self._changes and self._started + self._changes[0][0] <= now:
            self.behaviour = self._changes.pop(0)[1]
            self._limit()
        return now

    def _limit(self) -> None:
        rate, burst = self.behaviour.requests_per_second, self.behaviour.burst
        limits = [RateLimit(burst, burst / rate, retry_after=True)] if rate else []
        self._sandbox.service.traffic.limits = RateLimits(limits, outside=frozenset({"put"}))


def manner(scenario: Scenario) -> Manner:
    """Return how the sandbox behaves in a scenario: what does not change in its course."""
    server = scenario.server
    return Manner(
        access_keys=ACCESS_KEYS,
        seed=scenario.seed,
        busy_while_late=server.busy_while_late,
        max_body_bytes=server.most_bytes or 2**30,
        continue_again="error" if server.continue_again == "refuse" else server.continue_again,
        cancel=server.cancel,
        tasks_put_url_seconds=server.url_seconds,
        creation=CreationPace(
            server.tasks_per_second,
            parallel_batches=1,
            stalled=server.stalled,
            stall_seconds=server.stall_seconds,
        ),
        reads=Reads(status_seconds=server.status_lag_seconds),
        faults=tuple(_faults(scenario)),
    )


def _faults(scenario: Scenario) -> Iterator[Fault]:
    """Yield a fault for each share; each has a die of its own, so the order between kinds of calls is no matter."""
    server = scenario.server
    shares: list[tuple[Mapping[Kind, float], FaultKind]] = [
        (server.lost_requests, "drop_before"),
        (server.late, LATE[server.late_answer]),
        (server.swallowed, "swallow"),
        (server.lost_answers, "drop_after"),
    ]
    for number, (share_of, kind) in enumerate(shares):
        for call, share in share_of.items():
            seed = scenario.seed * 1000 + number * 100 + KINDS.index(call)
            seconds, status = server.late_seconds, 504
            yield Fault(
                "create" if call == "post" else call, kind, share=share, seed=seed, seconds=seconds, status=status
            )


def kinds(seen: list[Seen]) -> Counter[str]:
    """Count requests by kind."""
    return Counter(one.kind for one in seen)
