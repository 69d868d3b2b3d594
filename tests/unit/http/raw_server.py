"""A TCP server that answers with given bytes: what no well-behaved HTTP server can be made to do."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HANG_UP = b""
"""Close without a word."""
RESET = None
"""Close with a TCP reset."""


def plain(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Return an answer on the wire."""
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class RawServer:
    """Answers the n-th request with the n-th script, the last one for ever."""

    def __init__(self, *scripts) -> None:
        self.scripts = list(scripts)
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.url = ""
        self.silence = asyncio.Event()

    async def serve(self, reader, writer) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader, writer) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self.requests.append((head, await reader.readexactly(int(length[1]) if length else 0)))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if script is RESET:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if callable(script):
            await script(self, writer)
        else:
            writer.write(script)
            await writer.drain()
        complete = not callable(script) and script.startswith(b"HTTP/1.1") and b"Content-Length" in script
        return complete and b"close" not in script and b"truncated" not in script


async def hang(server, writer) -> None:
    """Say nothing until the test is over."""
    await server.silence.wait()


@asynccontextmanager
async def raw_server(*scripts, tls=None):
    raw = RawServer(*scripts)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, limit=2**26, ssl=tls)
    raw.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        raw.silence.set()
        server.close()
        await server.wait_closed()
