"""Servers -> for each the best fixed setting, found by trying, beside what the rules come to without being told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.simulation.rivals import Fixed, Gradient2, Vector
from benchmarks.simulation.server import Server
from benchmarks.simulation.simulator import Rule, Run, simulate
from engine.adaptive.concurrency import Concurrency
from engine.model.settings import MOST_IN_FLIGHT

SETTINGS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, MOST_IN_FLIGHT)
COARSE = (1, 2, 4, 6, 8, 10, 14, 20, 28, 40, MOST_IN_FLIGHT)
"""Every other one."""

RIVALS: Mapping[str, Callable[[], Rule]] = {"Vector's rule": Vector, "Gradient2": Gradient2}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One server under all rules, with the same calls."""

    server: Server
    seed: int
    best_limit: int
    best: Run
    ours: Run
    rivals: Mapping[str, Run]

    @property
    def share(self) -> float:
        """Our throughput as a share of the best fixed setting's."""
        return self.share_of(self.ours)

    def share_of(self, run: Run) -> float:
        """Return a run's throughput as a share of the best fixed setting's."""
        return run.bytes_per_second / self.best.bytes_per_second


def compare(
    server: Server,
    seed: int = 1,
    settings: Sequence[int] = SETTINGS,
    rivals: Mapping[str, Callable[[], Rule]] = RIVALS,
) -> Comparison:
    """Run `server` under every fixed setting, under our rule and its rivals."""
    fixed = {limit: simulate(server, Fixed(limit), seed) for limit in settings}
    best = max(fixed, key=lambda limit: fixed[limit].bytes_per_second)
    ours = simulate(server, Concurrency(), seed)
    others = {name: simulate(server, rival(), seed) for name, rival in rivals.items()}
    return Comparison(server, seed, best, fixed[best], ours, others)
