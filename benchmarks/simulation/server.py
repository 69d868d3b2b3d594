"""A server's description (`servers/*.toml`) and calls -> when each is answered, and how. Virtual time.

One model covers them all: calls travel for `network_seconds`, may be told off by a rate limit, wait first come first
served for one of `workers`, and share what the server can do. With `n` in work it does `parallel(n)` seconds of work a
second, each call an equal part (processor sharing), so workers that do not disturb each other have `parallel(n) = n`.
`crowding` and `coherence` are the two coefficients of the Universal Scalability Law (Gunther); `collapse` is what
remains of the total with each further call, for servers whose locks fight, such as SQLite behind many writers.
"""

from __future__ import annotations

import math
import random
import tomllib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "servers"


@dataclass(frozen=True, slots=True)
class Turn:
    """From `at_seconds` on the server has other workers or another speed."""

    at_seconds: float
    workers: int | None = None
    speed: float | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """How a server behaves, and what is sent to it."""

    name: str
    about: str
    calls: int
    """Answered calls after which a run ends."""
    network_seconds: float = 0.01
    """Both ways together."""
    call_seconds: float = 0.1
    """Work of a call of no bytes."""
    mebibyte_seconds: float = 0.0
    """Work per MiB of payload on top of it."""
    workers: int = 1000
    crowding: float = 0.0
    coherence: float = 0.0
    collapse: float = 1.0
    spread: float = 0.0
    """Sigma of the log-normal by which the work of a call differs; its mean stays."""
    tail_share: float = 0.0
    """Share of calls that take `tail_factor` times as long."""
    tail_factor: float = 1.0
    rate_per_second: float | None = None
    """Calls taken; one beyond is answered 429 at once."""
    burst: int = 10
    retry_after_seconds: float | None = None
    """Said with a 429."""
    lost_share: float = 0.0
    """Share of answers that never come; the client notices at `lost_seconds`."""
    lost_seconds: float = 5.0
    supply_per_second: float | None = None
    """Batches that the client itself can deliver."""
    batch_bytes: tuple[int, ...] = (300_000,)
    """Sizes of the payloads, drawn evenly."""
    turns: tuple[Turn, ...] = ()

    def parallel(self, active: int) -> float:
        """Seconds of work done a second while `active` calls are worked on."""
        scaled = active / (1 + self.crowding * (active - 1) + self.coherence * active * (active - 1))
        return scaled * float(self.collapse ** (active - 1))


def load(path: Path) -> Server:
    """Read one description; its file name is the server's name."""
    read: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    turns = tuple(Turn(**turn) for turn in read.pop("turns", []))
    sizes = tuple(read.pop("batch_bytes", Server.__dataclass_fields__["batch_bytes"].default))
    return Server(name=path.stem, turns=turns, batch_bytes=sizes, **read)


def servers(folder: Path = FOLDER) -> Sequence[Server]:
    """Return every server described in `folder`, by name."""
    return [load(path) for path in sorted(folder.glob("*.toml"))]


@dataclass(slots=True)
class Demand:
    """What each call asks of a server, the same for whoever drives it: draws depend on seed and call number alone."""

    server: Server
    seed: int
    _sizes: list[int] = field(default_factory=list)
    _work: list[float] = field(default_factory=list)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.server.name}-{self.seed}")

    def of(self, number: int) -> tuple[int, float]:
        """Return the bytes of a call and the seconds of work it takes."""
        while len(self._work) <= number:
            self._draw()
        return self._sizes[number], self._work[number]

    def _draw(self) -> None:
        server, draw = self.server, self._random
        size = draw.choice(server.batch_bytes)
        work = server.call_seconds + server.mebibyte_seconds * size / 2**20
        if server.spread:
            work *= math.exp(draw.gauss(0, server.spread) - server.spread**2 / 2)
        if draw.random() < server.tail_share:
            work *= server.tail_factor
        self._sizes.append(size)
        self._work.append(work)


@dataclass(slots=True)
class Workshop:
    """The workers of a server: calls in, finished calls out, in virtual time."""

    server: Server
    workers: int = 0
    speed: float = 1.0
    _now: float = 0.0
    _done_each: float = 0.0
    """Work that every call present from the start would have got by now; finish times are kept on this scale."""
    _active: list[tuple[float, int]] = field(default_factory=list)
    _waiting: deque[tuple[int, float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.workers = self.server.workers

    def arrive(self, now: float, call: int, work: float) -> None:
        """Take a call in."""
        self._advance(now)
        self._waiting.append((call, work))
        self._fill()

    def next_finish(self) -> float:
        """Return when the next call is done, as things stand."""
        if not self._active:
            return math.inf
        return self._now + max(0.0, self._active[0][0] - self._done_each) / self._pace()

    def finish(self, now: float) -> int:
        """Hand out the call that is done now."""
        self._advance(now)
        _, call = heappop(self._active)
        self._fill()
        return call

    def change(self, now: float, turn: Turn) -> None:
        """Change workers or speed; calls in work stay in work."""
        self._advance(now)
        self.workers = turn.workers or self.workers
        self.speed = turn.speed or self.speed
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._active) < self.workers:
            call, work = self._waiting.popleft()
            heappush(self._active, (self._done_each + work, call))

    def _advance(self, now: float) -> None:
        if self._active:
            self._done_each += (now - self._now) * self._pace()
        self._now = now

    def _pace(self) -> float:
        return self.speed * self.server.parallel(len(self._active)) / len(self._active)
