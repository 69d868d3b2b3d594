"""The bulk helpers of the client for Elasticsearch, to an address that answers every `_bulk` of 1,000 documents.

    python -m benchmarks.contenders.elastic streaming|parallel ORIGIN SOURCE CONCURRENCY

`async_streaming_bulk` has one request under way at a time, however many are allowed.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import elasticsearch
import orjson
from elasticsearch.helpers import async_streaming_bulk, parallel_bulk

MOST_BYTES = 64 * 1024 * 1024


def actions(source: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a file as documents."""
    with Path(source).open("rb") as file:
        for line in file:
            yield {"_index": "tasks", "_source": orjson.loads(line)}


async def streaming(origin: str, source: str) -> None:
    """Send them with the helper for asyncio."""
    async with elasticsearch.AsyncElasticsearch(origin) as client:
        bulk = async_streaming_bulk(client, actions(source), chunk_size=1000, max_chunk_bytes=MOST_BYTES)
        async for _ in bulk:
            pass


def parallel(origin: str, source: str, concurrency: int) -> None:
    """Send them with the helper for threads."""
    client = elasticsearch.Elasticsearch(origin)
    options: dict[str, Any] = {"chunk_size": 1000, "max_chunk_bytes": MOST_BYTES, "thread_count": concurrency}
    for _ in parallel_bulk(client, actions(source), **options):
        pass


if __name__ == "__main__":
    if sys.argv[1] == "streaming":
        asyncio.run(streaming(sys.argv[2], sys.argv[3]))
    else:
        parallel(sys.argv[2], sys.argv[3], int(sys.argv[4]))
