"""Finds records by the user's own key: in what the ledger keeps of a family, else in the sources.

`query` asks it for a record, `lineage` for the key of one. The ledger keeps the keys of families that know their
records by one, so it can tell when a source is another file by now. Any other column is looked for in the sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio.to_thread
import orjson

from engine.batch.known import marker_for
from engine.commands import wiring
from engine.ledger.address import LedgerAddress
from engine.ledger.known import KnownRecords
from engine.model.errors import JobError, SourceChanged
from engine.model.job import Job
from engine.model.record import Position, kept_key, loads
from engine.source.reader import read_blocks
from engine.source.sources import check_unchanged

_MOST_SHOWN = 5
"""Records that a message names."""


async def find_key(job: Job, jobs: Sequence[Job], ledger: LedgerAddress, column: str, value: str) -> tuple[Job, int]:
    """Return one of the `jobs` of which `job` is one, all attempts, and its one record with a value in a column.

    It is looked for in the job itself, then in the other attempts, where a record may have been mended that could not
    be read before. What the ledger keeps of the keys of a family comes first; then sources are read from the beginning.

    Raises:
        SourceChanged: the ledger keeps no values of this column, and a source is not what it was, so it cannot be told
            by its content.
        JobError: no record has the value, or several.
    """
    others = [one for one in jobs if one.name != job.name]
    lost: SourceChanged | None = None
    for one in [job, *others]:
        if found := await anyio.to_thread.run_sync(_kept_with_key, one, ledger, column, value):
            return one, _only(found, one, column, value)
    for one in [job, *others]:
        try:
            check_unchanged(one.sources, times=True)
        except SourceChanged as error:
            lost = lost or error
            continue
        if found := await anyio.to_thread.run_sync(_with_key, one, column, value):
            return one, _only(found, one, column, value)
    if lost is None:
        raise JobError(f"no record that job {job.name!r} has read has {value!r} in {column!r}")
    raise SourceChanged(
        f"the ledger knows no record of job {job.name!r} with {value!r} in {column!r}, and its source cannot be "
        f"searched: {lost}"
    ) from lost


def _only(found: Sequence[int], job: Job, column: str, value: str) -> int:
    if len(found) == 1:
        return found[0]
    shown = ", ".join(map(str, found[:_MOST_SHOWN])) + ("" if len(found) <= _MOST_SHOWN else ", …")
    raise JobError(f"job {job.name!r} has several records with {value!r} in {column!r}: {shown}; ask by --record")


def _kept_with_key(job: Job, ledger: LedgerAddress, column: str, value: str) -> Sequence[int]:
    """Return the indexes of the records of which the ledger says that they have this key, as a text or as it is."""
    marker = marker_for(job, wiring.load_offline(job).setup.settings.delta)
    if marker is None or marker.key != column:
        return []
    texts = [orjson.dumps(value)]
    with suppress(ValueError):
        texts += [value.strip().encode()] if loads(value.encode()) is not None else []
    with KnownRecords(ledger) as records:
        own = records.job_id(job.name)
        return sorted(
            {index for text in texts for index in records.with_key(own, marker.mark_of_key(text), kept_key(text))}
        )


def _with_key(job: Job, column: str, value: str) -> Sequence[int]:
    """Return the indexes of the records that have a value in a column: one more than are shown, at most."""
    found: list[int] = []
    settings = wiring.load_offline(job).setup.settings.source
    for block in read_blocks(job.sources, Position(), settings):
        for index, row in zip(block.indexes, block.rows or (), strict=True):
            if key_of(row, column) == value:
                found.append(index)
        if len(found) > _MOST_SHOWN:
            break
    return found


def key_kept_of(job: str, ledger: LedgerAddress, index: int) -> bytes | None:
    """Return the key of a record as the ledger keeps it; None if it keeps none."""
    with KnownRecords(ledger) as records:
        return records.key((records.job_id(job), index))


def key_of(row: object, column: str) -> str | None:
    """Return what a column of a row holds as a person types it: a text as it is, anything else as JSON; None if none.

    `data.id` is the column of that name or, where there is none, `id` within `data`.
    """
    value: object = row
    for name in [column] if isinstance(row, dict) and column in row else column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()
