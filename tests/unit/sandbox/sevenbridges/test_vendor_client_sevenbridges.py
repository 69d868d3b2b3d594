"""The vendor's own client, `sevenbridges-python` 2.11.2, against the sandbox: what the engine's users do with it today.

It blocks, so each call runs in a thread; a fake clock stands in for `time` where its error handlers sleep.
"""

import asyncio
from datetime import datetime

import pytest
import sevenbridges
from sevenbridges.errors import (
    BadRequest,
    NotFound,
    TaskValidationError,
    TooManyRequests,
    Unauthorized,
)
from sevenbridges.http import error_handlers
from sevenbridges.http.error_handlers import general_error_sleeper, maintenance_sleeper, rate_limit_sleeper

from engine.sandbox.behaviour import FailureRule, Fault, JournalSettings
from engine.sandbox.journal import count_markers
from engine.sandbox.settings import App, AppInput, FileRule, Life, Rate

from .api import APP, PROJECT, behaviour

TOKEN = "x" * 32
FILES = FileRule(
    PROJECT,
    "s{n:02}.fastq",
    count=60,
    group_size=20,
    metadata={"library_id": "hg19", "sample_id": "E18127-pool{group}-L2355"},
)
CRITERIA = {"type": "CRITERIA", "criteria": ["metadata.library_id", "metadata.sample_id"]}
NOBODY = "48f79ccf-12b3-45b6-789c-b1e8d88dabcd"


class SleptTime:
    """Stands in for the module `time`: to sleep is to move the sandbox's clock."""

    def __init__(self, clock):
        self.clock, self.slept = clock, []

    def time(self):
        return self.clock.now()

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.clock.elapsed += seconds


@pytest.fixture
def slept(clock, monkeypatch):
    fake = SleptTime(clock)
    monkeypatch.setattr(error_handlers, "time", fake)
    return fake.slept


@pytest.fixture
async def vendor(start, clock):
    """Start a sandbox; return a function that hands the vendor's client to a function, which runs in a thread."""
    clients = []

    async def starting(error_handlers=None, token=TOKEN, **settings):
        settings.setdefault("rate", Rate(1000, 300))
        sandbox = await start(behaviour(access_keys=(TOKEN,), **settings), clock=clock.now)
        api = sevenbridges.Api(url=sandbox.sandbox.url, token=token, debug=True, error_handlers=error_handlers)
        clients.append(api)

        async def act(function):
            return await asyncio.to_thread(function, api)

        return act

    yield starting
    for api in clients:
        api.session.close()
        api.download_pool.shutdown()
        api.upload_pool.shutdown()


def _create(api, name="a task", **fields):
    return api.tasks.create(name=name, project=PROJECT, app=APP, **fields)


def _batch(api, count, by, **fields):
    reads = list(api.files.query(project=PROJECT, limit=100))[:count]
    return _create(api, batch_input="reads", batch_by=by, inputs={"reads": reads}, **fields)


async def test_a_draft_is_created_saved_and_deleted(vendor, clock):
    act = await vendor(files=(FILES,))

    def story(api):
        file = api.files.query(project=PROJECT, names=["s07.fastq"])[0]
        assert file.metadata["sample_id"] == "E18127-pool0-L2355"
        task = _create(api, "one", inputs={"reads": file, "threads": 4}, description="d", interruptible=True)
        assert (task.status, task.batch, task.parent, task.app) == ("DRAFT", False, None, f"{APP}/0")
        assert task.created_time == datetime(2025, 6, 15, 15, 6, 40)  # noqa: DTZ001 - as the client reads it
        assert (task.inputs["reads"].id, task.inputs["threads"]) == (file.id, 4)
        task.name = "renamed"
        task.inputs["threads"] = 8
        task.save()
        fresh = api.tasks.get(task.id)
        assert (fresh.name, fresh.inputs["threads"], fresh.inputs["reads"].id) == ("renamed", 8, file.id)
        fresh.delete()
        with pytest.raises(NotFound) as refused:
            api.tasks.get(task.id)
        assert refused.value.code == 7002

    await act(story)


async def test_a_task_is_run_followed_and_aborted(vendor, clock):
    act = await vendor(life=Life(queued_seconds=5, running_seconds=60))

    def story(api):
        task = _create(api)
        task.run()
        assert task.status == "QUEUED"
        with pytest.raises(BadRequest) as refused:
            task.run()
        assert refused.value.code == 7010
        clock.elapsed += 5
        task.reload()
        assert (task.status, task.execution_status.queued_duration) == ("RUNNING", 5000)
        clock.elapsed += 60
        task.reload()
        assert (task.status, task.execution_status.steps_completed) == ("COMPLETED", 1)
        details = task.get_execution_details()
        assert (details.status, [job.status for job in details.jobs]) == ("COMPLETED", ["DONE"])
        assert details.jobs[0].instance.provider == "AWS"
        at_once = _create(api, run=True, execution_settings={"use_memoization": True})
        assert at_once.execution_settings == {"use_memoization": True}
        at_once.abort()
        assert at_once.status == "ABORTED"
        assert at_once.price.currency == "USD"

    await act(story)


async def test_wait_waits(vendor):
    act = await vendor()

    def story(api):
        task = _create(api, run=True)
        task.wait(period=0)
        return task.status

    assert await act(story) == "COMPLETED"


async def test_a_batch_by_item(vendor):
    act = await vendor(files=(FILES,))

    def story(api):
        parent = _batch(api, 60, {"type": "ITEM"}, run=True)
        assert (parent.batch, parent.batch_input, parent.batch_by["type"]) == (True, "reads", "ITEM")
        parent.reload()
        assert (parent.status, parent.execution_status.completed) == ("COMPLETED", 60)
        page = parent.get_batch_children(limit=25)
        assert (page.total, len(page)) == (60, 25)
        children = list(page.all())
        assert [child.batch_group.value for child in children] == [f"s{n:02}.fastq" for n in range(60)]
        assert {child.parent for child in children} == {parent.id}
        assert page.next_page().previous_page()[0] == page[0]
        assert len(parent.get_batch_children(status="FAILED")) == 0

    await act(story)


async def test_a_batch_by_criteria(vendor):
    act = await vendor(files=(FILES,), failures=(FailureRule("name", matches="pool2"),))

    def story(api):
        parent = _batch(api, 60, CRITERIA)
        assert parent.batch_by["criteria"] == CRITERIA["criteria"]
        parent.run()
        parent.reload()
        assert (parent.status, parent.execution_status.completed, parent.execution_status.failed) == ("FAILED", 2, 1)
        group = parent.get_batch_children()[1].batch_group
        assert group.value == "hg19, E18127-pool1-L2355"
        assert group.fields == {"metadata.library_id": "hg19", "metadata.sample_id": "E18127-pool1-L2355"}

    await act(story)


async def test_batching_is_switched_off(vendor):
    act = await vendor(files=(FILES,))

    def story(api):
        assert _batch(api, 3, {"type": "ITEM"}, disable_batch=True).batch is False
        parent = _batch(api, 3, {"type": "ITEM"})
        parent.run(batch=False, interruptible=True)
        assert (parent.batch, parent.use_interruptible_instances) == (False, True)

    await act(story)


async def test_the_flag_batch_uses_the_apps_default(vendor):
    act = await vendor(apps=(App(APP, batch_input="reads"),))

    def story(api):
        inputs = {"reads": [{"class": "File", "path": "a"}]}
        body = {"project": PROJECT, "app": APP, "inputs": inputs, "batch": True}
        return api.post("/tasks", data=body, params={"run": True}).json()

    created = await act(story)
    assert (created["status"], created["batch_by"]) == ("QUEUED", {"type": "ITEM"})


async def test_tasks_are_queried_and_cloned(vendor, clock):
    act = await vendor()

    def story(api):
        for number in range(12):
            _create(api, f"n{number}")
            clock.elapsed += 60
        assert [task.name for task in api.tasks.query(project=PROJECT, limit=5).all()] == [f"n{n}" for n in range(12)]
        since = datetime(2025, 6, 15, 15, 16)  # noqa: DTZ001 - as the client writes it
        assert [task.name for task in api.tasks.query(created_from=since)] == ["n10", "n11"]
        (last,) = api.tasks.query(project=PROJECT, status="DRAFT", order_by="created_time", order="desc", limit=1)
        assert last.name == "n11"
        assert last.clone(run=False).status == "DRAFT"
        assert last.clone().status == "QUEUED"
        assert api.tasks.query(batch=False, project=PROJECT).total == 14

    await act(story)


async def test_tasks_and_files_are_read_in_bulk(vendor):
    act = await vendor(files=(FILES,))

    def story(api):
        tasks = [_create(api, f"n{number}") for number in range(3)]
        records = api.tasks.bulk_get([*tasks, NOBODY])
        assert [record.valid for record in records] == [True, True, True, False]
        assert [record.resource.name for record in records[:3]] == ["n0", "n1", "n2"]
        assert (records[3].error.code, records[3].error.status) == (7002, 404)
        files = list(api.files.query(project=PROJECT, limit=7).all())
        assert len(files) == 60
        assert api.files.bulk_get(files[:2])[1].resource.name == "s01.fastq"
        with pytest.raises(BadRequest):
            api.tasks.bulk_get([NOBODY] * 101)

    await act(story)


async def test_validation_errors_keep_a_draft_from_running(vendor):
    act = await vendor(apps=(App(APP, 2, (AppInput("reads", "File[]", required=True),)),))

    def story(api):
        app = api.apps.get(APP)
        assert (app.revision, app.raw["inputs"][0]["id"]) == (2, "#reads")
        assert api.apps.query(project=PROJECT)[0].id == APP
        with pytest.raises(TaskValidationError) as refused:
            api.tasks.create(name="bad", project=PROJECT, app=app, run=True)
        task = refused.value.task
        assert (task.status, task.errors[0]["input_id"]) == ("DRAFT", "reads")
        with pytest.raises(BadRequest) as again:
            task.run()
        assert again.value.code == 7012

    await act(story)


async def test_projects_the_user_and_a_wrong_token(vendor):
    act = await vendor(projects=(PROJECT,))
    stranger = await vendor(token="y" * 32)

    def story(api):
        assert [project.id for project in api.projects.query()] == [PROJECT]
        assert [project.name for project in api.projects.query(owner="owner")] == ["project"]
        assert api.projects.get(PROJECT).id == PROJECT
        assert api.users.me().username == "sandbox"

    await act(story)
    with pytest.raises(Unauthorized) as refused:
        await stranger(lambda api: api.tasks.query())
    assert refused.value.code == 90001


async def test_the_rate_limit_is_told(vendor, clock):
    act = await vendor(rate=Rate(5, 300))

    def story(api):
        _create(api)
        told = api.rate_limit.get()
        assert (told.rate.limit, told.rate.remaining) == (5, 4)
        assert told.instance_limit.limit == 100
        assert (api.limit, api.remaining) == (5, 4)
        assert api.reset_time.timestamp() == clock.now() + 300
        for _ in range(4):
            api.tasks.query()
        with pytest.raises(TooManyRequests) as refused:
            api.tasks.query()
        assert refused.value.code == 1000

    await act(story)


async def test_the_rate_limit_sleeper_sleeps_until_the_reset(vendor, slept, tmp_path):
    path = tmp_path / "journal.ndjson"
    act = await vendor([rate_limit_sleeper], rate=Rate(4, 2), journal=JournalSettings(path))
    await act(lambda api: [_create(api, f"n{number}") for number in range(10)])
    assert slept == [2, 2]
    assert count_markers(path) == {f"n{number}": 1 for number in range(10)}


async def test_the_maintenance_sleeper_sleeps_the_maintenance_out(vendor, slept):
    faults = (Fault("all", "refuse", from_seconds=0, to_seconds=600),)
    act = await vendor([maintenance_sleeper], faults=faults)
    task = await act(_create)
    assert slept == [300, 300]
    assert task.status == "DRAFT"


async def test_another_503_is_no_maintenance(vendor, slept):
    act = await vendor(faults=(Fault("create", "html", nth=(1,), status=503),))
    with pytest.raises(sevenbridges.SbgError) as refused:
        await act(_create)
    assert refused.value.status == 503
    assert slept == []


async def test_the_general_sleeper_creates_twice_what_the_engine_creates_once(vendor, slept, tmp_path):
    path = tmp_path / "journal.ndjson"
    faults = (Fault("create", "refuse_after", nth=(1,), status=500),)
    act = await vendor([general_error_sleeper], faults=faults, journal=JournalSettings(path))
    await act(lambda api: _create(api, "twice"))
    assert slept == [300]
    assert count_markers(path) == {"twice": 2}
