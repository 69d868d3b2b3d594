import asyncio

import aiohttp
import pytest

from engine.sandbox.behaviour import Behaviour, Fault
from engine.sandbox.faults import NEVER, Agenda, FaultPlan

from .api import tasks


@pytest.fixture
def agenda(clock):
    return Agenda(clock.now)


def test_work_that_is_not_put_off_is_done_at_once(agenda, clock):
    done = []
    agenda.do("a", done.append)
    assert (done, agenda.awaits("a")) == ([clock.now()], False)


def test_work_is_done_as_of_its_own_time_in_the_order_of_time(agenda, clock):
    done, began = [], clock.now()
    for seconds in (7, 3):
        with agenda.put_off(seconds):
            agenda.do(seconds, lambda at: done.append(at - began))
    clock.elapsed += 2
    agenda.advance()
    assert (done, agenda.awaits(3)) == ([], True)
    clock.elapsed += 100
    agenda.advance()
    assert (done, agenda.awaits(3), agenda.awaits(7)) == ([3, 7], False, False)


def test_what_is_swallowed_is_never_done_and_not_awaited(agenda, clock):
    done = []
    with agenda.put_off(NEVER):
        assert agenda.swallows
        agenda.do("a", done.append)
    clock.elapsed += 10**9
    agenda.advance()
    assert (done, agenda.awaits("a"), agenda.swallows) == ([], False, False)


def test_what_is_forgotten_is_not_done(agenda, clock):
    done = []
    with agenda.put_off(1):
        agenda.do("a", lambda at: done.append("a"))
        agenda.do("b", lambda at: done.append("b"))
    agenda.forget("a")
    clock.elapsed += 1
    agenda.advance()
    assert done == ["b"]


def _strikes(fault, calls):
    plan = FaultPlan(fault)
    return [number for number in range(1, calls + 1) if plan.strikes()]


def test_a_fault_strikes_by_number():
    assert _strikes(Fault("create", "refuse", nth=(2, 5)), 9) == [2, 5]


def test_a_fault_strikes_periodically():
    assert _strikes(Fault("create", "refuse", every=3), 9) == [3, 6, 9]


def test_a_fault_strikes_a_share_the_same_way_each_time():
    fault = Fault("create", "refuse", share=0.2, seed=4)
    assert _strikes(fault, 1000) == _strikes(fault, 1000)
    assert 150 < len(_strikes(fault, 1000)) < 250


async def _create(start, **fault):
    """Create a batch inline while the fault strikes the first call; return the client and the answer or error."""
    api = await start(Behaviour(faults=(Fault("create", nth=(1,), **fault),)))
    try:
        answer = await asyncio.wait_for(api.create(tasks(3)), 0.5)
    except (aiohttp.ClientError, TimeoutError) as error:
        answer = error
    return api, answer


async def test_refuse_does_nothing(start):
    api, answer = await _create(start, kind="refuse", status=504, retry_after_seconds=3)
    assert answer.status == 504
    assert answer.body == {"errors": [{"type": 504, "message": "The sandbox was told to refuse."}]}
    assert answer.headers["Retry-After"] == "3"
    assert api.sandbox.stats.batches == 0


async def test_refuse_after_does_the_work(start):
    api, answer = await _create(start, kind="refuse_after", status=504)
    assert answer.status == 504
    assert api.sandbox.stats.batches == 1


async def test_drop_before_does_nothing(start):
    api, answer = await _create(start, kind="drop_before")
    assert isinstance(answer, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    assert api.sandbox.stats.batches == 0


async def test_drop_after_does_the_work(start):
    api, answer = await _create(start, kind="drop_after")
    assert isinstance(answer, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    assert api.sandbox.stats.batches == 1


async def test_hang_does_the_work_and_answers_late(start):
    api, answer = await _create(start, kind="hang", seconds=30)
    assert isinstance(answer, TimeoutError)
    assert api.sandbox.stats.batches == 1


async def test_html_is_a_page(start):
    api, answer = await _create(start, kind="html", status=200)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"<html>" in answer.body
    assert api.sandbox.stats.batches == 0


async def test_truncate_does_the_work_and_cuts_the_answer(start):
    api, answer = await _create(start, kind="truncate")
    assert isinstance(answer, aiohttp.ClientPayloadError)
    assert api.sandbox.stats.batches == 1


async def test_the_next_call_is_well_again(start):
    api, _ = await _create(start, kind="drop_after")
    assert (await api.create(tasks(1))).status == 202
    assert api.sandbox.stats.faults == {"drop_after": 1}


async def test_a_fault_at_the_upload_has_the_shape_of_s3(start):
    api = await start(Behaviour(faults=(Fault("put", "refuse", nth=(1,)),)))
    url = (await api.create()).body["tasks_put_url"]
    answer = await api.put(url, tasks(1))
    assert answer.status == 503
    assert b"<Code>SlowDown</Code>" in answer.body
    assert (await api.put(url, tasks(1))).status == 200


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate", "hang"])
async def test_a_fault_for_all_strikes_any_call(start, kind):
    api = await start(Behaviour(faults=(Fault("all", kind, nth=(2,), seconds=30),)))
    batch_id = (await api.create(tasks(1))).body["batch_id"]
    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        await asyncio.wait_for(api.cancel(batch_id), 0.3)
