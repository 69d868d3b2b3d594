"""Released batches in, settled ones out: polls, well timed, until the fate of every record is known.

When which batch is asked about is foretold by `policy.polling` from what earlier polls have shown. What happens here is
the asking itself, and what follows from the answers: a batch is settled, asked about again, or given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from engine.handing import Signal
from engine.model.batches import Batch
from engine.model.errors import PossiblyApplied, Refused, Unauthorized, UnexpectedAnswer
from engine.model.outcomes import Settlement
from engine.model.settings import AUTO, SendSettings
from engine.model.submissions import State, Submission
from engine.observe.events import BatchMoved, BatchProgressed, BatchSettled
from engine.policy.coupled import OpenJobs
from engine.policy.polling import Outlook
from engine.policy.rate import Pacer
from engine.policy.timetable import PollRules
from engine.ports import Progress
from engine.run import Run

POLL_TRIES = 8
"""Polls in a row that may be refused or answered with nonsense before a batch is given up as UNCERTAIN. The first ones
may only show that the service has not caught up with its own release."""

_NEWEST = 0.1
"""Weight of the newest wait, or way to the service and back, in their mean."""

SPEED_SECONDS = 1.0
"""Time over which the service's creation speed is measured; shorter, and one poll more or less would sway it."""


@dataclass(slots=True)
class _Followed:
    """A batch that the service works on."""

    batch: Batch
    """Without its spans: thousands of batches may be open."""
    submission: Submission
    asked_at: float
    created: int = 0
    failures: int = 0


class Follower:
    """Follows the released batches of one run."""

    def __init__(self, run: Run, settings: SendSettings) -> None:
        self._run = run
        together = run.service.polls_together
        self._rules = PollRules(settings.poll_seconds, settings.max_poll_seconds, together)
        self._outlook = Outlook(self._rules)
        self._pacer = Pacer(settings.polls_per_second)
        # Where one poll covers many batches the service works on all of them at once: each one open adds to its speed.
        self._in_line = together == 1
        self._open_jobs = OpenJobs(settings.max_open_batches or run.service.open_batches)
        self._adapts = settings.max_open_batches is None and settings.max_in_flight == AUTO
        self._mean_wait = settings.poll_seconds
        self._round_trip = 0.0
        self._gained = 0
        self._measured_at = run.clock.monotonic()
        self._open: dict[int, _Followed] = {}
        self._changed = Signal()
        self._complete = False

    @property
    def open_batches(self) -> int:
        """Batches released and not yet settled."""
        return len(self._open)

    def has_room(self, uploads: int) -> bool:
        """Tell whether one more batch may be on its way to be opened, beside those being uploaded now.

        What keeps the service busy says nothing of how many it takes to get there: only those open are held to it.
        """
        return len(self._open) < self._open_jobs.limit and len(self._open) + uploads < self._open_jobs.most

    def add(self, batch: Batch, submission: Submission) -> None:
        """Follow a batch that was just released, or that an earlier run left open."""
        now = self._run.clock.monotonic()
        self._open[batch.sequence] = _Followed(replace(batch, spans=b""), submission, now)
        self._outlook.release(batch.sequence, batch.count, now)
        self.wake()

    def finish(self) -> None:
        """Nothing more will be added."""
        self._complete = True
        self.wake()

    async def wait_for_change(self) -> None:
        """Return after the next batch was added or settled, or was queued to be asked about."""
        await self._changed.wait()

    def wake(self) -> None:
        """Have whoever waits for a change look again."""
        self._changed.give()

    async def next_group(self) -> Sequence[int]:
        """Wait until batches are due and take up to `polls_together` out of the queue; none once all are settled."""
        while not (group := self._outlook.take(self._arrival)):
            if self._complete and not self._open:
                return []
            due_at = self._outlook.next_due()
            if due_at == float("inf"):
                await self.wait_for_change()
            else:
                await self._sleep_until(due_at)
        return group

    @property
    def _arrival(self) -> float:
        """When a poll that is sent now gets to the service."""
        return self._run.clock.monotonic() + self._round_trip / 2

    async def _sleep_until(self, due_at: float) -> None:
        """Sleep until a poll must be sent to arrive in time, but no longer than until something changes."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_after, group.cancel_scope, due_at - self._arrival)
            await self.wait_for_change()  # here and not in the other task, which begins a turn of the loop later
            group.cancel_scope.cancel()

    async def _cancel_after(self, scope: anyio.CancelScope, seconds: float) -> None:
        await self._run.clock.sleep(seconds)
        scope.cancel()

    async def poll(self, group: Sequence[int]) -> None:
        """Ask about a group once; settle what has finished and queue the rest again."""
        await self._run.clock.sleep(self._pacer.book(self._run.clock.monotonic()))
        followed = [self._open[sequence] for sequence in group]
        sent_at = self._run.clock.monotonic()
        try:
            answers = await self._run.service.progress([one.submission for one in followed])
        except Unauthorized:
            raise
        except (Refused, UnexpectedAnswer) as failure:
            for one in followed:
                await self._excuse(one, failure)
            return
        seen_at = self._time_of(sent_at)
        said = {progress.sequence: progress for progress in answers}
        for one in followed:
            if one.batch.sequence in said:
                await self._learn(one, said[one.batch.sequence], seen_at)
            else:
                await self._excuse(one, UnexpectedAnswer(f"nothing was said of batch {one.submission.remote_id}"))

    def _time_of(self, sent_at: float) -> float:
        """Return when the service looked: halfway between question and answer."""
        now = self._run.clock.monotonic()
        self._round_trip += (now - sent_at - self._round_trip) * (_NEWEST if self._round_trip else 1)
        return (sent_at + now) / 2

    async def _learn(self, one: _Followed, progress: Progress, seen_at: float) -> None:
        """Take in what a poll said of one batch of its group; what goes wrong with it is no matter of the others."""
        try:
            await self._take_in(one, progress, seen_at)
        except Unauthorized:
            raise
        except (Refused, UnexpectedAnswer) as failure:
            await self._excuse(one, failure)

    async def _take_in(self, one: _Followed, progress: Progress, seen_at: float) -> None:
        if progress.created != one.created:
            self._run.emit(BatchProgressed(progress.sequence, progress.created, one.created))
        self._outlook.saw(progress.sequence, seen_at, progress.created, finished=progress.finished)
        self._mean_wait += (seen_at - one.asked_at - self._mean_wait) * _NEWEST
        gained = progress.created - one.created
        one.asked_at, one.created = seen_at, progress.created
        if self._in_line:
            self._measure(gained, self._run.clock.monotonic())
        if progress.finished:
            await self._settle(one, progress.settlement)
            return
        one.failures = 0
        self.wake()

    def _measure(self, gained: int, now: float) -> None:
        """Take what all batches gained together as the service's speed; a single batch sees only its share."""
        self._gained += gained
        if now - self._measured_at < SPEED_SECONDS:
            return
        self._adapt(self._gained, now - self._measured_at)
        self._gained, self._measured_at = 0, now

    def _adapt(self, gained: int, seconds: float) -> None:
        """Let as many batches be open as keep the service busy until a poll has told of the end of one."""
        if not self._adapts or not self._open:
            return
        records = sum(one.batch.count for one in self._open.values()) / len(self._open)
        change = self._open_jobs.observe(gained, seconds, batch_records=records, lag_seconds=self._mean_wait)
        if change is not None:
            self._run.emit(change)
            self.wake()

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
            wait = self._rules.first_seconds * 2**one.failures
            self._outlook.ask_again(one.batch.sequence, self._run.clock.monotonic() + wait)
            self.wake()
            return
        parked = replace(one.submission, state=State.UNCERTAIN, note=str(failure))
        await self._run.ledger.move(self._run.job.name, parked, expected=one.submission.state)
        self._close(one, State.UNCERTAIN, str(failure))

    def _close(self, one: _Followed, state: State, reason: str) -> None:
        batch = one.batch
        del self._open[batch.sequence]
        self._outlook.forget(batch.sequence, self._run.clock.monotonic())
        self.wake()
        self._run.emit(BatchMoved(batch.sequence, one.submission.state, state, batch.count, batch.size_bytes, reason))
