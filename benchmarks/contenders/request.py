"""One body out many times, by aiohttp alone or by the engine's caller over the same settings; the CPU seconds of it.

    python -m benchmarks.contenders.request aiohttp|engine URL BYTES COUNT CONCURRENCY

No source, no ledger, no report: what a request costs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiohttp
import uvloop

from engine.http.caller import open_caller
from engine.model.error_hints import Carries
from engine.model.settings import SendSettings, ServiceSettings
from engine.progress.snapshot import Progress
from engine.services.base import JSON_HEADERS, Call

Send: TypeAlias = Callable[[], Awaitable[object]]

HEADERS = {**JSON_HEADERS, "Accept": "application/json"}


@asynccontextmanager
async def by_aiohttp(url: str, body: bytes, concurrency: int) -> AsyncIterator[Send]:
    """Send by a session that waits as long as the engine does and keeps no cookies, either."""
    waits = SendSettings()
    timeout = aiohttp.ClientTimeout(
        total=waits.call_seconds, connect=waits.connect_seconds, sock_read=waits.answer_seconds
    )
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), raise_for_status=True
    ) as session:

        async def send() -> None:
            async with session.post(url, data=body, headers=HEADERS) as answer:
                await answer.read()

        yield send


@asynccontextmanager
async def by_engine(url: str, body: bytes, concurrency: int) -> AsyncIterator[Send]:
    """Send by the engine's caller, with a display that listens."""
    service = ServiceSettings(kind="bench", base_url=url)
    settings = SendSettings(max_in_flight=concurrency)
    async with open_caller(service, settings, emit=Progress(time.monotonic).fold) as caller:

        async def send() -> None:
            call = Call(
                "create",
                "POST",
                url,
                {},
                JSON_HEADERS,
                body,
                repeatable=False,
                reconcilable=True,
                carries=Carries.RECORDS,
            )
            await caller.call(call)

        yield send


async def spent(send: Send, count: int, concurrency: int) -> float:
    """Send `count` times, `concurrency` at once; return the CPU seconds."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            await send()

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return time.process_time() - began


async def main(way: str, url: str, size: int, count: int, concurrency: int) -> None:
    """Warm up, which opens the connections, then measure."""
    opened = by_aiohttp if way == "aiohttp" else by_engine
    async with opened(url, b"x" * size, concurrency) as send:
        await spent(send, 2 * concurrency, concurrency)
        print(json.dumps({"seconds": await spent(send, count, concurrency)}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
