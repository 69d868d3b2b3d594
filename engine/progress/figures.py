"""What one run does, counted from its events: for the ledger, which remembers it, and for those who collect metrics.

`commands.runs` lets it listen beside the displays. It asks nobody anything, so it costs the run no more than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappush, heappushpop
from typing import Any

from engine.adaptive.concurrency import LimitChanged
from engine.model.outcome import Tally
from engine.model.runs import NO_ANSWER, BatchTime, CallCounts, LimitStep, RunCounts, Sample
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
from engine.progress.histogram import COARSE, Histogram
from engine.progress.snapshot import SHORTEST_SECONDS, Counts, Progress

MOST_OF_REASONS = 8
"""Different ones that a sample spells out: the words of a service may differ with each answer."""
OTHER_REASONS = "other reasons"
MOST_STEPS = 100
"""Of limits that a run keeps. When they are so many, every second one is forgotten, but the first and the newest."""
MOST_SLOWEST = 20
"""Batches that a run keeps."""


class _Calls:
    """Counts the calls of one kind."""

    def __init__(self) -> None:
        self.calls = self.sent_bytes = 0
        self.answers: dict[int | None, int] = {}
        self.seconds = Histogram(COARSE)

    def note(self, event: CallEnded) -> None:
        self.calls += 1
        self.sent_bytes += event.sent_bytes
        self.answers[event.status] = self.answers.get(event.status, 0) + 1
        self.seconds.record(event.seconds)

    def counts(self) -> CallCounts:
        answers = {NO_ANSWER if status is None else str(status): number for status, number in self.answers.items()}
        return CallCounts(self.calls, self.sent_bytes, answers, self.seconds.spread)


class RunFigures:
    """Counts what a run does; a new sample begins where the last one was taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nothing. `clock` returns seconds that never jump."""
        self._clock = clock
        self._progress = Progress(clock)
        self._before = Tally()
        self._requests = 0
        self._calls: dict[str, _Calls] = {}
        self._limit_reason = ""
        self._limit_steps: list[LimitStep] = []
        self._limits_changed = 0
        self._batches: dict[int, list[float]] = {}
        """Batch that this run has begun and that is not settled → when it was begun and, if it was, released."""
        self._batch_seconds = Histogram(COARSE)
        self._slowest: list[tuple[float, int, BatchTime]] = []
        """A heap: the least slow one is first."""
        self._stages: dict[str, list[float]] = {}
        """Stage → its first and its last event."""
        self._waiting_until: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._retries: dict[str, float] = {}
        self._all_waits: dict[str, float] = {}
        self._all_retries: dict[str, float] = {}
        """Likewise, but of the whole run."""
        self._sampled = (clock(), 0, 0, 0)
        """When, and the records answered, the bytes sent and the requests ended by then."""
        self._takes: Mapping[type[Any], Callable[[Any], None]] = {
            JobStarted: self._note_begin,
            CallEnded: self._note_call,
            BatchMoved: self._note_move,
            BatchesFrozen: lambda _: self._note_stage("read", since=self._progress.began),
            CallRetried: self._note_retry,
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
        self._sampled = (self._clock(), self.of_job.answered, 0, self._requests)

    def _note_call(self, event: CallEnded) -> None:
        self._requests += 1
        if (calls := self._calls.get(event.kind)) is None:
            calls = self._calls[event.kind] = _Calls()
        calls.note(event)

    def _note_retry(self, event: CallRetried) -> None:
        _add(self._retries, event.reason, 1)
        _add(self._all_retries, event.reason, 1)

    def _note_move(self, event: BatchMoved) -> None:
        before, after = event.before, event.after
        self._note_batch(event)
        if before is not State.RELEASED and before is not State.UNCERTAIN:
            self._note_stage("send")
        if after is State.RELEASED or after is State.SETTLED or after is State.UNCERTAIN:
            self._note_stage("settle")

    def _note_batch(self, event: BatchMoved) -> None:
        """Measure a batch from its first step to its settlement, if this run has seen both."""
        after = event.after
        if event.before is State.FROZEN and after is not State.SETTLED:
            self._batches.setdefault(event.sequence, [self._clock()])  # a refused one is frozen again, and goes on
        elif (times := self._batches.get(event.sequence)) is None:
            return
        elif after is State.RELEASED:
            times[1:] = [self._clock()]
        elif after is State.SETTLED or after is State.SPLIT or after is State.UNCERTAIN:
            del self._batches[event.sequence]
            if after is State.SETTLED:
                now, began, released = self._clock(), times[0], times[-1]
                settle_seconds = now - released if len(times) > 1 else 0.0
                self._note_settled(event, now - began, settle_seconds)

    def _note_settled(self, event: BatchMoved, seconds: float, settle_seconds: float) -> None:
        self._batch_seconds.record(seconds)
        full = len(self._slowest) == MOST_SLOWEST
        if full and seconds <= self._slowest[0][0]:
            return
        took = BatchTime(event.sequence, event.records, event.size_bytes, round(seconds, 3), round(settle_seconds, 3))
        (heappushpop if full else heappush)(self._slowest, (seconds, event.sequence, took))

    def _note_limit(self, event: LimitChanged) -> None:
        if event.name == "max_in_flight":
            self._limit_reason = event.reason
        self._limits_changed += 1
        if len(self._limit_steps) == MOST_STEPS:
            del self._limit_steps[1:-1:2]
        since = round(self._clock() - self._progress.began, 3)
        self._limit_steps.append(LimitStep(since, event.name, event.before, event.after, event.reason))

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
            _add(self._all_waits, event.reason, until - counted)
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
            {kind: calls.counts() for kind, calls in self._calls.items()},
            _rounded(self._all_waits),
            _whole(self._all_retries),
            self._limit_steps.copy(),
            self._limits_changed,
            self._batch_seconds.spread,
            [took for *_, took in sorted(self._slowest, reverse=True)],
        )

    def sample(self, at: float, in_flight: int, limit: int) -> Sample:
        """Return what was done since the last one; `at` is the time in Unix seconds, the rest is true now."""
        now, counts = self._clock(), self.of_job
        then, answered, sent_bytes, requests = self._sampled
        seconds = max(now - then, SHORTEST_SECONDS)
        sample = Sample(
            at,
            round(now - then, 3),
            round((counts.answered - answered) / seconds, 3),
            round((counts.sent_bytes - sent_bytes) / seconds, 3),
            round((self._requests - requests) / seconds, 3),
            counts.in_flight,
            in_flight,
            limit,
            self._limit_reason,
            _rounded(self._waits),
            _whole(self._retries),
        )
        self._sampled = (now, counts.answered, counts.sent_bytes, self._requests)
        self._waits, self._retries = {}, {}
        return sample


def _rounded(sums: Mapping[str, float]) -> dict[str, float]:
    return {reason: round(seconds, 3) for reason, seconds in sums.items()}


def _whole(sums: Mapping[str, float]) -> dict[str, int]:
    return {reason: round(calls) for reason, calls in sums.items()}


def _add(sums: dict[str, float], reason: str, more: float) -> None:
    key = reason if reason in sums or len(sums) < MOST_OF_REASONS else OTHER_REASONS
    sums[key] = sums.get(key, 0.0) + more
