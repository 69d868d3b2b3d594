"""A batch in doubt in, one whose place is known out: asked about, sent again or given up, as the table of steps says.

A batch comes here when a call about it was lost or refused, or when an earlier run left it so.
`model.next_step` decides. Here a batch is asked about, waited for and written down. Waiting takes no place among the
batches in flight, and ends at once when the run ends; the ledger then has what the next run must know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.model.batch import Batch, batch_name
from engine.model.doubt import ASKED, REPEATABLE, Again, Cancel, Doubt, RemoteStatus, Wish
from engine.model.errors import CallFailed, PossiblyApplied, Refused, Unavailable, UnexpectedAnswer
from engine.model.next_step import NEVER_ARRIVED, Action, NextStep, next_step
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.model.submission import State, Submission
from engine.run.context import Run, is_key_spent, pause_unless_stopped
from engine.run.uploader import Payloads, Submitted, Uploader
from engine.services.base import Located

FIRST_QUESTION_SECONDS = 1.0
"""Before the first question; each wait after it is twice as long as the one before, and the first one twice as long for
each time that the batch was released again. The last question comes at the end of the settle time, so most batches are
known after a few seconds, and none costs more than nine questions in 120 s."""

LONGEST_PAUSE_SECONDS = 60.0
"""Between two questions after the settle time, where the answers make no sense; and before a repeat."""

FIRST_REPEAT_SECONDS = 1.0
"""Before a release is repeated that may be; each further repeat waits twice as long, LONGEST_PAUSE_SECONDS at most."""

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
    found: Located | None = None
    """What the newest search has brought of its records."""


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
            case = replace(case, doubt=replace(case.doubt, expired=is_key_spent(self._run, case.submission)))
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
                confirmed = await self._uploader.tidy_up(batch, str(submission.remote_id))
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
        if case.found is not None:
            return Submitted(
                await self._run.settle(case.batch, case.submission, await self._told_by_search(case.found))
            )
        note = f"adopted: {step.reason}"
        return Submitted(await self._run.move(case.batch, case.submission, State.RELEASED, note=note))

    async def _again(self, case: _Case, step: NextStep) -> _Case | Submitted:
        submission, again = case.submission, case.doubt.again
        if step.action is Action.RELEASE_AGAIN and again in REPEATABLE and not await self._pause_before_repeat(case):
            return Submitted(submission)
        if step.action is Action.SEND and submission.state is State.RELEASED:  # whose name is given up
            submission = await self._run.move(case.batch, submission, State.UNCERTAIN, note=step.reason)
        if step.action is Action.SEND:
            submission = replace(submission, sent_at=self._sent_at(case))
        if step.action is Action.SEND or (self._service.staging is None and again not in REPEATABLE):
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
        doubt = replace(doubt, lost=doubt.lost or submitted.doubt.lost)
        return _Case(case.batch, submitted.submission, doubt, submitted.failure)

    def _sent_at(self, case: _Case) -> float | None:
        """Return since when an attempt at a batch that is sent from its beginning may have arrived."""
        again, submission = case.doubt.again, case.submission
        if again not in REPEATABLE:
            return None
        if again is Again.KEY and case.doubt.wish is Wish.SEND_AGAIN:  # its key counts as new, whatever that may cost
            return self._run.clock.now()
        return submission.sent_at

    async def _park(self, case: _Case, step: NextStep) -> Submitted:
        if case.submission.state is State.UNCERTAIN:
            return Submitted(case.submission)
        lost = f": {case.failure}" if case.failure is not None else ""
        note, submission = f"{step.reason}{lost}", case.submission
        if submission.state is State.RELEASING and case.doubt.again not in ASKED:
            # What it was staged by is no name that tells what became of its release; that may use it, so it stays.
            submission = replace(submission, remote_id=None)
        return Submitted(await self._run.move(case.batch, submission, State.UNCERTAIN, note=note))

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
            remote_status, found = await self._remote_status(case)
        except (UnexpectedAnswer, PossiblyApplied, Unavailable) as failure:  # this is no answer about the batch
            await self._run.check_reach(failure)
            remote_status, found = RemoteStatus.SILENT, None
        if isinstance(found, str):
            case = replace(case, submission=replace(case.submission, remote_id=found))
        elif found is not None:
            case = replace(case, found=found)
        elif case.found is not None and remote_status is not RemoteStatus.SILENT:  # an older search has seen more
            remote_status = RemoteStatus.PARTLY
        return replace(case, doubt=case.doubt.with_answer(remote_status, asked_at))

    async def _pause_before_repeat(self, case: _Case) -> bool:
        """Wait before a release is repeated, ever longer; return whether the run goes on."""
        bound = min(FIRST_REPEAT_SECONDS * 2.0**case.doubt.repeats, LONGEST_PAUSE_SECONDS)
        pause = bound * (0.5 + self._run.jitter() / 2)
        self._run.tell_wait("an answer was lost, and the call is repeated", pause)
        return await pause_unless_stopped(self._run.stop, self._run.clock, pause)

    def _pause_seconds(self, case: _Case) -> float:
        """Return how long to wait before the next question: ever longer, but not past the end of the settle time."""
        doubt, now = case.doubt, self._run.clock.monotonic()
        left = doubt.since + self._run.settle_time.seconds - now
        if case.waited == 0 and left <= 0:  # that time is over: one fresh answer is enough
            return 0.0
        wait = FIRST_QUESTION_SECONDS * 2.0 ** (case.waited + doubt.repeats) * (0.5 + self._run.jitter() / 2)
        return min(wait, left + _PAST_SECONDS) if left > 0 else min(wait, LONGEST_PAUSE_SECONDS)

    async def _remote_status(self, case: _Case) -> tuple[RemoteStatus, str | Located | None]:
        """Ask about a batch by its name, or search for what the lost call made.

        Return what was found, too: a name, or the fates of its records.
        """
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

    async def _located(self, batch: Batch, payload: Payload) -> tuple[RemoteStatus, str | Located | None]:
        # Search from the start of the job: the call may be hours older than the last step, which a later run may have
        # made.
        located = await self._referenced(batch, payload)
        if (found := located.settlement) is not None and found.created + len(found.errors) + len(located.unclear):
            return (RemoteStatus.PARTLY if found.uncertain else RemoteStatus.STARTED), located
        # A batch that the ledger knows proves nothing: the same records may stand in a source twice.
        names = [name for name in located.names if not await self._run.ledger.has_remote_id(name)]
        if names:
            return RemoteStatus.STARTED, names[0]
        return (RemoteStatus.NOT_THERE if await self._search_works() else RemoteStatus.UNPROVEN), None

    async def _referenced(self, batch: Batch, payload: Payload) -> Located:
        """Return what a search finds by the client reference of one of our batches.

        Raises:
            UnexpectedAnswer: it does not say of each record what became of it.
        """
        referencing = self._service.referencing
        located = await referencing.locate(batch, payload, self._run.job.created_at) if referencing else Located()
        found = located.settlement
        if found is not None and (len(found.task_ids) != batch.count or found.unclear()):
            raise UnexpectedAnswer("a search does not say of each record whether it is there")
        return located

    async def _told_by_search(self, located: Located) -> Settlement:
        """Return the fates that a search has brought at the end of the settle time.

        What a search did not find that is known to find what is there never arrived: those records have failed.
        """
        found = located.settlement or Settlement([])
        missing = found.uncertain.keys() - located.unclear
        if not missing or not await self._search_works():
            return found
        unclear = {position: why for position, why in found.uncertain.items() if position in located.unclear}
        return replace(found, errors={**found.errors, **dict.fromkeys(missing, NEVER_ARRIVED)}, uncertain=unclear)

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
            kept = await ledger.stored_fates(job.name, batch.sequence)
            if not kept.created or kept.settlement is None:
                continue
            located = await self._referenced(batch, await self._payloads.read(batch))
            tried += 1
            if submission.remote_id in located.names or _finds_a_task(located, kept.settlement):
                return True
            if tried == MOST_SEARCHED:
                break
        return False


def _finds_a_task(located: Located, kept: Settlement) -> bool:
    """Return whether a search finds a task that is known to be there."""
    found = located.settlement.task_ids if located.settlement is not None else ()
    return not {task_id for task_id in kept.task_ids if task_id is not None}.isdisjoint(found)
