"""Ends a run before its job is done: in time for its window or its deadline, or because too many records fail.

`commands.submit` makes one for each run. Nothing more is sent then, and what is under way is followed to its end; only
when the time is over does the run end at once. Nothing here looks at a record or calls anybody.
"""

from __future__ import annotations

from msgspec import Struct

from engine.clock import Clock
from engine.model.errors import BulkSubmitError, DeadlineReached, TooManyFailed, WindowClosed
from engine.model.night import most_failed, said_moment, zone_of
from engine.model.outcome import Tally
from engine.model.settings import LimitSettings, WindowSettings
from engine.model.submission import State
from engine.progress.events import BatchesFrozen, BatchMoved, BatchSettled, Event, JobTallied, Listener, Stopping
from engine.run.context import Stop

JUDGED_RECORDS = 1000
"""From so many on a share of failures is judged: before, it may be chance."""
LEAST_DRAIN_SECONDS = 30.0
"""Before the time is over nothing more is sent, even where batches are done at once."""
MOST_DRAIN_SHARE = 0.25
"""Of a run's time, for what is under way to end: where tasks take hours, no time to send would be left."""
_LOOK_SECONDS = 10.0
_BEGUN = frozenset({State.STAGING, State.RELEASING})
_ENDED = frozenset({State.FROZEN, State.SETTLED, State.SPLIT, State.UNCERTAIN})


class Ending(Struct, frozen=True):
    """When a run has to be over, and what it then says."""

    at: float
    """Unix seconds."""
    error: BulkSubmitError


def check_open(settings: WindowSettings, now: float) -> None:
    """See that work may be done now.

    Raises:
        WindowClosed: says when it may.
    """
    window = settings.window
    if window is not None and (opening := window.at(now)).opens > now:
        raise WindowClosed(
            f"the window {settings.opens}-{settings.closes} is closed, so nothing was begun; it opens "
            f"{said_moment(opening.opens, window.zone)}. Run the same command again then"
        )


def ending_of(settings: WindowSettings, deadline_at: float | None, now: float) -> Ending | None:
    """Return when a run that goes on now has to be over; None if nothing says so."""
    endings = []
    window, zone = settings.window, zone_of(settings.zone)
    if window is not None:
        closes = window.at(now).closes
        said = f"the window closes {said_moment(closes, zone)}. `bulksubmit resume` goes on once it is open again"
        endings.append(Ending(closes, WindowClosed(said)))
    if deadline_at is not None:
        said = f"the deadline, {said_moment(deadline_at, zone)}, leaves no more time. `bulksubmit resume` goes on"
        endings.append(Ending(deadline_at, DeadlineReached(said)))
    return min(endings, key=lambda ending: ending.at, default=None)


class Bounds:
    """The limits of one run: it hears what happens and ends the run by `stop`."""

    def __init__(
        self, limits: LimitSettings, ending: Ending | None, before: Tally, clock: Clock, stop: Stop, emit: Listener
    ) -> None:
        """Begin with what earlier runs of the job have done."""
        self._said = limits.max_failed
        self._most_failed, self._is_share = most_failed(self._said) if self._said else (float("inf"), False)
        self._failed = before.failed + before.rejected
        self._judged = before.created + before.failed + before.rejected + before.uncertain
        self._ending = ending
        self._clock = clock
        self._began = clock.now()
        self._stop = stop
        self._emit = emit
        self._since: dict[int, float] = {}
        """Batch that is under way → monotonic seconds at which its first call began; the oldest first."""
        self._slowest = 0.0
        self._judge(0, 0)

    def hear(self, event: Event) -> None:
        """Take note of what becomes of batches and records."""
        match event:
            case BatchMoved():
                self._time(event)
            case BatchSettled():
                self._judge(event.failed, event.created + event.failed + event.uncertain)
            case BatchesFrozen():
                self._judge(event.rejected, event.rejected)
            case JobTallied(tally):  # of what other processes have sent, too
                failed = tally.failed + tally.rejected
                judged = failed + tally.created + tally.uncertain
                self._judge(max(0, failed - self._failed), max(0, judged - self._judged))

    def _time(self, event: BatchMoved) -> None:
        now = self._clock.monotonic()
        if event.after in _BEGUN:
            self._since.setdefault(event.sequence, now)
        elif event.after in _ENDED and (since := self._since.pop(event.sequence, None)) is not None:
            self._slowest = max(self._slowest, now - since)

    def _judge(self, failed: int, judged: int) -> None:
        self._failed += failed
        self._judged += judged
        most = self._most_failed
        if self._is_share:
            if self._judged < JUDGED_RECORDS:
                return
            most *= self._judged
        if self._failed > most:
            self._end_sending(
                TooManyFailed(
                    f"{self._failed:,} of {self._judged:,} records failed or were rejected, and {self._said} may "
                    "(max_failed). See rejects.ndjson for the reasons; `bulksubmit resume --max-failed LIMIT` goes on"
                )
            )

    async def watch(self) -> None:
        """End the run when its time comes; sending ends earlier, so that what is under way can end by then."""
        if self._ending is None:
            return
        at = self._ending.at
        while (left := at - self.drain_seconds - self._clock.now()) > 0:
            await self._clock.sleep(min(left, _LOOK_SECONDS))
        self._end_sending(self._ending.error)
        while (left := at - self._clock.now()) > 0:
            await self._clock.sleep(min(left, _LOOK_SECONDS))
        self._stop.request(self._ending.error)

    @property
    def drain_seconds(self) -> float:
        """How long what is under way may need to end: twice the longest time that a batch has needed so far."""
        oldest = next(iter(self._since.values()), None)
        waits = 0.0 if oldest is None else self._clock.monotonic() - oldest
        most = (self._ending.at - self._began) * MOST_DRAIN_SHARE if self._ending else float("inf")
        return min(max(LEAST_DRAIN_SECONDS, 2 * self._slowest, 2 * waits), most)

    def _end_sending(self, error: BulkSubmitError) -> None:
        if self._stop.sending_error is None:
            self._emit(Stopping(str(error)))
        self._stop.end_sending(error)
