"""Whether tasks are listed in the order in which they were sent: a guess until it was proven. Pure.

The proof is one page of the project's tasks, which shows their content. It is due for the first batch and for every
hundredth after it, for a service may change. Where it is not to be had, it is tried again ever more seldom, and what
follows the order is said to be unproven. Once the order was seen broken, nothing follows it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

PROOF_BATCHES = 100
"""Settled from one proof to the next: a call in four hundred."""


class Proof(Enum):
    """What was seen of the order."""

    NONE = auto()
    HOLDS = auto()
    BROKEN = auto()


@dataclass(slots=True)
class TaskOrder:
    """The order in which one kind of list stands."""

    proof: Proof = Proof.NONE
    tried: int = 0
    """Proofs in a row that were not to be had."""
    _batches: int = 0
    _due_at: int = 0

    @property
    def holds(self) -> bool:
        """Whether it was proven, and never seen broken."""
        return self.proof is Proof.HOLDS

    @property
    def due(self) -> bool:
        """Whether the batch that is settled next is to prove it."""
        return self.proof is not Proof.BROKEN and self._batches >= self._due_at

    def settled(self) -> None:
        """Count a batch."""
        self._batches += 1

    def proven(self) -> None:
        """Note that one page fits."""
        if self.proof is Proof.NONE:
            self.proof = Proof.HOLDS
        self.tried, self._due_at = 0, self._batches + PROOF_BATCHES

    def not_proven(self) -> None:
        """Note that nothing could be compared."""
        self.tried += 1
        self._due_at = self._batches + min(2**self.tried - 1, PROOF_BATCHES)

    def broken(self) -> None:
        """Note that a task stands elsewhere than its record."""
        self.proof = Proof.BROKEN
