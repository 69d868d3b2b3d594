"""A sandbox over sockets: requests in, answers and callbacks out, until a block or a process ends.

The only part of the sandbox that knows connections. What is answered, and how the connection ends, a service decides.
"""

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import formatdate
from pathlib import Path

import orjson
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from engine.http.ports import no_port
from engine.http.urls import is_loopback
from engine.sandbox.behaviour import (
    Behaviour,
    BehaviourError,
    SandboxError,
    ServiceKind,
    load_behaviour,
)
from engine.sandbox.bulk import FACES, BulkService
from engine.sandbox.callbacks import CallbackSender
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, SandboxCall, SandboxRequest
from engine.sandbox.sama import SamaService
from engine.sandbox.sama.uploads import Uploads
from engine.sandbox.seaweed import SeaweedUploads, seaweed_uploads
from engine.sandbox.sevenbridges import SevenBridgesService
from engine.sandbox.traffic import SandboxService, Stats

_LOG = logging.getLogger(__name__)

PORTS: Mapping[ServiceKind, int] = {
    "sama": 8800,
    "sevenbridges": 8801,
    "bulk": 8802,
    "elasticsearch": 8803,
    "openai-batch": 8804,
    "anthropic-batches": 8805,
    "salesforce-bulk2": 8806,
    "hubspot": 8807,
}
_BELOW: Mapping[ServiceKind, str] = {
    "sama": "/v2",
    "sevenbridges": "/v2",
    "openai-batch": "/v1",
    "hubspot": "/crm/v3/objects",
}
"""Where an API begins that does not begin at the root."""
DELAY_SECONDS = 1.0
"""Of the command without a behaviour file. Real services take a moment, too: a program that releases a batch or runs a
task, and cancels it then, finds something to cancel."""
_TICK_SECONDS = 0.02  # how late what becomes due may be done
_SHUTDOWN_SECONDS = 0.5  # requests that hang on purpose are not waited for


class RemoteHostError(SandboxError):
    """The sandbox serves loopback only, unless `--allow-remote` is given: it checks no person's rights."""


class ListenError(SandboxError):
    """The port cannot be listened on; the message says who has it, and which one is free."""


class Sandbox(Struct, frozen=True):
    """A server that runs: `url` is the base of the API of `service`, `stats` what it has seen so far."""

    url: str
    stats: Stats
    service: str


@contextlib.asynccontextmanager
async def running_sandbox(
    behaviour: Behaviour | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    s3: bool = False,
    allow_remote: bool = False,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Sandbox]:
    """Serve until the block ends; port 0 takes a free one. Raise SandboxError."""
    if not allow_remote and not is_loopback(host):
        raise RemoteHostError(f"{host} is not a loopback address: pass --allow-remote to serve on it")
    behaviour = behaviour or Behaviour()
    if s3 and behaviour.service != "sama":
        raise BehaviourError("only Sama's uploads go to a store: leave out --s3")
    async with contextlib.AsyncExitStack() as stack:
        journal = stack.enter_context(contextlib.closing(Journal(behaviour.journal)))
        uploads = await stack.enter_async_context(seaweed_uploads()) if s3 else None
        callbacks = CallbackSender(behaviour.callbacks) if behaviour.callbacks.url else None
        service = make_service(behaviour, journal, clock, uploads, callbacks.send if callbacks else None)
        served = serving(service, behaviour, host=host, port=port, uploads=uploads, callbacks=callbacks)
        address = await stack.enter_async_context(served)
        base = address + _BELOW.get(behaviour.service, "")
        yield Sandbox(base, service.traffic.stats, service.name)


@contextlib.asynccontextmanager
async def serving(
    service: SandboxService,
    behaviour: Behaviour,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    uploads: SeaweedUploads | None = None,
    callbacks: CallbackSender | None = None,
) -> AsyncIterator[str]:
    """Serve a service that is made already until the block ends; give its address. Raise SandboxError."""
    server = _Server(service, behaviour, uploads)
    tls = await asyncio.to_thread(_tls_of, behaviour, host)
    async with _listening(server.application(), host, port, tls) as address:
        background = asyncio.ensure_future(server.run(callbacks))
        background.add_done_callback(_log_failure)
        try:
            yield f"{'https' if tls else 'http'}://{address}"
        finally:
            await _stop(background)


def _tls_of(behaviour: Behaviour, host: str) -> ssl.SSLContext | None:
    if behaviour.tls is None:
        return None
    from engine.sandbox.certificates import server_context  # noqa: PLC0415 - only where it is asked for

    return server_context(behaviour.tls, host)


def make_service(
    behaviour: Behaviour,
    journal: Journal,
    clock: Callable[[], float],
    uploads: Uploads | None = None,
    report: Callable[[bytes], object] | None = None,
) -> SandboxService:
    """Return the service that the behaviour names; see `SamaService` for what it alone takes. Raise BehaviourError."""
    if behaviour.service == "sevenbridges":
        return SevenBridgesService(behaviour, journal, clock)
    if behaviour.service == "bulk":
        return BulkService(behaviour, journal, clock)
    if behaviour.service != "sama":
        from engine.sandbox.vendors.all import VENDORS  # noqa: PLC0415 - they are made of what stands here

        return VENDORS[behaviour.service](behaviour, journal, clock)
    return SamaService(behaviour, journal, clock, uploads, report)


def run(  # noqa: PLR0913 - one argument for each option of the command
    config: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    s3: bool = False,
    allow_remote: bool = False,
    json: bool = False,
    journal: Path | None = None,
    service: ServiceKind | None = None,
    delay_seconds: float | None = None,
) -> None:
    """Be the command `bulksubmit sandbox`: print one line on standard output when ready, end on a signal.

    `journal`, `service` and `delay_seconds` stand in for the behaviour file's. Raise SandboxError.
    """
    behaviour = load_behaviour(config) if config else Behaviour()
    if delay_seconds is not None or config is None:
        behaviour = delayed(behaviour, DELAY_SECONDS if delay_seconds is None else delay_seconds)
    if journal is not None:
        behaviour = replace(behaviour, journal=replace(behaviour.journal, path=journal))
    if service is not None:
        behaviour = replace(behaviour, service=service)
    port = PORTS[behaviour.service] if port is None else port

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with running_sandbox(behaviour, host=host, port=port, s3=s3, allow_remote=allow_remote) as sandbox:
            told = orjson.dumps({"url": sandbox.url, "pid": os.getpid()}).decode()
            print(told if json else _welcome(sandbox, behaviour), flush=True)  # noqa: T201 - the line that is promised
            await stop.wait()

    asyncio.run(serve())


def _welcome(sandbox: Sandbox, behaviour: Behaviour) -> str:
    keys = ", ".join(behaviour.access_keys)
    served = f"The API of {sandbox.service} is served at {sandbox.url}"
    if behaviour.service == "bulk":
        served += "/FACE, where FACE is " + ", ".join(face.name for face in FACES)
    if behaviour.service not in {"sama", "sevenbridges", "bulk"}:
        return f"{served} (access key: {keys}; process {os.getpid()}; Ctrl-C ends it)."
    bridges = behaviour.service == "sevenbridges"
    late = behaviour.sevenbridges.life.queued_seconds if bridges else behaviour.creation.delay_seconds
    delay = f"; what it accepts begins {late:g} s later, and can be canceled until then" if late else ""
    return f"{served} (access key: {keys}; process {os.getpid()}{delay}; Ctrl-C ends it)."


class _Server:
    """Carries requests from connections to a service, and answers back; does beside them what becomes due."""

    def __init__(self, service: SandboxService, behaviour: Behaviour, uploads: SeaweedUploads | None) -> None:
        self._service, self._uploads = service, uploads
        self._max_body_bytes, self._skew_seconds = behaviour.max_body_bytes, behaviour.clock_skew_seconds

    def application(self) -> web.Application:
        """Return what aiohttp is to serve."""
        app = web.Application(client_max_size=self._max_body_bytes)
        app.router.add_get("/sandbox/stats", self._stats)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def run(self, callbacks: CallbackSender | None) -> None:
        """Do what becomes due and send callbacks, until canceled."""
        await asyncio.gather(self._keep_up(), *([callbacks.run()] if callbacks else []))

    async def _keep_up(self) -> None:
        while True:  # noqa: ASYNC110 - the clock may be a made-up one, so it is looked at again and again
            await asyncio.sleep(0 if self._service.advance() else _TICK_SECONDS)

    async def _stats(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self._service.traffic.stats), content_type="application/json")

    async def _serve(self, incoming: web.Request) -> web.StreamResponse:
        async def read(call: SandboxCall) -> bytes | None:
            if (incoming.content_length or 0) > self._max_body_bytes:
                return None
            try:
                body = await incoming.read()  # raises, and nothing is done, when the connection ends early
            except web.HTTPRequestEntityTooLarge:
                return None
            if self._uploads is not None and call.kind == "continue":
                await self._uploads.load(call.request.params)
            return body

        request = SandboxRequest(incoming.method, incoming.url, incoming.headers)
        answer = await self._service.answer(request, read, asyncio.sleep)
        if self._skew_seconds:
            answer.headers["Date"] = formatdate(time.time() + self._skew_seconds, usegmt=True)
        asyncio.get_running_loop().call_soon(self._service.advance)  # once the answer is on its way
        if answer.sent == "half":
            return await _send_half(incoming, answer)
        if answer.sent == "nothing" and incoming.transport is not None:
            incoming.transport.abort()  # aiohttp finds the transport closed and sends nothing
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


def delayed(behaviour: Behaviour, seconds: float) -> Behaviour:
    """Return a behaviour by which work that was accepted begins so much later; until then it can be canceled."""
    platform = behaviour.sevenbridges
    return replace(
        behaviour,
        creation=replace(behaviour.creation, delay_seconds=seconds),
        sevenbridges=replace(platform, life=replace(platform.life, queued_seconds=seconds)),
    )


async def _send_half(incoming: web.Request, answer: SandboxAnswer) -> web.StreamResponse:
    cut = web.StreamResponse(status=answer.status, headers=answer.headers)
    cut.content_length = max(len(answer.body), 1)  # an empty body is cut by promising one byte
    await cut.prepare(incoming)
    await cut.write(answer.body[: len(answer.body) // 2])
    if incoming.transport is not None:
        incoming.transport.close()  # sends what is buffered, then closes
    return cut


@contextlib.asynccontextmanager
async def _listening(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            raise ListenError(no_port(error, host, port, lambda free: f"--port {free}")) from error
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
    finally:
        await runner.cleanup()


def _log_failure(background: "asyncio.Future[None]") -> None:
    """Say at once that no more tasks will be created: the error itself is raised only when the sandbox ends."""
    if not background.cancelled() and (error := background.exception()) is not None:
        _LOG.error("the sandbox has stopped creating tasks", exc_info=error)


async def _stop(background: "asyncio.Future[None]") -> None:
    background.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await background  # raises what ended it before its time
