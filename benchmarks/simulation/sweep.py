"""Servers -> for each the best fixed setting, found by trying, beside what the rules come to without being told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulation.rivals import Fixed, Vector
from benchmarks.simulation.server import Server
from benchmarks.simulation.simulator import Run, simulate
from engine.model.settings import MOST_IN_FLIGHT
from engine.policy.concurrency import Concurrency

SETTINGS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, MOST_IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One server under all rules, with the same calls."""

    server: Server
    seed: int
    best_limit: int
    best: Run
    ours: Run
    vector: Run

    @property
    def share(self) -> float:
        """Our throughput as a share of the best fixed setting's."""
        return self.ours.bytes_per_second / self.best.bytes_per_second

    @property
    def vector_share(self) -> float:
        """Vector's throughput as a share of the best fixed setting's."""
        return self.vector.bytes_per_second / self.best.bytes_per_second


def compare(server: Server, seed: int = 1, settings: Sequence[int] = SETTINGS) -> Comparison:
    """Run `server` under every fixed setting and under both rules."""
    fixed = {limit: simulate(server, Fixed(limit), seed) for limit in settings}
    best = max(fixed, key=lambda limit: fixed[limit].bytes_per_second)
    ours, vector = (simulate(server, rule, seed) for rule in (Concurrency(), Vector()))
    return Comparison(server, seed, best, fixed[best], ours, vector)
