"""Sources made of bytes, what reading finds in them, and strategies for bytes that provoke it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from engine.model.record import Block, Format, Position, Reject, Source
from engine.model.settings import SourceSettings
from engine.source.reader import WINDOW_BYTES, read_blocks

_FOLDER = tempfile.TemporaryDirectory()
_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Record:
    """A good record, as one value."""

    index: int
    offset: int
    length: int
    line: int
    raw: bytes
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """All that a reading brought."""

    records: Sequence[Record]
    rejects: Sequence[Reject]
    ends: Sequence[Position]

    @property
    def reasons(self) -> dict[int, str]:
        return {reject.index: reject.reason for reject in self.rejects}


def sources_of(*contents: bytes, kind: Format = Format.NDJSON, suffix: str = "") -> tuple[Source, ...]:
    """Return files with these contents as sources."""
    sources: list[Source] = []
    base = 0
    for number, content in enumerate(contents):
        path = Path(_FOLDER.name) / f"{next(_NUMBERS) % 50}{suffix}"
        if path.is_dir():  # a test has put one in the place of its file
            path.rmdir()
        path.write_bytes(content)
        sources.append(Source(number, str(path), kind, len(content), 0, base))
        base += len(content)
    return tuple(sources)


def records_of(blocks: Iterator[Block]) -> Found:
    """Return the records of blocks, one by one."""
    records: list[Record] = []
    rejects: list[Reject] = []
    ends: list[Position] = []
    for block in blocks:
        columns = (block.indexes, block.offsets, block.lengths, block.lines, block.raws, block.rows)
        records += itertools.starmap(Record, zip(*columns, strict=True))
        rejects += block.rejects
        ends.append(block.end)
    return Found(records, rejects, ends)


def read(
    *contents: bytes,
    kind: Format = Format.NDJSON,
    start: Position | None = None,
    window_bytes: int = WINDOW_BYTES,
    suffix: str = "",
    **settings: Any,
) -> Found:
    """Read files with these contents."""
    sources = sources_of(*contents, kind=kind, suffix=suffix)
    return records_of(read_blocks(sources, start or Position(), SourceSettings(**settings), window_bytes))


JSON_SHREDS = [
    b'{"a":1}', b'{"id":2,"t":"x"}', b'{"a":{"a":1}}', b'{"a":[{"a":1},{"a":2}]}', b'{"a":"},{"}', b'{"a":"\\""}',
    b'{"a":"\xc3\xa9\\u00e9"}', b'{"a":123456789012345678901234567890}', b'{"a":1,"a":2}', b"{}", b"[]", b"[1]",
    b"1", b"null", b"NaN", b'"s"', b'{"a":', b'"', b"\\", b"{", b"}", b"[", b"]", b",", b",", b",\n", b"},{", b":",
    b" ", b"\n", b"\n", b"\r\n", b"\t", b"\x00", b"\xff", b"\xef\xbb\xbf", b'{"a":"' + b"y" * 5000 + b'"}',
]  # fmt: skip
CSV_SHREDS = [
    b"a", b"1", b"1,2", b"1,2\n", b"x,y\r\n", b'"q"', b'"q,\n""r""",s\n', b'"', b'""', b",", b",", b"\n", b"\n", b"\r",
    b"\r\n", b" ", b'""z', b'"\r', b"\x00", b"\xff", b"\xc3\xa9", b"z" * 5000, b'"' + b"\n" * 20 + b'"',
]  # fmt: skip


def shreds(pieces: Sequence[bytes], before: bytes = b"", after: bytes = b"") -> st.SearchStrategy[bytes]:
    """Return bytes that are nearly a file: pieces in any order, or anything at all."""
    joined = st.lists(st.sampled_from(pieces), max_size=30).map(b"".join)
    return st.one_of(joined.map(lambda text: before + text + after), joined, st.binary(max_size=60))


CONTENTS = {
    Format.NDJSON: shreds(JSON_SHREDS),
    Format.JSON: shreds(JSON_SHREDS, b"[", b"]"),
    Format.CSV: shreds(CSV_SHREDS, b"a,b\n"),
}
WINDOWS = st.sampled_from([4, 5, 7, 16, 61, 300, 6000, 1 << 17])
