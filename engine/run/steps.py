"""A batch's step is made durable in the ledger, then told to those who listen. Uploader, recovery and poller use it.

Whatever calls this has already decided: nothing here looks at the service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.model.batch import Batch
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission
from engine.progress.events import BatchMoved, BatchSettled
from engine.run.context import Run


@dataclass(frozen=True, slots=True)
class Steps:
    """The durable steps of one run's batches."""

    run: Run

    async def move(
        self, batch: Batch, submission: Submission, state: State, *, remote_id: str | None = None, note: str = ""
    ) -> Submission:
        """Move a batch to a state; its name at the service is kept, but where it is staged anew or frozen again."""
        kept = None if state in {State.STAGING, State.FROZEN} else submission.remote_id
        moved = Submission(batch.sequence, state, remote_id or kept, self.run.clock.now(), note)
        await self.run.ledger.move(self.run.job.name, moved, expected=submission.state)
        self._tell(batch, submission.state, state, note)
        return moved

    async def settle(
        self, batch: Batch, submission: Submission, settlement: Settlement, *, remote_id: str | None = None
    ) -> Submission:
        """Remember the fate of each record of a batch."""
        named, now = remote_id or submission.remote_id, self.run.clock.now()
        settled = Submission(batch.sequence, State.SETTLED, named, now, settlement.note)
        await self.run.ledger.settle(self.run.job.name, settled, settlement, expected=submission.state)
        self._tell(batch, submission.state, State.SETTLED, settlement.note)
        self.run.emit(BatchSettled.of(batch.sequence, settlement))
        return settled

    async def split(self, batch: Batch, submission: Submission, halves: tuple[Batch, Batch], reason: str) -> Submission:
        """Let two halves stand for a batch."""
        split = replace(submission, state=State.SPLIT, remote_id=None, note=reason)
        await self.run.ledger.split(self.run.job.name, split, halves, expected=submission.state)
        self._tell(batch, submission.state, State.SPLIT, reason)
        return split

    def _tell(self, batch: Batch, before: State, after: State, reason: str) -> None:
        self.run.emit(BatchMoved(batch.sequence, before, after, batch.count, batch.size_bytes, reason))
