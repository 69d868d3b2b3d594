"""Work that comes later than its call, or never; what a batch says until then, and what a second call does to it."""

import asyncio

import aiohttp
import pytest
from fakes.clock import until

from engine.sandbox.behaviour import Behaviour, CreationPace, Fault, JournalSettings
from engine.sandbox.journal import count_markers, read_journal
from engine.sandbox.server import running_sandbox

from ..api import Api, tasks  # noqa: TID252 - tests of one package

ANSWERS = {"act_later": 202, "drop_late": None, "refuse_late": 504, "html_late": 504}
"""Status by kind of fault; None: there is no answer."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.ndjson"


@pytest.fixture
def late(start, path, clock):
    """Start a sandbox whose first such call is done 5 s late; return a client of it."""

    async def starting(kind="act_later", call="continue", *, nth=(1,), seconds=5, **behaviour):
        fault = Fault(call, kind, nth=nth, status=504, seconds=seconds)
        return await start(Behaviour(faults=(fault,), journal=JournalSettings(path), **behaviour), clock=clock.now)

    return starting


async def _told(call):
    """Return the status of an answer, or None if there is none."""
    try:
        return (await call).status
    except aiohttp.ClientError:
        return None


async def _state(api, batch_id):
    status = await api.status(batch_id)
    return status["state"], status["created"]


def _first_error(answer):
    return answer.status, answer.body["errors"][0]["type"]


@pytest.mark.parametrize(("kind", "answer"), ANSWERS.items())
async def test_a_continue_is_answered_at_once_and_done_later(late, clock, path, kind, answer):
    api = await late(kind)
    batch_id, began = await api.upload(tasks(3)), clock.now()
    assert await _told(api.go_on(batch_id)) == answer
    clock.elapsed += 4.9
    assert await _state(api, batch_id) == ("waiting", 0)
    assert count_markers(path) == {}
    clock.elapsed += 5
    assert await _state(api, batch_id) == ("completed", 3)
    assert [entry.at - began for entry in read_journal(path)] == pytest.approx([5] * 3)


async def test_what_stands_between_may_answer_a_page(late):
    api = await late("html_late")
    answer = await api.go_on(await api.upload(tasks(1)))
    assert answer.status == 504
    assert b"<html>" in answer.body


async def test_late_work_is_done_though_nobody_asks(late, clock, path):
    api = await late("drop_late")
    assert await _told(api.go_on(await api.upload(tasks(3)))) is None
    clock.elapsed += 5
    await until(lambda: count_markers(path).total() == 3)


async def test_a_late_release_is_created_in_its_time(late, clock):
    api = await late(creation=CreationPace(tasks_per_second=2))
    batch_id = await api.upload(tasks(4))
    await api.go_on(batch_id)
    clock.elapsed += 6
    assert await _state(api, batch_id) == ("processing", 2)


async def test_an_inline_batch_has_its_id_at_once_and_waits(late, clock, path):
    api = await late(call="create")
    created = await api.create(tasks(3))
    assert created.status == 202
    assert await _state(api, created.body["batch_id"]) == ("waiting", 0)
    clock.elapsed += 5
    assert await _state(api, created.body["batch_id"]) == ("completed", 3)
    assert count_markers(path).total() == 3


async def test_an_inline_batch_whose_answer_is_lost_comes_later(late, clock, path):
    api = await late("drop_late", call="create")
    assert await _told(api.create(tasks(3))) is None
    assert count_markers(path) == {}
    clock.elapsed += 5
    await until(lambda: count_markers(path).total() == 3)


async def test_a_call_that_is_refused_is_not_done_later(late, clock):
    api = await late("drop_late")
    batch_id = (await api.create()).body["batch_id"]
    assert await _told(api.go_on(batch_id)) is None
    clock.elapsed += 10
    assert await _state(api, batch_id) == ("waiting", 0)


async def test_an_unusable_upload_fails_the_batch_when_it_is_looked_at(late, clock):
    api = await late()
    batch_id = await api.upload(b"{}")
    await api.go_on(batch_id)
    assert await _state(api, batch_id) == ("waiting", 0)
    clock.elapsed += 5
    assert await _state(api, batch_id) == ("failed", 0)


async def test_a_stopped_sandbox_leaves_undone_what_is_late(clock, path):
    told = Behaviour(faults=(Fault("create", "act_later", nth=(1,), seconds=5),), journal=JournalSettings(path))
    async with running_sandbox(told, clock=clock.now) as sandbox, aiohttp.ClientSession() as session:
        await Api(sandbox, session).create(tasks(3))
        others = asyncio.all_tasks()
    clock.elapsed += 10
    assert asyncio.all_tasks() < others
    assert count_markers(path) == {}


SECOND_CALLS = [("error", 400, 1), ("noop", 202, 1), ("duplicate", 202, 2), ("html", 409, 1)]


@pytest.mark.parametrize(("again", "answer", "times"), SECOND_CALLS)
async def test_a_second_continue_before_the_first_is_done(late, clock, path, again, answer, times):
    api = await late("drop_late", continue_again=again)
    batch_id = await api.upload(tasks(3))
    await _told(api.go_on(batch_id))
    assert await _told(api.go_on(batch_id)) == answer
    clock.elapsed += 5
    assert await _state(api, batch_id) == ("completed", 3)
    assert set(count_markers(path).values()) == {times}


async def test_each_of_two_late_continues_that_are_obeyed_creates_all(late, clock, path):
    api = await late(nth=(1, 2), continue_again="duplicate")
    batch_id = await api.upload(tasks(3))
    for _ in range(2):
        assert await _told(api.go_on(batch_id)) == 202
        clock.elapsed += 1
    clock.elapsed += 5
    assert await _state(api, batch_id) == ("completed", 3)
    assert set(count_markers(path).values()) == {2}


async def test_a_swallowed_continue_is_answered_and_never_done_but_may_be_told_again(late, clock, path):
    api = await late("swallow")
    batch_id = await api.upload(tasks(3))
    assert await _told(api.go_on(batch_id)) == 202
    clock.elapsed += 1000
    assert await _state(api, batch_id) == ("waiting", 0)
    assert await _told(api.go_on(batch_id)) == 202
    assert await _state(api, batch_id) == ("completed", 3)
    assert set(count_markers(path).values()) == {1}


async def test_a_swallowed_inline_batch_waits_for_ever(late, clock, path):
    api = await late("swallow", call="create")
    batch_id = (await api.create(tasks(3))).body["batch_id"]
    clock.elapsed += 10**6
    assert await _state(api, batch_id) == ("waiting", 0)
    assert count_markers(path) == {}


async def test_a_cancel_forgets_what_is_late(late, clock, path):
    api = await late("drop_late")
    batch_id = await api.upload(tasks(3))
    await _told(api.go_on(batch_id))
    assert await _told(api.cancel(batch_id)) == 202
    clock.elapsed += 10
    assert await _state(api, batch_id) == ("canceled", 0)
    assert count_markers(path) == {}


async def test_a_cancel_that_is_a_lie_is_believed_until_what_is_late_comes(late, clock, path):
    api = await late("drop_late", cancel="lie")
    batch_id = await api.upload(tasks(3))
    await _told(api.go_on(batch_id))
    assert await _told(api.cancel(batch_id)) == 202
    assert await _state(api, batch_id) == ("canceled", 0)
    clock.elapsed += 5
    assert await _state(api, batch_id) == ("completed", 3)
    assert set(count_markers(path).values()) == {1}


async def test_a_batch_may_be_busy_until_what_is_late_is_done(late, clock, path):
    api = await late("html_late", busy_while_late=True)
    batch_id, other = await api.upload(tasks(3)), await api.upload(tasks(1))
    assert await _told(api.go_on(batch_id)) == 504
    assert _first_error(await api.go_on(batch_id)) == (409, "Conflict")
    assert _first_error(await api.cancel(batch_id)) == (409, "Conflict")
    assert await _state(api, batch_id) == ("waiting", 0)
    assert await _told(api.go_on(other)) == 202
    clock.elapsed += 5
    assert await _state(api, batch_id) == ("completed", 3)
    assert _first_error(await api.go_on(batch_id)) == (400, "InvalidBatchState")
