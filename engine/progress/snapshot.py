"""A picture of the run, made of its events: what is read, where the batches are, how fast it goes, when it ends.

Displays fold each event into a `Progress`, which is a matter of well under a microsecond, and look at a `Snapshot`
whenever they draw. No I/O. Memory is bounded by the batches open at the service, not by the job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from engine.adaptive.concurrency import LimitChanged
from engine.model.outcome import Tally
from engine.model.submission import State
from engine.progress import events
from engine.progress.events import Event
from engine.progress.text import waiting_line

WINDOW_SECONDS = 30.0
"""Rates are means over this long: the longest wait between two polls of a batch, or they would jump with each."""
_SAMPLE_SECONDS = 0.5
"""Samples closer than this are dropped, so the window holds at most sixty."""
SHORTEST_SECONDS = 1.0
"""A rate over less than this is noise."""
_MOST_WAITS = 8
"""Of which those that are over are kept."""


class Eta(Struct, frozen=True):
    """When the run will end, and what that rests on."""

    seconds: float | None
    """None: it cannot be told yet."""
    basis: str


class Wait(Struct, frozen=True):
    """Calls wait, as far as is known just now."""

    reason: str
    seconds: float
    """From now on."""


class Counts(Struct):
    """What is known of the job at hand; one object, so that a new job begins with nothing of the last."""

    job: str = ""
    """"" before there is one, and where records are only checked."""
    size_bytes: int = 0
    read_bytes: int = 0
    read_complete: bool = False
    records: int = 0
    created: int = 0
    failed: int = 0
    rejected: int = 0
    uncertain: int = 0
    skipped: int = 0
    in_flight: int = 0
    """Requests without an answer yet."""
    retries: int = 0
    sent_bytes: int = 0
    retry_reason: str = ""
    retried_at: float = -WINDOW_SECONDS
    pause_reason: str = ""
    paused_until: float = 0.0
    spaced_reason: str = ""
    spaced_until: float = 0.0
    waits: dict[str, float] = {}
    """Reason → until when calls wait, if nothing changes; those that are over may stand there, too."""
    waiting: str = ""
    """Which batches the service does not begin with, until the next one moves."""
    copying: str = ""
    """How far a source is that becomes a file of ours, before the job begins."""
    stopping: str = ""
    """Why the run ends before the job does; empty if it does not."""
    first_failure: str = ""
    # Every key from the start: a renderer in another thread may iterate while an event is folded in.
    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    """State → batches, as far as this run has met them."""
    seen_created: dict[int, int] = {}
    """Open batch → tasks of it already counted as created."""

    @property
    def settled(self) -> int:
        """Records whose fate is known."""
        return self.created + self.failed + self.rejected + self.uncertain + self.skipped

    @property
    def answered(self) -> int:
        """Records of which the service has told the fate, or should have: what a rate of tasks is about."""
        return self.created + self.failed + self.uncertain

    @property
    def unresolved(self) -> int:
        """Records that are read and whose fate is not known."""
        return self.records - self.settled


class Snapshot(Struct, frozen=True):
    """How a run stands at one moment."""

    counts: Counts
    """A copy: the run goes on counting in its own."""
    elapsed_seconds: float
    tasks_per_second: float
    bytes_per_second: float
    expected_records: int
    """Records of the whole input: counted once it is read, estimated before."""
    eta: Eta
    note: str
    """Why it waits, stops or tries again; empty if all is well."""
    answered_before: int = 0
    """By earlier runs."""
    waits: Sequence[Wait] = ()
    """All that calls wait for, the longest first."""


class Progress:
    """The running picture of a job."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nothing. `clock` returns seconds that never jump."""
        self._clock = clock
        self.counts = Counts()
        self.began = clock()
        """When this process began with the job."""
        self._answered_before = 0
        self._samples: deque[tuple[float, int, int, int]] = deque()
        """When, and the records answered and settled, and the bytes sent by then."""

    def fold(self, event: Event) -> None:  # noqa: C901, PLR0912 - one short branch for each kind of event
        """Take an event into the picture."""
        counts = self.counts
        match event:
            case events.CallStarted():
                counts.in_flight += 1
            case events.CallEnded():
                counts.in_flight -= 1
                counts.sent_bytes += event.sent_bytes
            case events.BatchMoved():
                _move(counts, event)
            case events.BatchProgressed():
                counts.waiting = ""
                counts.created += event.created - counts.seen_created.get(event.sequence, 0)
                counts.seen_created[event.sequence] = event.created
            case events.BatchSettled():
                counts.created += event.created - counts.seen_created.pop(event.sequence, 0)
                counts.failed += event.failed
                counts.uncertain += event.uncertain
                counts.first_failure = counts.first_failure or event.first_error
            case events.BatchesFrozen():
                _freeze(counts, event)
            case events.JobTallied():
                _tally(counts, event.tally)
                counts.read_bytes = max(counts.read_bytes, event.read_bytes)
            case events.CallRetried():
                counts.retries += 1
                counts.retry_reason, counts.retried_at = event.reason, self._clock()
            case events.BatchesWaiting():
                counts.waiting = waiting_line(event.batches, event.seconds, event.names)
            case events.Paused() if event.brief:
                pass
            case events.Paused():
                counts.pause_reason, counts.paused_until = event.reason, self._clock() + event.wait_seconds
                _wait(counts, event, self._clock())
            case events.Spaced():
                counts.spaced_reason, counts.spaced_until = event.reason, self._clock() + event.wait_seconds
                _wait(counts, event, self._clock())
            case events.Stopping():
                counts.stopping = event.reason
            case events.JobStarted():
                self._start(event)
            case events.SourceCopied():
                counts.copying = "" if event.ended else event.words
            case events.JobEnded() | LimitChanged():
                pass

    @property
    def paused(self) -> bool:
        """Calls wait just now."""
        return self._clock() < self.counts.paused_until

    @property
    def retrying(self) -> bool:
        """A call was tried again a moment ago."""
        return self._clock() - self.counts.retried_at < WINDOW_SECONDS

    @property
    def elapsed_seconds(self) -> float:
        """Since the job was begun by this process."""
        return self._clock() - self.began

    def _start(self, event: events.JobStarted) -> None:
        self.counts = Counts(
            job=event.job,
            size_bytes=event.size_bytes,
            read_bytes=event.read_bytes,
            read_complete=event.read_bytes >= event.size_bytes,
            records=event.before.records,
            rejected=event.before.rejected,
            created=event.before.created,
            failed=event.before.failed,
            uncertain=event.before.uncertain,
            skipped=event.before.skipped,
            states={state: event.before.states.get(state, 0) for state in State},
        )
        self.began = self._clock()
        self._answered_before = self.counts.answered
        self._samples = deque([(self.began, self.counts.answered, self.counts.settled, 0)])

    def view(self) -> Snapshot:
        """Return how the run stands now."""
        now = self._clock()
        told = self.counts
        counts = replace(told, states=dict(told.states), waits=dict(told.waits), seen_created={})
        tasks_per_second, settled_per_second, bytes_per_second = self._rates(now, counts)
        expected = _expected_records(counts)
        eta = _eta(counts, expected, settled_per_second, paused=now < counts.paused_until)
        waits = [Wait(reason, until - now) for reason, until in counts.waits.items() if now < until]
        return Snapshot(
            counts,
            now - self.began,
            tasks_per_second,
            bytes_per_second,
            expected,
            eta,
            _note(counts, now),
            self._answered_before,
            sorted(waits, key=lambda wait: -wait.seconds),
        )

    def _rates(self, now: float, counts: Counts) -> tuple[float, float, float]:
        """Return tasks, records settled and bytes sent per second, over the window."""
        samples = self._samples
        if not samples or now - samples[-1][0] >= _SAMPLE_SECONDS:
            samples.append((now, counts.answered, counts.settled, counts.sent_bytes))
        # The oldest sample kept is the first one outside of the window, so that the window is always covered.
        while len(samples) > 1 and now - samples[1][0] >= WINDOW_SECONDS:
            samples.popleft()
        at, answered, settled, sent_bytes = samples[0]
        seconds = max(now - at, SHORTEST_SECONDS)
        # Both counts fall when a batch is no longer uncertain, or becomes it; no rate does.
        return (
            max(0, counts.answered - answered) / seconds,
            max(0, counts.settled - settled) / seconds,
            (counts.sent_bytes - sent_bytes) / seconds,
        )


def _tally(counts: Counts, tally: Tally) -> None:
    """Take in what all processes have done; what this one has met since is ahead of it, and stays."""
    counts.records = max(counts.records, tally.records)
    counts.created = max(counts.created, tally.created)
    counts.failed = max(counts.failed, tally.failed)
    counts.rejected = max(counts.rejected, tally.rejected)
    counts.skipped = max(counts.skipped, tally.skipped)
    counts.uncertain = tally.uncertain
    counts.states.update((state, tally.states.get(state, 0)) for state in State)


def _move(counts: Counts, event: events.BatchMoved) -> None:
    # A resumed run meets batches that an earlier one froze: they are counted from here on.
    counts.states[event.before] = max(0, counts.states[event.before] - 1)
    counts.states[event.after] += 1
    if event.after is State.SPLIT:
        counts.states[State.FROZEN] += 2
    if event.after is State.UNCERTAIN:
        counts.uncertain += event.records
        # The polls may have seen some of its tasks; which records they are of, nobody can tell.
        counts.created -= counts.seen_created.pop(event.sequence, 0)
        counts.first_failure = counts.first_failure or event.reason
    elif event.before is State.UNCERTAIN:
        counts.uncertain = max(0, counts.uncertain - event.records)


def _wait(counts: Counts, event: events.Paused | events.Spaced, now: float) -> None:
    if len(counts.waits) > _MOST_WAITS:  # reasons may hold words of the service, which differ each time
        counts.waits = {reason: until for reason, until in counts.waits.items() if now < until}
    counts.waits[event.reason] = max(now + event.wait_seconds, counts.waits.get(event.reason, now))


def _freeze(counts: Counts, event: events.BatchesFrozen) -> None:
    counts.states[State.FROZEN] += event.batches
    counts.records += event.records
    counts.rejected += event.rejected
    counts.skipped += event.skipped
    counts.read_bytes = event.read_bytes
    counts.read_complete = event.last


def _expected_records(counts: Counts) -> int:
    if counts.read_complete or not counts.read_bytes:
        return counts.records
    return max(counts.records, round(counts.records * counts.size_bytes / counts.read_bytes))


def _eta(counts: Counts, expected: int, settled_per_second: float, *, paused: bool) -> Eta:
    remaining = expected - counts.settled
    if not counts.records:
        return Eta(None, "nothing is read yet")
    if counts.read_complete and remaining <= 0:
        return Eta(0.0, "every record is settled")
    if paused:
        return Eta(None, "calls wait")
    if settled_per_second <= 0:
        return Eta(None, "no record was settled lately")
    total = "" if counts.read_complete else ", their number estimated from the part that is read"
    return Eta(remaining / settled_per_second, f"{remaining:,} records to go{total}")


def _note(counts: Counts, now: float) -> str:
    if counts.stopping:
        return f"stopping: {counts.stopping}"
    if now < counts.paused_until:
        return f"waiting {counts.paused_until - now:.0f} s: {counts.pause_reason}"
    if now < counts.spaced_until:
        return f"calls wait for their turn: {counts.spaced_reason}"
    if now - counts.retried_at < WINDOW_SECONDS:
        return f"last retry: {counts.retry_reason}"
    return counts.waiting or counts.copying
