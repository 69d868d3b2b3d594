"""A run that may send so many records, or nothing more from some moment on."""

import contextlib
import random
from functools import partial

import anyio
import pytest
from fakes.bench import a_bench, another_worker
from fakes.clock import under_way, until
from fakes.service import killed, lost

from engine.model.errors import BulkSubmitError, Exit, Interrupted, RecordsSent, SendingEnded, WindowClosed
from engine.model.submission import State
from engine.progress.events import Stopping
from engine.reports.audit import audit


def once(count):
    return {str(number): 1 for number in range(count)}


async def created(bench):
    return (await bench.ledger.tally("j")).created


# So many records


@pytest.mark.parametrize("most", [1, 9, 10, 11, 25, 37, 99])
async def test_a_run_sends_exactly_as_many_records_as_it_may(tmp_path, most):
    async with a_bench(tmp_path, records=100) as bench:
        error = await bench.work(most_records=most)
        assert isinstance(error, RecordsSent)
        assert error.exit_code == Exit.STOPPED_EARLY
        assert f"send {most} (max_records). `bulksubmit resume j`" in str(error)
        assert len(bench.service.journal) == await created(bench) == most
        assert [str(error)] == [event.reason for event in bench.events if isinstance(event, Stopping)]
        assert await bench.work() is None
        assert bench.service.ids() == once(100)
        assert (await audit(await bench.ledger.job("j"), bench.ledger, bench.evidence)).holds


@pytest.mark.parametrize("most", [100, 101])
async def test_a_run_that_may_send_all_there_is_finishes(tmp_path, most):
    async with a_bench(tmp_path, records=100) as bench:
        assert await bench.work(most_records=most) is None
        assert bench.service.ids() == once(100)


@pytest.mark.parametrize("most", [1, 3, 7, 20])
async def test_run_after_run_comes_to_the_end(tmp_path, most):
    async with a_bench(tmp_path, records=30) as bench:
        for number in range(1, 31):
            error = await bench.work(most_records=most)
            assert len(bench.service.journal) == min(30, number * most)
            if error is None:
                break
        assert bench.service.ids() == once(30)


async def test_a_batch_is_cut_in_as_few_parts_as_its_size_asks_for(tmp_path):
    async with a_bench(tmp_path, records=10) as bench:
        for _ in range(9):
            assert isinstance(await bench.work(most_records=1), RecordsSent)
        assert await bench.work(most_records=1) is None
        assert bench.service.ids() == once(10)
        splits = [batch async for batch in bench.ledger.split_batches("j")]
        assert len(splits) == 9


async def test_what_was_staged_before_is_cut_too(tmp_path):
    async with a_bench(tmp_path, records=10) as bench:
        (batch,) = await bench.freeze()
        await bench.bring(batch, State.STAGED)
        assert isinstance(await bench.work(most_records=4), RecordsSent)
        assert len(bench.service.journal) == 4


async def test_a_batch_that_may_be_sent_again_is_left_alone_where_a_run_may_not_send_it_whole(tmp_path):
    async with a_bench(tmp_path, records=20, faults={"release": [killed(applied=False)]}) as bench:
        with pytest.raises(BaseExceptionGroup):
            await bench.work(max_in_flight=1)
        error = await bench.work(most_records=4)
        assert "fewer than a batch has of which an answer was lost" in str(error) or len(bench.service.journal) == 4
        assert len(bench.service.journal) <= 4
        assert await bench.work() is None
        assert bench.service.ids() == once(20)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_no_run_sends_more_and_nothing_is_lost(tmp_path, seed):
    draw = random.Random(seed)
    kinds = [lost(applied=True), lost(applied=False), killed(applied=True), killed(applied=False), None]
    names = ["stage", "upload", "release"]
    faults = {name: draw.choices(kinds, k=draw.randint(0, 3)) for name in names}
    async with a_bench(tmp_path, records=60, faults=faults) as bench:
        for _ in range(60):
            before, most = len(bench.service.journal), draw.choice([10, 17, 30])
            error = BulkSubmitError()
            with contextlib.suppress(BaseExceptionGroup):  # it was killed
                error = await bench.work(most_records=most)
            assert len(bench.service.journal) - before <= most
            if error is None:
                break
        tally = await bench.ledger.tally("j")
        assert tally.unresolved == 0
        assert max(bench.service.ids().values()) == 1
        assert tally.created == len(bench.service.journal)


async def test_what_an_earlier_run_has_left_in_doubt_is_sent_though_no_more_than_that_may_be(tmp_path):
    async with a_bench(tmp_path, records=30, marks=True) as bench:
        first, *_ = await bench.freeze()
        await bench.bring(first, State.STAGING)
        assert isinstance(await bench.work(most_records=10), RecordsSent)
        assert bench.service.ids() == once(10)


# Nothing more from some moment on


async def test_what_is_under_way_is_followed_to_its_end_and_the_rest_waits(tmp_path):
    async with a_bench(tmp_path, records=100, tasks_per_second=1) as bench:
        pipeline = bench.pipeline(max_in_flight=1, max_open_batches=2)
        async with under_way(pipeline.work()) as work:
            await until(lambda: bench.service.log.count("release") >= 2)
            bench.stop.end_sending(WindowClosed("over"))
            assert str(await work) == "over"
        states = await bench.states()
        assert set(states) <= {State.SETTLED, State.FROZEN}
        assert await created(bench) == 10 * states.count(State.SETTLED) >= 20
        assert await bench.work() is None
        assert bench.service.ids() == once(100)


async def test_a_signal_ends_the_waiting_for_what_is_under_way(tmp_path):
    async with (
        a_bench(tmp_path, records=100, tasks_per_second=0.001) as bench,
        under_way(bench.pipeline(max_in_flight=1).work()) as work,
    ):
        await until(lambda: "release" in bench.service.log)
        bench.stop.end_sending(WindowClosed("over"))
        bench.stop.request(Interrupted(15))
        assert isinstance(await work, Interrupted)


async def test_a_batch_whose_answer_was_lost_is_not_searched_for_any_more_and_the_next_run_does(tmp_path):
    faults = {"release": [None, lost(applied=False)]}
    async with a_bench(tmp_path, records=20, stages=False, marks=True, faults=faults) as bench:
        async with under_way(bench.pipeline(max_in_flight=1).work()) as work:
            await until(lambda: bench.service.log.count("release") == 2)
            bench.stop.end_sending(WindowClosed("over"))
            assert str(await work) == "over"
        assert len(bench.service.journal) == 10
        assert await bench.work() is None
        assert bench.service.ids() == once(20)


async def test_what_earlier_runs_have_released_is_followed_even_if_nothing_may_be_sent(tmp_path):
    async with a_bench(tmp_path, records=30, tasks_per_second=1) as bench:
        async with under_way(bench.pipeline(max_in_flight=1).work()) as work:
            await until(lambda: bench.service.log.count("release") == 2)
            bench.end()
            await work
        pipeline = bench.pipeline()
        bench.stop.end_sending(WindowClosed("over"))
        assert str(await pipeline.work()) == "over"
        assert State.RELEASED not in await bench.states()
        assert await created(bench) >= 10
        assert await bench.work() is None
        assert bench.service.ids() == once(30)


# Several workers


@pytest.mark.parametrize("most", [5, 333, 690])
async def test_all_workers_together_send_exactly_as_many_records_as_a_run_may(tmp_path, most):
    async with a_bench(tmp_path, records=1000, shares_jobs=True) as bench, another_worker(bench) as other:
        async with anyio.create_task_group() as workers:
            workers.start_soon(partial(bench.work, most_records=most))
            await until(lambda: len(bench.service.journal) > 0)
            workers.start_soon(other.work)
        assert len(bench.service.journal) == await created(bench) == most
        async with anyio.create_task_group() as workers:
            workers.start_soon(bench.work)
            workers.start_soon(other.work)
        assert bench.service.ids() == once(1000)


async def test_when_a_limit_is_met_the_other_workers_send_nothing_more_and_are_waited_for(tmp_path):
    async with a_bench(tmp_path, records=1000, shares_jobs=True) as bench, another_worker(bench) as other:
        async with anyio.create_task_group() as workers:
            workers.start_soon(bench.work)
            await until(lambda: len(bench.service.journal) > 100)
            workers.start_soon(other.work)
            await until(lambda: len(bench.service.journal) > 300)
            bench.stop.end_sending(WindowClosed("it is late"))
        ended_with = len(bench.service.journal)
        assert isinstance(other.stop.sending_error, SendingEnded)
        assert "it is late" in str(other.stop.sending_error)
        assert await created(bench) == ended_with < 900
        assert all(not shard.holder for shard in await bench.ledger.shards("j"))
        assert await bench.work() is None
        assert bench.service.ids() == once(1000)
