"""What a person wants measured, what that may create, and what came of it, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bench.ladder import Knee, Load
from engine.bench.meter import Measure
from engine.model.outcome import Tally
from engine.progress.figures import duration

DEFAULT_RECORDS = 10_000
DEFAULT_SECONDS = 10.0

MANY_BATCHES = 24
"""With fewer, one that happens to fall into another moment shows in the figures of its step."""
LONG_PAUSE_SECONDS = 1.0
LASTING_PAUSES = 2.0
"""Times the longest wait that a step must last for its throughput to be that of waits and work together."""


@dataclass(frozen=True, slots=True)
class BenchOrder:
    """What is to be measured."""

    config: Path
    sources: Sequence[str] = ()
    """Files of tasks; made up where there are none."""
    records: int = DEFAULT_RECORDS
    """A step has at most."""
    steps: str | None = None
    """Batches at once of each step, `1,2,4,auto`; doubled where left out."""
    rates: Sequence[str] = ()
    """Records per second of each step; then it is an open loop."""
    seconds: float = DEFAULT_SECONDS
    """Tasks are sent for so long in a step."""
    output: Path | None = None
    seed: int | None = None
    """Of the generated tasks; drawn where left out."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What an order would do."""

    kind: str
    host: str
    local: bool
    """The host is this machine."""
    project: str
    """As the configuration names it; empty if it names none."""
    loads: Sequence[Load]

    @property
    def most_tasks(self) -> int:
        """Tasks that it may create."""
        return sum(load.records for load in self.loads)


@dataclass(frozen=True, slots=True)
class BenchStep:
    """A load and what was measured under it."""

    load: Load
    job: str
    """Its name in the ledger."""
    started: float
    """Seconds after the first step began."""
    measure: Measure

    @property
    def is_bursty(self) -> bool:
        """Calls had to wait, and it was too short to hold several such waits: what it reached does not last."""
        return self.measure.longest_pause >= max(LONG_PAUSE_SECONDS, self.measure.seconds / LASTING_PAUSES)

    @property
    def is_short(self) -> bool:
        """It had its time, and too few batches were sent to rely on its figures."""
        return self.measure.batches < MANY_BATCHES and not self.measure.unfinished


@dataclass(frozen=True, slots=True)
class Bench:
    """What was measured."""

    plan: BenchPlan
    seconds: float
    """Tasks were sent for so long in a step, at most."""
    seed: int | None
    """None: the tasks came from files."""
    settings: Mapping[str, Any]
    """Those of the configuration that bear on speed."""
    steps: Sequence[BenchStep]
    knee: Knee | None
    ended: str
    """Why it ended where it did."""
    tally: Tally
    exit_code: int
    folder: Path

    @property
    def best(self) -> BenchStep | None:
        """The step with the highest throughput; None if nothing was created."""
        reached = [step for step in self.steps if step.measure.created]
        return max(reached, key=lambda step: step.measure.throughput, default=None)

    @property
    def hints(self) -> Sequence[str]:
        """What keeps the figures from being relied on."""
        return [*self._pauses(), *self._short_steps()]

    def _pauses(self) -> Iterator[str]:
        for step in self.steps:
            if step.is_bursty:
                yield (
                    f"Step {step.load.label}: calls waited for {duration(step.measure.longest_pause)}: "
                    f"{step.measure.pause_reason}. What was reached before does not last."
                )

    def _short_steps(self) -> Iterator[str]:
        short = [step.load.label for step in self.steps if step.is_short]
        if short:
            yield (
                f"Fewer than {MANY_BATCHES} batches were sent in step {', '.join(short)}: "
                "with more --records and --seconds its figures can be relied on."
            )

    @property
    def outcomes(self) -> Path:
        """Every record and its task: what was created can be deleted by it."""
        return self.folder / "outcomes.ndjson"

    @property
    def ledger(self) -> Path:
        """Each step is a job there."""
        return self.folder / "ledger.db"
