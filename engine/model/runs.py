"""The runs of a job, as the ledger remembers them: each is the work of one process, with what it did from time to time.

`commands.runs` writes them while the process works; `status` shows them. A run without an end is one that works still,
or one that was killed: the job's lock tells which.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class RunCounts(Struct, frozen=True, omit_defaults=True):
    """What a run did itself; earlier runs of the job are not in it."""

    records: int = 0
    """Read."""
    created: int = 0
    failed: int = 0
    rejected: int = 0
    uncertain: int = 0
    """Less than nothing, where the run found out what had become of some."""
    skipped: int = 0
    sent_bytes: int = 0
    requests: int = 0
    retries: int = 0
    warnings: int = 0
    """Lines of its log file that warn, those that found no room there included."""
    seconds: Mapping[str, float] = {}
    """Stage → seconds between its first and its last event; stages overlap, since records flow."""


class Sample(Struct, frozen=True, omit_defaults=True):
    """What a run did in the seconds before one moment."""

    at: float
    """Unix seconds."""
    seconds: float
    """Since the sample before."""
    tasks_per_second: float = 0.0
    """Records whose fate became known; and so the next two."""
    bytes_per_second: float = 0.0
    requests_per_second: float = 0.0
    requests_open: int = 0
    """Without an answer at that moment."""
    in_flight: int = 0
    """Batches on their way to the service at that moment."""
    limit: int = 0
    """Of them."""
    limit_reason: str = ""
    """Why it is what it is; empty if it never changed."""
    waits: Mapping[str, float] = {}
    """Reason → seconds for which calls were told to wait."""
    retries: Mapping[str, int] = {}
    """Reason → calls that were made again."""


class PastRun(Struct, frozen=True):
    """The work of one process on a job."""

    number: int
    """1, 2, …"""
    begun_at: float
    """Unix seconds."""
    host: str
    version: str
    """Of bulksubmit."""
    ended_at: float | None = None
    """Unix seconds; None while it works, and for good if it was killed."""
    exit_code: int | None = None
    """What the process told its parent; None likewise."""
    reason: str = ""
    """Why it ended, in words; empty if it came to its end."""
    counts: RunCounts = RunCounts()


class Standing(Struct, frozen=True):
    """How the runs of a load that comes back went, so that a failed one does not look good."""

    last_success: float | None = 0.0
    """Unix seconds when one ended with exit code 0; 0 if none did, None if nobody could look."""
    last_completion: float = 0.0
    """Unix seconds when one ended, however; 0 if none did."""
    exit_code: int | None = None
    """Of that one."""
