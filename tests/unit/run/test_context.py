"""The durable steps of a batch: what the ledger has of each, and what is told of it."""

import pytest
from fakes.bench import a_bench
from msgspec.structs import replace

from engine.ledger.writer import Hooks
from engine.model.batch import Batch
from engine.model.errors import LedgerError
from engine.model.outcome import Settlement
from engine.model.record import Position, Reject, Skipped, Why
from engine.model.submission import State, Submission
from engine.progress.events import BatchMoved, BatchSettled

SETTLEMENT = Settlement(["a", None, "c"], {1: "no url"}, "the service lists more")


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        yield bench


async def one_batch(bench):
    (batch,) = await bench.freeze()
    return batch, Submission(batch.sequence)


async def test_a_step_is_durable_with_its_time_and_its_reason_and_then_told(bench):
    batch, frozen = await one_batch(bench)
    await bench.clock.sleep(7.0)
    moved = await bench.run().move(batch, frozen, State.STAGING, note="why not")
    assert moved == Submission(0, State.STAGING, None, bench.clock.now(), "why not")
    assert await bench.submissions() == [moved]
    told = BatchMoved(0, State.FROZEN, State.STAGING, 3, batch.size_bytes, "why not")
    assert [event for event in bench.events if isinstance(event, BatchMoved)] == [told]


async def test_the_name_at_the_service_is_kept_until_the_batch_begins_anew(bench):
    batch, submission = await one_batch(bench)
    run, names = bench.run(), []
    submission = await run.move(batch, submission, State.STAGING)
    submission = await run.move(batch, submission, State.STAGED, remote_id="r1")
    for state in (State.RELEASING, State.UNCERTAIN, State.RELEASING, State.FROZEN, State.STAGING):
        submission = await run.move(batch, submission, state)
        names.append(submission.remote_id)
    assert names == ["r1", "r1", "r1", None, None]


async def test_what_is_staged_anew_leaves_its_name_to_be_tidied_up(bench):
    batch, submission = await one_batch(bench)
    run = bench.run()
    submission = await run.move(batch, submission, State.STAGING)
    submission = await run.move(batch, submission, State.STAGED, remote_id="r1")
    assert (await run.move(batch, submission, State.STAGING)).remote_id is None
    assert await bench.ledger.orphans("j") == ["r1"]


async def test_a_step_that_does_not_exist_is_neither_kept_nor_told(bench):
    batch, frozen = await one_batch(bench)
    with pytest.raises(LedgerError):
        await bench.run().move(batch, frozen, State.RELEASED)
    assert await bench.states() == [State.FROZEN]
    assert not [event for event in bench.events if isinstance(event, BatchMoved)]


async def test_a_settlement_is_kept_with_the_fate_of_each_record_and_told(bench):
    batch, frozen = await one_batch(bench)
    settled = await bench.run().settle(batch, frozen, SETTLEMENT, remote_id="r1")
    assert (settled.state, settled.remote_id, settled.note) == (State.SETTLED, "r1", "the service lists more")
    assert await bench.submissions() == [settled]
    assert await bench.ledger.settlement("j", 0) == replace(SETTLEMENT, note="")
    moved = BatchMoved(0, State.FROZEN, State.SETTLED, 3, batch.size_bytes, "the service lists more")
    assert bench.events[-2:] == [moved, BatchSettled(0, 2, 1, "no url")]


async def test_a_settlement_without_a_name_of_its_own_keeps_the_one_that_is_known(bench):
    batch, submission = await one_batch(bench)
    run = bench.run()
    submission = await run.move(batch, submission, State.STAGING)
    submission = await run.move(batch, submission, State.STAGED, remote_id="r1")
    assert (await run.settle(batch, submission, SETTLEMENT)).remote_id == "r1"


async def test_halves_stand_for_a_batch_that_is_split(bench):
    batch, frozen = await one_batch(bench)
    halves = await bench.halves(batch, ())
    split = await bench.run().split(batch, frozen, halves, "too large")
    assert (split.state, split.remote_id, split.note) == (State.SPLIT, None, "too large")
    assert [found for found, _ in await bench.batches()] == list(halves)
    assert await bench.states() == [State.FROZEN, State.FROZEN]
    assert bench.events[-1] == BatchMoved(0, State.FROZEN, State.SPLIT, 3, batch.size_bytes, "too large")


class LeftOut:
    """A ledger that knows what of batches does not go up, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    async def rejects(self, job, start, stop):
        self.asked.append(("rejects", job, start, stop))
        return [Reject(12, 0, 1, 1, "no")]

    async def skips(self, job, start, stop):
        self.asked.append(("skips", job, start, stop))
        return [Skipped(14, 2, 0, b"", "earlier", 0, Why.CREATED)]


@pytest.mark.parametrize(
    ("rejected", "skipped", "indexes"),
    [
        (0, 0, range(10, 18)),
        (1, 0, [10, 11, 13, 14, 15, 16, 17]),
        (0, 2, [10, 11, 12, 13, 16, 17]),
        (1, 2, [10, 11, 13, 16, 17]),
    ],
)
async def test_each_record_has_its_index_in_the_whole_input_and_the_ledger_is_asked_only_where_one_is_left_out(
    bench, rejected, skipped, indexes
):
    ledger = LeftOut()
    run = replace(bench.run(), ledger=ledger)
    batch = Batch(0, Position(0, 10), Position(99, 18), 8 - rejected - skipped, 2, b"", b"", skipped)
    assert await run.indexes(batch) == indexes
    kinds = ["rejects"] * bool(rejected) + ["skips"] * bool(skipped)
    assert ledger.asked == [(kind, "j", 10, 18) for kind in kinds]


async def test_nothing_is_told_before_it_is_durable(tmp_path):
    order = []
    async with a_bench(tmp_path, records=3, hooks=Hooks(on_commit=lambda _: order.append("durable"))) as bench:
        batch, frozen = await one_batch(bench)
        order.clear()
        run = replace(bench.run(), emit=lambda event: order.append(type(event)))
        await run.move(batch, frozen, State.STAGING)
    assert order == ["durable", BatchMoved]
