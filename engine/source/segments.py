"""Sources enter, the segments leave that several processes read side by side.

A segment ends where a record is known to end without reading what stands before: with a source, or in NDJSON with a
line. An array or a CSV file is one segment, because only reading it from its beginning tells a separator from the same
bytes within a string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.model.record import Format, Source
from engine.source.files import SourceFile

_SCAN_BYTES = 1 << 16


def segment_stops(sources: Sequence[Source], start: int, segment_bytes: int) -> Iterator[int]:
    """Yield the joined offset where each segment ends, from `start` to the end of the sources; at least one.

    A segment is about `segment_bytes` long, longer with a long line, or where nothing can be cut. Each line is looked
    for from where the segment before ended, so no byte is scanned twice.
    """
    at, end = start, sources[-1].end
    for source in (source for source in sources if source.size):
        while source.format is Format.NDJSON and at + segment_bytes < source.end:
            stop = _after_line(source, at + segment_bytes)
            if stop == source.end:
                break
            yield stop
            at = stop
        if source.end < end and source.end - at >= segment_bytes:
            yield source.end
            at = source.end
    yield end


def _after_line(source: Source, at: int) -> int:
    """Return where the line ends that holds the byte at `at`."""
    with SourceFile(source) as file:
        while at < source.end:
            data = file.read(at, min(_SCAN_BYTES, source.end - at))
            newline = data.find(b"\n")
            if newline >= 0:
                return at + newline + 1
            at += len(data)
    return at
