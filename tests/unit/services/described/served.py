"""Small servers for descriptions, behind the engine's own caller: a request in, an answer out, and what was created."""

import csv
import io
import json
import tomllib
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import parse_qs

import msgspec
from fakes.clock import FakeClock
from multidict import CIMultiDict

from engine.http.caller import HttpCaller
from engine.http.classify import Loss
from engine.http.losses import Lost
from engine.model.batch import Batch
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Position
from engine.model.settings import BatchSettings, SendSettings, of_text
from engine.services.base import Answer, Asked
from engine.services.described.service import SETTINGS, build

BASE = "https://api.example.com"
TOKEN = "00112233aabbccdd"
ASKED_FOR = {"kind": "http", "base_url": BASE}


def read(text):
    """Return the settings of a description."""
    return msgspec.convert({**ASKED_FOR, **tomllib.loads(text)}, SETTINGS, strict=False, dec_hook=of_text)


@dataclass
class Seen:
    """A request as a server sees it."""

    method: str
    url: object
    headers: dict
    body: bytes

    @property
    def path(self):
        return self.url.raw_path

    @property
    def query(self):
        return dict(self.url.query)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def rows(self):
        return list(csv.DictReader(io.StringIO(self.body.decode())))

    @property
    def form(self):
        return {name: value[0] for name, value in parse_qs(self.body.decode()).items()}


@dataclass
class Wire:
    """The network: each request is answered by the server, unless its answer is lost."""

    server: object
    seen: list = field(default_factory=list)
    loses: list = field(default_factory=list)
    """Of the next requests: whether the answer is lost."""

    async def send(self, request):
        seen = Seen(request.call.method, request.url, dict(request.headers), b"".join(request.call.pieces))
        self.seen.append(seen)
        status, body, *headers = self.server(seen)
        if self.loses and self.loses.pop(0):
            return Lost(Loss.CUT)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if request.into is not None and 200 <= status < 300:
            request.into.begin()
            request.into.write(body)
            request.into.end()
            body = b""
        return Answer(status, CIMultiDict(headers[0] if headers else {}), body)


class Described:
    """A described service before a server: it takes batches along the way that the engine takes them."""

    def __init__(self, text, server, *, learnt=TOKEN, parent=None, **batch):
        self.settings, self.wire, self.clock = read(text), Wire(server), FakeClock()
        caller = HttpCaller(self.wire, self.settings, SendSettings(), clock=self.clock, draw=lambda: 0.5)
        self.job = Job("j", "http", "", (), "", learnt=learnt, parent=parent, created_at=self.clock.now())
        self.service = build(self.settings, BatchSettings(**batch), self.job, caller, self.clock)
        self.intents = 0

    async def intend(self):
        self.intents += 1

    def batch(self, tasks, sequence=7, first=100):
        payload = Payload.of([json.dumps(task).encode() for task in tasks], range(first, first + len(tasks)))
        end, array = Position(len(payload.array), len(tasks)), payload.array
        return Batch(sequence, Position(), end, len(tasks), len(array), sha256(array).digest(), b""), payload

    async def released(self, tasks, *, sequence=7, sent_before=False):
        """Stage, upload and release a batch."""
        batch, payload = self.batch(tasks, sequence)
        staging, name = self.service.staging, None
        if staging is not None:
            staged = await staging.stage(batch, payload)
            await staging.upload(staged, payload)
            name = staged.remote_id
        alone = payload if staging is None else None
        return await self.service.release(batch, name, alone, self.intend, sent_before=sent_before)

    def asked(self, tasks, name, sequence=7):
        _, payload = self.batch(tasks, sequence)

        async def again():
            return payload

        return Asked(sequence, name, len(tasks), payload=again)

    async def settled(self, tasks, **options):
        """Take a batch along its whole way; return its fates."""
        released = await self.released(tasks, **options)
        if released.settlement is not None:
            return released.settlement
        asked = self.asked(tasks, released.remote_id, options.get("sequence", 7))
        for _ in range(10):
            (progress,) = await self.service.progress([asked])
            if progress.finished:
                return progress.settlement or await self.service.settlement(asked)
        raise AssertionError("it does not end")
