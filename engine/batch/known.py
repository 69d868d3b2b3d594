"""Leaves out the records that an earlier job of the family has, and says how the family will know the others.

It stands between mapper and chunker; `planning` feeds it. A family knows a record by its task, or by its key where
`[delta]` names one. What is known stands in the ledger, and is written together with the batch that holds the record:
so whatever is planned is looked up in the ledger, or among the records that were planned and are not frozen yet.

A record goes up unless the family has it: created, or sent by somebody of whom nobody knows whether it arrived.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.ledger.known import Holder, KnownRecords
from engine.model.batch import encode_spans
from engine.model.errors import TooManyNew
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.record import (
    SHARED,
    Block,
    KeptAs,
    Keyed,
    Mark,
    Row,
    Skipped,
    Source,
    Taken,
    Why,
    at,
    kept_key,
    source_at,
)
from engine.model.settings import DeltaSettings
from engine.source.json_text import members

_CHANGED = 6
_MOST_PENDING = 50_000
"""Records that are planned and not frozen; when there are more, the ledger is asked how far freezing came."""


class Marker:
    """Makes the marks of records: by its hash a family knows a record, with as many bits as no accident matches."""

    def __init__(self, family: str, key: str | None) -> None:
        self.key = key
        """Column of the source; None: records are known by their tasks."""
        self._base = hashlib.sha256(orjson.dumps([family, key]))
        self.needs_rows = key is not None
        """The rows of the source, before they become tasks."""

    def mark(self, source: Block, tasks: Block) -> Block:
        """Return `tasks`, made of the records of `source`, with mark and key of each; one without a key is a reject."""
        if self.key is None:
            return replace(tasks, marks=[self._mark(task) for task in tasks.raws])
        keys = dict(zip(source.indexes, map(self.key_of, source.raws, source.rows or ()), strict=True))
        flaws = {position: self._flaw for position, index in enumerate(tasks.indexes) if keys[index] is None}
        tasks = tasks.without(flaws)
        pairs = zip(tasks.indexes, tasks.raws, strict=True)
        marks = [self._mark(keys[index] or b"", task) for index, task in pairs]
        kept = [Keyed(index, kept_key(key)) for index, key in keys.items() if key is not None]
        return replace(tasks, marks=marks, keys=kept)

    def mark_of_key(self, key: bytes) -> Mark:
        """Return hash and shared rest of whatever has a key."""
        return self._mark(key)

    @property
    def _flaw(self) -> str:
        return f"has no value in column {self.key!r}, the key of its family (delta.key)"

    def _mark(self, text: bytes, task: bytes | None = None) -> Mark:
        made = self._base.copy()
        made.update(text)
        digest = made.digest()
        rest = digest[8 : 8 + SHARED]
        if task is not None:
            rest += hashlib.sha256(task).digest()[:_CHANGED]
        return int.from_bytes(digest[:8]) >> 1, rest

    def key_of(self, raw: bytes, row: Row) -> bytes | None:
        """Return the key of a record as text with its type, for 7 is another key than "7"; None if it has none."""
        value = row.get(str(self.key))
        if value is None:
            return None
        if isinstance(value, str | int):
            return orjson.dumps(value)
        return members(raw)[str(self.key)].strip()  # a number may have more digits than a double


def marker_for(job: Job, settings: DeltaSettings) -> Marker | None:
    """Return what makes the marks of a job; None if it is one of no family."""
    return Marker(job.family, settings.key) if job.family else None


FIRST_OF_KEY = re.compile(r"its key is that of record (\d+) \(")
"""How the reason begins that `second_of_key` gives."""


def second_of_key(sources: Sequence[Source], index: int, offset: int) -> str:
    """Return why a record is rejected whose key is that of an earlier one, the record `index` at joined `offset`."""
    source = source_at(sources, offset)
    return f"its key is that of record {index} ({source.shown}, byte {offset - source.base}), which came first"


class _Candidate(Struct, frozen=True):
    """A record of the ledger that may be the one at hand."""

    rest: bytes
    holder: Holder
    fate: Fate


class _Left(Struct, frozen=True, gc=False):
    """A record that is left out: its position in the block, and who has it."""

    position: int
    index: int
    holder: Holder
    why: Why

    def goes_on(self, after: _Left) -> bool:
        """Return whether it is the next one after another, both here and there."""
        (job, index), (other_job, other_index) = self.holder, after.holder
        one_on = (self.index - after.index, index - other_index) == (1, 1)
        return one_on and job == other_job and self.why is after.why


class FamilyMemory:
    """What the family of one job knows, while the job is planned."""

    def __init__(self, records: KnownRecords, job: Job, settings: DeltaSettings) -> None:
        self.marker = Marker(job.family, settings.key)
        self.seen = 0
        """Records that were looked up."""
        self.new = 0
        """Those that would be created, and never were: no earlier job had them, or they have changed since."""
        self._records = records
        self._own = records.job_id(job.name)
        self._retried = records.job_id(job.parent) if job.parent is not None else None
        self._sources = job.sources
        self._delta = job.delta
        self._keyed = settings.key is not None
        self._changed = settings.changed
        self._pending: dict[int, tuple[bytes, int, int]] = {}
        """Hash → rest, index and offset of what is planned and may not be frozen yet."""
        self._most_pending = _MOST_PENDING

    def apply(self, source: Block, tasks: Block) -> Block:
        """Return the tasks that go up, with how the family will know them, and what was left out."""
        block = self.marker.mark(source, tasks)
        self._forget_frozen()
        rows = self._records.find([hash_ for hash_, _ in block.marks])
        flaws: dict[int, str] = {}
        left: list[_Left] = []
        taken: list[Taken] = []
        for position, (index, mark) in enumerate(zip(block.indexes, block.marks, strict=True)):
            row, pending = rows.get(mark[0]), self._pending.get(mark[0])
            if row is None and pending is None:
                self.new += 1
                taken.append(Taken(*mark, index))
            elif row is not None and pending is None and self._plainly_created(mark, row):
                left.append(_Left(position, index, row[1:], Why.CREATED))
            else:
                judged = self._judge(position, index, mark, row, pending)
                if isinstance(judged, Taken):
                    taken.append(judged)
                elif isinstance(judged, str):
                    flaws[position] = judged
                    continue
                elif judged is not None:
                    left.append(judged)
            if pending is None and (self._keyed or not left or left[-1].position != position):
                self._pending[mark[0]] = (mark[1], index, block.offsets[position])
        self.seen += len(block.marks)
        if self._keyed and self._delta:
            left = self._without_second(left, flaws)
        return self._rest(block, flaws, left, taken)

    def _plainly_created(self, mark: Mark, row: tuple[bytes, int, int]) -> bool:
        """Return whether an earlier job has created just this record: so it is with nearly all of most nights."""
        rest, job, index = row
        return self._delta and rest == mark[1] and job != self._own and self._records.fate((job, index)) is Fate.CREATED

    def _judge(
        self,
        position: int,
        index: int,
        mark: Mark,
        row: tuple[bytes, int, int] | None,
        pending: tuple[bytes, int, int] | None,
    ) -> Taken | _Left | str | None:
        """Return how a record is taken, why it is left out, or why it is rejected; None: it goes up, known before."""
        hash_, rest = mark
        shared = rest[:SHARED]
        own = pending[1:] if pending is not None and pending[0][:SHARED] == shared else None
        candidates = self._candidates(hash_, shared, row)
        for candidate in candidates:
            if candidate.holder[0] == self._own:
                own = own or (candidate.holder[1], self._records.place(candidate.holder)[0])
        if own is not None and self._keyed and self._delta:
            return second_of_key(self._sources, *own)
        others = [candidate for candidate in candidates if candidate.holder[0] != self._own]
        held = self._held(others)
        if self._delta and held is not None:
            changed = held.rest != rest
            if held.fate is Fate.UNCERTAIN:
                return _Left(position, index, held.holder, Why.UNCERTAIN)
            # What a retry brings is as old as the job that it retries: it must not follow what came after that.
            overtaken = self._retried is not None and held.holder[0] > self._retried
            if not changed or overtaken or self._changed != "send":
                report = changed and self._changed == "report"
                return _Left(position, index, held.holder, Why.CHANGED if report else Why.CREATED)
        beside = own is not None or pending is not None or (row is not None and row[0][:SHARED] != shared)
        return self._take(Taken(hash_, rest, index, KeptAs.COPY if beside else KeptAs.ROW), held, others)

    def _take(self, taken: Taken, held: _Candidate | None, others: Sequence[_Candidate]) -> Taken | None:
        """Return how the family will know a record that goes up; None if it knows it as well without."""
        if held is None:
            self.new += not others
            unsent = [self._records.job_name(other.holder[0]) for other in others if other.fate is Fate.UNRESOLVED]
            return replace(taken, instead_of=tuple(unsent))
        if held.fate is Fate.UNCERTAIN:
            return replace(taken, kept_as=KeptAs.COPY)
        if held.rest == taken.rest:
            return None
        self.new += 1
        return replace(taken, kept_as=KeptAs.OVER) if taken.kept_as is KeptAs.ROW else taken

    def _candidates(self, hash_: int, shared: bytes, row: tuple[bytes, int, int] | None) -> list[_Candidate]:
        """Return the records that a mark may mean; only the first, if it was created."""
        if row is None:
            return []
        found = [self._candidate(row)] if row[0][:SHARED] == shared else []
        if found and found[0].fate is Fate.CREATED:
            return found
        return [*found, *(self._candidate(copy) for copy in self._records.copies(hash_) if copy[0][:SHARED] == shared)]

    def _candidate(self, row: tuple[bytes, int, int]) -> _Candidate:
        rest, job, index = row
        return _Candidate(rest, (job, index), Fate.UNRESOLVED if job == self._own else self._records.fate((job, index)))

    def _held(self, candidates: Sequence[_Candidate]) -> _Candidate | None:
        """Return the record by which the family has it; None if it does not.

        By key, what was sent last says what the service has; by content, all of them are the same.
        """
        having = [one for one in candidates if one.fate in {Fate.CREATED, Fate.UNCERTAIN}]
        created_first = not self._keyed
        return max(having, key=lambda one: (created_first and one.fate is Fate.CREATED, one.holder), default=None)

    def _without_second(self, left: Sequence[_Left], flaws: dict[int, str]) -> list[_Left]:
        """Reject those that are left out for the same record as an earlier one of this job, which is frozen."""
        second: set[int] = set()
        for run in _runs(left):
            first = run[0].holder
            for index, other in self._records.skipped_for(self._own, first, len(run)):
                position = run[other - first[1]].position
                second.add(position)
                offset, _ = self._records.place((self._own, index))
                flaws[position] = second_of_key(self._sources, index, offset)
        return [one for one in left if one.position not in second]

    def _rest(self, block: Block, flaws: Mapping[int, str], left: Sequence[_Left], taken: Sequence[Taken]) -> Block:
        """Return the block without what is rejected or left out."""
        keys = block.keys
        skips = [self._skip(block, run) for run in _runs(left)]
        if left or flaws:
            rejects = block.without(flaws).rejects
            out = {one.position for one in left} | flaws.keys()
            good = [position for position in range(len(block.raws)) if position not in out]
            block = Block(
                end=block.end,
                indexes=at(good, block.indexes),
                offsets=at(good, block.offsets),
                lengths=at(good, block.lengths),
                lines=at(good, block.lines),
                raws=at(good, block.raws),
                rows=None,
                rejects=rejects,
            )
        known = {one.index for one in left}
        keys = [one for one in keys if one.index not in known] if known else keys
        return replace(block, marks=(), skips=skips, taken=taken, keys=keys)

    def _skip(self, block: Block, run: Sequence[_Left]) -> Skipped:
        first, last = run[0].position, run[-1].position + 1
        offset = block.offsets[first]
        spans = encode_spans(offset, block.offsets[first:last], block.lengths[first:last])
        other, other_index = run[0].holder
        return Skipped(run[0].index, len(run), offset, spans, self._records.job_name(other), other_index, run[0].why)

    def _forget_frozen(self) -> None:
        """Keep what is not frozen yet: the rest is found in the ledger."""
        if len(self._pending) > self._most_pending:
            end = self._records.frozen_end(self._own)
            self._pending = {hash_: one for hash_, one in self._pending.items() if one[1] >= end}
            self._most_pending = max(_MOST_PENDING, 2 * len(self._pending))


def _runs(left: Sequence[_Left]) -> list[list[_Left]]:
    """Return runs of records that lie side by side here and there; each stands alone in its block."""
    runs = [[one] for one in left[:1]]
    for before, one in pairwise(left):
        if one.goes_on(before) and one.position == before.position + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def check_new(seen: int, new: int, settings: DeltaSettings, family: str) -> None:
    """Refuse a load that is mostly new to a family that knows as many records.

    Raises:
        TooManyNew: says how many, and why that may be.
    """
    if seen < settings.judged_records or new <= settings.most_new * seen:
        return
    raise TooManyNew(
        f"{new:,} of the first {seen:,} records are new to family {family!r}: more than the "
        f"{settings.most_new:.0%} that delta.most_new allows. If the mapping, delta.key or the export has changed, all "
        "of them would be created a second time. Nothing was sent; if they really are new, say --accept-new"
    )
