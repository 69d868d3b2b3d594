"""The fates of records enter, batch by batch; what the two report files say otherwise leaves.

Both sides are streams by index. A batch whose lines are all as expected is compared in one piece; only where it is not,
lines are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import orjson

from engine.model.errors import SourceError
from engine.model.job import Job
from engine.reports.audit_findings import Audit
from engine.reports.outcomes import Fated, RecordAt, Reports, outcome_lines, reject_lines

ChangedSince: TypeAlias = Callable[[str], bool]
"""Path of a source → whether it was written after the job began."""

_ADVICE = "`bulksubmit report {job}` writes it anew"
_LONGEST_SHOWN = 80


class ReportsCheck(AbstractContextManager["ReportsCheck"]):
    """Goes through both reports beside the ledger."""

    def __init__(
        self, audit: Audit, job: Job, reports: Reports, record_at: RecordAt, changed_since: ChangedSince
    ) -> None:
        self._audit = audit
        self._job = job
        self._record_at = record_at
        self._changed_since = changed_since
        with ExitStack() as files:
            self._outcomes = _Report(audit, job, reports.outcomes, files)
            self._rejects = _Report(audit, job, reports.rejects, files, self._is_mended)
            self._files = files.pop_all()

    def check(self, block: Sequence[Fated]) -> None:
        """Compare the lines of one batch."""
        if not block:
            return
        indexes = [fated.outcome.index for fated in block]
        self._outcomes.expect(indexes, list(outcome_lines(block)))
        try:
            lines = list(reject_lines(self._job, block, self._record_at))
        except SourceError as error:
            self._audit.find(f"{self._rejects.path}: not compared for records {indexes[0]} to {indexes[-1]}: {error}")
            lines = []
            self._rejects.lost = True
        self._rejects.expect([int(orjson.loads(line)["index"]) for line in lines], lines)

    def finish(self) -> None:
        """See that nothing stands behind the last record."""
        self._outcomes.finish()
        self._rejects.finish()

    def _is_mended(self, expected: dict[str, Any], found: dict[str, Any]) -> bool:
        """Tell whether a line of the rejects differs as it does where a person mended its record."""
        if {**found, "record": None} != {**expected, "record": None}:
            return False
        if self._changed_since(str(expected["source"])):
            self._audit.find(
                f"record {expected['index']} ({expected['source']}, byte {expected['offset']}): the source was written "
                f"after the job began, and {self._rejects.path} has the record otherwise. Put the old source back; if "
                f"only the report was mended, {_ADVICE.format(job=self._job.name)}"
            )
        self._audit.mended += 1
        return True

    def __exit__(self, *_: object) -> None:
        self._files.close()


class _Report:
    """One file, and how far it agrees."""

    def __init__(
        self,
        audit: Audit,
        job: Job,
        path: Path,
        files: ExitStack,
        is_mended: Callable[[dict[str, Any], dict[str, Any]], bool] = lambda _expected, _found: False,
    ) -> None:
        self.path = path
        self.lost = False
        """Lines were expected that could not be made: what stands there cannot be judged."""
        self._audit = audit
        self._advice = _ADVICE.format(job=job.name)
        self._file: BinaryIO = files.enter_context(path.open("rb"))
        self._is_mended = is_mended
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
        wanted = orjson.loads(expected)
        try:
            values = orjson.loads(found)
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
        self._audit.find(f"{self.path}: {what}; {self._advice}")


def _index(line: bytes) -> int | None:
    """Return the index of a line, None if it has none."""
    try:
        index = orjson.loads(line)["index"]
    except (ValueError, KeyError, TypeError):
        return None
    return index if isinstance(index, int) else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
