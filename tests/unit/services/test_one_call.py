"""The base of a service that creates by one call: what its answer does not name is no success."""

import orjson
import pytest
from fakes.clock import FakeClock

from engine.model.batch import Batch
from engine.model.doubt import Again
from engine.model.error_hints import Carries
from engine.model.errors import UnexpectedAnswer
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.model.record import Position
from engine.model.settings import BatchSettings, ServiceSettings
from engine.services.base import Answer, Call
from engine.services.decoding import decode
from engine.services.one_call import OneCall


class Plain(OneCall):
    def request(self, batch, payload):
        return Call("create", "POST", f"{self.settings.base_url}/items", body=payload)

    def settle(self, payload, answer):
        items = decode(answer, dict[str, list[dict]])["items"]
        return Settlement([item.get("id") for item in items], {at: "no" for at, item in enumerate(items) if not item})


class Caller:
    def __init__(self, body):
        self.body, self.calls = body, []

    async def call(self, call):
        self.calls.append(call)
        return Answer(200, {}, self.body if isinstance(self.body, bytes) else orjson.dumps(self.body))


def service(body=b""):
    settings = ServiceSettings(kind="plain", base_url="https://plain.example/")
    return Plain(
        settings, BatchSettings(max_records=7, max_bytes=99), Job("j", "plain", "", (), ""), Caller(body), FakeClock()
    )


async def released(body, records=2):
    batch = Batch(0, Position(), Position(10, records), records, 10, b"", b"")

    async def intend():
        intents.append("intend")

    intents, plain = [], service(body)
    done = await plain.release(batch, None, Payload.of([b'{"a":1}', b'{"a":2}']), intend)
    (call,) = plain.caller.calls
    assert (call.repeatable, call.carries, call.body) == (False, Carries.RECORDS, b'[{"a":1},{"a":2}]')
    await call.intent()
    assert intents == ["intend"]
    return done


async def test_each_record_has_the_fate_that_the_answer_names():
    done = await released({"items": [{"id": "a"}, {}]})
    assert (done.remote_id, done.settlement) == (None, Settlement(["a", None], {1: "no"}))


@pytest.mark.parametrize(
    "body",
    [
        {"items": [{"id": "a"}]},
        {"items": [{"id": "a"}, {"id": "b"}, {"id": "c"}]},
        {"items": [{"id": "a"}, {"name": "no id"}]},
        {"items": [{"id": "a"}, {"id": "a"}]},
        {"items": [{"id": "a"}, {"id": 7}]},
        {"items": [{"id": "a"}, {"id": ""}]},
        {"items": [{"id": "a"}, {"id": "b" * 201}]},
        {"items": [{"id": "a"}, {"id": "b\n"}]},
        {"items": "none"},
        {"items": [1, 2]},
        [],
        b"<html>",
    ],
)
async def test_an_answer_that_does_not_name_each_record_settles_none(body):
    with pytest.raises(UnexpectedAnswer):
        await released(body)


async def test_it_can_do_nothing_else():
    plain = service({})
    abilities = (plain.staging, plain.drafting, plain.referencing, plain.polling, plain.canceling, plain.counting)
    assert (*abilities, plain.refreshing, plain.undoing, plain.checking) == (None,) * 9
    assert (plain.again, plain.limits.records, plain.limits.bytes) == (Again.NEVER, 7, 99)
    assert plain.check({}) is None
    assert plain.task_url("a") == "https://plain.example/a"
    assert await plain.look() == "the service itself answers"


async def test_without_a_payload_it_sends_an_empty_array():
    plain = service({"items": []})
    batch = Batch(0, Position(), Position(), 0, 2, b"", b"")
    assert (await plain.release(batch, None, None)).settlement == Settlement([])
    assert plain.caller.calls[0].body == b"[]"
