"""The vendor's own client, `sama` 0.5.12, against the sandbox: every call that it offers.

It knows one host only, so `requests.Session.request` is replaced by a function that swaps the host. It blocks, so it
runs in a thread; its generators are read to their end there.
"""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests
import sama

from engine.sandbox.behaviour import Behaviour, FailureRule, Fault, JournalSettings, WorkPace
from engine.sandbox.journal import count_markers
from engine.sandbox.server import delayed

PROJECT = "42"


@pytest.fixture
async def vendor(start, monkeypatch):
    """Start a sandbox; return it and a function that runs one call of the vendor's client in a thread."""

    async def starting(behaviour=None, **options):
        api = await start(behaviour, **options)
        _point_at(api.origin, monkeypatch)
        client = sama.Client("sandbox-key")

        async def call(name, *args, **kwargs):
            return await asyncio.to_thread(_to_the_end, getattr(client, name), PROJECT, *args, **kwargs)

        return api, call

    return starting


def _point_at(origin, monkeypatch):
    real = requests.Session.request

    def swapped(self, method, url, **kwargs):
        parts = urlsplit(url)
        if parts.netloc == "api.sama.com":
            url = urlunsplit((*urlsplit(origin)[:2], *parts[2:]))
        return real(self, method, url, **kwargs)

    monkeypatch.setattr(requests.Session, "request", swapped)


def _to_the_end(method, *args, **kwargs):
    answer = method(*args, **kwargs)
    return list(answer) if hasattr(answer, "__next__") else answer


def _records(count):
    return [{"id": number, "client_batch_id": f"c-{number % 2}"} for number in range(count)]


async def test_a_batch_is_created_and_followed(vendor, tmp_path):
    path = tmp_path / "journal.ndjson"
    journal = JournalSettings(path, ("data.id",))
    _, call = await vendor(Behaviour(journal=journal, max_upload_tasks=3000))
    batch_id = (await call("create_task_batch", _records(2500), batch_priority=-1))["batch_id"]
    states = await call("get_status_batch_creation_job", batch_id)
    assert [task["state"] for task in states] == ["created"] * 2500
    assert count_markers(path) == dict.fromkeys(range(2500), 1)


async def test_failed_tasks_come_with_their_data(vendor):
    _, call = await vendor(Behaviour(failures=(FailureRule("data.id", equals=1),)))
    batch_id = (await call("create_task_batch", _records(3)))["batch_id"]
    assert (await call("get_status_batch_creation_job", batch_id))[1]["data"]["id"] == 1
    assert "data" not in (await call("get_status_batch_creation_job", batch_id, omit_failed_task_data=True))[1]


async def test_creation_is_canceled(vendor):
    api, call = await vendor()
    batch_id = (await api.create()).body["batch_id"]
    assert (await call("cancel_batch_creation_job", batch_id))["batch_id"] == batch_id
    assert (await api.status(batch_id))["state"] == "canceled"


async def test_a_batch_that_was_just_released_is_canceled_as_long_as_its_delay_lasts(vendor, clock):
    api, call = await vendor(delayed(Behaviour(), 1.0), clock=clock.now)
    batch_id = (await call("create_task_batch", _records(3)))["batch_id"]
    await call("cancel_batch_creation_job", batch_id)
    clock.elapsed += 2
    assert (await api.status(batch_id))["state"] == "canceled"
    assert await call("get_multi_task_status", batch_id=batch_id) == []


async def test_tasks_are_found(vendor):
    _, call = await vendor()
    batch_id = (await call("create_task_batch", _records(250)))["batch_id"]
    found = await call("get_multi_task_status", batch_id=batch_id)
    assert [task["data"]["id"] for task in found] == list(range(250))
    assert len(await call("get_multi_task_status", client_batch_id="c-1")) == 125
    contains = {"client_batch_id": "c-", "client_batch_id_match_type": "contains"}
    assert len(await call("get_multi_task_status", **contains)) == 250
    state = sama.client.TaskStates.COMPLETED
    assert await call("get_multi_task_status", state=state, omit_answers=False) == []
    (task,) = await call("get_task_status", found[7]["id"])
    assert task["data"]["id"] == 7


async def test_tasks_are_submitted_delivered_and_rejected(vendor, clock):
    _, call = await vendor(Behaviour(work=WorkPace(tasks_per_second=1)), clock=clock.now)
    batch_id = (await call("create_task_batch", _records(3), submit=True))["batch_id"]
    assert [task["state"] for task in await call("get_multi_task_status", batch_id=batch_id)] == ["completed"] * 3
    clock.elapsed += 2
    delivered = await call("get_delivered_tasks", batch_id=batch_id, from_timestamp="2020-01-01T00:00:00Z")
    assert [task["data"]["id"] for task in delivered] == [0, 1]
    (one,) = await call("get_delivered_tasks", task_id=delivered[0]["id"])
    assert one == delivered[0]
    assert await call("get_delivered_tasks_since_last_call", consumer="night") == delivered
    assert await call("get_delivered_tasks_since_last_call", consumer="night") == []
    rejected = await call("reject_task", delivered[0]["id"], ["blurred"])
    assert rejected["task"]["state"] == "rejected"
    assert await call("get_delivered_tasks") == delivered[1:]


async def test_tasks_are_changed_and_deleted(vendor):
    _, call = await vendor()
    batch_id = (await call("create_task_batch", _records(3)))["batch_id"]
    ids = [task["id"] for task in await call("get_multi_task_status", batch_id=batch_id)]
    await call("update_task_priorities", ids[:2], 5)
    assert [task["priority"] for task in await call("get_multi_task_status", batch_id=batch_id)] == [5, 5, 0]
    await call("delete_tasks", ids[1:])
    assert [task["id"] for task in await call("get_multi_task_status", batch_id=batch_id)] == ids[:1]


async def test_schemas_and_the_project(vendor):
    _, call = await vendor()
    assert "data" in (await call("get_creation_task_schema"))["properties"]
    assert "id" in (await call("get_delivery_task_schema"))["properties"]
    assert (await call("get_project_information"))["project"]["id"] == 42
    assert (await call("get_project_stats", from_timestamp="2020-01-01T00:00:00Z"))["tasks"]["new"] == 0


async def test_errors_reach_the_client(vendor):
    _, call = await vendor(Behaviour(access_keys=("other",)))
    with pytest.raises(requests.HTTPError, match="401"):
        await call("create_task_batch", _records(1))


@pytest.mark.slow
async def test_the_client_repeats_a_504_and_leaves_an_empty_batch_behind(vendor):
    api, call = await vendor(Behaviour(faults=(Fault("create", "refuse_after", nth=(1,), status=504),)))
    await call("create_task_batch", _records(1))
    assert (api.sandbox.stats.batches, api.sandbox.stats.tasks_created) == (2, 1)
