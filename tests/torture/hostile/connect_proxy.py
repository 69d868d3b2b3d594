"""A CONNECT proxy on loopback before a service that no name server knows: it ends TLS itself, as that service would."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class ConnectProxy:
    tls: ssl.SSLContext
    behind: int
    """Port of the service, in the clear."""
    answer: bytes = CONNECTED
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader, writer) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            if self.answer is CONNECTED:
                await writer.start_tls(self.tls)
                there, back = await asyncio.open_connection("127.0.0.1", self.behind)
                await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        writer.close()


async def _pass_on(reader, writer) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def connect_proxy(tls: ssl.SSLContext, behind: int, answer: bytes = CONNECTED):
    proxy = ConnectProxy(tls, behind, answer)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
