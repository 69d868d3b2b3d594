"""What the parts of one run share: its job, its service, its ledger, time, and the wish to end early.

Each step of a batch is made here: durable in the ledger first, then told to the listeners. Whoever calls `Run.move`,
`settle` or `split` has already decided; nothing here looks at the service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from msgspec import Struct, field
from msgspec.structs import replace

from engine.adaptive.settle_time import SettleTime
from engine.clock import Clock
from engine.ledger.base import Ledger
from engine.model.batch import Batch, good_indexes, parts_above
from engine.model.doubt import INHERITED, Again, Doubt, Wish
from engine.model.errors import BulkSubmitError, CallFailed, Refused, SourceChanged, Unavailable, UnexpectedAnswer
from engine.model.job import Job, JobState
from engine.model.outcome import Settlement
from engine.model.record import Skipped
from engine.model.submission import State, Submission
from engine.progress.events import BatchMoved, BatchSettled, Listener, Spaced, Stopping, ToldWaits
from engine.services.base import Polling, Service

DRAIN_SECONDS = 8.0
"""Time that calls under way get to finish when a run ends early; whoever sent SIGTERM expects us gone within ten."""


class Stop:
    """The one place where a run learns that it shall end, and why."""

    def __init__(self) -> None:
        self.error: BulkSubmitError | None = None
        self.sending_error: BulkSubmitError | None = None
        """Why nothing more is sent; what is under way is followed to its end."""
        self.records_sent = 0
        """By all runs that it ends, one after the other; a limit of records holds for them together."""
        self.goes_on = "the same command"
        """What goes on with what was ended, for a message."""
        self.groups: set[int] = set()
        """Process groups that must not outlive this process, should it be ended where it stands."""
        self._requested = anyio.Event()
        self._sending_over = anyio.Event()

    def request(self, error: BulkSubmitError) -> None:
        """End the run in order: nothing new is begun, what is under way may finish. The first reason stands."""
        if self.error is None:
            self.error = error
            self._requested.set()
        self.end_sending(error)

    def end_sending(self, error: BulkSubmitError) -> None:
        """Have nothing more sent: what is under way is followed to its end, and then the run ends with this."""
        if self.sending_error is None:
            self.sending_error = error
            self._sending_over.set()

    async def wait(self) -> None:
        """Return once the run shall end."""
        await self._requested.wait()

    async def wait_for_sending(self) -> None:
        """Return once nothing more shall be sent."""
        await self._sending_over.wait()


T = TypeVar("T")


async def unless_stopped(stop: Stop, work: Callable[[], Awaitable[T]]) -> T | None:
    """Return what `work` returns. Once the run shall end, cancel it and return None."""
    result: T | None = None
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_on, stop, group.cancel_scope)
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Do `work` until the block ends; then it is canceled. An error of the block is raised as it is."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def pause_unless_stopped(stop: Stop, clock: Clock, seconds: float) -> bool:
    """Wait; return whether the whole time passed before the run was to end."""
    if stop.error is not None:
        return False
    await unless_stopped(stop, lambda: clock.sleep(seconds))
    return stop.error is None


async def _cancel_on(stop: Stop, scope: anyio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()


class Run(Struct, frozen=True):
    """One run of one job; handed to each of its parts."""

    job: Job
    service: Service
    ledger: Ledger
    clock: Clock
    jitter: Callable[[], float]
    """Random numbers in [0, 1)."""
    emit: Listener
    stop: Stop
    settle_time: SettleTime = field(default_factory=SettleTime)
    """How long the service may take until it shows what a call did."""
    released_again_by_user: set[int] = set()
    """Sequences of the batches that a person has sent again, whatever may come twice; where several processes send the
    job, those of the shards that this one has."""
    changed: SourceChanged | None = None
    """The source is not what it was: only what the service has is followed, and then the run ends with this."""
    sent_before: bool = False
    """Each record of the job was sent by an earlier one, of which nobody knows whether it arrived."""

    most_records: int | None = None
    """So many are sent at most, by all workers together."""
    goes_on_for_another: bool = False
    """In the place of one that was killed or stopped: the limit of that one holds on."""

    told_waits: ToldWaits = field(default_factory=ToldWaits)

    def is_sent_again(self, batch: Batch) -> bool:
        """Return whether a person has a batch sent again, or one that it is part of, or the records of the whole job.

        Then an attempt may have arrived of which the ledger knows nothing any more.
        """
        return self.sent_before or any(one in self.released_again_by_user for one in parts_above(batch.sequence))

    def tell_wait(self, reason: str, seconds: float) -> None:
        """Tell people why something waits, once while it lasts."""
        if news := self.told_waits.news(Spaced(reason, seconds), self.clock.monotonic()):
            self.emit(news)

    async def move(
        self,
        batch: Batch,
        submission: Submission,
        state: State,
        *,
        remote_id: str | None = None,
        note: str = "",
        wait: bool = True,
    ) -> Submission:
        """Move a batch to a state; its remote id is kept, except for STAGING and FROZEN.

        That a release of it may have arrived is kept in every state, and for RELEASING noted, with the time now.
        `wait`: if not, its next step makes this one durable, too; until then a crash may take it back.

        Raises:
            NameTaken: another batch of the job has the remote id that it is given.
        """
        kept = None if state in {State.STAGING, State.FROZEN} else submission.remote_id
        now = self.clock.now()
        sent_at = now if state is State.RELEASING and submission.sent_at is None else submission.sent_at
        moved = Submission(batch.sequence, state, remote_id or kept, now, note, sent_at)
        unique = remote_id not in {None, submission.remote_id}
        await self.ledger.move(self.job.name, moved, expected=submission.state, unique=unique, wait=wait)
        self.emit(BatchMoved(batch.sequence, submission.state, state, batch.count, batch.size_bytes, note))
        return moved

    async def settle(
        self,
        batch: Batch,
        submission: Submission,
        settlement: Settlement,
        *,
        remote_id: str | None = None,
        wait: bool = True,
    ) -> Submission:
        """Remember the fate of each record of a batch. `wait`: if not, the caller has it told once it is on disk."""
        remote_id = remote_id or submission.remote_id
        now = self.clock.now()
        settled = Submission(batch.sequence, State.SETTLED, remote_id, now, settlement.note, submission.sent_at)
        await self.ledger.settle(self.job.name, settled, settlement, expected=submission.state, wait=wait)
        if wait:
            self.tell_settled(batch, submission.state, settlement)
        return settled

    def tell_settled(self, batch: Batch, before: State, settlement: Settlement) -> None:
        """Tell the listeners that a batch is settled."""
        self.emit(BatchMoved(batch.sequence, before, State.SETTLED, batch.count, batch.size_bytes, settlement.note))
        self.emit(BatchSettled.of(batch.sequence, settlement))

    async def split(self, batch: Batch, submission: Submission, halves: tuple[Batch, Batch], reason: str) -> Submission:
        """Let two halves stand for a batch; they remember its lost attempts, if their records may be there by them."""
        sent_at = submission.sent_at if self.service.again in INHERITED else None
        split = replace(submission, state=State.SPLIT, remote_id=None, note=reason, sent_at=sent_at)
        await self.ledger.split(self.job.name, split, halves, expected=submission.state)
        self.emit(BatchMoved(batch.sequence, submission.state, State.SPLIT, batch.count, batch.size_bytes, reason))
        return split

    async def left_out(self, batch: Batch) -> tuple[Sequence[int], Sequence[Skipped]]:
        """Return the indexes of the records of a frozen batch that were rejected, and the skips in it."""
        job, start, stop = self.job.name, batch.start.index, batch.end.index
        rejects = await self.ledger.rejects(job, start, stop) if batch.rejected else ()
        skips = await self.ledger.skips(job, start, stop) if batch.skipped else ()
        return [reject.index for reject in rejects], skips

    async def indexes(self, batch: Batch) -> Sequence[int]:
        """Return the index, in the whole input, of each record that goes up in a frozen batch."""
        return good_indexes(batch, *await self.left_out(batch))

    @property
    def polling(self) -> Polling:
        """What asks the service about batches.

        Raises:
            UnexpectedAnswer: nothing does: it should have settled them at once.
        """
        if self.service.polling is None:
            raise UnexpectedAnswer(f"service {self.service.kind} cannot be asked about its batches")
        return self.service.polling

    async def check_reach(self, failure: CallFailed) -> None:
        """Return if the service is there although a question failed; a page in its place may be about that one alone.

        Raises:
            Unavailable: it is not to be had.
        """
        if not isinstance(failure, Unavailable):
            return
        if not failure.by_proxy:
            raise failure
        try:
            await self.service.look()
        except Refused:
            return  # the service itself says so

    def end_sending(self, error: BulkSubmitError) -> None:
        """Send nothing more because of `error`, follow what is under way, and then end the run."""
        if self.stop.sending_error is None:
            self.emit(Stopping(str(error)))
        self.stop.end_sending(error)

    def end(self, error: BulkSubmitError) -> None:
        """End the run early because of `error`."""
        if self.stop.error is None:
            self.emit(Stopping(str(error)))
        self.stop.request(error)


def doubt_after_call(run: Run, submission: Submission) -> Doubt:
    """Return what is known of a batch whose newest call ended just now, lost or refused."""
    return replace(doubt_from_ledger(run, submission), since=run.clock.monotonic())


def doubt_from_ledger(run: Run, submission: Submission) -> Doubt:
    """Return what is known of a batch as the ledger has it; its settle time counts from its last step."""
    clock = run.clock
    staging = run.service.staging if submission.state is State.STAGING else None
    wish = Wish.SEND_AGAIN if submission.sequence in run.released_again_by_user else Wish.SEND
    return Doubt(
        submission.state,
        staging.stage_again if staging else run.service.again,
        clock.monotonic() - max(0.0, clock.now() - submission.changed_at),
        named=submission.remote_id is not None,
        wish=Wish.CANCEL if run.job.state is JobState.CANCELED else wish,
        expired=is_key_spent(run, submission),
    )


def is_key_spent(run: Run, submission: Submission) -> bool:
    """Return whether the service may take a repeat for another call than the first one with its idempotency key.

    It may have forgotten the key; or what was staged with it was given up when the batch became uncertain, and staged
    anew it would be another content under the same key.
    """
    is_unnamed = submission.state is State.UNCERTAIN and submission.remote_id is None
    was_staged = is_unnamed and run.service.staging is not None and submission.sent_at is not None
    return (was_staged and run.service.again is Again.KEY) or is_key_too_old(run, submission)


def is_key_too_old(run: Run, submission: Submission) -> bool:
    """Return whether the service may forget the idempotency key of a batch before a repeat has had its effect."""
    if run.service.again is not Again.KEY or submission.sent_at is None:
        return False
    return run.clock.now() - submission.sent_at + run.settle_time.seconds >= run.service.key_seconds
