"""Reads that lag behind writes: single ones and lists, each by a time of its own."""

import pytest
from msgspec.structs import replace

from engine.sandbox.behaviour import Fault, JournalSettings, Reads
from engine.sandbox.journal import count_markers
from engine.sandbox.settings import Life, SevenBridgesUnwritten

from .api import PROJECT, batch, behaviour, draft, error


@pytest.fixture
def lagging(start, clock):
    async def starting(reads, **settings):
        return await start(replace(behaviour(**settings), reads=reads), clock=clock.now)

    return starting


async def _bulk(api, *tasks):
    answer = await api.call("POST", "/bulk/tasks/get", {"task_ids": [task["id"] for task in tasks]})
    items = answer.body["items"]
    return [item["resource"]["status"] if "resource" in item else item["error"]["code"] for item in items]


async def test_a_task_that_was_just_run_is_still_a_draft(lagging, clock, tmp_path):
    path = tmp_path / "journal.ndjson"
    api = await lagging(Reads(single_seconds=1.2), journal=JournalSettings(path))
    task = await api.create()
    clock.elapsed += 10
    assert (await api.run(task)).body["status"] == "QUEUED"
    assert await api.status(task) == "DRAFT"
    assert (await api.get(task))["start_time"] is None
    assert await _bulk(api, task) == ["DRAFT"]
    assert error(await api.run(task)) == (400, 7010)
    assert count_markers(path, "run").total() == 1
    clock.elapsed += 1.2
    assert await api.status(task) == "COMPLETED"
    assert await _bulk(api, task) == ["COMPLETED"]


async def test_a_task_goes_through_its_states_later(lagging, clock):
    life = Life(creating_seconds=1, queued_seconds=1, running_seconds=2)
    api = await lagging(Reads(single_seconds=3), life=life)
    task = await api.create(run="true")
    seen = []
    for _ in range(9):
        seen.append(await api.status(task))
        clock.elapsed += 1
    assert seen == [*["DRAFT"] * 3, "CREATING", "QUEUED", "RUNNING", "RUNNING", "COMPLETED", "COMPLETED"]


async def test_an_abort_is_seen_later(lagging, clock):
    api = await lagging(Reads(single_seconds=3), life=Life(running_seconds=100, aborting_seconds=1))
    task = await api.create(run="true")
    clock.elapsed += 10
    await api.abort(task)
    seen = []
    for _ in range(5):
        seen.append(await api.status(task))
        clock.elapsed += 1
    assert seen == ["RUNNING", "RUNNING", "RUNNING", "ABORTING", "ABORTED"]


async def test_a_parent_is_shown_with_its_children_as_they_were(lagging, clock):
    life = Life(creating_seconds=1, running_seconds=10, parallel=1)
    api = await lagging(Reads(single_seconds=3, list_seconds=3), life=life)
    parent = await api.create(batch("a", "b"), run="true")
    seen = []
    for seconds in (3, 1, 10, 10, 10):
        clock.elapsed += seconds
        task = await api.get(parent)
        counts = task["execution_status"]
        children = (await api.list(parent=parent["id"], fields="status")).body["items"]
        seen.append((task["status"], counts.get("running"), counts.get("completed"), [c["status"] for c in children]))
    assert seen == [
        ("CREATING", None, None, []),
        ("RUNNING", 1, 0, ["RUNNING", "QUEUED"]),
        ("RUNNING", 1, 1, ["COMPLETED", "RUNNING"]),
        ("COMPLETED", 0, 2, ["COMPLETED", "COMPLETED"]),
        ("COMPLETED", 0, 2, ["COMPLETED", "COMPLETED"]),
    ]


@pytest.mark.parametrize(("unknown", "seen"), [(False, "DRAFT"), (True, 7002)])
async def test_a_new_draft_is_shown_or_may_be_unknown(lagging, clock, unknown, seen):
    api = await lagging(Reads(single_seconds=3, new_are_unknown=unknown))
    task = await api.create()
    assert await _bulk(api, task) == [seen]
    assert (await api.call("GET", f"/tasks/{task['id']}")).status == (404 if unknown else 200)
    assert (await api.run(task)).status == 200
    clock.elapsed += 3
    assert await _bulk(api, task) == ["COMPLETED"]


async def test_of_two_drafts_the_newer_one_is_seen_later_by_single_reads_and_lists(lagging, clock):
    api = await lagging(Reads(single_seconds=2, list_seconds=2, new_are_unknown=True))
    first = await api.create(draft("first"))
    clock.elapsed += 1.5
    second = await api.create(draft("second"))
    assert error(await api.call("GET", f"/tasks/{first['id']}")) == (404, 7002)
    clock.elapsed += 0.5
    assert await api.get(first) == first
    assert await api.names(project=PROJECT) == ["first"]
    assert await _bulk(api, first, second) == ["DRAFT", 7002]
    assert (await api.run(second)).status == 200
    clock.elapsed += 1.5
    assert (await api.list()).headers["x-total-matching-query"] == "2"


@pytest.mark.parametrize("newest", [False, True])
async def test_a_list_that_lags_is_in_the_order_and_says_the_total_of_any_other(lagging, clock, newest):
    unwritten = SevenBridgesUnwritten(list_order="newest" if newest else "asked", total_header=not newest)
    api = await lagging(Reads(list_seconds=2), unwritten=unwritten)
    for name in ("a", "b", "c"):
        await api.create(draft(name))
    clock.elapsed += 2
    listed = await api.list(order_by="name", order="asc", limit="2")
    assert [task["name"] for task in listed.body["items"]] == (["c", "b"] if newest else ["a", "b"])
    assert listed.headers.get("x-total-matching-query") == (None if newest else "3")


async def test_lists_lack_what_is_newer_and_single_reads_do_not_lag_with_them(lagging, clock):
    api = await lagging(Reads(list_seconds=6))
    first = await api.create(draft("first"))
    clock.elapsed += 3
    await api.create(draft("second"))
    await api.run(first)
    assert (await api.names(), await api.status(first)) == ([], "COMPLETED")
    clock.elapsed += 3
    assert (await api.names(), await api.names(status="DRAFT")) == (["first"], ["first"])
    clock.elapsed += 3
    assert await api.names() == ["first", "second"]
    assert await api.names(order="desc", limit="1") == ["second"]
    assert await api.names(status="DRAFT") == ["second"]
    assert (await api.list(limit="1")).headers["X-Total-Matching-Query"] == "2"


async def test_a_deleted_draft_is_shown_for_a_while(lagging, clock):
    api = await lagging(Reads(single_seconds=2, list_seconds=4))
    task = await api.create()
    clock.elapsed += 10
    assert (await api.call("DELETE", f"/tasks/{task['id']}")).status == 204
    assert error(await api.call("DELETE", f"/tasks/{task['id']}")) == (404, 7002)
    clock.elapsed += 1
    assert (await api.status(task), await api.names()) == ("DRAFT", ["a task"])
    clock.elapsed += 1
    assert error(await api.call("GET", f"/tasks/{task['id']}")) == (404, 7002)
    clock.elapsed += 2
    assert await api.names() == []


async def test_a_lag_comes_on_top_of_late_work(lagging, clock):
    fault = Fault("run", "act_later", every=1, seconds=5)
    api = await lagging(Reads(single_seconds=3), faults=(fault,))
    task = await api.create()
    await api.run(task)
    clock.elapsed += 7
    assert await api.status(task) == "DRAFT"
    clock.elapsed += 1
    assert await api.status(task) == "COMPLETED"
