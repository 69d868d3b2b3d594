"""What every ledger does: the durable memory of jobs, as the rest of the engine knows it.

Each store is one class in a module of its own, and passes `tests/unit/ledger/test_contract.py`. What was awaited is on
disk. Sequences are those of batches and of parts (`model/batch.py`), times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from engine.ledger.address import LedgerAddress
from engine.model.batch import ROOTS, Batch
from engine.model.job import Job, JobState
from engine.model.outcome import Holding, Kept, LaterFate, Settlement, Tally
from engine.model.record import Keyed, Reject, Skipped, Taken, Why
from engine.model.runs import PastAudit, PastRun, Sample, Standing
from engine.model.shard import LeaseTerms, Shard, ShardCounts, Worker
from engine.model.submission import State, Submission


class Ledger(Protocol):
    """The durable memory of jobs. A method returns once what it wrote is on disk, and what was asked for before it.

    Without `wait` it returns at once; if such a step is refused, `written` says so, and so do later ones of its batch.

    Raises:
        JobError: there is no job of that name; so every method that takes the name of a job, except for locks.
        LedgerError: it cannot be written or read, was closed, or what is to be written contradicts what it holds.
    """

    async def create_job(self, job: Job, *, seen: Collection[str] | None = None, origins: Sequence[int] = ()) -> None:
        """Remember a new job; the time is now if it names none. `seen`: names of jobs, only if there are no others.

        `origins`: of a retry, for each of its records in their order, which record of the parent it is.

        Raises:
            JobError: the name is taken.
            OtherJobs: there is a job that is not among those `seen`: it was made meanwhile.
            LedgerError: a record of the parent is there twice.
        """

    async def job(self, name: str) -> Job:
        """Return a job. Raises: JobError: it is half removed, or there is none, naming those there are."""

    async def jobs(self) -> Sequence[Job]:
        """Return all jobs, newest first."""

    async def set_job_state(self, name: str, state: JobState, *, expected: JobState | None = None) -> None:
        """Remember where the job stands; `expected`: only if it stands there."""

    async def set_learnt(self, name: str, learnt: str) -> None:
        """Remember what the service told of itself before anything was frozen."""

    async def note_slowest_start(self, job: str, seconds: float) -> None:
        """Remember that an answered release took `seconds` to leave *waiting*, if no other of the job took longer."""

    async def note_lost_stage(self, job: str) -> None:
        """Count a call that makes something at the service without releasing it, and whose answer was lost."""

    async def set_config(self, name: str, config: str) -> None:
        """Remember the configuration with which the job goes on."""

    @property
    def address(self) -> LedgerAddress:
        """Where it is: `ledger.known` opens it there, in other processes too."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the job for this process; freed when it dies. Raises: JobLocked."""

    def lock_family(self, family: str) -> AbstractContextManager[None]:
        """Hold a family likewise, so that no two jobs of it are worked on at once. Raises: JobLocked."""

    def lock_nights(self, family: str) -> AbstractContextManager[None]:
        """Hold the nightly loads of a family likewise: from the end of the last one to the end of tonight's."""

    def is_locked(self, name: str) -> bool:
        """Return whether a process holds the job."""

    def check_lock(self, name: str) -> None:
        """Refuse to go on with a job that this process has locked, if the lock was lost with the connection.

        Raises:
            LeaseLost: another process has locked it meanwhile, as far as is known here.
        """

    async def freeze(  # noqa: PLR0913 - all of one step of reading
        self,
        job: str,
        batches: Sequence[Batch],
        rejects: Sequence[Reject],
        *,
        last: bool,
        skips: Sequence[Skipped] = (),
        taken: Sequence[Taken] = (),
        keys: Sequence[Keyed] = (),
    ) -> None:
        """Remember batches (as FROZEN; those of no records as SETTLED), rejects and skips.

        `last`: the sources end here. `taken`: the records that go up, as the family knows them from then on. `keys`:
        the user's own, by index, where the family knows its records by them.

        Raises:
            LedgerError: they do not start at sequence 0, offset 0, record 0, or where the batch frozen last ends.
        """

    @property
    def shares_jobs(self) -> bool:
        """Whether several processes may send a job of it together: then batches move under leases of shards only."""

    async def open_shards(self, job: str, *, parked: bool = False) -> None:
        """Make shards of the batches that are in none, and let workers take again what earlier ones have left.

        `parked`: and what was parked. For who holds the job's lock.
        """

    async def withhold_shards(self, job: str) -> None:
        """Let nobody take the shards that nobody has before the next run of the job: a limit was met."""

    async def end_leases(self, job: str) -> None:
        """End the leases of workers that are over: they cannot be renewed any more, and anybody may take the shards.

        Until then a worker that was cut off for a while has them still.
        """

    async def take_shards(self, job: str, terms: LeaseTerms, most: int, *, over: bool = True) -> Sequence[Shard]:
        """Take the leases of shards that nobody has or, if `over`, that other workers have lost.

        What was lost with too many workers is parked.

        Raises:
            LeaseLost: one of them is a shard that this process still works on: others have had it meanwhile.
        """

    async def renew_shards(self, job: str, terms: LeaseTerms) -> None:
        """Let all leases of a worker last from now on; those whose shards are done are ended.

        Raises:
            LeaseLost: another worker has taken one of them over.
        """

    async def give_back_shards(self, job: str, terms: LeaseTerms, *, left: bool) -> None:
        """End the leases of a worker that goes. `left`: nobody shall take them before the next run of the job.

        Once it has given them back, `written` tells no more of steps that were refused for a lease that was lost.
        """

    def check_lease(self, job: str, sequence: int) -> None:
        """Refuse a call about a batch that could end after its lease, by this process's clock.

        Raises:
            LeaseLost: it could.
        """

    async def shards(self, job: str) -> Sequence[Shard]:
        """Return the shards of a job, in order; none where nobody shared it."""

    async def count_shards(self, job: str, worker: str) -> ShardCounts:
        """Count the shards of a job that are not at their end, as a worker sees them."""

    async def workers(self, job: str) -> Sequence[Worker]:
        """Return the workers of a job, oldest first."""

    async def revise(self, budget: str, change: Callable[[str | None, float], str]) -> None:
        """Change the state of a budget: its state, None if it has none, and the store's time → its new state.

        Nobody else changes it meanwhile. `change` may be called again, if the store was lost.
        """

    async def last_batch(self, job: str) -> Batch | None:
        """Return the batch frozen last."""

    async def move(
        self, job: str, submission: Submission, *, expected: State, unique: bool = False, wait: bool = True
    ) -> None:
        """Set a batch's submission; a remote id given up by staging again is kept among the orphans.

        Raises:
            LedgerError: it is not in state `expected`, the step is not in TRANSITIONS, or it leads to SETTLED or SPLIT.
            NameTaken: `unique`, and another batch of the job has its remote id.
        """

    async def settle(
        self, job: str, submission: Submission, settlement: Settlement, *, expected: State, wait: bool = True
    ) -> None:
        """Move a batch to SETTLED together with the fate of its records.

        Raises:
            LedgerError: as for `move`, or a record has no fate, or two.
        """

    async def split(self, job: str, submission: Submission, halves: tuple[Batch, Batch], *, expected: State) -> None:
        """Move a batch to SPLIT and freeze two parts that stand for it.

        Raises:
            LedgerError: as for `move`, or the parts do not cover exactly what the batch covers.
        """

    def batches(
        self, job: str, states: frozenset[State] | None = None, *, after: int = -1, last: int = ROOTS - 1
    ) -> AsyncIterator[tuple[Batch, Submission]]:
        """Yield batches with their submissions in the order of their records, parts in the place of what is split.

        They may move meanwhile: nothing is held open between two of them. `states`: only those in one of these.
        `after`: only those that come after the batch with this sequence. `last`: only those up to this one.
        """

    async def has_remote_id(self, remote_id: str) -> bool:
        """Return whether some batch of some job has this name at the service."""

    async def may_have_arrived(self, job: str) -> bool:
        """Return whether a release of a batch that counts as unsent may have arrived: of half of a lost one, say."""

    async def last_settled_at(self, job: str) -> float:
        """Return when a batch of the job was settled last, in Unix seconds; 0 if none was."""

    def split_batches(self, job: str) -> AsyncIterator[Batch]:
        """Yield the batches, and the parts, in whose place parts stand."""

    async def settlement(self, job: str, sequence: int) -> Settlement | None:
        """Return the fate of a settled batch's records; None before that."""

    async def settlements(self, job: str, sequences: Sequence[int]) -> Mapping[int, Settlement]:
        """Return the fates of the records of some batches, those that are settled on disk, by sequence.

        A step that nobody waits for is not waited for here, either: reports ask while others settle.
        """

    def partly_created(self, job: str, *, failed_later: bool = False) -> AsyncIterator[tuple[Batch, Settlement]]:
        """Yield the settled batches of which some record was not created, with the fate of each record.

        `failed_later`: also those of which a task was known to have failed when they were settled.
        """

    async def stored_fates(self, job: str, sequence: int) -> Kept:
        """Return what a batch's row counts, and the settlement that is kept of it, in whatever state it is.

        Raises:
            ValueError, TypeError, AttributeError: the settlement is not what the ledger writes.
        """

    async def batch(self, job: str, sequence: int) -> tuple[Batch, Submission] | None:
        """Return a batch, or a part, and where it stands; None if there is none."""

    async def batch_at(self, job: str, index: int) -> tuple[Batch, Submission] | None:
        """Return the batch that holds the record with this index; None if that was not read."""

    async def skips(self, job: str, start: int, stop: int) -> Sequence[Skipped]:
        """Return the skips with start ≤ index < stop, by index."""

    async def holders(self, skips: Sequence[Skipped]) -> Sequence[Sequence[Holding]]:
        """Return, for each record of some skips, what the other job has in its place."""

    async def count_skipped(self, job: str) -> int:
        """Count the skipped records of a job, wherever they stand."""

    async def held_back(self, job: str) -> Sequence[tuple[Why, str, int]]:
        """Return why, the other job and how many: the skipped records that the other job has not plainly created."""

    async def taken_over_by(self, job: str) -> str | None:
        """Return the job that has sent records which this one, canceled, had not sent; None if none has."""

    async def family_created(self, family: str) -> int:
        """Count the records that the jobs of a family have created."""

    async def count_rejects(self, job: str) -> int:
        """Count the rejects of a job, wherever they stand."""

    async def count_unproven(self, job: str) -> int:
        """Count the created records of a job whose id may be that of another record of their batch."""

    async def origins(self, job: str, start: int, stop: int) -> Mapping[int, int]:
        """Return which record of its parent each record with start ≤ index < stop is; those of which that is known."""

    async def parents(self, job: str, indexes: Sequence[int]) -> Mapping[int, int]:
        """Return the same of the records with these indexes."""

    async def retried_as(self, job: str, parent_index: int) -> int | None:
        """Return the index of the record that is this one of the job's parent; None if it is not in the job."""

    async def note_later(self, job: str, fates: Mapping[int, LaterFate | None]) -> None:
        """Remember, by index, what became of tasks of created records afterwards; None: forget what was known."""

    async def later_fates(self, job: str, start: int, stop: int) -> Mapping[int, LaterFate]:
        """Return, by index, what became of the tasks of records with start ≤ index < stop afterwards."""

    async def count_later(self, job: str) -> Mapping[str, int]:
        """Count the created records by what became of their tasks afterwards, as far as that is known."""

    async def last_later_at(self, job: str) -> float:
        """Return when such a thing became known last, in Unix seconds; 0 if nothing did."""

    async def inconsistent_rows(self, job: str) -> Sequence[str]:
        """Say of which rows one half is missing: of this job's batches, and of any table's."""

    async def rejects(self, job: str, start: int, stop: int) -> Sequence[Reject]:
        """Return the local rejects with start ≤ index < stop, by index."""

    async def tally(self, job: str) -> Tally:
        """Count a job's records by fate and its batches by state."""

    async def orphans(self, job: str) -> Sequence[str]:
        """Return remote ids that were staged and given up; they are empty."""

    async def forget_orphan(self, job: str, remote_id: str) -> None:
        """Remember no longer what is gone from the service."""

    async def add_run(self, job: str, run: PastRun) -> None:
        """Remember that a process begins to work on a job; whoever holds the job's lock numbers its runs."""

    async def set_run(self, job: str, run: PastRun) -> None:
        """Remember what a run has done so far, and how it ended if it did."""

    async def runs(self, job: str) -> Sequence[PastRun]:
        """Return the runs of a job, oldest first."""

    async def add_sample(self, job: str, run: int, sample: Sample) -> None:
        """Remember what a run did in the last seconds, unless the disk is nearly full."""

    async def thin_samples(self, job: str, run: int) -> None:
        """Forget every second sample of a run; the newest one stays."""

    async def samples(self, job: str, run: int) -> Sequence[Sample]:
        """Return the samples of a run, oldest first."""

    async def keep_audit(self, job: str, found: PastAudit) -> None:
        """Remember what an audit of a job found, in the place of what the one before did."""

    async def last_audit(self, job: str) -> PastAudit | None:
        """Return what the last audit of a job found; None if there was none."""

    async def standing(self, load: str) -> Standing:
        """Return how the runs of a load went: of a family's jobs or, where none is of that family, of the job so named.

        Runs of commands that load nothing do not count. No error if there is no such load: then no run of it has ended.
        """

    async def last_step_at(self, job: str) -> float:
        """Return when the job was made, or a batch of it moved last, in Unix seconds."""

    async def needed(self) -> Mapping[str, str]:
        """Return the jobs that others of the ledger need, with the reason in words.

        A family knows its records by what such a job holds, or skipped records are told by it.
        """

    async def remove(self, job: str) -> bool:
        """Remove some of what the ledger has of a job in state REMOVED, in one small transaction.

        Return whether nothing is left, the job itself neither. Call it again and again; whoever is killed in between
        leaves a ledger that is whole for all other jobs.

        Raises:
            LedgerError: the job is in another state.
        """

    async def free_bytes(self) -> int:
        """Return how much of the store is empty: later jobs use it again."""

    async def back_up(self, to: Path) -> None:
        """Copy the ledger as it is at this moment into a new file, for its owner only; who writes goes on meanwhile.

        Raises:
            LedgerError: there is such a file already, or it cannot be written.
        """

    async def written(self) -> None:
        """Return once every step is on disk that nobody waited for. Raises: LedgerError, if one is not."""

    async def close(self) -> None:
        """Write what is queued and let go of the store; closing again does nothing."""
