"""A batch: a frozen run of records, and the spans by which each of them is found again. The chunker makes batches.

A batch is in the ledger before anything of it is sent, and is never planned anew. It holds no payload: the spans are
read from the source, the same bytes are rendered, and their sha256 is compared. So the first send, a retry and a resume
are one path, and memory holds only the batches on the wire.

A batch that the service refuses as a whole is halved: two *parts* take its place, frozen in their turn, and so on until
the bad records are alone. A part's sequence says whose part it is: the batch's in the low 32 bits, and in the high ones
its place in the tree of halves, where those of place n have 2n and 2n + 1, and the batch itself counts as 1.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, groupby, repeat
from operator import add, sub

from msgspec import Struct

from engine.model.record import Position, Skipped

_LINE_BY_LINE = b"1"
"""Lines of a batch whose records begin on its first line, the next one, and so on."""
ROOTS = 1 << 32
"""Sequences below it are those of batches as they were read; from it on, of parts."""


class Limits(Struct, frozen=True):
    """What one batch may hold at most."""

    records: int
    bytes: int
    """Of the payload, with what `fixed_bytes` and `record_bytes` say."""
    fixed_bytes: int = 0
    """What the service puts around the array of a batch when it sends it."""
    record_bytes: int = 0
    """What it adds to each task, at most."""
    task_bytes: int | None = None
    """Longest task that the service takes at all; a longer one is rejected, and none has a batch of its own."""


class Batch(Struct, frozen=True):
    """Records that go up together."""

    sequence: int
    start: Position
    end: Position
    count: int
    """Records that go up; those rejected or skipped between `start` and `end` are not among them."""
    size_bytes: int
    """Length of the payload."""
    sha256: bytes
    """Of the payload: `[task,task,…]`, exactly as sent."""
    spans: bytes
    """Where each record stands: see `encode_spans`."""
    skipped: int = 0
    """Records between `start` and `end` that do not go up since their family knows them."""
    lines: bytes = b""
    """On which line each record begins: see `encode_lines`; empty if it is not known: an older bulksubmit froze it."""

    @property
    def rejected(self) -> int:
        """Records between `start` and `end` that were not fit to go up."""
        return self.end.index - self.start.index - self.count - self.skipped


class ClientReference(Struct, frozen=True):
    """What is put into every task of a batch that has no such input yet, so that the batch can be found by it."""

    under: str
    """Key of the task that holds its inputs."""
    key: str
    """The input."""
    value: str


def part_sequences(sequence: int) -> tuple[int, int]:
    """Return the sequences of the two halves of a batch, or of a part."""
    place, root = divmod(sequence, ROOTS)
    first = 2 * (place or 1)
    return first * ROOTS + root, (first + 1) * ROOTS + root


def parts_above(sequence: int) -> Iterator[int]:
    """Yield the sequences of a batch, and of all that it is part of."""
    place, root = divmod(sequence, ROOTS)
    while place > 1:
        yield place * ROOTS + root
        place //= 2
    yield root


def batch_name(sequence: int) -> str:
    """Return the name of a batch for people: `7`, its first half `7.1`, the second half of that `7.1.2`."""
    place, root = divmod(sequence, ROOTS)
    halves = bin(place)[3:] if place else ""  # without 0b1, the batch itself
    return ".".join([str(root), *("12"[int(half)] for half in halves)])


def encode_spans(start: int, offsets: Sequence[int], lengths: Sequence[int]) -> bytes:
    """Pack (gap, length) pairs relative to joined offset `start`: 8 bytes a record, 16 where a gap exceeds 4 GiB."""
    ends = map(add, offsets, lengths)
    gaps = list(map(sub, offsets, chain((start,), ends)))
    code = "I" if max(gaps, default=0) < 2**32 else "Q"
    pairs = array(code, bytes(2 * len(gaps) * array(code).itemsize))
    pairs[0::2] = array(code, gaps)
    pairs[1::2] = array(code, lengths)
    if sys.byteorder == "big":
        pairs.byteswap()
    return code.encode() + pairs.tobytes()


def decode_spans(start: int, spans: bytes) -> tuple[list[int], list[int]]:
    """Return the joined offsets and the lengths packed by `encode_spans`."""
    pairs = _pairs(spans)
    edges = list(accumulate(pairs, initial=start))
    return edges[1::2], pairs[1::2].tolist()


def encode_lines(start_line: int, lines: Sequence[int]) -> bytes:
    """Pack the lines on which records begin, relative to `start_line`: one byte where each record is a line.

    Else in runs: by how many lines each record is after the one before it, and how many records side by side are so.
    """
    count = len(lines)
    if not count:
        return b""
    if lines[-1] - start_line == count - 1 and list(lines) == list(range(start_line, start_line + count)):
        return _LINE_BY_LINE
    steps = map(sub, lines, chain((start_line - 1,), lines))
    runs = [number for step, run in groupby(steps) for number in (step, sum(1 for _ in run))]
    code = "i" if max(map(abs, runs)) < 2**31 else "q"
    packed = array(code, runs)
    if sys.byteorder == "big":
        packed.byteswap()
    return code.encode() + packed.tobytes()


def decode_lines(batch: Batch) -> Sequence[int] | None:
    """Return the line on which each record of a batch begins, as packed by `encode_lines`; None if it is not known.

    Raises:
        ValueError: they are not those of so many records.
    """
    if not batch.lines:
        return None
    if batch.lines == _LINE_BY_LINE:
        return range(batch.start.line, batch.start.line + batch.count)
    runs = _integers(batch.lines, ("i", "q"), "lines")
    steps, counts = runs[0::2], runs[1::2]
    if len(steps) != len(counts) or min(counts, default=0) < 0 or sum(counts) != batch.count:
        raise ValueError(f"the lines of batch {batch_name(batch.sequence)} are not those of {batch.count} records")
    each = chain.from_iterable(map(repeat, steps, counts))
    return list(accumulate(each, initial=batch.start.line - 1))[1:]


def decode_side_by_side(start: int, spans: bytes) -> tuple[int, list[int]] | None:
    """Return the joined offset of the first record packed by `encode_spans`, and all lengths.

    None: not every record lies one byte behind the one before it.
    """
    pairs = _pairs(spans)
    gaps, lengths = pairs[2::2], pairs[1::2].tolist()
    return (start + pairs[0], lengths) if gaps == array(gaps.typecode, [1]) * len(gaps) else None


def _pairs(spans: bytes) -> array[int]:
    return _integers(spans, ("I", "Q"), "spans")


def _integers(packed: bytes, kinds: tuple[str, str], what: str) -> array[int]:
    kind = packed[:1].decode("ascii", "replace")
    if kind not in kinds:
        raise ValueError(f"{what} begin with {kind!r}, not with {kinds[0]} or {kinds[1]}")
    integers = array(kind, packed[1:])
    if sys.byteorder == "big":
        integers.byteswap()
    return integers


def good_indexes(batch: Batch, rejected: Sequence[int], skips: Sequence[Skipped] = ()) -> Sequence[int]:
    """Return the index of each record that goes up, given the indexes of those rejected in the batch, and the skips."""
    everything = range(batch.start.index, batch.end.index)
    if not rejected and not skips:
        return everything
    bad = frozenset(chain(rejected, *(range(skip.index, skip.index + skip.count) for skip in skips)))
    return [index for index in everything if index not in bad]
