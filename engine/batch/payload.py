"""Renders the payload of a frozen batch: reads its records from the sources again and proves the bytes by their sha256.

The uploader, the poller and the reports call it. What it returns for a batch is what was frozen, or it raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, groupby

import orjson
from msgspec import Struct

from engine.batch.chunker import ReferenceOf, frozen, no_reference, render_payload, with_reference
from engine.batch.mapping import Mapper
from engine.model.batch import (
    Batch,
    batch_name,
    decode_lines,
    decode_side_by_side,
    decode_spans,
    good_indexes,
    part_sequences,
)
from engine.model.errors import RESUME, SourceChanged, SourceError
from engine.model.payload import Payload, array_of
from engine.model.record import Position, Skipped, Source, loads, source_at
from engine.model.settings import SourceSettings
from engine.source.formats import splitter_for
from engine.source.splitter import SourceFile, Splitter

_GAP_BYTES = 1 << 16
"""Read over a shorter gap rather than call the system again: copying 64 KiB takes as long as a few calls."""

_RUN_BYTES = 1 << 20
"""A run is not extended beyond this, so that many gaps do not add up."""

_SHOWN_BYTES = 16 << 20
"""A longer record stands in a report by its beginning only: it could fill the memory."""

_CUT_BYTES = 200


class PayloadReader:
    """Reads payloads. Safe to share between threads: files are open only during a call."""

    def __init__(
        self, sources: Sequence[Source], settings: SourceSettings, mapper: Mapper, reference: ReferenceOf = no_reference
    ) -> None:
        self._sources = sources
        self._settings = settings
        self._mapper = mapper
        self._reference = reference
        self._splitters: dict[int, Splitter] = {}

    def read(self, batch: Batch, indexes: Sequence[int] | None = None) -> Payload:
        """Return the payload of `batch`.

        `indexes`: of its records in the whole input. Where none was rejected or skipped they are known without, and
        where they are not asked for they are left out, ().

        Raises:
            SourceChanged: the source no longer holds what was frozen.
        """
        return self._plain(batch, indexes) or self._proven([batch])[0].payload(indexes)

    def read_each(
        self, batches: Sequence[Batch], indexes: Sequence[Sequence[int] | None] | None = None
    ) -> Sequence[Payload]:
        """Return the payloads of batches that follow each other, opening and reading their source once.

        `indexes`: as for `read`, for each batch.

        Raises:
            SourceChanged: of one of them, the source no longer holds what was frozen.
        """
        of_each: Sequence[Sequence[int] | None] = indexes or [None] * len(batches)
        return [proven.payload(known) for proven, known in zip(self._proven(batches), of_each, strict=True)]

    def halves(self, batch: Batch, rejected: Sequence[int], skips: Sequence[Skipped] = ()) -> tuple[Batch, Batch]:
        """Return two batches in the place of one of at least two records, given the indexes rejected in it, and skips.

        Their records are the first and the second half of its own; together they cover the same bytes.

        Raises:
            SourceChanged: the source no longer holds what was frozen.
        """
        tasks = self._proven([batch])[0].bare
        offsets, lengths = decode_spans(batch.start.offset, batch.spans)
        middle = batch.count // 2
        index = good_indexes(batch, rejected, skips)[middle]
        skipped = sum(skip.count for skip in skips if skip.index < index)
        border = Position(offsets[middle], index, self.line(batch.start, offsets[middle]))
        lines = decode_lines(batch)
        first, second = part_sequences(batch.sequence)
        before, after = slice(middle), slice(middle, None)
        places = offsets[before], lengths[before], lines and lines[before]
        other_places = offsets[after], lengths[after], lines and lines[after]
        payload = render_payload(tasks[before], self._reference(first))
        rest = render_payload(tasks[after], self._reference(second))
        return (
            frozen(first, batch.start, border, payload, *places, skipped=skipped),
            frozen(second, border, batch.end, rest, *other_places, skipped=batch.skipped - skipped),
        )

    def _plain(self, batch: Batch, indexes: Sequence[int] | None) -> Payload | None:
        """Return the payload if it is what stands in the source, with a comma for each newline; None if it is not.

        So it is with most NDJSON, and then records need not be cut out to be joined again. The sha256 is the proof.
        """
        if not batch.count:
            return None
        side_by_side = decode_side_by_side(batch.start.offset, batch.spans)
        if side_by_side is None:
            return None
        first, lengths = side_by_side
        size_bytes = sum(lengths) + batch.count - 1
        if size_bytes + len(b"[]") != batch.size_bytes:
            return None
        try:
            with SourceFile(source_at(self._sources, first)) as file:
                data = file.read(first, size_bytes)
        except SourceError:  # reading record by record fails, too, and tells
            return None
        array = b"".join((b"[", data.replace(b"\n", b","), b"]"))
        if hashlib.sha256(array).digest() != batch.sha256:
            return None
        return Payload(array, lengths, _known_indexes(batch) if indexes is None else indexes)

    def _proven(self, batches: Sequence[Batch]) -> Sequence[_Proven]:
        """Return the tasks of each batch, which are what was frozen."""
        try:
            tasks = self._mapper.render(self._raws(batches))
        except SourceError as error:
            if not isinstance(error.__cause__, OSError):
                raise self._changed(batches[0], str(error)) from error
            raise SourceChanged(
                f"{error}. Batch {batch_name(batches[0].sequence)} is to be read from it again: then run {RESUME}"
            ) from error
        except ValueError as error:  # what was JSON is not any more
            raise self._changed(batches[0], "its records are other ones") from error
        ends = list(accumulate((batch.count for batch in batches), initial=0))
        return [
            self._fit(batch, tasks[start : start + batch.count]) for batch, start in zip(batches, ends, strict=False)
        ]

    def _fit(self, batch: Batch, bare: Sequence[bytes]) -> _Proven:
        try:
            tasks = with_reference(bare, self._reference(batch.sequence))
            array = array_of(tasks)
        except ValueError as error:
            raise self._changed(batch, "its records are other ones") from error
        if hashlib.sha256(array).digest() != batch.sha256:
            raise self._changed(batch, "its records are other ones")
        return _Proven(batch, bare, tasks, array)

    def raw(self, offset: int, length: int) -> bytes:
        """Return the bytes of one record, good or rejected, by its joined offset; the caller bounds `length`."""
        source = source_at(self._sources, offset)
        with SourceFile(source) as file:
            return file.read(offset, length)

    def as_json(self, offset: int, length: int) -> bytes:
        """Return one record as JSON for a report: the object itself, or what its bytes say as a string."""
        if length > _SHOWN_BYTES:
            return orjson.dumps(self.raw(offset, _CUT_BYTES).decode("utf-8", "replace") + f"… ({length} bytes)")
        raw = self.raw(offset, length)
        source = source_at(self._sources, offset)
        try:
            with SourceFile(source) as file:
                (text,) = self._splitter(source, file).raws([raw])
            loads(text)
        except ValueError:
            return orjson.dumps(raw.decode("utf-8", "replace"))
        return text

    def line(self, start: Position, offset: int) -> int:
        """Return the line of the byte at joined `offset`, counted from `start` or from the top of its source."""
        source = source_at(self._sources, offset)
        at, line = (start.offset, start.line) if start.offset >= source.base else (source.base, 1)
        with SourceFile(source) as file:
            while at < offset:
                data = file.read(at, min(_RUN_BYTES, offset - at))
                at, line = at + len(data), line + data.count(b"\n")
        return line

    def _raws(self, batches: Sequence[Batch]) -> list[bytes]:
        decoded = [decode_spans(batch.start.offset, batch.spans) for batch in batches]
        spans = chain.from_iterable(zip(offsets, lengths, strict=True) for offsets, lengths in decoded)
        raws: list[bytes] = []
        for source, group in groupby(spans, key=lambda span: source_at(self._sources, span[0])):
            with SourceFile(source) as file:
                raws += self._splitter(source, file).raws(list(_slices(file, list(group))))
        return raws

    def _splitter(self, source: Source, file: SourceFile) -> Splitter:
        splitter = self._splitters.get(source.number)
        if splitter is None:
            splitter = self._splitters[source.number] = splitter_for(source, file, self._settings)
        return splitter

    def _changed(self, batch: Batch, what: str) -> SourceChanged:
        first = source_at(self._sources, batch.start.offset)
        last = source_at(self._sources, max(batch.start.offset, batch.end.offset - 1))
        paths = first.path if first == last else f"{first.path} to {last.path}"
        return SourceChanged(
            f"{paths} changed after batch {batch_name(batch.sequence)} was frozen ({what}). {SourceChanged.PUT_BACK}"
        )


class _Proven(Struct, frozen=True):
    """What was read again of one batch, and is what was frozen."""

    batch: Batch
    bare: Sequence[bytes]
    """Its tasks without the client reference of the batch."""
    tasks: Sequence[bytes]
    array: bytes

    def payload(self, indexes: Sequence[int] | None) -> Payload:
        lengths = [len(task) for task in self.tasks]
        return Payload(self.array, lengths, _known_indexes(self.batch) if indexes is None else indexes)


def _known_indexes(batch: Batch) -> Sequence[int]:
    """Return the indexes of the records of a batch as far as they are known by it alone."""
    return () if batch.rejected or batch.skipped else range(batch.start.index, batch.end.index)


def _slices(file: SourceFile, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each (joined offset, length), reading those together that lie near each other."""
    run: list[tuple[int, int]] = []
    end = 0
    for span in spans:
        offset, length = span
        if run and (offset - end > _GAP_BYTES or end - run[0][0] > _RUN_BYTES):
            yield from _run_slices(file, run, end)
            run = []
        run.append(span)
        end = offset + length
    if run:
        yield from _run_slices(file, run, end)


def _run_slices(file: SourceFile, run: Sequence[tuple[int, int]], end: int) -> Iterator[bytes]:
    start = run[0][0]
    data = file.read(start, end - start)
    for offset, length in run:
        at = offset - start
        yield data[at : at + length]
