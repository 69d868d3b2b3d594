"""The sandbox without a socket, in made-up time: as `engine.http.client.Client` the only way to it.

All that a behaviour can say holds here as it does over a real socket, but for latencies, hanging calls and cut answers.
What the sandbox does beside the requests is made up for before each of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from engine.http.classify import Loss
from engine.http.client import Lost, Request
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal, read_journal
from engine.sandbox.server import _application, _service
from engine.services.base import Answer

MOST_BYTES = 2**30
LONG_SECONDS = 1_000_000.0
"""After which nothing is late any more."""


class SandboxWire:
    """A sandbox that answers after `answer_seconds`; its journal says what was really created."""

    def __init__(self, behaviour: Behaviour, clock, folder: Path, answer_seconds: float = 0.05) -> None:
        behaviour = replace(behaviour, journal=replace(behaviour.journal, path=folder / "journal.ndjson"))
        self.path = folder / "journal.ndjson"
        self.seen: Counter[str] = Counter()
        """Requests by method and path without numbers."""
        self._journal = Journal(behaviour.journal)
        self._service = _service(behaviour, self._journal, None, clock.now)
        self._app = _application(self._service, behaviour)
        self._app.freeze()
        self._clock = clock
        self._answer_seconds = answer_seconds

    @property
    def faults(self) -> int:
        """Requests that a fault struck."""
        return self._service.traffic.stats.faults.total()

    async def send(self, request: Request) -> Answer | Lost:
        """Make one request, once."""
        await self._clock.sleep(self._answer_seconds / 2)
        answer = await self.serve(request)
        await self._clock.sleep(self._answer_seconds / 2)
        return answer

    async def serve(self, request: Request) -> Answer | Lost:
        """Do what a request asks for, now."""
        self.catch_up()
        transport = _Transport()
        answer = await self._app._handle(self._as_received(request, transport))
        if transport.broken or not isinstance(answer, web.Response):
            return Lost(Loss.CUT)
        return Answer(answer.status, answer.headers, answer.body or b"")

    def catch_up(self) -> None:
        """Do all that is due."""
        self._service.traffic.agenda.advance()
        if hasattr(self._service, "_creator"):
            while self._service._creator.advance_all():
                pass
        else:
            self._service._life.advance(self._clock.now())

    async def come_to_rest(self) -> None:
        """Let so much time pass that nothing is still to come."""
        await self._clock.sleep(LONG_SECONDS)
        self.catch_up()
        self._journal.close()

    @property
    def created(self) -> Counter:
        """How often each marker was created, by the journal."""
        return Counter(str(entry.marker) for entry in read_journal(self.path) if entry.kind == "task")

    def _as_received(self, request: Request, transport) -> web.Request:
        body, url = b"".join(request.call.pieces), request.url
        reader = StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        reader.feed_data(body)
        reader.feed_eof()
        headers = {**request.headers, "Host": f"{url.host}:{url.port}", "Content-Length": str(len(body))}
        return make_mocked_request(
            request.call.method,
            url.raw_path_qs,
            headers=headers,
            payload=reader,
            transport=transport,
            app=self._app,
            client_max_size=MOST_BYTES,
        )


class _Transport(Mock):
    """A connection of which it is remembered whether it was broken."""

    broken = False

    def get_extra_info(self, _name):
        return None

    def abort(self):
        self.broken = True

    close = abort

    def is_closing(self):
        return self.broken
