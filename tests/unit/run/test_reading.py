import asyncio

import pytest
from fakes.bench import a_bench
from fakes.clock import until

from engine.batch.chunker import Plan
from engine.model.batch import Batch, Limits
from engine.model.errors import SourceError
from engine.model.record import Position
from engine.progress.events import BatchesFrozen
from engine.run.reading import MOST_AHEAD, freeze_all, frozen_event, joined


class Plans:
    """Plans of a bench, which note how many were read."""

    def __init__(self, bench, error=None):
        self._plans = bench.plans()
        self._error = error
        self.read = 0

    def __iter__(self):
        return self

    def __next__(self):
        try:
            plan = next(self._plans)
        except StopIteration:
            if self._error is not None:
                raise self._error from None
            raise
        self.read += len(plan.batches)
        return plan


class SlowLedger:
    """A ledger whose steps of freezing wait for a gate; it notes the sequences of each step."""

    def __init__(self, ledger):
        self._ledger = ledger
        self.gate = asyncio.Event()
        self.steps = []

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def freeze(self, job, batches, rejects, **more):
        await self.gate.wait()
        self.steps.append([batch.sequence for batch in batches])
        await self._ledger.freeze(job, batches, rejects, **more)


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=100, limits=Limits(1, 1 << 20)) as bench:
        bench.ledger = SlowLedger(bench.ledger)
        yield bench


async def passed(_plan):
    """Take nothing of a plan."""


async def test_what_is_read_during_one_step_of_the_ledger_is_frozen_by_the_next(bench):
    plans, told = Plans(bench), []

    async def note(plan):
        told.append([batch.sequence for batch in plan.batches])

    async with asyncio.TaskGroup() as group:
        group.create_task(freeze_all(bench.run(), plans, note))
        await until(lambda: plans.read >= MOST_AHEAD)
        bench.ledger.gate.set()
    assert [sequence for step in bench.ledger.steps for sequence in step] == list(range(100))
    assert max(map(len, bench.ledger.steps)) >= MOST_AHEAD
    assert told == bench.ledger.steps
    assert await bench.states() == ["frozen"] * 100
    frozen = [event for event in bench.events if isinstance(event, BatchesFrozen)]
    assert (sum(event.batches for event in frozen), frozen[-1].last) == (100, True)


@pytest.mark.parametrize("most_ahead", [1, MOST_AHEAD])
async def test_reading_goes_no_further_ahead_of_the_ledger_than_it_may(bench, most_ahead):
    plans = Plans(bench)
    most_of_a_plan = max(len(plan.batches) for plan in bench.plans())
    async with asyncio.TaskGroup() as group:
        freezing = group.create_task(freeze_all(bench.run(), plans, passed, most_ahead))
        await until(lambda: plans.read >= most_ahead)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert plans.read <= most_ahead + 2 * most_of_a_plan
        freezing.cancel()


async def test_nothing_is_read_while_what_is_frozen_waits_to_be_sent(bench):
    plans, gate, at_gate = Plans(bench), asyncio.Event(), []

    async def wait(_plan):
        at_gate.append(plans.read)
        await gate.wait()

    bench.ledger.gate.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(freeze_all(bench.run(), plans, wait))
        await until(lambda: at_gate)
        for _ in range(20):
            await asyncio.sleep(0.001)
        most_of_a_plan = max(len(plan.batches) for plan in bench.plans())
        assert plans.read <= at_gate[0] + most_of_a_plan  # the step that was under way
        gate.set()
    assert plans.read == 100


async def test_what_was_read_before_reading_failed_is_frozen_and_passed_on_first(bench):
    told = []

    async def note(plan):
        told.extend(batch.sequence for batch in plan.batches)

    bench.ledger.gate.set()
    with pytest.raises(SourceError, match="gone"):
        await freeze_all(bench.run(), Plans(bench, SourceError("gone")), note)
    assert told == list(range(100))


async def test_who_refuses_a_plan_ends_the_reading(bench):
    plans = Plans(bench)

    async def refuse(_plan):
        raise SourceError("not this one")

    bench.ledger.gate.set()
    with pytest.raises(SourceError, match="not this one"):
        await freeze_all(bench.run(), plans, refuse)
    assert plans.read < 100


@pytest.mark.parametrize(("last", "told"), [(False, 80), (True, 90)])
def test_what_is_read_beyond_the_last_batch_counts_as_read_only_at_the_end(last, told):
    batch = Batch(0, Position(), Position(80, 8), 8, 0, b"", b"")
    assert frozen_event(Plan([batch], [], Position(90, 9), last=last)).read_bytes == told


def test_plans_that_follow_each_other_are_one():
    first = Plan(["a"], ["r"], Position(1, 1), last=False, skips=["s"])
    second = Plan([], [], Position(2, 2), last=False, taken=["t"], keys=["k"])
    third = Plan(["b", "c"], ["q"], Position(3, 3), last=True, skips=["u"], taken=["v"], keys=["l"])
    assert joined([first]) is first
    assert joined([first, second, third]) == Plan(
        ["a", "b", "c"], ["r", "q"], Position(3, 3), last=True, skips=["s", "u"], taken=["t", "v"], keys=["k", "l"]
    )
