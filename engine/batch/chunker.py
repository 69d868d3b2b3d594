"""Cuts blocks of tasks into frozen batches; `planning` feeds it, and `payload` renders the same bytes again.

The batches lie end to end over the input: each begins where the one before it ended. A batch is closed, with its
sha256, when a record comes that it cannot hold. It ends where a record begins, or where a block ends, because only
there can reading begin again.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias, TypeVar

import orjson
from msgspec import Struct

from engine.model.batch import Batch, ClientReference, Limits, encode_lines, encode_spans
from engine.model.payload import array_of
from engine.model.record import Block, Keyed, Position, Reject, Skipped, Taken, loads
from engine.source.json_text import members

ReferenceOf: TypeAlias = Callable[[int], ClientReference | None]
"""Sequence of a batch → the client reference of its tasks."""


def no_reference(sequence: int) -> None:
    """Return none: the `ReferenceOf` of a service that finds its batches without client references."""
    del sequence


_Indexed = TypeVar("_Indexed", Reject, Skipped, Taken, Keyed)


class Plan(Struct, frozen=True):
    """What one step of planning brought; often no batch."""

    batches: Sequence[Batch]
    rejects: Sequence[Reject]
    """Those within the boundaries of `batches`; so are skips, taken and keys."""
    reached: Position
    """How far reading came; the batches may end before."""
    last: bool
    """The sources end here."""
    skips: Sequence[Skipped] = ()
    taken: Sequence[Taken] = ()
    """How the family of the job will know the records that go up."""
    keys: Sequence[Keyed] = ()


_SKIPPED_A_RECORD = 16
"""A batch may skip so many times as many records as it may hold: few new ones among many known fill it better."""
_LEAST_SKIPPED = 1000


class Chunker:
    """Cuts tasks into batches of at most `limits`. A task that is longer by itself becomes a batch of its own.

    `is_by_line`: whether reading can begin at any record, even a bad one, of the source at a joined offset. There, a
    batch that has as many bad records as it may hold good ones ends before the next record; elsewhere with a block.
    """

    def __init__(
        self,
        limits: Limits,
        start: Position,
        sequence: int,
        reference: ReferenceOf = no_reference,
        is_by_line: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._limits = limits
        self._is_by_line = is_by_line
        self._by_line = True
        self._reference = reference
        self._sequence = sequence
        self._reached = start
        self._closed: list[Batch] = []
        self._closed_rejects: list[Reject] = []
        self._closed_skips: list[Skipped] = []
        self._closed_taken: list[Taken] = []
        self._closed_keys: list[Keyed] = []
        self._most_skipped = max(_LEAST_SKIPPED, _SKIPPED_A_RECORD * limits.records)
        self._open(start)

    def feed(self, block: Block) -> Plan:
        """Take a block and return the batches that are closed by it."""
        self._by_line = self._is_by_line(self._reached.offset)
        full = len(self._rejects) >= self._limits.records and not self._by_line
        if (full or self._skipped >= self._most_skipped) and (block.raws or block.rejects or block.skips):
            self._close(self._reached)  # or bad or known records without end would fill the memory
        self._rejects += block.rejects
        self._skips += block.skips
        self._skipped += sum(skip.count for skip in block.skips)
        self._taken += block.taken
        self._keys += block.keys
        self._take(block)
        self._reached = block.end
        return self._plan(last=False)

    def close(self) -> None:
        """Close the open batch behind the block taken last, if it holds anything."""
        if self._start.offset < self._reached.offset or self._rejects:
            self._close(self._reached)

    def finish(self) -> Plan:
        """Close the last batch: the sources end with the block taken last."""
        self.close()
        return self._plan(last=True)

    def _plan(self, *, last: bool) -> Plan:
        others = self._closed_skips, self._closed_taken, self._closed_keys
        plan = Plan(self._closed, self._closed_rejects, self._reached, last, *others)
        self._closed, self._closed_rejects, self._closed_skips, self._closed_taken = [], [], [], []
        self._closed_keys = []
        return plan

    def _take(self, block: Block) -> None:
        """Add the tasks of a block to the open batch, a run at a time, closing it wherever it is full."""
        more = 1 + self._reference_bytes + self._limits.record_bytes  # 1: the comma or bracket
        edges = list(accumulate([len(task) + more for task in block.raws], initial=0))
        first = 0
        while True:
            start, before = self._after_rejects(block, first)
            if first == before:
                if start is None:
                    return
                self._close(start)
                continue
            fitting = bisect_right(edges, edges[first] + self._limits.bytes - self._size) - 1
            last = min(fitting, first + self._limits.records - len(self._tasks), before)
            if last <= first and self._tasks:
                self._close(_begin(block, first))
                continue
            last = max(last, first + 1)
            self._offsets += block.offsets[first:last]
            self._lengths += block.lengths[first:last]
            self._lines += block.lines[first:last]
            self._tasks += block.raws[first:last]
            self._size += edges[last] - edges[first]
            first = last

    def _after_rejects(self, block: Block, first: int) -> tuple[Position | None, int]:
        """Return where a batch ends that has its fill of bad records: where the next one begins, good or bad.

        With it, before which task of the block that is, of those from `first` on; None if it is not in the block.
        """
        most, count = self._limits.records, len(block.raws)
        if len(self._rejects) < most or not self._by_line:
            return None, count
        good = bisect_right(block.indexes, self._rejects[most - 1].index, first)
        bad = self._rejects[most] if len(self._rejects) > most else None
        if bad is not None and (good == count or bad.index < block.indexes[good]):
            return Position(bad.offset, bad.index, bad.line), good
        return (_begin(block, good) if good < count else None), good

    def _open(self, start: Position) -> None:
        self._start = start
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._lines: list[int] = []
        self._tasks: list[bytes] = []
        self._size = 1 + self._limits.fixed_bytes  # 1: the opening bracket
        self._rejects: list[Reject] = []
        self._skips: list[Skipped] = []
        self._skipped = 0
        self._taken: list[Taken] = []
        self._keys: list[Keyed] = []
        self._reference_bytes = reference_bytes(self._reference(self._sequence))

    def _close(self, end: Position) -> None:
        payload = render_payload(self._tasks, self._reference(self._sequence))
        rejects, later_rejects = _parted(self._rejects, end.index)
        skips, later_skips = _parted(self._skips, end.index)
        taken, later_taken = _parted(self._taken, end.index)
        keys, later_keys = _parted(self._keys, end.index)
        skipped = sum(skip.count for skip in skips)
        places = self._offsets, self._lengths, self._lines
        self._closed.append(frozen(self._sequence, self._start, end, payload, *places, skipped=skipped))
        self._closed_rejects += rejects
        self._closed_skips += skips
        self._closed_taken += taken
        self._closed_keys += keys
        self._sequence += 1
        skipped_later = self._skipped - skipped
        self._open(end)
        self._rejects, self._skips, self._taken, self._keys = later_rejects, later_skips, later_taken, later_keys
        self._skipped = skipped_later


def _begin(block: Block, number: int) -> Position:
    return Position(block.offsets[number], block.indexes[number], block.lines[number])


def _parted(column: list[_Indexed], end: int) -> tuple[list[_Indexed], list[_Indexed]]:
    """Return those with an index before `end`, and the rest; all are in the order of their indexes."""
    border = bisect_left(column, end, key=lambda one: one.index)
    return column[:border], column[border:]


def frozen(  # noqa: PLR0913, PLR0917 - what a batch is made of
    sequence: int,
    start: Position,
    end: Position,
    payload: bytes,
    offsets: Sequence[int],
    lengths: Sequence[int],
    lines: Sequence[int] | None,
    *,
    skipped: int = 0,
) -> Batch:
    """Return the batch that holds the records at `offsets` and has this payload; `lines` may be unknown."""
    return Batch(
        sequence=sequence,
        start=start,
        end=end,
        count=len(offsets),
        size_bytes=len(payload),
        sha256=hashlib.sha256(payload).digest(),
        spans=encode_spans(start.offset, offsets, lengths),
        skipped=skipped,
        lines=encode_lines(start.line, lines or ()),
    )


def render_payload(tasks: Sequence[bytes], reference: ClientReference | None = None) -> bytes:
    """Return what goes up for a batch: a JSON array."""
    return array_of(with_reference(tasks, reference))


def reference_bytes(reference: ClientReference | None) -> int:
    """Return the most bytes by which a client reference makes a task longer."""
    return len(_member(reference)) + 1 if reference else 0


def with_reference(tasks: Sequence[bytes], reference: ClientReference | None) -> Sequence[bytes]:
    """Return the tasks as they go up: each with the client reference by which the service can find them again.

    A task that has the input already keeps its own, which its author needs. Texts stay as they are except for the
    client reference.
    """
    if reference is None:
        return tasks
    # The inputs stand first in nearly every task; then nothing needs to be parsed.
    first = re.compile(rb'\s*\{\s*"%b"\s*:\s*\{' % re.escape(reference.under.encode()))
    key, member = reference.key.encode(), _member(reference)
    return [_with_reference(task, reference, member, None if key in task else first.match(task)) for task in tasks]


def _with_reference(task: bytes, reference: ClientReference, member: bytes, found: re.Match[bytes] | None) -> bytes:
    if found is None:
        return _rebuilt(task, reference, member)
    rest = task[found.end() :]
    return task[: found.end()] + member + (b"" if rest.lstrip().startswith(b"}") else b",") + rest


def _rebuilt(task: bytes, reference: ClientReference, member: bytes) -> bytes:
    inputs = loads(task)[reference.under]
    if reference.key in inputs:
        return task
    texts = members(task)
    texts[reference.under] = b"{" + member + (b"," if inputs else b"") + texts[reference.under].lstrip()[1:]
    return orjson.dumps({key: orjson.Fragment(text) for key, text in texts.items()})


def _member(reference: ClientReference) -> bytes:
    return orjson.dumps({reference.key: reference.value})[1:-1]
