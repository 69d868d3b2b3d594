"""Why records of a job are not created, or their tasks failed since: grouped by cause, from the ledger.

`reports.overview` calls it. Messages that differ only in numbers, ids or quoted values are one cause. Memory is bounded
for any job: of the causes beyond MOST_TRACKED only the records are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from engine.ledger.base import Ledger
from engine.model.batch import Batch, batch_name, decode_lines, decode_spans, good_indexes
from engine.model.job import Job
from engine.model.outcome import Later, Settlement
from engine.model.record import source_at
from engine.model.submission import State
from engine.reports.outcomes import TaskUrl

EXAMPLES_TOLD = 20
"""Of one cause."""
MOST_CAUSES = 50
"""That are spelled out: those of most records."""
MOST_TRACKED = 500
"""Causes that are told apart while records are counted."""
MOST_WORDS = 300
"""Letters of a message that are kept."""

_PAGE_RECORDS = 10_000
_MOST_REMEMBERED = 10_000
"""Messages whose cause is remembered, so that it is not looked for anew."""

_NUMBERS = re.compile(r"(?<!HTTP )(?<!HTTP \d)(?<!HTTP \d\d)\d+")
"""Messages that are the same without these are one cause: that is seen in a tenth of the time that `cause_of` takes."""
PARTICULAR = "…"
"""Stands for what differs between two messages of one cause."""
_PARTICULARS = re.compile(
    r"""
    (?P<kept>\bHTTP\ \d{3}\b)                                       # says what kind of failure it is
    | (?<!\w)'[^']{0,300}'(?!\w) | "[^"]{0,300}" | `[^`]{0,300}` | “[^”]{0,300}” | «[^»]{0,300}»
    | \b(?=[\w-]{0,64}\d)(?=[\w-]{0,64}[A-Za-z])[\w-]{8,64}\b       # an id: letters and digits mixed
    | [-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?
    """,
    re.VERBOSE,
)

FAILED, REJECTED, UNCERTAIN = "failed", "rejected", "uncertain"
LATER: Mapping[str, str] = {Later.FAILED: "failed later", Later.REJECTED: "rejected later"}
"""What a person calls it if the task of a created record came to such an end."""


class FailureExample(Struct, frozen=True):
    """A record of a cause. It holds nothing of the record itself."""

    index: int
    source: str
    offset: int
    """In its source."""
    line: int | None
    """In its source, from 1; None where an older bulksubmit froze its batch."""
    batch: str
    task_id: str | None
    url: str | None
    """The task's page, where the service has one."""
    message: str


class Cause(Struct, frozen=True):
    """Records that are not created, or whose tasks failed since, for one reason."""

    fate: str
    """failed, rejected, uncertain, failed later or rejected later"""
    words: str
    """The message; what differs between messages of one cause is PARTICULAR."""
    records: int
    examples: Sequence[FailureExample]
    """The first EXAMPLES_TOLD at most."""


class Causes(Struct, frozen=True):
    """All of a job."""

    top: Sequence[Cause]
    """Most records first, MOST_CAUSES at most."""
    records: int
    """In all, those of the causes that are not spelled out included."""
    others: int
    """Records of these."""


def cause_of(message: str) -> str:
    """Return the cause that a message tells: itself, with PARTICULAR in the place of numbers, ids and quoted values."""
    return _PARTICULARS.sub(lambda found: found["kept"] or PARTICULAR, message[:MOST_WORDS])


class _Group:
    """The records of one cause, while they are counted."""

    def __init__(self, fate: str, words: str, first: str) -> None:
        self.fate, self.words, self.first = fate, words, first
        self.varies = False
        self.records = 0
        self.examples: list[FailureExample] = []

    @property
    def cause(self) -> Cause:
        return Cause(self.fate, self.words if self.varies else self.first, self.records, self.examples)


class _Counting:
    """Counts records by cause."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], _Group] = {}
        self._remembered: dict[str, dict[str, _Group]] = {}
        self._rest = _Group("", "", "")
        """Of the causes that are not told apart any more."""

    def count(self, fate: str, message: str, records: int = 1) -> _Group | None:
        """Count records; return their group if it wants one more example."""
        known = self._remembered.setdefault(fate, {})
        if (group := known.get(message)) is None:
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            without = _NUMBERS.sub("0", message[:MOST_WORDS])
            group = known.get(without) or self._group(fate, message)
            group.varies = group.varies or message[:MOST_WORDS] != group.first
            known[message] = known[without] = group
        group.records += records
        return group if len(group.examples) < EXAMPLES_TOLD and group is not self._rest else None

    def _group(self, fate: str, message: str) -> _Group:
        words, message = cause_of(message), message[:MOST_WORDS]
        if (group := self.groups.get((fate, words))) is None:
            if len(self.groups) >= MOST_TRACKED:
                return self._rest
            group = self.groups[fate, words] = _Group(fate, words, message)
        return group

    @property
    def uncounted(self) -> int:
        """Records of causes that were not told apart."""
        return self._rest.records


class _CauseSearch:
    """Looks for all that went wrong with the records of a job."""

    def __init__(self, job: Job, ledger: Ledger, task_url: TaskUrl) -> None:
        self._job = job
        self._ledger = ledger
        self._task_url = task_url
        self.counting = _Counting()

    async def run(self) -> None:
        """Walk through the job: its rejects, its settled batches, those in doubt, and what came of tasks later."""
        tally = await self._ledger.tally(self._job.name)
        if tally.rejected:
            await self._rejects(tally.records)
        async for batch, settlement in self._ledger.partly_created(self._job.name, failed_later=True):
            await self._settled(batch, settlement)
        if tally.states.get(State.UNCERTAIN):
            async for batch, submission in self._ledger.batches(self._job.name, frozenset({State.UNCERTAIN})):
                note = submission.note or "nobody knows what became of its batch"
                group = self.counting.count(UNCERTAIN, note, batch.count)
                await self._keep(batch, [(group, at, None, note) for at in range(min(batch.count, EXAMPLES_TOLD))])
        later = await self._ledger.count_later(self._job.name)
        if any(later.get(fate) for fate in LATER):
            await self._later(tally.records)

    async def _rejects(self, records: int) -> None:
        for start in range(0, records, _PAGE_RECORDS):
            for reject in await self._ledger.rejects(self._job.name, start, start + _PAGE_RECORDS):
                if (group := self.counting.count(REJECTED, reject.reason)) is not None:
                    found = await self._ledger.batch_at(self._job.name, reject.index)
                    batch = batch_name(found[0].sequence) if found else ""
                    example = self._example(reject.index, reject.offset, batch, None, reject.reason, reject.line)
                    group.examples.append(example)

    async def _settled(self, batch: Batch, settlement: Settlement) -> None:
        count, wanted = self.counting.count, list[tuple[_Group | None, int, str | None, str]]()
        for fate, reasons in ((FAILED, settlement.errors), (UNCERTAIN, settlement.uncertain)):
            wanted += [
                (group, at, None, reason)
                for at, reason in reasons.items()
                if (group := count(fate, reason)) is not None
            ]
        for at, said in settlement.details.items():
            if (later := LATER.get(said.get("later", ""))) is not None:
                reason = _reason(said.get("later_reason"))
                wanted.append((count(later, reason), at, settlement.task_ids[at], reason))
        await self._keep(batch, wanted)

    async def _later(self, records: int) -> None:
        for start in range(0, records, _PAGE_RECORDS):
            fates = await self._ledger.later_fates(self._job.name, start, start + _PAGE_RECORDS)
            for index, known in fates.items():
                if (fate := LATER.get(known.fate)) is None:
                    continue
                reason = _reason(known.reason)
                if (group := self.counting.count(fate, reason)) is not None:
                    await self._keep_later(group, index, reason)

    async def _keep_later(self, group: _Group, index: int, reason: str) -> None:
        found = await self._ledger.batch_at(self._job.name, index)
        if found is None:
            return
        settlement = await self._ledger.settlement(self._job.name, found[0].sequence)
        indexes = await self._indexes(found[0])
        if settlement is not None and index in indexes:
            at = indexes.index(index)
            await self._keep(found[0], [(group, at, settlement.task_ids[at], reason)])

    async def _keep(self, batch: Batch, wanted: Iterable[tuple[_Group | None, int, str | None, str]]) -> None:
        """Keep examples at some positions of a batch, as long as their groups want any."""
        indexes: Sequence[int] = ()
        offsets: Sequence[int] = ()
        lines: Sequence[int | None] = ()
        for group, at, task_id, message in wanted:
            if group is None or len(group.examples) >= EXAMPLES_TOLD:
                continue
            if not offsets:
                indexes, (offsets, _) = await self._indexes(batch), decode_spans(batch.start.offset, batch.spans)
                lines = decode_lines(batch) or [None] * batch.count
            name = batch_name(batch.sequence)
            group.examples.append(self._example(indexes[at], offsets[at], name, task_id, message, lines[at]))

    async def _indexes(self, batch: Batch) -> Sequence[int]:
        start, stop = batch.start.index, batch.end.index
        rejects = await self._ledger.rejects(self._job.name, start, stop) if batch.rejected else ()
        skips = await self._ledger.skips(self._job.name, start, stop) if batch.skipped else ()
        return good_indexes(batch, [reject.index for reject in rejects], skips)

    def _example(
        self, index: int, offset: int, batch: str, task_id: str | None, message: str, line: int | None
    ) -> FailureExample:
        source = source_at(self._job.sources, offset)
        url = self._task_url(task_id) if task_id else None
        at = offset - source.base
        return FailureExample(index, source.path, at, line, batch, task_id, url or None, message[:MOST_WORDS])


def _reason(said: object) -> str:
    return str(said) if said else "the service says no reason"


async def find_causes(job: Job, ledger: Ledger, task_url: TaskUrl) -> Causes:
    """Return why records of a job are not created, or their tasks failed since.

    Each failure is counted, so the time grows with their number; a job without any takes none.

    Args:
        job: any, also one that is being worked on.
        ledger: that knows it.
        task_url: the page of a task by its id; "" where there is none.
    """
    search = _CauseSearch(job, ledger, task_url)
    await search.run()
    counting = search.counting
    groups = sorted(counting.groups.values(), key=lambda group: -group.records)
    top = [group.cause for group in groups[:MOST_CAUSES]]
    others = sum(group.records for group in groups[MOST_CAUSES:]) + counting.uncounted
    return Causes(top, sum(cause.records for cause in top) + others, others)
