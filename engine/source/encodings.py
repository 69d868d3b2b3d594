"""Turns text in another encoding into UTF-8, a block at a time. `spool` calls it; nothing else knows encodings. Pure.

A byte order mark says which encoding a text has, and is believed; else `[source] encoding` names it. What is not of the
encoding becomes the byte 0xFF, which UTF-8 has nowhere: so the record that holds it is a reject, at its place. Line
breaks stay, so a line has the same number in both.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final

from engine.model.settings import SourceSettings

MARK_BYTES: Final = 4
"""So many show a byte order mark."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, ""),
)
"""Mark → encoding, "" for UTF-8; a longer mark stands before one that it begins with."""
_NOT_OF_IT = "bulksubmit.not-of-the-encoding"


def _marked(error: UnicodeError) -> tuple[str | bytes, int]:
    """Put the byte 0xFF in the place of what cannot be decoded, and of half a pair of surrogates."""
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    if isinstance(error, UnicodeEncodeError):
        return b"\xff" * (error.end - error.start), error.end
    raise error


codecs.register_error(_NOT_OF_IT, _marked)


def encoding_of(head: bytes, settings: SourceSettings) -> tuple[str, int]:
    """Return the encoding of a text by its first MARK_BYTES, and the length of its mark; "" if it is read as it stands.

    UTF-8 is, with its mark or without.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark) if encoding else 0
    named = codecs.lookup(settings.encoding).name
    return ("", 0) if named in {"utf-8", "utf-8-sig"} else (named, 0)


class Decoder:
    """Makes UTF-8 of one text, from its first block to its last: `feed` each, then `finish`."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._head: bytes | None = b""
        """What was fed before the encoding was known."""
        self._decoder: codecs.IncrementalDecoder | None = None
        """None: the text is read as it stands."""

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield what a block becomes."""
        if self._head is not None:
            self._head += block
            if len(self._head) < MARK_BYTES:
                return
            block = self._begun(self._head)
        yield self._utf8(block, final=False)

    def finish(self) -> Iterator[bytes]:
        """Yield what is left at the end of the text."""
        rest = self._begun(self._head) if self._head is not None else b""
        yield self._utf8(rest, final=True)

    def _begun(self, head: bytes) -> bytes:
        self._head = None
        encoding, mark_bytes = encoding_of(head, self._settings)
        if encoding:
            self._decoder = codecs.getincrementaldecoder(encoding)(_NOT_OF_IT)
        return head[mark_bytes:]

    def _utf8(self, block: bytes, *, final: bool) -> bytes:
        if self._decoder is None:
            return block
        return self._decoder.decode(block, final).encode("utf-8", _NOT_OF_IT)
