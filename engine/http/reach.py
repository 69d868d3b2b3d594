"""The way to a server, step by step: its name, a connection, TLS, an answer. `commands.check` tells where it ends.

A run makes its requests by `client`, in which a step that fails is one error. Here each step is made for its own sake,
over the same proxy and with the same certificates, and without credentials.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from engine import __version__
from engine.http.classify import Loss
from engine.http.client import tls_context
from engine.http.losses import Lost, turned_away, unreachable
from engine.http.proxies import Proxy, from_environment
from engine.model.errors import Unavailable


class Certificate(Struct, frozen=True):
    """What a server has proven itself with."""

    issuer: str
    until: float
    """Unix seconds."""


class Way(Struct, frozen=True):
    """The way to a URL: directly, or through a proxy."""

    url: URL
    proxy: Proxy | None

    @property
    def first(self) -> tuple[str, int]:
        """Host and port that are connected to."""
        url = self.proxy.url if self.proxy else self.url
        return str(url.host), int(url.port or 0)

    @property
    def words(self) -> str:
        """Host and port for people."""
        host, port = self.first
        return f"{host}:{port}"


def way_to(url: URL) -> Way:
    """Return the way to a URL, as the environment has it.

    Raises:
        ConfigError: the URL needs a proxy that cannot be used.
    """
    return Way(url, from_environment().before(url))


async def addresses_of(way: Way) -> Sequence[str]:
    """Return the addresses of the host that is connected to.

    Raises:
        Unavailable: it has none.
    """
    host, port = way.first
    with _told(way.words):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@asynccontextmanager
async def connected(way: Way, *, tls: bool) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """Connect: to the first host only, or with `tls` all the way to the server.

    Raises:
        Unavailable: it cannot be done; says where it ended.
    """
    reader, writer = await _connection(way, tls=tls)
    try:
        if tls and way.url.scheme == "https":
            if way.proxy:
                await _through(way, way.proxy, reader, writer)
            server = f"{way.url.host}:{way.url.port}"
            with _told(server):
                await writer.start_tls(tls_context(), server_hostname=str(way.url.host))
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


async def _connection(way: Way, *, tls: bool) -> tuple[StreamReader, StreamWriter]:
    """Connect to the first host: to the first of its addresses that takes connections."""
    host, port = way.first
    secure = tls_context() if tls and way.proxy and way.proxy.url.scheme == "https" else None
    *others, last = await addresses_of(way)
    for address in others:
        with suppress(Unavailable):
            return await _opened(address, port, host, secure)
    return await _opened(last, port, host, secure)


async def _opened(
    address: str, port: int, host: str, secure: ssl.SSLContext | None
) -> tuple[StreamReader, StreamWriter]:
    with _told(f"{host}:{port}"):
        return await asyncio.open_connection(address, port, ssl=secure, server_hostname=host if secure else None)


async def certificate_of(way: Way) -> Certificate:
    """Return what the server has proven itself with.

    Raises:
        Unavailable: it could not.
    """
    async with connected(way, tls=True) as (_, writer):
        shown: dict[str, Any] = writer.get_extra_info("peercert") or {}
    issuer = {key: value for part in shown.get("issuer", ()) for key, value in part}
    until = ssl.cert_time_to_seconds(shown["notAfter"]) if "notAfter" in shown else 0.0
    return Certificate(issuer.get("organizationName") or issuer.get("commonName") or "nobody named", until)


async def answer_of(way: Way) -> tuple[int, Mapping[str, str]]:
    """Return status and headers of the answer to a request without credentials.

    Raises:
        Unavailable: there is none, or it is not HTTP.
    """
    async with connected(way, tls=True) as (reader, writer):
        host = way.url.host_port_subcomponent
        asked = f"GET {way.url.raw_path or '/'} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bulksubmit/{__version__}\r\n"
        try:
            writer.write(f"{asked}Accept: */*\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return _read_head(await _head(reader))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            raise Unavailable(f"{host}: it takes connections, and what answers there does not speak HTTP") from None


async def _through(way: Way, proxy: Proxy, reader: StreamReader, writer: StreamWriter) -> None:
    """Have the proxy connect."""
    server = f"{way.url.host}:{way.url.port}"
    own = "".join(f"{name}: {value}\r\n" for name, value in proxy.headers.items())
    try:
        writer.write(f"CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{own}\r\n".encode())
        await writer.drain()
        status, _ = _read_head(await _head(reader))
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
        raise Unavailable(f"{proxy.place}: it takes connections, and does not answer as a proxy") from None
    if status != HTTPStatus.OK:
        raise Unavailable(turned_away(status, f"{server} by {proxy.place}").words)


async def _head(reader: StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def _read_head(head: bytes) -> tuple[int, Mapping[str, str]]:
    """Return status and headers. Raises: ValueError."""
    first, *fields = head.decode("latin-1").split("\r\n")
    protocol, status, *_ = first.split(" ")
    if not protocol.startswith("HTTP/1."):
        raise ValueError(protocol)
    pairs = [(name.strip(), value.strip()) for name, colon, value in (one.partition(":") for one in fields) if colon]
    return int(status), CIMultiDict(pairs)


@contextmanager
def _told(to: str) -> Iterator[None]:
    """Have the errors of the system told as a run would tell them."""
    try:
        yield
    except OSError as error:
        raise Unavailable(unreachable(error, to).words) from None
    except EOFError:
        raise Unavailable(Lost(Loss.CUT, to).words) from None


def day(seconds: float) -> str:
    """Return the day of a time (Unix seconds), by UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
