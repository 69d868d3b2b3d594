"""The whole run, start here: sources in, every record's fate in the ledger out.

    bytes ─ read ─ batches ─ upload ─ submissions ─ follow ─ outcomes
              │frozen           │each step durable       │settled
              └─────────────────── ledger ───────────────┘

`_read` cuts the sources into batches and freezes them in the ledger before anyone may send them. `_upload` carries each
to the service, as many at once as it takes best. `_follow` polls what was released until it is settled. They run side
by side, joined by one bounded channel and by the number of batches open at the service, so memory depends on the
settings alone.

A resumed run is the same run: `_read` first replays what the ledger holds unsettled, then reads on where it stopped.
A batch of which a call was lost or refused goes to `recovery`, which takes no place in flight while it waits. A batch
refused as a whole comes back as two halves. A frozen batch as large as one that was refused is halved before it is
sent, and `plans` cuts the next ones smaller. Inline batches whose answer was lost are searched for at the end, when
everything else has arrived.
Where several processes send a job, each takes shards of what one of them freezes, and sees nothing but those
(`shards`).
A run ends early by `Stop`: nothing new is begun, calls under way may finish, and `resume` goes on from the ledger. Or
a limit is met: then nothing more is sent, and what is under way is followed to its end. A batch with more records than
may still be sent is halved until its first ones fit.

The module is a long one: how the three go side by side is one idea, and in parts nobody could follow it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from engine.adaptive.concurrency import CallFate
from engine.batch.chunker import Plan
from engine.model.batch import ROOTS, Batch
from engine.model.doubt import MOST_REPEATS, REPEATABLE, Again, Doubt, Wish
from engine.model.errors import BulkSubmitError, CallFailed, RecordsSent, StrictRejects
from engine.model.job import JobState
from engine.model.record import Reject
from engine.model.settings import SendSettings
from engine.model.submission import UNSENT, State, Submission
from engine.progress.text import count
from engine.run.context import DRAIN_SECONDS, Run, doubt_from_ledger
from engine.run.in_flight import InFlight, Slot
from engine.run.poller import Poller
from engine.run.queues import Queue, WorkerPool
from engine.run.reading import MOST_AHEAD, freeze_all
from engine.run.recovery import Recovery
from engine.run.shards import Shards
from engine.run.uploader import Submitted, Uploader

Unsent: TypeAlias = tuple[Batch, Submission]

_EVERY_RECORD = 2**63 - 1

IN_DOUBT = frozenset({State.STAGING, State.RELEASING, State.UNCERTAIN, State.RELEASED})
"""States that an earlier run left: a call about the batch may have gone out, so the service is asked first."""

MOST_IN_DOUBT = 1000
"""Batches in doubt at once: each is a task that mostly sleeps, 5 KB of memory."""


class Pipeline:
    """One run of one job."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run
        self,
        run: Run,
        plans: Callable[[Batch | None], Iterator[Plan]],
        uploader: Uploader,
        poller: Poller,
        in_flight: InFlight,
        settings: SendSettings,
        shards: Shards | None = None,
    ) -> None:
        """Join the parts; `shards`: where several processes send the job."""
        self._run = run
        self._job = run.job
        self._ledger = run.ledger
        self._plans = plans
        self._uploader = uploader
        self._poller = poller
        self._in_flight = in_flight
        self._settings = settings
        self._shards = shards
        self._recovery = Recovery(run, uploader, uploader.payloads, self._carry)
        self._recoveries: TaskGroup
        """Where batches in doubt are taken care of: beside the uploads, and at the end beside the searches."""
        self._in_doubt = 0
        self._noted: set[int] = set()
        """Sequences of the batches that the service has answered, while the ledger writes that down."""
        self._earlier_followed = anyio.Event()
        """Set once what earlier runs have released is followed."""
        self._began = run.clock.now()
        self._most_records = run.most_records

    async def work(self) -> BulkSubmitError | None:
        """Work until every record is settled or the run is stopped; return why it stopped, if it did."""
        unsent: Queue[Unsent] = Queue(self._read_ahead)
        async with self._shards.kept() if self._shards else nullcontext():
            async with anyio.create_task_group() as parts:
                parts.start_soon(self._part, 0.0, self._read, unsent)
                parts.start_soon(self._part, DRAIN_SECONDS, self._upload, unsent)
                parts.start_soon(self._part, 0.0, self._follow)
            await self._guarded(self._ledger.written)
        return self._run.stop.error or self._run.stop.sending_error

    def hear(self, remote_id: str, tasks: int) -> None:
        """Take in what a callback tells; see `Poller.hear`."""
        self._poller.hear(remote_id, tasks)

    async def _read(self, unsent: Queue[Unsent]) -> None:
        try:
            if self._shards is None:
                await self._follow_released()
                self._earlier_followed.set()
                await self._sending(self._feed, unsent)
            else:
                await self._sending(self._share, self._shards, unsent)
                await self._shards.end_with_all()
                await self._count(0)  # what the others have sent last: a night's limit holds for its next job, too
        finally:
            self._earlier_followed.set()
            unsent.end()

    async def _feed(self, unsent: Queue[Unsent]) -> None:
        if self._job.state is JobState.CANCELED:  # nothing more is sent; what was released tells what it created
            await self._replay(unsent)
        elif self._run.changed is None and self._job.strict:
            # Of an earlier run, which was killed or whose job was canceled for them: one step of reading at most.
            self._check_strict(await self._ledger.rejects(self._job.name, 0, _EVERY_RECORD))
            await self._freeze(self._refuse_rejects)
            await self._replay(unsent)
        elif self._run.changed is None:
            await self._replay(unsent)
            await self._freeze(lambda plan: self._send_all(unsent, plan.batches))

    async def _share(self, shards: Shards, unsent: Queue[Unsent]) -> None:
        """Take shards, one after the other, and bring back what stands in each; freeze beside, if that is ours."""
        if shards.plans:
            run = self._run
            await shards.begin(run.most_records, run.stop.records_sent, keep=run.goes_on_for_another)
        async with anyio.create_task_group() as beside:
            if shards.plans and self._run.changed is None and self._job.state is not JobState.CANCELED:
                beside.start_soon(self._guarded, self._plan, shards)
            await self._guarded(self._take, shards, unsent)
            beside.cancel_scope.cancel()

    async def _take(self, shards: Shards, unsent: Queue[Unsent]) -> None:
        states = UNSENT | {State.UNCERTAIN, State.RELEASED}
        while (shard := await shards.next()) is not None:
            if self._job.strict:  # all is read; whoever plans need not have said yet what it found
                self._check_strict(await self._ledger.rejects(self._job.name, 0, _EVERY_RECORD))
            ours = self._ledger.batches(self._job.name, states, after=shard.first - 1, last=shard.last)
            batches = [pair async for pair in ours]
            await self._uploader.read_ahead([batch for batch, at in batches if at.state is State.FROZEN])
            for batch, submission in batches:
                if submission.state is State.RELEASED and submission.sequence not in self._run.released_again_by_user:
                    self._poller.add(batch, submission)
                elif self._run.changed is None:
                    await self._offer(unsent, batch, submission)

    async def _plan(self, shards: Shards) -> None:
        if self._job.strict:
            self._check_strict(await self._ledger.rejects(self._job.name, 0, _EVERY_RECORD))

        async def frozen(plan: Plan) -> None:
            if self._job.strict:
                await self._refuse_rejects(plan)
            else:
                await shards.frozen()

        await self._freeze(frozen)

    async def _follow_released(self) -> None:
        async for batch, submission in self._ledger.batches(self._job.name, frozenset({State.RELEASED})):
            if submission.sequence not in self._run.released_again_by_user:
                self._poller.add(batch, submission)

    async def _replay(self, unsent: Queue[Unsent]) -> None:
        """Bring back what an earlier run left unsent or in doubt; of a canceled job only what is in doubt.

        One query for both: a second query would find batches that the first one has already started.
        """
        by_user = self._run.released_again_by_user
        states = UNSENT | {State.UNCERTAIN} | ({State.RELEASED} if by_user else frozenset())
        async for batch, submission in self._ledger.batches(self._job.name, states):
            if submission.state is not State.RELEASED or submission.sequence in by_user:
                await self._offer(unsent, batch, submission)

    async def _offer(self, unsent: Queue[Unsent], batch: Batch, submission: Submission) -> None:
        """Pass on what an earlier run left, unless it is searched for at the end, or is not to be sent any more."""
        if submission.state in IN_DOUBT:
            if not self._is_searched_for_last(submission):
                await unsent.put([(batch, submission)])
        elif self._job.state is not JobState.CANCELED:
            await unsent.put([(batch, submission)])

    def _is_searched_for_last(self, submission: Submission) -> bool:
        unnamed = submission.state is State.UNCERTAIN and submission.remote_id is None
        by_user = submission.sequence in self._run.released_again_by_user
        return unnamed and not by_user and self._run.service.again not in REPEATABLE

    async def _freeze(self, pass_on: Callable[[Plan], Awaitable[None]]) -> None:
        if self._job.read_complete:
            return
        plans = self._plans(await self._ledger.last_batch(self._job.name))
        await freeze_all(self._run, plans, pass_on, min(MOST_AHEAD, self._settings.most_in_flight))

    async def _send_all(self, unsent: Queue[Unsent], batches: Sequence[Batch]) -> None:
        await self._uploader.read_ahead(batches)
        # One of nothing but rejects and known records is settled as it is frozen.
        await unsent.put([(batch, Submission(batch.sequence)) for batch in batches if batch.count])

    async def _refuse_rejects(self, plan: Plan) -> None:
        self._check_strict(plan.rejects)

    def _check_strict(self, rejects: Sequence[Reject]) -> None:
        if rejects:
            first = rejects[0]
            raise StrictRejects(
                f"record {first.index}, line {first.line}: {first.reason}. Nothing was sent, for --strict allows no "
                "such record; `bulksubmit validate` lists them all"
            )

    async def _upload(self, unsent: Queue[Unsent]) -> None:
        async with anyio.create_task_group() as uploads:
            self._recoveries = uploads
            workers = WorkerPool(uploads, partial(self._guarded, self._submit_in))
            await self._sending(self._start_uploads, unsent, workers)
            workers.dismiss()
        if self._run.stop.sending_error is None:
            await self._guarded(self._search)
        await self._earlier_followed.wait()
        self._poller.finish()

    async def _search(self) -> None:
        """Search for the batches whose answer was lost, and again for those that were then sent and lost anew."""
        if self._run.service.again is not Again.SEARCH:
            return
        for _ in range(MOST_REPEATS):
            began = self._run.clock.now()
            await self._search_once()
            if self._run.stop.sending_error is not None or not await self._lost_since(began):
                return

    async def _lost_since(self, began: float) -> bool:
        async for _, submission in self._uncertain():
            if submission.remote_id is None and submission.changed_at > began:
                return True
        return False

    async def _uncertain(self) -> AsyncIterator[Unsent]:
        """Yield the uncertain batches that are ours to search for."""
        ours = [(shard.first - 1, shard.last) for shard in self._shards.taken] if self._shards else [(-1, ROOTS - 1)]
        for after, last in ours:
            async for pair in self._ledger.batches(
                self._job.name, frozenset({State.UNCERTAIN}), after=after, last=last
            ):
                yield pair

    async def _search_once(self) -> None:
        """Search once everything else is settled: before that, a batch may be accepted and not visible yet."""
        rest_ended_at = await self._ledger.last_settled_at(self._job.name)
        async with anyio.create_task_group() as searches:
            self._recoveries = searches
            async for batch, submission in self._uncertain():
                if submission.remote_id is not None:
                    continue
                if submission.changed_at < self._began and not await self._count_sent(batch):
                    self._run.end_sending(self._all_sent())
                    return
                while self._poller.open_batches:
                    await self._poller.wait_for_change()
                    if self._run.stop.error is not None:
                        return
                    rest_ended_at = self._run.clock.now()
                settle_from = max(submission.changed_at, rest_ended_at)
                doubt = doubt_from_ledger(self._run, replace(submission, changed_at=settle_from))
                if doubt.wish is Wish.SEND_AGAIN:  # a person's wish counts once, and it was sent again for it
                    doubt = replace(doubt, wish=Wish.SEND)
                await self._recover(batch, submission, doubt)

    async def _start_uploads(self, unsent: Queue[Unsent], workers: WorkerPool[Slot, Batch, Submission]) -> None:
        held_back = False
        async for first in unsent:
            waiting = [first]
            while waiting:
                batch, submission = waiting.pop()
                if submission.state in IN_DOUBT:
                    held_back = not await self._recover_earlier(batch, submission) or held_back
                    continue
                if not await self._may_send():
                    self._run.end_sending(self._all_sent())
                    return
                if not await self._may_send(batch):
                    halves = await self._cut(batch, submission)
                    held_back = held_back or not halves
                    waiting += reversed(halves)
                    continue
                if divided := await self._uploader.divide(batch, submission):  # each half takes a slot of its own
                    waiting += reversed(_to_send(divided))
                    continue
                slot = await self._find_room(batch)
                if slot is None:
                    return
                if not await self._count_sent(batch):  # other workers have sent as many meanwhile
                    self._in_flight.give_back(slot, None)
                    waiting.append((batch, submission))
                    continue
                workers.give(slot, batch, submission)
                unsent.most = self._read_ahead
        if held_back:
            self._run.end_sending(self._all_sent())

    async def _recover_earlier(self, batch: Batch, submission: Submission) -> bool:
        """Take a batch of an earlier run out of doubt, unless it may not be sent again, and cannot be cut."""
        may_send = await self._count_sent(batch)
        if may_send:
            await self._recover(batch, submission, doubt_from_ledger(self._run, submission))
        return may_send

    async def _cut(self, batch: Batch, submission: Submission) -> list[Unsent]:
        """Halve a batch of more records than may still be sent; return no halves if it cannot be cut."""
        if not self._uploader.may_split(submission):
            return []
        return _to_send(await self._uploader.split(batch, submission, "a run may not send as many records"))

    @property
    def _read_ahead(self) -> int:
        """How many frozen batches may wait to be sent: enough for the number in flight to double twice meanwhile."""
        return min(self._settings.most_in_flight, 4 * max(2, self._in_flight.limit))

    async def _may_send(self, batch: Batch | None = None) -> bool:
        """Return whether this run may send a batch as a whole, or any record."""
        return await self._count(0, least=batch.count if batch else 1)

    async def _count_sent(self, batch: Batch) -> bool:
        """Count a batch as sent, unless this run may not send it; return whether it may."""
        return await self._count(batch.count)

    async def _count(self, records: int, *, least: int = 0) -> bool:
        """Count records as sent, unless fewer may still be sent, or fewer than `least`: by all workers together."""
        stop = self._run.stop
        if self._shards is not None:
            may, sent, self._most_records = await self._shards.count_records(records, least=least)
            stop.records_sent = max(stop.records_sent, sent)
            return may
        most = self._most_records
        may = most is None or stop.records_sent + max(records, least) <= most
        stop.records_sent += records if may else 0
        return may

    def _all_sent(self) -> RecordsSent:
        sent, most = self._run.stop.records_sent, self._most_records or 0
        rest = "" if sent == most else ", fewer than a batch has of which an answer was lost"
        return RecordsSent(
            f"{count(sent, 'record')} {'was' if sent == 1 else 'were'} sent, and a run may send {most:,} "
            f"(max_records){rest}. `bulksubmit resume {self._job.name}` sends the next ones"
        )

    async def _find_room(self, batch: Batch) -> Slot | None:
        """Wait until one more batch may be open, and take a slot; None if nothing more is sent.

        Each upload may end as an open batch, or in doubt; the number of both is limited.
        """
        while (
            not self._poller.has_room(self._in_flight.taken + len(self._noted)) or self._in_doubt >= MOST_IN_DOUBT
        ) and self._run.stop.sending_error is None:
            await self._poller.wait_for_change()
        slot = await self._in_flight.take(batch.size_bytes)
        if self._run.stop.sending_error is None:
            return slot
        self._in_flight.give_back(slot, None)  # what made room may have ended the run
        return None

    async def _submit_in(self, slot: Slot, batch: Batch, submission: Submission) -> None:
        """Submit a batch in a slot that was taken for it, and go on with what comes of it."""
        submitted = await self._in_slot(slot, batch, submission)
        if submitted.doubt is not None:
            await self._recover(batch, submitted.submission, submitted.doubt, submitted.failure)
        await self._submit_rest(submitted)

    async def _submit_rest(self, submitted: Submitted) -> None:
        for half, frozen in _to_send(submitted):
            slot = await self._find_room(half)
            if slot is None:
                return
            await self._submit_in(slot, half, frozen)

    async def _in_slot(self, slot: Slot, batch: Batch, submission: Submission) -> Submitted:
        fate: CallFate | None = CallFate.LOST

        def answered() -> None:
            self._in_flight.give_back(slot, CallFate.DONE)
            self._noted.add(batch.sequence)

        try:
            submitted = await self._uploader.submit(batch, submission, answered)
            fate = _fate_of(submitted)
            if submitted.submission.state is State.RELEASED:
                self._poller.add(batch, submitted.submission)
        finally:
            self._noted.discard(batch.sequence)
            self._in_flight.give_back(slot, fate)
            self._poller.wake()  # an upload that ended without a release makes room, too
        return submitted

    async def _recover(
        self, batch: Batch, submission: Submission, doubt: Doubt, failure: CallFailed | None = None
    ) -> None:
        """Take a batch out of doubt in a task of its own; only the number of such tasks is limited."""
        while self._in_doubt >= MOST_IN_DOUBT and self._run.stop.error is None:
            await self._poller.wait_for_change()
        self._in_doubt += 1
        self._recoveries.start_soon(self._guarded, self._resolve, batch, submission, doubt, failure)

    async def _resolve(self, batch: Batch, submission: Submission, doubt: Doubt, failure: CallFailed | None) -> None:
        try:
            submitted = await self._recovery.resolve(batch, submission, doubt, failure)
        finally:
            self._in_doubt -= 1
            self._poller.wake()
        if submitted.submission.state is State.RELEASED and not self._poller.follows(batch.sequence):
            self._poller.add(batch, submitted.submission)
        await self._submit_rest(submitted)

    async def _carry(self, batch: Batch, submission: Submission) -> Submitted:
        """Submit a batch that comes out of doubt; it waits for a slot only: it has passed the limit of open ones.

        Once nothing more is sent, one that is to be sent from its beginning is left to the next run; but not because
        of the number of records sent, among which it is.
        """
        over = self._run.stop.sending_error
        if over is not None and not isinstance(over, RecordsSent) and submission.state is not State.RELEASING:
            return Submitted(submission)
        return await self._in_slot(await self._in_flight.take(batch.size_bytes), batch, submission)

    async def _follow(self) -> None:
        poll_slots = anyio.Semaphore(self._settings.polls_in_flight)
        async with anyio.create_task_group() as polls:
            while group := await self._poller.next_group():
                await poll_slots.acquire()
                polls.start_soon(self._guarded, self._poller.poll, group, poll_slots.release)

    async def _part(self, grace_seconds: float, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do `work`; once the run shall end, let it go on for `grace_seconds` and then cancel it."""
        await self._until(self._run.stop.wait, grace_seconds, work, *args)

    async def _sending(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do `work`; cancel it once nothing more shall be sent."""
        await self._until(self._run.stop.wait_for_sending, 0.0, work, *args)

    async def _until(
        self,
        over: Callable[[], Awaitable[None]],
        grace_seconds: float,
        work: Callable[..., Awaitable[None]],
        *args: Any,
    ) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_once, over, group.cancel_scope, grace_seconds)
            await self._guarded(work, *args)
            group.cancel_scope.cancel()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do `work`; an error of ours ends the run in order instead of tearing it down."""
        try:
            await work(*args)
        except BulkSubmitError as error:
            self._run.end(error)

    async def _cancel_once(
        self, over: Callable[[], Awaitable[None]], scope: anyio.CancelScope, grace_seconds: float
    ) -> None:
        await over()
        self._poller.wake()  # waiting for room is not a call: wake the waiters so that they see the stop
        await self._run.clock.sleep(grace_seconds)
        scope.cancel()


def _to_send(submitted: Submitted) -> list[Unsent]:
    """Return the halves of a batch, or the batch itself, as they are frozen: they remember its lost attempts."""
    return [(batch, Submission(batch.sequence, sent_at=submitted.submission.sent_at)) for batch in submitted.to_send]


def _fate_of(submitted: Submitted) -> CallFate | None:
    """Return how a batch fared, for the number in flight; None if that says nothing of the service's speed."""
    if submitted.doubt is not None:
        return CallFate.LOST if submitted.doubt.lost else None
    return None if submitted.to_send else CallFate.DONE
