"""What an audit holds the batches of a ledger against: the sources, cut again, and the two report files.

`audit.audit` walks over the batches in the order of their records and passes each to both. They read their files once,
beside that walk, and hold no more of them than one batch. The module is a long one, since each thing that can be wrong
with a line has a finding of its own, in words that say where.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from engine.batch.chunker import ReferenceOf, render_payload
from engine.batch.known import FIRST_OF_KEY, second_of_key
from engine.files import regular
from engine.ledger.known import Holder, KnownRecords
from engine.model.batch import Batch, batch_name, decode_spans, encode_lines, encode_spans, good_indexes
from engine.model.errors import DamagedRow, SourceError
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.record import SHARED, Block, Mark, Position, Reject, Skipped, Source, Why, at, loads, source_at
from engine.reports.outcomes import Fated, RecordAt, Reports, outcome_lines, reject_lines

TasksFrom: TypeAlias = Callable[[Position], Iterator[Block]]
"""Position → the records of the sources from there on, as tasks."""

_LEDGER_ADVICE = (
    "put the old file back if it was changed; if the ledger was, put its backup back; a job of another version of "
    "bulksubmit is audited by that"
)
_REPORT_ADVICE = "`bulksubmit report {job}` writes it anew"
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class _Cut:
    """What the sources hold between two positions."""

    offsets: Sequence[int]
    lengths: Sequence[int]
    tasks: Sequence[bytes]
    rejects: Sequence[Reject]
    indexes: Sequence[int]
    lines: Sequence[int]
    marks: Sequence[Mark]
    """None of a job of no family."""
    end_line: int | None
    """Line of the end; None where no record or block ends there, so that only reading once more could tell it."""


class Recut:
    """The sources, cut again beside the batches; where the two differ, it begins anew at the next batch.

    The records that reading and mapping bring today must be those of the batch, at the same bytes, with the same
    rejects for the same reasons, and their payload must have the batch's sha256. Limits play no part, so it does not
    matter how the records were once divided into batches.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tasks_from: TasksFrom,
        reference: ReferenceOf,
        family: FamilyProof | None = None,
    ) -> None:
        self._sources = sources
        self._family = family
        self._reference = reference
        self._tasks_from = tasks_from
        self._due: tuple[int, int] | None = None

    def check(self, batch: Batch, rejects: Sequence[Reject], skips: Sequence[Skipped] = ()) -> list[str]:
        """Return what is wrong with a batch, and the rejects and skips within it."""
        if self._due != (batch.start.offset, batch.start.index):
            self._begin(batch.start)
        self._due = None
        try:
            cut = self._take(batch.end.offset)
            differences: list[str] = []
            if self._family is not None:
                cut, differences = self._family.sent_of(cut, rejects, skips)
        except (SourceError, DamagedRow) as error:
            return [f"{self._named(batch)}: {error}"]
        differences += self._differences(batch, rejects, skips, cut)
        wrong = [f"{self._named(batch)}: {what}; {_LEDGER_ADVICE}" for what in differences]
        if not wrong:
            self._due = (batch.end.offset, batch.end.index)
        return wrong

    def _begin(self, start: Position) -> None:
        self._blocks = self._tasks_from(start)
        self._reached = start
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._lines: list[int] = []
        self._tasks: list[bytes] = []
        self._indexes: list[int] = []
        self._marks: list[Mark] = []
        self._rejects: list[Reject] = []

    def _take(self, end: int) -> _Cut:
        """Return what begins before joined offset `end`, read as far as that."""
        while self._reached.offset < end and (block := next(self._blocks, None)) is not None:
            self._offsets += block.offsets
            self._lengths += block.lengths
            self._lines += block.lines
            self._tasks += block.raws
            self._indexes += block.indexes
            self._marks += block.marks
            self._rejects += block.rejects
            self._reached = block.end
        good = bisect_left(self._offsets, end)
        bad = bisect_left(self._rejects, end, key=lambda reject: reject.offset)
        cut = _Cut(
            self._offsets[:good],
            self._lengths[:good],
            self._tasks[:good],
            self._rejects[:bad],
            self._indexes[:good],
            self._lines[:good],
            self._marks[:good],
            self._line_at(end, good, bad),
        )
        columns: list[list[Any]] = [self._offsets, self._lengths, self._lines, self._tasks, self._indexes, self._marks]
        for column in columns:
            del column[:good]
        del self._rejects[:bad]
        return cut

    def _line_at(self, end: int, good: int, bad: int) -> int | None:
        if good < len(self._offsets) and self._offsets[good] == end:
            return self._lines[good]
        if bad < len(self._rejects) and self._rejects[bad].offset == end:
            return self._rejects[bad].line
        return self._reached.line if self._reached.offset == end else None

    def _differences(
        self, batch: Batch, rejects: Sequence[Reject], skips: Sequence[Skipped], cut: _Cut
    ) -> Iterator[str]:
        count = len(cut.offsets)
        same_places = (
            count + len(cut.rejects) + batch.skipped == batch.end.index - batch.start.index
            and count == batch.count
            and list(cut.rejects) == list(rejects)
            and encode_spans(batch.start.offset, cut.offsets, cut.lengths) == batch.spans
        )
        if not same_places:
            yield self._first_difference(batch, rejects, skips, cut)
            return
        payload = render_payload(cut.tasks, self._reference(batch.sequence))
        if len(payload) != batch.size_bytes:
            yield f"its records make {len(payload)} bytes, not {batch.size_bytes}"
        if hashlib.sha256(payload).digest() != batch.sha256:
            yield "its records are other ones: their sha256 is not what was frozen"
        if batch.lines and encode_lines(batch.start.line, cut.lines) != batch.lines:
            yield "its records begin on other lines"
        if cut.end_line not in {None, batch.end.line}:
            yield f"it ends in line {cut.end_line}, not {batch.end.line}"

    def _first_difference(self, batch: Batch, rejects: Sequence[Reject], skips: Sequence[Skipped], cut: _Cut) -> str:
        """Name the first record of which ledger and source say different things."""
        found = _described(cut.indexes, cut.offsets, cut.lengths, cut.rejects)
        try:
            offsets, lengths = decode_spans(batch.start.offset, batch.spans)
        except ValueError:
            return "its spans cannot be read"
        good = good_indexes(batch, [reject.index for reject in rejects], skips)
        stated = _described(good, offsets, lengths, rejects)
        for index in sorted(found.keys() | stated.keys()):
            ours, theirs = stated.get(index), found.get(index)
            if ours != theirs:
                offset = (theirs or ours or (batch.start.offset, ""))[0]
                return (
                    f"record {index} ({place(self._sources, offset)}): the ledger has {_words(ours)}, "
                    f"the source {_words(theirs)}"
                )
        return (
            f"it counts {batch.count} records to send, there are {len(cut.offsets)}, or its spans are packed otherwise"
        )

    def _named(self, batch: Batch) -> str:
        first, last = batch.start.index, batch.end.index - 1
        records = f"record {first}" if first == last else f"records {first} to {last}"
        return f"batch {batch_name(batch.sequence)} ({records}, {place(self._sources, batch.start.offset)})"


def _described(
    indexes: Sequence[int], offsets: Sequence[int], lengths: Sequence[int], rejects: Sequence[Reject]
) -> dict[int, tuple[int, str]]:
    """Return offset and description of each record by index; a damaged ledger may have columns of unlike length."""
    good = {
        index: (offset, f"one of {length} bytes at joined byte {offset} to send")
        for index, offset, length in zip(indexes, offsets, lengths, strict=False)
    }
    return good | {
        reject.index: (
            reject.offset,
            f"a reject of {reject.length} bytes at joined byte {reject.offset}, line {reject.line} ({reject.reason})",
        )
        for reject in rejects
    }


def _words(described: tuple[int, str] | None) -> str:
    return described[1] if described else "none"


def place(sources: Sequence[Source], offset: int) -> str:
    """Return the file and the byte in it at which joined `offset` stands."""
    if not sources:
        return f"byte {offset} of no source"
    source = source_at(sources, offset)
    return f"{source.shown}, byte {offset - source.base}"


class FamilyProof:
    """Proves what was skipped, and what was rejected for its key: by the hash of the record and what the ledger knows.

    What cannot be seen: that a record was *uncertain* when it was skipped, once somebody knows more.
    """

    def __init__(self, records: KnownRecords, job: Job) -> None:
        self._records = records
        self._job = job
        self._own = records.job_id(job.name)

    def sent_of(self, cut: _Cut, rejects: Sequence[Reject], skips: Sequence[Skipped]) -> tuple[_Cut, list[str]]:
        """Return what of a cut must have gone up, and what is wrong with what did not."""
        out: set[int] = set()
        wrong: list[str] = []
        for skip in skips:
            first = bisect_left(cut.indexes, skip.index)
            here = slice(first, first + skip.count)
            out.update(range(first, first + skip.count))
            wrong += self._wrong(skip, cut, here)
        second = self._second_of_key(cut, rejects)
        if not skips and not second:
            return cut, wrong
        out.update(second)
        good = [position for position in range(len(cut.offsets)) if position not in out]
        bad = sorted([*cut.rejects, *second.values()], key=lambda reject: reject.index)
        sent = replace(
            cut,
            offsets=at(good, cut.offsets),
            lengths=at(good, cut.lengths),
            tasks=at(good, cut.tasks),
            rejects=bad,
            indexes=at(good, cut.indexes),
            lines=at(good, cut.lines),
            marks=at(good, cut.marks) if cut.marks else (),
        )
        return sent, wrong

    def _wrong(self, skip: Skipped, cut: _Cut, here: slice) -> Iterator[str]:
        """Yield what is wrong with a skip, once."""
        named = f"record {skip.index} and {skip.count - 1} after it are skipped"
        there = list(cut.indexes[here]) == list(range(skip.index, skip.index + skip.count))
        if (
            not there
            or cut.offsets[here.start] != skip.offset
            or encode_spans(skip.offset, cut.offsets[here], cut.lengths[here]) != skip.spans
        ):
            yield f"{named}, and the source has other records there"
            return
        other = self._records.job_id(skip.other)
        if len(cut.marks) != len(cut.offsets):
            yield f"{named}, and the job is one of no family"
            return
        rows = self._records.find([hash_ for hash_, _ in cut.marks[here]])
        for number, mark in enumerate(cut.marks[here]):
            holder = (other, skip.other_index + number)
            if reason := self._unproven(mark, holder, skip.why, rows.get(mark[0])):
                index, other_index = skip.index + number, holder[1]
                yield f"record {index} is skipped for record {other_index} of job {skip.other!r}: {reason}"
                return

    def held(self, skips: Sequence[Skipped]) -> Iterator[str]:
        """Yield what is wrong with skips, once each, as far as that can be seen without the source."""
        for skip in skips:
            other = self._records.job_id(skip.other)
            places = range(skip.other_index, skip.other_index + skip.count)
            none = [at for at in places if skip.why is not Why.UNCERTAIN and self._records.task_id((other, at)) is None]
            if none:
                index = skip.index + none[0] - skip.other_index
                yield f"record {index} is skipped for record {none[0]} of job {skip.other!r}: that one was not created"

    def _unproven(self, mark: Mark, holder: Holder, why: Why, row: tuple[bytes, int, int] | None) -> str:
        """Return why a record was not to be skipped for another one; "" if it was."""
        fate = self._records.fate(holder)
        if why is not Why.UNCERTAIN and self._records.task_id(holder) is None:
            return "that one was not created"
        if fate not in {Fate.CREATED, Fate.UNCERTAIN}:  # since then: and another job may have taken it over
            return ""
        known = [*([row] if row else []), *(() if row and row[1:] == holder else self._records.copies(mark[0]))]
        rests = [rest for rest, *found in known if tuple(found) == holder and rest[:SHARED] == mark[1][:SHARED]]
        if not rests:
            return "the ledger does not know that one by the same hash"
        return "it has not changed" if why is Why.CHANGED and rests[0] == mark[1] else ""

    def _second_of_key(self, cut: _Cut, rejects: Sequence[Reject]) -> dict[int, Reject]:
        """Return, by position, the rejects of a cut that rightly were rejected since their key came before."""
        found = {}
        for reject in rejects:
            position = bisect_left(cut.indexes, reject.index)
            earlier = FIRST_OF_KEY.match(reject.reason)
            if (
                earlier is None
                or not cut.marks
                or position == len(cut.indexes)
                or cut.indexes[position] != reject.index
            ):
                continue
            place = cut.offsets[position], cut.lengths[position]
            if place == (reject.offset, reject.length) and self._is_second(
                cut.marks[position], int(earlier[1]), reject
            ):
                found[position] = reject
        return found

    def _is_second(self, mark: Mark, first: int, reject: Reject) -> bool:
        """Return whether the record `first` of this job has the key of a later one."""
        if first >= reject.index:
            return False
        offset, _ = self._records.place((self._own, first))
        if reject.reason != second_of_key(self._job.sources, first, offset):
            return False
        row = self._records.find([mark[0]]).get(mark[0])
        holders = [*([row] if row else []), *self._records.copies(mark[0])]
        same = {(job, index) for rest, job, index in holders if rest[:SHARED] == mark[1][:SHARED]}
        return (self._own, first) in same or any(
            self._records.skipped_for(self._own, holder, 1) == [(first, holder[1])] for holder in same
        )


class ReportsCheck(AbstractContextManager["ReportsCheck"]):
    """Both report files, read beside the ledger: streams by index.

    A batch whose lines are all as expected is compared in one piece; only where it is not, line by line.
    `changed_since` tells whether the source with a path was written after the job began. What the rejects have of a
    record is not compared where its source is among the paths in `lost`: nobody can tell what it was.
    """

    def __init__(
        self,
        find: Callable[[str], None],
        job: Job,
        reports: Reports,
        record_at: RecordAt,
        changed_since: Callable[[str], bool],
        lost: Collection[str] = (),
    ) -> None:
        self.mended = 0
        """Records in the rejects that are not as in the source: mended for `retry`, as a person may."""
        self._find = find
        self._job = job
        self._record_at = record_at
        self._changed_since = changed_since
        self._lost = lost
        with ExitStack() as files:
            self._outcomes = _Report(find, job, reports.outcomes, files)
            self._rejects = _Report(find, job, reports.rejects, files, self._is_mended, may_lack=True)
            self._files = files.pop_all()

    @property
    def taken_out(self) -> int:
        """Lines that are missing in the rejects: a person may take out what shall not be tried again."""
        return self._rejects.lacking

    def check(self, block: Sequence[Fated]) -> None:
        """Compare the lines of one batch."""
        if not block:
            return
        indexes = [fated.outcome.index for fated in block]
        self._outcomes.expect(indexes, list(outcome_lines(block)))
        try:
            lines = list(reject_lines(self._job, block, self._record))
        except SourceError as error:
            self._find(f"{self._rejects.path}: not compared for records {indexes[0]} to {indexes[-1]}: {error}")
            lines = []
            self._rejects.lost = True
        self._rejects.expect([int(loads(line)["index"]) for line in lines], lines)

    def _record(self, offset: int, length: int) -> bytes:
        lost = self._lost and source_at(self._job.sources, offset).path in self._lost
        return b"null" if lost else self._record_at(offset, length)

    def finish(self) -> None:
        """See that nothing stands behind the last record."""
        self._outcomes.finish()
        self._rejects.finish()

    def _is_mended(self, expected: dict[str, Any], found: dict[str, Any]) -> bool:
        """Return whether a line of the rejects differs as it does where a person mended its record."""
        if {**found, "record": None} != {**expected, "record": None}:
            return False
        if expected["source"] in self._lost:
            return True
        # What was sent is proven by the sha256 of its batch; what was rejected, by nothing.
        if expected["state"] == Fate.REJECTED and self._changed_since(str(expected["source"])):
            self._find(
                f"record {expected['index']} ({expected['source']}, byte {expected['offset']}): "
                f"{self._rejects.path} has it otherwise than the source, which was written after the job began. If it "
                f"was mended in the report, {_REPORT_ADVICE.format(job=self._job.name)}, once it is retried; if the "
                "source was changed, put the old file back"
            )
        self.mended += 1
        return True

    def __exit__(self, *_: object) -> None:
        self._files.close()


class _Report:
    """One file, and how far it agrees."""

    def __init__(
        self,
        find: Callable[[str], None],
        job: Job,
        path: Path,
        files: ExitStack,
        is_mended: Callable[[dict[str, Any], dict[str, Any]], bool] = lambda _expected, _found: False,
        *,
        may_lack: bool = False,
    ) -> None:
        self.path = path
        self.lost = False
        """Lines were expected that could not be made: what stands there cannot be judged."""
        self._find_in_job = find
        self._advice = _REPORT_ADVICE.format(job=job.name)
        self._file: BinaryIO = files.enter_context(open(path, "rb", opener=regular))  # noqa: SIM115 - `files` closes it
        self._is_mended = is_mended
        self._may_lack = may_lack
        self.lacking = 0
        """Lines that are missing where lines may be."""
        self._line = 0

    def expect(self, indexes: Sequence[int], lines: Sequence[bytes]) -> None:
        """Compare the next lines of the file with those that should stand there."""
        whole = b"".join(lines)
        here = self._file.tell()
        if self._file.read(len(whole)) == whole:
            self._line += len(lines)
            return
        self._file.seek(here)
        for index, line in zip(indexes, lines, strict=True):
            self._expect_line(index, line)

    def _expect_line(self, index: int, expected: bytes) -> None:
        while True:
            here, found = self._file.tell(), self._file.readline()
            at = _index(found)
            if found and at is not None and at > index:
                self._file.seek(here)  # it belongs to a later record
                found = b""
            if not found and self._may_lack:
                self.lacking += 1
                return
            if not found:
                self._find(f"the line of record {index} is missing after line {self._line}")
                return
            self._line += 1
            if found == expected:
                return
            if at is None or at == index:
                self._judge(index, expected, found)
                return
            self._extra(at)

    def _judge(self, index: int, expected: bytes, found: bytes) -> None:
        """Say how a line differs that stands where that of record `index` should."""
        wanted = loads(expected)
        try:
            values = loads(found)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            self._find(f"line {self._line} should be that of record {index} and is no JSON object")
        elif not self._is_mended(wanted, values):
            keys = [key for key in {**wanted, **values} if wanted.get(key) != values.get(key)]
            what = (
                f"{keys[0]} is {_shown(values.get(keys[0]))}, not {_shown(wanted.get(keys[0]))}"
                if keys
                else ("it is written otherwise")
            )
            self._find(f"line {self._line}, record {index}: {what}, as the ledger has it")

    def _extra(self, index: int) -> None:
        if not self.lost:
            self._find(f"line {self._line} is another line of record {index}, or one that does not belong there")

    def finish(self) -> None:
        """See that the file ends here."""
        for found in self._rest():
            self._line += 1
            if not self.lost:
                self._find(f"line {self._line} stands behind the last record: {_shown(found.decode(errors='replace'))}")
                return

    def _rest(self) -> Iterator[bytes]:
        return iter(self._file.readline, b"")

    def _find(self, what: str) -> None:
        self._find_in_job(f"{self.path}: {what}; {self._advice}")


def _index(line: bytes) -> int | None:
    """Return the index of a line, None if it has none."""
    try:
        index = loads(line)["index"]
    except (ValueError, KeyError, TypeError):
        return None
    return index if isinstance(index, int) else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
