"""The table of what to do next about a batch in doubt. Pure: it makes no call and keeps no time.

Recovery, canceling and the poller of released batches call `next_step`; none of them decides by itself. It returns the
first row that fits what is known (`model.doubt`), so a row counts only for what no row before it fits. The explorer in
the tests walks through it with everything that may happen to a call.

The module is a long one: it is one table, and a row means nothing without those before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

from msgspec import Struct
from msgspec.structs import replace

from engine.model.doubt import (
    MOST_REPEATS,
    MOST_SILENT,
    NAMELESS,
    REPEATABLE,
    Again,
    Cancel,
    Declined,
    Doubt,
    RemoteStatus,
    Wish,
)
from engine.model.submission import State

NEVER_ARRIVED = "no search found it: it never arrived"


class Action(Enum):
    """What to do next."""

    ASK = auto()
    """Ask the service later, or again."""
    RELEASE_AGAIN = auto()
    """Release it (again)."""
    STAGE = auto()
    """Stage it again, from the beginning."""
    SEND = auto()
    """It never arrived: send it as if for the first time."""
    ADOPT = auto()
    """What the lost call made is there: go on with it."""
    FOLLOW = auto()
    """It was released: follow it, or settle it by what a search has brought."""
    CANCEL = auto()
    """Ask the service to create nothing of it."""
    FAIL = auto()
    """It is certain that nothing was created and nothing will be: its records fail, or it is halved."""
    PARK = auto()
    """It cannot be found out what became of it: it is uncertain."""
    STOP = auto()
    """End the run; `resume` asks again."""


class NextStep(Struct, frozen=True):
    """What to do next, and why."""

    action: Action
    reason: str


class StepRow(Struct, frozen=True):
    """One row of the table. A column that is left out fits everything."""

    action: Action
    reason: str
    state: Collection[State] = ()
    again: Collection[Again] = ()
    remote_status: Collection[RemoteStatus] = ()
    declined: Collection[Declined] = ()
    cancel: Collection[Cancel] = ()
    wish: Collection[Wish] = ()
    past_settle_time: bool | None = None
    """The newest reading was made at the end of the settle time, or later."""
    lost: bool | None = None
    named: bool | None = None
    out_of_repeats: bool | None = None
    """It was made or released again MOST_REPEATS times."""
    out_of_questions: bool | None = None
    """It was asked MOST_SILENT times in vain."""
    expired: bool | None = None

    def fits(self, doubt: Doubt, *, past_settle_time: bool) -> bool:
        """Return whether the row is about a doubt like this."""
        words = (
            (self.state, doubt.state),
            (self.again, doubt.again),
            (self.remote_status, doubt.remote_status),
            (self.declined, doubt.declined),
            (self.cancel, doubt.cancel),
            (self.wish, doubt.wish),
        )
        flags = (
            (self.past_settle_time, past_settle_time),
            (self.lost, doubt.lost),
            (self.named, doubt.named),
            (self.out_of_repeats, doubt.repeats >= MOST_REPEATS),
            (self.out_of_questions, doubt.silent >= MOST_SILENT),
            (self.expired, doubt.expired),
        )
        return all(not column or value in column for column, value in words) and all(
            wanted is None or wanted == flag for wanted, flag in flags
        )


def _of(state: State, *rows: StepRow) -> Sequence[StepRow]:
    """Return rows about batches in one state; a row that names states of its own keeps them."""
    return [row if row.state else replace(row, state=(state,)) for row in rows]


_THERE = (RemoteStatus.WAITING, RemoteStatus.STARTED, RemoteStatus.ENDED)
_NOTHING_MADE = (RemoteStatus.WAITING, RemoteStatus.ENDED, RemoteStatus.NOT_THERE)
_UNHEEDED = (Declined.NO, Declined.NOT_THERE, Declined.BY_PROXY)
"""The service said nothing about what the batch holds."""

_SILENCE = (
    # One batch whose polls make no sense ends no run; what must be known before a release does.
    StepRow(
        Action.PARK,
        "the service says nothing of it that makes sense",
        state=(State.RELEASED, State.UNCERTAIN),
        out_of_questions=True,
    ),
    StepRow(Action.STOP, "the service does not say what became of it", out_of_questions=True),
)

_STAGING = _of(
    State.STAGING,
    StepRow(
        Action.FAIL,
        "the service refused it, and nothing was lost before",
        state=(State.FROZEN, State.STAGING, State.STAGED),
        declined=(Declined.REFUSED, Declined.RELEASED_BEFORE),
        lost=False,
    ),
    StepRow(Action.STOP, "the answers to its staging are lost again and again", out_of_repeats=True),
    StepRow(
        Action.FAIL,
        "the service refused it, and what was lost before is empty",
        again=(Again.SAFE,),
        declined=(Declined.REFUSED, Declined.RELEASED_BEFORE),
    ),
    StepRow(Action.STAGE, "an empty batch may be made twice", again=(Again.SAFE,), wish=(Wish.SEND,)),
    StepRow(Action.FAIL, "an empty batch creates nothing", again=(Again.SAFE,)),
    StepRow(Action.FAIL, "what was made is canceled", cancel=(Cancel.CONFIRMED,)),
    StepRow(Action.PARK, "what was made could not be canceled", cancel=(Cancel.DECLINED,)),
    StepRow(Action.CANCEL, "what was made shall not stay", remote_status=_THERE, wish=(Wish.CANCEL,)),
    StepRow(
        Action.CANCEL, "what an earlier call made shall not stay", remote_status=_THERE, declined=(Declined.REFUSED,)
    ),
    StepRow(Action.ADOPT, "what the lost call made was found", remote_status=_THERE),
    StepRow(
        Action.FAIL,
        "nothing was made",
        remote_status=(RemoteStatus.NOT_THERE,),
        wish=(Wish.CANCEL,),
        past_settle_time=True,
    ),
    StepRow(
        Action.FAIL,
        "it was refused, and nothing was made before",
        remote_status=(RemoteStatus.NOT_THERE,),
        declined=(Declined.REFUSED,),
        past_settle_time=True,
    ),
    StepRow(
        Action.STAGE,
        "nothing was found for the whole settle time",
        remote_status=(RemoteStatus.NOT_THERE,),
        past_settle_time=True,
    ),
)

_REPEATED = _of(
    State.RELEASING,
    StepRow(Action.PARK, "no answer tells what became of it, no more is sent", again=REPEATABLE, wish=(Wish.CANCEL,)),
    # The service's own no. The same call would have had it before, so an earlier attempt has made nothing, either.
    StepRow(Action.FAIL, "the service refused it", again=REPEATABLE, declined=(Declined.REFUSED,)),
    StepRow(
        Action.FAIL,
        "it was refused, and nothing was lost before",
        again=REPEATABLE,
        declined=(Declined.RELEASED_BEFORE, Declined.SUSPECT),
        lost=False,
    ),
    StepRow(
        Action.PARK,
        "an answer was lost, and its idempotency key is too old for a repeat",
        again=(Again.KEY,),
        expired=True,
        lost=True,
    ),
    StepRow(
        Action.PARK,
        "an answer was lost, and what was staged of it is gone: sent anew it would be another call with the same key",
        again=(Again.KEY,),
        declined=(Declined.NOT_THERE,),
        lost=True,
    ),
    StepRow(
        Action.PARK,
        "an answer was lost, and now a proxy turns it away again and again",
        again=REPEATABLE,
        declined=(Declined.SUSPECT,),
        out_of_repeats=True,
    ),
    StepRow(Action.STOP, "it does not get through, again and again", again=REPEATABLE, out_of_repeats=True),
    StepRow(Action.SEND, "what was staged of it is gone", again=REPEATABLE, declined=(Declined.NOT_THERE,)),
    StepRow(Action.RELEASE_AGAIN, "a repeat does no more than once", again=REPEATABLE),
)
"""Releases that may be repeated: nobody is asked what became of the earlier attempt."""

_RELEASING = _of(
    State.RELEASING,
    StepRow(Action.FOLLOW, "the service had started it", remote_status=(RemoteStatus.STARTED,)),
    # If nothing was lost before, a refusal is the service's own no, also where it cannot be asked.
    StepRow(
        Action.FAIL,
        "the service refused it",
        again=NAMELESS,
        declined=(Declined.REFUSED, Declined.RELEASED_BEFORE),
        lost=False,
    ),
    StepRow(
        Action.STOP,
        "what is staged of it is gone whenever it is released",
        again=NAMELESS,
        declined=(Declined.NOT_THERE,),
        lost=False,
        out_of_repeats=True,
    ),
    StepRow(
        Action.SEND,
        "what was staged of it is gone",
        again=NAMELESS,
        declined=(Declined.NOT_THERE,),
        lost=False,
    ),
    StepRow(Action.PARK, "no answer tells what became of it", again=NAMELESS),
    StepRow(Action.CANCEL, "nothing more is to be created", cancel=(Cancel.UNTRIED,), wish=(Wish.CANCEL,)),
    # The evidence that an earlier release arrived; canceling what has only not begun would undo good work.
    StepRow(
        Action.FOLLOW,
        "the service refused to release it twice: the first one arrived",
        declined=(Declined.RELEASED_BEFORE,),
        cancel=(Cancel.UNTRIED,),
    ),
    StepRow(
        Action.FAIL,
        "it is canceled, and nothing was created",
        remote_status=_NOTHING_MADE,
        cancel=(Cancel.CONFIRMED,),
        past_settle_time=True,
    ),
    StepRow(Action.ASK, "it is canceled; an earlier release may still show", cancel=(Cancel.CONFIRMED,)),
    StepRow(
        Action.PARK,
        "it could not be canceled, and the service does not say that it was started",
        remote_status=(RemoteStatus.WAITING, RemoteStatus.NOT_THERE),
        cancel=(Cancel.DECLINED,),
        past_settle_time=True,
    ),
    StepRow(Action.FOLLOW, "it has ended; its settlement tells the rest", remote_status=(RemoteStatus.ENDED,)),
    StepRow(
        Action.FAIL,
        "the service refused it while it waited",
        remote_status=(RemoteStatus.WAITING,),
        declined=(Declined.REFUSED,),
        lost=False,
    ),
    StepRow(
        Action.CANCEL,
        "it was refused, and an earlier release may have arrived",
        remote_status=(RemoteStatus.WAITING,),
        declined=(Declined.REFUSED,),
        cancel=(Cancel.UNTRIED,),
        past_settle_time=True,
    ),
    StepRow(
        Action.PARK, "the service no longer knows it", remote_status=(RemoteStatus.NOT_THERE,), past_settle_time=True
    ),
    StepRow(
        Action.STOP,
        "the answers to its release are lost again and again",
        declined=_UNHEEDED,
        cancel=(Cancel.UNTRIED,),
        out_of_repeats=True,
    ),
    StepRow(
        Action.RELEASE_AGAIN,
        "a second release is refused where the first one arrived",
        again=(Again.REFUSED,),
        declined=(Declined.NO,),
        cancel=(Cancel.UNTRIED,),
    ),
    # A batch that is gone for good would be released over and over: first ask whether it is there.
    StepRow(
        Action.RELEASE_AGAIN,
        "the service did not find the batch when it was released; it waits now",
        again=(Again.REFUSED,),
        remote_status=(RemoteStatus.WAITING,),
        declined=(Declined.NOT_THERE, Declined.BY_PROXY),
        cancel=(Cancel.UNTRIED,),
    ),
    StepRow(
        Action.RELEASE_AGAIN,
        "it has said waiting, and nothing else, for the whole settle time",
        again=(Again.ASK,),
        remote_status=(RemoteStatus.WAITING,),
        declined=_UNHEEDED,
        cancel=(Cancel.UNTRIED,),
        past_settle_time=True,
    ),
)

_UNCERTAIN = _of(
    State.UNCERTAIN,
    StepRow(Action.FOLLOW, "the service has it after all", remote_status=(RemoteStatus.STARTED, RemoteStatus.ENDED)),
    StepRow(
        Action.RELEASE_AGAIN,
        "it still waits, and a person has it released again",
        state=(State.UNCERTAIN, State.RELEASED),
        again=(Again.ASK, Again.REFUSED),
        remote_status=(RemoteStatus.WAITING,),
        wish=(Wish.SEND_AGAIN,),
    ),
    StepRow(Action.SEND, "a person has it sent again", wish=(Wish.SEND_AGAIN,), named=False),
    StepRow(
        Action.SEND,
        "the service does not have it, and a person has it sent again",
        remote_status=(RemoteStatus.NOT_THERE, RemoteStatus.WAITING),
        wish=(Wish.SEND_AGAIN,),
    ),
    StepRow(Action.PARK, "nobody can know", again=(Again.NEVER,), named=False),
    StepRow(Action.PARK, "nothing more is sent", again=REPEATABLE, wish=(Wish.CANCEL,), named=False),
    StepRow(
        Action.PARK,
        "its idempotency key is too old for a repeat, or what was staged with it is given up",
        again=(Again.KEY,),
        expired=True,
        named=False,
    ),
    StepRow(Action.SEND, "a repeat does no more than once", again=REPEATABLE, named=False),
    StepRow(
        Action.FOLLOW,
        "a search finds some of its records, and not the others",
        again=(Again.SEARCH,),
        remote_status=(RemoteStatus.PARTLY,),
        past_settle_time=True,
        named=False,
    ),
    StepRow(
        Action.FAIL,
        NEVER_ARRIVED,
        again=(Again.SEARCH,),
        remote_status=(RemoteStatus.NOT_THERE,),
        wish=(Wish.CANCEL,),
        past_settle_time=True,
        named=False,
    ),
    StepRow(
        Action.SEND,
        NEVER_ARRIVED,
        again=(Again.SEARCH,),
        remote_status=(RemoteStatus.NOT_THERE,),
        past_settle_time=True,
        named=False,
    ),
    StepRow(
        Action.PARK,
        "a search finds nothing of it, and has never been seen to find anything",
        again=(Again.SEARCH,),
        remote_status=(RemoteStatus.UNPROVEN,),
        past_settle_time=True,
        named=False,
    ),
    StepRow(
        Action.CANCEL,
        "nothing more is to be created",
        remote_status=(RemoteStatus.WAITING,),
        cancel=(Cancel.UNTRIED,),
        wish=(Wish.CANCEL,),
        named=True,
    ),
    StepRow(
        Action.FAIL,
        "it is canceled, and nothing was created",
        remote_status=_NOTHING_MADE,
        cancel=(Cancel.CONFIRMED,),
        past_settle_time=True,
    ),
    StepRow(
        Action.ASK,
        "it is canceled; an earlier release may still show",
        cancel=(Cancel.CONFIRMED,),
        past_settle_time=False,
    ),
    # It was accepted once, or asked about in vain: only a person may have it released again.
    StepRow(
        Action.PARK,
        "the service still does not say what became of it",
        remote_status=(RemoteStatus.WAITING, RemoteStatus.NOT_THERE),
        named=True,
    ),
)

_RELEASED = _of(
    State.RELEASED,
    StepRow(
        Action.SEND,
        "it still waits, and a person has it sent again",
        again=NAMELESS | REPEATABLE,
        remote_status=(RemoteStatus.WAITING,),
        wish=(Wish.SEND_AGAIN,),
    ),
    StepRow(
        Action.CANCEL,
        "nothing more of it is to be created",
        remote_status=(RemoteStatus.SILENT,),
        cancel=(Cancel.UNTRIED,),
        wish=(Wish.CANCEL,),
    ),
    StepRow(Action.FOLLOW, "what it created is to be told", wish=(Wish.CANCEL,), past_settle_time=False),
    StepRow(Action.FOLLOW, "the service works on it", remote_status=(RemoteStatus.STARTED, RemoteStatus.ENDED)),
    StepRow(Action.FOLLOW, "it may only be slow to begin", remote_status=(RemoteStatus.WAITING,)),
    StepRow(
        Action.PARK,
        "the service no longer says anything of it",
        remote_status=(RemoteStatus.NOT_THERE,),
        past_settle_time=True,
    ),
)

_OTHERS = (
    StepRow(Action.FAIL, "nothing of it was sent", state=(State.FROZEN,), wish=(Wish.CANCEL,)),
    StepRow(
        Action.CANCEL,
        "it was staged, and shall not stay",
        state=(State.STAGED,),
        cancel=(Cancel.UNTRIED,),
        wish=(Wish.CANCEL,),
    ),
    StepRow(Action.FAIL, "it was never released", state=(State.STAGED,), wish=(Wish.CANCEL,)),
    StepRow(Action.ASK, "what was lost may still show"),
)

STEP_TABLE: tuple[StepRow, ...] = (*_SILENCE, *_STAGING, *_REPEATED, *_RELEASING, *_UNCERTAIN, *_RELEASED, *_OTHERS)
"""Every row, in order: the first that fits counts, and the last one fits always."""


def next_step(doubt: Doubt, settle_seconds: float) -> NextStep:
    """Return what to do next about a batch in doubt, where every call shows its effect within `settle_seconds`."""
    past_settle_time = doubt.is_past_settle_time(settle_seconds)
    row = next(row for row in STEP_TABLE if row.fits(doubt, past_settle_time=past_settle_time))
    return NextStep(row.action, row.reason)
