"""What became of each record: its fate, by batch as the ledger keeps it, by record as the reports show it, and in all.

Every record has exactly one fate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct


class Fate(StrEnum):
    """The ends of a record; every record has exactly one."""

    CREATED = "created"
    """Its task exists. What became of that since, `later` says."""
    FAILED = "failed"
    """The service said no to it."""
    REJECTED = "rejected"
    """It never left: it was not fit to be sent."""
    UNCERTAIN = "uncertain"
    """It was sent, and what became of it cannot be found out."""
    SKIPPED = "skipped"
    """It was not sent, since an earlier job of its family has it."""
    UNRESOLVED = "unresolved"
    """Its end is not known yet; `resume` goes on."""


class Settlement(Struct, frozen=True):
    """The fate of every record of a batch, by position in the batch."""

    task_ids: Sequence[str | None]
    """The service's id for each record; None where no task is known, "" where there is one whose id nobody says."""
    errors: Mapping[int, str] = {}
    """Position → the service's reason, for the records that it refused."""
    note: str = ""
    """What a person should know of the batch besides."""
    details: Mapping[int, Mapping[str, Any]] = {}
    """Position → what else the service says of the record's task, as JSON: its status, its children."""
    uncertain: Mapping[int, str] = {}
    """Position → why it is uncertain what became of the record. Each position has an id, an error or an uncertainty."""

    @property
    def created(self) -> int:
        """Records that became tasks."""
        return len(self.task_ids) - len(self.errors) - len(self.uncertain)

    def unclear(self) -> frozenset[int]:
        """Return the positions that have none of an id, an error and an uncertainty, or two of them."""
        if not self.errors and not self.uncertain and None not in self.task_ids:
            return frozenset()
        errors, uncertain = self.errors.keys(), self.uncertain.keys()
        missing = not all(self.task_ids)  # mostly none is, and this is seen in C
        without_id = {at for at, task_id in enumerate(self.task_ids) if task_id is None} if missing else set()
        return frozenset((without_id ^ (errors | uncertain)) | (errors & uncertain))

    @classmethod
    def refused(cls, count: int, reason: str) -> Settlement:
        """Every one of `count` records failed for one reason."""
        return cls([None] * count, dict.fromkeys(range(count), reason))


class Kept(Struct, frozen=True):
    """What the ledger holds of a batch's records, in whatever state the batch is: for the audit."""

    created: int = 0
    """As the batch's own row counts them; so the next two."""
    failed: int = 0
    uncertain: int = 0
    settlement: Settlement | None = None


class Outcome(Struct, frozen=True):
    """What became of one record: a line of `outcomes.ndjson`."""

    index: int
    """Number of the record, from 0, over all sources."""
    source: str
    """File that it came from, as it was named."""
    offset: int
    """Byte at which it begins in its source, from 0."""
    state: Fate
    """Its fate: one of the values below."""
    task_id: str | None = None
    """The service's id of its task; null where there is none, empty where it is not known."""
    batch_id: str | None = None
    """The service's name of the batch, or of the call, that it went up with."""
    url: str | None = None
    """Page of the task."""
    error: str | None = None
    """Why it was not created, or why nobody knows; null where it was."""
    details: Mapping[str, Any] = {}
    """Further keys of the line, where the service has more to say."""

    def as_line(self) -> dict[str, Any]:
        """Return the keys of its line."""
        return {
            "index": self.index,
            "source": self.source,
            "offset": self.offset,
            "state": self.state,
            "task_id": self.task_id,
            "batch_id": self.batch_id,
            "url": self.url,
            "error": self.error,
            **self.details,
        }

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Outcome:
        """Return the outcome whose line has these keys."""
        own = {name: line[name] for name in cls.__struct_fields__ if name in line and name != "details"}
        return cls(**{**own, "state": Fate(line["state"])}, details={k: line[k] for k in line.keys() - own.keys()})


class Holding(Struct, frozen=True, gc=False):
    """What another job has in the place of a record that was skipped."""

    job: str
    index: int
    task_id: str | None = None
    """None: nobody knew when it was skipped."""
    batch_id: str | None = None


class Later(StrEnum):
    """What may become of a created record's task afterwards."""

    FAILED = "failed"
    """It failed, and nothing more happens to it."""
    REJECTED = "rejected"
    """People did not take the work on it: it goes through their hands once more."""
    COMPLETED = "completed"
    """It came to its end, and nothing more happens to it."""
    UNDONE = "undone"
    """It was taken back: it is not there any more."""


LASTING = frozenset({Later.FAILED, Later.COMPLETED, Later.UNDONE})
"""Later fates that change no more."""


class LaterFate(Struct, frozen=True):
    """What became of a created record's task afterwards."""

    fate: str
    """failed: its task did; undone: it was taken back; the others of `Later`."""
    reason: str
    """The service's words, or ours."""
    seen_at: float
    """Unix seconds."""


class Tally(Struct, frozen=True):
    """How many records ended how, and how many batches stand where: the numbers of a job."""

    records: int = 0
    batches: int = 0
    created: int = 0
    failed: int = 0
    rejected: int = 0
    uncertain: int = 0
    states: Mapping[str, int] = {}
    skipped: int = 0

    @property
    def resolved(self) -> int:
        """Records whose fate is durable."""
        return self.created + self.failed + self.rejected + self.uncertain + self.skipped

    @property
    def unresolved(self) -> int:
        """Records read whose end is not known."""
        return self.records - self.resolved
