"""The runs of a job, as the ledger remembers them: each is the work of one command, with what it did from time to time.

`commands.runs` writes them while the command works; `status` shows them. A run without an end is one that works still,
or one that was killed: the job's lock tells which. What a run did, the ledger tells in any case: the numbers of the job
stand there, and those from before the run stand with the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.model.outcome import Tally

CANCEL, REFRESH, UNDO = "cancel", "refresh", "undo"
"""Commands that are runs and load nothing. Interrupted, each goes on when it is called once more."""
LOADING_NOTHING = frozenset({CANCEL, REFRESH, UNDO})


class Spread(Struct, frozen=True, omit_defaults=True):
    """How long many things took: what is kept of a `progress.histogram.Histogram`."""

    counts: Mapping[int, int] = {}
    """Bucket → how many."""
    longest: float = 0.0
    """Seconds."""


class CallCounts(Struct, frozen=True, omit_defaults=True):
    """How the calls of one kind went in a run."""

    calls: int = 0
    sent_bytes: int = 0
    answers: Mapping[str, int] = {}
    """HTTP status, or NO_ANSWER → calls."""
    seconds: Spread = Spread()
    """From when a call went out until it was answered or given up."""


NO_ANSWER = "no answer"


class LimitStep(Struct, frozen=True):
    """A limit that a run has changed by itself."""

    at_seconds: float
    """Since the run began."""
    name: str
    before: int
    after: int
    reason: str


class BatchTime(Struct, frozen=True):
    """How long a batch took, that one run has sent and settled."""

    sequence: int
    records: int
    size_bytes: int
    seconds: float
    """From its first step until it was settled."""
    settle_seconds: float
    """From when it was released until it was settled."""


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
    calls: Mapping[str, CallCounts] = {}
    """Kind of call → how those went."""
    waits: Mapping[str, float] = {}
    """Reason → seconds for which calls were told to wait."""
    retry_reasons: Mapping[str, int] = {}
    """Reason → calls that were made again."""
    limit_steps: Sequence[LimitStep] = ()
    """Oldest first; of very many the first one is there, and the more of the others the newer they are."""
    limits_changed: int = 0
    """How often in all."""
    batch_seconds: Spread = Spread()
    """Of the batches that it has both sent and settled."""
    slowest: Sequence[BatchTime] = ()
    """Of them, the slowest first."""
    later: Mapping[str, int] = {}
    """What became of created tasks afterwards → how many more of them than before. Less than nothing, as above."""

    @classmethod
    def of_job(cls, tally: Tally, later: Mapping[str, int]) -> RunCounts:
        """Return the numbers of a whole job."""
        numbers = {name: getattr(tally, name) for name in _NUMBERS}
        return cls(**numbers, later={fate: number for fate, number in later.items() if number})

    def since(self, before: RunCounts, now: RunCounts) -> RunCounts:
        """Return these counts with what the ledger knows better: how the numbers of the job have changed."""
        numbers = {name: getattr(now, name) - getattr(before, name) for name in _NUMBERS}
        later = {fate: now.later.get(fate, 0) - before.later.get(fate, 0) for fate in {**before.later, **now.later}}
        return replace(self, **numbers, later={fate: more for fate, more in later.items() if more})


_NUMBERS = ("records", "created", "failed", "rejected", "uncertain", "skipped")


class Sample(Struct, frozen=True, omit_defaults=True):
    """What a run did in the seconds before one moment."""

    at: float
    """Unix seconds."""
    seconds: float
    """Since the sample before."""
    tasks_per_second: float = 0.0
    """Records that were sent and whose fate became known; and so the next two."""
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
    """The work of one command on a job."""

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
    command: str = ""
    """submit, resume, nightly, retry, check, cancel, undo, refresh or bench; empty: from an older bulksubmit."""
    counts_before: RunCounts | None = None
    """The numbers of the job when it began; None: not known."""


def counted(runs: Sequence[PastRun], now: RunCounts) -> Sequence[PastRun]:
    """Return the runs of a job, oldest first, each with what it did; `now` are the numbers of the job.

    What a run did are the numbers of the job until the next run begins: one that was killed could not say it, and other
    workers may have gone on after its end with what it had begun.
    """
    told = []
    for number, run in enumerate(runs, 1):
        after = next((later.counts_before for later in runs[number:] if later.counts_before is not None), now)
        if run.counts_before is not None:
            run = replace(run, counts=run.counts.since(run.counts_before, after))  # noqa: PLW2901 - as it is told
        told.append(run)
    return told


class PastAudit(Struct, frozen=True, omit_defaults=True):
    """What the last audit of a job found."""

    at: float
    """Unix seconds when it began: what came later is not in it."""
    holds: bool
    """Nothing is wrong, and all was compared with the sources."""
    records: int
    batches: int
    findings: Sequence[str] = ()
    """The first ones."""
    found: int = 0
    """How many there were; an audit stops counting at some hundred."""
    unproven: Sequence[str] = ()
    """For each source that is gone or another file by now: what could not be compared with it; the first ones."""
    unread_bytes: int = 0
    """Bytes of the sources that the job had not read."""
    open_records: int = 0
    """Records that were unresolved or uncertain."""
    reports: str = ""
    """What was done with the reports: compared, absent or outdated."""


class Standing(Struct, frozen=True):
    """How the runs of a load that comes back went, so that a failed one does not look good."""

    last_success: float | None = 0.0
    """Unix seconds when one ended with exit code 0; 0 if none did, None if nobody could look."""
    last_completion: float = 0.0
    """Unix seconds when one ended, however; 0 if none did."""
    exit_code: int | None = None
    """Of that one."""
