"""Events: facts about a run, emitted where they happen; displays, the log and the bench listen. None carries a secret.

One event per block, batch or call, never one per record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from engine.adaptive.concurrency import LimitChanged
from engine.model.outcome import Settlement, Tally
from engine.model.submission import State
from engine.progress.text import size


class JobStarted(msgspec.Struct, frozen=True):
    """A process begins to work on a job, or only checks records."""

    job: str
    """"" where records are only checked."""
    size_bytes: int
    read_bytes: int = 0
    """Read by earlier runs."""
    before: Tally = msgspec.field(default_factory=Tally)
    """What earlier runs have done."""


class JobTallied(msgspec.Struct, frozen=True):
    """How a job stands that several processes send: what all of them have done so far."""

    tally: Tally
    read_bytes: int
    """Joined offset up to which the sources are frozen."""


class BatchesFrozen(msgspec.Struct, frozen=True):
    """Batches were cut and are durable."""

    batches: int
    """Those that go up; one of nothing but rejects and known records is settled already."""
    records: int
    rejected: int
    read_bytes: int
    """Joined offset up to which the sources are frozen."""
    last: bool
    skipped: int = 0
    """Records that the family of the job has already."""


class BatchMoved(msgspec.Struct, frozen=True):
    """A batch changed its state."""

    sequence: int
    before: State
    after: State
    records: int
    size_bytes: int
    reason: str = ""


class BatchProgressed(msgspec.Struct, frozen=True):
    """A poll found more of a batch's tasks created."""

    sequence: int
    created: int
    before: int


class BatchSettled(msgspec.Struct, frozen=True):
    """The fate of each record of a batch is durable: known, or found to be uncertain."""

    sequence: int
    created: int
    failed: int
    first_error: str = ""
    """Why the first one failed; where none did, why the first one is uncertain."""
    uncertain: int = 0

    @classmethod
    def of(cls, sequence: int, settlement: Settlement) -> BatchSettled:
        """Return the event for a batch with this settlement."""
        errors, uncertain = settlement.errors, settlement.uncertain
        first = next(iter((errors or uncertain).values()), "")
        return cls(sequence, settlement.created, len(errors), first, len(uncertain))


class BatchesWaiting(msgspec.Struct, frozen=True):
    """The service has accepted batches and does not begin with them; they are followed and not released again."""

    batches: int
    seconds: float
    """Of the one that waits longest."""
    names: str
    """Of the first ones."""


class Noticed(msgspec.Struct, frozen=True):
    """Something new about the service that a person should know; emitted once a run."""

    text: str


class SourceCopied(msgspec.Struct, frozen=True):
    """A source that cannot be read where it is becomes a file of ours, before there is a job; emitted as that goes on.

    The first one has no bytes done, the last one says that it has `ended`.
    """

    name: str
    """What people know it by."""
    path: str
    """Of the copy."""
    doing: str
    """What is done: `fetched`, `unpacked`, `converted`, …"""
    done_bytes: int
    """Of the original, packed."""
    size_bytes: int | None
    """Likewise; None if nobody knows."""
    copied_bytes: int
    """Of the copy."""
    ended: bool = False

    @property
    def is_news(self) -> bool:
        """Whether it deserves a line of its own."""
        return self.ended or not self.done_bytes

    @property
    def words(self) -> str:
        """How far the source is, on one line."""
        amount = "" if self.size_bytes is None else size(self.size_bytes)
        if self.ended:
            return f"{self.name} is {self.doing}: {size(self.copied_bytes)} in {self.path}"
        if not self.done_bytes:
            return f"{self.name}{f' ({amount})' if amount else ''} is {self.doing} first, to {self.path}"
        grown = "" if self.copied_bytes == self.done_bytes else f", {size(self.copied_bytes)} written"
        return f"{self.name}: {size(self.done_bytes)}{f' of {amount}' if amount else ''} {self.doing}{grown}"


class CallStarted(msgspec.Struct, frozen=True):
    """A request goes out."""

    kind: str


class CallEnded(msgspec.Struct, frozen=True):
    """An answer came, or the wait for it ended."""

    kind: str
    seconds: float
    sent_bytes: int
    status: int | None
    """None: no answer."""


class CallRetried(msgspec.Struct, frozen=True):
    """A call will be made again."""

    kind: str
    attempt: int
    wait_seconds: float
    reason: str
    """The same for all calls that fail alike."""
    left_seconds: float | None = None
    """For so long it is tried again and again; None: not known."""
    failure: str = ""
    """What was called and what the service said, for people; "" if nobody words it."""


WORTH_SAYING_SECONDS = 1.0
"""A shorter wait is no news for people."""


class Paused(msgspec.Struct, frozen=True):
    """The service cannot be reached, or pushes back: calls wait."""

    reason: str
    wait_seconds: float

    @property
    def brief(self) -> bool:
        """Whether people need not hear of it; a batch that met it took longer all the same."""
        return self.wait_seconds <= WORTH_SAYING_SECONDS


class Spaced(msgspec.Struct, frozen=True):
    """The next call waits for its turn, by a pace that is configured or learnt, or until it may have an answer."""

    reason: str
    wait_seconds: float


class ToldWaits:
    """Until when people know of a wait, by its reason: each is told once while it lasts, and a short one never."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        """Reason → monotonic seconds."""

    def news(self, wait: Paused | Spaced, now: float) -> Paused | Spaced | None:
        """Return a wait that begins now if people are to be told of it."""
        if wait.wait_seconds <= WORTH_SAYING_SECONDS or now < self._until.get(wait.reason, 0.0):
            return None
        self._until[wait.reason] = now + wait.wait_seconds
        return wait


class Stopping(msgspec.Struct, frozen=True):
    """The run ends before the job is finished."""

    reason: str


class JobEnded(msgspec.Struct, frozen=True):
    """The run is over."""

    job: str
    state: str


class EventsDropped(msgspec.Struct, frozen=True):
    """Whoever iterates over the events of a run was too slow: so many are missing here, and the newest follow."""

    events: int


Event: TypeAlias = (
    JobStarted
    | BatchesFrozen
    | JobTallied
    | BatchMoved
    | BatchProgressed
    | BatchSettled
    | BatchesWaiting
    | Noticed
    | SourceCopied
    | CallStarted
    | CallEnded
    | CallRetried
    | Paused
    | Spaced
    | LimitChanged
    | Stopping
    | JobEnded
)
Listener: TypeAlias = Callable[[Event], None]
"""Takes an event; must be quick and must not raise."""


def unheard(event: Event) -> None:
    """Ignore an event: the listener where nobody listens."""
    del event


def fan_out(*listeners: Listener) -> Listener:
    """Return a listener that passes each event to all `listeners`, in order."""

    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit
