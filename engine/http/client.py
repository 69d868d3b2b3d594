"""A call -> one HTTP request -> what came of it, as a value. The only module of the client that speaks aiohttp.

What aiohttp does on its own and we do not want is switched off here: following redirects, repeating an idempotent
request on a dropped connection, cookies, proxies and .netrc from the environment, a Content-Type that nobody asked for.

No aiohttp error leaves this module, not even as the cause of another: their texts show URLs with access keys.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from engine import __version__
from engine.http.classify import Loss
from engine.http.urls import is_public
from engine.model.settings import MEBIBYTE, SendSettings
from engine.services.base import Answer, Call

MAX_ANSWER_BYTES = 64 * MEBIBYTE
"""After decompression. A page of 1,000 failed tasks with their data is a few MiB; more is an error or a bomb."""
MAX_ANSWER_VALUES = 1_000_000
"""Parsed, that many values take about 100 MB: 60 MiB of `{},{},…` took 1.9 GB. A page of 1,000 tasks has thousands."""
_CHUNK_BYTES = 256 * 1024

_KEEP_SECONDS = 15.0
"""For how long a connection may idle and be used again; aiohttp's own default."""
_BUSY_SECONDS = 1.0
"""The same, for calls that are not repeated. Gunicorn closes what has idled for 2 s, Node.js and uvicorn after 5, and
whoever creates a task for each record has a connection idle for a few milliseconds."""

_UNKNOWN_SIGNER = "if you trust who signed it, name the file of that CA's certificate in the variable SSL_CERT_FILE"
_WRONG_HOST = "check how the host is written; else somebody stands in between"
_CERTIFICATE_ADVICE = {
    9: "check this machine's clock",
    10: "the server's owner must renew it, unless this machine's clock is wrong",
    **dict.fromkeys((18, 19, 20, 21), _UNKNOWN_SIGNER),
    **dict.fromkeys((62, 64), _WRONG_HOST),
}
"""OpenSSL's X509_V_ERR_… (x509_vfy.h) → what to do."""

_NO_TLS_THERE = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL"})
"""OpenSSL's reasons for a server that does not speak TLS at all: no use in trying again."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call, complete with what proves who we are."""

    call: Call
    url: URL = field(repr=False)
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """A request without an answer."""

    loss: Loss
    detail: str = ""


class Client(Protocol):
    """Makes one request, once."""

    async def send(self, request: Request) -> Answer | Lost:
        """Return the answer, whatever its status, or how it was lost."""
        ...


_NO_TYPE = ("Content-Type",)
"""A presigned URL may be signed for a request without one. Passed only where a call has none: it costs 5 µs."""
_NEVER_AGAIN = frozenset({"POST", "PATCH"})
"""What aiohttp sends once in any case."""


class _AnswerLost(aiohttp.ClientError):
    """A connection broke under a request."""


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a PUT, GET or DELETE again behind our back.

    `ClientSession._request` does so once on exactly these two errors, and only a private attribute would switch it off;
    so they are turned into one that it does not know.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # a subclass of ClientOSError that says: not sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise _AnswerLost from None


async def _in_pieces(call: Call) -> AsyncIterator[memoryview]:
    """Yield a body in pieces that are never copied, so that the event loop stays free between them.

    aiohttp writes bytes in one piece and warns of more than 1 MiB, and of a BytesIO it makes a copy.
    """
    for piece in call.pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _CHUNK_BYTES):
            if start:
                await asyncio.sleep(0)
            yield view[start : start + _CHUNK_BYTES]


class HttpClient:
    """Requests over aiohttp.

    Three pools. A connection that has idled may be closed by the server in the moment we write to it: the answer is
    lost, and nobody can tell whether the request was read. For a call that may be repeated that costs a retry. Where
    the service can be asked, it costs the asking: those calls take no connection that has idled for longer than servers
    let one idle. For a call that is neither, it would make a batch uncertain for nothing. Those, one a batch, get a
    connection of their own each: 0.8 instead of 0.2 ms a call on loopback, a TLS handshake elsewhere.
    """

    def __init__(self, kept: aiohttp.ClientSession, busy: aiohttp.ClientSession, fresh: aiohttp.ClientSession) -> None:
        self._kept = kept
        self._busy = busy
        self._fresh = fresh

    async def send(self, request: Request) -> Answer | Lost:
        """Return the answer, whatever its status, or how it was lost."""
        call = request.call
        session = self._kept if call.repeatable else self._busy if call.reconcilable else self._fresh
        headers, body = request.headers, None
        if call.body is not None:
            headers, body = {**headers, "Content-Length": str(call.size_bytes)}, _in_pieces(call)
        try:
            async with session.request(
                call.method,
                request.url,
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=None if "Content-Type" in headers else _NO_TYPE,
                middlewares=() if call.method in _NEVER_AGAIN else None,
            ) as response:
                return await _read(response)
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            return _lost(error)


async def _read(response: aiohttp.ClientResponse) -> Answer | Lost:
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.read(_CHUNK_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            response.close()
            return Lost(Loss.TOO_LARGE, f"more than {MAX_ANSWER_BYTES // MEBIBYTE} MiB")
    body = b"".join(pieces)
    if size > MAX_ANSWER_VALUES and sum(map(body.count, (b"{", b"[", b","))) > MAX_ANSWER_VALUES:
        return Lost(Loss.TOO_LARGE, f"more than {MAX_ANSWER_VALUES:,} values")
    return Answer(response.status, response.headers, body)


def _lost(error: Exception) -> Lost:  # noqa: PLR0911 -- a table, in the order in which the classes derive from each other
    """Say how a request was lost. Only the system's own words are passed on: aiohttp's show the URL."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Lost(Loss.UNTRUSTED, _distrust(error.certificate_error))
        case aiohttp.ClientConnectorError(os_error=ForbiddenAddress() as forbidden):
            return Lost(Loss.FORBIDDEN, f"{forbidden.strerror}. If that is meant, name the host itself in upload_hosts")
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError(reason=str(reason))) if reason in _NO_TLS_THERE:
            return Lost(Loss.UNTRUSTED, "the server does not speak TLS at this port; check https and the port")
        case aiohttp.ClientConnectorError():
            return Lost(Loss.UNREACHABLE, error.os_error.strerror or type(error.os_error).__name__)
        case aiohttp.ConnectionTimeoutError():
            return Lost(Loss.CONNECT_TIMEOUT)
        case TimeoutError():
            return Lost(Loss.ANSWER_TIMEOUT)
        case aiohttp.InvalidURL():
            return Lost(Loss.FORBIDDEN, "the host is not written in its usual form")
        case aiohttp.ClientResponseError():
            return Lost(Loss.GARBLED)
        case _:
            return Lost(Loss.CUT)


def _distrust(error: Exception) -> str:
    """Say what is wrong with a certificate, and what to do."""
    words, advice = getattr(error, "verify_message", ""), _CERTIFICATE_ADVICE.get(getattr(error, "verify_code", 0))
    return f"{words}; {advice}" if advice else words


class ForbiddenAddress(OSError):
    """A host name resolved to an address that nothing may be sent to."""


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

    `trusted_hosts` may resolve to any address, others to public ones only; with `anywhere`, all may.
    """
    resolver = DefaultResolver()
    guard = resolver if anywhere else PublicResolver(resolver, trusted_hosts=trusted_hosts)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(resolver.close)
        kept, busy, fresh = [
            await stack.enter_async_context(_session(settings, guard, keep_seconds=seconds))
            for seconds in (_KEEP_SECONDS, _BUSY_SECONDS, 0.0)
        ]
        yield HttpClient(kept, busy, fresh)


def _session(settings: SendSettings, resolver: AbstractResolver, *, keep_seconds: float) -> aiohttp.ClientSession:
    # No limit here: the caller counts requests in flight over all pools, and waiting for a place in a pool would count
    # as time spent connecting.
    keeping: dict[str, Any] = {"keepalive_timeout": keep_seconds} if keep_seconds else {"force_close": True}
    connector = aiohttp.TCPConnector(limit=0, resolver=resolver, **keeping)
    timeout = aiohttp.ClientTimeout(
        total=settings.call_seconds,
        connect=settings.connect_seconds,
        sock_connect=settings.connect_seconds,
        sock_read=settings.answer_seconds,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers={"User-Agent": f"bulksubmit/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        raise_for_status=False,
        middlewares=(_once,),
    )
