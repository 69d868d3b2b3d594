"""The `Ledger` in one SQLite file: calls of the engine enter; they leave as operations of the writer or short reads.

    await move(…) ─ operation ─ queue ─ writer thread ─ COMMIT ─ future        writer.py, writes.py
    await tally(…) ───── function ───── reader thread ─ SELECT ─ future        reads.py

Two connections to one file, which WAL allows without waiting. A read sees all that was awaited before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import anyio
import apsw

from engine.clock import Clock
from engine.ledger import connections, locks, reads, writes
from engine.ledger.faults import mapped_errors
from engine.ledger.writer import Hooks, Writer
from engine.model.batch import Batch
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Kept, Settlement, Tally
from engine.model.record import Reject
from engine.model.submission import State, Submission

T = TypeVar("T")

_NO_HOOKS = Hooks()
_BUSY_SECONDS = 10.0
"""The longest group of another job is some MB: well below a second on any disk."""


class SqliteLedger:
    """The durable memory of jobs in one SQLite file: `async with SqliteLedger.open(path, clock) as ledger`."""

    def __init__(self, path: Path, clock: Clock, writer: Writer, reader: apsw.Connection) -> None:
        self._path = path
        self._clock = clock
        self._writer = writer
        self._reader = reader
        self._reading = ThreadPoolExecutor(1, "ledger-reader")

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        hooks: Hooks = _NO_HOOKS,
        busy_seconds: float = _BUSY_SECONDS,
        vfs: str | None = None,
    ) -> AsyncIterator[Self]:
        """Open the ledger at `path` until the block ends; it is created, with its folder, for its owner only.

        `busy_seconds` is how long it may be held by another process; `vfs` names a file system registered with apsw.

        Raises:
            LedgerError: it cannot be opened, is not a ledger, or was written by a newer bulksubmit.
        """
        opening = connections.Opening(path, busy_seconds, vfs)
        resolved, writing, reader = await asyncio.to_thread(_connect, opening)
        ledger = cls(resolved, clock, Writer(resolved, writing, hooks), reader)
        try:
            yield ledger
        finally:
            await ledger.close()

    async def create_job(self, job: Job) -> None:
        """Remember a new job; the time is now if it names none. Raises: JobError if the name is taken."""
        await self._writer.write(partial(writes.create_job, job=job, now=self._clock.now()))

    async def job(self, name: str) -> Job:
        """Return a job. Raises: JobError if there is none of that name."""
        return await self._read(partial(reads.job, name=name))

    async def jobs(self) -> Sequence[Job]:
        """Return all jobs, newest first."""
        return await self._read(reads.jobs)

    async def set_job_state(self, name: str, state: JobState) -> None:
        """Remember where the job stands."""
        await self._writer.write(partial(writes.set_job_state, name=name, state=state))

    async def set_learnt(self, name: str, learnt: str) -> None:
        """Remember what the service told of itself before anything was frozen."""
        await self._writer.write(partial(writes.set_learnt, name=name, learnt=learnt))

    async def note_slowest_start(self, job: str, seconds: float) -> None:
        """Remember that an answered release took `seconds` to leave *waiting*, if no other of the job took longer."""
        await self._writer.write(partial(writes.note_slowest_start, name=job, seconds=seconds))

    async def note_lost_stage(self, job: str) -> None:
        """Count a call that makes something at the service without releasing it, and whose answer was lost."""
        await self._writer.write(partial(writes.note_lost_stage, name=job))

    async def set_config(self, name: str, config: str) -> None:
        """Remember the configuration with which the job goes on."""
        await self._writer.write(partial(writes.set_config, name=name, config=config))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the job for this process; freed when it dies. Raises: JobLocked."""
        with ExitStack() as held:
            with mapped_errors(self._path):  # errors of taking it, not of the work done meanwhile
                held.enter_context(locks.hold(self._lock_path(name), name))
            yield

    def is_locked(self, name: str) -> bool:
        """Tell whether a process holds the job."""
        with mapped_errors(self._path):
            return locks.is_held(self._lock_path(name))

    async def freeze(self, job: str, batches: Sequence[Batch], rejects: Sequence[Reject], *, last: bool) -> None:
        """Remember batches (as FROZEN; those of no records as SETTLED) and rejects. `last`: the sources end here.

        Raises:
            LedgerError: they do not start at sequence 0, offset 0, record 0, or where the batch frozen last ends.
        """
        now = self._clock.now()
        await self._writer.write(partial(writes.freeze, name=job, batches=batches, rejects=rejects, now=now, last=last))

    async def last_batch(self, job: str) -> Batch | None:
        """Return the batch frozen last."""
        return await self._read(partial(reads.last_batch, name=job))

    async def move(self, job: str, submission: Submission, *, expected: State) -> None:
        """Set a batch's submission; a remote id given up by staging again is kept among the orphans.

        Raises:
            LedgerError: it is not in state `expected`, the step is not in TRANSITIONS, or it leads to SETTLED.
        """
        await self._writer.write_each(writes.move, writes.BatchStep(job, submission, expected, self._clock.now()))

    async def settle(self, job: str, submission: Submission, settlement: Settlement, *, expected: State) -> None:
        """Move a batch to SETTLED together with the fate of its records.

        Raises:
            LedgerError: as for `move`, or a record has no fate, or two.
        """
        step = writes.BatchStep(job, submission, expected, self._clock.now(), settlement)
        await self._writer.write_each(writes.move, step)

    async def split(self, job: str, submission: Submission, halves: tuple[Batch, Batch], *, expected: State) -> None:
        """Move a batch to SPLIT and freeze two parts that stand for it.

        Raises:
            LedgerError: as for `move`, or the parts do not cover exactly what the batch covers.
        """
        step = writes.BatchStep(job, submission, expected, self._clock.now())
        await self._writer.write(partial(writes.split, step=step, halves=halves))

    async def batches(
        self, job: str, states: frozenset[State] | None = None
    ) -> AsyncIterator[tuple[Batch, Submission]]:
        """Yield batches with their submissions in the order of their records, parts in the place of what is split.

        They are read in pages; nothing is held open between two of them.
        """
        after = -1
        while page := await self._read(partial(reads.page, name=job, after=after, states=states)):
            for batch, submission in page:
                if submission.state is not State.SPLIT:
                    yield batch, submission
                    continue
                for part in await self._read(partial(reads.parts, name=job, sequence=batch.sequence, states=states)):
                    yield part
            after = page[-1][0].sequence

    async def names(self, remote_id: str) -> bool:
        """Tell whether some batch of some job has this name at the service."""
        return await self._read(partial(reads.names, remote_id=remote_id))

    async def owner(self, job: str, remote_id: str) -> int | None:
        """Return the sequence of the batch that has this name at the service; None if none of the job has it."""
        return await self._read(partial(reads.owner, name=job, remote_id=remote_id))

    async def last_settled_at(self, job: str) -> float:
        """Return when a batch of the job was settled last, in Unix seconds; 0 if none was."""
        return await self._read(partial(reads.last_settled_at, name=job))

    async def divided(self, job: str) -> AsyncIterator[Batch]:
        """Yield the batches, and the parts, in whose place parts stand."""
        after = -1
        while page := await self._read(partial(reads.split, name=job, after=after)):
            for batch, _ in page:
                yield batch
            after = page[-1][0].sequence

    async def settlement(self, job: str, sequence: int) -> Settlement | None:
        """Return the fate of a settled batch's records; None before that."""
        return await self._read(partial(reads.settlement, name=job, sequence=sequence))

    async def settlements(self, job: str, sequences: Sequence[int]) -> Mapping[int, Settlement]:
        """Return the fates of the records of some batches, those that are settled, by sequence."""
        return await self._read(partial(reads.settlements, name=job, sequences=sequences))

    async def partly_uncertain(self, job: str) -> AsyncIterator[tuple[Batch, Settlement]]:
        """Yield the settled batches of some of whose records nobody knows, with the fate of each record."""
        after = -1
        while page := await self._read(partial(reads.partly_uncertain, name=job, after=after)):
            for pair in page:
                yield pair
            after = page[-1][0].sequence

    async def kept(self, job: str, sequence: int) -> Kept:
        """Return what a batch's row counts, and the settlement that is kept of it, in whatever state it is.

        Raises:
            ValueError, TypeError, AttributeError: the settlement is not what the ledger writes.
        """
        return await self._read(partial(reads.kept, name=job, sequence=sequence))

    async def batch(self, job: str, sequence: int) -> tuple[Batch, Submission] | None:
        """Return a batch, or a part, and where it stands; None if there is none."""
        return await self._read(partial(reads.batch, name=job, sequence=sequence))

    async def batch_at(self, job: str, index: int) -> tuple[Batch, Submission] | None:
        """Return the batch that holds the record with this index; None if that was not read."""
        return await self._read(partial(reads.batch_at, name=job, index=index))

    async def count_rejects(self, job: str) -> int:
        """Count the rejects of a job, wherever they stand."""
        return await self._read(partial(reads.count_rejects, name=job))

    async def count_unproven(self, job: str) -> int:
        """Count the created records of a job whose id may be that of another record of their batch."""
        return await self._read(partial(reads.count_unproven, name=job))

    async def loose_rows(self, job: str) -> Sequence[str]:
        """Say of which rows one half is missing: of this job's batches, and of any table's."""
        return await self._read(partial(reads.loose_rows, name=job))

    async def rejects(self, job: str, start: int, stop: int) -> Sequence[Reject]:
        """Return the local rejects with start ≤ index < stop, by index."""
        return await self._read(partial(reads.rejects, name=job, start=start, stop=stop))

    async def tally(self, job: str) -> Tally:
        """Count a job's records by fate and its batches by state."""
        return await self._read(partial(reads.tally, name=job))

    async def forget_orphan(self, job: str, remote_id: str) -> None:
        """Remember no longer what is gone from the service."""
        await self._writer.write(partial(writes.forget_orphan, name=job, remote_id=remote_id))

    async def orphans(self, job: str) -> Sequence[str]:
        """Return remote ids that were staged and given up; they are empty."""
        return await self._read(partial(reads.orphans, name=job))

    async def close(self) -> None:
        """Write what is queued and let go of the file; closing again does nothing."""
        self._writer.stop()
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        """Close the writer last: the connection that is left alone folds the WAL into the file and removes it."""
        self._reading.shutdown()
        self._reader.close()
        self._writer.join()

    async def _read(self, question: Callable[[apsw.Connection], T]) -> T:
        self._writer.check_open()
        loop = asyncio.get_running_loop()
        with mapped_errors(self._path):
            return await loop.run_in_executor(self._reading, question, self._reader)

    def _lock_path(self, job: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{check_job_name(job)}.lock")


def _connect(opening: connections.Opening) -> tuple[Path, apsw.Connection, apsw.Connection]:
    """Return where the ledger really is (a lock must be one file, whichever link leads here) and two connections."""
    with mapped_errors(opening.path):
        opening = replace(opening, path=opening.path.resolve())
        writer = connections.open_writer(opening)
        try:
            return opening.path, writer, connections.open_reader(opening)
        except BaseException:
            writer.close()
            raise
