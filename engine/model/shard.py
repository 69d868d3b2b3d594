"""Shards: frozen batches side by side that one process at a time sends, of a job that several processes share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

SHARD_BATCHES = 16
SHARD_RECORDS = 8_000
"""A shard ends at either: of batches of 1,000 records it has 8, where each record is a batch 16."""
MISSED_SECONDS = 10.0
"""Of silence: five renewals. A worker that is silent for longer is lost, or cut off."""
AWAY_SECONDS = 5.0
"""A worker that had no answer of the ledger for so long takes nothing over for as long again: the others may have had
none, either, and renew their leases now."""
MOST_LOST_WORKERS = 3
"""Workers that a shard may lose before it is parked: what killed three would kill the next one."""


class ShardState(StrEnum):
    """Where a shard stands."""

    OPEN = "open"
    """Something of it is to be sent or followed."""
    SETTLING = "settling"
    """Only batches are left of which nobody knows whether they arrived; its holder searches for them at the end."""
    DONE = "done"
    LEFT = "left"
    """Its holder has done what could be done; the next `resume` goes on with the rest."""
    PARKED = "parked"
    """It was lost with too many workers; a person decides."""


class Shard(Struct, frozen=True):
    """A shard, and who has the lease of it."""

    first: int
    """Sequence of its first batch; parts belong to the batch they are parts of."""
    last: int
    state: ShardState
    token: int
    """One more with each lease."""
    holder: str = ""
    """The worker that has the lease; empty: nobody."""
    expires_at: float = 0.0
    """Unix seconds by the ledger's clock."""
    losses: int = 0
    """Leases that were not given back."""
    lost: str = ""
    """The workers that had them, with spaces between."""


class ShardCounts(Struct, frozen=True):
    """How many shards of a job are not at their end, as a worker sees them."""

    free: int
    """Nobody has them, or their lease has ended."""
    others: int
    """Other workers have them, and something of them is to be sent or followed."""
    others_settling: int
    """Other workers have them, and only search for what was lost."""


class LeaseTerms(Struct, frozen=True):
    """How a worker has its leases."""

    worker: str
    """Its name."""
    seconds: float
    """How long a lease lasts from its taking, or its renewal."""
    call_seconds: float
    """The longest that a call takes: none begins that could end after the lease."""


class Worker(Struct, frozen=True):
    """A process that sends shards of a job."""

    name: str
    """Host, process and a random part."""
    begun_at: float
    """Unix seconds by the ledger's clock."""
    seen_at: float
    """Likewise, when it was heard of last."""
    silent_seconds: float
    """Since then."""
    lease_seconds: float | None
    """Until others may have what it has; None: it has nothing."""

    @property
    def is_missed(self) -> bool:
        """Whether it has something, and is lost or cut off, as it seems."""
        return self.lease_seconds is not None and self.silent_seconds > MISSED_SECONDS


def cut_into_shards(counts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return first and last sequence of the shards of batches side by side, given (sequence, records) of each."""
    shards: list[tuple[int, int]] = []
    records = 0
    for sequence, count in counts:
        first = shards[-1][0] if shards else sequence
        if shards and sequence - first < SHARD_BATCHES and records + count <= SHARD_RECORDS:
            shards[-1] = (first, sequence)
            records += count
        else:
            shards.append((sequence, sequence))
            records = count
    return shards
