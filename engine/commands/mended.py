"""Which text a retry takes for each record: what a person has mended since, wherever they did so.

`retry` calls it with the records that may be sent again. Each attempt at a record has a line of it in its
`rejects.ndjson`, and a person may mend any of them. The newest attempt's line counts, unless an older one's was mended
since: it is neither what stands in that job's source nor what a newer attempt has sent. A record whose line was taken
out of one of these files is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from operator import and_
from pathlib import Path
from typing import TypeAlias

import anyio.to_thread
from msgspec import Struct

from engine.commands.lineage import Attempts, Records, as_sent
from engine.files import regular
from engine.model.errors import JobError
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.record import loads
from engine.reports.outcomes import REJECTS
from engine.source.json_text import members

_PAGE_LINES = 1000

Chosen: TypeAlias = Sequence[tuple[int, bytes]]
"""Index of each record in the job that is retried, and the line that is sent for it."""


class MendedLine(Struct, frozen=True):
    """A line of a rejects file, or of a file that a person names."""

    job: str
    index: int
    text: bytes
    """As it is sent."""
    where: str


async def mended_records(job: Job, attempts: Attempts, flags: bytearray) -> AsyncIterator[Chosen]:
    """Yield the records of a job that are flagged, with the text to send for each, from the rejects files.

    Raises:
        JobError: one of the files is missing or damaged.
    """
    holders = [*reversed(attempts.below(job)), job]
    chosen = await _chosen(job, attempts, holders, flags) if len(holders) > 1 else bytearray(b"\1" * len(flags))
    done = bytearray(len(flags))
    for number, holder in enumerate(holders, 1):
        async for lines in _pages(_rejects_lines(holder)):
            indexes = await _indexes(lines, holder, job, attempts, len(flags))
            pairs = zip(indexes, lines, strict=True)
            yield _once([(index, line) for index, line in pairs if flags[index] and chosen[index] == number], done)


def _once(pairs: Sequence[tuple[int, MendedLine]], done: bytearray) -> Chosen:
    """Return what is taken of some lines, and flag it as done.

    Raises:
        JobError: a record has two lines.
    """
    for index, line in pairs:
        if done[index]:
            raise JobError(f"{line.where}: record {line.index} has a line before this one; keep one of the two")
        done[index] = 1
    return [(index, line.text) for index, line in pairs]


async def _chosen(job: Job, attempts: Attempts, holders: Sequence[Job], flags: bytearray) -> bytearray:
    """Return, for each record of a job, the number of the holder whose line counts; unflag what was taken out."""
    chosen, news = bytearray(len(flags)), bytearray(len(flags))
    records = [Records(holder, attempts.ledger) for holder in holders]
    for number, holder in enumerate(holders, 1):
        present = bytearray(len(flags))
        async for lines in _pages(_rejects_lines(holder)):
            indexes = await _indexes(lines, holder, job, attempts, len(flags))
            for index, line in zip(indexes, lines, strict=True):
                present[index] = 1
                if not flags[index] or news[index]:
                    continue
                mended = line.text != await records[number - 1].text(line.index)
                if not chosen[index] or (
                    mended and not await _sent_since(index, line.text, job, attempts, records[: number - 1])
                ):
                    chosen[index], news[index] = number, mended
        if holder is job:
            flags[:] = bytes(map(and_, flags, present))
            continue
        async for _, held in attempts.held(job, holder):
            for index in held:
                flags[index] &= present[index]
    return chosen


async def _sent_since(index: int, text: bytes, job: Job, attempts: Attempts, newer: Sequence[Records]) -> bool:
    """Return whether one of some newer attempts has sent this text for a record of `job`."""
    for records in newer:
        place = await attempts.descend(job, index, records.job)
        if place is not None and text == await records.text(place):
            return True
    return False


async def _indexes(
    lines: Sequence[MendedLine], holder: Job, job: Job, attempts: Attempts, records: int
) -> Sequence[int]:
    """Return which records of `job` those of some lines are.

    Raises:
        JobError: one is none of them.
    """
    indexes = await attempts.climb(holder, [line.index for line in lines], job)
    for line, index in zip(lines, indexes, strict=True):
        if not 0 <= index < records:
            raise JobError(f"{line.where}: job {holder.name!r} has no record {line.index}; indexes count from 0")
    return indexes


async def _pages(lines: Iterator[MendedLine]) -> AsyncIterator[Sequence[MendedLine]]:
    while page := await anyio.to_thread.run_sync(lambda: list(islice(lines, _PAGE_LINES))):
        yield page


def _rejects_lines(job: Job) -> Iterator[MendedLine]:
    """Yield the lines of a job's rejects file."""
    rejects = Path(job.output) / REJECTS
    try:
        with open(rejects, "rb", opener=regular) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _line(job.name, line.strip(), f"{rejects}, line {number}")
    except OSError as error:
        raise JobError(
            f"{rejects} cannot be read ({error.strerror}); `bulksubmit report {job.name}` writes it again"
        ) from error


def _line(job: str, line: bytes, where: str) -> MendedLine:
    """Return what a line of a rejects file says: its record is untouched, so that big integers survive."""
    try:
        values = loads(line)
        index = values["index"]
        Fate(values.get("state", Fate.FAILED))
        texts = members(line)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{where}: not a line of a rejects file: it needs index and record") from error
    if type(index) is not int:
        raise JobError(f"{where}: not a line of a rejects file: its index is no number")
    if values.get("job", job) != job:
        raise JobError(f"{where}: a record of job {values['job']!r}, not of {job!r}; retry that one")
    if "record" not in texts:
        raise JobError(f"{where}: the record is missing")
    return MendedLine(job, index, as_sent(texts["record"]), where)
