"""Requests enter, and each passes latency, rate limits and faults before its handler sees it; knows no service.

A service wraps every handler once, by the name of the call: `traffic.guard("create", handler)`.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from aiohttp import web

from engine.sandbox.agenda import Agenda
from engine.sandbox.behaviour import ALL_CALLS, Behaviour, Latency, RateLimit
from engine.sandbox.errors import BehaviourError
from engine.sandbox.faults import (
    DEFERRING,
    ErrorAnswer,
    Faults,
    Handler,
    SandboxCall,
    Sleep,
    StreamHandler,
    with_retry_after,
)
from engine.sandbox.limits import RateLimits
from engine.sandbox.loading import unknown_name
from engine.sandbox.stats import Stats

_INSTANT = Latency()


@dataclass(frozen=True, slots=True)
class CallKinds:
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
        sleep: Sleep = asyncio.sleep,
        own_limits: Sequence[RateLimit] = (),
    ) -> None:
        """Check that the behaviour names known `calls` only. Raise BehaviourError.

        `own_limits` are those that the vendor documents; they hold for calls of which the behaviour says nothing.
        """
        _check_calls(behaviour, calls)
        self.stats = Stats()
        self._latency = behaviour.latency
        self.agenda = Agenda(clock)
        self.limits = RateLimits([*behaviour.rate_limits, *_unsaid(own_limits, behaviour)], calls.outside)
        self._faults = Faults(behaviour.faults, error, clock, sleep, calls.deferrable)
        self._random = Random(behaviour.seed)
        self._error, self._clock, self._sleep = error, clock, sleep

    def guard(self, kind: str, handler: Handler) -> StreamHandler:
        """Wrap the handler of one kind of call."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            with self.stats.request(kind):
                await self._delay(kind)
                self.agenda.advance()
                if (refused := self._refuse(kind)) is not None:
                    return refused
                if (fault := self._faults.next(kind)) is None:
                    return await handler(request)
                self.stats.faults[fault.kind] += 1
                return await self._faults.act_out(fault, SandboxCall(kind, request, handler))

        return guarded

    async def _delay(self, kind: str) -> None:
        latency = self._latency.get(kind) or self._latency.get(ALL_CALLS, _INSTANT)
        seconds = latency.seconds + latency.jitter_seconds * self._random.random()
        if seconds > 0:
            await self._sleep(seconds)

    def _refuse(self, kind: str) -> web.Response | None:
        refused = self.limits.refusal(kind, self._clock())
        if refused is None:
            return None
        limit, wait_seconds = refused
        self.stats.rate_limited += 1
        answer = self._error(kind, 429, f"API rate limit reached: {limit.requests} requests in {limit.seconds:g} s.")
        return with_retry_after(answer, math.ceil(wait_seconds) if limit.retry_after else None)


def _unsaid(limits: Sequence[RateLimit], behaviour: Behaviour) -> Sequence[RateLimit]:
    said = {limit.call for limit in behaviour.rate_limits}
    return [limit for limit in limits if limit.call not in said]


def _check_calls(behaviour: Behaviour, calls: CallKinds) -> None:
    named = [*behaviour.latency, *(r.call for r in behaviour.rate_limits), *(f.call for f in behaviour.faults)]
    for call in named:
        if call not in calls.names | {ALL_CALLS}:
            raise unknown_name("call", call, calls.names | {ALL_CALLS})
    for fault in behaviour.faults:
        if fault.kind in DEFERRING and fault.call not in calls.deferrable | {ALL_CALLS}:
            known = ", ".join(sorted(calls.deferrable))
            raise BehaviourError(f"{fault.kind} is for calls that create or release ({known}), not for {fault.call}")
