# ruff: noqa: D102 - what each method does stands once, in base.py
"""What every `Ledger` in an SQL database has in common; sqlite.py and postgres.py say how each is opened and locked.

    await move(…) ─ take_steps ─ group ─ writer thread ─ COMMIT ─ future        writer.py
    await tally(…) ── _fetch ─────────── reader thread ─ SELECT ─ future

Two connections, one to write and one to read. A read sees all that was asked for before it. The functions below the
class run in the reader's thread. The module is a long one, since `Ledger` has so many methods; most are one call of a
named query.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import Any, TypeVar

import anyio
import orjson
from msgspec import Struct

from engine.clock import Clock
from engine.ledger import rows
from engine.ledger.base import Ledger
from engine.ledger.connection import NAMES_SHOWN, Connection, job_id
from engine.ledger.known import KnownRecords
from engine.ledger.operations import (
    NO_TOKEN,
    Revision,
    create_job,
    freeze,
    give_back_shards,
    note_later,
    open_shards,
    remove_rows,
    renew_shards,
    revise,
    split_batch,
    take_shards,
    take_steps,
    update_job,
)
from engine.ledger.writer import Writer
from engine.model.batch import ROOTS, Batch, batch_name
from engine.model.errors import BulkSubmitError, DamagedRow, JobError, LeaseLost, LedgerAway
from engine.model.job import Job, JobState
from engine.model.outcome import Holding, Kept, LaterFate, Settlement, Tally
from engine.model.record import Keyed, Reject, Skipped, Taken, Why
from engine.model.runs import LOADING_NOTHING, PastAudit, PastRun, Sample, Standing
from engine.model.shard import LeaseTerms, Shard, ShardCounts, ShardState, Worker
from engine.model.submission import State, Submission

T = TypeVar("T")

_PAGE_BATCHES = 200
_PAGE_SPANS_BYTES = 4 * 1024 * 1024
"""A page ends at either limit: 200 batches of 1,000 records have 1.6 MB of spans; far larger ones fill no memory."""
_LAST_SEQUENCE = 2**63 - 1
"""Of parts; those of batches are below ROOTS."""


class SqlLedger(Ledger):
    """The durable memory of jobs in a database."""

    def __init__(self, clock: Clock, writer: Writer, reader: Connection) -> None:
        self._clock = clock
        self._writer = writer
        self._reader = reader
        self._reading = ThreadPoolExecutor(1, "ledger-reader")
        self._known: KnownRecords | None = None
        """Of the reader's thread, once something was skipped."""
        self._leases: dict[str, _Leases] = {}
        """Of the jobs that this process sends together with others."""

    # Jobs

    async def create_job(self, job: Job, *, seen: Collection[str] | None = None, origins: Sequence[int] = ()) -> None:
        await self._writer.write(partial(create_job, job=job, now=self._clock.now(), seen=seen, origins=origins))

    async def job(self, name: str) -> Job:
        (job,) = await self._rows("jobs", rows.to_job, name)
        if job.state is JobState.REMOVED:
            raise JobError(f"job {name!r} is being removed, or a prune was ended: `bulksubmit prune` takes the rest")
        return job

    async def jobs(self) -> Sequence[Job]:
        return await self._rows("jobs", rows.to_job, None)

    async def set_job_state(self, name: str, state: JobState, *, expected: JobState | None = None) -> None:
        await self._update("set_job_state", name, state=state, expected=expected)

    async def set_learnt(self, name: str, learnt: str) -> None:
        await self._update("set_learnt", name, learnt=learnt)

    async def note_slowest_start(self, job: str, seconds: float) -> None:
        await self._update("note_slowest_start", job, seconds=seconds)

    async def note_lost_stage(self, job: str) -> None:
        await self._update("note_lost_stage", job)

    async def set_config(self, name: str, config: str) -> None:
        await self._update("set_config", name, config=config)

    async def forget_orphan(self, job: str, remote_id: str) -> None:
        await self._update("forget_orphan", job, remote_id=remote_id)

    # Batches and their steps

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
        await self._writer.write(
            partial(
                freeze,
                name=job,
                batches=batches,
                rejects=rejects,
                now=self._clock.now(),
                last=last,
                skips=skips,
                taken=taken,
                keys=keys,
                shared=self.shares_jobs,
                locks=self._locks_held(),
            )
        )

    def _locks_held(self) -> Mapping[str, int]:
        """Return the tokens of the locks that others could have taken meanwhile: none where that cannot be."""
        return {}

    async def move(
        self, job: str, submission: Submission, *, expected: State, unique: bool = False, wait: bool = True
    ) -> None:
        lease = self._lease(job, submission.sequence)
        step = rows.BatchStep("move", job, submission, expected, self._clock.now(), unique=unique, lease=lease)
        await self._writer.write(take_steps, step, wait=wait)

    async def settle(
        self, job: str, submission: Submission, settlement: Settlement, *, expected: State, wait: bool = True
    ) -> None:
        lease = self._lease(job, submission.sequence)
        step = rows.BatchStep("settle", job, submission, expected, self._clock.now(), settlement, lease=lease)
        await self._writer.write(take_steps, step, wait=wait)

    async def split(self, job: str, submission: Submission, halves: tuple[Batch, Batch], *, expected: State) -> None:
        lease = self._lease(job, submission.sequence)
        step = rows.BatchStep("split", job, submission, expected, self._clock.now(), halves=halves, lease=lease)
        await self._writer.write(partial(split_batch, step=step))

    def check_lock(self, name: str) -> None:
        """Do nothing: the lock of a file is lost with the process only."""

    # Shards

    async def open_shards(self, job: str, *, parked: bool = False) -> None:
        await self._writer.write(partial(open_shards, name=job, parked=parked))

    async def withhold_shards(self, job: str) -> None:
        await self._update("withhold_shards", job)

    async def end_leases(self, job: str) -> None:
        await self._update("end_leases", job, store_now=self._clock.now())

    async def take_shards(self, job: str, terms: LeaseTerms, most: int, *, over: bool = True) -> Sequence[Shard]:
        taken: list[Shard] = []
        asked_at = self._clock.monotonic()
        leases = self._leases.setdefault(job, _Leases(terms))
        bindings = {"worker": terms.worker, "seconds": terms.seconds, "limit": most, "over": over}
        bindings["store_now"] = self._clock.now()

        def waited() -> float:
            return self._clock.monotonic() - asked_at

        await self._writer.write(partial(take_shards, name=job, taken=taken, bindings=bindings, waited=waited))
        if lost := leases.shards.keys() & {shard.first for shard in taken}:  # others have had and left what was ours
            raise LeaseLost.of(job, min(lost))
        until = asked_at + terms.seconds
        leases.until = min(leases.until, until) if leases.shards else until  # those before were taken earlier
        leases.shards.update((shard.first, shard) for shard in taken)
        return taken

    async def renew_shards(self, job: str, terms: LeaseTerms) -> None:
        kept: dict[str, Any] = {}
        leases = self._leases.setdefault(job, _Leases(terms))
        ours = set(leases.shards)
        bindings = {"worker": terms.worker, "seconds": terms.seconds, "store_now": self._clock.now()}
        clock = self._clock.monotonic
        await self._writer.write(partial(renew_shards, name=job, kept=kept, bindings=bindings, clock=clock))
        if lost := (ours & leases.shards.keys()) - kept["renewed"]:  # but for those that another renewal has ended
            raise LeaseLost.of(job, min(lost))
        if ours >= leases.shards.keys():  # one that was taken meanwhile may have come after the renewal
            leases.until = kept["asked_at"] + terms.seconds
        for first in kept["done"]:
            leases.shards.pop(first, None)

    async def give_back_shards(self, job: str, terms: LeaseTerms, *, left: bool) -> None:
        given_back = {"worker": terms.worker, "left": left}
        try:
            await self._writer.write(partial(give_back_shards, name=job, bindings=given_back))
        finally:
            self._leases.pop(job, None)
            self._writer.forget(LeaseLost)

    def check_lease(self, job: str, sequence: int) -> None:
        leases = self._leases.get(job)
        if leases is not None and self._clock.monotonic() + leases.terms.call_seconds > leases.until:
            raise LeaseLost.of(job, sequence % ROOTS)

    def _lease(self, job: str, sequence: int) -> tuple[int, int] | None:
        if not self.shares_jobs:
            return None
        if job not in self._leases:
            return sequence % ROOTS, NO_TOKEN
        shard = self._leases[job].of(sequence)
        if shard is None:
            raise LeaseLost.of(job, sequence % ROOTS)
        return shard.first, shard.token

    async def shards(self, job: str) -> Sequence[Shard]:
        return await self._rows("shards", _to_shard, job)

    async def count_shards(self, job: str, worker: str) -> ShardCounts:
        (counts,) = await self._rows("count_shards", ShardCounts, job, worker=worker, store_now=self._clock.now())
        return counts

    async def workers(self, job: str) -> Sequence[Worker]:
        return await self._rows("workers", Worker, job, store_now=self._clock.now())

    async def revise(self, budget: str, change: Revision) -> None:
        await self._writer.write(partial(revise, name=budget, change=change, now=self._clock.now()))

    # Reading

    async def last_batch(self, job: str) -> Batch | None:
        found = await self._rows("last_batch", rows.to_batch, job)
        return found[0] if found else None

    async def batches(
        self, job: str, states: frozenset[State] | None = None, *, after: int = -1, last: int = ROOTS - 1
    ) -> AsyncIterator[tuple[Batch, Submission]]:
        wanted = frozenset(State) if states is None else states
        # Those that are split are among them always: their parts may be in one of the states.
        bindings = {"states": _array(wanted | {State.SPLIT}), "last": last}
        pages = self._pages("batches", rows.to_submitted, job, after, **bindings)
        async for batch, submission in pages:
            if submission.state is not State.SPLIT:
                yield batch, submission
                continue
            parts: dict[str, Any] = {"sequence": batch.sequence, "states": _array(wanted - {State.SPLIT})}
            for part in await self._rows("parts", rows.to_submitted, job, **parts):
                yield part

    async def split_batches(self, job: str) -> AsyncIterator[Batch]:
        states = _array(frozenset({State.SPLIT}))
        async for batch, _ in self._pages("batches", rows.to_submitted, job, states=states, last=_LAST_SEQUENCE):
            yield batch

    def partly_created(self, job: str, *, failed_later: bool = False) -> AsyncIterator[tuple[Batch, Settlement]]:
        return self._pages("partly_created", rows.to_settled, job, failed_later=failed_later)

    async def origins(self, job: str, start: int, stop: int) -> Mapping[int, int]:
        return dict(await self._rows("origins", _pair, job, start=start, stop=stop))

    async def parents(self, job: str, indexes: Sequence[int]) -> Mapping[int, int]:
        return dict(await self._rows("parents", _pair, job, indexes=orjson.dumps(list(indexes)).decode()))

    async def retried_as(self, job: str, parent_index: int) -> int | None:
        found = await self._rows("retried_as", int, job, parent_index=parent_index)
        return found[0] if found else None

    async def batch(self, job: str, sequence: int) -> tuple[Batch, Submission] | None:
        found = await self._rows("batch", rows.to_submitted, job, sequence=sequence)
        return found[0] if found else None

    async def batch_at(self, job: str, index: int) -> tuple[Batch, Submission] | None:
        found = await self._rows("batch_at", rows.to_submitted, job, record_index=index)
        return found[0] if found else None

    async def has_remote_id(self, remote_id: str) -> bool:
        return bool(await self._rows("names", int, None, remote_id=remote_id))

    async def may_have_arrived(self, job: str) -> bool:
        return bool(await self._rows("may_have_arrived", int, job))

    async def last_settled_at(self, job: str) -> float:
        (at,) = await self._rows("last_settled_at", float, job)
        return at

    async def settlement(self, job: str, sequence: int) -> Settlement | None:
        await self._caught_up()
        return (await self.settlements(job, [sequence])).get(sequence)

    async def settlements(self, job: str, sequences: Sequence[int]) -> Mapping[int, Settlement]:
        wanted = orjson.dumps(list(sequences)).decode()
        return dict(await self._rows("settlements", rows.to_numbered_settlement, job, at_once=True, sequences=wanted))

    async def stored_fates(self, job: str, sequence: int) -> Kept:
        (kept,) = await self._rows("kept", rows.to_kept, job, sequence=sequence)
        return kept

    async def rejects(self, job: str, start: int, stop: int) -> Sequence[Reject]:
        return await self._rows("rejects", Reject, job, start=start, stop=stop)

    async def skips(self, job: str, start: int, stop: int) -> Sequence[Skipped]:
        return await self._rows("skips", rows.to_skip, job, start=start, stop=stop)

    async def holders(self, skips: Sequence[Skipped]) -> Sequence[Sequence[Holding]]:
        return await self._ask(self._holdings, skips) if skips else []

    def _holdings(self, _reader: Connection, skips: Sequence[Skipped]) -> Sequence[Sequence[Holding]]:
        self._known = self._known or KnownRecords(self.address)
        return [self._known.holdings(skip) for skip in skips]

    async def count_skipped(self, job: str) -> int:
        (count,) = await self._rows("count_skipped", int, job)
        return count

    async def held_back(self, job: str) -> Sequence[tuple[Why, str, int]]:
        return await self._rows("held_back", lambda why, other, count: (Why(why), other, count), job)

    async def taken_over_by(self, job: str) -> str | None:
        found = await self._rows("taken_over", str, job)
        return found[0] if found else None

    async def family_created(self, family: str) -> int:
        (count,) = await self._rows("family_created", int, None, family=family)
        return count

    async def count_rejects(self, job: str) -> int:
        (count,) = await self._rows("count_rejects", int, job)
        return count

    async def count_unproven(self, job: str) -> int:
        (count,) = await self._rows("count_unproven", int, job)
        return count

    async def note_later(self, job: str, fates: Mapping[int, LaterFate | None]) -> None:
        await self._writer.write(partial(note_later, name=job, fates=fates))

    async def later_fates(self, job: str, start: int, stop: int) -> Mapping[int, LaterFate]:
        return dict(await self._rows("later_fates", _numbered_later, job, at_once=True, start=start, stop=stop))

    async def count_later(self, job: str) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for fate, number in await self._rows("count_later", lambda *columns: columns, job):
            counts[fate] += number
        return counts

    async def last_later_at(self, job: str) -> float:
        (at,) = await self._rows("last_later_at", float, job)
        return at

    async def tally(self, job: str) -> Tally:
        return rows.to_tally(await self._rows("tally", lambda *columns: columns, job))

    async def orphans(self, job: str) -> Sequence[str]:
        return await self._rows("orphans", str, job)

    async def inconsistent_rows(self, job: str) -> Sequence[str]:
        bare = await self._rows("batches_without_spans", int, job, limit=NAMES_SHOWN)
        badly_split = await self._rows("badly_split", batch_name, job, limit=NAMES_SHOWN)
        hanging = Counter(
            await self._rows("inconsistent_rows", lambda table, _row, parent, _key: (table, parent), None)
        )
        return [
            *(f"batch {sequence} has no row in spans" for sequence in bare),
            *(f"batch {name} is split, and its halves are not where it was" for name in badly_split),
            *(f"{count} rows of {table} belong to no row of {parent}" for (table, parent), count in hanging.items()),
        ]

    # Runs

    async def add_run(self, job: str, run: PastRun) -> None:
        await self._update("add_run", job, **rows.run_row(run))

    async def set_run(self, job: str, run: PastRun) -> None:
        await self._update("set_run", job, **rows.run_row(run))

    async def runs(self, job: str) -> Sequence[PastRun]:
        return await self._rows("runs", rows.to_run, job)

    async def add_sample(self, job: str, run: int, sample: Sample) -> None:
        await self._update("add_sample", job, run=run, at=sample.at, figures=rows.as_kept(sample))

    async def thin_samples(self, job: str, run: int) -> None:
        await self._update("thin_samples", job, run=run)

    async def samples(self, job: str, run: int) -> Sequence[Sample]:
        return await self._rows("samples", rows.to_sample, job, run=run)

    async def keep_audit(self, job: str, found: PastAudit) -> None:
        await self._update("keep_audit", job, verdict=rows.as_kept(found))

    async def last_audit(self, job: str) -> PastAudit | None:
        found = await self._rows("last_audit", rows.to_past_audit, job)
        return found[0] if found else None

    async def standing(self, load: str) -> Standing:
        nothing = orjson.dumps(sorted(LOADING_NOTHING)).decode()
        (standing,) = await self._rows("load_standing", Standing, None, load=load, loading_nothing=nothing)
        return standing

    async def last_step_at(self, job: str) -> float:
        (at,) = await self._rows("last_step_at", float, job)
        return at

    async def needed(self) -> Mapping[str, str]:
        return dict(await self._rows("needed", lambda name, why: (name, why), None))

    async def remove(self, job: str) -> bool:
        await self._writer.write(partial(remove_rows, name=job))
        return not await self._rows("is_there", int, None, name=job)

    # The two threads

    async def _update(self, query: str, name: str, **bindings: Any) -> None:
        await self._writer.write(partial(update_job, query=query, name=name, bindings=bindings))

    async def _pages(
        self, query: str, make: Callable[..., tuple[Batch, T]], job: str, after: int = -1, **bindings: Any
    ) -> AsyncIterator[tuple[Batch, T]]:
        """Yield what stands beside batches, in their order. Nothing is held open between two pages."""
        while page := await self._ask(_page, query, make, job, bindings | {"after": after}):
            for pair in page:
                yield pair
            after = page[-1][0].sequence

    async def _rows(
        self, query: str, make: Callable[..., T], job: str | None, *, at_once: bool = False, **bindings: Any
    ) -> list[T]:
        """Return what `make` makes of the columns of each row of a query, about one job or about all.

        `at_once`: of what is on disk already.
        """
        ask = self._ask_at_once if at_once else self._ask
        return await ask(_fetch, query, make, job, bindings)

    async def _ask(self, question: Callable[..., T], *details: Any) -> T:
        """Run `question` on the connection that reads, in its thread, once all is on disk that came before it."""
        await self._caught_up()
        return await self._ask_at_once(question, *details)

    async def _caught_up(self) -> None:
        self._writer.check_open()
        with suppress(BulkSubmitError):  # told to whoever waits for a step; what is on disk can be read all the same
            await self._writer.written()

    async def _ask_at_once(self, question: Callable[..., T], *details: Any) -> T:
        """Do as `_ask`, but of what is on disk already."""
        self._writer.check_open()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, question, self._reader, *details)

    async def written(self) -> None:
        await self._writer.written()

    async def close(self) -> None:
        self._writer.stop()
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        """Close the writer last: the connection that is left alone folds the WAL into the file and removes it."""
        self._reading.shutdown()
        self._reader.close()
        if self._known is not None:
            self._known.close()
        self._writer.join()


class _Leases(Struct):
    """What this process may write of a job that it shares."""

    terms: LeaseTerms
    until: float = -math.inf
    """Monotonic seconds: from then on another worker may have them."""
    shards: dict[int, Shard] = {}
    """By the sequence of their first batch."""

    def of(self, sequence: int) -> Shard | None:
        """Return the shard of a batch, or of a part of one."""
        root = sequence % ROOTS
        found = (shard for shard in self.shards.values() if shard.first <= root <= shard.last)
        return next(found, None)


def _to_shard(first: int, last: int, state: str, *rest: Any) -> Shard:
    return Shard(first, last, ShardState(state), *rest)


def _fetch(
    connection: Connection, query: str, make: Callable[..., T], job: str | None, bindings: Mapping[str, Any]
) -> list[T]:
    key = None if job is None else job_id(connection, job)
    return [_made(make, columns) for columns in connection.fetch(query, {"job": key, **bindings})]


def _page(
    connection: Connection,
    query: str,
    make: Callable[..., tuple[Batch, T]],
    job: str,
    bindings: Mapping[str, Any],
) -> list[tuple[Batch, T]]:
    """Do as `_fetch`, but return no more than a page; [] at the end."""
    bindings = {"job": job_id(connection, job), "limit": _PAGE_BATCHES, **bindings}
    try:
        return _read_page(connection, query, make, bindings)
    except LedgerAway:  # in the middle of it; opened anew, it yields all of the page
        return _read_page(connection, query, make, bindings)


def _read_page(
    connection: Connection, query: str, make: Callable[..., tuple[Batch, T]], bindings: Mapping[str, Any]
) -> list[tuple[Batch, T]]:
    page: list[tuple[Batch, T]] = []
    held = 0
    with closing(connection.stream(query, bindings)) as found:
        for row in found:
            page.append(_made(make, row))
            held += len(page[-1][0].spans)
            if held >= _PAGE_SPANS_BYTES:
                break
    return page


def _made(make: Callable[..., T], columns: Sequence[Any]) -> T:
    """Return what `make` makes of a row.

    Raises:
        DamagedRow: its columns are not what a ledger writes.
    """
    try:
        return make(*columns)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise DamagedRow(f"a row of the ledger holds what no bulksubmit writes ({error}): put a backup back") from error


def _numbered_later(index: int, *columns: Any) -> tuple[int, LaterFate]:
    return index, LaterFate(*columns)


def _pair(first: int, second: int) -> tuple[int, int]:
    return first, second


def _array(states: frozenset[State]) -> str:
    return orjson.dumps(sorted(states)).decode()
