"""What one run does, counted from its events: for the ledger, which remembers it, and for those who collect metrics.

`commands.runs` lets it listen beside the displays. It asks nobody anything, so it costs the run no more than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.adaptive.concurrency import LimitChanged
from engine.model.outcome import Tally
from engine.model.runs import RunCounts, Sample
from engine.model.submission import State
from engine.progress.events import (
    BatchesFrozen,
    BatchMoved,
    CallEnded,
    CallRetried,
    Event,
    JobEnded,
    JobStarted,
    Paused,
    Spaced,
)
from engine.progress.snapshot import Counts, Progress

MOST_OF_REASONS = 8
"""Different ones that a sample spells out: the words of a service may differ with each answer."""
OTHER_REASONS = "other reasons"


class RunFigures:
    """Counts what a run does; a new sample begins where the last one was taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nothing. `clock` returns seconds that never jump."""
        self._clock = clock
        self._progress = Progress(clock)
        self._before = Tally()
        self._requests = 0
        self._limit_reason = ""
        self._stages: dict[str, list[float]] = {}
        """Stage → its first and its last event."""
        self._waiting_until: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._retries: dict[str, float] = {}
        self._sampled = (clock(), 0, 0, 0)
        """When, and the records settled, the bytes sent and the requests ended by then."""
        self._takes: Mapping[type[Any], Callable[[Any], None]] = {
            JobStarted: self._note_begin,
            CallEnded: self._note_call,
            BatchMoved: self._note_move,
            BatchesFrozen: lambda _: self._note_stage("read", since=self._progress.began),
            CallRetried: lambda event: _add(self._retries, event.reason, 1),
            Paused: self._note_wait,
            Spaced: self._note_wait,
            LimitChanged: self._note_limit,
            JobEnded: lambda _: self._note_stage("all", since=self._progress.began),
        }

    @property
    def of_job(self) -> Counts:
        """The numbers of the whole job."""
        return self._progress.counts

    def hear(self, event: Event) -> None:
        """Take an event in."""
        self._progress.fold(event)
        if take := self._takes.get(
            type(event)
        ):  # events come by the thousand: a lookup takes half of what `match` does
            take(event)

    def _note_begin(self, event: JobStarted) -> None:
        self._before = event.before
        self._sampled = (self._clock(), self.of_job.settled, 0, self._requests)

    def _note_call(self, _event: CallEnded) -> None:
        self._requests += 1

    def _note_move(self, event: BatchMoved) -> None:
        before, after = event.before, event.after
        if before is not State.RELEASED and before is not State.UNCERTAIN:
            self._note_stage("send")
        if after is State.RELEASED or after is State.SETTLED or after is State.UNCERTAIN:
            self._note_stage("settle")

    def _note_limit(self, event: LimitChanged) -> None:
        if event.name == "max_in_flight":
            self._limit_reason = event.reason

    def _note_stage(self, stage: str, since: float | None = None) -> None:
        now = self._clock()
        if (span := self._stages.get(stage)) is None:
            self._stages[stage] = [now if since is None else since, now]
        else:
            span[1] = now

    def _note_wait(self, event: Paused | Spaced) -> None:
        """Count a wait once, however many calls wait for the same reason at the same time."""
        now = self._clock()
        until = now + event.wait_seconds
        counted = max(now, self._waiting_until.get(event.reason, now))
        if until > counted:
            _add(self._waits, event.reason, until - counted)
            if len(self._waiting_until) > MOST_OF_REASONS:
                self._waiting_until.clear()
            self._waiting_until[event.reason] = until

    def counts(self, warnings: int) -> RunCounts:
        """Return what the run has done so far; whoever writes its log knows its warnings."""
        now, before = self.of_job, self._before
        return RunCounts(
            now.records - before.records,
            now.created - before.created,
            now.failed - before.failed,
            now.rejected - before.rejected,
            now.uncertain - before.uncertain,
            now.skipped - before.skipped,
            self.of_job.sent_bytes,
            self._requests,
            self.of_job.retries,
            warnings,
            {stage: round(ended - began, 3) for stage, (began, ended) in self._stages.items()},
        )

    def sample(self, at: float, in_flight: int, limit: int) -> Sample:
        """Return what was done since the last one; `at` is the time in Unix seconds, the rest is true now."""
        now, counts = self._clock(), self.of_job
        then, settled, sent_bytes, requests = self._sampled
        seconds = max(now - then, 1e-3)
        sample = Sample(
            at,
            round(now - then, 3),
            round((counts.settled - settled) / seconds, 3),
            round((counts.sent_bytes - sent_bytes) / seconds, 3),
            round((self._requests - requests) / seconds, 3),
            counts.in_flight,
            in_flight,
            limit,
            self._limit_reason,
            {reason: round(waited, 3) for reason, waited in self._waits.items()},
            {reason: round(calls) for reason, calls in self._retries.items()},
        )
        self._sampled = (now, counts.settled, counts.sent_bytes, self._requests)
        self._waits, self._retries = {}, {}
        return sample


def _add(sums: dict[str, float], reason: str, more: float) -> None:
    key = reason if reason in sums or len(sums) < MOST_OF_REASONS else OTHER_REASONS
    sums[key] = sums.get(key, 0.0) + more
