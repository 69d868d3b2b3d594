"""Plans of the sources in, frozen batches out: reading goes on while the ledger freezes what was read before.

One step of the ledger takes as long as several steps of reading, most of it in waiting for the disk. So plans gather
meanwhile, and the next step freezes all of them at once. Used by the pipeline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import anyio
import anyio.to_thread

from engine.batch.chunker import Plan
from engine.progress.events import BatchesFrozen
from engine.run.context import Run
from engine.run.queues import Signal

MOST_AHEAD = 8
"""Batches that are read and not frozen when reading waits; more are seldom read during one step of the ledger."""


async def freeze_all(
    run: Run, plans: Iterator[Plan], pass_on: Callable[[Plan], Awaitable[None]], most_ahead: int = MOST_AHEAD
) -> None:
    """Freeze all plans in their order, and pass each step on once it is durable.

    Nothing is read while `pass_on` waits: what is cut later may be cut as the service takes it. `most_ahead`: batches
    that are read and not frozen when reading waits.

    Raises:
        Exception: what `plans`, the ledger or `pass_on` raises. Plans that were read before are frozen and passed on.
    """
    ahead = _Ahead(most_ahead)
    failure: Exception | None = None
    async with anyio.create_task_group() as beside:
        beside.start_soon(ahead.read, plans)
        try:
            while (plan := await ahead.take()) is not None:
                if plan.batches or plan.last:
                    await run.ledger.freeze(
                        run.job.name,
                        plan.batches,
                        plan.rejects,
                        last=plan.last,
                        skips=plan.skips,
                        taken=plan.taken,
                        keys=plan.keys,
                    )
                    run.emit(frozen_event(plan))
                with ahead.held():
                    await pass_on(plan)
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it
            failure = error
        beside.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Ahead:
    """Plans that are read and not frozen."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._plans: list[Plan] = []
        self._held = self._ended = False
        self._failure: Exception | None = None
        self._changed = Signal()

    async def read(self, plans: Iterator[Plan]) -> None:
        """Read all, and no faster than they are wanted."""
        try:
            while (plan := await anyio.to_thread.run_sync(next, plans, None)) is not None:
                self._plans.append(plan)
                self._changed.give()
                while self._held or sum(len(plan.batches) for plan in self._plans) >= self._most:
                    await self._changed.wait()
        except Exception as error:  # noqa: BLE001 - raised by `take`, after all that was read before
            self._failure = error
        self._ended = True
        self._changed.give()

    async def take(self) -> Plan | None:
        """Return all that was read as one plan, as soon as there is something; None at the end."""
        while not self._plans and not self._ended:
            await self._changed.wait()
        if self._plans:
            plans, self._plans = self._plans, []
            self._changed.give()
            return joined(plans)
        if self._failure is not None:
            raise self._failure
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Read nothing meanwhile."""
        self._held = True
        yield
        self._held = False
        self._changed.give()


def joined(plans: Sequence[Plan]) -> Plan:
    """Return plans that follow each other as one."""
    if len(plans) == 1:
        return plans[0]
    return Plan(
        [batch for plan in plans for batch in plan.batches],
        [reject for plan in plans for reject in plan.rejects],
        plans[-1].reached,
        plans[-1].last,
        [skip for plan in plans for skip in plan.skips],
        [taken for plan in plans for taken in plan.taken],
        [keyed for plan in plans for keyed in plan.keys],
    )


def frozen_event(plan: Plan) -> BatchesFrozen:
    """Return what one step of reading brought, for those who watch."""
    going_up = sum(batch.count > 0 for batch in plan.batches)
    records = sum(batch.end.index - batch.start.index for batch in plan.batches)
    skipped = sum(batch.skipped for batch in plan.batches)
    # What is read beyond the last batch is read anew by whoever goes on, so it counts only once all is read.
    end = plan.batches[-1].end if plan.batches and not plan.last else plan.reached
    return BatchesFrozen(going_up, records, len(plan.rejects), end.offset, plan.last, skipped)
