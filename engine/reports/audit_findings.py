"""What an audit counts and finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.model.record import Source, source_at

MOST_FINDINGS = 100
"""Findings that are spelled out; a broken disk would name millions."""


class Reported(StrEnum):
    """What was done with the reports of a job."""

    COMPARED = "compared"
    ABSENT = "absent"
    """They are not there, or not both: there is nothing to compare."""
    OUTDATED = "outdated"
    """They were written before the last step of a batch: `bulksubmit report` writes them anew."""


@dataclass(slots=True)
class Audit:
    """What an audit counted and what it found wrong."""

    job: str
    records: int = 0
    batches: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    unread_bytes: int = 0
    """Bytes of the sources that no batch covers yet: the job was stopped while it was reading."""
    findings: list[str] = field(default_factory=list)
    reports: Reported = Reported.ABSENT
    mended: int = 0
    """Records in the rejects report that are not as in the source: mended for `retry`, as a person may."""

    @property
    def holds(self) -> bool:
        """Whether input = created + failed + rejected + uncertain + unresolved, each record once."""
        return not self.findings and self.records == self.fates.total()

    def find(self, what: str) -> None:
        """Note something that is wrong."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(what)

    def find_all(self, findings: Iterable[str]) -> None:
        """Note several things that are wrong."""
        for what in findings:
            self.find(what)


def place(sources: Sequence[Source], offset: int) -> str:
    """Return the file and the byte in it at which joined `offset` stands."""
    if not sources:
        return f"byte {offset} of no source"
    source = source_at(sources, offset)
    return f"{source.path}, byte {offset - source.base}"
