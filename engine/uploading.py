"""A frozen batch in, a released (refused, split, uncertain) one out: stage, upload, release, each step durable.

The order is what makes the promise. Staging is harmless, so it is repeated freely. Releasing starts the creation of
tasks, so its intent is durable first, and after a lost answer the service is asked before it is told again. A service
without a harmless step (inline) cannot be asked: there a lost answer makes the batch uncertain, and it stays unsent,
unless its tasks carry a mark: then a search tells whether it arrived.

A batch that is refused without a word on which records are at fault is halved, in the ledger before anything is sent
again, until the bad ones stand alone with the service's words and the good ones are created. Twice n - 1 calls for one
bad batch of n records is what that costs at most. An upload that does not get through in time is halved, too.

How large batches may be is learnt here: whoever cuts the next ones keeps below what was refused, and of those that are
frozen already, one that is as large is halved before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from engine.model.batches import Batch, batch_name
from engine.model.errors import CallFailed, PossiblyApplied, Refused, Unauthorized, Unavailable, UnexpectedAnswer
from engine.model.jobs import JobState
from engine.model.outcomes import Settlement
from engine.model.submissions import State, Submission
from engine.observe.events import BatchMoved, BatchSettled
from engine.policy.coupled import SLOW_BYTES, BatchBytes, Upload
from engine.ports import Released, Staged, Standing
from engine.run import Run

STAGE_TRIES = 3
"""Fresh upload URLs that one batch may use up in a run; S3 refusing three new ones is no matter of age."""

LOST_STAGES = 12
"""Answers to the staging of one batch that may be lost in a row; each time the service looks before it stages again.
At one lost in three, fewer would stop one job of a hundred thousand batches in ten."""

RELEASE_TRIES = 8
"""Releases of one batch in a run whose answer is lost while the service says that it still waits."""

QUIET_SECONDS = 1.0
"""Wait, doubled each time, before we ask what became of a release: the lost call may still be on its way."""


SEARCHES = 3
"""For a batch whose answer was lost, each after twice the wait of the one before. Only if none of them finds it, it
never arrived: what the service has taken in is seen once it is worked on."""

NEVER_ARRIVED = "no search found it: it never arrived"


class Payloads(Protocol):
    """What goes up for frozen batches."""

    async def read(self, batch: Batch) -> bytes:
        """Return the payload of a batch. Raises: SourceChanged."""
        ...

    async def ahead(self, batches: Sequence[Batch]) -> None:
        """Prepare for batches that are to be read once each, and soon."""
        ...

    async def halves(self, batch: Batch, rejected: Sequence[int]) -> tuple[Batch, Batch]:
        """Return two batches in the place of one, given the indexes rejected in it. Raises: SourceChanged."""
        ...


@dataclass(frozen=True, slots=True)
class Submitted:
    """Where a batch stands after it was submitted."""

    submission: Submission
    halves: Sequence[Batch] = ()
    """Frozen in its place, if it is SPLIT."""


class Uploader:
    """Carries batches of one job to a service."""

    def __init__(
        self, run: Run, payloads: Payloads, search_seconds: float = 30.0, sizes: BatchBytes | None = None
    ) -> None:
        """Join the parts; `sizes` learns how large batches may be, where that is not fixed."""
        self._search_seconds = search_seconds
        self._sizes = sizes
        self._run = run
        self._service = run.service
        self._payloads = payloads

    async def read_ahead(self, batches: Sequence[Batch]) -> None:
        """Prepare for batches that are about to be submitted."""
        await self._payloads.ahead(batches)

    async def submit(self, batch: Batch, submission: Submission) -> Submitted:
        """Take a batch from UNSENT or UNCERTAIN to RELEASED, SETTLED (refused), SPLIT (refused whole) or UNCERTAIN.

        Raises:
            Unauthorized, Unavailable, PossiblyApplied: the service is not to be had; the job stops, `resume` goes on.
            SourceChanged: the source no longer holds what was frozen.
        """
        if divided := await self.divide(batch, submission):
            return divided
        fresh, began = submission.state is State.FROZEN, self._run.clock.monotonic()
        try:
            carried = await self._carry(batch, submission)
        except _Declined as declined:
            if declined.refusal.too_large:
                self._learn_size(batch, Upload.TOO_LARGE)
            return await self._take_no(batch, declined)
        if fresh and carried.state is not State.UNCERTAIN:
            self._learn_size(batch, Upload.TAKEN, self._run.clock.monotonic() - began)
        return Submitted(carried)

    async def divide(self, batch: Batch, submission: Submission) -> Submitted | None:
        """Halve a batch of which nothing was sent yet, if as much did not get through before; None if it may go."""
        if self._sizes is None or submission.state is not State.FROZEN or batch.count == 1:
            return None
        barred = self._sizes.bars(batch.size_bytes)
        return await self._split(batch, submission, "as much did not get through before") if barred else None

    def _learn_size(self, batch: Batch, upload: Upload, seconds: float = 0.0) -> None:
        if self._sizes is None or batch.count == 1:  # it could not be smaller
            return
        change = self._sizes.observe(batch.size_bytes, seconds, upload)
        if change is not None:
            self._run.emit(change)

    async def _carry(self, batch: Batch, submission: Submission) -> Submission:
        if submission.state is State.UNCERTAIN:
            if submission.remote_id is None:
                return await self._search(batch, submission)
            return await self._settle_release(batch, submission, QUIET_SECONDS)  # the service may know it again
        if self._service.stages:
            return await self._stage_and_release(batch, submission)
        return await self._post(batch, submission)

    async def _stage_and_release(self, batch: Batch, submission: Submission) -> Submission:
        if submission.state is State.RELEASING:  # the last process died before it knew the answer
            return await self._settle_release(batch, submission, QUIET_SECONDS)
        for _ in range(STAGE_TRIES):
            submission, staged, payload = await self._stage(batch, submission)
            # Name and fate are one durable step; up to it STAGING stands, from which the service looks before staging.
            if staged.settlement is not None:
                return await self._settle(batch, submission, staged.settlement, remote_id=staged.remote_id)
            submission = await self._move(batch, submission, State.STAGED, remote_id=staged.remote_id)
            if await self._upload(batch, submission, staged, payload):
                submission = await self._move(batch, submission, State.RELEASING)
                return await self._release(batch, submission)
        raise Unavailable(
            f"batch {batch_name(batch.sequence)}: the store refused {STAGE_TRIES} fresh upload URLs in a row; "
            "check the clock of this machine and the service's status, then run `bulksubmit resume`",
            call="put",
        )

    async def _stage(self, batch: Batch, submission: Submission) -> tuple[Submission, Staged, bytes]:
        again, known = submission.state is not State.FROZEN, submission.remote_id
        payload = await self._payloads.read(batch)
        submission = await self._move(batch, submission, State.STAGING)
        staged = await self._stage_once(batch, submission, payload, again=again, known=known)
        return submission, staged, payload

    async def _stage_once(
        self, batch: Batch, submission: Submission, payload: bytes, *, again: bool, known: str | None
    ) -> Staged:
        """Stage, and while the answer is lost let the service look for what the lost call may have made."""
        lost = 0
        while True:
            try:
                return await self._service.stage(batch, payload, again=again, known=known)
            except Unauthorized:
                raise
            except Refused as refusal:
                # Nothing was done by this call, but an earlier one may have made what must not stay.
                made = await self._service.find(batch, payload) if again else None
                raise _Declined(replace(submission, remote_id=made), refusal) from refusal
            except PossiblyApplied:
                lost, again = lost + 1, True
                if lost > LOST_STAGES:
                    raise

    async def _upload(self, batch: Batch, submission: Submission, staged: Staged, payload: bytes) -> bool:
        """Bring the payload up; False if the URL has expired."""
        divisible = batch.count > 1 and batch.size_bytes >= SLOW_BYTES
        if self._run.clock.monotonic() >= staged.expires_at:
            return False
        try:
            await self._service.upload(staged, payload, divisible=divisible)
        except Unauthorized:
            raise
        except Unavailable as failure:
            if not (divisible and failure.timed_out):
                raise
            self._learn_size(batch, Upload.TIMED_OUT)
            raise _Declined(submission, Refused(str(failure), as_a_whole=True)) from failure
        except UnexpectedAnswer:  # not the store's: nobody knows what it holds; again, with a fresh URL
            return False
        except Refused as refusal:
            if refusal.status in {401, 403}:  # a presigned URL is refused so when it is too old
                return False
            raise _Declined(submission, refusal) from refusal
        return True

    async def _release(self, batch: Batch, submission: Submission) -> Submission:
        try:
            released = await self._service.release(batch, submission.remote_id, None)
        except Unauthorized:
            raise
        except (PossiblyApplied, Refused) as failure:
            # Refused too: it may have been released by a call whose answer we never saw.
            return await self._settle_release(batch, submission, QUIET_SECONDS, failure)
        return await self._released(batch, submission, released)

    async def _settle_release(
        self, batch: Batch, submission: Submission, quiet_seconds: float, failure: Exception | None = None
    ) -> Submission:
        """Ask what became of a release, and repeat it only while the service says that the batch waits."""
        assert submission.remote_id is not None  # noqa: S101 - STAGED set it, and RELEASING comes after
        lost = not isinstance(failure, Refused)
        for attempt in range(RELEASE_TRIES):
            await self._run.clock.sleep(quiet_seconds * 2**attempt * (0.5 + self._run.jitter() / 2))
            try:
                standing = await self._service.standing(submission.remote_id)
            except UnexpectedAnswer as answer:  # asking is harmless: ask again
                failure = failure or answer
                continue
            match standing:
                case Standing.STARTED:
                    return await self._move(
                        batch, submission, State.RELEASED, note="adopted: the service had started it"
                    )
                case Standing.UNKNOWN if submission.state is State.UNCERTAIN:
                    return submission
                case Standing.UNKNOWN:
                    note = f"the service no longer knows batch {submission.remote_id}"
                    return await self._move(batch, submission, State.UNCERTAIN, note=note)
                case Standing.WAITING if isinstance(failure, Refused):
                    raise _Declined(submission, failure, lost_before=lost) from failure
            submission = await self._move(batch, submission, State.RELEASING)
            try:
                released = await self._service.release(batch, submission.remote_id, None)
            except Unauthorized:
                raise
            except (PossiblyApplied, Refused) as error:
                failure, lost = error, lost or isinstance(error, PossiblyApplied)
            else:
                return await self._released(batch, submission, released)
        raise Unavailable(
            f"batch {batch_name(batch.sequence)}: {RELEASE_TRIES} answers to its release were lost ({failure}); "
            "the service still says that it waits. Run `bulksubmit resume` later",
            call="continue",
        )

    async def _post(self, batch: Batch, submission: Submission) -> Submission:
        if submission.state is State.RELEASING:
            note = "the process ended while the call was under way"
            return await self._move(batch, submission, State.UNCERTAIN, note=note)
        payload = await self._payloads.read(batch)
        submission = await self._move(batch, submission, State.RELEASING)
        try:
            released = await self._service.release(batch, None, payload)
        except (Unauthorized, Unavailable):
            await self._move(batch, submission, State.FROZEN)  # certainly not applied: `resume` may send it
            raise
        except Refused as refusal:
            raise _Declined(submission, refusal) from refusal
        except PossiblyApplied as failure:
            if failure.timed_out:
                self._learn_size(batch, Upload.TIMED_OUT)
            return await self._move(batch, submission, State.UNCERTAIN, note=str(failure))
        return await self._released(batch, submission, released)

    async def _search(self, batch: Batch, submission: Submission) -> Submission:
        """Find out by its mark whether a batch arrived whose answer was lost; if it never did, send it again.

        Not where the job is canceled: then its records have failed.
        """
        payload = await self._payloads.read(batch)
        empty = 0
        for _ in range(2 * SEARCHES):
            await self._run.clock.sleep(self._search_seconds * 2**empty)
            try:
                found = await self._service.locate(batch, payload, submission.changed_at)
            except UnexpectedAnswer:  # no answer of the service's own: it counts for nothing
                continue
            # What another batch of ours is called proves nothing: records may stand in a source twice.
            found = [name for name in found if not await self._run.ledger.names(name)]
            if found:
                note = "found by its mark" if len(found) == 1 else f"found by its mark, as {' and '.join(found)}"
                return await self._move(batch, submission, State.RELEASED, remote_id=found[0], note=note)
            empty += 1
            if empty == SEARCHES:
                return await self._never_arrived(batch, submission)
        return submission  # nobody knows yet; the next run searches again

    async def _never_arrived(self, batch: Batch, submission: Submission) -> Submission:
        if self._run.job.state is JobState.CANCELED:
            return await self._settle(batch, submission, Settlement.refused(batch.count, NEVER_ARRIVED))
        return await self._post(batch, await self._move(batch, submission, State.FROZEN, note=NEVER_ARRIVED))

    async def _released(self, batch: Batch, submission: Submission, released: Released) -> Submission:
        if released.settlement is not None:
            return await self._settle(batch, submission, released.settlement, remote_id=released.remote_id)
        return await self._move(batch, submission, State.RELEASED, remote_id=released.remote_id)

    async def _take_no(self, batch: Batch, declined: _Declined) -> Submitted:
        """Halve a batch that was refused as a whole; of any other, each record is refused."""
        submission, refusal = declined.submission, declined.refusal
        carried = submission.state is not State.STAGING  # a beginning without records is not refused for one of them
        divides = refusal.as_a_whole and carried and batch.count > 1
        if divides and not declined.lost_before:
            # Durable first: if we are killed now, the halves go up, and the rest of the whole is canceled as an orphan.
            submitted = await self._split(batch, submission, str(refusal))
            if submission.remote_id is not None and await self._tidy_up(submission.remote_id):
                await self._run.ledger.forget_orphan(self._run.job.name, submission.remote_id)
            return submitted
        gone = submission.remote_id is None or await self._tidy_up(submission.remote_id)
        if divides and gone:  # a release that is still on its way finds nothing any more
            submitted = await self._split(batch, submission, str(refusal))
            await self._run.ledger.forget_orphan(self._run.job.name, str(submission.remote_id))
            return submitted
        settlement = Settlement.refused(batch.count, str(refusal))
        return Submitted(await self._settle(batch, submission, replace(settlement, note=str(refusal))))

    async def _split(self, batch: Batch, submission: Submission, reason: str) -> Submitted:
        job = self._run.job.name
        rejects = await self._run.ledger.rejects(job, batch.start.index, batch.end.index) if batch.rejected else ()
        halves = await self._payloads.halves(batch, [reject.index for reject in rejects])
        split = replace(submission, state=State.SPLIT, remote_id=None, note=reason)
        await self._run.ledger.split(job, split, halves, expected=submission.state)
        self._run.emit(BatchMoved(batch.sequence, submission.state, State.SPLIT, batch.count, batch.size_bytes, reason))
        return Submitted(split, halves)

    async def _tidy_up(self, remote_id: str) -> bool:
        """Leave nothing behind of what the service would not take; tell whether it can no longer be released."""
        try:
            await self._service.cancel(remote_id)
        except Unauthorized:
            raise
        except CallFailed:
            return False
        return True

    async def _settle(
        self, batch: Batch, submission: Submission, settlement: Settlement, *, remote_id: str | None = None
    ) -> Submission:
        named = remote_id or submission.remote_id
        settled = Submission(batch.sequence, State.SETTLED, named, submission.changed_at, settlement.note)
        await self._run.ledger.settle(self._run.job.name, settled, settlement, expected=submission.state)
        note = settlement.note
        self._run.emit(BatchMoved(batch.sequence, submission.state, State.SETTLED, batch.count, batch.size_bytes, note))
        first_error = next(iter(settlement.errors.values()), "")
        self._run.emit(BatchSettled(batch.sequence, settlement.created, len(settlement.errors), first_error))
        return settled

    async def _move(
        self, batch: Batch, submission: Submission, state: State, *, remote_id: str | None = None, note: str = ""
    ) -> Submission:
        named = remote_id or (None if state is State.STAGING else submission.remote_id)
        moved = Submission(batch.sequence, state, named, submission.changed_at, note)
        await self._run.ledger.move(self._run.job.name, moved, expected=submission.state)
        self._run.emit(BatchMoved(batch.sequence, submission.state, state, batch.count, batch.size_bytes, note))
        return moved


class _Declined(Exception):
    """The service declined the batch as such; the job goes on with the others."""

    def __init__(self, submission: Submission, refusal: Refused, *, lost_before: bool = False) -> None:
        super().__init__(str(refusal))
        self.submission = submission
        self.refusal = refusal
        self.lost_before = lost_before
        """A release was lost before this refusal, and may still arrive."""
