import asyncio
import time

import aiohttp
import pytest

from engine.sandbox.behaviour import Behaviour, BehaviourError, Fault, Latency
from engine.sandbox.server import running_sandbox
from engine.sandbox.settings import Rate

from ..api import KEY  # noqa: TID252 - tests of one package
from .api import behaviour, draft, error


def _rate(answer):
    return tuple(int(answer.headers[f"X-RateLimit-{name}"]) for name in ("Limit", "Remaining", "Reset"))


@pytest.mark.parametrize("headers", [{}, {"X-SBG-Auth-Token": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_a_token_is_needed(start, headers):
    assert error(await (await start()).call("GET", "/tasks", headers=headers)) == (401, 90001)


async def test_the_token_may_be_a_bearer(start):
    headers = {"Authorization": f"Bearer {KEY}"}
    assert (await (await start()).call("GET", "/tasks", headers=headers)).status == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/tasks", 405)])
async def test_what_is_not_served_has_the_vendors_shape(start, method, path, status):
    assert error(await (await start()).call(method, path)) == (status, 90000)


@pytest.mark.parametrize("raw", [b"{", b"\xff"])
async def test_a_body_must_be_json(start, raw):
    assert error(await (await start()).call("POST", "/tasks", raw=raw)) == (400, 90009)


async def test_a_body_must_be_an_object(start):
    assert error(await (await start()).call("POST", "/tasks", [1])) == (400, 90000)


async def test_a_body_has_a_limit(start):
    api = await start(Behaviour(service="sevenbridges", max_body_bytes=100))
    assert error(await api.call("POST", "/tasks", draft(description="x" * 200))) == (413, 90000)


async def test_every_answer_has_the_rate_headers(start, clock):
    api = await start(behaviour(rate=Rate(3, 300)), clock=clock.now)
    assert _rate(await api.call("GET", "/tasks")) == (3, 2, clock.now() + 300)
    clock.elapsed += 10
    assert _rate(await api.call("GET", "/nothing")) == (3, 2, clock.now() + 290)
    assert _rate(await api.call("GET", "/user", headers={})) == (3, 1, clock.now() + 290)


async def test_past_the_rate_there_is_429_until_the_window_ends(start, clock):
    api = await start(behaviour(rate=Rate(2, 300)), clock=clock.now)
    await api.create()
    clock.elapsed += 100
    await api.create()
    refused = await api.call("POST", "/tasks", draft())
    assert error(refused) == (429, 1000)
    assert _rate(refused) == (2, 0, clock.now() + 200)
    assert api.sandbox.stats.rate_limited == 1
    clock.elapsed += 200
    await api.create()
    assert api.sandbox.stats.tasks_created == 3


async def test_asking_for_the_rate_does_not_count(start, clock):
    api = await start(behaviour(rate=Rate(1, 300)), clock=clock.now)
    await api.create()
    for _ in range(3):
        answer = await api.call("GET", "/rate_limit")
        assert answer.body["rate"] == {"limit": 1, "remaining": 0, "reset": clock.now() + 300}
        assert answer.body["instance_limit"] == {"limit": 100, "remaining": 100}


async def test_without_a_rate_there_are_no_headers(start):
    api = await start(behaviour(rate=Rate(requests=0)))
    answer = await api.call("GET", "/tasks")
    assert not any(name.startswith("X-RateLimit") for name in answer.headers)
    assert (await api.call("GET", "/rate_limit")).body["rate"]["remaining"] > 10**6


async def test_maintenance_lasts_for_a_time(start, clock):
    api = await start(behaviour(faults=(Fault("all", "refuse", from_seconds=10, to_seconds=20),)), clock=clock.now)
    assert (await api.call("GET", "/tasks")).status == 200
    clock.elapsed += 10
    assert error(await api.call("GET", "/tasks")) == (503, 0)
    clock.elapsed += 10
    assert (await api.call("GET", "/tasks")).status == 200


@pytest.mark.parametrize(("status", "code"), [(503, 0), (429, 1000), (500, 7000), (504, 7000), (403, 90000)])
async def test_a_refusal_on_order_has_the_vendors_code(start, status, code):
    api = await start(behaviour(faults=(Fault("create", "refuse", nth=(1,), status=status),)))
    assert error(await api.call("POST", "/tasks", draft())) == (status, code)
    assert api.sandbox.stats.tasks_created == 0


@pytest.mark.parametrize(("kind", "created"), [("drop_before", 0), ("drop_after", 1), ("truncate", 1)])
async def test_a_lost_answer(start, kind, created):
    api = await start(behaviour(faults=(Fault("create", kind, nth=(1,)),)))
    with pytest.raises(aiohttp.ClientError):
        await api.create()
    assert api.sandbox.stats.tasks_created == created
    assert (await api.list()).headers["x-total-matching-query"] == str(created)


async def test_a_fault_at_run_leaves_a_task_that_runs(start):
    api = await start(behaviour(faults=(Fault("run", "drop_after", nth=(1,)),)))
    task = await api.create()
    with pytest.raises(aiohttp.ClientError):
        await api.run(task)
    assert await api.status(task) == "COMPLETED"


async def test_calls_are_known_by_name():
    told = Behaviour(service="sevenbridges", latency={"continue": Latency(1)})
    with pytest.raises(BehaviourError, match="unknown call 'continue'"):
        async with running_sandbox(told):
            pass


async def test_it_takes_no_uploads():
    with pytest.raises(BehaviourError, match="leave out --s3"):
        async with running_sandbox(behaviour(), s3=True):
            pass


async def test_an_answer_is_one_packet(start):
    api = await start()
    reader, writer = await asyncio.open_connection(*api.sandbox.url.removeprefix("http://")[:-3].split(":"))
    writer.write(f"GET /v2/tasks HTTP/1.1\r\nHost: sandbox\r\nX-SBG-Auth-Token: {KEY}\r\n\r\n".encode())
    packet = await reader.read(65536)
    assert packet.endswith(b'"links":[]}')
    writer.close()
    await writer.wait_closed()


@pytest.mark.slow
async def test_many_drafts_are_listed_quickly(start):
    api = await start(behaviour(rate=Rate(requests=0)))
    for number in range(5000):
        await api.create(draft(f"n{number}"))
    began = time.perf_counter()
    seen = []
    for offset in range(0, 5000, 100):
        page = await api.list(project="owner/project", status="DRAFT", limit="100", offset=str(offset))
        seen += [task["name"] for task in page.body["items"]]
    assert seen == [f"n{number}" for number in range(5000)]
    assert time.perf_counter() - began < 5  # a second would do; the machine may be busy
