"""Released batches in, settled ones out: polls, fairly spread, until the fate of every record is known.

The follower holds the released batches in a heap by the time at which each is next asked about. A batch that was asked
goes behind those that wait longer, so none starves. Which wait follows which answer is decided in `policy.polling`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import anyio

from engine.model.batches import Batch
from engine.model.errors import PossiblyApplied, Refused, Unauthorized, UnexpectedAnswer
from engine.model.outcomes import Settlement
from engine.model.settings import AUTO, SendSettings
from engine.model.submissions import State, Submission
from engine.observe.events import BatchMoved, BatchProgressed, BatchSettled
from engine.policy.coupled import OpenJobs
from engine.policy.polling import CreationSpeed, PollRules, Seen, next_poll
from engine.policy.rate import Pacer
from engine.ports import Progress
from engine.run import Run

POLL_TRIES = 8
"""Polls in a row that may be refused or answered with nonsense before a batch is given up as UNCERTAIN. The first ones
may only show that the service has not caught up with its own release."""


MOST_DOUBLINGS = 30
"""Beyond it every wait is at its cap, and the power of two stays a number."""

_NEWEST = 0.1
"""Weight of the newest wait in their mean."""

SPEED_SECONDS = 1.0
"""Time over which the service's creation speed is measured; shorter, and one poll more or less would sway it."""


@dataclass(slots=True)
class _Followed:
    """A batch that the service works on."""

    batch: Batch
    """Without its spans: thousands of batches may be open."""
    submission: Submission
    asked_at: float
    due_at: float = float("inf")
    """When it is asked about next; infinite while it is being asked about."""
    created: int = 0
    unchanged: int = 0
    failures: int = 0

    @property
    def left(self) -> int:
        return self.batch.count - self.created


class Follower:
    """Follows the released batches of one run."""

    def __init__(self, run: Run, settings: SendSettings) -> None:
        self._run = run
        self._rules = PollRules(settings.poll_seconds, settings.max_poll_seconds)
        self._pacer = Pacer(settings.polls_per_second)
        # Where one poll covers many batches the service works on all of them at once; elsewhere they stand in line.
        self._in_line = run.service.polls_together == 1
        self._speed = CreationSpeed()
        self._open_jobs = OpenJobs(settings.max_open_batches or run.service.open_batches)
        self._adapts = settings.max_open_batches is None and settings.max_in_flight == AUTO
        self._mean_wait = settings.poll_seconds
        self._gained = 0
        self._measured_at = run.clock.monotonic()
        self._open: dict[int, _Followed] = {}
        self._due: list[tuple[float, int]] = []
        self._changed = anyio.Event()
        self._complete = False

    @property
    def open_batches(self) -> int:
        """Batches released and not yet settled."""
        return len(self._open)

    @property
    def most_open(self) -> int:
        """Batches that may be released and not yet settled: no more than keep the service busy."""
        return self._open_jobs.limit

    def add(self, batch: Batch, submission: Submission) -> None:
        """Follow a batch that was just released, or that an earlier run left open."""
        now = self._run.clock.monotonic()
        one = self._open[batch.sequence] = _Followed(replace(batch, spans=b""), submission, now)
        self._queue(one, now + next_poll(self._rules, None).after_seconds)

    def finish(self) -> None:
        """Nothing more will be added."""
        self._complete = True
        self.wake()

    async def wait_for_change(self) -> None:
        """Return after the next batch was added or settled, or was queued to be asked about."""
        await self._changed.wait()

    def wake(self) -> None:
        """Have whoever waits for a change look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def next_group(self) -> Sequence[int]:
        """Wait until batches are due and take up to `polls_together` out of the queue; none once all are settled."""
        while not self._is_due(self._run.clock.monotonic()):
            if self._complete and not self._open:
                return []
            if not self._due:
                await self.wait_for_change()
                continue
            # No longer than the shortest wait of all: what is queued meanwhile is due after that at the earliest.
            wait = self._due[0][0] - self._run.clock.monotonic()
            await self._run.clock.sleep(min(wait, self._rules.first_seconds, self._rules.cap_seconds))
        now = self._run.clock.monotonic()
        group: list[int] = []
        most = self._run.service.polls_together
        # One poll that is due takes others along that are not yet: it costs the same.
        while len(group) < most and (self._is_due(now) or (group and self._due)):
            _, sequence = heapq.heappop(self._due)
            self._open[sequence].due_at = float("inf")
            group.append(sequence)
        return group

    def _is_due(self, now: float) -> bool:
        """Tell whether the first of the queue is due; entries that were replaced by earlier ones fall away here."""
        while self._due:
            due_at, sequence = self._due[0]
            if sequence in self._open and self._open[sequence].due_at == due_at:
                return due_at <= now
            heapq.heappop(self._due)
        return False

    async def poll(self, group: Sequence[int]) -> None:
        """Ask about a group once; settle what has finished and queue the rest again."""
        await self._run.clock.sleep(self._pacer.book(self._run.clock.monotonic()))
        followed = [self._open[sequence] for sequence in group]
        try:
            answers = await self._run.service.progress([one.submission for one in followed])
        except Unauthorized:
            raise
        except (Refused, UnexpectedAnswer) as failure:
            for one in followed:
                await self._excuse(one, failure)
            return
        said = {progress.sequence: progress for progress in answers}
        for one in followed:
            if one.batch.sequence in said:
                await self._learn(one, said[one.batch.sequence])
            else:
                await self._excuse(one, UnexpectedAnswer(f"nothing was said of batch {one.submission.remote_id}"))

    async def _learn(self, one: _Followed, progress: Progress) -> None:
        """Take in what a poll said of one batch of its group; what goes wrong with it is no matter of the others."""
        try:
            await self._take_in(one, progress)
        except Unauthorized:
            raise
        except (Refused, UnexpectedAnswer) as failure:
            await self._excuse(one, failure)

    async def _take_in(self, one: _Followed, progress: Progress) -> None:
        if progress.created != one.created:
            self._run.emit(BatchProgressed(progress.sequence, progress.created, one.created))
        seen = self._see(one, progress.created)
        if progress.finished:
            await self._settle(one, progress.settlement)
            return
        one.failures = 0
        self._queue(one, one.asked_at + self._wait(seen))

    def _see(self, one: _Followed, created: int) -> Seen:
        now = self._run.clock.monotonic()
        waited, gained = now - one.asked_at, created - one.created
        one.asked_at, one.created = now, created
        one.unchanged = 0 if gained else min(one.unchanged + 1, MOST_DOUBLINGS)
        if not self._in_line:
            return Seen(waited, gained, one.left, unchanged=one.unchanged)
        self._measure(gained, now)
        ahead = sum(other.left for other in takewhile(lambda other: other is not one, self._open.values()))
        return Seen(waited, gained, one.left, ahead, one.unchanged)

    def _wait(self, seen: Seen) -> float:
        wait = next_poll(self._rules, seen, self._speed.tasks_per_second).after_seconds
        self._mean_wait += (wait - self._mean_wait) * _NEWEST
        return wait

    def _measure(self, gained: int, now: float) -> None:
        """Take what all batches gained together as the service's speed; a single batch sees only its share."""
        self._gained += gained
        if now - self._measured_at < SPEED_SECONDS:
            return
        self._speed.observe(self._gained, now - self._measured_at)
        self._adapt(self._gained, now - self._measured_at)
        self._gained, self._measured_at = 0, now
        self._bring_forward()

    def _adapt(self, gained: int, seconds: float) -> None:
        """Let as many batches be open as keep the service busy until a poll has told of the end of one."""
        if not self._adapts or not self._open:
            return
        records = sum(one.batch.count for one in self._open.values()) / len(self._open)
        change = self._open_jobs.observe(gained, seconds, batch_records=records, lag_seconds=self._mean_wait)
        if change is not None:
            self._run.emit(change)
            self.wake()

    def _bring_forward(self) -> None:
        """Ask sooner about batches whose turn comes sooner than it seemed when they were queued."""
        ahead = 0
        for one in self._open.values():
            if one.unchanged and one.due_at < float("inf"):
                due_at = one.asked_at + self._wait(Seen(0, 0, one.left, ahead, one.unchanged))
                if due_at < one.due_at:
                    self._queue(one, due_at)
            ahead += one.left

    async def _settle(self, one: _Followed, settlement: Settlement | None) -> None:
        batch, submission = one.batch, one.submission
        if settlement is None:
            settlement = await self._run.service.settlement(batch, str(submission.remote_id))
        settled = replace(submission, state=State.SETTLED, note=settlement.note)
        await self._run.ledger.settle(self._run.job.name, settled, settlement, expected=submission.state)
        self._close(one, State.SETTLED, settlement.note)
        first_error = next(iter(settlement.errors.values()), "")
        self._run.emit(BatchSettled(batch.sequence, settlement.created, len(settlement.errors), first_error))

    async def _excuse(self, one: _Followed, failure: Refused | PossiblyApplied) -> None:
        """Ask again later after a poll that failed; after too many in a row, park the batch."""
        one.failures += 1
        if one.failures < POLL_TRIES:
            self._queue(one, self._run.clock.monotonic() + self._rules.first_seconds * 2**one.failures)
            return
        parked = replace(one.submission, state=State.UNCERTAIN, note=str(failure))
        await self._run.ledger.move(self._run.job.name, parked, expected=one.submission.state)
        self._close(one, State.UNCERTAIN, str(failure))

    def _close(self, one: _Followed, state: State, reason: str) -> None:
        batch = one.batch
        del self._open[batch.sequence]
        self.wake()
        self._run.emit(BatchMoved(batch.sequence, one.submission.state, state, batch.count, batch.size_bytes, reason))

    def _queue(self, one: _Followed, due_at: float) -> None:
        one.due_at = due_at
        heapq.heappush(self._due, (due_at, one.batch.sequence))
        self.wake()
