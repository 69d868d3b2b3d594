"""The script that people write first: load the file, cut it, gather with a semaphore; asyncio and aiohttp.

python -m benchmarks.contenders.gather URL SOURCE CONCURRENCY
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import orjson


def load(source: Path) -> list[Any]:
    """Return every record of a file."""
    return [orjson.loads(line) for line in source.read_bytes().splitlines()]


async def main(url: str, source: str, concurrency: int) -> None:
    """Send the records of a file."""
    tasks = load(Path(source))
    slots = asyncio.Semaphore(concurrency)

    async def send(first: int) -> None:
        async with slots:
            body = orjson.dumps({"tasks": tasks[first : first + 1000]})
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                await answer.json()

    async with aiohttp.ClientSession(raise_for_status=True) as session:
        await asyncio.gather(*(send(first) for first in range(0, len(tasks), 1000)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
