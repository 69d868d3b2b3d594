"""Unpacks gzip and zstd, several members or frames one after another, and no more than fits. `spool` calls it. Pure.

Which packing a file has is told by its first bytes. Memory is bounded: what comes out is handed on a MiB at a time,
however much a few packed bytes become.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from typing import Any

from engine.model.errors import SourceError
from engine.model.settings import SourceSettings
from engine.progress.text import size

PIECE_BYTES = 1 << 20
JUDGED_BYTES = 64 << 20
"""Fewer unpacked bytes harm nobody, whatever they were packed into."""

HEAD_BYTES = 4
"""So many show the packing."""

_ENDINGS = re.compile(r"\.(?:gz|gzip|zst|zstd)$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[A-Za-z0-9_-]{1,16}$")
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""The last three bytes of the mark of a frame of zstd without content; the first is 0x50 to 0x5f."""

_MARKS = (_GZIP + b"\x08", _ZSTD, *(bytes([first]) + _SKIPPABLE for first in range(0x50, 0x60)))


class Packing(StrEnum):
    """How a source is packed."""

    GZIP = "gzip"
    ZSTD = "zstd"


def packing_of(head: bytes) -> Packing | None:
    """Return the packing that the first `HEAD_BYTES` show; None if they show none."""
    if head.startswith(_GZIP):
        return Packing.GZIP
    if head.startswith(_ZSTD) or (head[1:4] == _SKIPPABLE and head[0] >> 4 == 0x5):  # noqa: PLR2004 - 0x50 to 0x5f
        return Packing.ZSTD
    return None


def named_packed(name: str) -> bool:
    """Return whether a file is called as packed ones are."""
    return bool(_ENDINGS.search(name))


def inner_suffix(name: str) -> str:
    """Return the ending of what is in a packed file: `.csv` of `tasks.csv.gz`; "" if there is none."""
    found = _SUFFIX.search(_ENDINGS.sub("", name))
    return found[0].lower() if found else ""


def check_amount(name: str, packing: str, packed_bytes: int, unpacked_bytes: int, settings: SourceSettings) -> None:
    """Check that no more has come of a source than the settings allow.

    Raises:
        SourceError: it has.
    """
    most, ratio = settings.max_unpacked_bytes, settings.max_unpacked_ratio
    come = f"{name}: {size(packed_bytes)} of {packing} have become {size(unpacked_bytes)} so far"
    if unpacked_bytes > most:
        raise SourceError(
            f"{come}, and max_unpacked_bytes ({most:,}) allows no more. If you trust the file, raise it in [source]"
        )
    if unpacked_bytes > max(JUDGED_BYTES, ratio * packed_bytes):
        raise SourceError(
            f"{come}, more than max_unpacked_ratio ({ratio:g}) times as many: it may be made to fill the disk. If "
            "you trust the file, raise it in [source]"
        )


class Unpacker:
    """Unpacks one source, from its first block to its last: `feed` each, then `finish`. What is not packed stays so."""

    def __init__(self, name: str, settings: SourceSettings) -> None:
        """Begin. `name`: what messages call it."""
        self._name = name
        self._settings = settings
        self._packing: Packing | None = None
        self._begun = False
        self._decoder: Any = None
        """None between two members."""
        self._rest = b""
        """Bytes that were fed and are not looked at yet: fewer than show the packing."""
        self.read_bytes = 0
        """Fed."""
        self.unpacked_bytes = 0

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield what a block becomes, `PIECE_BYTES` at a time.

        Raises:
            SourceError: it is damaged, something else follows its end, or it becomes more than the settings allow.
        """
        self.read_bytes += len(block)
        data, self._rest = self._rest + block, b""
        if not self._begun:
            if len(data) < HEAD_BYTES:
                self._rest = data
                return
            self._begin(data)
        yield from self._counted(self._unpacked(data) if self._packing else iter([data]))

    def finish(self) -> Iterator[bytes]:
        """Yield what is left at the end of the source.

        Raises:
            SourceError: the source is cut short.
        """
        if not self._begun:
            self._begin(self._rest)
            if self._packing is None and self._rest:
                yield from self._counted(iter([self._rest]))
        if self._packing is None:
            return
        if self._decoder is not None or (self._rest and self._rest in {mark[: len(self._rest)] for mark in _MARKS}):
            raise SourceError(
                f"{self._name} is cut short: its {self.read_bytes:,} bytes ({self.unpacked_bytes:,} unpacked) end in "
                f"the midst of {self._packing} data. Get the file again"
            )
        if self._rest:
            raise self._trailing(self._rest)

    def _begin(self, data: bytes) -> None:
        self._begun, self._packing = True, packing_of(data)
        if self._packing is None and named_packed(self._name.partition("?")[0]):
            raise SourceError(
                f"{self._name} is called as a packed file and begins with {data[:HEAD_BYTES]!r}, as neither gzip nor "
                "zstd does: get the file again, or give it the name of what it is"
            )

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.unpacked_bytes += len(piece)
            if self._packing:
                check_amount(self._name, self._packing, self.read_bytes, self.unpacked_bytes, self._settings)
            yield piece

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        more = True
        while more:
            if self._decoder is None and not self._opens(data):
                return
            if self._decoder is None:
                data = self._rest
                self._decoder, self._rest = _decoder(self._packing), b""
            piece = self._decoded(data)
            if piece:
                yield piece
            if self._decoder.eof:
                data, self._decoder = self._decoder.unused_data, None
            elif self._packing is Packing.ZSTD:
                data, more = b"", not self._decoder.needs_input
            else:
                data = self._decoder.unconsumed_tail
                more = bool(data)

    def _opens(self, data: bytes) -> bool:
        """Keep bytes that follow a member as the rest; return whether they are known to begin the next one.

        Raises:
            SourceError: they do not.
        """
        # Tapes and disks fill a file up with zeros, and gzip takes them for nothing.
        self._rest = data.lstrip(b"\0") if self._packing is Packing.GZIP else data
        if len(self._rest) < HEAD_BYTES:
            return False
        if packing_of(self._rest) is not self._packing:
            raise self._trailing(self._rest)
        return True

    def _decoded(self, data: bytes) -> bytes:
        try:
            piece: bytes = self._decoder.decompress(data, PIECE_BYTES)
        except Exception as error:
            if not isinstance(error, _errors_of(self._packing)):
                raise
            said = str(error).rpartition(": ")[2]
            raise SourceError(
                f"{self._name} is damaged: {said}, found within its first {self.read_bytes:,} bytes of "
                f"{self._packing} ({self.unpacked_bytes:,} unpacked). Get the file again"
            ) from error
        return piece

    def _trailing(self, data: bytes) -> SourceError:
        return SourceError(
            f"{self._name}: {self._packing} data ends, {self.unpacked_bytes:,} bytes unpacked, and then comes "
            f"something else, which begins with {data[:HEAD_BYTES]!r}. Get the file again, or remove what follows"
        )


def _decoder(packing: Packing | None) -> Any:
    return zlib.decompressobj(wbits=31) if packing is Packing.GZIP else _zstd().ZstdDecompressor()


def _errors_of(packing: Packing | None) -> type[Exception]:
    error: type[Exception] = _zstd().ZstdError if packing is Packing.ZSTD else zlib.error
    return error


def _zstd() -> Any:
    """Return the module for zstd, which is Python's own from 3.14 on."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name)
    except ImportError as error:
        package = name.replace(".", "-")
        raise SourceError(f"zstd needs a package that is not installed: pip install {package}") from error
