"""What no page of the vendor's says: each switch does what it says, and nothing else."""

import pytest

from engine.sandbox.settings import FileRule, SevenBridgesUnwritten

from .api import PROJECT, behaviour, draft, error

NOBODY = "48f79ccf-12b3-45b6-789c-b1e8d88dabcd"


@pytest.fixture
def told(start, clock):
    async def starting(files=(), **switches):
        return await start(behaviour(files=files, unwritten=SevenBridgesUnwritten(**switches)), clock=clock.now)

    return starting


async def _bulk(api, *ids, **query):
    return (await api.call("POST", "/bulk/tasks/get", {"task_ids": list(ids)}, **query)).body["items"]


@pytest.mark.parametrize(
    ("form", "item"),
    [("empty", {"resource": {}}), ("nothing", {}), ("all", {"resource": {"status": "DRAFT"}})],
)
async def test_bare_fields_of_a_bulk_call(told, form, item):
    api = await told(bare_bulk_fields=form)
    task = await api.create()
    (shown,) = await _bulk(api, task["id"], fields="status")
    if form == "all":
        assert shown["resource"] == task
    else:
        assert shown == item
    assert await _bulk(api, task["id"], fields="resource.status") == [{"resource": {"status": "DRAFT"}}]


async def test_errors_and_order_of_a_bulk_call(told):
    api = await told(bulk_errors=False, bulk_order="reversed")
    task = await api.create()
    assert await _bulk(api, task["id"], NOBODY, fields="resource.status") == [{}, {"resource": {"status": "DRAFT"}}]
    whole = await _bulk(api, task["id"], NOBODY)
    assert (whole[0]["error"]["code"], whole[1]["resource"]) == (7002, task)


@pytest.mark.parametrize(("stored", "description"), [("kept", " a\n\tb "), ("trimmed", "a\n\tb"), ("one_line", "a b")])
async def test_descriptions(told, stored, description):
    api = await told(descriptions=stored)
    assert (await api.create(draft(description=" a\n\tb ")))["description"] == description


async def test_descriptions_that_are_cut(told):
    api = await told(descriptions="cut")
    assert (await api.create(draft(description="x" * 200)))["description"] == "x" * 100


@pytest.mark.parametrize(("case", "types"), [("lower", ["folder", "file"]), ("upper", ["FOLDER", "FILE"])])
async def test_types_of_files(told, case, types):
    api = await told(files=(FileRule(PROJECT, "a/b"), FileRule(PROJECT, "c")), file_types=case)
    listed = (await api.call("GET", "/files", project=PROJECT, fields="type")).body["items"]
    assert [one["type"] for one in listed] == types


async def test_a_task_that_was_made_can_be_run_only_after_a_while(told, clock):
    api = await told(run_lag_seconds=2.0)
    task = await api.create()
    assert error(await api.run(task)) == (404, 7002)
    assert await api.get(task) == task
    clock.elapsed += 2
    assert (await api.run(task)).status == 200


async def test_the_newest_tasks_first(told):
    api = await told(list_order="newest")
    for name in ("a", "b", "c"):
        await api.create(draft(name))
    assert await api.names(order_by="name", order="asc", limit="2") == ["c", "b"]


@pytest.mark.parametrize(("asked", "answered"), [(2, 200), (3, 503)])
async def test_many_names_in_one_call(told, asked, answered):
    api = await told(files=(FileRule(PROJECT, "f{n}", count=9),), most_names=2)
    names = "&".join(f"name=f{number}" for number in range(asked))
    answer = await api.call("GET", f"/files?project={PROJECT}&{names}")
    assert answer.status == answered
    assert answered == 200 or error(answer) == (503, 0)


async def test_other_words_for_statuses(told):
    api = await told(status_words={"DRAFT": "SKETCH"})
    task = await api.create()
    assert task["status"] == "SKETCH"
    assert await api.names(status="DRAFT") == ["a task"]
    assert (await api.run(task)).body["status"] == "QUEUED"


async def test_lists_without_a_total(told):
    api = await told(files=(FileRule(PROJECT, "f{n}", count=2),), total_header=False)
    await api.create()
    for path in (f"/files?project={PROJECT}&limit=1", "/tasks?limit=1", "/projects"):
        assert "x-total-matching-query" not in (await api.call("GET", path)).headers
    listed = await api.call("GET", f"/files?project={PROJECT}&limit=1")
    assert [link["rel"] for link in listed.body["links"]] == ["next"]


@pytest.mark.parametrize(
    ("time", "taken"),
    [
        ("2016-01-12T18:39:30Z", False),
        ("2016-01-12T18:39:30+00:00", True),
        ("2016-01-12T19:39:30+01:00", True),
        ("2016-01-12T18:39:30", True),
        ("2016-01-12", True),
    ],
)
async def test_times_that_end_in_z(told, time, taken):
    api = await told(z_times=False)
    answer = await api.call("GET", "/tasks", created_from=time)
    assert answer.status == 200 if taken else error(answer) == (400, 90000)
    assert (await (await told()).call("GET", "/tasks", created_from=time)).status == 200
