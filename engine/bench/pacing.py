"""Plans in, the same plans out one batch at a time: each when it is due, on a schedule or as soon as it is asked for.

The pipeline asks for the next plan when it has room, in a worker thread, so whoever waits here holds up nothing else.
In an open loop a batch that is asked for late was due all the same: its time is that of the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from engine.batch.chunker import Plan
from engine.bench.ladder import Load
from engine.model.batch import Batch

Due: TypeAlias = Callable[[Batch, float], None]
"""Is told of each batch, and of the monotonic second at which it was due."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The time, and how to wait."""

    monotonic: Callable[[], float]
    wait: Callable[[float], bool]
    """Wait for some seconds; True, at once, if the step ends early."""


def paced(plans: Iterator[Plan], load: Load, seconds: float, timing: Timing, due: Due) -> Iterator[Plan]:
    """Yield `plans` as the load wants them, a closed loop for `seconds` at most; the last one yielded says so."""
    started = timing.monotonic()
    for plan in _singly(plans):
        at = timing.monotonic()
        if load.rate is not None and plan.batches:
            # A batch is complete once its last record has arrived.
            at = started + plan.batches[0].end.index / load.rate
        over = load.rate is None and at - started >= seconds
        if over or timing.wait(max(0.0, at - timing.monotonic())):
            yield Plan((), (), plan.reached, last=True)
            return
        for batch in plan.batches:
            due(batch, at)
        yield plan


def _singly(plans: Iterator[Plan]) -> Iterator[Plan]:
    """Yield each batch as a plan of its own, with the rejects within its boundaries."""
    for plan in plans:
        if not plan.batches:
            yield plan
        for batch in plan.batches:
            within = range(batch.start.index, batch.end.index)
            rejects = [reject for reject in plan.rejects if reject.index in within]
            yield Plan((batch,), rejects, plan.reached, last=plan.last and batch is plan.batches[-1])
