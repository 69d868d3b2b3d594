"""A server's description (`servers/*.toml`) and calls -> when each is answered, and how. Virtual time.

One model covers them all: calls travel for `network_seconds`, may be told off by a rate limit, wait first come first
served for one of `workers`, and share what the server can do. With `n` in work it does `parallel(n)` seconds of work a
second, each call an equal part (processor sharing), so workers that do not disturb each other have `parallel(n) = n`.
Both may change by the clock, by chance, or because calls had to wait.
`crowding` and `coherence` are the two coefficients of the Universal Scalability Law (Gunther); `collapse` is what
remains of the total with each further call, for servers whose locks fight, such as SQLite behind many writers.
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "servers"
"""Those that the controller's parameters were chosen on."""
HELD_OUT = FOLDER / "held_out"
"""Written before the controller met any of them."""
KEPT_BACK = FOLDER / "kept_back"
"""Written with those, and not run until what they had shown was mended."""


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
    fits: int | None = None
    """Calls in work beyond which everything takes `swapping` times as long."""
    swapping: float = 1.0
    most_calls: int | None = None
    """A call that arrives while there are so many is never answered."""
    spread: float = 0.0
    """Sigma of the log-normal by which the work of a call differs; its mean stays."""
    tail_share: float = 0.0
    """Share of calls that take `tail_factor` times as long."""
    tail_factor: float = 1.0
    pareto_shape: float | None = None
    """Shape of the Pareto law by which the work of a call differs; its mean stays."""
    cold_factor: float = 1.0
    """How many times as long the first call takes; `cold_calls` later a third of the excess is left."""
    cold_calls: float = 1.0
    rate_per_second: float | None = None
    """Calls taken; one beyond is answered 429 at once."""
    burst: int = 10
    retry_after_seconds: float | None = None
    """Said with a 429, and with a 503."""
    queue_seconds: float | None = None
    """A call that has waited so long for a worker is answered 503."""
    lost_share: float = 0.0
    """Share of answers that never come; the client notices at `lost_seconds`."""
    lost_seconds: float = 5.0
    supply_per_second: float | None = None
    """Batches that the client itself can deliver."""
    batch_bytes: tuple[int, ...] = (300_000,)
    """Sizes of the payloads, drawn evenly."""
    turns: tuple[Turn, ...] = ()
    every_seconds: float | None = None
    """The turns come round again so often."""
    walk_seconds: float | None = None
    """So often the number of workers takes a step of a random walk, between a quarter and twice of what it was."""
    walk_step: float = 0.0
    """Sigma of the log-normal step."""
    scale_seconds: float | None = None
    """So often there are half as many workers more, up to `most_workers`, if a call had to wait for one."""
    most_workers: int = 0

    def parallel(self, active: int) -> float:
        """Seconds of work done a second while `active` calls are worked on."""
        scaled = active / (1 + self.crowding * (active - 1) + self.coherence * active * (active - 1))
        if self.fits is not None and active > self.fits:
            scaled /= self.swapping
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
        if server.pareto_shape:
            work *= draw.paretovariate(server.pareto_shape) * (1 - 1 / server.pareto_shape)
        work *= 1 + (server.cold_factor - 1) * math.exp(-len(self._work) / server.cold_calls)
        self._sizes.append(size)
        self._work.append(work)


@dataclass(slots=True)
class Workshop:
    """The workers of a server: calls in, finished calls out, in virtual time."""

    server: Server
    seed: int
    workers: int = 0
    speed: float = 1.0
    _now: float = 0.0
    _done_each: float = 0.0
    """Work that every call present from the start would have got by now; finish times are kept on this scale."""
    _active: list[tuple[float, int]] = field(default_factory=list)
    _waiting: dict[int, float] = field(default_factory=dict)
    _had_to_wait: bool = False
    _level: float = 1.0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.workers = self.server.workers
        self._random = random.Random(f"{self.server.name}-{self.seed}-walk")

    def arrive(self, now: float, call: int, work: float) -> None:
        """Take a call in."""
        self._advance(now)
        self._waiting[call] = work
        self._fill()
        self._had_to_wait |= bool(self._waiting)

    @property
    def full(self) -> bool:
        """Tell whether no further call would be answered."""
        most = self.server.most_calls
        return most is not None and len(self._active) + len(self._waiting) >= most

    def turn_away(self, call: int) -> bool:
        """Let a call go if it still waits for a worker."""
        return self._waiting.pop(call, None) is not None

    def next_finish(self) -> float:
        """Return when the next call is done, as things stand."""
        if not self._active or not self.speed:
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
        self.speed = self.speed if turn.speed is None else turn.speed
        self._fill()

    def walk(self, now: float) -> None:
        """Take a step of the random walk."""
        self._level = min(2.0, max(0.25, self._level * math.exp(self._random.gauss(0, self.server.walk_step))))
        self.change(now, Turn(now, workers=max(1, round(self.server.workers * self._level))))

    def scale(self, now: float) -> None:
        """Get more workers if there were too few."""
        more = math.ceil(self.workers * 1.5) if self._had_to_wait else self.workers
        self.change(now, Turn(now, workers=min(more, self.server.most_workers)))
        self._had_to_wait = bool(self._waiting)

    def _fill(self) -> None:
        while self._waiting and len(self._active) < self.workers:
            call = next(iter(self._waiting))
            work = self._waiting.pop(call)
            heappush(self._active, (self._done_each + work, call))

    def _advance(self, now: float) -> None:
        if self._active:
            self._done_each += (now - self._now) * self._pace()
        self._now = now

    def _pace(self) -> float:
        return self.speed * self.server.parallel(len(self._active)) / len(self._active)
