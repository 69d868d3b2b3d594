"""Requests enter, answers leave, and a journal says what was really created: a Sama made of values and made-up time.

Nothing here runs beside the requests. What the server does later (work on a request whose client has given up, a change
of its behaviour, the creation of tasks) waits in a queue by time and is made up for whenever somebody looks.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import ceil
from random import Random
from typing import Literal

import orjson
from multidict import CIMultiDict

from engine.http.classify import Loss
from engine.http.client import Lost, Request
from engine.services.base import Answer

from .remote import RemoteBatch
from .scenario import Behaviour, Scenario

BASE_URL = "https://sama.example/v2"
STORE = "bucket.s3.amazonaws.com"
PROJECT = 42
When = Literal["now", "late", "never"]
"""... a release is done."""
DOOR_SECONDS = 0.02
"""A no that needs no work."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the server, or would have."""

    at: float
    request: Request
    """The same one, if the caller repeats it."""

    @property
    def kind(self) -> str:
        return self.request.call.kind


@dataclass(slots=True)
class Visit:
    """A request at work, or waiting for it."""

    done_at: float
    answer: Answer | None = None
    """None: its connection breaks."""


class SimulatedSama:
    """The server, and as `engine.http.client.Client` the only way to it."""

    def __init__(self, scenario: Scenario, clock) -> None:
        self.behaviour: Behaviour = scenario.server
        self.seen: list[Seen] = []
        self.answered: list[tuple[float, str, int]] = []
        """(time, kind, status) of every answer that arrived."""
        self.journal: dict[str, list[str]] = defaultdict(list)
        """Marker of a record → ids of the tasks that were created of it."""
        self.most_at_once = 0
        self._clock = clock
        self._started = clock.monotonic()
        self._seed = scenario.seed
        self._dice: dict[str, Random] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._batches: dict[str, RemoteBatch] = {}
        self._released = 0
        self._workers: list[float] = []
        self._under_way = 0
        self._line: deque[tuple[RemoteBatch, int]] = deque()
        """(batch, position of the task): what is to be created, in order."""
        self._stuck: list[tuple[RemoteBatch, int]] = []
        self._created_until = self._started
        self._credit = 0.0
        self._next_place = float("-inf")
        self.answer_timeout = 60.0
        self.call_timeout = 300.0
        for at, behaviour in scenario.changes:
            self._later(self._started + at, lambda behaviour=behaviour: self._change(behaviour))

    # What the engine sees

    async def send(self, request: Request) -> Answer | Lost:
        """Make one request, once."""
        now = self._look()
        self.seen.append(Seen(now, request))
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            arrives = await self._arrives(request)
            answer = await self._conversation(request, self._look()) if arrives else Lost(Loss.ANSWER_TIMEOUT)
        finally:
            self._under_way -= 1
        if isinstance(answer, Answer):
            self.answered.append((self._clock.monotonic(), request.call.kind, answer.status))
        return answer

    async def _conversation(self, request: Request, now: float) -> Answer | Lost:
        if self._condition(request) != "up":
            return await self._nobody_there(request)
        if (refusal := self._at_the_door(request, now)) is not None:
            await self._clock.sleep(DOOR_SECONDS)
            return refusal
        if self._strikes("request", request, self.behaviour.lost_requests):
            await self._clock.sleep(DOOR_SECONDS)
            return Lost(Loss.CUT)
        visit = self._admit(request, now)
        await self._clock.sleep(min(visit.done_at - now, self.answer_timeout))
        self._look()
        if visit.done_at > now + self.answer_timeout:
            return Lost(Loss.ANSWER_TIMEOUT)
        broken = visit.answer is None or self._condition(request) != "up"
        if broken or self._strikes("answer", request, self.behaviour.lost_answers):
            return Lost(Loss.CUT)
        return visit.answer

    async def _nobody_there(self, request: Request) -> Answer | Lost:
        condition = self._condition(request)
        await self._clock.sleep(self.answer_timeout if condition == "silent" else DOOR_SECONDS)
        if condition == "errors":
            return _answer(503)
        return Lost(Loss.ANSWER_TIMEOUT if condition == "silent" else Loss.UNREACHABLE)

    def _condition(self, request: Request) -> str:
        return self.behaviour.store if request.url.host == STORE else self.behaviour.api

    def _strikes(self, what: str, request: Request, shares: dict[str, float]) -> bool:
        """Tell whether fate hits; each kind of call has a die of its own, so the order between kinds is no matter."""
        kind = request.call.kind
        die = self._dice.setdefault(f"{what} {kind}", Random(f"{self._seed} {what} {kind}"))
        return die.random() < shares.get(kind, 0.0)

    async def _arrives(self, request: Request) -> bool:
        """Let the body come up the line; False if that takes longer than a call may."""
        speed = self.behaviour.bytes_per_second
        if speed is None:
            return True
        seconds = request.call.size_bytes / speed
        await self._clock.sleep(min(seconds, self.call_timeout))
        return seconds <= self.call_timeout

    def _at_the_door(self, request: Request, now: float) -> Answer | None:
        most = self.behaviour.most_bytes
        too_large = most is not None and request.call.size_bytes > most
        if request.url.host == STORE:
            assert "access_key" not in request.url.query, "the store was shown our key"
            return Answer(400, CIMultiDict(), b"<Error><Code>EntityTooLarge</Code></Error>") if too_large else None
        if too_large:
            return _refusal(413, "Request Entity Too Large")
        if (wait := self._wait_for_place(now)) > 0:
            return _answer(429, {"errors": []}, {"Retry-After": str(ceil(wait))})
        if request.url.query.get("access_key") not in self.behaviour.keys:
            return _refusal(self.behaviour.key_refusal, "Unauthorized")
        return None

    def _wait_for_place(self, now: float) -> float:
        rate = self.behaviour.requests_per_second
        if rate is None:
            return 0.0
        earliest = now - (self.behaviour.burst - 1) / rate
        place = max(self._next_place, earliest)
        if place <= now:
            self._next_place = place + 1 / rate
        return max(0.0, place - now)

    def _admit(self, request: Request, now: float) -> Visit:
        """Put a request in line; it is worked on in its turn, whether its client still waits or not."""
        free, done = now, now + self.behaviour.answer_seconds
        if request.url.host != STORE:  # which is as fast, however many come
            free, done = self._take_worker(now)
        visit = Visit(done)

        def work() -> None:
            if self._condition(request) == "up":
                visit.answer = self._worked_on(request)

        self._later(free, work)
        self._look()
        return visit

    def _take_worker(self, now: float) -> tuple[float, float]:
        """Return when work on a request begins and when it ends."""
        behaviour = self.behaviour
        while self._workers and self._workers[0] <= now:
            heapq.heappop(self._workers)
        busy = len(self._workers)
        free = now if busy < behaviour.workers else heapq.nsmallest(busy - behaviour.workers + 1, self._workers)[-1]
        done = free + behaviour.answer_seconds * (1 + behaviour.slower_by_load * busy)
        heapq.heappush(self._workers, done)
        return free, done

    # What the server does

    def look_ahead(self) -> None:
        """Do all that is still to be done: the journal is then what it will ever be."""
        while self._events:
            self._make_up(self._events[0][0])
        self._credit += len(self._line)
        self._create(self._created_until)

    def _look(self) -> float:
        now = self._clock.monotonic()
        self._make_up(now)
        return now

    def _make_up(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            at, _, happen = heapq.heappop(self._events)
            self._create(at)
            happen()
        self._create(until)

    def _later(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), happen))

    def _change(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self._line.extend(self._stuck)
        self._stuck.clear()

    def _create(self, until: float) -> None:
        speed, since = self.behaviour.tasks_per_second, self._created_until
        self._credit += max(0.0, until - since) * speed
        self._created_until = max(until, since)
        while self._line and self._credit >= 1:
            batch, position = self._line.popleft()
            if batch.release_number in self.behaviour.unfinished and position >= len(batch.tasks) // 2:
                self._stuck.append((batch, position))
                continue
            self._credit -= 1
            task_id = f"{batch.number}-{len(batch.task_ids)}"
            batch.task_ids.append(task_id)
            batch.created_at.append(max(since, self._created_until - self._credit / speed) if speed else since)
            self.journal[batch.tasks[position]["data"]["id"]].append(task_id)
        if not self._line:
            self._credit = 0.0

    def _worked_on(self, request: Request) -> Answer | None:
        """Do what is asked, at once, later or never; return the answer, None if it is lost."""
        late = self._strikes("late", request, self.behaviour.late)
        swallowed = self._strikes("swallow", request, self.behaviour.swallowed)
        answer = self._answered(request, "late" if late else "never" if swallowed else "now")
        if not late or self.behaviour.late_answer == "given":
            return answer
        return _page(504) if self.behaviour.late_answer == "page" else None

    def _answered(self, request: Request, when: When) -> Answer:
        if request.url.host == STORE:
            return self._store(request)
        path = request.url.path.removeprefix(f"/v2/projects/{PROJECT}/batches").removesuffix(".json")
        method = request.call.method
        match method, path.strip("/").split("/"):
            case "POST", [""]:
                return self._new(orjson.loads(b"".join(request.call.pieces)), when)
            case "POST", [number, "continue"] if number in self._batches:
                return self._continue(self._batches[number], when)
            case "POST", [number, "cancel"] if number in self._batches:
                return self._cancel(self._batches[number])
            case "GET", [number] if number in self._batches:
                return self._status(self._batches[number], request)
        return _refusal(404, f"{method} {request.url.path}")

    def _new(self, body: dict, when: When) -> Answer:
        batch = RemoteBatch(len(self._batches) + 1)
        self._batches[str(batch.number)] = batch
        answer: dict[str, object] = {"batch_id": batch.number}
        if "tasks" in body:
            batch.tasks = body["tasks"]
            self._release(batch, when)
        else:
            batch.url_until = self._created_until + self.behaviour.url_seconds
            answer["tasks_put_url"] = f"https://{STORE}/{batch.number}?X-Amz-Signature=c0ffee"
        return _answer(200, answer)

    def _store(self, request: Request) -> Answer:
        batch = self._batches[request.url.path.strip("/")]
        if self._created_until > batch.url_until:
            return Answer(403, CIMultiDict(), b"<Error><Code>AccessDenied</Code></Error>")
        batch.tasks = orjson.loads(b"".join(request.call.pieces))
        return Answer(200, CIMultiDict(ETag='"c0ffee"'), b"")

    def _continue(self, batch: RemoteBatch, when: When) -> Answer:
        if self._is_busy(batch):
            return _refusal(409, "Conflict")
        again = self.behaviour.continue_again if batch.told else None
        if batch.tasks is None or batch.canceled or again == "refuse":
            return _refusal(400, "InvalidBatchState")
        if again == "html":
            return _page(409)
        if again != "noop":
            self._release(batch, when)
        return _answer(200, {"batch_id": batch.number})

    def _cancel(self, batch: RemoteBatch) -> Answer:
        if self._is_busy(batch):
            return _refusal(409, "Conflict")
        if self.behaviour.cancel == "refuse":
            return _refusal(400, "InvalidBatchState")
        if not batch.released_at and batch.canceled_at is None:
            batch.canceled_at = self._created_until
        return _answer(200, {"batch_id": batch.number})

    def _is_busy(self, batch: RemoteBatch) -> bool:
        return self.behaviour.busy_while_late and batch.late > 0

    def _release(self, batch: RemoteBatch, when: When) -> None:
        if when == "never":
            return
        batch.told = True
        if when == "now":
            self._start(batch)
        else:
            batch.late += 1
            self._later(self._created_until + self.behaviour.late_seconds, lambda: self._start_late(batch))

    def _start_late(self, batch: RemoteBatch) -> None:
        batch.late -= 1
        if not batch.canceled or self.behaviour.cancel == "lie":
            self._start(batch)

    def _start(self, batch: RemoteBatch) -> None:
        if not batch.released_at:
            self._released += 1
            batch.release_number = self._released
        batch.released_at.append(self._created_until)
        self._line.extend((batch, position) for position in range(len(batch.tasks)))

    def _status(self, batch: RemoteBatch, request: Request) -> Answer:
        at = self._created_until - self.behaviour.status_lag_seconds
        body, created = batch.status(at), batch.created(at)
        if size := int(request.url.query["page_size"]):
            first = size * (int(request.url.query["page"]) - 1)
            body["tasks"] = [{"id": one, "state": "created"} for one in created[first : first + size]]
        return _answer(200, body)


def _answer(status: int, body: dict | None = None, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, CIMultiDict(headers or {}), orjson.dumps(body) if body is not None else b"")


def _page(status: int) -> Answer:
    return Answer(status, CIMultiDict({"Content-Type": "text/html"}), b"<html><h1>Something went wrong</h1></html>")


def _refusal(status: int, words: str) -> Answer:
    return _answer(status, {"errors": [{"type": status, "message": words}]})


def kinds(seen: list[Seen]) -> Counter[str]:
    """Count requests by kind."""
    return Counter(one.kind for one in seen)
