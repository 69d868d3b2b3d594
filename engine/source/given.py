"""Records that a program gives, as dicts: each becomes a line of NDJSON, in the very bytes that orjson writes.

So they are a file of ours like standard input, and can be read again when a job goes on. What orjson cannot write is an
error, and no reject: the program that gave it is wrong, and its next record may be, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import orjson

from engine.model.errors import SourceError

T = TypeVar("T")
Records: TypeAlias = Iterable[dict[str, Any]] | AsyncIterable[dict[str, Any]]
Sources: TypeAlias = Path | str | Sequence[Path | str] | Records
"""What a job is made of: files, or records."""

NAME = "the given records"
_BLOCK_BYTES = 1 << 20


def names_of(sources: Sources) -> list[str] | None:
    """Return the files that sources name, as text; None: they are records.

    Raises:
        SourceError: they are neither.
    """
    if isinstance(sources, Path | str):
        return [str(sources)]
    if isinstance(sources, Mapping) or not isinstance(sources, Iterable | AsyncIterable):
        raise SourceError(f"a {type(sources).__name__} is no source: give paths, or a list or an iterator of dicts")
    if isinstance(sources, Sequence) and all(isinstance(one, Path | str) for one in sources):
        return [str(one) for one in sources]
    return None


async def blocks_of_records(records: Records) -> AsyncGenerator[bytes, None]:
    """Yield records as lines of NDJSON, about a megabyte at a time.

    What is no async iterator is asked in a thread of its own, the same one from its first record to its last: it may be
    slow, and whatever it opens may be bound to a thread.

    Raises:
        SourceError: a record is no dict, or holds what JSON cannot say.
    """
    if isinstance(records, AsyncIterable):
        lines: list[bytes] = []
        index = size = 0
        async for record in records:
            lines.append(_line(index, record))
            index, size = index + 1, size + len(lines[-1])
            if size >= _BLOCK_BYTES:
                yield b"".join(lines)
                lines, size = [], 0
        yield b"".join(lines)
        return
    async with aclosing(_in_own_thread(_blocks(records))) as blocks:
        async for block in blocks:
            yield block


def _blocks(records: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    lines: list[bytes] = []
    size = 0
    for index, record in enumerate(records):
        lines.append(_line(index, record))
        size += len(lines[-1])
        if size >= _BLOCK_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
    yield b"".join(lines)


async def _in_own_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield what an iterator brings that is asked in one thread only; whoever cancels does not wait for it."""
    context, thread = copy_context(), ThreadPoolExecutor(1, "bulksubmit-records")
    try:
        while some := await asyncio.get_running_loop().run_in_executor(thread, context.run, _next_of, items):
            yield some[0]
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _next_of(items: Iterator[T]) -> Sequence[T]:
    return tuple(islice(items, 1))


def _line(index: int, record: object) -> bytes:
    if not isinstance(record, dict):
        hint = ": give paths as a list, not as an iterator" if isinstance(record, Path | str) else ""
        raise SourceError(f"record {index} of {NAME} is a {type(record).__name__} and no dict{hint}. Nothing was sent")
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        raise SourceError(f"record {index} of {NAME} cannot be written as JSON: {error}. Nothing was sent") from error
