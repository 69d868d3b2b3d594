"""A job's ledger and its sources in, a proof out: every byte in one batch, every record with exactly one fate.

The audit trusts no counter. It walks the batches in order, checks that they lie end to end from the first byte to the
last, reads each batch's records from the sources again and compares their sha256, and counts the fates one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio.to_thread

from engine.model.batches import ROOTS, Batch, batch_name
from engine.model.errors import SourceError
from engine.model.jobs import Job
from engine.model.outcomes import Fate, Settlement, Tally
from engine.model.records import Position, Reject
from engine.model.submissions import State, Submission
from engine.ports import Ledger

MOST_FINDINGS = 100
"""Findings that are spelled out; a broken disk would name millions."""


@dataclass(slots=True)
class Audit:
    """What an audit counted and what it found wrong."""

    job: str
    records: int = 0
    batches: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    unread_bytes: int = 0
    """Bytes of the sources that no batch covers yet: the job was stopped while it was reading."""
    findings: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether input = created + failed + rejected + uncertain + unresolved, each record once."""
        return not self.findings and self.records == self.fates.total()

    def find(self, what: str) -> None:
        """Note something that is wrong."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(what)


async def audit(job: Job, ledger: Ledger, payload: Callable[[Batch], bytes]) -> Audit:
    """Check a job from its ledger and its sources; `payload` reads a batch again and raises where it has changed."""
    result = Audit(job.name)
    expected, due = Position(), 0
    async for batch, submission in ledger.batches(job.name):
        rejects = await ledger.rejects(job.name, batch.start.index, batch.end.index)
        settlement = await ledger.settlement(job.name, batch.sequence)
        _check_place(result, batch, expected, due)
        due = batch.sequence % ROOTS + 1
        _check_rejects(result, batch, rejects)
        _check_fates(result, batch, submission, settlement)
        await _check_content(result, batch, payload)
        result.batches += 1
        result.records += batch.end.index - batch.start.index
        expected = batch.end
    _check_end(result, job, expected)
    _check_tally(result, await ledger.tally(job.name))
    return result


def _check_place(result: Audit, batch: Batch, expected: Position, due: int) -> None:
    if batch.sequence != due and (batch.sequence < ROOTS or batch.sequence % ROOTS not in {due - 1, due}):
        result.find(f"batch {batch_name(batch.sequence)}: batch {due} should stand here")
    if (batch.start.offset, batch.start.index) != (expected.offset, expected.index):
        result.find(
            f"batch {batch_name(batch.sequence)}: begins at byte {batch.start.offset}, record {batch.start.index}; "
            f"the one before ends at byte {expected.offset}, record {expected.index}"
        )


def _check_rejects(result: Audit, batch: Batch, rejects: Sequence[Reject]) -> None:
    indexes = {reject.index for reject in rejects}
    if len(rejects) != batch.rejected or len(indexes) != len(rejects):
        result.find(
            f"batch {batch_name(batch.sequence)}: {batch.rejected} records were rejected, "
            f"{len(indexes)} rejects are there"
        )
    for reject in rejects:
        if not batch.start.offset <= reject.offset < batch.end.offset:
            result.find(f"reject {reject.index}: byte {reject.offset} is not in batch {batch_name(batch.sequence)}")
    result.fates[Fate.REJECTED] += len(indexes)


def _check_fates(result: Audit, batch: Batch, submission: Submission, settlement: Settlement | None) -> None:
    if submission.state is not State.SETTLED:
        fate = Fate.UNCERTAIN if submission.state is State.UNCERTAIN else Fate.UNRESOLVED
        result.fates[fate] += batch.count
        return
    ids = settlement.task_ids if settlement else []
    if len(ids) != batch.count:
        result.find(f"batch {batch_name(batch.sequence)}: {batch.count} records went up, {len(ids)} outcomes are there")
    created = [task_id for task_id in ids if task_id is not None]
    named = [task_id for task_id in created if task_id]
    if len(set(named)) != len(named):
        result.find(f"batch {batch_name(batch.sequence)}: two records have the same task id")
    missing = [
        at for at, task_id in enumerate(ids) if (task_id is None) != (at in (settlement.errors if settlement else {}))
    ]
    if missing:
        result.find(f"batch {batch_name(batch.sequence)}: record {missing[0]} of it has no single outcome")
    result.fates[Fate.CREATED] += len(created)
    result.fates[Fate.FAILED] += len(ids) - len(created)


async def _check_content(result: Audit, batch: Batch, payload: Callable[[Batch], bytes]) -> None:
    try:
        await anyio.to_thread.run_sync(payload, batch)
    except SourceError as error:
        result.find(f"batch {batch_name(batch.sequence)}: {error}")


def _check_end(result: Audit, job: Job, reached: Position) -> None:
    if job.read_complete and reached.offset != job.size_bytes:
        result.find(f"the sources have {job.size_bytes} bytes, the batches cover {reached.offset}")
    result.unread_bytes = job.size_bytes - reached.offset


def _check_tally(result: Audit, tally: Tally) -> None:
    counted = {fate: result.fates[fate] for fate in Fate}
    stated = {fate: getattr(tally, fate.value) for fate in Fate}
    if counted != stated or tally.records != result.records:
        result.find(f"the ledger's totals say {stated} of {tally.records}, its batches {counted} of {result.records}")
