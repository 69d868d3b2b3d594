"""Reads that lag behind writes: status, single tasks and lists, each by a time of its own."""

import pytest

from engine.sandbox.behaviour import Behaviour, CreationPace, FailureRule, Fault, JournalSettings, Reads, WorkPace
from engine.sandbox.journal import count_markers
from engine.sandbox.sama.creation import BatchState, CreationRun, Message, SandboxBatch

from ..api import tasks  # noqa: TID252 - tests of one package


@pytest.fixture
def lagging(start, clock):
    async def starting(reads, **behaviour):
        return await start(Behaviour(reads=reads, **behaviour), clock=clock.now)

    return starting


async def _state(api, batch_id):
    status = await api.status(batch_id)
    return status["state"], status["total"], status["created"]


async def _listed(api, **query):
    answer = await api.call("GET", "/tasks.json", **query)
    return [task["data"]["id"] for task in answer.body["tasks"]]


async def test_a_batch_that_was_just_continued_still_says_waiting(lagging, clock, tmp_path):
    path = tmp_path / "journal.ndjson"
    api = await lagging(Reads(status_seconds=4), journal=JournalSettings(path))
    batch_id = await api.upload(tasks(3))
    clock.elapsed += 100
    assert (await api.go_on(batch_id)).status == 202
    assert await _state(api, batch_id) == ("waiting", 0, 0)
    assert count_markers(path).total() == 3
    clock.elapsed += 3.9
    assert await _state(api, batch_id) == ("waiting", 0, 0)
    assert (await api.go_on(batch_id)).status == 400
    clock.elapsed += 0.2
    assert await _state(api, batch_id) == ("completed", 3, 3)


async def test_a_status_says_what_was_true(lagging, clock):
    rules = (FailureRule("data.id", equals="1"),)
    api = await lagging(Reads(status_seconds=10), creation=CreationPace(2, delay_seconds=3), failures=rules)
    batch_id = (await api.create(tasks(4))).body["batch_id"]
    seen = []
    for seconds in (9, 1, 3, 1, 1, 1):
        clock.elapsed += seconds
        seen.append(await _state(api, batch_id))
    assert seen == [
        ("waiting", 0, 0),
        ("queued", 4, 0),
        ("processing", 4, 0),
        ("processing", 4, 1),
        ("completed", 4, 3),
        ("completed", 4, 3),
    ]


async def test_the_tasks_of_a_status_are_those_of_its_time(lagging, clock):
    rules = (FailureRule("data.id", equals="1"),)
    api = await lagging(Reads(status_seconds=1), creation=CreationPace(1), failures=rules)
    batch_id = (await api.create(tasks(3))).body["batch_id"]
    clock.elapsed += 2
    assert [task["state"] for task in (await api.status(batch_id))["tasks"]] == ["created", "ready", "preprocessing"]
    clock.elapsed += 1
    assert [task["state"] for task in (await api.status(batch_id))["tasks"]] == ["created", "failed", "ready"]


async def test_a_cancel_is_seen_later(lagging, clock):
    api = await lagging(Reads(status_seconds=5), creation=CreationPace(1))
    running, waiting = (await api.create(tasks(9))).body["batch_id"], await api.upload(tasks(1))
    clock.elapsed += 6
    for batch_id in (running, waiting):
        assert (await api.cancel(batch_id)).status == 202
    assert await _state(api, running) == ("processing", 9, 1)
    assert await _state(api, waiting) == ("waiting", 0, 0)
    clock.elapsed += 4
    assert await _state(api, running) == ("processing", 9, 5)
    assert (await api.status(waiting))["messages"] == []
    clock.elapsed += 1
    assert await _state(api, running) == ("canceled", 9, 6)
    assert await _state(api, waiting) == ("canceled", 0, 0)
    assert (await api.status(waiting))["messages"] == ["The creation was canceled."]


async def test_a_lag_comes_on_top_of_late_work(lagging, clock):
    fault = Fault("continue", "act_later", nth=(1,), seconds=5)
    api = await lagging(Reads(status_seconds=4), faults=(fault,))
    batch_id = await api.upload(tasks(1))
    await api.go_on(batch_id)
    clock.elapsed += 8.9
    assert (await api.status(batch_id))["state"] == "waiting"
    clock.elapsed += 0.2
    assert (await api.status(batch_id))["state"] == "completed"


async def test_a_new_batch_may_be_unknown(lagging, clock):
    api = await lagging(Reads(status_seconds=4, new_are_unknown=True))
    batch_id = (await api.create(tasks(1))).body["batch_id"]
    assert (await api.call("GET", f"/batches/{batch_id}.json")).status == 404
    clock.elapsed += 4
    assert (await api.status(batch_id))["state"] == "completed"


async def test_lists_lack_what_is_newer_and_a_status_does_not_lag_with_them(lagging, clock):
    api = await lagging(Reads(list_seconds=6), creation=CreationPace(1))
    batch_id = (await api.create([{"data": {"id": str(n), "client_batch_id": "m"}} for n in range(3)])).body["batch_id"]
    clock.elapsed += 3
    assert await _state(api, batch_id) == ("completed", 3, 3)
    assert await _listed(api) == []
    clock.elapsed += 5
    assert await _listed(api, batch_id=batch_id) == ["0", "1"]
    assert await _listed(api, client_batch_id="m") == ["0", "1"]
    assert await _listed(api, client_batch_id="m", client_batch_id_match_type="contains") == ["0", "1"]
    clock.elapsed += 1
    assert await _listed(api) == ["0", "1", "2"]


async def test_a_deleted_task_is_listed_for_a_while(lagging, clock):
    api = await lagging(Reads(single_seconds=2, list_seconds=4))
    task_id, _ = await api.created_ids(tasks(2))
    clock.elapsed += 10
    await api.call("POST", "/tasks/delete_tasks.json", {"task_ids": [task_id]})
    clock.elapsed += 1.5
    assert (await api.call("GET", f"/tasks/{task_id}.json")).status == 200
    clock.elapsed += 1
    assert (await api.call("GET", f"/tasks/{task_id}.json")).status == 404
    assert await _listed(api) == ["0", "1"]
    clock.elapsed += 2
    assert await _listed(api) == ["1"]


async def test_a_single_task_is_as_it_was(lagging, clock):
    api = await lagging(Reads(single_seconds=3), work=WorkPace(1))
    task_id = (await api.created_ids(tasks(1)))[0]
    states = []
    for _ in range(5):
        states.append((await api.call("GET", f"/tasks/{task_id}.json")).body["task"]["state"])
        clock.elapsed += 1
    assert states == ["new"] * 4 + ["delivered"]


async def test_a_new_task_may_be_unknown(lagging, clock):
    api = await lagging(Reads(single_seconds=3, new_are_unknown=True))
    task_id = (await api.created_ids(tasks(1)))[0]
    assert (await api.call("GET", f"/tasks/{task_id}.json")).status == 404
    clock.elapsed += 3
    assert (await api.call("GET", f"/tasks/{task_id}.json")).status == 200


def test_a_batch_as_it_was():
    run = CreationRun(7, 0, [{}] * 4, 4, 110.0, 1.0, done=4, planned_at=105.0)
    batch = SandboxBatch(42, 1, 100.0, runs=[run], messages=[Message(112, "Hello.")])
    then = {at: batch.as_of(at) for at in (100, 105, 112, 120)}
    assert [then[at].state(at) for at in then] == [
        BatchState.WAITING,
        BatchState.QUEUED,
        BatchState.PROCESSING,
        BatchState.COMPLETED,
    ]
    assert [[run.done for run in then[at].runs] for at in then] == [[], [0], [2], [4]]
    assert [len(then[at].messages) for at in then] == [0, 0, 1, 1]
    assert (run.done, batch.state(120)) == (4, BatchState.COMPLETED)
