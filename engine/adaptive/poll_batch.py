"""One open batch, as far as polls have shown it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PolledBatch:
    """What is known of one open batch; times are those of the monotonic clock."""

    number: int
    """Orders batches by their release."""
    key: int
    count: int
    released_at: float
    looked_at: float
    created: int = 0
    speed: float = 0.0
    """Its own, in tasks/s, once it was seen under way."""
    begun_at: float = 0.0
    """When it should begin, or was seen to have begun."""
    ends_at: float = float("inf")
    quiet_since: float = 0.0
    """Nothing is known to have moved since."""
    due_at: float = float("inf")
    """When to look next; infinite while it is being asked about, or waits for a lane."""
    asked: bool = False
    """It is being asked about: when to look next is decided by the answer."""
    looks: int = 0
    unchanged: int = 0
    """Looks in a row that showed nothing new."""
    aim: float = 0.0
    """Of the next look, if it is the first that should find the batch done, so that it says whether the aim is good."""
    planned_speed: float = 0.0
    checked: bool = True
    """What was seen of it is no surprise, or was seen twice."""
    check_at: float = float("inf")
    """When to look again at the latest, for it began at nobody knows what time between two looks."""
    waits: bool = False
    """For a lane."""
    done: bool = False
    after: PolledBatch | None = None
    """The batch whose lane it takes over."""
    next: PolledBatch | None = None

    @property
    def left(self) -> int:
        """Tasks that were not seen yet."""
        return self.count - self.created

    @property
    def earliest(self) -> float:
        """When it can have begun at the earliest."""
        return max(self.begun_at, self.released_at)
