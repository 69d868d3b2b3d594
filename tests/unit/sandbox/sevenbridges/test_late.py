"""Work that comes later than its call, or never; what a task says until then, and what a second call does to it."""

import aiohttp
import pytest
from fakes.clock import until
from msgspec.structs import replace

from engine.sandbox.behaviour import Fault, JournalSettings
from engine.sandbox.journal import count_markers, read_journal
from engine.sandbox.settings import Life

from .api import batch, behaviour, draft, error

ANSWERS = {"act_later": 200, "drop_late": None, "refuse_late": 504, "html_late": 504}
"""Status by kind of fault; None: there is no answer."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.ndjson"


@pytest.fixture
def late(start, path, clock):
    """Start a sandbox whose first such call is done 5 s late; return a client of it."""

    async def starting(kind="act_later", call="run", *, busy_while_late=False, **settings):
        fault = Fault(call, kind, nth=(1,), status=504, seconds=5)
        told = behaviour(faults=(fault,), journal=JournalSettings(path), **settings)
        return await start(replace(told, busy_while_late=busy_while_late), clock=clock.now)

    return starting


async def _told(call):
    """Return the status of an answer, or None if there is none."""
    try:
        return (await call).status
    except aiohttp.ClientError:
        return None


def _runs(path):
    return count_markers(path, "run").total()


@pytest.mark.parametrize(("kind", "answer"), ANSWERS.items())
async def test_a_run_is_answered_at_once_and_done_later(late, clock, path, kind, answer):
    api = await late(kind, life=Life(running_seconds=10))
    task, began = await api.create(), clock.now()
    assert await _told(api.run(task)) == answer
    clock.elapsed += 4
    assert await api.status(task) == "DRAFT"
    assert _runs(path) == 0
    clock.elapsed += 2
    assert await api.status(task) == "RUNNING"
    assert [entry.at - began for entry in read_journal(path) if entry.kind == "run"] == [5]
    clock.elapsed += 9
    assert await api.status(task) == "COMPLETED"


async def test_who_tells_a_task_to_run_sees_it_created(late):
    api = await late()
    answer = (await api.run(await api.create())).body
    assert (answer["status"], answer["executed_by"]) == ("CREATING", "sandbox")


async def test_a_late_run_is_done_though_nobody_asks(late, clock, path):
    api = await late("drop_late")
    parent = await api.create(batch("a", "b"))
    assert await _told(api.run(parent)) is None
    clock.elapsed += 5
    await until(lambda: _runs(path) == 1)
    assert count_markers(path, "child").total() == 2


async def test_a_new_draft_has_its_id_at_once_and_is_found_later(late, clock, path):
    api = await late(call="create")
    task = await api.create()
    other = await api.create(draft("another"))
    assert (task["status"], task["created_time"]) == ("DRAFT", other["created_time"])
    assert error(await api.call("GET", f"/tasks/{task['id']}")) == (404, 7002)
    assert await api.names() == ["another"]
    bulk = (await api.call("POST", "/bulk/tasks/get", {"task_ids": [task["id"], other["id"]]})).body["items"]
    assert [item.get("error", {}).get("code") for item in bulk] == [7002, None]
    assert error(await api.run(task)) == (404, 7002)
    clock.elapsed += 5
    assert await api.status(task) == "DRAFT"
    assert await api.names() == ["another", "a task"]
    assert [entry.task_id for entry in read_journal(path)] == [other["id"], task["id"]]


async def test_drafts_that_come_late_have_ids_of_their_own(start, clock):
    api = await start(behaviour(faults=(Fault("create", "act_later", every=1, seconds=5),)), clock=clock.now)
    tasks = [await api.create(draft(f"n{number}")) for number in range(3)]
    clock.elapsed += 5
    assert [(await api.get(task))["name"] for task in tasks] == ["n0", "n1", "n2"]


async def test_a_draft_that_is_run_as_it_is_created_runs_later(late, clock, path):
    api = await late(call="create")
    task = await api.create(run="true")
    assert task["status"] == "CREATING"
    clock.elapsed += 5
    assert await api.status(task) == "COMPLETED"
    assert _runs(path) == 1


async def test_a_draft_whose_answer_is_lost_comes_later(late, clock, path):
    api = await late("drop_late", call="create")
    assert await _told(api.call("POST", "/tasks", draft())) is None
    assert await api.names() == []
    clock.elapsed += 5
    await until(lambda: count_markers(path).total() == 1)
    assert await api.names() == ["a task"]


SECOND_CALLS = [("error", 400, 1), ("noop", 200, 1), ("duplicate", 200, 2), ("html", 409, 1)]


@pytest.mark.parametrize(("again", "answer", "times"), SECOND_CALLS)
async def test_a_second_run(start, path, again, answer, times):
    api = await start(behaviour(run_again=again, journal=JournalSettings(path)))
    parent = await api.create(batch("a", "b"), run="true")
    second = await api.run(parent)
    assert second.status == answer
    assert again != "error" or error(second) == (400, 7010)
    assert again != "html" or b"<html>" in second.body
    assert await api.status(parent) == "COMPLETED"
    assert (_runs(path), count_markers(path, "child").total(), api.sandbox.stats.tasks_run) == (times, 2, times)


@pytest.mark.parametrize(("again", "answer", "times"), SECOND_CALLS)
async def test_a_second_run_before_the_first_is_done(late, clock, path, again, answer, times):
    api = await late("drop_late", run_again=again)
    task = await api.create()
    await _told(api.run(task))
    assert await _told(api.run(task)) == answer
    clock.elapsed += 5
    assert await api.status(task) == "COMPLETED"
    assert _runs(path) == times


async def test_a_child_was_told_to_run_by_its_parent(start):
    api = await start()
    parent = await api.create(batch("a"), run="true")
    child = (await api.list(parent=parent["id"])).body["items"][0]
    assert error(await api.run(child)) == (400, 7010)


async def test_a_task_may_be_busy_until_what_is_late_is_done(late, clock, path):
    api = await late("html_late", busy_while_late=True, run_again="duplicate")
    task = await api.create()
    assert await _told(api.run(task)) == 504
    for call in (api.run(task), api.abort(task), api.call("DELETE", f"/tasks/{task['id']}")):
        assert error(await call) == (409, 90000)
    assert await api.status(task) == "DRAFT"
    clock.elapsed += 5
    assert await api.status(task) == "COMPLETED"
    assert _runs(path) == 1


async def test_a_draft_that_is_deleted_meanwhile_is_not_run(late, clock, path):
    api = await late("drop_late")
    task = await api.create()
    await _told(api.run(task))
    assert (await api.call("DELETE", f"/tasks/{task['id']}")).status == 204
    clock.elapsed += 5
    assert await api.names() == []
    assert _runs(path) == 0


async def test_a_swallowed_run_is_answered_and_never_done_but_may_be_told_again(late, clock, path):
    api = await late("swallow")
    task = await api.create()
    assert (await api.run(task)).body["status"] == "CREATING"
    clock.elapsed += 1000
    assert await api.status(task) == "DRAFT"
    assert (await api.run(task)).status == 200
    assert await api.status(task) == "COMPLETED"
    assert _runs(path) == 1


async def test_a_swallowed_draft_is_answered_and_never_found(late, clock, path):
    api = await late("swallow", call="create")
    task = await api.create()
    clock.elapsed += 1000
    assert error(await api.call("GET", f"/tasks/{task['id']}")) == (404, 7002)
    assert count_markers(path) == {}
