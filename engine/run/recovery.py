"""A batch in doubt in, one whose place is known out: asked about, sent again or given up, as the table of steps says.

A batch comes here when a call about it was lost or refused, or when an earlier run left it so.
`model.next_step` decides. Here a batch is asked about, waited for and written down. Waiting takes no place among the
batches in flight, and ends at once when the run ends; the ledger then has what the next run must know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.model.batch import Batch, batch_name
from engine.model.doubt import Again, Cancel, Doubt, RemoteStatus
from engine.model.errors import CallFailed, PossiblyApplied, Refused, Unavailable, UnexpectedAnswer
from engine.model.next_step import Action, NextStep, next_step
from engine.model.payload import Payload
from engine.model.submission import State, Submission
from engine.run.context import Run, pause_unless_stopped
from engine.run.uploader import Payloads, Submitted, Uploader

FIRST_QUESTION_SECONDS = 1.0
"""Before the first question; each wait after it is twice as long as the one before, and the first one twice as long for
each time that the batch was released again. The last question comes at the end of the settle time, so most batches are
known after a few seconds, and none costs more than nine questions in 120 s."""

LONGEST_PAUSE_SECONDS = 60.0
"""Between two questions after the settle time, where the answers make no sense."""

MOST_SEARCHED = 3
"""Settled batches that a search is tried with: the tasks of one may have been deleted."""

_PAST_SECONDS = 0.01
"""The last question comes this much after the end of the settle time, so that rounding costs no further question."""

Carry: TypeAlias = Callable[[Batch, Submission], Awaitable[Submitted]]
"""Takes a place in flight, submits a batch and gives the place back."""


class _Case(Struct, frozen=True):
    """One batch in doubt."""

    batch: Batch
    submission: Submission
    doubt: Doubt
    failure: CallFailed | None = None
    """The newest refusal or loss, for its words."""
    waited: int = 0
    """Pauses before questions since the last call."""


class Recovery:
    """Takes batches of one run out of doubt."""

    def __init__(self, run: Run, uploader: Uploader, payloads: Payloads, carry: Carry) -> None:
        self._run = run
        self._service = run.service
        self._uploader = uploader
        self._payloads = payloads
        self._carry = carry
        self._proving = anyio.Lock()
        self._search_proven = False

    async def resolve(
        self, batch: Batch, submission: Submission, doubt: Doubt, failure: CallFailed | None = None
    ) -> Submitted:
        """Take a batch out of doubt; one that is still in doubt when the run ends is returned as the ledger has it.

        Raises:
            Unavailable: the service does not say what became of it, for too long; `resume` asks again.
            Unauthorized, SourceChanged: as when it is submitted.
        """
        case = _Case(batch, submission, doubt, failure)
        await self._note_lost_stage(doubt)
        while True:
            step = next_step(case.doubt, self._run.settle_time.seconds)
            done = await self._do(case, step)
            if isinstance(done, Submitted):
                return done
            case = done

    async def _do(self, case: _Case, step: NextStep) -> _Case | Submitted:
        """Do what the table says; return what is known afterwards, or where the batch came out."""
        batch, submission = case.batch, case.submission
        match step.action:
            case Action.ASK:
                return await self._ask(case)
            case Action.CANCEL:
                confirmed = await self._uploader.tidy_up(str(submission.remote_id))
                cancel = Cancel.CONFIRMED if confirmed else Cancel.DECLINED
                return replace(case, doubt=case.doubt.with_cancel(self._run.clock.monotonic(), cancel), waited=0)
            case Action.FOLLOW:
                return await self._follow(case, step)
            case Action.PARK:
                return await self._park(case, step)
            case Action.FAIL:
                canceled = case.doubt.cancel is Cancel.CONFIRMED
                return await self._uploader.halve_or_fail(
                    batch, submission, case.failure, step.reason, canceled=canceled
                )
            case Action.STOP:
                raise self._stopped(case, step)
            case _:  # RELEASE_AGAIN, STAGE, ADOPT, SEND: back to the uploader
                return await self._again(case, step)

    async def _note_lost_stage(self, doubt: Doubt) -> None:
        """Remember with the job that a call may have left something at the service; it is looked for at the end."""
        if doubt.state is State.STAGING and doubt.again is Again.SEARCH and doubt.lost:
            await self._run.ledger.note_lost_stage(self._run.job.name)

    async def _follow(self, case: _Case, step: NextStep) -> Submitted:
        if case.submission.state is State.RELEASED:  # a person has it released again, and it was begun by then
            return Submitted(case.submission)
        note = f"adopted: {step.reason}"
        return Submitted(await self._run.move(case.batch, case.submission, State.RELEASED, note=note))

    async def _again(self, case: _Case, step: NextStep) -> _Case | Submitted:
        submission = case.submission
        if step.action is Action.SEND and submission.state is State.RELEASED:  # whose name is given up
            submission = await self._run.move(case.batch, submission, State.UNCERTAIN, note=step.reason)
        if step.action is Action.SEND or self._service.staging is None:
            submission = await self._run.move(case.batch, submission, State.FROZEN, note=step.reason)
        elif step.action is Action.RELEASE_AGAIN and submission.state is not State.RELEASING:
            submission = await self._run.move(case.batch, submission, State.RELEASING, note=step.reason)
        submitted = await self._carry(case.batch, submission)
        if submitted.doubt is None:
            return submitted
        if submitted.doubt.state is not case.doubt.state:  # another call than before is in doubt
            await self._note_lost_stage(submitted.doubt)
            # What a person has released again was released before: a refusal now says nothing about the first time.
            doubt = replace(submitted.doubt, lost=submitted.doubt.lost or step.action is Action.RELEASE_AGAIN)
            return _Case(case.batch, submitted.submission, doubt, submitted.failure)
        doubt = case.doubt.with_repeat(self._run.clock.monotonic(), submitted.doubt.declined)
        return _Case(case.batch, submitted.submission, doubt, submitted.failure)

    async def _park(self, case: _Case, step: NextStep) -> Submitted:
        if case.submission.state is State.UNCERTAIN:
            return Submitted(case.submission)
        lost = f": {case.failure}" if case.failure is not None else ""
        note = f"{step.reason}{lost}"
        return Submitted(await self._run.move(case.batch, case.submission, State.UNCERTAIN, note=note))

    def _stopped(self, case: _Case, step: NextStep) -> Unavailable:
        last = f" ({case.failure})" if case.failure is not None else ""
        return Unavailable(
            f"batch {batch_name(case.batch.sequence)}: {step.reason}{last}. Run `bulksubmit resume` later",
            call="continue" if case.doubt.state is State.RELEASING else "create",
        )

    async def _ask(self, case: _Case) -> _Case | Submitted:
        pause = self._pause_seconds(case)
        self._run.tell_wait("an answer was lost, and the service is asked what became of it", pause)
        if not await pause_unless_stopped(self._run.stop, self._run.clock, pause):
            return Submitted(case.submission)
        asked_at = self._run.clock.monotonic()
        case = replace(case, waited=case.waited + 1)
        try:
            remote_status, remote_id = await self._remote_status(case)
        except (UnexpectedAnswer, PossiblyApplied):  # this is no answer about the batch
            remote_status, remote_id = RemoteStatus.SILENT, None
        if remote_id is not None:
            case = replace(case, submission=replace(case.submission, remote_id=remote_id))
        return replace(case, doubt=case.doubt.with_answer(remote_status, asked_at))

    def _pause_seconds(self, case: _Case) -> float:
        """Return how long to wait before the next question: ever longer, but not past the end of the settle time."""
        doubt, now = case.doubt, self._run.clock.monotonic()
        left = doubt.since + self._run.settle_time.seconds - now
        if case.waited == 0 and left <= 0:  # that time is over: one fresh answer is enough
            return 0.0
        wait = FIRST_QUESTION_SECONDS * 2.0 ** (case.waited + doubt.repeats) * (0.5 + self._run.jitter() / 2)
        return min(wait, left + _PAST_SECONDS) if left > 0 else min(wait, LONGEST_PAUSE_SECONDS)

    async def _remote_status(self, case: _Case) -> tuple[RemoteStatus, str | None]:
        """Ask about a batch by its name, or search for what the lost call made; return a name that was found, too."""
        batch, doubt = case.batch, case.doubt
        if doubt.again is not Again.SEARCH or (doubt.named and doubt.state is not State.STAGING):
            return await self._asked(str(case.submission.remote_id)), None
        payload = await self._payloads.read(batch)
        if doubt.state is State.STAGING:
            drafting = self._service.drafting
            found = await drafting.find(batch, payload) if drafting else None
            return (RemoteStatus.NOT_THERE, None) if found is None else (RemoteStatus.WAITING, found)
        return await self._located(batch, payload)

    async def _asked(self, remote_id: str) -> RemoteStatus:
        try:
            return await self._run.polling.remote_status(remote_id)
        except Refused:  # for example, it is busy: this says nothing about the batch
            return RemoteStatus.SILENT

    async def _located(self, batch: Batch, payload: Payload) -> tuple[RemoteStatus, str | None]:
        # Search from the start of the job: the call may be hours older than the last step, which a later run may have
        # made.
        names = await self._referenced(batch, payload)
        # A batch that the ledger knows proves nothing: the same records may stand in a source twice.
        names = [name for name in names if not await self._run.ledger.has_remote_id(name)]
        if names:
            return RemoteStatus.STARTED, names[0]
        return (RemoteStatus.NOT_THERE if await self._search_works() else RemoteStatus.UNPROVEN), None

    async def _referenced(self, batch: Batch, payload: Payload) -> Sequence[str]:
        """Return the names of the batches whose tasks carry the client reference of one of ours."""
        referencing = self._service.referencing
        return await referencing.locate(batch, payload, self._run.job.created_at) if referencing else ()

    async def _search_works(self) -> bool:
        """Return whether the same search finds a settled batch of this job: if not, finding nothing is no proof."""
        async with self._proving:
            if not self._search_proven:
                self._search_proven = await self._finds_a_settled_one()
        return self._search_proven

    async def _finds_a_settled_one(self) -> bool:
        job, ledger = self._run.job, self._run.ledger
        tried = 0
        async for batch, submission in ledger.batches(job.name, frozenset({State.SETTLED})):
            if submission.remote_id is None or not (await ledger.stored_fates(job.name, batch.sequence)).created:
                continue
            names = await self._referenced(batch, await self._payloads.read(batch))
            tried += 1
            if submission.remote_id in names:
                return True
            if tried == MOST_SEARCHED:
                break
        return False
