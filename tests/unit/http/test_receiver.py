"""The receiver over real sockets on loopback; what it passes on is only ever a hint."""

import asyncio
import base64
import hashlib
import hmac
import io
import os
import re
from collections import Counter
from contextlib import AsyncExitStack
from email.utils import formatdate

import aiohttp
import pytest
from fakes.clock import until

from engine.clock import SystemClock
from engine.http import receiver as module
from engine.http.receiver import receiving
from engine.model.settings import CallbackSettings, SecretStr

SECRET = "canary-callback-secret"
PROOFS = {
    "basic": {"headers": {"Authorization": "Basic " + base64.b64encode(b"sama:" + SECRET.encode()).decode()}},
    "token": {"headers": {"X-Auth-Token": SECRET}},
    "access_key": {"params": {"access_key": SECRET}},
}


def settings(proof, port):
    secret = SecretStr(f"sama:{SECRET}" if proof == "basic" else SECRET)
    return CallbackSettings(listen=f"127.0.0.1:{port}", **{proof: secret})


class Desk:
    """A receiver, and who calls it."""

    def __init__(self, port, session):
        self.url, self.session = f"http://127.0.0.1:{port}/any/path", session
        self.told, self.events = Counter(), []

    def read(self, body):
        if not body.startswith(b"batch "):
            raise ValueError("no batch")
        return {body.decode(): 1}

    def hear(self, name, tasks):
        self.told[name] += tasks

    async def call(self, body=b"batch 1", method="POST", **how):
        async with self.session.request(method, self.url, data=body, **how) as answer:
            return answer.status

    @property
    def noticed(self):
        return [event.text for event in self.events]


@pytest.fixture
async def receiver(unused_tcp_port):
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(proof="token"):
            desk = Desk(unused_tcp_port, session)
            clock = SystemClock()
            opened = receiving(settings(proof, unused_tcp_port), desk.read, desk.hear, clock, desk.events.append)
            desk.receiver = await stack.enter_async_context(opened)
            return desk

        yield begin


@pytest.mark.parametrize("proof", PROOFS)
async def test_what_is_proven_is_passed_on(receiver, proof):
    desk = await receiver(proof)
    assert await desk.call(**PROOFS[proof]) == 204
    await until(lambda: desk.told)
    assert desk.told == {"batch 1": 1}
    assert not desk.noticed


@pytest.mark.parametrize("proof", PROOFS)
async def test_what_is_not_proven_is_refused_and_said_once(receiver, proof):
    desk = await receiver(proof)
    others = [how for name, how in PROOFS.items() if name != proof]
    for how in [{}, *others, {"headers": {"X-Auth-Token": SECRET[:-1]}}, {"headers": {"Authorization": "Basic é"}}]:
        assert await desk.call(**how) == 401
    assert not desk.told
    assert desk.noticed == ["a callback came without the proof that [callback] asks for: such ones are refused (401)"]
    assert SECRET not in str(desk.events)


def signed(body, key=SECRET, date=None):
    date = date or formatdate(usegmt=True)
    digest = hmac.digest(key.encode(), date.encode() + b"\n" + body, hashlib.sha256)
    return {"X-wsm-date": date, "Authorization": f"HMAC-SHA256 {base64.b64encode(digest).decode()}"}


async def test_a_signature_holds_for_its_body_and_its_time(receiver):
    desk = await receiver("hmac_key")
    assert await desk.call(b"batch 1", headers=signed(b"batch 1")) == 204
    assert await desk.call(b"batch 2", headers=signed(b"batch 1")) == 401
    assert await desk.call(b"batch 3", headers=signed(b"batch 3", key="other")) == 401
    assert await desk.call(b"batch 4", headers=signed(b"batch 4", date="Mon, 01 Jan 2024 00:00:00 GMT")) == 401
    assert await desk.call(b"batch 5", headers=signed(b"batch 5", date="yesterday")) == 401
    assert await desk.call(b"batch 6", headers={"X-wsm-date": formatdate(usegmt=True)}) == 401
    await until(lambda: desk.told)
    assert desk.told == {"batch 1": 1}


async def test_a_full_queue_answers_503_and_takes_the_next_ones_once_there_is_room(receiver, monkeypatch):
    monkeypatch.setattr(module, "MOST_QUEUED", 2)
    desk = await receiver()
    room = asyncio.Event()
    desk.receiver._bodies.get = room.wait  # whoever looks at them is busy from the next one on
    await desk.call(**PROOFS["token"])  # was waited for already
    await until(lambda: desk.told)
    statuses = [await desk.call(**PROOFS["token"]) for _ in range(4)]
    assert statuses == [204, 204, 503, 503]
    assert desk.told == {"batch 1": 1}


async def test_the_rate_is_bounded(receiver, monkeypatch):
    monkeypatch.setattr(module, "PER_SECOND", 0.5)
    desk = await receiver()
    statuses = [await desk.call(**PROOFS["token"]) for _ in range(4)]
    assert statuses == [204, 503, 503, 503]


async def test_bodies_heads_and_connections_are_bounded(receiver, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    desk = await receiver()
    assert await desk.call(io.BytesIO(b"x" * (module.MOST_BODY_BYTES + 1)), **PROOFS["token"]) == 413
    assert await desk.call(headers={"X-Auth-Token": "x" * 20_000}) == 400
    streams = [await asyncio.open_connection("127.0.0.1", int(desk.url.split(":")[2].split("/")[0])) for _ in range(6)]
    ended = await asyncio.gather(*(asyncio.wait_for(reader.read(), 1) for reader, _ in streams), return_exceptions=True)
    assert sum(one == b"" for one in ended) >= 3
    for _, writer in streams:
        writer.close()


async def test_a_body_that_does_not_come_is_not_waited_for(receiver, monkeypatch):
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    desk = await receiver()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {SECRET}\r\nContent-Length: 9\r\n\r\nbat"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(desk.url.split(":")[2].split("/")[0]))
    writer.write(head.encode())
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_only_posts_are_taken(receiver):
    assert await (await receiver()).call(method="GET", **PROOFS["token"]) == 405


async def test_what_cannot_be_read_is_left_out_and_said_once(receiver):
    desk = await receiver()
    for body in (b"odd", b"odd", b"batch 1"):
        assert await desk.call(body, **PROOFS["token"]) == 204
    await until(lambda: desk.told)
    assert desk.noticed == [
        "a callback cannot be read (no batch): such ones are left out, and the service is asked as ever"
    ]


async def test_a_port_that_is_taken_is_said_and_no_matter_of_the_run(receiver, unused_tcp_port):
    await receiver()
    desk = await receiver()
    (said,) = desk.noticed
    assert f"cannot listen on 127.0.0.1:{unused_tcp_port}: process {os.getpid()} (" in said
    assert re.search(r'listen = "127.0.0.1:\d+" in \[callback\]. The run goes on', said)
