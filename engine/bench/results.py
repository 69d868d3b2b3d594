"""What a person wants measured, what that may create, and what came of it: as values, as JSON and as a table.

The command reads the order, `commands.bench` makes the results, and the screen and the page show them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from engine.bench.loads import Knee, Load
from engine.bench.meter import Measure
from engine.model.outcome import Tally
from engine.progress.histogram import Percentiles
from engine.progress.text import count, duration, rate

DEFAULT_RECORDS = 10_000
DEFAULT_SECONDS = 10.0

MANY_BATCHES = 24
"""With fewer, one that happens to fall into another moment shows in the figures of its step."""
LONG_PAUSE_SECONDS = 1.0
LASTING_PAUSES = 2.0
"""Times the longest wait that a step must last for its throughput to be that of waits and work together."""
COLUMNS: Mapping[str, Callable[[Measure], str]] = {
    "created": lambda found: count(found.created),
    "records/s": lambda found: rate(found.throughput),
    "p50 s": lambda found: f"{found.time_to_created.p50:.3f}",
    "p90 s": lambda found: f"{found.time_to_created.p90:.3f}",
    "p99 s": lambda found: f"{found.time_to_created.p99:.3f}",
    "p99.9 s": lambda found: f"{found.time_to_created.p999:.3f}",
    "max s": lambda found: f"{found.time_to_created.longest:.3f}",
    "measured": lambda found: count(found.time_to_created.count),
    "failed": lambda found: count(found.failed),
    "unfinished": lambda found: count(found.unfinished),
    "429": lambda found: count(found.answers_429),
    "errors": lambda found: count(found.errors),
    "retries": lambda found: count(found.retries),
}
"""`measured`: records that the percentiles count, with those that a stall kept from being sent."""
TROUBLE = frozenset({"failed", "unfinished", "429", "errors", "retries"})
"""Columns that are shown only if there was any."""
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class BenchOrder(Struct, frozen=True):
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


class BenchPlan(Struct, frozen=True):
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


class BenchStep(Struct, frozen=True):
    """A load and what was measured under it."""

    load: Load
    job: str
    """Its name in the ledger."""
    started: float
    """Seconds after the first step began."""
    measure: Measure

    @property
    def is_bursty(self) -> bool:
        """Calls had to wait, and the step was too short for several such waits: its throughput does not last."""
        return self.measure.longest_pause_seconds >= max(LONG_PAUSE_SECONDS, self.measure.seconds / LASTING_PAUSES)

    @property
    def is_short(self) -> bool:
        """It had its time, and too few batches were sent to rely on its figures."""
        return self.measure.batches < MANY_BATCHES and not self.measure.unfinished


class Bench(Struct, frozen=True):
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
                    f"Step {step.load.label}: calls waited for {duration(step.measure.longest_pause_seconds)}: "
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


def document(bench: Bench) -> dict[str, Any]:
    """Return everything that was measured; times in seconds, throughput in records per second."""
    plan = bench.plan
    return {
        "service": {"kind": plan.kind, "host": plan.host, "project": plan.project},
        "loop": "open" if any(load.rate is not None for load in plan.loads) else "closed",
        "seconds_per_step": bench.seconds,
        "seed": bench.seed,
        "settings": bench.settings,
        "steps": [_step(step) for step in bench.steps],
        "knee": _knee(bench),
        "best": bench.best.load.label if bench.best else None,
        "ended": bench.ended,
        "hints": bench.hints,
        "created": bench.tally.created,
        "failed": bench.tally.failed,
        "rejected": bench.tally.rejected,
        "uncertain": bench.tally.uncertain,
        "unresolved": bench.tally.unresolved,
        "exit_code": int(bench.exit_code),
        "files": {
            "outcomes": str(bench.outcomes),
            "json": str(bench.folder / "bench.json"),
            "html": str(bench.folder / "bench.html"),
            "ledger": str(bench.ledger),
        },
    }


def _knee(bench: Bench) -> Mapping[str, Any] | None:
    if bench.knee is None:
        return None
    return {"step": bench.steps[bench.knee.place].load.label, "reason": bench.knee.reason}


def _step(step: BenchStep) -> dict[str, Any]:
    load, measure = step.load, step.measure
    return {
        "load": load.label,
        "in_flight": load.in_flight,
        "rate": load.rate,
        "most_records": load.records,
        "batch_records": load.batch_records,
        "job": step.job,
        "started_seconds": round(step.started, 3),
        **to_builtins(measure),
        "seconds": round(measure.seconds, 3),
        "throughput": round(measure.throughput, 2),
        "time_to_created": _percentiles(measure.time_to_created),
        "time_to_created_uncorrected": _percentiles(measure.time_to_created_uncorrected),
        "longest_pause_seconds": round(measure.longest_pause_seconds, 3),
    }


def _percentiles(times: Percentiles) -> dict[str, Any]:
    values = {"p50": times.p50, "p90": times.p90, "p99": times.p99, "p99.9": times.p999, "max": times.longest}
    return {
        "count": times.count,
        **{name: round(seconds, 6) for name, seconds in values.items()},
        "records_beyond": {name: times.beyond(share) for name, share in SHARES.items()},
    }


def rows(bench: Bench) -> Sequence[Sequence[str]]:
    """Return the header, and a row for each step."""
    table = [("step", *COLUMNS, "")]
    for place, step in enumerate(bench.steps):
        found = [said(step.measure) for said in COLUMNS.values()]
        table.append((step.load.label, *found, _remark(bench, place)))
    columns = [column for column in zip(*table, strict=True) if column[0] not in TROUBLE or set(column[1:]) - {"0"}]
    return list(zip(*columns, strict=True))


def _remark(bench: Bench, place: int) -> str:
    knee = bench.knee is not None and bench.knee.place == place
    best = bench.best is bench.steps[place]
    return ", ".join(word for word, holds in (("knee", knee), ("best", best)) if holds)
