import asyncio
import base64
import contextlib
import hashlib
import hmac

import orjson
import pytest
from aiohttp import web

from engine.sandbox.behaviour import Behaviour, Callbacks, FailureRule
from engine.sandbox.callbacks import Deliveries, Delivery

from .api import tasks


class Receiver:
    """Stands for the user's server: keeps what it gets, answers with the statuses it is given, then with 204."""

    def __init__(self):
        self.requests, self.bodies, self.statuses = [], [], []
        self._arrivals = asyncio.Semaphore(0)
        self.url = ""

    async def handle(self, request):
        self.bodies.append(await request.read())
        self.requests.append(request)
        self._arrivals.release()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def wait_for(self, count):
        async with asyncio.timeout(10):
            for _ in range(count):
                await self._arrivals.acquire()
        return [orjson.loads(body) for body in self.bodies]


@pytest.fixture
async def receiver():
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    with contextlib.suppress(TimeoutError):
        await runner.cleanup()


async def _create(start, receiver, count=1, failures=(), **callbacks):
    settings = Callbacks(url=receiver.url, retry_seconds=0, **callbacks)
    api = await start(Behaviour(callbacks=settings, failures=failures))
    await api.create(tasks(count))
    return api


async def test_every_result_is_reported(start, receiver):
    await _create(start, receiver, 3, (FailureRule("data.id", equals="1", message="bad"),))
    bodies = await receiver.wait_for(3)
    assert sum(body["success"] for body in bodies) == 2
    (failure,) = [body for body in bodies if not body["success"]]
    (error,) = failure["errors"]
    assert {**error, "task_id": ""} == {"task_id": "", "type": 400, "message": "bad", "request_data": {"id": "1"}}
    assert len(error["task_id"]) == 24


async def test_results_can_come_together(start, receiver):
    await _create(start, receiver, 25, (FailureRule("data.id", equals="1"),), tasks_per_call=10)
    bodies = await receiver.wait_for(4)
    assert sorted(len(body["tasks"]) for body in bodies if body["success"]) == [4, 10, 10]
    assert [len(body["errors"]) for body in bodies if not body["success"]] == [1]


async def test_a_call_is_tried_until_a_2xx(start, receiver):
    receiver.statuses = [500, 404]
    await _create(start, receiver)
    assert len(set(map(str, await receiver.wait_for(3)))) == 1


async def test_there_are_five_tries(start, receiver):
    receiver.statuses = [500] * 5
    api = await _create(start, receiver)
    await receiver.wait_for(5)
    await api.create(tasks(1))
    await receiver.wait_for(1)
    assert [receiver.bodies.count(body) for body in (receiver.bodies[0], receiver.bodies[5])] == [5, 1]


async def _request(start, receiver, **callbacks):
    await _create(start, receiver, **callbacks)
    await receiver.wait_for(1)
    return receiver.requests[0]


async def test_basic(start, receiver):
    request = await _request(start, receiver, auth="basic", user="u", secret="p")
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


async def test_access_key(start, receiver):
    assert (await _request(start, receiver, auth="access_key", secret="k")).query["access_key"] == "k"


async def test_token(start, receiver):
    assert (await _request(start, receiver, auth="token", secret="t")).headers["X-Auth-Token"] == "t"


async def test_hmac(start, receiver):
    request = await _request(start, receiver, auth="hmac", secret="s")
    signed = request.headers["X-wsm-date"].encode() + b"\n" + receiver.bodies[0]
    expected = base64.b64encode(hmac.digest(b"s", signed, hashlib.sha256)).decode()
    assert request.headers["Authorization"] == f"HMAC-SHA256 {expected}"


async def test_no_authentication(start, receiver):
    request = await _request(start, receiver)
    assert "Authorization" not in request.headers
    assert request.query_string == ""


async def test_a_created_task_names_its_batch_unless_it_is_told_not_to(start, receiver):
    await _create(start, receiver)
    (body,) = await receiver.wait_for(1)
    assert isinstance(body["tasks"][0]["batch_id"], int)
    await _create(start, receiver, names=False)
    assert "batch_id" not in (await receiver.wait_for(1))[-1]["tasks"][0]


async def test_a_forged_one_comes_with_a_wrong_secret(start, receiver):
    await _create(start, receiver, auth="token", secret="t", forged=1.0)
    await receiver.wait_for(2)
    assert {request.headers["X-Auth-Token"] for request in receiver.requests} == {"t", "not the secret"}


BODY = b'{"success":true,"tasks":[{"id":"a","batch_id":1}]}'


@pytest.mark.parametrize(
    ("faults", "sent"),
    [
        ({}, [Delivery(BODY)]),
        ({"lost": 1.0}, []),
        ({"twice": 1.0}, [Delivery(BODY)] * 2),
        ({"forged": 1.0}, [Delivery(BODY), Delivery(BODY, forged=True)]),
    ],
)
def test_what_a_fault_makes_of_a_body(faults, sent):
    assert Deliveries(Callbacks("x", **faults)).of(BODY) == sent


def test_late_ones_come_in_another_order_and_untrue_ones_tell_of_other_tasks():
    late = Deliveries(Callbacks("x", late=1.0, late_seconds=5.0))
    seconds = [late.of(BODY)[0].after_seconds for _ in range(9)]
    assert sorted(seconds) != seconds
    assert max(seconds) <= 5.0
    _, untrue = Deliveries(Callbacks("x", untrue=1.0)).of(BODY)
    (task,) = orjson.loads(untrue.body)["tasks"]
    assert (task["batch_id"], task["id"] == "a") == (1, False)


def test_a_seed_draws_alike():
    settings = Callbacks("x", lost=0.3, twice=0.3, late=0.3, untrue=0.3)
    drawn = [[Deliveries(settings).of(BODY) for _ in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1]
