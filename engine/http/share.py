"""What one worker may send of the limits that many workers share, and what it has to tell them. Pure: no clock, no I/O.

`http.throttle` asks it before each call to the service, as it asks a lone worker's own limits, and tells it how the
call ended. `run.sharing` brings reports to the ledger and grants back (`adaptive.shared_limits`). Whoever gets nothing
waits until the next grant and asks again.

Invariant: a request of the window is held from its grant until its answer is known, and each report says how many are.

Times are monotonic seconds of this worker. A grant ends by the time before its sync (`asked`); places, holds and probes
come by the time after it (`granted_at`). So whatever a sync took, we are rather too late than too early.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct, field

from engine.adaptive.rate import Pacer
from engine.adaptive.shared_limits import (
    GRANT_SECONDS,
    SYNC_SECONDS,
    FlightReport,
    Grant,
    HeardOfWindow,
    PaceReport,
    PlacesGrant,
    ProbeGrant,
    Report,
    WindowReport,
)
from engine.adaptive.window import Allowance
from engine.http.outage import Outage

_LATE_SECONDS = 0.1
"""A place that is missed by more, and by more than the time to the next, is lost: else calls that piled up would go out
all at once."""


class PaceShare(Struct):
    """Places of one pace that this worker has; hears what a `LearnedRate` hears."""

    pacer: Pacer
    """Of the throttle: knows the configured rate, and until when nobody may go."""
    ask: Callable[[], None]
    """Has a sync made at once."""
    per_second: float | None = None
    """Of all workers together; None: there is no limit."""
    places: deque[float] = field(default_factory=deque)
    """That no call has taken yet."""
    ahead: deque[float] = field(default_factory=deque)
    """Places that are not due yet, those included that calls have taken."""
    granted_at: float = -math.inf
    """When the newest grant came; before the first one there are no places."""
    wanted: int = 0
    """Calls that asked for a place in vain since the newest grant."""
    expected: int = 0
    """Calls that will likely come until the next report: as many as until the last one, or half of those before, but
for one. A place for which no call comes is lost to all; so a worker that seldom calls asks when it does."""
    sent: int = 0
    let_in: int = 0
    refused: int = 0
    """Three counts that are not reported yet."""
    cuts: int = 0
    cut_at: float = -math.inf
    """When this worker heard of the last cut: calls sent before met the pace before it."""
    known_hold: float = 0.0
    """Until when nobody may go, as far as all workers know."""
    reported_hold: float = 0.0
    spoken: bool = False
    """The service has let a call in."""

    def due(self, now: float) -> float | None:
        """Return when the next place is due; None if there is none."""
        held_until = self.pacer.held_until
        if self.per_second is None:
            return max(now, held_until) if self.granted_at > -math.inf else None
        while self.places and (self.is_late(self.places[0], now) or self.places[0] < held_until):
            self.places.popleft()
        return self.places[0] if self.places else None

    def is_late(self, due: float | None, now: float) -> bool:
        """Return whether a place is lost that was taken or not."""
        if due is None or self.per_second is None:
            return False
        return due < now - max(_LATE_SECONDS, 1 / self.per_second)

    def take(self) -> None:
        """Take the next place, which is there."""
        self.sent += 1
        if self.per_second is not None:
            self.places.popleft()

    def answered(self, sent_at: float) -> None:
        """Note that a call was let in."""
        self.spoken = True
        self.let_in += sent_at > self.cut_at

    def pushed_back(self, now: float, sent_at: float, until: float) -> None:  # noqa: ARG002 - as of `LearnedRate`
        """Note a 429 that no window explains."""
        if sent_at > self.cut_at:
            self.refused += 1
            self.ask()

    def report(self, asked: float) -> PaceReport:
        """Return what is to be told."""
        self.expected = max(self.sent - 1, self.expected // 2)
        self.reported_hold = self.pacer.held_until
        while self.ahead and self.ahead[0] < asked:
            self.ahead.popleft()
        return PaceReport(
            self.pacer.per_second,
            wanted=max(0, self.wanted + self.expected - len(self.places)),
            held=len(self.ahead),
            sent=self.sent,
            answered=self.let_in,
            pushed_back=self.refused > 0,
            cuts=self.cuts,
            hold_seconds=max(0.0, self.reported_hold - asked) if self.reported_hold > self.known_hold else 0.0,
        )

    def grant(self, told: PaceReport, places: PlacesGrant, granted_at: float) -> None:
        """Take in a grant, the answer to what was told."""
        self.granted_at, self.per_second, self.wanted = granted_at, places.per_second, 0
        self.sent -= told.sent
        self.let_in -= told.answered
        if places.cuts != self.cuts:
            self.cuts, self.cut_at, self.let_in, self.refused = places.cuts, granted_at, 0, 0
        held_until = granted_at + places.held_seconds if places.held_seconds else 0.0
        self.pacer.hold(held_until)
        self.known_hold = max(self.reported_hold, held_until)
        if places.per_second is not None:
            first = granted_at + places.first_in_seconds
            dues = [first + number / places.per_second for number in range(places.number)]
            self.places.extend(dues)
            self.ahead.extend(dues)


class WindowShare(Struct):
    """Requests of the service's window that this worker has; asked and told as a `WindowBudget` is."""

    ask: Callable[[], None]
    """Has a sync made at once."""
    ask_for_more: Callable[[], None]
    """Does so, if there may be more to be had."""
    free: bool = False
    """The service speaks of no window."""
    unused: int = 0
    unused_yielding: int = 0
    """Requests granted and not taken; those of calls that yield, apart."""
    unanswered: int = 0
    wanted: int = 0
    wanted_yielding: int = 0
    """Calls that asked in vain since the newest grant."""
    expected: int = 0
    """Calls that will likely come, as in `PaceShare`. None that yield: those ask as they come."""
    taken: int = 0
    """Of these calls, since the newest grant."""
    heard: list[tuple[float, Allowance | None, bool]] = []
    """When each call ended, what that said, and whether it was a 429; not reported yet."""
    more_at: float = 0.0
    """When there may be requests again, as far as is known."""

    def take(self, now: float, *, yielding: bool) -> float:
        """Take a request; return 0, or the seconds after which to ask again; infinite: after the next grant."""
        if not self.free and not (self.unused_yielding if yielding else self.unused):
            self.wanted += not yielding
            self.wanted_yielding += yielding
            self.ask_for_more()
            return self.more_at - now if self.more_at > now else math.inf
        if not self.free:
            self.unused -= not yielding
            self.unused_yielding -= yielding
        self.taken += not yielding
        self.unanswered += 1
        return 0.0

    def give_back(self, *, yielding: bool) -> None:
        """Note that a request that was taken is not made."""
        self.unanswered -= 1
        if not self.free:
            self.unused += not yielding
            self.unused_yielding += yielding

    def answered(self, now: float, allowance: Allowance | None, *, pushed_back: bool = False) -> None:
        """Note that a call ended, what its answer said of the window, if anything, and whether it was a 429."""
        self.unanswered -= 1
        if allowance is not None or not self.free:
            self.heard.append((now, allowance, pushed_back))
        if not self.unanswered and (self.wanted or self.wanted_yielding):
            self.ask()  # what remains is known exactly now, and whoever was to open a window has done so

    def report(self, asked: float) -> WindowReport:
        """Return what is to be told; what will hardly be used until the next report goes back."""
        self.expected = max(self.taken, self.expected // 2)
        self.unused, self.unused_yielding = min(self.unused, self.expected), 0
        return WindowReport(
            self.unanswered + self.unused,
            max(0, self.wanted + self.expected - self.unused),
            self.wanted_yielding,
            [HeardOfWindow(asked - at, allowance, pushed_back) for at, allowance, pushed_back in self.heard],
        )

    def grant(self, told: WindowReport, grant: Grant, granted_at: float) -> None:
        """Take in a grant, the answer to what was told."""
        del self.heard[: len(told.heard)]
        self.wanted = self.wanted_yielding = self.taken = 0
        self.free = grant.requests is None
        self.unused = self.unused + grant.requests if grant.requests is not None else 0
        self.unused_yielding = grant.yielding_requests
        self.more_at = granted_at + grant.window_seconds


class Share:
    """The part of the shared limits that one worker has, and what is not reported yet."""

    def __init__(self, worker: str) -> None:
        """`worker`: a name that no other worker has."""
        self._worker = worker
        self._ends_at = -math.inf
        self._paces: dict[str, PaceShare] = {}
        self.window = WindowShare(self.ask, self.ask_for_more)
        self._lanes: dict[str, Outage] = {}
        self._known: dict[str, float | None] = {}
        """When the next probe of each lane is due, None: it is open; as of the last look."""
        self._probes: dict[str, float] = {}
        self._opened: set[str] = set()
        """Lanes whose outage began here or where a probe failed, with the time of the next one, and lanes in which a
        call got through: not reported yet."""
        self._outages: Mapping[str, ProbeGrant] = {}
        self._waiting: set[str] = set()
        self._satisfied = True
        """The newest grant gave all that was wanted."""
        self.on_ask: Callable[[], None] | None = None
        """Called when there is to be a sync at once."""
        self.on_grant: Callable[[], None] | None = None
        """Called after each grant: whoever waits for one may ask anew."""

    def ask(self) -> None:
        """Have a sync made at once."""
        if self.on_ask is not None:
            self.on_ask()

    def holds(self, now: float) -> bool:
        """Return whether the grant holds; nothing may be sent without one."""
        if now < self._ends_at:
            return True
        self.ask()
        return False

    def end(self) -> None:
        """Have nothing more sent."""
        self._ends_at = -math.inf

    def ask_for_more(self) -> None:
        """Have a sync made at once, unless the newest grant shows that there is no more to be had."""
        if self._satisfied:
            self.ask()

    # -- paces

    def pace(self, lane: str, pacer: Pacer) -> PaceShare:
        """Share a pace from now on; "": that of the service."""
        self._paces[lane] = PaceShare(pacer, self.ask)
        return self._paces[lane]

    def book(self, lanes: Iterable[str], now: float) -> float:
        """Take a place in the paces of all these lanes; return the seconds until it is due.

        Infinite: there is none before the next grant.
        """
        shares = [self._paces[lane] for lane in lanes]
        latest = now
        for share in shares:
            due = share.due(now)
            share.wanted += due is None
            latest = math.inf if due is None else max(latest, due)
        if latest == math.inf:
            if not any(share.ahead and share.ahead[-1] > now + SYNC_SECONDS for share in shares):
                self.ask_for_more()  # else the next sync is soon enough
            return latest
        for share in shares:
            share.take()
        return latest - now

    # -- outages

    def add_lane(self, lane: str, outage: Outage) -> None:
        """Share the outage of a lane from now on."""
        self._lanes[lane], self._known[lane] = outage, None
        if lane in self._outages:
            self._obey(lane, outage, self._ends_at - GRANT_SECONDS, still_mine=False)

    def may_try(self, lane: str) -> bool:
        """Return whether this worker may call in a lane: it is open, or this worker probes it."""
        if not self._lanes[lane].probing:
            return True
        self._waiting.add(lane)
        told = self._outages.get(lane)
        return bool(told and told.mine)

    def look(self, lane: str) -> None:
        """Note what became of the outage of a lane."""
        outage = self._lanes[lane]
        probe_at = outage.probe_at if outage.probing else None
        if probe_at == self._known[lane]:
            return
        self._known[lane] = probe_at
        if probe_at is None:
            self._opened.add(lane)
            self._probes.pop(lane, None)
        else:
            self._probes[lane] = probe_at
            self._opened.discard(lane)
        self.ask()

    def _obey(self, lane: str, outage: Outage, now: float, *, still_mine: bool) -> None:
        """Have a lane closed or open as all workers have it; `still_mine`: this worker had the turn to probe before."""
        told = self._outages.get(lane)
        if told is None and outage.probing:
            outage.answered()
        elif told is not None and not (outage.probing and told.mine and still_mine):
            outage.probing, outage.probe_at = True, now + told.in_seconds
        self._known[lane] = outage.probe_at if outage.probing else None

    # -- syncs

    def report(self, asked: float, flight: FlightReport | None) -> Report:
        """Return what is to be told to all now; `asked`: now, before the sync. `flight`: as of `Report`."""
        in_turn = {lane for lane, outage in self._lanes.items() if outage.turn_taken}
        return Report(
            self._worker,
            {lane: share.report(asked) for lane, share in self._paces.items()},
            self.window.report(asked),
            {lane: max(0.0, probe_at - asked) for lane, probe_at in self._probes.items()},
            frozenset(self._opened),
            frozenset(self._waiting | in_turn),
            flight,
            any(share.spoken for share in self._paces.values()),
        )

    def grant(self, report: Report, grant: Grant, asked: float, granted_at: float) -> None:
        """Take in the grant that a report was answered with; the times are those before and after the sync."""
        self._ends_at = asked + GRANT_SECONDS
        for lane, told in report.paces.items():
            self._paces[lane].grant(told, grant.places[lane], granted_at)
        self.window.grant(report.window, grant, granted_at)
        self._satisfied = _gives_all(grant, report)
        self._waiting.clear()
        mine = {lane for lane, told in self._outages.items() if told.mine}
        self._outages = grant.outages
        for lane, seconds in report.outages.items():
            if max(0.0, self._probes.get(lane, -math.inf) - asked) == seconds:  # else it has failed anew meanwhile
                self._probes.pop(lane, None)
        self._opened -= report.opened
        for lane, outage in self._lanes.items():
            if lane not in self._probes and lane not in self._opened:
                self._obey(lane, outage, granted_at, still_mine=lane in mine)
        if self.on_grant is not None:
            self.on_grant()


def _gives_all(grant: Grant, report: Report) -> bool:
    """Return whether a grant gives all that was wanted."""
    told, wanted = report.paces, report.window
    paces = all(each.per_second is None or each.number >= told[lane].wanted for lane, each in grant.places.items())
    enough = grant.requests is None or grant.requests >= wanted.wanted
    return paces and enough and (grant.requests is None or grant.yielding_requests >= wanted.wanted_yielding)
