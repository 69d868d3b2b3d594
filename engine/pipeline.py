"""The whole run on one page: sources in, every record's fate in the ledger out.

    bytes ─ read ─ batches ─ upload ─ submissions ─ follow ─ outcomes
              │frozen           │each step durable       │settled
              └─────────────────── ledger ───────────────┘

`_read` cuts the sources into batches and freezes them in the ledger before anyone may send them. `_upload` carries each
to the service, as many at once as it takes best. `_follow` polls what was released until it is settled. They run side
by side, joined by one bounded channel and by the number of batches open at the service, so memory depends on the
settings alone.

A resumed run is the same run: `_read` first replays what the ledger holds unsettled, then reads on where it stopped.
A batch that the service refuses as a whole is halved, and its halves go the same way; so is one that is as large as
what was refused before, while `plans` cuts the next ones smaller. Inline batches whose answer was lost are searched for
at the end, when everything else has arrived.
A run ends early by `Stop`: nothing new is begun, calls under way may finish, and `resume` goes on from the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from engine.following import Follower
from engine.handing import Crew, Line
from engine.model.batches import Batch
from engine.model.errors import BulkSubmitError, StrictRejects
from engine.model.jobs import JobState
from engine.model.settings import SendSettings
from engine.model.submissions import UNSENT, State, Submission
from engine.observe.events import BatchesFrozen
from engine.policy.concurrency import Fate
from engine.reading.planning import Plan
from engine.run import DRAIN_SECONDS, Run
from engine.slots import Slot, Slots
from engine.uploading import Uploader

Unsent: TypeAlias = tuple[Batch, Submission]


class Pipeline:
    """One run of one job."""

    def __init__(
        self,
        run: Run,
        plans: Callable[[Batch | None], Iterator[Plan]],
        uploader: Uploader,
        follower: Follower,
        slots: Slots,
        settings: SendSettings,
    ) -> None:
        self._run = run
        self._job = run.job
        self._ledger = run.ledger
        self._plans = plans
        self._uploader = uploader
        self._follower = follower
        self._slots = slots
        self._settings = settings

    async def work(self) -> BulkSubmitError | None:
        """Work until every record is settled or the run is stopped; return why it stopped, if it did."""
        unsent: Line[Unsent] = Line(self._settings.most_in_flight)
        async with anyio.create_task_group() as stages:
            stages.start_soon(self._stage, 0.0, self._read, unsent)
            stages.start_soon(self._stage, DRAIN_SECONDS, self._upload, unsent)
            stages.start_soon(self._stage, 0.0, self._follow)
        return self._run.stop.error

    async def _read(self, unsent: Line[Unsent]) -> None:
        try:
            await self._read_into(unsent)
        finally:
            unsent.end()

    async def _read_into(self, unsent: Line[Unsent]) -> None:
        await self._follow_released()
        if self._job.state is JobState.CANCELED:  # nothing more is sent; what was released tells what it created
            return
        if self._job.strict:
            await self._freeze(self._refuse_rejects)
        await self._replay(unsent)
        if not self._job.strict:
            await self._freeze(lambda plan: self._send_all(unsent, plan.batches))

    async def _follow_released(self) -> None:
        async for batch, submission in self._ledger.batches(self._job.name, frozenset({State.RELEASED})):
            self._follower.add(batch, submission)

    async def _replay(self, unsent: Line[Unsent]) -> None:
        async for batch, submission in self._ledger.batches(self._job.name, UNSENT | {State.UNCERTAIN}):
            if submission.state in UNSENT or submission.remote_id is not None:  # the others are searched for at the end
                await unsent.put([(batch, submission)])

    async def _freeze(self, pass_on: Callable[[Plan], Awaitable[None]]) -> None:
        if self._job.read_complete:
            return
        plans = self._plans(await self._ledger.last_batch(self._job.name))
        while (plan := await anyio.to_thread.run_sync(next, plans, None)) is not None:
            if plan.batches or plan.last:
                await self._ledger.freeze(self._job.name, plan.batches, plan.rejects, last=plan.last)
            self._run.emit(frozen_event(plan))
            await pass_on(plan)

    async def _send_all(self, unsent: Line[Unsent], batches: Sequence[Batch]) -> None:
        await self._uploader.read_ahead(batches)
        # One of nothing but rejects is settled as it is frozen.
        await unsent.put([(batch, Submission(batch.sequence)) for batch in batches if batch.count])

    async def _refuse_rejects(self, plan: Plan) -> None:
        if plan.rejects:
            first = plan.rejects[0]
            raise StrictRejects(
                f"record {first.index}, line {first.line}: {first.reason}. Nothing was sent, for --strict allows no "
                "such record; `bulksubmit validate` lists them all"
            )

    async def _upload(self, unsent: Line[Unsent]) -> None:
        async with anyio.create_task_group() as uploads:
            crew = Crew(uploads, partial(self._guarded, self._submit_in))
            await self._stage(0.0, self._take_in, unsent, crew)
            crew.dismiss()
        if self._run.stop.error is None:
            await self._guarded(self._search)
        self._follower.finish()

    async def _search(self) -> None:
        """Find by their marks the batches whose answer was lost, when the service is done with the rest."""
        async with anyio.create_task_group() as searches:
            async for batch, submission in self._ledger.batches(self._job.name, frozenset({State.UNCERTAIN})):
                if submission.remote_id is not None or self._run.service.mark(batch.sequence) is None:
                    continue
                while self._follower.open_batches:
                    await self._follower.wait_for_change()
                slot = await self._slots.take(batch.size_bytes)
                searches.start_soon(self._guarded, self._submit_in, slot, batch, submission)

    async def _take_in(self, unsent: Line[Unsent], crew: Crew[Slot, Batch, Submission]) -> None:
        async for one in unsent:
            waiting = [one]
            while waiting:
                batch, submission = waiting.pop()
                if divided := await self._uploader.divide(batch, submission):  # each half takes a slot of its own
                    waiting += [(half, Submission(half.sequence)) for half in reversed(divided.halves)]
                    continue
                slot = await self._find_room(batch)
                if self._run.stop.error is not None:
                    return  # the upload whose end made room is the one that ended the run
                crew.give(slot, batch, submission)

    async def _find_room(self, batch: Batch) -> Slot:
        """Wait until one more batch may be open, and take a slot: every upload under way is about to open one."""
        while not self._follower.has_room(self._slots.taken):
            await self._follower.wait_for_change()
        return await self._slots.take(batch.size_bytes)

    async def _submit_in(self, slot: Slot, batch: Batch, submission: Submission) -> None:
        fate: Fate | None = Fate.LOST
        try:
            fate = await self._submit(batch, submission)
        finally:
            self._slots.give_back(slot, fate)
            self._follower.wake()  # an upload that ended without a release makes room, too

    async def _submit(self, batch: Batch, submission: Submission) -> Fate | None:
        """Carry a batch, and the halves of one that was refused; return how it fared, None if that took several."""
        submitted = await self._uploader.submit(batch, submission)
        if submitted.submission.state is State.RELEASED:
            self._follower.add(batch, submitted.submission)
        for half in submitted.halves:
            if self._run.stop.error is None:
                await self._submit(half, Submission(half.sequence))
        if submitted.halves or submission.state is State.UNCERTAIN:  # a search mostly waits
            return None
        return Fate.LOST if submitted.submission.state is State.UNCERTAIN else Fate.DONE

    async def _follow(self) -> None:
        slots = anyio.Semaphore(self._settings.polls_in_flight)
        async with anyio.create_task_group() as polls:
            while group := await self._follower.next_group():
                await slots.acquire()
                polls.start_soon(self._guarded, self._poll, group, slots)

    async def _poll(self, group: Sequence[int], slots: anyio.Semaphore) -> None:
        try:
            await self._follower.poll(group)
        finally:
            slots.release()

    async def _stage(self, grace_seconds: float, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do `work`; once the run shall end, let it go on for `grace_seconds` and then cancel it."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_on_stop, group.cancel_scope, grace_seconds)
            await self._guarded(work, *args)
            group.cancel_scope.cancel()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do `work`; an error of ours ends the run in order instead of tearing it down."""
        try:
            await work(*args)
        except BulkSubmitError as error:
            self._run.end(error)

    async def _cancel_on_stop(self, scope: anyio.CancelScope, grace_seconds: float) -> None:
        await self._run.stop.wait()
        await self._run.clock.sleep(grace_seconds)
        scope.cancel()


def frozen_event(plan: Plan) -> BatchesFrozen:
    """Return what one step of reading brought, for those who watch."""
    going_up = sum(batch.count > 0 for batch in plan.batches)
    records = sum(batch.end.index - batch.start.index for batch in plan.batches)
    return BatchesFrozen(going_up, records, len(plan.rejects), plan.reached.offset, plan.last)
