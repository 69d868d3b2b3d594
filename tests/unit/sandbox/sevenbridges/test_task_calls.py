import uuid

import pytest

from engine.sandbox.behaviour import JournalSettings
from engine.sandbox.journal import count_markers, read_journal
from engine.sandbox.settings import App, AppInput, Life

from .api import APP, PROJECT, batch, behaviour, draft, error, files

NOBODY = "48f79ccf-12b3-45b6-789c-b1e8d88dabcd"


async def test_a_draft_is_created(start, clock):
    clock.move_to(1452623970.7)
    api = await start(clock=clock.now)
    inputs = {"vcf": {"class": "File", "path": "567890abc9b0307bc0414164", "name": "known_indels.vcf"}, "n": 1.5}
    body = draft(
        "RFranklin, Experiment IV", description="my draft task", inputs=inputs, use_interruptible_instances=True
    )
    task = await api.create(body)
    assert uuid.UUID(task["id"], version=4)
    assert task["href"] == f"{api.sandbox.url}/tasks/{task['id']}"
    expected = {
        "name": "RFranklin, Experiment IV",
        "description": "my draft task",
        "status": "DRAFT",
        "project": PROJECT,
        "app": f"{APP}/0",
        "type": "v2",
        "created_by": "sandbox",
        "executed_by": None,
        "created_time": "2016-01-12T18:39:30Z",
        "start_time": None,
        "batch": False,
        "batch_by": None,
        "parent": None,
        "batch_group": None,
        "inputs": inputs,
        "errors": [],
        "use_interruptible_instances": True,
        "execution_status": {},
    }
    assert {key: task[key] for key in expected} == expected
    assert await api.get(task) == task


@pytest.mark.parametrize("query", [{"run": "true"}, {"action": "run"}])
async def test_a_task_may_be_run_as_it_is_created(start, query):
    api = await start()
    task = await api.create(**query)
    assert task["status"] == "QUEUED"
    assert await api.status(task) == "COMPLETED"
    assert api.sandbox.stats.tasks_run == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"project": None}, (400, 3012)),
        ({"project": "short"}, (400, 3012)),
        ({"project": "nobody/nothing"}, (404, 3002)),
        ({"app": None}, (404, 6002)),
        ({"app": "owner/app"}, (404, 6002)),
        ({"name": 5}, (400, 90000)),
        ({"inputs": []}, (400, 90000)),
        ({"batch": True}, (400, 7018)),
        ({"batch_by": {"type": "ITEM"}}, (400, 7018)),
        ({"batch_input": "reads", "batch_by": {"type": "SIZE"}}, (400, 7020)),
        ({"batch_input": "reads", "batch_by": {"type": "CRITERIA"}}, (400, 7019)),
        ({"batch_input": "reads", "batch_by": {"type": "CRITERIA", "criteria": ["sample_id"]}}, (400, 7019)),
    ],
)
async def test_a_body_that_cannot_be_a_draft_is_refused(start, fields, expected):
    api = await start(behaviour(projects=(PROJECT,)))
    assert error(await api.call("POST", "/tasks", {**draft(), **fields})) == expected
    assert api.sandbox.stats.tasks_created == 0


async def test_bad_inputs_make_a_draft_that_cannot_be_run(start):
    app = App(APP, revision=3, inputs=(AppInput("reads", "File", required=True), AppInput("threads", "int")))
    api = await start(behaviour(apps=(app,)))
    lacking = await api.create(draft(), run="true")
    assert (lacking["status"], lacking["app"]) == ("DRAFT", f"{APP}/3")
    assert [problem["input_id"] for problem in lacking["errors"]] == ["reads"]
    assert error(await api.run(lacking)) == (400, 7012)
    wrong = await api.create(draft(inputs={"reads": files("a")[0], "threads": "many"}))
    assert wrong["errors"][0]["type"] == "error/task_validation/input/schema"
    assert error(await api.run(wrong)) == (400, 7024)
    changed = await api.call("PATCH", f"/tasks/{wrong['id']}", {"inputs": {"threads": 4}})
    assert changed.body["errors"] == []
    assert (await api.run(wrong)).status == 200


async def test_only_a_draft_is_run_so_a_repeated_run_is_safe(start, tmp_path):
    path = tmp_path / "journal.ndjson"
    api = await start(behaviour(journal=JournalSettings(path)))
    task = await api.create(draft("once"))
    ran = await api.run(task, use_interruptible_instances="true")
    assert (ran.status, ran.body["use_interruptible_instances"]) == (200, True)
    assert error(await api.run(task)) == (400, 7010)
    assert count_markers(path) == {"once": 1}
    assert count_markers(path, "run") == {"once": 1}


async def test_everything_really_done_is_journaled_once(start, tmp_path):
    path = tmp_path / "journal.ndjson"
    api = await start(behaviour(journal=JournalSettings(path, ("description",))))
    parent = await api.create(batch("a", "b", description="mine"))
    await api.run(parent)
    entries = list(read_journal(path))
    assert [(entry.kind, entry.marker, entry.batch_id, entry.position) for entry in entries] == [
        ("task", "mine", "", 0),
        ("run", "mine", "", 0),
        ("child", "mine", parent["id"], 0),
        ("child", "mine", parent["id"], 1),
    ]


async def test_a_draft_is_changed_and_deleted(start):
    api = await start()
    task = await api.create(draft(inputs={"a": 1, "b": 2}))
    body = {"name": "new", "inputs": {"b": 3}, "execution_settings": {"use_memoization": True}}
    changed = (await api.call("PATCH", f"/tasks/{task['id']}", body)).body
    assert (changed["name"], changed["inputs"]) == ("new", {"a": 1, "b": 3})
    assert changed["execution_settings"] == {"use_memoization": True}
    assert error(await api.call("PATCH", f"/tasks/{task['id']}", {"batch_input": "a"})) == (400, 7023)
    by = {"batch_input": "a", "batch_by": {"type": "item"}}
    assert (await api.call("PATCH", f"/tasks/{task['id']}", by)).body["batch_by"] == {"type": "ITEM"}
    assert (await api.call("DELETE", f"/tasks/{task['id']}", {})).status == 204
    assert error(await api.call("GET", f"/tasks/{task['id']}")) == (404, 7002)
    assert (await api.list()).body["items"] == []


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_only_a_draft_is_changed_or_deleted(start, method):
    api = await start()
    task = await api.create(run="true")
    assert error(await api.call(method, f"/tasks/{task['id']}", {})) == (400, 7007)


async def test_a_task_is_cloned(start):
    api = await start()
    task = await api.create(draft("twin", inputs={"a": 1}), run="true")
    clone = await api.call("POST", f"/tasks/{task['id']}/actions/clone")
    assert (clone.status, clone.body["status"], clone.body["inputs"]) == (201, "DRAFT", {"a": 1})
    assert clone.body["id"] != task["id"]
    again = await api.call("POST", f"/tasks/{task['id']}/actions/clone", action="run")
    assert again.body["status"] == "QUEUED"


async def test_a_task_is_aborted(start, clock):
    api = await start(behaviour(life=Life(running_seconds=60)), clock=clock.now)
    task = await api.create()
    assert error(await api.abort(task)) == (400, 7011)
    await api.run(task)
    assert (await api.abort(task)).body["status"] == "ABORTED"
    assert error(await api.abort(task)) == (400, 7011)


async def test_an_id_is_a_uuid_and_must_exist(start):
    api = await start()
    assert error(await api.call("GET", "/tasks/nonsense")) == (400, 7005)
    assert error(await api.call("GET", f"/tasks/{NOBODY}")) == (404, 7002)


async def test_tasks_are_read_in_bulk(start):
    api = await start()
    one = await api.create(draft("one"))
    answer = await api.call("POST", "/bulk/tasks/get", {"task_ids": [one["id"], NOBODY, "nonsense"]})
    assert answer.body["items"][0] == {"resource": one}
    assert [item["error"]["code"] for item in answer.body["items"][1:]] == [7002, 7005]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ("resource.status", {"status": "DRAFT"}),
        ("id, resource.status,resource.execution_status(message)", {"status": "DRAFT", "execution_status": {}}),
        ("status", {}),
        ("id,name,status", {}),
    ],
)
async def test_the_fields_of_a_bulk_call_need_the_keyword_resource(start, fields, shown):
    api = await start()
    one = await api.create(draft("one"))
    answer = await api.call("POST", "/bulk/tasks/get", {"task_ids": [one["id"], NOBODY]}, fields=fields)
    assert answer.body["items"][0] == {"resource": shown}
    assert answer.body["items"][1]["error"]["code"] == 7002


@pytest.mark.parametrize("fields", ["", "_all", "resource", "resource._all"])
async def test_a_bulk_call_can_bring_whole_tasks(start, fields):
    api = await start()
    one = await api.create(draft("one"))
    answer = await api.call("POST", "/bulk/tasks/get", {"task_ids": [one["id"]]}, fields=fields)
    assert answer.body["items"] == [{"resource": one}]


@pytest.mark.parametrize("body", [{}, {"task_ids": []}, {"task_ids": "x"}, {"task_ids": [NOBODY] * 101}])
async def test_a_bulk_call_takes_up_to_a_hundred_ids(start, body):
    assert error(await (await start()).call("POST", "/bulk/tasks/get", body)) == (400, 90000)


async def test_a_list_shows_little_unless_more_is_asked_for(start):
    api = await start()
    await api.create()
    assert set((await api.list()).body["items"][0]) == {"href", "id", "name", "project"}
    assert set((await api.list(fields="id,status,nothing")).body["items"][0]) == {"id", "status"}
    assert "inputs" in (await api.list(fields="_all")).body["items"][0]
    one = (await api.list()).body["items"][0]["id"]
    assert set((await api.call("GET", f"/tasks/{one}", fields="id,execution_status(message)")).body) == {
        "id",
        "execution_status",
    }


async def test_a_list_has_pages(start):
    api = await start()
    for number in range(5):
        await api.create(draft(f"n{number}"))
    first = await api.list(limit="2", project=PROJECT)
    assert first.headers["x-total-matching-query"] == "5"
    assert [link["rel"] for link in first.body["links"]] == ["next"]
    middle = await api.call("GET", first.body["links"][0]["href"].removeprefix(api.sandbox.url))
    assert [task["name"] for task in middle.body["items"]] == ["n2", "n3"]
    back = {link["rel"]: link["href"] for link in middle.body["links"]}["prev"]
    assert (await api.call("GET", back.removeprefix(api.sandbox.url))).body["items"] == first.body["items"]
    assert await api.names(offset="4") == ["n4"]
    assert await api.names(offset="9") == []
    assert await api.names(order="desc", limit="2", offset="1") == ["n3", "n2"]
    assert await api.names(order="desc", limit="2", offset="4") == ["n0"]
    assert await api.names(order="desc", limit="2", offset="6") == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "101"},
        {"limit": "0"},
        {"offset": "-1"},
        {"order_by": "size"},
        {"order": "up"},
        {"created_from": "x"},
        {"batch": "maybe"},
    ],
)
async def test_a_wrong_query_is_refused(start, query):
    assert error(await (await start()).call("GET", "/tasks", **query)) == (400, 90000)


async def test_a_wrong_status_or_parent_is_refused(start):
    api = await start()
    assert error(await api.call("GET", "/tasks", status="LOST")) == (400, 7006)
    assert error(await api.call("GET", "/tasks", parent="x")) == (400, 7005)


async def test_details_show_one_job(start, clock):
    api = await start(behaviour(life=Life(queued_seconds=5, running_seconds=60)), clock=clock.now)
    task = await api.create(run="true")
    path = f"/tasks/{task['id']}/execution_details"
    assert (await api.call("GET", path)).body["jobs"] == []
    clock.elapsed += 5
    (job,) = (await api.call("GET", path)).body["jobs"]
    assert (job["name"], job["status"], job["end_time"]) == ("align", "RUNNING", None)
    clock.elapsed += 60
    details = (await api.call("GET", path)).body
    assert (details["status"], details["jobs"][0]["status"]) == ("COMPLETED", "DONE")
