"""Reports of all workers and the time -> what each of them may send until its next report. Pure: no clock, no I/O.

The ledger keeps one `SharedLimits` a service and account, as JSON. Each worker revises it about twice a second
(`run.sharing`): `sync` takes a `Report` in and returns a `Grant`. What one worker does with its grant: `http.share`.

- Pace: a place in the queue of all calls is a time, place n at t0 + n / rate. A worker is granted some of the next
  ones, so the service sees an even stream, whoever sends. Places that nobody uses are lost, as time is.
- Window: what is left is the least that an answer has said remains, less all requests that any worker holds: granted
  and unused, or without an answer. A worker reports both in one sync, so the difference is never too large.
- A `Retry-After` that one worker heard holds all of them.
- Outage: one worker at a time probes a lane; its first answer opens the lane for all.
- Batches in flight: a configured number is divided. Where it is to be found out, the worker that is there longest finds
  it for one worker, and all others take it over.

A worker that is silent for `DROPPED_SECONDS` is dropped, and what it held counts as sent. Its grant has ended by then
(`GRANT_SECONDS`), so a worker that was stopped and wakes sends nothing by it.

Times in here are seconds of the ledger's clock; what a report or a grant says is relative to the sync.

The module is a long one: the limits are revised together, by one report and for one grant.
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct, field

from engine.adaptive.rate import LearnedRate, Pacer
from engine.adaptive.window import Allowance, WindowBudget

SYNC_SECONDS = 0.5
"""Between two syncs of a worker that needs nothing sooner."""
GRANT_SECONDS = 2.0
"""A grant ends so long after its sync began, by the clock of the worker: three syncs may fail before."""
DROPPED_SECONDS = 10.0
"""A worker that is silent for so long is dropped. Long after its grant has ended, whatever the clocks do."""
_AHEAD_SECONDS = 3 * SYNC_SECONDS
"""Places are granted so far ahead: until the next sync, and twice as long again in case that one takes long."""
_MOST_AHEAD_SECONDS = 1.5 * _AHEAD_SECONDS
"""To a worker that has none. Else those who sync first would leave nothing to the others."""
_CUT_SECONDS = _MOST_AHEAD_SECONDS
"""Nobody calls for so long after a push-back: all places at the pace before it are over then, with whoever they are."""
_MEASURED_SECONDS = 2.0
"""The pace is measured over so long, for the first push-back of a service without a known rate."""
_MOST_REQUESTS = 1000
"""Of a window, in one grant."""


class PaceReport(Struct):
    """What a worker says of one pace: of the service's, or of that of a lane."""

    per_second: float | None = None
    """As configured or documented; None: no limit."""
    wanted: int = 0
    """Places that it could use by its next sync, beside those that it has."""
    held: int = 0
    """Places that it has and that are not due yet."""
    sent: int = 0
    """Calls since its last report."""
    answered: int = 0
    """Those let in by the service, of the calls sent since `cuts`."""
    pushed_back: bool = False
    """A call sent since `cuts` was answered 429, and no window explains it."""
    cuts: int = 0
    """As in the newest grant that it has."""
    hold_seconds: float = 0.0
    """For so long the service asks not to be called."""


class HeardOfWindow(Struct, frozen=True):
    """What the end of a call said of the service's window."""

    age_seconds: float
    """Since it ended."""
    allowance: Allowance | None
    """None: there was no word of it, or no answer."""
    pushed_back: bool
    """It was a 429."""


class WindowReport(Struct):
    """What a worker says of the service's window of requests."""

    held: int = 0
    """Requests that it was granted and that have no answer yet: unused, or under way."""
    wanted: int = 0
    wanted_yielding: int = 0
    """Requests that it could use by its next sync beside the unused ones; of calls that yield, apart."""
    heard: list[HeardOfWindow] = []
    """Of each call that ended since the last report, in their order."""


class FlightReport(Struct):
    """What a worker says of its batches in flight."""

    most: int | None = None
    """As configured for all workers together; None: to be found out."""
    limit: int = 1
    """That it has now."""
    taken: int = 0
    pushed_back: bool = False
    """A call was answered 429 since the last report."""


class Report(Struct):
    """What a worker tells at a sync."""

    worker: str
    paces: dict[str, PaceReport] = {}
    """By lane; "": of the service."""
    window: WindowReport = field(default_factory=WindowReport)
    outages: dict[str, float] = {}
    """Lanes whose outage began here, or where a probe failed → seconds until the next probe."""
    opened: frozenset[str] = frozenset()
    """Lanes in an outage in which a call got through."""
    waiting: frozenset[str] = frozenset()
    """Lanes in an outage in which a call waits for its turn to probe, or has it."""
    flight: FlightReport | None = None
    """None: it sends no batches, as a command that only asks."""
    answered: bool = False
    """The service has answered, so it is known whether it speaks of a window."""
    leaving: bool = False


class PlacesGrant(Struct, frozen=True):
    """Places in the queue of all calls: times at which one call each may go out."""

    cuts: int = 0
    """How often the pace was cut, by push-back."""
    per_second: float | None = None
    """The pace of all workers; None: there is none, and calls need no place."""
    first_in_seconds: float = 0.0
    number: int = 0
    held_seconds: float = 0.0
    """For so long nobody may go, at the service's wish."""


class ProbeGrant(Struct, frozen=True):
    """A lane is in an outage."""

    mine: bool
    """The worker that is told may probe."""
    in_seconds: float
    """Until the next probe is due."""


class Grant(Struct, frozen=True):
    """What a worker may do until its grant ends."""

    places: dict[str, PlacesGrant] = {}
    requests: int | None = 0
    """Of the window; None: there is no window."""
    yielding_requests: int = 0
    window_seconds: float = 0.0
    """Until requests of the window may be had again."""
    outages: dict[str, ProbeGrant] = {}
    in_flight: int | None = None
    """None: find it out for all, or send none."""
    pushed_back: bool = False
    """Others were answered 429: that counts as yours."""


class WorkerState(Struct):
    """A worker, as of its last sync. Times are seconds of the shared state."""

    joined: float
    synced: float
    held: int = 0
    """Requests of the window."""
    wanting: dict[str, int] = {}
    """Places that it had or wanted, by lane."""
    rates: dict[str, float] = {}
    """Configured rates, by lane."""
    sends: bool = True
    """Batches; else it has no part of those in flight."""
    most: int | None = None
    limit: int = 1
    """Batches that it may have in flight."""
    taken: int = 0
    pushed_back: bool = False
    """Others were, since its last sync."""


class SharedPace(Struct):
    """How fast all workers together call."""

    pacer: Pacer = field(default_factory=Pacer)
    rate: LearnedRate = field(default_factory=LearnedRate)
    cuts: int = 0
    _calls: float = 0.0
    """Of late, older ones fading."""
    _counted_since: float = 0.0
    _counted_at: float = 0.0

    def hear(self, report: PaceReport, now: float) -> None:
        """Take in what a worker says of it."""
        self._count(report.sent, now)
        until = now + report.hold_seconds
        if report.hold_seconds:
            self.pacer.hold(until)
        if report.cuts != self.cuts:
            return  # what it met was the pace before
        for _ in range(report.answered):
            self.rate.answered(now)
        if report.pushed_back:
            seconds = min(_MEASURED_SECONDS, now - self._counted_since)
            self.rate.pushed_back(now, now, until, measured=self._calls / seconds)
            self.cuts += 1
            self.pacer.hold(now + _CUT_SECONDS)

    def _count(self, sent: int, now: float) -> None:
        """Count the calls that a worker has sent since its last report."""
        faded = self._calls * math.exp((self._counted_at - now) / _MEASURED_SECONDS)
        if faded < 1:
            self._counted_since = now - SYNC_SECONDS
        self._calls, self._counted_at = faded + sent, now

    def grant(self, report: PaceReport, now: float, *, configured: float | None, wanting: list[int]) -> PlacesGrant:
        """Grant places. `wanting`: how many each worker has or wants."""
        rates = [rate for rate in (configured, self.rate.per_second) if rate is not None]
        self.pacer.per_second = min(rates, default=None)
        held = max(0.0, self.pacer.held_until - now)
        if self.pacer.per_second is None:
            return PlacesGrant(self.cuts, held_seconds=held)
        share = max(1, math.ceil(_fair_share(wanting, self.pacer.per_second * _AHEAD_SECONDS)))
        most = min(report.wanted, share - report.held)
        lacking = 1 - min(1.0, report.held / share)
        ahead = _AHEAD_SECONDS + (_MOST_AHEAD_SECONDS - _AHEAD_SECONDS) * lacking
        first, number = self.pacer.book_ahead(now, most, ahead)
        return PlacesGrant(self.cuts, self.pacer.per_second, first, number, held)


def _fair_share(wanting: list[int], total: float) -> float:
    """Return how much each may have at most of a total: whoever wants less leaves the rest to the others."""
    for others, wanted in zip(range(len(wanting), 0, -1), sorted(wanting), strict=True):
        if wanted * others >= total:
            return total / others
        total -= wanted
    return max(wanting) + total


class SharedOutage(Struct):
    """A lane that does not get through. Times are seconds of the shared state."""

    probe_at: float
    prober: str = ""
    """The worker that may probe; empty: the next one that has a call waiting."""


class SharedLimits(Struct):
    """The limits of one service and account, as all workers know them together."""

    workers: dict[str, WorkerState] = {}
    paces: dict[str, SharedPace] = {}
    window: WindowBudget = field(default_factory=WindowBudget)
    outages: dict[str, SharedOutage] = {}
    answered: bool = False
    _now: float = 0.0
    _ahead: float = 0.0
    """What is added to the ledger's clock, so that time here never runs back: another server's clock may be behind."""

    @classmethod
    def of(cls, text: str | None) -> SharedLimits:
        """Return the limits that `text` holds; new ones where there is none."""
        return msgspec.json.decode(text, type=cls) if text else cls()

    def text(self) -> str:
        """Return what is to be kept."""
        return msgspec.json.encode(self).decode()

    def sync(self, report: Report, clock_now: float) -> Grant:
        """Take in what a worker tells; return what it may do. `clock_now`: Unix seconds by the ledger's clock."""
        self._ahead = max(self._ahead, self._now - clock_now)
        self._now = now = clock_now + self._ahead
        self._drop_silent(now)
        worker = self.workers.setdefault(report.worker, WorkerState(now, now))
        worker.synced = now
        self.answered |= report.answered
        self._hear_window(worker, report.window, now)
        for lane, said in report.paces.items():
            self.paces.setdefault(lane, SharedPace()).hear(said, now)
        self._hear_outages(report, now)
        self._hear_flight(worker, report)
        if report.leaving:
            self._drop(report.worker, now)
            return Grant()
        worker.rates = {lane: said.per_second for lane, said in report.paces.items() if said.per_second is not None}
        worker.wanting = {lane: said.held + said.wanted for lane, said in report.paces.items()}
        requests, yielding, window_seconds = self._grant_window(worker, report.window, now)
        in_flight, pushed_back = self._grant_flight(report.worker, worker)
        return Grant(
            {lane: self._grant_places(lane, said, now) for lane, said in report.paces.items()},
            requests,
            yielding,
            window_seconds,
            self._grant_outages(report, now),
            in_flight,
            pushed_back,
        )

    def _drop_silent(self, now: float) -> None:
        for name in [name for name, worker in self.workers.items() if now - worker.synced > DROPPED_SECONDS]:
            self._drop(name, now)

    def _drop(self, name: str, now: float) -> None:
        """Forget a worker; what it held may have been sent."""
        for _ in range(self.workers.pop(name).held):
            self.window.hear(now, None)
        for outage in self.outages.values():
            outage.prober = "" if outage.prober == name else outage.prober
        if not self.workers:  # nobody is there to probe; whoever comes next finds out for itself
            self.outages.clear()

    # -- window

    def _hear_window(self, worker: WorkerState, report: WindowReport, now: float) -> None:
        for heard in report.heard:
            if heard.allowance is not None or self.window.known:
                self.window.hear(now - heard.age_seconds, heard.allowance, pushed_back=heard.pushed_back)
        worker.held = report.held

    def _grant_window(self, worker: WorkerState, report: WindowReport, now: float) -> tuple[int | None, int, float]:
        """Return how many requests a worker may make, how many yielding ones, and when to ask again for more."""
        if self.answered and not self.window.known:
            return None, 0, 0.0
        self.window.unanswered = sum(each.held for each in self.workers.values())
        if self.window.unanswered and self.window.has_ended(now):
            return 0, 0, 0.0  # an answer that is under way would be taken for one of the next window
        granted, wait = [0, 0], 0.0
        for yielding, wanted in enumerate((report.wanted, report.wanted_yielding)):
            for _ in range(min(wanted, _MOST_REQUESTS)):
                if wait := self.window.take(now, yielding=bool(yielding)):
                    break
                granted[yielding] += 1
        worker.held += sum(granted)
        return granted[0], granted[1], wait

    # -- pace

    def _grant_places(self, lane: str, report: PaceReport, now: float) -> PlacesGrant:
        workers = self.workers.values()
        configured = min((worker.rates[lane] for worker in workers if lane in worker.rates), default=None)
        wanting = [worker.wanting.get(lane, 0) for worker in workers]
        return self.paces[lane].grant(report, now, configured=configured, wanting=wanting)

    # -- outages

    def _hear_outages(self, report: Report, now: float) -> None:
        for lane in report.opened:
            self.outages.pop(lane, None)
        for lane, seconds in report.outages.items():
            outage = self.outages.setdefault(lane, SharedOutage(now + seconds, report.worker))
            if outage.prober == report.worker:
                outage.probe_at = now + seconds

    def _grant_outages(self, report: Report, now: float) -> dict[str, ProbeGrant]:
        for lane, outage in self.outages.items():
            waits = lane in report.waiting
            if outage.prober == report.worker and not waits:
                outage.prober = ""
            elif not outage.prober and waits:
                outage.prober = report.worker
        return {
            lane: ProbeGrant(outage.prober == report.worker, max(0.0, outage.probe_at - now))
            for lane, outage in self.outages.items()
        }

    # -- batches in flight

    def _hear_flight(self, worker: WorkerState, report: Report) -> None:
        flight = report.flight
        worker.sends = flight is not None
        if flight is None:
            return
        worker.most, worker.taken = flight.most, flight.taken
        if flight.most is None:
            worker.limit = flight.limit
        leader = self._leader()
        if flight.pushed_back and leader is not None and leader is not worker:
            leader.pushed_back = True

    def _leader(self) -> WorkerState | None:
        """Return the worker that finds out how many batches may be in flight: the one that is there longest."""
        workers = self.workers.items()
        finding = [(worker.joined, name) for name, worker in workers if worker.sends and worker.most is None]
        return self.workers[min(finding)[1]] if finding else None

    def _grant_flight(self, name: str, worker: WorkerState) -> tuple[int | None, bool]:
        """Return how many batches a worker may have in flight, and whether others were pushed back."""
        if not worker.sends:
            return None, False
        if worker.most is None:
            leader = self._leader()
            assert leader is not None  # noqa: S101 - it is this worker, or another
            pushed_back, worker.pushed_back = worker.pushed_back, False
            return (None, pushed_back) if leader is worker else (leader.limit, False)
        sharing = sorted((each.joined, other) for other, each in self.workers.items() if each.most is not None)
        most = min(self.workers[other].most or 0 for _, other in sharing)
        place = sharing.index((worker.joined, name))
        share = most // len(sharing) + (place < most % len(sharing))
        # What others still have in flight above their share is not there to be given.
        others = [self.workers[other] for _, other in sharing if other != name]
        worker.limit = max(0, min(share, most - sum(max(each.limit, each.taken) for each in others)))
        return worker.limit, False
