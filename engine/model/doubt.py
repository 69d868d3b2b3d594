"""What is known of a batch of which an answer was lost. Pure; the uploader, recovery and the poller keep it up to date.

A call has three ends: it was applied, it was not applied, or it is applied later. What the service shows may lag behind
what it did. So one early *waiting* proves nothing, and a refusal of a repeat says nothing about the records. Two facts
are proof:

- The service shows that the batch was started. Then it is followed.
- It has shown nothing else than *waiting* up to the end of the settle time after the last call that may have had an
  effect. Then, and only then, that call is taken for one that never arrived. (How long that is:
  `adaptive.settle_time`.)

`Doubt` holds what is known; what follows from it stands in the table of `next_step`.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

from msgspec import Struct
from msgspec.structs import replace

from engine.model.submission import State


class Again(StrEnum):
    """What makes it safe to make a call again whose answer was lost. A service declares it."""

    SAFE = "safe"
    """Twice does no more than once: an empty batch that nobody fills, or an upsert."""
    KEY = "key"
    """The call has an idempotency key: a repeat is answered as the first attempt was, and does nothing more. For
    `Service.key_seconds` from the first attempt on."""
    EXISTS = "exists"
    """The service takes no second record with the same key: of a repeat it makes only what is not there yet."""
    REFUSED = "refused"
    """The vendor documents that a repeat is refused; the refusal is then the evidence that the first one arrived."""
    ASK = "ask"
    """The service can be asked about the batch by its name."""
    SEARCH = "search"
    """What the call made can be found by a client reference of ours."""
    NEVER = "never"
    """Nothing: whether it arrived cannot be found out."""


REPEATABLE = frozenset({Again.SAFE, Again.KEY, Again.EXISTS})
"""A repeat does no more than once, so whether an earlier attempt arrived need not be known."""

ASKED = frozenset({Again.ASK, Again.REFUSED})
"""The service knows a batch by its name before it is released, so it can be asked what became of its release."""

NAMELESS = frozenset({Again.SEARCH, Again.NEVER})
"""It has no such name for it, and a repeat may do it twice."""

INHERITED = frozenset({Again.SAFE, Again.EXISTS})
"""A batch may be halved after a lost attempt, for its records are the same whichever call brings them; so the halves
remember that attempt. With KEY the halves are other calls: such a batch is halved only once it is certain that nothing
of it was made."""


class RemoteStatus(Enum):
    """The remote status of a batch: what the service says when it is asked about it, or searched for it."""

    SILENT = auto()
    """Nothing: it was not asked yet, or its answer makes no sense."""
    WAITING = auto()
    """It is there, and was not released."""
    STARTED = auto()
    """It was released; or a search found its tasks."""
    PARTLY = auto()
    """A search found some of its records, and not the others."""
    ENDED = auto()
    """It has ended, and nothing of it was created."""
    NOT_THERE = auto()
    """There is no such batch; or a search, which is known to find what is there, found nothing."""
    UNPROVEN = auto()
    """A search found nothing, and was never seen to find anything."""


class Declined(Enum):
    """How the newest call to make or to release the batch was declined."""

    NO = auto()
    """It was not: it was answered, or its answer was lost."""
    REFUSED = auto()
    """Declined, for what the batch holds or for an unknown reason."""
    RELEASED_BEFORE = auto()
    """Declined because the batch is not waiting any more."""
    NOT_THERE = auto()
    """Declined because the service does not know the batch: it is gone, or not there yet."""
    BY_PROXY = auto()
    """A proxy keeps answering in the place of the service, which may have it all the same."""
    SUSPECT = auto()
    """A proxy declined it while other calls got through: what it holds may be the cause. That is no word of the
    service on what became of an earlier attempt."""


class Cancel(Enum):
    """What became of our call to cancel the batch."""

    UNTRIED = auto()
    CONFIRMED = auto()
    DECLINED = auto()


class Wish(Enum):
    """What a person wants of the job."""

    SEND = auto()
    CANCEL = auto()
    """Create nothing more."""
    SEND_AGAIN = auto()
    """Whatever may come twice: `retry --uncertain`."""


MOST_REPEATS = 12
"""Times that one batch is released again in a run while every answer is lost. If one answer in three is lost, a smaller
number would stop one job of a hundred thousand batches in ten."""

MOST_SILENT = 12
"""Questions in a row without an answer that makes sense. Asking is harmless; only time is lost."""


class Doubt(Struct, frozen=True):
    """What is known of a batch of which an answer was lost, or a release declined. Times are monotonic seconds."""

    state: State
    again: Again
    """Of the call in doubt: to stage in STAGING, to release in every other state."""
    since: float
    """When the last call that may still have an effect was lost, or went out at the latest."""
    named: bool = True
    """The service has given it a name, by which it can be asked about."""
    wish: Wish = Wish.SEND
    lost: bool = True
    """A call to make or to release it may have arrived."""
    declined: Declined = Declined.NO
    cancel: Cancel = Cancel.UNTRIED
    remote_status: RemoteStatus = RemoteStatus.SILENT
    asked_at: float = float("-inf")
    """When the question was sent that `remote_status` answers."""
    repeats: int = 0
    silent: int = 0
    """Questions in a row without an answer that makes sense."""
    expired: bool = False
    """Its idempotency key is too old, or what was staged with it is given up: a repeat would be a new call."""

    def with_answer(self, remote_status: RemoteStatus, asked_at: float) -> Doubt:
        """Take in what the service says to a question that was sent at a time."""
        if remote_status is RemoteStatus.SILENT:
            return replace(self, silent=self.silent + 1)
        return replace(self, remote_status=remote_status, asked_at=asked_at, silent=0)

    def with_repeat(self, now: float, declined: Declined) -> Doubt:
        """Take in that it was released again and the answer was lost or the call declined; the call ended at `now`."""
        lost = declined is Declined.NO
        return replace(
            self,
            since=now,
            lost=self.lost or lost,
            declined=declined,
            remote_status=RemoteStatus.SILENT,
            repeats=self.repeats + 1,
        )

    def with_cancel(self, now: float, cancel: Cancel) -> Doubt:
        """Take in what became of our call to cancel it."""
        return replace(self, since=now, cancel=cancel, remote_status=RemoteStatus.SILENT)

    def is_past_settle_time(self, settle_seconds: float) -> bool:
        """Return whether the newest reading was made when every call of ours must have shown its effect."""
        return self.remote_status is not RemoteStatus.SILENT and self.asked_at - self.since >= settle_seconds
