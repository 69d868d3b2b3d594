"""What an audit does where a source is gone or another file by now: so it is with each file that a night writes over.

`audit.audit` asks it for each batch. What a batch shares with the source cannot be proven then; all the rest can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

import anyio.to_thread

from engine.ledger.base import Ledger
from engine.model.batch import Batch, batch_name
from engine.model.errors import DamagedRow
from engine.model.job import Job
from engine.model.record import Reject, Skipped, Source
from engine.progress.text import count
from engine.reports.audit_checks import FamilyProof, Recut
from engine.source.sources import is_untouched


@dataclass(frozen=True, slots=True)
class SourcesCheck:
    """The batches of a job beside its sources, as far as those are still what they were."""

    job: Job
    lost: Mapping[str, str]
    """Path → what became of the file."""
    recut: Recut
    family: FamilyProof | None
    batches: Counter[str] = field(default_factory=Counter)
    """Path → batches that were not compared with it."""

    def check(self, batch: Batch, rejects: Sequence[Reject], skips: Sequence[Skipped]) -> list[str]:
        """Return what is wrong with a batch, and the rejects and skips within it."""
        lost = [source.path for source in _sources_of(self.job, batch) if source.path in self.lost]
        if not lost:
            return self.recut.check(batch, rejects, skips)
        self.batches.update(lost)
        try:
            return list(self.family.held(skips)) if self.family else []
        except DamagedRow as error:
            return [f"batch {batch_name(batch.sequence)}: {error}"]

    def unproven(self, source: Source) -> str:
        """Say of a lost source what could not be compared with it."""
        written = datetime.fromtimestamp(source.mtime_ns / 1e9, UTC).isoformat(" ", "seconds")
        skipped = " that what was skipped is what the family has," if self.job.delta else ""
        return (
            f"{source.path} is not the file that the job has read: that had {source.size:,} bytes and was written "
            f"{written}; {self.lost[source.path]}. So for {count(self.batches[source.path], 'batch')} nobody can prove "
            f"that the records are those of the file,{skipped} and that the rejects hold their text. The rest was "
            "audited. To prove this too, put the old file back"
        )


def _sources_of(job: Job, batch: Batch) -> Sequence[Source]:
    """Return the sources that a batch was read from."""
    start, end = batch.start.offset, batch.end.offset
    return [source for source in job.sources if source.base < end and start < source.end]


async def find_lost(job: Job, ledger: Ledger, recut: Callable[[], Recut]) -> Mapping[str, str]:
    """Return path → what became of it, for the sources that are gone or other files by now.

    A file of the same size is another one if it was written since the job began, and no batch that was read from it is
    in it any more. If some are, it is the same file, perhaps put back, and each difference is a finding.
    """
    lost: dict[str, str] = {}
    for source in job.sources:
        if gone := await anyio.to_thread.run_sync(_gone, source):
            lost[source.path] = gone
        elif not is_untouched(source) and not await _has_batch(job, ledger, source, recut()):
            lost[source.path] = "now it has other content of that size"
    return lost


def _gone(source: Source) -> str:
    """Return what became of a file that is not there, or has another size; "" otherwise."""
    try:
        status = Path(source.path).stat()
    except OSError as error:
        return f"now it cannot be read ({error.strerror})"
    if not S_ISREG(status.st_mode):
        return "now it is no regular file"
    return f"now it has {status.st_size:,} bytes" if status.st_size != source.size else ""


async def _has_batch(job: Job, ledger: Ledger, source: Source, recut: Recut) -> bool:
    """Return whether a batch is in a file as it was frozen, or none was read from it alone."""
    read = False
    async for batch, _ in ledger.batches(job.name):
        if [one.path for one in _sources_of(job, batch)] != [source.path]:
            continue
        read = True
        rejects = await ledger.rejects(job.name, batch.start.index, batch.end.index)
        skips = await ledger.skips(job.name, batch.start.index, batch.end.index)
        if not await anyio.to_thread.run_sync(recut.check, batch, rejects, skips):
            return True
    return not read
