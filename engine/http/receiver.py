"""Receives callbacks of a service while a run lasts; `commands.wiring` opens it, and `run.poller` hears of what came.

A callback is a hint and nothing more, so there is no harm in refusing one: the service is asked as ever. Whoever calls
must prove that it is the service, before its body is read wherever that can be. All that a caller could fill is
bounded: connections, the head of a request, its body, the time for it, and the bodies that wait to be looked at. What
finds no room is answered 503, and the service tries again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from aiohttp import web

from engine.clock import Clock
from engine.http.ports import no_port
from engine.model.settings import CallbackSettings
from engine.progress.events import Listener, Noticed

MOST_BODY_BYTES = 1024 * 1024
"""One tells of a task, with its data where it failed; a longer one is left out, and costs a poll."""
MOST_HEAD_BYTES = 8 * 1024
"""Of one line and of one header."""
MOST_CONNECTIONS = 128
MOST_QUEUED = 256
PER_SECOND = 2_000.0
"""Callbacks that are taken: 50 µs of work each."""
_BURST_SECONDS = 1.0
_END_SECONDS = 0.1
"""For requests under way at the end; aiohttp takes 0 for no limit."""
READ_SECONDS = 10.0
"""Longest time for a body."""
SIGNED_SECONDS = 900.0
"""A signature is good for so long, before and after: clocks differ."""
_SIGNED_DATE, _SIGNED_BY = "X-wsm-date", "Authorization"

ReadCallback: TypeAlias = Callable[[bytes], Mapping[str, int]]
"""Body → batch → tasks of it that are told; "": not named. Raises ValueError."""
Hear: TypeAlias = Callable[[str, int], None]


class Receiver:
    """Answers callbacks, and passes on what they tell."""

    def __init__(
        self, settings: CallbackSettings, read: ReadCallback, hear: Hear, clock: Clock, emit: Listener
    ) -> None:
        self._settings, self._read, self._hear, self._clock, self._emit = settings, read, hear, clock, emit
        self._bodies: asyncio.Queue[bytes] = asyncio.Queue(MOST_QUEUED)
        self._due = 0.0
        self._said: set[str] = set()
        """What was noticed: each once."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request; a body whose proof holds is put into the queue."""
        if request.method != "POST" or not self._has_room():
            return _refusal(503 if request.method == "POST" else 405)
        if not self._is_proven(request.headers, request.query.get("access_key", "")):
            return self._unproven()
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413)
        except TimeoutError:
            return _refusal(408)
        if not self._is_signed(request.headers, body):
            return self._unproven()
        return self.take(body)

    def take(self, body: bytes) -> web.Response:
        """Put a body whose proof holds into the queue."""
        try:
            self._bodies.put_nowait(body)
        except asyncio.QueueFull:
            return _refusal(503)
        return web.Response(status=204)

    async def work(self) -> None:
        """Look at what was received, one after the other, until canceled."""
        while True:
            body = await self._bodies.get()
            try:
                for name, tasks in self._read(body).items():
                    self._hear(name, tasks)
            except ValueError as error:
                self._notice(
                    f"a callback cannot be read ({error}): such ones are left out, and the service is asked as ever"
                )
            await asyncio.sleep(0)  # the run goes first

    def _has_room(self) -> bool:
        """Take a place at a pace that is bounded, whoever calls."""
        now = self._clock.monotonic()
        if self._bodies.full() or self._due > now + _BURST_SECONDS:
            return False
        self._due = max(self._due, now) + 1 / PER_SECOND
        return True

    def _is_proven(self, headers: Mapping[str, str], access_key: str) -> bool:
        settings = self._settings
        if settings.token is not None:
            return _same(headers.get("X-Auth-Token", ""), settings.token.get_secret_value())
        if settings.access_key is not None:
            return _same(access_key, settings.access_key.get_secret_value())
        if settings.basic is not None:
            known = base64.b64encode(settings.basic.get_secret_value().encode()).decode()
            scheme, _, given = headers.get("Authorization", "").partition(" ")
            return _same(given.strip(), known) and scheme.lower() == "basic"
        return _SIGNED_DATE in headers  # the rest once the body is there

    def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether a signature holds, where one is asked for: of the date, a line feed and the body; a guess."""
        if self._settings.hmac_key is None:
            return True
        date, key = headers.get(_SIGNED_DATE, ""), self._settings.hmac_key.get_secret_value()
        digest = hmac.digest(key.encode(), date.encode("utf-8", "surrogateescape") + b"\n" + body, hashlib.sha256)
        given = headers.get(_SIGNED_BY, "").rpartition(" ")[2]
        if not _same(given, base64.b64encode(digest).decode()) and not _same(given.lower(), digest.hex()):
            return False
        try:
            signed_at = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return False
        return abs(self._clock.now() - signed_at) <= SIGNED_SECONDS

    def _unproven(self) -> web.Response:
        self._notice("a callback came without the proof that [callback] asks for: such ones are refused (401)")
        return _refusal(401)

    def _notice(self, text: str) -> None:
        if text not in self._said and len(self._said) < MOST_CONNECTIONS:
            self._said.add(text)
            self._emit(Noticed(text))


def _same(given: str, known: str) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), known.encode())


def _refusal(status: int) -> web.Response:
    answer = web.Response(status=status)
    answer.force_close()  # what is left of the body is not read
    if status == 503:  # noqa: PLR2004 - the standard's number
        answer.headers["Retry-After"] = "1"
    return answer


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Full(asyncio.Protocol):
    """Ends a connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@asynccontextmanager
async def receiving(
    settings: CallbackSettings, read: ReadCallback, hear: Hear, clock: Clock, emit: Listener
) -> AsyncIterator[Receiver]:
    """Receive callbacks until the block ends. Where that cannot be, it is said, and the run goes on without."""
    receiver = Receiver(settings, read, hear, clock, emit)
    server = web.Server(
        receiver.answer, access_log=None, max_line_size=MOST_HEAD_BYTES, max_field_size=MOST_HEAD_BYTES
    )  # its requests read 1 MiB of body at most: MOST_BODY_BYTES
    working = asyncio.ensure_future(receiver.work())

    def connection() -> asyncio.Protocol:
        return server() if len(server.connections) < MOST_CONNECTIONS else _Full()

    host, port = settings.address
    listening: asyncio.Server | None = None
    try:
        try:
            listening = await asyncio.get_running_loop().create_server(connection, host, port)
        except OSError as error:
            why = no_port(error, host, port, lambda free: f'listen = "{_address(host, free)}" in [callback]')
            emit(Noticed(f"callbacks are not received: {why}. The run goes on: the service is asked as ever"))
        yield receiver
    finally:
        if listening is not None:
            listening.close()
        await server.shutdown(_END_SECONDS)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
