"""A search that finds nothing is a proof only where the same search has found what is known to be there."""

import pytest
from fakes.bench import a_bench
from fakes.service import lost

from engine.model.submission import State
from engine.services.base import Located


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=30, stages=False, marks=True) as opened:
        yield opened


async def test_a_batch_that_never_arrived_is_sent_again_once_the_search_has_found_another_one(bench):
    bench.service.faults = {"release": [lost(applied=False)]}
    assert await bench.work() is None
    assert await bench.states() == [State.SETTLED] * 3
    assert set(bench.service.ids().values()) == {1}


async def test_where_the_search_finds_no_settled_batch_either_it_proves_nothing(bench):
    async def blind(batch, payload, since):
        bench.service.log.append("locate")
        return Located()

    bench.service.locate = blind
    bench.service.faults = {"release": [None, lost(applied=True)]}
    assert await bench.work() is None
    assert sorted(await bench.states()) == [State.SETTLED, State.SETTLED, State.UNCERTAIN]
    assert set(bench.service.ids().values()) == {1}, "sent again, it would be there twice"


async def test_without_a_settled_batch_nothing_can_be_proven(tmp_path):
    async with a_bench(tmp_path, records=10, stages=False, marks=True) as bench:
        bench.service.faults = {"release": [lost(applied=False)]}
        assert await bench.work() is None
        assert await bench.states() == [State.UNCERTAIN]


async def test_a_batch_that_is_found_needs_no_proof(tmp_path):
    async with a_bench(tmp_path, records=10, stages=False, marks=True) as bench:
        bench.service.faults = {"release": [lost(applied=True)]}
        assert await bench.work() is None
        assert await bench.states() == [State.SETTLED]
        assert set(bench.service.ids().values()) == {1}


async def test_the_search_is_tried_once_a_run_with_a_settled_batch(bench):
    bench.service.faults = {"release": [lost(applied=False), lost(applied=False)]}
    assert await bench.work() is None
    assert await bench.states() == [State.SETTLED] * 3
    assert set(bench.service.ids().values()) == {1}
