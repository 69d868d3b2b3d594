"""Batches and rejects of a ledger enter, what they say wrong of the sources leaves.

The sources are cut again: the records that reading and mapping bring today must be those of the batch, at the same
bytes, with the same rejects for the same reasons, and their payload must have the batch's sha256. Limits play no part,
so it does not matter how the records were once divided into batches.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.batch.chunker import ReferenceOf, render_payload
from engine.model.batch import Batch, batch_name, decode_spans, encode_spans, good_indexes
from engine.model.errors import SourceError
from engine.model.record import Position, Reject, Source, TaskBlock
from engine.reports.audit_findings import place

TasksFrom: TypeAlias = Callable[[Position], Iterator[TaskBlock]]
"""Position → the records of the sources from there on, as tasks."""

_ADVICE = (
    "put the old file back if it was changed; if the ledger was, put its backup back; a job of another version of "
    "bulksubmit is audited by that"
)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What the sources hold between two positions."""

    offsets: Sequence[int]
    lengths: Sequence[int]
    tasks: Sequence[bytes]
    rejects: Sequence[Reject]
    end_line: int | None
    """Line of the end where a record or a block ends there; else nobody can tell it without reading once more."""


class Recut:
    """Goes through the sources once, beside the batches; where the two differ, it begins again at the next batch."""

    def __init__(self, sources: Sequence[Source], tasks_from: TasksFrom, reference: ReferenceOf) -> None:
        self._sources = sources
        self._reference = reference
        self._tasks_from = tasks_from
        self._due: tuple[int, int] | None = None

    def check(self, batch: Batch, rejects: Sequence[Reject]) -> list[str]:
        """Return what is wrong with a batch and the rejects within it."""
        if self._due != (batch.start.offset, batch.start.index):
            self._begin(batch.start)
        self._due = None
        try:
            cut = self._take(batch.end.offset)
        except SourceError as error:
            return [f"{self._named(batch)}: {error}"]
        wrong = [f"{self._named(batch)}: {what}; {_ADVICE}" for what in self._differences(batch, rejects, cut)]
        if not wrong:
            self._due = (batch.end.offset, batch.end.index)
        return wrong

    def _begin(self, start: Position) -> None:
        self._blocks = self._tasks_from(start)
        self._reached = start
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._lines: list[int] = []
        self._tasks: list[bytes] = []
        self._rejects: list[Reject] = []

    def _take(self, end: int) -> _Cut:
        """Return what begins before joined offset `end`, read as far as that."""
        while self._reached.offset < end and (block := next(self._blocks, None)) is not None:
            self._offsets += block.offsets
            self._lengths += block.lengths
            self._lines += block.lines
            self._tasks += block.tasks
            self._rejects += block.rejects
            self._reached = block.end
        good = bisect_left(self._offsets, end)
        bad = bisect_left(self._rejects, end, key=lambda reject: reject.offset)
        cut = _Cut(
            self._offsets[:good],
            self._lengths[:good],
            self._tasks[:good],
            self._rejects[:bad],
            self._line_at(end, good, bad),
        )
        for column in (self._offsets, self._lengths, self._lines, self._tasks):
            del column[:good]
        del self._rejects[:bad]
        return cut

    def _line_at(self, end: int, good: int, bad: int) -> int | None:
        if good < len(self._offsets) and self._offsets[good] == end:
            return self._lines[good]
        if bad < len(self._rejects) and self._rejects[bad].offset == end:
            return self._rejects[bad].line
        return self._reached.line if self._reached.offset == end else None

    def _differences(self, batch: Batch, rejects: Sequence[Reject], cut: _Cut) -> Iterator[str]:
        count = len(cut.offsets)
        same_places = (
            count + len(cut.rejects) == batch.end.index - batch.start.index
            and count == batch.count
            and list(cut.rejects) == list(rejects)
            and encode_spans(batch.start.offset, cut.offsets, cut.lengths) == batch.spans
        )
        if not same_places:
            yield self._first_difference(batch, rejects, cut)
            return
        payload = render_payload(cut.tasks, self._reference(batch.sequence))
        if len(payload) != batch.size_bytes:
            yield f"its records make {len(payload)} bytes, not {batch.size_bytes}"
        if hashlib.sha256(payload).digest() != batch.sha256:
            yield "its records are other ones: their sha256 is not what was frozen"
        if cut.end_line not in {None, batch.end.line}:
            yield f"it ends in line {cut.end_line}, not {batch.end.line}"

    def _first_difference(self, batch: Batch, rejects: Sequence[Reject], cut: _Cut) -> str:
        """Name the first record of which ledger and source say different things."""
        bad = {reject.index: reject for reject in cut.rejects}
        indexes = range(batch.start.index, batch.start.index + len(cut.offsets) + len(bad))
        good = [index for index in indexes if index not in bad]
        found = _described(good, cut.offsets, cut.lengths, cut.rejects)
        try:
            offsets, lengths = decode_spans(batch.start.offset, batch.spans)
        except ValueError:
            return "its spans cannot be read"
        stated = _described(good_indexes(batch, [reject.index for reject in rejects]), offsets, lengths, rejects)
        for index in sorted(found.keys() | stated.keys()):
            ours, theirs = stated.get(index), found.get(index)
            if ours != theirs:
                offset = (theirs or ours or (batch.start.offset, ""))[0]
                return (
                    f"record {index} ({place(self._sources, offset)}): the ledger has {_words(ours)}, "
                    f"the source {_words(theirs)}"
                )
        return (
            f"it counts {batch.count} records to send, there are {len(cut.offsets)}, or its spans are packed otherwise"
        )

    def _named(self, batch: Batch) -> str:
        first, last = batch.start.index, batch.end.index - 1
        records = f"record {first}" if first == last else f"records {first} to {last}"
        return f"batch {batch_name(batch.sequence)} ({records}, {place(self._sources, batch.start.offset)})"


def _described(
    indexes: Sequence[int], offsets: Sequence[int], lengths: Sequence[int], rejects: Sequence[Reject]
) -> dict[int, tuple[int, str]]:
    """Return offset and description of each record by index; a damaged ledger may have columns of unlike length."""
    good = {
        index: (offset, f"one of {length} bytes at joined byte {offset} to send")
        for index, offset, length in zip(indexes, offsets, lengths, strict=False)
    }
    return good | {
        reject.index: (
            reject.offset,
            f"a reject of {reject.length} bytes at joined byte {reject.offset}, line {reject.line} ({reject.reason})",
        )
        for reject in rejects
    }


def _words(described: tuple[int, str] | None) -> str:
    return described[1] if described else "none"
