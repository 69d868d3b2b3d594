"""Ready bodies in, one POST for each out: a bare loop of aiohttp on uvloop.

    python -m benchmarks.contenders.replay URL BODIES CONCURRENCY

BODIES has one body a line. No parsing, no checks, no ledger, no following: what the client alone can do.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import BinaryIO

import aiohttp
import uvloop

HEADERS = {"Content-Type": "application/json"}


async def replay(url: str, bodies: Path, concurrency: int) -> None:
    """Send every body, `concurrency` at once, over connections that are kept."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    with bodies.open("rb") as file:
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:
            await asyncio.gather(*(send(session, url, file) for _ in range(concurrency)))


async def send(session: aiohttp.ClientSession, url: str, file: BinaryIO) -> None:
    """Send the next body until there is none."""
    while body := file.readline():
        async with session.post(url, data=body, headers=HEADERS) as answer:
            await answer.read()


if __name__ == "__main__":
    uvloop.run(replay(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
