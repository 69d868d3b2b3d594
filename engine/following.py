"""Released batches in, settled ones out: polls, fairly spread, until the fate of every record is known.

The follower holds the released batches in a heap by the time at which each is next asked about. A batch that was asked
goes behind those that wait longer, so none starves. Which wait follows which answer is decided in `policy.polling`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from engine.model.batches import Batch
from engine.model.errors import PossiblyApplied, Refused, Unauthorized, UnexpectedAnswer
from engine.model.settings import SendSettings
from engine.model.submissions import State, Submission
from engine.observe.events import BatchMoved, BatchProgressed, BatchSettled
from engine.policy.polling import CreationSpeed, PollRules, Seen, next_poll
from engine.policy.rate import Pacer
from engine.ports import Progress
from engine.run import Run

POLL_TRIES = 8
"""Polls in a row that may be refused or answered with nonsense before a batch is given up as UNCERTAIN. The first ones
may only show that the service has not caught up with its own release."""


@dataclass(slots=True)
class _Followed:
    """A batch that the service works on."""

    batch: Batch
    """Without its spans: thousands of batches may be open."""
    submission: Submission
    asked_at: float
    created: int = 0
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
        self._speed = CreationSpeed()
        self._open: dict[int, _Followed] = {}
        self._due: list[tuple[float, int]] = []
        self._changed = anyio.Event()
        self._complete = False

    @property
    def open_batches(self) -> int:
        """Batches released and not yet settled."""
        return len(self._open)

    def add(self, batch: Batch, submission: Submission) -> None:
        """Follow a batch that was just released, or that an earlier run left open."""
        self._open[batch.sequence] = _Followed(replace(batch, spans=b""), submission, self._run.clock.monotonic())
        self._queue(batch.sequence, next_poll(self._rules, None).after_seconds)
        self._wake()

    def finish(self) -> None:
        """Nothing more will be added."""
        self._complete = True
        self._wake()

    async def wait_for_change(self, seconds: float | None = None) -> None:
        """Return after the next batch was added or settled, or after `seconds`."""
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    async def next_group(self) -> Sequence[int]:
        """Wait until batches are due and take up to `polls_together` out of the queue; none once all are settled."""
        while not self._due or self._due[0][0] > self._run.clock.monotonic():
            if self._complete and not self._open:
                return []
            await self.wait_for_change(self._due[0][0] - self._run.clock.monotonic() if self._due else None)
        now, most = self._run.clock.monotonic(), self._run.service.polls_together
        group: list[int] = []
        while self._due and len(group) < most and self._due[0][0] <= now:
            group.append(heapq.heappop(self._due)[1])
        return group

    async def poll(self, group: Sequence[int]) -> None:
        """Ask about a group once; settle what has finished and queue the rest again."""
        await self._run.clock.sleep(self._pacer.book(self._run.clock.monotonic()))
        followed = [self._open[sequence] for sequence in group]
        try:
            for progress in await self._run.service.progress([one.submission for one in followed]):
                await self._take_in(self._open[progress.sequence], progress)
        except Unauthorized:
            raise
        except (Refused, UnexpectedAnswer) as failure:
            for one in followed:
                await self._excuse(one, failure)

    async def _take_in(self, one: _Followed, progress: Progress) -> None:
        if progress.created != one.created:
            self._run.emit(BatchProgressed(progress.sequence, progress.created, one.created))
        seen = self._see(one, progress.created)
        if progress.finished:
            await self._settle(one)
            return
        one.failures = 0
        self._queue(progress.sequence, next_poll(self._rules, seen, self._speed.tasks_per_second).after_seconds)

    def _see(self, one: _Followed, created: int) -> Seen:
        now = self._run.clock.monotonic()
        waited, gained = now - one.asked_at, created - one.created
        one.asked_at, one.created = now, created
        self._speed.observe(gained, waited)
        ahead = sum(other.left for sequence, other in self._open.items() if sequence < one.batch.sequence)
        return Seen(waited, gained, one.left, ahead)

    async def _settle(self, one: _Followed) -> None:
        batch, submission = one.batch, one.submission
        settlement = await self._run.service.settlement(batch, str(submission.remote_id))
        settled = replace(submission, state=State.SETTLED, note=settlement.note)
        await self._run.ledger.settle(self._run.job.name, settled, settlement, expected=submission.state)
        self._close(one, State.SETTLED, settlement.note)
        first_error = next(iter(settlement.errors.values()), "")
        self._run.emit(BatchSettled(batch.sequence, settlement.created, len(settlement.errors), first_error))

    async def _excuse(self, one: _Followed, failure: Refused | PossiblyApplied) -> None:
        """Ask again later after a poll that failed; after too many in a row, park the batch."""
        if one.batch.sequence not in self._open:
            return
        one.failures += 1
        if one.failures < POLL_TRIES:
            self._queue(one.batch.sequence, self._rules.first_seconds * 2**one.failures)
            return
        parked = replace(one.submission, state=State.UNCERTAIN, note=str(failure))
        await self._run.ledger.move(self._run.job.name, parked, expected=one.submission.state)
        self._close(one, State.UNCERTAIN, str(failure))

    def _close(self, one: _Followed, state: State, reason: str) -> None:
        batch = one.batch
        del self._open[batch.sequence]
        self._wake()
        self._run.emit(BatchMoved(batch.sequence, one.submission.state, state, batch.count, batch.size_bytes, reason))

    def _queue(self, sequence: int, seconds: float) -> None:
        heapq.heappush(self._due, (self._run.clock.monotonic() + seconds, sequence))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
