import anyio
import pytest
from fakes.clock import FakeClock

from engine.model.errors import BulkSubmitError, JobRefused
from engine.run.context import Stop
from engine.run.suspects import MOST_IN_A_ROW, WAIT_SECONDS, Suspects


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def suspects(clock):
    return Suspects(clock, Stop())


async def test_a_record_is_tried_once_more_and_then_no_more(suspects, clock):
    assert await suspects.is_worth_another_try(1, "403")
    assert clock.monotonic() == WAIT_SECONDS
    assert not await suspects.is_worth_another_try(1, "403")


async def test_its_turn_comes_as_soon_as_another_gets_through(suspects, clock):
    async with anyio.create_task_group() as group:
        group.start_soon(suspects.is_worth_another_try, 1, "403")
        await clock.sleep(0.1)
        suspects.passed()
    assert clock.monotonic() < 1


async def test_three_in_a_row_are_no_matter_of_the_records(suspects):
    for sequence in range(MOST_IN_A_ROW - 1):
        assert await suspects.is_worth_another_try(sequence, "403")
    with pytest.raises(JobRefused, match=r"3 records in a row do not get through.*the last: 403"):
        await suspects.is_worth_another_try(7, "403")


async def test_in_a_row_means_that_nothing_got_through_in_between(suspects, clock):
    for sequence in range(3 * MOST_IN_A_ROW):
        async with anyio.create_task_group() as group:
            group.start_soon(suspects.is_worth_another_try, sequence, "403")
            await clock.sleep(0.1)
            suspects.passed()


async def test_turned_away_side_by_side_they_wait_for_a_moment_in_which_one_gets_through(suspects, clock):
    async with anyio.create_task_group() as group:
        for sequence in range(2 * MOST_IN_A_ROW):
            group.start_soon(suspects.is_worth_another_try, sequence, "403")
        await clock.sleep(0.1)
        suspects.passed()


async def test_a_run_that_ends_is_not_waited_for(clock):
    stop = Stop()
    stop.request(BulkSubmitError("that is enough"))
    assert await Suspects(clock, stop).is_worth_another_try(1, "403")
    assert clock.monotonic() == 0
