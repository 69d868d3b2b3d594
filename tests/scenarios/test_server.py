"""The simulated server by itself: what is late, swallowed, busy or seen late, in made-up time."""

import orjson
import pytest
from fakes.clock import FakeClock
from yarl import URL

from engine.http.classify import Loss
from engine.http.client import Lost, Request
from engine.services.base import Call

from .scenario import Behaviour, Scenario
from .server import BASE_URL, PROJECT, SimulatedSama

TASKS = [{"data": {"id": str(number)}} for number in range(3)]
LATE = {"continue": 1.0, "post": 1.0}


class Client:
    """Makes calls as the engine does, to a server that answers at once."""

    def __init__(self, **server):
        self.clock = FakeClock()
        job = {"records": 1, "batch_records": 1}
        behaviour = Behaviour(answer_seconds=0, **server)
        self.server = SimulatedSama(
            Scenario(name="made up", prose="x" * 80, server=behaviour, job=job, accept={"created": 1}), self.clock
        )

    async def call(self, kind, path, body=b"", method="POST", **query):
        url = URL(f"{BASE_URL}/projects/{PROJECT}/batches{path}.json").with_query(access_key="first-key", **query)
        return await self.server.send(Request(Call(kind, method, str(url), body=body), url, {}))

    async def post(self):
        return await self.call("post", "", orjson.dumps({"tasks": TASKS}))

    async def upload(self):
        created = orjson.loads((await self.call("create", "", b"{}")).body)
        url = URL(created["tasks_put_url"])
        await self.server.send(Request(Call("put", "PUT", str(url), body=orjson.dumps(TASKS)), url, {}))
        return created["batch_id"]

    async def go_on(self, number):
        return _told(await self.call("continue", f"/{number}/continue"))

    async def cancel(self, number):
        return _told(await self.call("cancel", f"/{number}/cancel"))

    async def status(self, number):
        body = orjson.loads((await self.call("status", f"/{number}", method="GET", page=1, page_size=10)).body)
        assert len(body["tasks"]) == body["created"]
        return body["state"], body["created"]

    @property
    def times_created(self):
        return [len(self.server.journal[task["data"]["id"]]) for task in TASKS]


def _told(answer):
    return answer.loss if isinstance(answer, Lost) else answer.status


@pytest.mark.parametrize(("late_answer", "told"), [("given", 200), ("lost", Loss.CUT), ("page", 504)])
async def test_a_late_continue_is_told_something_at_once_and_done_later(late_answer, told):
    client = Client(late=LATE, late_seconds=5, late_answer=late_answer)
    number = await client.upload()
    assert await client.go_on(number) == told
    await client.clock.sleep(4.9)
    assert await client.status(number) == ("waiting", 0)
    await client.clock.sleep(0.2)
    assert await client.status(number) == ("completed", 3)
    assert client.times_created == [1, 1, 1]


async def test_a_late_inline_batch_has_its_id_at_once():
    client = Client(late=LATE, late_seconds=5, late_answer="given")
    number = orjson.loads((await client.post()).body)["batch_id"]
    assert await client.status(number) == ("waiting", 0)
    await client.clock.sleep(5.1)
    assert await client.status(number) == ("completed", 3)


async def test_what_is_late_is_in_the_journal_in_the_end_though_nobody_asks():
    client = Client(late=LATE)
    assert await client.post() == Lost(Loss.CUT)
    assert client.times_created == [0, 0, 0]
    client.server.look_ahead()
    assert client.times_created == [1, 1, 1]


async def test_only_a_share_is_late():
    client = Client(late={"continue": 0.5}, late_answer="given")
    numbers = [await client.upload() for _ in range(40)]
    for number in numbers:
        assert await client.go_on(number) == 200
    await client.clock.sleep(1)
    waiting = sum([(await client.status(number))[0] == "waiting" for number in numbers])
    assert 10 < waiting < 30


async def test_what_is_swallowed_is_answered_and_never_done_but_may_be_told_again():
    client = Client(swallowed={"continue": 1.0}, continue_again="refuse")
    number = await client.upload()
    assert await client.go_on(number) == 200
    client.server.look_ahead()
    assert await client.status(number) == ("waiting", 0)
    client.server.behaviour = Behaviour()
    assert await client.go_on(number) == 200
    await client.clock.sleep(1)
    assert client.times_created == [1, 1, 1]


SECOND_CALLS = [("refuse", 400, 1), ("noop", 200, 1), ("duplicate", 200, 2), ("html", 409, 1)]


@pytest.mark.parametrize("late", [{}, {"continue": 1.0}])
@pytest.mark.parametrize(("again", "told", "times"), SECOND_CALLS)
async def test_a_second_continue(again, told, times, late):
    client = Client(continue_again=again, late=late, late_answer="given", late_seconds=5)
    number = await client.upload()
    assert await client.go_on(number) == 200
    assert await client.go_on(number) == told
    client.server.look_ahead()
    assert client.times_created == [times] * 3


async def test_a_batch_may_be_busy_until_what_is_late_is_done():
    client = Client(late=LATE, late_seconds=5, busy_while_late=True)
    number = await client.upload()
    assert await client.go_on(number) == Loss.CUT
    client.server.behaviour = client.server.behaviour.model_copy(update={"late": {}})
    assert (await client.go_on(number), await client.cancel(number)) == (409, 409)
    await client.clock.sleep(5.1)
    assert await client.status(number) == ("completed", 3)
    assert await client.go_on(number) == 200


CANCELS = [
    ("accept", 200, "canceled", "canceled"),
    ("refuse", 400, "waiting", "completed"),
    ("lie", 200, "canceled", "completed"),
]


@pytest.mark.parametrize(("cancel", "told", "at_first", "in_the_end"), CANCELS)
async def test_a_cancel_of_what_is_late(cancel, told, at_first, in_the_end):
    client = Client(late=LATE, late_seconds=5, cancel=cancel)
    number = await client.upload()
    await client.go_on(number)
    assert await client.cancel(number) == told
    assert (await client.status(number))[0] == at_first
    await client.clock.sleep(6)
    assert (await client.status(number))[0] == in_the_end
    assert client.times_created == [int(in_the_end == "completed")] * 3


async def test_a_status_says_what_was_true():
    client = Client(status_lag_seconds=4, tasks_per_second=1)
    number = await client.upload()
    await client.go_on(number)
    seen = []
    for _ in range(8):
        seen.append(await client.status(number))
        await client.clock.sleep(1)
    assert seen == [*[("waiting", 0)] * 4, ("in_progress", 0), ("in_progress", 1), ("in_progress", 2), ("completed", 3)]


async def test_a_cancel_is_seen_later():
    client = Client(status_lag_seconds=4)
    number = await client.upload()
    await client.cancel(number)
    assert await client.status(number) == ("waiting", 0)
    await client.clock.sleep(4)
    assert await client.status(number) == ("canceled", 0)
