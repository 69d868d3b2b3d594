"""The attempts at records: a job, its retries and theirs; which of its records may be sent again, and one's story.

`retry` asks it what to take, `query` for the story of one record. Each attempt but the first has, for each of its
records, which record of its parent it is (`origins` in the ledger), written together with the job. So a record is known
in all attempts, and one that any of them has created, or may have, is sent by no other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import anyio.to_thread
import orjson
from msgspec import Struct

from engine.commands import wiring
from engine.commands.keys import key_kept_of, key_of
from engine.ledger.base import Ledger
from engine.model.batch import Batch, good_indexes
from engine.model.errors import BulkSubmitError
from engine.model.job import Job
from engine.model.outcome import Fate, LaterFate, Outcome
from engine.model.record import loads, shown_key
from engine.progress.text import count
from engine.reports.outcomes import REPLAYABLE, Fated, fates_beside
from engine.source.json_text import BLANKS
from engine.source.sources import check_unchanged

SOURCE = "records.ndjson"
"""By it a job that was made of failures is known."""
UNCERTAIN_SOURCE = "uncertain.ndjson"
"""Likewise one that was made of uncertain records."""
_PAGE_RECORDS = 10_000


class Attempts(Struct, frozen=True):
    """A first job, its retries, and theirs."""

    ledger: Ledger
    jobs: Sequence[Job]
    """The first one, then as they were made: a parent stands before its retries."""
    unknown: Sequence[Job]
    """Retries of these that an older bulksubmit made: where their records come from is not known."""

    @property
    def first(self) -> Job:
        """The job whose records all the others try again."""
        return self.jobs[0]

    def above(self, job: Job) -> Sequence[Job]:
        """Return the job, its parent, and so on up to the first."""
        by_name = {one.name: one for one in self.jobs}
        line = [by_name[job.name]]
        while line[-1].name != self.first.name:
            line.append(by_name[str(line[-1].parent)])
        return line

    def below(self, job: Job) -> Sequence[Job]:
        """Return the retries of a job, and theirs, as they were made."""
        names = [job.name]
        for one in self.jobs[1:]:
            if one.parent in names:
                names.append(one.name)
        return [one for one in self.jobs if one.name in names[1:]]

    async def climb(self, job: Job, indexes: Sequence[int], to: Job) -> Sequence[int]:
        """Return which records of `to`, a job above, some records of `job` are; -1 for one that is none."""
        for one in self.above(job):
            if one.name == to.name:
                break
            found = await self.ledger.parents(one.name, [index for index in indexes if index >= 0])
            indexes = [found.get(index, -1) for index in indexes]
        return indexes

    async def descend(self, job: Job, index: int, to: Job) -> int | None:
        """Return which record of `to`, a job below, a record of `job` is; None if it has not got it."""
        above = self.above(to)
        place: int | None = index
        for one in reversed(above[: [other.name for other in above].index(job.name)]):
            place = None if place is None else await self.ledger.retried_as(one.name, place)
        return place

    async def held(self, job: Job, by: Job) -> AsyncIterator[tuple[Sequence[int], Sequence[int]]]:
        """Yield, page by page, the records of `by` that are records of `job` as well: their indexes in both.

        Above both stands the first job, by whose indexes they are compared where `by` is no retry of `job`.
        """
        below = by.name in {one.name for one in self.below(job)}
        to = job if below else self.first
        down = {} if below else await self._down(job)
        start = 0
        while page := await self.ledger.origins(by.name, start, start + _PAGE_RECORDS):
            above = await self.climb(self.above(by)[1], list(page.values()), to)
            there = above if below else [down.get(index, -1) for index in above]
            pairs = [pair for pair in zip(page, there, strict=True) if pair[1] >= 0]
            yield [own for own, _ in pairs], [other for _, other in pairs]
            start += _PAGE_RECORDS

    async def _down(self, job: Job) -> Mapping[int, int]:
        """Return index in the first job → index in this one."""
        down: dict[int, int] = {}
        start = 0
        while page := await self.ledger.origins(job.name, start, start + _PAGE_RECORDS):
            down.update(zip(await self.climb(job, list(page), self.first), page, strict=True))
            start += _PAGE_RECORDS
        return down

    async def without_taken(self, job: Job, flags: bytearray) -> bytearray:
        """Take away the flags of records that another attempt has created, or of which it is not known to have failed.

        Attempts above do not count: what they did with a record came before it was given to this one.
        """
        above = {one.name for one in self.above(job)}
        for other in self.jobs:
            if other.name in above:
                continue
            failed = await flagged(other, self.ledger, REPLAYABLE)
            async for own, indexes in self.held(job, other):
                for at, index in zip(own, indexes, strict=True):
                    if not (at < len(failed) and failed[at]):
                        flags[index] = 0
        return flags


async def find_attempts(job: Job, ledger: Ledger) -> Attempts:
    """Return the attempts that a job is one of."""
    oldest_first = list(reversed(await ledger.jobs()))
    places = {one.name: place for place, one in enumerate(oldest_first)}
    first = job
    # A name may have been given anew since: a parent is older than its retries.
    while first.parent in places and places[first.parent] < places[first.name]:
        if not await ledger.origins(first.name, 0, 1):
            break
        first = oldest_first[places[first.parent]]
    jobs, unknown = [first], list[Job]()
    for one in oldest_first[places[first.name] + 1 :]:
        if one.parent in {other.name for other in jobs}:
            (jobs if await ledger.origins(one.name, 0, 1) else unknown).append(one)
    return Attempts(ledger, jobs, unknown)


class Retried(Struct, frozen=True):
    """What became of the failures of a job in its retries, and theirs."""

    job: str
    failures: int
    """Its records that failed or were rejected."""
    created: Mapping[str, int]
    """Job → how many of them it has created."""

    @property
    def left(self) -> int:
        """Failures that none has created."""
        return self.failures - sum(self.created.values())

    def __str__(self) -> str:
        done = [(name, number) for name, number in self.created.items() if number]
        total = sum(number for _, number in done)
        by = ", ".join(f"{number:,} by {name}" if len(done) > 1 else f"by {name}" for name, number in done)
        said = f"{total:,} of {count(self.failures, 'failure')} of {self.job} {_were(total)} created"
        return f"{said}{': ' if len(done) > 1 else ' '}{by}" if done else said


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


async def retried(job: Job, ledger: Ledger) -> Retried | None:
    """Return what became of the failures of a job, or of the one that it retries; None if none was tried again."""
    attempts = await find_attempts(job, ledger)
    tried = job if job.name == attempts.first.name else attempts.above(job)[1]
    direct = [one for one in attempts.below(tried) if one.parent == tried.name and source_name(one) == SOURCE]
    retries = [one for child in direct for one in [child, *attempts.below(child)]]
    if not retries:
        return None
    tally = await ledger.tally(tried.name)
    created = {one.name: (await ledger.tally(one.name)).created for one in retries}
    return Retried(tried.name, tally.failed + tally.rejected, created)


def source_name(job: Job) -> str:
    """Return the name of the file that a retry was made with: it says of which records."""
    return Path(job.sources[0].path).name


async def flagged(job: Job, ledger: Ledger, fates: frozenset[Fate]) -> bytearray:
    """Return a flag for each record that was read: 1 if it was rejected, or settled, with one of some fates."""
    tally = await ledger.tally(job.name)
    flags = bytearray(tally.records)
    async for batch, settlement in ledger.partly_created(job.name):
        sent = await indexes_sent(job, ledger, batch)
        for position in settlement.errors if Fate.FAILED in fates else ():
            flags[sent[position]] = 1
        for position in settlement.uncertain if Fate.UNCERTAIN in fates else ():
            flags[sent[position]] = 1
    if Fate.REJECTED in fates:
        for start in range(0, tally.records if tally.rejected else 0, _PAGE_RECORDS):
            for reject in await ledger.rejects(job.name, start, start + _PAGE_RECORDS):
                flags[reject.index] = 1
    return flags


async def indexes_sent(job: Job, ledger: Ledger, batch: Batch) -> Sequence[int]:
    """Return the index of each record of a batch that went up."""
    start, stop = batch.start.index, batch.end.index
    rejects = await ledger.rejects(job.name, start, stop) if batch.rejected else ()
    skips = await ledger.skips(job.name, start, stop) if batch.skipped else ()
    return good_indexes(batch, [reject.index for reject in rejects], skips)


class RecordFinder:
    """Finds records of a job again; of the batch that it looked at last it knows all of them."""

    def __init__(self, job: Job, ledger: Ledger) -> None:
        self.job = job
        self._ledger = ledger
        self._offline = wiring.load_offline(job)
        self._payloads = self._offline.payloads(job)
        self._fates: Mapping[int, Fated] = {}
        self.changed_at = 0.0
        """When the batch of the record asked for last took its last step; Unix seconds."""

    async def fated(self, index: int) -> Fated | None:
        """Return what became of the record with this index, and where it stands; None if it was not read."""
        if index not in self._fates:
            known, fates = await fates_beside(self.job, self._ledger, self._offline.service.task_url, index)
            self._fates = {fated.outcome.index: fated for fated in fates}
            self.changed_at = known.submission.changed_at if known else 0.0
            self._start = known.batch.start if known else None
        return self._fates.get(index)

    async def text(self, index: int) -> bytes | None:
        """Return the record as a report shows it, but a text that is no JSON as it is; None if it cannot be read."""
        fated = await self.fated(index)
        if fated is None:
            return None
        try:
            text = await anyio.to_thread.run_sync(self._payloads.as_json, fated.joined_offset, fated.length)
        except BulkSubmitError:
            return None
        return as_sent(text)

    async def line(self, index: int) -> int | None:
        """Return the line of a record in its source, from 1; None if it cannot be read."""
        fated = await self.fated(index)
        if fated is None or fated.line is not None or self._start is None:
            return fated.line if fated else None
        try:
            check_unchanged(self.job.sources, times=True)
            return await anyio.to_thread.run_sync(self._payloads.line, self._start, fated.joined_offset)
        except BulkSubmitError:
            return None


def as_sent(record: bytes) -> bytes:
    """Return the line that is sent for the text of a record in a report.

    A record that was no JSON stands there as a string: its text is tried as it is, or as a person mended it. One that
    is empty stays a string: a line must stay a record.
    """
    text = orjson.loads(record).encode() if record.startswith(b'"') else record
    return text.replace(b"\n", b" ").strip(BLANKS) or b'""'


class Attempt(Struct, frozen=True):
    """One attempt at a record."""

    job: str
    number: int
    """1, and one more with each retry."""
    outcome: Outcome
    line: int | None
    """In its source, from 1; None if that cannot be read."""
    at: float
    """Unix seconds: when its batch took its last step; 0 if it is in none yet."""
    later: LaterFate | None = None


class Story(Struct, frozen=True):
    """What became of one record over all attempts."""

    asked: Attempt
    """In the job that was asked for."""
    attempts: Sequence[Attempt]
    """Oldest first."""
    column: str = ""
    """That holds the user's own key; empty if none is named."""
    key: str | None = None
    """The value there."""


async def story_of(job: Job, ledger: Ledger, index: int, column: str = "") -> Story | None:
    """Return the story of a record; None if it was not read."""
    attempts = await find_attempts(job, ledger)
    above = attempts.above(job)
    places = {job.name: index}
    for one, parent in pairwise(above):
        (places[parent.name],) = await attempts.climb(one, [places[one.name]], parent)
    told: dict[str, Attempt] = {}
    for one in attempts.jobs:
        if one.name not in places and one.parent in places:
            found = await ledger.retried_as(one.name, places[str(one.parent)])
            if found is not None:
                places[one.name] = found
        if places.get(one.name, -1) >= 0 and (attempt := await _attempt(one, ledger, places[one.name])):
            told[one.name] = attempt
    if job.name not in told:
        return None
    key = await _key(attempts.first, ledger, places.get(attempts.first.name, -1), column)
    return Story(told[job.name], list(told.values()), column, key)


async def _attempt(job: Job, ledger: Ledger, index: int) -> Attempt | None:
    records = RecordFinder(job, ledger)
    fated = await records.fated(index)
    if fated is None:
        return None
    later = (await ledger.later_fates(job.name, index, index + 1)).get(index)
    return Attempt(job.name, job.attempt, fated.outcome, await records.line(index), records.changed_at, later)


async def _key(first: Job, ledger: Ledger, index: int, column: str) -> str | None:
    """Return what the column of a record holds, as text: as the ledger keeps it, or as it is read; None if neither."""
    if first.family and column and index >= 0:
        kept = await anyio.to_thread.run_sync(key_kept_of, first.name, ledger.address, index)
        if kept:
            return shown_key(kept)
    text = await RecordFinder(first, ledger).text(index) if column and index >= 0 else None
    try:
        row = loads(text or b"null")
    except ValueError:
        return None
    return key_of(row, column)
