"""Sources and what they hold: records, as columns, and rejects. The reader makes them, mapping and chunker take them.

Offsets are *joined*: a job's sources are laid end to end, and `Source.base` says where each begins, so one integer
names a byte of the whole input and a batch may run across files. Records travel as columns of equal length, because one
Python object per record would cost more than parsing it.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import orjson
from msgspec import Struct

_T = TypeVar("_T")

Row: TypeAlias = dict[str, Any]
"""One parsed record."""

_TEXTS_AND_NUMBERS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+|[-+.0-9eE]{5,}+', re.DOTALL)
_NUMBER = re.compile(rb"(-?)(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")


def has_json_form(value: Any) -> bool:
    """Return whether JSON can say a value of TOML: not dates, inf, nan, integers over 64 bits."""
    try:
        return bool(orjson.loads(orjson.dumps(value)) == value)
    except TypeError:
        return False


def loads(text: bytes) -> Any:
    """Return the value of a JSON text as orjson does; but a number beyond a double, which it refuses, is 1e308.

    Such a number is valid JSON, and what goes up for it is its text. Of this size it is as good for a check, and unlike
    infinity it can be written down.

    Raises:
        orjson.JSONDecodeError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if not error.msg.startswith("number is infinity"):
            raise
        return orjson.loads(_TEXTS_AND_NUMBERS.sub(_bounded, text))


def _bounded(found: re.Match[bytes]) -> bytes:
    """Return a number that is not beyond a double, as long as the one that was found; any other text as it is."""
    number = _NUMBER.fullmatch(found[0])
    beyond = number is not None and math.isinf(float(found[0]))
    return (number[1] + b"1e308").ljust(len(found[0])) if number and beyond else found[0]


FORMAT_POINTS = "bulksubmit.formats"
"""Group of the entry points by which packages of their own name formats."""


class Format(StrEnum):
    """How the records of a source are written down. A package of its own may bring one more, known by its name."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    """It is read as a copy of ours: each row is a line of JSON there."""


LINE_FORMATS = frozenset({Format.NDJSON, Format.PARQUET})
"""Where a record ends with its line, whatever stands before it."""


def known_formats() -> list[str]:
    """Return the names of all formats: ours first, then those that installed packages bring. None of them is loaded."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and few commands name a format

    return list(dict.fromkeys([*map(str, Format), *sorted(point.name for point in entry_points(group=FORMAT_POINTS))]))


class Source(Struct, frozen=True):
    """One file of a job, as it was when the job began."""

    number: int
    path: str
    format: str
    """A Format, or the name of one that a package brings."""
    size: int
    """Bytes."""
    mtime_ns: int
    base: int
    """Joined offset of its first byte."""
    inode: int = 0
    """Of the file system; 0 if it is not known."""
    ctime_ns: int = 0
    """Unix nanoseconds of the last change of the file, or of what the file system says of it (its rights, say), which
    no program can set; 0 if it is not known."""
    name: str = ""
    """What a person named, where that is packed or elsewhere, a URL without its secrets; `path` is our copy then."""
    version: str = ""
    """Of what `name` names: its ETag, or size, time and inode; "" if it is not known, or nothing was copied."""
    row_groups: str = ""
    """Of Parquet: how many rows each of its groups has, as `source.parquet.groups_of` writes it."""

    @property
    def shown(self) -> str:
        """What people know it by."""
        return self.name or self.path

    @property
    def end(self) -> int:
        """Joined offset just past its last byte."""
        return self.base + self.size

    def row_at(self, line: int | None) -> dict[str, int]:
        """Return which row of which group, both from 0, a line of a copy of Parquet is; of other sources, nothing."""
        if self.format != Format.PARQUET or line is None:
            return {}
        starts = _group_starts(self.row_groups)
        group = max(bisect_right(starts, line - 1) - 1, 0)
        return {"row_group": group, "row": line - 1 - starts[group]}

    def place(self, line: int) -> str:
        """Return where a record begins, for people: `tasks.csv:7`."""
        if row := self.row_at(line):
            return f"{self.shown}, row group {row['row_group']:,}, row {row['row']:,}"
        return f"{self.shown}:{line}"


@lru_cache(maxsize=16)
def _group_starts(row_groups: str) -> Sequence[int]:
    """Return the number of the first row of each group, from 0."""
    starts, at = [], 0
    for run in row_groups.split():
        times, _, rows = run.rpartition("*")
        for _ in range(int(times or 1)):
            starts.append(at)
            at += int(rows)
    return starts or [0]


def no_records(sources: Sequence[Source]) -> str:
    """Return what to say of sources that hold no record."""
    return "; ".join(map(_without_records, sources)) if len(sources) <= _MOST_NAMED else "the sources hold no record"


def _without_records(source: Source) -> str:
    if not source.size and source.format != Format.PARQUET:
        return f"{source.shown} is empty"
    if source.format == Format.CSV:
        return f"{source.shown} has a header and no rows"
    return f"{source.shown} has no {'rows' if source.format == Format.PARQUET else 'records'}"


_MOST_NAMED = 5


def source_at(sources: Sequence[Source], offset: int) -> Source:
    """Return the source that holds the byte at joined `offset`."""
    return sources[bisect_right(sources, offset, key=lambda source: source.base) - 1]


class Position(Struct, frozen=True):
    """Where reading goes on: the next byte (joined), the index of the next record, its line (1-based, per source)."""

    offset: int = 0
    index: int = 0
    line: int = 1


class Reject(Struct, frozen=True):
    """A record that cannot be submitted as it stands, and why."""

    index: int
    offset: int
    """Joined."""
    length: int
    line: int
    reason: str


class Why(StrEnum):
    """Why records are skipped."""

    CREATED = "created"
    """The other job has created them."""
    UNCERTAIN = "uncertain"
    """The other job has sent them, or is about to, and nobody knows yet what becomes of them."""
    CHANGED = "changed"
    """The other job has created records of these keys; the records are other ones now."""


class Skipped(Struct, frozen=True):
    """Records side by side that are not sent, since records side by side of another job of the family are the same."""

    index: int
    """Of the first."""
    count: int
    offset: int
    """Joined, of the first."""
    spans: bytes
    """Where each stands, from `offset` on: see `encode_spans`."""
    other: str
    """Name of the job that has them."""
    other_index: int
    """Of the first one there."""
    why: Why


class KeptAs(StrEnum):
    """Where the ledger remembers that a record was taken."""

    ROW = "row"
    """In place of what it knew of the record: nothing, or one that was not created."""
    OVER = "over"
    """Likewise; what it knew is kept beside it, for it was created, with other content."""
    COPY = "copy"
    """Beside what it knows, which stays."""


class Taken(Struct, frozen=True, gc=False):
    """A record that goes up, as its family will know it."""

    hash: int
    rest: bytes
    index: int
    kept_as: KeptAs = KeptAs.ROW
    instead_of: tuple[str, ...] = ()
    """Jobs that were ended before they had sent the record: they must not go on."""


_MOST_KEY_BYTES = 256


class Keyed(Struct, frozen=True, gc=False):
    """The user's own key of a record, as the ledger keeps it."""

    index: int
    text: bytes
    """See `kept_key`."""


def kept_key(key: bytes) -> bytes:
    """Return how the ledger keeps a key, given as JSON: on one line; of a long one, its length and sha256."""
    if len(key) > _MOST_KEY_BYTES:
        return b"#%d sha256 %s" % (len(key), hashlib.sha256(key).hexdigest().encode())
    return key.replace(b"\n", b" ") if b"\n" in key else key  # in JSON, one stands between tokens only


def is_long_key(kept: bytes) -> bool:
    """Return whether a key was too long to be kept: there is only its sha256."""
    return kept.startswith(b"#")


def shown_key(kept: bytes) -> str:
    """Return a key as a person types it: a text as it is, anything else as JSON; a long one by what is kept of it."""
    if not is_long_key(kept):
        value = orjson.loads(kept) if kept.startswith(b'"') else None
        return value if isinstance(value, str) else kept.decode()
    length, _, digest = kept[1:].decode().split(" ")
    return f"a key of {int(length):,} bytes, sha256 {digest}"


Mark: TypeAlias = tuple[int, bytes]
"""Hash and rest: what a family knows a record by. The table `known` says more."""
SHARED = 4
"""Bytes of the rest that go on with the hash; what follows, where a record is known by a key, is of its task."""


class Block(Struct, frozen=True):
    """A run of consecutive records of one source: columns of equal length, and the rejects among them."""

    end: Position
    """Where the next block begins; separators and rejects before it belong to this one."""
    indexes: Sequence[int]
    offsets: Sequence[int]
    """Joined."""
    lengths: Sequence[int]
    """Bytes of the record in the source."""
    lines: Sequence[int]
    """1-based, per source."""
    raws: Sequence[bytes]
    """Each record as JSON: the source's own bytes, or rendered where the source is no JSON. After the mapping: the task
    that goes up for it."""
    rows: Sequence[Row] | None
    """Each of `raws`, parsed; None where it is proved that nobody needs that."""
    rejects: Sequence[Reject] = ()
    marks: Sequence[Mark] = ()
    """Of each record, where its job is one of a family."""
    skips: Sequence[Skipped] = ()
    """Records that were left out, since their family knows them."""
    taken: Sequence[Taken] = ()
    keys: Sequence[Keyed] = ()
    """By index, of those that go up and of those that are rejected, where the family knows its records by a key."""

    def without(self, flaws: Mapping[int, str]) -> Block:
        """Return the block with the records at some positions made rejects, each for its reason."""
        if not flaws:
            return self
        good = [position for position in range(len(self.raws)) if position not in flaws]
        places = zip(self.indexes, self.offsets, self.lengths, self.lines, strict=True)
        bad = [Reject(*place, flaws[position]) for position, place in enumerate(places) if position in flaws]
        return Block(
            end=self.end,
            indexes=at(good, self.indexes),
            offsets=at(good, self.offsets),
            lengths=at(good, self.lengths),
            lines=at(good, self.lines),
            raws=at(good, self.raws),
            rows=None if self.rows is None else at(good, self.rows),
            rejects=sorted([*self.rejects, *bad], key=lambda reject: reject.index),
            marks=at(good, self.marks) if self.marks else (),
        )


def at(positions: Sequence[int], column: Sequence[_T]) -> list[_T]:
    """Return the values of `column` at `positions`."""
    return [column[position] for position in positions]
