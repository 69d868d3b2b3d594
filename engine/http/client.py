"""A call -> one HTTP request -> what came of it, as a value. It alone makes requests; `caller` asks for each.

What aiohttp does on its own and we do not want is switched off here: following redirects, repeating an idempotent
request on a dropped connection, cookies, .netrc from the environment, a Content-Type that nobody asked for, TLS keys
written to a file.

No aiohttp error leaves this module, not even as the cause of another: their texts show URLs with access keys.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.resolver import DefaultResolver
from yarl import URL

from engine import __version__
from engine.http.heads import put_before
from engine.http.losses import MAX_FIELD_BYTES, AnswerLost, ForbiddenAddress, Lost, how_it_broke, loss_of
from engine.http.proxies import Proxies, from_environment
from engine.http.reading import LEAST_BYTES_PER_SECOND, MOST_FILE_BYTES, AnswerRoom, read_answer, read_into
from engine.http.secrets import HidingFile
from engine.http.urls import is_public
from engine.model.settings import SendSettings
from engine.services.base import Answer, Call

_CHUNK_BYTES = 256 * 1024
_SHORT_BYTES = 16 * 1024
"""A body up to this size fits into what a socket takes at once (Linux, `tcp_wmem`): nothing of it is waited for."""

_KEEP_SECONDS = 15.0
"""For how long a connection may idle and be used again; aiohttp's own default."""
_BUSY_SECONDS = 1.0
"""The same, for calls that are not repeated. Gunicorn closes what has idled for 2 s, Node.js and uvicorn after 5, and
whoever creates a task for each record has a connection idle for a few milliseconds."""


class Request(msgspec.Struct, frozen=True):
    """A call, complete with what proves who we are."""

    call: Call
    url: URL
    headers: Mapping[str, str]
    into: HidingFile | None = None
    """Where the body of a 2xx answer goes; the answer is then without it."""

    def __repr__(self) -> str:
        """Return the call: all else holds secrets."""
        return f"Request({self.call})"


class Client(Protocol):
    """Makes one request, once."""

    async def send(self, request: Request) -> Answer | Lost:
        """Return the answer, whatever its status, or how it was lost."""


_NO_TYPE = ("Content-Type",)
"""A presigned URL may be signed for a request without one. Passed only where a call has none: it costs 5 µs."""
_NEVER_AGAIN = frozenset({"POST", "PATCH"})
"""What aiohttp sends once in any case."""


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a PUT, GET or DELETE again behind our back.

    `ClientSession._request` does so once on exactly these two errors, and only a private attribute would switch it off;
    so they are turned into one that it does not know.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # a subclass of ClientOSError that says: not sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise AnswerLost(how_it_broke(error)) from None


async def _in_pieces(call: Call) -> AsyncIterator[memoryview]:
    """Yield a long body in pieces that are never copied, so that the event loop stays free between them.

    aiohttp writes bytes in one piece, after a copy of them, and warns of more than 1 MiB; of a BytesIO it makes a copy.
    """
    for piece in call.pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _CHUNK_BYTES):
            if start:
                await asyncio.sleep(0)
            yield view[start : start + _CHUNK_BYTES]


class _WholeRequest(aiohttp.ClientRequest):
    """A request whose body, if it is bytes, goes out with its head: aiohttp would start a task to write it."""

    _bytes: bytes | None = None

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        """Note a body; one that is bytes has its length and its type among the headers."""
        if isinstance(body, bytes):
            self._bytes, body = body, None
            self.headers["Content-Length"] = str(len(self._bytes))
        super().update_body_from_data(body, _stacklevel)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Write the request; the loop writes head and body by one system call where it can (uvloop)."""
        response = await super().send(conn)
        if self._bytes and conn.transport is not None:
            conn.transport.write(self._bytes)
        return response


class HttpClient:
    """Requests over aiohttp.

    Three pools. A connection that has idled may be closed by the server in the moment we write to it: the answer is
    lost, and nobody can tell whether the request was read. For a call that may be repeated that costs a retry. Where
    the service can be asked, it costs the asking: those calls take no connection that has idled for longer than servers
    let one idle. For a call that is neither, it would make a batch uncertain for nothing. Those, one a batch, get a
    connection of their own each: 0.8 instead of 0.2 ms a call on loopback, a TLS handshake elsewhere.
    """

    def __init__(self, sessions: Sequence[aiohttp.ClientSession], proxies: Proxies) -> None:
        self._kept, self._busy, self._fresh = sessions
        self._proxies = proxies
        self._room = AnswerRoom()

    async def send(self, request: Request) -> Answer | Lost:
        """Return the answer, whatever its status, or how it was lost.

        Raises:
            ConfigError: the URL needs the proxy of the environment, which cannot be used.
            AnswerNotKept: the file that the answer goes into cannot be written.
        """
        call = request.call
        session = self._kept if call.repeatable else self._busy if call.reconcilable else self._fresh
        headers, length = request.headers, call.size_bytes
        data: bytes | AsyncIterator[memoryview] | None = call.body if isinstance(call.body, bytes) else None
        if call.body is not None and (data is None or length > _SHORT_BYTES):
            headers, data = {**headers, "Content-Length": str(length)}, _in_pieces(call)
        proxy, reader, into = self._proxies.before(request.url), object(), request.into
        try:
            response = await session.request(
                call.method,
                request.url,
                headers=headers,
                data=data,
                allow_redirects=False,
                ssl=tls_context() if "https" in {request.url.scheme, proxy and proxy.url.scheme} else True,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
                skip_auto_headers=None if "Content-Type" in headers else _NO_TYPE,
                middlewares=() if call.method in _NEVER_AGAIN else None,
                timeout=session.timeout if into is None else _unhurried(session.timeout),
            )
            if into is not None:
                async with response:
                    return await self._into(response, into, reader, session.timeout.total or math.inf)
            content = response.content
            if content.is_eof() and not content.exception():  # as a rule: it came with its head, and is short
                return Answer(response.status, response.headers, content.read_nowait())
            async with response:
                return await read_answer(response, self._room, reader)
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            there = request.url.host_port_subcomponent or ""
            port = "" if request.url.explicit_port else f":{request.url.port}"
            return loss_of(error, f"{there}{port}" + (f" by {proxy.place}" if proxy else ""))
        finally:
            # Not sooner: until here others might begin to read, and from here on the answer goes without a pause to
            # whoever takes out of it what is needed.
            self._room.give_back(reader)

    async def _into(
        self, response: aiohttp.ClientResponse, into: HidingFile, reader: object, most_seconds: float
    ) -> Answer | Lost:
        """Have a file read the answer, if it is a success; any other is short, and read as ever."""
        if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            return await read_into(response, into, patient_seconds=most_seconds)
        async with asyncio.timeout(most_seconds if most_seconds < math.inf else None):
            return await read_answer(response, self._room, reader)


def _unhurried(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """Return for how long an answer may take that goes into a file: as long as `read_into` lets it."""
    return aiohttp.ClientTimeout(
        total=MOST_FILE_BYTES / LEAST_BYTES_PER_SECOND,
        connect=timeout.connect,
        sock_connect=timeout.sock_connect,
        sock_read=timeout.sock_read,
    )


@cache
def tls_context() -> ssl.SSLContext:
    """Return how TLS is spoken, as Python does by default, without what the variable SSLKEYLOGFILE asks for.

    With the keys of its sessions in a file, whoever has the file reads our credentials in what was recorded on the way.
    Made at the first https request: it reads all certificates of the system, which takes 0.1 s.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


class PublicResolver(AbstractResolver):
    """A resolver that refuses answers outside the open Internet, except for hosts that the user named exactly."""

    def __init__(self, inner: AbstractResolver, *, trusted_hosts: Collection[str]) -> None:
        self._inner = inner
        self._trusted = frozenset(host.lower() for host in trusted_hosts)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host`.

        Raises:
            ForbiddenAddress: one of them is private, link-local, loopback or the like.
        """
        found = await self._inner.resolve(host, port, family)
        if host.lower() not in self._trusted:
            for result in found:
                if not is_public(result["host"]):
                    raise ForbiddenAddress(None, f"{host} resolves to {result['host']}, which is not a public address")
        return found

    async def close(self) -> None:
        """Let go of the resolver inside."""
        await self._inner.close()


@asynccontextmanager
async def open_client(
    settings: SendSettings, *, trusted_hosts: Collection[str], anywhere: bool
) -> AsyncIterator[HttpClient]:
    """Open the connection pools.

    `trusted_hosts` may resolve to any address, others to public ones only; with `anywhere`, all may. Behind a proxy,
    only its own name is resolved here: where the others lead, the proxy decides.
    """
    proxies = from_environment()
    resolver = DefaultResolver()
    guard = resolver if anywhere else PublicResolver(resolver, trusted_hosts=[*trusted_hosts, *proxies.hosts])
    async with AsyncExitStack() as stack:
        stack.push_async_callback(resolver.close)
        sessions = [
            await stack.enter_async_context(_session(settings, guard, keep_seconds=seconds))
            for seconds in (_KEEP_SECONDS, _BUSY_SECONDS, 0.0)
        ]
        yield HttpClient(sessions, proxies)


def _session(settings: SendSettings, resolver: AbstractResolver, *, keep_seconds: float) -> aiohttp.ClientSession:
    # No limit here: the caller counts requests in flight over all pools, and waiting for a place in a pool would count
    # as time spent connecting.
    keeping: dict[str, Any] = {"keepalive_timeout": keep_seconds} if keep_seconds else {"force_close": True}
    connector = aiohttp.TCPConnector(limit=0, resolver=resolver, **keeping)
    put_before(connector, asyncio.get_running_loop())
    timeout = aiohttp.ClientTimeout(
        total=settings.longest_call_seconds,
        connect=settings.connect_seconds,
        sock_connect=settings.connect_seconds,
        sock_read=settings.answer_seconds,
    )
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_WholeRequest,
        timeout=timeout,
        headers={"User-Agent": f"bulksubmit/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        raise_for_status=False,
        max_line_size=MAX_FIELD_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        middlewares=(_once,),
    )
