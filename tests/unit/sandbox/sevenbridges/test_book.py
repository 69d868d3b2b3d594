from engine.sandbox.settings import Life

from .api import APP, batch, behaviour, draft


async def test_tasks_are_filtered(start, clock):
    api = await start(behaviour(life=Life(running_seconds=100)), clock=clock.now)
    await api.create(draft("draft"))
    clock.elapsed += 10
    running = await api.create(draft("running"), run="true")
    parent = await api.create(batch("a", "b", name="parent"))
    await api.create({"project": "other/one", "app": APP, "name": "elsewhere"})
    assert await api.names() == ["draft", "running", "parent", "elsewhere"]
    assert await api.names(project="other/one") == ["elsewhere"]
    assert await api.names(project="no/such") == []
    assert await api.names(status="DRAFT") == ["draft", "parent", "elsewhere"]
    assert await api.names(status="running") == ["running"]
    assert await api.names(batch="true") == ["parent"]
    assert await api.names(batch="False", project="owner/project") == ["draft", "running"]
    assert await api.names(origin_id="x") == []
    await api.run(parent)
    assert await api.names(parent=parent["id"]) == ["parent - a", "parent - b"]
    assert await api.names(parent=parent["id"], project="other/one") == []
    assert await api.names(started_from="2020-01-01", status="RUNNING", batch="false") == [
        "running",
        "parent - a",
        "parent - b",
    ]
    assert running["id"] in {task["id"] for task in (await api.list(status="RUNNING")).body["items"]}


async def test_times_are_whole_seconds_and_included(start, clock):
    clock.move_to(1_452_623_970.7)  # 2016-01-12T18:39:30.7Z
    api = await start(clock=clock.now)
    for name in ("a", "b", "c"):
        await api.create(draft(name), run="true")
        clock.elapsed += 10
    assert await api.names(created_from="2016-01-12T18:39:40") == ["b", "c"]
    assert await api.names(created_from="2016-01-12T19:39:40+01:00", created_to="2016-01-12T18:39:40Z") == ["b"]
    assert await api.names(created_to="2016-01-12T18:39:30", project="owner/project") == ["a"]
    assert await api.names(created_to="2016-01-12") == []
    assert await api.names(started_from="2016-01-12T18:39:50") == ["c"]
    assert await api.names(ended_to="2016-01-12T18:39:40") == ["a", "b"]


async def test_lists_have_an_order(start, clock):
    api = await start(clock=clock.now)
    for name in ("b", "c", "a"):
        await api.create(draft(name))
    assert await api.names(order="desc") == ["a", "c", "b"]
    assert await api.names(order_by="name") == ["a", "b", "c"]
    assert await api.names(order_by="name", order="desc", limit="2") == ["c", "b"]


async def test_a_list_is_never_stale(start, clock):
    api = await start(behaviour(life=Life(running_seconds=10)), clock=clock.now)
    task = await api.create(draft("one"))
    assert await api.names(status="DRAFT") == ["one"]
    await api.create(draft("two"))
    assert await api.names(status="DRAFT") == ["one", "two"]
    await api.run(task)
    assert await api.names(status="DRAFT") == ["two"]
    assert await api.names(status="RUNNING") == ["one"]
    clock.elapsed += 10
    assert await api.names(status="RUNNING") == []


async def test_what_was_deleted_is_gone_from_every_list(start):
    api = await start()
    tasks = [await api.create(draft(name)) for name in ("a", "b", "c")]
    await api.call("DELETE", f"/tasks/{tasks[1]['id']}")
    assert await api.names() == ["a", "c"]
    assert await api.names(project="owner/project", created_from="2020-01-01") == ["a", "c"]


async def test_children_that_are_due_are_older_than_a_new_draft(start, clock):
    api = await start(behaviour(life=Life(creating_seconds=5)), clock=clock.now)
    await api.create(batch("a", name="parent"), run="true")
    clock.elapsed += 60
    await api.create(draft("later"))
    assert await api.names() == ["parent", "parent - a", "later"]
    assert await api.names(created_from="2025-06-15T15:07:00") == ["later"]
