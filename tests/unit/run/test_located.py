"""A search that brings the fates of records, and one for a batch that was staged by another name."""

import pytest
from fakes.bench import a_bench
from fakes.repeatable import RenamingService, SearchedService
from fakes.service import killed, lost, refused, unavailable
from msgspec.structs import replace

from engine.model.doubt import Again
from engine.model.errors import Unavailable
from engine.model.job import JobState
from engine.model.next_step import NEVER_ARRIVED
from engine.model.outcome import Settlement
from engine.model.submission import State
from engine.services.base import Located


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=20) as opened:
        opened.service = SearchedService(opened.clock)
        yield opened


async def fates(bench, sequence=1):
    return await bench.ledger.settlement("j", sequence)


def each_once(bench):
    return len(bench.service.ids()) == 20 and set(bench.service.ids().values()) == {1}


async def test_a_search_that_finds_all_records_settles_the_batch(bench):
    bench.service.faults = {"release": [None, lost(applied=True)]}
    assert await bench.work(max_in_flight=1) is None
    assert await bench.states() == [State.SETTLED] * 2
    assert (await fates(bench)).task_ids == [f"t{number}" for number in range(10, 20)]
    assert each_once(bench)


async def test_what_shows_late_is_waited_for(bench):
    bench.service.seen_after = 100.0
    bench.service.faults = {"release": [None, lost(applied=True)]}
    assert await bench.work(max_in_flight=1) is None
    assert (await fates(bench)).created == 10
    assert each_once(bench)


def reaching(bench, records):
    """Have the second call be lost, and get to its first records only."""
    release = bench.service.release

    async def reach(batch, *args, **said):
        bench.service.reaches = records if batch.sequence else 10
        return await release(batch, *args, **said)

    bench.service.release = reach
    bench.service.faults = {"release": [None, lost(applied=True)]}


async def test_of_a_batch_that_arrived_in_part_the_rest_has_failed(bench):
    reaching(bench, 7)
    assert await bench.work(max_in_flight=1) is None
    settlement = await fates(bench)
    assert (settlement.created, settlement.uncertain) == (7, {})
    assert settlement.errors == dict.fromkeys((7, 8, 9), NEVER_ARRIVED)
    assert set(bench.service.ids().values()) == {1}


async def test_where_no_search_was_seen_to_find_anything_the_rest_stays_uncertain(bench):
    reaching(bench, 7)
    locate = bench.service.locate

    async def of_the_second_only(batch, payload, since):
        bench.service.blind = batch.sequence == 0
        return await locate(batch, payload, since)

    bench.service.locate = of_the_second_only
    assert await bench.work(max_in_flight=1) is None
    settlement = await fates(bench)
    assert (settlement.created, len(settlement.uncertain), settlement.errors) == (7, 3, {})


async def test_a_batch_of_which_nothing_is_found_is_sent_again(bench):
    bench.service.faults = {"release": [None, lost(applied=False)]}
    assert await bench.work(max_in_flight=1) is None
    assert await bench.states() == [State.SETTLED] * 2
    assert each_once(bench)


async def test_a_search_that_finds_nothing_anywhere_proves_nothing(bench):
    bench.service.blind = True
    bench.service.faults = {"release": [None, lost(applied=False)]}
    assert await bench.work(max_in_flight=1) is None
    assert await bench.states() == [State.SETTLED, State.UNCERTAIN]


async def test_what_one_search_has_seen_a_later_one_does_not_take_back(bench):
    reaching(bench, 7)
    locate, searches = bench.service.locate, []

    async def flickering(batch, payload, since):
        searches.append(batch.sequence)
        bench.service.blind = batch.sequence == 1 and len(searches) > 1
        return await locate(batch, payload, since)

    bench.service.locate = flickering
    assert await bench.work(max_in_flight=1) is None
    assert (await fates(bench)).created == 7
    assert set(bench.service.ids().values()) == {1}


@pytest.mark.parametrize("named", [0, 4])
async def test_what_is_found_and_not_clear_is_neither_failed_nor_sent_again(bench, named):
    locate = bench.service.locate

    async def unclear(batch, payload, since):
        if batch.sequence == 0:
            return await locate(batch, payload, since)
        ids = [f"t{number}" if number < 10 + named else None for number in range(10, 20)]
        rest = range(named, 10)
        said = Settlement(ids, uncertain=dict.fromkeys(rest, "it has no id"))
        return Located(settlement=said, unclear=frozenset(rest))

    bench.service.locate = unclear
    bench.service.faults = {"release": [None, lost(applied=True)]}
    assert await bench.work(max_in_flight=1) is None
    settlement = await fates(bench)
    assert (settlement.created, settlement.errors) == (named, {})
    assert each_once(bench)


async def test_a_search_that_does_not_tell_of_each_record_tells_nothing(bench):
    async def short(batch, payload, since):
        return Located(settlement=Settlement(["t1"]))

    bench.service.locate = short
    bench.service.faults = {"release": [None, lost(applied=True)]}
    assert await bench.work(max_in_flight=1) is None
    assert await bench.states() == [State.SETTLED, State.UNCERTAIN]


# Staged by another name


@pytest.fixture
async def renaming(tmp_path):
    async with a_bench(tmp_path, records=20) as opened:
        opened.service = RenamingService(opened.clock)
        yield opened


async def names(bench):
    return [submission.remote_id for submission in await bench.submissions()]


async def test_a_batch_has_the_name_of_its_release_and_the_staged_one_is_no_orphan(renaming):
    assert await renaming.work(max_in_flight=1) is None
    assert await names(renaming) == ["job-r1", "job-r3"]
    assert await renaming.ledger.orphans("j") == []
    assert each_once(renaming)


async def test_a_lost_release_is_searched_for_by_its_mark_and_not_by_its_staged_name(renaming):
    renaming.service.faults = {"release": [None, lost(applied=True)]}
    assert await renaming.work(max_in_flight=1) is None
    assert await names(renaming) == ["job-r1", "job-r3"]
    assert "remote_status" not in renaming.service.log
    assert await renaming.ledger.orphans("j") == []
    assert each_once(renaming)


async def test_what_no_search_finds_is_staged_anew(renaming):
    renaming.service.faults = {"release": [None, lost(applied=False)]}
    assert await renaming.work(max_in_flight=1) is None
    assert await names(renaming) == ["job-r1", "job-r4"]
    assert each_once(renaming)


async def test_until_then_it_is_uncertain_without_a_name(renaming):
    renaming.service.seen_after = float("inf")
    renaming.service.faults = {"release": [None, lost(applied=True)]}
    assert await renaming.work(max_in_flight=1) is None
    assert await names(renaming) == ["job-r1", None]
    assert await renaming.states() == [State.SETTLED, State.UNCERTAIN]


async def test_a_release_that_certainly_did_nothing_is_sent_from_its_beginning(renaming):
    renaming.service.faults = {"release": [None, unavailable()]}
    assert isinstance(await renaming.work(max_in_flight=1), Unavailable)
    assert (await renaming.states())[1] is State.FROZEN
    assert await renaming.work(max_in_flight=1) is None
    assert each_once(renaming)


@pytest.mark.parametrize("again", [Again.SEARCH, Again.NEVER, Again.SAFE, Again.KEY])
async def test_what_was_staged_and_is_gone_is_staged_anew(renaming, monkeypatch, again):
    monkeypatch.setattr(RenamingService, "again", again)
    gone = refused("no such file", status=404)
    gone.error.batch_not_found = True
    renaming.service.faults = {"release": [gone]}
    assert await renaming.work(max_in_flight=1) is None
    assert each_once(renaming)
    assert len(renaming.service.calls("stage")) == 3


@pytest.mark.parametrize("again", [Again.SAFE, Again.KEY, Again.EXISTS])
async def test_what_was_staged_is_released_again_where_that_may_be(renaming, monkeypatch, again):
    monkeypatch.setattr(RenamingService, "again", again)
    renaming.service.faults = {"release": [lost(applied=False), lost(applied=False)]}
    assert await renaming.work(max_in_flight=1) is None
    assert len(renaming.service.calls("stage")) == 2
    assert each_once(renaming)


async def test_with_a_key_that_was_lost_what_is_gone_is_not_staged_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(RenamingService, "again", Again.KEY)
    async with a_bench(tmp_path, records=10) as bench:
        bench.service = RenamingService(bench.clock)
        gone = refused("no such file", status=404)
        gone.error.batch_not_found = True
        bench.service.faults = {"release": [lost(applied=True), gone]}
        assert await bench.work(max_in_flight=1) is None
        assert await bench.states() == [State.UNCERTAIN]
        assert set(bench.service.ids().values()) == {1}


async def test_with_a_key_what_was_staged_and_given_up_is_not_staged_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(RenamingService, "again", Again.KEY)
    async with a_bench(tmp_path, records=10) as bench:
        bench.service = RenamingService(bench.clock)
        bench.service.faults = {"release": [killed(applied=True)]}
        with pytest.raises(ExceptionGroup):
            await bench.work(max_in_flight=1)
        for state in (JobState.CANCELED, JobState.OPEN):  # canceled, and then `resume`
            await bench.ledger.set_job_state("j", state)
            bench.job = replace(bench.job, state=state)
            assert await bench.work() is None
            assert await bench.states() == [State.UNCERTAIN]
        assert len(bench.service.calls("stage")) == 1, "else another call goes out with the same key"
