"""Which text a retry takes for each record: what a person has mended since, wherever they did so.

`retry` calls it with the records that may be sent again. Each attempt at a record has a line of it in its
`rejects.ndjson`, and a person may mend any of them. The newest attempt's line counts, unless an older one's was mended
since: it is neither what stands in that job's source nor what a newer attempt has sent. A record whose line was taken
out of one of these files is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import and_, attrgetter
from pathlib import Path
from typing import TypeAlias

import anyio.to_thread
from msgspec import Struct

from engine.commands.lineage import Attempts, RecordFinder, as_sent
from engine.files import regular
from engine.model.errors import JobError
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.record import Format, loads
from engine.progress.text import count
from engine.reports.outcomes import REJECTS
from engine.reports.spreadsheet import read_spreadsheet
from engine.source.json_text import BLANKS, members
from engine.source.splitter import BOM

_PAGE_LINES = 1000
_HEAD_BYTES = 4096

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
    job = attempts.above(job)[0]  # as it was: the one that is given may have a new configuration
    holders = [*reversed(attempts.below(job)), job]
    chosen = await _chosen(job, attempts, holders, flags) if len(holders) > 1 else bytearray(b"\1" * len(flags))
    done = bytearray(len(flags))
    for number, holder in enumerate(holders, 1):
        async for lines in _pages(_rejects_lines(holder)):
            indexes = await _indexes(lines, holder, job, attempts, len(flags))
            pairs = zip(indexes, lines, strict=True)
            yield _once([(index, line) for index, line in pairs if flags[index] and chosen[index] == number], done)


async def given_records(
    path: Path,
    job: Job,
    attempts: Attempts,
    flags: bytearray,
    types: Mapping[str, str],
    tell: Callable[[str], None],
) -> AsyncIterator[Chosen]:
    """Yield the records of a job that are flagged and that a file names, with the text to send for each.

    The file has lines as `rejects.ndjson` has, or is a table as `rejects.csv` is, of the job or of one of its retries.
    `types`: of columns that come back from a table. `tell` is told how many lines were left alone.

    Raises:
        JobError: the file is missing or damaged, or names a record that is none.
    """
    job = attempts.above(job)[0]  # as it was: the one that is given may have a new configuration
    by_name = {one.name: one for one in [job, *attempts.below(job)]}
    done = bytearray(len(flags))
    left_alone = 0
    rows = _table_rows(path, job, by_name, attempts, types) if _is_table(path) else _pages(_lines(path, job, by_name))
    async for lines in rows:
        pairs: list[tuple[int, MendedLine]] = []
        for name, of_job in groupby(lines, key=attrgetter("job")):
            group = list(of_job)
            pairs += zip(await _indexes(group, by_name[name], job, attempts, len(flags)), group, strict=True)
        taken = [(index, line) for index, line in pairs if flags[index]]
        left_alone += len(pairs) - len(taken)
        yield _once(taken, done)
    if left_alone:
        tell(
            f"{count(left_alone, 'record')} of {path} left alone: created, uncertain or on its way, here or in a retry"
        )


def _is_table(path: Path) -> bool:
    """Return whether a file is a table: it does not begin as JSON does."""
    try:
        with open(path, "rb", opener=regular) as file:
            return not file.read(_HEAD_BYTES).removeprefix(BOM).lstrip().startswith(b"{")
    except OSError as error:
        raise JobError(f"{path} cannot be read ({error.strerror})") from error


async def _table_rows(
    path: Path, job: Job, by_name: Mapping[str, Job], attempts: Attempts, types: Mapping[str, str]
) -> AsyncIterator[Sequence[MendedLine]]:
    """Yield the rows of a table: each says how its record differs from what its job has sent."""
    records = {name: RecordFinder(one, attempts.ledger) for name, one in by_name.items()}
    rows = read_spreadsheet(path)
    while page := await anyio.to_thread.run_sync(lambda: list(islice(rows, _PAGE_LINES))):
        lines = []
        for row in page:
            name = _name_of(row.job, job, by_name, row.where)
            was = await records[name].text(row.index)
            complete = any(source.format == Format.CSV for source in by_name[name].sources)
            text = row.record(was or b"", types, complete=complete)
            lines.append(MendedLine(name, row.index, text.replace(b"\n", b" ").strip(BLANKS) or b'""', row.where))
        yield lines


def _name_of(name: str | None, job: Job, by_name: Mapping[str, Job], where: str) -> str:
    """Return the job that a line is of; that which is retried, where it names none."""
    if name is not None and name not in by_name:
        raise JobError(f"{where}: a record of job {name!r}, not of {job.name!r}; retry that one")
    return name or job.name


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
    records = [RecordFinder(holder, attempts.ledger) for holder in holders]
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


async def _sent_since(index: int, text: bytes, job: Job, attempts: Attempts, newer: Sequence[RecordFinder]) -> bool:
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
    return _lines(Path(job.output) / REJECTS, job, {job.name: job}, f"; `bulksubmit report {job.name}` writes it again")


def _lines(path: Path, job: Job, by_name: Mapping[str, Job], advice: str = "") -> Iterator[MendedLine]:
    """Yield the lines of a file as a rejects file is."""
    try:
        with open(path, "rb", opener=regular) as lines:
            for number, line in enumerate(lines, 1):
                if text := line.removeprefix(BOM if number == 1 else b"").strip():
                    yield _line(job, text, f"{path}, line {number}", by_name)
    except OSError as error:
        raise JobError(f"{path} cannot be read ({error.strerror}){advice}") from error


def _line(job: Job, line: bytes, where: str, by_name: Mapping[str, Job]) -> MendedLine:
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
    name = _name_of(values.get("job"), job, by_name, where)
    if "record" not in texts:
        raise JobError(f"{where}: the record is missing")
    return MendedLine(name, index, as_sent(texts["record"]), where)
