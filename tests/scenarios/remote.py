"""A batch at the simulated server: what happened to it and when, and so what was to be seen of it at a time."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(slots=True)
class RemoteBatch:
    """A batch at the server."""

    number: int
    url_until: float = float("inf")
    tasks: list[dict] | None = None
    """None: nothing was uploaded."""
    told: bool = False
    """Its release was accepted, whenever that is done."""
    late: int = 0
    """Releases that are still to come."""
    released_at: list[float] = field(default_factory=list)
    release_number: int = 0
    """Its place among all that were released, from 1."""
    task_ids: list[str] = field(default_factory=list)
    created_at: list[float] = field(default_factory=list)
    """Of each task."""
    canceled_at: float | None = None

    @property
    def canceled(self) -> bool:
        return self.canceled_at is not None and not self.released_at

    def created(self, at: float) -> list[str]:
        """Return the ids of the tasks that were there at a time."""
        return self.task_ids[: bisect_right(self.created_at, at)]

    def status(self, at: float) -> dict[str, object]:
        """Return what a status says of a time; before the batch began it was waiting."""
        releases, created = bisect_right(self.released_at, at), len(self.created(at))
        total = len(self.tasks or []) * max(1, releases)
        if releases:
            state = "completed" if created == total else "in_progress"
        else:
            state = "waiting" if self.canceled_at is None or self.canceled_at > at else "canceled"
        return {"batch_id": self.number, "state": state, "total": total, "created": created}
