"""A proxy on loopback before a PostgreSQL server: it breaks connections as networks do, when a test asks for it.

Bytes are passed on as they are. Of the protocol it knows one thing: a COMMIT on its way, which it sees on connections
without TLS only. It runs in a thread of its own and ends with the `with` that started it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event

from anyio.from_thread import BlockingPortal, start_blocking_portal

from .servers import lasting_port

_COMMIT = re.compile(rb"Q\0\0\0\x0bCOMMIT\0|P\0\0\0.\0COMMIT\0", re.DOTALL)
"""A simple query, as psycopg sends it, or one in a pipeline."""
_READY = re.compile(rb"Z\0\0\0\x05[ITE]")
"""The server has done what it was asked for."""


@dataclass(frozen=True, slots=True)
class _LostCommit:
    reaches_the_server: bool
    happened: Event = field(default_factory=Event)


@dataclass(eq=False, slots=True)
class _Link:
    """A connection to the proxy, and its own to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    lost: _LostCommit | None = None
    """The COMMIT whose answer is awaited, and is not passed on."""

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):  # it is closed already
                reset_when_closed = struct.pack("ii", 1, 0)
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_when_closed)
            end.transport.abort()


class CutProxy:
    """Clients connect to `port`, the server listens at `target`; after a failover that may be set to another port."""

    def __init__(self, target: int, portal: BlockingPortal) -> None:
        self.target = target
        self.port = lasting_port()
        self._portal = portal
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._served: set[asyncio.Future[None]] = set()
        """What serves a connection, until nothing is left of that."""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._to_lose: _LostCommit | None = None

    def accept(self) -> None:
        """Let clients connect again, after `refuse`."""

        async def listen() -> None:
            self._listener = await asyncio.start_server(self._take, "127.0.0.1", self.port)

        self._portal.call(listen)

    def refuse(self) -> None:
        """Refuse new connections; those that are there stay."""
        self._portal.call(self._stop_listening)

    def cut(self) -> None:
        """Reset all connections, on both sides."""

        def cut_all() -> None:
            for link in self._links:
                link.cut()

        self._portal.call(cut_all)

    def stall(self) -> None:
        """Pass nothing on from now on: nobody hears an answer, or that the connection is lost.

        The kernel still takes new connections and confirms what is sent, so only an answer that is missing shows it.
        """
        self._portal.call(self._flowing.clear)

    def flow(self) -> None:
        """Pass on what was held back, and everything from now on, after `stall`."""
        self._portal.call(self._flowing.set)

    def lose_commit(self, *, reaches_the_server: bool = True) -> Event:
        """Cut the connection of the next COMMIT, before its answer; return what is set when that has happened.

        By then the server has done it; or never heard of it, if it shall not reach the server.
        """
        lost = self._to_lose = _LostCommit(reaches_the_server)
        return lost.happened

    def end(self) -> None:
        """Refuse and reset all, and return when nothing is left of any connection."""

        async def end_all() -> None:
            await self._stop_listening()
            self._flowing.set()
            while self._served:
                for link in self._links:
                    link.cut()
                await asyncio.wait(self._served, timeout=0.1)

        self._portal.call(end_all)

    async def _stop_listening(self) -> None:
        """Stop; first whoever was accepted just now is served, or asyncio would leave that connection open."""
        for listening in self._listener.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(0)
        self._listener.close()

    def _take(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(from_client, client))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            from_server, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            await asyncio.gather(self._questions(from_client, link), self._answers(from_server, link))
        finally:
            self._links.discard(link)
            link.cut()  # what is left of it, also where the proxy ends

    async def _questions(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                await self._flowing.wait()
                if self._to_lose and _COMMIT.search(piece):
                    link.lost, self._to_lose = self._to_lose, None
                    if not link.lost.reaches_the_server:
                        self._lose(link)
                        return
                link.server.write(piece)
                await link.server.drain()
        await self._flowing.wait()
        link.server.close()

    async def _answers(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                await self._flowing.wait()
                if link.lost is None:
                    link.client.write(piece)
                    await link.client.drain()
                elif _READY.search(piece):
                    self._lose(link)
                    return
        await self._flowing.wait()
        link.client.close()

    def _lose(self, link: _Link) -> None:
        link.cut()
        link.lost.happened.set()


@contextmanager
def cut_proxy(target: int) -> Iterator[CutProxy]:
    """Run a proxy before the server at the port `target` of loopback."""
    with start_blocking_portal() as portal:
        proxy = CutProxy(target, portal)
        proxy.accept()
        try:
            yield proxy
        finally:
            proxy.end()
