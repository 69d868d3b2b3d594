"""What happens to a request on the way to its handler: latency, rate limits and faults.

A transport gives each request to `SandboxService.answer`, which passes its call through `Traffic`. Nothing here knows a
service or a connection. The clock, the sleep and the reading of the body are passed in, so that the same holds over a
socket and in made-up time.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import get_args

from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.behaviour import (
    ALL_CALLS,
    Behaviour,
    BehaviourError,
    Fault,
    FaultKind,
    LateKind,
    Latency,
    RateLimit,
    unknown_name,
)
from engine.sandbox.faults import NEVER, Agenda, FaultPlan
from engine.sandbox.messages import (
    Route,
    Routes,
    SandboxAnswer,
    SandboxCall,
    SandboxRefusal,
    SandboxRequest,
    html_answer,
)

ErrorAnswer = Callable[[str, int, str], SandboxAnswer]
"""Kind of call, status, message → the service's own form of an error."""
ReadBody = Callable[[SandboxCall], Awaitable[bytes | None]]
"""Returns the body of a request, None if it is larger than allowed."""
Sleep = Callable[[float], Awaitable[object]]

DEFERRING: frozenset[FaultKind] = frozenset(get_args(LateKind))
_WITHOUT_WORK: frozenset[FaultKind] = frozenset({"refuse", "drop_before", "html"})
_INSTANT = Latency()


@dataclass(slots=True)
class Stats:
    """Counts since the start; `peak_requests` is the most requests that were in work at once."""

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rate_limited: int = 0
    batches: int = 0
    tasks_created: int = 0
    tasks_failed: int = 0
    tasks_run: int = 0
    requests_in_work: int = 0
    peak_requests: int = 0

    @contextlib.contextmanager
    def request(self, kind: str) -> Iterator[None]:
        """Count one request while it is in work."""
        self.requests[kind] += 1
        self.requests_in_work += 1
        self.peak_requests = max(self.peak_requests, self.requests_in_work)
        try:
            yield
        finally:
            self.requests_in_work -= 1


class RateWindow:
    """One limit and its current window, which opens with the first request after the last window's end."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._ends_at = float("-inf")
        self._used = 0

    def wait_seconds(self, now: float) -> float:
        """Say how long a request has to wait: 0 where the window has room."""
        if now >= self._ends_at:
            self._ends_at, self._used = now + self.limit.seconds, 0
        return 0.0 if self._used < self.limit.requests else self._ends_at - now

    def take(self) -> None:
        """Use up one request of the window."""
        self._used += 1

    def remaining(self, now: float) -> int:
        """Say how many requests still have room."""
        return self.limit.requests - (self._used if now < self._ends_at else 0)

    def ends_at(self, now: float) -> float:
        """Say when the window ends; one that is not open would end a whole window from now."""
        return self._ends_at if now < self._ends_at else now + self.limit.seconds


class RateLimits:
    """All limits of a service; those for "all" do not count the `outside` calls. A refused request uses up nothing."""

    def __init__(self, limits: Iterable[RateLimit], outside: frozenset[str] = frozenset()) -> None:
        self.windows = [RateWindow(limit) for limit in limits]
        self._outside = outside

    def refusal(self, kind: str, now: float) -> tuple[RateLimit, float] | None:
        """Admit a request (None), or name the limit it exceeds and the seconds until that limit's window ends."""
        windows = [window for window in self.windows if self._covers(window.limit, kind)]
        for window in windows:
            if (wait := window.wait_seconds(now)) > 0:
                return window.limit, wait
        for window in windows:
            window.take()
        return None

    def _covers(self, limit: RateLimit, kind: str) -> bool:
        return limit.call == kind or (limit.call == ALL_CALLS and kind not in self._outside)


class CallKinds(Struct, frozen=True):
    """The kinds of calls that a service has.

    `outside` ones go to another host: limits for "all" do not count them. `deferrable` ones hand their work to the
    agenda, so that a fault can put it off.
    """

    names: frozenset[str]
    outside: frozenset[str] = frozenset()
    deferrable: frozenset[str] = frozenset()


class Traffic:
    """What happens to a service's requests on the way to their handlers."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        calls: CallKinds,
        error: ErrorAnswer,
        clock: Callable[[], float],
        own_limits: Sequence[RateLimit] = (),
    ) -> None:
        """Check that the behaviour names known `calls` only. Raise BehaviourError.

        `own_limits` are those that the vendor documents; they hold for calls of which the behaviour says nothing.
        """
        _check_calls(behaviour, calls)
        self.stats = Stats()
        self.agenda = Agenda(clock)
        said = {limit.call for limit in behaviour.rate_limits}
        unsaid = [limit for limit in own_limits if limit.call not in said]
        self.limits = RateLimits([*behaviour.rate_limits, *unsaid], calls.outside)
        self._latency = behaviour.latency
        self._random = Random(behaviour.seed)
        self._faults = [FaultPlan(fault) for fault in behaviour.faults]
        self.error, self._calls, self._clock = error, calls, clock
        self._started_at = clock()

    async def serve(self, call: SandboxCall, read: ReadBody, sleep: Sleep) -> SandboxAnswer:
        """Return the answer to a call when it is time to send it; `read` is called unless a fault comes before."""
        with self.stats.request(call.kind):
            latency = self._latency.get(call.kind) or self._latency.get(ALL_CALLS, _INSTANT)
            seconds = latency.seconds + latency.jitter_seconds * self._random.random()
            if seconds > 0:
                await sleep(seconds)
            self.agenda.advance()
            answer = self._limited(call.kind)
            fault = self.next_fault(call.kind) if answer is None else None
            if fault is not None and fault.kind in _WITHOUT_WORK:
                answer = self._misanswer(fault, call.kind)
            if answer is None:
                answer = self._worked(replace(call, request=replace(call.request, body=await read(call))), fault)
            if answer.after_seconds > 0:
                await sleep(answer.after_seconds)
            return answer

    def next_fault(self, kind: str) -> Fault | None:
        """Count one call of this kind and return the fault that strikes it: the first listed, if several do."""
        elapsed = self._clock() - self._started_at
        concerned = [plan for plan in self._faults if self._concerns(plan.fault, kind)]
        struck = [plan.fault for plan in concerned if plan.strikes(elapsed)]
        self.stats.faults.update(fault.kind for fault in struck[:1])
        return struck[0] if struck else None

    def _concerns(self, fault: Fault, kind: str) -> bool:
        if fault.kind in DEFERRING and kind not in self._calls.deferrable:
            return False
        return fault.call in (kind, ALL_CALLS)

    def _limited(self, kind: str) -> SandboxAnswer | None:
        refused = self.limits.refusal(kind, self._clock())
        if refused is None:
            return None
        limit, wait_seconds = refused
        self.stats.rate_limited += 1
        answer = self.error(kind, 429, f"API rate limit reached: {limit.requests} requests in {limit.seconds:g} s.")
        if limit.retry_after:
            answer.headers["Retry-After"] = str(math.ceil(wait_seconds))
        return answer

    def _worked(self, call: SandboxCall, fault: Fault | None) -> SandboxAnswer:
        """Have the work of a call done, now or when the fault says, and answer as the fault says."""
        if fault is None:
            return _handled(call)
        delay = NEVER if fault.kind == "swallow" else fault.seconds if fault.kind in DEFERRING else 0.0
        with self.agenda.put_off(delay):
            answer = _handled(call)
        if fault.kind in ("act_later", "swallow"):
            return answer
        if fault.kind == "truncate":
            answer.sent = "half"
            return answer
        if fault.kind == "hang":
            answer.after_seconds = fault.seconds
            return answer
        return self._misanswer(fault, call.kind)

    def _misanswer(self, fault: Fault, kind: str) -> SandboxAnswer:
        if fault.kind in ("drop_before", "drop_after", "drop_late"):
            return SandboxAnswer(sent="nothing")
        if fault.kind in ("html", "html_late"):
            return html_answer(fault.status)
        answer = self.error(kind, fault.status, "The sandbox was told to refuse.")
        if fault.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(fault.retry_after_seconds)
        return answer


class SandboxService(ABC):
    """One of the services: requests in, answers out, whoever carries them."""

    name: str

    def __init__(self, traffic: Traffic, routes: Iterable[Route]) -> None:
        self.traffic = traffic
        self._routes = Routes(routes)

    async def answer(self, request: SandboxRequest, read: ReadBody, sleep: Sleep) -> SandboxAnswer:
        """Answer a request, whose body is only read when it is needed."""
        call = self._routes.find(request)
        if isinstance(call, int):
            return self.traffic.error("", call, f"{request.method} {request.url.path} is not served.")
        return await self.traffic.serve(call, read, sleep)

    @abstractmethod
    def advance(self) -> bool:
        """Do what is due by the clock; True if more may be due at once."""


def _handled(call: SandboxCall) -> SandboxAnswer:
    try:
        return call.handler(call.request)
    except SandboxRefusal as refusal:
        return refusal.answer


def _check_calls(behaviour: Behaviour, calls: CallKinds) -> None:
    named = [*behaviour.latency, *(r.call for r in behaviour.rate_limits), *(f.call for f in behaviour.faults)]
    for call in named:
        if call not in calls.names | {ALL_CALLS}:
            raise unknown_name("call", call, calls.names | {ALL_CALLS})
    for fault in behaviour.faults:
        if fault.kind in DEFERRING and fault.call not in calls.deferrable | {ALL_CALLS}:
            known = ", ".join(sorted(calls.deferrable))
            raise BehaviourError(f"{fault.kind} is for calls that create or release ({known}), not for {fault.call}")
