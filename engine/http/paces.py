"""Which calls get through or fail together, and at which pace they go out. Used by the caller alone.

Uploads go to another host than the rest, and calls that must not be repeated fail in their own way: the service may
well answer every poll and lose every one of them. So each of these has a lane, whose outages are its own. The pace is
one for all, and a push-back is obeyed by everybody; only a call that names a lane (`Call.lane`), because the service
has a limit for calls of its kind, keeps that limit to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

import anyio

from engine.adaptive.rate import LearnedRate, Pacer
from engine.http.budget import allowance
from engine.http.outage import Outage
from engine.http.retry import RetryRules
from engine.services.base import Answer, Call


@dataclass(slots=True)
class Lane:
    """Calls that get through or fail together."""

    outage: Outage
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    """Held by the one call that probes; first come, first served."""
    pacer: Pacer = field(default_factory=Pacer)
    """Of what was said to calls of this kind alone."""
    rate: LearnedRate = field(default_factory=LearnedRate)


class Paces:
    """The lanes of one caller."""

    def __init__(self, rules: RetryRules, requests_per_second: float | None) -> None:
        self._rules = rules
        self._pacer = Pacer(requests_per_second)
        self._rate = LearnedRate()
        self._repeatable, self._unrepeatable, self._uploads = (Lane(Outage(rules)) for _ in range(3))
        self._named: dict[str, Lane] = {}

    def lane(self, call: Call) -> Lane:
        """Return the lane of a call."""
        if not call.authenticated:
            return self._uploads
        if call.lane:
            return self._named.setdefault(call.lane, Lane(Outage(self._rules)))
        return self._repeatable if call.repeatable or call.reconcilable else self._unrepeatable

    def book(self, call: Call, now: float) -> float:
        """Take the next place, return the seconds until it is due; the store is no matter of the service's limits."""
        lane, wait = self.lane(call), self._pacer.book(now)
        if call.lane:
            wait = max(wait, lane.pacer.book(now), lane.rate.book(now))
        return max(wait, self._rate.book(now)) if call.authenticated else wait

    def held_seconds(self, call: Call, now: float) -> float:
        """Return how long a push-back still holds a call; whoever wakes within one books anew."""
        return max(self._pacer.held_seconds(now), self.lane(call).pacer.held_seconds(now))

    def hold(self, call: Call, until: float) -> bool:
        """Obey what a call was told: let nobody go before `until` whom it concerns; return whether that is news."""
        return (self.lane(call).pacer if call.lane else self._pacer).hold(until)

    def learn(self, call: Call, answer: Answer, *, sent_at: float, now: float, until: float, clock_now: float) -> None:
        """Find out how many calls a second the service takes, if it limits them and does not say how far.

        Times are monotonic but for `clock_now`, Unix seconds; `until`: to when the answer holds calls back.
        """
        if not call.authenticated:
            return
        rate = self.lane(call).rate if call.lane else self._rate
        if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
            rate.answered(sent_at)
        elif call.lane or allowance(answer.headers, clock_now) is None:  # else the budget knows it to the call
            rate.refused(now, sent_at, until)
