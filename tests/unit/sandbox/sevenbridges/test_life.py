import pytest

from engine.sandbox.behaviour import FailureRule
from engine.sandbox.settings import App, FileRule, Life

from .api import APP, PROJECT, batch, behaviour, draft, error

SAMPLES = FileRule(
    PROJECT,
    "s{n}.fastq",
    count=60,
    group_size=20,
    metadata={"library_id": "hg19", "sample_id": "E18127-pool{group}-L2355"},
)


def _ids(count):
    return [f"00000001{number:016x}" for number in range(count)]


async def test_a_task_goes_through_its_states_by_the_clock(start, clock):
    life = Life(creating_seconds=1, queued_seconds=2, running_seconds=3)
    api = await start(behaviour(life=life), clock=clock.now)
    task = await api.create(run="true")
    seen = [task["status"]]
    for _ in range(6):
        clock.elapsed += 1
        seen.append(await api.status(task))
    assert seen == ["CREATING", "QUEUED", "QUEUED", "RUNNING", "RUNNING", "RUNNING", "COMPLETED"]
    done = await api.get(task)
    assert (done["start_time"], done["end_time"]) == ("2025-06-15T15:06:40Z", "2025-06-15T15:06:46Z")
    assert done["execution_status"]["queued_duration"] == 3000
    assert done["execution_status"]["running_duration"] == 3000
    assert (done["executed_by"], done["price"]) == ("sandbox", {"amount": 0.000333, "currency": "USD"})
    assert (done["execution_status"]["steps_completed"], done["execution_status"]["steps_total"]) == (1, 1)
    assert task["price"] is None


async def test_a_long_absence_changes_nothing_about_the_times(start, clock):
    api = await start(behaviour(life=Life(running_seconds=10, parallel=1)), clock=clock.now)
    tasks = [await api.create(run="true") for _ in range(3)]
    clock.elapsed += 1000
    assert [(await api.get(task))["end_time"][-3:-1] for task in tasks] == ["50", "00", "10"]


async def test_so_many_run_at_once(start, clock):
    api = await start(behaviour(life=Life(running_seconds=10, parallel=2)), clock=clock.now)
    tasks = [await api.create(run="true") for _ in range(4)]
    assert [await api.status(task) for task in tasks] == ["RUNNING", "RUNNING", "QUEUED", "QUEUED"]
    assert (await api.call("GET", "/rate_limit")).body["instance_limit"] == {"limit": 2, "remaining": 0}
    await api.abort(tasks[0])
    assert [await api.status(task) for task in tasks] == ["ABORTED", "RUNNING", "RUNNING", "QUEUED"]
    await api.abort(tasks[3])
    clock.elapsed += 10
    assert [await api.status(task) for task in tasks] == ["ABORTED", "COMPLETED", "COMPLETED", "ABORTED"]


async def test_aborting_takes_its_time(start, clock):
    api = await start(behaviour(life=Life(running_seconds=10, aborting_seconds=5)), clock=clock.now)
    task = await api.create(run="true")
    assert (await api.abort(task)).body["status"] == "ABORTING"
    clock.elapsed += 5
    assert await api.status(task) == "ABORTED"
    clock.elapsed += 20
    assert await api.status(task) == "ABORTED"


async def test_tasks_fail_by_rule(start):
    rule = FailureRule("inputs.threads", equals=0, message="No threads.")
    api = await start(behaviour(failures=(rule,)))
    good = await api.create(draft(inputs={"threads": 1}), run="true")
    bad = await api.create(draft(inputs={"threads": 0}), run="true")
    assert [await api.status(task) for task in (good, bad)] == ["COMPLETED", "FAILED"]
    assert (await api.get(bad))["execution_status"]["message"] == "No threads."
    assert api.sandbox.stats.tasks_failed == 1


async def test_a_parent_has_a_child_for_each_item_when_it_is_run(start):
    api = await start(behaviour(files=(SAMPLES,)))
    parent = await api.create(batch(*_ids(3), name="all"))
    assert (parent["batch"], parent["batch_input"], parent["batch_by"]) == (True, "reads", {"type": "ITEM"})
    assert (await api.list(parent=parent["id"])).body["items"] == []
    await api.run(parent)
    children = (await api.list(parent=parent["id"], fields="_all")).body["items"]
    assert [child["batch_group"] for child in children] == [{"value": f"s{n}.fastq", "fields": {}} for n in range(3)]
    assert children[1]["inputs"] == {"reads": {"class": "File", "path": _ids(3)[1]}, "threads": 4}
    assert {child["parent"] for child in children} == {parent["id"]}
    assert (children[0]["name"], children[0]["batch"]) == ("all - s0.fastq", False)
    done = await api.get(parent)
    assert done["status"] == "COMPLETED"
    assert done["execution_status"] == {
        "message": "Done",
        "queued": 0,
        "running": 0,
        "completed": 3,
        "failed": 0,
        "aborted": 0,
    }


async def test_criteria_group_sixty_files_as_the_vendor_shows_it(start):
    api = await start(behaviour(files=(SAMPLES,)))
    criteria = ("metadata.library_id", "metadata.sample_id")
    parent = await api.create(batch(*_ids(60), criteria=criteria), run="true")
    children = (await api.list(parent=parent["id"], fields="_all")).body["items"]
    assert [len(child["inputs"]["reads"]) for child in children] == [20, 20, 20]
    assert children[1]["batch_group"] == {
        "value": "hg19, E18127-pool1-L2355",
        "fields": {"metadata.library_id": "hg19", "metadata.sample_id": "E18127-pool1-L2355"},
    }


async def test_a_parent_follows_its_children(start, clock):
    life = Life(creating_seconds=1, queued_seconds=1, running_seconds=10, parallel=1)
    rule = FailureRule("name", matches="b$", message="Bad.")
    api = await start(behaviour(life=life, failures=(rule,)), clock=clock.now)
    parent = await api.create(batch("a", "b", "c"), run="true")
    assert (parent["status"], (await api.list(parent=parent["id"])).body["items"]) == ("CREATING", [])
    seen = []
    for step in (1, 1, 10, 10, 10):
        clock.elapsed += step
        task = await api.get(parent)
        counts = task["execution_status"]
        seen.append((task["status"], *(counts[word] for word in ("queued", "running", "completed", "failed"))))
    assert seen == [
        ("QUEUED", 3, 0, 0, 0),
        ("RUNNING", 2, 1, 0, 0),
        ("RUNNING", 1, 1, 1, 0),
        ("RUNNING", 0, 1, 1, 1),
        ("FAILED", 0, 0, 2, 1),
    ]


@pytest.mark.parametrize("aborting_seconds", [0, 5])
async def test_an_aborted_parent_aborts_its_children(start, clock, aborting_seconds):
    life = Life(running_seconds=10, parallel=1, aborting_seconds=aborting_seconds)
    api = await start(behaviour(life=life), clock=clock.now)
    parent = await api.create(batch("a", "b", "c"), run="true")
    clock.elapsed += 10
    assert (await api.get(parent))["execution_status"]["completed"] == 1
    await api.abort(parent)
    clock.elapsed += aborting_seconds
    done = await api.get(parent)
    assert (done["status"], done["execution_status"]["aborted"]) == ("ABORTED", 2)


async def test_a_parent_is_aborted_before_it_has_children(start, clock):
    api = await start(behaviour(life=Life(creating_seconds=5)), clock=clock.now)
    parent = await api.create(batch("a"), run="true")
    await api.abort(parent)
    clock.elapsed += 10
    assert await api.status(parent) == "ABORTED"
    assert (await api.list()).headers["x-total-matching-query"] == "1"


async def test_batching_can_be_switched_off(start):
    api = await start()
    assert (await api.create(batch("a", "b"), batch="False"))["batch"] is False
    assert (await api.create({**batch("a", "b"), "batch": False}))["batch"] is False
    parent = await api.create(batch("a", "b"))
    assert (await api.run(parent, batch="False")).body["batch"] is False
    assert (await api.list(parent=parent["id"])).body["items"] == []


async def test_the_app_may_batch_by_default(start):
    app = App(APP, batch_input="reads", batch_by=("metadata.sample_id",))
    api = await start(behaviour(apps=(app,), files=(SAMPLES,)))
    inputs = batch(*_ids(40))["inputs"]
    by_default = await api.create(draft(inputs=inputs))
    assert by_default["batch_by"] == {"type": "CRITERIA", "criteria": ["metadata.sample_id"]}
    assert (await api.create(draft(inputs=inputs, batch=True)))["batch_input"] == "reads"
    assert (await api.create(batch(*_ids(40))))["batch_by"] == {"type": "ITEM"}
    assert (await api.create(draft(inputs=inputs, batch=False)))["batch"] is False


async def test_a_batch_without_files_cannot_be_run(start):
    api = await start()
    parent = await api.create(batch())
    assert parent["errors"][0]["input_id"] == "reads"
    assert error(await api.run(parent)) == (400, 7012)
