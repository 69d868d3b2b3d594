"""A fault proxy: requests enter, each is known by its kind and number, and is passed on or struck by a fault.

It stands between the engine and a server on loopback. A *strike* says which requests of a kind meet which *fault*, and
what the server does of a struck request: nothing, all of it, or all of it after the engine has heard of the failure.
So every fault comes with the server having committed, or not, and the engine cannot see which.

The `Host` header is passed on as it came: the sandbox builds its upload URLs from it, and its HMAC covers method, path
and expiry only, so the PUT to a presigned URL passes the proxy, too.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

CLOSED_SECONDS = 0.3
"""How long nobody can connect: longer than the few retries that the shortest back-off allows, shorter than patience."""
_BACKLOG_FILL = 4


class Work(StrEnum):
    """What the server does of a request that is struck."""

    NEVER = "never"
    DONE = "done"
    LATE = "late"
    """After the connection broke: what was under way arrives all the same."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer; `wire` is all of it as it was sent, `body` without chunks."""

    wire: bytes
    head: bytes
    body: bytes

    @property
    def first_words(self) -> tuple[str, str]:
        """Method and target of a request."""
        method, target, _ = self.head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        return method, target


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Read one message; the end of the connection is an IncompleteReadError."""
    head = await reader.readuntil(b"\r\n\r\n")
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        wire, body = head, b""
        while size := int((line := await reader.readline()).partition(b";")[0], 16):
            chunk = await reader.readexactly(size + 2)
            wire, body = wire + line + chunk, body + chunk[:-2]
        return Message(wire + line + await reader.readexactly(2), head, body)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    return Message(head + body, head, body)


def made_up(status: int, body: bytes, *headers: str) -> Message:
    """Return an answer that no server gave."""
    lines = [f"HTTP/1.1 {status} Struck", f"Content-Length: {len(body)}", *headers]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return Message(head + body, head, body)


@dataclass(slots=True)
class Exchange:
    """One struck request on its connection; a fault writes to it, or does not."""

    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    answer: Message
    """The server's own; where the server never saw the request, one that looks like it."""
    stale: bool = False
    """The connection is to be reset when the next request arrives on it."""

    async def say(self, wire: bytes) -> None:
        """Send."""
        self.writer.write(wire)
        await self.writer.drain()

    async def gone(self) -> None:
        """Return when the engine has hung up."""
        await self.reader.read()

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request: on its connection (`act` returns whether that lives on), or before it has one."""

    name: str
    act: Callable[[Exchange], Awaitable[bool]] | None = None
    deaf: bool = False
    """Without `act`: connections hang instead of being refused."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Requests of `kind` whose number (from 1) is one of those `when` says meet `fault`.

    A fault that comes before there is a connection cannot know what would have been sent on it. It strikes when the
    request `after` which the kind comes has been answered: None is the very first connection.
    """

    kind: str
    fault: Fault
    work: Work
    when: Callable[[int], bool]
    after: str | None = None

    @property
    def trigger(self) -> str | None:
        """The kind of request that sets it off."""
        return self.kind if self.fault.act else self.after


class FaultProxy:
    """Serves one test: `requests` counts what came by kind, `struck` what the faults hit.

    `missed` counts answers that the engine did not wait for although nothing had struck them: the machine was too busy.
    """

    def __init__(
        self, port: int, kind_of: Callable[[Message], str], strikes: Sequence[Strike], late_seconds: float
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.missed = 0
        self._target, self._kind_of, self._strikes = port, kind_of, strikes
        self._late_seconds = late_seconds
        self._held = _bound(0)  # never listens: keeps the port ours while nobody does
        self.port: int = self._held.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._idle: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, unless the first connection is to fail."""
        first = [strike for strike in self._strikes if not strike.fault.act and strike.after is None]
        await (self._shut(first[0].fault) if first else self._listen())

    async def close(self) -> None:
        """Finish what is late, end the rest."""
        if self._server is not None:
            self._server.close()
        late = [task for task in self._tasks if task.get_name() == Work.LATE]
        for task in self._tasks.difference(late):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._held.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=_bound(self.port), limit=2**26)

    async def _shut(self, fault: Fault) -> None:
        """Let nobody connect for a while: by a closed port, or by a queue of connections that is full."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._idle:
            writer.transport.abort()
        self.struck[fault.name] += 1
        self._spawn(self._reopen(_full_queue(self.port) if fault.deaf else []), "reopen")

    async def _reopen(self, plug: Sequence[socket.socket]) -> None:
        try:
            await asyncio.sleep(CLOSED_SECONDS)
        finally:
            for sock in plug:
                sock.close()
        await self._listen()

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve(reader, writer), "connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(writer, reader, made_up(200, b""))
        try:
            await self._converse(exchange)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the engine has hung up, or the server has
        finally:
            self._idle.discard(writer)
            writer.close()

    async def _converse(self, exchange: Exchange) -> None:
        alive = True
        while alive:
            request = await read_message(exchange.reader)
            self._idle.discard(exchange.writer)
            if exchange.stale:
                exchange.reset()
                return
            alive = await self._exchange(exchange, request)
            self._idle.add(exchange.writer)

    async def _exchange(self, exchange: Exchange, request: Message) -> bool:
        kind = self._kind_of(request)
        self.requests[kind] += 1
        number = self.requests[kind]
        strikes = [one for one in self._strikes if one.trigger == kind and one.when(number)]
        for strike in strikes:
            if strike.fault.act:
                self.struck[strike.fault.name] += 1
                exchange.answer = await self._work(strike.work, request, kind)
                return await strike.fault.act(exchange)
        answer = await self._forward(request)
        self.missed += exchange.reader.at_eof()
        if strikes:  # before the answer goes out, so that the next connection meets it
            await self._shut(strikes[0].fault)
        await exchange.say(answer.wire)
        return not strikes

    async def _work(self, work: Work, request: Message, kind: str) -> Message:
        if work is Work.DONE:
            return await self._forward(request)
        if work is Work.LATE:
            self._spawn(self._forward_late(request), Work.LATE)
        return made_up(200, b"" if kind == "put" else b'{"batch_id": 1}')

    async def _forward_late(self, request: Message) -> None:
        await asyncio.sleep(self._late_seconds)
        await self._forward(request)

    async def _forward(self, request: Message) -> Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target, limit=2**26)
        try:
            writer.write(request.wire)
            return await read_message(reader)
        finally:
            writer.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _full_queue(port: int) -> list[socket.socket]:
    """Listen without ever accepting, and fill the queue: the system then leaves further connections unanswered."""
    deaf = _bound(port)
    deaf.listen(0)
    sockets = [deaf]
    for _ in range(_BACKLOG_FILL):
        plug = socket.socket()
        plug.setblocking(False)  # noqa: FBT003 - the standard library's own
        plug.connect_ex(("127.0.0.1", port))
        sockets.append(plug)
    return sockets


@asynccontextmanager
async def fault_proxy(
    port: int, kind_of: Callable[[Message], str], strikes: Sequence[Strike], late_seconds: float = 0.0
):
    """Stand before the server at `port` until the block ends; what comes late comes after `late_seconds`."""
    proxy = FaultProxy(port, kind_of, strikes, late_seconds)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
