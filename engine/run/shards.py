"""The shards of a job that this process sends, where several send it together: taken, kept while it works, given back.

    planner ─ freezes ─> shards ─ take ─> this worker's pipeline ─ end, give back ─> done, left, or open for others

Whoever holds the job's lock plans, too. What a worker has it has for some time only, and renews that while it lives.
If it cannot, because it was stopped or is cut off from the ledger, it ends its run, for another worker may have taken
over: the ledger refuses its steps from then on, and `check_lease` each call before it goes out.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.clock import Clock
from engine.ledger.base import Ledger
from engine.model.batch import ROOTS
from engine.model.errors import Interrupted, JobCanceled, JobError, LeaseLost, LedgerError, SendingEnded, Stopped
from engine.model.job import Job, JobState
from engine.model.settings import SendSettings
from engine.model.shard import AWAY_SECONDS, LeaseTerms, Shard
from engine.progress.events import JobTallied, Listener, Noticed, unheard
from engine.progress.text import missed_words
from engine.run.context import Stop, beside
from engine.run.queues import Signal

_SLACK_SECONDS = (5.0, 60.0)
"""A lease is longer than the longest call by as much, within these bounds: so long may the ledger be away."""
_RENEW_SECONDS = 2.0
"""Between two renewals, a third of the slack at most. Others hear by it of shards that are done."""
_TALLY_SECONDS = (2.0, 60.0)
"""Between two tallies, at least and at most."""
_TALLY_SHARE = 0.02
"""Of the time that the store tallies for one worker: a tally of a million batches takes it 0.4 s."""
_FREE_SHARDS = 2
"""For each worker, of those that nobody has: no more is read before some were taken."""
_LOOK_SECONDS = 0.5
"""Between two looks whether something can be taken; a worker that plans itself looks at once."""


def lease_terms(settings: SendSettings, worker: str = "") -> LeaseTerms:
    """Return how a worker has its leases, by how long a call may take."""
    call = settings.longest_call_seconds
    least, most = _SLACK_SECONDS
    return LeaseTerms(worker or worker_name(), call + min(max(call, least), most), call)


def worker_name() -> str:
    """Return a name that no other worker has, and by which people find the process."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


async def tell_tally(job: Job, ledger: Ledger, clock: Clock, emit: Listener) -> None:
    """Tell what all workers of a job have done, again and again until canceled."""
    while True:
        began = clock.monotonic()
        with suppress(LedgerError):  # it is away
            emit(await tallied(job, ledger))
        least, most = _TALLY_SECONDS
        await clock.sleep(min(max((clock.monotonic() - began) / _TALLY_SHARE, least), most))


async def tallied(job: Job, ledger: Ledger) -> JobTallied:
    """Return what all workers of a job have done. Raises: LedgerError."""
    last = await ledger.last_batch(job.name)
    return JobTallied(await ledger.tally(job.name), last.end.offset if last else 0)


class _Limit(Struct, frozen=True, omit_defaults=True):
    """What the ledger keeps of what all workers of a job may send in a run."""

    most: int | None = None
    """Records that this run may send; None: all there are."""
    sent: int = 0
    """Of those, where there is a limit."""
    over: str = ""
    """Why nothing more is sent."""
    again: Sequence[int] = ()
    """Sequences of the batches that a person has sent again, of shards that nobody has taken since."""


class Shards:
    """What one worker has of one job."""

    def __init__(  # noqa: PLR0913 - what a lease depends on
        self,
        job: Job,
        ledger: Ledger,
        clock: Clock,
        stop: Stop,
        terms: LeaseTerms,
        *,
        plans: bool,
        has_places: Callable[[], bool] = lambda: True,
        again: set[int] | None = None,
        emit: Listener = unheard,
    ) -> None:
        """`plans`: this worker freezes the job's batches, and goes last.

        `has_places`: whether it may send any batch now; without, it leaves shards to the others. `again`: sequences of
        the batches that a person has sent again, of the shards that it has: whoever takes one gets them with it.
        """
        self.plans = plans
        self._job = job
        self._ledger = ledger
        self._clock = clock
        self._stop = stop
        self._terms = terms
        self._has_places = has_places
        self._again = set[int]() if again is None else again
        self._emit = emit
        self._told_missed: set[str] = set()
        self._answered = clock.monotonic()
        """When the ledger answered last."""
        self._back_since = -math.inf
        """Since when it does, if it was away."""
        self._taken: list[Shard] = []
        self._frozen = Signal()
        self._most_records: int | None = None
        """That all workers may send together, as of the last shard that was taken."""

    async def begin(self, most: int | None, sent: int, *, keep: bool) -> None:
        """Begin a run of the job: let workers take what earlier ones have left, and say how much all of them may send.

        No more records than `most`, of which some were sent; None: all there are. `keep`: this run goes on for another
        one, whose limit holds on, if it had any.
        """
        mine = _Limit(most, sent, again=sorted(self._again))
        limit = await self._revise(lambda limit: limit if keep and limit != _Limit() else mine)
        self._most_records = limit.most
        self._again.clear()
        await self._ledger.open_shards(self._job.name)

    async def count_records(self, records: int, *, least: int = 0) -> tuple[bool, int, int | None]:
        """Count records as sent by all workers, if so many may still be sent, and `least` of them at all.

        Return whether they may, how many were sent, and the limit.
        """
        if self._most_records is None:
            return True, 0, None
        may = True

        def counted(limit: _Limit) -> _Limit:
            nonlocal may
            may = limit.most is None or limit.sent + max(records, least) <= limit.most
            return replace(limit, sent=limit.sent + (records if may else 0))

        limit = await self._revise(counted)
        return may, limit.sent, limit.most

    async def end_with_all(self) -> None:
        """If nothing more is to be sent by anybody, have the others end, too, and wait until they have."""
        while self.plans and self._is_limited:
            await self._hold_all_back()
            counts = await self._ledger.count_shards(self._job.name, self._terms.worker)
            if not counts.others + counts.others_settling:
                return
            await self._news()

    async def _hold_all_back(self) -> None:
        over = str(self._stop.sending_error)
        await self._revise(lambda limit: replace(limit, over=over))
        await self._ledger.withhold_shards(self._job.name)

    async def _learn_limit(self, taken: Shard | None = None) -> None:
        """See how much may still be sent: who freezes says so before shards can be taken, and when it is over.

        `taken`: a shard that this worker has from now on. What a person has sent again of it is so sent once, whatever
        becomes of the worker.
        """

        def without_ours(limit: _Limit) -> _Limit:
            ours.clear()
            if taken is not None:
                ours.update(again for again in limit.again if taken.first <= again % ROOTS <= taken.last)
            return replace(limit, again=[again for again in limit.again if again not in ours]) if ours else limit

        ours = set[int]()
        limit = await self._revise(without_ours)
        self._again.update(ours)
        self._most_records = limit.most
        if limit.over and self._stop.sending_error is None:
            self._stop.end_sending(SendingEnded(limit.over))

    async def _revise(self, change: Callable[[_Limit], _Limit]) -> _Limit:
        """Change what the ledger keeps of the job beside the limits of services; return it as it is then."""
        limit = _Limit()

        def changed(text: str | None, _: float) -> str:
            nonlocal limit
            limit = change(msgspec.json.decode(text, type=_Limit) if text else _Limit())
            return msgspec.json.encode(limit).decode()

        await self._ledger.revise(f"records of {self._job.name}", changed)
        return limit

    @property
    def taken(self) -> list[Shard]:
        """All that it has taken, those that are done among them, in the order of batches."""
        return sorted(self._taken, key=lambda shard: shard.first)

    async def frozen(self) -> None:
        """Look for shards at once, for some were frozen; return once more are wanted.

        What is cut later may be cut as the service takes it.
        """
        self._frozen.give()
        while self._stop.sending_error is None:
            counts = await self._ledger.count_shards(self._job.name, self._terms.worker)
            workers = len(await self._ledger.workers(self._job.name))
            if counts.free < _FREE_SHARDS * max(1, workers):
                return
            await self._clock.sleep(_LOOK_SECONDS / 10)

    async def next(self) -> Shard | None:
        """Wait for a shard, and take it; None once there will be none.

        Whoever plans waits until all other workers have ended, so that what they lose is taken over; others do not wait
        for what is only searched for, nor for more to be frozen once nobody plans any more.

        Raises:
            JobCanceled: another process has canceled the job.
            LeaseLost: another worker has taken over what this one has.
        """
        name = self._job.name
        while True:
            job = await self._wanted()
            may_take = job.read_complete or not self._job.strict
            if may_take and self._has_places():
                for shard in await self._ledger.take_shards(name, self._terms, 1, over=self._may_take_over()):
                    self._taken.append(shard)
                    await self._learn_limit(shard)
                    await self._wanted()  # only now: whoever cancels waits for leases that were taken before
                    return shard
            await self._renew_once()  # those that are done are told of by it
            counts = await self._ledger.count_shards(name, self._terms.worker)
            waits = counts.others + (counts.others_settling if self.plans else 0)
            if not (may_take and counts.free) and not waits and not self._is_read(job):
                return None
            await self._news()

    async def _news(self) -> None:
        """Wait for some time, or until something was frozen here; tell people of a worker that is missed."""
        if self._is_steady:
            await self._tell_missed()
        async with anyio.create_task_group() as either:
            either.start_soon(self._wake_later)
            await self._frozen.wait()
            either.cancel_scope.cancel()

    async def _tell_missed(self) -> None:
        for worker in await self._ledger.workers(self._job.name):
            if not worker.is_missed:
                self._told_missed.discard(worker.name)
            elif worker.name not in self._told_missed:
                self._told_missed.add(worker.name)
                self._emit(Noticed(f"worker {worker.name} was {missed_words(worker)}"))

    async def _wake_later(self) -> None:
        await self._clock.sleep(_LOOK_SECONDS)
        self._frozen.give()

    def _is_read(self, job: Job) -> bool:
        """Return whether somebody may freeze more of the job."""
        if job.read_complete or job.state is JobState.CANCELED:
            return False
        return self.plans or self._ledger.is_locked(job.name)

    async def _wanted(self) -> Job:
        """Return the job as it is now. Raises: JobCanceled: another process has canceled it."""
        job = await self._ledger.job(self._job.name)
        if job.state is JobState.CANCELED and self._job.state is not JobState.CANCELED:
            raise JobCanceled(f"job {self._job.name!r} was canceled by another process")
        return job

    async def alone(self) -> None:
        """Wait until no other worker has anything of the job: of one that was canceled, they give all back.

        What they have lost they cannot renew any more.
        """
        while True:
            await self._ledger.end_leases(self._job.name)
            counts = await self._ledger.count_shards(self._job.name, self._terms.worker)
            if not counts.others + counts.others_settling:
                return
            await self._news()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the leases until the block ends, then give back what is left of them."""
        try:
            async with beside(self._renew):
                yield
        finally:  # not before the last renewal was asked for
            with anyio.CancelScope(shield=True):
                await self._give_back()

    async def _renew_once(self) -> None:
        await self._ledger.renew_shards(self._job.name, self._terms)
        now = self._clock.monotonic()
        if now - self._answered > AWAY_SECONDS:
            self._back_since = now
        self._answered = now

    @property
    def _is_steady(self) -> bool:
        """Whether the ledger was not away just now, as it may have been for the others, too."""
        return self._clock.monotonic() - self._back_since > AWAY_SECONDS

    def _may_take_over(self) -> bool:
        return self._is_steady and self._clock.monotonic() - self._answered <= AWAY_SECONDS

    async def _renew(self) -> None:
        seconds = min(_RENEW_SECONDS, (self._terms.seconds - self._terms.call_seconds) / 3)
        while True:
            try:
                if self.plans:
                    self._ledger.check_lock(self._job.name)
                await self._wanted()  # first: who cancels waits for no lease that is over
                await self._renew_once()
                if not self.plans:
                    await self._learn_limit()
                elif self._is_limited:
                    await self._hold_all_back()
            except (LeaseLost, JobError) as error:
                self._stop.request(error)
                return
            except LedgerError:  # it is away; what may be sent ends with the lease
                pass
            await self._clock.sleep(seconds)

    @property
    def _is_limited(self) -> bool:
        """Whether nothing more is to be sent by anybody: not where only this process is to end."""
        error = self._stop.sending_error
        return error is not None and not isinstance(error, Interrupted | Stopped | LeaseLost)

    async def _give_back(self) -> None:
        """Let others have what is not done; where all was tried that can be, only the next run of the job."""
        try:
            await self._ledger.give_back_shards(
                self._job.name, self._terms, left=self._stop.error is None and self._stop.sending_error is None
            )
        except LedgerError:  # it is away: they end by themselves
            return
