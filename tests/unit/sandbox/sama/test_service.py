import asyncio
import contextlib
import socket

import aiohttp
import pytest
import yarl

from engine.sandbox.behaviour import Behaviour, CreationPace, FailureRule, JournalSettings, Project, RefusalRule
from engine.sandbox.journal import count_markers

from ..api import tasks  # noqa: TID252 - tests of one package


def _first_error(answer):
    return answer.status, answer.body["errors"][0]["type"]


async def test_an_inline_batch_is_created(start):
    api = await start()
    created = await api.create(tasks(3), notification_email=None, tasks_file_name="x")
    assert (created.status, list(created.body)) == (202, ["batch_id"])
    status = await api.status(created.body["batch_id"])
    assert {key: status[key] for key in ("state", "total", "created", "messages")} == {
        "state": "completed",
        "total": 3,
        "created": 3,
        "messages": [],
    }
    assert [task["state"] for task in status["tasks"]] == ["created"] * 3
    assert len({task["id"] for task in status["tasks"]}) == 3


async def test_an_uploaded_batch_is_created(start):
    api = await start()
    created = await api.create()
    batch_id = created.body["batch_id"]
    assert created.status == 202
    assert (await api.status(batch_id))["state"] == "waiting"
    assert (await api.put(created.body["tasks_put_url"], tasks(2))).status == 200
    assert (await api.status(batch_id))["state"] == "waiting"
    continued = await api.go_on(batch_id)
    assert (continued.status, continued.body) == (202, {"batch_id": batch_id})
    assert (await api.status(batch_id))["created"] == 2


@pytest.mark.parametrize("count", [1000, 1001])
async def test_the_inline_limit(start, count):
    api = await start()
    answer = await api.create(tasks(count))
    assert answer.status == (202 if count == 1000 else 400)
    assert count == 1000 or answer.body["errors"][0]["type"] == "TooManyTasks"


@pytest.mark.parametrize("wrong", [[], {}, "x", 5])
async def test_tasks_must_be_an_array(start, wrong):
    assert _first_error(await (await start()).create(wrong)) == (400, "InvalidParameter")


async def test_a_body_must_be_json(start):
    api = await start()
    url = yarl.URL(f"{api.sandbox.url}/projects/42/batches.json?access_key=sandbox-key")
    assert _first_error(await api.send("POST", url, b"{")) == (400, "InvalidJson")
    assert _first_error(await api.send("POST", url, b"[]")) == (400, "InvalidParameter")


async def test_a_body_has_a_limit(start):
    api = await start(Behaviour(max_body_bytes=1000))
    assert _first_error(await api.create(tasks(100))) == (413, 413)


@pytest.mark.parametrize("key", [None, "", "wrong"])
async def test_an_access_key_is_needed(start, key):
    answer = await (await start()).call("POST", "/batches.json", {}, key=key)
    assert (answer.status, answer.body) == (401, {"errors": [{"type": 401, "message": "Not authorized."}]})


async def test_any_project_exists_unless_some_are_named(start):
    api = await start()
    api.project = 7
    assert (await api.create(tasks(1))).status == 202
    api = await start(Behaviour(projects=(Project(42),)))
    assert (await api.create(tasks(1))).status == 202
    api.project = 7
    assert _first_error(await api.create(tasks(1))) == (404, 404)


@pytest.mark.parametrize("path", ["/batches/1.json", "/batches/x.json", "/nothing.json"])
async def test_what_is_not_there_is_404_in_the_vendors_shape(start, path):
    assert _first_error(await (await start()).call("GET", path)) == (404, 404)


async def test_a_wrong_method_is_405_in_the_vendors_shape(start):
    assert _first_error(await (await start()).call("DELETE", "/batches.json")) == (405, 405)


async def test_a_batch_belongs_to_its_project(start):
    api = await start()
    batch_id = (await api.create(tasks(1))).body["batch_id"]
    api.project = 43
    assert (await api.call("GET", f"/batches/{batch_id}.json")).status == 404


async def test_status_pages_in_the_order_sent(start):
    api = await start()
    batch_id = (await api.create(tasks(5))).body["batch_id"]
    all_ids = [task["id"] for task in (await api.status(batch_id))["tasks"]]
    pages = [(await api.status(batch_id, page_size=2, page=page))["tasks"] for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [task["id"] for page in pages for task in page] == all_ids


async def test_a_page_size_of_0_leaves_the_tasks_out(start):
    api = await start()
    batch_id = (await api.create(tasks(5))).body["batch_id"]
    assert "tasks" not in await api.status(batch_id, page_size=0)


@pytest.mark.parametrize("query", [{"page_size": 1001}, {"page_size": -1}, {"page": 0}, {"page": "x"}])
async def test_pages_have_limits(start, query):
    api = await start()
    batch_id = (await api.create(tasks(5))).body["batch_id"]
    answer = await api.call("GET", f"/batches/{batch_id}.json", **query)
    assert _first_error(answer) == (400, "InvalidParameter")


async def test_failed_tasks_say_why_and_what(start):
    api = await start(Behaviour(failures=(FailureRule("data.id", equals="1", message="no"),)))
    batch_id = (await api.create(tasks(3))).body["batch_id"]
    status = await api.status(batch_id)
    assert (status["state"], status["total"], status["created"]) == ("completed", 3, 2)
    failed = {"state": "failed", "errors": [{"type": "InvalidInputSchema", "message": "no"}]}
    assert status["tasks"][1] == {**failed, "data": {"id": "1"}}
    assert (await api.status(batch_id, omit_failed_task_data="true"))["tasks"][1] == failed


async def test_creation_takes_its_time(start, clock):
    api = await start(Behaviour(creation=CreationPace(tasks_per_second=2, delay_seconds=3)), clock=clock.now)
    batch_id = (await api.create(tasks(4))).body["batch_id"]
    seen = []
    for seconds in (0, 3, 1, 2):
        clock.elapsed += seconds
        status = await api.status(batch_id)
        seen.append((status["state"], status["created"], status["tasks"][1]["state"]))
    assert seen == [
        ("queued", 0, "queued"),
        ("processing", 0, "queued"),
        ("processing", 2, "created"),
        ("completed", 4, "created"),
    ]


async def test_a_cancel_stops_creation(start, clock):
    api = await start(Behaviour(creation=CreationPace(tasks_per_second=2)), clock=clock.now)
    batch_id = (await api.create(tasks(4))).body["batch_id"]
    clock.elapsed += 1
    assert (await api.cancel(batch_id)).body == {"batch_id": batch_id}
    clock.elapsed += 100
    status = await api.status(batch_id)
    assert (status["state"], status["created"]) == ("canceled", 2)
    assert [task["state"] for task in status["tasks"]] == ["created", "created", "canceled", "canceled"]
    assert (await api.cancel(batch_id)).status == 202


async def test_a_waiting_batch_can_be_canceled_and_not_continued_then(start):
    api = await start()
    batch_id = await api.upload(tasks(1))
    await api.cancel(batch_id)
    assert (await api.status(batch_id))["state"] == "canceled"
    assert _first_error(await api.go_on(batch_id)) == (400, "InvalidBatchState")


async def test_a_cancel_may_be_refused(start):
    api = await start(Behaviour(cancel="refuse"))
    batch_id = await api.upload(tasks(1))
    assert _first_error(await api.cancel(batch_id)) == (400, "InvalidBatchState")
    assert (await api.status(batch_id))["state"] == "waiting"


async def test_a_cancel_may_be_a_lie(start, clock):
    api = await start(Behaviour(cancel="lie", creation=CreationPace(tasks_per_second=2)), clock=clock.now)
    batch_id = (await api.create(tasks(4))).body["batch_id"]
    assert (await api.cancel(batch_id)).status == 202
    assert (await api.status(batch_id))["state"] == "processing"
    clock.elapsed += 2
    assert (await api.status(batch_id))["created"] == 4


async def test_a_completed_batch_cannot_be_canceled(start):
    api = await start()
    batch_id = (await api.create(tasks(1))).body["batch_id"]
    await api.status(batch_id)
    assert _first_error(await api.cancel(batch_id)) == (400, "InvalidBatchState")


async def test_a_batch_waits_only_so_long(start, clock):
    api = await start(Behaviour(waiting_seconds=100), clock=clock.now)
    batch_id = await api.upload(tasks(1))
    clock.elapsed += 101
    assert _first_error(await api.go_on(batch_id)) == (400, "InvalidBatchState")
    assert (await api.status(batch_id))["state"] == "canceled"


async def test_continue_needs_an_upload_and_may_be_tried_again(start):
    api = await start()
    created = (await api.create()).body
    assert _first_error(await api.go_on(created["batch_id"])) == (400, "TasksFileMissing")
    await api.put(created["tasks_put_url"], tasks(1))
    assert (await api.go_on(created["batch_id"])).status == 202


@pytest.mark.parametrize("uploaded", [b"{}", b"[1,", tasks(1001)])
async def test_an_unusable_upload_fails_the_batch(start, uploaded):
    api = await start()
    batch_id = await api.upload(uploaded)
    assert (await api.go_on(batch_id)).status == 202
    status = await api.status(batch_id)
    assert (status["state"], status["total"], len(status["messages"])) == ("failed", 0, 1)


SECOND_CALLS = [("error", 400, 1), ("noop", 202, 1), ("duplicate", 202, 2), ("html", 409, 1)]


@pytest.mark.parametrize(("again", "code", "times"), SECOND_CALLS)
async def test_a_second_continue(start, tmp_path, again, code, times):
    path = tmp_path / "journal.ndjson"
    api = await start(Behaviour(continue_again=again, journal=JournalSettings(path)))
    batch_id = await api.upload(tasks(3))
    await api.go_on(batch_id)
    first = await api.status(batch_id)
    assert (await api.go_on(batch_id)).status == code
    second = await api.status(batch_id)
    assert (second["state"], second["total"]) == ("completed", 3)
    assert (second["tasks"] == first["tasks"]) is (times == 1)
    assert count_markers(path) == {"0": times, "1": times, "2": times}


async def test_two_continues_at_once_create_once(start, tmp_path):
    path = tmp_path / "journal.ndjson"
    api = await start(Behaviour(journal=JournalSettings(path)))
    batch_id = await api.upload(tasks(3))
    answers = await asyncio.gather(*(api.go_on(batch_id) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [202, 400, 400, 400, 400]
    assert (await api.status(batch_id))["created"] == 3
    assert set(count_markers(path).values()) == {1}


async def test_who_sees_a_batch_completed_finds_it_in_the_journal(start, tmp_path):
    path = tmp_path / "journal.ndjson"
    api = await start(Behaviour(journal=JournalSettings(path), max_upload_tasks=10_000))
    batch_id = await api.upload(tasks(10_000))
    await api.go_on(batch_id)
    while (await api.status(batch_id, page_size=0))["state"] != "completed":
        pass
    assert sum(count_markers(path).values()) == 10_000


async def test_a_body_that_ends_early_creates_nothing(start):
    api = await start()
    url = yarl.URL((await api.create()).body["tasks_put_url"])
    for path in (str(url.relative()), "/v2/projects/42/batches.json?access_key=sandbox-key"):
        reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
        method = "PUT" if "uploads" in path else "POST"
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[".encode())
        await writer.drain()
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert api.sandbox.stats.batches == 1
    batch_id = int(url.path.split("/")[3])
    assert _first_error(await api.go_on(batch_id)) == (400, "TasksFileMissing")


async def test_stats_need_no_key(start):
    api = await start()
    batch_id = (await api.create(tasks(3))).body["batch_id"]
    await api.status(batch_id)
    async with aiohttp.request("GET", f"{api.origin}/sandbox/stats") as answer:
        stats = await answer.json()
    assert stats["requests"] == {"create": 1, "status": 1}
    assert (stats["batches"], stats["tasks_created"], stats["rate_limited"]) == (1, 3, 0)


POISON = Behaviour(
    refusals=(RefusalRule("data.id", equals="2", status=422, type="Invalid", message="Something is bad."),)
)


async def test_a_batch_with_a_task_that_is_not_wanted_is_refused_whole_and_nothing_said_of_which(start):
    api = await start(POISON)
    assert _first_error(await api.create(tasks(3))) == (422, "Invalid")
    assert (await api.create(tasks(2))).status == 202


async def test_an_upload_that_is_not_wanted_leaves_the_batch_waiting(start):
    api = await start(POISON)
    batch_id = await api.upload(tasks(3))
    assert _first_error(await api.go_on(batch_id)) == (422, "Invalid")
    assert (await api.status(batch_id))["state"] == "waiting"
