import orjson
import pytest

from engine.sandbox.behaviour import Behaviour, FailureRule, Project, WorkPace

from ..api import tasks  # noqa: TID252 - tests of one package


async def _list(api, **query):
    answer = await api.call("GET", "/tasks.json", **query)
    assert answer.status == 200, answer.body
    return answer.body["tasks"]


async def test_a_created_task_can_be_read(start, clock):
    api = await start(clock=clock.now)
    (task_id,) = await api.created_ids([{"data": {"a": 1}, "priority": -5}])
    task = (await api.call("GET", f"/tasks/{task_id}.json", same_as_delivery="true", page=1)).body["task"]
    assert task == {
        "id": task_id,
        "project_id": 42,
        "batch_id": task["batch_id"],
        "created_at": "2025-06-15T15:06:40.000Z",
        "state": "new",
        "priority": -5,
        "data": {"a": 1},
        "answers": {},
    }


async def test_failed_tasks_and_those_of_other_projects_are_not_there(start):
    api = await start(Behaviour(failures=(FailureRule("data.id", equals="1"),)))
    batch_id = (await api.create(tasks(3))).body["batch_id"]
    kept = [task["id"] for task in (await api.status(batch_id))["tasks"] if "id" in task]
    assert [task["id"] for task in await _list(api)] == kept
    failed_id = kept[0][:-1] + "1"
    assert (await api.call("GET", f"/tasks/{failed_id}.json")).status == 404
    api.project = 43
    assert await _list(api) == []
    assert (await api.call("GET", f"/tasks/{kept[0]}.json")).status == 404


@pytest.mark.parametrize("task_id", ["x", "0" * 24])
async def test_an_unknown_task_is_404(start, task_id):
    assert (await (await start()).call("GET", f"/tasks/{task_id}.json")).status == 404


async def test_lists_come_in_pages_of_100_at_most(start):
    api = await start()
    ids = await api.created_ids(tasks(250))
    pages = [await _list(api, page=page) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [100, 100, 50, 0]
    assert [task["id"] for page in pages for task in page] == ids
    assert (await api.call("GET", "/tasks.json", page_size=101)).status == 400
    assert (await api.call("GET", "/tasks.json", page_size=0)).status == 400


async def test_tasks_are_found_by_client_batch_id(start):
    api = await start()
    await api.created_ids([{"data": {"client_batch_id": mark}} for mark in ("night-1", "night-2", "day", "night-1")])
    await api.created_ids([{"data": {"client_batch_id": "night-1"}}, {"data": {}}])
    assert len(await _list(api, client_batch_id="night-1")) == 3
    assert len(await _list(api, client_batch_id="night", client_batch_id_match_type="contains")) == 4
    assert await _list(api, client_batch_id="night") == []
    api.project = 43
    assert await _list(api, client_batch_id="night-1") == []


async def test_tasks_are_filtered_by_batch_state_and_time(start, clock):
    api = await start(clock=clock.now)
    await api.created_ids(tasks(2))
    clock.elapsed += 3600
    second = await api.created_ids([{"data": {}, "submit": True}, {"data": {}}])
    batch_id = (await _list(api))[-1]["batch_id"]
    assert [task["id"] for task in await _list(api, batch_id=batch_id)] == second
    assert [task["id"] for task in await _list(api, state="completed", omit_answers="true")] == second[:1]
    assert len(await _list(api, **{"from": "2025-06-15T16:00:00Z", "date_type": "creation_date"})) == 2
    assert len(await _list(api, to="2025-06-15T16:00:00Z")) == 2
    assert "answers" not in (await _list(api, omit_answers="true"))[0]


@pytest.mark.parametrize(
    "query",
    [{"batch_id": "x"}, {"state": "gone"}, {"from": "noon"}, {"client_batch_id_match_type": "x"}, {"omit_answers": 5}],
)
async def test_wrong_filters_are_refused(start, query):
    assert (await (await start()).call("GET", "/tasks.json", **query)).status == 400


async def test_a_sandbox_that_keeps_no_data_says_so(start):
    api = await start(Behaviour(keep_task_data=False))
    await api.created_ids([{"data": {"client_batch_id": "a"}}])
    assert [task["data"] for task in await _list(api)] == [None]
    assert (await api.call("GET", "/tasks.json", client_batch_id="a")).status == 400


async def test_people_work_on_tasks(start, clock):
    api = await start(Behaviour(work=WorkPace(tasks_per_second=1, step_seconds=10)), clock=clock.now)
    await api.created_ids(tasks(2))
    seen = []
    for seconds in (0, 1, 1, 10, 10, 10, 1000):
        clock.elapsed += seconds
        seen.append([task["state"] for task in await _list(api)])
    assert seen == [
        ["new", "new"],
        ["in progress", "new"],
        ["in progress", "in progress"],
        ["completed", "completed"],
        ["approved", "approved"],
        ["delivered", "delivered"],
        ["delivered", "delivered"],
    ]


@pytest.fixture
async def delivered(start, clock):
    api = await start(Behaviour(work=WorkPace(tasks_per_second=1)), clock=clock.now)
    await api.created_ids(tasks(3))
    clock.elapsed += 2
    return api


async def test_delivered_tasks_can_be_listed(delivered):
    answer = await delivered.call("GET", "/tasks/delivered.json", page_size=1000)
    assert [task["data"]["id"] for task in answer.body["tasks"]] == ["0", "1"]


async def test_each_consumer_gets_a_delivered_task_once(delivered, clock):
    async def fetch(consumer, **body):
        answer = await delivered.call("POST", "/tasks/delivered.json", {"consumer": consumer, "batch_id": None, **body})
        return [task["data"]["id"] for task in answer.body["tasks"]]

    assert await fetch("a", limit=1) == ["0"]
    assert await fetch("a") == ["1"]
    assert await fetch("a") == []
    clock.elapsed += 1
    assert await fetch("a") == ["2"]
    assert await fetch("b") == ["0", "1", "2"]


async def test_a_task_that_was_worked_on_can_be_rejected(delivered):
    first, _, third = [task["id"] for task in await _list(delivered)]
    answer = await delivered.call("PUT", f"/tasks/{first}/reject.json", {"reasons": ["blurred"]})
    assert answer.body["task"]["state"] == "rejected"
    assert [task["id"] for task in await _list(delivered, state="rejected")] == [first]
    assert (await delivered.call("PUT", f"/tasks/{first}/reject.json", {"reasons": []})).status == 400
    assert (await delivered.call("PUT", f"/tasks/{third}/reject.json", {"reasons": ["x"]})).status == 400


async def test_only_new_tasks_can_be_deleted(delivered):
    first, second, third = [task["id"] for task in await _list(delivered)]
    assert (await delivered.call("POST", "/tasks/delete_tasks.json", {"task_ids": [first, third]})).status == 400
    assert (await delivered.call("POST", "/tasks/delete_tasks.json", {"task_ids": [third]})).status == 200
    assert [task["id"] for task in await _list(delivered)] == [first, second]
    assert (await delivered.call("GET", f"/tasks/{third}.json")).status == 404


async def test_priorities_can_be_changed(start):
    api = await start()
    ids = await api.created_ids(tasks(3))
    assert (await api.call("POST", "/tasks/bulk_update.json", {"task_ids": ids[:2], "priority": 9})).status == 200
    assert [task["priority"] for task in await _list(api)] == [9, 9, 0]
    wrong = [{"task_ids": [], "priority": 1}, {"task_ids": ids, "priority": 2**31}, {"priority": 1}]
    assert [(await api.call("POST", "/tasks/bulk_update.json", body)).status for body in wrong] == [400] * 3
    assert (await api.call("POST", "/tasks/bulk_update.json", {"task_ids": ["x"], "priority": 1})).status == 404


async def test_a_project_serves_its_schema(start, tmp_path):
    schema = {"type": "object", "required": ["data"]}
    (tmp_path / "schema.json").write_bytes(orjson.dumps(schema))
    api = await start(Behaviour(projects=(Project(42, tmp_path / "schema.json"), Project(43))))
    assert (await api.call("GET", "/schemas/create_task.json")).body == schema
    assert (await api.call("GET", "/schemas/deliver_task.json")).body["type"] == "object"
    api.project = 43
    assert "priority" in (await api.call("GET", "/schemas/create_task.json")).body["properties"]


async def test_a_project_has_a_name_and_counts(start):
    api = await start()
    await api.created_ids(tasks(3))
    assert (await api.call("GET", ".json")).body["project"]["id"] == 42
    assert (await api.call("GET", "/stats.json")).body["tasks"]["new"] == 3
