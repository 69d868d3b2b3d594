"""The body of an answer, read to its end within bounds: of its own, and of one budget for all that are being read.

`client` calls it. Invariant: however many answers are read at once, and however slowly, they never hold more than
`ROOM_BYTES` together, and the one that began first never waits for the others. One that goes into a file holds a piece
of itself at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO

import aiohttp
from anyio import to_thread

from engine.http.classify import Loss
from engine.http.losses import Lost
from engine.http.secrets import HidingFile
from engine.model.errors import RESUME, AnswerNotKept
from engine.model.settings import MEBIBYTE
from engine.services.base import Answer

MAX_ANSWER_BYTES = 64 * MEBIBYTE
"""After decompression. A page of 1,000 failed tasks with their data is a few MiB; more is an error or a bomb."""
MAX_ANSWER_VALUES = 1_000_000
"""Parsed, that many values take about 100 MB: 60 MiB of `{},{},…` took 1.9 GB. A page of 1,000 tasks has thousands."""
ROOM_BYTES = MAX_ANSWER_BYTES + 32 * MEBIBYTE
"""For all answers together: one of the largest, and beside it all that a run usually reads at once. Without it, 64
answers of 62 MiB took 4.2 GB."""
_CHUNK_BYTES = 256 * 1024
MOST_FILE_BYTES = 8 * 1024 * MEBIBYTE
"""Of an answer that goes into a file, after decompression: 100,000 results (the most that a known service takes in one
batch) of 80 KiB. More is an error or a bomb, and fills the disk."""
LEAST_BYTES_PER_SECOND = 32 * 1024
"""Of an answer that goes into a file, once it has taken as long as any other call may. It is a quarter of a megabit a
second, the slowest line that a load can be made over; what is slower drips so that we wait."""


class AnswerRoom:
    """The bytes that answers may hold while they are read.

    An answer cannot say beforehand how long it will be: it may be compressed. So it takes room piece by piece, and two
    that each hold half of all could wait for each other for ever. Therefore the largest allowed answer is set aside
    for the one that began first, which never waits; the others share what is left. When the first one is done, the next
    in line takes its place.
    """

    def __init__(self, total: int = ROOM_BYTES, largest: int = MAX_ANSWER_BYTES) -> None:
        self._shared = total - largest
        self._held: dict[object, int] = {}
        """In the order in which they began."""
        self._sum = 0
        self._freed = asyncio.Event()

    @property
    def held(self) -> int:
        """Bytes that answers hold now."""
        return self._sum

    async def take(self, reader: object, size: int) -> None:
        """Wait until there is room for `size` more bytes of the answer of `reader`."""
        self._held.setdefault(reader, 0)
        while not self._fits(reader, size):
            self._freed.clear()
            await self._freed.wait()
        self._held[reader] += size
        self._sum += size

    def _fits(self, reader: object, size: int) -> bool:
        first, held = next(iter(self._held.items()))
        return reader is first or self._sum - held + size <= self._shared

    def give_back(self, reader: object) -> None:
        """Let go of all that the answer of `reader` holds."""
        self._sum -= self._held.pop(reader, 0)
        self._freed.set()


async def read_answer(response: aiohttp.ClientResponse, room: AnswerRoom, reader: object) -> Answer | Lost:
    """Return the answer, read to its end, or why it is not used. aiohttp's errors are raised as they are.

    Whoever calls gives back the room of `reader`, at last.
    """
    content = BytesIO()  # which hands out its bytes without a copy
    while piece := await response.content.read(_CHUNK_BYTES):
        if content.tell() + len(piece) > MAX_ANSWER_BYTES:
            response.close()
            return Lost(Loss.TOO_LARGE, f"more than {MAX_ANSWER_BYTES // MEBIBYTE} MiB")
        await room.take(reader, len(piece))
        content.write(piece)
    body = content.getvalue()
    if len(body) > MAX_ANSWER_VALUES and sum(map(body.count, (b"{", b"[", b","))) > MAX_ANSWER_VALUES:
        return Lost(Loss.TOO_LARGE, f"more than {MAX_ANSWER_VALUES:,} values")
    return Answer(response.status, response.headers, body)


async def read_into(response: aiohttp.ClientResponse, file: HidingFile, *, patient_seconds: float) -> Answer | Lost:
    """Write the body of an answer into a file; return the answer without it, or why it is not used.

    `patient_seconds`: after so long it must have come at `LEAST_BYTES_PER_SECOND`, all in all. aiohttp's errors are
    raised as they are.

    Raises:
        AnswerNotKept: the file cannot be written.
    """
    content, now, size = response.content, asyncio.get_running_loop().time, 0
    if content.is_eof() and not content.exception():  # it came with its head
        await _kept(file.whole, content.read_nowait())
        return Answer(response.status, response.headers, b"")
    begun = now()
    await _kept(file.begin)
    while piece := await content.read(_CHUNK_BYTES):
        size, taken = size + len(piece), now() - begun
        if size > MOST_FILE_BYTES:
            response.close()
            return Lost(Loss.TOO_LARGE, f"more than {MOST_FILE_BYTES // MEBIBYTE} MiB")
        if taken > patient_seconds and size < taken * LEAST_BYTES_PER_SECOND:
            response.close()
            return Lost(Loss.ANSWER_TIMEOUT, f"{size / taken:.0f} bytes a second came")
        await _kept(file.write, piece)
    await _kept(file.end)
    return Answer(response.status, response.headers, b"")


async def _kept(write: Callable[..., None], *pieces: bytes) -> None:
    """Write outside of the event loop: a disk may take its time."""
    try:
        await to_thread.run_sync(write, *pieces)
    except OSError as error:  # as it is, it would be taken for one of the connection
        words = f"the answer cannot be written to its file ({error.strerror or error}): make room, then run {RESUME}"
        raise AnswerNotKept(words) from error
