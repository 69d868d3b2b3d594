"""A scenario's server by itself: what its line and its machine do to requests that the sandbox would have answered."""

import asyncio

import orjson
import pytest
from fakes.clock import FakeClock
from yarl import URL

from engine.http.classify import Loss
from engine.http.client import Lost, Request
from engine.services.base import Call

from .scenario import Scenario
from .server import BASE_URL, PROJECT, STORE, SimulatedSama

TASKS = [{"data": {"id": str(number)}} for number in range(3)]


class Client:
    """Makes calls as the engine does."""

    def __init__(self, folder, *, change=(), **server):
        self.clock = FakeClock()
        job = {"records": 1, "batch_records": 1}
        table = {"answer_seconds": 0, **server}
        scenario = Scenario(
            name="made up", prose="x" * 80, server=table, job=job, accept={"created": 1}, change=list(change)
        )
        self.server = SimulatedSama(scenario, self.clock, folder)

    async def call(self, kind, path, body=b"", method="POST", key="first-key", **query):
        url = URL(f"{BASE_URL}/projects/{PROJECT}/batches{path}.json").with_query(access_key=key, **query)
        return await self.server.send(Request(Call(kind, method, str(url), body=body), url, {}))

    async def create(self, tasks=None, **options):
        return await self.call("create", "", orjson.dumps({"tasks": tasks}), **options)

    async def put(self, url, tasks=TASKS):
        return await self.server.send(Request(Call("put", "PUT", url, body=orjson.dumps(tasks)), URL(url), {}))

    async def go_on(self, number):
        return await self.call("continue", f"/{number}/continue")


@pytest.fixture
def client(tmp_path):
    """Make a client of a server with a table `[server]`, and changes of it."""
    made = []

    def make(**table):
        made.append(Client(tmp_path, **table))
        return made[-1]

    yield make
    for one in made:
        one.server.close()


def told(answer):
    return answer.loss if isinstance(answer, Lost) else answer.status


async def created(one):
    await one.server.come_to_rest()
    return [len(one.server.journal[task["data"]["id"]]) for task in TASKS]


async def test_uploads_go_to_a_host_of_their_own_which_has_troubles_of_its_own(client):
    one = client(change=[{"at": 5, "store": "errors"}])
    batch = orjson.loads((await one.create()).body)
    assert URL(batch["tasks_put_url"]).host == STORE
    assert told(await one.put(batch["tasks_put_url"])) == 200
    await one.clock.sleep(5)
    assert told(await one.put(batch["tasks_put_url"])) == 503
    assert told(await one.go_on(batch["batch_id"])) == 202
    assert await created(one) == [1, 1, 1]


@pytest.mark.parametrize(
    ("api", "answer", "seconds"),
    [("unreachable", Loss.UNREACHABLE, 0.02), ("silent", Loss.ANSWER_TIMEOUT, 60), ("errors", 503, 0.02)],
)
async def test_nobody_is_there(client, api, answer, seconds):
    one = client(api=api)
    assert told(await one.create(TASKS)) == answer
    assert one.clock.elapsed == pytest.approx(seconds)
    assert await created(one) == [0, 0, 0]


async def test_a_server_that_goes_away_meanwhile_has_done_what_it_was_asked_and_answers_nobody(client):
    one = client(answer_seconds=2, change=[{"at": 1, "api": "unreachable"}])
    assert told(await one.create(TASKS)) == Loss.CUT
    assert await created(one) == [1, 1, 1]


async def test_a_request_is_worked_on_in_its_turn_though_its_client_has_given_up(client):
    one = client(answer_seconds=40, workers=1)
    answers = await asyncio.gather(one.create(), one.create(TASKS))
    assert [told(answer) for answer in answers] == [202, Loss.ANSWER_TIMEOUT]
    assert one.clock.elapsed == pytest.approx(60)
    assert await created(one) == [1, 1, 1]


async def test_each_request_at_work_makes_the_next_one_longer(client):
    one = client(answer_seconds=2, slower_by_load=0.5)
    times = []

    async def timed():
        await one.create()
        times.append(one.clock.elapsed)

    await asyncio.gather(*(timed() for _ in range(3)))
    assert times == pytest.approx([2, 3, 4])


async def test_a_body_that_comes_up_too_slowly_never_arrives(client):
    one = client(bytes_per_second=1)
    assert told(await one.create([{"data": {"id": "x" * 300}}])) == Loss.ANSWER_TIMEOUT
    assert one.clock.elapsed == pytest.approx(300)
    assert told(await one.create(TASKS)) == 202
    assert await created(one) == [1, 1, 1]


async def test_a_body_that_is_too_large_is_refused_by_api_and_store_alike(client):
    one = client(most_bytes=50)
    url = orjson.loads((await one.create()).body)["tasks_put_url"]
    assert (told(await one.create(TASKS)), told(await one.put(url))) == (413, 400)


async def test_more_requests_than_allowed_are_told_when_to_come_again(client):
    one = client(requests_per_second=0.5, burst=2, change=[{"at": 100, "requests_per_second": 50}])
    answers = [await one.create() for _ in range(3)]
    assert [told(answer) for answer in answers] == [202, 202, 429]
    assert answers[2].headers["Retry-After"] == "4"
    await one.clock.sleep(100)
    assert {told(await one.create()) for _ in range(2)} == {202}


async def test_another_key_holds_from_a_change_on(client):
    one = client(key_refusal=403, change=[{"at": 5, "keys": ["second-key"]}])
    assert told(await one.create()) == 202
    await one.clock.sleep(5)
    assert [told(await one.create(key=key)) for key in ("first-key", "second-key")] == [403, 202]


@pytest.mark.parametrize(("late_answer", "answer"), [("given", 202), ("lost", Loss.CUT), ("page", 504)])
async def test_what_is_late_is_in_the_journal_in_the_end_though_nobody_asks(client, late_answer, answer):
    one = client(late={"post": 1.0}, late_answer=late_answer)
    assert told(await one.create(TASKS)) == answer
    assert one.server.journal == {}
    assert await created(one) == [1, 1, 1]


async def test_only_a_share_is_swallowed(client):
    one = client(swallowed={"post": 0.5})
    assert {told(await one.create(TASKS)) for _ in range(40)} == {202}
    assert 10 < (await created(one))[0] < 30
