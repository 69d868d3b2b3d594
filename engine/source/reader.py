"""Reads sources from any block's end on, as blocks of parsed records; the planning, `validate` and the audit call it.

The blocks lie end to end over the sources: each ends where the next begins, and separators, blank lines and rejects
belong to one of them, so a sum over blocks accounts for every byte. A window begins where the last record ended;
what was read beyond that is read again. So nothing is carried over, and reading can begin at any position.
It blocks: the pipeline runs it in a worker thread.
"""

from __future__ import annotations

import gc
from codecs import utf_8_decode
from collections.abc import Iterator, Sequence

from engine.model.record import LINE_FORMATS, Block, Position, Reject, Source, source_at
from engine.model.settings import SourceSettings
from engine.source.formats import splitter_for
from engine.source.splitter import RecordProof, SourceFile, Splitter, Window, too_long

WINDOW_BYTES = 1 << 17
"""What is parsed of it stays in the second-level cache: 256 KiB took a fifth longer, 1 MiB a quarter."""

_SEPARATOR_BYTES = 1 << 12
"""Room in a window for blanks and commas around a record of max_record_bytes."""

_SCAN_BYTES = 1 << 16
"""Read at once to find the end of a line."""

SEGMENT_BYTES = 1 << 25
"""Its last batch is not full: one of sixty, with records of 570 bytes. Its plans fit into a pipe of a mebibyte."""


def read_blocks(
    sources: Sequence[Source],
    start: Position,
    settings: SourceSettings,
    window_bytes: int = WINDOW_BYTES,
    *,
    stop: int | None = None,
    proof: RecordProof | None = None,
) -> Iterator[Block]:
    """Yield the records of `sources` from `start` on, up to the joined offset `stop`, at most 1,000 a block.

    `start` is the beginning, the end of an earlier block, or the offset, index and line of a good record. A
    block may be empty: then reading went on by a window without coming to the end of a record. `window_bytes` is at
    least 4: a byte order mark and one more. `stop` is the end of a source or, in NDJSON, of a line. Without a `proof`,
    each block has rows.

    Raises:
        SourceError: a file cannot be read.
        SourceChanged: a file is shorter than it was.
    """
    position = start
    for source in sources:
        until = source.end if stop is None else min(source.end, stop)
        if position.offset >= until:
            continue
        with SourceFile(source) as file:
            blocks = _SourceReader(source, file, settings, window_bytes, until).blocks(position, proof)
            while (block := _next(blocks)) is not None:
                position = block.end
                yield block


def _next(blocks: Iterator[Block]) -> Block | None:
    """Return the next block, read without the cyclic garbage collector.

    Parsed JSON holds no cycles, but each of its objects and arrays brings the next collection nearer, and that walks
    over all that was parsed: it took as long as the parsing.
    """
    if not gc.isenabled():
        return next(blocks, None)
    gc.disable()
    try:
        return next(blocks, None)
    finally:
        gc.enable()


class _SourceReader:
    def __init__(
        self, source: Source, file: SourceFile, settings: SourceSettings, window_bytes: int, until: int
    ) -> None:
        self._source = source
        self._until = until
        self._file = file
        self._splitter: Splitter = splitter_for(source, file, settings)
        self._max_record_bytes = settings.max_record_bytes
        self._window_bytes = window_bytes
        self._longest = max(window_bytes, settings.max_record_bytes + _SEPARATOR_BYTES)

    def blocks(self, position: Position, proof: RecordProof | None) -> Iterator[Block]:
        size = self._window_bytes
        while position.offset < self._until:
            line = 1 if position.offset == self._source.base else position.line  # lines count per source
            data = self._read(position.offset, size)
            window = Window(self._source, position.offset, line, data, proof if _is_utf8(data) else None)
            for cut in self._splitter.cuts(window):
                first, after = position.index, position.index + len(cut.offsets)
                position = self._end(cut.end, after, cut.end_line)
                columns = (cut.offsets, cut.lengths, cut.lines, cut.raws, cut.rows)
                yield Block(position, range(first, after), *columns).without(cut.flaws)
            if position.offset > window.offset:
                size = self._window_bytes
            elif size < self._longest:
                size = min(size * 2, self._longest)
            else:
                for block in self._skipped(window, position):
                    position = block.end
                    yield block

    def _read(self, offset: int, size: int) -> bytes:
        return self._file.read(offset, min(size, self._until - offset))

    def _end(self, offset: int, index: int, line: int) -> Position:
        return Position(offset, index, 1 if offset == self._source.end else line)

    def _skipped(self, window: Window, position: Position) -> Iterator[Block]:
        """Read past a record that is too long to be held; yield empty blocks on the way, and at last its reject."""
        skip = self._splitter.skip(window)
        start = reached = window.offset + skip.start
        start_line = line = window.line + window.data.count(b"\n", 0, skip.start)
        reason = too_long(self._max_record_bytes)
        found = None
        while found is None and reached < self._until:
            data = self._read(reached, self._window_bytes)
            found = skip.feed(data)
            step = len(data) if found is None else found
            line += data.count(b"\n", 0, step)
            reached += step
            if found is None:
                yield _nothing(position)
        if found is None:
            reason += skip.unclosed
        reject = Reject(position.index, start, reached - start, start_line, reason)
        yield _nothing(self._end(reached, position.index + 1, line), (reject,))


def _is_utf8(data: bytes) -> bool:
    """Return whether this is UTF-8, but for a letter at its end that is not whole: no record ends with one."""
    try:
        return data.isascii() or bool(utf_8_decode(data))
    except UnicodeDecodeError:
        return False


def _nothing(end: Position, rejects: Sequence[Reject] = ()) -> Block:
    return Block(end, (), (), (), (), (), (), rejects)


def segment_stops(
    sources: Sequence[Source], start: int, segment_bytes: int = SEGMENT_BYTES, *, stop: int | None = None
) -> Iterator[int]:
    """Yield the joined offsets behind `start` at which the sources are cut, up to `stop`, their end if not said.

    A cut is at the first place, from a multiple of `segment_bytes` on, where a record is known to end without reading
    what stands before: with a source, or in NDJSON with a line. So cuts depend on the sources alone, not on where
    reading began. An array or a CSV file is never cut: only who reads it from its beginning can tell a separator from
    the same bytes within a string. No byte is scanned twice.
    """
    end = sources[-1].end if stop is None else stop
    multiple = start // segment_bytes * segment_bytes
    while max(multiple, start) < end:
        cut = _record_end(sources, multiple) if multiple else 0
        if start < cut < end:
            yield cut
        multiple = (max(cut, multiple) // segment_bytes + 1) * segment_bytes
    yield end


def _record_end(sources: Sequence[Source], at: int) -> int:
    """Return the first joined offset from `at` on where a record is known to end; `at` is above 0."""
    source = source_at(sources, at - 1)
    return _after_line(source, at - 1) if source.format in LINE_FORMATS else source.end


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
