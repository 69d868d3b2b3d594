"""What no page of Sama's vendor says: the sandbox does it the usual way, and otherwise where it is told to."""

import pytest

from engine.sandbox.behaviour import Behaviour, CreationPace, FailureRule
from engine.sandbox.settings import SamaUnwritten, SandboxSama
from unit.sandbox.api import tasks

FAILING = (FailureRule(path="data.id", equals="1"),)


def behaves(*, failures=(), creation=None, **unwritten):
    return Behaviour(
        failures=failures, creation=creation or CreationPace(), sama=SandboxSama(unwritten=SamaUnwritten(**unwritten))
    )


async def ids_by_marker(api, batch_id):
    """Return marker → id as the list of tasks has them: the truth."""
    listed = (await api.call("GET", "/tasks.json", batch_id=batch_id)).body["tasks"]
    return {task["data"]["id"]: task["id"] for task in listed}


async def test_tasks_are_listed_once_a_second_unless_it_is_told_otherwise(start):
    limited, free = await start(limited=True), await start()
    assert [(await limited.call("GET", "/tasks.json")).status for _ in range(2)] == [200, 429]
    assert [(await free.call("GET", "/tasks.json")).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("order", "first"), [("sent", ["0", "1", "2"]), ("shifted", ["1", "2", "3"]), ("shuffled", None)]
)
async def test_a_status_may_list_tasks_in_another_order_the_same_on_every_page(start, order, first):
    api = await start(behaves(task_order=order))
    batch_id = (await api.create(tasks(10))).body["batch_id"]
    markers = {task_id: marker for marker, task_id in (await ids_by_marker(api, batch_id)).items()}
    pages = [await api.status(batch_id, page_size=3, page=page) for page in range(1, 5)]
    listed = [markers[task["id"]] for page in pages for task in page["tasks"]]
    assert sorted(listed) == [str(number) for number in range(10)]
    assert listed[:3] == first if first else listed != sorted(listed)


async def test_words_may_be_other_ones_and_in_another_case(start):
    api = await start(behaves(batch_words={"completed": "fertig"}, task_words={"created": "made"}, case="title"))
    status = await api.status((await api.create(tasks(1))).body["batch_id"])
    assert (status["state"], status["tasks"][0]["state"]) == ("Fertig", "Made")


async def test_a_status_may_keep_the_counts_and_the_data_of_failed_tasks_to_itself(start):
    api = await start(behaves(counts=False, failed_data=False, failures=FAILING))
    status = await api.status((await api.create(tasks(2))).body["batch_id"])
    assert status.keys() == {"batch_id", "state", "messages", "tasks"}
    assert status["tasks"][1].keys() == {"state", "errors"}


async def test_ids_may_be_missing_or_those_of_other_tasks(start):
    api = await start(behaves(no_id_every=3, same_id_every=2))
    batch_id = (await api.create(tasks(6))).body["batch_id"]
    true = await ids_by_marker(api, batch_id)
    shown = [task.get("id") for task in (await api.status(batch_id))["tasks"]]
    assert shown == [true["0"], true["0"], None, true["2"], true["4"], None]


async def test_an_empty_batch_may_be_answered_with_the_one_before_it(start):
    api = await start(behaves(known_batch_every=3))
    answers = [(await api.create()).body for _ in range(4)]
    assert answers[2]["batch_id"] == answers[1]["batch_id"]
    assert len({answer["batch_id"] for answer in answers}) == 3


@pytest.mark.parametrize("key", ["task_ids", "tasks", "ids"])
async def test_the_answer_to_inline_tasks_may_name_their_ids(start, key):
    api = await start(behaves(told_ids=key))
    answer = (await api.create(tasks(3))).body
    told = [one["id"] if key == "tasks" else one for one in answer[key]]
    assert told == list((await ids_by_marker(api, answer["batch_id"])).values())


async def test_an_upload_may_be_answered_without_an_etag(start):
    for etag in (True, False):
        api = await start(behaves(etag=etag))
        url = (await api.create()).body["tasks_put_url"]
        assert ("ETag" in (await api.put(url, tasks(1))).headers) is etag


async def test_a_search_may_find_nothing_and_times_may_have_no_zone(start):
    api = await start(behaves(searches=False, zones=False))
    batch_id = (await api.create([{"data": {"client_batch_id": "mine"}}])).body["batch_id"]
    assert (await api.call("GET", "/tasks.json", client_batch_id="mine")).body == {"tasks": []}
    (task,) = (await api.call("GET", "/tasks.json", batch_id=batch_id)).body["tasks"]
    assert task["created_at"][-1].isdecimal()


@pytest.mark.parametrize(("deletes", "status", "left"), [("new", 400, "ab"), ("some", 200, "b"), ("any", 200, "")])
async def test_tasks_that_are_not_new_are_deleted_or_not(start, deletes, status, left):
    api = await start(behaves(deletes=deletes))
    ids = await api.created_ids([{"data": {"id": "a"}}, {"data": {"id": "b"}, "submit": True}])
    assert (await api.call("POST", "/tasks/delete_tasks.json", {"task_ids": ids})).status == status
    listed = (await api.call("GET", "/tasks.json")).body["tasks"]
    assert "".join(task["data"]["id"] for task in listed) == left
