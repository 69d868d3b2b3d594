"""Heads of answers before the parser sees them: an equal Content-Length said twice becomes one. `client` puts it there.

Servers behind a careless proxy say it twice. RFC 9110 §8.6 lets a recipient take equal ones as one; the parser (llhttp)
takes none, and aiohttp has no switch for it. Two that differ stay, and are refused. Nothing else is changed, and no
byte of a body is looked at.
"""

from __future__ import annotations

import re
from asyncio import AbstractEventLoop
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+(?:[ \t]*,[ \t]*\d+)*)[ \t]*\r?\n")
_LONGEST = 256 * 1024
"""Of a head that is waited for. The parser has bounds of its own for each field and their number."""


class SingleLength(ResponseHandler):
    """A connection of aiohttp's whose answers have one length each."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._begun: bytes | None = None
        """Of the head that is arriving; None while none is awaited."""

    def set_response_params(self, **params: Any) -> None:
        """Await an answer: its head comes next."""
        self._begun = b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Hand on what arrived, a head as a whole."""
        if self._begun is not None and data:
            data = self._begun + data
            if _is_head(data) and not _end(data) and len(data) < _LONGEST:
                self._begun = data
                return
            # After one that only says to wait (103, 100), another one comes.
            self._begun = b"" if data.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) else None
            data = with_one_length(data)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Hand on what there is of a head; the parser says what is wrong with it."""
        begun, self._begun = self._begun, None
        if begun:
            super().data_received(begun)
        super().connection_lost(exc)


def _is_head(data: bytes) -> bool:
    return data.startswith(b"HTTP/"[: len(data)])


def _end(data: bytes) -> int:
    """Return where a head ends; 0 if that is still to come. Not by a pattern: that takes ten times as long."""
    end = data.find(b"\n\r\n") + 3
    bare = data.find(b"\n\n", 0, end if end > 2 else None) + 2  # noqa: PLR2004 -- found
    return bare if bare > 1 else end if end > 2 else 0  # noqa: PLR2004 -- likewise


def with_one_length(data: bytes) -> bytes:
    """Return an answer as it came, but for an equal Content-Length that its head says again."""
    head = data[: _end(data)]
    _, *lines = head.lower().split(b"\ncontent-length:")
    if len(lines) < 2 and b"," not in b"".join(lines).partition(b"\n")[0]:  # noqa: PLR2004 -- as a rule
        return data
    found = _LENGTH.findall(head)
    lengths = {length.strip() for field in found for length in field.split(b",")}
    if len(lengths) != 1 or (len(found) == 1 and b"," not in found[0]):
        return data
    first, _, rest = head.partition(b"\n")
    (length,) = lengths
    return b"%b\nContent-Length: %b\r\n%b%b" % (first, length, _LENGTH.sub(b"", rest), data[len(head) :])


def put_before(connector: aiohttp.TCPConnector, loop: AbstractEventLoop) -> None:
    """Have the connections of a connector read their heads so; aiohttp names no public place for that."""
    connector._factory = partial(SingleLength, loop)  # type: ignore[assignment]  # noqa: SLF001
