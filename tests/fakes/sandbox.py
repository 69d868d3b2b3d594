"""The sandbox in made-up time, without a socket: requests of the engine's client in, answers or their loss out.

All that a behaviour can say holds here as it does over a real socket. What the sandbox does beside the requests is made
up for before each of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from msgspec.structs import replace
from multidict import CIMultiDict

from engine.http.classify import Loss
from engine.http.client import Lost, Request
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal, read_journal
from engine.sandbox.messages import SandboxRequest
from engine.sandbox.sama.uploads import Uploads
from engine.sandbox.server import make_service
from engine.services.base import Answer

LONG_SECONDS = 1_000_000.0
"""After which nothing is late any more."""


class InProcessSandbox:
    """A sandbox; its journal says what was really created."""

    def __init__(
        self, behaviour: Behaviour, clock, folder: Path, *, uploads: Uploads | None = None, report=None
    ) -> None:
        self.path = folder / "journal.ndjson"
        self._journal = Journal(replace(behaviour.journal, path=self.path))
        self.service = make_service(behaviour, self._journal, clock.now, uploads, report)
        self._clock = clock
        self._max_body_bytes = behaviour.max_body_bytes

    @property
    def faults(self) -> int:
        """Requests that a fault struck."""
        return self.service.traffic.stats.faults.total()

    async def serve(self, request: Request) -> Answer | Lost:
        """Do what a request asks for, now."""
        self.catch_up()

        async def read(_) -> bytes | None:
            body = b"".join(request.call.pieces)
            return body if len(body) <= self._max_body_bytes else None

        size = {"Content-Length": str(request.call.size_bytes)}
        received = SandboxRequest(request.call.method, request.url, CIMultiDict({**request.headers, **size}))
        answer = await self.service.answer(received, read, self._clock.sleep)
        if answer.sent != "whole":
            return Lost(Loss.CUT)
        headers = CIMultiDict(answer.headers)
        if request.into is None or answer.status // 100 != 2:
            return Answer(answer.status, headers, answer.body)
        request.into.begin()
        request.into.write(answer.body)
        request.into.end()
        return Answer(answer.status, headers, b"")

    def catch_up(self) -> None:
        """Do all that is due."""
        while self.service.advance():
            pass

    async def come_to_rest(self) -> None:
        """Let so much time pass that nothing is still to come, and serve no more."""
        await self.calm_down()
        self.close()

    async def calm_down(self) -> None:
        """Let so much time pass that nothing is still to come."""
        await self._clock.sleep(LONG_SECONDS)
        self.catch_up()

    def close(self) -> None:
        """Close the journal's file."""
        self._journal.close()

    @property
    def created(self) -> Counter:
        """How often each marker was created, by the journal."""
        return Counter(str(entry.marker) for entry in read_journal(self.path) if entry.kind == "task")
