"""The life of a batch at the service: its states and the only steps between them, which the ledger checks.

Two rules. A state that ends in -ING is an *intent*: it is durable before the call goes out, so that after a crash we
know that the call may have been made. A state that ends in -ED is a *result*: it is durable before anything builds on
it.

    FROZEN ─ STAGING ─ STAGED ─ RELEASING ─ RELEASED ─ SETTLED
       └───────(inline)───────────┘   └─ UNCERTAIN ─┘

STAGING is harmless: what it leaves behind is empty, or can be found again. RELEASING starts the work, so after a lost
answer it is made again only where a repeat does no more than once. What is done instead stands in the table of
`model.next_step`, by what is known of the batch (`model.doubt`). A batch of which an earlier release may have arrived
remembers that (`sent_at`) wherever it stands; so do its halves where their records may be there by it.

A batch that the service refuses as a whole leaves this road: it is SPLIT, and its two halves begin as FROZEN. So does
one that has not been sent yet, once others have shown that it would not get through.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    """Where a batch stands."""

    FROZEN = "frozen"
    STAGING = "staging"
    STAGED = "staged"
    RELEASING = "releasing"
    RELEASED = "released"
    SETTLED = "settled"
    UNCERTAIN = "uncertain"
    SPLIT = "split"
    """Refused as a whole, or too large to be sent: its halves stand for it."""


TRANSITIONS: dict[State, frozenset[State]] = {
    # SETTLED from everywhere: a batch that the service refuses, or that a person cancels, has its outcome.
    # SPLIT: as much was refused before, or timed out. UNCERTAIN: it is half of a batch that may have arrived, and
    # nothing more is sent.
    State.FROZEN: frozenset({State.STAGING, State.RELEASING, State.SETTLED, State.SPLIT, State.UNCERTAIN}),
    # STAGING again: the answer was lost, or the process died. UNCERTAIN: what it made could not be canceled.
    # FROZEN again: it was refused, and not for its records, as far as is known.
    State.STAGING: frozenset({State.STAGING, State.STAGED, State.FROZEN, State.SETTLED, State.UNCERTAIN}),
    # STAGING again: the upload URL is too old, or died with the process (it is a secret and not kept).
    # SPLIT: the store refuses the upload as too large, or it gets lost on the way again and again.
    # FROZEN again: a single record does, and is tried once more; or the job goes to another project.
    State.STAGED: frozenset({State.STAGING, State.RELEASING, State.FROZEN, State.SETTLED, State.SPLIT}),
    # FROZEN again: an inline call that was certainly not applied. RELEASING again: it is released again, or its turn
    # has only come now.
    State.RELEASING: frozenset(
        {State.RELEASING, State.RELEASED, State.FROZEN, State.UNCERTAIN, State.SETTLED, State.SPLIT}
    ),
    # UNCERTAIN: the service has forgotten a batch that it had accepted. RELEASING: a person has it released again.
    State.RELEASED: frozenset({State.SETTLED, State.UNCERTAIN, State.RELEASING}),
    # A later run asks again about a batch whose name at the service is known, and goes on from what it says.
    # RELEASING, FROZEN: a person has it released or sent again. FROZEN: it is proven that it never arrived.
    State.UNCERTAIN: frozenset({State.RELEASING, State.RELEASED, State.SETTLED, State.FROZEN}),
    State.SETTLED: frozenset(),
    State.SPLIT: frozenset(),
}

UNSENT = frozenset({State.FROZEN, State.STAGING, State.STAGED, State.RELEASING})
"""States from which the uploader goes on."""


class Submission(Struct, frozen=True):
    """A batch's life at the service, as the ledger knows it."""

    sequence: int
    state: State = State.FROZEN
    remote_id: str | None = None
    """The service's name for the batch, once staged or released."""
    changed_at: float = 0.0
    """Unix seconds of the last transition."""
    note: str = ""
    """Why it is in this state, where the state does not say it."""
    sent_at: float | None = None
    """Unix seconds of the first release that may have arrived, of it or of a batch whose half it is; None: none may."""
