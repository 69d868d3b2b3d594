"""A bench in, the cells of its table out: one row a step, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from engine.bench.orders import Bench, BenchStep
from engine.progress.figures import count, rate

HEADER = (
    "step",
    "created",
    "records/s",
    "p50 s",
    "p90 s",
    "p99 s",
    "p99.9 s",
    "max s",
    "measured",
    "failed",
    "unfinished",
    "429",
    "errors",
    "retries",
    "",
)
"""`measured`: records that the percentiles count, with those that a stall kept from being sent."""
TROUBLE = frozenset({"failed", "unfinished", "429", "errors", "retries"})
"""Columns that are shown only if there was any."""


def rows(bench: Bench) -> Sequence[Sequence[str]]:
    """Return the header, and a row for each step."""
    table = [HEADER, *(_row(step, _remark(bench, place)) for place, step in enumerate(bench.steps))]
    columns = [column for column in zip(*table, strict=True) if column[0] not in TROUBLE or set(column[1:]) - {"0"}]
    return list(zip(*columns, strict=True))


def _remark(bench: Bench, place: int) -> str:
    knee = bench.knee is not None and bench.knee.place == place
    best = bench.best is bench.steps[place]
    return ", ".join(word for word, holds in (("knee", knee), ("best", best)) if holds)


def _row(step: BenchStep, remark: str) -> Sequence[str]:
    measure, times = step.measure, step.measure.corrected
    return (
        step.load.label,
        count(measure.created),
        rate(measure.throughput),
        *(f"{seconds:.3f}" for seconds in (times.p50, times.p90, times.p99, times.p999, times.longest)),
        count(times.count),
        count(measure.failed),
        count(measure.unfinished),
        count(measure.pushed_back),
        count(measure.errors),
        count(measure.retries),
        remark,
    )
