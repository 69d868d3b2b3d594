"""Copies all rows of a ledger into another, empty one, of whatever store; `commands.copying` calls it under all locks.

One transaction: whoever looks at the other sees nothing of it, or all. Before it ends, each table is read again on both
sides, and compared by the number of its rows and by a digest, which is the same in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from hashlib import sha256
from itertools import zip_longest
from typing import Any, TypeAlias

import msgspec
import orjson
from msgspec import Struct

from engine.ledger.address import LedgerAddress, open_reader, open_writer
from engine.ledger.connection import Connection
from engine.ledger.statements import COLUMNS, COPIED_TABLES
from engine.model.errors import LedgerError

_CHUNK_ROWS = 1000
_CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk ends at either: rows of large batches have megabytes each."""
_DIGEST_BITS = 256

CopiedRow: TypeAlias = tuple[Any, ...]


class CopiedTable(Struct, frozen=True):
    """What a table holds."""

    rows: int
    digest: str
    """Of all rows, whatever their order: the sum of their SHA-256, in hexadecimal digits."""


def copy_rows(source: LedgerAddress, to: LedgerAddress, jobs: Collection[str]) -> Mapping[str, CopiedTable]:
    """Copy a ledger of some `jobs`, which nobody works on meanwhile; return what each table holds then, on both sides.

    The tables of the other are made where there are none.

    Raises:
        LedgerError: the other is not empty, the two differ, or there is another job by now; nothing was copied. Or one
            of them cannot be used.
    """
    copied: dict[str, CopiedTable] = {}
    with closing(open_reader(source)) as reading, closing(open_writer(to)) as writing:
        try:
            writing.transaction(partial(_copy, reading, writing, jobs, to, copied))
        except Exception as error:
            raise writing.told(error) from error
    return copied


def _copy(
    reading: Connection,
    writing: Connection,
    jobs: Collection[str],
    to: LedgerAddress,
    copied: dict[str, CopiedTable],
) -> None:
    for table in COPIED_TABLES:
        with closing(writing.stream(f"read_{table}")) as found:
            if next(found, None) is not None:
                raise LedgerError(f"ledger {to} is not empty: it has rows in {table}. Nothing was copied")
    for table in COPIED_TABLES:
        with closing(reading.stream(f"read_{table}")) as found:
            for chunk in _chunks(found):
                writing.change(f"put_{table}", [dict(zip(COLUMNS[table], row, strict=True)) for row in chunk])
    writing.fetch("number_next_job")
    for table in COPIED_TABLES:
        there, here = _digested(reading, writing, table)
        if there != here:
            raise LedgerError(
                f"ledger {to}: {table} has {here.rows:,} rows and digest {here.digest[:16]} there, and {there.rows:,} "
                f"and {there.digest[:16]} in the other. Nothing was copied; see that nobody writes to either of them"
            )
        copied[table] = there
    if reading.fetch("unseen", {"seen": orjson.dumps([*jobs]).decode()}):
        raise LedgerError("a job was made while the ledger was copied. Nothing was copied; try again")


def _chunks(rows: Generator[CopiedRow, None, None]) -> Iterator[Sequence[CopiedRow]]:
    chunk, held = list[CopiedRow](), 0
    for row in rows:
        chunk.append(row)
        held += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(chunk) == _CHUNK_ROWS or held >= _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


class _Digest:
    """Adds rows up."""

    def __init__(self) -> None:
        self._rows = self._total = 0
        self._encode: Callable[[CopiedRow], bytes] = msgspec.msgpack.Encoder().encode

    def add(self, row: CopiedRow) -> None:
        self._rows += 1
        self._total += int.from_bytes(sha256(self._encode(row)).digest())

    @property
    def found(self) -> CopiedTable:
        return CopiedTable(self._rows, f"{self._total % 2**_DIGEST_BITS:064x}")


def _digested(reading: Connection, writing: Connection, table: str) -> tuple[CopiedTable, CopiedTable]:
    """Return what a table holds on both sides. They are read in turn: a database ends a transaction that is silent."""
    there, here = _Digest(), _Digest()
    with closing(reading.stream(f"read_{table}")) as source, closing(writing.stream(f"read_{table}")) as copied:
        for from_source, from_copy in zip_longest(source, copied):
            if from_source is not None:
                there.add(from_source)
            if from_copy is not None:
                here.add(from_copy)
    return there.found, here.found
