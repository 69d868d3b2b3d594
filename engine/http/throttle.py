"""When may a call go out (`admit`), and what does the end of one say to all others (`observe`)? Pure: no clock, no I/O.

`HttpCaller` asks `admit` before each attempt, waits as long as it says and asks again, until it says 0; what came of
the attempt goes to `observe`. No other module holds a *request* back; `run.in_flight` lowers the number of *batches*.
What waits before it makes a call says so by the same event: a poll for its turn (`polls_per_second`, in `run.poller`),
a question about a lost answer (`run.recovery`), a service for what it reads to appear (Sama's first proof). What holds
a call back, in this order:

1. its own retry, whose time `retry.decide` has set;
2. an outage of the calls that fail together (`Outage`): one of them at a time goes out, as a probe;
3. the pace: what the service asked for (`Retry-After`), the rate that is configured or documented, and the rate that
   it was found to take;
4. the window of requests that the service's headers tell of (`WindowBudget`).

With a `Share`, pace, window and the turn to probe are those of all workers together; nothing goes out while it is not
known what the others send.

Calls that get through or fail together are a lane. Uploads go to another host than the rest, and calls that must not be
repeated fail in their own way: the service may well answer every poll and lose every one of them. Pace and window are
one for all calls to the service, and a push-back is obeyed by everybody; only a call that names a lane (`Call.lane`),
because the service has a limit for calls of its kind, keeps that limit to itself.

Invariant: whatever `admit` has let go counts as under way until `observe` hears of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus

from msgspec import Struct, field

from engine.adaptive.rate import LearnedRate, Pacer
from engine.adaptive.window import WindowBudget
from engine.http.classify import Verdict
from engine.http.outage import Outage
from engine.http.retry import CallState, GiveUp, RetryRules
from engine.http.share import PaceShare, Share
from engine.model.errors import Refused, Unauthorized
from engine.progress.events import Paused, Spaced, ToldWaits
from engine.services.base import Call

_TICK_SECONDS = 1e-6
"""A sleep to a time may end so much before it: sums of floating-point numbers are rounded."""
UNKNOWN_LIMITS = "what the other workers send is not known"
HELD = "the service has asked another worker for it"
OUTAGE = "the service does not answer; one call at a time tries"
WINDOW_USED_UP = "the request budget of this window is used up"
LEARNED_PACE = "the service takes no more calls a second than now, by its refusals"


class Admission(Struct, frozen=True):
    """Ask again after so many seconds; 0: go; infinite: after a call that probes has ended."""

    seconds: float
    reason: str = ""
    news: Paused | Spaced | None = None
    """To be told to people; None where they know it already, or need not."""


GO = Admission(0.0)


class Throttle:
    """Decides when the calls of one run go out."""

    def __init__(
        self,
        rules: RetryRules,
        requests_per_second: float | None,
        draw: Callable[[], float],
        share: Share | None = None,
    ) -> None:
        """`draw` returns random numbers in [0, 1). `share`: what this worker has of limits that others have, too."""
        self._rules = rules
        self._draw = draw
        self._share = share
        self._pace = self._new_pace("", requests_per_second, f"requests_per_second is {requests_per_second or 0:g}")
        self._window = share.window if share else WindowBudget()
        names = ("/repeatable", "/unrepeatable", "/uploads")  # no call names a lane so
        self._repeatable, self._unrepeatable, self._uploads = (self._new_lane(name, _Pace()) for name in names)
        self._named: dict[str, _Lane] = {}
        self._told = ToldWaits()
        self._answered = False
        """Somebody has answered in this run, whatever it was."""
        self._answered_by: set[bool] = set()
        """Who has answered in words of its own: the service (True), the store (False)."""

    def admit(self, state: CallState, now: float) -> Admission | GiveUp:
        """Say whether a call may go out now, when to ask again, or that it had better give up.

        `now` is monotonic seconds.
        """
        if state.retry_at - now > _TICK_SECONDS:
            return Admission(state.retry_at - now, "it is tried again later")  # `CallRetried` has told of it
        lane = self._lane(state.call)
        held = self._held_by_others(self._share, state, lane, now) if self._share is not None else None
        if held is None and (lane.outage.probing or state.probing):
            held = self._turn(state, lane.outage, now)
        if self._share is None:
            held = held or self._place(state, lane, now) or self._request(state, now)
        else:  # a place that waits for a request of the window would be late, and calls would go out all at once
            held = held or self._request(state, now) or self._place(state, lane, now)
        if held:
            return held
        state.under_way = True
        return GO

    def observe(self, state: CallState, verdict: Verdict | None, now: float) -> Paused | None:
        """Take in how an attempt ended; return what is to be told to people, if the service asks all to wait.

        `verdict`: None if the call was canceled. Then it gives back what it holds: its turn to probe, or its request
        of the window.
        """
        call, lane = state.call, self._lane(state.call)
        news = None
        self._answered |= verdict is not None and verdict.status is not None
        if verdict is not None:
            news = self._hear(state, verdict, lane.pace if call.lane else self._pace, now)
        elif state.counted and state.under_way:
            self._window.answered(now, None)
        elif state.counted:
            self._window.give_back(yielding=call.yielding)
        if verdict is not None and verdict.error in (None, Refused, Unauthorized):
            lane.outage.answered(state.price)
            if not verdict.by_proxy:
                self._answered_by.add(call.authenticated)
        elif verdict is not None:
            state.failed(verdict, now)
            unknown = verdict.lost and not (call.repeatable or call.reconcilable)
            state.price = lane.outage.failed(
                now, self._draw(), timed_out=verdict.timed_out, fate_unknown=unknown, probe=state.probing
            )
        if self._share is not None:
            self._share.look(lane.name)
        state.due, state.under_way, state.counted = None, False, False
        if state.probing:
            lane.outage.turn_taken = state.probing = False
        return news

    def _hear(self, state: CallState, verdict: Verdict, pace: _Pace, now: float) -> Paused | None:
        """Take in what an answer says of how fast calls may go out; this is where a 429 is handled (for calls)."""
        until = now + (verdict.asked_seconds or 0.0)
        pushed_back = verdict.status == HTTPStatus.TOO_MANY_REQUESTS
        if state.call.authenticated:
            # A 429 to a call that names a lane speaks of that lane alone, and so does the window in its headers.
            window = None if pushed_back and state.call.lane else verdict.window
            self._window.answered(now, window, pushed_back=pushed_back)
            if pushed_back and window is None:  # else the window is known to the call, and there is no pace to learn
                pace.rate.pushed_back(now, state.sent_at, until)
            elif verdict.status is not None and not pushed_back:
                pace.rate.answered(state.sent_at)
        if not verdict.asked_seconds or not pace.pacer.hold(until):
            return None
        if self._share is not None:
            self._share.ask()
        pace.held_for = f"the service asks for it ({verdict.reason})"
        return Paused(pace.held_for, verdict.asked_seconds)

    @property
    def rules(self) -> RetryRules:
        """How patient we are, by what is known of the service."""
        return self._rules if self._answered else self._rules.unanswered()

    def has_answered(self, call: Call) -> bool:
        """Return whether whoever is called has answered in words of its own in this run."""
        return call.authenticated in self._answered_by

    def _lane(self, call: Call) -> _Lane:
        if not call.authenticated:
            return self._uploads
        if call.lane:
            if call.lane not in self._named:
                limit = f"the service takes one such call in {call.lane_seconds:g} s"
                pace = self._new_pace(call.lane, 1 / call.lane_seconds if call.lane_seconds else None, limit)
                self._named[call.lane] = self._new_lane(call.lane, pace)
            return self._named[call.lane]
        return self._repeatable if call.repeatable or call.reconcilable else self._unrepeatable

    def _new_lane(self, name: str, pace: _Pace) -> _Lane:
        lane = _Lane(name, Outage(self._rules), pace)
        if self._share is not None:
            self._share.add_lane(name, lane.outage)
        return lane

    def _new_pace(self, name: str, per_second: float | None, limit: str) -> _Pace:
        pacer = Pacer(per_second)
        return _Pace(pacer, limit, self._share.pace(name, pacer) if self._share else LearnedRate())

    def _held_by_others(self, share: Share, state: CallState, lane: _Lane, now: float) -> Admission | GiveUp | None:
        """Hold a call back until the limits that are shared are known, or until another worker's probe gets through."""
        if not share.holds(now):
            return Admission(math.inf, UNKNOWN_LIMITS)
        if share.may_try(lane.name):
            return None
        state.note_failing(now)
        return self._too_long(state.failing_seconds(now)) or Admission(math.inf, OUTAGE)

    def _too_long(self, failing_seconds: float) -> GiveUp | None:
        if failing_seconds < self.rules.give_up_seconds:
            return None
        return GiveUp(f"nothing has got through for {failing_seconds:.0f} s, and {self.rules.limit}")

    def _turn(self, state: CallState, outage: Outage, now: float) -> Admission | GiveUp | None:
        """Give a call the turn to probe if nobody has it; None once it is time to."""
        state.note_failing(now)
        failing = max(state.failing_seconds(now), outage.failing_seconds(now))
        if not state.probing:
            if outage.turn_taken:
                return Admission(math.inf, OUTAGE)
            if given_up := self._too_long(failing):
                return given_up
            outage.turn_taken = state.probing = True
        wait = outage.probe_at - now
        return Admission(wait, OUTAGE, Paused(OUTAGE, wait)) if wait > _TICK_SECONDS else None

    def _place(self, state: CallState, lane: _Lane, now: float) -> Admission | GiveUp | None:
        """Take a place in the queue of all calls, and in that of the lane; None once it is due."""
        call = state.call
        slower = lane.pace if lane.pace.pacer.held_until > self._pace.pacer.held_until else self._pace
        held_until = slower.pacer.held_until
        lost = isinstance(self._pace.rate, PaceShare) and self._pace.rate.is_late(state.due, now)
        if state.due is None or held_until - state.due > _TICK_SECONDS or lost:
            # A pause that came while it waited takes its place away: all calls queue anew behind the pause.
            if held_until - now > self._rules.give_up_seconds:
                return GiveUp(f"the service asks not to be called for {held_until - now:.0f} s")
            state.due = now + self._book(call, lane, now)
        wait = state.due - now
        if wait <= _TICK_SECONDS:
            return None
        if wait == math.inf:
            state.due = None
        if held_until > now:  # people were told when it was heard
            return Admission(wait, slower.held_for)
        _, reason = min(pace.slowest(learned=call.authenticated) for pace in (self._pace, lane.pace))
        return self._telling(Spaced(reason, wait), now) if wait < math.inf else Admission(wait, reason)

    def _book(self, call: Call, lane: _Lane, now: float) -> float:
        """Take a place; return the seconds until it is due, infinite: it has to be asked for again."""
        if self._share is not None and call.authenticated:
            return self._share.book(("", call.lane) if call.lane else ("",), now)
        wait = self._pace.pacer.book(now)
        if isinstance(self._pace.rate, LearnedRate) and call.authenticated:  # that of the service, none of the store's
            wait = max(wait, self._pace.rate.book(now))
        if isinstance(lane.pace.rate, LearnedRate) and call.lane:
            wait = max(wait, lane.pace.pacer.book(now), lane.pace.rate.book(now))
        return wait

    def _request(self, state: CallState, now: float) -> Admission | GiveUp | None:
        """Take a request out of the service's window; None once there is one."""
        if not state.call.authenticated or state.counted:  # a store is another host, which knows nothing of the window
            return None
        wait = self._window.take(now, yielding=state.call.yielding)
        if self._rules.give_up_seconds < wait < math.inf:
            return GiveUp(f"{WINDOW_USED_UP} for another {wait:.0f} s, and {self._rules.limit}")
        if wait <= 0:
            state.counted = True
            return None
        return self._telling(Paused(WINDOW_USED_UP, wait), now) if wait < math.inf else Admission(wait, WINDOW_USED_UP)

    def _telling(self, news: Paused | Spaced, now: float) -> Admission:
        """Return a wait that people are told of, unless they know of it, or it is short."""
        return Admission(news.wait_seconds, news.reason, self._told.news(news, now))


class _Pace(Struct):
    """How fast calls go out: as configured and asked for, and as the service was found to take them."""

    pacer: Pacer = field(default_factory=Pacer)
    limit: str = ""
    """Why the pacer spaces calls, if it does."""
    rate: LearnedRate | PaceShare = field(default_factory=LearnedRate)
    held_for: str = HELD
    """Why nobody may go for a while."""

    def slowest(self, *, learned: bool) -> tuple[float, str]:
        """Return how many calls a second may go at most, and why."""
        fixed, found = (self.pacer.per_second or math.inf, self.limit), (self.rate.per_second or math.inf, LEARNED_PACE)
        return min(fixed, found) if learned else fixed


class _Lane(Struct):
    """Calls that get through or fail together."""

    name: str
    outage: Outage
    pace: _Pace
    """Of what was said to calls that name this lane."""
