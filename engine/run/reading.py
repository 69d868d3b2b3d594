"""Plans of the sources in, frozen batches out: reading goes on while the ledger freezes what was read before.

One step of the ledger takes as long as several steps of reading, most of it in waiting for the disk. So plans gather
meanwhile, and the next step freezes all of them at once. Used by the pipeline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

import anyio
import anyio.to_thread

from engine.batch.chunker import Plan
from engine.progress.events import BatchesFrozen
from engine.run.context import Run
from engine.run.queues import Queue

PLANS_AHEAD = 8
"""Plans that are read and not frozen: with batches of 1,000 records mostly one batch each, of 10 KB in memory."""


async def freeze_all(run: Run, plans: Iterator[Plan], pass_on: Callable[[Plan], Awaitable[None]]) -> None:
    """Freeze all plans in their order, and pass each step on once it is durable.

    Raises:
        Exception: what `plans`, the ledger or `pass_on` raises. Plans that were read before are frozen and passed on.
    """
    read: Queue[Plan | Exception] = Queue(PLANS_AHEAD)
    failure: Exception | None = None
    async with anyio.create_task_group() as beside:
        beside.start_soon(_read, plans, read)
        try:
            while gathered := await read.take_all():
                if some := [plan for plan in gathered if isinstance(plan, Plan)]:
                    await _freeze(run, joined(some), pass_on)
                if isinstance(gathered[-1], Exception):
                    failure = gathered[-1]
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it
            failure = error
        beside.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _read(plans: Iterator[Plan], read: Queue[Plan | Exception]) -> None:
    try:
        while (plan := await anyio.to_thread.run_sync(next, plans, None)) is not None:
            await read.put([plan])
    except Exception as error:  # noqa: BLE001 - told after all that was read before it is frozen
        await read.put([error])
    read.end()


async def _freeze(run: Run, plan: Plan, pass_on: Callable[[Plan], Awaitable[None]]) -> None:
    if plan.batches or plan.last:
        await run.ledger.freeze(
            run.job.name, plan.batches, plan.rejects, last=plan.last, skips=plan.skips, taken=plan.taken
        )
    run.emit(frozen_event(plan))
    await pass_on(plan)


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
    )


def frozen_event(plan: Plan) -> BatchesFrozen:
    """Return what one step of reading brought, for those who watch."""
    going_up = sum(batch.count > 0 for batch in plan.batches)
    records = sum(batch.end.index - batch.start.index for batch in plan.batches)
    skipped = sum(batch.skipped for batch in plan.batches)
    return BatchesFrozen(going_up, records, len(plan.rejects), plan.reached.offset, plan.last, skipped)
