"""A job: the sources that one `submit` loads into a service, as the ledger knows it. Its name can name a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from engine.model.errors import JobError
from engine.model.record import Source

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class JobState(StrEnum):
    """Where a job stands. Its lock tells whether a process works on it just now."""

    OPEN = "open"
    """Not finished: `resume` goes on."""
    FINISHED = "finished"
    """Every record has its outcome."""
    CANCELED = "canceled"
    """A person ended it; what was created stays, and what was not sent is unresolved until `resume` goes on."""
    REMOVED = "removed"
    """`prune` takes it out of the ledger; if it was killed in between, the next one takes the rest."""


class Job(Struct, frozen=True):
    """One load, as the ledger knows it."""

    name: str
    service: str
    config: str
    """The TOML it was submitted with, references to secrets unexpanded."""
    sources: Sequence[Source]
    output: str
    """Folder of the reports."""
    state: JobState = JobState.OPEN
    read_complete: bool = False
    """Every source is frozen into batches to its last byte."""
    parent: str | None = None
    """The job whose failures this one retries."""
    attempt: int = 1
    until: str = ""
    """When a record counts as done, in the words of its service; its default where empty."""
    strict: bool = False
    """Nothing is sent before all is read and every record is fit to be sent."""
    learnt: str = ""
    """What the service said before anything was frozen, and what goes up depends on; "" until it is asked."""
    slowest_start: float = 0.0
    """Seconds: the longest time for which the service went on to say that a released batch waits."""
    lost_stages: int = 0
    """Calls to stage whose answer was lost: each may have left something at the service, which is not released."""
    created_at: float = 0.0
    """Unix seconds."""
    family: str = ""
    """The load that comes back, each night say, and that this job is one of; "" if it does not."""
    delta: bool = False
    """Records that a job of its family has created are skipped."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all its sources."""
        return sum(source.size for source in self.sources)


def check_job_name(name: str) -> str:
    """Return `name` if it can name a job, a folder and a lock file.

    Raises:
        JobError: it could leave the folder, hide, or confuse a shell.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise JobError(
            f"job name {name!r} cannot be used: take 1 to 100 letters, digits, '.', '_' or '-', "
            "the first a letter or digit, and no '..'"
        )
    return name
