"""Requests and created tasks enter, counts leave: what a sandbox has seen, cheap enough to be always on."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counts since the start; `peak_requests` is the most requests that were in work at once."""

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rate_limited: int = 0
    batches: int = 0
    tasks_created: int = 0
    tasks_failed: int = 0
    tasks_run: int = 0
    requests_in_work: int = 0
    peak_requests: int = 0

    @contextmanager
    def request(self, kind: str) -> Iterator[None]:
        """Count one request while it is in work."""
        self.requests[kind] += 1
        self.requests_in_work += 1
        self.peak_requests = max(self.peak_requests, self.requests_in_work)
        try:
            yield
        finally:
            self.requests_in_work -= 1
