"""A frozen batch in, a released one out: stage, upload, release, each step durable before a call that builds on it.

If a call is lost or refused, the batch leaves with what is known of it (a `Doubt`), and `recovery` goes on: it asks,
waits, and hands the batch back here once it may be released again. A refusal that is not the fault of the records
(`Blame`) ends the run instead, and leaves the batch unsent.

The order keeps the promise that nothing is created twice. Staging is harmless. Releasing starts the creation of tasks,
so its intent is durable first, with the time at which the call goes out.

How large batches may be is learnt here: the next ones are cut smaller than what was refused, and a frozen batch as
large as that is halved before it is sent.

The module is a long one: what becomes of a failure stands beside the call that may fail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from engine.adaptive.batch_size import BatchBytes, Upload
from engine.model.batch import Batch, batch_name
from engine.model.doubt import ASKED, INHERITED, NAMELESS, REPEATABLE, Again, Declined, Doubt
from engine.model.error_hints import Blame
from engine.model.errors import (
    CallFailed,
    JobRefused,
    LeaseLost,
    NameTaken,
    PossiblyApplied,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from engine.model.job import JobState
from engine.model.outcome import Settlement
from engine.model.payload import NO_TASKS, Payload
from engine.model.record import Skipped
from engine.model.submission import State, Submission
from engine.run.context import Run, doubt_after_call, is_key_too_old, pause_unless_stopped
from engine.run.suspects import Suspects
from engine.services.base import Staged, Staging

STAGE_TRIES = 3
"""Fresh upload URLs that one batch may use up in a run; if S3 refuses three new ones, they are not too old."""

Answered: TypeAlias = Callable[[], None]
"""Told that the last call about a batch has its answer."""

_STAMP_SECONDS = 1.0
"""An intent that is older when its call goes out is written again: what became of the call is judged from that time."""
_LEASE_SECONDS = 0.2
"""Between two looks whether a lease was renewed."""


class Payloads(Protocol):
    """What goes up for frozen batches."""

    async def read(self, batch: Batch) -> Payload:
        """Return the payload of a batch, with the indexes of its records. Raises: SourceChanged."""

    async def ahead(self, batches: Sequence[Batch]) -> None:
        """Prepare for batches that are to be read once each, and soon."""

    async def halves(self, batch: Batch, rejected: Sequence[int], skips: Sequence[Skipped] = ()) -> tuple[Batch, Batch]:
        """Return two batches in the place of one, given what of it does not go up. Raises: SourceChanged."""


class Submitted(Struct, frozen=True):
    """Where a batch stands after it was submitted."""

    submission: Submission
    to_send: Sequence[Batch] = ()
    """Its two halves, if it is SPLIT; the batch itself, if it is to be sent once more."""
    doubt: Doubt | None = None
    """What is known of it, if a call was lost or refused: it goes on to recovery."""
    failure: CallFailed | None = None
    """The refusal, or the loss, behind the doubt."""


class Uploader:
    """Carries batches of one job to a service."""

    def __init__(self, run: Run, payloads: Payloads, sizes: BatchBytes | None = None) -> None:
        """Join the parts; `sizes` learns how large batches may be, where that is not fixed."""
        self._sizes = sizes
        self._run = run
        self._service = run.service
        self._suspects = Suspects(run.clock, run.stop)
        self.payloads = payloads

    async def read_ahead(self, batches: Sequence[Batch]) -> None:
        """Prepare for batches that are about to be submitted."""
        await self.payloads.ahead(batches)

    async def submit(self, batch: Batch, submission: Submission, answered: Answered = lambda: None) -> Submitted:
        """Send a batch from its beginning, or (RELEASING) release it again, which the table of steps has allowed.

        `answered` is called once the last call has its answer: what is left is to note it.

        Raises:
            Unauthorized, Unavailable, JobRefused: no batch would get through now; the job stops, `resume` goes on.
            SourceChanged: the source no longer holds what was frozen.
        """
        if divided := await self.divide(batch, submission):
            return divided
        fresh = submission.state is State.FROZEN
        began = self._run.clock.monotonic()
        staging = self._service.staging
        if staging is not None and submission.state is not State.RELEASING:
            submitted = await self._stage(staging, batch, submission, answered)
        else:
            submitted = await self._release(batch, submission, answered)
        if isinstance(submitted.failure, Refused) and submitted.failure.too_large:
            self._learn_size(batch, Upload.TOO_LARGE)
        elif fresh and submitted.doubt is None:
            self._learn_size(batch, Upload.TAKEN, self._run.clock.monotonic() - began)
        return submitted

    async def divide(self, batch: Batch, submission: Submission) -> Submitted | None:
        """Halve a batch of which nothing was sent yet, if as much did not get through before; None if it may go."""
        if self._sizes is None or submission.state is not State.FROZEN or batch.count == 1:
            return None
        if not (self._sizes.bars(batch.size_bytes) and self.may_split(submission)):
            return None
        return await self.split(batch, submission, "as much did not get through before")

    def may_split(self, submission: Submission) -> bool:
        """Return whether a batch may be halved before it is sent: its halves have other idempotency keys than it."""
        return submission.sent_at is None or self._service.again is not Again.KEY

    async def halve_or_fail(
        self, batch: Batch, submission: Submission, failure: CallFailed | None, reason: str, *, canceled: bool = False
    ) -> Submitted:
        """Halve a batch that was refused as a whole; of any other, each record fails. Nothing of it may be created.

        Of a canceled job it is frozen again. `canceled`: the service has confirmed that it creates nothing of it.
        """
        if self._service.again not in INHERITED:
            submission = replace(submission, sent_at=None)
        job, remote_id = self._run.job, submission.remote_id
        if job.state is JobState.CANCELED:  # it was not sent, and `resume` may go on with it
            if remote_id is not None and not canceled:
                await self.tidy_up(batch, remote_id)
            sent = submission.sent_at is not None and submission.state is State.STAGING
            return Submitted(
                await self._run.move(batch, submission, State.UNCERTAIN if sent else State.FROZEN, note=reason)
            )
        blame = failure.blame if isinstance(failure, Refused) else None
        if blame in {Blame.PAYLOAD, Blame.SUSPECT} and batch.count > 1:
            # Durable first: if we are killed now, the halves go up, and the rest of the whole is canceled as an orphan.
            submitted = await self.split(batch, submission, str(failure))
            if remote_id is not None and (canceled or await self.tidy_up(batch, remote_id)):
                await self._run.ledger.forget_orphan(job.name, remote_id)
            return submitted
        if blame is Blame.SUSPECT and await self._suspects.is_worth_another_try(batch.sequence, str(failure)):
            return await self._once_more(batch, submission, str(failure))
        if remote_id is not None and not canceled:
            await self.tidy_up(batch, remote_id)
        said = str(failure) if isinstance(failure, Refused) else reason
        settlement = Settlement.refused(batch.count, said)
        return Submitted(await self._run.settle(batch, submission, replace(settlement, note=said)))

    async def _once_more(self, batch: Batch, submission: Submission, reason: str) -> Submitted:
        """Have a batch sent again from its beginning; what was staged of it is an orphan."""
        if submission.state is not State.FROZEN:
            submission = await self._run.move(batch, submission, State.FROZEN, note=reason)
        return Submitted(submission, [batch])

    async def split(self, batch: Batch, submission: Submission, reason: str) -> Submitted:
        """Let two halves stand for a batch."""
        halves = await self.payloads.halves(batch, *await self._run.left_out(batch))
        return Submitted(await self._run.split(batch, submission, halves, reason), halves)

    async def tidy_up(self, batch: Batch, remote_id: str) -> bool:
        """Have the service create nothing of a batch any more; return whether it confirmed that.

        Raises:
            LeaseLost: the call could end after the lease of the batch, and the run ends.
        """
        canceling = self._service.canceling
        if canceling is None:
            return False
        await _wait_for_lease(self._run, batch)
        try:
            await canceling.cancel(remote_id)
        except (Refused, Unavailable, PossiblyApplied):
            return False
        return True

    def _learn_size(self, batch: Batch, upload: Upload, seconds: float = 0.0) -> None:
        if self._sizes is None or batch.count == 1:  # it could not be smaller
            return
        change = self._sizes.observe(batch.size_bytes, seconds, upload)
        if change is not None:
            self._run.emit(change)

    def _learn_loss(self, batch: Batch, failure: CallFailed) -> None:
        if failure.timed_out or failure.reset:
            self._learn_size(batch, Upload.TIMED_OUT if failure.timed_out else Upload.RESET)

    async def _stage(self, staging: Staging, batch: Batch, submission: Submission, answered: Answered) -> Submitted:
        """Stage a batch, upload its payload and release it, each time anew where the upload URL does not hold."""
        failures: list[CallFailed] = []
        while len(failures) < STAGE_TRIES:
            earlier_id, payload = submission.remote_id, await self.payloads.read(batch)
            # A call that may be made twice may be made before its intent is durable: frozen is as good as staging then.
            wait = staging.stage_again is not Again.SAFE
            intent = _Intent(self._run, batch, await self._run.move(batch, submission, State.STAGING, wait=wait))
            try:
                staged = await staging.stage(batch, payload, earlier_id=earlier_id, intent=intent.renew)
            except (Refused, PossiblyApplied) as failure:
                return await self._failed(batch, intent.submission, failure)
            # Remote id and fate are one durable step. Until it is made, the state is STAGING: a later run searches
            # first.
            if staged.settlement is not None:
                answered()
                self._suspects.passed()
                return await self._settled(batch, intent.submission, staged.settlement, staged.remote_id)
            named = await self._named(batch, intent.submission, State.STAGED, staged.remote_id)
            if named.doubt is not None:
                return named
            submission = named.submission
            failed = await self._upload(staging, batch, submission, staged, payload)
            if failed is None:
                self._suspects.passed()  # whatever becomes of its release
                del payload  # others are in memory while that is written down
                return await self._release(batch, submission, answered)
            if isinstance(failed, Submitted):
                return failed
            failures.append(failed)
            if _lies_with_the_payload(failures):
                return await self._suspected(batch, submission, partial(staging.upload, staged), failed)
        raise JobRefused(
            f"batch {batch_name(batch.sequence)}: no upload got through by {STAGE_TRIES} fresh upload URLs in a row: "
            f"{failures[-1]}. Check the clock of this machine and what the store says, then run `bulksubmit resume`",
            call="put",
        )

    async def _upload(
        self, staging: Staging, batch: Batch, submission: Submission, staged: Staged, payload: Payload
    ) -> CallFailed | Submitted | None:
        """Bring the payload up; return a failure where it had better be tried with a fresh URL."""
        if self._run.clock.monotonic() >= staged.expires_at:
            return UnexpectedAnswer("the URL is too old", call="put")
        try:
            await staging.upload(staged, payload, few_tries=True)
        except Unavailable as failure:
            if not (failure.timed_out or failure.reset or failure.by_proxy):
                raise
            return failure
        except UnexpectedAnswer as failure:  # not the store's: nobody knows what it holds
            return failure
        except Refused as refusal:
            return refusal if refusal.blame is Blame.URL else self._in_doubt(batch, submission, refusal)
        return None

    async def _suspected(
        self, batch: Batch, submission: Submission, upload: Callable[[Payload], Awaitable[None]], failure: CallFailed
    ) -> Submitted:
        """Return that an upload fails because of its payload, once another payload has got through to the same URL.

        What arrives there is harmless, even late: this batch is not released.

        Raises:
            Unavailable, JobRefused: nothing gets through.
        """
        try:
            await upload(NO_TASKS)
        except Refused as refusal:
            raise JobRefused(str(refusal), call=refusal.call, status=refusal.status) from refusal
        self._learn_loss(batch, failure)
        words = f"{failure}, while another upload got through"
        return self._in_doubt(batch, submission, Refused(words, call="put", status=failure.status, blame=Blame.SUSPECT))

    async def _release(self, batch: Batch, submission: Submission, answered: Answered) -> Submitted:
        """Have the tasks created: of a staged batch, or by one call that carries the payload."""
        payload = None if self._service.staging else await self.payloads.read(batch)
        sent_before = submission.sent_at is not None
        intent = _Intent(self._run, batch, await self._run.move(batch, submission, State.RELEASING), sent_before)
        try:
            released = await self._service.release(
                batch,
                submission.remote_id,
                payload,
                intent.renew,
                sent_before=sent_before or self._run.is_sent_again(batch),
            )
        except (Unauthorized, Unavailable) as failure:
            again = self._service.again
            if payload is None and again not in NAMELESS and failure.by_proxy and isinstance(failure, Unavailable):
                # A proxy keeps answering: the service may have it all the same, and can be asked, or told again.
                return self._in_doubt(batch, intent.submission, failure, declined=Declined.BY_PROXY)
            if not (
                again in ASKED or sent_before or failure.earlier_lost
            ):  # certainly not applied: `resume` may send it
                await self._run.move(batch, replace(intent.submission, sent_at=None), State.FROZEN)
            raise
        except (Refused, PossiblyApplied) as failure:
            if payload is not None:
                self._learn_loss(batch, failure)
            submission = intent.submission
            if isinstance(failure, Refused) and not (sent_before or failure.earlier_lost):
                submission = replace(submission, sent_at=None)  # certainly not applied
            return await self._failed(batch, submission, failure)
        answered()
        if payload is not None:
            self._suspects.passed()
            payload = None  # others are in memory while this is written down
        if released.settlement is not None:
            return await self._settled(batch, intent.submission, released.settlement, released.remote_id)
        if released.remote_id is None:
            nameless = UnexpectedAnswer("the answer neither names the batch nor settles it")
            return await self._failed(batch, intent.submission, nameless)
        return await self._named(batch, intent.submission, State.RELEASED, released.remote_id)

    async def _settled(self, batch: Batch, submission: Submission, fates: Settlement, name: str | None) -> Submitted:
        return Submitted(await self._run.settle(batch, submission, fates, remote_id=name))

    async def _named(self, batch: Batch, submission: Submission, state: State, remote_id: str) -> Submitted:
        """Write down the remote id that the service gave a batch; one that another batch of the job has counts as none.

        A batch is asked about by its remote id: with the same one, it would be given the fates of the other batch.
        """
        try:
            return Submitted(await self._run.move(batch, submission, state, remote_id=remote_id))
        except NameTaken:
            words = f"batch {batch_name(batch.sequence)} is given the name {remote_id}, which another batch has"
            return self._in_doubt(batch, submission, UnexpectedAnswer(words))

    async def _failed(self, batch: Batch, submission: Submission, failure: Refused | PossiblyApplied) -> Submitted:
        """Return what becomes of a batch whose call was lost, or was refused and records may be at fault.

        Raises:
            JobRefused: no record is at fault.
            Unauthorized, Unavailable: a call without records does not get through, either.
        """
        if not isinstance(failure, Refused) or failure.blame not in {Blame.JOB, Blame.SUSPECT}:
            return self._in_doubt(batch, submission, failure)
        if (
            submission.remote_id is None and submission.sent_at is None and not failure.earlier_lost
        ):  # `resume` may send it
            submission = await self._run.move(batch, submission, State.FROZEN)
        try:
            seen = await self._service.look()
        except Refused as refusal:  # an answer of the service's own, at any rate
            seen = str(refusal)
        if failure.blame is Blame.SUSPECT:
            return self._in_doubt(batch, submission, failure)
        words = f"{failure}; {seen}. No record has failed for it"
        raise JobRefused(words, call=failure.call, status=failure.status) from failure

    def _in_doubt(
        self, batch: Batch, submission: Submission, failure: CallFailed, *, declined: Declined = Declined.NO
    ) -> Submitted:
        """Return what is known of a batch whose newest call was refused or lost."""
        doubt = replace(doubt_after_call(self._run, submission), declined=declined)
        if isinstance(failure, Refused):
            earlier_lost = failure.earlier_lost and submission.state is not State.STAGED  # an upload creates nothing
            lost = earlier_lost or (submission.state is State.RELEASING and submission.sent_at is not None)
            doubt = replace(doubt, lost=lost, declined=self._kind_of(batch, failure, lost=lost))
        return Submitted(submission, doubt=doubt, failure=failure)

    def _kind_of(self, batch: Batch, refusal: Refused, *, lost: bool) -> Declined:
        if refusal.batch_not_found and self._service.staging is not None:
            return Declined.NOT_THERE
        if refusal.released_before:
            return Declined.RELEASED_BEFORE
        last_chance = self._service.again is Again.KEY or batch.count == 1  # it cannot be halved and sent again
        not_by_service = refusal.blame is Blame.SUSPECT or refusal.status is None
        if lost and last_chance and not_by_service and self._service.again in REPEATABLE:
            return Declined.SUSPECT
        return Declined.REFUSED


def _lies_with_the_payload(failures: Sequence[CallFailed]) -> bool:
    """Return whether these failures of one upload, newest last, may be due to its payload: then another one is tried.

    One timeout is enough, since the next would cost minutes. A single broken connection may be chance. A proxy's page
    counts once every fresh URL has met one.
    """
    newest = failures[-1]
    if newest.timed_out:
        return True
    if newest.reset:
        return sum(failure.reset for failure in failures) > 1
    return newest.by_proxy and len(failures) == STAGE_TRIES


class _Intent(Struct):
    """The ledger's note that a call goes out; its time is never much older than the call."""

    run: Run
    batch: Batch
    submission: Submission
    sent_before: bool = False
    """An earlier attempt may have arrived."""

    async def renew(self) -> None:
        """Write the intent again if the call had to wait since it was written; wait while its lease is not renewed.

        Raises:
            LeaseLost: the call could end after the lease of the batch, and the run ends.
            PossiblyApplied: an attempt with its idempotency key may have arrived, and the key is too old for another.
        """
        if self.sent_before and is_key_too_old(self.run, self.submission):
            raise PossiblyApplied("an earlier attempt may have arrived, and its idempotency key is too old for another")
        self.sent_before = True
        while True:
            await _wait_for_lease(self.run, self.batch)  # last: what comes after it is the call
            if self.run.clock.now() - self.submission.changed_at <= _STAMP_SECONDS:
                return
            self.submission = await self.run.move(self.batch, self.submission, self.submission.state)


async def _wait_for_lease(run: Run, batch: Batch) -> None:
    """Return at once if a call about a batch would end before its lease; else once that is renewed.

    Raises:
        LeaseLost: the run ends meanwhile.
    """
    while True:
        try:
            run.ledger.check_lease(run.job.name, batch.sequence)
        except LeaseLost:
            # The ledger is or was away. The next renewal tells whether another worker has the batch, and ends the run.
            if not await pause_unless_stopped(run.stop, run.clock, _LEASE_SECONDS):
                raise
        else:
            return
