"""A behaviour enters, a running server leaves: in a test as a context manager, on the command line until a signal."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import orjson
from aiohttp import web

from engine.sandbox.behaviour import Behaviour, ServiceKind
from engine.sandbox.errors import BehaviourError, ListenError, RemoteHostError
from engine.sandbox.faults import StreamHandler
from engine.sandbox.journal import Journal
from engine.sandbox.loading import load_behaviour
from engine.sandbox.sama.service import SamaService
from engine.sandbox.seaweed import SeaweedUploads, seaweed_uploads
from engine.sandbox.sevenbridges.service import SevenBridgesService
from engine.sandbox.stats import Stats
from engine.sandbox.traffic import Traffic

_LOG = logging.getLogger(__name__)

PORTS: dict[ServiceKind, int] = {"sama": 8800, "sevenbridges": 8801}
_SHUTDOWN_SECONDS = 0.5  # requests that hang on purpose are not waited for


class SandboxService(Protocol):
    """One of the services, ready to be served."""

    name: str
    traffic: Traffic

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        ...

    async def unserved(self, request: web.Request, handler: StreamHandler) -> web.StreamResponse:
        """Answer what no route serves: a middleware."""
        ...

    async def run(self) -> None:
        """Do what goes on beside the requests, until cancelled or done."""
        ...


@dataclass(frozen=True, slots=True)
class Sandbox:
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
    if not allow_remote and not _is_loopback(host):
        raise RemoteHostError(f"{host} is not a loopback address: pass allow_remote (--allow-remote) to serve on it")
    behaviour = behaviour or Behaviour()
    if s3 and behaviour.service != "sama":
        raise BehaviourError("Seven Bridges takes no uploads: leave out --s3")
    async with contextlib.AsyncExitStack() as stack:
        journal = stack.enter_context(contextlib.closing(Journal(behaviour.journal)))
        uploads = await stack.enter_async_context(seaweed_uploads()) if s3 else None
        service = _service(behaviour, journal, uploads, clock)
        address = await stack.enter_async_context(_listening(_application(service, behaviour), host, port))
        background = asyncio.ensure_future(service.run())
        background.add_done_callback(_log_failure)
        stack.push_async_callback(_stop, background)
        yield Sandbox(f"http://{address}/v2", service.traffic.stats, service.name)


def _service(
    behaviour: Behaviour, journal: Journal, uploads: SeaweedUploads | None, clock: Callable[[], float]
) -> SandboxService:
    if behaviour.service == "sevenbridges":
        return SevenBridgesService(behaviour, journal, clock)
    return SamaService(behaviour, journal, uploads, clock)


async def serve(
    behaviour: Behaviour,
    host: str,
    port: int,
    *,
    ready: Callable[[Sandbox], None],
    s3: bool = False,
    allow_remote: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; call `ready` once requests are accepted. Raise SandboxError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running_sandbox(behaviour, host=host, port=port, s3=s3, allow_remote=allow_remote) as sandbox:
        ready(sandbox)
        await stop.wait()


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
) -> None:
    """Be the command `bulksubmit sandbox`: print one line on standard output when ready, end on a signal.

    `journal` and `service` stand in for the behaviour file's. Raise SandboxError.
    """
    behaviour = load_behaviour(config) if config else Behaviour()
    if journal is not None:
        behaviour = replace(behaviour, journal=replace(behaviour.journal, path=journal))
    if service is not None:
        behaviour = replace(behaviour, service=service)
    port = PORTS[behaviour.service] if port is None else port

    def announce(sandbox: Sandbox) -> None:
        line = orjson.dumps({"url": sandbox.url, "pid": os.getpid()}).decode() if json else _welcome(sandbox, behaviour)
        print(line, file=sys.stdout, flush=True)  # noqa: T201 - the line that the command promises

    asyncio.run(serve(behaviour, host, port, ready=announce, s3=s3, allow_remote=allow_remote))


def _welcome(sandbox: Sandbox, behaviour: Behaviour) -> str:
    keys = ", ".join(behaviour.access_keys)
    served = f"The API of {sandbox.service} is served at {sandbox.url}"
    return f"{served} (access key: {keys}; process {os.getpid()}; Ctrl-C ends it)."


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _application(service: SandboxService, behaviour: Behaviour) -> web.Application:
    async def stats(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(service.traffic.stats), content_type="application/json")

    app = web.Application(client_max_size=behaviour.max_body_bytes, middlewares=[service.unserved])
    app.router.add_get("/sandbox/stats", stats)
    service.add_to(app)
    return app


@contextlib.asynccontextmanager
async def _listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
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
